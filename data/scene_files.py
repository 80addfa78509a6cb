"""The published scenes with masks: files of DeepMind's multi-object datasets, read without TensorFlow.

Source: Kabra et al. (2019), "Multi-Object Datasets": ``tetrominoes_train.tfrecords``,
``multi_dsprites_colored_on_grayscale.tfrecords`` and their like. A file is a compressed stream of records; a record is a message
of protocol buffers that holds the features of a scene by name, and each byte of an image is a value of its own.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pyzoo.checks import require_count
from pyzoo.data.files import central_square, check_size, expanded, fit
from pyzoo.errors import UsageError
from pyzoo.files import require_file

__all__ = ["SceneFile", "read_scenes"]

_SHAPES = {  # of images, by their number of bytes
    3 * 35 * 35: (35, 35, 3),  # Tetrominoes
    3 * 64 * 64: (64, 64, 3),  # Multi-dSprites in color, Objects Room
    64 * 64: (64, 64, 1),  # Multi-dSprites, black and white
    3 * 240 * 320: (240, 320, 3),  # CLEVR with masks
}
_LARGEST = 2**26  # bytes of a record: what is larger is no such file


class SceneFile(NamedTuple):
    """Scenes of a file.

    Attributes:
        images: (scenes, channels, height, width), uint8.
        segments: which piece one sees at each pixel, (scenes, height, width), uint8; 0 is the background.
    """

    images: Tensor
    segments: Tensor


def read_scenes(path: str | Path, count: int = 60_000, image_size: int | None = None) -> SceneFile:
    """Reads scenes from a file of DeepMind's multi-object datasets, ``.tfrecords``.

    Args:
        path: the file.
        count: how many scenes to read, from the beginning; all, if there are fewer.
        image_size: pixels on a side; images and masks are then cut to their central squares and resized.

    Raises:
        UsageError: there is no such file, or it holds something else, or is damaged.
    """
    path = expanded(path)
    require_count(count, "count")
    if image_size is not None:
        check_size(image_size)
    images, segments = [], []
    try:
        require_file(path)
        with gzip.open(path, "rb") as file:
            for record in _records(file, count):
                image, segment = _scene(record)
                if images and images[0].shape != image.shape:
                    raise ValueError("its images differ in size")
                images.append(image)
                segments.append(segment)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or 'it is not compressed with gzip, or is damaged'}") from error
    except (ValueError, IndexError, struct.error, EOFError, zlib.error) as error:
        what = f"scene {len(images):,}: {error}" if isinstance(error, ValueError) else f"it ends within scene {len(images):,}"
        raise UsageError(f"{path} cannot be read as scenes with masks, or is damaged; {what}") from error
    if not images:
        raise UsageError(f"{path} has no scenes")
    found = SceneFile(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(segments)))
    return found if image_size is None else _resized(found, image_size)


def _resized(scenes: SceneFile, image_size: int) -> SceneFile:
    square = central_square(scenes.segments)
    segments = interpolate(square.unsqueeze(1).float(), size=(image_size, image_size), mode="nearest-exact")
    return SceneFile(fit(scenes.images, image_size), segments.squeeze(1).byte())


def _records(file: gzip.GzipFile, count: int) -> Iterator[bytes]:
    """The first records of a file: each has its length before it, and checksums behind the length and behind itself."""
    for _ in range(count):
        header = file.read(12)
        if not header:
            return
        (length,) = struct.unpack("<Q", header[:8])
        if length > _LARGEST:
            raise ValueError(f"a record of {length} bytes is none")
        record = file.read(length + 4)
        if len(record) < length + 4:
            raise EOFError
        yield record[:length]


def _scene(record: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Image, (channels, height, width), and the piece at each pixel, (height, width), both uint8."""
    features = _features(record)
    if not {"image", "mask"} <= features.keys():
        raise ValueError(f"it has no image and mask, but {', '.join(sorted(features)) or 'nothing'}")
    image, mask = features["image"], features["mask"]
    if len(image) not in _SHAPES:
        raise ValueError(f"an image of {len(image):,} bytes is of none of these data sets")
    height, width, channels = _SHAPES[len(image)]
    if len(mask) % (height * width) or not len(mask):
        raise ValueError(f"masks of {len(mask):,} bytes do not fit an image of {height} x {width} pixels")
    for masks in (mask.reshape(-1, height * width), mask.reshape(height * width, -1).T):  # either is in use
        if len(masks) <= 255 and ((masks > 0).sum(0) == 1).all():
            segments = masks.argmax(0).astype(np.uint8).reshape(height, width)
            return image.reshape(height, width, channels).transpose(2, 0, 1), segments
    raise ValueError("its masks do not share out the pixels")


# Protocol buffers: numbered fields, each a number or a run of bytes, which may be a message again -----------------------


def _features(record: bytes) -> dict[str, np.ndarray]:
    """The features that are lists of single bytes, by name: Example(features=1: Features(feature=1: map from 1 to 2))."""
    found = {}
    for features in _messages(record, 1):
        for entry in _messages(features, 1):
            name, values = b"".join(_messages(entry, 1)), b"".join(_messages(entry, 2))
            for values_of_bytes in _messages(values, 1):  # BytesList; others are lists of floats, which are not asked for
                pairs = np.frombuffer(values_of_bytes, np.uint8)
                if len(pairs) % 3 or (pairs.reshape(-1, 3)[:, :2] != [0x0A, 1]).any():  # field 1, of one byte
                    raise ValueError(f"'{name.decode(errors='replace')}' is no list of bytes")
                found[name.decode(errors="replace")] = pairs[2::3].copy()
    return found


def _messages(message: bytes, number: int) -> Iterator[bytes]:
    """The runs of bytes that have a number, of a message's fields."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key & 7 == 2:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError("a field is longer than its record")
            if key >> 3 == number:
                yield message[place : place + length]
            place += length
        elif key & 7 == 0:
            _, place = _varint(message, place)
        elif key & 7 in (1, 5):
            place += {1: 8, 5: 4}[key & 7]
        else:
            raise ValueError("its fields are none of protocol buffers")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number has no end")
