"""What one can play with of a trained model of views: one view given another, and private latents exchanged."""

from typing import TYPE_CHECKING

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.plotting import figure_grid, image_grid, label_axes, show_image
from pyzoo.recipes.images import CROPPED, read_own_image
from pyzoo.recipes.mib.figures import as_cell, exchange
from pyzoo.recipes.mib.metrics import drawn_given
from pyzoo.training import Choice, OwnImage, Panel, Slider

if TYPE_CHECKING:
    from pyzoo.recipes.mib.report import MIBReport

__all__ = ["panels"]


def panels(report: "MIBReport") -> list[Panel]:
    """Of each view that is given a panel, and of each view with a private latent."""
    views = report.recipe.views
    found = []
    if len(views) > 1:
        for given in views:
            others = " and ".join(view for view in views if view != given)
            if given == "label":
                classes = tuple(report.recipe.dataset.classes)
                control: Choice | OwnImage = Choice("Label", classes, classes[0])
                example = ""
            else:
                control = OwnImage(f"Your own image, as the {given}")
                example = f" Without an image of yours it is one that the model has not seen. {CROPPED}"
            found.append(
                Panel(
                    f"{others} given {given}".capitalize(),
                    f"The guide infers the latents from the view '{given}' alone. What the views share should stay in all "
                    f"draws of {others}; what is private differs from draw to draw. Of a label the mean of its probabilities "
                    f"over the draws is shown.{example}",
                    {"value": control, "seed": Slider("Example and draws", 0, 50)},
                    lambda value, seed, given=given: view_given(report, given, value, int(seed)),
                )
            )
    for view in views:
        if len(views) > 1 and report.pair.model.variables.private_of(view):
            found.append(
                Panel(
                    f"Exchange what is private to {view}",
                    f"Each row has the shared latents of the {view} on its left, each column the private ones of that above.",
                    {"seed": Slider("Examples", 0, 50)},
                    lambda seed, view=view: exchanged(report, view, int(seed)),
                )
            )
    return found


@torch.no_grad()
def view_given(report: "MIBReport", given: str, value: str | None, seed: int) -> Figure:
    """Draws of the other views given one of them."""
    model, guide = report.pair
    measured = _measured(report, given, seed, 1)
    if given == "label":
        label = report.recipe.dataset.classes.index(value)
        view: Tensor = one_hot(torch.tensor([label]), measured.shape[-1]).to(measured)
    elif value is None:
        view = measured
    else:
        view = read_own_image(value, measured.shape[1:]).unsqueeze(0).to(measured)
    torch.manual_seed(seed)
    found = drawn_given(model, guide, {given: view.expand(8, *view.shape[1:])})
    others = {name: p.mean for name, p in found.items() if name != given}
    if "label" in others:
        return _labels(report, given, view[0], others["label"].mean(0))
    rows = [[as_cell(given, view[0]), *(as_cell(name, x) for x in means)] for name, means in others.items()]
    return image_grid(rows, f"Given the {given} on the left: eight draws", framed=[(0, 0)], side=1.0)


def _labels(report: "MIBReport", given: str, view: Tensor, probabilities: Tensor) -> Figure:
    """An image, and bars of the probabilities of its label."""
    figure, [[left, right]] = figure_grid(1, 2, f"The label given the {given} on the left", cell=(3.0, 2.4))
    show_image(left, view)
    right.bar(report.recipe.dataset.classes, probabilities.tolist())
    right.set_ylim(0, 1)
    label_axes(right, "label", "probability")
    return figure


@torch.no_grad()
def exchanged(report: "MIBReport", view: str, seed: int) -> Figure:
    """A table of images with their private latents exchanged."""
    return exchange(report.pair, view, _measured(report, view, seed, 7))


def _measured(report: "MIBReport", view: str, number: int, count: int) -> Tensor:
    """Some of the views that the model is measured on, from all over them."""
    views = report.views[view]
    rows = torch.linspace(0, len(views) - 1, count + 1, device=views.device).long()[:count] + number
    return views[rows % len(views)]
