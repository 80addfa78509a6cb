"""Figures of predictions in other environments: accuracy over training, and what z holds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.plotting import figure_grid, image_sheet, label_axes, show_runs
from pyzoo.recipes.mib.figures import losses, networks

if TYPE_CHECKING:
    from pyzoo.recipes.mib.ood.report import OODReport

__all__ = ["accuracies", "colored_sheet", "figures", "latents"]


def figures(report: "OODReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """All figures of a run."""
    yield "networks", networks(report.recipe)
    yield "images", colored_sheet(report.recipe.training_set.images[:40] / 255)
    yield "latents", latents(report)
    if history:  # a run that was stopped early has none
        yield "accuracies", accuracies({report.recipe.name: [history]}, names_of(report.recipe), "Accuracy over training")
        yield "loss", losses([{k: v for k, v in row.items() if not k.startswith("accuracy")} for row in history])


def names_of(recipe: Any) -> dict[str, str]:
    """The columns of accuracies, and what the figures call them."""
    flips = {f"accuracy_env_{e}": f"{share:.0%} of colors flipped (trained on)" for e, share in enumerate(recipe.color_flips)}
    return {**flips, "accuracy_test_env": f"{recipe.test_color_flip:.0%} of colors flipped (test)"}


def accuracies(histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], names: Mapping[str, str], title: str) -> Figure:
    """Accuracy over training in each environment, a panel for each method: mean and range over its runs.

    Args:
        histories: for each method the rows of metrics.csv of its runs.
        names: columns, and what they are called.
        title: of the figure.
    """
    figure, axes = figure_grid(1, len(histories), title, cell=(3.2, 2.8))
    for cell, (method, runs) in zip(axes[0], histories.items(), strict=True):
        for index, (column, name) in enumerate(names.items()):
            curves = [[(row["step"], row[column]) for row in run if column in row] for run in runs]
            show_runs(cell, curves, name, color=f"C{index}")
        cell.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
        cell.set_ylim(0, 1)
        cell.set_title(method, fontsize=9)
        label_axes(cell, "training step", "accuracy")
    axes[0][0].legend(fontsize=6, loc="lower right")
    return figure


def latents(report: "OODReport", count: int = 1500) -> Figure:
    """The means of q(z | x) of test images in their two principal directions, by class, by color and by label."""
    test = report.recipe.test_set
    part = test.rows(torch.arange(min(count, len(test))))
    z = report.means(part).cpu().double()
    centered = z - z.mean(0)
    plane = centered @ torch.linalg.svd(centered, full_matrices=False).Vh[:2].mT
    plane = torch.nn.functional.pad(plane, (0, 2 - plane.shape[1]))
    figure, axes = figure_grid(1, 3, "z of images in the test environment, in its two principal directions", cell=(3.0, 2.8))
    shown = {
        "by class": (part.classes.cpu(), "tab10"),
        "by color": (part.colors.cpu(), "RdYlGn"),
        "by label": (part.labels.cpu(), "coolwarm"),
    }
    for cell, (title, (values, colors)) in zip(axes[0], shown.items(), strict=True):
        cell.scatter(plane[:, 0], plane[:, 1], c=values, cmap=colors, s=4, linewidths=0)
        cell.set_title(title, fontsize=9)
        label_axes(cell, "first direction", "second direction")
    return figure


def colored_sheet(images: Tensor) -> Figure:
    """Images in red and green, (images, 2, height, width)."""
    blue = torch.zeros_like(images[:, :1])
    return image_sheet(torch.cat([images, blue], 1), "Colored images")
