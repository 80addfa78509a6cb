"""Several runs side by side: settings that differ, metrics, and curves in one picture."""

import math
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyzoo.errors import UsageError
from pyzoo.settings import shown
from pyzoo.training.run import Run
from pyzoo.training.trained import TrainedModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison"]

_CURVES = ("held_out_elbo", "loss")
_MOST = 1e300  # matplotlib can't scale an axis for more


class Comparison:
    """Several runs side by side.

    Args:
        runs: two or more runs or trained models, which are called A, B and so on.

    Raises:
        UsageError: there are fewer than two, or one of them twice.

    Example:
        >>> import pyzoo
        >>> runs = [pyzoo.load("runs/a"), pyzoo.load("runs/b")]  # doctest: +SKIP
        >>> print(Comparison(runs))  # doctest: +SKIP
    """

    def __init__(self, runs: Sequence[TrainedModel]) -> None:
        if not isinstance(runs, Sequence) or not all(isinstance(run, TrainedModel) for run in runs):
            raise UsageError("a comparison takes a list of runs, such as pyzoo.load gives")
        if len({run.path.resolve() for run in runs}) < max(2, len(runs)):
            raise UsageError("a comparison takes two or more different runs")
        if len(runs) > len(string.ascii_uppercase):
            raise UsageError(f"a comparison takes at most {len(string.ascii_uppercase)} runs, got {len(runs)}")
        self.runs: Mapping[str, TrainedModel] = dict(zip(string.ascii_uppercase, runs, strict=False))

    @property
    def settings(self) -> dict[str, list[Any]]:
        """The settings that differ by name, with each run's value; None where a run has no such setting."""
        found = [_settings(run) for run in self.runs.values()]
        names = dict.fromkeys(name for values in found for name in values)
        rows = {name: [values.get(name) for values in found] for name in names}
        return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}

    @property
    def metrics(self) -> dict[str, list[float]]:
        """All metrics by name, with each run's value; nan where a run has no such metric."""
        found = [run.metrics for run in self.runs.values()]
        names = dict.fromkeys(name for metrics in found for name in metrics)
        return {name: [metrics.get(name, math.nan) for metrics in found] for name in names}

    def __str__(self) -> str:
        """Settings and metrics as tables in Markdown."""
        settings = {name: ["-" if value is None else shown(value) for value in row] for name, row in self.settings.items()}
        metrics = {name: [_number(value) for value in row] for name, row in self.metrics.items()}
        parts = [
            "\n".join(f"{name}  {run.path}" for name, run in self.runs.items()),
            self._table("setting", settings) if settings else "All settings are the same.",
            self._table("metric", metrics) if metrics else "None of the runs has been measured.",
        ]
        for name, run in self.runs.items():
            if isinstance(run, Run) and run.metrics and run.measured_after != run.folder.checkpoints.newest_step():
                parts.append(f"{name} was measured after {run.measured_after:,} steps, and has been trained further since.")
        notes = {name: run.folder.results().get("note") for name, run in self.runs.items()}
        for note in dict.fromkeys(note for note in notes.values() if note):
            parts.append(f"{', '.join(name for name in notes if notes[name] == note)}: {note}")
        return "\n\n".join(parts)

    def _table(self, head: str, rows: Mapping[str, Sequence[str]]) -> str:
        lines = [[head, *self.runs], *([name, *row] for name, row in rows.items())]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = ["-" * width for width in widths]
        cells = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (lines[0], rule, *lines[1:])]
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)

    def figure(self) -> "Figure":
        """The curves of the held-out ELBO and of the loss over the steps, where the runs have them.

        Raises:
            UsageError: no run has a row in its metrics.csv.
        """
        from pyzoo.plotting import figure_grid, label_axes  # matplotlib is imported only where something is drawn

        curves = {name: self._curves(name) for name in _CURVES}
        drawn = {name: found for name, found in curves.items() if found}
        if not drawn:
            raise UsageError("none of the runs has a row in its metrics.csv: there are no curves to draw")
        figure, ((*cells,),) = figure_grid(1, len(drawn), "Training curves", cell=(5.0, 3.2))
        for axes, (name, found) in zip(cells, drawn.items(), strict=True):
            for label, (steps, values) in found.items():
                color = f"C{list(self.runs).index(label)}"
                axes.plot(steps, values, color=color, linewidth=1.2, label=f"{label}  {_cut(self.runs[label].path.name)}")
            label_axes(axes, "step", {"held_out_elbo": "ELBO of held-out examples, nats", "loss": "training loss, nats"}[name])
        labels = {label: line for axes in cells for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(labels.values(), labels.keys(), loc="outside lower center", fontsize=8)
        return figure

    def _curves(self, column: str) -> dict[str, tuple[list[float], list[float]]]:
        """Steps and values of a column by run, where it has any."""
        found = {}
        for name, run in self.runs.items():
            points = [(row["step"], row[column]) for row in run.history if abs(row.get(column, math.nan)) < _MOST]
            if points:
                steps, values = map(list, zip(*points, strict=True))
                found[name] = (steps, values)
        return found


def _settings(run: Run) -> dict[str, Any]:
    """What decides a run's numbers, by name."""
    networks = {name: value for name, value in run.config["networks"].items() if name != "class"}
    first = {"recipe": run.config["recipe"], "preset": run.preset}
    return {**first, **run.config["settings"], **networks, "precision": run.hardware.precision, "engine": run.hardware.engine}


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _cut(name: str, length: int = 70) -> str:
    """A name that fits into a legend: of a long one the beginning and the end."""
    return name if len(name) <= length else f"{name[: length - 20]}...{name[-17:]}"
