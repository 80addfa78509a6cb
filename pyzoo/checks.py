"""Checks of tensors where they enter a function. They look at dtypes and shapes alone, which waits for no device."""

import torch
from torch import Tensor

__all__ = ["as_indices"]

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def as_indices(numbers: Tensor, name: str, dim: int = 1) -> Tensor:
    """Whole numbers of any integer type as torch indexes by them: uint8 would be read as a mask, and others are refused.

    Args:
        numbers: classes, parts or the like.
        name: what an error calls them.
        dim: how many dimensions they must have.

    Returns:
        The same as int64.

    Raises:
        ValueError: they are not integers, or have another number of dimensions.

    Example:
        >>> as_indices(torch.tensor([9, 0], dtype=torch.uint8), "labels")
        tensor([9, 0])
        >>> as_indices(torch.tensor([0.5]), "labels")
        Traceback (most recent call last):
            ...
        ValueError: labels must be integers in 1 dimension, got torch.float32 of shape (1,).
    """
    if numbers.dtype not in _INTEGERS or numbers.dim() != dim:
        dimensions = "1 dimension" if dim == 1 else f"{dim} dimensions"
        raise ValueError(f"{name} must be integers in {dimensions}, got {numbers.dtype} of shape {tuple(numbers.shape)}.")
    return numbers.long()
