"""Numbers that change as training goes on: KL weights, temperatures, floors."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from pyzoo.checks import require_floating, require_kind, require_names, require_number
from pyzoo.settings import Above, AtLeast, AtMost

__all__ = ["Schedule", "constant", "constant_linear", "cosine", "geometric", "linear", "warmup"]

Value = Callable[[int], float]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Moves buffers of a module as a function of the training step.

    Numbers that change are buffers, so that a checkpoint holds them and a traced step reads them.

    Args:
        module: the module that owns the buffers.
        buffers: their names within the module, which all get the same value.
        value: the value as a function of the training step.
        name: the column of metrics.csv; by default the first buffer's name.

    Example:
        >>> module = torch.nn.Module()
        >>> module.register_buffer("kl_weight_z", torch.tensor(0.0))
        >>> schedule = Schedule(module, "kl_weight_z", linear(5, 1, steps=100))
        >>> schedule.apply(50)
        >>> module.kl_weight_z
        tensor(3.)
    """

    module: nn.Module
    buffers: str | Sequence[str]
    value: Value
    name: str = ""

    def __post_init__(self) -> None:
        require_kind(self.module, "module", nn.Module)
        require_kind(self.buffers, "buffers", str, Sequence)
        require_kind(self.value, "value", Callable)
        if not self.buffers:
            raise ValueError("buffers must name at least one buffer.")
        known = [name for name, _ in self.module.named_buffers()]
        names = [self.buffers] if isinstance(self.buffers, str) else self.buffers
        require_names(names, known, "buffer")
        for name, buffer in zip(names, self._buffers, strict=True):
            require_floating(buffer, f"The buffer '{name}'")  # another would cut the value off

    @property
    def _buffers(self) -> list[torch.Tensor]:
        names = [self.buffers] if isinstance(self.buffers, str) else self.buffers
        return [self.module.get_buffer(name) for name in names]

    @property
    def column(self) -> str:
        """Its column in metrics.csv."""
        return self.name or (self.buffers if isinstance(self.buffers, str) else self.buffers[0])

    def apply(self, step: int) -> None:
        """Gives the buffers their value at a step."""
        value = self.value(step)
        require_number(value, f"the value of '{self.column}' at step {step}")
        for buffer in self._buffers:
            buffer.fill_(value)
            if abs(value) > torch.finfo(buffer.dtype).max:
                raise ValueError(f"the value of '{self.column}' at step {step}, {value:g}, is beyond {buffer.dtype}.")

    def current(self) -> float:
        """What the buffers hold."""
        return self._buffers[0].flatten()[0].item()


def progress(step: int, steps: float, start: float = 0.0) -> float:
    """How much of a schedule has passed, from 0 to 1; one without steps does not begin."""
    require_number(step, "step")
    return min(1.0, max(0.0, (step - start) / steps)) if steps else 0.0


def _check(first: float, last: float, steps: float, *limits: Above) -> None:
    require_number(first, "first", *limits)
    require_number(last, "last", *limits)
    require_number(steps, "steps", AtLeast(0))


def constant(value: float) -> Value:
    """The same at every step."""
    require_number(value, "value")
    return lambda step: value


def linear(first: float, last: float, steps: float, start: float = 0.0) -> Value:
    """From one value to another, from step ``start`` on, over so many steps; with 0 steps it stays at the first.

    Example:
        >>> [linear(5, 1, steps=10)(step) for step in (0, 5, 20)]
        [5.0, 3.0, 1.0]
    """
    _check(first, last, steps)
    require_number(start, "start")

    def value(step: int) -> float:  # so that both ends are met exactly, and nothing overflows between them
        share = progress(step, steps, start)
        return (1 - share) * first + share * last

    return value


def constant_linear(steps: float, share: float = 0.7) -> Value:
    """1 over a share of the steps, then in a straight line to 0: a run may be lengthened before the fall, and ends well.

    Example:
        >>> [round(constant_linear(100)(step), 1) for step in (0, 70, 85, 100)]
        [1.0, 1.0, 0.5, 0.0]
    """
    require_number(share, "share", AtLeast(0), AtMost(1))
    start = share * steps
    return linear(1.0, 0.0, steps - start, start)


def warmup(steps: float) -> Value:
    """From 0 to 1 over so many steps; with 0 steps it is 1 throughout."""
    return linear(0.0, 1.0, steps) if steps != 0 else constant(1.0)


def geometric(first: float, last: float, steps: float, start: float = 0.0) -> Value:
    """From one positive value to another by equal factors, from step ``start`` on; with 0 steps it stays at the first.

    Example:
        >>> [round(geometric(1, 0.01, steps=10)(step), 4) for step in (0, 5, 20)]
        [1.0, 0.1, 0.01]
    """

    _check(first, last, steps, Above(0))
    require_number(start, "start")

    def value(step: int) -> float:
        share = progress(step, steps, start)
        return first ** (1 - share) * last**share

    return value


def cosine(first: float, last: float, steps: float) -> Value:
    """From one value to another along half a period of a cosine."""
    _check(first, last, steps)
    return lambda step: last + (first - last) * (1 + math.cos(math.pi * progress(step, steps))) / 2
