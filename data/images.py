"""Images: sets that are known by name, the user's own, and the batches that models are trained on.

:func:`load_image_data` reads all kinds of images into one form. Five sets are known by name: MNIST, Fashion-MNIST, Omniglot,
CIFAR-10, and the digits of scikit-learn, which need no files. Their files are looked for as :mod:`pyzoo.data.places` describes,
and are read only if their checksums are those of the official files.

Sources: LeCun et al. (1998), MNIST; Xiao, Rasul and Vollgraf (2017), Fashion-MNIST; Lake, Salakhutdinov and Tenenbaum (2015),
Omniglot; Krizhevsky (2009), CIFAR-10; Alpaydin and Kaynak (1998), the digits of the UCI repository.
"""

import dataclasses
import functools
import gzip
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pyzoo.checks import as_device, require_count, require_tensor
from pyzoo.data.files import FILE_TYPES, IMAGE_TYPES, ImageData, check_options, image_data, read_arrays, read_folder, write_npz
from pyzoo.data.places import cache, check_folder, downloading, find_file, import_torchvision, read_whole
from pyzoo.data.torchvision_sets import read_torchvision
from pyzoo.errors import UsageError, one_line
from pyzoo.files import expanded, require_name
from pyzoo.random import derive_seed, seeded
from pyzoo.settings import cut

__all__ = [
    "IMAGE_SETS",
    "Epochs",
    "ImageData",
    "ImageSet",
    "ImageSetName",
    "ImageSource",
    "Split",
    "binarized",
    "image_data",
    "load_image_data",
    "load_images",
    "write_npz",
]

Split = Literal["train", "test"]
ImageSetName = Literal["mnist", "fashion-mnist", "omniglot", "omniglot-drawers", "cifar10", "digits"]

_NOTES = {
    "omniglot": "Trained on Omniglot's background alphabets, tested on the others: not the split of the likelihood papers.",
    "omniglot-drawers": "Trained on the first 15 drawings of each of Omniglot's characters, tested on the last 5: as many as the "
    "likelihood papers train on, but their file has other drawings among these, and resampled them otherwise.",
    "digits": "scikit-learn's 8x8 digits enlarged, not MNIST.",
}
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CLASSES = {"mnist": tuple("0123456789"), "digits": tuple("0123456789"), "fashion-mnist": _CLOTHES, "cifar10": _OBJECTS}
_DRAWINGS = {"train": 19_280, "test": 13_180}  # of Omniglot's two groups of alphabets, 20 of each character
_TRAINED_DRAWERS = 15


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """What is known about a set of images before it is read."""

    shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    train: int
    """Number of training images."""
    test: int
    """Number of test images."""
    note: str = ""
    """What to report beside every number that is measured on it."""


IMAGE_SETS = {
    "mnist": ImageSet((1, 28, 28), 60_000, 10_000),
    "fashion-mnist": ImageSet((1, 28, 28), 60_000, 10_000),
    "omniglot": ImageSet((1, 28, 28), _DRAWINGS["train"], _DRAWINGS["test"], _NOTES["omniglot"]),
    "omniglot-drawers": ImageSet((1, 28, 28), 1623 * 15, 1623 * 5, _NOTES["omniglot-drawers"]),
    "cifar10": ImageSet((3, 32, 32), 50_000, 10_000),
    "digits": ImageSet((1, 28, 28), 1437, 360, _NOTES["digits"]),
}


# Batches --------------------------------------------------------------------------------------------------------------


class Epochs:
    """Draws the examples of each training step: every epoch shows each example at most once, in an order of its own.

    Examples at the end of an epoch that would not fill a batch are left out.

    Args:
        count: number of examples.
        seed: seed of the orders.
        device: where the orders are held.

    Example:
        >>> epochs = Epochs(5)
        >>> sorted(epochs.rows(step=0, size=5).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, count: int, seed: int = 0, device: torch.device | str = "cpu") -> None:
        require_count(count, "count", 0)
        self.count = count
        self.seed = seed
        self.device: torch.device = as_device(device)
        self._epoch: tuple[int, Tensor] | None = None

    def rows(self, step: int, size: int) -> Tensor:
        """The positions of a step's examples, (size,), int64: a pure function of the seed and the step.

        Raises:
            UsageError: There are fewer examples than a batch needs.
            ValueError: size is below 1, or step negative.
        """
        require_count(size, "size")
        require_count(step, "step", 0)
        steps_per_epoch = self.count // size
        if steps_per_epoch == 0:
            raise UsageError(f"--batch-size {size} is more than the {self.count} examples there are")
        epoch, index = divmod(step, steps_per_epoch)
        return self._order(epoch)[index * size : (index + 1) * size]

    def _order(self, epoch: int) -> Tensor:
        if self._epoch is None or self._epoch[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
            order = torch.randperm(self.count, generator=generator)  # on the CPU, so that the order is the same on all devices
            self._epoch = epoch, order.to(self.device)
        return self._epoch[1]


class ImageSource:
    """A source of batches of images, which are held as bytes on the device and converted to floats there.

    Args:
        images: (images, channels, height, width), uint8.
        binarize: "dynamic" draws each pixel as zero or one, one with a probability equal to its brightness, anew in each batch;
            "fixed" draws it once; "no" gives floats from 0 to 1.
        seed: seed of the order and of the draws.
        device: where the images are held.

    Raises:
        ValueError: The images do not have this type and shape.

    Example:
        >>> source = ImageSource(torch.full((10, 1, 2, 2), 255, dtype=torch.uint8))
        >>> source.batch(step=0, size=3)["x"].shape
        torch.Size([3, 1, 2, 2])
    """

    def __init__(
        self,
        images: Tensor,
        binarize: Literal["dynamic", "fixed", "no"] = "dynamic",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        require_tensor(images, "images")
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(
                f"Images must be uint8 and (images, channels, height, width), not {images.dtype} {tuple(images.shape)}."
            )
        if binarize not in ("dynamic", "fixed", "no"):
            raise ValueError(f"binarize must be 'dynamic', 'fixed' or 'no', got '{binarize}'.")
        self.binarize = binarize
        self.seed = seed
        if binarize == "fixed":
            images = binarized(images, derive_seed(seed, "binarize")).to(torch.uint8)
        self.images: Tensor = images.to(as_device(device))
        self.epochs: Epochs = Epochs(len(images), seed, self.images.device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step: x, (size, channels, height, width), a pure function of the seed and the step.

        Raises:
            UsageError: There are fewer images than a batch needs.
        """
        x = self.images[self.epochs.rows(step, size)]
        if self.binarize == "dynamic":
            return {"x": binarized(x, derive_seed(self.seed, "binarize", step))}
        return {"x": x.to(torch.get_default_dtype()) if self.binarize == "fixed" else x / 255}


def binarized(images: Tensor, seed: int) -> Tensor:
    """Draws each pixel as zero or one, one with a probability equal to its brightness.

    Args:
        images: any shape, from 0 to 255.
        seed: seed of the draws, which are made on the images' device.

    Returns:
        Floats of the same shape.
    """
    require_tensor(images, "images")
    generator = seeded(seed, images.device)
    drawn = 255 * torch.rand(images.shape, generator=generator, device=images.device) < images
    return drawn.to(torch.get_default_dtype())


# Reading --------------------------------------------------------------------------------------------------------------


def load_image_data(
    data: str | Path, folder: str | Path | None = None, image_size: int | None = None, test_share: float = 0.2
) -> ImageData:
    """Reads images to train on and to test on: a set that is known by name, or the user's own.

    Args:
        data: one of "mnist", "fashion-mnist", "omniglot", "omniglot-drawers", "cifar10" and "digits"; "torchvision:NAME", a class
            of ``torchvision.datasets``, see :func:`~pyzoo.data.torchvision_sets.read_torchvision`; a folder of image files, see
            :func:`~pyzoo.data.files.read_folder`; or a file of arrays, ``.npz``, ``.npy`` or ``.pt``, see
            :func:`~pyzoo.data.files.read_arrays`. A :class:`~pathlib.Path` is always a folder or a file.
        folder: where to look first for the files of named sets; then as in :mod:`pyzoo.data.places`.
        image_size: pixels on a side; images are then cut to their central squares and resized. Image files of different sizes
            need it.
        test_share: share of the images to test on, above 0 and below 1, unless the data come with test images.

    Raises:
        UsageError: There is no such set, folder or file; it cannot be read, with the reason; or a setting is out of range.

    Example:
        >>> digits = load_image_data("digits")
        >>> digits.shape, len(digits.train), len(digits.test)
        ((1, 28, 28), 1437, 360)
    """
    check_options(image_size, test_share)
    if not isinstance(data, (str, Path)):
        raise UsageError(f"data must be a name or a path, got {cut(data)}")
    require_name(data)
    if isinstance(data, str):
        if data in get_args(ImageSetName):
            named = _named(data, folder)
            return named if image_size is None else named.resized(image_size)
        prefix, _, name = data.partition(":")
        if prefix == "torchvision":
            return read_torchvision(name, folder, image_size, test_share)
    path = expanded(data)
    if path.is_dir() and data != "":
        return read_folder(path, image_size, test_share)
    if path.is_file() and path.suffix.lower() in FILE_TYPES:
        return read_arrays(path, image_size, test_share)
    names, types = (", ".join(known) for known in (get_args(ImageSetName), FILE_TYPES))
    forms = f"--data takes {names}, torchvision:NAME, a folder of images, or a file that ends in {types}"
    if path.is_file():
        what = "is a single image" if path.suffix.lower() in IMAGE_TYPES else "is not a file of a kind that can be read"
        raise UsageError(f"{data} {what}: {forms}")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{data} is a pipe or a device, and not a file: {forms}")
    if isinstance(data, Path) or path.suffix or "/" in data or os.sep in data:
        raise UsageError(f"there is no file or folder '{data}': {forms}")
    raise UsageError(f"there are no images '{data}': {forms}")


def _named(name: str, folder: str | Path | None) -> ImageData:
    check_folder(folder)
    if name.startswith("omniglot"):
        return _split_omniglot(name, folder)
    (train, train_labels), (test, test_labels) = (load_images(name, split, folder) for split in ("train", "test"))
    return ImageData(name, train, test, train_labels, test_labels, _CLASSES[name], _NOTES.get(name, ""))


def load_images(name: str, split: Split, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Reads one split of a set that is known by name. Of Omniglot both are read, since labels count the characters of both.

    Args:
        name: "mnist", "fashion-mnist", "omniglot", "omniglot-drawers", "cifar10" or "digits".
        split: "train" or "test".
        folder: where to look first; then as in :mod:`pyzoo.data.places`.

    Returns:
        Images, (images, channels, height, width), uint8; and labels, (images,), int64.

    Raises:
        UsageError: There is no such set; or a file is damaged, or is in none of the folders and cannot be downloaded.
    """
    if name not in get_args(ImageSetName):
        raise UsageError(f"there are no images '{name}'; there are {', '.join(get_args(ImageSetName))}")
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got '{split}'.")
    check_folder(folder)
    if name == "digits":
        return _digits(split)
    if name == "cifar10":
        return _read_cifar10(split, folder)
    if name.startswith("omniglot"):
        data = _split_omniglot(name, folder)
        return (data.train, data.train_labels) if split == "train" else (data.test, data.test_labels)
    return _read_mnist("MNIST" if name == "mnist" else "FashionMNIST", split, folder)


_MNIST_FILES = {  # MD5 sums
    ("MNIST", "train-images-idx3-ubyte.gz"): "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ("MNIST", "train-labels-idx1-ubyte.gz"): "d53e105ee54ea40749a09fcbcd1e9432",
    ("MNIST", "t10k-images-idx3-ubyte.gz"): "9fb629c4189551a2d022fa330f9573f3",
    ("MNIST", "t10k-labels-idx1-ubyte.gz"): "ec29112dd5afa0611ce80d1b7f02629c",
    ("FashionMNIST", "train-images-idx3-ubyte.gz"): "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ("FashionMNIST", "train-labels-idx1-ubyte.gz"): "25c81989df183df01b3e8a0aad5dffbe",
    ("FashionMNIST", "t10k-images-idx3-ubyte.gz"): "bef4ecab320f06d8554ea6380940ec79",
    ("FashionMNIST", "t10k-labels-idx1-ubyte.gz"): "bb300cfdad3c16e7a12a480ee83cd310",
}


def _read_mnist(kind: str, split: Split, folder: str | Path | None) -> tuple[Tensor, Tensor]:
    prefix = "train" if split == "train" else "t10k"
    images = _read_idx(kind, f"{prefix}-images-idx3-ubyte.gz", folder, header=16).reshape(-1, 1, 28, 28)
    return images, _read_idx(kind, f"{prefix}-labels-idx1-ubyte.gz", folder, header=8).long()


def _read_idx(kind: str, name: str, folder: str | Path | None, header: int) -> Tensor:
    """The bytes of one of MNIST's files after its header."""
    path = find_file(Path(kind, "raw", name), folder)
    if not path.exists():
        with downloading({"FashionMNIST": "Fashion-MNIST"}.get(kind, kind), Path(kind, "raw", name), folder) as torchvision:
            getattr(torchvision.datasets, kind)(root=str(cache()), download=True)
    content = read_whole(path, _MNIST_FILES[kind, name])
    return torch.from_numpy(np.frombuffer(gzip.decompress(content), np.uint8, offset=header).copy())


_OMNIGLOT_SHA256 = "7651afc13770c6b3074b3a46693cf2ebe50a43fc2cdca4d96c83ca0b8cb864e4"


@dataclasses.dataclass(frozen=True)
class _Drawings:
    images: Tensor
    """(drawings, 1, 28, 28), uint8."""
    characters: Sequence[str]
    """What each drawing shows, such as "Latin/character01"."""
    drawers: Tensor
    """Who of 20 drew it, from 1, (drawings,)."""

    def labels(self, classes: Sequence[str]) -> Tensor:
        """The place of each drawing's character in a list, (drawings,), int64."""
        place = {character: index for index, character in enumerate(classes)}
        return torch.tensor([place[character] for character in self.characters])


def _split_omniglot(name: str, folder: str | Path | None) -> ImageData:
    """All drawings, split by their alphabets, or by who drew them."""
    parts = [_read_omniglot(split, folder) for split in ("train", "test")]
    classes = tuple(sorted({*parts[0].characters, *parts[1].characters}))
    images, labels = [part.images for part in parts], [part.labels(classes) for part in parts]
    if name == "omniglot-drawers":
        trained = torch.cat([part.drawers for part in parts]) <= _TRAINED_DRAWERS
        order = torch.randperm(len(trained), generator=seeded(0))  # so that the first and the last are of all alphabets
        rows = [order[kept[order]] for kept in (trained, ~trained)]
        images, labels = ([torch.cat(both)[row] for row in rows] for both in (images, labels))
    return ImageData(name, *images, *labels, classes, _NOTES[name])


def _read_omniglot(split: Split, folder: str | Path | None) -> _Drawings:
    """The drawings of one group of alphabets.

    They come from a file with all drawings at 28x28 if there is one, else from the official ones, which are reduced here.
    """
    path = find_file(Path("omniglot-py", "omniglot_28x28.npz"), folder)
    if path.exists():
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != _OMNIGLOT_SHA256:
            raise UsageError(f"{path} is damaged: its SHA-256 sum is wrong; remove it, or replace it")
        with np.load(io.BytesIO(content)) as arrays:
            keep = arrays["evaluation"] == (split == "test")
            images, numbers, alphabets, drawers = (arrays[key][keep] for key in ("images", "character", "alphabet", "drawer"))
            alphabet_names = arrays["alphabet_names"]
        names = {}
        for alphabet in np.unique(alphabets):
            known = np.unique(numbers[alphabets == alphabet]).tolist()
            names |= {number: f"{alphabet_names[alphabet]}/character{index:02d}" for index, number in enumerate(known, start=1)}
        characters = [names[number] for number in numbers.tolist()]
        return _Drawings(torch.from_numpy(images).unsqueeze(1), characters, torch.from_numpy(drawers.astype(np.int64)))
    name = "images_background" if split == "train" else "images_evaluation"
    path = find_file(Path("omniglot-py", name), folder)
    if not path.exists():
        with downloading("Omniglot", Path("omniglot-py", name), folder) as torchvision:
            torchvision.datasets.Omniglot(root=str(cache()), background=split == "train", download=True)
    return _read_drawings(path, _DRAWINGS[split])


def _read_drawings(path: Path, count: int) -> _Drawings:
    """Omniglot's PNG files, ALPHABET/CHARACTER/NUMBER_DRAWER.png, 105x105 with black ink, as 28x28 with white ink."""
    from PIL import Image, ImageOps

    files = sorted(path.glob("*/*/*_*.png"))
    if len(files) != count:
        raise UsageError(f"{path} has {len(files)} drawings and should have {count}: remove the folder, or unpack it again")
    pixels = np.stack([np.asarray(ImageOps.invert(Image.open(file).convert("L")).resize((28, 28), Image.BOX)) for file in files])
    characters = [f"{file.parent.parent.name}/{file.parent.name}" for file in files]
    drawers = torch.tensor([int(file.stem.rpartition("_")[2]) for file in files])
    return _Drawings(torch.from_numpy(pixels).unsqueeze(1), characters, drawers)


def _read_cifar10(split: Split, folder: str | Path | None) -> tuple[Tensor, Tensor]:
    path = find_file(Path("cifar-10-batches-py"), folder)
    if not path.exists():
        with downloading("CIFAR-10", Path("cifar-10-batches-py"), folder) as torchvision:
            torchvision.datasets.CIFAR10(root=str(path.parent), download=True)
    torchvision = import_torchvision()
    try:
        found = torchvision.datasets.CIFAR10(root=str(path.parent), train=split == "train")
    except Exception as error:  # a sum is wrong, or a file is missing
        raise UsageError(f"{path} is damaged or incomplete: {one_line(error)}") from error
    return torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(found.targets)


def _digits(split: Split) -> tuple[Tensor, Tensor]:
    """Digits of 8x8 pixels, enlarged; every fifth of the 1,797 is a test image."""
    images, labels = _all_digits()
    keep = (torch.arange(len(images)) % 5 == 0) == (split == "test")
    return images[keep], labels[keep]


@functools.cache
def _all_digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) * (255 / 16)
    images = interpolate(images, size=(28, 28), mode="bilinear", antialias=True).round().to(torch.uint8)
    return images, torch.from_numpy(labels).long()
