"""Figures of structure learning: masks over training beside the truth, the networks, and the views."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pyzoo.plotting import draw_network, figure_grid, image_grid, label_axes, loss_history
from pyzoo.recipes.mib.structure.report import matched

if TYPE_CHECKING:
    from pyzoo.recipes.mib.structure.report import StructureReport

__all__ = ["edge_counts", "figures", "masks", "structures", "view_sheet"]


def figures(report: "StructureReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """All figures of a run."""
    yield "structures", structures(report)
    yield "views", view_sheet({name: view[:8].cpu() for name, view in report.views.items()}, "Views of eight examples")
    if history:  # a run that was stopped early has none
        yield "masks", masks(report, history)
        yield "edges", edge_counts(report, history)
        names = report.pair.model.variables
        panels = {"Views": {x: x for x in names.observed}, "Latents": {z: z for z in names.latents}}
        yield "loss", loss_history(history, panels, "The terms of the negative ELBO")


def structures(report: "StructureReport") -> Figure:
    """The structure that the views were drawn from, and the one that was learned, with its latents in the causes' places."""
    truth, found = report.recipe.planted_structure, report.pair.model.variables
    order = matched(report.edges, report.truth)
    names = [found.shared[j] for j in order if j < len(found.shared)]
    edges = [(z, x) for j, z in enumerate(found.shared) for i, x in enumerate(found.observed) if report.edges[i, j]]
    figure, axes = figure_grid(1, 2, "Which view depends on which latent", cell=(3.4, 2.6))
    views = truth.variables.observed
    draw_network(axes[0][0], [truth.variables.shared, views], truth.edges, views, "The truth")
    draw_network(axes[0][1], [names, views], edges, views, "Learned")
    return figure


def masks(report: "StructureReport", history: Sequence[Mapping[str, float]], count: int = 7) -> Figure:
    """Probabilities of all edges while they are learned, beside the truth; latents are in the causes' order."""
    names = report.pair.model.variables
    order = [j for j in matched(report.edges, report.truth) if j < len(names.shared)]
    rows = [row for row in history if f"p/{names.shared[0]}-{names.observed[0]}" in row]
    changing = [row for row in rows if row["step"] > report.recipe.mask_start * report.recipe.steps] or rows
    chosen = [changing[i] for i in torch.linspace(0, len(changing) - 1, min(count, len(changing))).round().long().tolist()]
    shown = [
        (f"step {row['step']:,.0f}", torch.tensor([[row[f"p/{names.shared[j]}-{x}"] for j in order] for x in names.observed]))
        for row in chosen
    ]
    figure, axes = figure_grid(1, len(shown) + 1, "Probability of each edge over training (black: 1)", cell=(1.4, 2.2))
    for cell, (title, mask) in zip(axes[0], [*shown, ("the truth", report.truth)], strict=True):
        cell.imshow(mask.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
        cell.set_title(title, fontsize=8)
        labels = report.recipe.planted_structure.variables.shared if title == "the truth" else [names.shared[j] for j in order]
        cell.set_xticks(range(mask.shape[1]), labels, fontsize=7)
        cell.set_yticks(range(len(mask)), names.observed, fontsize=7)
    axes[0][0].set_ylabel("view", fontsize=8)
    return figure


def edge_counts(report: "StructureReport", history: Sequence[Mapping[str, float]]) -> Figure:
    """The effective number of parents of a view, and the expected number of edges of both masks, beside the truth's."""
    edges = report.truth.sum().item()
    curves = {
        "effective_parents": ("effective parents of a view, mean", edges / len(report.truth)),
        "structure/edges": ("expected edges of both masks", 2 * edges),
    }
    curves = {column: curve for column, curve in curves.items() if column in history[-1]}
    figure, axes = figure_grid(1, len(curves), "Over training; dotted: the truth", cell=(3.4, 2.6))
    for cell, (column, (label, true)) in zip(axes[0], curves.items(), strict=True):
        cell.plot([row["step"] for row in history], [row[column] for row in history])
        cell.axhline(true, color="gray", linestyle=":")
        cell.set_ylim(bottom=0)
        label_axes(cell, "training step", label)
    return figure


def view_sheet(views: Mapping[str, Tensor], title: str) -> Figure:
    """Views of some examples: images in a table, a row for each view; or numbers as bars."""
    images = {name: view for name, view in views.items() if view.dim() == 4}
    if images:
        return image_grid([list(view) for view in images.values()], title, labels=list(images))
    figure, axes = figure_grid(1, len(views), title, cell=(1.8, 2.0))
    for cell, (name, view) in zip(axes[0], views.items(), strict=True):
        limit = max(1.0, view.abs().max().item())
        cell.imshow(view.numpy(), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        cell.set_title(name, fontsize=8)
        for axis in (cell.xaxis, cell.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        label_axes(cell, "coordinate", "example" if name == next(iter(views)) else "")
    return figure
