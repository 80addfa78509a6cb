"""A step of an optimizer that nothing moves which is not finite."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

__all__ = ["are_finite", "update"]


def update(optimizer: Optimizer, parameters: Sequence[nn.Parameter], loss: Tensor, clip_norm: float | None = None) -> Tensor:
    """Takes a step of an optimizer by the gradients at its parameters, unless they or the loss are not finite.

    With a fused optimizer nothing waits for the device.

    Args:
        optimizer: torch's.
        parameters: those that it moves.
        loss: 0-dim, detached.
        clip_norm: largest norm of the gradient.

    Returns:
        1.0 if no step was taken, else 0.0; 0-dim, on the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    finite = loss.isfinite()
    if clip_norm is not None:
        norm = get_total_norm(gradients)
        clip_grads_with_norm_(parameters, clip_norm, norm)
        finite = finite & norm.isfinite()
    else:
        finite = finite & are_finite(gradients)
    bad = (~finite).to(torch.float32)
    if any(group.get("fused") for group in optimizer.param_groups):
        # Fused optimizers read the flag on the device, as they do for a gradient scaler.
        optimizer.found_inf = bad  # type: ignore[attr-defined]
        optimizer.step()
    elif not bad:  # others have no such flag: this waits for the device
        optimizer.step()
    return bad


def are_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether all entries of some tensors are finite, 0-dim, on their device.

    By their extremes: squares, as of the Euclidean norm, may overflow where no entry does.
    """
    tensors = [tensor for tensor in tensors if tensor.numel()]
    if not tensors:
        return torch.tensor(True)
    if tensors[0].device.type == "cpu":  # where the norm takes ten times as long
        extremes = [extreme for tensor in tensors for extreme in tensor.aminmax()]
    else:  # one kernel for all
        extremes = torch._foreach_norm(tensors, ord=float("inf"))
    return torch.stack(extremes).isfinite().all()
