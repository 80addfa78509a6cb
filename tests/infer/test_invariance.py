"""IRM's penalty against torch's own derivatives, and the bound by prediction against a table of probabilities."""

import pyro.distributions as dist
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from pyzoo.infer import (
    BayesianNetwork,
    Beliefs,
    EnvironmentGain,
    GradientPenalty,
    Penalty,
    Prediction,
    Variables,
    environment_gain,
    gradient_penalty,
)

NAMES = Variables(("x", "y", "e"), shared=("z",))
Q = BayesianNetwork.parse("x, y, e -> z", NAMES)
OOD = BayesianNetwork.parse("x, e -> z -> y", NAMES)
TERM = "I(y; e, x | z)"


def examples(rows=41, classes=3, environments=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (rows,), generator=generator)
    environment = torch.randint(environments, (rows,), generator=generator)
    return logits, labels, environment


def by_hand(logits, labels, environment, counted=None):
    """The product of the derivatives on every other example of each environment, by automatic differentiation."""
    total = 0.0
    for e in range(int(environment.max()) + 1):
        rows = [i for i in range(len(labels)) if environment[i] == e and (counted is None or counted[i])]
        slopes = []
        for half in (rows[::2], rows[1::2]):
            w = torch.ones((), dtype=torch.float64, requires_grad=True)
            slopes.append(torch.autograd.grad(cross_entropy(w * logits[half], labels[half]), w)[0] if half else 0.0)
        total += slopes[0] * slopes[1]
    return total / (int(environment.max()) + 1)


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_penalty_is_the_one_of_automatic_differentiation(classes, some):
    logits, labels, environment = examples(classes=classes)
    counted = torch.rand(len(labels), generator=torch.Generator().manual_seed(1)) < 0.7 if some else None
    ours = gradient_penalty(logits, one_hot(labels, classes).double(), one_hot(environment, 2), counted)
    torch.testing.assert_close(ours, by_hand(logits, labels, environment, counted), rtol=0, atol=1e-10)
    moved = gradient_penalty(logits + 5.0, one_hot(labels, classes).double(), one_hot(environment, 2), counted)
    torch.testing.assert_close(ours, moved, rtol=0, atol=1e-10)  # of any offset


def test_the_gradient_of_the_penalty_is_the_one_of_automatic_differentiation():
    logits, labels, environment = examples()
    gradients = []
    for square in (
        lambda x: gradient_penalty(x, one_hot(labels, 3).double(), one_hot(environment, 2)),
        lambda x: twice_differentiated(x, labels, environment),
    ):
        x = logits.clone().requires_grad_()
        gradients.append(torch.autograd.grad(square(x), x)[0])
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)


def twice_differentiated(logits, labels, environment):
    total = 0.0
    for e in (0, 1):
        rows = (environment == e).nonzero().flatten()
        slopes = []
        for half in (rows[::2], rows[1::2]):
            w = torch.ones((), dtype=torch.float64, requires_grad=True)
            slopes.append(torch.autograd.grad(cross_entropy(w * logits[half], labels[half]), w, create_graph=True)[0])
        total = total + slopes[0] * slopes[1]
    return total / 2


def test_the_penalty_is_zero_where_the_scale_is_right_everywhere():
    """Labels drawn from the logits' own softmax: no scale is better, in any environment."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    labels = (torch.rand(200_000, generator=generator, dtype=torch.float64) < logits.softmax(-1)[:, 1]).long()
    environment = torch.arange(200_000) % 2
    good, bad = (
        gradient_penalty(scale * logits, one_hot(labels, 2).double(), one_hot(environment, 2)).item() for scale in (1.0, 3.0)
    )
    assert abs(good) < 1e-4 < 0.1 < bad


def classifier(classes=3, features=2, rows=60):
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(rows, features, generator=generator, dtype=torch.float64)
    weights = torch.randn(classes, features + 1, generator=generator, dtype=torch.float64)
    labels, environment = torch.randint(classes, (rows,), generator=generator), torch.arange(rows) // 2 % 2
    return z, weights, labels, environment


def logits_of(weights, z):
    return z @ weights[:, :-1].mT + weights[:, -1]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_gain_is_newtons_by_automatic_differentiation(classes):
    """The weights of all classes but the first, whose own are redundant."""
    z, weights, labels, environment = classifier(classes)

    def risk(free, rows):
        full = torch.cat([weights[:1], free.view(classes - 1, -1)])
        return cross_entropy(logits_of(full, z[rows]), labels[rows])

    free = weights[1:].flatten()
    hessian = torch.autograd.functional.hessian(lambda w: risk(w, range(60)), free)
    hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(free), dtype=torch.float64)
    expected = 0.0
    for e in (0, 1):
        rows = (environment == e).nonzero().flatten()
        first, second = (torch.autograd.functional.jacobian(lambda w, r=r: risk(w, r), free) for r in (rows[::2], rows[1::2]))
        expected = expected + 0.5 * first @ torch.linalg.solve(hessian, second) / 2
    one = [one_hot(labels, classes).double(), one_hot(environment, 2)]
    found = environment_gain(logits_of(weights, z), z, *one, damping=0.01)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_the_gain_is_the_same_for_every_affine_map_of_z():
    z, weights, labels, environment = classifier()
    one = [one_hot(labels, 3).double(), one_hot(environment, 2)]
    a = torch.tensor([[2.0, 0.3], [-0.5, 0.7]], dtype=torch.float64)
    logits = logits_of(weights, z)
    ours, moved = (environment_gain(logits, x, *one, damping=0.0) for x in (z, z @ a + 5.0))
    torch.testing.assert_close(ours, moved)


def test_the_gain_is_near_what_classifiers_of_their_own_gain():
    """Labels whose log-odds depend a little on the environment: the gain of the best classifiers, less what both overfit."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(400_000, 1, generator=generator, dtype=torch.float64)
    environment = torch.arange(400_000) % 2
    slope = torch.tensor([0.8, 1.2], dtype=torch.float64)[environment]
    labels = (torch.rand(400_000, generator=generator, dtype=torch.float64) < (slope * z[:, 0]).sigmoid()).long()

    def fitted(rows):
        w = torch.zeros(2, dtype=torch.float64)
        for _ in range(20):
            x = torch.nn.functional.pad(z[rows], (0, 1), value=1.0)
            p = (x @ w).sigmoid()
            w = w - torch.linalg.solve((x * (p * (1 - p))[:, None]).mT @ x, x.mT @ (p - labels[rows]))
        logits = torch.nn.functional.pad((x @ w)[:, None], (1, 0))
        return logits, cross_entropy(logits, labels[rows]).item()

    common, loss = fitted(slice(None))
    own = sum(fitted(environment == e)[1] for e in (0, 1)) / 2
    found = environment_gain(common, z, one_hot(labels, 2).double(), one_hot(environment, 2)).item()
    assert found == pytest.approx(loss - own, rel=0.1)


class Label(torch.nn.Module):
    """p(y | z), whose logits are z."""

    network = BayesianNetwork.parse("z -> x, y", NAMES)

    def likelihood(self, view, latents):
        assert view == "y"
        return dist.OneHotCategorical(logits=latents["z"])


class SomeBeliefs(Beliefs):
    def complete(self, names):
        return torch.tensor([True, False, True]) if "y" in names else None


def beliefs_of(kind=Beliefs, scale=1e-9):
    views = {"x": torch.zeros(3, 1), "y": torch.eye(3)[[0, 1, 2]][:, :2].clone(), "e": torch.eye(2)[[0, 1, 0]]}
    views["y"][2] = torch.tensor([0.0, 1.0])
    q = dist.Normal(torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.5, 3.0]]), scale)
    return kind({"z": q.sample()}, {("x",): {"z": q}, ("x", "y", "e"): {"z": q}}, views)


def test_a_prediction_is_the_cross_entropy_of_the_label():
    """And no bound: here the label takes part in inferring z. If y = x xor z with x and y fair coins, I(y; x | z) is log 2, while
    a z that is drawn given x alone, another coin, costs H(y | z) - H(y | x) = 0."""
    penalty = Penalty("ood", Q, OOD, 2.0, "conditional", {TERM: Prediction(Label(), ["x"])})
    assert penalty.kind == "estimate"
    assert [str(term) for _, term, _ in penalty.terms] == [TERM]
    (value,) = penalty.values(beliefs_of()).values()
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.5, 3.0]])
    torch.testing.assert_close(value, 2 * cross_entropy(logits, torch.tensor([0, 1, 1])))
    (some,) = penalty.values(beliefs_of(SomeBeliefs)).values()
    torch.testing.assert_close(some, 2 * cross_entropy(logits[[0, 2]], torch.tensor([0, 1]), reduction="mean"))


def test_a_label_that_is_not_there_is_refused():
    found = beliefs_of()
    found.views.pop("y")
    with pytest.raises(ValueError, match="There is no view 'y' to estimate an information from"):
        Penalty("ood", Q, OOD, 2.0, "conditional", {TERM: Prediction(Label(), ["x"])}).values(found)


def test_the_gain_of_beliefs_is_the_function():
    penalty = Penalty("stable", Q, OOD, 3.0, "conditional", {TERM: EnvironmentGain(Label(), ["x"], "e")})
    found = beliefs_of()
    (value,) = penalty.values(found).values()
    logits = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.5, 3.0]])
    expected = environment_gain(logits, logits, found.views["y"], found.views["e"])
    torch.testing.assert_close(value, 3 * expected, rtol=1e-4, atol=1e-5)


def test_the_penalty_of_beliefs_is_the_function():
    penalty = Penalty("stable", Q, OOD, 3.0, "conditional", {TERM: GradientPenalty(Label(), ["x"], "e")})
    assert penalty.kind == "surrogate"
    for kind, counted in ((Beliefs, None), (SomeBeliefs, torch.tensor([True, False, True]))):
        found = beliefs_of(kind)
        (value,) = penalty.values(found).values()
        logits = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.5, 3.0]])
        torch.testing.assert_close(value, 3 * gradient_penalty(logits, found.views["y"], found.views["e"], counted))


def test_estimators_that_do_not_suit():
    other = BayesianNetwork.parse("x -> z", NAMES)
    for estimator in (Prediction(Label(), ["x"]), GradientPenalty(Label(), ["x"], "e")):
        with pytest.raises(ValueError, match="does not suit"):
            Penalty("sufficient", Q, other, estimators={"I(z; e, y | x)": estimator})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.zeros(4, 3)}, "labels must be"),
        ({"environments": torch.zeros(3, 2)}, "environments must be"),
        ({"logits": torch.zeros(4)}, "logits must be"),
        ({"counted": torch.ones(3, dtype=torch.bool)}, "counted must be"),
    ],
)
def test_shapes_that_differ(change, message):
    arguments = {"logits": torch.zeros(4, 2), "labels": torch.zeros(4, 2), "environments": torch.zeros(4, 2)}
    with pytest.raises(ValueError, match=message):
        gradient_penalty(**{**arguments, **change})
