"""Estimates against a linear normal, x ~ N(0, I), q(z | x) = N(A x, s^2 I), of which all informations are known."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyzoo.infer import (
    MINE,
    aggregate_log_prob,
    dependence,
    distortion,
    index_information,
    rate,
    total_correlation,
)

A = torch.tensor([[0.8, 0.3, 0.0], [0.5, -0.4, 0.6], [0.1, 0.9, -0.2]], dtype=torch.float64)
SCALE = 0.7
AGGREGATE = A @ A.mT + SCALE**2 * torch.eye(3)
EXACT = 0.5 * (torch.logdet(AGGREGATE) - 6 * math.log(SCALE)).item()  # I(z; x)


def draws(batch, seed=0):
    """q(z | x) of a batch, and a draw for each."""
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, batch, 3, generator=generator, dtype=torch.float64)
    q = dist.Normal(x @ A.mT, SCALE)
    return q, q.loc + SCALE * noise


def test_rate_is_above_the_information_by_the_kl_of_the_aggregate():
    q, _ = draws(20_000)
    p = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    aggregate = dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), AGGREGATE)
    gap = kl_divergence(aggregate, dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3).double())).item()
    assert rate(q, p).item() == pytest.approx(EXACT + gap, abs=0.03)
    torch.testing.assert_close(rate(q.to_event(1), p.to_event(1)), rate(q, p))


def test_conditional_rate_is_above_the_conditional_information():
    """I(z; x_3 | x_1, x_2), with the best normal for q(z | x_1, x_2) and a worse one."""
    q, _ = draws(20_000)
    x = torch.linalg.solve(A, q.loc.mT).mT
    rest = A[:, 2:]
    exact = 0.5 * torch.logdet(torch.eye(3) + rest @ rest.mT / SCALE**2).item()
    given = x[:, :2] @ A[:, :2].mT
    best = rate(q, dist.Normal(given, (SCALE**2 + rest.square().sum(1)).sqrt()))  # its covariance, without correlations
    assert exact <= best.item() < exact + 0.2
    assert rate(q, dist.Normal(given + 0.3, 1.5)) > best


def test_distortion_is_below_the_information_by_the_kl_of_the_decoder():
    """I(x; z) >= H(x) - distortion, an equality where p(x | z) is q(x | z), and lower by a known KL where its mean is off."""
    q, z = draws(20_000)
    x = torch.linalg.solve(A, q.loc.mT).mT
    gain = A.mT @ torch.linalg.inv(AGGREGATE)
    covariance = torch.eye(3, dtype=torch.float64) - gain @ A
    entropy = dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3).double()).entropy()
    exact = dist.MultivariateNormal(z @ gain.mT, covariance)
    assert (entropy - distortion(exact, x)).item() == pytest.approx(EXACT, abs=0.03)
    shift = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
    kl = 0.5 * shift @ torch.linalg.solve(covariance, shift)
    shifted = dist.MultivariateNormal(z @ gain.mT + shift, covariance)
    assert (entropy - distortion(shifted, x)).item() == pytest.approx(EXACT - kl.item(), abs=0.05)


def test_examples_that_do_not_count():
    """They add nothing, and the mean is over all, so that its product with the batch's size is a sum over those that do."""
    q, z = draws(6)
    p = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0)
    mask = torch.tensor([True, False, True, True, False, False])
    some = [dist.Normal(q.loc[mask], SCALE), z[mask]]
    torch.testing.assert_close(6 * rate(q, p, mask), 3 * rate(some[0], p))
    torch.testing.assert_close(6 * rate(q.to_event(1), p.to_event(1), mask), 3 * rate(some[0], p))
    torch.testing.assert_close(6 * distortion(q, z, mask), 3 * distortion(*some))
    z[1] = math.nan
    assert torch.isfinite(distortion(dist.Normal(q.loc, SCALE, validate_args=False), z, mask))


@pytest.mark.parametrize("dataset_size", [None, 1500])
def test_minibatch_estimates(dataset_size):
    q, z = draws(1500)
    one, two = AGGREGATE[0, 0], AGGREGATE[1:, 1:]
    exact = 0.5 * (AGGREGATE.diag().log().sum() - torch.logdet(AGGREGATE)).item()
    assert total_correlation(q, z, [[0], [1], [2]], dataset_size).item() == pytest.approx(exact, abs=0.08)
    exact = 0.5 * (one.log() + torch.logdet(two) - torch.logdet(AGGREGATE)).item()
    assert total_correlation(q, z, [slice(0, 1), slice(1, 3)], dataset_size).item() == pytest.approx(exact, abs=0.08)
    assert index_information(q, z, dataset_size).item() == pytest.approx(EXACT, abs=0.08)


def test_aggregate_density_of_a_small_data_set_is_exact():
    """With the whole data set in the batch it is the mean of the posteriors."""
    q, z = draws(5)
    pairs = torch.stack([q.log_prob(point).sum(-1) for point in z])
    exact = pairs.logsumexp(1) - math.log(5)
    torch.testing.assert_close(aggregate_log_prob(q, z, dataset_size=5), exact)


def test_aggregate_density_is_right_on_average():
    """Over batches that hold an example the estimated density, not its logarithm, is the data set's."""
    q, z = draws(6)
    whole = aggregate_log_prob(q, z, dataset_size=6)[0].exp()
    found = []
    for other in range(1, 6):
        rows = [0, other]
        found.append(aggregate_log_prob(dist.Normal(q.loc[rows], SCALE), z[rows], dataset_size=6)[0].exp())
    torch.testing.assert_close(torch.stack(found).mean(), whole)


@pytest.mark.parametrize("function", [lambda q, z: total_correlation(q, z, [[0], [1, 2]]), index_information])
def test_estimates_have_gradients_and_do_not_mind_the_order(function):
    q, z = draws(6)
    loc = q.loc.clone().requires_grad_()
    value = function(dist.Normal(loc, SCALE), z)
    assert torch.autograd.grad(value, loc)[0].all()
    order = [3, 1, 0, 5, 4, 2]
    torch.testing.assert_close(function(dist.Normal(q.loc[order], SCALE), z[order]), value.detach())


def test_too_few_examples():
    q, z = draws(1)
    with pytest.raises(ValueError, match="two or more examples"):
        aggregate_log_prob(q, z)


def correlated(batch, rho, seed):
    generator = torch.Generator().manual_seed(seed)
    z, noise = torch.randn(2, batch, 1, generator=generator)
    return z, rho * z + math.sqrt(1 - rho**2) * noise


def test_mine_learns_the_information_of_a_normal_pair():
    torch.manual_seed(0)
    mine = MINE(1, 1)
    optimizer = torch.optim.Adam(mine.parameters(), lr=2e-3)
    for step in range(600):
        loss = -mine(*correlated(256, 0.8, seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = mine(*correlated(50_000, 0.8, seed=-1 % 2**31)).item()
        assert mine(*correlated(50_000, 0.0, seed=7)).item() < 0
    exact = -0.5 * math.log(1 - 0.8**2)
    assert exact - 0.08 < found < exact + 0.02


@pytest.mark.parametrize("bandwidth", [0.5, 2.0])
def test_dependence_of_correlated_normals_is_the_known_one(bandwidth):
    """E k(x, y) of x ~ N(0, S), y ~ N(0, T) is det(I + (S + T) / h^2)^(-1/2)."""
    eye, sigma = torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)

    def kernel(s, t):
        return torch.linalg.det(eye + (s + t) / bandwidth**2).rsqrt()

    exact = kernel(sigma, sigma) + kernel(eye, eye) - 2 * kernel(sigma, eye)
    estimates = [dependence(*correlated(2000, 0.8, seed), bandwidth).item() for seed in range(4)]
    assert sum(estimates) / 4 == pytest.approx(exact.item(), rel=0.1)


def test_dependence_is_near_zero_only_without_it():
    none, some = (dependence(*correlated(1000, rho, seed=1)).item() for rho in (0.0, 0.8))
    assert none < 0.005 < 0.02 < some


def test_wrong_numbers_are_refused():
    q = dist.Normal(torch.zeros(6, 2), 1.0)
    with pytest.raises(ValueError, match="q must be of type Normal"):
        aggregate_log_prob(dist.Laplace(torch.zeros(6, 2), 1.0), torch.zeros(6, 2))
    with pytest.raises(ValueError, match="p must broadcast to q's batch"):  # the mean would be over 3 examples
        rate(q, dist.Normal(torch.zeros(3, 6, 2), 1.0))
