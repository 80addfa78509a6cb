"""Where memory runs out: which of a recipe's sizes is too large."""

import contextlib
import math
import re
from collections.abc import Iterator

from pyzoo.errors import UsageError
from pyzoo.settings import Settings, flag, flat, walk

__all__ = ["naming_sizes"]


@contextlib.contextmanager
def naming_sizes(recipe: Settings, training: bool = False) -> Iterator[None]:
    """The context in which networks are made and trained: where memory runs out, the largest size is named.

    Args:
        recipe: whose sizes they are, or their networks.
        training: steps are taken, of which a smaller batch is named too.

    Raises:
        UsageError: memory ran out, or a size is larger than a tensor can have.
    """
    from pyzoo.training.trainer import NonFiniteLoss

    try:
        yield
    except NonFiniteLoss:  # whatever its words
        raise
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        text = str(error).lower()
        if "without overflow" in text:
            numbers = {name: abs(value) for name, value in flat(recipe).items() if type(value) is float}
            most = max(numbers, key=lambda name: numbers[name])
            raise UsageError(f"a tensor can't hold a number, the largest of which is {flag(most)} {numbers[most]:g}") from error
        too_large = any(word in text for word in ("allocate memory", "out of memory", "overflow", "storage size", "too large"))
        if not too_large and not isinstance(error, (MemoryError, OverflowError)):
            raise
        values = {field.name: field.value for _, field in walk(recipe) if field.has_flag}
        sizes = {name: max(value, default=0) if isinstance(value, tuple) else value for name, value in values.items()}
        sizes = {name: value for name, value in sizes.items() if type(value) is int and not _NO_SIZE.search(name)}
        largest = max(sizes, key=lambda name: sizes[name])
        no_memory = "memory" in text or not text
        why = "there is not enough memory for these sizes" if no_memory else "no tensor can have these sizes"
        named, shape = f"{flag(largest)} {sizes[largest]}", _image_shape(recipe)
        if math.prod(shape) > sizes[largest]:
            named = f"that of an image, {' x '.join(map(str, shape))}: make images smaller by --image-size"
        fewer = (
            f"; a smaller batch takes less: --batch-size {values['batch_size'] // 2}"
            if training and no_memory and values["batch_size"] > 1
            else ""
        )
        raise UsageError(f"{why}, the largest of which is {named}{fewer}") from error


def _image_shape(recipe: Settings) -> tuple[int, ...]:
    """Channels, height and width of the images that a user could make smaller; empty if there are none."""
    if "image_size" not in flat(recipe):
        return ()
    with contextlib.suppress(Exception):  # another error is on its way
        return tuple(recipe.sized().networks.x_shape)  # type: ignore[attr-defined]
    return ()


_NO_SIZE = re.compile("steps|every|seed|patience|epochs")
"""Names of whole numbers that are no sizes of tensors."""
