"""The paper's figures, drawn from a trained CompVAE. Each title says what the figure shows, and which one of the paper it is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.data.colors import COLORS, Images
from pyzoo.data.sines import Sines
from pyzoo.plotting import figure_grid, image_grid, loss_history, show_curves, show_image
from pyzoo.random import derive_seed
from pyzoo.recipes.compvae.report import generate

if TYPE_CHECKING:
    from pyzoo.recipes.compvae.report import ColorsReport, SinesReport

__all__ = ["colors_figures", "sines_figures"]

_TRUTH = {"color": "0.6", "linewidth": 2.5}
_MODEL = {"color": "tab:blue"}


def losses(history: Sequence[Mapping[str, float]], problem: str, paper_figure: int) -> Figure:
    """Where the nats go while the model trains."""
    panels = {
        "information in the latents": {"w": "parts, KL of w", "z": "whole, log-ratio of z"},
        "reconstruction and loss": {"x": "-log p(x | z, w)", "loss": "loss, with its weights"},
    }
    floors = [row.get("x_floor", 0.0) for row in (history[0], history[-1])]
    if floors[0] != floors[1]:
        panels["reconstruction and loss"]["x"] += f", while x's floor falls to {floors[1]:.2g}"
    title = f"{problem}: how the nats divide between parts and whole (the paper's figure {paper_figure})"
    return loss_history(history, panels, title)


# Sines --------------------------------------------------------------------------------------------------------------


def sines_figures(report: "SinesReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """Figures 2, 4, 5, 6 and 10, and one of parts taken away."""
    source = report.recipe.source(report.device)
    yield "figure2_aggregation", aggregation(report, source)
    if history:
        yield "figure4_losses", losses(history, "Sines", 4)
    yield "figure5_parts", intrinsic_variance(report)
    yield "figure6_composition", sines_composition(report)
    yield "figure10_nonlinearity", nonlinearity(source)
    yield "subsets", sines_subsets(report, source)


def _count(report: "SinesReport", most: int) -> int:
    return min(most, max(report.recipe.trained_parts, 2), report.recipe.num_frequencies)


def aggregation(report: "SinesReport", source: Sines) -> Figure:
    """Figure 2, for the data and for the model: the whole is not the sum of its parts."""
    count = _count(report, 4)
    curves = source.draw(3, count, derive_seed(report.recipe.seed, "figure2"), distinct=True)
    alone = [source.subset(curves, torch.arange(count, device=curves.x.device).expand(3, -1) == i) for i in range(count)]
    latents = report.infer_latents(curves.batch())
    rows = {
        "data": (curves.x, sum(alone)),
        "model": (report.decode(latents["w"].sum(-1)), sum(report.decode(w) for w in latents["w"].unbind(-1))),
    }
    title = f"The whole is not the sum of its parts: {count} sines, C = {report.recipe.nonlinearity:g} (the paper's figure 2)"
    figure, axes = figure_grid(2, 3, title, cell=(3.2, 1.9))
    limit = 1.1 * max(side.abs().max().item() for pair in rows.values() for side in pair)
    styles = {"whole": {"color": "purple"}, "sum of parts": {"color": "green"}}
    for line, (name, (whole, parts)) in zip(axes, rows.items(), strict=True):
        for index, cell in enumerate(line):
            show_curves(cell, {"whole": whole[index], "sum of parts": parts[index]}, limit, f"{name}, curve {index + 1}", styles)
    axes[0][0].legend(fontsize=7)
    return figure


def intrinsic_variance(report: "SinesReport") -> Figure:
    """Figure 5: one frequency, many draws of its latent."""
    frequencies = [f for f in (1, 2, 4, 8) if f <= report.recipe.num_frequencies]
    draws = [generate(report.pair.model, {"parts": torch.full((6, 1), f - 1, device=report.device)})["x"] for f in frequencies]
    limit = 1.1 * max(curves.abs().max().item() for curves in draws)
    title = "One part drawn six times from the model: amplitude and phase vary, the frequency stays (the paper's figure 5)"
    figure, axes = figure_grid(1, len(frequencies), title, cell=(2.8, 1.9))
    for cell, f, curves in zip(axes[0], frequencies, draws, strict=True):
        show_curves(cell, {"": curves}, limit, f"frequency {f}")
    return figure


def sines_composition(report: "SinesReport") -> Figure:
    """Figure 6: parts drawn from the model, one added at a time."""
    count = _count(report, 5)
    generator = torch.Generator().manual_seed(derive_seed(report.recipe.seed, "figure6"))
    parts = torch.randperm(report.recipe.num_frequencies, generator=generator)[:count].to(report.device)
    w = generate(report.pair.model, {"parts": parts.unsqueeze(0)})["w"]
    alone = [report.decode(w[..., i]) for i in range(count)]
    wholes = [report.decode(w[..., : i + 1].sum(-1)) for i in range(count)]
    title = "Left: parts drawn from the model. Right: the whole made of this part and all above (the paper's figure 6)"
    figure, axes = figure_grid(count, 2, title, cell=(3.6, 1.3))
    limit = 1.1 * max(x.abs().max().item() for x in alone + wholes)
    for i in range(count):
        names = ", ".join(str(part + 1) for part in parts[: i + 1].tolist())
        show_curves(axes[i][0], {"": alone[i]}, limit, f"frequency {parts[i].item() + 1}", {"": _MODEL})
        show_curves(axes[i][1], {"": wholes[i]}, limit, f"frequencies {names}", {"": {"color": "purple"}})
    return figure


def nonlinearity(source: Sines) -> Figure:
    """Figure 10: what C does to the data."""
    curves = source.draw(1, min(4, source.num_frequencies), seed=1, distinct=True)
    title = "Data: the aggregation saturates more as C grows, here against the plain sum (the paper's figure 10)"
    levels = (0.5, 1.0, 3.0, 10.0)
    figure, axes = figure_grid(1, len(levels), title, cell=(2.8, 1.9))
    for cell, level in zip(axes[0], levels, strict=True):
        bent = Sines(source.max_parts, source.num_frequencies, nonlinearity=level, device=source.device)
        # tanh(c u) for a small c is c u: dividing by it gives the plain sum
        plain = Sines(source.max_parts, source.num_frequencies, nonlinearity=1e-3, device=source.device)
        everything = torch.ones_like(curves.parts, dtype=torch.bool)
        lines = {"plain sum": plain.subset(curves, everything) / 1e-3, "aggregated": bent.subset(curves, everything)}
        styles = {"plain sum": _TRUTH, "aggregated": {"color": "purple"}}
        show_curves(cell, {k: v[0] for k, v in lines.items()}, 4.5, f"C = {level:g}", styles)
    axes[0][0].legend(fontsize=7)
    return figure


def sines_subsets(report: "SinesReport", source: Sines) -> Figure:
    """A curve taken apart: its first parts alone, from posterior means and from posterior samples."""
    count = _count(report, 4)
    curves = source.draw(1, count, derive_seed(report.recipe.seed, "subsets"), distinct=True)
    mean = report.infer_latents(curves.batch())["w"]
    samples = [report.infer_latents(curves.batch(), sample_w=True)["w"] for _ in range(5)]
    title = "The parts inferred from one curve, decoded together (left) and with the last ones left out"
    figure, axes = figure_grid(2, count, title, cell=(2.8, 1.9))
    limit = 1.2 * curves.x.abs().max().item()
    names = [str(part + 1) for part in curves.parts[0].tolist()]
    for kept in range(count, 0, -1):
        keep = torch.arange(count, device=curves.x.device).expand(1, -1) < kept
        truth = source.subset(curves, keep)
        heading = f"frequencies {', '.join(names[:kept])}" if kept < count else f"all: {', '.join(names)}"
        drawn = torch.cat([report.decode(w[..., :kept].sum(-1)) for w in samples])
        inferred = {"posterior mean": report.decode(mean[..., :kept].sum(-1)), "five posterior samples": drawn}
        for line, (label, lines) in zip(axes, inferred.items(), strict=True):
            styles = {"truth": _TRUTH, label: {**_MODEL, "linewidth": 1.2 if len(lines) == 1 else 0.8}}
            show_curves(line[count - kept], {"truth": truth, label: lines}, limit, heading, styles)
    for line in axes:
        line[-1].legend(fontsize=7, loc="lower left")  # a single part is small, and leaves it room
    return figure


# Color gradients ---------------------------------------------------------------------------------------------------


def colors_figures(report: "ColorsReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """Figures 3, 7 and 8, and one of parts taken away."""
    yield "figure3_data", colors_data(report)
    if history:
        yield "figure7_losses", losses(history, "Color gradients", 7)
    yield "figure8_composition", colors_composition(report)
    yield "subsets", colors_subsets(report)


def colors_data(report: "ColorsReport") -> Figure:
    """Figure 3: examples of the data."""
    source, seed = report.recipe.source(report.device), report.recipe.seed
    rows = [list(source.draw(8, count, derive_seed(seed, "figure3", count)).x) for count in range(1, 5)]
    return image_grid(rows, "Data: 1 to 4 colored sites, top to bottom (the paper's figure 3)", side=1.0)


def colors_composition(report: "ColorsReport") -> Figure:
    """Figure 8: sites added one at a time, by the generator of the data and four times by the model."""
    count = max(report.recipe.trained_parts, 2)
    source = report.recipe.source(report.device)
    images = source.draw(1, count, derive_seed(report.recipe.seed, "figure8"))
    figure, axes = figure_grid(
        6,
        count,
        "Sites added from left to right. Rows: the site, the data, four draws from the model (the paper's figure 8)",
        (1.3, 1.2),
    )
    batch = {key: value.expand(4, *value.shape[1:]) for key, value in images.batch().items() if key != "x"}
    w = generate(report.pair.model, batch)["w"]  # the same latents in a row, so that a row adds to one image
    for i in range(count):
        keep = torch.arange(count, device=report.device).expand(1, -1) <= i
        _show_site(axes[0][i], images, i)
        show_image(axes[1][i], source.subset(images, keep)[0])
        for line, image in zip(axes[2:], report.decode(w[..., : i + 1].sum(-1)), strict=True):
            show_image(line[i], image)
    for line, label in zip(axes, ("site", "data", "model 1", "model 2", "model 3", "model 4"), strict=True):
        line[0].set_ylabel(label, fontsize=8)
    return figure


def _show_site(axes, images: Images, index: int) -> None:
    """A dot of the site's color where the site is."""
    name = list(COLORS)[images.parts[0, index].item()]
    horizontal, vertical = images.positions[0, index].tolist()
    axes.scatter([horizontal], [-vertical], color=to_rgb(COLORS[name]), edgecolors="black", s=60)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[], aspect="equal", facecolor="0.85")
    axes.set_title(name, fontsize=9)


def colors_subsets(report: "ColorsReport") -> Figure:
    """Images reconstructed, and with sites left out."""
    count = max(report.recipe.trained_parts, 2)
    source = report.recipe.source(report.device)
    images = source.draw(6, count, derive_seed(report.recipe.seed, "subsets"))
    latents = report.infer_latents(images.batch())
    keep = torch.arange(count, device=report.device).expand(6, -1) < (count + 1) // 2
    rows: dict[str, Tensor] = {
        "data": images.x,
        "reconstruction": report.decode(latents["w"].sum(-1), latents["z"]),
        "half, data": source.subset(images, keep),
        "half, model": report.decode((latents["w"] * keep.unsqueeze(1)).sum(-1)),
    }
    title = f"Images of {count} sites, reconstructed, and with {count - (count + 1) // 2} of the sites left out"
    return image_grid([list(row) for row in rows.values()], title, side=1.1, labels=list(rows))
