r"""A penalty on the posterior: its distance to the Bayesian network that it should obey, term by term.

.. math:: \beta\, D(q \| G^k) = \beta \Bigl(\sum_{t} I_t - \sum_{s} I_s\Bigr)

Each information is replaced by an estimator of it, and the penalty states what that makes of the whole: a bound only if all
its terms with a plus are bounded from above, and those with a minus from below.

Source: Zhang, Koyama and Ishiguro (2020), eqs. 7 and 8 and section 3.5.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import require_count, require_kind, require_number
from pyzoo.infer.beliefs import Beliefs
from pyzoo.infer.estimators import BY_NAME, Estimator
from pyzoo.infer.network import BayesianNetwork
from pyzoo.infer.projection import Information, projection, signed_projection
from pyzoo.settings import AtLeast

__all__ = ["Penalized", "Penalty"]


class Penalty:
    """The weighted distance of a guide's distribution to a Bayesian network.

    Args:
        name: its terms are sites ``penalty/<name>/<term>``.
        inference: G^q, the guide's network.
        target: G^k, the network that q should obey.
        weight: beta, at least 0.
        form: "signed", the difference of eq. 1; or "conditional", a sum without minus signs. They are equal, and their terms
            can be bounded in different ways.
        estimators: for terms, as printed, the estimator to use, an :class:`~pyzoo.infer.estimators.Estimator` or the name of one
            without arguments: "rate", "zero", "index_information", "total_correlation", "dependence". The others take the
            first that suits: a rate; between latents a total correlation; and zero under a minus.

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
        estimators: Mapping[str, str | Estimator] | None = None,
    ) -> None:
        require_kind(name, "name", str)
        if not name:
            raise ValueError("A penalty needs a name.")
        require_number(weight, "The weight of a penalty", AtLeast(0))
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
        self.terms: list[tuple[int, Information, Estimator]] = [
            (sign, term, self._estimator(sign, term, asked.get(str(term)))) for sign, term in signed
        ]

    def _estimator(self, sign: int, term: Information, asked: str | Estimator | None) -> Estimator:
        require_kind(asked, f"the estimator of {term}", str, Estimator, type(None))
        if isinstance(asked, type):
            raise ValueError(f"The estimator of {term} must be an instance, such as {asked.__name__}(), got the class.")
        suiting = {name: kind() for name, kind in BY_NAME.items() if kind().suits(sign, term, self.inference)}
        if asked is None and suiting:
            return next(iter(suiting.values()))
        if isinstance(asked, str):
            found = suiting.get(asked)
        else:
            found = asked if asked is not None and asked.suits(sign, term, self.inference) else None
        if found is not None:
            return found
        side = "with a plus" if sign > 0 else "with a minus"
        what = f"the estimator '{_name(asked)}' does not suit" if asked is not None else "no estimator suits"
        names = ", ".join(suiting) or "none"
        raise ValueError(f"In '{self.name}' {what} {term}, a term {side}; suitable without arguments: {names}.")

    @property
    def estimators(self) -> list[Estimator]:
        """The estimators of its terms."""
        return [estimator for _, _, estimator in self.terms]

    @property
    def is_bound(self) -> bool:
        """Whether it is an upper bound of the distance (less what is the data's own)."""
        return all(estimator.kind == ("upper" if sign > 0 else "lower") for sign, _, estimator in self.terms)

    @property
    def kind(self) -> Literal["upper bound", "estimate", "surrogate"]:
        """What it is of the distance."""
        if self.is_bound:
            return "upper bound"
        return "surrogate" if any(estimator.kind == "surrogate" for estimator in self.estimators) else "estimate"

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of its terms' sites."""
        return tuple(f"penalty/{self.name}/{term}" for _, term, _ in self.terms)

    def values(self, beliefs: Beliefs, share: float | Tensor = 1.0) -> dict[str, Tensor]:
        """Its terms by their sites' names, weighted and with their signs, each a 0-dim tensor, per example.

        Args:
            beliefs: what the guide infers from the batch.
            share: of its weight.
        """
        require_kind(beliefs, "beliefs", Beliefs)
        if not isinstance(share, Tensor):
            require_number(share, "share", AtLeast(0))
        values = (sign * self.weight * share * estimator.estimate(term, beliefs) for sign, term, estimator in self.terms)
        return dict(zip(self.sites, values, strict=True))

    def factor(self, beliefs: Beliefs, rows: int, share: float | Tensor = 1.0) -> None:
        """Adds its terms to a guide as factors; call it at the end of the guide.

        Args:
            beliefs: what the guide infers from the batch.
            rows: number of examples in the batch. Pyro sums over the batch, and a penalty is per example.
            share: of its weight.

        Example:
            >>> from pyzoo.infer import Variables
            >>> names = Variables(("x",), private={"u": "x"})
            >>> q = BayesianNetwork.parse("x -> u", names)
            >>> penalty = Penalty("beta", q, BayesianNetwork(names), weight=3.0)
            >>> def guide(x):
            ...     with pyro.plate("data", len(x)):
            ...         belief = dist.Normal(x, 1.0)
            ...         u = pyro.sample("u", belief.to_event(1))
            ...     penalty.factor(Beliefs({"u": u}, {("x",): {"u": belief}}), rows=len(x))
            >>> guide(torch.zeros(5, 2))
        """
        require_count(rows, "rows")
        for site, value in self.values(beliefs, share).items():
            # A guide's factor is subtracted from the ELBO, so that it adds to the loss.
            pyro.factor(site, rows * value, has_rsample=True)

    def __str__(self) -> str:
        parts = [f"{'+' if s > 0 else '-'} {term} by {_name(e)} ({e.kind})" for s, term, e in self.terms]
        return f"{self.name} ({'a' if self.kind == 'surrogate' else 'an'} {self.kind}): {' '.join(parts) or '0'}"


def _name(estimator: Any) -> str:
    """What an estimator is called."""
    if isinstance(estimator, str):
        return estimator
    names = {kind: name for name, kind in BY_NAME.items()}
    return names.get(type(estimator), type(estimator).__name__)


def _share_name(penalty: Penalty) -> str:
    return f"share_{penalty.name.replace('.', '_')}"  # torch allows no dots


class Penalized(PyroModule):
    """A guide with penalties: runs the guide, and adds each penalty's terms as factors.

    The guide returns its :class:`Beliefs` and knows nothing of penalties. Likelihoods and bounds take the bare guide. For each
    penalty a buffer, ``share_<name>``, is the share of its weight that it has: 1, unless a schedule moves it.

    Args:
        guide: the inference program.
        penalties: of the guide's network.

    Raises:
        ValueError: a penalty is of another network than the guide's, or two have one name.
    """

    def __init__(self, guide: Any, penalties: Sequence[Penalty]) -> None:
        super().__init__("guide")
        require_kind(guide, "guide", Callable)
        require_kind(penalties, "penalties", Sequence)
        network, seen = getattr(guide, "network", None), set()
        for penalty in penalties:
            require_kind(penalty, "each penalty", Penalty)
            if network is not None and penalty.inference != network:  # what bounds a distance of another q bounds nothing here
                raise ValueError(
                    f"The penalty '{penalty.name}' is of the network '{penalty.inference}', the guide's is '{network}'."
                )
            if _share_name(penalty) in seen:
                raise ValueError(f"There are two penalties '{penalty.name}', or two whose names differ by dots alone.")
            seen.add(_share_name(penalty))
            self.register_buffer(_share_name(penalty), torch.ones(()), persistent=False)
        self.guide = guide
        self.penalties: list[Penalty] = list(penalties)
        networks = [e for penalty in penalties for e in penalty.estimators if isinstance(e, nn.Module)]
        self.estimators: nn.ModuleList = nn.ModuleList(networks)

    def forward(self, *args: Any, **kwargs: Any) -> Beliefs:
        """Runs the guide on its arguments, and adds the penalties."""
        beliefs = self.guide(*args, **kwargs)
        require_kind(beliefs, "What a guide with penalties returns", Beliefs)
        for penalty in self.penalties:
            penalty.factor(beliefs, beliefs.rows, getattr(self, _share_name(penalty)))
        return beliefs
