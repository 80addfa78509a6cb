"""The life of a run: train, measure, draw, sample, load."""

import contextlib
import dataclasses
import math
import platform
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import torch
from torch import Tensor, nn

from pyzoo.checks import require_kind, require_switch
from pyzoo.errors import UsageError
from pyzoo.files import expanded, require_file, require_folder, resume_command, save_figure
from pyzoo.infer import evaluating
from pyzoo.nn import Networks
from pyzoo.random import derive_seed
from pyzoo.settings import AtLeast, Steps, changed, cut, difference, flag, flat, require_entries, restored, walk
from pyzoo.threads import SPIN_COUNT, available_cores, is_first_process, spins_freely
from pyzoo.training.checkpoint import require_same_run
from pyzoo.training.hardware import Hardware, find_device, using_threads
from pyzoo.training.recipe import Pair, Recipe, deciding_settings, find_recipe, require_held_out
from pyzoo.training.report import Report
from pyzoo.training.run_folder import OWN_DATA, RunFolder
from pyzoo.training.surroundings import own_surroundings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyzoo.training.trainer import Trainer

__all__ = ["FORMAT", "Run", "run_name"]

FORMAT = 2
"""Of config.json. Format 1 had no number."""


class CommonSettings(TypedDict):
    """Settings of all recipes, which are read also where the recipe is not installed."""

    steps: Steps
    seed: int
    keep_best: bool
    patience: Annotated[int, AtLeast(0)]


class Config(TypedDict):
    """What config.json holds. The recipe checks its own settings, and the networks theirs."""

    format: int
    recipe: str
    preset: str
    settings: CommonSettings
    networks: dict[str, Any]
    hardware: dict[str, Any]
    versions: dict[str, str]


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


class Run:
    """A run's folder with all that one does with it.

    Args:
        path: the folder of an existing run; :meth:`create` makes a new one.
        say: what to do with each line that reports progress, besides writing it to the run's log.

    Raises:
        UsageError: it is no run folder, or its config.json is damaged or of another version.
    """

    def __init__(self, path: str | Path, say: Callable[[str], None] | None = None) -> None:
        require_kind(path, "path", str, Path)
        self.folder = RunFolder.open(Path(path))
        self._say = say
        self._loaded: dict[str, tuple[Pair, int]] = {}
        self._is_new = False  # made here, and without a step yet
        self.config = config = self._read_config()
        file = self.folder.path / "config.json"
        self.preset: str = config["preset"]
        try:
            self.hardware: Hardware = restored(Hardware, config["hardware"])
            self.networks = Networks.restored(config["networks"])
        except UsageError as error:
            raise UsageError(f"{file} does not describe a run: {error}") from error

    def _read_config(self) -> dict[str, Any]:
        config = self.folder.config()
        file = self.folder.path / "config.json"
        if config.get("format") != FORMAT:
            raise UsageError(f"{file} is of format {config.get('format', 1)}, this version reads format {FORMAT}: train it again")
        require_entries(config, Config, str(file))
        return config

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
        hardware.require_equal_shares(recipe.batch_size)
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

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def recipe(self) -> Recipe:
        """The recipe with its settings.

        Raises:
            UsageError: the recipe is not installed, or has other settings than the run.
        """
        sizes = {name: value for name, value in self.config["networks"].items() if name != "class"}
        settings = self.config["settings"]
        if twice := settings.keys() & sizes.keys():
            raise UsageError(f"{self.path / 'config.json'} has '{min(twice)}' among the settings and among the networks")
        if settings.get("data") == OWN_DATA:  # wherever the folder is by now
            settings = {**settings, "data": str(self.path.absolute() / OWN_DATA)}
        try:
            return restored(find_recipe(self.config["recipe"]), {**settings, **sizes})
        except UsageError as error:
            raise UsageError(f"{self.path / 'config.json'} does not describe a run of an installed recipe: {error}") from error

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

        hardware = hardware or self.hardware
        require_kind(hardware, "hardware", Hardware)
        for name, value in (("progress", progress), ("evaluate", evaluate), ("figures", figures), ("full", full)):
            require_switch(value, name)
        self._require_folder()
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

        self.config = self._read_config()  # another process may have made the run longer
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

    # The trained pair -----------------------------------------------------------------------------------------------

    def pair(self, device: str = "auto") -> Pair:
        """The trained model and guide in evaluation mode: of the best checkpoint if that was kept, else of the newest.

        Raises:
            UsageError: there is no checkpoint yet, it is damaged, or it does not fit config.json.
        """
        return self._load(device)[0]

    @property
    def model(self) -> Any:
        """The trained model."""
        return self.pair().model

    @property
    def guide(self) -> Any:
        """The trained guide."""
        return self.pair().guide

    @property
    def step(self) -> int:
        """How many steps the pair was trained for."""
        return self._load("auto")[1]

    def _require_folder(self) -> None:
        if not self.path.is_dir():
            raise UsageError(f"the run folder {self.path} is gone")

    def _load(self, device: str) -> tuple[Pair, int]:
        place = find_device(device)
        if str(place) not in self._loaded:
            self._require_folder()
            if not self.folder.checkpoints.files():
                raise UsageError(f"{self.path} has no checkpoint yet: train it with {resume_command(self.path)}")
            with own_surroundings():
                state = self.folder.checkpoints.load(best=bool(self.config["settings"].get("keep_best")))
            settings = {**self.config["settings"], **self.config["networks"]}
            require_same_run(state, self.config["recipe"], settings, self.path)
            with own_surroundings(), torch.random.fork_rng():
                model = self.networks.model()
                pair = Pair(model, self.networks.guide(model))
            try:
                pair.load_state_dicts(state["model"], state["guide"])
            except UsageError as error:
                raise UsageError(
                    f"the checkpoint in {self.path} does not fit the networks in its config.json: {error}"
                ) from error
            self._loaded[str(place)] = pair.to(place).eval(), state["step"]
        return self._loaded[str(place)]

    @contextlib.contextmanager
    def _report(self, device: str, purpose: str, *more: int) -> Iterator[tuple[Report, Recipe]]:
        """The report of what was trained so far, with a seed for a purpose."""
        pair, step = self._load(device)
        recipe = self.recipe
        recipe = changed(recipe, {"steps": max(1, min(recipe.steps, step))})
        threads = min(self.hardware.threads, available_cores())
        with (
            own_surroundings(),
            naming_sizes(recipe),
            torch.random.fork_rng(),
            evaluating(nn.ModuleList(pair)),
            using_threads(threads),
        ):
            torch.manual_seed(derive_seed(recipe.seed, purpose, *more))
            if purpose != "sample":  # which may need no data
                self._require_same_data(recipe)
            yield recipe.report(pair, find_device(device)), recipe

    def _require_same_data(self, recipe: Recipe) -> None:
        """Raises a UsageError if a recipe's data are not those that the run began with: then test examples may be trained on."""
        if (before := self.config.get("data", "")) and before != recipe.fingerprint():
            raise UsageError(f"the data of {self.path} have changed since it was trained: put them back, or train a new run")
        mine, theirs = self.networks.described(), recipe.sized().networks.described()
        for name, value in theirs.items():
            if mine.get(name) != value:
                raise UsageError(f"the data of {self.path} have changed: they need {difference(name, value, mine.get(name))}")

    # Measuring, drawing, sampling -----------------------------------------------------------------------------------

    def measure(self, full: bool = False, device: str = "auto") -> dict[str, float]:
        """Measures the trained pair and writes results.json; returns the metrics.

        Args:
            full: also measure what takes long.
            device: where to compute.
        """
        require_switch(full, "full")
        started = time.monotonic()
        pair, step = self._load(device)
        with self._report(device, "evaluate") as (report, recipe):
            metrics = report.metrics(full)
        before = self.folder.results()
        if not full and before.get("full") and before.get("step") == step:  # what took long still holds
            metrics, full = {**before["metrics"], **metrics}, True
        rows = self.history
        results = {
            "metrics": metrics,
            "full": full,
            "note": recipe.note,
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
        width = max(map(len, metrics), default=0)
        for name, value in metrics.items():
            self.say(f"  {name:{width}}  {value:,.0f}" if float(value).is_integer() else f"  {name:{width}}  {value:.4g}")
        if recipe.note:
            self.say(f"  ({recipe.note})")
        self.say(f"measured in {time.monotonic() - started:.0f} s; wrote {self.path / 'results.json'}")
        return metrics

    def figures(self, device: str = "auto") -> "Figures":
        """Draws the figures of the trained pair; by name, to look at in a notebook."""
        with self._report(device, "figures") as (report, _):
            return Figures(report.figures(self.history))

    def draw(self, device: str = "auto") -> list[Path]:
        """Draws the figures into the run's folder; returns the files.

        Raises:
            UsageError: a picture can't be written.
        """
        require_folder(self.folder.figures)
        self._require_folder()
        self.folder.figures.mkdir(exist_ok=True)
        files = [self.folder.figures / f"{name}.png" for name in self._save_figures(device)]
        if files:
            self.say(f"drew {len(files)} figures in {self.folder.figures}")
        return files

    def _save_figures(self, device: str) -> Iterator[str]:
        with self._report(device, "figures") as (report, _):
            for name, figure in report.figures(self.history):
                save_figure(figure, self.folder.figures / f"{name}.png")
                yield name

    def sample(
        self, count: int = 8, given: Mapping[str, Any] | None = None, seed: int = 0, device: str = "auto"
    ) -> dict[str, Tensor]:
        """Draws from the trained model: named tensors with ``count`` rows, of which ``x`` is what is drawn.

        Args:
            count: how many to draw.
            given: views or parts to condition on, by name: ``{"label": 3}``, ``{"parts": [1, 4]}``.
            seed: the draws follow from it.
            device: where to compute.

        Raises:
            UsageError: count or seed is not a whole number, or too small; or there is no view or part of a name.
        """
        for name, value, least, most in (("--count", count, 1, 1_000_000), ("--seed", seed, 0, 2**63 - 1)):
            if type(value) is not int or value < least:
                raise UsageError(f"{name} must be a whole number of at least {least}, got {value!r}")
            if value > most:
                raise UsageError(f"{name} must be at most {most:,}, got {value}")
        if not isinstance(given or {}, Mapping) or not all(isinstance(name, str) for name in given or ()):
            raise UsageError(f"given must be a dict of names and values, such as {{'label': 3}}, got {cut(given)}")
        with self._report(device, "sample") as (report, _):
            torch.manual_seed(seed)
            return report.sample(count, seed, given)

    def picture(self, samples: Mapping[str, Tensor], device: str = "auto") -> "Figure":
        """A figure of what :meth:`sample` returned.

        Raises:
            UsageError: it is something else.
        """
        if not isinstance(samples, Mapping) or "x" not in samples:
            raise UsageError("a picture is made of what sample returned")
        with self._report(device, "sample") as (report, _):
            try:
                return report.picture(samples)
            except KeyError as error:
                raise UsageError(f"a picture is made of all that sample returned, and {error} is missing") from error

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last evaluation, by name; empty if there was none. :attr:`measured_after` says of which step."""
        return self.folder.results().get("metrics", {})

    @property
    def measured_after(self) -> int:
        """How far the run was trained when it was measured last, in steps; 0 if it never was."""
        return self.folder.results().get("trained", 0)

    @property
    def history(self) -> list[dict[str, float]]:
        """The rows of metrics.csv; an empty cell is nan."""
        return self.folder.metrics()

    # What it says ---------------------------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        """Writes a line into the run's log, and reports it."""
        self.folder.log(line)
        if self._say is not None:
            self._say(line)

    def require_same(self, recipe: Recipe, hardware: Hardware) -> None:
        """Raises a UsageError that names what differs, if the run was made with settings that make its numbers other ones."""
        mine = {**flat(self.recipe), "precision": self.hardware.precision}
        theirs = {**flat(recipe.sized()), "precision": hardware.precision}
        for name in sorted(theirs.keys() - recipe.incidental):
            if mine.get(name) != theirs[name]:
                text = difference(name, mine.get(name), theirs[name])
                raise UsageError(f"{self.path} was made with {text}: choose another --out")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


@contextlib.contextmanager
def naming_sizes(recipe: Recipe, training: bool = False) -> Iterator[None]:
    """The context in which networks are made and trained: where memory runs out, the largest size is named.

    Args:
        recipe: whose sizes they are.
        training: steps are taken, of which a smaller batch is named too.

    Raises:
        UsageError: memory ran out, or a size is larger than a tensor can have.
    """
    from pyzoo.training.trainer import NonFiniteLoss

    try:
        yield
    except NonFiniteLoss:  # whatever its words
        raise
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        text = str(error).lower()
        if "without overflow" in text:
            numbers = {name: abs(value) for name, value in flat(recipe).items() if type(value) is float}
            most = max(numbers, key=lambda name: numbers[name])
            raise UsageError(f"a tensor can't hold a number, the largest of which is {flag(most)} {numbers[most]:g}") from error
        too_large = any(word in text for word in ("allocate memory", "out of memory", "overflow", "storage size", "too large"))
        if not too_large and not isinstance(error, (MemoryError, OverflowError)):
            raise
        values = {field.name: field.value for _, field in walk(recipe) if field.has_flag}
        sizes = {name: max(value, default=0) if isinstance(value, tuple) else value for name, value in values.items()}
        sizes = {name: value for name, value in sizes.items() if type(value) is int and not _NO_SIZE.search(name)}
        largest = max(sizes, key=lambda name: sizes[name])
        no_memory = "memory" in text or not text
        why = "there is not enough memory for these sizes" if no_memory else "no tensor can have these sizes"
        named, shape = f"{flag(largest)} {sizes[largest]}", _image_shape(recipe)
        if math.prod(shape) > sizes[largest]:
            named = f"that of an image, {' x '.join(map(str, shape))}: make images smaller by --image-size"
        fewer = (
            f"; a smaller batch takes less: --batch-size {recipe.batch_size // 2}"
            if training and no_memory and recipe.batch_size > 1
            else ""
        )
        raise UsageError(f"{why}, the largest of which is {named}{fewer}") from error


def _image_shape(recipe: Recipe) -> tuple[int, ...]:
    """Channels, height and width of the images that a user could make smaller; empty if there are none."""
    if "image_size" not in flat(recipe):
        return ()
    with contextlib.suppress(Exception):  # another error is on its way
        return tuple(recipe.sized().networks.x_shape)  # type: ignore[attr-defined]
    return ()


_NO_SIZE = re.compile("steps|every|seed|patience|epochs")
"""Names of whole numbers that are no sizes of tensors."""


class Figures(dict[str, "Figure"]):
    """Figures by name, which a notebook shows."""

    def _repr_html_(self) -> str:
        import base64
        import io

        parts = []
        for name, figure in self.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=100)
            data = base64.b64encode(buffer.getvalue()).decode()
            parts.append(f'<p>{name}</p><img alt="{name}" src="data:image/png;base64,{data}">')
        return "\n".join(parts)


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
