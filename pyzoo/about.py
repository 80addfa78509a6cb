"""What ``pyzoo list`` says of a recipe or table, before anything that takes seconds is imported."""

import dataclasses
import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

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
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def about_all(group: str) -> dict[str, About]:
    """The entries of a group, "pyzoo.recipes" or "pyzoo.tables", by name.

    They are read from ``ABOUT`` of the package that the entry point's module is in; where a package has none, from the recipe or
    table itself, which may take seconds to import.
    """
    found = {}
    for name, entry in entries(group).items():
        package = importlib.import_module(entry.module.rpartition(".")[0] or entry.module)
        known = getattr(package, "ABOUT", {})
        found[name] = known[name] if name in known else entry.load().about
    return found


def recipes() -> dict[str, str]:
    """The names of all recipes, and one line on each. ``pyzoo.recipes()`` calls it.

    Example:
        >>> import pyzoo
        >>> pyzoo.recipes()["compvae-sines"]
        'taking a curve apart into sines, and putting others together (generated curves)'
    """
    return {name: about.line for name, about in about_all("pyzoo.recipes").items()}
