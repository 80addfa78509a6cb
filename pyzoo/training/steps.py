"""One step of training behind one protocol: gradient, clipping and optimizer, by different engines.

Nothing here waits for the device. A loss or gradient that is not finite is found on the device and keeps the optimizer from
moving; :attr:`Step.skipped` counts such steps, and is read when a row is logged.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyzoo.errors import UsageError
from pyzoo.infer import CompiledStep, NegativeELBO, TracedStep
from pyzoo.infer.graph import compilers_reason
from pyzoo.infer.traced import MOST_GRAPHS
from pyzoo.infer.update import update
from pyzoo.training.checkpoint import StepState, require_same_form
from pyzoo.training.objective import Objective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Captured", "Compiled", "Eager", "Step", "Traced", "make_step"]


class Step(Protocol):
    """Takes steps of one objective."""

    objective: Objective
    optimizer: Optimizer
    skipped: Tensor
    """How many steps did not move the optimizer, 0-dim, on the device."""

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Takes a step; returns the loss and its terms, detached."""

    def state_dict(self) -> StepState:
        """The states of module, optimizer and scheduler."""

    def load_state_dict(self, state: StepState, steps_changed: int | None = None) -> None:
        """Takes back what :meth:`state_dict` returned; see :meth:`Eager.load_state_dict`."""


class Eager:
    """Runs model and guide as they stand.

    Args:
        objective: what to make small.
        fabric: the launcher, which places the module and, with several processes, averages gradients.
        one_of_several: whether other objectives share the module's parameters. They can't each be wrapped for several
            processes, nor can a module with parameters that its loss leaves out: then gradients are averaged here.
    """

    compiled = False
    """Whether the arithmetic is a compiler's, whose last digits are its own."""

    def __init__(self, objective: Objective, fabric: "Fabric", one_of_several: bool = False) -> None:
        self.objective = objective
        self.fabric = fabric
        self.module: nn.Module = objective.module.to(fabric.device)
        self.parameters = [parameter for parameter in objective.parameters if parameter.requires_grad]
        self._averages = fabric.world_size > 1 and (one_of_several or _leaves_out(self.module))
        self.forward = self.module if self._averages else fabric.setup_module(self.module)
        self.optimizer = objective.optimizer(objective.groups)
        self.scheduler = objective.scheduler(self.optimizer) if objective.scheduler else None
        self.skipped = torch.zeros((), device=fabric.device)

    @property
    def fallback(self) -> str:
        """In one line, what of the step is not computed as it was asked for, and why; empty where all of it is."""
        return ""

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = self._move(batch)
        self._after(loss, terms)
        return loss, terms

    def _move(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """What a step does on the device: loss, gradient, clipping and optimizer."""
        loss, terms = self.gradients(batch)
        self.skipped += update(self.optimizer, self.parameters, loss, self.objective.clip_norm)
        return loss, terms

    def _after(self, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        """What follows it in Python: the scheduler, and what the objective does after a step."""
        if self.scheduler is not None:
            self.scheduler.step()
        if self.objective.after_step is not None:
            self.objective.after_step(loss, terms)

    def gradients(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Leaves the gradient at the parameters; returns the loss and its terms, detached."""
        self.optimizer.zero_grad()
        if self._averages:
            with self.fabric.autocast():
                loss, terms = self.forward(**batch)
            loss.backward(inputs=self.parameters)
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad = self.fabric.all_reduce(parameter.grad, reduce_op="mean")
        else:
            loss, terms = self.forward(**batch)
            inputs = {"inputs": self.parameters} if self.fabric.world_size == 1 else {}
            self.fabric.backward(loss, **inputs)
        loss = loss.detach()
        if self.fabric.world_size > 1:  # all log the same, and all skip the step where one's loss is not finite
            loss, terms = (self.fabric.all_reduce(value, reduce_op="mean") for value in (loss, terms))
        return loss, terms

    def overflowed(self) -> list[str]:
        """What the optimizer keeps that is not finite, by name: squares of gradients overflow before these do."""
        kept = [item for values in self.optimizer.state.values() for item in values.items()]
        return [name for name, value in kept if isinstance(value, Tensor) and not value.isfinite().all()]

    def state_dict(self) -> StepState:
        scheduler = {} if self.scheduler is None else self.scheduler.state_dict()
        return {
            "module": self.objective.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
        }

    def load_state_dict(self, state: StepState, steps_changed: int | None = None) -> None:
        """Takes back what :meth:`state_dict` returned.

        Args:
            state: the state.
            steps_changed: the training steps that were taken, if the run's length is not what it was: then the learning rate is
                that of a run of the new length, whose scheduler is brought to this step from the start.

        Raises:
            UsageError: the state is another objective's; then nothing has changed.
        """
        self._require_same_form(state)
        self.objective.module.load_state_dict(state["module"])
        if self.scheduler is None or steps_changed is None:
            self.optimizer.load_state_dict(state["optimizer"])
            if self.scheduler is not None:
                self.scheduler.load_state_dict(state["scheduler"])
            return
        fresh = self.objective.optimizer(self.objective.groups)
        self.scheduler = self.objective.scheduler(fresh)
        fresh._opt_called = True  # no warning that the scheduler went first
        for _ in range(-(-steps_changed // self.objective.every)):
            self.scheduler.step()
        rates = [group["lr"] for group in fresh.param_groups]
        fresh.load_state_dict(state["optimizer"])
        for group, rate in zip(fresh.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer: Optimizer = fresh

    def _require_same_form(self, state: StepState) -> None:
        """Raises a UsageError unless a state is one of this objective's. torch looks at names and numbers of parameters alone."""
        own = self.state_dict()
        for name in ("module", "scheduler"):
            require_same_form(state[name], own[name], name)
        saved = state["optimizer"]
        if saved.keys() != own["optimizer"].keys():
            raise UsageError("its optimizer has other entries")
        require_same_form(saved["param_groups"], own["optimizer"]["param_groups"], "optimizer")
        for group, mine in zip(saved["param_groups"], own["optimizer"]["param_groups"], strict=True):
            for name in mine.keys() - {"lr", "initial_lr"}:
                if group[name] != mine[name]:
                    raise UsageError(f"its optimizer has {name} {group[name]}, not {mine[name]}")
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        if not isinstance(saved["state"], dict) or not saved["state"].keys() <= set(range(len(parameters))):
            raise UsageError("its optimizer is of other parameters")
        for index, values in saved["state"].items():
            own = {name: _like(value, parameters[index]) for name, value in self._optimizer_entries(parameters[index]).items()}
            require_same_form(values, own, f"optimizer, state, {index}")

    def _optimizer_entries(self, parameter: nn.Parameter) -> dict[str, Any]:
        """What the optimizer keeps of a parameter once it has moved it; found out by moving a single number of its type."""
        number = nn.Parameter(torch.zeros(1, dtype=parameter.dtype))
        number.grad = torch.zeros_like(number)
        optimizer = self.objective.optimizer([number])
        optimizer.step()
        return dict(optimizer.state[number])


def _leaves_out(module: nn.Module) -> bool:
    """Whether a loss leaves out sites, whose own parameters then have no gradient."""
    return any(part.elbo.left_out for part in module.modules() if isinstance(part, NegativeELBO))


def _like(value: Any, parameter: Tensor) -> Any:
    """An entry of an optimizer's state as it is for a parameter: what has one number there has one for each of its numbers."""
    return torch.empty_like(parameter, dtype=value.dtype) if isinstance(value, Tensor) and value.dim() else value


class Traced(Eager):
    """Runs the arithmetic of a traced step: on a CPU bit-identical to :class:`Eager`, without the Python of model and guide."""

    def __init__(self, objective: Objective, fabric: "Fabric", one_of_several: bool = False) -> None:
        super().__init__(objective, fabric, one_of_several)
        self._one_of_several = one_of_several
        self._traced = TracedStep(self.module, self.compiled, fabric.autocast, self.parameters)
        self._whole: CompiledStep | None = None

    @property
    def fallback(self) -> str:
        return self._traced.fallback or (self._whole.fallback if self._whole else "")

    def _move(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.compiled or self._one_of_several:  # parameters of two optimizers cannot be in one piece for both
            return super()._move(batch)
        if self._whole is None or self._whole.optimizer is not self.optimizer:
            clip_norm, context = self.objective.clip_norm, self.fabric.autocast
            self._whole = CompiledStep(self.module, self.optimizer, clip_norm, context, self.parameters)
        loss, terms, bad = self._whole.take(batch)
        self.skipped += bad
        return loss, terms

    def gradients(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return self._traced(batch)

    def compile(self) -> None:
        """Has its steps compiled from here on."""
        self.compiled = True
        self._traced = TracedStep(self.module, True, self.fabric.autocast, self.parameters)


class Compiled(Traced):
    """Runs a step that torch's compiler has compiled, Adam and all: takes seconds to minutes to start, and pays in long runs."""

    compiled = True


class CUDAGraph:
    """What a function does on a GPU, recorded; its outputs stay where they are and are overwritten by each replay."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.outputs: Any = function()

    def replay(self) -> None:
        self._graph.replay()


class Captured(Traced):
    """Repeats a whole step, optimizer and all, as one CUDA graph: the GPU waits for no Python between its kernels.

    The first steps of a shape of batch are traced ones, in which the optimizer makes its state. Learning rates are tensors on the
    device, so that a scheduler reaches into the graph; noise comes from the device's generator, as it is seeded before each step.
    """

    WARM_STEPS = 3
    """Traced steps of a shape of batch before it is recorded."""

    def __init__(
        self,
        objective: Objective,
        fabric: "Fabric",
        one_of_several: bool = False,
        graph: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        if graph is None and fabric.device.type != "cuda":
            raise UsageError("--engine captured needs a CUDA device")
        super().__init__(objective, fabric, one_of_several)
        self._graph = graph or CUDAGraph
        self._taken: dict[Any, int] = {}  # steps of each key before it is recorded
        self._recorded: dict[Any, tuple[Any, dict[str, Tensor]]] = {}
        self._failed: set[Any] = set()  # keys that cannot be recorded
        self._make_capturable()

    def _make_capturable(self) -> None:
        """Has the optimizer keep on the device what changes from step to step; what was recorded is of another optimizer."""
        for group in self.optimizer.param_groups:
            if not group.get("fused"):
                raise UsageError("--engine captured needs an optimizer with fused=True")
            group["capturable"] = True
            group["lr"] = torch.tensor(float(group["lr"]), device=self.fabric.device)
        self._taken.clear()
        self._recorded.clear()

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        key, _ = self._traced.key(batch)
        if key not in self._recorded:
            self._taken[key] = self._taken.get(key, 0) + 1
            if self._taken[key] <= self.WARM_STEPS or key in self._failed or not self._record(key, batch):
                return super().__call__(batch)
        recorded, inputs = self._recorded[key]
        for name, value in batch.items():
            inputs[name].copy_(value)
        recorded.replay()
        loss, terms = recorded.outputs
        loss, terms = loss.clone(), {name: term.clone() for name, term in terms.items()}  # the next replay overwrites them
        self._after(loss, terms)
        return loss, terms

    def _record(self, key: Any, batch: Mapping[str, Tensor]) -> bool:
        """Records the steps of a key; returns whether it could."""
        if len(self._recorded) >= MOST_GRAPHS:  # each holds memory of its own
            self._recorded.clear()
        inputs = {name: value.clone() for name, value in batch.items()}
        try:
            self._recorded[key] = self._graph(lambda: self._move(inputs)), inputs
        except RuntimeError as error:  # such as of a step that waits for the device
            self._failed.add(key)
            self._traced.falls_back(f"The step is traced, and not captured: {compilers_reason(error)}")
        return key in self._recorded

    def state_dict(self) -> StepState:
        """As every engine's: with rates as numbers."""
        state = super().state_dict()
        groups = [{**group, "lr": float(group["lr"]), "capturable": False} for group in state["optimizer"]["param_groups"]]
        scheduler = {
            name: [float(rate) for rate in value] if name == "_last_lr" else value for name, value in state["scheduler"].items()
        }
        return {**state, "optimizer": {**state["optimizer"], "param_groups": groups}, "scheduler": scheduler}

    def load_state_dict(self, state: StepState, steps_changed: int | None = None) -> None:
        super().load_state_dict(state, steps_changed)
        self._make_capturable()


_ENGINES: dict[str, type[Eager]] = {"eager": Eager, "traced": Traced, "compiled": Compiled, "captured": Captured}


def make_step(objective: Objective, engine: str, fabric: "Fabric", one_of_several: bool = False) -> Eager:
    """The step of an objective by an engine; several processes run eagerly in any case."""
    kind = _ENGINES[engine] if fabric.world_size == 1 else Eager
    return kind(objective, fabric, one_of_several)
