"""What one can play with of a trained CompVAE: a whole with some of its parts, and wholes made of chosen parts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.data.colors import COLORS
from pyzoo.errors import UsageError
from pyzoo.plotting import figure_grid, show_curves, show_image
from pyzoo.random import derive_seed
from pyzoo.training import Choices, Panel, Slider

if TYPE_CHECKING:
    from pyzoo.recipes.compvae.report import ColorsReport, CompVAEReport, SinesReport

__all__ = ["colors_panels", "sines_panels"]


def taken_apart(report: "CompVAEReport", number: int, kept: Sequence[str]) -> tuple[Tensor, ...]:
    """A whole of the data with the numbered parts kept, and what the model makes of it.

    Returns:
        The whole, its parts, (parts,), the truth of those that are kept, the model's mean of them, and five draws of it.

    Raises:
        UsageError: none is kept.
    """
    if not kept:
        raise UsageError("keep at least one part")
    recipe, source = report.recipe, report.recipe.source(report.device)
    truth = report.draw(source, 1, largest(report), derive_seed(recipe.seed, "explore", number))
    keep = torch.tensor([[name in kept for name in _names(truth.parts.shape[1])]], device=report.device)
    torch.manual_seed(number)  # for the draws of w
    means = report.infer_latents(truth.batch())["w"]
    draws = [report.infer_latents(truth.batch(), sample_w=True)["w"] for _ in range(5)]
    decoded = [report.decode((w * keep.unsqueeze(1)).sum(-1)) for w in (means, *draws)]
    return truth.x[0], truth.parts[0], source.subset(truth, keep)[0], decoded[0][0], torch.cat(decoded[1:])


def _drawn(report: "CompVAEReport", chosen: Sequence[str], seed: int) -> Figure:
    """Four wholes drawn from the model."""
    torch.manual_seed(seed)
    return report.picture(report.sample(4, seed, {"parts": list(chosen)}))


def _names(count: int) -> tuple[str, ...]:
    """How parts are called by their place."""
    return tuple(f"part {place + 1}" for place in range(count))


def largest(report: "CompVAEReport") -> int:
    """The largest trained number of parts that can all be told apart."""
    return max(count for count in range(1, report.recipe.trained_parts + 1) if report.can_be_distinct(count))


def _panels(report: "CompVAEReport", what: str, names: Sequence[str], apart: Callable) -> list[Panel]:
    parts = _names(largest(report))
    return [
        Panel(
            f"Take {what} apart",
            f"The model sees {what} that it was not trained on, and infers a latent for each of its parts from the whole. "
            "Untick parts to take their latents away: the decoder shows the whole without them, beside what the data would be "
            "without them.",
            {
                "number": Slider("Example", 0, 50),
                "kept": Choices("Parts to keep, in the title's order", parts, parts[: max(1, len(parts) - 1)]),
            },
            apart,
        ),
        Panel(
            f"Make {what}",
            "Four draws from the model, made of the parts that you choose. "
            f"It was trained on up to {report.recipe.trained_parts} of them.",
            {
                "chosen": Choices("Parts", tuple(names), tuple(names[:2])),
                "seed": Slider("Draw", 0, 50),
            },
            lambda chosen, seed: _drawn(report, chosen, int(seed)),
        ),
    ]


def sines_panels(report: "SinesReport") -> list[Panel]:
    """The panels of CompVAE on sines."""

    def apart(number: float, kept: Sequence[str]) -> Figure:
        whole, parts, truth, mean, draws = taken_apart(report, int(number), kept)
        frequencies = [str(part + 1) for part in parts.tolist()]
        shown = ", ".join(name for place, name in zip(_names(len(parts)), frequencies, strict=True) if place in kept)
        figure, [cells] = figure_grid(1, 2, f"A curve of the frequencies {', '.join(frequencies)}", cell=(4.6, 2.8))
        limit = 1.2 * whole.abs().max().item()
        gray = {"color": "0.6", "linewidth": 2.5}
        show_curves(cells[0], {"what the model sees": whole}, limit, "the whole", {"what the model sees": gray})
        curves = {"data without the others": truth, "five draws": draws, "the model's mean": mean}
        styles = {
            "data without the others": gray,
            "five draws": {"color": "tab:blue", "linewidth": 0.5, "alpha": 0.6},
            "the model's mean": {"color": "tab:blue"},
        }
        show_curves(cells[1], curves, limit, f"kept: {shown}", styles)
        for cell in cells:
            cell.legend(fontsize=7, loc="lower left")
        return figure

    names = [str(frequency + 1) for frequency in range(report.recipe.num_frequencies)]
    return _panels(report, "a curve", names, apart)


def colors_panels(report: "ColorsReport") -> list[Panel]:
    """The panels of CompVAE on color gradients."""

    def apart(number: float, kept: Sequence[str]) -> Figure:
        whole, parts, truth, mean, _ = taken_apart(report, int(number), kept)
        sites = [list(COLORS)[part] for part in parts.tolist()]
        figure, [cells] = figure_grid(1, 3, f"An image of the sites {', '.join(sites)}", cell=(2.4, 2.4))
        shown = {"what the model sees": whole, "data without the others": truth, "the model's mean of these": mean}
        for cell, (title, image) in zip(cells, shown.items(), strict=True):
            show_image(cell, image, title)
        return figure

    return _panels(report, "an image", list(COLORS), apart)
