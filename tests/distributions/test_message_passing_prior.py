"""The message passing prior: linear maps against closed forms, what it recovers of planted relations, and bad input."""

import copy
import math

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch.distributions import MultivariateNormal, kl_divergence

from pyzoo.distributions import InvertibleMap, MessagePassingPrior, procrustes_rotations
from pyzoo.infer import TracedStep

K, DIM = 3, 4


class Linear(torch.nn.Module):
    """A coupling's network that makes the coupling linear: a linear shift, and scales that do not depend on the input."""

    def __init__(self, kept, moved):
        super().__init__()
        self.shift = torch.nn.Parameter(0.5 * torch.randn(kept, moved))
        self.log_scale = torch.nn.Parameter(0.3 * torch.randn(moved))

    def forward(self, kept):
        return kept @ self.shift, self.log_scale.expand(*kept.shape[:-1], -1)


@pytest.fixture(params=[False, True], ids=["as they are", "turned"])
def prior(request):
    """A prior whose maps are generic, not linear; components are turned before them or not."""
    torch.manual_seed(0)
    rotations = torch.linalg.qr(torch.randn(K, DIM, DIM)).Q if request.param else None
    made = MessagePassingPrior(K, DIM, hidden_dims=(8,), scale=0.5, posterior_scale=0.7, rotations=rotations).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.fixture
def linear(prior):
    """A prior whose maps are linear: all its distributions are normal."""
    for f in prior.maps:
        for coupling in f.couplings:
            coupling.nn = Linear(DIM // 2, DIM // 2).double()
    return prior


def loadings(prior):
    """A, (K dim, dim), of y = A h + noise."""
    return prior.decode(torch.eye(DIM, dtype=torch.float64)).flatten(1).T.detach()


def exact(prior):
    """p(y) of linear maps, and the exact p(h | y) of a vector y."""
    a, noise = loadings(prior), prior.log_scale.detach().exp().flatten() ** 2
    precision = torch.eye(DIM, dtype=torch.float64) + (a.T / noise) @ a
    marginal = MultivariateNormal(torch.zeros(K * DIM, dtype=torch.float64), a @ a.T + noise.diag())
    return marginal, lambda y: MultivariateNormal(torch.linalg.solve(precision, (a.T / noise) @ y), precision_matrix=precision)


def test_with_linear_maps_the_marginal_is_normal(linear):
    p, _ = exact(linear)
    y = 0.5 * p.sample((3,)).unflatten(-1, (K, DIM))  # near the middle, where q(h | y) is near enough for the particles
    torch.manual_seed(0)
    with torch.no_grad():
        found = linear.log_prob(y, num_particles=200_000)
    torch.testing.assert_close(found, p.log_prob(y.flatten(1)), rtol=0, atol=0.05)
    drawn = linear.components(linear.latent((200_000,)).sample()).sample().flatten(1)
    torch.testing.assert_close(drawn.T.cov(), p.covariance_matrix, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("present", [None, torch.tensor([True, False, True])])
def test_the_elbo_lacks_the_divergence_of_the_posteriors(linear, present):
    """ELBO = log p(y) - KL(q(h | y_S) || p(h | y)), whatever h is inferred from."""
    p, posterior = exact(linear)
    y = p.sample().unflatten(-1, (K, DIM))
    q = linear.posterior(y, present)
    dense = MultivariateNormal(q.mean.detach(), q.variance.detach().diag())
    expected = p.log_prob(y.flatten()) - kl_divergence(dense, posterior(y.flatten()))
    torch.manual_seed(0)
    with torch.no_grad():
        found = linear.elbo(y.expand(100_000, -1, -1), present)
    assert abs(found.mean() - expected) < 5 * found.std() / math.sqrt(len(found))


def test_what_is_missing_is_not_scored(linear):
    """The ELBO of the observed components is that of their own marginal, whatever stands in the place of the others."""
    y = exact(linear)[0].sample().unflatten(-1, (K, DIM))
    observed = torch.tensor([True, False, True])
    a = loadings(linear).unflatten(0, (K, DIM))[observed].flatten(0, 1)
    noise = linear.log_scale.detach().exp()[observed].flatten() ** 2
    precision = torch.eye(DIM, dtype=torch.float64) + (a.T / noise) @ a
    seen = y[observed].flatten()
    marginal = MultivariateNormal(torch.zeros(2 * DIM, dtype=torch.float64), a @ a.T + noise.diag())
    posterior = MultivariateNormal(torch.linalg.solve(precision, (a.T / noise) @ seen), precision_matrix=precision)
    for present in (None, torch.tensor([False, True, True])):  # of which the second is not there
        q = linear.posterior(y, observed if present is None else observed & present)
        dense = MultivariateNormal(q.mean.detach(), q.variance.detach().diag())
        expected = marginal.log_prob(seen) - kl_divergence(dense, posterior)
        torch.manual_seed(0)
        rows = torch.where(observed.unsqueeze(-1), y, torch.full_like(y, math.nan)).expand(100_000, -1, -1)
        with torch.no_grad():
            found = linear.elbo(rows, present, observed.expand(100_000, -1))
        assert abs(found.mean() - expected) < 5 * found.std() / math.sqrt(len(found))
    linear.elbo(rows[:3], observed=observed).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in linear.parameters() if parameter.grad is not None)
    with pytest.raises(ValueError, match="present must have at least one"):
        linear.elbo(y, torch.tensor([False, True, False]), observed)


def test_the_density_on_the_surface_is_the_limit_of_small_noise(linear):
    with torch.no_grad():
        linear.log_scale.fill_(math.log(1e-5))
    p, _ = exact(linear)
    h = torch.randn(3, DIM, dtype=torch.float64)
    with torch.no_grad():
        normal = p.log_prob(linear.decode(h).flatten(1))
        found = linear.log_prob_on_surface(h)
    across = (K - 1) * DIM * (math.log(1e-5) + 0.5 * math.log(2 * math.pi))  # the noise's density at its mode, off the surface
    torch.testing.assert_close(found, normal + across, rtol=0, atol=1e-4)
    torch.testing.assert_close(linear.log_prob_on_surface(h[0]), found[0])


def test_the_density_on_the_surface_of_nonlinear_maps(prior):
    h = torch.randn(2, DIM, dtype=torch.float64)
    for row, found in zip(h, prior.log_prob_on_surface(h), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda value: prior.decode(value).flatten(), row)
        volume = 0.5 * torch.logdet(jacobian.T @ jacobian)
        torch.testing.assert_close(found, prior.latent().log_prob(row) - volume)


@pytest.mark.parametrize("dim", [2, 3, 4, 5])
@pytest.mark.parametrize("coupling", ["exp", "sigmoid"])
def test_maps_are_inverted(dim, coupling):
    torch.manual_seed(0)
    f = InvertibleMap(dim, coupling=coupling).double()
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    y = torch.randn(2, 7, dim, dtype=torch.float64)
    torch.testing.assert_close(f.inverse(f(y)), y)
    torch.testing.assert_close(f(y[0, 0]), f(y)[0, 0])
    jacobian = torch.autograd.functional.jacobian(f, y[0, 0])
    assert (jacobian.abs() > 1e-12).all()  # with three couplings every entry reaches the others


def test_a_map_never_returns_what_another_step_gave():
    f, y = InvertibleMap(2), torch.randn(3, 2)
    before = f(y)
    with torch.no_grad():
        f.couplings[0].nn[-1].bias.add_(1.0)
    assert not torch.equal(f(y), before)
    copy.deepcopy(f)  # which a cached tensor with a gradient would not allow
    assert torch.equal(f(y), f(y))


def test_the_order_of_rows_and_absent_components_change_nothing(prior):
    y = torch.randn(5, K, DIM, dtype=torch.float64)
    present = torch.tensor([[True, True, False], [True, False, False], [True] * 3, [False, True, True], [False, False, True]])
    q = prior.posterior(y, present)
    other = torch.where(present.unsqueeze(-1), y, 7.0)
    torch.testing.assert_close(prior.posterior(other, present).mean, q.mean, rtol=0, atol=0)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(prior.posterior(y[order], present[order]).mean, q.mean[order])
    filled = prior.impute(y, present)
    assert torch.equal(filled[present], y[present])
    turns = torch.eye(DIM, dtype=torch.float64).expand(K, -1, -1) if prior.rotations is None else prior.rotations
    torch.testing.assert_close(filled[1, 1], turns[1].T @ prior.maps[1].inverse(prior.maps[0](turns[0] @ y[1, 0])))


def test_the_papers_messages_have_equal_weights():
    prior = MessagePassingPrior(K, DIM, posterior_scale=1.0, learn=False, coupling="sigmoid")
    y = torch.randn(6, K, DIM)
    q = prior.posterior(y)
    torch.testing.assert_close(q.mean, prior.encode(y).mean(-2))
    assert q.stddev.unique().item() == 1
    assert {name for name, _ in prior.named_parameters() if not name.startswith("maps.")} == set()


def test_batch_normalization_as_in_the_table():
    prior = MessagePassingPrior(K, DIM, batch_norm=True)
    assert prior.elbo(torch.randn(8, K, DIM)).shape == (8,)
    prior.eval()
    y = torch.randn(5, K, DIM)
    torch.testing.assert_close(prior.maps[0].inverse(prior.maps[0](y[:, 0])), y[:, 0])


class Loss(torch.nn.Module):
    """Minus the ELBO of a prior, of which a step is traced."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, y):
        return -self.prior.elbo(y).mean(), {}


def fit(prior, y, steps, learning_rate):
    """Trains a prior on components, (rows, K, dim)."""
    optimizer = torch.optim.Adam(prior.parameters(), lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    gradients = TracedStep(Loss(prior))
    for _ in range(steps):
        gradients({"y": y[torch.randint(len(y), (256,))]})
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 10.0)
        optimizer.step()
        scheduler.step()


def test_planted_relations_are_found():
    """Each of three components tells the two others, and neither tells a fourth, nor does it tell them."""

    def draw(count, generator):
        a, b, c, d = torch.randn(4, count, generator=generator)
        first = torch.stack([a, b, c, d], 1)
        second = torch.stack([d, c + torch.sin(2 * d), b * torch.exp(0.5 * torch.tanh(d)) + 0.5 * c, a - d**2 / 2], 1)
        third = torch.stack([a, b, c + a * b, d * torch.exp(-0.4 * torch.tanh(a))], 1)
        y = torch.stack([first, second, third, torch.randn(count, 4, generator=generator)], 1)
        return y + 0.03 * torch.randn(y.shape, generator=generator)

    train, test = draw(20_000, torch.Generator().manual_seed(0)), draw(1000, torch.Generator().manual_seed(1))
    mean, deviation = train.mean(0), train.std(0)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    torch.manual_seed(0)
    prior = MessagePassingPrior(4, 4)
    fit(prior, train, steps=700, learning_rate=4e-3)
    with torch.no_grad():
        found = []
        for missing in range(4):
            present = torch.ones(4, dtype=torch.bool)
            present[missing] = False
            error = (prior.impute(test, present) - test)[:, missing].square().sum()
            found.append(1 - (error / (test[:, missing] - test[:, missing].mean(0)).square().sum()).item())
    assert min(found[:3]) > 0.95
    assert found[3] < 0.02
    weights = prior.log_weights.softmax(0).mean(1)
    assert weights[3] < 0.5 * weights[:3].min()


def test_rotations_are_orthogonal_to_the_last_digit_of_any_precision():
    torch.manual_seed(0)
    prior = MessagePassingPrior(3, 4, rotations=torch.linalg.qr(torch.randn(3, 4, 4)).Q)
    double = prior.double()
    h = torch.randn(20, 4, dtype=torch.float64)
    torch.testing.assert_close(double.encode(double.decode(h)), h.unsqueeze(1).expand(-1, 3, -1), rtol=0, atol=1e-12)


def test_rotations_make_components_alike():
    torch.manual_seed(0)
    a = torch.randn(500, 3)
    turns = torch.linalg.qr(torch.randn(4, 3, 3)).Q  # some with reflections
    y = (turns @ a[:, None, :, None]).squeeze(-1) + 2.0
    found = procrustes_rotations(y)
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand(4, -1, -1))
    turned = (found @ (y - y.mean(0)).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(turned, turned[:, :1].expand(-1, 4, -1), rtol=0, atol=1e-3)


def test_components_the_other_way_round_need_rotations():
    """One entry of the second component is minus that of the first, and another one bends it."""
    torch.manual_seed(0)
    a = torch.randn(4000, 2)
    y = torch.stack([a, torch.stack([a[:, 0] + 0.5 * a[:, 1].sin(), -a[:, 1]], 1)], 1)
    found = {}
    for name, rotations in (("none", None), ("found", procrustes_rotations(y))):
        prior = MessagePassingPrior(2, 2, hidden_dims=(32,), rotations=rotations)
        fit(prior, y, steps=300, learning_rate=1e-2)
        with torch.no_grad():
            error = (prior.impute(y, torch.tensor([True, False])) - y)[:, 1].square().mean(0)
        found[name] = (1 - error / y[:, 1].var(0)).min().item()
    assert found["found"] > 0.9
    assert found["none"] < 0.5  # couplings alone keep the orientation


def test_it_trains_in_plain_pyro(prior):
    y = torch.randn(16, K, DIM, dtype=torch.float64)

    def model(y):
        pyro.module("prior", prior)
        with pyro.plate("rows", len(y)):
            h = pyro.sample("h", prior.latent(y.shape[:1]))
            pyro.sample("y", prior.components(h), obs=y)

    def guide(y):
        with pyro.plate("rows", len(y)):
            pyro.sample("h", prior.posterior(y))

    before = {name: value.detach().clone() for name, value in prior.named_parameters()}
    pyro.clear_param_store()
    torch.manual_seed(0)
    loss = SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO(num_particles=1)).step(y)
    assert all(not torch.equal(value, before[name]) for name, value in prior.named_parameters())
    with torch.no_grad():
        for name, value in prior.named_parameters():
            value.copy_(before[name])
        bound = torch.stack([prior.elbo(y).sum() for _ in range(200)])
    assert abs(-loss - bound.mean()) < 6 * bound.std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_components": 1}, "num_components must be a whole number of at least 2"),
        ({"dim": 1}, "dim must be a whole number of at least 2"),
        ({"num_couplings": 0}, "num_couplings must be"),
        ({"hidden_dims": (0,)}, "each size of hidden_dims"),
        ({"scale": 0.0}, "scale must be at least 1e-12"),
        ({"posterior_scale": -1.0}, "posterior_scale must be at least 1e-12"),
        ({"coupling": "spline"}, "coupling is 'exp' or 'sigmoid', not 'spline'"),
        ({"rotations": torch.eye(4)}, "rotations must be"),
        ({"rotations": 2 * torch.eye(4).expand(3, -1, -1)}, "rotations must be orthogonal"),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(ValueError, match=message):
        MessagePassingPrior(**{"num_components": K, "dim": DIM, **arguments})


def test_bad_components():
    prior = MessagePassingPrior(K, DIM)
    y = torch.randn(2, K, DIM)
    for bad in (y[:, :2], y[..., :3], y.int(), [1.0]):
        with pytest.raises(ValueError, match=r"^y must be"):
            prior.elbo(bad)
    for bad in (torch.ones(2, K), torch.ones(2, 2, dtype=torch.bool), [True]):
        with pytest.raises(ValueError, match=r"^present must be"):
            prior.posterior(y, bad)
    with pytest.raises(ValueError, match="at least one component in each row"):
        prior.impute(y, torch.tensor([[True, False, False], [False, False, False]]))
    with pytest.raises(ValueError, match=r"^h must be"):
        prior.decode(torch.randn(2, 3))
    with pytest.raises(ValueError, match="num_particles must be"):
        prior.log_prob(y, 0)
    broken = y.clone()
    broken[..., 0, :] = torch.nan
    for ask in (prior.elbo, prior.posterior, prior.log_prob):
        with pytest.raises(ValueError, match=r"^y must be finite\.$"):
            ask(broken)
    rest = torch.tensor([False] + [True] * (K - 1))
    with pytest.raises(ValueError, match=r"^y must be finite\.$"):
        prior.elbo(broken, rest)
    assert prior.impute(broken, rest).isfinite().all()


@pytest.mark.parametrize("kind", [torch.half, torch.bfloat16])
def test_rotations_of_components_in_half_precision_are_orthogonal(kind):
    rotations = procrustes_rotations(torch.randn(50, 2, 3).to(kind))
    assert rotations.dtype == torch.float32
    MessagePassingPrior(2, 3, rotations=rotations)
