"""Rows of table 2 of Zhang et al. (2020), as declarations, against the losses of the original methods written by hand."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyzoo.guides.mib import StructuredGuide
from pyzoo.infer import BayesianNetwork, NegativeELBO, Penalized, Penalty, TotalCorrelation, Variables
from pyzoo.models.mib import StructuredVAE

SIZES = {"x": 6, "y": 4}
SCALE = 0.8


class Gaussian(nn.Linear):
    def forward(self, z):
        return dist.Normal(super().forward(z), SCALE).to_event(1)


def build(variables, generative, inference, dims, targets=()):
    """A model, and its guide with penalties; targets are names, networks, weights and further settings of penalties."""
    torch.manual_seed(1)
    g, q = (BayesianNetwork.parse(text, variables) for text in (generative, inference))
    penalties = [Penalty(name, q, BayesianNetwork.parse(text, variables), weight, **more) for name, text, weight, more in targets]
    widths = {
        view: sum(dims[z] for z in variables.shared) + sum(dims[u] for u, owner in variables.private.items() if owner == view)
        for view in variables.observed
    }
    model = StructuredVAE(g, dims, {view: Gaussian(width, SIZES[view]) for view, width in widths.items()})
    encoders = {view: nn.Linear(SIZES[view], 2 * width) for view, width in widths.items()}
    return model.double(), Penalized(StructuredGuide(q, dims, encoders), penalties).double()


def views(*names):
    torch.manual_seed(2)
    return {name: torch.randn(5, SIZES[name], dtype=torch.float64) for name in names}


def noises(*sizes):
    torch.manual_seed(3)
    return [torch.empty(5, size, dtype=torch.float64).normal_() for size in sizes]


def agree(module, batch, expected, **more):
    torch.manual_seed(3)
    loss, _ = module(**batch, **more)
    assert_same(loss, expected, module)


def assert_same(loss, expected, module):
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    ours, theirs = (torch.autograd.grad(value, list(module.parameters()), retain_graph=True) for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


# By hand ----------------------------------------------------------------------------------------------------------------


def expert(guide, view, batch, part):
    out = guide.guide.encoders[view](batch[view])
    half = out.shape[1] // 2
    return out[:, :half][:, part], out[:, half:][:, part].exp()  # mean and variance


def product(*experts):
    """Of N(0, 1) and the experts: mean and variance."""
    precision = 1 + sum(1 / variance for _, variance in experts)
    return sum(mean / variance for mean, variance in experts) / precision, 1 / precision


def kl(q, p=None):
    """Per row, of normals by mean and variance; to N(0, 1) by default."""
    (mean, variance), (other, wide) = q, (torch.zeros_like(q[0]), torch.ones_like(q[1])) if p is None else p
    return 0.5 * (variance / wide + (mean - other) ** 2 / wide - 1 - (variance / wide).log()).sum() / len(mean)


def distortion(model, view, x, z):
    network = model.decoders[view]
    mean = z @ network.weight.mT + network.bias
    return -dist.Normal(mean, SCALE).log_prob(x).sum() / len(x)


def draw(q, noise):
    return q[0] + q[1].sqrt() * noise


ALL = slice(None)

# The rows ---------------------------------------------------------------------------------------------------------------

ONE = Variables(("x",), private={"u": "x"})


def test_vae():
    model, guide = build(ONE, "u -> x", "x -> u", {"u": 3})
    batch = views("x")
    q = product(expert(guide, "x", batch, ALL))
    expected = distortion(model, "x", batch["x"], draw(q, *noises(3))) + kl(q)
    agree(NegativeELBO(model, guide), batch, expected)


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_beta_vae(beta):
    """[1, C_1] and [beta - 1, empty]; the rate that bounds I(u; x) is larger by C_3, which the row has beside it."""
    model, guide = build(ONE, "u -> x", "x -> u", {"u": 3}, [("empty", "", beta - 1, {})])
    batch = views("x")
    q = product(expert(guide, "x", batch, ALL))
    expected = distortion(model, "x", batch["x"], draw(q, *noises(3))) + beta * kl(q)
    agree(NegativeELBO(model, guide), batch, expected)


@pytest.mark.parametrize("size", [None, 60])
def test_beta_tcvae(size):
    """[1, C_1] and [beta - 1, G^p], one node for each coordinate: Chen et al.'s ELBO + (beta - 1) TC."""
    names = Variables(("x",), private={"u": "x", "v": "x", "w": "x"})
    dims, terms = {"u": 1, "v": 1, "w": 1}, ("I(v; u)", "I(w; u, v)")
    settings = {"form": "conditional", "estimators": dict.fromkeys(terms, TotalCorrelation(size))}
    targets = [("independent", "u, v, w -> x", 5.0, settings)]
    model, guide = build(names, "u, v, w -> x", "x -> u, v, w", dims, targets)
    batch = views("x")
    q = product(expert(guide, "x", batch, ALL))
    z = draw(q, torch.cat(noises(1, 1, 1), dim=1))
    pairs = dist.Normal(q[0], q[1].sqrt()).log_prob(z[:, None])  # of z_i under q(z | x_j)
    own = 0.0 if size is None else 1 / size
    weights = torch.full((5, 5, 1), (1 - own) / 4, dtype=torch.float64)
    weights[range(5), range(5)] = own
    joint = (weights.squeeze(-1) * pairs.sum(-1).exp()).sum(1).log()
    marginals = (weights * pairs.exp()).sum(1).log().sum(-1)
    expected = distortion(model, "x", batch["x"], z) + kl(q) + 5.0 * (joint - marginals).mean()
    agree(NegativeELBO(model, guide), batch, expected)


TWO = Variables(("x", "y"), shared=("z",))
CROSS = [("cross(x)", "x -> z -> y", 0.1, {}), ("cross(y)", "y -> z -> x", 0.3, {})]


def joint_terms(model, guide, batch):
    """What the multimodal rows share: the experts, q(z | x, y), and both distortions."""
    experts = {view: expert(guide, view, batch, ALL) for view in ("x", "y")}
    q = product(*experts.values())
    z = draw(q, *noises(3))
    return experts, q, sum(distortion(model, view, batch[view], z) for view in ("x", "y"))


def test_jmvae():
    """Joint ELBO + sum_i alpha_i KL(q(z | x, y) || q(z | x_i))."""
    model, guide = build(TWO, "z -> x, y", "x, y -> z", {"z": 3}, CROSS)
    assert all(penalty.is_bound for penalty in guide.penalties)
    batch = views("x", "y")
    experts, q, cost = joint_terms(model, guide, batch)
    expected = cost + kl(q) + 0.1 * kl(q, product(experts["x"])) + 0.3 * kl(q, product(experts["y"]))
    agree(NegativeELBO(model, guide), batch, expected)


def test_mvae():
    """C_1 once for each inference network: of both views, and of each alone."""
    model, guide = build(TWO, "z -> x, y", "x, y -> z", {"z": 3})
    batch, module = views("x", "y"), NegativeELBO(model, guide)
    loss, expected = 0.0, 0.0
    for given in (("x", "y"), ("x",), ("y",)):
        torch.manual_seed(3)
        loss = loss + module(**batch, present=torch.tensor([view in given for view in SIZES]).expand(5, -1))[0]
        q = product(*(expert(guide, view, batch, ALL) for view in given))
        z = draw(q, *noises(3))
        expected = expected + kl(q) + sum(distortion(model, view, batch[view], z) for view in given)
    assert_same(loss, expected, module)


def test_ours_mm():
    """L_x + L_u + L_z of section 4.2, L_z with unit weights: the KL of q(z | x, y) to the prior and to each view's posterior."""
    names = Variables(("x", "y"), shared=("z",), private={"u": "x", "v": "y"})
    targets = [(f"cross({a})", f"{a} -> z -> {b}; x -> u; y -> v", 1.0, {}) for a, b in (("x", "y"), ("y", "x"))]
    model, guide = build(names, "z, u -> x; z, v -> y", "x, y -> z; x -> u; y -> v", {"z": 3, "u": 2, "v": 1}, targets)
    batch = views("x", "y")
    experts = {view: expert(guide, view, batch, slice(0, 3)) for view in ("x", "y")}
    own = {view: product(expert(guide, view, batch, slice(3, None))) for view in ("x", "y")}
    q = product(*experts.values())
    z, u, v = (draw(each, noise) for each, noise in zip((q, own["x"], own["y"]), noises(3, 2, 1), strict=True))
    cost = distortion(model, "x", batch["x"], torch.cat([z, u], 1)) + distortion(model, "y", batch["y"], torch.cat([z, v], 1))
    expected = cost + kl(own["x"]) + kl(own["y"]) + kl(q) + sum(kl(q, product(experts[view])) for view in ("x", "y"))
    agree(NegativeELBO(model, guide), batch, expected)
