"""What a recipe is: data, networks, objectives and a report, as one dataclass."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import Self

from pyzoo.about import About, entries
from pyzoo.errors import UsageError, one_line
from pyzoo.nn import Networks
from pyzoo.settings import AtLeast, Count, Group, Settings, Steps, changed, flag, flat, walk
from pyzoo.training.checkpoint import plain, require_same_form
from pyzoo.training.objective import Objective
from pyzoo.training.report import Report

__all__ = ["Pair", "Recipe", "Source", "find_recipe", "load_entry", "require_held_out"]


class Pair(NamedTuple):
    """A model and its guide."""

    model: Any
    guide: Any

    def to(self, device: torch.device | str) -> "Pair":
        """Moves both."""
        return Pair(self.model.to(device), self.guide.to(device))

    def load_state_dicts(self, model: dict[str, Tensor], guide: dict[str, Tensor]) -> None:
        """Takes the parameters and buffers of a checkpoint.

        Raises:
            UsageError: they are those of another pair.
        """
        for name, program, state in (("model", self.model, model), ("guide", self.guide, guide)):
            require_same_form(state, program.state_dict(), name)
            program.load_state_dict(state)

    def eval(self) -> "Pair":
        """Puts both into evaluation mode."""
        return Pair(self.model.eval(), self.guide.eval())

    @property
    def num_parameters(self) -> int:
        """Of both together; those that they share count once."""
        return sum(p.numel() for p in nn.ModuleList(self).parameters())


class Source(Protocol):
    """Where batches come from."""

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step, examples along the first dimension; a pure function of the source's seed and split and of step."""


@dataclasses.dataclass(frozen=True)
class Recipe(Settings):
    """Base of all recipes. The fields are the flags of ``pyzoo train`` and the keyword arguments of ``pyzoo.train``, with the
    strings below them as help.

    A subclass sets the class variables, gives ``networks`` a default, adds its fields and writes :meth:`source`,
    :meth:`objectives` and :meth:`report`. :meth:`programs` and :meth:`objectives` are called with the seed set.
    """

    about: ClassVar[About]
    """What ``pyzoo list`` says of it; it stands in ``ABOUT`` of the recipe's package."""
    name: ClassVar[str]
    """What the command calls it."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Names of presets and the values that they set, by flat names; the first one is the default."""
    common: ClassVar[tuple[str, ...]] = ("steps", "batch_size", "learning_rate", "seed")
    """The settings that one changes first, which ``--help`` shows."""
    incidental: ClassVar[frozenset[str]] = frozenset({"log_every", "checkpoint_seconds", "log"})
    """Settings that change nothing about what is learned and measured."""
    engine: ClassVar[Literal["eager", "traced"]] = "eager"
    """What ``--engine auto`` means, but in very short runs, which are eager; traced steps of a long run are compiled."""
    group: ClassVar[str] = "training"

    networks: Networks = dataclasses.field(default_factory=Networks)
    """Sizes of the networks."""
    steps: Steps = 1000
    """Training steps."""
    batch_size: Count = 256
    """Examples in a step, over all devices."""
    seed: int = 0
    """All randomness of the run follows from it."""
    validate_every: Annotated[int, AtLeast(0)] = 0
    """Steps between measurements on held-out examples; 0 takes a tenth of the run, or what suits the recipe."""
    keep_best: bool = False
    """Keep the checkpoint that is best on held-out examples beside the newest ones, and evaluate and load it."""
    patience: Annotated[int, AtLeast(0)] = 0
    """Stop when none of so many measurements on held-out examples was the best; 0 never stops early."""
    log_every: Annotated[Count, Group("run")] = 50
    """Steps between rows of metrics.csv."""
    log: Annotated[Literal["csv", "tensorboard"], Group("run")] = "csv"
    """tensorboard writes the rows of metrics.csv for TensorBoard too, into the run folder."""
    checkpoint_seconds: Annotated[float, AtLeast(0), Group("run")] = 60.0
    """Seconds between checkpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.batch_size >= self.fewest_examples, "batch_size", f"at least {self.fewest_examples}, for batch norm")

    @property
    def fewest_examples(self) -> int:
        """Examples that each process needs in a step: 2 where networks have batch norm, which needs to see them differ."""
        return 1

    @classmethod
    def preset(cls, name: str | None = None, /, **changes: Any) -> Self:
        """The recipe with a preset's values, the first preset's by default, and some values replaced, by flat names.

        Raises:
            UsageError: there is no such preset or setting, or a value is not allowed.
        """
        name = next(iter(cls.presets)) if name is None else name
        if not isinstance(name, str) or name not in cls.presets:
            raise UsageError(f"{cls.name} has no preset '{name}'; it has {', '.join(cls.presets)}")
        for field in (field for _, field in walk(cls()) if field.name in changes and not field.has_flag):
            raise UsageError(f"{flag(field.name)} is decided by the recipe and its data, and can't be set")
        return changed(cls(), {**cls.presets[name], **changes})

    @property
    def note(self) -> str:
        """What to say beside every number; may be empty."""
        return ""

    @property
    def validation_interval(self) -> int:
        """Steps between measurements on held-out examples; by default a tenth of the run, in whole rows of metrics.csv."""
        return self.validate_every or self.log_every * max(1, round(self.steps / (10 * self.log_every)))

    def prepare(self) -> None:
        """Looks for, and fetches, the files that training and measuring will need, and checks the settings against them.

        Raises:
            UsageError: one is missing or damaged, or a setting does not fit it.
        """

    def fingerprint(self) -> str:
        """What tells the data from others, so that a run whose data have changed is known: their name, or what tells a user's own
        from others; "" where there is nothing to choose.
        """
        return ""

    def fitted(self, given: Collection[str]) -> Self:
        """The recipe with settings that fit few data of a user's: a preset's batch may have more examples than there are.

        Args:
            given: names of settings that the user has chosen, which stay as they are.
        """
        return self

    @classmethod
    def keep_data(cls, folder: Path, images: Tensor, labels: Tensor | None = None, **settings: Any) -> Path:
        """Writes data that were given in Python into a run's folder; returns the file, which ``data`` then names.

        Raises:
            UsageError: the recipe takes no data, or they are not what it takes.
        """
        if "data" in flat(cls()):
            raise UsageError(f"{cls.name} takes no tensors as its data: name a file")
        raise UsageError(f"{cls.name} generates its data and takes none")

    def sized(self) -> Self:
        """The recipe with networks that fit its data: shapes of images and numbers of classes are read from these."""
        return self

    def programs(self) -> Pair:
        """A fresh model and its guide, on the CPU."""
        networks = self.sized().networks
        model = networks.model()
        return Pair(model, networks.guide(model))

    def source(self, device: torch.device) -> Source:
        """Where training batches come from."""
        raise NotImplementedError

    def objectives(self, pair: Pair) -> Sequence[Objective]:
        """What trains a pair."""
        raise NotImplementedError

    def report(self, pair: Pair, device: torch.device) -> Report:
        """What is measured of a trained pair, drawn and sampled from it."""
        return Report()


def deciding_settings(recipe: Recipe) -> dict[str, bool | int | float | str | None]:
    """The settings that decide what is learned, as a checkpoint holds them. Data may have moved; a run may be made longer."""
    left_out = {"steps", "patience", "data", "data_dir", *recipe.incidental}
    return {name: plain(value) for name, value in flat(recipe).items() if name not in left_out}


def require_held_out(recipe: Recipe, report: Report) -> None:
    """Raises a UsageError if a recipe asks for early stopping, or for the best checkpoint, and has no held-out examples."""
    asked = ((recipe.patience > 0, "--patience", "--patience 0"), (recipe.keep_best, "--keep-best", "--no-keep-best"))
    for is_asked, name, without in asked:
        if is_asked and not report.can_validate:
            held_out = flat(recipe).get("held_out", 1.0)
            cure = f"set --held-out, or {without}" if not held_out else f"{recipe.name} measures nothing on them"
            raise UsageError(f"{name} needs held-out examples: {cure}")


def load_entry(entry: EntryPoint) -> Any:
    """The class of an entry point.

    Raises:
        UsageError: it can't be imported; names it.
    """
    try:
        return entry.load()
    except Exception as error:  # someone else's code can raise anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"'{entry.name}' ({entry.value}) can't be imported: {reason}") from error


def find_recipe(name: str) -> type[Recipe]:
    """An installed recipe by name, from the entry-point group ``pyzoo.recipes``: other packages can add theirs.

    Raises:
        UsageError: there is none of the name.
    """
    known = entries("pyzoo.recipes")
    if not isinstance(name, str) or name not in known:
        raise UsageError(f"unknown recipe '{name}'; there are {', '.join(known)}")
    return load_entry(known[name])
