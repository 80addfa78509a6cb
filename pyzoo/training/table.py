"""What a paper's table is: a list of recipe runs, with the paper's numbers beside ours."""

import dataclasses
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pyzoo.about import About, entries
from pyzoo.checks import require_kind
from pyzoo.errors import UsageError
from pyzoo.settings import Settings, Steps, flag, flat
from pyzoo.training.recipe import Recipe, load_entry
from pyzoo.training.run import Run
from pyzoo.training.run_folder import read_checked, write_checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Entry", "References", "Row", "Table", "find_table", "reference_entries"]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table: a recipe with some of its fields, trained with each seed."""

    label: str
    """What the table calls it; no two rows have one label."""
    recipe: type[Recipe]
    """What is trained."""
    fields: Mapping[str, Any]
    """Fields that differ from the preset."""
    paper: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The paper's numbers as it prints them, by metric."""
    preset: str = ""
    """The recipe's preset, if it is not the table's."""

    def folder(self, seed: int) -> str:
        """Name of the folder of a run."""
        return f"{re.sub('[^a-z0-9]+', '-', self.label.lower()).strip('-')}-seed{seed}"


References = Mapping[int, Mapping[str, Mapping[str, float]]]
"""Metrics of what other libraries have trained: by seed, and by label."""


class Entry(NamedTuple):
    """A line of a table as it is printed."""

    label: str
    """What stands before it."""
    metrics: Sequence[Mapping[str, float]]
    """Of each run, or of each seed."""
    paper: Mapping[str, str] = {}
    """The paper's numbers as it prints them, by metric."""


@dataclasses.dataclass(frozen=True)
class Table(Settings):
    """Base of all tables. The fields are the flags of ``pyzoo reproduce``, with the strings below them as help.

    A subclass sets the class variables, adds its fields and writes the methods.
    """

    about: ClassVar[About]
    """What ``pyzoo list`` says of it; it stands in ``ABOUT`` of the table's package."""
    name: ClassVar[str]
    """What the command calls it."""
    columns: ClassVar[Mapping[str, str]]
    """The metrics that are shown, with their headings."""
    group: ClassVar[str] = "table"
    note: ClassVar[str] = ""
    """What to say below the table: how something in it was chosen, for example."""
    incidental: ClassVar[frozenset[str]] = frozenset({"seeds", "full", "steps"})
    """Settings that change nothing about what :meth:`references` measures."""

    preset: str = "small"
    """Preset of the recipes that the rows train."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds with which each row is trained; the table gives means and standard deviations."""
    full: bool = False
    """Also measure, of each row's first seed, what takes long."""
    steps: Steps | None = None
    """Training steps, in place of the preset's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in flat(self).items():
            if isinstance(value, tuple):
                self.require(len(value) > 0 and len(set(value)) == len(value), name, "one or more, and different")

    def rows(self) -> Sequence[Row]:
        """The rows, in the paper's order."""
        raise NotImplementedError

    def references(self, seed: int) -> Mapping[str, Mapping[str, float]]:
        """Metrics of what other libraries train on a seed's data, by the label of a line; measured once for each seed."""
        return {}

    def kept_references(self, seed: int, folder: Path) -> Mapping[str, Mapping[str, float]]:
        """The same, kept in a file of the table's folder, and measured if it is not there, or of other settings."""
        file = folder / f"references-seed{seed}.json"
        settings = {name: str(value) for name, value in flat(self).items() if name not in self.incidental}
        found = read_checked(file)
        if found.get("settings") != settings or not isinstance(found.get("metrics"), dict):
            found = {"settings": settings, "metrics": self.references(seed)}
            if not found["metrics"]:
                return {}
            write_checked(file, found)
        return found["metrics"]

    def entries(self, runs: Mapping[str, Sequence[Run]], references: References) -> Sequence[Entry]:
        """The lines of the table; by default all rows, and what other libraries have trained.

        Args:
            runs: the finished runs of each row, by its label.
            references: what :meth:`references` gave, by seed.
        """
        rows = [Entry(row.label, [run.metrics for run in runs.get(row.label, ())], row.paper) for row in self.rows()]
        return [*rows, *reference_entries(references)]

    def figures(self, runs: Mapping[str, Sequence[Run]], references: References) -> Iterator[tuple[str, "Figure"]]:
        """Named figures over the finished runs of each row, and what other libraries have trained."""
        yield from ()

    def recipe(self, row: Row, seed: int) -> Recipe:
        """A row's recipe with a seed.

        Raises:
            UsageError: a setting is out of range; of one that is not the table's own, it says which row has it.
        """
        more = {} if self.steps is None else {"steps": self.steps}
        try:
            made = row.recipe.preset(row.preset or self.preset, **{**row.fields, **more, "seed": seed})
        except UsageError as error:
            if str(error).partition(" ")[0] in map(flag, flat(self)):
                raise
            raise UsageError(f"row '{row.label}' cannot be trained: {error}") from error
        return made.fitted(())  # no user has chosen the size of a batch

    def render(self, runs: Mapping[str, Sequence[Run]], references: References | None = None) -> str:
        """The table in Markdown: ours, mean and standard deviation over the runs that have the metric, and the paper's."""
        require_kind(runs, "runs", Mapping)
        entries = self.entries(runs, references or {})
        names = [name for name in self.columns if any(name in found for entry in entries for found in entry.metrics)]
        printed = [name for name in self.columns if any(name in entry.paper for entry in entries)]
        head = ["", "runs", *(self.columns[name] for name in names), *(f"{self.columns[name]}, paper" for name in printed)]
        lines = [head, ["---"] * len(head)]
        for label, metrics, paper in entries:
            ours = [_mean_and_spread([found[name] for found in metrics if name in found], len(metrics)) for name in names]
            lines.append([label, str(len(metrics)), *ours, *(paper.get(name, "-") for name in printed)])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + self._below(entries)

    def _below(self, entries: Sequence[Entry]) -> str:
        """What the numbers are of."""
        recipes = [self.recipe(row, self.seeds[0]) for row in self.rows()]
        presets = " or ".join(dict.fromkeys(row.preset or self.preset for row in self.rows()))
        steps = " or ".join(f"{count:,}" for count in sorted({recipe.steps for recipe in recipes}))
        seeds = ", ".join(map(str, self.seeds))
        said = f"Ours: preset {presets}, {steps} steps, seeds {seeds}; mean ± standard deviation over the runs."
        if any(entry.paper for entry in entries):
            said += " The paper's runs are its own, with its own budget."
        return " ".join([said, *([self.note] if self.note else []), *dict.fromkeys(r.note for r in recipes if r.note)])


def reference_entries(references: References) -> list[Entry]:
    """The lines of what other libraries have trained."""
    labels = dict.fromkeys(label for found in references.values() for label in found)
    return [Entry(label, [found[label] for found in references.values() if label in found]) for label in labels]


def _mean_and_spread(values: Sequence[float], runs: int) -> str:
    """Mean and standard deviation; counts whole, small numbers to four digits; how many values if not every run has one."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return "-"
    mean = statistics.fmean(values)
    whole = all(float(value).is_integer() for value in values) and (len(set(values)) == 1 or mean >= 10)
    digits = 0 if whole else 4 if abs(mean) < 0.01 else 2
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 and (digits or len(set(values)) > 1) else ""
    return f"{mean:,.{digits}f}" + spread + (f" (n = {len(values)})" if len(values) < runs else "")


def find_table(name: str) -> type[Table]:
    """An installed table by name, from the entry-point group ``pyzoo.tables``.

    Raises:
        UsageError: there is none of the name.
    """
    known = entries("pyzoo.tables")
    if not isinstance(name, str) or name not in known:
        raise UsageError(f"unknown table '{name}'; there are {', '.join(known)}")
    return load_entry(known[name])
