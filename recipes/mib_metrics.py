"""What is measured of models of several views: whether one view brings forth another, and what is shared and what is private.

In results.json; on test pairs, or, with ``--validation``, on held-out ones, and then ``validation_`` in place of ``test_``.
Accuracies are shares from 0 to 1. What is judged are means of p(view | latents), one draw of the latents for each; the judge is a
classifier that was trained on the training split's views of that kind, and of a label its largest probability.

- ``judge_accuracy/<view>``: of the judge itself, on true views.
- ``cross_accuracy/<from>_to_<to>``: a view drawn given another is of the class that belongs to it.
- ``joint_coherence``: views drawn together, from the prior, are of classes that belong together.
- ``z_keeps_class``: with z of an image, and its private latent drawn anew, the class stays.
- ``u_changes_class``: with z of an image, and the private latent of another, of another class, the class goes. Low is good; what
  the decoder and the judge get wrong by themselves is in it.
- ``z_brings_class``: with the private latent of an image, and z of another, of another class, the class is the other's.
- ``u_changes_style``: by how much an image changes when its private latent is exchanged for another's, in shares of how much two
  images of one class differ.
- ``test_elbo``: of all views, in nats per example; one draw for each.
- ``test_log_likelihood``: likewise, by 100 importance samples of 500 examples; ``.../<view>`` of that view alone, and
  ``.../<view>_given_<other>``, their difference, which is no bound. All by q(z | all that is given), also of a row that trains
  other networks (BiVCCA's never hear two views). With ``--full`` also ``test_log_likelihood_full``, by 1,000 samples of 1,000.
- ``sample_confidence``, ``sample_classes``: what the judge says of 2,000 images drawn from the prior, its largest probability on
  average, and how many classes they are of, as the exponential of the entropy of what it says of all.
- ``code_information``: a lower bound of what an InfoGAN's images tell of its code, in nats.
- ``parameters``: of the loss's module.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyzoo.data.images import Epochs
from pyzoo.data.multimodal import NUM_CLASSES, PairSet, PairSetName, load_pairs
from pyzoo.evaluation import class_probabilities, train_classifier
from pyzoo.guides.mib import StructuredGuide
from pyzoo.infer import TraceKL_ELBO, evaluating, log_likelihood
from pyzoo.models.mib import StructuredVAE, private_of
from pyzoo.random import derive_seed
from pyzoo.recipes.mib_objectives import drawn_images, drawn_latents

if TYPE_CHECKING:
    from pyzoo.recipes.mib import MIBRecipe

__all__ = ["brought_forth", "draw", "evaluate", "measured_views"]

_ROWS = 1000  # examples in a call


def evaluate(recipe: "MIBRecipe", module: nn.Module, device: torch.device, full: bool = False) -> dict[str, float]:
    """The metrics of results.json."""
    pairs = recipe.measured_pairs().to(device)
    views = measured_views(pairs, recipe.views)
    classes = {view: pairs.classes(view) for view in recipe.views}
    judges = {view: _judge(recipe, view, device) for view in recipe.views}
    model, guide = module.model, module.guide
    with torch.random.fork_rng(), evaluating(module):
        torch.manual_seed(derive_seed(recipe.seed, "evaluate"))
        found = {f"judge_accuracy/{view}": _share(judges[view](views[view]), classes[view]) for view in recipe.views}
        if len(recipe.views) > 1:
            found |= _crossed(model, guide, views, classes, judges)
            found["joint_coherence"] = _coherence(model, judges, pairs.partner.offset)
            found |= _separation(model, guide, views, classes, judges)
        found |= _samples(model, judges["digit"])
        if "c" in model.dims:
            found["code_information"] = _code_information(model, guide)
        if recipe.has_likelihood:
            found |= _likelihoods(recipe, model, guide, views, full)
    return found | {"parameters": sum(parameter.numel() for parameter in module.parameters())}


def measured_views(pairs: PairSet, names: Sequence[str]) -> dict[str, Tensor]:
    """The views to measure on, the same in every run on a kind of device."""
    return pairs.views(slice(None), torch.Generator(pairs.images.device).manual_seed(0), names)


# Judges -------------------------------------------------------------------------------------------------------------


def _judge(recipe: "MIBRecipe", view: str, device: torch.device):
    """From views to what they are: probabilities of classes, (views, classes)."""
    if view == "label":
        return lambda labels: labels
    network = _classifier(recipe.data, recipe.data_dir, recipe.train_share, view, device)
    return functools.partial(class_probabilities, network)


@functools.cache  # rows of a table share their judges
def _classifier(data: PairSetName, data_dir: Path | None, share: float, view: str, device: torch.device) -> nn.Module:
    pairs = load_pairs(data, "train", data_dir, (0.0, share)).to(device)
    epochs = Epochs(len(pairs), derive_seed(0, "judge", view), device)
    classes = pairs.classes(view)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = epochs.rows(step, 128)
        generator = torch.Generator(device).manual_seed(derive_seed(0, "judge", view, step))
        return pairs.views(rows, generator, (view,))[view], classes[rows]

    return train_classifier(batch, min(1500, 40 * (len(pairs) // 128)), NUM_CLASSES)


def _share(probabilities: Tensor, classes: Tensor) -> float:
    return (probabilities.argmax(-1) == classes).double().mean().item()


# One view from another, and together ----------------------------------------------------------------------------------


def draw(model: StructuredVAE, count: int) -> dict[str, TorchDistribution]:
    """p(view | latents) of all views by name, at latents that are drawn from the prior."""
    latents = drawn_latents(model, count)
    return {view: model.likelihood(view, latents) for view in model.variables.observed}


def brought_forth(model: StructuredVAE, guide: StructuredGuide, given: Mapping[str, Tensor], view: str) -> Tensor:
    """A view drawn given others: the mean of p(view | latents) at a draw of the latents given those."""
    latents = {name: q.sample() for name, q in guide.posteriors(given).items()}
    return model.likelihood(view, latents).mean


def _crossed(model, guide, views, classes, judges) -> dict[str, float]:
    found = {}
    for heard, view in views.items():
        for other in views.keys() - {heard}:
            said = [judges[other](brought_forth(model, guide, {heard: part}, other)) for part in view.split(_ROWS)]
            found[f"cross_accuracy/{heard}_to_{other}"] = _share(torch.cat(said), classes[other])
    return found


def _coherence(model, judges, offset: int) -> float:
    drawn = draw(model, 2000)
    first, second = (judge(drawn[view].mean).argmax(-1) for view, judge in judges.items())
    return ((first + offset) % NUM_CLASSES == second).double().mean().item()


def _samples(model, judge) -> dict[str, float]:
    said = judge(draw(model, 2000)["digit"].mean)
    every = said.mean(0)
    entropy = -torch.special.xlogy(every, every).sum().item()
    return {"sample_confidence": said.amax(-1).mean().item(), "sample_classes": math.exp(entropy)}


def _code_information(model: StructuredVAE, guide: StructuredGuide) -> float:
    images, latents = drawn_images(model, "digit", 2000)
    q = guide.posteriors({"digit": images})["c"]
    entropy = 0.5 * model.dims["c"] * math.log(2 * math.pi * math.e)
    return entropy + q.log_prob(latents["c"]).sum(-1).mean().item()


# What is shared, and what is private ----------------------------------------------------------------------------------


def _separation(model, guide, views, classes, judges) -> dict[str, float]:
    """Means over the views that have private latents; nothing where there is none."""
    owners = [view for view in views if private_of(model.variables, view)]
    rows = [_of_one_view(model, guide, view, views[view], classes[view], judges[view]) for view in owners]
    return {name: sum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else ())}


def _of_one_view(model, guide, view, x, classes, judge) -> dict[str, float]:
    own, other = classes, classes.roll(1)
    differ = own != other
    parts = [{name: q.sample() for name, q in guide.posteriors({view: part}).items()} for part in x.split(_ROWS)]
    latents = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    private = private_of(model.variables, view)
    shared = [name for name in latents if name not in model.variables.private]

    def decoded(**changed: Tensor) -> Tensor:
        now = {**latents, **changed}
        blocks = [{name: value[i : i + _ROWS] for name, value in now.items()} for i in range(0, len(x), _ROWS)]
        return torch.cat([model.likelihood(view, block).mean for block in blocks])

    anew = judge(decoded(**{name: torch.randn_like(latents[name]) for name in private}))
    exchanged = decoded(**{name: latents[name].roll(1, 0) for name in private})
    brought = judge(decoded(**{name: latents[name].roll(1, 0) for name in shared}))
    order = classes.argsort(stable=True)
    same = classes[order][1:] == classes[order][:-1]
    between = (x[order][1:] - x[order][:-1])[same].abs().mean()
    return {
        "z_keeps_class": _share(anew, own),
        "u_changes_class": 1 - _share(judge(exchanged)[differ], own[differ]),
        "z_brings_class": _share(brought[differ], other[differ]),
        "u_changes_style": ((exchanged - decoded()).abs().mean() / between).item(),
    }


# Likelihoods ----------------------------------------------------------------------------------------------------------


def _likelihoods(recipe: "MIBRecipe", model, guide, views, full: bool) -> dict[str, float]:
    split, plain = recipe.measured_split, guide.without_penalties()
    count = len(next(iter(views.values())))
    blocks = [{name: view[i : i + _ROWS] for name, view in views.items()} for i in range(0, count, _ROWS)]
    found = {f"{split}_elbo": -sum(TraceKL_ELBO().loss(model, plain, **block) for block in blocks) / count}

    def mean(names, examples: int, samples: int) -> float:
        batch = {name: views[name][:examples] for name in names}
        return log_likelihood(model, plain, batch, samples, max_rows=2000).double().mean().item()

    name = f"{split}_log_likelihood"
    found[name] = mean(views, 500, 100)
    found |= {f"{name}/{view}": mean([view], 500, 100) for view in views} if len(views) > 1 else {f"{name}/digit": found[name]}
    if len(views) > 1:
        first, second = views
        found |= {f"{name}/{a}_given_{b}": found[name] - found[f"{name}/{b}"] for a, b in ((first, second), (second, first))}
    if full:
        found[f"{name}_full"] = mean(views, 1000, 1000)
    return found
