r"""Images made of coloured sites: the 2D problem of CompVAE.

Each pixel at distance :math:`d_i` from site i takes the colours in proportion to a softmax of :math:`-\beta_i d_i^2`, where the
intensity :math:`\beta_i \sim U(5, 10)` is what varies within a part; then each channel is gamma-corrected, x^(1 / 2.4).

Source: Berger and Sebag (2019), appendix B.2. Its table of colours repeats blue and drops black; section 4.2 lists red, green,
blue, white and black. Coordinates run from -1 to 1 and sites stay within 0.9 of the middle.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyzoo.random import derive_seed

__all__ = ["COLORS", "Colors", "Images"]

COLORS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
}


class Images(NamedTuple):
    """Images with what they were made of.

    Attributes:
        parts: colour of each site, (batch, parts), integer, in the order of :data:`COLORS`.
        positions: horizontal and vertical coordinate of each site, (batch, parts, 2), in [-1, 1].
        intensities: (batch, parts).
        x: (batch, 3, size, size), in [0, 1].
    """

    parts: Tensor
    positions: Tensor
    intensities: Tensor
    x: Tensor

    def batch(self) -> dict[str, Tensor]:
        """What model and guide are given."""
        return {"parts": self.parts, "positions": self.positions, "x": self.x}


class Colors:
    """A source of colour gradients, generated on the device.

    Args:
        max_parts: the largest number of sites in an image, as a function of the training step; a batch has one number of
            sites for all its images, uniform on 1 to that.
        image_size: pixels on a side.
        intensity: smallest and largest intensity.
        margin: largest coordinate of a site.
        gamma: exponent of the gamma correction.
        seed: all batches follow from it.
        split: name of the split; different names give different batches.
        device: where to generate.

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
        self.max_parts = max_parts
        self.image_size = image_size
        self.intensity = intensity
        self.margin = margin
        self.gamma = gamma
        self.seed = seed
        self.split = split
        self.device = torch.device(device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The training batch of a step: parts, (size, parts), positions, (size, parts, 2), and x, (size, 3, 32, 32)."""
        seed = derive_seed(self.seed, self.split, step)
        num_parts = random.Random(seed).randint(1, self.max_parts(step))
        return self.draw(size, num_parts, seed=seed).batch()

    def draw(self, size: int, num_parts: int, seed: int) -> Images:
        """Images of a given number of sites, with their true intensities; they follow from the seed."""
        generator = torch.Generator(self.device).manual_seed(seed)
        options = {"generator": generator, "device": self.device}
        parts = torch.randint(len(COLORS), (size, num_parts), **options)
        positions = self.margin * (2 * torch.rand(size, num_parts, 2, **options) - 1)
        low, high = self.intensity
        intensities = low + (high - low) * torch.rand(size, num_parts, **options)
        return Images(parts, positions, intensities, self.image(parts, positions, intensities))

    def image(self, parts: Tensor, positions: Tensor, intensities: Tensor, keep: Tensor | None = None) -> Tensor:
        """The images of these sites, (batch, 3, size, size); with ``keep``, (batch, parts), of the kept ones alone."""
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
        """What the kept sites of these images, (batch, parts), would have made alone: (batch, 3, size, size)."""
        return self.image(images.parts, images.positions, images.intensities, keep)
