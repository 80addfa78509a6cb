"""What the slots of a scene show: which have a piece, in which color, and where."""

import dataclasses

import torch
from torch import Tensor

from pyzoo.checks import as_indices, require_count, require_floating, require_kind, require_number, require_shape
from pyzoo.evaluation.segmentation import pixels_of_slots, require_masks
from pyzoo.settings import AtLeast, AtMost

__all__ = ["SlotPieces", "match_slots", "pieces_distance", "pieces_of_slots"]


@dataclasses.dataclass(frozen=True, eq=False)
class SlotPieces:
    """What each slot shows.

    Args:
        colors: mean color of the image, weighted by the slot's mask, (scenes, slots, channels).
        places: center of the mask, (scenes, slots, 2), down and right, from 0 to 1.
        sizes: share of the image's pixels that each slot has most of, (scenes, slots).
        present: which slots have a piece, (scenes, slots), boolean; never the slot with most pixels, which is the background.
    """

    colors: Tensor
    places: Tensor
    sizes: Tensor
    present: Tensor


def pieces_of_slots(masks: Tensor, components: Tensor, smallest: float = 0.01) -> SlotPieces:
    """Measures what each slot shows from its mask and its image.

    Args:
        masks: (scenes, slots, height, width), with a sum of 1 at each pixel.
        components: each slot's image, (scenes, slots, channels, height, width).
        smallest: share of the image's pixels that a piece has at least.

    Raises:
        ValueError: these are no masks, or shapes differ.

    Example:
        >>> masks = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]])  # of one row of three pixels
        >>> pieces = pieces_of_slots(masks, torch.ones(1, 2, 3, 1, 3))
        >>> pieces.present.tolist(), pieces.places[0, 1].tolist()
        ([[False, True]], [0.5, 0.8333333134651184])
    """
    require_masks(masks)
    require_floating(components, "components")
    pixels = pixels_of_slots(masks).sum((2, 3))
    kind = torch.promote_types(masks.dtype, torch.float32)  # half precision can't count an image's pixels
    masks, components = masks.to(kind), components.to(kind)
    scenes, slots, height, width = masks.shape
    require_shape(components, "components", (scenes, slots, "channels", height, width))
    require_number(smallest, "smallest", AtLeast(0), AtMost(1))
    weights = masks / masks.sum((2, 3), keepdim=True).clamp(min=1e-12)
    colors = (weights.unsqueeze(2) * components).sum((3, 4))
    down, right = ((torch.arange(size, device=masks.device) + 0.5) / size for size in (height, width))
    places = torch.stack([(weights.sum(3) * down).sum(2), (weights.sum(2) * right).sum(2)], -1)
    present = pixels >= max(1.0, smallest * height * width)
    sizes = pixels.to(kind) / (height * width)
    return SlotPieces(colors, places, sizes, present.scatter(1, pixels.argmax(1, keepdim=True), False))


def pieces_distance(found: SlotPieces, true: SlotPieces) -> float:
    """How far the statistics of scenes' pieces are from those of true scenes: 0 where they are the same.

    It is the mean of four Wasserstein-1 distances: between the numbers of pieces in a scene, as a share of the true mean number;
    between the pieces' sizes, as a share of the true mean size; between their colors, the mean over channels; and between their
    places, the mean over down and right. Each statistic is compared by itself, so that relations among pieces do not count.
    1 if none of the scenes that are asked has a piece, and nan if no true one has.

    Args:
        found: what slots show of the scenes, such as those that a model has drawn.
        true: of true scenes; as many as one likes.

    Raises:
        ValueError: colors have another number of channels.

    Example:
        >>> masks = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]])  # of one row of three pixels
        >>> white, gray = (pieces_of_slots(masks, torch.full((1, 2, 3, 1, 3), value)) for value in (1.0, 0.5))
        >>> pieces_distance(white, white), pieces_distance(gray, white)  # colors are 0.5 apart, and all else is the same
        (0.0, 0.125)
    """
    from scipy.stats import wasserstein_distance  # a dependency of scikit-learn; takes a second to import

    require_kind(found, "found", SlotPieces)
    require_kind(true, "true", SlotPieces)
    require_shape(found.colors, "colors", ("scenes", "slots", true.colors.shape[-1]))
    if not true.present.any():
        return float("nan")
    if not found.present.any():
        return 1.0

    def statistics(pieces: SlotPieces) -> list[Tensor]:
        """Those of scenes, then those of their pieces, each in columns of its own."""
        counts, sizes = pieces.present.sum(1, keepdim=True), pieces.sizes.unsqueeze(-1)
        of_pieces = [each[pieces.present] for each in (sizes, pieces.colors, pieces.places)]
        return [each.double().cpu() for each in (counts, *of_pieces)]

    distances = []
    for one, other, is_share in zip(statistics(found), statistics(true), (True, True, False, False), strict=True):
        columns = zip(one.numpy().T, other.numpy().T, strict=True)
        distance = sum(wasserstein_distance(*pair) for pair in columns) / one.shape[1]
        distances.append(distance / other.mean().item() if is_share else distance)
    return float(sum(distances) / len(distances))


def match_slots(masks: Tensor, segments: Tensor, num_pieces: int, least: float = 0.5) -> Tensor:
    """The slot that shows each piece, (scenes, pieces), int64; -1 where none does.

    A slot shows a piece if their pixels overlap, intersection over union, by more than ``least``; at a half or more, no slot
    shows two pieces and no piece is shown by two slots.

    Args:
        masks: (scenes, slots, height, width), with a sum of 1 at each pixel.
        segments: piece of each pixel, (scenes, height, width), integers; 0 is the background.
        num_pieces: how many pieces there are at most.
        least: overlap that it takes, at least 1/2.

    Raises:
        ValueError: these are no masks, shapes differ, or a number is out of range.

    Example:
        >>> masks = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]]])
        >>> match_slots(masks, torch.tensor([[[0, 1, 1]]]), num_pieces=2).tolist()
        [[1, -1]]
    """
    require_masks(masks)
    segments = as_indices(segments, "segments", dim=3)
    require_shape(segments, "segments", (len(masks), *masks.shape[2:]))
    require_count(num_pieces, "num_pieces")
    if segments.numel() and not 0 <= int(segments.min()) <= int(segments.max()) <= num_pieces:
        raise ValueError(f"segments must be from 0 to {num_pieces}, the number of pieces.")
    require_number(least, "least", AtLeast(0.5), AtMost(1))
    pieces = torch.arange(1, num_pieces + 1, device=masks.device)
    true = (segments.unsqueeze(1) == pieces[:, None, None]).flatten(2).double()
    found = pixels_of_slots(masks).flatten(2).double()
    shared = true @ found.mT  # (scenes, pieces, slots)
    overlap, slot = (shared / (true.sum(2)[..., None] + found.sum(2)[:, None] - shared).clamp(min=1)).max(2)
    return torch.where(overlap > least, slot, -1)
