import copy
import math
import pickle
import re

import pyro
import pytest
import torch
from pyro.infer import SVI, TraceGraph_ELBO
from torch import nn

from benchmarks.cases.graph_vae import handwritten_loss
from pyzoo.errors import UsageError
from pyzoo.guides.graph_vae import GraphVAEGuide, fuse, graph_vae_guide
from pyzoo.infer import NegativeELBO, TraceKL_ELBO, log_likelihood
from pyzoo.models.graph_vae import (
    BatchNorm,
    BernoulliDecoder,
    Gates,
    GaussianDecoder,
    GraphVAE,
    GraphVAENetworks,
    NodeNetwork,
    mlp,
)
from pyzoo.testing import PairTests, check_elbo, check_svi

SHAPE = (1, 4, 4)
STRUCTURES = ("learned", "full", "chain", "none")
structures = pytest.mark.parametrize("structure", STRUCTURES)


def pair(structure="learned", nodes=3, estimator="relaxed", **changes):
    networks = GraphVAENetworks(
        nodes=nodes,
        latent_dim=2 * nodes,
        structure=structure,
        gate_estimator=estimator,
        **{"x_shape": SHAPE, "hidden_dim": 6, "widths": (8,), **changes},
    )
    model = networks.model()
    return model, networks.guide(model)


def images(size=7, seed=0):
    return torch.rand(size, *SHAPE, generator=torch.Generator().manual_seed(seed)).round()


def count(*modules):
    return sum(p.numel() for p in {p for module in modules for p in module.parameters()})


# Sizes and structure --------------------------------------------------------------------------------------------------


def test_sizes_of_appendix_b():
    networks = GraphVAENetworks()
    model = networks.model()
    guide = networks.guide(model)
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
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": math.nan}, "temperature must be a finite number"),
        ({"num_nodes": 0}, "num_nodes"),
        ({"structure": torch.zeros(2, 3)}, r"3 x 3 matrix, not \(2, 3\)"),
        ({"structure": 0.5 * torch.ones(3, 3)}, "zeros and ones"),
        ({"structure": torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0]])}, "cycle"),
        ({"structure": torch.eye(3)}, "cycle"),
        ({"structure": torch.tensor([[0, 0, 1], [0, 0, 0], [0, 0, 0]])}, "from node 1 to node 3 is against the order"),
    ],
)
def test_bad_gates(arguments, message):
    with pytest.raises(ValueError, match=message):
        Gates(**{"num_nodes": 3, **arguments})


def test_your_own_structure():
    matrix = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0]])
    gates = Gates(4, matrix)
    assert torch.equal(Gates(4, matrix.tolist())(), matrix.float())
    assert Gates(300, torch.ones(300, 300).tril(-1)).possible.sum() == 300 * 299 / 2
    assert [gates.parents(node) for node in range(4)] == [[1, 3], [], [3], []]
    assert torch.equal(gates(), matrix.float())

    def top_down():
        fans = {node + 1: len(gates.parents(node)) for node in range(4)}
        return nn.ModuleDict({str(node): NodeNetwork(2 * fan, 6, 2) for node, fan in fans.items() if fan})

    model = GraphVAE(gates, 2, top_down(), BernoulliDecoder(8, SHAPE, (8,)))
    bottom_up = nn.ModuleDict({str(node): NodeNetwork(5, 6, 2) for node in (1, 2, 3, 4)})
    guide = GraphVAEGuide(gates, nn.Sequential(nn.Flatten(), mlp(16, (8,), 5)), bottom_up, top_down())
    loss, terms = NegativeELBO(model, guide)(x=images())
    assert set(terms) == {"z_1", "z_2", "z_3", "z_4", "x"}
    loss.backward()
    assert all(p.grad is not None for p in [*model.parameters(), *guide.parameters()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"likelihood": "poisson"}, "--likelihood must be one of bernoulli, gaussian, got poisson"),
        ({"decoder_input": "last"}, "--decoder-input must be one of all, first, got last"),
        ({"guide_gates": "none"}, "--guide-gates must be one of shared, full, got none"),
        ({"structure": "tree"}, "--structure must be one of learned, full, chain, none, got tree"),
        ({"gate_estimator": "soft"}, "--gate-estimator must be one of relaxed, hard, got soft"),
        ({"structure": "full", "gate_estimator": "hard"}, "--gate-estimator must be relaxed where no gate is learned, got hard"),
        ({"initial_gate": 1.0}, "--initial-gate must be positive and below 1, got 1.0"),
        ({"nodes": 3}, "--latent-dim must be a multiple of --nodes 3, got 80"),
        ({"widths": ()}, "--widths must be 1 or more values, got none"),
        ({"x_shape": (28, 28)}, "--x-shape must be 3 values, got 28 28"),
    ],
)
def test_unknown_choices(arguments, message):
    with pytest.raises(UsageError) as caught:
        GraphVAENetworks(**arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize(
    ("x", "message"),
    [(255 * torch.ones(3, *SHAPE), "0 to 1, not from 255 to 255"), (torch.zeros(3, 1, 5, 5), r"1, 4, 4.*1, 5, 5")],
)
def test_images_that_the_likelihood_cannot_take(likelihood, x, message):
    model, guide = pair("none", likelihood=likelihood)
    with pytest.raises(ValueError, match=message):
        SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), TraceKL_ELBO()).step(x=x)


def test_grey_pixels_have_no_bernoulli_likelihood():
    model, _ = pair("none")
    with pytest.raises(ValueError, match="support"):
        pyro.poutine.trace(model).get_trace(x=0.5 * torch.ones(3, *SHAPE)).compute_log_prob()
    with pytest.raises(ValueError, match=r"1, 4, 4.*1, 5, 5"):
        model(x=torch.zeros(3, 1, 5, 5))


def test_copies_and_pickles_keep_the_gates_shared():
    module = NegativeELBO(*pair())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.model.gates is twin.guide.gates
        assert twin.model.gates is not module.model.gates
        losses = []
        for each in (module, twin):
            torch.manual_seed(0)
            losses.append(each(x=images())[0])
        assert torch.equal(*losses)


def test_decoder_of_the_first_node_alone():
    model, _ = pair(decoder_input="first")
    model.eval()
    assert model.decoder.network[0].in_features == 2
    z = {f"z_{node}": torch.randn(4, 2) for node in (1, 2, 3)}
    logits = lambda z: pyro.poutine.trace(pyro.condition(model, z)).get_trace(size=4).nodes["x"]["fn"].base_dist.logits  # noqa: E731
    torch.testing.assert_close(logits({**z, "z_3": torch.randn(4, 2)}), logits(z))
    assert not torch.allclose(logits({**z, "z_1": torch.randn(4, 2)}), logits(z))


@pytest.mark.parametrize("estimator", ["relaxed", "hard"])
def test_settled_gates_stay(estimator):
    gates = Gates(3, estimator=estimator)
    with torch.no_grad():
        gates.logits.copy_(torch.tensor([6.0, -6.0, 0.5]))
    gates.settle(0.01)
    assert gates.settled.tolist() == [True, True, False]
    draws = torch.stack([gates() for _ in range(50)])
    assert (draws[:, 1, 0] == 1).all()
    assert (draws[:, 2, 0] == 0).all()
    assert len(draws[:, 2, 1].unique()) > 1
    trace = pyro.poutine.trace(gates).get_trace()
    score = gates().sum() if estimator == "relaxed" else trace.log_prob_sum()
    gradient = torch.autograd.grad(score, gates.logits)[0]
    assert gradient[:2].tolist() == [0, 0]
    assert gradient[2] != 0
    Gates(3, "full").settle(0.01)  # has none to settle


def test_momentum_does_not_move_settled_gates():
    gates = Gates(2)
    optimizer = torch.optim.Adam(gates.parameters(), lr=0.5)
    gates.logits.grad = torch.tensor([-1.0])
    for _ in range(3):
        optimizer.step()
        gates.settle(0.4)
    held = gates.logits.item()
    assert gates.settled.all()
    gates.logits.grad = torch.zeros(1)
    for _ in range(3):
        optimizer.step()
        gates.settle(0.4)
    assert gates.logits.item() == held


# Numerical truth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [((0.0, 90.0), (1.0, 0.0)), ((0.0, 60.0), (1.0, -60.0)), ((1.0, 0.0), (0.0, 110.0))])
def test_fuse_where_one_normal_is_all_but_flat(one, other):
    """What comes out is the other normal, and the gradients are finite."""
    values = [torch.tensor(value, requires_grad=True) for value in (*one, *other)]
    loc, log_variance = fuse(tuple(values[:2]), tuple(values[2:]))
    assert loc.item() == pytest.approx(1.0)
    assert log_variance.item() == pytest.approx(min(one[1], other[1]))
    assert all(gradient.isfinite() for gradient in torch.autograd.grad(loc + log_variance, values))


def test_fuse_is_the_product_of_two_normals():
    loc, other_loc, log_variance, other_log_variance = torch.randn(4, 5, dtype=torch.float64)
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64).unsqueeze(-1)
    normal = lambda loc, log_variance: torch.distributions.Normal(loc, (log_variance / 2).exp())  # noqa: E731
    product = (normal(loc, log_variance).log_prob(x) + normal(other_loc, other_log_variance).log_prob(x)).exp()
    product = product / torch.trapezoid(product, x, dim=0)
    fused = normal(*fuse((loc, log_variance), (other_loc, other_log_variance)))
    torch.testing.assert_close(fused.log_prob(x).exp(), product, atol=1e-8, rtol=1e-6)


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


def without_batch_norm(*programs):
    """In training mode batch norm takes the bias before it back out, so rounding alone would move that: no check of it."""
    for module in (module for program in programs for module in program.modules()):
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    return programs


class TestLearned(PairTests):
    elbo_samples = 60

    def make(self):
        return without_batch_norm(*pair())

    def batch(self):
        return {"x": images(5)}


class TestHardGates(TestLearned):
    """Each particle has gates of its own."""

    analytic_marks = False  # the score function has no value to compare

    def make(self):
        return without_batch_norm(*pair(estimator="hard"))

    def elbo(self):
        return TraceKL_ELBO(num_particles=2)


class TestOpenGuide(TestLearned):
    elbo_samples = 30

    def make(self):
        return without_batch_norm(*pair("chain", guide_gates="full", likelihood="gaussian"))


@structures
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_one_svi_step_moves_every_parameter(structure, likelihood):
    check_svi(*without_batch_norm(*pair(structure, likelihood=likelihood)), {"x": images()})


@structures
def test_analytic_marks_are_valid(structure):
    torch.manual_seed(0)
    model, guide = pair(structure)
    check_elbo(model, guide, {"x": images(3)}, num_samples=80)


@pytest.mark.parametrize("elbo", [TraceGraph_ELBO(), TraceKL_ELBO(num_particles=4)])
def test_hard_gates_train_by_the_score_function(elbo):
    model, guide = pair(estimator="hard")
    with pytest.raises(NotImplementedError, match="'c'"):
        TraceKL_ELBO().terms(model, guide, x=images())
    pyro.clear_param_store()
    torch.manual_seed(0)
    before = model.gates.logits.detach().clone()
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), elbo).step(x=images())
    assert not torch.equal(model.gates.logits, before)


def test_gates_add_no_term_and_learn_from_the_others():
    model, guide = pair()
    terms = TraceKL_ELBO().terms(model, guide, x=images())
    assert set(terms) == {"z_1", "z_2", "z_3", "x"}
    gradient = torch.autograd.grad(sum(terms.values()), model.gates.logits)[0]
    assert (gradient != 0).all()


@pytest.mark.parametrize("estimator", ["relaxed", "hard"])
def test_an_edge_costs_its_price_times_its_probability_in_training_alone(estimator):
    model, guide = pair(estimator=estimator, edge_cost=0.3)
    with torch.no_grad():
        model.gates.logits.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    elbo, x = TraceKL_ELBO(num_particles=2), images()
    cost = elbo.terms(model, guide, x=x)["penalty/edges"] / len(x)
    torch.testing.assert_close(cost, 0.3 * model.gates.logits.sigmoid().sum())
    p = model.gates.logits.detach().sigmoid()
    torch.testing.assert_close(torch.autograd.grad(cost, model.gates.logits)[0], 0.3 * p * (1 - p))
    model.eval()
    assert "penalty/edges" not in elbo.terms(model, guide, x=x)  # it is no part of the bound
    with pytest.raises(UsageError, match="--edge-cost must be 0 where no gate is learned, got"):
        pair("full", edge_cost=0.3)


@structures
def test_full_gates_of_the_guide(structure):
    model, guide = pair(structure, guide_gates="full")
    if structure == "learned":
        with torch.no_grad():
            model.gates.logits.fill_(-3.0)
    model.eval(), guide.eval()
    if structure == "learned":
        assert model.gates().sum() == 0
    assert len({name.split(".")[0] for name in guide.top_down.state_dict()}) == 2
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


def test_gray_images_have_full_precision_in_bfloat16():
    decoder = GaussianDecoder(4, (1, 4, 4), (6,))
    with torch.autocast("cpu", torch.bfloat16):
        p_x = decoder(torch.randn(3, 4)).base_dist
    assert {p_x.loc.dtype, p_x.scale.dtype} == {torch.float32}


def test_batch_norm_takes_each_particle_as_a_batch():
    x = torch.randn(4, 7, 7) + torch.arange(4.0).view(-1, 1, 1)
    one, other = BatchNorm(7), BatchNorm(7)
    torch.testing.assert_close(one(x), torch.stack([other(part) for part in x]))
    torch.testing.assert_close(one.running_mean, other.running_mean)
    torch.testing.assert_close(one.eval()(x), torch.stack([other.eval()(part) for part in x]))


def test_vectorized_particles_give_the_same_elbo():
    """Where widths and batch are equal, a normalization over the wrong dimension would pass unnoticed."""
    model, guide = pair("full", widths=(8,), hidden_dim=8)
    x = images(8)
    many = {"num_particles": 300, "max_plate_nesting": 1}
    with torch.no_grad():
        vectorized = TraceKL_ELBO(**many, vectorize_particles=True).loss(model, guide, x=x)
        one_by_one = TraceKL_ELBO(**many).loss(model, guide, x=x)
    assert vectorized == pytest.approx(one_by_one, rel=1e-2)


NORMAL = (torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp(4, 8, 2), "widths must be a sequence of whole numbers, got 8"),
        (lambda: mlp(4, (8,), 2)(torch.zeros(3, 5)), "input must be (..., 4), got (3, 5)"),
        (lambda: mlp(4, (8,), 2)(torch.zeros(4)), "Batch norm needs (..., batch, features), got (8,)"),
        (lambda: NodeNetwork(4, 8, 2)(torch.zeros(3, 5)), "the input of a node's network must be (..., 4), got (3, 5)"),
        (lambda: NodeNetwork(4, 8, 2)(torch.zeros(3, 4).long()), "must be of a floating-point type, got torch.int64"),
        (lambda: BernoulliDecoder(4, (), (8,)), "the number of sizes of x_shape must be a whole number of at least 1, got 0"),
        (lambda: BernoulliDecoder(4, SHAPE, (8,))(torch.zeros(3, 5)), "z must be (..., 4), got (3, 5)"),
        (lambda: GaussianDecoder(4, (1, 6.5, 6), (8,)), "each size of x_shape must be a whole number of at least 1, got 6.5"),
        (lambda: pair()[1](x=images().double()), "x must be torch.float32 as the parameters are, got torch.float64"),
        (lambda: fuse(NORMAL, (torch.zeros(2), torch.zeros(2))), "first and second must be of shapes that broadcast"),
        (lambda: fuse(NORMAL, torch.zeros(3)), "second must be a mean and a log-variance, got tensor"),
        (lambda: Gates(3, None), "structure is 'learned', 'full', 'chain', 'none' or a matrix, not None"),
        (lambda: Gates(3, [[0, 0], [1]]), "or a matrix, not [[0, 0], [1]]"),
        (lambda: Gates(3).settle(None), "margin must be a finite number, got None"),
        (lambda: GraphVAENetworks(nodes=3, latent_dim=6).model(Gates(2)), "gates must be of 3 nodes, got 2"),
        (lambda: GraphVAENetworks(nodes=3, latent_dim=6).model("chain"), "gates must be of type Gates, got str"),
        (lambda: graph_vae_guide(GraphVAENetworks(), None), "model must be of type GraphVAE, got NoneType"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_an_image_has_pixels():
    with pytest.raises(UsageError, match="--x-shape must be"):
        GraphVAENetworks(x_shape=(1, -6, 6))
