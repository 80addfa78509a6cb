"""What is measured of models of several views: whether one view follows from another, what is shared and what is private.

In metrics.csv, as training goes on: ``held_out_elbo`` of up to 1,000 held-out examples.

In results.json, on test examples, or, with ``--validation``, on held-out ones, and then ``validation_`` in place of ``test_``.
Accuracies are shares from 0 to 1. Views are judged by the means of p(view | latents), one draw of the latents for each; the judge
is a classifier that was trained on the training split's views of that kind, and of a label its largest probability. Without
labels, what needs a judge is left out.

- ``judge_accuracy/<view>``: of the judge itself, on true views.
- ``cross_accuracy/<from>_to_<to>``: how often a view that is drawn given another is of the class that goes with it.
- ``joint_coherence``: how often views that are drawn together, from the prior, are of classes that go together.
- ``z_keeps_class``: how often the class stays when z of an image is kept and its private latent is drawn anew.
- ``u_changes_class``: how often the class changes when z of an image is kept and its private latent is that of an image of
  another class. Low is good; errors of the decoder and of the judge are in it.
- ``z_brings_class``: how often the class is the other's when the private latent of an image is kept and z is that of an image of
  another class.
- ``u_changes_style``: how much an image changes when its private latent is exchanged for another's, relative to how much two
  images of one class differ.
- ``test_elbo``: of all views, in nats per example; one draw for each.
- ``test_log_likelihood``: likewise, by 100 importance samples of 500 examples; ``.../<view>`` of that view alone, and
  ``.../<view>_given_<other>``, their difference, which is no bound. All by q(z | all that is given), also of a method that trains
  other networks (BiVCCA never conditions on two views). With ``--full`` also ``test_log_likelihood_full``, by 1,000 samples of
  1,000 examples.
- ``sample_confidence``, ``sample_classes``: of 2,000 images drawn from the prior, the judge's largest probability on average, and
  the number of classes, as the exponential of the entropy of its mean probabilities.
- ``code_information``: a lower bound of the information of an InfoGAN's images about its code, in nats.
- ``parameters``: of model and guide.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyzoo.data.images import Epochs
from pyzoo.data.multimodal import PairSet
from pyzoo.errors import UsageError
from pyzoo.evaluation import blocks, class_probabilities, mean_log_likelihood, site_terms, train_classifier
from pyzoo.guides.mib import StructuredGuide
from pyzoo.models.mib import StructuredVAE
from pyzoo.random import derive_seed
from pyzoo.recipes.images import ImageReport
from pyzoo.recipes.mib.objectives import drawn_images, drawn_latents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MIBReport", "draw", "drawn_given"]

_ROWS = 1000  # examples in a call

Judge = Callable[[Tensor], Tensor]
"""From views to probabilities of classes, (views, classes)."""


class MIBReport(ImageReport):
    """The report of all methods."""

    @functools.cached_property
    def pairs(self) -> PairSet:
        """The examples to measure on."""
        return self.recipe.pairs("measured").to(self.device)

    @functools.cached_property
    def views(self) -> dict[str, Tensor]:
        """Their views by name, the same in every run on a kind of device."""
        return _views(self.pairs, self.recipe.views)

    @functools.cached_property
    def held_out_views(self) -> dict[str, Tensor]:
        """Views of up to 1,000 held-out examples."""
        found = _views(self.recipe.pairs("held_out").to(self.device), self.recipe.views)
        return {name: view[:1000] for name, view in found.items()}

    @property
    def can_validate(self) -> bool:
        return self.recipe.has_likelihood and super().can_validate

    def validate(self, step: int) -> dict[str, float]:
        return {"held_out_elbo": -sum(site_terms(*self.pair, self.held_out_views).values())}

    # Metrics --------------------------------------------------------------------------------------------------------

    def metrics(self, full: bool = False) -> dict[str, float]:
        (model, guide), views, found = self.pair, self.views, {}
        if self.recipe.has_classes:
            classes = {view: self.pairs.classes(view) for view in views}
            judges = {view: self._judge(view) for view in views}
            found |= {f"judge_accuracy/{view}": _share(judges[view](views[view]), classes[view]) for view in views}
            if len(views) > 1:
                found |= _crossed(model, guide, views, classes, judges)
                found["joint_coherence"] = _coherence(model, judges, self.pairs.partner.offset)
                found |= _separation(model, guide, views, classes, judges)
            found |= _samples(model, self.recipe.first_view, judges[self.recipe.first_view])
        if "c" in model.dims:
            found["code_information"] = _code_information(model, guide, self.recipe.first_view)
        if self.recipe.has_likelihood:
            found |= self._likelihoods(full)
        return found | {"parameters": self.pair.num_parameters}

    def _judge(self, view: str) -> Judge:
        if view == "label":
            return lambda labels: labels
        return functools.partial(class_probabilities, _classifier(_Judged(self.recipe, view, self.device)))

    def _likelihoods(self, full: bool) -> dict[str, float]:
        views, split = self.views, self.recipe.measured_split
        found = {f"{split}_elbo": -sum(site_terms(*self.pair, views, rows=_ROWS).values())}

        def mean(names, examples: int, samples: int) -> float:
            return mean_log_likelihood(*self.pair, {name: views[name][:examples] for name in names}, samples, max_rows=2000)

        name = f"{split}_log_likelihood"
        found[name] = mean(views, 500, 100)
        if len(views) == 1:
            found[f"{name}/{self.recipe.first_view}"] = found[name]
        else:
            found |= {f"{name}/{view}": mean([view], 500, 100) for view in views}
            first, second = views
            found |= {f"{name}/{a}_given_{b}": found[name] - found[f"{name}/{b}"] for a, b in ((first, second), (second, first))}
        if full:
            found[f"{name}_full"] = mean(views, 1000, 1000)
        return found

    # Figures and samples --------------------------------------------------------------------------------------------

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.mib.figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, history)

    def sample(self, count: int, seed: int, given: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Draws the views that are not given: their means, and as ``x`` a draw of the first of them.

        Args:
            count: how many to draw.
            seed: the global seed is set from it already.
            given: views to condition on. Of "label" the class's name or number; of an image the image, (channels, height, width),
                or the number of a measured one.

        Raises:
            UsageError: there is no view of the name, or no such class or image; or nothing is left to draw.
        """
        model, guide = self.pair
        known = {}
        for name, value in (given or {}).items():
            view = self._given(name, value)
            known[name] = view.expand(count, *view.shape[1:])
        drawn = drawn_given(model, guide, known) if known else draw(model, count)
        wanted = next((name for name in drawn if name not in known), None)
        if wanted is None:
            raise UsageError(f"given {' and '.join(known)}, there is no view left to draw")
        return {"x": drawn[wanted].sample(), **{name: known.get(name, p.mean) for name, p in drawn.items()}}

    def _given(self, name: str, value: Any) -> Tensor:
        """A view as a user gives it, (1, ...)."""
        if name not in self.views:
            raise UsageError(f"there is no view '{name}'; there are {', '.join(self.views)}")
        view = self.views[name]
        if isinstance(value, Tensor) and value.dim() > 0:
            if value.shape != view.shape[1:]:
                raise UsageError(f"the view '{name}' must be {tuple(view.shape[1:])}, not {tuple(value.shape)}")
            return value.to(view).unsqueeze(0)
        if name == "label":
            return nn.functional.one_hot(torch.tensor([self._class(value)]), view.shape[1]).to(view)
        index = _whole(value)
        if index is None or not 0 <= index < len(view):
            raise UsageError(f"the view '{name}' is given by the number of a measured image, 0 to {len(view) - 1}, not '{value}'")
        return view[index : index + 1]

    def _class(self, value: Any) -> int:
        classes = self.recipe.dataset.classes
        if str(value) in classes:
            return classes.index(str(value))
        index = _whole(value)
        if index is None or not 0 <= index < len(classes):
            some = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
            raise UsageError(f"there is no label '{value}'; there are {some}")
        return index

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.recipes.mib.figures import joint_samples  # matplotlib is imported only where something is drawn

        return joint_samples({view: samples[view] for view in self.recipe.views})


def _views(pairs: PairSet, names: Sequence[str]) -> dict[str, Tensor]:
    return pairs.views(slice(None), torch.Generator(pairs.images.device).manual_seed(0), names)


def _whole(value: Any) -> int | None:
    """A whole number, or one that is written as text; None for anything else."""
    try:
        return int(value) if isinstance(value, str) or value == int(value) else None
    except (TypeError, ValueError, OverflowError):
        return None


# Judges ---------------------------------------------------------------------------------------------------------------


class _Judged:
    """The training views that a judge learns; equal if they are the same views, so that rows of a table share their judges."""

    def __init__(self, recipe: Any, view: str, device: torch.device) -> None:
        self.recipe, self.view, self.device = recipe, view, device
        read = ("data", "second_view", "data_dir", "image_size", "test_share", "train_size")
        self._key = (view, str(device), *(getattr(recipe, name, None) for name in read))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Judged) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.cache
def _classifier(judged: _Judged) -> nn.Module:
    pairs, view, device = judged.recipe.pairs("train").to(judged.device), judged.view, judged.device
    size = min(128, len(pairs))
    epochs = Epochs(len(pairs), derive_seed(0, "judge", view), device)
    classes = pairs.classes(view)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = epochs.rows(step, size)
        generator = torch.Generator(device).manual_seed(derive_seed(0, "judge", view, step))
        return pairs.views(rows, generator, (view,))[view], classes[rows]

    return train_classifier(batch, min(1500, 40 * (len(pairs) // size)), pairs.num_classes)


def _share(probabilities: Tensor, classes: Tensor) -> float:
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


def _crossed(model, guide, views, classes, judges) -> dict[str, float]:
    found = {}
    for given, view in views.items():
        for other in views.keys() - {given}:
            drawn = [drawn_given(model, guide, {given: part})[other].mean for part in view.split(_ROWS)]
            probabilities = torch.cat([judges[other](part) for part in drawn])
            found[f"cross_accuracy/{given}_to_{other}"] = _share(probabilities, classes[other])
    return found


def _coherence(model, judges, offset: int) -> float:
    drawn = draw(model, 2000)
    probabilities = [judge(drawn[view].mean) for view, judge in judges.items()]
    first, second = (each.argmax(-1) for each in probabilities)
    return ((first + offset) % probabilities[0].shape[-1] == second).double().mean().item()


def _samples(model, view: str, judge: Judge) -> dict[str, float]:
    probabilities = judge(draw(model, 2000)[view].mean)
    mean = probabilities.mean(0)
    entropy = -torch.special.xlogy(mean, mean).sum().item()
    return {"sample_confidence": probabilities.amax(-1).mean().item(), "sample_classes": math.exp(entropy)}


def _code_information(model: StructuredVAE, guide: StructuredGuide, view: str) -> float:
    images, latents = drawn_images(model, view, 2000)
    q = guide.posteriors({view: images})["c"]
    entropy = 0.5 * model.dims["c"] * math.log(2 * math.pi * math.e)
    return entropy + q.log_prob(latents["c"]).sum(-1).mean().item()


# What is shared, and what is private ----------------------------------------------------------------------------------


def _separation(model, guide, views, classes, judges) -> dict[str, float]:
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
    between = (x[order][1:] - x[order][:-1])[same].abs().mean()
    return {
        "z_keeps_class": _share(anew, own),
        "u_changes_class": 1 - _share(judge(exchanged)[differ], own[differ]),
        "z_brings_class": _share(moved[differ], other[differ]),
        "u_changes_style": ((exchanged - decoded()).abs().mean() / between).item(),
    }
