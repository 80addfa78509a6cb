"""Pairs of views of one digit: an image of it with its label, with a house number, or with an image of the digit after it.

The first view is an image of MNIST, or of scikit-learn's digits, which need no file. The second shares its class and nothing
else, so that what a model finds the two to share is the class. "numbers" are rendered, and stand in for SVHN without a file.

Sources: Zhang et al. (2020), section 4.2, for the three kinds of pairs; Wu and Goodman (2018), for examples of which a view is
missing.
"""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.data.images import Epochs, Split, load_images
from pyzoo.data.street_numbers import street_numbers
from pyzoo.data.svhn import load_svhn
from pyzoo.random import derive_seed

__all__ = ["NUM_CLASSES", "PairSet", "PairSetName", "PairSource", "Partner", "load_pairs", "partner_name"]

NUM_CLASSES = 10

PairSetName = Literal[
    "mnist-label", "mnist-numbers", "mnist-svhn", "mnist-plus-one", "digits-label", "digits-numbers", "digits-plus-one"
]


class Partner:
    """Base of what a digit is paired with."""

    name: str
    """The view's name."""
    offset: int = 0
    """How far its class is behind the digit's."""

    def to(self, device: torch.device | str) -> "Partner":
        """The same, with what it holds on a device."""
        return self

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """A view for each digit, (batch, ...), drawn on the generator's device, where the labels are."""
        raise NotImplementedError


class Label(Partner):
    """The digit's class, as ten numbers of which one is 1."""

    name = "label"

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return one_hot(labels, NUM_CLASSES).float()


class Numbers(Partner):
    """A house number with the digit in its middle, rendered anew each time."""

    name = "number"

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return street_numbers(labels, generator)


class Images(Partner):
    """An image of the digit's class, or of another, drawn from a set.

    Args:
        name: the view's.
        images: (images, channels, height, width), uint8.
        labels: (images,), of which each class has one or more.
        offset: to the digit's class; behind the last class comes the first.

    Raises:
        ValueError: a class has no image.
    """

    def __init__(self, name: str, images: Tensor, labels: Tensor, offset: int = 0) -> None:
        self.name = name
        self.offset = offset
        self.images, self.labels = images, labels
        self.counts = labels.bincount(minlength=NUM_CLASSES)
        if not self.counts.all():
            raise ValueError(f"The classes {(self.counts == 0).nonzero().flatten().tolist()} have no image of '{name}'.")
        self.by_class = labels.argsort(stable=True)
        self.first = self.counts.cumsum(0) - self.counts

    def to(self, device: torch.device | str) -> "Images":
        return Images(self.name, self.images.to(device), self.labels.to(device), self.offset)

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        wanted = (labels + self.offset) % NUM_CLASSES
        place = torch.rand(len(labels), generator=generator, device=generator.device)
        return self.images[self.by_class[self.first[wanted] + (place * self.counts[wanted]).long()]] / 255


@dataclasses.dataclass
class PairSet:
    """Digits, and what they are paired with.

    Args:
        images: the first views, (digits, 1, 28, 28), uint8.
        labels: their classes, (digits,).
        partner: where the second views come from.
    """

    images: Tensor
    labels: Tensor
    partner: Partner

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "PairSet":
        """The same on a device."""
        return PairSet(self.images.to(device), self.labels.to(device), self.partner.to(device))

    @property
    def names(self) -> tuple[str, str]:
        """Of the two views."""
        return ("digit", self.partner.name)

    def views(self, rows: Tensor | slice, generator: torch.Generator, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Views of some digits, by name, both by default; the partners are drawn."""
        names = self.names if names is None else names
        found = {"digit": self.images[rows] / 255} if "digit" in names else {}
        return found | ({self.partner.name: self.partner(self.labels[rows], generator)} if self.partner.name in names else {})

    def classes(self, view: str) -> Tensor:
        """The class of each pair's view, (digits,)."""
        return (self.labels + self.partner.offset) % NUM_CLASSES if view == self.partner.name else self.labels


def partner_name(name: PairSetName) -> str:
    """The second view of a set of pairs: "label", "number" or "next"."""
    return {"label": "label", "plus-one": "next"}.get(name.split("-", 1)[1], "number")


def load_pairs(
    name: PairSetName, split: Split, folder: str | Path | None = None, share: tuple[float, float] = (0.0, 1.0)
) -> PairSet:
    """Reads a set of pairs.

    Args:
        name: the first view, "mnist" or "digits", and what it is paired with: "label", "numbers" (rendered), "svhn", "plus-one".
        split: "train" or "test"; partners come from the same split.
        folder: where to look first for files.
        share: from where to where in the split, of digits and of images that they are paired with alike: shares that don't
            overlap have nothing in common.

    Raises:
        UsageError: a file is damaged, or is nowhere and can't be downloaded.
        ValueError: there is no such set.

    Example:
        >>> pairs = load_pairs("digits-plus-one", "test")
        >>> {view: tuple(x.shape) for view, x in pairs.views(slice(0, 4), torch.Generator()).items()}
        {'digit': (4, 1, 28, 28), 'next': (4, 1, 28, 28)}
    """
    if name not in get_args(PairSetName):
        raise ValueError(f"There are no pairs '{name}': there are {', '.join(get_args(PairSetName))}.")
    first, second = name.split("-", 1)

    def part(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        rows = slice(*(round(end * len(images)) for end in share))
        return images[rows], labels[rows]

    images, labels = part(*load_images(first, split, folder))
    if second == "svhn":
        partner: Partner = Images("number", *part(*load_svhn(split, folder)))
    else:
        kinds = {"label": Label, "numbers": Numbers, "plus-one": lambda: Images("next", images, labels, offset=1)}
        partner = kinds[second]()
    return PairSet(images, labels, partner)


class PairSource:
    """A source of batches of pairs, each with a partner drawn anew.

    Args:
        pairs: what there is.
        paired: the share of digits that come with their partner; of the others one view is missing, always the same one.
        seed: of order, partners and what is missing.
        device: where views are held or made.
        views: names of those that batches hold; both by default.

    Raises:
        ValueError: ``paired`` is not between 0 and 1.

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
            raise ValueError(f"paired is a share from 0 to 1, not {paired}.")
        self.pairs = pairs.to(device)
        self.seed = seed
        self.epochs = Epochs(len(pairs), seed, device)
        self.views = pairs.names if views is None else tuple(views)
        self.present = None
        if paired < 1 and len(self.views) == 2:
            uniform = torch.rand(2, len(pairs), generator=torch.Generator().manual_seed(derive_seed(seed, "paired")))
            digit_only = uniform[1] < 0.5
            is_paired = uniform[0] < paired
            self.present = torch.stack([is_paired | digit_only, is_paired | ~digit_only], dim=1).to(device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step: both views by name, and, where some are missing, which there are, (size, 2), boolean.

        A missing view holds its partner all the same: nothing may look at it.
        """
        rows = self.epochs.rows(step, size)
        generator = torch.Generator(rows.device).manual_seed(derive_seed(self.seed, "partner", step))
        batch = self.pairs.views(rows, generator, self.views)
        return batch if self.present is None else {**batch, "present": self.present[rows]}
