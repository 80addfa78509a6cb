"""The figures of a T-VAE: its views (figure 1a), transferred transformations (3), interpolation (4), few labels (2), images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from pyzoo.data.transformations import FAMILIES, transformed
from pyzoo.evaluation import generate
from pyzoo.infer import evaluating
from pyzoo.plotting import figure_grid, image_grid, label_axes, loss_history, show_image
from pyzoo.recipes.tvae.report import LABELS, infer_transformation, transferred
from pyzoo.training import Pair

if TYPE_CHECKING:
    from pyzoo.recipes.tvae.report import TVAEReport

__all__ = ["few_labels", "figures", "fixed_views", "image_rows", "interpolation", "loss_over_training", "transfer"]


def figures(report: "TVAEReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """All figures of a run."""
    recipe, (model, guide) = report.recipe, report.pair
    x = recipe.measured_images()[0][:30].to(report.device) / 255
    num_views, family = getattr(recipe, "num_views", 2), getattr(recipe, "family", "affine")
    views = fixed_views(family, x[:10], num_views)
    rows = {"x": x[:10], **{f"view {index + 1}": view for index, view in enumerate(views)}}
    yield "figure1_views", image_rows(rows, f"Images and their views, {family}")
    if num_views == 2:
        sources = min(3, len(x) // 2)
        if sources:
            others = x[10:19] if len(x) >= 19 else x[sources:][:9]
            yield "figure3_transfer", transfer(report.pair, x[:sources], others, angle=20.0)
        yield "figure4_interpolation", interpolation(x[:10], views, {"halfway": report.pair})
    again = model.likelihoods(guide.posteriors(x[:10])[0].mean)[0].mean
    yield (
        "reconstructions",
        image_rows({"x": x[:10], "reconstruction": again}, "Images and reconstructions from their latents' means"),
    )
    yield "samples", report.picture(generate(model, size=40))
    if history:  # a run that was stopped early has none
        yield "loss", loss_over_training(history)


def fixed_views(family: str, x: Tensor, num_views: int) -> list[Tensor]:
    """Versions of images, the same in every run of a family."""
    generator, kind = torch.Generator(x.device).manual_seed(0), FAMILIES[family]
    return transformed(x, kind, num_views, kind.invertible and num_views == 2, generator)


def image_rows(rows: Mapping[str, Tensor], title: str) -> Figure:
    """Named rows of images, (images, 1, height, width) each."""
    return image_grid([list(images) for images in rows.values()], title, side=0.8, labels=list(rows))


def transfer(pair: Pair, sources: Tensor, targets: Tensor, angle: float) -> Figure:
    """Figure 3: T from the triplet in the first column, applied to the other images; a block for each source.

    Args:
        pair: a T-VAE or VAE.
        sources: images that are turned both ways, (sources, 1, 28, 28).
        targets: other images, (targets, 1, 28, 28).
        angle: in degrees.
    """
    rotation = FAMILIES["rotation"]
    parameters = rotation.matrices(torch.full((len(sources),), angle, device=sources.device))
    views = torch.stack([rotation.apply(sources, parameters), rotation.apply(sources, rotation.inverse(parameters))], dim=1)
    title = f"T from the triplet on the left, turned by {angle:.0f} degrees either way, applied to the images beside it"
    figure, axes = figure_grid(3 * len(sources), 1 + len(targets), title, cell=(0.8, 0.8))
    with evaluating(nn.ModuleList(pair)):
        for block, T in enumerate(infer_transformation(pair, views)):
            triplet = [sources[block], views[block, 0], views[block, 1]]
            there, back = transferred(pair, T, targets)
            for line, (left, images) in enumerate(zip(triplet, (targets, there, back), strict=True)):
                cells = axes[3 * block + line]
                for cell, image in zip(cells, [left, *images], strict=True):
                    show_image(cell, image)
                    cell.axvline(image.shape[-1] / 2 - 0.5, color="tab:green", linewidth=0.8)
                cells[0].set_ylabel(("x", *moved_by(pair))[line], fontsize=8, rotation=0, ha="right", va="center")
                _frame(cells[0])
    return figure


def moved_by(pair: Pair) -> tuple[str, str]:
    """What the two views are moved by: T and its inverse, or each by a T of its own. A VAE's are as T-VAE's."""
    return ("T", "its inverse") if getattr(pair.model, "inverse_views", True) else ("first T", "second T")


def _frame(cell: Axes) -> None:
    """Sets a cell apart."""
    for spine in cell.spines.values():
        spine.set_color("tab:red")
        spine.set_linewidth(1.5)


def interpolation(
    x: Tensor,
    views: Sequence[Tensor],
    pairs: Mapping[str, Pair],
    title: str = "From halfway between two views' latents",
) -> Figure:
    """Figure 4: images, their two views, and for each model what it decodes from halfway between the views' latents."""
    rows = {"x": x, "view 1": views[0], "view 2": views[1]}
    for label, pair in pairs.items():
        with evaluating(nn.ModuleList(pair)):
            first, second = (q.mean for q in pair.guide.posteriors(*views))
            rows[label] = pair.model.likelihoods((first + second) / 2)[0].mean
    return image_rows(rows, title)


def loss_over_training(history: Sequence[Mapping[str, float]]) -> Figure:
    """The terms of the loss, those of images beside those of latents."""
    known = {
        "Images": {
            "x": "-log p(x | z_0)",
            "penalty/indirect/x": "-log p(x | z)",
            **{f"x_{view}": f"-log p(x_{view} | z_{view})" for view in range(1, 10)},
        },
        "Latents": {
            "z_0": "KL of z_0",
            "penalty/coherence/z": "coherence of z and N(0, I)",
            **{f"penalty/coherence/z_{view}": f"coherence of z_{view}" for view in range(1, 10)},
            "penalty/prior/T": "-log pi(T)",
        },
    }
    panels = {heading: {name: label for name, label in names.items() if name in history[-1]} for heading, names in known.items()}
    return loss_history(history, panels, "The terms of the loss over training, without their schedules")


def few_labels(found: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> Figure:
    """Figure 2: accuracy over the number of labeled images; for each label the mean over runs and draws, a band of one spread.

    Args:
        found: for each label the metrics of its runs.
        title: of the figure.
    """
    figure, [[axes]] = figure_grid(1, 1, title, cell=(6.0, 3.6))
    for label, runs in found.items():
        counts = [count for count in LABELS if all(f"knn_affnist_{count}_labels" in run for run in runs)]
        values = torch.tensor([[run[f"knn_affnist_{count}_labels"] for count in counts] for run in runs]).mean(0)
        spread = torch.tensor([[run[f"knn_affnist_{count}_labels_spread"] for count in counts] for run in runs]).mean(0)
        [line] = axes.plot(counts, values.tolist(), marker=".", linewidth=1.4, label=label)
        axes.fill_between(counts, (values - spread).tolist(), (values + spread).tolist(), alpha=0.2, color=line.get_color())
    axes.set_xscale("log")
    axes.set_xticks(LABELS, [f"{count:,}" for count in LABELS])
    axes.minorticks_off()
    label_axes(axes, "labeled images", "accuracy on affNIST, percent")
    axes.legend(fontsize=8, loc="upper left")
    return figure
