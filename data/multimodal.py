"""Pairs of views of one class: an image with its label, with a house number, or with an image of the next class.

The first view is a digit of MNIST or scikit-learn, or any image with a label. The second view has the class in common with it and
nothing else, so that the information that the two views share is the class. House numbers are rendered, in place of SVHN's, or
SVHN's own.

Sources: Zhang et al. (2020), section 4.2, for the three kinds of pairs; Wu and Goodman (2018), for examples with a missing view.
"""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.checks import as_device, as_indices, require_count, require_kind, require_names, require_pair, require_shape
from pyzoo.data.images import Epochs, ImageData, Split, load_images
from pyzoo.data.street_numbers import street_numbers
from pyzoo.data.svhn import load_svhn
from pyzoo.errors import UsageError
from pyzoo.random import derive_seed

__all__ = [
    "NUM_CLASSES",
    "ImagePartner",
    "Label",
    "Numbers",
    "PairSet",
    "PairSetName",
    "PairSource",
    "Partner",
    "load_pairs",
    "pairs_of",
    "partner_name",
]

NUM_CLASSES = 10
"""Number of classes of digits."""

PairSetName = Literal[
    "mnist-label", "mnist-numbers", "mnist-svhn", "mnist-plus-one", "digits-label", "digits-numbers", "digits-plus-one"
]


class Partner:
    """Base of the second views."""

    name: str
    """Name of the view."""
    offset: int = 0
    """Number of classes by which the view's class follows that of the first view."""
    num_classes: int = NUM_CLASSES
    """Number of classes."""

    def to(self, device: torch.device | str) -> "Partner":
        """The same with its tensors on a device."""
        return self

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Draws a view for each label, (batch, ...), on the generator's device.

        Args:
            labels: classes of the first views, (batch,), on the generator's device.
            generator: determines the draws.
        """
        raise NotImplementedError


class Label(Partner):
    """The class as a one-hot vector, (batch, classes).

    Args:
        num_classes: number of classes.

    Raises:
        ValueError: there is no class.
    """

    name = "label"

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        require_count(num_classes, "num_classes")
        self.num_classes = num_classes

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        labels = as_indices(labels, "labels", below=self.num_classes)
        return one_hot(labels, self.num_classes).to(torch.get_default_dtype())


class Numbers(Partner):
    """A house number with the digit in its middle, (batch, 3, 32, 32), rendered anew in each batch."""

    name = "number"

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return street_numbers(labels, generator)


class ImagePartner(Partner):
    """An image drawn from a set, of the class of the first view or of a later one; (batch, channels, height, width), from 0 to 1.

    Args:
        name: name of the view.
        images: (images, channels, height, width), uint8.
        labels: (images,), of any integer type; each class needs at least one image.
        offset: number of classes by which its class follows that of the first view; the first class follows the last.
        num_classes: number of classes.

    Raises:
        UsageError: A class has no image.
        ValueError: Images and labels are not as above.
    """

    def __init__(self, name: str, images: Tensor, labels: Tensor, offset: int = 0, num_classes: int = NUM_CLASSES) -> None:
        self.name = name
        self.offset = offset
        self.num_classes = num_classes
        require_kind(offset, "offset", int)
        require_count(num_classes, "num_classes")
        labels = classes_of(images, labels, num_classes)
        self.images: Tensor = images
        self.labels: Tensor = labels
        self.counts: Tensor = labels.bincount(minlength=num_classes)
        if not self.counts.all():
            missing = ", ".join(map(str, (self.counts == 0).nonzero().flatten().tolist()))
            raise UsageError(f"each class needs an image of '{name}', and these have none: {missing}; take more images")
        self.by_class: Tensor = labels.argsort(stable=True)
        self.first: Tensor = self.counts.cumsum(0) - self.counts

    def to(self, device: torch.device | str) -> "ImagePartner":
        return ImagePartner(self.name, self.images.to(device), self.labels.to(device), self.offset, self.num_classes)

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        require_kind(generator, "generator", torch.Generator)
        wanted = (as_indices(labels, "labels", below=self.num_classes) + self.offset) % self.num_classes
        place = torch.rand(len(labels), generator=generator, device=generator.device)
        return self.images[self.by_class[self.first[wanted] + (place * self.counts[wanted]).long()]] / 255


def classes_of(images: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Labels of images as int64.

    Raises:
        ValueError: images are not (images, channels, height, width) of uint8, there is none, or their labels are not as many
            classes.
    """
    require_shape(images, "images", ("images", "channels", "height", "width"))
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be of uint8, got {images.dtype}.")
    require_shape(labels, "labels", ("images",), images=len(images))
    labels = as_indices(labels, "labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must be from 0 to {num_classes - 1}, got {low} to {high}.")
    return labels


@dataclasses.dataclass
class PairSet:
    """Images, and the second views that they are paired with.

    Args:
        images: the first views, (images, channels, height, width), uint8.
        labels: their classes, (images,), of any integer type; kept as int64.
        partner: draws the second views.
        first: name of the first view.

    Raises:
        ValueError: images and labels are not as above, a class is not among the partner's, or both views have one name.
    """

    images: Tensor
    labels: Tensor
    partner: Partner
    first: str = "digit"

    def __post_init__(self) -> None:
        require_kind(self.partner, "partner", Partner)
        self.labels = classes_of(self.images, self.labels, self.partner.num_classes)
        if self.first == self.partner.name:
            raise ValueError(f"Both views are called '{self.first}'.")

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "PairSet":
        """The same on a device."""
        return dataclasses.replace(
            self, images=self.images.to(device), labels=self.labels.to(device), partner=self.partner.to(device)
        )

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two views."""
        return (self.first, self.partner.name)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.partner.num_classes

    def views(self, rows: Tensor | slice, generator: torch.Generator, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Views of some pairs by name; images are floats from 0 to 1.

        Args:
            rows: which pairs.
            generator: draws the second views, on the device of the images.
            names: names of the views; both by default.

        Raises:
            ValueError: there is no such view, or no such pair.
        """
        names = self.names if names is None else names
        require_names(names, self.names, "view")
        if not isinstance(rows, slice):
            rows = as_indices(rows, "rows", below=len(self))
        found = {self.first: self.images[rows] / 255} if self.first in names else {}
        return found | ({self.partner.name: self.partner(self.labels[rows], generator)} if self.partner.name in names else {})

    def classes(self, view: str) -> Tensor:
        """Classes of one view of all pairs, (pairs,), int64; raises a ValueError if there is no such view."""
        require_names([view], self.names, "view")
        return (self.labels + self.partner.offset) % self.num_classes if view == self.partner.name else self.labels


def partner_name(name: PairSetName) -> str:
    """Name of the second view of a set of pairs: "label", "number" or "next"."""
    require_names([name], get_args(PairSetName), "set of pairs")
    return {"label": "label", "plus-one": "next"}.get(name.split("-", 1)[1], "number")


def load_pairs(
    name: PairSetName, split: Split, folder: str | Path | None = None, share: tuple[float, float] = (0.0, 1.0)
) -> PairSet:
    """Reads a set of pairs whose first view is a digit, "mnist" or scikit-learn's "digits".

    Args:
        name: the digits, and their second view: "label", "numbers" (rendered house numbers), "svhn" (SVHN's) or "plus-one" (an
            image of the next digit).
        split: "train" or "test"; both views come from the same split.
        folder: where to look first for files; then as in :mod:`pyzoo.data.places`.
        share: where to start and to end in the split, as shares of it, both for first and for second views. Shares that do not
            overlap have no images in common.

    Raises:
        UsageError: A file is damaged, or is in none of the folders and cannot be downloaded.
        ValueError: There is no such set.

    Example:
        >>> pairs = load_pairs("digits-plus-one", "test")
        >>> {view: tuple(x.shape) for view, x in pairs.views(slice(0, 4), torch.Generator()).items()}
        {'digit': (4, 1, 28, 28), 'next': (4, 1, 28, 28)}
    """
    if name not in get_args(PairSetName):
        raise ValueError(f"There are no pairs '{name}': there are {', '.join(get_args(PairSetName))}.")
    first, second = name.split("-", 1)
    images, labels = _part(*load_images(first, split, folder), share)
    if second == "svhn":
        partner: Partner = ImagePartner("number", *_part(*load_svhn(split, folder), share))
    else:
        kinds = {"label": Label, "numbers": Numbers, "plus-one": lambda: ImagePartner("next", images, labels, offset=1)}
        partner = kinds[second]()
    return PairSet(images, labels, partner)


def pairs_of(
    data: ImageData, partner: Literal["label", "next"], split: Split, share: tuple[float, float] = (0.0, 1.0)
) -> PairSet:
    """Pairs whose first view, named "image", is any image with a label.

    Args:
        data: the images.
        partner: the second view: "label", the class, or "next", an image of the next class; the first class follows the last.
        split: "train" or "test"; both views come from the same split.
        share: where to start and to end in the split, as shares of it. Shares that do not overlap have no images in common.

    Raises:
        UsageError: There are fewer than two classes, or images of the next class are asked for and a class has none.
        ValueError: There is no such second view or split.

    Example:
        >>> from pyzoo.data.images import image_data
        >>> pairs = pairs_of(image_data(torch.rand(30, 8, 8), torch.arange(30) % 3), "label", "train")
        >>> {view: tuple(x.shape) for view, x in pairs.views(slice(0, 4), torch.Generator()).items()}
        {'image': (4, 1, 8, 8), 'label': (4, 3)}
    """
    require_kind(data, "data", ImageData)
    if partner not in ("label", "next"):
        raise ValueError(f"partner must be 'label' or 'next', got '{partner}'.")
    if split not in get_args(Split):
        raise ValueError(f"split must be 'train' or 'test', got '{split}'.")
    images, labels = (data.train, data.train_labels) if split == "train" else (data.test, data.test_labels)
    if labels is None:
        raise UsageError(f"pairs need images with labels, and the {split} images of {data.name} have none")
    num_classes = len(data.classes)
    if num_classes < 2:
        raise UsageError(
            f"pairs need images of at least two classes, and those of {data.name} are all of the class {data.classes[0]}"
        )
    images, labels = _part(images, labels, share)
    labels = classes_of(images, labels, num_classes)
    if partner == "label":
        return PairSet(images, labels, Label(num_classes), first="image")
    missing = [data.classes[index] for index in (labels.bincount(minlength=num_classes) == 0).nonzero().flatten().tolist()]
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise UsageError(
            f"pairs with the next class need images of every class, and the {split} images of {data.name} lack {some}"
        )
    return PairSet(images, labels, ImagePartner("next", images, labels, 1, num_classes), first="image")


def _part(images: Tensor, labels: Tensor, share: tuple[float, float]) -> tuple[Tensor, Tensor]:
    require_pair(share, "share")
    if not 0 <= share[0] < share[1] <= 1:
        raise ValueError(f"share must be where to start and to end, from 0 to 1 and in increasing order, got {share}.")
    rows = slice(*(round(end * len(images)) for end in share))
    return images[rows], labels[rows]


class PairSource:
    """A source of batches of pairs, whose second views are drawn anew in each batch.

    Args:
        pairs: the pairs.
        paired: share of pairs that have both views; of the others one view is missing, the same in every epoch.
        seed: seed of the order, of the second views and of which views are missing.
        device: where views are held or made.
        views: names of the views in a batch; both by default.

    Raises:
        ValueError: ``paired`` is not between 0 and 1, or there is no such view.

    Example:
        >>> source = PairSource(load_pairs("digits-label", "train"), paired=0.5)
        >>> {name: tuple(value.shape) for name, value in source.batch(step=0, size=3).items()}
        {'digit': (3, 1, 28, 28), 'label': (3, 10), 'present': (3, 2)}
    """

    def __init__(
        self,
        pairs: PairSet,
        paired: float = 1.0,
        seed: int = 0,
        device: torch.device | str = "cpu",
        views: Collection[str] | None = None,
    ) -> None:
        if not 0 <= paired <= 1:
            raise ValueError(f"paired must be a share from 0 to 1, got {paired}.")
        require_kind(pairs, "pairs", PairSet)
        device = as_device(device)
        self.pairs: PairSet = pairs.to(device)
        self.seed = seed
        self.epochs: Epochs = Epochs(len(pairs), seed, device)
        self.views: tuple[str, ...] = pairs.names if views is None else (views,) if isinstance(views, str) else tuple(views)
        require_names(self.views, pairs.names, "view")
        self.present: Tensor | None = None
        if paired < 1 and len(self.views) == 2:
            uniform = torch.rand(2, len(pairs), generator=torch.Generator().manual_seed(derive_seed(seed, "paired")))
            first_only = uniform[1] < 0.5
            is_paired = uniform[0] < paired
            self.present = torch.stack([is_paired | first_only, is_paired | ~first_only], dim=1).to(device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step: the views by name and, if some are missing, ``present``, (size, 2), boolean.

        ``present`` says which views are not missing. A missing view is in the batch all the same, and must not be used.

        Raises:
            UsageError: There are fewer pairs than a batch needs.
        """
        rows = self.epochs.rows(step, size)
        generator = torch.Generator(rows.device).manual_seed(derive_seed(self.seed, "partner", step))
        batch = self.pairs.views(rows, generator, self.views)
        return batch if self.present is None else {**batch, "present": self.present[rows]}
