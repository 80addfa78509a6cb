"""What a recipe shows of a trained pair."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from pyzoo.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyzoo.training.panel import Panel
    from pyzoo.training.recipe import Pair

__all__ = ["PairReport", "Report"]


class Report:
    """Base of all reports: measures, draws and samples nothing. A recipe's report overrides what it has.

    Each method is called with the pair in evaluation mode, without gradients, and with the global random state set for it; none
    moves a parameter or a buffer.
    """

    criterion: ClassVar[str] = "held_out_elbo"
    """Which of the columns of :meth:`validate` says what --keep-best keeps and when --patience runs out; larger is better."""

    def monitor(self, step: int) -> dict[str, float]:
        """Further columns of each row of metrics.csv."""
        return {}

    def validate(self, step: int) -> dict[str, float]:
        """Columns of metrics.csv that are measured now and then on held-out examples. A step without :attr:`criterion` is not
        compared with others."""
        return {}

    @property
    def can_validate(self) -> bool:
        """Whether there are held-out examples and the criterion of them."""
        return False

    def metrics(self, full: bool = False) -> dict[str, float]:
        """Metrics by name, with ``full`` also those that take long."""
        return {}

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        """Named figures; history is the rows of metrics.csv."""
        yield from ()

    def panels(self) -> Sequence["Panel"]:
        """What ``pyzoo explore`` shows: pictures that follow what one sets."""
        return ()

    def sample(self, count: int, seed: int, given: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Draws from the trained model: named tensors with ``count`` rows, of which ``x`` is what is drawn.

        Args:
            count: how many to draw.
            seed: the global seed is set from it already; sources of data take it.
            given: views or parts to condition on, by name, as a user writes them.

        Raises:
            UsageError: the recipe has nothing to draw, or nothing of the name to condition on.
        """
        raise UsageError("this recipe has no samples to draw")

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        """A figure of what :meth:`sample` returned."""
        raise UsageError("this recipe has no picture of its samples: write them into an .npz")


class PairReport(Report):
    """Base of reports that keep what they are of.

    Args:
        recipe: the run's settings.
        pair: the trained model and guide.
        device: where they are.
    """

    def __init__(self, recipe: Any, pair: "Pair", device: torch.device) -> None:
        self.recipe = recipe
        self.pair = pair
        self.device = device
