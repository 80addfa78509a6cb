"""Both estimators of the gates' gradient against all graphs, enumerated, with everything but the gates fixed.

From data alone the graph is not identified, since a fuller graph contains every sparser one. So the networks are first trained
under a known graph; the edges outside it keep the random weights that they began with, and can only do harm.
"""

import copy
import itertools

import pytest
import torch

from pyzoo.infer import NegativeELBO, TracedStep
from pyzoo.models.graph_vae import Gates
from tiny import graph

NODES = 4
KNOWN = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]  # edges 2-1, 3-1, 3-2, 4-1, 4-2, 4-3
PARTICLES = 4


@pytest.fixture(scope="module")
def trained():
    """Recipe, module trained under the known graph, and images."""
    torch.manual_seed(0)
    recipe = graph(nodes=NODES, latent_dim=2 * NODES, widths=(64, 32), hidden_dim=16, held_out=0.0)
    gates = Gates(NODES)
    with torch.no_grad():
        gates.logits.copy_(10 * (2 * torch.tensor(KNOWN) - 1))
    gates.settle(0.01)
    model, guide = recipe.programs()
    model.gates = guide.gates = gates
    module = NegativeELBO(model, guide)
    with torch.no_grad():
        for network in module.model.top_down.values():
            network.hidden[0].weight *= 3  # so that what stays random does harm
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    source, gradients = recipe.source(torch.device("cpu")), TracedStep(module)
    for step in range(400):
        gradients(source.batch(step, 64))
        optimizer.step()
    return module.eval(), source.batch(1000, 64)["x"]


def with_gates(module, estimator="relaxed", logits=None, temperature=1.0):
    """A copy of the module with fresh gates, which alone can be trained, and alone are in training mode."""
    gates = Gates(NODES, estimator=estimator, temperature=temperature)
    if logits is not None:
        with torch.no_grad():
            gates.logits.copy_(logits)
    fresh = copy.deepcopy(module).requires_grad_(False)
    fresh.model.gates = fresh.guide.gates = gates
    fresh.elbo.num_particles = PARTICLES if estimator == "hard" else 1
    return fresh, gates


GRAPHS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(KNOWN))))


@pytest.fixture(scope="module")
@torch.no_grad()
def enumerated(trained, repeats=10):
    """The loss of each graph, in nats per image, with the same noise for all."""
    module, x = trained
    fixed, gates = with_gates(module)
    gates.eval()
    losses = torch.zeros(len(GRAPHS))
    for index, edges in enumerate(GRAPHS):
        gates.logits.copy_(2 * edges - 1)
        torch.manual_seed(1)
        losses[index] = fixed(x=x.repeat(repeats, 1, 1, 1))[0]
    return losses


def estimates(step, x, gates, count, temperature=1.0):
    """Gradients of the gates' logits, (count, edges)."""
    gates.temperature.fill_(temperature)
    found = []
    for _ in range(count):
        step({"x": x})
        found.append(gates.logits.grad)
    return torch.stack(found)


LOGITS = torch.tensor([0.3, -0.2, 0.5, -0.4, 0.1, 0.2])


@pytest.fixture(scope="module")
def exact(enumerated):
    """The gradient of the expected loss over all graphs."""
    logits = LOGITS.clone().requires_grad_()
    probabilities = torch.distributions.Bernoulli(logits=logits).log_prob(GRAPHS).sum(1).exp()
    return torch.autograd.grad((probabilities * enumerated).sum(), logits)[0]


def test_the_known_graph_has_the_best_bound(enumerated):
    assert GRAPHS[enumerated.argmin()].tolist() == KNOWN


@pytest.mark.slow
def test_the_score_functions_mean_is_the_enumerated_gradient(trained, exact):
    torch.manual_seed(2)
    module, x = trained
    fresh, gates = with_gates(module, "hard", LOGITS)
    found = estimates(TracedStep(fresh), x, gates, 400)
    assert ((found.mean(0) - exact).abs() < 4.5 * found.std(0) / 400**0.5 + 0.003).all()


@pytest.mark.slow
def test_the_relaxed_gradients_mean_goes_to_the_enumerated_one_as_the_temperature_falls(trained, exact):
    torch.manual_seed(2)
    module, x = trained
    fresh, gates = with_gates(module, "relaxed", LOGITS)
    step, errors = TracedStep(fresh), []
    for temperature, count in ((1.0, 300), (0.3, 300), (0.05, 1200)):
        found = estimates(step, x, gates, count, temperature)
        errors.append((found.mean(0) - exact).norm().item())
    assert errors[0] > errors[1]
    assert errors[0] > 2 * errors[2]
    assert ((found.mean(0) - exact).abs() < 4.5 * found.std(0) / count**0.5 + 0.003).all()


@pytest.mark.parametrize(("estimator", "steps"), [("relaxed", 120), pytest.param("hard", 250, marks=pytest.mark.slow)])
def test_both_estimators_find_the_best_graph(trained, enumerated, estimator, steps):
    module, x = trained
    best = GRAPHS[enumerated.argmin()]
    fresh, gates = with_gates(module, estimator)
    start, step, found = gates.logits.detach().clone(), TracedStep(fresh), 0
    for seed in range(4):
        torch.manual_seed(seed)
        gates.logits.data.copy_(start)
        optimizer = torch.optim.Adam([gates.logits], lr=0.1)
        for index in range(steps):
            gates.temperature.fill_(max(0.1, 0.98**index))
            step({"x": x})
            optimizer.step()
        found += torch.equal(gates.most_likely()[tuple(torch.tril_indices(NODES, NODES, -1))], best)
    assert found >= 3
