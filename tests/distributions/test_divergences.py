import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyzoo.distributions import dual_geometric_jensen_shannon


def normals(seed=0, weighted=True):
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(4, 3, 2, generator=generator, dtype=torch.float64)
    scale = torch.rand(4, 3, 2, generator=generator, dtype=torch.float64) + 0.4
    weights = torch.rand(4, 3, 1, generator=generator, dtype=torch.float64)
    return loc, scale, weights / weights.sum(1, keepdim=True) if weighted else None


@pytest.mark.parametrize("weighted", [True, False])
def test_equals_the_mean_kl_of_the_geometric_mean(weighted):
    loc, scale, weights = normals(weighted=weighted)
    shares = torch.full_like(loc, 1 / 3) if weights is None else weights.expand_as(loc)
    z = torch.linspace(-15, 15, 30_001, dtype=torch.float64)
    log_mean = (shares.unsqueeze(-1) * dist.Normal(loc.unsqueeze(-1), scale.unsqueeze(-1)).log_prob(z)).sum(1)
    step = 30 / 30_000
    normalizer = (log_mean.logsumexp(-1).exp() * step).unsqueeze(-1)
    found = dual_geometric_jensen_shannon(loc, scale, weights)
    torch.testing.assert_close(found, -normalizer.squeeze(-1).log(), rtol=1e-6, atol=1e-6)
    density = log_mean.exp() / normalizer
    mean = (density * z).sum(-1) * step
    variance = (density * (z - mean.unsqueeze(-1)).square()).sum(-1) * step
    kls = kl_divergence(dist.Normal(mean.unsqueeze(1), variance.sqrt().unsqueeze(1)), dist.Normal(loc, scale))
    torch.testing.assert_close(found, (shares * kls).sum(1), rtol=1e-5, atol=1e-6)


def test_zero_for_equal_normals_and_in_any_order():
    loc, scale, weights = normals()
    same = dual_geometric_jensen_shannon(loc[:, :1].expand(-1, 3, -1), scale[:, :1].expand(-1, 3, -1), weights)
    torch.testing.assert_close(same, torch.zeros(4, 2, dtype=torch.float64))
    order = [2, 0, 1]
    torch.testing.assert_close(
        dual_geometric_jensen_shannon(*(part[:, order] for part in (loc, scale, weights))),
        dual_geometric_jensen_shannon(loc, scale, weights),
    )
    moved = [part.movedim(1, 0) for part in (loc, scale, weights)]
    torch.testing.assert_close(dual_geometric_jensen_shannon(*moved, dim=-3), dual_geometric_jensen_shannon(loc, scale, weights))


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5]])
def test_weights_must_be_shares(weights):
    with pytest.raises(ValueError, match="sum to 1"):
        dual_geometric_jensen_shannon(torch.zeros(2, 1), torch.ones(2, 1), torch.tensor(weights).unsqueeze(-1))


@pytest.mark.parametrize(
    ("loc", "scale", "message"),
    [
        ([[0.0], [1.0]], [[1e30], [1e30]], "is beyond what torch.float32 can hold"),
        ([[1e30], [-1e30]], [[1.0], [1.0]], "too far apart for torch.float32"),
        ([[0.0], [math.nan]], [[1.0], [1.0]], "Means must be finite"),
    ],
)
def test_what_can_not_be_computed_is_said(loc, scale, message):
    with pytest.raises(ValueError, match=message):
        dual_geometric_jensen_shannon(torch.tensor(loc), torch.tensor(scale))
