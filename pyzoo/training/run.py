"""The life of a run: train, measure, draw, sample, load."""

import contextlib
import dataclasses
import platform
import re
import secrets
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from pyzoo.checks import require_kind, require_switch
from pyzoo.errors import UsageError
from pyzoo.files import absolute, expanded, require_file, resume_command
from pyzoo.settings import changed, cut, difference, flat, walk
from pyzoo.threads import SPIN_COUNT, is_first_process, spins_freely
from pyzoo.training.checkpoint import require_same_run
from pyzoo.training.hardware import Hardware, find_device
from pyzoo.training.recipe import Pair, Recipe, deciding_settings, require_held_out
from pyzoo.training.run_folder import OWN_DATA, RunFolder
from pyzoo.training.sizes import naming_sizes
from pyzoo.training.surroundings import own_surroundings
from pyzoo.training.trained import FORMAT, TrainedModel, TrainedState
from pyzoo.training.weights import WEIGHTS, Bits, save_weights

if TYPE_CHECKING:
    from pyzoo.training.trainer import Trainer

__all__ = ["Run", "run_name"]


def run_name(recipe: Recipe, preset: str) -> str:
    """What a run's folder is called by default: recipe, preset, what differs from it, and the seed.

    Example:
        >>> from pyzoo.recipes.compvae.recipe import CompVAESines
        >>> run_name(CompVAESines.preset("small", parts=6, seed=1), "small")
        'compvae-sines-small-parts6-seed1'
    """
    settings, plain = flat(recipe), flat(type(recipe).preset(preset))
    start = plain
    if "data" in settings:  # a preset may have other settings for some data: these are its own
        start = {**flat(type(recipe).preset(preset, data=settings["data"])), "data": plain["data"]}
    texts = [
        f"{field.name.replace('_', '-')}{_short(field.value)}"
        for _, field in walk(recipe)
        if field.has_flag and field.name not in {"seed", *recipe.incidental} and field.value != start[field.name]
    ]
    return f"{'-'.join([recipe.name, preset, *texts])[:180]}-seed{recipe.seed}"


def _short(value: Any) -> str:
    """A value as a part of a folder's name."""
    if isinstance(value, bool):
        return "-on" if value else "-off"
    if isinstance(value, (str, Path)):
        return "-" + re.sub(r"[^\w.]+", "-", Path(value).stem if "/" in str(value) else str(value)).strip("-")
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return re.sub(r"[^\w.-]+", "-", str(value))


class Run(TrainedModel):
    """A run's folder with all that one does with it: a trained model that goes on training, and keeps what is measured.

    Args:
        path: the folder of an existing run; :meth:`create` makes a new one.
        say: what to do with each line that reports progress, besides writing it to the run's log.

    Raises:
        UsageError: it is no run folder, or its config.json is damaged or of another version.
    """

    def __init__(self, path: str | Path, say: Callable[[str], None] | None = None) -> None:
        super().__init__(path, say)
        self._is_new = False  # made here, and without a step yet
        self._loaded_at = 0
        if "weights" in self.config:
            raise UsageError(f"{self.path} is a trained model without the checkpoints that a run goes on from")

    @classmethod
    def create(
        cls,
        recipe: Recipe,
        preset: str,
        hardware: Hardware | None = None,
        path: str | Path | RunFolder | None = None,
        say: Callable[[str], None] | None = None,
    ) -> "Run":
        """Makes the folder of a new run, with its config.json.

        Args:
            recipe: what to train.
            preset: the preset that it was made from.
            hardware: where to train it.
            path: the folder, which must not exist or be empty, or one that is being made; by default ``runs/`` and
                :func:`run_name`.
            say: as for the class.

        Raises:
            UsageError: data are missing or don't fit the settings, or the folder can't be made.
        """
        require_kind(recipe, "recipe", Recipe)
        hardware = hardware or Hardware()
        require_kind(hardware, "hardware", Hardware)
        if preset not in recipe.presets:
            raise UsageError(f"{recipe.name} has no preset {cut(preset)}; it has {', '.join(recipe.presets)}")
        hardware.require_equal_shares(recipe.batch_size, recipe.fewest_examples)
        hardware.find()
        with own_surroundings(), naming_sizes(recipe), torch.random.fork_rng():  # before there is a folder
            recipe.prepare()
            require_held_out(recipe, recipe.report(recipe.programs(), torch.device("cpu")))
        path = Path("runs") / run_name(recipe, preset) if path is None else path
        with contextlib.nullcontext(path) if isinstance(path, RunFolder) else RunFolder.making(expanded(path)) as folder:
            folder.write_config(_config(recipe, preset, hardware, folder.path))
        run = cls(folder.path, say)
        run.folder.made_data = folder.made_data
        run._is_new = True
        return run

    # Training -------------------------------------------------------------------------------------------------------

    def train(
        self,
        hardware: Hardware | None = None,
        progress: bool = True,
        evaluate: bool = True,
        figures: bool = True,
        full: bool = False,
    ) -> "Run":
        """Trains to the end from where the folder stands, then measures and draws.

        Args:
            hardware: where to compute; by default where the run was begun.
            progress: show a progress bar.
            evaluate: measure at the end.
            figures: draw at the end.
            full: also measure what takes long.

        Raises:
            NonFiniteLoss: a loss is not finite; names the term.
            LostProcess: another of the run's processes has ended.
            Stopped: SIGINT, SIGTERM or SIGHUP came; the run can be resumed.
            UsageError: a checkpoint is damaged or can't be written, or another process trains in the folder.
        """
        from pyzoo.training.trainer import NonFiniteLoss

        self._read_config()
        hardware = hardware or self.hardware
        require_kind(hardware, "hardware", Hardware)
        for name, value in (("progress", progress), ("evaluate", evaluate), ("figures", figures), ("full", full)):
            require_switch(value, name)
        if not is_first_process(hardware.processes):
            return self._train(hardware, progress, evaluate, figures, full)
        with self.folder.lock():  # also while a folder is removed, so that nobody goes on with it meanwhile
            try:
                with own_surroundings(), naming_sizes(self.recipe, training=True):
                    return self._train(hardware, progress, evaluate, figures, full)
            except BaseException as error:
                kept = self.folder.checkpoints.files() or (self.path / "metrics.csv").exists()  # to go on from, or to see
                if not kept and (self._is_new or isinstance(error, NonFiniteLoss)):
                    self.folder.discard()
                raise

    def _train(self, hardware: Hardware, progress: bool, evaluate: bool, figures: bool, full: bool) -> "Run":
        from pyzoo.training.trainer import LostProcess, NonFiniteLoss, Trainer

        self._read_config()
        recipe = self.recipe
        if not self._is_new:
            self._require_same_data(recipe)
        trainer = Trainer(recipe, self.folder, hardware, progress)
        trained, first = trainer.step, trainer.fabric.is_global_zero
        self._loaded.clear()
        if trainer.finished and first:
            self.say(f"already trained to {trained} steps")
        if first and not trained and not self._is_new and self.folder.metrics():
            self.say(f"{self.path} has no checkpoint: training begins again")
        if first and not trainer.finished:
            self._choose_threads(trainer)
            self._choose_engine(trainer)
        now = trainer.computed_with()
        before = trainer.resumed_from
        others = [f"{name} {value}, not {before[name]}" for name, value in now.items() if before.get(name, value) != value]
        if first and others and not trainer.finished:
            self.say(f"computing with {'; '.join(others)}, as before: last digits may differ from those of an undisturbed run")
        try:
            trainer.train()
        except (LostProcess, NonFiniteLoss) as error:
            self.folder.log(str(error))
            raise
        if first:
            if trainer.stopped_early:
                what = f"no better {trainer.report.criterion} in {recipe.patience} measurements"
                self.say(f"{what}: stopped after {trainer.step} steps")
            if trainer.step > trained:
                self.say(f"trained {trainer.step} steps in {trainer.seconds:.0f} s")
            device = str(trainer.device)
            if evaluate:
                self.measure(full, device)
            if figures:
                self.draw(device)
        return self

    def _choose_threads(self, trainer: "Trainer") -> None:
        """Has the trainer choose its number of threads, and keeps the choice; the lock is held."""
        chosen = trainer.choose_threads()
        if trainer.device.type == "cpu" and not self.hardware.threads:
            self._keep_hardware(threads=trainer.threads)
        if chosen:
            self.say(chosen)
        if trainer.device.type == "cpu" and trainer.threads > 1 and spins_freely():
            self.say(
                "torch was imported before pyzoo could limit how long its threads wait for each other: beside busy processes "
                f"set GOMP_SPINCOUNT={SPIN_COUNT} before Python starts, or take one thread"
            )

    def _choose_engine(self, trainer: "Trainer") -> None:
        """Has the trainer choose whether to compile, and keeps the choice; the lock is held."""
        chosen = trainer.choose_engine()
        if chosen:
            self._keep_hardware(engine="compiled")
            self.say(chosen)

    def _keep_hardware(self, **chosen: Any) -> None:
        """Writes down what was chosen, so that the run goes on with it."""
        self.hardware = dataclasses.replace(self.hardware, **chosen)
        self.config = {**self.config, "hardware": dataclasses.asdict(self.hardware)}
        self.folder.write_config(self.config)

    def extend(self, steps: int) -> None:
        """Makes the run longer, or shorter than planned: the next :meth:`train` goes up to so many steps.

        Raises:
            UsageError: it has been trained further than that.
        """
        if type(steps) is not int:
            raise UsageError(f"--steps must be a whole number, got {steps!r}")
        with self.folder.lock():
            self._read_config()
            self._require_readable(self.recipe)
            trained = self.folder.checkpoints.newest_step()
            if steps < max(1, trained):
                raise UsageError(f"--steps must be at least {max(1, trained)}, which {self.path} is trained to, got {steps}")
            recipe = changed(self.recipe, {"steps": steps})
            self.config = {**self.config, "settings": _settings(recipe, self.path)}
            self.folder.write_config(self.config)

    def _require_readable(self, recipe: Recipe) -> None:
        """Raises a UsageError unless the run's files and data are what a training goes on from."""
        with own_surroundings():
            self._require_same_data(recipe)
            if self.folder.checkpoints.newest_step():
                require_same_run(self.folder.checkpoints.load(), recipe.name, deciding_settings(recipe), self.path)
            self.folder.metrics()
            require_file(self.path / "log.txt")

    @property
    def is_finished(self) -> bool:
        """Whether it has been trained to its end, and measured since."""
        results = self.folder.results()
        same_end = results.get("steps") == self.config["settings"].get("steps")
        return bool(results.get("finished")) and same_end and results.get("trained") == self.folder.checkpoints.newest_step()

    def _is_trained(self) -> bool:
        """Whether the newest checkpoint is of the run's end: its last step, or where patience ran out."""
        settings, newest = self.config["settings"], self.folder.checkpoints.newest_step()
        if newest == 0 or newest >= settings["steps"] or not settings.get("patience"):
            return newest >= settings["steps"]
        with own_surroundings():
            state = self.folder.checkpoints.load()
        return state["steps"] == settings["steps"] and state["waited"] >= settings["patience"]

    # What was trained, measured and drawn ---------------------------------------------------------------------------

    def _state(self) -> TrainedState:
        """Of the best checkpoint if that was kept, else of the newest."""
        if not self.folder.checkpoints.files():
            raise UsageError(f"{self.path} has no checkpoint yet: train it with {resume_command(self.path)}")
        with own_surroundings():
            state = self.folder.checkpoints.load(best=bool(self.config["settings"].get("keep_best")))
        settings = {**self.config["settings"], **self.config["networks"]}
        require_same_run(state, self.config["recipe"], settings, self.path)
        return {"model": state["model"], "guide": state["guide"], "step": state["step"]}

    def _load(self, device: str) -> tuple[Pair, int]:
        if self._loaded_at != self.trained:  # another process may have trained it further
            self._read_config()
            self._loaded.clear()
            self._loaded_at = self.trained
        return super()._load(device)

    @property
    def trained(self) -> int:
        """How many steps were taken."""
        return self.folder.checkpoints.newest_step()

    @property
    def output(self) -> Path:
        """The run's folder, where pictures go if none is named."""
        return self.path

    def measure(self, full: bool = False, device: str = "auto") -> dict[str, float]:
        """Measures the trained pair and writes results.json; returns the metrics.

        Args:
            full: also measure what takes long.
            device: where to compute.
        """
        require_switch(full, "full")
        started = time.monotonic()
        pair, step = self._load(device)
        metrics, note = self._measured(full, device)
        before = self.folder.results()
        if not full and before.get("full") and before.get("step") == step:  # what took long still holds
            metrics, full = {**before["metrics"], **metrics}, True
        rows = self.history
        results = {
            "metrics": metrics,
            "full": full,
            "note": note,
            "step": step,
            "trained": self.folder.checkpoints.newest_step(),
            "steps": self.config["settings"].get("steps"),
            "finished": self._is_trained(),
            "training_seconds": round(rows[-1]["seconds"], 1) if rows else None,
            "hardware": self.config["hardware"],
            "parameters": pair.num_parameters,
            "versions": versions(),
            "machine": f"{platform.machine()}, {find_device(device)}",
        }
        self.folder.write_results(results)
        self._say_metrics(metrics, note)
        self.say(f"measured in {time.monotonic() - started:.0f} s; wrote {self.path / 'results.json'}")
        return metrics

    def say(self, line: str) -> None:
        """Writes a line into the run's log, and reports it."""
        self.folder.log(line)
        super().say(line)

    def pack(self, path: str | Path, bits: Bits = 16) -> TrainedModel:
        """Copies the trained pair, its settings, metrics and curves into a folder of its own, small enough to share.

        The run's data are not in it: to be measured and drawn, the model needs them where the run found them. The metrics are
        those of the run, before its weights are rounded.

        Args:
            path: the folder, which must not exist or be empty.
            bits: of each number in a matrix of weights: 32 keeps it as it is, 16 and 8 round it.

        Raises:
            UsageError: the run is not trained yet, or the folder is in use or can't be written.
        """
        require_kind(path, "path", str, Path)
        path = absolute(path)
        if path.is_dir() and any(path.iterdir()):
            raise UsageError(f"{path} exists and is not empty: choose another folder")
        if bits not in get_args(Bits):
            raise UsageError(f"bits must be 8, 16 or 32, got {bits!r}")
        pair, step = self._load("cpu")
        states = {"model": pair.model.state_dict(), "guide": pair.guide.state_dict()}
        settings = dict(self.config["settings"])
        if "data_dir" in settings:  # of this machine, as is the place of a user's own data
            settings["data_dir"] = None
        if Path(str(settings.get("data", ""))).is_absolute():
            settings["data"] = OWN_DATA
        config = {
            **self.config,
            "settings": settings,
            "hardware": dataclasses.asdict(Hardware(precision=self.hardware.precision)),
        }
        with RunFolder.making(path) as folder:
            sha256 = save_weights(folder.path / WEIGHTS, states, bits)
            folder.write_config({**config, "weights": {"sha256": sha256, "step": step, "bits": bits}})
            folder.take_numbers(self.folder)
        folder.forget_lock()
        return TrainedModel(folder.path, self._say)

    def require_same(self, recipe: Recipe, hardware: Hardware) -> None:
        """Raises a UsageError that names what differs, if the run was made with settings that make its numbers other ones."""
        mine = {**flat(self.recipe), "precision": self.hardware.precision}
        theirs = {**flat(recipe.sized()), "precision": hardware.precision}
        for name in sorted(theirs.keys() - recipe.incidental):
            if mine.get(name) != theirs[name]:
                text = difference(name, mine.get(name), theirs[name])
                raise UsageError(f"{self.path} was made with {text}: choose another --out")


def _config(recipe: Recipe, preset: str, hardware: Hardware, path: Path) -> dict[str, Any]:
    recipe = recipe.sized()
    return {
        "format": FORMAT,
        "id": secrets.token_hex(4),
        "recipe": recipe.name,
        "preset": preset,
        "settings": _settings(recipe, path),
        "networks": recipe.networks.described(),
        "hardware": dataclasses.asdict(hardware),
        "versions": versions(),
        "data": recipe.fingerprint(),
    }


def _settings(recipe: Recipe, path: Path) -> dict[str, Any]:
    """All values but those of the networks, which stand beside them; data that the run's folder keeps are named within it."""
    sizes = flat(recipe.networks)
    settings = {name: value for name, value in flat(recipe).items() if name not in sizes}
    return {**settings, "data": OWN_DATA} if settings.get("data") == str(path.absolute() / OWN_DATA) else settings


def versions() -> dict[str, str]:
    """Of Python and the packages that decide a run's numbers."""
    names = ("pyzoo", "torch", "pyro-ppl", "lightning-fabric")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def described(hardware: Hardware) -> str:
    """The hardware in one line."""
    return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(hardware).items())
