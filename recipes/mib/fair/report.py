"""What is measured of a fair representation.

- ``accuracy``: of a logistic regression on the representation, fitted to the targets of the training and held-out rows, on the
  test rows.
- ``deo``: the difference of equal opportunity: of the two groups' shares of favorable predictions, among those with the
  favorable outcome.
- ``demographic_parity``: the difference of these shares among all.
- ``leakage``: the accuracy with which gradient-boosted trees recover the sensitive attribute from the representation;
  ``leakage_floor`` is the share of the larger group, which needs no representation.
- ``validation_accuracy``, ``validation_deo``, ``validation_demographic_parity``: likewise on the held-out rows, by a logistic
  regression that was fitted to the training rows alone; to choose settings by. While the representation is trained they are
  columns of metrics.csv, with ``validation_score``, by which --keep-best chooses: the accuracy, or minus ``deo`` where that is
  more than --allowed-deo.
- ``test_elbo``: of features and attribute, in nats per row; one draw.
- ``parameters``: of model and guide.

The classifier's threshold is 1/2. Metrics of fairness are fairlearn's.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyzoo.data.tables import Split
from pyzoo.errors import UsageError
from pyzoo.evaluation import fairness_metrics, leakage, site_terms
from pyzoo.recipes.mib.metrics import draw, drawn_given
from pyzoo.training import PairReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from sklearn.linear_model import LogisticRegression

    from pyzoo.training import Panel

__all__ = ["FairReport", "best_of", "compared", "linear_classifier", "representation"]


def representation(guide: Any, x: Tensor) -> Tensor:
    """The representation of rows, (rows, features): the mean of q(u_x | x)."""
    return guide.posteriors({"x": x})["u_x"].mean


def compared(recipe: Any, history: Sequence[Mapping[str, float]]) -> dict[int, tuple[float, float, float]]:
    """(weight of the penalty, DEO, accuracy) on the held-out rows of all representations of a run that were compared, by step."""
    weight = recipe.method.independence_weight
    return {
        int(row["step"]): (weight * row.get("share_invariant", 1.0), row["validation_deo"], row["validation_accuracy"])
        for row in history
        if not math.isnan(row.get("validation_score", math.nan))
    }


def best_of(history: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The row of the representation that --keep-best keeps: the first with the best score."""
    scored = [row for row in history if not math.isnan(row.get("validation_score", math.nan))]
    return max(scored, key=lambda row: row["validation_score"])


def linear_classifier(x: Tensor, y: Tensor) -> "LogisticRegression":
    """A logistic regression of y, (rows,), on x, (rows, features)."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000).fit(x.numpy(), y.numpy())


class FairReport(PairReport):
    """The report of fair representations."""

    criterion: ClassVar[str] = "validation_score"

    @functools.cached_property
    def codes(self) -> list[Tensor | None]:
        """Representations of the training, held-out and test rows."""
        return [None if split is None else self._codes(split) for split in self.recipe.splits]

    def _codes(self, split: Split) -> Tensor:
        return representation(self.pair.guide, split.x.to(self.device)).cpu()

    @functools.cached_property
    def classifier(self) -> "LogisticRegression":
        """What predicts the target from a representation, fitted to all rows but the test rows."""
        known = [
            (codes, split.y) for codes, split in zip(self.codes[:2], self.recipe.splits[:2], strict=True) if split is not None
        ]
        codes, targets = zip(*known, strict=True)
        return linear_classifier(torch.cat(codes), torch.cat(targets))

    @property
    def can_validate(self) -> bool:
        return self.recipe.splits[1] is not None

    def validate(self, step: int) -> dict[str, float]:
        train, held, _ = self.recipe.splits
        codes, found = [self._codes(train), self._codes(held)], {"held_out_elbo": self._elbo(held)}
        if not torch.cat(codes).isfinite().all():
            return found  # the next loss will say so
        found |= _validation(train, held, *codes)
        if step >= self.recipe.method.rises_from(self.recipe.steps):
            allowed = found["validation_deo"] <= self.recipe.allowed_deo
            found["validation_score"] = found["validation_accuracy"] if allowed else -found["validation_deo"]
        return found

    def _elbo(self, split: Split) -> float:
        views = {"x": split.x.to(self.device), "a": one_hot(split.a, 2).to(split.x.dtype).to(self.device)}
        return -sum(site_terms(*self.pair, views).values())

    def metrics(self, full: bool = False) -> dict[str, float]:
        (train, held, test), (codes, held_codes, test_codes) = self.recipe.splits, self.codes
        larger = test.a.double().mean().item()
        found = _fairness(self.classifier, test, test_codes)
        found |= {"leakage": leakage(codes, train.a, test_codes, test.a), "leakage_floor": max(larger, 1 - larger)}
        if held is not None:
            found |= _validation(train, held, codes, held_codes)
        return {**found, "test_elbo": self._elbo(test), "parameters": self.pair.num_parameters}

    def panels(self) -> Sequence["Panel"]:
        from pyzoo.recipes.mib.fair.panels import panels

        return panels(self)

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.mib.fair.figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, history)

    def sample(self, count: int, seed: int, given: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Draws rows: their features as ``x``, and the sensitive attribute ``a``, one-hot; given the attribute, if it is named.

        Raises:
            UsageError: what is given is not the attribute, or not one of its two values.
        """
        model, guide = self.pair
        given, groups = dict(given or {}), self.recipe.table.groups
        group = given.pop("a", None)
        if given:
            raise UsageError(f"there is nothing '{min(given)}' to condition on; there is a, one of {', '.join(groups)}")
        if group is None:
            return {name: p.sample() for name, p in draw(model, count).items()}
        if str(group) not in groups:
            raise UsageError(f"there is no '{group}' of the sensitive attribute a; there are {', '.join(groups)}")
        a = one_hot(torch.tensor([groups.index(str(group))] * count), 2).to(next(model.parameters()))
        return {"x": drawn_given(model, guide, {"a": a})["x"].sample(), "a": a}


def _validation(train: Split, held: Split, codes: Tensor, held_codes: Tensor) -> dict[str, float]:
    found = _fairness(linear_classifier(codes, train.y), held, held_codes)
    return {f"validation_{name}": value for name, value in found.items()}


def _fairness(classifier: "LogisticRegression", split: Split, codes: Tensor) -> dict[str, float]:
    return fairness_metrics(torch.as_tensor(classifier.predict(codes.numpy())), split.y, split.a)
