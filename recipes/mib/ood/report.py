"""What is measured of predictions in other environments. A label is predicted by p(y | z) at the mean of q(z | x).

- ``accuracy_train_envs``: on the training images, of all training environments; ``accuracy_held_out`` on the held-out ones.
- ``accuracy_test_env``: on test images in the colors of the test environment.
- ``environment_information``: an estimate of I(z; e | y), in nats: what z still tells of the environment when the label is known;
  how much better a logistic regression predicts e from y, z and their products than from y alone, on held-out images. Of the
  color alone it would be 0.010 (for shares 0.2 and 0.1).
- ``held_out_elbo``: of image, label and environment, of up to 1,000 held-out images; in nats. It is left out where it is not what
  was trained: with --dist-weight 0, or with sharpened environments, whose groups are another variable.
- ``parameters``: of model and guide.

In metrics.csv, ``accuracy_env_<e>``, ``accuracy_test_env`` and ``accuracy_held_out`` are of up to 2,000 images. The first two
choose nothing; the last is what --keep-best and --patience go by.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from pyzoo.data.environments import ColoredImages, views_of
from pyzoo.errors import UsageError
from pyzoo.evaluation import site_terms
from pyzoo.recipes.mib.metrics import draw, drawn_given
from pyzoo.training import PairReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OODReport", "environment_information"]


def environment_information(
    z: Tensor, labels: Tensor, environments: Tensor, other_z: Tensor, other_labels: Tensor, other_environments: Tensor
) -> float:
    """I(z; e | y) in nats, as a logistic regression finds it on some examples and others confirm it.

    Args:
        z: (examples, features).
        labels: (examples,), 0 or 1.
        environments: (examples,), integer.
        other_z: of further examples, on which it is measured; likewise the others.
        other_labels: (others,).
        other_environments: (others,).

    Returns:
        How much the cross-entropy falls below that without z; 0 with one environment. It can be negative.
    """
    from sklearn.linear_model import LogisticRegression

    if len(torch.unique(environments)) < 2:
        return 0.0
    mean, scale = z.mean(0), z.std(0).clamp(min=1e-6)

    def features(z: Tensor, labels: Tensor) -> Tensor:
        z, y = (z - mean) / scale, labels.to(z.dtype).unsqueeze(1)
        return torch.cat([y, z * y, z * (1 - y)], 1)

    def cross_entropy(train: Tensor, test: Tensor) -> float:
        fitted = LogisticRegression(max_iter=1000).fit(train.numpy(), environments.numpy())
        log_p = torch.as_tensor(fitted.predict_log_proba(test.numpy()))
        return -log_p.gather(1, other_environments.unsqueeze(1)).mean().item()

    with_z = cross_entropy(features(z, labels), features(other_z, other_labels))
    return cross_entropy(labels.float().unsqueeze(1), other_labels.float().unsqueeze(1)) - with_z


def _first(colored: ColoredImages) -> ColoredImages:
    """Up to 2,000 of the images."""
    return colored.rows(torch.arange(min(2000, len(colored))))


class OODReport(PairReport):
    """The report of predictions in other environments."""

    criterion: ClassVar[str] = "accuracy_held_out"

    def means(self, colored: ColoredImages) -> Tensor:
        """The mean of q(z | x) of each image, (images, features)."""
        blocks = colored.images.split(5000)
        return torch.cat([self.pair.guide.posteriors({"x": block.to(self.device) / 255})["z"].mean for block in blocks])

    def accuracy(self, colored: ColoredImages) -> float:
        """Share of the images whose label is predicted."""
        z = self.means(colored)
        predicted = self.pair.model.likelihood("y", {"z": z}).mean.argmax(-1)
        return (predicted == colored.labels.to(self.device)).double().mean().item()

    @functools.cached_property
    def _monitored(self) -> dict[str, ColoredImages]:
        train, test = self.recipe.training_set, self.recipe.test_set
        found = {
            f"accuracy_env_{e}": train.rows((train.environments == e).nonzero().flatten()[:2000])
            for e in range(len(self.recipe.color_flips))
        }
        return {**found, "accuracy_test_env": _first(test)}

    def monitor(self, step: int) -> dict[str, float]:
        return {name: self.accuracy(colored) for name, colored in self._monitored.items()}

    @property
    def can_validate(self) -> bool:
        return self.recipe.held_out_size > 0

    @functools.cached_property
    def _held_out(self) -> ColoredImages:
        return _first(self.recipe.held_out_set)

    @functools.cached_property
    def _held_out_views(self) -> dict[str, Tensor]:
        views = views_of(self.recipe.held_out_set, len(self.recipe.color_flips))
        return {name: view[:1000].to(self.device) for name, view in views.items()}

    def validate(self, step: int) -> dict[str, float]:
        return {"accuracy_held_out": self.accuracy(self._held_out), **self._held_out_elbo()}

    def _held_out_elbo(self) -> dict[str, float]:
        if self.recipe.sharpen or not self.recipe.method.dist_weight:
            return {}
        return {"held_out_elbo": -sum(site_terms(*self.pair, self._held_out_views).values())}

    def metrics(self, full: bool = False) -> dict[str, float]:
        train, test = self.recipe.training_set, self.recipe.test_set
        found = {"accuracy_train_envs": self.accuracy(train), "accuracy_test_env": self.accuracy(test)}
        if self.can_validate:
            held = self.recipe.held_out_set
            found["accuracy_held_out"] = self.accuracy(held)
            parts = [(self.means(part).cpu(), part.labels.cpu(), part.environments.cpu()) for part in (train, held)]
            found["environment_information"] = environment_information(*parts[0], *parts[1])
            found |= self._held_out_elbo()
        return {**found, "parameters": self.pair.num_parameters}

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.mib.ood.figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, history)

    def sample(self, count: int, seed: int, given: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Draws images, as means in ``x``, and labels ``y``, one-hot; given a label, 0 or 1, if it is named.

        Raises:
            UsageError: what is given is not the label, or neither 0 nor 1.
        """
        model, guide = self.pair
        given = dict(given or {})
        label = given.pop("y", None)
        if given:
            raise UsageError(f"there is nothing '{min(given)}' to condition on; there is y, 0 or 1")
        if label is None:
            return {name: p.mean for name, p in draw(model, count).items() if name in ("x", "y")}
        if str(label) not in ("0", "1"):
            raise UsageError(f"there is no label '{label}'; there are 0 and 1")
        y = torch.eye(2, device=self.device)[[int(label)] * count]
        return {"x": drawn_given(model, guide, {"y": y})["x"].mean, "y": y}

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.recipes.mib.ood.figures import colored_sheet  # matplotlib is imported only where something is drawn

        return colored_sheet(samples["x"])
