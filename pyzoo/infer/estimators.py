"""Estimators of the informations that penalties are made of, each one class.

Your own estimator has the three members of :class:`Estimator`, and is handed to a :class:`pyzoo.infer.Penalty`.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pyzoo.checks import require_kind, require_names
from pyzoo.infer.beliefs import Beliefs
from pyzoo.infer.information import MINE, dependence, distortion, index_information, rate, total_correlation
from pyzoo.infer.network import BayesianNetwork
from pyzoo.infer.projection import Information

__all__ = [
    "BY_NAME",
    "Dependence",
    "Distortion",
    "Estimator",
    "IndexInformation",
    "Kind",
    "LearnedInformation",
    "Rate",
    "TotalCorrelation",
    "Zero",
]

Kind = Literal["upper", "lower", "estimate", "surrogate"]
"""What an estimator is of an information: a bound from above or below, near it, or zero where it is zero."""


@runtime_checkable
class Estimator(Protocol):
    """Estimates an information from what a guide infers from a batch."""

    kind: Kind

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        """Whether it can stand for a term with a plus (1) or a minus (-1), under an inference network."""

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        """The estimate, 0-dim, in nats per example, or in any unit if it is a surrogate."""


def is_of_views(term: Information, q: BayesianNetwork) -> bool:
    """Whether a term is the information of all of a latent's views: with fewer, q(z | ...) is another than the guide's."""
    names = q.variables
    of_views = term.left <= set(names.latents) and (term.right | term.given) <= set(names.observed)
    return of_views and all(set(q.parents(name)) <= term.right | term.given for name in term.left)


def is_between_latents(term: Information, q: BayesianNetwork) -> bool:
    """Whether a term is the unconditional information between latents."""
    return (term.left | term.right) <= set(q.variables.latents) and not term.given


class Rate:
    """:func:`pyzoo.infer.rate`: an upper bound of the information of views about latents."""

    kind: Kind = "upper"

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        return sign > 0 and is_of_views(term, q)

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        # An example that lacks a view of x_S has nothing to say of what the rest adds to x_S.
        wide, narrow = beliefs.given(term.right | term.given), beliefs.given(term.given)
        require_names(sorted(term.left), wide, "latent")
        return sum(rate(wide[name], narrow[name], beliefs.complete(term.given)) for name in sorted(term.left))


class Zero:
    """A lower bound of any information."""

    kind: Kind = "lower"

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        return sign < 0

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        return next(iter(beliefs.draws.values())).new_zeros(())


class IndexInformation:
    """:func:`pyzoo.infer.index_information`: an estimate of the information of views about latents.

    Args:
        dataset_size: as in :func:`pyzoo.infer.aggregate_log_prob`.
    """

    kind: Kind = "estimate"

    def __init__(self, dataset_size: int | None = None) -> None:
        self.dataset_size = dataset_size

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        return is_of_views(term, q) and not term.given

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        return index_information(*beliefs.joined(term.left), self.dataset_size)


class TotalCorrelation:
    """:func:`pyzoo.infer.total_correlation`: an estimate of the information between latents.

    Args:
        dataset_size: as in :func:`pyzoo.infer.aggregate_log_prob`.
    """

    kind: Kind = "estimate"

    def __init__(self, dataset_size: int | None = None) -> None:
        self.dataset_size = dataset_size

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        return is_between_latents(term, q)

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        q, z = beliefs.joined(term.left | term.right)
        owner = [name for name in sorted(term.left | term.right) for _ in range(beliefs.draws[name].shape[-1])]
        groups = [[i for i, name in enumerate(owner) if name in side] for side in (term.left, term.right)]
        return total_correlation(q, z, groups, self.dataset_size)


class Dependence:
    """:func:`pyzoo.infer.dependence`: a surrogate of the information between latents, by MMD."""

    kind: Kind = "surrogate"

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        return is_between_latents(term, q)

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        return dependence(beliefs.joined(term.left)[1], beliefs.joined(term.right)[1])


class Distortion:
    """:func:`pyzoo.infer.distortion`: a lower bound, up to the data's entropy, of the information of latents about a view.

    Args:
        model: the generative program, with its ``network`` and ``likelihood(view, latents)``. The latents of a term must be all
            parents of the view.
    """

    kind: Kind = "lower"

    def __init__(self, model: Any) -> None:
        self.model = model

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        names = q.variables
        of_view = len(term.left) == 1 and term.left <= set(names.observed) and term.right <= set(names.latents)
        return sign < 0 and of_view and not term.given and term.right == set(self.model.network.parents(*term.left))

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        (view,) = term.left
        p, complete = self.model.likelihood(view, beliefs.draws), beliefs.complete(term.left)
        x = beliefs.examples(view, complete, lambda: p.mean.detach())
        if complete is not None:  # what stands in absent rows must not reach a gradient, not even times zero
            x = torch.where(complete.view(-1, *(1,) * (x.dim() - 1)), x, torch.zeros_like(x))
        return -distortion(p, x, complete)


class LearnedInformation(nn.Module):
    """:class:`pyzoo.infer.MINE`: an estimate of the information between latents by a network.

    No gradient of the penalty reaches the network: it is trained by an objective of its own, which makes :meth:`learn` large.

    Args:
        term: the information.
        dims: dimensions of each latent, by name.
    """

    kind: Kind = "estimate"

    def __init__(self, term: Information, dims: Mapping[str, int]) -> None:
        super().__init__()
        require_kind(term, "term", Information)
        require_kind(dims, "dims", Mapping)
        require_names(term.left | term.right, dims, "latent")
        self.term = term
        self.mine: MINE = MINE(*(sum(dims[name] for name in side) for side in (term.left, term.right)))

    def suits(self, sign: int, term: Information, q: BayesianNetwork) -> bool:
        return term == self.term and is_between_latents(term, q)

    def estimate(self, term: Information, beliefs: Beliefs) -> Tensor:
        frozen = {name: value.detach() for name, value in self.mine.named_parameters()}
        sides = tuple(beliefs.joined(side)[1] for side in (term.left, term.right))
        return torch.func.functional_call(self.mine, frozen, sides)

    def learn(self, draws: Mapping[str, Tensor]) -> Tensor:
        """The estimate from draws of the latents by name, with a gradient for the network."""
        require_names(self.term.left | self.term.right, draws, "latent")
        return self.mine(*(torch.cat([draws[name] for name in sorted(side)], -1) for side in (self.term.left, self.term.right)))


BY_NAME: dict[str, type] = {
    "rate": Rate,
    "zero": Zero,
    "index_information": IndexInformation,
    "total_correlation": TotalCorrelation,
    "dependence": Dependence,
}
"""Estimators without arguments; of those that suit a term the first is taken by default."""
