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
  images of one class differ; all as they are decoded.
- ``test_elbo``: of all views, in nats per example; one draw for each.
- ``test_log_likelihood``: likewise, by 100 importance samples of up to 500 examples; ``.../<view>`` of that view alone, and
  ``.../<view>_given_<other>``, their difference, which is no bound. All by q(z | all that is given), also of a method that trains
  other networks (BiVCCA never conditions on two views). With ``--full`` also ``test_log_likelihood_full``, by 1,000 samples of
  1,000 examples.
- ``sample_confidence``, ``sample_classes``: of 2,000 images drawn from the prior, the judge's largest probability on average, and
  the number of classes, as the exponential of the entropy of its mean probabilities.
- ``code_information``: a lower bound of the information of an InfoGAN's images about its code, in nats.
- ``parameters``: of model and guide.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from pyzoo.data.multimodal import PairSet
from pyzoo.errors import UsageError
from pyzoo.evaluation import class_probabilities, mean_log_likelihood, site_terms
from pyzoo.recipes.images import ImageReport
from pyzoo.recipes.mib.metrics import (
    Judge,
    JudgedViews,
    code_information,
    cross_accuracies,
    draw,
    drawn_given,
    joint_coherence,
    sample_metrics,
    separation,
    share_right,
    trained_judge,
)
from pyzoo.settings import cut

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyzoo.training import Panel

__all__ = ["MIBReport"]

_ROWS = 1000  # examples in a call


class MIBReport(ImageReport):
    """The report of all methods."""

    quick_examples: ClassVar[int] = 500
    quick_samples: ClassVar[int] = 100

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
            found |= {f"judge_accuracy/{view}": share_right(judges[view](views[view]), classes[view]) for view in views}
            if len(views) > 1:
                found |= cross_accuracies(model, guide, views, classes, judges)
                found["joint_coherence"] = joint_coherence(model, judges, self.pairs.partner.offset)
                found |= separation(model, guide, views, classes, judges)
            found |= sample_metrics(model, self.recipe.first_view, judges[self.recipe.first_view])
        if "c" in model.dims:
            found["code_information"] = code_information(model, guide, self.recipe.first_view)
        if self.recipe.has_likelihood:
            found |= self._likelihoods(full)
        return found | {"parameters": self.pair.num_parameters}

    def _judge(self, view: str) -> Judge:
        if view == "label":
            return lambda labels: labels
        return functools.partial(class_probabilities, trained_judge(JudgedViews(self.recipe, view, self.device)))

    def _likelihoods(self, full: bool) -> dict[str, float]:
        views, split = self.views, self.recipe.measured_split
        found = {f"{split}_elbo": -sum(site_terms(*self.pair, views, rows=_ROWS).values())}

        def mean(names, examples: int, samples: int) -> float:
            return mean_log_likelihood(*self.pair, {name: views[name][:examples] for name in names}, samples, max_rows=2000)

        name = f"{split}_log_likelihood"
        quick = (self.quick_examples, self.quick_samples)
        found[name] = mean(views, *quick)
        if len(views) == 1:
            found[f"{name}/{self.recipe.first_view}"] = found[name]
        else:
            found |= {f"{name}/{view}": mean([view], *quick) for view in views}
            first, second = views
            found |= {f"{name}/{a}_given_{b}": found[name] - found[f"{name}/{b}"] for a, b in ((first, second), (second, first))}
        if full:
            found[f"{name}_full"] = mean(views, 1000, 1000)
        return found

    # Figures and samples --------------------------------------------------------------------------------------------

    def panels(self) -> Sequence["Panel"]:
        from pyzoo.recipes.mib.panels import panels

        return panels(self)

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
            if not value.is_floating_point() or not ((value >= 0) & (value <= 1)).all():
                raise UsageError(f"the view '{name}' must be of floats from 0 to 1")
            if name == "label" and sorted(value.tolist()) != [0.0] * (len(value) - 1) + [1.0]:
                raise UsageError("the view 'label' must be one-hot")
            return value.to(view).unsqueeze(0)
        if name == "label":
            return nn.functional.one_hot(torch.tensor([self._class(value)]), view.shape[1]).to(view)
        index = _whole(value)
        if index is None or not 0 <= index < len(view):
            raise UsageError(
                f"the view '{name}' is given by the number of a measured image, 0 to {len(view) - 1}, not {cut(value)}"
            )
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
