"""The one training loop."""

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import pyro
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyzoo.errors import UsageError, one_line
from pyzoo.infer import TracedStep
from pyzoo.random import derive_seed
from pyzoo.training.recipe import Objective, Recipe
from pyzoo.training.run_folder import RunFolder

__all__ = ["Hardware", "NonFiniteLoss", "Stopped", "Trainer"]

Gradients = Callable[[Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]


class NonFiniteLoss(RuntimeError):
    """A loss became infinite or not a number; the optimiser had not moved."""


class Stopped(Exception):
    """A signal stopped the run, after a checkpoint was saved."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number = signal_number


@dataclasses.dataclass
class Hardware:
    """Where and how precisely to compute."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 computes the networks' products in bfloat16; likelihoods and KLs stay in float32."""
    devices: int = 1
    """Processes or GPUs on each machine; each takes its slice of the batch."""
    num_nodes: int = 1
    """Machines."""
    engine: Literal["auto", "eager", "traced", "compiled"] = "auto"
    """auto is the recipe's choice. eager runs model and guide as they stand, as do several processes in any case; traced runs
    the arithmetic of their first run, bit-identical but deaf to Python that changes; compiled compiles that, which takes
    minutes and pays in long runs."""

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")

    @property
    def accelerator(self) -> str:
        """ "cuda" or "cpu".

        Raises:
            UsageError: CUDA is asked for and there is none.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("--device cuda: this machine, or this build of torch, has no CUDA device")
        return "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"

    def fabric(self) -> Fabric:
        """The launcher: devices, processes, and autocast on a GPU."""
        precision = "bf16-mixed" if self.precision == "bf16" and self.accelerator == "cuda" else "32-true"
        strategy = "ddp" if self.devices * self.num_nodes > 1 else "auto"
        return Fabric(
            accelerator=self.accelerator, devices=self.devices, num_nodes=self.num_nodes, precision=precision, strategy=strategy
        )

    def require_equal_shares(self, batch_size: int) -> None:
        """Raises a UsageError unless each process gets as many examples as the others, and so as much weight."""
        if batch_size % (self.devices * self.num_nodes):
            raise UsageError(f"--batch-size {batch_size} can't be shared equally by {self.devices * self.num_nodes} processes")

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The context to compute in: on a CPU, bf16 means that matrices in float32 are multiplied in bfloat16.

        That is as fast there as autocast, keeps no copies of the weights, and leaves everything but the products alone.
        """
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium" if self.precision == "bf16" and self.accelerator == "cpu" else before)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


class Trainer:
    """Trains a recipe in a run folder, from where the folder stands.

    Nothing about a step depends on anything but the state in the checkpoint and the step's number: batches are functions of
    (seed, step) and the noise of a step is seeded by (seed, step, process). So a run that was killed and resumed ends
    where an undisturbed one does, on a CPU to the last bit.

    Args:
        recipe: what to train.
        run: the run's folder; its newest checkpoint, if there is one, is where training starts.
        hardware: where to compute.
        progress: show a progress bar.

    Raises:
        UsageError: the checkpoint is damaged or another recipe's, or the batch can't be shared by the processes.
    """

    def __init__(self, recipe: Recipe, run: RunFolder, hardware: Hardware | None = None, progress: bool = True) -> None:
        self.recipe = recipe
        self.run = run
        self.progress = progress
        self.hardware = hardware or Hardware()
        self.hardware.require_equal_shares(recipe.batch_size)
        self.fabric = self.hardware.fabric()
        self.fabric.launch()
        self.device = self.fabric.device
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(recipe.seed, "init"))
            self.objectives = list(recipe.objectives())
        self.step = 0
        self.seconds = 0.0
        self._sums: dict[str, tuple[Tensor, int]] = {}  # of each term since the last row of metrics.csv, and how many
        self._signal: int | None = None
        engine = recipe.engine if self.hardware.engine == "auto" else self.hardware.engine
        several = len(self.objectives) > 1
        self._gradients = [gradients_of(self.fabric, objective, engine, several) for objective in self.objectives]
        self._restore()

    @property
    def module(self) -> nn.Module:
        """What was trained: the first objective's module, unwrapped, on the device."""
        return self.objectives[0].module

    def train(self) -> None:
        """Trains up to the recipe's last step.

        Raises:
            NonFiniteLoss: a loss is not finite; names the term.
            Stopped: SIGINT or SIGTERM came; the run can be resumed.
            UsageError: a checkpoint could not be written, or another process trains in the folder.
        """
        try:
            with self.run.lock() if self.fabric.is_global_zero else contextlib.nullcontext():
                self._train()
            self.fabric.barrier()
        finally:
            # Each process goes its own way from here; one that ends with its group alive may be aborted by the group's threads.
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()

    def _train(self) -> None:
        if self.fabric.is_global_zero:
            self.run.forget_metrics_after(self.step)  # rows since the checkpoint are written again
        source = self.recipe.source(self.device)
        started, saved = time.monotonic() - self.seconds, time.monotonic()
        bar = tqdm(
            total=self.recipe.steps,
            initial=self.step,
            unit="step",
            disable=not (self.progress and self.fabric.is_global_zero),
            dynamic_ncols=True,
        )
        # Pyro's and torch's argument checks read values back from the device, and cost as much as a small step.
        with bar, torch.random.fork_rng(), pyro.validation_enabled(False), self._signals(), self.hardware.arithmetic():
            while self.step < self.recipe.steps:
                torch.manual_seed(derive_seed(self.recipe.seed, "noise", self.step, self.fabric.global_rank))
                batch = self._slice(source.batch(self.step, self.recipe.batch_size))
                for objective, gradients in zip(self.objectives, self._gradients, strict=True):
                    if self.step % objective.every == 0:
                        self._take_step(objective, gradients, batch)
                self.step += 1
                self.seconds = time.monotonic() - started
                bar.update()
                if self.step % self.recipe.log_every == 0 or self.step == self.recipe.steps:
                    self._log(bar)
                if time.monotonic() - saved > self.recipe.checkpoint_seconds and self.step < self.recipe.steps:
                    self.save()
                    saved = time.monotonic()
                if self._stop_requested():
                    self.save()
                    raise Stopped(self.step, self._signal or signal.SIGTERM)
            self.save()

    def save(self) -> None:
        """Writes a checkpoint of the present state, unless it is not finite."""
        if not self.fabric.is_global_zero:
            return
        for objective in self.objectives:
            for name, parameter in objective.module.named_parameters():
                if not torch.isfinite(parameter.detach()).all():
                    raise NonFiniteLoss(f"parameter '{name}' is not finite after step {self.step}; {self._last_good()}")
        state = {
            "recipe": self.recipe.name,
            "step": self.step,
            "seconds": self.seconds,
            "sums": self._sums,
            "objectives": [objective.state_dict() for objective in self.objectives],
        }
        self.run.checkpoints.save(self.step, state)

    def _restore(self) -> None:
        if not self.run.checkpoints.files():
            return
        state = self.run.checkpoints.load()
        if state["recipe"] != self.recipe.name:
            raise UsageError(f"the checkpoint in {self.run.path} is of recipe {state['recipe']}, not of {self.recipe.name}")
        try:
            for objective, saved in zip(self.objectives, state["objectives"], strict=True):
                objective.load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError) as error:
            raise UsageError(
                f"the checkpoint in {self.run.path} does not fit the recipe in its config.json, or is another version's: "
                f"{one_line(error, 200)}"
            ) from error
        self.step, self.seconds = state["step"], state["seconds"]
        self._sums = {name: (total.to(self.device), count) for name, (total, count) in state["sums"].items()}

    def _slice(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """This process's share of the global batch."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return batch if world == 1 else {key: value.tensor_split(world)[rank] for key, value in batch.items()}

    def _take_step(self, objective: Objective, gradients: Gradients, batch: Mapping[str, Tensor]) -> None:
        try:
            loss, terms = take_step(objective, gradients, batch, self.step)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f"{error}; {self._last_good()}") from None
        for name, value in {"loss": loss, **terms}.items():
            key = _key(objective, name)
            total, count = self._sums.get(key, (0.0, 0))
            self._sums[key] = total + value, count + 1

    def _last_good(self) -> str:
        files = self.run.checkpoints.files()
        return f"the last good checkpoint is {files[-1]}" if files else "there is no checkpoint yet"

    def _log(self, bar: tqdm) -> None:
        means = {name: total.item() / count for name, (total, count) in self._sums.items()}
        row: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 3), **means}
        row["learning_rate"] = self.objectives[0].optimizer.param_groups[0]["lr"]
        for objective in self.objectives:
            row |= {_key(objective, name): objective.module.get_buffer(name).item() for name in objective.schedules}
        self._sums = {}
        if self.fabric.is_global_zero:
            with torch.random.fork_rng():
                torch.manual_seed(derive_seed(self.recipe.seed, "monitor", self.step))
                row |= self.recipe.monitor(self.module, self.device, self.step)
            self.run.append_metrics(row)
            bar.set_postfix_str("  ".join(f"{name} {mean:.1f}" for name, mean in means.items()) + " nats")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turns SIGINT and SIGTERM into a wish to stop after the step under way."""

        def request(number: int, frame: object) -> None:
            if self._signal is not None:
                raise KeyboardInterrupt  # the second time, at once
            self._signal = number

        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, request) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop_requested(self) -> bool:
        """Whether a signal came, to any of the processes: all must stop after the same step."""
        if self.fabric.world_size == 1:
            return self._signal is not None
        mine = torch.tensor(float(self._signal is not None), device=self.device)
        return bool(self.fabric.all_reduce(mine, reduce_op="sum") > 0)


def _key(objective: Objective, name: str) -> str:
    """The column of metrics.csv for something of an objective."""
    return f"{objective.name}/{name}" if objective.name else name


def gradients_of(fabric: Fabric, objective: Objective, engine: str, one_of_several: bool = False) -> Gradients:
    """Moves an objective to the launcher's device; returns what computes its loss and terms, and leaves its gradient.

    Objectives that share parameters can't each be wrapped for several processes: then the gradients of those that this one's
    optimiser moves are averaged here.
    """
    module = objective.module.to(fabric.device)
    shared = one_of_several and fabric.world_size > 1
    forward = module if shared else fabric.setup_module(module)
    objective.optimizer = fabric.setup_optimizers(objective.optimizer)
    if engine != "eager" and fabric.world_size == 1:
        return TracedStep(module, compiled=engine == "compiled", context=fabric.autocast)

    def gradients(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        objective.optimizer.zero_grad()
        if shared:
            with fabric.autocast():
                loss, terms = forward(**batch)
            loss.backward()
            for parameter in (p for group in objective.optimizer.param_groups for p in group["params"] if p.grad is not None):
                parameter.grad = fabric.all_reduce(parameter.grad, reduce_op="mean")
        else:
            loss, terms = forward(**batch)
            fabric.backward(loss)
        loss = loss.detach()
        if fabric.world_size > 1:  # all log the same, and all stop where one's loss is not finite
            loss, terms = (fabric.all_reduce(value, reduce_op="mean") for value in (loss, terms))
        return loss, terms

    return gradients


def take_step(
    objective: Objective, gradients: Gradients, batch: Mapping[str, Tensor], step: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """One step of an objective's optimiser; returns the loss and its terms, detached.

    Raises:
        NonFiniteLoss: the loss is not finite; nothing has moved.
    """
    for name, schedule in objective.schedules.items():
        objective.module.get_buffer(name).fill_(schedule(step))
    loss, terms = gradients(batch)
    if not math.isfinite(loss.item()):
        bad = [f"'{name}' is {value.item()}" for name, value in terms.items() if not math.isfinite(value.item())]
        raise NonFiniteLoss(f"loss is {loss.item()} at step {step}: term {', '.join(bad) or 'none'}")
    if objective.clip_norm is not None:
        parameters = [parameter for group in objective.optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, objective.clip_norm)
    objective.optimizer.step()
    if objective.scheduler is not None:
        objective.scheduler.step()
    if objective.after_step is not None:
        objective.after_step()
    return loss, terms
