"""What one can play with of a model that takes scenes apart: slots left out, exchanged, or imputed from the others."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.plotting import figure_grid, show_image
from pyzoo.recipes.images import CROPPED, read_own_image
from pyzoo.recipes.slots.decomposition import Decomposition, decompose
from pyzoo.recipes.slots.figures import alone, segments_picture
from pyzoo.recipes.slots.probes import impute_slots, swap_slots
from pyzoo.training import Choice, Choices, OwnImage, Panel, Slider

if TYPE_CHECKING:
    from pyzoo.recipes.slots.report import SlotsReport

__all__ = ["panels"]

_LEAST_SHARE = 0.05
"""Share of a pixel below which the slots that are kept have no color there."""

_SCENES = 50
"""Measured scenes that a slider chooses among."""


def panels(report: "SlotsReport") -> list[Panel]:
    """Those of all models with slots."""
    slots = tuple(str(slot + 1) for slot in range(report.pair.model.num_slots))
    scene = Slider("Scene", 0, _SCENES - 1)
    model = report.pair.model
    related = model.relations is not None
    if model.has_mask_latents:
        how = "Masks stay: what changes is what the slot looks like where it is."
    else:
        how = "The whole scene is decoded anew, with its masks."
    if related:
        how = f"Where it is exchanged, the part of its latent that is not related to the others stays. {how}"
    expected = "as the message passing prior expects it from the others" if related else "to its mean under the prior"
    follow = ", and the others follow by the prior" if related else ""
    return [
        Panel(
            "Take a scene apart",
            "The model divides an image that it has not seen into slots, each with a mask and an image of its own. Untick "
            f"slots to leave them out: black is where no slot that is kept has a share of the pixel. {CROPPED}",
            {"scene": scene, "file": OwnImage("Your own image"), "kept": Choices("Slots", slots, slots)},
            lambda scene, file, kept: taken_apart(report, int(scene), file, kept),
        ),
        Panel(
            "Replace a slot",
            f"One slot is imputed, {expected}; or it is exchanged for the slot of the same number in another scene{follow}. "
            f"{how}",
            {
                "scene": scene,
                "slot": Choice("Slot", slots, slots[-1]),
                "other": Slider("Scene to exchange it with", 0, _SCENES - 1, 1),
            },
            lambda scene, slot, other: replaced(report, int(scene), int(slot) - 1, int(other)),
        ),
    ]


def _scenes(report: "SlotsReport", *numbers: int) -> Tensor:
    images = report.measured[0]
    return images[[number % len(images) for number in numbers]]


@torch.no_grad()
def taken_apart(report: "SlotsReport", scene: int, file: str | None, kept: Sequence[str]) -> Figure:
    """A scene, its reconstruction and slots, and the scene of the slots that are kept."""
    x = _scenes(report, scene)
    if file is not None:
        x = read_own_image(file, x.shape[1:]).unsqueeze(0).to(x)
    found = decompose(*report.pair, x)
    keep = torch.tensor([str(slot + 1) in kept for slot in range(found.masks.shape[1])], device=x.device)
    masks = found.masks * keep[:, None, None]
    kept_share = masks.sum(1, keepdim=True)
    shares = torch.where(kept_share > _LEAST_SHARE, masks / kept_share.clamp(min=_LEAST_SHARE), 0.0)
    without = Decomposition(shares, *found[1:]).reconstructions
    wholes = [
        ("image", x[0]),
        ("reconstruction", found.reconstructions[0]),
        ("segments", segments_picture(found.masks)[0]),
        ("kept slots alone", without[0]),
    ]
    slots = [(f"slot {slot + 1}", alone(found, torch.tensor([slot], device=x.device))[0]) for slot in range(len(keep))]
    return _titled([wholes, slots], "An image taken apart; below, each slot on black")


@torch.no_grad()
def replaced(report: "SlotsReport", scene: int, slot: int, other: int) -> Figure:
    """A scene with one slot imputed, and with it exchanged for another scene's."""
    x = _scenes(report, scene, other)
    found = decompose(*report.pair, x)
    chosen = torch.full((2,), slot, device=x.device)
    imputed, swapped = (change(report.pair.model, found, chosen) for change in (impute_slots, swap_slots))
    wholes = [
        ("scene", x[0]),
        ("slot imputed", imputed.reconstructions[0]),
        ("other scene", x[1]),
        ("slot exchanged", swapped.reconstructions[0]),
    ]
    slots = [alone(found, chosen)[0], alone(imputed, chosen)[0], alone(found, chosen)[1], alone(swapped, chosen)[0]]
    below = [(f"its slot {slot + 1}", image) for image in slots]
    return _titled([wholes, below], f"Slot {slot + 1} replaced in a scene; below, the slot alone")


def _titled(rows: Sequence[Sequence[tuple[str, Tensor]]], title: str) -> Figure:
    """Rows of titles and images."""
    columns = max(map(len, rows))
    figure, axes = figure_grid(len(rows), columns, title, cell=(1.7, 1.8))
    for line, images in zip(axes, rows, strict=True):
        shown = [*images, *[("", None)] * (columns - len(images))]
        for cell, (name, image) in zip(line, shown, strict=True):
            show_image(cell, image, name)
    return figure
