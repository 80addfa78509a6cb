"""Adam over all but large parameters as one piece of memory, for a step that is compiled as a whole."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

__all__ = ["FlatAdam"]

Tensors = Mapping[str, Tensor]

LARGE = 2**20
"""Numbers of a parameter that stays alone."""


class FlatAdam:
    """The parameters that an Adam of torch's moves, and its averages, each group of them as one tensor, but for large ones.

    A step over hundreds of parameters then is one loop over memory, which a compiler fuses. A large parameter stays alone: to
    gather its gradient with others' would cost time and memory, and its own loop is long enough. The optimizer stays where
    options are read and state is kept: its parameters and averages become views of these tensors, so that learning rates can be
    scheduled, and states saved and restored, as with its own step. Where one of its parameters or its state has been replaced,
    this is no longer current, and another one is to be made.

    Args:
        optimizer: whose step this replaces; see :meth:`of`.
        groups: of its ``param_groups``, the options and the parameters that are moved.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> flat = FlatAdam.of(torch.optim.Adam(layer.parameters(), lr=0.1), list(layer.parameters()))
        >>> flat.move(flat.tensors(), [torch.tensor([1.0, -2.0, 0.0])], torch.tensor(True))
        >>> flat.tensors()[0]["counts"]  # steps that each parameter has taken
        tensor([1., 1.])
    """

    def __init__(self, optimizer: Optimizer, groups: Sequence[tuple[dict[str, Any], list[nn.Parameter]]]) -> None:
        if (former := _of(optimizer)) is not None:
            former.release()
        self.optimizer = optimizer
        self._state = optimizer.state
        self._groups = [_Group(options, parameters, optimizer) for options, parameters in groups]
        self._parameters = [p for group in self._groups for p in group.parameters]
        self._hook = optimizer.register_step_pre_hook(lambda *_: self.release())
        optimizer._flat_adam = self  # type: ignore[attr-defined]  # which copies of the optimizer do not have

    @classmethod
    def of(cls, optimizer: Optimizer, parameters: Collection[nn.Parameter]) -> "FlatAdam | None":
        """That of an optimizer and those of its parameters that are to be moved; None where only torch's own step will do.

        Its own step will do for other kinds of Adam, for parameters that are not alike in type and device, not contiguous or
        in shared memory, for those of a group that have taken different numbers of steps, and where hooks are called.
        """
        if type(optimizer) not in (Adam, AdamW) or _has_hooks(optimizer, parameters):
            return None
        if len({p.data_ptr() for p in parameters if p.numel()}) < sum(p.numel() > 0 for p in parameters):
            return None
        moved = {id(parameter) for parameter in parameters}
        groups = [(group, [p for p in group["params"] if id(p) in moved]) for group in optimizer.param_groups]
        groups = [(group, chosen) for group, chosen in groups if chosen]
        if sum(len(chosen) for _, chosen in groups) != len(moved) or not groups:
            return None
        if not all(_suits(group, chosen, optimizer) for group, chosen in groups):
            return None
        return cls(optimizer, [(group, piece) for group, chosen in groups for piece in _pieces(chosen)])

    @property
    def form(self) -> tuple[Any, ...]:
        """What is a constant of a graph that moves these parameters."""
        return tuple(group.form for group in self._groups)

    def is_current(self, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether these are the parameters, and they and the optimizer's state are still where they were put."""
        return (
            _of(self.optimizer) is self
            and self.optimizer.state is self._state
            and len(parameters) == len(self._parameters)
            and {id(p) for p in parameters} == {id(p) for p in self._parameters}
            and all(group.is_current(self.optimizer) for group in self._groups)
            and not _has_hooks(self.optimizer, self._parameters)
        )

    def tensors(self) -> list[Tensors]:
        """What a step reads and writes, by group, with the options of now."""
        return [group.tensors() for group in self._groups]

    def views(self, tensors: Sequence[Tensors]) -> dict[int, Tensor]:
        """The parameters, by their id, as views of such tensors."""
        return {id(p): view for group, kept in zip(self._groups, tensors, strict=True) for p, view in group.views(kept)}

    def gathered(self, gradients: Mapping[int, Tensor]) -> list[Tensor]:
        """Gradients by the id of their parameters, as one tensor for each group."""
        return [_joined([gradients[id(p)] for p in group.parameters]) for group in self._groups]

    def move(self, tensors: Sequence[Tensors], gradients: Sequence[Tensor], good: Tensor) -> None:
        """Takes a step in place, unless it is not good.

        Args:
            tensors: such as :meth:`tensors` gives.
            gradients: of each group.
            good: whether the step is to be taken, 0-dim, boolean.
        """
        for group, kept, gradient in zip(self._groups, tensors, gradients, strict=True):
            group.move(kept, gradient, good)

    def release(self) -> None:
        """Leaves the parameters to torch's own step; where no step was taken, it finds no state."""
        if _of(self.optimizer) is not self:
            return
        del self.optimizer._flat_adam  # type: ignore[attr-defined]
        self._hook.remove()
        for group in self._groups:
            if not group.counts.any():
                for parameter, kept in zip(group.parameters, group.states, strict=True):
                    if self._state.get(parameter) is kept:
                        del self._state[parameter]


def _of(optimizer: Optimizer) -> FlatAdam | None:
    """The one that an optimizer has now."""
    return getattr(optimizer, "_flat_adam", None)


def _has_hooks(optimizer: Optimizer, parameters: Collection[nn.Parameter]) -> bool:
    """Whether something is called at torch's own step, or at a parameter's gradient, besides the hook of ours."""
    of_steps = len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)
    return of_steps > (_of(optimizer) is not None) or any(p._backward_hooks or p._post_accumulate_grad_hooks for p in parameters)


def _is_plain(options: Mapping[str, Any]) -> bool:
    return not (options["amsgrad"] or options["maximize"] or options["differentiable"] or options["capturable"])


def _suits(options: Mapping[str, Any], parameters: Sequence[nn.Parameter], optimizer: Optimizer) -> bool:
    first = parameters[0]
    alike = all(
        (p.dtype, p.device) == (first.dtype, first.device) and p.is_contiguous() and p.layout is torch.strided for p in parameters
    )
    states = [optimizer.state.get(p, {}) for p in parameters]
    steps = {float(state["step"]) if state else 0.0 for state in states}
    kind = first.dtype in (torch.float32, torch.float64) and first.device.type in ("cpu", "cuda")
    kept = all(
        (average.dtype, average.shape) == (p.dtype, p.shape)
        for p, state in zip(parameters, states, strict=True)
        for name, average in state.items()
        if name != "step"
    )
    return _is_plain(options) and alike and kind and kept and len(steps) == 1


def _pieces(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The small parameters of a group together, and each large one alone."""
    small = [p for p in parameters if p.numel() < LARGE]
    return ([small] if small else []) + [[p] for p in parameters if p.numel() >= LARGE]


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of some tensors, one after the other."""
    return tensors[0].reshape(-1) if len(tensors) == 1 else torch.cat([tensor.reshape(-1) for tensor in tensors])


class _Group:
    """The parameters of one group that are moved, and what Adam keeps of them."""

    def __init__(self, options: dict[str, Any], parameters: list[nn.Parameter], optimizer: Optimizer) -> None:
        self.options = options
        self.parameters = parameters
        self.decoupled = type(optimizer) is AdamW or bool(options.get("decoupled_weight_decay"))
        first = parameters[0]
        self.sizes = [p.numel() for p in parameters]
        states = [optimizer.state.get(p, {}) for p in parameters]
        with torch.no_grad():
            self.values = _joined(parameters).detach()
            self.averages = {
                # Copied even where there is but one: a state that was loaded is still the dict's that it was loaded from.
                name: torch.cat(
                    [state.get(name, torch.zeros_like(p)).reshape(-1) for p, state in zip(parameters, states, strict=True)]
                )
                for name in ("exp_avg", "exp_avg_sq")
            }
        taken = float(states[0]["step"]) if states[0] else 0.0
        self.counts = torch.full((len(parameters),), taken, dtype=torch.float32, device=first.device)
        self._views = [value for _, value in self.views({"values": self.values})]
        for p, value in zip(parameters, self._views, strict=True):
            p.data = value
        kept = {name: dict(self.views({"values": average})) for name, average in self.averages.items()}
        steps = self.counts.unbind()
        self.states = [
            {"step": step, **{name: views[p] for name, views in kept.items()}} for p, step in zip(parameters, steps, strict=True)
        ]
        self._kept = [tuple(state.items()) for state in self.states]
        for p, state in zip(parameters, self.states, strict=True):
            optimizer.state[p] = state
        self._numbers: tuple[float, ...] = ()

    def is_current(self, optimizer: Optimizer) -> bool:
        """Whether the options are still the optimizer's and suit, and parameters and state are where they were put."""
        if not (_is_plain(self.options) and any(options is self.options for options in optimizer.param_groups)):
            return False
        of = optimizer.state
        for p, value, state, kept in zip(self.parameters, self._views, self.states, self._kept, strict=True):
            if not (p.is_set_to(value) and of.get(p) is state and len(state) == len(kept)):
                return False
            if not all(state.get(name) is tensor for name, tensor in kept):
                return False
        return True

    @property
    def form(self) -> tuple[Any, ...]:
        decays = self.options["weight_decay"] != 0
        return tuple(id(p) for p in self.parameters), self.decoupled, decays, self.values.dtype, self.values.device

    def views(self, kept: Tensors) -> list[tuple[nn.Parameter, Tensor]]:
        parts = kept["values"].split(self.sizes)
        return [(p, part.view(p.shape)) for p, part in zip(self.parameters, parts, strict=True)]

    def tensors(self) -> dict[str, Tensor]:
        options = self.options
        numbers = tuple(float(each) for each in (options["lr"], *options["betas"], options["eps"], options["weight_decay"]))
        if numbers != self._numbers:
            rate, beta1, beta2, eps, decay = numbers
            if numbers[1:3] != self._numbers[1:3]:
                self.betas = torch.tensor([beta1, beta2], dtype=torch.float64, device=self.values.device)
                self.corrections = _corrections(self.betas, self.counts[0]).to(self.values.dtype)
            # 1 - beta in double precision: 1 - 0.999 in single precision has five digits.
            self.numbers = self.values.new_tensor([rate, 1 - beta1, beta2, 1 - beta2, eps, decay])
            self._numbers = numbers
        return {
            "values": self.values,
            **self.averages,
            "counts": self.counts,
            "betas": self.betas,
            "corrections": self.corrections,
            "numbers": self.numbers,
        }

    def move(self, kept: Tensors, gradient: Tensor, good: Tensor) -> None:
        values, mean, square = kept["values"], kept["exp_avg"], kept["exp_avg_sq"]
        rate, less1, beta2, less2, eps, decay = kept["numbers"].unbind()
        first, second = kept["corrections"].unbind()  # of this step: made in the one before, since pow is slow in a loop
        moved = values
        if self.options["weight_decay"] != 0 and self.decoupled:
            moved = values * (1 - rate * decay)
        elif self.options["weight_decay"] != 0:
            gradient = gradient + decay * values
        new_mean = mean + (gradient - mean) * less1
        new_square = square * beta2 + (gradient * less2) * gradient  # the square alone may overflow
        moved = moved - rate * first * new_mean / (new_square.sqrt() * second + eps)
        values.copy_(torch.where(good, moved, values))
        mean.copy_(torch.where(good, new_mean, mean))
        square.copy_(torch.where(good, new_square, square))
        counts = kept["counts"] + good
        kept["corrections"].copy_(_corrections(kept["betas"], counts[0]))
        kept["counts"].copy_(counts)


def _corrections(betas: Tensor, steps: Tensor) -> Tensor:
    """Of both averages in the step that follows some steps, as factors: 1 / (1 - beta1^n), and 1 / sqrt(1 - beta2^n)."""
    first, second = (1 - betas ** (steps.double() + 1)).unbind()
    return torch.stack([1 / first, second.rsqrt()])
