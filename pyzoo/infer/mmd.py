"""The maximum mean discrepancy: a distance between distributions, from samples alone."""

import math
from numbers import Real

import torch
from torch import Tensor

from pyzoo.checks import require_broadcast, require_finite, require_floating, require_tensor

__all__ = ["gaussian_kernel", "squared_mmd", "squared_mmd_to_normal"]


def gaussian_kernel(x: Tensor, y: Tensor, bandwidth: float | None = None) -> Tensor:
    r"""The kernel of all that follows.

    .. math:: k(x, y) = \exp\left(-\frac{|x - y|^2}{2 h^2}\right)

    Args:
        x: (..., features).
        y: likewise; both broadcast.
        bandwidth: h; by default the square root of the number of features. Two draws from a standard normal are about the square
            root of two times that apart: k is between 1 / e and 0.58 for them on average, in any dimension.

    Returns:
        The shape that x and y broadcast to, without the last dimension.

    Raises:
        ValueError: the bandwidth is not positive, x and y have other numbers of features, or they are not finite floats.

    Example:
        >>> gaussian_kernel(torch.zeros(4), torch.ones(4))
        tensor(0.6065)
    """
    require_floating(x, "x")
    require_floating(y, "y")
    if not x.dim() or not y.dim() or x.shape[-1] != y.shape[-1] or not x.shape[-1]:
        raise ValueError(f"x and y must have as many features, one or more, got {tuple(x.shape)} and {tuple(y.shape)}.")
    require_broadcast(x=x.shape, y=y.shape)
    require_finite(x=x, y=y)
    scaled = (x - y) / (2**0.5 * _bandwidth(x, bandwidth))  # before it is squared, which half precision soon can't hold
    return (-scaled.square().sum(-1)).exp()


def squared_mmd(x: Tensor, y: Tensor, bandwidth: float | None = None) -> Tensor:
    r"""The squared maximum mean discrepancy between two samples, as distributions of their own.

    .. math:: \mathrm{MMD}^2 = \frac{1}{n^2} \sum_{i,j} k(x_i, x_j) + \frac{1}{m^2} \sum_{i,j} k(y_i, y_j)
        - \frac{2}{nm} \sum_{i,j} k(x_i, y_j)

    It is between 0 and 2, and 0 only for two samples with the same points in the same shares. As an estimate of the
    distributions' own discrepancy it is too large by some 1 / n + 1 / m.

    Source: Gretton et al. (2007), "A Kernel Method for the Two-Sample-Problem", eq. 6.

    Args:
        x: (n, features).
        y: (m, features).
        bandwidth: of :func:`gaussian_kernel`.

    Returns:
        0-dim; not in nats.

    Raises:
        ValueError: a sample is empty or not (examples, features), or the numbers of features differ.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> squared_mmd(x, x), squared_mmd(x, x + 100)
        (tensor(0.), tensor(1.6065))
    """
    _check(x=x, y=y)
    return _mean_kernel(x, x, bandwidth) + _mean_kernel(y, y, bandwidth) - 2 * _mean_kernel(x, y, bandwidth)


def squared_mmd_to_normal(x: Tensor, bandwidth: float | None = None) -> Tensor:
    r"""The squared maximum mean discrepancy between a sample and the standard normal, without drawing from that.

    With h the bandwidth and d the number of features, for y and y' drawn from N(0, I),

    .. math:: E\,k(x, y) = \left(\frac{h^2}{1 + h^2}\right)^{d/2} \exp\left(-\frac{|x|^2}{2 (1 + h^2)}\right), \qquad
        E\,k(y, y') = \left(\frac{h^2}{2 + h^2}\right)^{d/2}

    Args:
        x: (n, features).
        bandwidth: of :func:`gaussian_kernel`.

    Returns:
        0-dim; not in nats.

    Raises:
        ValueError: the sample is empty or not (examples, features).

    Example:
        >>> squared_mmd_to_normal(torch.zeros(1, 1), bandwidth=1.0)
        tensor(0.1631)
    """
    _check(x=x)
    square, half = _bandwidth(x, bandwidth) ** 2, x.shape[-1] / 2
    scaled = x / math.sqrt(2 * (1 + square))
    to_normal = (half * math.log(square / (1 + square)) - scaled.square().sum(-1)).exp().mean()
    return _mean_kernel(x, x, bandwidth) + (square / (2 + square)) ** half - 2 * to_normal


def _check(**samples: Tensor) -> None:
    """Raises a ValueError unless all are samples, and of as many features."""
    for name, sample in samples.items():
        require_tensor(sample, name)
        if sample.dim() != 2 or not sample.numel():
            raise ValueError(f"{name} must be (examples, features) with at least one of each, got {tuple(sample.shape)}.")
        require_floating(sample, name)
        require_finite(**{name: sample})
    if len({sample.shape[1] for sample in samples.values()}) > 1:
        shapes = " and ".join(str(tuple(sample.shape)) for sample in samples.values())
        raise ValueError(f"{' and '.join(samples)} must have as many features, got {shapes}.")


def _bandwidth(x: Tensor, bandwidth: float | None) -> float:
    if bandwidth is None:
        return math.sqrt(x.shape[-1])
    if not isinstance(bandwidth, Real) or not 0 < bandwidth < math.inf:
        raise ValueError(f"bandwidth must be positive and finite, got {bandwidth}.")
    if not 1e-18 < bandwidth < 1e18:
        raise ValueError(f"bandwidth must be between 1e-18 and 1e18, where single precision holds its square, got {bandwidth}.")
    return bandwidth


def _mean_kernel(x: Tensor, y: Tensor, bandwidth: float | None) -> Tensor:
    """The mean of k over all pairs."""
    return kernel_matrix(x, y, bandwidth).mean()


def kernel_matrix(x: Tensor, y: Tensor, bandwidth: float | None = None) -> Tensor:
    """k of all pairs, (n, m), in single precision or better; arguments as in :func:`squared_mmd`."""
    with torch.autocast(x.device.type, enabled=False):
        # Not by a product of matrices: near points' distance would be lost in it, all the more so in half precision.
        wide = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        x, y = x.to(wide), y.to(wide)
        distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        return (-distances.square() / (2 * _bandwidth(x, bandwidth) ** 2)).exp()
