"""What one can play with of a trained Graph VAE: its graph, a node moved, and what is drawn anew below a node."""

from typing import TYPE_CHECKING

import pyro
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.plotting import image_grid
from pyzoo.recipes.graph_vae.figures import graph_picture
from pyzoo.recipes.images import CROPPED, read_own_image
from pyzoo.training import Choice, OwnImage, Panel, Slider

if TYPE_CHECKING:
    from pyzoo.recipes.graph_vae.report import GraphVAEReport

__all__ = ["moved_images", "panels"]

_STEPS = 9
"""Pictures of a node on its way."""


def panels(report: "GraphVAEReport") -> list[Panel]:
    """Those of Graph VAE and of its fixed structures."""
    nodes = tuple(f"z_{node}" for node in range(report.recipe.networks.nodes, 0, -1))
    _, what = report.examples
    choose = Choice("Node", nodes, nodes[0])
    found = [
        Panel(
            "Move one node",
            "An image is drawn, from the node without parents down to the pixels. From left to right, one node then moves "
            "from its value to that of another draw. In the upper row all other nodes stay where they are. In the lower row "
            "the nodes under it follow: each is drawn again given its parents, with the same noise.",
            {
                "node": choose,
                "start": Slider("First draw", 0, 50),
                "end": Slider("Second draw", 0, 50, 1),
            },
            lambda node, start, end: moved(report, node, int(start), int(end)),
        ),
        Panel(
            "Keep what is above a node",
            "The chosen node and all above it keep the values that the guide infers from the image on the left, and the nodes "
            f"below are drawn anew, eight times. The image is yours, or one of {what}. {CROPPED}",
            {
                "node": choose,
                "file": OwnImage("Your own image"),
                "seed": Slider("Example", 0, 50),
            },
            lambda node, file, seed: resampled(report, node, file, int(seed)),
        ),
    ]
    if report.pair.model.gates.learned:
        text = "The probability of each edge, as it was learned: an arrow runs from a parent to its child, dotted below one half."
        found.append(
            Panel(
                "The graph",
                text,
                {},
                lambda: graph_picture(report.pair.model.gates.probabilities().detach(), "Learned dependencies"),
            )
        )
    return found


def _drawn(report: "GraphVAEReport", values: dict[str, Tensor], size: int, seed: int) -> dict[str, Tensor]:
    """All nodes, and as ``x`` the mean of the image, drawn with some nodes held at values."""
    torch.manual_seed(seed)
    sites = pyro.poutine.trace(pyro.condition(report.pair.model, data=values)).get_trace(size=size).nodes
    found = {name: site["value"] for name, site in sites.items() if name.startswith("z_")}
    return {**found, "x": sites["x"]["fn"].mean}


def moved(report: "GraphVAEReport", node: str, start: int, end: int) -> Figure:
    """A node on its way from one draw's value to another's, with all others still, and with those below it following."""
    rows = moved_images(report, node, start, end)
    return image_grid([list(images) for images in rows.values()], f"{node} moves from left to right", side=0.9, labels=list(rows))


@torch.no_grad()
def moved_images(report: "GraphVAEReport", node: str, start: int, end: int) -> dict[str, Tensor]:
    """The images of :func:`moved`, (steps, channels, height, width) in each of its rows."""
    first, last = (_drawn(report, {}, 1, seed) for seed in (start, end))
    along = torch.linspace(0, 1, _STEPS, device=report.device).unsqueeze(-1)
    names = [name for name in first if name != "x"]
    still = {name: first[name].expand(_STEPS, -1) for name in names}
    still[node] = torch.lerp(first[node], last[node], along)
    return {"others still": _drawn(report, still, _STEPS, 0)["x"], "others follow": _followed(report, first, still, node)}


def _followed(report: "GraphVAEReport", first: dict[str, Tensor], values: dict[str, Tensor], moved: str) -> Tensor:
    """The mean image where one node is moved, and those under it are drawn again with the noise that they were drawn with."""
    model, gates = report.pair.model, report.pair.model.gates()
    before = {_number(name) - 1: value for name, value in first.items() if name != "x"}
    after = {_number(name) - 1: value for name, value in values.items()}
    for node in reversed(range(_number(moved) - 1)):
        loc, scale = model.prior(before, gates, node, 1)
        new_loc, new_scale = model.prior(after, gates, node, _STEPS)
        after[node] = new_loc + new_scale * (before[node] - loc) / scale
    return _drawn(report, {f"z_{node + 1}": value for node, value in after.items()}, _STEPS, 0)["x"]


@torch.no_grad()
def resampled(report: "GraphVAEReport", node: str, file: str | None, seed: int) -> Figure:
    """An image, and images of the same nodes from the top down to one, with those below drawn anew."""
    if file is None:
        examples, _ = report.examples
        x = examples[seed % len(examples)].unsqueeze(0)
    else:
        x = read_own_image(file, report.recipe.networks.x_shape).unsqueeze(0).to(report.device)
    torch.manual_seed(seed)
    observed = x if report.recipe.networks.likelihood == "gaussian" else (x > 0.5).to(x)
    sites = pyro.poutine.trace(report.pair.guide).get_trace(x=observed).nodes
    kept = {
        name: site["value"].expand(8, -1)
        for name, site in sites.items()
        if name.startswith("z_") and _number(name) >= _number(node)
    }
    found = _drawn(report, kept, 8, seed)["x"]
    title = f"{node} and what is above it kept from the image on the left, the rest drawn anew"
    return image_grid([[x[0], *found[:4]], [None, *found[4:]]], title, framed=[(0, 0)], side=1.1)


def _number(node: str) -> int:
    return int(node.removeprefix("z_"))
