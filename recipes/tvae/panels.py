"""What one can play with of a trained T-VAE: its transformation set by hand, and one carried over from another image."""

from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.data.transformations import FAMILIES
from pyzoo.plotting import image_grid
from pyzoo.recipes.images import CROPPED, read_own_image
from pyzoo.recipes.tvae.figures import fixed_views, moved_by
from pyzoo.recipes.tvae.report import infer_transformation, transferred
from pyzoo.training import OwnImage, Panel, Slider

if TYPE_CHECKING:
    from pyzoo.recipes.tvae.report import TVAEReport

__all__ = ["panels"]

_SLIDERS = 10
"""Dimensions of T that have sliders, at most."""


def panels(report: "TVAEReport") -> list[Panel]:
    """Those of a T-VAE with two views; other pairs have none."""
    model = report.pair.model
    if model.latent_map is None or model.num_views != 2:
        return []
    dims = min(_SLIDERS, model.transformation_shape[0]) if len(model.transformation_shape) == 1 else 0
    _, what = report.examples
    own = OwnImage("Your own image")
    rotation = Panel(
        "Carry a rotation over",
        "The image on the left is turned by an angle and by its negative. From these two views the guide infers T, without "
        f"being told of angles, and T is then applied to the others. They are {what}, the first one replaced by yours if you "
        f"give one. {CROPPED}",
        {"angle": Slider("Angle, in degrees", -30, 30, 20), "file": own, "seed": Slider("Examples", 0, 50)},
        lambda angle, file, seed: carried_over(report, angle, file, int(seed)),
    )
    if not dims:
        return [rotation]
    usual = round(_usual_size(report), 1) or 0.1
    starts = [2 * usual, *[0] * (dims - 1)]
    sliders = {f"T_{dim}": Slider(f"T {dim + 1}", -4 * usual, 4 * usual, at, usual / 10) for dim, at in enumerate(starts)}
    by_hand = Panel(
        "Set T by hand",
        "Each slider moves one dimension of T, in the space of the latent z. Some dimensions change more than others. The "
        f"images are {what}, the first one replaced by yours if you give one. {CROPPED}",
        {
            **sliders,
            "file": own,
            "seed": Slider("Examples", 0, 50),
        },
        lambda file, seed, **T: set_by_hand(report, list(T.values()), file, int(seed)),
    )
    return [rotation, by_hand]


@torch.no_grad()
def _usual_size(report: "TVAEReport") -> float:
    """What an entry of T usually comes to, where it is inferred from views that are moved as in training."""
    x, _ = report.examples
    views = fixed_views(report.recipe.family, x[:50], 2)
    return infer_transformation(report.pair, torch.stack(views, dim=1)).square().mean().sqrt().item()


def _images(report: "TVAEReport", file: str | None, seed: int, count: int) -> Tensor:
    """Images, the first of them replaced by the user's."""
    x, _ = report.examples
    x = x[(torch.arange(count, device=x.device) + count * seed) % len(x)]
    if file is not None:
        x = torch.cat([read_own_image(file, x.shape[1:]).unsqueeze(0).to(x), x[1:]])
    return x


@torch.no_grad()
def carried_over(report: "TVAEReport", angle: float, file: str | None, seed: int) -> Figure:
    """T of an image that is turned, applied to others."""
    rotation, x = FAMILIES["rotation"], _images(report, None, 100 + seed, 1)
    matrix = rotation.matrices(torch.tensor([float(angle)], device=x.device))
    views = torch.stack([rotation.apply(x, matrix), rotation.apply(x, rotation.inverse(matrix))], dim=1)
    T = infer_transformation(report.pair, views)[0]
    targets = _images(report, file, seed, 8)
    there, back = transferred(report.pair, T, targets)
    cells = [[left[0], *images] for left, images in ((x, targets), (views[:, 0], there), (views[:, 1], back))]
    title = f"T from the images on the left, turned by {angle:g} degrees either way, applied to the others"
    return image_grid(cells, title, framed=[(row, 0) for row in range(3)], side=0.9, labels=["image", *moved_by(report.pair)])


@torch.no_grad()
def set_by_hand(report: "TVAEReport", values: list[float], file: str | None, seed: int) -> Figure:
    """Images moved by a T that was set."""
    x = _images(report, file, seed, 8)
    T = x.new_zeros(report.pair.model.transformation_shape)
    T[: len(values)] = x.new_tensor(values)
    there, back = transferred(report.pair, T, x)
    still, _ = transferred(report.pair, torch.zeros_like(T), x)
    rows = dict(zip(("image", "decoded", *moved_by(report.pair)), (x, still, there, back), strict=True))
    return image_grid(
        [list(images) for images in rows.values()], "T as it was set, applied to images", side=0.9, labels=list(rows)
    )
