"""What one can play with of a fair representation: the threshold of the decisions that are made from it."""

import functools
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.evaluation import fairness_metrics
from pyzoo.plotting import figure_grid, label_axes
from pyzoo.recipes.mib.fair.figures import rated_rows
from pyzoo.training import Panel, Slider

if TYPE_CHECKING:
    from pyzoo.recipes.mib.fair.report import FairReport

__all__ = ["panels"]


def panels(report: "FairReport") -> list[Panel]:
    """Accuracy against unfairness over all thresholds."""
    table = report.recipe.table
    text = (
        "Two linear classifiers rate rows that they were not fitted to, one from all columns, the other from the "
        f"representation that the model makes of them, and decide for '{table.outcomes[1]}' above a threshold. Unfairness "
        f"(DEO) is how much the share of those with '{table.outcomes[1]}' that are found differs between both groups. Lines "
        "run over the thresholds from 0.05 to 0.95, and dots are at the slider's."
    )
    ratings_and_curves = functools.cache(lambda: rated_and_along(report))  # which no slider changes
    return [
        Panel(
            "Choose a threshold",
            text,
            {"threshold": Slider("Threshold", 0.05, 0.95, 0.5, 0.01)},
            lambda threshold: front(report, ratings_and_curves(), threshold),
        )
    ]


Rated = dict[str, tuple[Tensor, list[dict[str, float]]]]
"""By what they are rated from, the rows' probabilities of the favorable outcome, and the metrics at each threshold."""


@torch.no_grad()
def rated_and_along(report: "FairReport") -> Rated:
    """What a linear classifier makes of the test rows, from all columns and from the representation."""
    test = report.recipe.splits[2]
    grid = torch.linspace(0.05, 0.95, 46, dtype=torch.float64)
    return {
        name: (rating, [fairness_metrics((rating > level).long(), test.y, test.a) for level in grid])
        for name, rating in rated_rows(report).items()
    }


def front(report: "FairReport", rated: Rated, threshold: float) -> Figure:
    """Accuracy against unfairness over all thresholds, and shares by group at one."""
    test, table = report.recipe.splits[2], report.recipe.table
    figure, [[trade, shares]] = figure_grid(1, 2, f"Test rows rated above {threshold:g}", cell=(4.2, 3.2))
    for side, (name, (rating, along)) in enumerate(rated.items()):
        found = fairness_metrics((rating > threshold).long(), test.y, test.a)
        trade.plot([m["deo"] for m in along], [m["accuracy"] for m in along], linewidth=1, color=f"C{side}", label=f"from {name}")
        trade.plot([found["deo"]], [found["accuracy"]], "o", color=f"C{side}")
        chosen = [
            ((rating > threshold) & (test.a == g) & (test.y == 1)).sum() / ((test.a == g) & (test.y == 1)).sum() for g in (0, 1)
        ]
        places = [group + 0.35 * side - 0.175 for group in (0, 1)]
        shares.bar(places, [share.item() for share in chosen], 0.33, color=f"C{side}", label=f"from {name}")
    label_axes(trade, "unfairness (DEO)", "accuracy")
    shares.set_xticks([0, 1], table.groups)
    label_axes(shares, "group", f"share of those with '{table.outcomes[1]}' that are found")
    shares.set_ylim(0, 1)
    trade.legend(fontsize=7)
    return figure
