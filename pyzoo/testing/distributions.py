"""The check of a distribution."""

import copy
import pickle
from collections.abc import Callable, Mapping

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from pyzoo.checks import require_count, require_floating, require_kind

__all__ = ["check_distribution"]


def check_distribution(make: Callable[..., TorchDistribution], params: Mapping[str, Tensor], num_samples: int = 50_000) -> None:
    """Checks that a continuous distribution is a full citizen of Pyro.

    Shapes, expand, masks, ``to_event``, pickling and copying, dtypes, mean and variance against samples, entropy (where there
    is one) against the density, and the gradients of samples against those of the moments.

    Args:
        make: the class, or a function, from the parameters to the distribution.
        params: parameters with at least one batch dimension.
        num_samples: for the Monte Carlo parts; errors are judged by their standard error.

    Raises:
        AssertionError: it says what does not hold.
        ValueError: make does not give a continuous distribution of the parameters.

    Example:
        >>> check_distribution(dist.Gamma, {"concentration": torch.rand(3) + 1, "rate": torch.rand(3) + 1})
    """
    require_count(num_samples, "num_samples", 2)
    require_kind(make, "make", Callable)
    require_kind(params, "params", Mapping)
    for name, value in params.items():
        require_floating(value, name)
    try:
        d = make(**params)
    except TypeError as error:
        raise ValueError(f"make does not take these params: {error}.") from error
    require_kind(d, "what make returns", TorchDistributionMixin)
    if d.support.is_discrete:
        raise ValueError("make must return a continuous distribution, and got a discrete one.")
    if not d.batch_shape.numel() * len(d.batch_shape):
        raise ValueError(f"params must have a batch dimension that is not empty, got batch shape {tuple(d.batch_shape)}.")
    _check_shapes(d)
    _check_expand(d)
    _check_copies(d)
    _check_dtypes(make, params)
    _check_moments(d, num_samples)
    if d.has_rsample:
        _check_gradients(make, params, num_samples)


def _check_shapes(d: TorchDistribution) -> None:
    for sample_shape in [(), (2,), (4, 2)]:
        value = d.sample(torch.Size(sample_shape))
        assert value.shape == d.shape(sample_shape), f"sample has shape {value.shape}, not {d.shape(sample_shape)}"
        log_prob = d.log_prob(value)
        assert log_prob.shape == torch.Size(sample_shape) + d.batch_shape, f"log_prob has shape {log_prob.shape}"
        assert d.support.check(value).all(), "a sample is outside the support"
    assert d.mean.shape == d.variance.shape == d.batch_shape + d.event_shape, "mean or variance has another shape than a sample"
    assert d.support.event_dim == d.event_dim, f"support has event_dim {d.support.event_dim}, the distribution {d.event_dim}"
    value = d.sample()
    joint = d.to_event(len(d.batch_shape))
    torch.testing.assert_close(joint.log_prob(value), d.log_prob(value).sum(), msg="to_event does not sum log_prob")
    mask = torch.arange(d.batch_shape.numel(), device=value.device).view(d.batch_shape) % 2 == 0
    masked = torch.where(mask, d.log_prob(value), 0.0)
    torch.testing.assert_close(d.mask(mask).log_prob(value), masked, msg="mask does not zero log_prob")


def _check_expand(d: TorchDistribution) -> None:
    for shape in [(3, *d.batch_shape), (2, 1, *d.batch_shape)]:
        wide = d.expand(torch.Size(shape))
        assert wide.shape() == torch.Size(shape) + d.event_shape, "expand gives another shape"
        assert wide.sample().shape == wide.shape(), "an expanded distribution samples another shape"
        value = d.sample()
        torch.testing.assert_close(wide.log_prob(value), d.log_prob(value).expand(shape), msg="expand changes log_prob")


def _check_copies(d: TorchDistribution) -> None:
    value = d.sample()
    for what, other in {"pickle": pickle.loads(pickle.dumps(d)), "deepcopy": copy.deepcopy(d)}.items():
        torch.testing.assert_close(other.log_prob(value), d.log_prob(value), msg=f"{what} changes log_prob")


def _check_dtypes(make: Callable[..., TorchDistribution], params: Mapping[str, Tensor]) -> None:
    for dtype in (torch.float32, torch.float64):
        d = make(**{name: value.to(dtype) if value.is_floating_point() else value for name, value in params.items()})
        value = d.sample()
        found = {value.dtype, d.log_prob(value).dtype, d.mean.dtype, d.variance.dtype}
        assert found == {dtype}, f"{dtype} parameters give {found}"


def _check_moments(d: TorchDistribution, num_samples: int) -> None:
    with torch.no_grad():
        samples = d.sample(torch.Size([num_samples]))
        squares = (samples - d.mean).square()
        _assert_mean_is(samples, d.mean, "the mean and samples differ by {}")
        _assert_mean_is(squares, d.variance, "the variance and samples differ by {}")
        try:
            entropy = d.entropy()
        except NotImplementedError:
            return
        _assert_mean_is(-d.log_prob(samples), entropy, "the entropy and the log-density of samples differ by {}")


def _assert_mean_is(samples: Tensor, mean: Tensor, message: str) -> None:
    """The average over the first dimension, within six standard errors; the message has a gap for their number."""
    error = (samples.mean(0) - mean).abs()
    bound = 6 * samples.std(0) / len(samples) ** 0.5 + 1e-5
    assert (error <= bound).all(), message.format(f"{(error / bound).max().item() * 6:.1f} standard errors")


def _check_gradients(make: Callable[..., TorchDistribution], params: Mapping[str, Tensor], num_samples: int) -> None:
    """Samples' gradients, on average, against those of the moments: of E[x + x^2] = mean + variance + mean^2."""
    params = {name: value.detach().double().clone().requires_grad_() for name, value in params.items()}

    def gradients(total: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(params.values(), found, strict=True)]

    d = make(**params)
    exact = gradients((d.mean + d.variance + d.mean.square()).sum())
    blocks, found = 50, []
    for _ in range(blocks):
        samples = make(**params).rsample(torch.Size([max(1, num_samples // blocks)]))
        found.append(gradients((samples + samples.square()).mean(0).sum()))
    for name, gradient, estimates in zip(params, exact, zip(*found, strict=True), strict=True):
        message = f"the gradient of rsample with respect to {name} is wrong: it differs from that of the moments by {{}}"
        _assert_mean_is(torch.stack(estimates), gradient, message)
