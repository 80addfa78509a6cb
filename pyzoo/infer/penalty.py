r"""A wish about latents, written as a Bayesian network, becomes a penalty: the distance of q to it, term by term.

.. math:: \beta\, D(q \| G^k) = \beta \Bigl(\sum_{t} I_t - \sum_{s} I_s\Bigr)

Each information is replaced by what can be computed of it, and the penalty says what that makes of the whole: a bound only if all
its terms with a plus are bounded from above, and those with a minus from below.

Source: Zhang, Koyama and Ishiguro (2020), eqs. 7 and 8 and section 3.5.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from pyzoo.infer.information import dependence, distortion, index_information, rate, total_correlation
from pyzoo.infer.network import BayesianNetwork
from pyzoo.infer.projection import Information, projection, signed_projection

__all__ = ["Beliefs", "Penalty"]

Kind = Literal["upper", "lower", "estimate", "surrogate"]


@dataclasses.dataclass(frozen=True)
class Beliefs:
    """What a guide knows of a batch.

    Args:
        draws: of each latent by name, (batch, features).
        given: from a collection of names of views to the belief about each latent given those, a normal over (batch, features);
            from None, given all views. Given none it is the prior.
        dataset_size: as in :func:`pyzoo.infer.aggregate_log_prob`.
        networks: by the term as printed, those of estimators that have one.
        complete: from a collection of names of views to the examples that have all of them, (batch,), boolean; by default all do.
        likelihood: from the name of a view and collections of latents to p(x | those latents) at their draws, and the view; None
            if the guide does not know its model.
    """

    draws: Mapping[str, Tensor]
    given: Callable[[Collection[str] | None], Mapping[str, Normal]]
    dataset_size: int | None = None
    networks: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = dataclasses.field(default_factory=dict)
    complete: Callable[[Collection[str]], Tensor | None] = lambda names: None
    likelihood: Callable[[str, Collection[str]], tuple[Distribution, Tensor]] | None = None

    def joined(self, names: Collection[str]) -> tuple[Normal, Tensor]:
        """The belief about several latents side by side, and its draw, in alphabetical order."""
        beliefs, names = self.given(None), sorted(names)
        q = Normal(*(torch.cat([getattr(beliefs[name], part) for name in names], -1) for part in ("loc", "scale")))
        return q, torch.cat([self.draws[name] for name in names], -1)


def _rate(term: Information, beliefs: Beliefs) -> Tensor:
    # An example that lacks a view of x_S has nothing to say of what the rest tells beyond x_S.
    wide, narrow, rows = beliefs.given(term.right | term.given), beliefs.given(term.given), beliefs.complete(term.given)
    return sum(rate(wide[name], narrow[name], rows) for name in sorted(term.left))


def _zero(term: Information, beliefs: Beliefs) -> Tensor:
    return next(iter(beliefs.draws.values())).new_zeros(())


def _distortion(term: Information, beliefs: Beliefs) -> Tensor:
    if beliefs.likelihood is None:
        raise ValueError(f"The distortion that bounds {term} needs a guide that knows its model.")
    (view,) = term.left
    p, x = beliefs.likelihood(view, term.right)
    return -distortion(p, x, beliefs.complete(term.left))


def _index_information(term: Information, beliefs: Beliefs) -> Tensor:
    return index_information(*beliefs.joined(term.left), beliefs.dataset_size)


def _total_correlation(term: Information, beliefs: Beliefs) -> Tensor:
    q, z = beliefs.joined(term.left | term.right)
    names = sorted(term.left | term.right)
    owner = [name for name in names for _ in range(beliefs.draws[name].shape[-1])]
    groups = [[i for i, name in enumerate(owner) if name in side] for side in (term.left, term.right)]
    return total_correlation(q, z, groups, beliefs.dataset_size)


def _dependence(term: Information, beliefs: Beliefs) -> Tensor:
    return dependence(beliefs.joined(term.left)[1], beliefs.joined(term.right)[1])


def _mine(term: Information, beliefs: Beliefs) -> Tensor:
    if str(term) not in beliefs.networks:
        raise ValueError(f"There is no MINE for {term}.")
    return beliefs.networks[str(term)](beliefs.joined(term.left)[1], beliefs.joined(term.right)[1])


_ESTIMATORS: dict[str, tuple[Kind, Callable[[Information, Beliefs], Tensor]]] = {
    "rate": ("upper", _rate),
    "zero": ("lower", _zero),
    "distortion": ("lower", _distortion),
    "index_information": ("estimate", _index_information),
    "total_correlation": ("estimate", _total_correlation),
    "mine": ("estimate", _mine),
    "dependence": ("surrogate", _dependence),
}


class Penalty:
    """The weighted distance of a guide's distribution to a Bayesian network.

    Args:
        name: its terms are sites ``penalty/<name>/<term>``.
        inference: G^q, the guide's network.
        target: G^k, the wish.
        weight: beta, at least 0.
        form: "signed", the difference of eq. 1; or "conditional", a sum without minus signs. They are equal, and their terms
            can be bounded in different ways.
        estimators: for terms, as printed, the estimator to use: "rate" (an upper bound of what views tell of a latent), "zero" (a
            lower bound of anything), "distortion" (a lower bound, up to the data's entropy, of what latents tell of a view, if
            they are all that its decoder hears), "index_information", "total_correlation", "mine" (estimates), "dependence" (a
            surrogate, by MMD). The others take the first that suits: a rate; between latents a total correlation; and zero under
            a minus.

    Raises:
        ValueError: no estimator suits a term, or the one that is asked for does not; a term that is asked for does not occur; the
            weight is negative; or the form is neither.

    Example:
        >>> from pyzoo.infer import Variables
        >>> names = Variables(("x", "y"), shared=("z",))
        >>> joint = BayesianNetwork.parse("x, y -> z", names)
        >>> penalty = Penalty("cross", joint, BayesianNetwork.parse("x -> z -> y", names))
        >>> print(penalty)
        cross (an upper bound): + I(z; y | x) by rate (upper) - I(y; z) by zero (lower)
    """

    def __init__(
        self,
        name: str,
        inference: BayesianNetwork,
        target: BayesianNetwork,
        weight: float = 1.0,
        form: Literal["signed", "conditional"] = "signed",
        estimators: Mapping[str, str] | None = None,
    ) -> None:
        if not weight >= 0:
            raise ValueError(f"The weight of a penalty must be at least 0, got {weight}.")
        if form not in ("signed", "conditional"):
            raise ValueError(f"form is 'signed' or 'conditional', not '{form}'.")
        self.name = name
        self.inference = inference
        self.weight = weight
        plus, minus = signed_projection(inference, target) if form == "signed" else (projection(inference, target), [])
        signed = [(1, term) for term in plus] + [(-1, term) for term in minus]
        signed = [(sign, term) for sign, term in signed if not term.is_constant(inference.variables)]
        asked = dict(estimators or {})
        for text in asked:
            if text not in [str(term) for _, term in signed]:
                raise ValueError(f"There is no term {text} in '{name}': there are {', '.join(str(term) for _, term in signed)}.")
        self.terms = [(sign, term, self._estimator(sign, term, asked.get(str(term)))) for sign, term in signed]

    def _estimator(self, sign: int, term: Information, asked: str | None) -> str:
        suiting = [name for name in _ESTIMATORS if self._suits(name, sign, term)]
        if asked is None and suiting:
            return suiting[0]
        if asked in suiting:
            return asked
        side = "with a plus" if sign > 0 else "with a minus"
        what = f"the estimator '{asked}' does not suit" if asked else "no estimator suits"
        raise ValueError(f"In '{self.name}' {what} {term}, a term {side}; there suit: {', '.join(suiting) or 'none'}.")

    def _suits(self, estimator: str, sign: int, term: Information) -> bool:
        latents, observed = set(self.inference.variables.latents), set(self.inference.variables.observed)
        of_views = term.left <= latents and (term.right | term.given) <= observed
        # Where q(z | ...) is given fewer views than the guide's own, the bound does not hold.
        whole = of_views and all(set(self.inference.parents(name)) <= term.right | term.given for name in term.left)
        if estimator == "zero":
            return sign < 0
        if estimator == "distortion":
            return sign < 0 and len(term.left) == 1 and term.left <= observed and term.right <= latents and not term.given
        if estimator == "rate":
            return sign > 0 and whole
        if estimator == "index_information":
            return whole and not term.given
        return (term.left | term.right) <= latents and not term.given

    @property
    def is_bound(self) -> bool:
        """Whether it is an upper bound of the distance (less what is the data's own)."""
        return all(_ESTIMATORS[estimator][0] == ("upper" if sign > 0 else "lower") for sign, _, estimator in self.terms)

    @property
    def kind(self) -> Literal["upper bound", "estimate", "surrogate"]:
        """What it is of the distance."""
        if self.is_bound:
            return "upper bound"
        kinds = {_ESTIMATORS[estimator][0] for _, _, estimator in self.terms}
        return "surrogate" if "surrogate" in kinds else "estimate"

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of its terms' sites."""
        return tuple(f"penalty/{self.name}/{term}" for _, term, _ in self.terms)

    def values(self, beliefs: Beliefs) -> dict[str, Tensor]:
        """Its terms by their sites' names, weighted and with their signs, each a 0-dim tensor, per example."""
        values = (sign * self.weight * _ESTIMATORS[estimator][1](term, beliefs) for sign, term, estimator in self.terms)
        return dict(zip(self.sites, values, strict=True))

    def __str__(self) -> str:
        parts = [f"{'+' if sign > 0 else '-'} {term} by {name} ({_ESTIMATORS[name][0]})" for sign, term, name in self.terms]
        return f"{self.name} ({'a' if self.kind == 'surrogate' else 'an'} {self.kind}): {' '.join(parts) or '0'}"
