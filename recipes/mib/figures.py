"""Figures of models of several views: the declared networks, one view given another (figure 3), what is shared and what is
not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pyzoo.infer import evaluating
from pyzoo.plotting import draw_network, figure_grid, image_grid, loss_history
from pyzoo.recipes.mib.metrics import draw, drawn_given
from pyzoo.training import Pair

if TYPE_CHECKING:
    from pyzoo.recipes.mib.recipe import MIBRecipe
    from pyzoo.recipes.mib.report import MIBReport

__all__ = ["cross_generation", "exchange", "figures", "joint_samples", "losses", "networks"]


def figures(report: "MIBReport", history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, Figure]]:
    """All figures of a run."""
    yield "networks", networks(report.recipe)
    pair, first = report.pair, report.recipe.first_view
    rows = _one_of_each_class(report.pairs.classes(first), report.pairs.num_classes)
    views = {view: x[rows] for view, x in report.views.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for given in views:
            for other in views.keys() - {given}:
                yield f"figure3_{given}_to_{other}", cross_generation(pair, views, given, other)
        if len(views) > 1:
            for view in views:
                if pair.model.variables.private_of(view):
                    yield f"exchange_{view}", exchange(pair, view, views[view][:8])
        with evaluating(pair.model):
            yield "samples", joint_samples({view: p.mean for view, p in draw(pair.model, 20).items()})
    if history:  # a run that was stopped early has none
        yield "loss", losses(history)


def networks(recipe: "MIBRecipe") -> Figure:
    """G^p, G^q and the targets, drawn."""
    row = recipe.declare()
    drawn = {"Generative network G^p": row.generative, "Inference network G^q": row.inference}
    drawn |= {f"Target {target.name}, weight {target.weight:g}": target.network for target in row.targets}
    figure, axes = figure_grid(1, len(drawn), f"The networks of {recipe.name}", cell=(2.6, 2.4))
    for cell, (title, text) in zip(axes[0], drawn.items(), strict=True):
        network = row.network(text)
        draw_network(cell, network.layers, network.edges, network.variables.observed, title)
    return figure


def cross_generation(pair: Pair, views: Mapping[str, Tensor], given: str, other: str, rows: int = 10, draws: int = 8) -> Figure:
    """Figure 3: a view on the left, framed, and draws of the other view given it."""
    inputs = views[given][:rows]
    with evaluating(torch.nn.ModuleList(pair)):
        found = drawn_given(*pair, {given: inputs.repeat_interleave(draws, 0)})[other].mean
    cells = [
        [as_cell(given, view), *(as_cell(other, draw) for draw in drawn)]
        for view, drawn in zip(inputs, found.split(draws), strict=True)
    ]
    return image_grid(cells, f"{other} given {given}", framed=[(row, 0) for row in range(len(inputs))])


def _one_of_each_class(classes: Tensor, num_classes: int) -> list[int]:
    """The first example of each class that has one, in their order; the first ones where there is one class alone."""
    if num_classes == 1:
        return list(range(min(10, len(classes))))
    return [found[0].item() for label in range(num_classes) if len(found := (classes == label).nonzero())]


def exchange(pair: Pair, view: str, x: Tensor) -> Figure:
    """A table of images: each row has the shared latents of the image on its left, each column the private ones of that above."""
    count = len(x)
    with evaluating(torch.nn.ModuleList(pair)):
        latents = {name: q.mean for name, q in pair.guide.posteriors({view: x}).items()}
        crossed = {
            name: value.repeat(count, 1) if name in pair.model.variables.private else value.repeat_interleave(count, 0)
            for name, value in latents.items()
        }
        found = pair.model.likelihood(view, crossed).mean
    cells = [[None, *x], *([image, *drawn] for image, drawn in zip(x, found.split(count), strict=True))]
    framed = [(0, 1 + index) for index in range(count)] + [(1 + index, 0) for index in range(count)]
    return image_grid(cells, f"z of the {view} on the left, u of the {view} above", framed)


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


def losses(history: Sequence[Mapping[str, float]]) -> Figure:
    """Terms of observed variables, of latents, and of penalties."""
    rest = {"step", "seconds", "loss", "learning_rate"}
    names = [
        name
        for name in history[-1]
        if name not in rest
        and "kl_weight" not in name
        and not name.startswith("share_")
        and not name.endswith("/loss")
        and not name.startswith("held_out")
    ]
    penalties = [name for name in names if "penalty/" in name]
    others = [name for name in names if name.startswith(("mine/", "discriminator/"))]
    latent = [name for name in names if name.split("_")[0] in ("z", "u", "c") and name not in penalties + others]
    panels = {
        "Observed views": {name: name for name in names if name not in latent + penalties + others},
        "Latents": {name: name for name in latent},
        "Other objectives": {name: name for name in others},
        "Penalties": {name: name.split("penalty/")[-1] for name in penalties if any(row.get(name) for row in history)},
    }
    return loss_history(
        history, {heading: found for heading, found in panels.items() if found}, "The terms of the loss, before their weights"
    )
