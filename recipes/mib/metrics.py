"""How views of a trained pair are judged: one from another, together, and by what is shared and what is private.

What the metrics mean is said in :mod:`pyzoo.recipes.mib.report`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyzoo.data.images import Epochs
from pyzoo.evaluation import blocks, train_classifier
from pyzoo.guides.mib import StructuredGuide
from pyzoo.models.mib import StructuredVAE
from pyzoo.random import derive_seed
from pyzoo.recipes.mib.objectives import drawn_images, drawn_latents

if TYPE_CHECKING:
    from pyzoo.recipes.mib.recipe import MIBRecipe

__all__ = ["Judge", "JudgedViews", "code_information", "cross_accuracies", "draw", "drawn_given", "joint_coherence"]
__all__ += ["sample_metrics", "separation", "share_right", "trained_judge"]

JUDGE_STEPS = 1500
"""Steps for which a judge is trained; fewer where the data are few."""

_ROWS = 1000  # examples in a call

Judge = Callable[[Tensor], Tensor]
"""From views to probabilities of classes, (views, classes)."""

# Judges ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class JudgedViews:
    """The training views that a judge learns; equal if they are the same views, so that rows of a table share their judges."""

    recipe: "MIBRecipe" = dataclasses.field(compare=False)
    """Whose views they are."""
    view: str
    """Name of the view, an image."""
    device: torch.device
    """Where the judge is trained."""
    settings: tuple[Any, ...] = dataclasses.field(init=False)
    """What decides which views they are."""

    def __post_init__(self) -> None:
        read = ("data", "second_view", "data_dir", "image_size", "test_share", "train_size")
        object.__setattr__(self, "settings", tuple(getattr(self.recipe, name, None) for name in read))


@functools.cache
def trained_judge(judged: JudgedViews) -> nn.Module:
    """A classifier of views, trained on the recipe's training examples: from views to logits."""
    view, device = judged.view, judged.device
    pairs = judged.recipe.pairs("train").to(device)
    size = min(128, len(pairs))
    epochs = Epochs(len(pairs), derive_seed(0, "judge", view), device)
    classes = pairs.classes(view)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = epochs.rows(step, size)
        generator = torch.Generator(device).manual_seed(derive_seed(0, "judge", view, step))
        return pairs.views(rows, generator, (view,))[view], classes[rows]

    return train_classifier(batch, min(JUDGE_STEPS, 40 * (len(pairs) // size)), pairs.num_classes)


def share_right(probabilities: Tensor, classes: Tensor) -> float:
    """How often the most probable class is the right one."""
    return (probabilities.argmax(-1) == classes).double().mean().item()


# One view from another, and together ----------------------------------------------------------------------------------


def draw(model: StructuredVAE, count: int) -> dict[str, TorchDistribution]:
    """p(view | latents) of all views by name, at latents that are drawn from the prior."""
    latents = drawn_latents(model, count)
    return {view: model.likelihood(view, latents) for view in model.variables.observed}


def drawn_given(model: StructuredVAE, guide: StructuredGuide, given: Mapping[str, Tensor]) -> dict[str, TorchDistribution]:
    """p(view | latents) of all views by name, at a draw of the latents given some views."""
    latents = {name: q.sample() for name, q in guide.posteriors(given).items()}
    return {view: model.likelihood(view, latents) for view in model.variables.observed}


def cross_accuracies(
    model: StructuredVAE,
    guide: StructuredGuide,
    views: Mapping[str, Tensor],
    classes: Mapping[str, Tensor],
    judges: Mapping[str, Judge],
) -> dict[str, float]:
    """``cross_accuracy/<from>_to_<to>`` for all pairs of views."""
    found = {}
    for given, view in views.items():
        for other in views.keys() - {given}:
            drawn = [drawn_given(model, guide, {given: part})[other].mean for part in view.split(_ROWS)]
            probabilities = torch.cat([judges[other](part) for part in drawn])
            found[f"cross_accuracy/{given}_to_{other}"] = share_right(probabilities, classes[other])
    return found


def joint_coherence(model: StructuredVAE, judges: Mapping[str, Judge], offset: int) -> float:
    """``joint_coherence``, where the second view is of the first one's class and an offset."""
    drawn = draw(model, 2000)
    probabilities = [judge(drawn[view].mean) for view, judge in judges.items()]
    first, second = (each.argmax(-1) for each in probabilities)
    return ((first + offset) % probabilities[0].shape[-1] == second).double().mean().item()


def sample_metrics(model: StructuredVAE, view: str, judge: Judge) -> dict[str, float]:
    """``sample_confidence`` and ``sample_classes`` of a view."""
    probabilities = judge(draw(model, 2000)[view].mean)
    mean = probabilities.mean(0)
    entropy = -torch.special.xlogy(mean, mean).sum().item()
    return {"sample_confidence": probabilities.amax(-1).mean().item(), "sample_classes": math.exp(entropy)}


def code_information(model: StructuredVAE, guide: StructuredGuide, view: str) -> float:
    """``code_information`` of a view about the code c."""
    images, latents = drawn_images(model, view, 2000)
    q = guide.posteriors({view: images})["c"]
    entropy = 0.5 * model.dims["c"] * math.log(2 * math.pi * math.e)
    return entropy + q.log_prob(latents["c"]).sum(-1).mean().item()


# What is shared, and what is private ----------------------------------------------------------------------------------


def separation(
    model: StructuredVAE,
    guide: StructuredGuide,
    views: Mapping[str, Tensor],
    classes: Mapping[str, Tensor],
    judges: Mapping[str, Judge],
) -> dict[str, float]:
    """Means over the views that have private latents; nothing where there is none."""
    owners = [view for view in views if model.variables.private_of(view)]
    rows = [_of_one_view(model, guide, view, views[view], classes[view], judges[view]) for view in owners]
    return {name: sum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else ())}


def _of_one_view(model, guide, view, x, classes, judge) -> dict[str, float]:
    own, other = classes, classes.roll(1)
    differ = own != other
    parts = [{name: q.sample() for name, q in guide.posteriors({view: part}).items()} for part in x.split(_ROWS)]
    latents = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    private = model.variables.private_of(view)
    shared = model.variables.shared

    def decoded(**changed: Tensor) -> Tensor:
        return torch.cat([model.likelihood(view, block).mean for block in blocks({**latents, **changed}, _ROWS)])

    anew = judge(decoded(**{name: torch.randn_like(latents[name]) for name in private}))
    exchanged = decoded(**{name: latents[name].roll(1, 0) for name in private})
    moved = judge(decoded(**{name: latents[name].roll(1, 0) for name in shared}))
    order = classes.argsort(stable=True)
    same = classes[order][1:] == classes[order][:-1]
    kept = decoded()
    between = (kept[order][1:] - kept[order][:-1])[same].abs().mean()
    return {
        "z_keeps_class": share_right(anew, own),
        "u_changes_class": 1 - share_right(judge(exchanged)[differ], own[differ]),
        "z_brings_class": share_right(moved[differ], other[differ]),
        "u_changes_style": ((exchanged - kept).abs().mean() / between).item(),
    }
