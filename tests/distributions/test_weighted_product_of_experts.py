import copy
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import kl_divergence

from pyzoo.distributions import WeightedProductOfExperts
from pyzoo.testing import check_distribution

SEEDS = st.integers(0, 2**31)
EXPERTS = st.integers(1, 4)


def experts(count=3, batch=5, features=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    loc = 2 * torch.randn(batch, count, features, generator=generator, dtype=dtype)
    scale = torch.rand(batch, count, features, generator=generator, dtype=dtype) + 0.3
    return loc, scale, torch.rand(batch, count, features, generator=generator, dtype=dtype)


@settings(max_examples=30, deadline=None)
@given(EXPERTS, SEEDS)
def test_agrees_with_numerical_integration(count, seed):
    loc, scale, weights = experts(count, seed=seed)
    q = WeightedProductOfExperts(loc, scale, weights, prior_loc=0.5, prior_scale=0.8)
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64).view(-1, 1, 1)
    log_density = dist.Normal(0.5, 0.8).log_prob(z).expand(-1, 5, 2)
    for i in range(count):
        log_density = log_density + weights[:, i] * dist.Normal(loc[:, i], scale[:, i]).log_prob(z)
    log_normalizer = log_density.logsumexp(0) + math.log(24 / 20_000)
    torch.testing.assert_close(q.log_normalizer, log_normalizer, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(q.log_prob(z), log_density - log_normalizer, rtol=1e-6, atol=1e-6)


def test_equals_wu_and_goodmans_product_at_weights_of_one():
    loc, scale, _ = experts()
    precision = 1 / scale.square()
    variance = 1 / (1 + precision.sum(1))
    q = WeightedProductOfExperts(loc, scale)
    torch.testing.assert_close(q.variance, variance)
    torch.testing.assert_close(q.mean, variance * (precision * loc).sum(1))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), SEEDS, st.sampled_from([torch.float32, torch.float64]))
def test_absent_experts_change_nothing_exactly(count, seed, dtype):
    loc, scale, weights = experts(count, seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    prior = {"prior_loc": torch.randn(2, generator=generator, dtype=dtype), "prior_scale": 0.3}
    alone = WeightedProductOfExperts(loc, scale, weights, **prior)
    nothing = torch.full((5, 2, 2), math.nan, dtype=dtype)
    place = int(torch.randint(count + 1, (), generator=generator))
    present = torch.ones(5, count + 2, dtype=torch.bool)
    present[:, place : place + 2] = False
    wide = [torch.cat([part[:, :place], nothing, part[:, place:]], 1) for part in (loc, scale, weights)]
    q = WeightedProductOfExperts(*wide, present=present, **prior)
    for name in ("loc", "scale", "log_normalizer"):
        assert torch.equal(getattr(q, name), getattr(alone, name)), name
    none = WeightedProductOfExperts(*wide, present=torch.zeros_like(present), **prior)
    assert torch.equal(none.loc, prior["prior_loc"].expand(5, 2))
    assert torch.equal(none.scale, torch.full((5, 2), 0.3, dtype=dtype))
    assert torch.equal(none.log_normalizer, torch.zeros(5, 2, dtype=dtype))


def test_a_weight_of_zero_removes_an_expert_and_rows_may_differ():
    loc, scale, _ = experts()
    weights = torch.ones(5, 3, 1, dtype=torch.float64)
    weights[:, 1] = 0
    by_weight = WeightedProductOfExperts(loc, scale, weights)
    without = WeightedProductOfExperts(loc[:, [0, 2]], scale[:, [0, 2]])
    assert torch.equal(by_weight.loc, without.loc)
    present = torch.tensor([[True, True, True], [False, True, True], [False, False, False], [True, False, True], [True] * 3])
    q = WeightedProductOfExperts(loc, scale, present=present)
    for row in range(5):
        keep = present[row]
        alone = (
            WeightedProductOfExperts(loc[row : row + 1, keep], scale[row : row + 1, keep]) if keep.any() else dist.Normal(0, 1)
        )
        assert (q.loc[row] == alone.mean).all()
        assert (q.scale[row] == alone.stddev).all()


def test_absent_experts_get_no_gradient_and_no_nan():
    loc, scale, weights = (part.clone() for part in experts(2))
    loc[:, 1] = math.nan
    for part in (loc, scale, weights):
        part.requires_grad_()
    present = torch.tensor([True, False]).expand(5, 2)
    q = WeightedProductOfExperts(loc, scale, weights, present)
    kl_divergence(q, dist.Normal(0, 1)).sum().backward()
    for part in (loc, scale, weights):
        assert not part.grad[:, 1].any()
        assert part.grad[:, 0].all()


def test_without_experts_it_is_the_prior():
    q = WeightedProductOfExperts(torch.zeros(3, 0, 2), torch.ones(3, 0, 2), prior_loc=0.5, prior_scale=2.0)
    assert torch.equal(q.loc, torch.full((3, 2), 0.5))
    assert torch.equal(q.scale, torch.full((3, 2), 2.0))
    assert torch.equal(q.log_normalizer, torch.zeros(3, 2))


def test_order_of_experts_does_not_matter():
    loc, scale, weights = experts()
    order = [2, 0, 1]
    q, p = WeightedProductOfExperts(loc, scale, weights), WeightedProductOfExperts(*(x[:, order] for x in (loc, scale, weights)))
    for name in ("loc", "scale", "log_normalizer"):
        torch.testing.assert_close(getattr(q, name), getattr(p, name))


def test_any_dimension_can_hold_the_experts():
    loc, scale, weights = experts()
    q = WeightedProductOfExperts(loc, scale, weights)
    present = torch.ones(3, dtype=torch.bool)
    first = WeightedProductOfExperts(*(x.movedim(1, 0) for x in (loc, scale, weights)), present=present, dim=-3)
    assert torch.equal(first.loc, q.loc)
    last = WeightedProductOfExperts(*(x.movedim(1, 2) for x in (loc, scale, weights)), dim=-1)
    assert torch.equal(last.scale, q.scale)


@pytest.mark.parametrize("weighted", [False, True])
def test_is_a_full_citizen(weighted):
    loc, scale, weights = experts()
    check_distribution(WeightedProductOfExperts, {"loc": loc, "scale": scale} | ({"weights": weights} if weighted else {}))


def test_kl_is_that_of_a_normal():
    loc, scale, weights = experts()
    q = WeightedProductOfExperts(loc, scale, weights)
    p = dist.Normal(torch.zeros(5, 2, dtype=torch.float64), 1.0)
    same = dist.Normal(q.loc, q.scale)
    torch.testing.assert_close(kl_divergence(q.to_event(1), p.to_event(1)), kl_divergence(same, p).sum(-1))


def test_normalizer_is_expanded_and_copied():
    loc, scale, weights = experts()
    q = WeightedProductOfExperts(loc, scale, weights)
    wide = q.expand([4, 5, 2])
    assert torch.equal(wide.log_normalizer[3], q.log_normalizer)
    for other in (copy.deepcopy(wide), pickle.loads(pickle.dumps(wide))):
        assert torch.equal(other.log_normalizer, wide.log_normalizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": torch.full((1, 3, 1), 1.2)}, "between 0 and 1, got 1.2 to 1.2"),
        ({"weights": torch.full((1, 3, 1), -0.1)}, "between 0 and 1"),
        ({"scale": torch.zeros(5, 3, 2)}, "must be positive, got 0"),
        ({"dim": 1}, "dim must be negative and among the 3 dimensions of loc, got 1"),
        ({"dim": -4}, "got -4"),
        ({"prior_scale": -1.0}, "scale"),
    ],
)
def test_bad_arguments(arguments, message):
    loc, scale, _ = experts()
    with pytest.raises(ValueError, match=message):
        WeightedProductOfExperts(**{"loc": loc, "scale": scale, **arguments})
    if "dim" not in arguments:
        WeightedProductOfExperts(**{"loc": loc, "scale": scale, **arguments}, validate_args=False)


def test_integers_and_scales_that_overflow_are_refused():
    with pytest.raises(ValueError, match="loc and scale must be floating-point tensors"):
        WeightedProductOfExperts(torch.zeros(1, 2, 1).long(), torch.ones(1, 2, 1))
    with pytest.raises(ValueError, match="The precision of an expert of scale 1e-20 overflows"):
        WeightedProductOfExperts(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 1e-20))
    assert WeightedProductOfExperts(
        torch.zeros(1, 1, 1).double(), torch.full((1, 1, 1), 1e-20).double()
    ).stddev.item() == pytest.approx(1e-20)


@pytest.mark.parametrize(
    ("shapes", "dim"),
    [
        ({"loc": (3, 2, 4), "scale": (3, 2, 4)}, -2),
        ({"loc": (3, 2, 4), "scale": (4,), "present": (3, 2)}, -2),
        ({"loc": (2, 3), "scale": (2, 3), "weights": (2, 1), "prior_loc": (5, 3)}, -2),
        ({"loc": (3, 2), "scale": (1,), "present": (3, 2)}, -1),
    ],
)
def test_shapes_are_inferred_as_they_come_out(shapes, dim):
    values = {name: torch.ones(shape, dtype=torch.bool if name == "present" else None) for name, shape in shapes.items()}
    made = WeightedProductOfExperts(**values, dim=dim)
    assert WeightedProductOfExperts.infer_shapes(**shapes, dim=dim) == (made.batch_shape, made.event_shape)


@pytest.mark.parametrize(
    ("loc", "more", "message"),
    [
        ([[[1e30], [0.0]]], {}, "means are not finite, or too far apart"),
        ([[[math.inf], [0.0]]], {}, "means are not finite, or too far apart"),
        ([[[2.0], [3.0]]], {"prior_scale": -1.0}, "prior_scale must be positive and finite, got -1"),
        ([[[2.0], [3.0]]], {"prior_loc": math.nan}, "prior_loc must be finite"),
        ([[[2.0], [3.0]]], {"present": torch.ones(1, 2)}, "present must be boolean"),
        ([[[2.0], [3.0]]], {"weights": torch.ones(3, 1)}, "shapes must broadcast"),
    ],
)
def test_what_can_not_be_computed_is_said(loc, more, message):
    with pytest.raises(ValueError, match=message):
        WeightedProductOfExperts(torch.tensor(loc), torch.ones(1, 2, 1), **more)


def test_values_are_checked_where_that_is_asked_for():
    with pyro.validation_enabled(False), pytest.raises(ValueError, match="scales of present experts must be positive"):
        WeightedProductOfExperts(torch.zeros(1, 2, 1), -torch.ones(1, 2, 1), validate_args=True)
