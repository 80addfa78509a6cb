"""The one training loop."""

import contextlib
import copy
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from pyzoo.errors import UsageError
from pyzoo.infer import evaluating
from pyzoo.infer.graph import has_compiler
from pyzoo.random import derive_seed
from pyzoo.signals import Interrupted, on_signals
from pyzoo.threads import chosen_by_user, free_cores
from pyzoo.training.checkpoint import Checkpoint, require_same_run
from pyzoo.training.hardware import Hardware, using_threads
from pyzoo.training.objective import Objective
from pyzoo.training.recipe import Pair, Recipe, Source, deciding_settings, require_held_out
from pyzoo.training.report import Report
from pyzoo.training.run_folder import RunFolder
from pyzoo.training.steps import Eager, Traced, make_step

__all__ = ["LostProcess", "NonFiniteLoss", "Stopped", "Trainer"]

WORTH_TRACING = 100  # steps, in which tracing them pays
WORTH_MEASURING = 100  # steps; in shorter runs the number of threads is not measured
WORTH_COMPILING = 1200.0  # seconds of training, of which a compiled step saves at least what it takes to compile it


class NonFiniteLoss(RuntimeError):
    """A loss or gradient became infinite or not a number; the optimizer did not move in such a step."""


class LostProcess(RuntimeError):
    """Another process of a run that several train together has ended."""


class Stopped(Exception):
    """A signal stopped the run, after a checkpoint was saved."""

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.signal_number = signal_number


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
        UsageError: the checkpoint is damaged or another recipe's, the batch can't be shared by the processes, or the recipe asks
            for early stopping without held-out examples.
    """

    def __init__(self, recipe: Recipe, run: RunFolder, hardware: Hardware | None = None, progress: bool = True) -> None:
        self.recipe = recipe
        self.run = run
        self.progress = progress
        self.hardware: Hardware = hardware or Hardware()
        self.hardware.require_equal_shares(recipe.batch_size, recipe.fewest_examples)
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(recipe.seed, "init"))
            self.pair: Pair = recipe.programs()
            self.objectives: Sequence[Objective] = list(recipe.objectives(self.pair))
        self.fabric = self.hardware.fabric(*(objective.module for objective in self.objectives))
        self.fabric.launch()
        self.device: torch.device = self.fabric.device
        engine = self.hardware.engine
        if engine == "auto":  # torch can't trace in its anomaly mode
            is_short = recipe.steps < WORTH_TRACING
            engine = "eager" if is_short or torch.is_anomaly_enabled() else recipe.engine
        self.pair = self.pair.to(self.device)
        self.step_of: list[Eager] = [
            make_step(objective, engine, self.fabric, len(self.objectives) > 1) for objective in self.objectives
        ]
        self.report: Report = recipe.report(self.pair, self.device)
        require_held_out(recipe, self.report)
        self.step: int = 0
        self.resumed_from: dict[str, str] = {}
        """What the steps before were computed with; empty at the start."""
        self.seconds: float = 0.0
        self.best: float | None = None  # value of the report's criterion
        self.waited: int = 0  # measurements without improvement
        self._values: dict[str, list[Tensor]] = {}  # of each loss and term since the last row of metrics.csv
        self._every: dict[str, int] = {}  # steps from one value to the next
        self.threads = self.hardware.threads or torch.get_num_threads()
        if not (self.hardware.threads or chosen_by_user()):
            self.threads = max(1, self.threads // self.hardware.devices)
        self._losses = [objective.column("loss") for objective in self.objectives]
        self._told: set[str] = {""}  # fallbacks that are in log.txt
        self._signal: int | None = None
        self._measured: float | None = None  # seconds of a step
        self._restore()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.recipe.steps or self.stopped_early

    @property
    def stopped_early(self) -> bool:
        """Whether patience ran out."""
        return 0 < self.recipe.patience <= self.waited

    def choose_threads(self) -> str:
        """Chooses the number of threads by what else runs, and by measuring steps, which leave no trace.

        On a GPU, for several processes, and where the user has said how many, there is nothing to choose.

        Returns:
            In one line what was chosen and why; empty if nothing was.
        """
        if self.device.type != "cpu" or self.fabric.world_size > 1 or self.hardware.threads or chosen_by_user():
            return ""
        free = min(free_cores(), self.threads)
        if free == 1 or self.recipe.steps - self.step < WORTH_MEASURING:
            self.threads = free
            return f"computing with {threads(free)}: as many cores are free"
        source, seconds = self.recipe.source(self.device), {}
        with self._leaving_no_trace():
            for count in sorted({1, free, *(2**i for i in range(1, free.bit_length()))}):
                with using_threads(count):
                    seconds[count] = self.seconds_of_step(source)
                if seconds[count] > min(seconds.values()):
                    break  # more threads only wait longer
        self.threads: int = min(seconds, key=lambda count: seconds[count])
        self._measured = seconds[self.threads]
        measured = ", ".join(f"{1e3 * value:.0f} ms with {threads(count)}" for count, value in seconds.items())
        return f"computing with {threads(self.threads)}: a step takes {measured}"

    def choose_engine(self) -> str:
        """Compiles the steps of a new run that is long enough to gain by it, where the choice is left to us.

        Returns:
            In one line what was chosen and why; empty if nothing was.
        """
        traced = [step for step in self.step_of if isinstance(step, Traced) and not step.compiled]
        if self.hardware.engine != "auto" or self.step or len(traced) < len(self.step_of) or self.device.type != "cpu":
            return ""
        if not has_compiler():
            return ""
        if self._measured is None:
            with self._leaving_no_trace(), using_threads(self.threads):
                self._measured = self.seconds_of_step(self.recipe.source(self.device))
        seconds = self._measured * self.recipe.steps
        if seconds < WORTH_COMPILING:
            return ""
        for step in traced:
            step.compile()
        return f"compiling the steps, which takes a minute or two: without that, training takes {seconds / 3600:.1f} hours"

    @contextlib.contextmanager
    def _leaving_no_trace(self) -> Iterator[None]:
        """The context to take steps in for their time alone."""
        before = [copy.deepcopy(step.state_dict()) for step in self.step_of]
        with torch.random.fork_rng(), pyro.validation_enabled(False), self.hardware.arithmetic():
            yield
        for step, state in zip(self.step_of, before, strict=True):
            step.load_state_dict(state)
            step.skipped.zero_()

    def seconds_of_step(self, source: Source) -> float:
        """The shortest time of a few steps, after a first one that may have to prepare something."""
        found = []
        for _ in range(4):
            start = time.perf_counter()
            self._step(source)
            found.append(time.perf_counter() - start)
        return min(found[1:])

    def _step(self, source: Source) -> list[tuple[Objective, Tensor, dict[str, Tensor]]]:
        """Takes a step of each objective that is due; returns them with their losses and terms."""
        torch.manual_seed(derive_seed(self.recipe.seed, "noise", self.step, self.fabric.global_rank))
        batch = self._slice(source.batch(self.step, self.recipe.batch_size))
        found = []
        for objective, step in zip(self.objectives, self.step_of, strict=True):
            if self.step % objective.every == 0:
                for schedule in objective.schedules:
                    schedule.apply(self.step)
                try:
                    found.append((objective, *step(batch)))
                except RuntimeError as error:
                    if "expects all elements of std" not in str(error):  # so torch says that one is not a number
                        raise
                    raise NonFiniteLoss(f"a standard deviation is not finite at step {self.step}; {self._last_good()}") from error
        return found

    def train(self) -> None:
        """Trains up to the recipe's last step, or until patience runs out.

        Raises:
            NonFiniteLoss: a loss is not finite; names the term.
            LostProcess: another process that trains with this one has ended.
            Stopped: SIGINT, SIGTERM or SIGHUP came; the run can be resumed.
            UsageError: a checkpoint could not be written, or another process trains in the folder.
        """
        try:
            with self.run.lock() if self.fabric.is_global_zero else contextlib.nullcontext():
                self._train()
            self.fabric.barrier()
        except RuntimeError as error:
            if self.fabric.world_size > 1 and any(word in str(error).lower() for word in ("connection", "gloo", "nccl", "peer")):
                raise LostProcess(f"another process of this run has ended; {self._last_good()}") from error
            raise
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
            disable=None if self.progress and self.fabric.is_global_zero else True,  # None: shown in terminals and notebooks
            dynamic_ncols=True,
        )
        # Pyro's and torch's argument checks read values back from the device, and cost as much as a small step.
        with (
            bar,
            torch.random.fork_rng(),
            pyro.validation_enabled(False),
            on_signals(self._request_stop),
            self.hardware.arithmetic(),
            using_threads(self.threads),
        ):
            if self.finished:  # a config.json that someone made shorter must not get into the checkpoint
                return
            while not self.finished:
                for objective, loss, terms in self._step(source):
                    self._keep(objective, loss, terms)
                self.step += 1
                self.seconds = time.monotonic() - started
                bar.update()
                validates = self.report.can_validate and (
                    self.step % self.recipe.validation_interval == 0 or self.step == self.recipe.steps
                )
                if validates or self.step % self.recipe.log_every == 0 or self.step == self.recipe.steps:
                    self._log(bar, validates)
                if time.monotonic() - saved > self.recipe.checkpoint_seconds and not self.finished:
                    self.save()
                    saved = time.monotonic()
                if self._stop_requested():
                    self.save()
                    raise Stopped(self.step, self._signal or signal.SIGTERM)
            self.save()
            if self._stop_requested():  # what is measured and drawn after the last step can be had later
                raise Stopped(self.step, self._signal or signal.SIGTERM)

    def save(self, best: bool = False) -> None:
        """Writes a checkpoint of the present state.

        Raises:
            NonFiniteLoss: a loss, a gradient or a parameter is not finite; then nothing is written.
        """
        if not self.fabric.is_global_zero:
            return
        self._require_finite({name: torch.stack(values).cpu() for name, values in self._values.items()})
        for objective in self.objectives:
            for name, parameter in objective.module.named_parameters():
                if not torch.isfinite(parameter.detach()).all():
                    raise NonFiniteLoss(f"parameter '{name}' is not finite after step {self.step}; {self._last_good()}")
        for step in self.step_of:
            for name in step.overflowed():
                raise NonFiniteLoss(
                    f"gradients are too large before step {self.step}: the optimizer's {name} is not finite; {self._last_good()}"
                )
        state: Checkpoint = {
            "recipe": self.recipe.name,
            "settings": deciding_settings(self.recipe),
            "computed_with": self.computed_with(),
            "step": self.step,
            "steps": self.recipe.steps,
            "seconds": self.seconds,
            "best": self.best,
            "waited": self.waited,
            "values": {name: torch.stack(values) for name, values in self._values.items()},
            "model": self.pair.model.state_dict(),
            "guide": self.pair.guide.state_dict(),
            "objectives": [step.state_dict() for step in self.step_of],
        }
        self.run.checkpoints.save(self.step, state, best)

    def computed_with(self) -> dict[str, str]:
        """What decides the last digits of a step, by name."""
        threads = str(self.threads) if self.device.type == "cpu" else "any"
        compiled = any(step.compiled for step in self.step_of)  # the other engines are the same to the last bit
        engine = "compiled" if compiled else "eager or traced"
        hardware = {"device": self.device.type, "threads": threads, "precision": self.hardware.precision, "engine": engine}
        return {**hardware, "processes": str(self.fabric.world_size), "torch": str(torch.__version__)}

    def _restore(self) -> None:
        if not self.run.checkpoints.files():
            return
        state = self.run.checkpoints.load()
        require_same_run(state, self.recipe.name, deciding_settings(self.recipe), self.run.path)
        self.resumed_from = state["computed_with"]
        steps_changed = state["step"] if state["steps"] != self.recipe.steps else None
        try:
            if len(state["objectives"]) != len(self.step_of):
                raise UsageError(f"it is of {len(state['objectives'])} objectives, not {len(self.step_of)}")
            for step, saved in zip(self.step_of, state["objectives"], strict=True):
                step.load_state_dict(saved, steps_changed)
            self.pair.load_state_dicts(state["model"], state["guide"])
        except UsageError as error:
            raise UsageError(
                f"the checkpoint in {self.run.path} does not fit the recipe in its config.json, or is another version's: {error}"
            ) from error
        self.step, self.seconds, self.best, self.waited = (state[name] for name in ("step", "seconds", "best", "waited"))
        if steps_changed is not None:  # whoever asks for more steps has patience again
            self.waited = 0
        self._values = {name: list(values.to(self.device)) for name, values in state["values"].items()}

    def _slice(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """This process's share of the global batch; by turns, since a source may sort its rows, by environment for example."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return batch if world == 1 else {key: value[rank::world] for key, value in batch.items()}

    def _keep(self, objective: Objective, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
        for name, value in {"loss": loss, **terms}.items():
            column = objective.column(name)
            self._values.setdefault(column, []).append(value)
            self._every[column] = objective.every

    def _last_good(self) -> str:
        files = self.run.checkpoints.files()
        return f"the last good checkpoint is {files[-1]}" if files else "there is no checkpoint yet"

    # Rows of metrics.csv --------------------------------------------------------------------------------------------

    def _log(self, bar: tqdm, validates: bool) -> None:
        values = {name: torch.stack(found).double().cpu() for name, found in self._values.items()}
        self._require_finite(values)
        means = {name: value.mean().item() for name, value in values.items()}
        row: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 3), **means}
        row["learning_rate"] = float(self.step_of[0].optimizer.param_groups[0]["lr"])
        for objective in self.objectives:
            row |= {objective.column(schedule.column): schedule.current() for schedule in objective.schedules}
        self._values = {}
        with torch.random.fork_rng(), evaluating(nn.ModuleList(self.pair)):
            torch.manual_seed(derive_seed(self.recipe.seed, "monitor", self.step))
            if self.fabric.is_global_zero:
                row |= self.report.monitor(self.step)
            if validates:
                held_out = self.report.validate(self.step)
                row |= held_out
                if self.report.criterion in held_out:  # process 0's value: each has its own averages of batch norm
                    self._judge(self.fabric.broadcast(held_out[self.report.criterion]))
        if self.fabric.is_global_zero:
            for fallback in {step.fallback for step in self.step_of} - self._told:
                self.run.log(fallback)
                self._told.add(fallback)
            self.run.append_metrics(row)
            if self.recipe.log == "tensorboard":
                self.run.write_tensorboard(row)
            bar.set_postfix_str("  ".join(f"{name} {mean:.1f}" for name, mean in means.items()) + " nats")

    def _require_finite(self, values: Mapping[str, Tensor]) -> None:
        """Raises unless each loss, term and gradient since the last row was finite; names the first step and its terms."""
        if not any(step.skipped.item() for step in self.step_of) and all(value.isfinite().all() for value in values.values()):
            return
        places = {name: value.isfinite().logical_not().nonzero().flatten().tolist() for name, value in values.items()}
        steps = {name: self._step_of_value(name, len(values[name]), bad[0]) for name, bad in places.items() if bad}
        if not steps:
            raise NonFiniteLoss(f"a gradient was not finite before step {self.step}, though each term was; {self._last_good()}")
        first = min(steps.values())
        names = [name for name, step in steps.items() if step == first]
        said = {name: f"'{name}' is {values[name][places[name][0]].item()}" for name in names}
        losses = [said[name].replace("'", "") for name in names if name in self._losses]
        terms = [said[name] for name in names if name not in self._losses]
        what = f"{', '.join(losses) or 'a term is not finite'} at step {first}"
        raise NonFiniteLoss(f"{what}{': term ' + ', '.join(terms) if terms else ''}; {self._last_good()}")

    def _step_of_value(self, name: str, count: int, place: int) -> int:
        """The step of one of a term's values since the last row, of which the newest is of its objective's newest step."""
        every = self._every[name]
        return (self.step - 1) // every * every - (count - 1 - place) * every

    def _judge(self, value: float) -> None:
        """Compares a value of the report's criterion with the best so far."""
        if value > (-math.inf if self.best is None else self.best):
            self.best, self.waited = value, 0
            if self.recipe.keep_best:
                self.save(best=True)
        else:
            self.waited += 1

    # Signals --------------------------------------------------------------------------------------------------------

    def _request_stop(self, number: int) -> None:
        """Has the run stop after the step under way; the second time, at once."""
        if self._signal is not None:
            raise Interrupted(number)
        self._signal = number

    def _stop_requested(self) -> bool:
        """Whether a signal came, to any of the processes: all must stop after the same step."""
        if self.fabric.world_size == 1:
            return self._signal is not None
        mine = torch.tensor(float(self._signal is not None), device=self.device)
        return bool(self.fabric.all_reduce(mine, reduce_op="sum") > 0)


def threads(count: int) -> str:
    """So many threads, in words."""
    return "1 thread" if count == 1 else f"{count} threads"
