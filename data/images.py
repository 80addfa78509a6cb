"""Images that others have taken: MNIST, Fashion-MNIST, Omniglot, CIFAR-10, and scikit-learn's digits, which need no file.

Files lie as torchvision lays them out, and are looked for in the folder that the caller names, then in ``$PYZOO_DATA``, then in a
cache folder (``$XDG_CACHE_HOME/pyzoo``, by default ``~/.cache/pyzoo``), into which torchvision downloads what is nowhere. They
are read only if their checksums are those of the official files. torchvision is imported only to download, and to read CIFAR-10.

Sources: LeCun et al. (1998), MNIST; Xiao, Rasul and Vollgraf (2017), Fashion-MNIST; Lake, Salakhutdinov and Tenenbaum (2015),
Omniglot; Krizhevsky (2009), CIFAR-10; Alpaydin and Kaynak (1998), the digits of the UCI repository.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pyzoo.errors import UsageError, one_line
from pyzoo.random import derive_seed

__all__ = [
    "IMAGE_SETS",
    "Epochs",
    "ImageSet",
    "ImageSetName",
    "ImageSource",
    "Split",
    "binarized",
    "downloading",
    "find_file",
    "load_images",
    "read_whole",
]

Split = Literal["train", "test"]
ImageSetName = Literal["mnist", "fashion-mnist", "omniglot", "cifar10", "digits"]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """What is known of a set of images before it is read."""

    shape: tuple[int, int, int]
    """Channels, height and width of an image."""
    train: int
    """Images to train on."""
    test: int
    """Images to test on."""
    note: str = ""
    """What to say beside every number measured on it."""


IMAGE_SETS = {
    "mnist": ImageSet((1, 28, 28), 60_000, 10_000),
    "fashion-mnist": ImageSet((1, 28, 28), 60_000, 10_000),
    "omniglot": ImageSet(
        (1, 28, 28),
        19_280,
        13_180,
        "Trained on Omniglot's background alphabets, tested on the others: not the split of the likelihood papers.",
    ),
    "cifar10": ImageSet((3, 32, 32), 50_000, 10_000),
    "digits": ImageSet((1, 28, 28), 1437, 360, "scikit-learn's 8x8 digits enlarged, not MNIST."),
}


class Epochs:
    """Which examples a step sees: every epoch shows each once, in an order of its own.

    Examples that would not fill a batch wait for the next epoch.

    Args:
        count: how many examples there are.
        seed: of the orders.
        device: where the numbers of examples are held.

    Raises:
        UsageError: there are fewer examples than a batch needs.

    Example:
        >>> epochs = Epochs(5)
        >>> sorted(epochs.rows(step=0, size=5).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, count: int, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.count = count
        self.seed = seed
        self.device = device
        self._epoch: tuple[int, Tensor] | None = None

    def rows(self, step: int, size: int) -> Tensor:
        """The examples of a step, (size,), integer; a pure function of the seed and step."""
        steps_per_epoch = self.count // size
        if steps_per_epoch == 0:
            raise UsageError(f"--batch-size {size} is more than the {self.count} images there are")
        epoch, index = divmod(step, steps_per_epoch)
        return self._order(epoch)[index * size : (index + 1) * size]

    def _order(self, epoch: int) -> Tensor:
        if self._epoch is None or self._epoch[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
            order = torch.randperm(self.count, generator=generator)  # on the CPU, so that all devices see one order
            self._epoch = epoch, order.to(self.device)
        return self._epoch[1]


class ImageSource:
    """A source of batches of real images, held as bytes on the device and turned into numbers there.

    Args:
        images: (images, channels, height, width), uint8.
        binarize: "dynamic", a pixel is one with the probability that is its brightness, drawn anew in each batch; "fixed", drawn
            once; or "no", pixels are numbers from 0 to 1.
        seed: of the order and of the draws.
        device: where the images are held.

    Raises:
        ValueError: the images are not bytes of this shape.
        UsageError: there are fewer images than a batch needs.

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
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(f"Images are uint8 and (images, channels, height, width), not {images.dtype} {tuple(images.shape)}.")
        if binarize not in ("dynamic", "fixed", "no"):
            raise ValueError(f"binarize is 'dynamic', 'fixed' or 'no', not '{binarize}'.")
        self.binarize = binarize
        self.seed = seed
        if binarize == "fixed":
            images = binarized(images, derive_seed(seed, "binarize")).to(torch.uint8)
        self.images = images.to(device)
        self.epochs = Epochs(len(images), seed, self.images.device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step: x, (size, channels, height, width); a pure function of the seed and step."""
        x = self.images[self.epochs.rows(step, size)]
        if self.binarize == "dynamic":
            return {"x": binarized(x, derive_seed(self.seed, "binarize", step))}
        return {"x": x.float() if self.binarize == "fixed" else x / 255}


def binarized(images: Tensor, seed: int) -> Tensor:
    """Zeros and ones, a pixel one with the probability that is its brightness; drawn on the images' device."""
    generator = torch.Generator(images.device).manual_seed(seed)
    return (255 * torch.rand(images.shape, generator=generator, device=images.device) < images).float()


# Files --------------------------------------------------------------------------------------------------------------


def load_images(name: str, split: Split, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Reads the images of a set, and their labels.

    Args:
        name: one of ``IMAGE_SETS``.
        split: "train" or "test".
        folder: where to look first.

    Returns:
        Images, (images, channels, height, width), uint8; and labels, (images,), int64.

    Raises:
        UsageError: a file is damaged, or in no folder and can't be downloaded; says which file, and where to put it.
    """
    readers: dict[str, Callable[[Split, str | Path | None], tuple[Tensor, Tensor]]] = {
        "mnist": lambda *where: _read_mnist("MNIST", *where),
        "fashion-mnist": lambda *where: _read_mnist("FashionMNIST", *where),
        "omniglot": _read_omniglot,
        "cifar10": _read_cifar10,
        "digits": lambda split, folder: _digits(split),
    }
    if name not in readers:
        raise UsageError(f"there are no images '{name}'; there are {', '.join(readers)}")
    if split not in ("train", "test"):
        raise ValueError(f"split is 'train' or 'test', not '{split}'.")
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(f"--data-dir {folder}: there is no such folder")
    return readers[name](split, folder)


def _folders(folder: str | Path | None) -> Iterator[Path]:
    """Where to look, the cache last."""
    if folder is not None:
        yield Path(folder).expanduser()
    if os.environ.get("PYZOO_DATA"):
        yield Path(os.environ["PYZOO_DATA"]).expanduser()
    yield _cache()


def find_file(where: Path, folder: str | Path | None) -> Path:
    """The first of the folders that has a file or folder, or its place in the cache."""
    paths = [place / where for place in _folders(folder)]
    return next((path for path in paths if path.exists()), paths[-1])


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyzoo"


_MNIST_FILES = {  # their MD5 sums
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
    """The numbers of one of MNIST's files: bytes behind a header."""
    path = find_file(Path(kind, "raw", name), folder)
    if not path.exists():
        with downloading(Path(kind, "raw", name), folder) as torchvision:
            getattr(torchvision.datasets, kind)(root=str(_cache()), download=True)
    content = read_whole(path, _MNIST_FILES[kind, name])
    return torch.from_numpy(np.frombuffer(gzip.decompress(content), np.uint8, offset=header).copy())


def read_whole(path: Path, md5: str) -> bytes:
    """A file's content, if its MD5 sum is the official file's."""
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise UsageError(f"{path} is damaged: its MD5 sum is not the official file's; remove it, or put a good one in its place")
    return content


_OMNIGLOT_SHA256 = "7651afc13770c6b3074b3a46693cf2ebe50a43fc2cdca4d96c83ca0b8cb864e4"


def _read_omniglot(split: Split, folder: str | Path | None) -> tuple[Tensor, Tensor]:
    """From one file with all drawings at 28x28 where there is one, else from the official archives, made smaller here."""
    path = find_file(Path("omniglot-py", "omniglot_28x28.npz"), folder)
    if path.exists():
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != _OMNIGLOT_SHA256:
            raise UsageError(f"{path} is damaged: its SHA-256 sum is wrong; remove it, or put a good one in its place")
        with np.load(io.BytesIO(content)) as arrays:
            keep = arrays["evaluation"] == (split == "test")
            images, characters = arrays["images"][keep], arrays["character"][keep]
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(characters.astype(np.int64))
    name = "images_background" if split == "train" else "images_evaluation"
    path = find_file(Path("omniglot-py", name), folder)
    if not path.exists():
        with downloading(Path("omniglot-py", name), folder) as torchvision:
            torchvision.datasets.Omniglot(root=str(_cache()), background=split == "train", download=True)
    return _read_drawings(path, IMAGE_SETS["omniglot"].train if split == "train" else IMAGE_SETS["omniglot"].test)


def _read_drawings(path: Path, count: int) -> tuple[Tensor, Tensor]:
    """Omniglot's PNGs, 105x105 with black ink, as 28x28 with white ink; a label for each character."""
    from PIL import Image, ImageOps

    files = sorted(path.glob("*/*/*.png"))
    if len(files) != count:
        raise UsageError(f"{path} holds {len(files)} drawings and should hold {count}: remove the folder, or unpack it again")
    characters = sorted({file.parent for file in files})
    labels = torch.tensor([characters.index(file.parent) for file in files])
    pixels = np.stack([np.asarray(ImageOps.invert(Image.open(file).convert("L")).resize((28, 28), Image.BOX)) for file in files])
    return torch.from_numpy(pixels).unsqueeze(1), labels


def _read_cifar10(split: Split, folder: str | Path | None) -> tuple[Tensor, Tensor]:
    path = find_file(Path("cifar-10-batches-py"), folder)
    if not path.exists():
        with downloading(Path("cifar-10-batches-py"), folder) as torchvision:
            torchvision.datasets.CIFAR10(root=str(path.parent), download=True)
    try:
        import torchvision

        found = torchvision.datasets.CIFAR10(root=str(path.parent), train=split == "train")
    except ImportError as error:
        raise UsageError(f"{path} is read by torchvision, which can't be imported ({error}): pip install torchvision") from error
    except RuntimeError as error:  # its sums are wrong, or torchvision does not fit torch
        raise UsageError(f"{path} is damaged or not whole, or torchvision is: {one_line(error)}") from error
    return torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(found.targets)


@contextlib.contextmanager
def downloading(where: Path, folder: str | Path | None, instead: str = "--data digits needs no file") -> Iterator[Any]:
    """torchvision, and one line for what can go wrong with it: what is missing, where to put it, and what to take instead."""
    places = ", ".join(str(place) for place in _folders(folder))
    advice = f"put it as {where} in one of {places}, or name a folder with --data-dir; {instead}"
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"{where} is nowhere, and torchvision, which would fetch it, can't be imported ({one_line(error)}): {advice}"
        ) from error
    try:
        yield torchvision
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{where} is nowhere, and can't be downloaded ({one_line(error)}): {advice}") from error


def _digits(split: Split) -> tuple[Tensor, Tensor]:
    """Every fifth of the 1,797 digits, 8x8, is for testing."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) * (255 / 16)
    images = interpolate(images, size=(28, 28), mode="bilinear", antialias=True).round().to(torch.uint8)
    keep = (torch.arange(len(images)) % 5 == 0) == (split == "test")
    return images[keep], torch.from_numpy(labels).long()[keep]
