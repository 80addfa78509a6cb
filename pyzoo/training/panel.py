"""Pictures that follow what one sets: what a recipe's report shows on a page, without knowing of the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Choice", "Choices", "Control", "OwnImage", "Panel", "Slider"]


@dataclass(frozen=True)
class Slider:
    """A number between two others."""

    label: str
    low: float
    high: float
    value: float = 0.0
    step: float = 1.0


@dataclass(frozen=True)
class Choice:
    """One of some options."""

    label: str
    options: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class Choices:
    """Some of some options, maybe none; those of ``value`` at first."""

    label: str
    options: tuple[str, ...]
    value: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnImage:
    """An image of the user's: the path of a file, or None as long as there is none."""

    label: str


Control = Slider | Choice | Choices | OwnImage
"""What one sets."""


@dataclass(frozen=True)
class Panel:
    """A picture with what one sets beside it.

    Example:
        >>> from pyzoo.plotting import figure_grid
        >>> def lines(count):
        ...     figure, [[axes]] = figure_grid(1, 1, f"{count} lines")
        ...     return figure
        >>> panel = Panel("Lines", "Choose their number.", {"count": Slider("Lines", 1, 9, 3)}, lines)
        >>> panel.draw(**{name: control.value for name, control in panel.controls.items()}).get_suptitle()
        '3 lines'
    """

    title: str
    text: str
    """What one sees, and what the controls do: Markdown."""
    controls: Mapping[str, Control]
    """By the names of ``draw``'s arguments."""
    draw: Callable[..., "Figure"]
    """The picture of the controls' values. It raises a UsageError that says what is wrong with them."""
