import math

import pytest
import torch

from pyzoo.infer import gaussian_kernel, squared_mmd, squared_mmd_to_normal


def points(size, features=3, seed=0):
    return torch.randn(size, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair_by_pair(x, y, bandwidth):
    def mean(a, b):
        return sum(math.exp(-float((p - q).square().sum()) / (2 * bandwidth**2)) for p in a for q in b) / (len(a) * len(b))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@pytest.mark.parametrize("bandwidth", [None, 0.3, 5.0])
def test_equals_the_sum_over_pairs(bandwidth):
    x, y = points(6), 0.5 * points(4, seed=1) + 1
    expected = pair_by_pair(x, y, math.sqrt(3) if bandwidth is None else bandwidth)
    assert squared_mmd(x, y, bandwidth).item() == pytest.approx(expected, rel=1e-12)
    assert squared_mmd(y, x, bandwidth).item() == pytest.approx(expected, rel=1e-12)


def test_is_zero_for_the_same_points_in_any_order_and_positive_otherwise():
    x = points(8)
    assert squared_mmd(x, x.flip(0)).item() == pytest.approx(0, abs=1e-15)
    assert squared_mmd(x, x + 0.1) > 0
    assert squared_mmd(x, x + 1000).item() == pytest.approx(2 * gaussian_kernel(x[:, None], x).mean().item(), abs=1e-6)


def test_between_samples_of_normals_is_near_the_distributions_own():
    """For N(m, I) and N(0, I): E k = (h2 / (h2 + 2))^(d/2) exp(-|m|^2 / 2(h2 + 2)) across, and that at m = 0 within."""
    mean = torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64)
    square = 3.0
    within = (square / (square + 2)) ** 1.5
    exact = 2 * within * (1 - math.exp(-mean.square().sum().item() / (2 * (square + 2))))
    assert squared_mmd(points(4000) + mean, points(4000, seed=1)).item() == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("bandwidth", [None, 1.0])
def test_to_normal_is_the_limit_of_many_draws(bandwidth):
    x = 0.7 * points(20) + 0.4
    drawn = squared_mmd(x, points(8000, seed=1), bandwidth)
    assert squared_mmd_to_normal(x, bandwidth).item() == pytest.approx(drawn.item(), abs=0.005)


def test_to_normal_is_least_for_normal_points():
    x = points(500, features=10)
    assert squared_mmd_to_normal(x) < min(squared_mmd_to_normal(0.6 * x), squared_mmd_to_normal(x + 0.5))


@pytest.mark.parametrize("function", [squared_mmd_to_normal, lambda x: squared_mmd(x, 0.5 * points(4, seed=1) + 0.5)])
def test_gradients(function):
    assert torch.autograd.gradcheck(function, (points(5).requires_grad_(),))


def test_a_bandwidth_must_be_positive():
    with pytest.raises(ValueError, match="bandwidth must be positive and finite, got 0"):
        squared_mmd(points(3), points(3), bandwidth=0.0)


@pytest.mark.parametrize("bandwidth", [1e-30, 1e30, float("nan")])
def test_a_bandwidth_whose_square_is_no_number(bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be"):
        squared_mmd(torch.zeros(2, 1), torch.ones(2, 1), bandwidth)


def test_the_kernel_of_no_features():
    with pytest.raises(ValueError, match="one or more"):
        gaussian_kernel(torch.zeros(2, 0), torch.zeros(2, 0))
