"""What ``pyzoo list`` says of a recipe or table, before anything that takes seconds is imported."""

import dataclasses
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from pyzoo.errors import one_line

__all__ = ["About", "about_all", "entries", "recipes"]


@dataclasses.dataclass(frozen=True)
class About:
    """A recipe's or table's entry in the list. The package of a paper holds them by name in ``ABOUT``.

    Example:
        >>> About("Kingma and Welling 2014", "one latent", data="digits", minutes={"small": 1}).line
        'one latent (digits)'
    """

    paper: str
    """Authors and year."""
    shows: str
    """One line: what one sees."""
    data: str = ""
    """What a recipe is trained on; empty for a table."""
    minutes: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    """For each preset of a recipe the minutes that it takes on two cores, or None where it needs a GPU or a night."""

    @property
    def line(self) -> str:
        """All of it but the paper."""
        return f"{self.shows} ({self.data})" if self.data else self.shows


def entries(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, of this package and of others."""
    # Where two packages use one name, ours is meant.
    found = sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value.startswith("pyzoo.")))
    return {entry.name: entry for entry in found}


def about_all(group: str) -> dict[str, About]:
    """The entries of a group, "pyzoo.recipes" or "pyzoo.tables", by name.

    They are read from ``ABOUT`` of the package that the entry point's module is in; where a package has none, from the recipe or
    table itself, which may take seconds to import. One that can't be imported is in the list, with the reason.
    """
    return {name: _about(name, entry) for name, entry in entries(group).items()}


def _about(name: str, entry: EntryPoint) -> About:
    try:
        package = importlib.import_module(entry.module.rpartition(".")[0] or entry.module)
        known = getattr(package, "ABOUT", {})
        about = known[name] if name in known else entry.load().about
    except Exception as error:  # someone else's code can raise anything
        return About("Not importable", f"{entry.value}: {type(error).__name__}: {one_line(error)}")
    if not isinstance(about, About):
        return About("Not importable", f"{entry.value}: it says nothing about itself")
    return about


def recipes() -> dict[str, str]:
    """The names of all recipes, and one line on each. ``pyzoo.recipes()`` calls it.

    Example:
        >>> import pyzoo
        >>> pyzoo.recipes()["compvae-sines"]
        'taking a curve apart into sines, and putting others together (generated curves)'
    """
    return {name: about.line for name, about in about_all("pyzoo.recipes").items()}
