"""affNIST: MNIST's digits under small affine transformations, 40x40; read from its own files, or made from MNIST.

Each digit is rotated by up to 20 degrees, sheared by up to 0.2, scaled by 0.8 to 1.2 along each axis, and placed anywhere within
the image, all uniformly. The test images are made from MNIST's test images, in affNIST's own files and here.

Source: Tieleman (2013), "affNIST", https://www.cs.toronto.edu/~tijmen/affNIST/.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from pyzoo.checks import require_tensor
from pyzoo.data.images import Split, load_images
from pyzoo.data.places import find_file, folders
from pyzoo.data.transformations import Affine
from pyzoo.errors import UsageError, one_line
from pyzoo.files import require_file
from pyzoo.random import derive_seed, seeded

__all__ = ["Origin", "affnist_from", "at_mnists_size", "fit_to_28", "load_affnist"]

SIDE = 40

Origin = Literal["mnist", "digits", "files"]


def load_affnist(
    split: Split, folder: str | Path | None = None, origin: Origin = "mnist", batches: int = 1
) -> tuple[Tensor, Tensor]:
    """Reads or makes affNIST's images; :func:`fit_to_28` reduces them to 28x28.

    Args:
        split: "train" or "test".
        folder: where to look first for files of affNIST or MNIST; then as in :mod:`pyzoo.data.places`.
        origin: "files" reads affNIST's own files; "mnist" makes one image from each of MNIST's, in MNIST's order and always with
            the same seed; "digits" makes a stand-in from scikit-learn's digits, which need no files.
        batches: number of affNIST's 32 files to read; each has one version of every image of MNIST.

    Returns:
        Images, (images, 1, 40, 40), uint8; and labels, (images,), int64.

    Raises:
        UsageError: A file is missing, cannot be read, or has another layout; names it.
    """
    if origin not in ("mnist", "digits", "files"):
        raise UsageError(f"affNIST is made from 'mnist' or 'digits', or read from 'files', not from '{origin}'")
    if split not in ("train", "test"):
        raise UsageError(f"the splits of affNIST are 'train' and 'test', not '{split}'")
    if origin == "files":
        return _read_batches(split, folder, batches)
    images, labels = load_images(origin, split, folder)
    images = at_mnists_size(images) if origin == "digits" else images
    return affnist_from(images, derive_seed(0, "affnist", split)), labels


def at_mnists_size(images: Tensor) -> Tensor:
    """Reduces digits that reach the border to MNIST's size: 20x20 in the middle of 28x28.

    Args:
        images: (images, 1, 28, 28), uint8.

    Returns:
        The same type and shape.

    Raises:
        ValueError: The images have another type or shape.
    """
    _check_bytes(images, 28)
    return pad(_resized(images, 20), (4,) * 4)


def _read_batches(split: Split, folder: str | Path | None, batches: int) -> tuple[Tensor, Tensor]:
    if not isinstance(batches, int) or not 1 <= batches <= 32:
        raise UsageError(f"affNIST has 1 to 32 batches of each kind, not {batches}")
    name = "training_and_validation_batches" if split == "train" else "test_batches"
    found = [_read(Path("affNIST", name, f"{index + 1}.mat"), folder) for index in range(batches)]
    images, labels = zip(*found, strict=True)
    return torch.cat(images), torch.cat(labels)


def affnist_from(images: Tensor, seed: int) -> Tensor:
    """Transforms images as affNIST's are.

    Args:
        images: (images, 1, 28, 28), uint8, with a margin around the digits.
        seed: seed of the transformations.

    Returns:
        (images, 1, 40, 40), uint8.

    Raises:
        ValueError: The images have another type or shape.
    """
    _check_bytes(images, 28)
    family = Affine(rotation=20.0, shear=0.2, scale=(0.8, 1.2), translation=0.0)
    generator = seeded(seed)
    made = []
    for part in images.split(5000):  # to bound the memory
        margin = (SIDE - images.shape[-1]) // 2
        canvas = pad(part.float(), (margin,) * 4)
        shape = family.sample(len(part), generator)
        room = _room(family.apply(canvas, shape))
        shift = room[:, 0] + (room[:, 1] - room[:, 0]) * torch.rand(len(part), 2, generator=generator)
        still = torch.zeros(len(part))
        moved = family.compose(shape, family.matrices(still, translation=shift / SIDE))
        made.append(family.apply(canvas, moved).round().to(torch.uint8))  # interpolated once, not twice
    return torch.cat(made)


def _room(images: Tensor) -> Tensor:
    """By how many pixels the ink can be shifted within the image: (images, 2, 2), smallest and largest shift along u and v."""
    ink = images.squeeze(1) > 0.5
    bounds = []
    for axis in (1, 2):  # which columns, then which rows, have ink
        line = ink.any(axis).float()
        first, last = line.argmax(-1), SIDE - 1 - line.flip(-1).argmax(-1)
        bounds.append(torch.stack([-first, SIDE - 1 - last], dim=-1))
    return torch.stack(bounds, dim=-1).float()


def fit_to_28(images: Tensor, how: Literal["resize", "crop"] = "resize") -> Tensor:
    """Reduces images of 40x40 to 28x28.

    Args:
        images: (images, 1, 40, 40), uint8.
        how: "resize" shrinks the whole image, so that digits are smaller than MNIST's; "crop" keeps the middle, where digits are
            as large as MNIST's, and cuts digits near the border.

    Returns:
        (images, 1, 28, 28), uint8.

    Raises:
        ValueError: ``how`` is neither, or the images have another type or shape.
    """
    _check_bytes(images, SIDE)
    if how == "crop":
        margin = (SIDE - 28) // 2
        return images[..., margin : margin + 28, margin : margin + 28].contiguous()
    if how != "resize":
        raise ValueError(f"how must be 'resize' or 'crop', got '{how}'.")
    return _resized(images, 28)


def _check_bytes(images: Tensor, side: int) -> None:
    require_tensor(images, "images")
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1:] != (1, side, side) or not len(images):
        raise ValueError(f"Images must be uint8 and (images, 1, {side}, {side}), not {images.dtype} {tuple(images.shape)}.")


def _resized(images: Tensor, side: int) -> Tensor:
    parts = [interpolate(part.float(), size=(side, side), mode="bilinear", antialias=True) for part in images.split(5000)]
    return torch.cat([part.round().to(torch.uint8) for part in parts])


def _read(where: Path, folder: str | Path | None) -> tuple[Tensor, Tensor]:
    """One of affNIST's files: a Matlab struct whose field ``image`` has a column for each image, and ``label_int`` its label."""
    from scipy.io import loadmat  # a dependency of scikit-learn

    path = find_file(where, folder)
    if not path.exists():
        places = ", ".join(map(str, folders(folder)))
        raise UsageError(
            f"affNIST was not found (looked for {where} in {places}) and cannot be downloaded. Unpack its "
            f"{where.parent.name}.zip (32x, transformed) as {where.parent} in one of these folders, name another one with "
            "--data-dir, or use --affnist mnist, which makes it from MNIST."
        )
    require_file(path)
    try:
        content: Any = loadmat(path, squeeze_me=True, struct_as_record=True)["affNISTdata"]
        pixels = np.asarray(content["image"].item())
        labels = np.atleast_1d(content["label_int"].item())
    except Exception as error:  # SciPy raises many kinds
        raise UsageError(f"{path} is damaged, or is not a file of affNIST: {one_line(error)}") from error
    pixels = pixels[:, None] if pixels.ndim == 1 else pixels  # SciPy squeezes a single image
    if not len(labels) or pixels.shape != (SIDE * SIDE, len(labels)) or pixels.dtype != np.uint8:
        raise UsageError(f"{path} does not have the layout of affNIST: {pixels.dtype} {pixels.shape} for {len(labels)} labels")
    if not np.isin(labels, range(10)).all():
        raise UsageError(f"{path} has labels that are not digits: {labels.min()} to {labels.max()}")
    return torch.from_numpy(np.ascontiguousarray(pixels.T)).view(-1, 1, SIDE, SIDE), torch.from_numpy(labels.astype(np.int64))
