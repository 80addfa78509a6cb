r"""Scenes of several pieces on a background, with the exact mask of each: tetrominoes, and sprites that cover each other.

Made to the published descriptions of the sets of Kabra et al. (2019), "Multi-Object Datasets". Tetrominoes: three pieces of four
squares on black, in six colors, which never overlap. Multi-dSprites: squares, ellipses and hearts of any color on gray, where
later pieces cover earlier ones. Where ours differ: tetrominoes come in all 19 orientations of the seven pieces, where the
published set has 17 of them; and hearts are those of an algebraic curve.

In addition a relation can be planted among the pieces of a scene, so that a prior over components has something to find: the
color, or the place, of each piece is then a function of the first one's.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from pyzoo.checks import as_device, require_count, require_kind, require_number
from pyzoo.errors import UsageError
from pyzoo.random import derive_seed, seeded
from pyzoo.settings import AtLeast

__all__ = ["COLORS", "Relation", "SceneSource", "Scenes", "has_relation", "sprites", "tetrominoes"]

Relation = Literal["none", "color", "place"]
"""What of each piece follows from the first: nothing; its color, one further along :data:`COLORS` for each piece; or its place,
which is that of the first mirrored left to right, top to bottom, or both. Tetrominoes at mirrored places share out the colors
among them, the first piece's coming first, so that it can be seen which is which."""

COLORS = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
"""The colors of tetrominoes, (6, 3), around the color circle: red, yellow, green, cyan, blue, magenta."""

MOST_SPRITES = 100
"""Pieces that a scene of sprites can have: each takes an image's memory while the scene is made."""

_PIECES = ("1111", "11|11", "010|111", "011|110", "110|011", "100|111", "001|111")  # I, O, T, S, Z, J, L
_ROUNDS = 300  # of drawing scenes again in which pieces overlap
_PLACES = 32  # that a piece is tried at where pieces are placed one by one


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes:
    """Images with what they were made of.

    Args:
        images: (scenes, 3, height, width), uint8.
        segments: which piece one sees at each pixel, (scenes, height, width), int64: 0 is the background, k the k-th piece.
        colors: color of each piece, (scenes, pieces, 3), from 0 to 1.
        places: center of each piece, (scenes, pieces, 2), down and right, from 0 to 1.
        shapes: (scenes, pieces), int64.
        present: which pieces a scene has, (scenes, pieces), boolean.
    """

    images: Tensor
    segments: Tensor
    colors: Tensor
    places: Tensor
    shapes: Tensor
    present: Tensor

    def __len__(self) -> int:
        return len(self.images)


class SceneSource:
    """A source of images of scenes, generated on the device.

    Args:
        draw: makes scenes from their number and a generator, on the generator's device: ``partial(tetrominoes, image_size=32)``.
        seed: seed of all batches.
        split: name of the split; different names give different batches.
        device: where the scenes are made.

    Example:
        >>> source = SceneSource(tetrominoes)
        >>> source.batch(step=0, size=4)["x"].shape
        torch.Size([4, 3, 35, 35])
    """

    def __init__(
        self,
        draw: Callable[[int, torch.Generator], Scenes],
        seed: int = 0,
        split: str = "train",
        device: torch.device | str = "cpu",
    ) -> None:
        require_kind(draw, "draw", Callable)
        self._draw = draw
        self.seed = seed
        self.split = split
        self.device: torch.device = as_device(device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The training batch of a step: x, (size, 3, height, width), from 0 to 1."""
        return {"x": self.scenes(step, size).images / 255}

    def scenes(self, step: int, size: int) -> Scenes:
        """The scenes of a step, with their masks."""
        require_count(size, "size")
        require_count(step, "step", 0)
        found = self._draw(size, seeded(derive_seed(self.seed, self.split, step), self.device))
        require_kind(found, "what draw returns", Scenes)
        return found


# Tetrominoes ----------------------------------------------------------------------------------------------------------


def tetrominoes(
    count: int, generator: torch.Generator, image_size: int = 35, num_pieces: int = 3, relation: Relation = "none"
) -> Scenes:
    """Tetrominoes on black, none of which overlaps another.

    Args:
        count: number of scenes.
        generator: of all draws; scenes are made on its device.
        image_size: pixels on a side. A piece's square has a seventh of that, rounded down.
        num_pieces: pieces in a scene, at most 6.
        relation: what of each piece follows from the first; with "place" there are at most 4 pieces.

    Raises:
        ValueError: a number is out of range, or the relation is none of these.
        UsageError: the pieces fit into the image so rarely that it was given up.

    Example:
        >>> scenes = tetrominoes(2, torch.Generator().manual_seed(0))
        >>> scenes.images.shape, scenes.segments.unique().tolist()
        (torch.Size([2, 3, 35, 35]), [0, 1, 2, 3])
    """
    require_kind(generator, "generator", torch.Generator)
    _check(count, image_size, num_pieces, relation, smallest=14)
    if num_pieces > len(COLORS):
        raise ValueError(f"num_pieces must be at most {len(COLORS)}, the number of colors, got {num_pieces}.")
    device, unit = generator.device, image_size // 7
    bitmaps = _bitmaps().to(device)
    extents = unit * torch.stack([bitmaps.any(2).sum(1), bitmaps.any(1).sum(1)], 1)  # down and right

    def drawn(number: int, num_pieces: int = num_pieces) -> tuple[Tensor, Tensor]:
        """Shapes and corners."""
        shapes = torch.randint(len(bitmaps), (number, num_pieces), generator=generator, device=device)
        return shapes, _corners(extents[shapes], image_size, relation, generator)

    def placed(number: int) -> tuple[Tensor, Tensor]:
        """The same, piece by piece: each where the ones before leave room, if there is room at one of its places."""
        found, taken = [], torch.zeros(number, image_size, image_size, device=device)
        for _ in range(num_pieces):
            shapes, corners = (part.unflatten(0, (number, _PLACES)).squeeze(2) for part in drawn(number * _PLACES, 1))
            first = (_taken(taken, bitmaps[shapes], corners, unit) == 0).long().argmax(1)
            chosen = torch.arange(number, device=device), first
            found.append((shapes[chosen], corners[chosen]))
            shapes, corners = (part.unsqueeze(1) for part in found[-1])
            taken = taken + _covered(bitmaps, shapes, corners, unit, image_size).squeeze(1)
        shapes, corners = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
        return shapes, corners

    draw = drawn
    shapes, corners = draw(count)
    covered = _covered(bitmaps, shapes, corners, unit, image_size)
    for number in range(2 * _ROUNDS + 1):
        again = (covered.sum(1) > 1).flatten(1).any(1).nonzero().squeeze(1)
        if not len(again):
            break
        if number == 2 * _ROUNDS:
            raise UsageError(f"{num_pieces} pieces hardly fit into images of {image_size} x {image_size} pixels: take fewer")
        # Many pieces at once hardly ever fit. At mirrored places they cannot be placed one by one.
        is_crowded = number == _ROUNDS or (number == _ROUNDS // 10 and 2 * len(again) > count)
        draw = placed if is_crowded and relation != "place" else draw
        shapes[again], corners[again] = draw(len(again))
        covered[again] = _covered(bitmaps, shapes[again], corners[again], unit, image_size)
    places = (corners + extents[shapes] / 2) / image_size
    colors = COLORS.to(device)[_hues(count, num_pieces, relation, generator)]
    return _scenes(covered, colors, places, shapes, torch.zeros(count, 3, device=device))


def _bitmaps() -> Tensor:
    """All orientations of the seven pieces, (19, 4, 4), boolean."""
    found = []
    for piece in _PIECES:
        cells = torch.tensor([[cell == "1" for cell in row] for row in piece.split("|")])
        for turns in range(4):
            turned = torch.rot90(cells, turns)
            bitmap = torch.zeros(4, 4, dtype=torch.bool)
            bitmap[: turned.shape[0], : turned.shape[1]] = turned
            if not any(torch.equal(bitmap, other) for other in found):
                found.append(bitmap)
    return torch.stack(found)


def _corners(sizes: Tensor, image_size: int, relation: Relation, generator: torch.Generator) -> Tensor:
    """Upper left corners of pieces, (scenes, pieces, 2), int64; drawn, or mirrored from the first."""
    half = margin = sizes / 2
    if relation == "place":  # as far from the border as the largest needs
        margin = half.amax(1, keepdim=True)
    drawn = torch.rand(sizes.shape, generator=generator, device=sizes.device)
    places = (margin + drawn * (image_size - 2 * margin)) / image_size
    if relation == "place":
        places = _mirrored(places[:, :1], sizes.shape[1])
    return (image_size * places - half).round().long().clamp_min(0).minimum(image_size - sizes)


def _mirrored(first: Tensor, num_pieces: int) -> Tensor:
    """Places from 0 to 1, (scenes, pieces, 2): the first, (scenes, 1, 2), and its mirror images."""
    flips = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], device=first.device)[:num_pieces]
    return flips + (1 - 2 * flips) * first


def _covered(bitmaps: Tensor, shapes: Tensor, corners: Tensor, unit: int, image_size: int) -> Tensor:
    """Which pixels each piece covers, (scenes, pieces, height, width), boolean."""
    pixels = torch.arange(image_size, device=shapes.device)
    down, right = ((pixels - corners[..., axis, None]).div(unit, rounding_mode="floor") for axis in (0, 1))
    inside = ((down >= 0) & (down < 4)).unsqueeze(-1) & ((right >= 0) & (right < 4)).unsqueeze(-2)
    cells = bitmaps[shapes].flatten(2)  # (scenes, pieces, 16)
    index = 4 * down.clamp(0, 3).unsqueeze(-1) + right.clamp(0, 3).unsqueeze(-2)
    return cells.gather(2, index.flatten(2)).view_as(index) & inside


def _taken(taken: Tensor, bitmaps: Tensor, corners: Tensor, unit: int) -> Tensor:
    """How many pixels that are taken, (scenes, height, width), pieces would cover, (scenes, places); from a table of sums.

    Args:
        taken: 1 where a pixel is.
        bitmaps: of the pieces, (scenes, places, 4, 4), boolean.
        corners: (scenes, places, 2).
        unit: pixels on a side of a square.
    """
    sums = pad(taken.cumsum(1).cumsum(2), (1, 0, 1, 0))  # of all pixels above and to the left
    side = sums.shape[1]
    edges = (corners.unsqueeze(-1) + unit * torch.arange(5, device=corners.device)).clamp_max(side - 1)
    index = side * edges[:, :, 0, :, None] + edges[:, :, 1, None, :]  # (scenes, places, 5, 5)
    at = sums.flatten(1).gather(1, index.flatten(1)).view_as(index)
    return ((at[..., 1:, 1:] - at[..., :-1, 1:] - at[..., 1:, :-1] + at[..., :-1, :-1]) * bitmaps).sum((2, 3))


# Sprites --------------------------------------------------------------------------------------------------------------


def sprites(
    count: int,
    generator: torch.Generator,
    image_size: int = 64,
    num_pieces: int = 5,
    fewest_pieces: int = 2,
    relation: Relation = "none",
) -> Scenes:
    """Squares, ellipses and hearts in any color on gray, where later ones cover earlier ones.

    Args:
        count: number of scenes.
        generator: of all draws; scenes are made on its device.
        image_size: pixels on a side.
        num_pieces: most pieces in a scene, at most 100.
        fewest_pieces: fewest pieces in a scene; the number is drawn evenly.
        relation: what of each piece follows from the first; with "place" there are at most 4 pieces.

    Raises:
        ValueError: a number is out of range, or the relation is none of these.

    Example:
        >>> scenes = sprites(2, torch.Generator().manual_seed(0))
        >>> scenes.images.shape, scenes.present.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 5]))
    """
    require_kind(generator, "generator", torch.Generator)
    _check(count, image_size, num_pieces, relation, smallest=8)
    if num_pieces > MOST_SPRITES:
        raise ValueError(f"num_pieces must be at most {MOST_SPRITES}, got {num_pieces}.")
    require_count(fewest_pieces, "fewest_pieces")
    if fewest_pieces > num_pieces:
        raise ValueError(f"fewest_pieces must be at most num_pieces, {num_pieces}, got {fewest_pieces}.")
    device = generator.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=device)

    def one_of(number: int, *shape: int) -> Tensor:
        return torch.randint(number, (count, *shape), generator=generator, device=device)

    shapes = one_of(3, num_pieces)
    scale = 0.5 + 0.1 * one_of(6, num_pieces)
    angle = 2 * math.pi / 40 * one_of(40, num_pieces)
    places = uniform(num_pieces, 2)
    if relation == "place":
        places = _mirrored(places[:, :1], num_pieces)
    places = 0.15 + 0.7 * places
    colors = uniform(num_pieces, 3)
    if relation == "color":
        colors = COLORS.to(device)[_hues(count, num_pieces, relation, generator)]
    number = fewest_pieces + one_of(num_pieces - fewest_pieces + 1)
    present = torch.arange(num_pieces, device=device) < number.unsqueeze(1)

    pixels = (torch.arange(image_size, device=device) + 0.5) / image_size
    down = (pixels - places[..., 0, None]).unsqueeze(-1) / (0.18 * scale)[..., None, None]
    right = (pixels - places[..., 1, None]).unsqueeze(-2) / (0.18 * scale)[..., None, None]
    sine, cosine = angle.sin()[..., None, None], angle.cos()[..., None, None]
    v, u = cosine * down - sine * right, sine * down + cosine * right
    square = (u.abs() < 0.9) & (v.abs() < 0.9)
    ellipse = u.square() + (2 * v).square() < 1.2
    heart = (u.square() + v.square() - 1) ** 3 + u.square() * v**3 < 0
    inside = torch.stack([square, ellipse, heart], 2)  # (scenes, pieces, 3, height, width)
    index = shapes[..., None, None, None].expand(-1, -1, 1, image_size, image_size)
    covered = inside.gather(2, index).squeeze(2) & present[..., None, None]
    return _scenes(covered, colors, places, shapes, uniform(1).expand(-1, 3), present)


# Both -----------------------------------------------------------------------------------------------------------------


def _check(count: int, image_size: int, num_pieces: int, relation: str, smallest: int) -> None:
    require_count(count, "count")
    require_count(image_size, "image_size", smallest)
    require_count(num_pieces, "num_pieces")
    if relation not in ("none", "color", "place"):
        raise ValueError(f"relation is 'none', 'color' or 'place', not {relation!r}.")
    if relation == "place" and num_pieces > 4:
        raise ValueError(f"num_pieces must be at most 4 where places are mirrored, got {num_pieces}.")


def _hues(count: int, num_pieces: int, relation: Relation, generator: torch.Generator) -> Tensor:
    """Positions of the pieces' colors in :data:`COLORS`, (scenes, pieces)."""
    hues = torch.randint(len(COLORS), (count, num_pieces), generator=generator, device=generator.device)
    if relation == "color":
        hues = (hues[:, :1] + torch.arange(num_pieces, device=hues.device)) % len(COLORS)
    elif relation == "place":  # or two pieces of one color at mirrored places are as good as one
        share = len(COLORS) // num_pieces
        hues = hues % share + share * torch.arange(num_pieces, device=hues.device)
    return hues


def _scenes(
    covered: Tensor, colors: Tensor, places: Tensor, shapes: Tensor, background: Tensor, present: Tensor | None = None
) -> Scenes:
    """Scenes from the pixels that each piece would cover alone; later pieces are in front."""
    numbers = torch.arange(1, covered.shape[1] + 1, device=covered.device)
    segments = (covered * numbers[:, None, None]).amax(1)
    palette = torch.cat([background.unsqueeze(1), colors], 1)  # (scenes, 1 + pieces, 3)
    painted = palette.gather(1, segments.flatten(1).unsqueeze(-1).expand(-1, -1, 3)).unflatten(1, segments.shape[1:])
    images = (255 * painted).round().to(torch.uint8).movedim(-1, 1)
    present = torch.ones_like(shapes, dtype=torch.bool) if present is None else present
    return Scenes(images.contiguous(), segments, colors, places, shapes, present)


def has_relation(scenes: Scenes, relation: Relation, tolerance: float = 0.05) -> Tensor:
    """Whether each scene has a relation among all of its pieces, (scenes,), boolean.

    Args:
        scenes: as drawn, or as measured of a model's scenes.
        relation: "color" or "place".
        tolerance: what colors and places may be off.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> has_relation(tetrominoes(3, generator, relation="color"), "color").tolist()
        [True, True, True]
    """
    require_kind(scenes, "scenes", Scenes)
    require_number(tolerance, "tolerance", AtLeast(0))
    if relation not in ("color", "place"):
        raise ValueError(f"relation is 'color' or 'place', not {relation!r}.")
    if relation == "place" and scenes.places.shape[1] > 4:
        raise ValueError(f"scenes must have at most 4 pieces where places are mirrored, got {scenes.places.shape[1]}.")
    if relation == "color":
        nearest = (scenes.colors.unsqueeze(2) - COLORS.to(scenes.colors)).abs().amax(-1)
        distance, hues = nearest.min(-1)
        steps = torch.arange(hues.shape[1], device=hues.device)
        holds = (distance <= tolerance) & (hues == (hues[:, :1] + steps) % len(COLORS))
    else:
        expected = _mirrored(scenes.places[:, :1], scenes.places.shape[1])
        holds = (scenes.places - expected).abs().amax(-1) <= tolerance
    return (holds | ~scenes.present).all(1)
