"""What training makes small, and by which parameters."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyzoo.checks import require_count, require_kind, require_number
from pyzoo.settings import Above
from pyzoo.training.schedules import Schedule

__all__ = ["Objective"]


@dataclasses.dataclass
class Objective:
    """One loss, the parameters that it moves, and how.

    Args:
        module: its ``forward(**batch)`` returns the loss, 0-dim, and a dict of named 0-dim terms to log; a checkpoint holds its
            buffers and parameters.
        optimizer: a factory, from parameters to the optimizer: ``partial(torch.optim.Adam, lr=1e-3, fused=True)``.
        moves: the parameters that this objective moves, or dicts of optimizer options that each have "params"; by default all
            of the module's.
        scheduler: a factory, from the optimizer to the scheduler of its learning rate, which is stepped after each step.
        schedules: buffers that change with the training step: KL weights, temperatures.
        name: put before the names of its terms in metrics.csv, where there is more than one objective.
        every: takes a step every so many training steps.
        clip_norm: largest norm of the gradient, or None.
        after_step: called after each step of the optimizer with the loss and its terms, detached, on the device.

    Example:
        >>> from functools import partial
        >>> objective = Objective(torch.nn.Linear(2, 1), partial(torch.optim.Adam, lr=1e-3))
        >>> len(objective.parameters)
        2
    """

    module: nn.Module
    optimizer: Callable[[Any], Optimizer]
    moves: Sequence[nn.Parameter] | Sequence[Mapping[str, Any]] | None = None
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    schedules: Sequence[Schedule] = ()
    name: str = ""
    every: int = 1
    clip_norm: float | None = None
    after_step: Callable[[Tensor, Mapping[str, Tensor]], None] | None = None

    def __post_init__(self) -> None:
        require_kind(self.module, "module", nn.Module)
        require_kind(self.optimizer, "optimizer", Callable)
        require_kind(self.name, "name", str)
        require_count(self.every, "every")
        require_kind(self.moves, "moves", Sequence, type(None))
        for place, group in enumerate(self.moves or ()):
            require_kind(group, f"entry {place} of moves", nn.Parameter, Mapping)
            if isinstance(group, Mapping) and "params" not in group:
                raise ValueError(f"Entry {place} of moves must have 'params', got {sorted(group)}.")
        require_kind(self.scheduler, "scheduler", Callable, type(None))
        require_kind(self.after_step, "after_step", Callable, type(None))
        require_kind(self.schedules, "schedules", Sequence)
        for place, schedule in enumerate(self.schedules):
            require_kind(schedule, f"entry {place} of schedules", Schedule)
        if self.clip_norm is not None:
            require_number(self.clip_norm, "clip_norm", Above(0))

    @property
    def groups(self) -> list[Any]:
        """What an optimizer is made from: copies, since torch writes the options of a group into its dict."""
        moves = self.module.parameters() if self.moves is None else self.moves
        return [dict(group) if isinstance(group, Mapping) else group for group in moves]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that it moves."""
        return [p for group in self.groups for p in (group["params"] if isinstance(group, Mapping) else [group])]

    def column(self, name: str) -> str:
        """The column of metrics.csv for one of its terms."""
        return f"{self.name}/{name}" if self.name else name
