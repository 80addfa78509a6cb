"""Divergences among several normals in closed form."""

from numbers import Integral

import torch
from torch import Tensor

from pyzoo.checks import require_floating, require_tensor

__all__ = ["dual_geometric_jensen_shannon"]


def dual_geometric_jensen_shannon(loc: Tensor, scale: Tensor, weights: Tensor | None = None, dim: int = -2) -> Tensor:
    r"""How far normals are from their geometric mean, each in its turn.

    .. math:: \mathrm{JS}^G_*(p_1, \ldots, p_N) = \sum_i w_i\, \mathrm{KL}(g \| p_i) = -\log \int \prod_i p_i(z)^{w_i} dz,
        \qquad g \propto \prod_i p_i^{w_i}, \quad w_i \ge 0, \quad \sum_i w_i = 1

    The second form shows that it is the negative logarithm of the mean's normalizer; g is normal too. It is zero only if the
    normals of positive weight are one.

    Source: Nielsen (2019), "On the Jensen-Shannon Symmetrization of Distances Relying on Abstract Means", definition 8 with
    geometric means. Zhang et al. (2020), eq. 16, write a sum of KLs as this divergence, which it is not, since one of the weights
    would be negative; their models are trained by the sum (:mod:`pyzoo.recipes.mib.methods`).

    Args:
        loc: means, with the normals along dimension ``dim``.
        scale: standard deviations, positive; broadcasts with loc.
        weights: w_i along that dimension; broadcasts with loc; equal ones by default.
        dim: the dimension that the normals stand along, negative.

    Returns:
        In nats, the shape of loc without that dimension.

    Raises:
        ValueError: a weight is negative, or they do not sum to 1; a mean is not finite, or a scale not positive and finite; an
            argument is not floating-point, or shapes do not fit; or there is no such dimension.

    Example:
        >>> dual_geometric_jensen_shannon(torch.tensor([[0.0], [2.0]]), torch.ones(2, 1))
        tensor([0.5000])
    """
    require_tensor(loc, "loc")
    require_tensor(scale, "scale")
    if not loc.is_floating_point() or not scale.is_floating_point():
        raise ValueError(f"loc and scale must be floating-point tensors, got {loc.dtype} and {scale.dtype}.")
    if isinstance(dim, bool) or not isinstance(dim, Integral) or not -loc.dim() <= dim < 0 or not loc.shape[dim]:
        raise ValueError(f"dim must be negative and a dimension of loc with normals along it, got {dim} for {tuple(loc.shape)}.")
    if weights is None:
        weights = torch.full_like(loc, 1 / loc.shape[dim])
    require_floating(weights, "weights")
    try:
        fits = torch.broadcast_shapes(loc.shape, scale.shape, weights.shape) == loc.shape
    except RuntimeError:
        fits = False
    if not fits or (weights.dim() >= -dim and weights.shape[dim] != loc.shape[dim]):
        shapes = f"{tuple(loc.shape)}, {tuple(scale.shape)} and {tuple(weights.shape)}"
        raise ValueError(f"scale and weights must broadcast to loc, and weights have all normals, got {shapes}.")
    loc, scale, weights = torch.broadcast_tensors(loc, scale, weights)
    if not loc.isfinite().all() or not ((scale > 0) & scale.isfinite()).all():
        raise ValueError(f"Means must be finite and scales positive and finite, got scales from {scale.min().item():.3g}.")
    precisions = 1 / scale.square()
    if not ((precisions > 0) & precisions.isfinite()).all():
        ends = f"{scale.min().item():.3g} and {scale.max().item():.3g}"
        raise ValueError(f"The precision of a normal of scale {ends} is beyond what {scale.dtype} can hold.")
    # Each weight is rounded, by at most a share of itself; their sum is taken in double precision.
    tolerance = 1e-5 + torch.finfo(weights.dtype).eps
    if not (weights >= 0).all() or not ((weights.double().sum(dim) - 1).abs() <= tolerance).all():
        raise ValueError("Weights must be at least 0 and sum to 1 along the dimension of the normals.")
    loc = loc - loc.narrow(dim, 0, 1).detach()  # only differences count, and means far from zero leave them few digits
    shares = weights / scale.square()
    precision = shares.sum(dim, keepdim=True)
    mean = (shares * loc).sum(dim, keepdim=True) / precision
    logs = 2 * (weights * scale.log()).sum(dim) + precision.squeeze(dim).log()
    divergence = (logs + (shares * (loc - mean).square()).sum(dim)) / 2
    if not divergence.isfinite().all():
        raise ValueError(f"The means are too far apart for {loc.dtype}.")
    return divergence
