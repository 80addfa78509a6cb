r"""Images made of colored sites: the 2D problem of CompVAE.

A pixel at distance :math:`d_i` from site i mixes the colors of the sites with weights softmax of :math:`-\beta_i d_i^2`. The
intensity :math:`\beta_i \sim U(5, 10)` is the variation within a part. Each channel is then gamma-corrected, x^(1 / 2.4).

Source: Berger and Sebag (2019), appendix B.2. Its table of colors has blue twice and no black; section 4.2 lists red, green,
blue, white and black. Coordinates range from -1 to 1, and those of the sites from -0.9 to 0.9, as in its code; section 4.2 says 0
to 1, and a comment of the code -1.9 to 1.9.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyzoo.checks import (
    as_device,
    as_indices,
    require_count,
    require_floating,
    require_kept,
    require_kind,
    require_number,
    require_pair,
    require_shape,
)
from pyzoo.random import derive_seed, seeded
from pyzoo.settings import Above, AtLeast, AtMost

__all__ = ["COLORS", "Colors", "Images"]

COLORS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
}


class Images(NamedTuple):
    """Images, and the sites that they were made of.

    Attributes:
        parts: color of each site, (batch, parts), integer, in the order of :data:`COLORS`.
        positions: horizontal and vertical coordinates of each site, (batch, parts, 2), in [-1, 1].
        intensities: intensity of each site, (batch, parts).
        x: (batch, 3, size, size), in [0, 1].
    """

    parts: Tensor
    positions: Tensor
    intensities: Tensor
    x: Tensor

    def batch(self) -> dict[str, Tensor]:
        """The arguments of model and guide."""
        return {"parts": self.parts, "positions": self.positions, "x": self.x}


class Colors:
    """A source of color gradients, generated on the device.

    Args:
        max_parts: largest number of sites in an image, as a function of the training step. All images of a batch have the same
            number of sites, drawn uniformly from 1 to this.
        image_size: pixels on a side.
        intensity: smallest and largest intensity.
        margin: largest coordinate of a site.
        gamma: exponent of the gamma correction.
        seed: seed of all batches.
        split: name of the split; different names give different batches.
        device: where the images are generated.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> source = Colors(max_parts=lambda step: 4)
        >>> batch = source.batch(step=0, size=8)
        >>> batch["x"].shape, batch["parts"].shape, batch["positions"].shape
        (torch.Size([8, 3, 32, 32]), torch.Size([8, 3]), torch.Size([8, 3, 2]))
    """

    def __init__(
        self,
        max_parts: Callable[[int], int],
        image_size: int = 32,
        intensity: tuple[float, float] = (5.0, 10.0),
        margin: float = 0.9,
        gamma: float = 1 / 2.4,
        seed: int = 0,
        split: str = "train",
        device: torch.device | str = "cpu",
    ) -> None:
        require_kind(max_parts, "max_parts", Callable)
        require_count(image_size, "image_size")
        require_pair(intensity, "intensity")
        low, high = intensity
        require_number(low, "the smallest intensity", AtLeast(0))
        require_number(high, "the largest intensity", AtLeast(low))
        require_number(margin, "margin", AtLeast(0), AtMost(1))
        require_number(gamma, "gamma", Above(0))
        self.max_parts = max_parts
        self.image_size = image_size
        self.intensity = intensity
        self.margin = margin
        self.gamma = gamma
        self.seed = seed
        self.split = split
        self.device: torch.device = as_device(device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The training batch of a step: parts, (size, parts), positions, (size, parts, 2), and x, (size, 3, side, side)."""
        seed = derive_seed(self.seed, self.split, step)
        largest = self.max_parts(step)
        require_count(largest, "max_parts")
        num_parts = random.Random(seed).randint(1, largest)
        return self.draw(size, num_parts, seed=seed).batch()

    def draw(self, size: int, num_parts: int, seed: int) -> Images:
        """Draws images of a given number of sites.

        Args:
            size: number of images.
            num_parts: number of sites in each.
            seed: seed of the draw.

        Raises:
            ValueError: size or num_parts is below 1.
        """
        require_count(size, "size")
        require_count(num_parts, "num_parts")
        generator = seeded(seed, self.device)
        options = {"generator": generator, "device": self.device}
        parts = torch.randint(len(COLORS), (size, num_parts), **options)
        positions = self.margin * (2 * torch.rand(size, num_parts, 2, **options) - 1)
        low, high = self.intensity
        intensities = low + (high - low) * torch.rand(size, num_parts, **options)
        return Images(parts, positions, intensities, self.image(parts, positions, intensities))

    def image(self, parts: Tensor, positions: Tensor, intensities: Tensor, keep: Tensor | None = None) -> Tensor:
        """The images of given sites, (batch, 3, size, size), in [0, 1].

        Args:
            parts: colors, (batch, parts), integer.
            positions: coordinates, (batch, parts, 2).
            intensities: intensities, (batch, parts).
            keep: which sites to draw, (batch, parts), boolean; all by default. At least one of each image.

        Raises:
            ValueError: an argument has another shape or type; a color is none, or an image has no site, while Pyro validates.
        """
        parts = as_indices(parts, "parts", dim=2, below=len(COLORS))
        require_shape(parts, "parts", ("batch", "parts"))
        require_shape(positions, "positions", (*parts.shape, 2))
        require_floating(positions, "positions")
        require_shape(intensities, "intensities", tuple(parts.shape))
        require_kept(keep, parts)
        line = torch.linspace(-1, 1, self.image_size, device=parts.device, dtype=positions.dtype)
        squares = (line - positions.unsqueeze(-1)).square()  # (batch, parts, 2, size)
        distance = squares[:, :, 0].unsqueeze(-2) + squares[:, :, 1].unsqueeze(-1)  # (batch, parts, rows, columns)
        logits = -intensities[..., None, None] * distance
        if keep is not None:
            logits = logits.masked_fill(~keep[..., None, None], -torch.inf)
        colors = torch.tensor(list(COLORS.values()), device=parts.device, dtype=positions.dtype)[parts]  # (batch, parts, 3)
        mixed = torch.einsum("bkhw,bkc->bchw", logits.softmax(1), colors)
        return mixed.clamp(0, 1) ** self.gamma

    def subset(self, images: Images, keep: Tensor) -> Tensor:
        """The images that the kept sites alone would have given, (batch, 3, size, size).

        Args:
            images: images with their sites.
            keep: which sites to keep, (batch, parts), boolean.
        """
        require_kind(images, "images", Images)
        return self.image(images.parts, images.positions, images.intensities, keep)
