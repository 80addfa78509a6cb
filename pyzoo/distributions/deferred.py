"""A point that is computed only where nobody else gives it."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyzoo.checks import require_kind, require_tensor

__all__ = ["Deferred"]


class Deferred(TorchDistribution):
    """A point mass at a value that is computed when it is drawn: a deterministic site whose value a guide may hand on.

    Where a guide has computed what the model needs, the model's site takes the guide's value, and the computation here is never
    made. The density is not that of a point: the site is to be left unscored, by ``.mask(False)``.

    Args:
        compute: gives the value, whose shape is the batch shape and then the event shape.
        batch_shape: the batch shape.
        event_shape: the event shape.

    Raises:
        ValueError: an argument is none of these; or, when it is drawn, the value has another shape.

    Example:
        >>> Deferred(lambda: torch.ones(2, 3), (2,), (3,))().shape
        torch.Size([2, 3])
    """

    arg_constraints: ClassVar = {}
    has_rsample = True

    def __init__(self, compute: Callable[[], Tensor], batch_shape: Sequence[int] = (), event_shape: Sequence[int] = ()) -> None:
        require_kind(compute, "compute", Callable)
        self._compute = compute
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.event_dim) if self.event_dim else constraints.real

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        value = self._compute()
        require_tensor(value, "what compute returns")
        if value.shape != self.batch_shape + self.event_shape:
            raise ValueError(f"The value must be {tuple(self.batch_shape + self.event_shape)}, got {tuple(value.shape)}.")
        return value.expand(*sample_shape, *value.shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Deferred":
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(f"The batch shape of a value that is not computed yet can't be changed to {tuple(batch_shape)}.")
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        require_tensor(value, "value")
        return value.new_zeros(value.shape[: value.dim() - self.event_dim])
