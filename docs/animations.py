"""Makes the animations of the gallery from the trained models that come with the package: ``python docs/animations.py``.

That of T-VAE needs MNIST, in ``$PYZOO_DATA`` or downloaded.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

import pyzoo
from pyzoo.plotting import image_grid
from pyzoo.recipes.graph_vae.panels import moved_images

PICTURES = Path(__file__).parent / "pictures"


def save(frames: Sequence[Figure], name: str, milliseconds: int) -> None:
    """Writes figures as an animation, there and back."""
    images = []
    for figure in frames:
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=80)
        images.append(Image.open(content).convert("RGB").quantize(64, dither=Image.Dither.NONE))
    file = PICTURES / f"{name}.gif"
    images += images[-2:0:-1]
    images[0].save(file, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=True)
    print(f"{file.name}: {len(images)} frames, {file.stat().st_size / 1e6:.2f} MB")


def rotation() -> list[Figure]:
    """A T-VAE's rotation, inferred from one digit and carried over to others."""
    panel = pyzoo.load("tvae-mnist").panels()[0]
    return [panel.draw(angle=angle, file=None, seed=0) for angle in range(-30, 31, 5)]


def nodes() -> list[Figure]:
    """Images of a Graph VAE in which one node moves, another one in each row, and those under it follow."""
    model = pyzoo.load("graph-vae-mnist")
    names = [f"z_{node}" for node in range(model.networks.nodes, 0, -1)]
    with model._report("cpu", "sample") as (report, _):
        rows = [[moved_images(report, name, start, 100 + start)["others follow"] for start in range(8)] for name in names]
    steps = len(rows[0][0])
    title = "In each row one node moves, and those under it follow"
    return [
        image_grid([[images[step] for images in row] for row in rows], title, side=0.7, labels=names) for step in range(steps)
    ]


def main() -> None:
    """Makes both."""
    torch.manual_seed(0)
    save(rotation(), "tvae_rotation", 120)
    save(nodes(), "graph_vae_nodes", 160)


if __name__ == "__main__":
    main()
