"""Checks of arguments where they enter a public function.

Shapes, types and counts cost nothing to look at and are always checked. Values of tensors are read while Pyro validates alone
(``pyro.enable_validation``), since that waits for the device; training switches it off.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyzoo.settings import Above, AtLeast, AtMost, Below, cut, is_finite

__all__ = ["as_device", "as_indices", "num_rows", "require_batch", "require_broadcast", "require_count", "require_finite"]
__all__ += ["require_floating", "require_input", "require_kept", "require_kind", "require_names", "require_number"]
__all__ += ["require_observed", "require_pair", "require_same_type", "require_shape", "require_sizes", "require_tensor"]

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def as_device(device: torch.device | str) -> torch.device:
    """A device; raises a ValueError if torch knows none of this name."""
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be one that torch knows, such as 'cpu' or 'cuda', got {device!r}.") from error


def as_indices(numbers: Tensor, name: str, dim: int = 1, below: int | None = None) -> Tensor:
    """Whole numbers of any integer type as torch indexes by them: uint8 would be read as a mask, and others are refused.

    Args:
        numbers: classes, parts or the like.
        name: what an error calls them.
        dim: how many dimensions they must have.
        below: they are from 0 to this, exclusive; not checked by default.

    Returns:
        The same as int64.

    Raises:
        ValueError: they are not integers, have another number of dimensions, or are out of range.

    Example:
        >>> as_indices(torch.tensor([9, 0], dtype=torch.uint8), "labels")
        tensor([9, 0])
        >>> as_indices(torch.tensor([0.5]), "labels")
        Traceback (most recent call last):
            ...
        ValueError: labels must be integers in 1 dimension, got torch.float32 of shape (1,).
    """
    require_tensor(numbers, name)
    if numbers.dtype not in _INTEGERS or numbers.dim() != dim:
        dimensions = "1 dimension" if dim == 1 else f"{dim} dimensions"
        raise ValueError(f"{name} must be integers in {dimensions}, got {numbers.dtype} of shape {tuple(numbers.shape)}.")
    indices = numbers.long()
    if below is not None and indices.numel() and is_validation_enabled():
        low, high = (int(end) for end in indices.aminmax())
        if low < 0 or high >= below:
            raise ValueError(f"{name} must be from 0 to {below - 1}, got {low} to {high}.")
    return indices


def require_count(value: Any, name: str, least: int = 1) -> None:
    """Raises a ValueError unless a value is a whole number that torch can hold, and not below ``least``.

    Example:
        >>> require_count(2.5, "size")
        Traceback (most recent call last):
            ...
        ValueError: size must be a whole number of at least 1, got 2.5.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {cut(value)}.")
    if value >= 2**63:
        raise ValueError(f"{name} must be below 2^63, got {cut(value)}.")


def require_number(value: Any, name: str, *limits: Above | AtLeast | AtMost | Below) -> None:
    """Raises a ValueError unless a value is a finite number within limits.

    Example:
        >>> require_number(-1, "period", Above(0))
        Traceback (most recent call last):
            ...
        ValueError: period must be positive, got -1.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not is_finite(value):
        raise ValueError(f"{name} must be a finite number, got {cut(value)}.")
    if not all(limit.allows(value) for limit in limits):
        raise ValueError(f"{name} must be {' and '.join(map(str, limits))}, got {value}.")


def require_pair(value: Any, name: str, what: str = "two numbers") -> None:
    """Raises a ValueError unless a value is a tuple or a list of two."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be {what}, got {cut(value)}.")


def require_sizes(sizes: Sequence[int], name: str, length: int | None = None) -> None:
    """Raises a ValueError unless these are whole numbers of at least 1, and as many as ``length`` says."""
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or (length is not None and len(sizes) != length):
        raise ValueError(f"{name} must be {'a sequence of' if length is None else length} whole numbers, got {cut(sizes)}.")
    for size in sizes:
        require_count(size, f"each size of {name}")


def require_kind(value: Any, name: str, *kinds: type) -> None:
    """Raises a ValueError unless a value is of one of these classes.

    Example:
        >>> require_kind(None, "network", torch.nn.Module)
        Traceback (most recent call last):
            ...
        ValueError: network must be of type Module, got NoneType.
    """
    if not isinstance(value, kinds):
        raise ValueError(f"{name} must be of type {' or '.join(kind.__name__ for kind in kinds)}, got {type(value).__name__}.")


def require_tensor(value: Any, name: str) -> None:
    """Raises a ValueError unless a value is a tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, got a {type(value).__name__}.")
    if value.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got one of {value.layout}.")


def require_switch(value: Any, name: str) -> None:
    """Raises a ValueError unless a value is True or False: a text would count as True."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {cut(value)}.")


def require_names_of(names: Any, name: str) -> None:
    """Raises a ValueError unless these are several names, and not one text, whose letters would be taken for names."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(f"{name} must be a collection of names, got {cut(names)}.")
    for one in names:
        if not isinstance(one, str):
            raise ValueError(f"{name} must hold names, got {cut(one)}.")


def require_floating(tensor: Tensor, name: str) -> None:
    """Raises a ValueError unless a tensor has a floating-point type."""
    require_tensor(tensor, name)
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be of a floating-point type, got {tensor.dtype}.")


def require_finite(**tensors: Tensor) -> None:
    """Raises a ValueError if a tensor holds nan or infinity, while Pyro validates."""
    for name, tensor in tensors.items():
        if is_validation_enabled() and not tensor.isfinite().all():
            raise ValueError(f"{name} must be finite.")


def require_shape(tensor: Tensor, name: str, shape: Collection[str | int], **sizes: int) -> None:
    """Raises a ValueError unless a tensor has a shape.

    Args:
        tensor: what was given.
        name: what an error calls it.
        shape: sizes, and names of axes that may have any size but zero.
        **sizes: of axes by name, where another argument has decided them.

    Example:
        >>> require_shape(torch.zeros(5, 28, 28), "x", ("batch", 1, 28, 28))
        Traceback (most recent call last):
            ...
        ValueError: x must be (batch, 1, 28, 28), got (5, 28, 28).
        >>> require_shape(torch.zeros(5, 2), "y", ("batch", 2), batch=4)
        Traceback (most recent call last):
            ...
        ValueError: y must be (batch, 2) with batch 4, got (5, 2).
    """
    require_tensor(tensor, name)
    wanted = [sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in shape]
    found = tensor.shape
    fits = (size > 0 if isinstance(axis, str) else size == axis for size, axis in zip(found, wanted, strict=False))
    if len(found) == len(wanted) and all(fits):
        return
    empty = [str(axis) for size, axis in zip(found, wanted, strict=False) if isinstance(axis, str) and not size]
    if empty and len(found) == len(wanted):
        raise ValueError(f"{name} must have one or more along '{empty[0]}', got the shape {tuple(found)}.")
    known = ", ".join(f"{axis} {size}" for axis, size in sizes.items() if axis in shape)
    said = f"({', '.join(map(str, shape))}{',' if len(wanted) == 1 else ''}){f' with {known}' if known else ''}"
    raise ValueError(f"{name} must be {said}, got {tuple(found)}.")


def require_broadcast(**shapes: Sequence[int]) -> None:
    """Raises a ValueError unless shapes broadcast.

    Example:
        >>> require_broadcast(q=(3,), p=(4,))
        Traceback (most recent call last):
            ...
        ValueError: q and p must be of shapes that broadcast, got (3,) and (4,).
    """
    first, *others = shapes.values()
    if all(shape == first for shape in others):
        return
    try:
        torch.broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        got = " and ".join(str(tuple(shape)) for shape in shapes.values())
        raise ValueError(f"{' and '.join(shapes)} must be of shapes that broadcast, got {got}.") from error


def require_same_type(tensor: Tensor, name: str, module: nn.Module) -> None:
    """Raises a ValueError if a tensor has another floating-point type than a module's parameters.

    Integers are the module's to judge. Autocast changes types from layer to layer, and takes any.
    """
    require_tensor(tensor, name)
    parameter = next(module.parameters(), None)
    if parameter is None or tensor.dtype == parameter.dtype or not tensor.is_floating_point():
        return
    if parameter.is_floating_point() and not torch.is_autocast_enabled(tensor.device.type):
        raise ValueError(f"{name} must be {parameter.dtype} as the parameters are, got {tensor.dtype}.")


def require_input(tensor: Tensor, name: str, layer: nn.Module) -> None:
    """Raises a ValueError unless a tensor has the features, or channels, that a linear or convolutional layer takes.

    Example:
        >>> require_input(torch.zeros(2, 7), "x", torch.nn.Linear(8, 8))
        Traceback (most recent call last):
            ...
        ValueError: x must be (..., 8), got (2, 7).
    """
    require_floating(tensor, name)
    # Plain attributes: a module looks up its weight ten times as slowly.
    lengths = 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
    features = layer.in_channels if lengths else layer.in_features
    if tensor.dim() <= lengths or tensor.shape[-1 - lengths] != features:
        raise ValueError(f"{name} must be (..., {features}{', length' * lengths}), got {tuple(tensor.shape)}.")


def require_batch(batch: Mapping[Any, Tensor], name: str = "batch") -> int:
    """The number of examples of a batch, tensors by name; raises a ValueError if they differ in it."""
    require_kind(batch, name, Mapping)
    for key, value in batch.items():
        require_tensor(value, f"'{key}' of {name}")
    if not all(value.dim() for value in batch.values()):
        raise ValueError(f"The tensors of {name} must have the examples along their first dimension, and one has no dimension.")
    sizes = sorted({len(value) for value in batch.values()})
    if len(sizes) != 1:
        raise ValueError(f"The tensors of {name} must have the examples along their first dimension, got sizes {sizes}.")
    return sizes[0]


def require_kept(keep: Tensor | None, parts: Tensor) -> None:
    """Raises a ValueError unless a choice of parts is boolean and of their shape, and keeps one in each row."""
    if keep is None:
        return
    require_shape(keep, "keep", tuple(parts.shape))
    if keep.dtype != torch.bool:
        raise ValueError(f"keep must be boolean, got {keep.dtype}.")
    if is_validation_enabled() and not keep.any(-1).all():
        raise ValueError("keep must leave at least one part in each row.")


def require_observed(value: Tensor, name: str, rows: int, event_shape: Collection[int]) -> None:
    """Raises a ValueError unless a value can be observed: floats, an event of this shape for each row.

    torch would broadcast a value of another shape against the distribution, and sum what comes of it.
    """
    require_shape(value, name, ("batch", *event_shape), batch=rows)
    require_floating(value, name)


def num_rows(x: Tensor | None, size: int) -> int:
    """How many rows a program runs on: as many as x has, or as are asked for where there is no x.

    Raises:
        ValueError: that is not a whole number of at least 1.
    """
    if x is not None:
        require_tensor(x, "x")
        size = len(x) if x.dim() else 0
    require_count(size, "size" if x is None else "The number of rows of x")
    return size


def require_names(names: Collection[str], known: Collection[str], what: str) -> None:
    """Raises a ValueError that names what is not known."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"There is no {what} '{unknown[0]}': there are {', '.join(known) or 'none'}.")
