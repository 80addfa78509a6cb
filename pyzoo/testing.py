"""Checks for distributions, models and guides: pyzoo's own, and yours.

Each raises an AssertionError that says what does not hold.
"""

import copy
import pickle
from collections.abc import Callable, Mapping

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor, nn

from pyzoo.infer import TraceKL_ELBO

__all__ = ["check_distribution", "check_elbo", "check_svi"]


def check_distribution(make: Callable[..., TorchDistribution], params: Mapping[str, Tensor], num_samples: int = 50_000) -> None:
    """Checks that a continuous distribution is a full citizen of Pyro.

    Shapes, expand, masks, ``to_event``, pickling and copying, dtypes, mean and variance against samples, entropy (where there
    is one) against the density, and the gradients of samples against those of the moments.

    Args:
        make: the class, or a function, from the parameters to the distribution.
        params: parameters with at least one batch dimension.
        num_samples: for the Monte Carlo parts; errors are judged by their standard error.

    Example:
        >>> check_distribution(dist.Gamma, {"concentration": torch.rand(3) + 1, "rate": torch.rand(3) + 1})
    """
    d = make(**params)
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
        _assert_mean_is(samples, d.mean, "the mean")
        _assert_mean_is(squares, d.variance, "the variance")
        try:
            entropy = d.entropy()
        except NotImplementedError:
            return
        _assert_mean_is(-d.log_prob(samples), entropy, "the entropy")


def _assert_mean_is(samples: Tensor, mean: Tensor, what: str) -> None:
    """The average over the first dimension, within six standard errors."""
    error = (samples.mean(0) - mean).abs()
    bound = 6 * samples.std(0) / len(samples) ** 0.5 + 1e-5
    assert (error <= bound).all(), f"{what} and samples differ by {(error / bound).max().item() * 6:.1f} standard errors"


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
        _assert_mean_is(torch.stack(estimates), gradient, f"the gradient of samples by {name}")


def check_elbo(model: nn.Module, guide: nn.Module, batch: Mapping[str, Tensor], num_samples: int = 200) -> None:
    """Checks the guide's analytic marks: TraceKL_ELBO and Trace_ELBO agree in value and in gradient, in expectation.

    The gradient is compared along 8 random directions of all parameters, each within six standard errors.

    Args:
        model: the generative program.
        guide: the inference program.
        batch: their keyword arguments.
        num_samples: how often to draw each estimate.
    """
    parameters = [p for p in {*model.parameters(), *guide.parameters()} if p.requires_grad]
    directions = [[torch.randn_like(p) for p in parameters] for _ in range(8)]
    names = ["value", *(f"gradient along direction {i}" for i in range(len(directions)))]

    def draw(elbo) -> Tensor:
        loss = elbo.differentiable_loss(model, guide, **batch)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = [[(g * v).sum() for g, v in zip(gradients, d, strict=True) if g is not None] for d in directions]
        return torch.stack([loss.detach(), *(torch.stack(pair).sum() for pair in pairs)]).double()

    ours, theirs = (torch.stack([draw(elbo) for _ in range(num_samples)]) for elbo in (TraceKL_ELBO(), Trace_ELBO()))
    error = (ours.mean(0) - theirs.mean(0)).abs()
    bound = 6 * ((ours.var(0) + theirs.var(0)) / num_samples).sqrt() + 1e-4 * theirs.mean(0).abs()
    for name, e, b in zip(names, error.tolist(), bound.tolist(), strict=True):
        assert e <= b, f"{name} differs by {6 * e / b:.1f} standard errors: is each analytic mark of the guide valid?"


def check_svi(model: nn.Module, guide: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Checks that the pair takes a plain ``SVI`` step in which every trainable parameter moves, and no buffer becomes one.

    Clears Pyro's parameter store.
    """
    pyro.clear_param_store()
    modules = {"model": model, "guide": guide}
    before = {f"{m}.{name}": p.detach().clone() for m, module in modules.items() for name, p in module.named_parameters()}
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step(**batch)
    after = {f"{m}.{name}": p.detach() for m, module in modules.items() for name, p in module.named_parameters()}
    assert before.keys() == after.keys(), f"parameters appeared: {sorted(after.keys() - before.keys())}"
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert not still, f"parameters did not move: {still}"
