"""Figures from tensors. Figures are made without pyplot, so nothing here opens a window or keeps state."""

import builtins
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import Tensor

from pyzoo.checks import (
    require_count,
    require_floating,
    require_kind,
    require_names,
    require_number,
    require_pair,
    require_shape,
    require_tensor,
)
from pyzoo.settings import Above

__all__ = [
    "draw_network",
    "figure_grid",
    "first_cells",
    "image_grid",
    "image_sheet",
    "label_axes",
    "loss_history",
    "show",
    "show_curves",
    "show_image",
    "show_runs",
]


def figure_grid(rows: int, columns: int, title: str, cell: tuple[float, float] = (2.4, 1.6)) -> tuple[Figure, list[list[Axes]]]:
    """A titled figure of rows by columns axes, each of ``cell`` inches.

    Raises:
        ValueError: there is no row or no column.
    """
    require_count(rows, "rows")
    require_count(columns, "columns")
    require_pair(cell, "cell")
    for side in cell:
        require_number(side, "each side of cell", Above(0))
    require_kind(title, "title", str)
    wide = max(columns * cell[0], 5.0)
    # A title wider than the figure is broken into lines: about 11 characters fit in an inch at this size.
    lines = _wrap(title, int(11 * wide))
    figure = Figure(figsize=(wide, rows * cell[1] + 0.25 + 0.25 * len(lines)), layout="constrained")
    figure.suptitle("\n".join(lines), fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def show(figure: Figure, file: str | Path) -> None:
    """Saves a figure, and in a notebook shows it too.

    Example:
        >>> figure, axes = figure_grid(1, 1, "A line")
        >>> lines = axes[0][0].plot([0, 1])
        >>> show(figure, "line.png")  # doctest: +SKIP
    """
    require_kind(figure, "figure", Figure)
    figure.savefig(file, dpi=120)
    if hasattr(builtins, "get_ipython"):  # which IPython puts there
        from IPython.display import Image, display

        display(Image(filename=str(file), width=round(100 * figure.get_figwidth())))


def first_cells(axes: Sequence[Sequence[Axes]], count: int) -> list[Axes]:
    """The first cells of a grid, line by line; the others are switched off."""
    require_count(count, "count", 0)
    require_kind(axes, "axes", Sequence)
    for line in axes:
        require_kind(line, "each row of axes", Sequence)
    cells = [cell for line in axes for cell in line]
    for cell in cells[count:]:
        cell.axis("off")
    return cells[:count]


def label_axes(axes: Axes, horizontal: str, vertical: str) -> None:
    """Names of both axes, small numbers and a pale grid."""
    axes.set_xlabel(horizontal, fontsize=8)
    axes.set_ylabel(vertical, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, linewidth=0.5)


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def show_curves(
    axes: Axes, curves: Mapping[str, Tensor], limit: float, title: str = "", styles: Mapping[str, Mapping] | None = None
) -> None:
    """Curves over their steps, (steps,) or (curves, steps) each, between -limit and limit; keys are the legend's labels.

    Axes are named at the left and at the bottom of a grid.

    Raises:
        ValueError: there is no curve.
    """
    if not curves:
        raise ValueError("There is no curve to show.")
    require_number(limit, "limit", Above(0))
    require_names(styles or {}, curves, "curve")
    for label, curve in curves.items():
        require_tensor(curve, f"the curve '{label}'")
        style = dict((styles or {}).get(label, {}))
        lines = torch.atleast_2d(curve.detach()).double().cpu()
        for index, line in enumerate(lines):
            axes.plot(line.numpy(), **{"linewidth": 1.2, **style}, label=label if index == 0 and label else None)
    axes.set_ylim(-limit, limit)
    axes.set_xlim(0, lines.shape[-1] - 1)
    axes.set_title(title, fontsize=9)
    place = axes.get_subplotspec()  # None of axes that stand in no grid
    label_axes(
        axes,
        "time step" if place is None or place.is_last_row() else "",
        "x" if place is None or place.is_first_col() else "",
    )


def show_runs(axes: Axes, runs: Sequence[Sequence[tuple[float, float]]], label: str, **line: Any) -> None:
    """Draws over the training steps the mean of several runs, and a band from their least to their largest.

    Args:
        axes: where to draw.
        runs: one or more, each as steps and values; as far as the shortest goes.
        label: of the line.
        **line: how it is drawn.
    """
    length = min(map(len, runs))
    steps = [step for step, _ in runs[0][:length]]
    values = torch.tensor([[value for _, value in run[:length]] for run in runs])
    [drawn] = axes.plot(steps, values.mean(0).tolist(), label=label, **line)
    if len(runs) > 1:
        axes.fill_between(
            steps, values.amin(0).tolist(), values.amax(0).tolist(), color=drawn.get_color(), alpha=0.2, linewidth=0
        )


def show_image(axes: Axes, image: Tensor | None, title: str = "") -> None:
    """An image, (3, height, width), or (1, height, width) as ink on paper, values cut to [0, 1]; None leaves the cell empty."""
    if image is None:
        axes.axis("off")
    else:
        axes.imshow(_in_color(image).detach().clamp(0, 1).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
    axes.set_title(title, fontsize=9)


def _in_color(image: Tensor) -> Tensor:
    """(3, height, width) of an image as floats; of one channel as ink on paper."""
    if image.dim() != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise ValueError(f"An image must be (1 or 3, height, width), got {tuple(image.shape)}.")
    if image.dtype == torch.bool:
        image = image.float()
    require_floating(image, "an image")
    image = image.detach().float()
    return image if len(image) == 3 else 1 - image.expand(3, -1, -1)


def image_grid(
    cells: Sequence[Sequence[Tensor | str | None]],
    title: str,
    framed: Collection[tuple[int, int]] = (),
    side: float = 0.6,
    labels: Sequence[str] = (),
) -> Figure:
    """A table of images in one picture, which is drawn much faster than axes for each.

    Args:
        cells: rows of images, (1 or 3, height, width), of short texts, or of None for nothing; sizes may differ.
        title: of the figure.
        framed: rows and columns of cells that are set apart.
        side: inches of a cell.
        labels: of the rows, on their left.
    """
    if not any(map(len, cells)):
        raise ValueError("There is no cell to show.")
    require_number(side, "side", Above(0))
    for place in framed:
        require_pair(place, "each of framed", "a row and a column")
    images = [cell for row in cells for cell in row if isinstance(cell, Tensor)]
    pixels = max([image.shape[-1] for image in images] + [image.shape[-2] for image in images], default=28)
    pitch, columns = pixels + 2, max(map(len, cells))
    canvas = torch.ones(3, pitch * len(cells), pitch * columns)
    margin = 0.09 * max(map(len, labels)) + 0.15 if labels else 0.0  # inches that they need; else images would shrink for them
    figure, [[axes]] = figure_grid(1, 1, title, cell=(side * columns + margin, side * len(cells)))
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if isinstance(cell, Tensor):
                image = _in_color(cell).detach().cpu()
                top, left = (start * pitch + (pitch - size) // 2 for start, size in zip((i, j), image.shape[1:], strict=True))
                bottom, right = top + image.shape[1], left + image.shape[2]
                canvas[:, top - 1 : bottom + 1, left - 1 : right + 1] = 0.85  # a frame, without which white ends nowhere
                canvas[:, top:bottom, left:right] = image
            elif cell is not None:
                axes.text((j + 0.5) * pitch, (i + 0.5) * pitch, cell, ha="center", va="center", fontsize=9)
    show_image(axes, canvas)
    axes.set_yticks([(i + 0.5) * pitch for i in range(len(labels))], labels, fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for i, j in framed:
        place = (j * pitch - 0.5, i * pitch - 0.5)
        axes.add_patch(Rectangle(place, pitch, pitch, fill=False, edgecolor="tab:red", linewidth=1.2, clip_on=False))
    return figure


def draw_network(
    axes: Axes,
    layers: Sequence[Sequence[str]],
    edges: Iterable[tuple[str, str]],
    observed: Collection[str] = (),
    title: str = "",
) -> None:
    """A directed graph in layers, one below the other; observed nodes are shaded, and arrows bend within a layer and round nodes.

    Args:
        axes: where to.
        layers: names of the nodes, the topmost layer first.
        edges: pairs of parent and child.
        observed: which nodes are shaded.
        title: above it.
    """
    if not layers:
        raise ValueError("There is no layer to draw.")
    edges = list(edges)
    for edge in edges:
        require_pair(edge, "each edge", "a pair of parent and child")
        require_names(edge, [name for names in layers for name in names], "node")
    require_names(observed, [name for names in layers for name in names], "node")
    places = {}
    for depth, names in enumerate(layers):
        for index, name in enumerate(names):
            places[name] = (index - (len(names) - 1) / 2, -float(depth))
    for parent, child in edges:
        (start, above), (end, below) = places[parent], places[child]
        if above == below:
            curve = 0.25 if end > start else -0.25
        else:
            crossed = [_crossed(place, places[parent], places[child]) for place in places.values()]
            nearest = min((side for side in crossed if side is not None), key=abs, default=None)
            curve = 0.0 if nearest is None else 0.35 if nearest >= 0 else -0.35  # to the right of what is on the left
        bend = f"arc3,rad={curve}"
        style = {"arrowstyle": "-|>", "mutation_scale": 12, "shrinkA": 15, "shrinkB": 15, "color": "black"}
        axes.add_patch(FancyArrowPatch(places[parent], places[child], connectionstyle=bend, **style))
    for name, (x, y) in places.items():
        axes.scatter([x], [y], s=520, color="lightgray" if name in observed else "white", edgecolors="black", zorder=3)
        axes.text(x, y, name, ha="center", va="center", fontsize=9 if len(name) <= 4 else 6, zorder=4)
    width = max(map(len, layers)) / 2
    axes.set_xlim(-width - 0.2, width + 0.2)
    axes.set_ylim(-len(layers) + 0.4, 0.6)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(title, fontsize=9)


def _crossed(place: tuple[float, float], start: tuple[float, float], end: tuple[float, float]) -> float | None:
    """How far to the left of a straight line from one layer to another a node is that the line would cross; else None."""
    (x, y), (across, up) = (place[0] - start[0], place[1] - start[1]), (end[0] - start[0], end[1] - start[1])
    left = (across * y - up * x) / abs(up)
    return left if 0 < y / up < 1 and abs(left) < 0.3 else None


def image_sheet(images: Tensor, title: str) -> Figure:
    """Images, (images, channels, height, width), ten in a row."""
    require_shape(images, "images", ("images", "channels", "height", "width"))
    rows = [list(row) for row in images.split(10)]
    return image_grid(rows, title, side=0.8)


def loss_history(
    history: Sequence[Mapping[str, float]], panels: Mapping[str, Mapping[str, str]], title: str, window: int = 5
) -> Figure:
    """Columns of metrics.csv over the training steps.

    Args:
        history: the rows.
        panels: for each panel its heading, and in it the columns to draw with their labels in the legend.
        title: of the figure.
        window: rows to average over, since batches differ in their number of parts.
    """
    require_count(window, "window")
    for row in history:
        require_names(["step", *(name for names in panels.values() for name in names)], row, "column")
    figure, [axes] = figure_grid(1, len(panels), title, cell=(4.6, 3.2))
    colors = itertools.cycle(matplotlib.color_sequences["tab10"])
    steps = [row["step"] for row in history]
    for cell, (heading, names) in zip(axes, panels.items(), strict=True):
        for name, label in names.items():
            values = torch.tensor([row[name] for row in history], dtype=torch.float64).clamp(-1e300, 1e300)
            means = [values[max(0, i + 1 - window) : i + 1].mean().item() for i in range(len(values))]
            cell.plot(steps, means, label=label, color=next(colors), linewidth=1.4)
        cell.axhline(0, color="black", linewidth=0.5)
        cell.set_title(heading, fontsize=9)
        label_axes(cell, "training step", "nats per example")
        cell.legend(fontsize=8)
    return figure
