"""Any set of images that torchvision knows, read with torchvision's own class.

The class's signature says how it is split: by ``train``, by ``background`` (Omniglot), by ``split``, or not at all. In the last
case the images are split as a user's own.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyzoo.data.files import ImageData, Part, assemble, check_options, pixels_of, stack, to_bytes, whitened
from pyzoo.data.places import cache, check_folder, downloading, folders, import_torchvision
from pyzoo.errors import UsageError, one_line

__all__ = ["read_torchvision"]

_SPLITS = {"train": ("train", "trainval"), "test": ("test", "val", "valid")}  # the first that the class has


def read_torchvision(
    text: str, folder: str | Path | None = None, image_size: int | None = None, test_share: float = 0.2
) -> ImageData:
    """Reads a data set of torchvision.

    Args:
        text: the name of its class, in upper or lower case, such as "KMNIST"; and for classes that need one more argument a
            colon and its value, such as "EMNIST:balanced".
        folder: where to look first for files, in torchvision's layout; then as in :mod:`pyzoo.data.places`. If they are in none
            of these folders, they are downloaded.
        image_size: pixels on a side; images are then cut to their central squares and resized. Images of different sizes need it.
        test_share: share of the images to test on, for sets that torchvision does not split.

    Raises:
        UsageError: There is no such set, it does not consist of images, or it is in none of the folders and cannot be downloaded.
    """
    check_options(image_size, test_share)
    check_folder(folder)
    name, _, version = text.partition(":")
    found = _Set(f"torchvision:{text}", _class_of(name), version, folder)
    splits = found.open_splits()
    parts, classes = _labeled([found.part(dataset, image_size) for dataset in splits], getattr(splits[0], "classes", ()))
    label = "-".join([found.kind.__name__.lower(), *([version] if version else [])])
    return assemble(label, found.source, whitened(parts), classes, image_size, test_share)


def _class_of(name: str) -> type:
    known = {key.lower(): kind for key, kind in vars(import_torchvision().datasets).items() if isinstance(kind, type)}
    if name.lower() not in known:
        near = [known[key].__name__ for key in difflib.get_close_matches(name.lower(), known, n=3)]
        raise UsageError(f"torchvision has no data set '{name}'" + (f"; nearest: {', '.join(near)}" if near else ""))
    return known[name.lower()]


class _Set:
    """A class of torchvision, and how to make its splits.

    Args:
        source: its name in errors.
        kind: the class.
        version: the value of the argument that the class needs besides its folder, or nothing.
        folder: where to look first.
    """

    def __init__(self, source: str, kind: type, version: str, folder: str | Path | None) -> None:
        self.source = source
        self.kind = kind
        self.folder = folder
        self.parameters = _parameters(kind)
        needed = [p.name for p in self.parameters.values() if p.default is p.empty and p.name != "root"]
        if len(needed) > 1:
            raise UsageError(f"{source} needs the arguments {' and '.join(needed)} and cannot be read here")
        if needed and not version:
            known = [str(value) for value in getattr(kind, f"{needed[0]}s", ())]
            choices = f", one of {', '.join(known)}" if known else ""
            raise UsageError(f"{source} needs its {needed[0]}{choices}: torchvision:{kind.__name__}:{needed[0].upper()}")
        if version and not needed:
            raise UsageError(f"{source}: {kind.__name__} takes nothing after its name")
        self.options: Mapping[str, Any] = {needed[0]: version} if needed else {}

    def open_splits(self) -> list[Any]:
        """The training set and the test set, or the only set."""
        for name in ("train", "background"):
            if name in self.parameters:
                return [self.open({name: value}) for value in (True, False)]
        if "split" in self.parameters and "split" not in self.options:
            default = self.parameters["split"].default
            return [self.open_one_of([*_SPLITS["train"], default]), self.open_one_of(_SPLITS["test"])]
        return [self.open({})]

    def open_one_of(self, splits: Sequence[Any]) -> Any:
        """The first split that the class has."""
        reason = ""
        for split in splits:
            try:
                return self.open({"split": split})
            except _UnknownSplit as error:
                reason = one_line(error)
        raise UsageError(f"{self.source} is not split into images to train on and images to test on: {reason}")

    def open(self, options: Mapping[str, Any]) -> Any:
        """A split from the first folder that has it, or else downloaded."""
        for place in folders(self.folder):
            try:
                return self.make(place, options, download=False)
            except (OSError, RuntimeError):  # it is not there
                continue
        if "download" not in self.parameters:
            places = ", ".join(map(str, folders(self.folder)))
            raise UsageError(f"{self.source} was not found in {places}, and torchvision does not download it")
        with downloading(self.kind.__name__, None, self.folder):
            cache().mkdir(parents=True, exist_ok=True)
            return self.make(cache(), options, download=True)

    def make(self, root: Path, options: Mapping[str, Any], download: bool) -> Any:
        """A split in one folder."""
        given = {"root": str(root), "download": download}
        given = {name: value for name, value in given.items() if name in self.parameters}
        try:
            return self.kind(**given, **self.options, **options)
        except (OSError, RuntimeError):
            raise
        except Exception as error:
            if "split" in options and isinstance(error, ValueError):
                raise _UnknownSplit(str(error)) from error
            raise UsageError(f"{self.source} cannot be read: {one_line(error) or type(error).__name__}") from error

    def part(self, dataset: Any, image_size: int | None) -> Part:
        """The images of a split, and their labels if each has a single integer."""
        try:
            count = len(dataset)
            data, targets = (_held(dataset, names, count) for names in (("data",), ("targets", "labels")))
            if data is not None and data.dtype == np.uint8 and data.ndim in (3, 4):
                (images,), _ = to_bytes({"images": data}, self.source)
                part = Part(images)
            else:
                items = (_item(dataset, index) for index in range(count))
                kept: list[Any] = []
                part = stack(((f"image {i}", self._pixels(item, kept)) for i, item in enumerate(items)), self.source, image_size)
                targets = np.array(kept) if all(isinstance(target, int) for target in kept) else None
        except UsageError:
            raise
        except Exception as error:  # a class can raise anything
            raise UsageError(f"{self.source} cannot be read: {one_line(error)}") from error
        integers = targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu"
        return dataclasses.replace(part, labels=targets if integers else None).shuffled()  # some come sorted by class

    def _pixels(self, item: tuple[Any, Any], kept: list[Any]) -> np.ndarray:
        image, target = item
        if not hasattr(image, "convert"):  # not a Pillow image
            raise UsageError(f"{self.source} is not a set of images: it has items of the type {type(image).__name__}")
        kept.append(int(target) if isinstance(target, (int, np.integer)) or _is_integer(target) else None)
        return pixels_of(image)


class _UnknownSplit(Exception):
    """A class does not have a split of this name."""


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class, those of its bases among them if it passes keyword arguments on."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        own = list(inspect.signature(base.__init__).parameters.values())[1:]
        named = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found |= {p.name: p for p in named if p.name not in found}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return found


def _held(dataset: Any, names: Sequence[str], count: int) -> np.ndarray | None:
    """One of the attributes as an array, if it has an entry for each item."""
    for name in names:
        value = getattr(dataset, name, None)
        if isinstance(value, (Tensor, np.ndarray, list)) and len(value) == count:
            return np.asarray(value)
    return None


def _item(dataset: Any, index: int) -> tuple[Any, Any]:
    item = dataset[index]
    return (item[0], item[1] if len(item) > 1 else None) if isinstance(item, tuple) else (item, None)


def _is_integer(target: Any) -> bool:
    return isinstance(target, Tensor) and target.dim() == 0 and not target.is_floating_point()


def _labeled(parts: Sequence[Part], classes: Any) -> tuple[list[Part], Sequence[str]]:
    """Parts, and the names of their classes, without those that no image has."""
    known = [part.labels for part in parts if part.labels is not None]
    names = [str(name) for name in classes] if isinstance(classes, (list, tuple)) else []
    used = np.unique(np.concatenate(known)) if known else np.array([], int)
    if not len(used) or used[0] < 0 or used[-1] >= len(names):
        return list(parts), ()
    relabeled = [p if p.labels is None else dataclasses.replace(p, labels=np.searchsorted(used, p.labels)) for p in parts]
    return relabeled, [names[index] for index in used]
