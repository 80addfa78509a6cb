"""Scenes taken apart into slots, and put together again, also with other slots than were found."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor

from pyzoo.checks import require_count, require_floating, require_shape
from pyzoo.evaluation import SlotPieces, pieces_of_slots
from pyzoo.infer import AtMean, evaluating
from pyzoo.models.genesis import decoded_masks

__all__ = ["CHUNK", "Decomposition", "decompose", "draw_scenes", "put_together"]

CHUNK = 100
"""Images that are taken apart, drawn or measured at a time."""


class Decomposition(NamedTuple):
    """Images taken apart.

    Attributes:
        masks: (images, slots, height, width), which sum to 1.
        components: each slot's image, (images, slots, channels, height, width).
        latents: the slots' latents, (images, slots, z_dim): the local part, then the global one where slots are related.
        mask_latents: those of the masks, (images, slots, mask_dim), in Genesis and MPP^G; in MONet and MPP^M (images, slots, 0).
    """

    masks: Tensor
    components: Tensor
    latents: Tensor
    mask_latents: Tensor

    @property
    def reconstructions(self) -> Tensor:
        """Components put together by their masks, (images, channels, height, width)."""
        return (self.masks.unsqueeze(2) * self.components).sum(1)

    @property
    def pieces(self) -> SlotPieces:
        """What each slot shows."""
        return pieces_of_slots(self.masks, self.components)

    def of(self, images: Tensor) -> "Decomposition":
        """That of some of the images, by their numbers or by a boolean for each."""
        return Decomposition(*(part[images] for part in self))


def decompose(model: Any, guide: Any, x: Tensor) -> Decomposition:
    """Takes images apart, from latents' means and in evaluation mode.

    Args:
        model: a MONet or a Genesis, with relations or without.
        guide: its guide.
        x: images, (images, channels, height, width), from 0 to 1.

    Raises:
        ValueError: these are no images.
    """
    require_shape(x, "x", ("images", "channels", "height", "width"))
    require_floating(x, "x")
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("x must be from 0 to 1 everywhere; images of bytes are divided by 255.")
    found = []
    latents = {f"z_m_{slot + 1}" for slot in range(model.num_slots)} | {"z", "z_c", "z_g"}
    with evaluating(model), evaluating(guide), AtMean(latents):
        for part in x.split(CHUNK):
            sites = pyro.poutine.trace(guide).get_trace(x=part).nodes
            found.append(_of_sites(model, sites))
    return _joined(found)


def draw_scenes(model: Any, size: int) -> Decomposition:
    """Draws scenes in evaluation mode, from a model that can, with their masks and components.

    Args:
        model: a Genesis, or a MONet with relations.
        size: number of scenes.

    Raises:
        ValueError: the model draws components that do not fit each other.
    """
    require_count(size, "size")
    if not model.draws_scenes:
        raise ValueError("model draws no scenes: its slots are independent, and their masks do not fit.")
    found = []
    with evaluating(model):
        for begin in range(0, size, CHUNK):
            sites = pyro.poutine.trace(model).get_trace(size=min(CHUNK, size - begin)).nodes
            found.append(_of_sites(model, sites))
    return _joined(found)


def put_together(model: Any, latents: Tensor, mask_latents: Tensor) -> Decomposition:
    """The scene of latents, in evaluation mode; its masks are the decoder's, in MONet and MPP^M those of the components.

    Args:
        model: a MONet or a Genesis, with relations or without.
        latents: (images, slots, z_dim), as in :class:`Decomposition`.
        mask_latents: likewise.

    Raises:
        ValueError: they are those of another number of slots.
    """
    require_shape(latents, "latents", ("images", model.num_slots, "z_dim"))
    if mask_latents.shape[:2] != latents.shape[:2]:
        raise ValueError(f"mask_latents must be those of {len(latents)} images and {model.num_slots} slots.")
    found = []
    with evaluating(model):
        for z, z_m in zip(latents.split(CHUNK), mask_latents.split(CHUNK), strict=True):
            if model.has_mask_latents:
                components, masks = model.components(z), decoded_masks(model.mask_decoder, z_m).exp()
            else:
                components, logits = model.decoded(z)
                masks = logits.softmax(1)
            found.append(Decomposition(masks, components, z, z_m))
    return _joined(found)


def _joined(found: Sequence[Decomposition]) -> Decomposition:
    return Decomposition(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _of_sites(model: Any, sites: Any) -> Decomposition:
    z = torch.cat([sites[name]["value"] for name in ("z", "z_c", "z_g") if name in sites], -1)
    z_m = [site["value"] for name, site in sites.items() if name.startswith("z_m_")]
    return Decomposition(sites["m"]["value"].exp(), model.components(z), z, torch.stack(z_m, 1) if z_m else z[..., :0])
