"""Figures of models of several views: the declared networks, one view from another (figure 3), what is shared and what is not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from pyzoo.data.multimodal import NUM_CLASSES
from pyzoo.infer import evaluating
from pyzoo.models.mib import private_of
from pyzoo.plotting import draw_network, figure_grid, image_grid, loss_history
from pyzoo.recipes.mib_metrics import brought_forth, draw, measured_views

if TYPE_CHECKING:
    from pyzoo.recipes.mib import MIBRecipe

__all__ = ["cross_generation", "exchange", "figures", "joint_samples", "networks"]


def figures(
    recipe: "MIBRecipe", module: nn.Module, device: torch.device, history: Sequence[Mapping[str, float]]
) -> Iterator[tuple[str, Figure]]:
    """All figures of a run."""
    yield "networks", networks(recipe)
    pairs = recipe.measured_pairs().to(device)
    first = _one_of_each_class(pairs.classes("digit"))
    views = {view: x[first] for view, x in measured_views(pairs, recipe.views).items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for heard in views:
            for other in views.keys() - {heard}:
                yield f"figure3_{heard}_to_{other}", cross_generation(module, views, heard, other)
        if len(views) > 1:
            for view in views:
                if private_of(module.model.variables, view):
                    yield f"exchange_{view}", exchange(module, view, views[view][:8])
        with evaluating(module):
            yield "samples", joint_samples({view: p.mean for view, p in draw(module.model, 20).items()})
    if history:  # a run that was stopped early has none
        yield "loss", _loss(history)


def networks(recipe: "MIBRecipe") -> Figure:
    """G^p, G^q and the wishes, drawn."""
    row = recipe.declare()
    drawn = {"G^p, what generates": row.generative, "G^q, what infers": row.inference}
    drawn |= {f"wish: {wish.name}, weight {wish.weight:g}": wish.network for wish in row.wishes}
    figure, axes = figure_grid(1, len(drawn), f"The networks of {recipe.name}", cell=(2.6, 2.4))
    for cell, (title, text) in zip(axes[0], drawn.items(), strict=True):
        network = row.network(text)
        draw_network(cell, network.layers, network.edges, network.variables.observed, title)
    return figure


def cross_generation(
    module: nn.Module, views: Mapping[str, Tensor], heard: str, other: str, rows: int = 10, draws: int = 8
) -> Figure:
    """Figure 3: a view on the left, framed, and draws of the other view given it."""
    inputs = views[heard][:rows]
    with evaluating(module):
        found = brought_forth(module.model, module.guide, {heard: inputs.repeat_interleave(draws, 0)}, other)
    cells = [
        [as_cell(heard, view), *(as_cell(other, draw) for draw in drawn)]
        for view, drawn in zip(inputs, found.split(draws), strict=True)
    ]
    return image_grid(cells, f"{other} given {heard}", framed=[(row, 0) for row in range(len(inputs))])


def _one_of_each_class(classes: Tensor) -> list[int]:
    """The first example of each class, in their order."""
    return [(classes == label).nonzero()[0].item() for label in range(NUM_CLASSES)]


def exchange(module: nn.Module, view: str, x: Tensor) -> Figure:
    """A table of images: each row has the shared latents of the image on its left, each column the private ones of that above."""
    count = len(x)
    with evaluating(module):
        latents = {name: q.mean for name, q in module.guide.posteriors({view: x}).items()}
        crossed = {
            name: value.repeat(count, 1) if name in module.model.variables.private else value.repeat_interleave(count, 0)
            for name, value in latents.items()
        }
        found = module.model.likelihood(view, crossed).mean
    cells = [[None, *x], *([image, *drawn] for image, drawn in zip(x, found.split(count), strict=True))]
    framed = [(0, 1 + index) for index in range(count)] + [(1 + index, 0) for index in range(count)]
    return image_grid(cells, f"z of the {view} on the left, u of that above", framed)


def joint_samples(views: Mapping[str, Tensor]) -> Figure:
    """Views drawn together, those of a pair one above the other, ten in a row."""
    blocks = [{name: drawn[i : i + 10] for name, drawn in views.items()} for i in range(0, len(next(iter(views.values()))), 10)]
    cells = [[as_cell(name, view) for view in drawn] for block in blocks for name, drawn in block.items()]
    return image_grid(cells, f"Drawn together: {' and '.join(views)}" if len(views) > 1 else "Drawn from the model")


def as_cell(name: str, view: Tensor) -> Tensor | str:
    """An image, or the most probable label, with its probability if that is not one."""
    if name != "label":
        return view
    label, probability = view.argmax().item(), view.max().item()
    return str(label) if probability == 1 else f"{label}\n{probability:.2f}"


def _loss(history: Sequence[Mapping[str, float]]) -> Figure:
    """Terms of observed variables, of latents, and of wishes."""
    rest = {"step", "seconds", "loss", "learning_rate"}
    names = [name for name in history[-1] if name not in rest and "kl_weight" not in name and not name.endswith("/loss")]
    wishes = [name for name in names if "penalty/" in name]
    others = [name for name in names if name.startswith(("mine/", "discriminator/"))]
    latent = [name for name in names if name.split("_")[0] in ("z", "u", "c") and name not in wishes + others]
    panels = {
        "What is observed": {name: name for name in names if name not in latent + wishes + others},
        "Latents": {name: name for name in latent},
        "Other objectives": {name: name for name in others},
        "Wishes": {name: name.split("penalty/")[-1] for name in wishes if any(row[name] for row in history)},
    }
    return loss_history(
        history, {heading: found for heading, found in panels.items() if found}, "The terms of the loss, before their weights"
    )
