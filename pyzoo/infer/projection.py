r"""How far a distribution is from a Bayesian network: the M-projection, as informations that can be estimated.

.. math:: D(q \| G) = \min_{p \models G} \mathrm{KL}(q \| p)

Sources: Friedman, Mosenzon, Slonim and Tishby (2001), "Multivariate Information Bottleneck"; Zhang, Koyama and Ishiguro (2020),
eq. 1. The latter's sums omit the edges among observed variables in G^q, and then can come out negative; here all are there.
"""

import dataclasses
from collections.abc import Iterable

from pyzoo.checks import require_kind, require_names_of
from pyzoo.infer.network import BayesianNetwork, Variables

__all__ = ["Information", "projection", "signed_projection"]


@dataclasses.dataclass(frozen=True)
class Information:
    """I(left; right | given), in nats: what two sets of variables tell of each other beyond a third.

    Example:
        >>> str(Information.of("z", ["x", "y"], "u"))
        'I(z; x, y | u)'
    """

    left: frozenset[str]
    right: frozenset[str]
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("left", "right", "given"):
            require_kind(getattr(self, name), name, frozenset)

    @classmethod
    def of(cls, left: Iterable[str], right: Iterable[str], given: Iterable[str] = ()) -> "Information":
        """From any collections of names."""
        sides = [[names] if isinstance(names, str) else names for names in (left, right, given)]  # a text is one name
        for names, name in zip(sides, ("left", "right", "given"), strict=True):
            require_names_of(names, name)
        return cls(*map(frozenset, sides))

    def is_constant(self, variables: Variables) -> bool:
        """Whether it is of observed variables alone: the data's, and nothing that training moves."""
        return (self.left | self.right | self.given) <= set(variables.observed)

    def __str__(self) -> str:
        left, right, given = (", ".join(sorted(names)) for names in (self.left, self.right, self.given))
        return f"I({left}; {right} | {given})" if given else f"I({left}; {right})"


def projection(inference: BayesianNetwork, target: BayesianNetwork) -> list[Information]:
    r"""D(q || G) for q consistent with an inference network, as a sum of conditional informations, none of which is negative.

    .. math:: D(q \| G) = \sum_v I(v; \text{earlier}(v) \setminus Pa_v \mid Pa_v)

    in an order of G in which parents come first. What the inference network makes zero is left out.

    Args:
        inference: G^q; its observed variables may depend on each other in any way, whatever its edges say.
        target: G, over the same variables.

    Raises:
        ValueError: the networks are over different variables.

    Example:
        >>> names = Variables(("x", "y"), shared=("z",))
        >>> joint = BayesianNetwork.parse("x, y -> z", names)
        >>> [str(term) for term in projection(joint, BayesianNetwork.parse("x -> z -> y", names))]
        ['I(y; x | z)']
    """
    q = _connected(inference, target)
    terms = []
    for place, name in enumerate(target.order):
        parents = set(target.parents(name))
        others = [other for other in target.order[:place] if other not in parents]
        for other in list(others):
            rest = [one for one in others if one != other]
            if q.separates([name], [other], {*parents, *rest}):  # it adds nothing to what the rest tells
                others = rest
        if others:
            terms.append(Information.of([name], others, parents))
    return terms


def signed_projection(inference: BayesianNetwork, target: BayesianNetwork) -> tuple[list[Information], list[Information]]:
    r"""D(q || G) as a difference of informations, those of the inference network and those of the target (eq. 1).

    .. math:: D(q \| G) = \sum_v I(v; Pa_v^{G^q}) - \sum_v I(v; Pa_v^{G})
        = \sum_v I(v; A_v \mid C_v) - \sum_v I(v; B_v \mid C_v)

    where C_v are the parents that v has in both, and A_v and B_v those that it has in one.

    Args:
        inference: G^q; its observed variables may depend on each other in any way, whatever its edges say.
        target: G, over the same variables.

    Returns:
        The terms with a plus, and those with a minus.

    Raises:
        ValueError: the networks are over different variables.

    Example:
        >>> names = Variables(("x", "y"), shared=("z",))
        >>> joint = BayesianNetwork.parse("x, y -> z", names)
        >>> plus, minus = signed_projection(joint, BayesianNetwork.parse("x -> z -> y", names))
        >>> [str(term) for term in plus], [str(term) for term in minus]
        (['I(y; x)', 'I(z; y | x)'], ['I(y; z)'])
    """
    q = _connected(inference, target)
    plus, minus = [], []
    for name in q.variables.names:
        in_q, in_target = set(q.parents(name)), set(target.parents(name))
        common = in_q & in_target
        if in_q - common:
            plus.append(Information.of([name], in_q - common, common))
        if in_target - common:
            minus.append(Information.of([name], in_target - common, common))
    return plus, minus


def _connected(inference: BayesianNetwork, target: BayesianNetwork) -> BayesianNetwork:
    """G^q with its observed variables connected, in the target's order, in which most of it cancels."""
    require_kind(inference, "inference", BayesianNetwork)
    require_kind(target, "target", BayesianNetwork)
    if inference.variables != target.variables:
        raise ValueError(
            f"The networks are over different variables: {', '.join(inference.variables.names)} and "
            f"{', '.join(target.variables.names)}."
        )
    return inference.with_observed_connected(target.order)
