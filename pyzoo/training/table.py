"""What a paper's table is: a list of recipe runs, with the paper's numbers beside ours."""

import dataclasses
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pyzoo.about import About, entries
from pyzoo.errors import UsageError
from pyzoo.settings import Count, Settings, flat
from pyzoo.training.recipe import Recipe, load_entry
from pyzoo.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Row", "Table", "find_table"]


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

    def folder(self, seed: int) -> str:
        """Name of the folder of a run."""
        return f"{re.sub('[^a-z0-9]+', '-', self.label.lower())}-seed{seed}"


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

    preset: str = "small"
    """Preset of the recipes that the rows train."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds with which each row is trained; the table gives means and standard deviations."""
    full: bool = False
    """Also measure, of each row's first seed, what takes long."""
    steps: Count | None = None
    """Training steps, in place of the preset's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in flat(self).items():
            if isinstance(value, tuple):
                self.require(len(value) > 0 and len(set(value)) == len(value), name, "one or more, and different")

    def rows(self) -> Sequence[Row]:
        """The rows, in the paper's order."""
        raise NotImplementedError

    def figures(self, runs: Mapping[str, Sequence[Run]]) -> Iterator[tuple[str, "Figure"]]:
        """Named figures over the finished runs of each row."""
        yield from ()

    def recipe(self, row: Row, seed: int) -> Recipe:
        """A row's recipe with a seed."""
        more = {} if self.steps is None else {"steps": self.steps}
        return row.recipe.preset(self.preset, **{**row.fields, **more, "seed": seed})

    def render(self, runs: Mapping[str, Sequence[Run]]) -> str:
        """The table in Markdown: ours, mean and standard deviation over the runs that have the metric, and the paper's."""
        rows = self.rows()
        measured = {row.label: [run.metrics for run in runs.get(row.label, ())] for row in rows}
        names = [name for name in self.columns if any(name in metrics for found in measured.values() for metrics in found)]
        printed = [name for name in self.columns if any(name in row.paper for row in rows)]
        head = ["", "runs", *(self.columns[name] for name in names), *(f"{self.columns[name]}, paper" for name in printed)]
        lines = [head, ["---"] * len(head)]
        for row in rows:
            found = measured[row.label]
            ours = [_mean_and_spread([metrics[name] for metrics in found if name in metrics], len(found)) for name in names]
            lines.append([row.label, str(len(found)), *ours, *(row.paper.get(name, "-") for name in printed)])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + self._below(rows)

    def _below(self, rows: Sequence[Row]) -> str:
        """What the numbers are of."""
        recipes = [self.recipe(row, self.seeds[0]) for row in rows]
        steps = sorted({recipe.steps for recipe in recipes})
        seeds = ", ".join(map(str, self.seeds))
        said = (
            f"Ours: preset {self.preset}, {' or '.join(f'{count:,}' for count in steps)} steps, seeds {seeds}; mean ± standard "
        )
        said += "deviation over the runs."
        if any(row.paper for row in rows):
            said += " The paper's runs are its own, with its own budget."
        return " ".join([said, *dict.fromkeys(recipe.note for recipe in recipes if recipe.note)])


def _mean_and_spread(values: Sequence[float], runs: int) -> str:
    """Mean and standard deviation; counts whole; how many values there are where not every run has one."""
    if not values:
        return "-"
    mean = statistics.fmean(values)
    digits = 0 if all(float(value).is_integer() for value in values) else 2
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 and (digits or len(set(values)) > 1) else ""
    return f"{mean:,.{digits}f}" + spread + (f" (n = {len(values)})" if len(values) < runs else "")


def find_table(name: str) -> type[Table]:
    """An installed table by name, from the entry-point group ``pyzoo.tables``.

    Raises:
        UsageError: there is none of the name.
    """
    known = entries("pyzoo.tables")
    if name not in known:
        raise UsageError(f"unknown table '{name}'; there are {', '.join(known)}")
    return load_entry(known[name])
