"""How well masks separate the pieces of a scene, whatever their order."""

import torch
from torch import Tensor

from pyzoo.checks import as_indices, require_floating, require_shape

__all__ = ["foreground_ari", "mean_segmentation_covering", "pixels_of_slots", "require_masks", "segments_of"]


def require_masks(masks: Tensor, tolerance: float = 1e-4) -> None:
    """Raises a ValueError unless these are masks: (images, slots, height, width), not negative, with a sum of 1 at each pixel.

    In half precision the sum may be off by what rounding makes of it.
    """
    require_shape(masks, "masks", ("images", "slots", "height", "width"))
    require_floating(masks, "masks")
    tolerance = max(tolerance, torch.finfo(masks.dtype).eps)
    masks = masks.to(torch.promote_types(masks.dtype, torch.float32))
    if not (masks >= -tolerance).all() or not ((masks.sum(1) - 1).abs() <= tolerance).all():
        raise ValueError("masks must not be negative, and must sum to 1 over the slots at each pixel.")


def segments_of(masks: Tensor) -> Tensor:
    """The slot that has most of each pixel, (images, height, width), int64.

    Args:
        masks: (images, slots, height, width), with a sum of 1 at each pixel.

    Raises:
        ValueError: they are no masks.

    Example:
        >>> segments_of(torch.tensor([[[[0.9, 0.2]], [[0.1, 0.8]]]]))
        tensor([[[0, 1]]])
    """
    require_masks(masks)
    return masks.argmax(1)


def pixels_of_slots(masks: Tensor) -> Tensor:
    """The pixels that each slot has most of, (images, slots, height, width), boolean; errors as :func:`segments_of`."""
    numbers = torch.arange(masks.shape[1], device=masks.device)
    return segments_of(masks).unsqueeze(1) == numbers[:, None, None]


def foreground_ari(predicted: Tensor, target: Tensor) -> Tensor:
    """Adjusted Rand index of the pixels that belong to a piece, for each image, (images,), float64.

    Of two pixels drawn at random it compares whether they are in one segment or in two: 1 if predicted and true segments always
    agree, 0 on average if segments are assigned by chance. Background pixels do not count, wherever they are assigned. An image
    with fewer than two pixels of pieces has nan.

    Source: Hubert and Arabie (1985), as scikit-learn's ``adjusted_rand_score``; on the foreground as in Greff et al. (2019).

    Args:
        predicted: segment of each pixel, (images, height, width), integers.
        target: piece of each pixel, likewise; 0 is the background.

    Raises:
        ValueError: shapes differ, or these are no integers.

    Example:
        >>> target = torch.tensor([[[0, 1, 1, 2]]])
        >>> foreground_ari(torch.tensor([[[5, 3, 3, 0]]]), target)
        tensor([1.], dtype=torch.float64)
    """
    table = _contingency(predicted, target)[:, :, 1:]
    count, squares = table.sum((1, 2)), table.square().sum((1, 2))
    rows, columns = table.sum(2).square().sum(1), table.sum(1).square().sum(1)
    both, only_predicted, only_target = squares - count, rows - squares, columns - squares  # ordered pairs in one segment
    neither = count.square() - count - both - only_predicted - only_target
    top = 2 * (both * neither - only_predicted * only_target)
    bottom = (both + only_target) * (only_target + neither) + (both + only_predicted) * (only_predicted + neither)
    agrees = (only_predicted == 0) & (only_target == 0)
    found = torch.where(agrees, 1.0, top / bottom.where(bottom != 0, 1.0))
    return torch.where(count >= 2, found, torch.nan)


def mean_segmentation_covering(predicted: Tensor, target: Tensor) -> Tensor:
    """For each piece the best intersection over union with a predicted segment; the mean over an image's pieces, (images,).

    Each piece counts the same, however large. An image without pieces has nan.

    Source: Engelcke, Kosiorek, Parker Jones and Posner (2020), "GENESIS": mSC, on the foreground.

    Args:
        predicted: segment of each pixel, (images, height, width), integers.
        target: piece of each pixel, likewise; 0 is the background.

    Raises:
        ValueError: shapes differ, or these are no integers.

    Example:
        >>> target = torch.tensor([[[0, 1, 1, 2]]])
        >>> mean_segmentation_covering(torch.tensor([[[4, 3, 3, 4]]]), target)  # 1 and 1/2
        tensor([0.7500], dtype=torch.float64)
    """
    table = _contingency(predicted, target)
    union = table.sum(2, keepdim=True) + table.sum(1, keepdim=True) - table
    best = (table / union.clamp(min=1)).amax(1)[:, 1:]  # (images, pieces)
    is_there = table.sum(1)[:, 1:] > 0
    return (best * is_there).sum(1) / is_there.sum(1)


def _contingency(predicted: Tensor, target: Tensor) -> Tensor:
    """How many pixels each predicted segment shares with each piece, (images, segments, 1 + pieces), float64."""
    require_shape(target, "target", ("images", "height", "width"))
    require_shape(predicted, "predicted", tuple(target.shape))
    predicted, target = as_indices(predicted, "predicted", dim=3), as_indices(target, "target", dim=3)
    if (target < 0).any():
        raise ValueError("target must not be negative.")
    background = target.new_zeros(len(target), 1)  # comes first, whether it occurs or not
    row, column = _counted(predicted.flatten(1)), _counted(torch.cat([background, target.flatten(1)], 1))[:, 1:]
    segments, pieces = (int(each.amax()) + 1 for each in (row, column))
    cells = row * pieces + column
    table = torch.zeros(len(target), segments * pieces, dtype=torch.float64, device=target.device)
    return table.scatter_add_(1, cells, torch.ones_like(cells, dtype=torch.float64)).unflatten(1, (segments, pieces))


def _counted(numbers: Tensor) -> Tensor:
    """Each image's numbers, (images, pixels), by their place among those that occur in it: they could be any."""
    found, places = numbers.unique(return_inverse=True)
    images = torch.arange(len(numbers), device=numbers.device).unsqueeze(1)
    pairs, inverse = (images * len(found) + places).unique(return_inverse=True)
    first = torch.searchsorted(pairs, images * len(found))  # the smallest that occurs in an image
    return inverse - first
