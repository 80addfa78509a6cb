"""Families of image transformations, which are drawn, applied and, where possible, inverted in batches, on the images' device.

The parameters of transformations are a tensor, (images, parameters), so that a transformation can be applied to other images,
inverted, inspected and stored.

Sources: Giannone, Masci and Osendorfer (2019) train on an image, its transformed version and its version under the inverse
transformation, and on crops and superpixels, which have no inverse; superpixels follow Achanta et al. (2012), "SLIC Superpixels".
"""

import dataclasses
import functools
import math
from typing import Literal, Protocol, runtime_checkable

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot

from pyzoo.checks import (
    require_count,
    require_floating,
    require_kind,
    require_number,
    require_pair,
    require_shape,
    require_tensor,
)
from pyzoo.data.images import ImageSource, binarized
from pyzoo.random import derive_seed
from pyzoo.settings import Above, AtLeast

__all__ = ["FAMILIES", "Affine", "AugmentedSource", "Composition", "Crop", "Family", "Superpixels", "ViewSource"]


@runtime_checkable
class Family(Protocol):
    """A set of transformations to draw from."""

    invertible: bool
    """Whether every transformation has an inverse."""
    num_parameters: int
    """Number of parameters of one transformation."""

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws parameters, (count, parameters), on the generator's device."""

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Transforms images.

        Args:
            images: (images, channels, height, width), floats.
            parameters: (images, parameters), one row for each image.

        Returns:
            The transformed images, of the same shape.
        """

    def inverse(self, parameters: Tensor) -> Tensor:
        """Parameters of the inverse transformations, (images, parameters).

        Raises:
            ValueError: The family has no inverses.
        """


@dataclasses.dataclass(frozen=True)
class Affine:
    r"""Scaling, shear and rotation about the image's center, then translation: a point x is mapped to R H S x + b.

    The parameters are the six numbers (a, b, c, d, e, f) of the map (u, v) to (a u + b v + c, d u + e v + f), where u points
    right and v down, from -1 to 1 over the image. Such maps can be composed and inverted. Pixels from outside the image are
    black.

    Args:
        rotation: largest angle in degrees, in both directions; positive is counterclockwise.
        shear: largest shear, in both directions: the change of u for one unit of v.
        scale: smallest and largest factor, drawn for each axis.
        translation: largest shift, in both directions, as a share of the image's side, drawn for each axis.

    Raises:
        ValueError: A range is negative, or the scale is not two positive numbers in increasing order.

    Example:
        >>> quarter = Affine().matrices(rotation=torch.tensor([90.0]))
        >>> Affine().apply(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), quarter)
        tensor([[[[2., 4.],
                  [1., 3.]]]])
    """

    rotation: float = 20.0
    shear: float = 0.2
    scale: tuple[float, float] = (0.8, 1.2)
    translation: float = 1 / 7
    invertible = True
    num_parameters = 6

    def __post_init__(self) -> None:
        for name in ("rotation", "shear", "translation"):
            require_number(getattr(self, name), name, AtLeast(0))
        require_pair(self.scale, "scale", "two positive numbers in increasing order")
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(f"scale must be two positive numbers in increasing order, got {self.scale}.")

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        require_count(count, "count", 0)
        require_kind(generator, "generator", torch.Generator)
        uniform = torch.rand(count, 6, generator=generator, device=generator.device)
        spread = 2 * uniform - 1
        low, high = self.scale
        return self.matrices(
            rotation=self.rotation * spread[:, 0],
            shear=self.shear * spread[:, 1],
            scale=low + (high - low) * uniform[:, 2:4],
            translation=self.translation * spread[:, 4:],
        )

    def matrices(
        self, rotation: Tensor, shear: Tensor | None = None, scale: Tensor | None = None, translation: Tensor | None = None
    ) -> Tensor:
        """The parameters, (count, 6), of given transformations.

        Args:
            rotation: angles in degrees, (count,).
            shear: shears, (count,); 0 by default.
            scale: factors along u and v, (count, 2); 1 by default.
            translation: shifts along u and v as shares of the image's side, (count, 2); 0 by default.

        Raises:
            ValueError: they differ in number, or in shape from the above.
        """
        require_tensor(rotation, "rotation")
        if rotation.dim() != 1:
            raise ValueError(f"rotation must be (count,), got {tuple(rotation.shape)}.")
        for name, given, more in (("shear", shear, ()), ("scale", scale, (2,)), ("translation", translation, (2,))):
            if given is not None:
                require_shape(given, name, (len(rotation), *more))
        shear = torch.zeros_like(rotation) if shear is None else shear
        scale_u, scale_v = (torch.ones_like(rotation),) * 2 if scale is None else scale.unbind(-1)
        shift_u, shift_v = (torch.zeros_like(rotation),) * 2 if translation is None else (2 * translation).unbind(-1)
        cos, sin = rotation.deg2rad().cos(), rotation.deg2rad().sin()  # v points down, so counterclockwise has this sign
        columns = (cos * scale_u, (cos * shear + sin) * scale_v, shift_u)
        return torch.stack([*columns, -sin * scale_u, (cos - sin * shear) * scale_v, shift_v], dim=-1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        _check(images, parameters, self.num_parameters)
        if images.shape[-1] != images.shape[-2]:
            raise ValueError(f"Images must be square, not {tuple(images.shape[-2:])}.")
        if not len(images):  # which torch's grid_sample refuses
            return images
        # The color of a pixel is that of the input at the inverse map of its position.
        theta = self.inverse(parameters).to(images.dtype).view(-1, 2, 3)
        grid = affine_grid(theta, list(images.shape), align_corners=False)
        return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def inverse(self, parameters: Tensor) -> Tensor:
        _check_parameters(parameters, self.num_parameters)
        a, b, c, d, e, f = parameters.unbind(-1)
        determinant = a * e - b * d  # written out, since torch.linalg.inv synchronizes with the device
        inverse = torch.stack([e, -b, b * f - c * e, -d, a, c * d - a * f], dim=-1)
        return inverse / determinant.unsqueeze(-1)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        """Parameters of the first map followed by the second, (count, 6)."""
        _check_parameters(first, self.num_parameters)
        require_shape(second, "second", tuple(first.shape))
        after, before = second.view(-1, 2, 3), first.view(-1, 2, 3)
        shift = after[:, :, :2] @ before[:, :, 2:] + after[:, :, 2:]
        return torch.cat([after[:, :, :2] @ before[:, :, :2], shift], dim=-1).flatten(1)


def _check(images: Tensor, parameters: Tensor, num_parameters: int) -> None:
    """Raises a ValueError unless images are (images, channels, height, width), of floats, and each has its parameters."""
    if images.dim() != 4:
        raise ValueError(f"images must be (images, channels, height, width), got {tuple(images.shape)}.")
    require_floating(images, "images")
    require_shape(parameters, "parameters", (len(images), num_parameters))


def _check_parameters(parameters: Tensor, num_parameters: int) -> None:
    if parameters.dim() != 2 or parameters.shape[1] != num_parameters:
        raise ValueError(f"parameters must be (count, {num_parameters}), got {tuple(parameters.shape)}.")


@dataclasses.dataclass(frozen=True)
class Crop:
    """Makes the image black outside a random rectangle. Has no inverse.

    The parameters are the left, top, right and bottom edges of the rectangle, from 0 to 1.

    Args:
        smallest: smallest side of the rectangle, as a share of the image's side.

    Raises:
        ValueError: ``smallest`` is not above 0 and at most 1.
    """

    smallest: float = 0.6
    invertible = False
    num_parameters = 4

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ValueError(f"smallest must be above 0 and at most 1, got {self.smallest}.")

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        require_count(count, "count", 0)
        require_kind(generator, "generator", torch.Generator)
        uniform = torch.rand(count, 4, generator=generator, device=generator.device)
        sides = self.smallest + (1 - self.smallest) * uniform[:, :2]
        start = (1 - sides) * uniform[:, 2:]
        return torch.cat([start, start + sides], dim=-1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        _check(images, parameters, self.num_parameters)
        left, top, right, bottom = parameters.unsqueeze(-1).unbind(1)
        rows, columns = (_centers(size, images) for size in images.shape[-2:])
        inside = ((columns > left) & (columns < right)).unsqueeze(-2) & ((rows > top) & (rows < bottom)).unsqueeze(-1)
        return images * inside.unsqueeze(1)

    def inverse(self, parameters: Tensor) -> Tensor:
        raise ValueError("A crop has no inverse.")


@dataclasses.dataclass(frozen=True)
class Superpixels:
    """Gives regions of similar color their mean color. Has no inverse.

    The regions are clusters of k-means on positions and colors, which starts at seeds on a grid. The parameters are the shifts of
    the grid, as shares of a cell.

    Args:
        per_side: number of seeds along a side.
        compactness: weight of the squared distance between positions, in cells, beside that between colors, from 0 to 1.
        rounds: number of iterations of k-means.

    Raises:
        ValueError: ``per_side`` or ``rounds`` is below 1, or ``compactness`` is not positive.
    """

    per_side: int = 7
    compactness: float = 0.1
    rounds: int = 3
    invertible = False
    num_parameters = 2

    def __post_init__(self) -> None:
        require_count(self.per_side, "per_side")
        require_count(self.rounds, "rounds")
        require_number(self.compactness, "compactness", Above(0))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        require_count(count, "count", 0)
        require_kind(generator, "generator", torch.Generator)
        return torch.rand(count, 2, generator=generator, device=generator.device)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        _check(images, parameters, self.num_parameters)
        if is_validation_enabled() and not ((parameters >= 0) & (parameters <= 1)).all():
            raise ValueError("parameters must be shares of a cell, from 0 to 1.")
        count, channels, height, width = images.shape
        rows, columns = (_centers(size, images) * self.per_side for size in (height, width))
        places = torch.cartesian_prod(rows, columns).expand(count, -1, -1)  # in cells
        pixels = torch.cat([places * math.sqrt(self.compactness), images.flatten(2).mT], dim=-1)  # (images, pixels, 2 + channels)
        steps = torch.arange(self.per_side, device=images.device)
        seeds = (torch.cartesian_prod(steps, steps) + parameters.unsqueeze(1)).clamp(max=self.per_side - 1e-4)
        nearest = (seeds / self.per_side * torch.tensor([height, width], device=images.device)).long()
        nearest = nearest[..., 0] * width + nearest[..., 1]
        centers = pixels.gather(1, nearest.unsqueeze(-1).expand(-1, -1, pixels.shape[-1]))
        for _ in range(self.rounds):
            region = one_hot(torch.cdist(pixels, centers).argmin(-1), self.per_side**2).to(images.dtype)
            sizes = region.sum(1).unsqueeze(-1)
            centers = torch.where(sizes > 0, region.mT @ pixels / sizes.clamp(min=1), centers)
        return (region @ centers[..., 2:]).mT.view(count, channels, height, width)

    def inverse(self, parameters: Tensor) -> Tensor:
        raise ValueError("Superpixels have no inverse.")


@dataclasses.dataclass(frozen=True)
class Composition:
    """Transformations of several families, one after another.

    If all families are affine, they are composed into one map with :class:`Affine`'s six parameters, so that images are
    interpolated once, and it has an inverse. Otherwise the parameters of the families are concatenated, and there is no inverse.

    Args:
        families: the families in the order in which they are applied.

    Raises:
        ValueError: There is no family.

    Example:
        >>> turned_and_shifted = Composition((FAMILIES["rotation"], FAMILIES["translation"]))
        >>> parameters = turned_and_shifted.sample(2, torch.Generator().manual_seed(0))
        >>> parameters.shape, turned_and_shifted.inverse(parameters).shape
        (torch.Size([2, 6]), torch.Size([2, 6]))
    """

    families: tuple[Family, ...]

    def __post_init__(self) -> None:
        require_kind(self.families, "families", tuple, list)
        if not self.families:
            raise ValueError("A composition needs at least one family.")
        for family in self.families:
            require_kind(family, "each family", Family)

    @property
    def invertible(self) -> bool:
        return all(isinstance(family, Affine) for family in self.families)

    @property
    def num_parameters(self) -> int:
        return Affine.num_parameters if self.invertible else sum(family.num_parameters for family in self.families)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        parts = [family.sample(count, generator) for family in self.families]
        return functools.reduce(Affine().compose, parts) if self.invertible else torch.cat(parts, dim=-1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        if self.invertible:
            return Affine().apply(images, parameters)
        _check(images, parameters, self.num_parameters)
        parts = parameters.split([family.num_parameters for family in self.families], dim=-1)
        for family, part in zip(self.families, parts, strict=True):
            images = family.apply(images, part)
        return images

    def inverse(self, parameters: Tensor) -> Tensor:
        if not self.invertible:
            raise ValueError("A composition has an inverse only if all its families are affine.")
        return Affine().inverse(parameters)


def _centers(size: int, like: Tensor) -> Tensor:
    """The positions of the centers of ``size`` pixels, from 0 to 1."""
    return (torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size


_STILL = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0), "translation": 0.0}
_ROTATION = Affine(**{**_STILL, "rotation": 20.0})
_TRANSLATION = Affine(**{**_STILL, "translation": 1 / 7})

FAMILIES: dict[str, Family] = {
    "affine": Affine(),
    "rotation": _ROTATION,
    "shear": Affine(**{**_STILL, "shear": 0.2}),
    "scale": Affine(**{**_STILL, "scale": (0.8, 1.2)}),
    "translation": _TRANSLATION,
    "rotation-translation": Composition((_ROTATION, _TRANSLATION)),
    "crop": Crop(),
    "rotation-crop": Composition((_ROTATION, Crop())),
    "superpixels": Superpixels(),
}
"""The families by name. "affine" has the ranges of affNIST, with shifts of at most the margin around MNIST's boxes of 20x20
pixels; the inverse of such a map may go a little beyond them. Since MNIST centers digits by their mass, parts of a digit can
still leave the image: under "affine", about one of six digits of MNIST loses more than a hundredth of its ink, and under its
inverse one of five, which nothing can restore."""


# Sources ------------------------------------------------------------------------------------------------------------


class ViewSource:
    """A source of images with transformed versions of each, its views: f(x) and f^-1(x), or f_1(x), f_2(x), ...

    Args:
        images: (images, channels, height, width), uint8.
        family: the family of the transformations f.
        num_views: number of views of each image, at least 1.
        inverse_views: whether the two views are f(x) and f^-1(x); otherwise each view has a transformation of its own.
        binarize: "dynamic" draws each pixel of an image and of its views as zero or one, one with a probability equal to its
            brightness, anew in each batch; "no" gives floats from 0 to 1.
        seed: seed of the order, the transformations and the draws.
        device: where the images are held and transformed.

    Raises:
        ValueError: There is no view; or inverse views are asked for, and are not two or the family has no inverses.

    Example:
        >>> source = ViewSource(torch.full((10, 1, 28, 28), 255, dtype=torch.uint8), Affine())
        >>> source.batch(step=0, size=3)["views"].shape
        torch.Size([3, 2, 1, 28, 28])
    """

    def __init__(
        self,
        images: Tensor,
        family: Family,
        num_views: int = 2,
        inverse_views: bool = True,
        binarize: Literal["no", "dynamic"] = "no",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        require_kind(family, "family", Family)
        if inverse_views and not family.invertible:
            raise ValueError(f"Inverse views need a family that has inverses, and {family} has none.")
        if inverse_views and num_views != 2:
            raise ValueError(f"A transformation and its inverse give two views, not {num_views}.")
        require_count(num_views, "num_views")
        if binarize not in ("no", "dynamic"):
            raise ValueError(f"binarize must be 'no' or 'dynamic', got '{binarize}'.")
        self.source: ImageSource = ImageSource(images, "no", seed, device)
        self.family = family
        self.num_views = num_views
        self.inverse_views = inverse_views
        self.binarize = binarize
        self.seed = seed

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step: x, (size, channels, height, width), and views, (size, views, channels, height, width).

        It is a pure function of the seed and the step.
        """
        x = self.source.batch(step, size)["x"]
        generator = torch.Generator(x.device).manual_seed(derive_seed(self.seed, "transform", step))
        views = transformed(x, self.family, self.num_views, self.inverse_views, generator)
        if self.binarize == "dynamic":
            x, *views = (
                binarized(255 * part, derive_seed(self.seed, "binarize", step, index)) for index, part in enumerate([x, *views])
            )
        return {"x": x, "views": torch.stack(list(views), dim=1)}


def transformed(x: Tensor, family: Family, num_views: int, inverse_views: bool, generator: torch.Generator) -> list[Tensor]:
    """The views of images as a list of tensors of the shape of x.

    Args:
        x: (images, channels, height, width), floats.
        family: the family of the transformations.
        num_views: number of views, unless they are inverse.
        inverse_views: whether the views are f(x) and f^-1(x); otherwise each has a transformation of its own.
        generator: draws the transformations, on the device of x.
    """
    require_kind(family, "family", Family)
    require_kind(generator, "generator", torch.Generator)
    require_count(num_views, "num_views")
    if inverse_views:
        parameters = family.sample(len(x), generator)
        return [family.apply(x, parameters), family.apply(x, family.inverse(parameters))]
    return [family.apply(x, family.sample(len(x), generator)) for _ in range(num_views)]


class AugmentedSource:
    """A source that draws, for each image, the image itself or one of its views, all with the same probability, as VAE+ needs.

    With two views, a batch has a third as many images as a batch of ``views`` of the same size, on which a T-VAE is trained.

    Args:
        views: the source of the images and their views.
    """

    def __init__(self, views: ViewSource) -> None:
        require_kind(views, "views", ViewSource)
        self.views = views

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of a step: x, (size, channels, height, width)."""
        batch = self.views.batch(step, size)
        choices = torch.cat([batch["x"].unsqueeze(1), batch["views"]], dim=1)
        generator = torch.Generator(choices.device).manual_seed(derive_seed(self.views.seed, "choose", step))
        index = torch.randint(choices.shape[1], (size,), generator=generator, device=choices.device)
        return {"x": choices[torch.arange(size, device=choices.device), index]}
