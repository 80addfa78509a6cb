"""D(q || G) against the least KL to a distribution of G that an optimizer finds, on normals and on tables."""

import pytest
import torch

from pyzoo.infer import BayesianNetwork, Information, Variables, projection, signed_projection

PAIR = Variables(("x", "y"), shared=("z",), private={"u": "x", "v": "y"})
ONE = Variables(("x",), shared=("z", "w"))
CASES = {
    "empty": (PAIR, "x, y -> z; x -> u; y -> v", ""),
    "cross": (PAIR, "x, y -> z; x -> u; y -> v", "x -> z -> y; x -> u; y -> v"),
    "generative": (PAIR, "x, y -> z; x -> u; y -> v", "z, u -> x; z, v -> y"),
    "private": (PAIR, "x, y -> z; x -> u; y -> v", "z, u -> x; x -> y; y -> v"),
    "marginal": (PAIR, "x, y -> z; x -> u", "x -> z; x -> u; x -> y"),
    "contained": (PAIR, "x, y -> z; x -> u; y -> v", "x, y -> z; x -> u -> v; y -> v; x -> y"),
    "one observed": (ONE, "x -> z, w", "z, w -> x"),
    "chain of latents": (ONE, "x -> z -> w", "x -> w; z -> x"),
}
cases = pytest.mark.parametrize("case", CASES)


def networks(case):
    variables, inference, target = CASES[case]
    return BayesianNetwork.parse(inference, variables), BayesianNetwork.parse(target, variables)


def least_kl(kl, parameters):
    """The least value of a function of parameters, by L-BFGS."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = kl()
        loss.backward()
        return loss

    optimizer.step(closure)
    return kl().item()


class Normals:
    """A random linear normal of a network, its informations by determinants, its least KL by an optimizer."""

    def __init__(self, network, seed):
        generator = torch.Generator().manual_seed(seed)
        self.names = network.order
        size = len(self.names)
        weights = torch.zeros(size, size, dtype=torch.float64)
        for parent, child in network.edges:
            weights[self.names.index(child), self.names.index(parent)] = torch.randn((), generator=generator, dtype=torch.float64)
        noise = torch.diag(torch.rand(size, generator=generator, dtype=torch.float64) + 0.3)
        mixing = torch.linalg.inv(torch.eye(size, dtype=torch.float64) - weights)
        self.covariance = mixing @ noise @ mixing.mT

    def entropy(self, names):
        index = [self.names.index(name) for name in names]
        return 0.5 * torch.logdet(self.covariance[index][:, index]).item() if index else 0.0

    def least_kl(self, target):
        index = [self.names.index(name) for name in target.order]
        covariance = self.covariance[index][:, index]
        allowed = torch.zeros_like(covariance)
        for parent, child in target.edges:
            allowed[target.order.index(child), target.order.index(parent)] = 1.0
        weights, log_noise = torch.zeros_like(covariance, requires_grad=True), torch.zeros(len(index), dtype=torch.float64)
        log_noise.requires_grad_()

        def kl():
            residual = torch.eye(len(index), dtype=torch.float64) - weights * allowed
            precision = residual.mT @ torch.diag(torch.exp(-log_noise)) @ residual
            return 0.5 * ((precision @ covariance).trace() - len(index) + log_noise.sum() - torch.logdet(covariance))

        return least_kl(kl, [weights, log_noise])


class Tables:
    """A random table of a network of variables with two or three values; likewise."""

    def __init__(self, network, seed):
        generator = torch.Generator().manual_seed(seed)
        self.names = network.variables.names
        self.sizes = [2 + index % 2 for index in range(len(self.names))]
        logits = [torch.randn(self._shape(network, name), generator=generator, dtype=torch.float64) for name in self.names]
        self.log_table = self._joint(network, [1.5 * part for part in logits])

    def _shape(self, network, name):
        kept = {name, *network.parents(name)}
        return [size if other in kept else 1 for other, size in zip(self.names, self.sizes, strict=True)]

    def _joint(self, network, logits):
        return sum(part.log_softmax(self.names.index(name)) for name, part in zip(self.names, logits, strict=True))

    def entropy(self, names):
        summed = [index for index, name in enumerate(self.names) if name not in names]
        table = self.log_table.exp().sum(summed) if summed else self.log_table.exp()
        return -(table * table.log()).sum().item()

    def least_kl(self, target):
        logits = [torch.zeros(self._shape(target, name), dtype=torch.float64, requires_grad=True) for name in self.names]
        return least_kl(lambda: (self.log_table.exp() * (self.log_table - self._joint(target, logits))).sum(), logits)


def value(term, q):
    """I(left; right | given) of a distribution whose entropies are known."""
    left, right, given = term.left, term.right, term.given
    return q.entropy(left | given) + q.entropy(right | given) - q.entropy(left | right | given) - q.entropy(given)


@cases
@pytest.mark.parametrize("kind", [Normals, Tables])
def test_terms_sum_to_the_least_kl(case, kind):
    inference, target = networks(case)
    for seed in range(3):
        q = kind(inference.with_observed_connected(), seed)
        exact = q.least_kl(target)
        terms = [value(term, q) for term in projection(inference, target)]
        plus, minus = ([value(term, q) for term in part] for part in signed_projection(inference, target))
        assert sum(terms) == pytest.approx(exact, abs=1e-6)
        assert sum(plus) - sum(minus) == pytest.approx(exact, abs=1e-6)
        assert min(terms, default=0.0) > -1e-9
        assert (exact < 1e-6) == (case == "contained")


@cases
def test_nothing_that_the_inference_network_makes_zero_is_left(case):
    inference, target = networks(case)
    q = Normals(inference.with_observed_connected(), seed=5)
    for term in projection(inference, target):
        assert value(term, q) > 1e-6, str(term)
        for other in term.right:
            assert value(Information(term.left, frozenset([other]), term.given | term.right - {other}), q) > 1e-9, str(term)


def test_the_empty_network_gives_the_original_objective():
    """Eq. 5: D(q || empty) is the multi-information, the sum of what each variable's parents tell of it."""
    inference, target = networks("empty")
    plus, minus = signed_projection(inference, target)
    assert [str(term) for term in plus] == ["I(y; x)", "I(z; x, y)", "I(u; x)", "I(v; y)"]
    assert minus == []
    assert [term.is_constant(PAIR) for term in plus] == [True, False, False, False]
    q = Normals(inference.with_observed_connected(), seed=1)
    multi = sum(q.entropy([name]) for name in PAIR.names) - q.entropy(PAIR.names)
    assert sum(value(term, q) for term in plus) == pytest.approx(multi)


def test_jmvaes_penalty_bounds_a_term_of_the_signed_sum():
    """KL(q(z | x, y) || q(z | x)) is at least I(z; y | x); the term with a minus is at least zero."""
    assert [str(term) for term in projection(*networks("cross"))] == ["I(y; x | z)"]
    plus, minus = signed_projection(*networks("cross"))
    assert [str(term) for term in plus if not term.is_constant(PAIR)] == ["I(z; y | x)"]
    assert [str(term) for term in minus] == ["I(y; z)"]


def test_without_the_observed_edges_eq_1_can_be_negative():
    """The misprint: leave out x -> y in G^q, and the signed sum is too small by I(x; y)."""
    inference, target = networks("cross")
    plus, minus = signed_projection(inference, target)
    q = Normals(inference.with_observed_connected(), seed=0)
    right = sum(value(term, q) for term in plus) - sum(value(term, q) for term in minus)
    printed = right - sum(value(term, q) for term in plus if term.is_constant(PAIR))
    assert right == pytest.approx(q.least_kl(target), abs=1e-6)
    assert right - printed == pytest.approx(value(Information.of("x", "y"), q))


def test_networks_over_different_variables():
    with pytest.raises(ValueError, match="different variables: x, y, z, u, v and x, z, w"):
        projection(BayesianNetwork(PAIR), BayesianNetwork(ONE))


def test_the_order_of_the_names_does_not_matter():
    inference, target = networks("generative")
    q = Normals(inference.with_observed_connected(), seed=2)
    values = []
    for observed in (("x", "y"), ("y", "x")):
        for private in ({"u": "x", "v": "y"}, {"v": "y", "u": "x"}):
            names = Variables(observed, PAIR.shared, private)
            pair = [BayesianNetwork(names, network.edges) for network in (inference, target)]
            values.append(sum(value(term, q) for term in projection(*pair)))
    assert max(values) - min(values) < 1e-9
