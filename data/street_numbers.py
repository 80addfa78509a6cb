"""Rendered house numbers: a stand-in for SVHN that needs no files.

In the middle of each image is a digit in one of several fonts, rotated, sheared and scaled, on a background of another brightness
whose color changes across the image. There are often parts of other digits on both sides, which are not part of the label, and
there is some noise. The fonts come with matplotlib. Results on these images are not comparable with results on SVHN.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyzoo.checks import as_indices, require_kind
from pyzoo.data.transformations import Affine

__all__ = ["street_numbers"]

SIDE = 32
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold", "STIXGeneral", "STIXGeneralBol")
_FONTS += ("cmr10", "cmss10", "cmtt10")
_BRIGHTNESS = torch.tensor([0.299, 0.587, 0.114])  # luminance of red, green and blue
_DIGIT = Affine(rotation=12.0, shear=0.2, scale=(0.75, 1.15), translation=0.06)


def street_numbers(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draws an image for each label.

    Args:
        labels: digits from 0 to 9, (batch,), of any integer type.
        generator: draws everything else; the images are on its device.

    Returns:
        Images, (batch, 3, 32, 32), from 0 to 1.

    Raises:
        ValueError: the labels are not integers in one dimension, or one is not a digit.

    Example:
        >>> street_numbers(torch.tensor([3, 1]), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 32, 32])
    """
    labels = as_indices(labels, "labels")
    require_kind(generator, "generator", torch.Generator)
    device, batch = generator.device, len(labels)
    if batch and not 0 <= int(labels.min()) <= int(labels.max()) <= 9:
        raise ValueError(f"Labels must be digits from 0 to 9, not {int(labels.min())} to {int(labels.max())}.")

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device)

    templates = _templates().to(device)
    fonts = (uniform() * len(templates)).long()
    ink = _DIGIT.apply(templates[fonts, labels.to(device)].unsqueeze(1), _DIGIT.sample(batch, generator))
    for side in (-1, 1):
        neighbors = templates[fonts, (10 * uniform()).long()].unsqueeze(1)
        shift = torch.stack([side * (0.62 + 0.15 * uniform()), 0.1 * uniform() - 0.05], dim=-1)
        beside = _DIGIT.compose(_DIGIT.sample(batch, generator), _DIGIT.matrices(uniform() * 0, translation=shift))
        there = (uniform() < 0.6).view(-1, 1, 1, 1)
        ink = torch.maximum(ink, there * _DIGIT.apply(neighbors, beside))
    back, fore = _colors(uniform(3), uniform(3), uniform())
    back = back.view(-1, 3, 1, 1) + _gradient(uniform(3, 2) - 0.5)
    x = back * (1 - ink) + fore.view(-1, 3, 1, 1) * ink
    noise = torch.randn(x.shape, generator=generator, device=device)
    return (x + 0.03 * noise).clamp(0, 1)


def _colors(back: Tensor, fore: Tensor, coin: Tensor) -> tuple[Tensor, Tensor]:
    """Two colors, (batch, 3) each, that differ in brightness by at least about a third."""
    weights = _BRIGHTNESS.to(back)
    wanted = 0.35 + 0.3 * coin  # difference in brightness
    bright, dark = torch.where((back @ weights > 0.5).unsqueeze(-1), back, 1 - back), 0.6 * fore
    dark = dark * ((bright @ weights - wanted).clamp(min=0.05) / (dark @ weights).clamp(min=0.05)).clamp(max=1).unsqueeze(-1)
    swap = (coin < 0.5).unsqueeze(-1)
    return torch.where(swap, dark, bright), torch.where(swap, bright, dark)


def _gradient(slopes: Tensor) -> Tensor:
    """A change of color across the image, (batch, 3, 32, 32), from slopes, (batch, 3, 2)."""
    place = torch.linspace(-0.25, 0.25, SIDE, device=slopes.device)
    return slopes[..., :1].unsqueeze(-1) * place + slopes[..., 1:].unsqueeze(-1) * place.unsqueeze(-1)


@cache
def _templates() -> Tensor:
    """Each digit in each font, white on black, 22 pixels high, in the middle of the image: (fonts, 10, 32, 32)."""
    import matplotlib  # only where the fonts are read
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    pages = np.zeros((len(_FONTS), 10, SIDE, SIDE), np.float32)
    for page, name in zip(pages, _FONTS, strict=True):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), size=88)
        for digit in range(10):
            left, top, right, bottom = font.getbbox(str(digit))
            image = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(image).text((-left, -top), str(digit), fill=255, font=font)
            width = max(1, round(22 * image.width / image.height))
            small = np.asarray(image.resize((width, 22), Image.LANCZOS), np.float32) / 255
            start = (SIDE - width) // 2
            page[digit, 5:27, start : start + width] = small
    return torch.from_numpy(pages).clamp(0, 1)
