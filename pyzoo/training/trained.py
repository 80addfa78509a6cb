"""A trained model with its guide: what one measures, draws and samples of it."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import torch
from torch import Tensor, nn

from pyzoo.checks import require_kind, require_switch
from pyzoo.errors import UsageError
from pyzoo.files import require_folder, save_figure
from pyzoo.infer import evaluating
from pyzoo.nn import Networks
from pyzoo.random import derive_seed
from pyzoo.settings import AtLeast, Steps, changed, cut, difference, require_entries, restored
from pyzoo.threads import available_cores
from pyzoo.trained import about_trained, find_trained
from pyzoo.training.hardware import Hardware, find_device, using_threads
from pyzoo.training.panel import Panel
from pyzoo.training.recipe import Pair, Recipe, find_recipe
from pyzoo.training.report import Report
from pyzoo.training.run_folder import OWN_DATA, RunFolder
from pyzoo.training.sizes import naming_sizes
from pyzoo.training.surroundings import own_surroundings
from pyzoo.training.weights import WEIGHTS, load_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMAT", "Figures", "TrainedModel"]

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


class Weights(TypedDict):
    """What config.json holds of a file of weights."""

    sha256: str
    step: Annotated[int, AtLeast(0)]


class TrainedState(TypedDict):
    """What was trained, and for how many steps."""

    model: dict[str, Tensor]
    guide: dict[str, Tensor]
    step: int


class TrainedModel:
    """A model and its guide as they were trained, which measuring, drawing and sampling leave as they are.

    Args:
        path: its folder, with ``config.json``, ``results.json``, ``metrics.csv`` and ``weights.safetensors``, as
            :meth:`pyzoo.training.Run.pack` writes it. A :class:`pyzoo.training.Run` has checkpoints in their place.
        say: what to do with each line that reports progress.

    Raises:
        UsageError: it is no such folder, or its config.json is damaged or of another version.
    """

    def __init__(self, path: str | Path, say: Callable[[str], None] | None = None) -> None:
        require_kind(path, "path", str, Path)
        self.folder: RunFolder = RunFolder.open(Path(path))
        self._say = say
        self._loaded: dict[str, tuple[Pair, int]] = {}
        self._read_config()

    def _read_config(self) -> None:
        """Takes up what config.json says, which another process may have changed."""
        self._require_folder()
        config, file = self.folder.config(), self.path / "config.json"
        if "recipe" not in config:
            raise UsageError(f"{file} does not describe a run: it has no 'recipe'")
        if config.get("format") != FORMAT:
            raise UsageError(f"{file} is of format {config.get('format', 1)}, this version reads format {FORMAT}: train it again")
        require_entries(config, Config, str(file))
        part = "hardware"
        try:
            hardware = restored(Hardware, config[part])
            part = "networks"
            networks = Networks.restored(config[part])
        except UsageError as error:
            raise UsageError(f"{file} does not describe a run: in '{part}' {error}") from error
        self.config: dict[str, Any] = config
        self.preset: str = config["preset"]
        self.hardware: Hardware = hardware
        self.networks: Networks = networks

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

    @property
    def trained(self) -> int:
        """How many steps were taken, of which the pair may be an earlier one that was better."""
        return self.measured_after or self.config["weights"]["step"]

    def _require_folder(self) -> None:
        if not self.path.is_dir():
            raise UsageError(f"the folder {self.path} is gone")

    def _load(self, device: str) -> tuple[Pair, int]:
        place = find_device(device)
        if str(place) not in self._loaded:
            self._require_folder()
            state = self._state()
            try:
                with own_surroundings(), naming_sizes(self.networks), torch.random.fork_rng():
                    model = self.networks.model()
                    pair = Pair(model, self.networks.guide(model))
            except UsageError as error:
                raise UsageError(f"{self.path / 'config.json'} does not describe a run: in 'networks' {error}") from error
            try:
                pair.load_state_dicts(state["model"], state["guide"])
            except UsageError as error:
                raise UsageError(
                    f"what was trained in {self.path} does not fit the networks in its config.json: {error}"
                ) from error
            self._loaded[str(place)] = pair.to(place).eval(), state["step"]
        return self._loaded[str(place)]

    def _state(self) -> TrainedState:
        """What was trained."""
        described = self.config.get("weights")
        require_entries(described, Weights, f"weights in {self.path / 'config.json'}")
        states = load_weights(self.path / WEIGHTS, described["sha256"])
        return {"model": states.get("model", {}), "guide": states.get("guide", {}), "step": described["step"]}

    @contextlib.contextmanager
    def _report(self, device: str, purpose: str, *more: int) -> Iterator[tuple[Report, Recipe]]:
        """The report of what was trained so far, with a seed for a purpose."""
        with self._seeded(device, purpose, *more) as recipe:
            yield recipe.report(self.pair(device), find_device(device)), recipe

    @contextlib.contextmanager
    def _seeded(self, device: str, purpose: str, *more: int) -> Iterator[Recipe]:
        """The context in which a report works, with a seed for a purpose; gives the recipe as it was trained so far."""
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
                self._require_data()
                self._require_same_data(recipe)
            yield recipe

    def _require_data(self) -> None:
        """Raises a UsageError if the data are a user's, and not with the model."""
        if self.config["settings"].get("data") == OWN_DATA and not (self.path / OWN_DATA).is_file():
            raise UsageError(f"the data of {self.path} are its user's, and not in it: put them there as {OWN_DATA}")

    def _require_same_data(self, recipe: Recipe) -> None:
        """Raises a UsageError if a recipe's data are not those that the run began with: then test examples may be trained on."""
        if (before := self.config.get("data", "")) and before != recipe.fingerprint():
            raise UsageError(f"the data of {self.path} have changed since it was trained: put them back, or train a new run")
        mine, theirs = self.networks.described(), recipe.sized().networks.described()
        for name, value in theirs.items():
            if mine.get(name) != value:
                raise UsageError(f"the data of {self.path} have changed: they need {difference(name, value, mine.get(name))}")

    # Measuring, drawing, sampling -----------------------------------------------------------------------------------

    @property
    def about(self) -> str:
        """One sentence on what it is: the first of its card, if it comes with the package, or what the recipe's list says."""
        if self.path == find_trained(self.path.name):
            return about_trained(self.path.name)
        line = self.recipe.about.line
        return f"{line[:1].upper()}{line[1:]}."

    @property
    def output(self) -> Path:
        """The folder for pictures, where none is named: of the model's name, in the current folder."""
        return Path(self.path.name)

    def measure(self, full: bool = False, device: str = "auto") -> dict[str, float]:
        """Measures the trained pair; returns the metrics.

        Args:
            full: also measure what takes long.
            device: where to compute.
        """
        require_switch(full, "full")
        metrics, note = self._measured(full, device)
        self._say_metrics(metrics, note)
        return metrics

    def _measured(self, full: bool, device: str) -> tuple[dict[str, float], str]:
        """The metrics, and what is to be said beside them."""
        with self._report(device, "evaluate") as (report, recipe):
            return report.metrics(full), recipe.note

    def _say_metrics(self, metrics: Mapping[str, float], note: str) -> None:
        width = max(map(len, metrics), default=0)
        for name, value in metrics.items():
            self.say(f"  {name:{width}}  {value:,.0f}" if float(value).is_integer() else f"  {name:{width}}  {value:.4g}")
        if note:
            self.say(f"  ({note})")

    def figures(self, device: str = "auto") -> "Figures":
        """Draws the figures of the trained pair; by name, to look at in a notebook."""
        with self._report(device, "figures") as (report, _):
            return Figures(report.figures(self.history))

    def draw(self, device: str = "auto", out: str | Path | None = None) -> list[Path]:
        """Draws the figures into a folder; returns the files.

        Args:
            device: where to compute.
            out: the folder; by default ``figures`` in :attr:`output`.

        Raises:
            UsageError: a picture can't be written.
        """
        folder = self.output / "figures" if out is None else Path(out)
        require_folder(folder)
        self._require_folder()
        files = [folder / f"{name}.png" for name in self._save_figures(device, folder)]
        if files:
            self.say(f"drew {len(files)} figures in {folder}")
        return files

    def _save_figures(self, device: str, folder: Path) -> Iterator[str]:
        with self._report(device, "figures") as (report, _):
            for name, figure in report.figures(self.history):
                folder.mkdir(exist_ok=True, parents=True)
                save_figure(figure, folder / f"{name}.png")
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

    def panels(self, device: str = "auto") -> list[Panel]:
        """Pictures that follow what one sets, which :command:`pyzoo explore` shows; none where the recipe has none."""
        with self._report(device, "sample") as (report, _):
            panels = report.panels()

        def within(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
            def drawn(**values: Any) -> "Figure":
                with self._seeded(device, "sample"):
                    return draw(**values)

            return drawn

        return [dataclasses.replace(panel, draw=within(panel.draw)) for panel in panels]

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

    def say(self, line: str) -> None:
        """Reports a line."""
        if self._say is not None:
            self._say(line)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"


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
