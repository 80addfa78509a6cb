"""Colored MNIST: images whose color tells the label better than their shape does, but not in every environment.

Source: Arjovsky, Bottou, Gulrajani and Lopez-Paz (2019), "Invariant Risk Minimization", section 5.2. The label says whether the
digit is below 5, and is wrong in a quarter of all cases. The color, red or green, is the label, except for a share of examples
that each environment has of its own: 0.2 and 0.1 in training, 0.9 in the test. Here any images with classes take the digits'
place.
"""

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.checks import as_device, as_indices, require_count, require_kind, require_number, require_switch, require_tensor
from pyzoo.data.images import Epochs
from pyzoo.errors import UsageError
from pyzoo.random import derive_seed, seeded
from pyzoo.settings import Above, AtLeast, AtMost

__all__ = ["ColoredImages", "EnvironmentSource", "colored_images", "views_of"]


@dataclasses.dataclass(frozen=True, eq=False)
class ColoredImages:
    """Images in two colors, from one or more environments.

    Args:
        images: (images, 2, height, width), uint8: red and green.
        labels: (images,), int64, 0 or 1, of which a share is wrong.
        environments: (images,), int64.
        classes: (images,), int64, of the images that were colored.
        colors: (images,), int64, 0 for red and 1 for green.
    """

    images: Tensor
    labels: Tensor
    environments: Tensor
    classes: Tensor
    colors: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "ColoredImages":
        """The same on a device."""
        return ColoredImages(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))

    def rows(self, chosen: Tensor) -> "ColoredImages":
        """Some of them, by their numbers or by a mask.

        Raises:
            ValueError: there are none of these numbers.
        """
        require_tensor(chosen, "chosen")
        if chosen.dtype != torch.bool:
            chosen = as_indices(chosen, "chosen", below=len(self))
        elif chosen.shape != (len(self),):
            raise ValueError(f"A mask of {len(self)} images must be ({len(self)},), got {tuple(chosen.shape)}.")
        return ColoredImages(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def colored_images(
    images: Tensor,
    classes: Tensor,
    num_classes: int,
    color_flips: tuple[float, ...] = (0.2, 0.1),
    label_flips: float = 0.25,
    seed: int = 0,
    grayscale: bool = False,
) -> ColoredImages:
    """Colors images, an equal share of them for each environment, on their device.

    Images of 28 pixels or more on a side are halved by leaving out every other pixel, as in the source.

    Args:
        images: (images, channels, height, width), uint8; of several channels their mean is colored.
        classes: (images,), of any integer type.
        num_classes: number of classes; the label is 1 for the first half of them.
        color_flips: for each environment the share of images whose color is not the label.
        label_flips: share of labels that are wrong.
        seed: of the images' order and of the draws.
        grayscale: leave the color out: all images are red.

    Raises:
        ValueError: images and classes do not fit each other, there are fewer than two classes, or a share is not from 0 to 1.
        UsageError: there are fewer images than environments.

    Example:
        >>> images, classes = torch.full((1000, 1, 28, 28), 255, dtype=torch.uint8), torch.arange(10).repeat(100)
        >>> colored = colored_images(images, classes, 10)
        >>> is_flipped = colored.labels != colored.colors
        >>> [round(is_flipped[colored.environments == e].double().mean().item(), 1) for e in (0, 1)]
        [0.2, 0.1]
    """
    require_tensor(images, "images")
    if images.dim() != 4 or images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 and (images, channels, height, width), got {images.dtype} {tuple(images.shape)}.")
    require_count(num_classes, "num_classes", 2)
    classes = as_indices(classes, "classes", below=num_classes)
    if len(classes) != len(images):
        raise ValueError(f"There must be a class for each of the {len(images)} images, got {len(classes)}.")
    require_kind(color_flips, "color_flips", tuple, list)
    require_count(len(color_flips), "the number of color_flips")
    require_switch(grayscale, "grayscale")
    for share in (*color_flips, label_flips):
        require_number(share, "each share of flips", AtLeast(0), AtMost(1))
    if len(images) < len(color_flips):
        raise UsageError(f"{len(images)} images are too few for {len(color_flips)} environments")
    generator = seeded(derive_seed(seed, "colored images"))  # on the CPU: the same images on every device

    def happens(share: Tensor | float) -> Tensor:
        return (torch.rand(len(images), generator=generator) < share).long()

    order = torch.randperm(len(images), generator=generator)
    environments = torch.arange(len(images)) % len(color_flips)
    wrong, other = happens(label_flips), happens(torch.tensor(color_flips, dtype=torch.float64)[environments])
    images, classes = images[order.to(images.device)], classes[order.to(classes.device)].to(images.device)
    if min(images.shape[2:]) >= 28:
        images = images[:, :, ::2, ::2]
    gray = images if images.shape[1] == 1 else images.float().mean(1, keepdim=True).round().to(torch.uint8)
    environments, wrong, other = (values.to(images.device) for values in (environments, wrong, other))
    labels = (classes < num_classes / 2).long() ^ wrong
    colors = torch.zeros_like(labels) if grayscale else labels ^ other
    is_green = colors.bool().view(-1, 1, 1, 1)
    nothing = torch.zeros_like(gray)
    colored = torch.cat([torch.where(is_green, nothing, gray), torch.where(is_green, gray, nothing)], 1)
    return ColoredImages(colored, labels, environments, classes, colors)


class EnvironmentSource:
    """A source of batches with as many images from each environment.

    Args:
        colored: the images.
        labeled: share of the images whose label is known; the others' are missing, the same in every epoch.
        seed: of the order, and of which labels are missing.
        device: where the images are held.

    Raises:
        ValueError: ``labeled`` is not above 0 and at most 1.
        UsageError: an environment is without an image or a label.

    Example:
        >>> images, classes = torch.zeros(100, 1, 28, 28, dtype=torch.uint8), torch.arange(10).repeat(10)
        >>> source = EnvironmentSource(colored_images(images, classes, 10), labeled=0.5)
        >>> {name: tuple(value.shape) for name, value in source.batch(step=0, size=6).items()}
        {'x': (6, 2, 14, 14), 'y': (6, 2), 'e': (6, 2), 'present': (6, 3)}
    """

    def __init__(self, colored: ColoredImages, labeled: float = 1.0, seed: int = 0, device: torch.device | str = "cpu") -> None:
        require_kind(colored, "colored", ColoredImages)
        require_number(labeled, "labeled", Above(0), AtMost(1))
        self.colored: ColoredImages = colored.to(as_device(device))
        self.num_environments: int = int(colored.environments.max()) + 1
        self.places: list[Tensor] = [(self.colored.environments == e).nonzero().flatten() for e in range(self.num_environments)]
        seeds = [derive_seed(seed, "environment", e) for e in range(self.num_environments)]
        self.epochs: list[Epochs] = [Epochs(len(place), of, device) for place, of in zip(self.places, seeds, strict=True)]
        self.present: Tensor | None = None
        if labeled < 1:
            known = torch.rand(len(colored), generator=seeded(derive_seed(seed, "labelled"))) < labeled
            self.present = torch.stack([torch.ones_like(known), known, torch.ones_like(known)], dim=1).to(device)
        for e, place in enumerate(self.places):
            if not len(place):
                raise UsageError(f"environment {e} has no image")
            if self.present is not None and not self.present[place, 1].any():
                raise UsageError(f"--labeled {labeled:g} leaves environment {e} without a label")

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step: "x", from 0 to 1; "y" and "e", one-hot; and ``present`` if labels are missing.

        Raises:
            UsageError: an environment has fewer images than its share of the batch.
        """
        require_count(size, "size", self.num_environments)
        shares = [(size + e) // self.num_environments for e in range(self.num_environments)]
        rows = torch.cat(
            [place[epochs.rows(step, share)] for place, epochs, share in zip(self.places, self.epochs, shares, strict=True)]
        )
        part = self.colored.rows(rows)
        batch = views_of(part, self.num_environments)
        return batch if self.present is None else {**batch, "present": self.present[rows]}


def views_of(colored: ColoredImages, num_environments: int) -> dict[str, Tensor]:
    """Images as a model takes them: "x", from 0 to 1; the label "y" and the environment "e", one-hot."""
    require_kind(colored, "colored", ColoredImages)
    as_indices(colored.environments, "environments", below=num_environments)
    x = colored.images / 255
    return {
        "x": x,
        "y": one_hot(colored.labels, 2).to(x.dtype),
        "e": one_hot(colored.environments, num_environments).to(x.dtype),
    }
