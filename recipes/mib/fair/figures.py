"""Figures of fair representations: what a classifier makes of both groups, and accuracy against unfairness."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.evaluation import fairness_metrics
from pyzoo.plotting import figure_grid, label_axes
from pyzoo.recipes.mib.fair.report import best_of, compared, linear_classifier
from pyzoo.recipes.mib.figures import losses, networks

if TYPE_CHECKING:
    from pyzoo.recipes.mib.fair.report import FairReport

__all__ = ["figures", "front", "rated_rows", "scores"]


def figures(report: "FairReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """All figures of a run."""
    yield "networks", networks(report.recipe)
    yield "scores", scores(report)
    if points := compared(report.recipe, history):
        yield "front", run_front(report.recipe, list(points.values()), best_of(history) if report.recipe.keep_best else None)
    if history:  # a run that was stopped early has none
        yield "loss", losses(history)


def rated_rows(report: "FairReport") -> dict[str, Tensor]:
    """Probabilities of the favorable outcome that linear classifiers give the test rows: from all columns, from the code."""
    test, known = report.recipe.splits[2], [split for split in report.recipe.splits[:2] if split is not None]
    sides = {
        "all columns": (linear_classifier(torch.cat([s.x for s in known]), torch.cat([s.y for s in known])), test.x),
        "the representation": (report.classifier, report.codes[2]),
    }
    return {name: torch.as_tensor(classifier.predict_proba(x.numpy())[:, 1]) for name, (classifier, x) in sides.items()}


def scores(report: "FairReport") -> Figure:
    """How a linear classifier rates the test rows with the favorable outcome, by group: from all columns, from the code."""
    table, test = report.recipe.table, report.recipe.splits[2]
    title = f"Scores of the test rows whose outcome is '{table.outcomes[1]}', by a linear classifier"
    figure, axes = figure_grid(1, 2, title, cell=(3.6, 2.6))
    for cell, (name, rating) in zip(axes[0], rated_rows(report).items(), strict=True):
        for group, color in enumerate(("C0", "C1")):
            chosen = ((test.a == group) & (test.y == 1)).numpy()
            style = {"histtype": "step", "density": True, "color": color, "label": table.groups[group]}
            cell.hist(rating.numpy()[chosen], bins=20, range=(0, 1), **style)
        cell.axvline(0.5, color="gray", linewidth=0.8, linestyle=":")
        found = fairness_metrics((rating > 0.5).long(), test.y, test.a)
        cell.set_title(f"from {name}: accuracy {found['accuracy']:.3f}, DEO {found['deo']:.3f}", fontsize=8)
        label_axes(cell, "probability of the favorable outcome", "density")
        cell.legend(fontsize=7)
    return figure


def run_front(recipe: Any, points: Sequence[tuple[float, float, float]], kept: Mapping[str, float] | None = None) -> Figure:
    """Accuracy against unfairness on the held-out rows while the penalty's weight rises, and the one that was kept, if any."""
    title = "Accuracy against unfairness; the penalty's weight beside some points"
    marked = {}
    if kept is not None:
        allowed = kept["validation_deo"] <= recipe.allowed_deo
        which = f"kept: the most accurate of DEO at most {recipe.allowed_deo:g}" if allowed else "kept: the smallest DEO"
        marked = {which: (kept["validation_deo"], kept["validation_accuracy"])}
    return front({"representations on the way": points}, marked, title, "unfairness: DEO of held-out rows")


def front(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    points: Mapping[str, tuple[float, float]],
    title: str,
    unfairness: str = "unfairness: difference of equal opportunity (DEO)",
    chosen: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Accuracy against unfairness.

    Args:
        curves: for each estimator (weight, unfairness, accuracy), along the penalty's weight.
        points: for each baseline (unfairness, accuracy).
        title: of the figure.
        unfairness: what is measured as such.
        chosen: for some estimators (unfairness, accuracy) of what was chosen, in the color of its curve.
    """
    figure, axes = figure_grid(1, 1, title, cell=(6.5, 4.2))
    cell = axes[0][0]
    for name, curve in curves.items():
        _, deo, accuracy = zip(*curve, strict=True)
        (line,) = cell.plot(deo, accuracy, marker="o", markersize=4, label=name)
        if name in (chosen or {}):
            x, y = (chosen or {})[name]
            cell.plot([x], [y], marker="*", markersize=14, markeredgecolor="black", color=line.get_color(), linestyle="none")
        for weight, x, y in curve[:: max(1, len(curve) // 6)]:
            cell.annotate(
                f"{float(f'{weight:.2g}'):g}",
                (x, y),
                textcoords="offset points",
                xytext=(4, 3),
                fontsize=6,
                color=line.get_color(),
            )
    for place, (name, (x, y)) in enumerate(points.items()):
        cell.plot([x], [y], marker="sDv^Pp"[place % 6], color="black", linestyle="none", markersize=5, label=name)
    label_axes(cell, unfairness, "accuracy")
    cell.legend(fontsize=7)
    return figure
