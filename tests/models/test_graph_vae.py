import math

import pyro
import pytest
import torch
from pyro.infer import SVI, TraceGraph_ELBO
from torch import nn

from pyzoo.guides.graph_vae import GraphVAEGuide, fuse, graph_vae_guide
from pyzoo.infer import NegativeELBO, TraceKL_ELBO, log_likelihood
from pyzoo.models.graph_vae import Gates, GraphVAE, graph_vae
from pyzoo.testing import check_elbo, check_svi

SHAPE = (1, 4, 4)
STRUCTURES = ("learned", "full", "chain", "none")
structures = pytest.mark.parametrize("structure", STRUCTURES)


def pair(structure="learned", nodes=3, likelihood="bernoulli", estimator="relaxed", **changes):
    gates = Gates(nodes, structure, estimator)
    model = graph_vae(gates, node_dim=2, x_shape=SHAPE, hidden_dim=6, decoder_widths=(8,), likelihood=likelihood)
    guide = graph_vae_guide(gates, node_dim=2, x_shape=SHAPE, hidden_dim=6, encoder_widths=(8,), feature_dim=5, **changes)
    return model, guide


def images(size=7, seed=0):
    return torch.rand(size, *SHAPE, generator=torch.Generator().manual_seed(seed)).round()


def count(*modules):
    return sum(p.numel() for p in {p for module in modules for p in module.parameters()})


# Sizes and structure --------------------------------------------------------------------------------------------------


def test_sizes_of_appendix_b():
    gates = Gates(5)
    model, guide = graph_vae(gates), graph_vae_guide(gates)
    linear = lambda i, o: i * o + o  # noqa: E731
    hidden = lambda i, o: linear(i, o) + 2 * o  # noqa: E731  batch norm's scale and shift
    heads = linear(128, 16) + 2 * linear(16, 16)
    top_down = sum(hidden(16 * parents, 128) + heads for parents in (1, 2, 3, 4))
    decoder = hidden(80, 256) + hidden(256, 512) + hidden(512, 512) + linear(512, 784)
    encoder = hidden(784, 512) + hidden(512, 512) + hidden(512, 256) + linear(256, 128)
    bottom_up = 5 * (hidden(128, 128) + heads)
    assert count(model) == top_down + decoder + 10
    assert count(guide) == encoder + bottom_up + top_down + 10
    assert count(model, guide) == count(model) + count(guide) - 10  # the gates are one


@structures
def test_possible_parents(structure):
    gates = Gates(4, structure)
    above = {"learned": {0: [1, 2, 3], 1: [2, 3], 2: [3], 3: []}, "chain": {0: [1], 1: [2], 2: [3], 3: []}}
    above |= {"full": above["learned"], "none": {n: [] for n in range(4)}}
    assert {node: gates.parents(node) for node in range(4)} == above[structure]
    assert (len(list(gates.parameters())) == 1) == (structure == "learned")


@structures
def test_generates(structure):
    model, _ = pair(structure)
    assert model(size=6).shape == (6, *SHAPE)
    sites = pyro.poutine.trace(model).get_trace(size=6).nodes
    assert [name for name in sites if name.startswith("z_")] == ["z_3", "z_2", "z_1"]
    assert ("c" in sites) == (structure == "learned")


def test_learned_gates_are_drawn_in_training_and_most_likely_in_evaluation():
    gates = Gates(3)
    with torch.no_grad():
        gates.logits.copy_(torch.tensor([2.0, -1.0, 0.5]))  # edges 2-1, 3-1, 3-2
    probabilities = torch.tensor([2.0, -1.0, 0.5]).sigmoid()
    matrix = gates.probabilities()
    torch.testing.assert_close(matrix[1, 0], probabilities[0])
    torch.testing.assert_close(matrix[2, 0], probabilities[1])
    torch.testing.assert_close(matrix[2, 1], probabilities[2])
    assert not torch.equal(gates(), gates())
    gates.eval()
    assert torch.equal(gates(), torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]))
    hard = Gates(3, estimator="hard")
    draws = torch.stack([hard() for _ in range(400)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert (draws.mean(0)[1, 0] - 0.5).abs() < 0.15


def test_a_closed_gate_silences_its_parent():
    model, _ = pair("full")
    model.eval()
    z = {node: torch.randn(4, 2) for node in range(3)}
    gates = model.gates.possible.clone()
    gates[2, 0] = 0
    before = model.prior(z, gates, 0, 4)
    z[2] = torch.randn(4, 2)
    torch.testing.assert_close(model.prior(z, gates, 0, 4), before)
    z[1] = torch.randn(4, 2)
    assert not torch.allclose(model.prior(z, gates, 0, 4)[0], before[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"structure": "tree"}, "'tree'"),
        ({"estimator": "soft"}, "'soft'"),
        ({"initial": 1.0}, "between 0 and 1"),
    ],
)
def test_bad_gates(arguments, message):
    with pytest.raises(ValueError, match=message):
        Gates(3, **arguments)


def test_unknown_likelihood():
    with pytest.raises(ValueError, match="'poisson'"):
        graph_vae(Gates(2, "none"), likelihood="poisson")


# Numerical truth ------------------------------------------------------------------------------------------------------


def test_fuse_is_the_product_of_two_normals():
    loc, other_loc, log_variance, other_log_variance = torch.randn(4, 5, dtype=torch.float64)
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64).unsqueeze(-1)
    normal = lambda loc, log_variance: torch.distributions.Normal(loc, (log_variance / 2).exp())  # noqa: E731
    product = (normal(loc, log_variance).log_prob(x) + normal(other_loc, other_log_variance).log_prob(x)).exp()
    product = product / torch.trapezoid(product, x, dim=0)
    fused = normal(*fuse((loc, log_variance), (other_loc, other_log_variance)))
    torch.testing.assert_close(fused.log_prob(x).exp(), product, atol=1e-8, rtol=1e-6)


def handwritten_loss(model, guide, x, parents, noise):
    """The negative ELBO per image of a VAE whose node n has these parents, without Pyro and without gates."""
    features = guide.encoder(x)
    z, loss = {}, 0.0
    for node in sorted(parents, reverse=True):
        loc, log_variance = guide.bottom_up[str(node)](features)
        prior_loc, prior_log_variance = torch.zeros_like(loc), torch.zeros_like(loc)
        if parents[node]:
            above = torch.cat([z[parent] for parent in parents[node]], -1)
            prior_loc, prior_log_variance = model.top_down[str(node)](above)
            guess_loc, guess_log_variance = guide.top_down[str(node)](above)
            precision = 1 / log_variance.exp() + 1 / guess_log_variance.exp()
            loc = (loc / log_variance.exp() + guess_loc / guess_log_variance.exp()) / precision
            log_variance = -precision.log()
        z[node] = loc + (log_variance / 2).exp() * noise[node]
        ratio = (log_variance - prior_log_variance).exp()
        loss = loss + 0.5 * (ratio - 1 - ratio.log() + (loc - prior_loc) ** 2 / prior_log_variance.exp()).sum()
    logits = model.decoder.network(torch.cat([z[node] for node in sorted(z)], -1))
    loss = loss + nn.functional.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
    return loss / len(x)


@pytest.mark.parametrize(
    ("structure", "parents"),
    [
        ("full", {1: [2, 3], 2: [3], 3: []}),
        ("chain", {1: [2], 2: [3], 3: []}),
        ("none", {1: [], 2: [], 3: []}),
        ("learned", {1: [2, 3], 2: [3], 3: []}),  # with every gate most likely open
    ],
)
def test_elbo_equals_a_handwritten_one(structure, parents):
    model, guide = (module.double() for module in pair(structure))
    if structure == "learned":
        with torch.no_grad():
            model.gates.logits.fill_(2.0)
        model.eval(), guide.eval()
    x = images().double()
    torch.manual_seed(3)
    loss, _ = NegativeELBO(model, guide)(x=x)
    torch.manual_seed(3)
    noise = {node: torch.empty(len(x), 2, dtype=torch.float64).normal_() for node in (3, 2, 1)}
    expected = handwritten_loss(model, guide, x, parents, noise)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    parameters = [p for name, p in [*model.named_parameters(), *guide.named_parameters()] if "gates" not in name]
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


class Linear(nn.Module):
    """A node's mean linear in what it is given, its variance fixed."""

    def __init__(self, in_features, node_dim, scale):
        super().__init__()
        self.layer = nn.Linear(in_features, node_dim)
        self.log_variance = 2 * math.log(scale)

    def forward(self, x):
        loc = self.layer(x)
        return loc, torch.full_like(loc, self.log_variance)


class LinearDecoder(nn.Module):
    def __init__(self, in_features, pixels, scale):
        super().__init__()
        self.layer = nn.Linear(in_features, pixels)
        self.scale = scale

    def forward(self, z):
        return pyro.distributions.Normal(self.layer(z), self.scale).to_event(1)


def linear_pair(structure):
    gates, dim, pixels = Gates(3, structure), 2, 4
    fans = {node: len(gates.parents(node)) for node in range(3)}

    def down(scale):
        return nn.ModuleDict({str(n + 1): Linear(fan * dim, dim, scale) for n, fan in fans.items() if fan})

    model = GraphVAE(gates, dim, down(0.7), LinearDecoder(3 * dim, pixels, 1.0))
    bottom_up = nn.ModuleDict({str(n): Linear(pixels, dim, 1.4) for n in (1, 2, 3)})
    guide = GraphVAEGuide(gates, nn.Identity(), bottom_up, down(1.4))  # wide, so that no importance weight is too large
    return model.double(), guide.double()


def exact_marginal(model, gates):
    """The normal p(x) of a linear-Gaussian model, by propagating mean and covariance from the root to x."""
    dim = model.node_dim
    total = len(gates) * dim
    loc, covariance = torch.zeros(total, dtype=torch.float64), torch.zeros(total, total, dtype=torch.float64)
    rows = {node: slice(node * dim, (node + 1) * dim) for node in range(len(gates))}
    for node in reversed(range(len(gates))):
        weight, bias, variance = torch.zeros(dim, total, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64), 1.0
        if str(node + 1) in model.top_down:
            network = model.top_down[str(node + 1)]
            for block, parent in zip(network.layer.weight.split(dim, 1), model.gates.parents(node), strict=True):
                weight[:, rows[parent]] = gates[parent, node] * block
            bias, variance = network.layer.bias, math.exp(network.log_variance)
        loc[rows[node]] = weight @ loc + bias
        cross = weight @ covariance
        covariance[rows[node]] = cross
        covariance[:, rows[node]] = cross.mT
        covariance[rows[node], rows[node]] = cross @ weight.mT + variance * torch.eye(dim, dtype=torch.float64)
    layer = model.decoder.layer
    noise = model.decoder.scale**2 * torch.eye(len(layer.bias), dtype=torch.float64)
    return torch.distributions.MultivariateNormal(
        layer.weight @ loc + layer.bias, layer.weight @ covariance @ layer.weight.mT + noise
    )


@structures
@torch.no_grad()
def test_importance_weighted_likelihood_of_a_linear_gaussian_model_is_the_exact_marginal(structure):
    torch.manual_seed(0)
    model, guide = linear_pair(structure)
    if structure == "learned":
        model.gates.logits.copy_(torch.tensor([2.0, -2.0, 2.0]))  # one gate closed
    for module in guide.modules():
        if isinstance(module, nn.Linear):
            module.weight *= 0.3
    model.eval(), guide.eval()
    x = model(size=6)
    exact = exact_marginal(model, model.gates()).log_prob(x)
    found = log_likelihood(model, guide, {"x": x}, num_samples=100_000, max_rows=60_000)
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)


# As Pyro programs -----------------------------------------------------------------------------------------------------


@structures
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_one_svi_step_moves_every_parameter(structure, likelihood):
    # In training mode a batch norm takes the bias before it back out, so rounding alone would move that: no check of it.
    model, guide = pair(structure, likelihood=likelihood)
    for module in (*model.modules(), *guide.modules()):
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    check_svi(model, guide, {"x": images()})


@structures
def test_analytic_marks_are_valid(structure):
    torch.manual_seed(0)
    model, guide = pair(structure)
    check_elbo(model, guide, {"x": images(3)}, num_samples=80)


def test_hard_gates_train_under_trace_graph_elbo_and_not_under_ours():
    model, guide = pair(estimator="hard")
    with pytest.raises(NotImplementedError, match="'c'"):
        TraceKL_ELBO().terms(model, guide, x=images())
    pyro.clear_param_store()
    before = model.gates.logits.detach().clone()
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), TraceGraph_ELBO()).step(x=images())
    assert not torch.equal(model.gates.logits, before)


def test_gates_add_no_term_and_learn_from_the_others():
    model, guide = pair()
    terms = TraceKL_ELBO().terms(model, guide, x=images())
    assert set(terms) == {"z_1", "z_2", "z_3", "x"}
    gradient = torch.autograd.grad(sum(terms.values()), model.gates.logits)[0]
    assert (gradient != 0).all()


def test_open_gates_of_the_guide():
    model, guide = pair(open_gates=True)
    with torch.no_grad():
        model.gates.logits.fill_(-3.0)
    model.eval(), guide.eval()
    assert model.gates().sum() == 0
    noise = {"z_3": torch.randn(7, 2), "z_2": torch.randn(7, 2)}
    first, second = (
        pyro.poutine.trace(pyro.condition(guide, {**noise, "z_3": z})).get_trace(x=images()).nodes["z_1"]["fn"].base_dist.loc
        for z in (noise["z_3"], torch.randn(7, 2))
    )
    assert not torch.allclose(first, second)


def test_low_temperature_gates_are_nearly_binary():
    gates = Gates(4)
    gates.temperature.fill_(0.01)
    edges = torch.stack([gates() for _ in range(50)])[:, gates.possible.bool()]
    assert ((edges < 0.01) | (edges > 0.99)).float().mean() > 0.9
    assert torch.isfinite(edges).all()
