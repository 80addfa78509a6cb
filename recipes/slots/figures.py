"""Figures of scenes taken apart: masks and components side by side, and scenes that were drawn."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.evaluation import pixels_of_slots, segments_of
from pyzoo.plotting import figure_grid, image_grid, label_axes, loss_history
from pyzoo.recipes.slots.decomposition import Decomposition, decompose
from pyzoo.recipes.slots.probes import impute_slots, swap_slots

if TYPE_CHECKING:
    from pyzoo.recipes.slots.report import SlotsReport

__all__ = ["alone", "decomposition", "drawn_slots", "exchange", "figures", "segments_picture", "separation"]

_SCENES = 8
_ARI = "held_out_ari_fg"
# One color for each segment, easy to tell apart; the tenth segment has the first one's again.
_PALETTE = torch.tensor(
    [
        [0.3, 0.3, 0.3],
        [0.90, 0.60, 0.00],
        [0.35, 0.70, 0.90],
        [0.00, 0.62, 0.45],
        [0.95, 0.90, 0.25],
        [0.00, 0.45, 0.70],
        [0.80, 0.40, 0.00],
        [0.80, 0.60, 0.70],
        [1.0, 1.0, 1.0],
    ]
)


def figures(report: "SlotsReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """All figures of a run."""
    x = report.measured[0][:_SCENES]
    decomposed = decompose(*report.pair, x)
    yield "figure8_decomposition", decomposition(x, decomposed)
    if len(x) > 1:
        yield "exchange", exchange(report.pair.model, x, decomposed)
    if report.pair.model.draws_scenes:
        yield "samples", report.picture(report.sample(32, 0))
        yield "figure9_samples", drawn_slots(report.drawn(_SCENES))
    if history:
        latents = sorted(name for name in history[0] if name == "z" or name.startswith("z_"))
        terms = {name: name for name in ("x", *latents, "penalty/masks") if name in history[0]}
        if found := [(row["step"], row[_ARI]) for row in history if math.isfinite(row.get(_ARI, math.nan))]:
            yield "separation", separation(found)
        yield "loss", loss_history(history, {"loss": {"loss": "loss"}, "terms": terms}, "Training loss and its terms")


def separation(measured: Sequence[tuple[float, float]]) -> Figure:
    """How well held-out scenes were separated as training went on.

    Args:
        measured: steps, and the adjusted Rand index of the pieces' pixels there.
    """
    figure, [[axes]] = figure_grid(1, 1, "Pieces of held-out scenes, separated", cell=(4.6, 2.8))
    axes.plot(*zip(*measured, strict=True), marker="o", markersize=3)
    axes.set_ylim(min(0.0, *(ari for _, ari in measured)), 1)
    label_axes(axes, "training step", "adjusted Rand index")
    return figure


def exchange(model: Any, x: Tensor, decomposed: Decomposition) -> Figure:
    """Images with one slot imputed from the others, and with one exchanged for that of the next image.

    Args:
        model: which took the images apart.
        x: images, (images, channels, height, width), at least 2.
        decomposed: the images, taken apart.
    """
    pixels = pixels_of_slots(decomposed.masks).sum((2, 3))
    slots = pixels.argsort(1, descending=True)[:, 1]  # the largest but the background
    imputed, swapped = impute_slots(model, decomposed, slots), swap_slots(model, decomposed, slots)
    rows = {
        "image": x,
        "one slot of it": alone(decomposed, slots),
        "slot, imputed": alone(imputed, slots),
        "image with that": imputed.reconstructions,
        "slot, swapped": alone(swapped, slots),
        "image after that": swapped.reconstructions,
    }
    cells = [list(row.clamp(0, 1)) for row in rows.values()]
    return image_grid(cells, "One slot imputed from the others, and exchanged for the next image's", side=0.8, labels=list(rows))


def alone(decomposed: Decomposition, slots: Tensor) -> Tensor:
    """One slot's component of each image on black, masked."""
    rows = torch.arange(len(slots), device=slots.device)
    return decomposed.masks[rows, slots].unsqueeze(1) * decomposed.components[rows, slots]


def decomposition(x: Tensor, decomposed: Decomposition) -> Figure:
    """Figure 8: images, their reconstructions and segments, then each slot's component on black, masked."""
    return _slots({"image": x, "reconstruction": decomposed.reconstructions}, decomposed, "Images taken apart into slots")


def drawn_slots(decomposed: Decomposition) -> Figure:
    """Figure 9: scenes that were drawn, their segments, then each slot's component on black, masked."""
    return _slots({"scene": decomposed.reconstructions}, decomposed, "Scenes drawn from the model, and their slots")


def segments_picture(masks: Tensor) -> Tensor:
    """Segments in colors, (images, 3, height, width), of masks, (images, slots, height, width)."""
    return _PALETTE.to(masks)[segments_of(masks) % len(_PALETTE)].movedim(-1, 1)


def _slots(rows: Mapping[str, Tensor], decomposed: Decomposition, title: str) -> Figure:
    segments = segments_picture(decomposed.masks)
    shown = (decomposed.masks.unsqueeze(2) * decomposed.components).unbind(1)
    rows = {**rows, "segments": segments, **{f"slot {slot}": part for slot, part in enumerate(shown, 1)}}
    return image_grid([list(row.clamp(0, 1)) for row in rows.values()], title, side=0.8, labels=list(rows))
