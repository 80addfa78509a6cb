"""A user's own images: folders of image files, files of arrays, and tensors, all read into one form, :class:`ImageData`.

Images become bytes with one channel or three. Labels become the integers 0 to C - 1, one for each of C named classes.
"""

import dataclasses
import errno
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pyzoo.checks import as_indices, require_kind, require_tensor
from pyzoo.errors import UsageError, one_line
from pyzoo.files import expanded, write_whole
from pyzoo.random import derive_seed
from pyzoo.settings import cut

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FILE_TYPES", "IMAGE_TYPES", "ImageData", "image_data", "read_arrays", "read_folder", "write_npz"]

FILE_TYPES = (".npz", ".npy", ".pt", ".pth")
"""How names of files of arrays end."""
SCENE_TYPE = ".tfrecords"
"""How names of files of scenes end, which :mod:`pyzoo.data.scene_files` reads."""
IMAGE_TYPES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
"""How names of image files end, in lower or upper case."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageData:
    """Images to train on and to test on.

    Raises:
        ValueError: The images are not bytes, the two splits differ in shape, or labels and images differ in number.

    Example:
        >>> data = image_data(torch.rand(10, 8, 8), labels=torch.arange(10) % 2)
        >>> data.shape, len(data.train), len(data.test), data.classes
        ((1, 8, 8), 8, 2, ('0', '1'))
    """

    name: str
    """What the name of a run calls the images."""
    train: Tensor
    """Training images, (images, channels, height, width), uint8."""
    test: Tensor
    """Test images, likewise."""
    train_labels: Tensor | None = None
    """Classes of the training images, (images,), int64, as positions in ``classes``; None if they have no labels."""
    test_labels: Tensor | None = None
    """Classes of the test images, likewise."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty if the images have no labels."""
    note: str = ""
    """What to report beside every number that is measured on these images."""

    def __post_init__(self) -> None:
        for images, labels in ((self.train, self.train_labels), (self.test, self.test_labels)):
            require_tensor(images, "images")
            if images.dtype != torch.uint8 or images.dim() != 4:
                raise ValueError(
                    f"Images must be uint8 and (images, channels, height, width), not {images.dtype} {tuple(images.shape)}."
                )
            if labels is None:
                continue
            as_indices(labels, "labels")
            if labels.shape != (len(images),):
                raise ValueError(f"Labels of {len(images)} images must be ({len(images)},), not {tuple(labels.shape)}.")
        if self.train.shape[1:] != self.test.shape[1:]:
            raise ValueError(f"Images differ in shape: {tuple(self.train.shape[1:])} and {tuple(self.test.shape[1:])}.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    def hold_out(self, count: int) -> tuple["ImageData", Tensor, Tensor | None]:
        """Takes the last training images away from training, in order to choose settings on them.

        Args:
            count: number of images to hold out.

        Returns:
            The data without its last ``count`` training images; those images, (count, channels, height, width); and their
            labels, (count,), or None.

        Raises:
            UsageError: No image would be held out, or none would be left to train on.

        Example:
            >>> rest, images, _ = image_data(torch.rand(10, 8, 8)).hold_out(2)
            >>> len(rest.train), len(images), len(rest.test)
            (6, 2, 2)
        """
        require_kind(count, "count", int)
        keep = len(self.train) - count
        if not 0 < keep < len(self.train):
            raise UsageError(
                f"cannot hold out {count} of the {len(self.train)} training images of {self.name}: at least one must be held "
                "out, and one must be left"
            )
        labels = self.train_labels
        kept, held = (None, None) if labels is None else (labels[:keep], labels[keep:])
        note = f"{self.note} The last {count:,} training images are held out.".strip()
        return dataclasses.replace(self, train=self.train[:keep], train_labels=kept, note=note), self.train[keep:], held

    def resized(self, image_size: int) -> "ImageData":
        """The same images, each cut to its central square and resized to ``image_size`` pixels on a side."""
        check_size(image_size)
        if self.shape[1:] == (image_size, image_size):
            return self
        train, test = (fit(images, image_size) for images in (self.train, self.test))
        return dataclasses.replace(self, train=train, test=test, note=f"{self.note} {resized_note(image_size)}".strip())


def image_data(
    images: Tensor, labels: Tensor | None = None, test_share: float = 0.2, name: str = "images", image_size: int | None = None
) -> ImageData:
    """Makes a tensor of images ready for training, and splits it.

    Axes are found by their lengths: channels are 1 (gray), 3 (red, green and blue) or 4 (with an alpha channel, which is
    composited on black). They are the second axis if that has 1 or 3 entries, else the last if that has 1 or 3, else whichever
    has 4. So (images, 3, height, 3) has its channels first. Tensors with three axes are gray.

    Args:
        images: (images, height, width), (images, channels, height, width) or (images, height, width, channels): integers from 0
            to 255, floats from 0 to 1, which are rounded to bytes, or booleans. If all integers are 0 or 1, 1 is white.
        labels: (images,), integers or, as a NumPy array, strings. Integers that are 0 to C - 1 are kept; others are numbered in
            increasing order.
        test_share: share of the images to test on, above 0 and below 1. All images are put into a fixed pseudo-random order, and
            the first ones become test images.
        name: what to call the images.
        image_size: pixels on a side; images are then cut to their central squares and resized.

    Raises:
        UsageError: Shape or range are not as above, pixels are not numbers, there are fewer than two images, or labels and
            images differ in number.

    Example:
        >>> data = image_data(torch.zeros(10, 12, 16, 3, dtype=torch.uint8), image_size=8)
        >>> data.train.shape, data.note
        (torch.Size([8, 3, 8, 8]), 'Images from a tensor: 8 to train on, 2 to test on. Resized to 8x8.')
    """
    check_options(image_size, test_share)
    require_kind(name, "name", str)
    source = "a tensor"
    array = _array(images)
    (pixels,), note = to_bytes({"images": array}, source)
    known = None if labels is None else _labels(_array(labels), len(pixels), "labels", source)
    part = Part(pixels, known, deep=array.dtype.kind == "f")
    return assemble(name, source, whitened([part]), image_size=image_size, test_share=test_share, note=note)


def check_size(image_size: int) -> None:
    """Raises a UsageError unless a size is a whole number from 1 to 16,384."""
    if isinstance(image_size, bool) or not isinstance(image_size, int) or not 1 <= image_size <= 2**14:
        raise UsageError(f"--image-size must be a whole number from 1 to {2**14:,}, got {cut(image_size)}")


def check_options(image_size: int | None, test_share: float) -> None:
    """Raises a UsageError unless a size is at least 1, and a share above 0 and below 1."""
    if image_size is not None:
        check_size(image_size)
    if not isinstance(test_share, Real) or not 0 < test_share < 1:
        raise UsageError(f"--test-share must be above 0 and below 1, got {test_share}")


# Assembly -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Part:
    """Images that were read together, before they are split."""

    images: Tensor
    """(images, channels, height, width), uint8."""
    labels: np.ndarray | None = None
    """(images,), integers or strings."""
    resized: bool = False
    """Whether any image was resized."""
    deep: bool = False
    """Whether any image had more than 256 levels, as floats have."""
    white: bool = False
    """Whether all pixels were 0 or 1, as in masks, and are 255 times that now; of images that had to be resized."""

    def shuffled(self) -> "Part":
        """The same in a fixed pseudo-random order. Files are sorted by class, and the last images may be held out."""
        order = _order(len(self.images))
        labels = None if self.labels is None else self.labels[order.numpy()]
        return dataclasses.replace(self, images=self.images[order], labels=labels)


def assemble(
    name: str,
    source: str,
    parts: Sequence[Part],
    classes: Sequence[str] = (),
    image_size: int | None = None,
    test_share: float = 0.2,
    note: str = "",
) -> ImageData:
    """Data from one part, which is split, or from two, the training images and the test images.

    Args:
        name: what to call the data.
        source: where the images come from, for the note and for errors.
        parts: images and labels.
        classes: names of the classes that integer labels denote, if known.
        image_size: pixels on a side, or None to leave the images as they are.
        test_share: share of a single part to test on.
        note: what else to report.
    """
    if image_size is not None:
        parts = [Part(fit(p.images, image_size), p.labels, p.resized or p.images.shape[2:] != 2 * (image_size,)) for p in parts]
    shapes = [tuple(part.images.shape[2:]) for part in parts]
    if shapes[0] != shapes[-1]:
        raise UsageError(
            f"{source} has training images of {_size(shapes[0])} and test images of {_size(shapes[-1])} pixels; "
            "--image-size N makes them alike"
        )
    channels = max(part.images.shape[1] for part in parts)
    images = [part.images.expand(-1, channels, -1, -1).contiguous() for part in parts]
    labels, classes = _encoded([part.labels for part in parts], classes, source)
    if len(parts) == 1:
        count = len(images[0])
        if count < 2:
            raise UsageError(f"{source} has a single image; training and testing need at least two")
        order, tested = _order(count), min(max(round(test_share * count), 1), count - 1)
        rows = [order[tested:], order[:tested]]
        images = [images[0][row] for row in rows]
        labels = [None if labels[0] is None else labels[0][row] for row in rows]
    if image_size is not None and any(part.resized for part in parts):
        note = f"{note} {resized_note(image_size)}"
    start = f"Images from {source}: {len(images[0]):,} to train on, {len(images[1]):,} to test on."
    (train, test), (train_labels, test_labels) = images, labels
    return ImageData(name, train, test, train_labels, test_labels, tuple(classes), f"{start} {note.strip()}".strip())


def whitened(parts: Sequence[Part]) -> list[Part]:
    """The same, but with 1 as white if every pixel of every part is 0 or 1, and was before it became a byte or was resized."""
    if all(part.white or (not part.deep and int(part.images.max()) <= 1) for part in parts):
        return [part if part.white else dataclasses.replace(part, images=255 * part.images) for part in parts]
    return [dataclasses.replace(part, images=_dark(part.images)) if part.white else part for part in parts]


def _dark(images: Tensor) -> Tensor:
    """Images of 0 and 255, and what resizing makes of them, as 0 and 1."""
    return (images >= 128).to(torch.uint8)


def _order(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive_seed(0, "split")))


def _size(shape: Sequence[int]) -> str:
    """Width and height, in the order in which image programs give them."""
    return f"{shape[1]}x{shape[0]}"


def resized_note(image_size: int) -> str:
    return f"Resized to {image_size}x{image_size}."


def central_square(images: Tensor) -> Tensor:
    """The central squares of images, (..., height, width)."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def fit(images: Tensor, image_size: int) -> Tensor:
    """The central squares of images, (images, channels, height, width), uint8, resized bilinearly, with antialiasing."""
    square = central_square(images).contiguous()
    if square.shape[-1] == image_size:
        return square
    return interpolate(square, size=(image_size, image_size), mode="bilinear", antialias=True)


def _encoded(
    labels: Sequence[np.ndarray | None], classes: Sequence[str], source: str
) -> tuple[list[Tensor | None], Sequence[str]]:
    """Labels as positions in the list of classes, and that list."""
    known = [part for part in labels if part is not None]
    if not known:
        return [None for _ in labels], ()
    if len({part.dtype.kind == "U" for part in known}) > 1:
        raise UsageError(f"{source} has labels that are integers and labels that are strings")
    every = np.concatenate(known)
    values = np.unique(every)
    if every.dtype.kind == "U":
        classes = classes if set(values) <= set(classes) else values.tolist()
        position = {name: index for index, name in enumerate(classes)}
        return [None if p is None else torch.tensor([position[name] for name in p.tolist()]) for p in labels], classes
    if classes and not 0 <= values[0] <= values[-1] < len(classes):
        raise UsageError(f"{source} names {len(classes)} classes and has labels from {values[0]} to {values[-1]}")
    if not classes:
        classes = [str(value) for value in values]
        labels = [None if part is None else np.searchsorted(values, part) for part in labels]
    return [None if part is None else torch.from_numpy(part.astype(np.int64)) for part in labels], classes


# Pixels ---------------------------------------------------------------------------------------------------------------


def _array(values: Any) -> np.ndarray:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    if values.layout is not torch.strided or values.is_quantized or values.is_nested or values.device.type == "meta":
        raise UsageError("a tensor of images or labels must be a plain one: neither sparse, quantized, nested nor without values")
    values = values.detach().cpu().resolve_conj().resolve_neg()
    return (values.float() if values.is_floating_point() and values.dtype != torch.float64 else values).numpy()


def to_bytes(arrays: dict[str, np.ndarray], source: str) -> tuple[list[Tensor], str]:
    """Arrays of images in any of the forms of :func:`image_data` as (images, 1 or 3, height, width), uint8; and a note."""
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise UsageError(f"{source}: '{name}' holds {array.dtype}, which are not pixels")
        if 0 in array.shape:
            raise UsageError(f"{source}: '{name}' is empty: its shape is {array.shape}")
    found = []
    for name, array in arrays.items():
        array = _channels_first(array, name, source)
        low, high = array.min(), array.max()
        if np.isnan(low):
            raise UsageError(f"{source}: '{name}' has pixels that are not a number (NaN)")
        kind, most = ("floats", 1) if array.dtype.kind == "f" else ("integers", 255)
        if low < -1e-6 or high > most + 1e-6:  # what rounding may leave
            raise UsageError(f"{source}: '{name}' has pixels from {low:g} to {high:g}; {kind} must lie between 0 and {most}")
        found.append(torch.from_numpy(_on_black(_scaled(array))))
    rounded = any(array.dtype.kind == "f" for array in arrays.values())
    return found, "Pixels are rounded to 256 levels." if rounded else ""


def _scaled(array: np.ndarray) -> np.ndarray:
    """Integers from 0 to 255 as they are, and booleans and floats from 0 to 1 times 255, all as bytes."""
    if array.dtype.kind != "f":
        return array * np.uint8(255) if array.dtype.kind == "b" else array.astype(np.uint8, copy=False)
    found = np.empty(array.shape, np.uint8)
    for row, image in enumerate(array):  # one at a time, to save memory
        found[row] = np.rint(255 * image.clip(0, 1).astype(np.float64))
    return found


def _channels_first(array: np.ndarray, name: str, source: str) -> np.ndarray:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        for channels in ((1, 3), (4,)):
            if array.shape[1] in channels:
                return array
            if array.shape[3] in channels:
                return array.transpose(0, 3, 1, 2)
    raise UsageError(
        f"{source}: '{name}' has the shape {array.shape}; images are (images, height, width), (images, channels, height, width) "
        "or (images, height, width, channels), with 1, 3 or 4 channels"
    )


def _on_black(images: np.ndarray) -> np.ndarray:
    """Images, (images, channels, height, width), uint8, without their alpha channel."""
    if images.shape[1] != 4:
        return np.require(images, requirements=("C", "W"))
    colors, alpha = images[:, :3].astype(np.uint16), images[:, 3:]
    return ((colors * alpha + 127) // 255).astype(np.uint8)


def _labels(array: np.ndarray, count: int, name: str, source: str) -> np.ndarray:
    """Labels, (images,), as integers or strings."""
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (count,):
        raise UsageError(f"{source}: '{name}' has the shape {array.shape}; labels of {count} images have the shape ({count},)")
    if array.dtype.kind in "OSU" and all(isinstance(value, (str, bytes)) for value in array.tolist()):
        return np.array([value.decode(errors="replace") if isinstance(value, bytes) else value for value in array.tolist()])
    if array.dtype.kind in "biu" or (array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all()):
        if len(array) and not -(2**63) <= int(array.min()) <= int(array.max()) < 2**63:
            raise UsageError(f"{source}: '{name}' holds integers beyond 64 bits, from {array.min()} to {array.max()}")
        return array.astype(np.int64)
    raise UsageError(f"{source}: '{name}' must hold integers or strings, not other {array.dtype} values")


# Folders of image files -----------------------------------------------------------------------------------------------


def read_folder(folder: Path, image_size: int | None = None, test_share: float = 0.2) -> ImageData:
    """Reads a folder of image files.

    The folder has one subfolder for each class, or holds the images itself, and these then have no labels. If it has subfolders
    ``train`` and ``test``, each of them is such a folder, and other subfolders are not read. Subfolders of a class belong to the
    class. Hidden files, and files that are not images by the end of their name, are skipped. The first frame of an animation is
    read. Transparent images are composited on black. Photographs are rotated as their EXIF data say. Images of 16 bits are
    rounded to 8. An image whose three channels are equal everywhere is gray. If any image has color, all have three channels. If
    every pixel is 0 or 1, as in masks, 1 is white.

    Args:
        folder: the folder.
        image_size: pixels on a side; images are then cut to their central squares and resized. Images of different sizes need it.
        test_share: share of the images to test on, unless there are folders ``train`` and ``test``.

    Raises:
        UsageError: There are no images, a file cannot be read as an image, or images differ in size; names it.
    """
    check_options(image_size, test_share)
    folder = expanded(folder)
    folders = {path.name.lower(): path for path in _visible(folder) if path.is_dir()}
    name = os.path.basename(os.path.abspath(folder)) or "images"
    if {"train", "test"} <= folders.keys():
        found = [_labeled_files(folders[split]) for split in ("train", "test")]
        if (found[0][0][1] is None) != (found[1][0][1] is None):
            labeled, flat = (folders[split] for split in (("test", "train") if found[0][0][1] is None else ("train", "test")))
            raise UsageError(f"{labeled} has a subfolder for each class, and {flat} has none")
        parts = [_read_files(files, folder, image_size).shuffled() for files in found]
    elif "train" in folders and folders.keys() <= {"train", "val", "valid", "validation"}:
        raise UsageError(f"{folder} has a subfolder train and none that is named test: rename or add one")
    else:
        parts = [_read_files(_labeled_files(folder), folder, image_size)]
    return assemble(name, str(folder), whitened(parts), image_size=image_size, test_share=test_share)


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from error


def _labeled_files(folder: Path) -> list[tuple[Path, str | None]]:
    """Image files in the order of their paths, each with its class."""
    paths = _visible(folder)
    flat = [path for path in paths if path.suffix.lower() in IMAGE_TYPES and path.is_file()]
    above = {folder.resolve(), *folder.resolve().parents}
    classes = [
        (path, file.name) for file in paths if file.is_dir() and file.resolve() not in above for path in _files_below(file)
    ]
    if flat and classes:
        raise UsageError(
            f"{folder} has images beside its subfolders, such as {flat[0].name}: move them into one of the subfolders"
        )
    if not flat and not classes:
        raise UsageError(f"{folder} has no images: no file in it ends in {', '.join(IMAGE_TYPES)}")
    return [(path, None) for path in flat] or classes  # type: ignore[return-value]


def _files_below(folder: Path) -> list[Path]:
    found = []
    for path in _visible(folder):
        if path.is_dir() and not path.is_symlink():  # a link may lead back
            found += _files_below(path)
        elif path.suffix.lower() in IMAGE_TYPES and path.is_file():
            found.append(path)
    return found


def _read_files(files: Sequence[tuple[Path, str | None]], folder: Path, image_size: int | None) -> Part:
    part = stack(((str(path.relative_to(folder)), _read_image(path)) for path, _ in files), str(folder), image_size)
    labels = [label for _, label in files]
    return dataclasses.replace(part, labels=None if labels[0] is None else np.array(labels))


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged and very large files
            with Image.open(path) as image:
                return pixels_of(image)
    except UnidentifiedImageError as error:
        raise UsageError(f"{path} is not an image, or is damaged") from error
    except Exception as error:  # Pillow raises many kinds
        raise UsageError(f"{path} cannot be read as an image: {one_line(error)}") from error


def pixels_of(image: "Image") -> np.ndarray:
    """The pixels of a Pillow image, (height, width) if they are gray, else (height, width, 3): uint8, or uint16 of gray images
    with more than 256 levels.

    Raises:
        ValueError: They are floats, or integers beyond 16 bits.
    """
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floats")
    if image.mode.startswith("I"):  # more than 8 bits of gray
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its pixels range from {values.min()} to {values.max()}, beyond 16 bits")
        if isinstance(clear := image.info.get("transparency"), int):
            values = np.where(values == clear, 0, values)
        return values.astype(np.uint8 if values.max() <= 1 else np.uint16)
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    if image.has_transparency_data:
        pixels = _on_black(np.asarray(image.convert("RGBA")).transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    else:
        pixels = np.asarray(image.convert("RGB"))
    return pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels


def stack(images: Iterable[tuple[str, np.ndarray]], source: str, image_size: int | None) -> Part:
    """Images with their names, in the form of :func:`pixels_of`, as one part without labels.

    Raises:
        UsageError: There are none, or they differ in size; names two.
    """
    found: list[Tensor | None] = []
    black_and_white = []
    first, shape, channels, resized, deep = "", torch.Size(), 1, False, False
    for name, pixels in images:
        if 0 in pixels.shape:
            raise UsageError(f"{source}: {name} is empty: its size is {_size(pixels.shape)} pixels")
        if pixels.dtype == np.uint16:
            deep, pixels = True, np.rint(pixels / 257).astype(np.uint8)
        image = torch.from_numpy(np.array(pixels.reshape(1, *pixels.shape[:2], -1).transpose(0, 3, 1, 2)))
        if image_size is not None:
            resized |= image.shape[2:] != (image_size, image_size)
            black_and_white.append(pixels.max() <= 1)
            image = fit(255 * image if black_and_white[-1] else image, image_size)  # between 0 and 1 there is no byte
        if not found:
            first, shape = name, image.shape[2:]
        elif image.shape[2:] != shape:
            raise UsageError(
                f"{source} has images of different sizes: {first} has {_size(shape)} pixels and {name} {_size(image.shape[2:])}; "
                "--image-size N makes them alike"
            )
        found.append(image)
        channels = max(channels, image.shape[1])
    if not found:
        raise UsageError(f"{source} has no images")
    white = bool(black_and_white) and all(black_and_white) and not deep
    stacked = torch.empty(len(found), channels, *shape, dtype=torch.uint8)
    for index, image in enumerate(found):
        stacked[index] = image  # type: ignore[assignment]
        if black_and_white and black_and_white[index] and not white:
            stacked[index] = _dark(stacked[index])
        found[index] = None  # so that memory holds them once
    return Part(stacked, None, resized, deep, white)


# Files of arrays ------------------------------------------------------------------------------------------------------


def read_arrays(path: Path, image_size: int | None = None, test_share: float = 0.2) -> ImageData:
    """Reads a file of arrays: ``.npz``, ``.npy``, or ``.pt`` with a tensor or a dict of tensors. Objects are never unpickled.

    Arrays are found by their names, in upper or lower case. Images are named ``images``, ``x`` or ``arr_0``, or are the only
    array with three or four axes; labels are named ``labels`` or ``y``, or are the only array with one axis. Or there are arrays
    for each split, ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``, or ``x_train``, ``y_train``,
    ``x_test`` and ``y_test``; their order is then kept. Names of classes may be given as ``classes`` or ``class_names``. Images
    and labels have the forms that :func:`image_data` takes.

    Args:
        path: the file.
        image_size: pixels on a side; images are then cut to their central squares and resized.
        test_share: share of the images to test on, unless there are arrays for each split.

    Raises:
        UsageError: The file is damaged, has no array of images, holds pickled objects in their place, or has other labels or
            pixels than those of :func:`image_data`.
    """
    check_options(image_size, test_share)
    path = expanded(path)
    arrays, refused = {".npz": _read_npz, ".npy": _read_npy}.get(path.suffix.lower(), _read_pt)(path)
    source = str(path)
    images, labels = _find(arrays, refused, source)
    pixels, note = to_bytes({name: arrays[name] for name in images}, source)
    parts = [
        Part(
            pixel,
            None if label is None else _labels(arrays[label], len(pixel), label, source),
            deep=arrays[name].dtype.kind == "f",
        )
        for name, pixel, label in zip(images, pixels, labels, strict=True)
    ]
    classes = next((arrays[name].tolist() for name in _class_names(arrays)), ())
    own = {key: str(arrays[key]) for key in ("name", "note") if key in arrays and arrays[key].shape == ()}
    if len(own) == 2:  # write_npz wrote the file
        data = dataclasses.replace(assemble(path.stem, source, parts, classes), **own)
        return data if image_size is None else data.resized(image_size)
    return assemble(path.stem, source, whitened(parts), classes, image_size, test_share, note)


def write_npz(path: str | Path, data: ImageData) -> None:
    """Writes data to a file that :func:`read_arrays` reads back as they are, name, order and note among them.

    The file appears whole or not at all.

    Raises:
        ValueError: The path does not end in ``.npz``.
    """
    require_kind(data, "data", ImageData)
    path = expanded(path)
    if path.suffix != ".npz":
        raise ValueError(f"The path must end in .npz, got {path}.")
    tensors = {"train_images": data.train, "test_images": data.test}
    tensors |= {"train_labels": data.train_labels} if data.train_labels is not None else {}
    tensors |= {"test_labels": data.test_labels} if data.test_labels is not None else {}
    arrays: dict[str, Any] = {key: value.cpu().numpy() for key, value in tensors.items()}
    arrays |= {"name": np.array(data.name), "note": np.array(data.note)}
    arrays |= {"classes": np.array(data.classes, dtype=str)} if data.classes else {}
    write_whole(path, lambda file: np.savez_compressed(file, **arrays))


_Arrays = tuple[dict[str, np.ndarray], list[str]]


def _reading(read: Callable[[Path], Any], path: Path, advice: str) -> Any:
    """What a function reads, with one line for everything that can go wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused below
            return read(path)
    except OSError as error:
        if error.errno == errno.EINVAL:  # torch seeks before the beginning of a file that was cut short
            raise UsageError(f"{path} cannot be read: it is damaged, or {advice}") from error
        raise UsageError(f"{path} cannot be read: {error.strerror or one_line(error)}") from error
    except Exception as error:  # NumPy, zipfile, pickle and torch raise many kinds, some with advice to load what may be unsafe
        raise UsageError(f"{path} cannot be read: it is damaged, or {advice}") from error


def _read_npz(path: Path) -> _Arrays:
    def read(path: Path) -> _Arrays:
        arrays, refused = {}, []
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                try:
                    found = archive[name]
                except ValueError:  # an array of objects
                    refused.append(name)
                    continue
                if isinstance(found, np.ndarray):  # an archive can hold other files too
                    arrays[name] = found
        return arrays, refused

    return _reading(read, path, "is not a file that numpy.savez wrote")


def _read_npy(path: Path) -> _Arrays:
    advice = "holds pickled Python objects, which are not loaded"

    def read(path: Path) -> _Arrays:
        with path.open("rb") as file:
            return {"images": np.lib.format.read_array(file, allow_pickle=False)}, []

    return _reading(read, path, advice)


def _read_pt(path: Path) -> _Arrays:
    advice = "holds other Python objects than tensors, numbers, strings, lists and dicts, which are not loaded"
    found = _reading(lambda path: torch.load(path, map_location="cpu", weights_only=True), path, advice)
    found = {"images": found} if isinstance(found, Tensor) else found
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds a {type(found).__name__}, and not a tensor or a dict of tensors")
    arrays, refused = {}, []
    for name, value in found.items():
        try:
            arrays[str(name)] = _array(value)
        except (TypeError, ValueError, RuntimeError):  # UsageError among them; a sparse tensor, lists of different lengths
            refused.append(str(name))
    return arrays, refused


def _find(arrays: dict[str, np.ndarray], refused: Sequence[str], source: str) -> tuple[list[str], list[str | None]]:
    """The names of one array of images or of two, the training and the test images, and of the labels of each, if any."""
    known = {name.lower(): name for name in (*refused, *arrays)}

    def named(*candidates: str) -> str | None:
        name = next((known[candidate] for candidate in candidates if candidate in known), None)
        if name in refused:
            raise UsageError(f"{source}: '{name}' holds no plain array, or is damaged, and is not loaded")
        return name

    train, test = named("train_images", "x_train"), named("test_images", "x_test")
    train_labels, test_labels = named("train_labels", "y_train"), named("test_labels", "y_test")
    if train is not None and test is not None:
        return [train, test], [train_labels, test_labels]
    images, labels = train or named("images", "x"), train_labels or named("labels", "y")
    if images is None:
        candidates = [name for name, array in arrays.items() if array.ndim in (3, 4)]
        if len(candidates) > 1 and "arr_0" not in candidates:
            raise UsageError(
                f"{source} has several arrays that could be images, {', '.join(candidates)}: name one of them images"
            )
        if not candidates:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:5]) or "none"
            objects = f"; {', '.join(refused)} holds no plain array, and is not loaded" if refused else ""
            raise UsageError(f"{source} has no array of images, which has three or four axes (arrays: {shapes}{objects})")
        images = "arr_0" if "arr_0" in candidates else candidates[0]
    if labels is None:
        names = _class_names(arrays)
        lines = [name for name, array in arrays.items() if array.ndim == 1 and name not in names]
        labels = lines[0] if len(lines) == 1 else None
    return [images], [labels]


def _class_names(arrays: dict[str, np.ndarray]) -> list[str]:
    """Which arrays name classes."""
    return [
        name
        for name, array in arrays.items()
        if name.lower() in ("classes", "class_names") and array.ndim == 1 and array.dtype.kind == "U"
    ]
