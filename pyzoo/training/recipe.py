"""What a recipe is: a model, its guide, data, optimiser, schedules, metrics and figures, as one dataclass."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from pyzoo.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Objective", "Recipe", "Source", "recipes"]


class Source(Protocol):
    """Where batches come from."""

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step, examples along the first dimension; a pure function of the source's seed and split and of step."""


@dataclasses.dataclass
class Objective:
    """One loss, the parameters it moves, and how.

    Args:
        module: its ``forward(**batch)`` returns the loss, 0-dim, and a dict of named 0-dim terms to log; its buffers and
            parameters are what a checkpoint holds.
        optimizer: over the parameters that this objective moves, which need not be all of the module's.
        scheduler: of the learning rate; stepped after each of the objective's steps.
        schedules: buffers of the module and their values as functions of the training step: KL weights, temperatures.
        name: put before the names of its terms in metrics.csv, where there is more than one objective.
        every: take a step every so many training steps.
        clip_norm: largest norm of the gradient, or None.
        after_step: called after each step of the optimiser.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    schedules: Mapping[str, Callable[[int], float]] = dataclasses.field(default_factory=dict)
    name: str = ""
    every: int = 1
    clip_norm: float | None = None
    after_step: Callable[[], None] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Everything that training moves."""
        return {key: value.state_dict() for key, value in self._stateful()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`state_dict` returned."""
        for key, value in self._stateful():
            value.load_state_dict(state[key])

    def _stateful(self) -> list[tuple[str, Any]]:
        parts = [("module", self.module), ("optimizer", self.optimizer), ("scheduler", self.scheduler)]
        return [(key, value) for key, value in parts if value is not None]


@dataclasses.dataclass
class Recipe:
    """Base of all recipes. The fields are the flags of ``pyzoo train``, with the strings below them as help.

    A subclass sets the class variables, adds its fields and writes the methods. :meth:`objectives` is called with the seed
    set, and its first objective's module is what is evaluated, drawn and sampled from.
    """

    name: ClassVar[str]
    """What the command calls it."""
    paper: ClassVar[str]
    """Authors and year."""
    about_data: ClassVar[str]
    """What it is trained on."""
    shows: ClassVar[str]
    """One line: what one sees."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Names of presets and the fields that they set; the first one is the default."""
    incidental: ClassVar[frozenset[str]] = frozenset({"log_every", "checkpoint_seconds"})
    """Fields that change nothing about what is learned and measured."""
    engine: ClassVar[Literal["eager", "traced"]] = "eager"
    """What ``--engine auto`` means."""

    steps: int = 1000
    """Training steps."""
    batch_size: int = 256
    """Examples in a step, over all devices."""
    seed: int = 0
    """All randomness of the run follows from it."""
    log_every: int = 50
    """Steps between rows of metrics.csv."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints."""

    def __post_init__(self) -> None:
        self.require(self.steps >= 1, "steps", "at least 1")
        self.require(self.batch_size >= 1, "batch_size", "at least 1")
        self.require(self.log_every >= 1, "log_every", "at least 1")
        self.require(self.checkpoint_seconds >= 0, "checkpoint_seconds", "at least 0")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            self.require(not isinstance(value, float) or math.isfinite(value), field.name, "finite")

    def require(self, condition: bool, field: str, what: str) -> None:
        """Raises a UsageError that names the flag unless the condition holds."""
        if not condition:
            flag, value = "--" + field.replace("_", "-"), getattr(self, field)
            raise UsageError(f"{flag} must be {what}, got {value}")

    @classmethod
    def preset(cls, name: str | None = None, **fields: Any) -> "Recipe":
        """The recipe with a preset's fields, the first preset's by default, and some fields replaced."""
        name = next(iter(cls.presets)) if name is None else name
        if name not in cls.presets:
            raise UsageError(f"{cls.name} has no preset '{name}'; it has {', '.join(cls.presets)}")
        return cls(**{**cls.presets[name], **fields})

    @property
    def note(self) -> str:
        """What to say beside every number; may be empty."""
        return ""

    def prepare(self) -> None:
        """Looks for, and fetches, the files that training and measuring will need.

        Raises:
            UsageError: one is missing or damaged.
        """

    def source(self, device: torch.device) -> Source:
        """Where training batches come from."""
        raise NotImplementedError

    def objectives(self) -> Sequence[Objective]:
        """Fresh networks and what trains them, on the CPU."""
        raise NotImplementedError

    def monitor(self, module: nn.Module, device: torch.device, step: int) -> dict[str, float]:
        """Further columns of a row of metrics.csv, after that many steps; those missing in a row stay empty."""
        return {}

    def evaluate(self, module: nn.Module, device: torch.device, full: bool = False) -> dict[str, float]:
        """Metrics by name, with ``full`` also those that take long. Moves no parameter."""
        raise NotImplementedError

    def figures(
        self, module: nn.Module, device: torch.device, history: Sequence[Mapping[str, float]]
    ) -> Iterator[tuple[str, "Figure"]]:
        """Named figures; history is the rows of metrics.csv."""
        raise NotImplementedError

    def sample(
        self, module: nn.Module, device: torch.device, count: int, parts: Sequence[str] | None, seed: int
    ) -> dict[str, Tensor]:
        """Draws from the trained model: named tensors with ``count`` rows, of which ``x`` is what is drawn.

        The parts are as a user calls them; None for random ones. The global seed is set already.
        """
        raise NotImplementedError

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        """A figure of what :meth:`sample` returned."""
        raise NotImplementedError


def recipes() -> dict[str, type[Recipe]]:
    """All installed recipes by name, from the entry-point group ``pyzoo.recipes``: other packages can add theirs."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group="pyzoo.recipes"), key=lambda entry: entry.name)}
