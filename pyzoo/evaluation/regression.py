"""How well one tensor predicts another."""

import torch
from torch import Tensor

from pyzoo.checks import require_tensor

__all__ = ["pooled_r2"]


def _beyond_floats(values: Tensor) -> bool:
    """Whether any whole number is too large to be told apart from its neighbors as a float."""
    if values.dtype == torch.uint64:  # torch can't compare these
        return bool((values.view(torch.int64) < 0).any()) or int(values.view(torch.int64).max()) > 2**53
    values = values.long()
    return int(values.max()) > 2**53 or int(values.min()) < -(2**53)


def pooled_r2(target: Tensor, estimate: Tensor) -> float:
    r"""Share of the target's variance that the estimate explains, pooled over all of its entries.

    .. math:: R^2 = 1 - \frac{\sum_n |x_n - \hat x_n|^2}{\sum_n |x_n - \bar x|^2}

    with the mean taken for each time step or pixel. (scikit-learn's ``r2_score(multioutput="variance_weighted")`` leaves out
    entries that do not vary; here errors in them count. As there, of a target that does not vary at all it is 1 for a perfect
    estimate, else 0.)

    Args:
        target: x, (examples, ...).
        estimate: of the same shape.

    Raises:
        ValueError: the shapes differ, there are no examples, or a number is not finite.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
        >>> pooled_r2(x, x), pooled_r2(x, x.mean(0).expand(2, 2))
        (1.0, 0.0)
    """
    require_tensor(target, "target")
    require_tensor(estimate, "estimate")
    if target.shape != estimate.shape or not target.numel():
        raise ValueError(
            f"target and estimate must have one shape and examples, got {tuple(target.shape)} and {tuple(estimate.shape)}."
        )
    if target.is_complex() or estimate.is_complex():
        raise ValueError("target and estimate must be real numbers.")
    for name, values in (("target", target), ("estimate", estimate)):
        if not values.is_floating_point() and values.dtype != torch.bool and _beyond_floats(values):
            raise ValueError(f"{name} has whole numbers beyond 2^53, which can't be told apart as floats.")
    target, estimate = target.double(), estimate.double()
    if not (target.isfinite() & estimate.isfinite()).all():
        raise ValueError("target and estimate must be finite.")
    half = 0.5  # differences must not overflow, and their squares neither overflow nor vanish
    errors, deviations = half * target - half * estimate, half * target - (half * target).mean(0)
    unit = max(errors.abs().max().item(), deviations.abs().max().item()) or 1.0
    error, variance = ((values / unit).square().sum().item() for values in (errors, deviations))
    if variance == 0:
        return float(error == 0)
    return 1 - error / variance
