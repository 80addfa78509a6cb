import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import kl_divergence

from pyzoo.distributions import CorrelatedNormal
from pyzoo.testing import check_distribution

BATCHES = st.sampled_from([(), (3,), (2, 3), (2, 1)])
PARTS = st.integers(1, 6)
SEEDS = st.integers(0, 2**31)


def make(batch, parts, seed, by="rho_logits", dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    loc, logits = torch.randn(2, *batch, parts, generator=generator, dtype=dtype)
    scale = torch.rand(*batch, parts, generator=generator, dtype=dtype) + 0.3
    q = CorrelatedNormal(loc, scale, rho_logits=logits)
    return q if by == "rho_logits" else CorrelatedNormal(loc, scale, rho=q.rho)


def dense(q):
    return dist.MultivariateNormal(q.loc, covariance_matrix=q.covariance_matrix)


@settings(max_examples=40, deadline=None)
@given(BATCHES, PARTS, SEEDS, st.sampled_from(["rho", "rho_logits"]), st.sampled_from([torch.float32, torch.float64]))
def test_equals_the_dense_normal(batch, parts, seed, by, dtype):
    q = make(batch, parts, seed, by, dtype)
    # Single precision is held against the dense normal in double, which can itself be off in single.
    double = CorrelatedNormal(q.loc.double(), q.scale.double(), **{by: getattr(q, by).double()})
    p = dense(double)
    value = q.sample((4,))
    close = {"rtol": 2e-2, "atol": 2e-2, "check_dtype": False} if dtype == torch.float32 else {"rtol": 1e-6, "atol": 1e-6}
    assert value.dtype == dtype
    torch.testing.assert_close(q.log_prob(value), p.log_prob(value.double()), **close)
    torch.testing.assert_close(q.entropy(), p.entropy(), **close)
    torch.testing.assert_close(q.variance, p.variance, **close)
    torch.testing.assert_close(q.mean, p.mean, check_dtype=False)
    torch.testing.assert_close(q.covariance_matrix, p.covariance_matrix, **close)
    eye = torch.eye(parts, dtype=torch.float64).expand(*batch, parts, parts)
    torch.testing.assert_close(double.precision_matrix @ double.covariance_matrix, eye, rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(BATCHES, PARTS, SEEDS)
def test_kl_equals_the_dense_one(batch, parts, seed):
    q = make(batch, parts, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    loc = torch.randn(parts, generator=generator, dtype=torch.float64)
    scale = torch.rand(2, *([1] * len(batch)), parts, generator=generator, dtype=torch.float64) + 0.2  # broadcasts to the left
    factor = torch.randn(parts, parts, generator=generator, dtype=torch.float64)
    diagonal = dist.Normal(loc, scale).to_event(1)
    full = dist.MultivariateNormal(loc, covariance_matrix=factor @ factor.mT + 0.1 * torch.eye(parts))
    as_full = dist.MultivariateNormal(diagonal.mean, covariance_matrix=torch.diag_embed(diagonal.variance))
    torch.testing.assert_close(kl_divergence(q, diagonal), kl_divergence(dense(q), as_full), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(kl_divergence(q, full), kl_divergence(dense(q), full), rtol=1e-7, atol=1e-7)


def left_of(kind, q, seed):
    """A distribution of this kind over as many terms as q has, of a batch shape that broadcasts with q's, and a dense equal."""
    generator = torch.Generator().manual_seed(seed)
    parts = q.event_shape[0]
    loc = torch.randn(2, *([1] * len(q.batch_shape)), parts, generator=generator, dtype=torch.float64)  # broadcasts to the left
    scale = torch.rand(parts, generator=generator, dtype=torch.float64) + 0.3
    if kind == "diagonal":
        left = dist.Normal(loc, scale).to_event(1)
        return left, dist.MultivariateNormal(loc, covariance_matrix=torch.diag_embed(left.variance))
    if kind == "dense":
        factor = torch.randn(*q.batch_shape, parts, parts, generator=generator, dtype=torch.float64)
        left = dist.MultivariateNormal(loc, covariance_matrix=factor @ factor.mT + torch.eye(parts))
        return left, left
    left = CorrelatedNormal(loc, scale, rho_logits=torch.randn(parts, generator=generator, dtype=torch.float64))
    return left, dense(left)


KINDS = ["diagonal", "dense", "correlated"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), BATCHES, PARTS, SEEDS, st.sampled_from(["rho", "rho_logits"]))
def test_kl_to_it_equals_the_dense_one(kind, batch, parts, seed, by):
    p = make(batch, parts, seed, by)
    q, as_dense = left_of(kind, p, seed + 1)
    kl = kl_divergence(q, p)
    assert kl.shape == torch.broadcast_shapes(q.batch_shape, batch) == (2, *batch)
    torch.testing.assert_close(kl, kl_divergence(as_dense, dense(p)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["rho", "rho_logits"])
def test_gradients_of_the_kl_to_it(kind, by):
    p = make((3,), 4, 7)
    _, as_dense = left_of(kind, p, 8)
    factor = as_dense.scale_tril.detach().clone()
    params = [v.detach().clone().requires_grad_() for v in (as_dense.mean, factor, p.loc, p.scale, getattr(p, by))]
    logits = torch.randn(4, dtype=torch.float64)

    def functions(dense_too):
        def kl(loc, factor, *others):
            diagonal = factor.diagonal(dim1=-2, dim2=-1)
            right = CorrelatedNormal(others[0], others[1], **{by: others[2]})
            if kind == "dense":
                left = as_left = dist.MultivariateNormal(loc, scale_tril=factor.tril())
            elif kind == "diagonal":
                left = dist.Normal(loc, diagonal).to_event(1)
                as_left = dist.MultivariateNormal(loc, scale_tril=torch.diag_embed(diagonal))
            else:
                left = CorrelatedNormal(loc, diagonal, rho_logits=logits)
                as_left = dense(left)
            return kl_divergence(as_left, dense(right)) if dense_too else kl_divergence(left, right)

        return kl

    gradients, expected = (torch.autograd.grad(functions(dense_too)(*params).sum(), params) for dense_too in (False, True))
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(functions(False), params)


def test_kl_to_itself_is_zero():
    q = make((2, 3), 5, 3)
    torch.testing.assert_close(kl_divergence(q, q), torch.zeros(2, 3, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("ratio", [1.0, 0.7])
@pytest.mark.parametrize("logit", [0.0, 30.0, 300.0])
def test_kl_between_sums_that_are_nearly_certain(logit, ratio):
    """Equal shares and a common ratio g of the scales: S_p^-1 G S_q is g I, however small the remainder is."""
    loc = torch.randn(3, dtype=torch.float64)
    logits = torch.randn(3, dtype=torch.float64) + logit
    p = CorrelatedNormal(loc, torch.full((3,), 0.7, dtype=torch.float64), rho_logits=logits)
    q = CorrelatedNormal(loc, p.scale * ratio, rho_logits=logits)
    exact = 3 * (0.5 * (ratio**2 - 1) - math.log(ratio))
    assert kl_divergence(q, p).item() == pytest.approx(exact, abs=1e-9)


def test_the_sum_of_one_can_be_far_less_certain_than_the_others():
    """Equal scales and locs, both remainders tiny: the KL is that of the sums, which alone differ, from the dense formula."""
    ones = torch.ones(2, dtype=torch.float64)
    q = CorrelatedNormal(0 * ones, ones, rho_logits=torch.full((2,), 20.0, dtype=torch.float64))
    p = CorrelatedNormal(0 * ones, ones, rho_logits=torch.full((2,), 25.0, dtype=torch.float64))
    ratio = 2 * (q._log_remainder - p._log_remainder)  # of the variances of the two sums; their difference is equally uncertain
    expected = 0.5 * (ratio.exp() - 1 - ratio)
    torch.testing.assert_close(kl_divergence(q, p), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_kl_to_a_singular_one_is_infinite(kind):
    q, _ = left_of(kind, make((), 2, 0), 1)
    p = CorrelatedNormal(torch.zeros(2), torch.ones(2), rho=torch.tensor([0.25, 0.75]), validate_args=False)
    assert kl_divergence(q, p).isposinf().all()


@pytest.mark.parametrize("logit", [-60.0, 60.0])
@pytest.mark.parametrize("kind", KINDS)
def test_kl_to_extreme_logits_is_not_nan(kind, logit):
    q, _ = left_of(kind, make((), 3, 0), 1)
    p = CorrelatedNormal(torch.zeros(3), torch.ones(3), rho_logits=torch.full((3,), logit))
    assert (kl_divergence(q, p) > 0).all()  # in float32 it may be infinite
    p = CorrelatedNormal(p.loc.double(), p.scale.double(), rho_logits=p.rho_logits.double())
    assert torch.isfinite(kl_divergence(q, p)).all()


def test_kl_to_it_under_to_event():
    p, q = make((5, 7), 3, 0), dist.Normal(torch.zeros(5, 7, 3, dtype=torch.float64), 1.0)
    torch.testing.assert_close(kl_divergence(q.to_event(2), p.to_event(1)), kl_divergence(q.to_event(1), p).sum(-1))
    torch.testing.assert_close(kl_divergence(p.to_event(2), p.to_event(2)), torch.tensor(0.0, dtype=torch.float64))


def test_kl_is_what_samples_say():
    torch.manual_seed(1)
    q = make((2,), 4, 3)
    p = dist.Normal(torch.zeros(4, dtype=torch.float64), 0.8).to_event(1)
    value = q.sample((100_000,))
    ratio = q.log_prob(value) - p.log_prob(value)
    error = (ratio.mean(0) - kl_divergence(q, p)).abs()
    assert (error < 6 * ratio.std(0) / 100_000**0.5).all()


def test_kl_under_to_event():
    q, p = make((5, 7), 3, 0), dist.Normal(torch.zeros(5, 7, 3, dtype=torch.float64), 1.0)
    joint = kl_divergence(q.to_event(1), p.to_event(2))
    torch.testing.assert_close(joint, kl_divergence(q, p.to_event(1)).sum(-1))


def test_kl_between_different_sizes_raises():
    q = make((), 1, 0)
    three = torch.zeros(3, dtype=torch.float64)
    for p in (dist.Normal(three, 1.0).to_event(1), dist.MultivariateNormal(three, torch.eye(3, dtype=torch.float64))):
        with pytest.raises(ValueError, match="over 1 terms to one over 3"):
            kl_divergence(q, p)
        with pytest.raises(ValueError, match="over 3 terms to one over 1"):
            kl_divergence(p, q)
    with pytest.raises(ValueError, match="over 1 terms to one over 3"):
        kl_divergence(q, make((), 3, 0))


def test_no_kl_between_it_and_what_is_not_normal():
    laplace, q = dist.Laplace(torch.zeros(3), 1.0).to_event(1), make((), 3, 0)
    for pair in ((q, laplace), (laplace, q)):
        with pytest.raises(NotImplementedError):
            kl_divergence(*pair)


def test_the_papers_equations_7_and_9_are_misprinted():
    # Papers' README: K = 5, random parameters. The printed equations miss what the dense matrix says; ours do not.
    q = make((), 5, 5)
    exact = q.covariance_matrix.sum()
    printed = q.scale.square().sum() * (1 - q.rho.sum())
    torch.testing.assert_close(q.marginal_sum().variance, exact)
    assert abs(printed - exact) > 0.05 * exact
    p = dist.Normal(torch.zeros(5, dtype=torch.float64), 1.0)
    trace = ((1 - 2 * q.rho + 5 * q.rho**2) * q.scale**2).sum()
    log_ratio = (-2 * q.scale.log()).sum() + q.loc.square().sum()
    printed = 0.5 * log_ratio + trace - (1 - q.rho.sum()).log()
    exact = kl_divergence(dense(q), dense(CorrelatedNormal(p.loc, p.scale, rho=torch.zeros(5))))
    torch.testing.assert_close(kl_divergence(q, p.to_event(1)), exact)
    torch.testing.assert_close(printed - 0.5 * trace - 2.5, exact)  # the missing factor and the missing constant


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_marginal_sum(parts):
    q = make((3,), parts, 2)
    torch.testing.assert_close(q.marginal_sum().mean, q.loc.sum(-1))
    torch.testing.assert_close(q.marginal_sum().variance, q.covariance_matrix.sum((-2, -1)))


@pytest.mark.parametrize("unit", [1e-30, 1e-25, 1e20, 1e30])
def test_scales_whose_squares_can_not_be_represented(unit):
    one = CorrelatedNormal(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0]), rho=torch.tensor([0.1, 0.2, 0.3]))
    other = CorrelatedNormal(torch.zeros(3), unit * torch.tensor([1.0, 2.0, 3.0]), rho=torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(other.stddev / unit, one.stddev)
    torch.testing.assert_close(other.marginal_sum().scale / unit, one.marginal_sum().scale)
    if unit < 1:
        kl = kl_divergence(other, dist.Normal(torch.zeros(3), 1.0).to_event(1))
        assert kl.isfinite()


def test_the_sum_can_be_certain_while_the_parts_are_not():
    q = CorrelatedNormal(torch.zeros(4), torch.full((4,), 1.1), rho_logits=torch.full((4,), 30.0))
    assert q.variance.min() > 0.7
    remainder = torch.exp(q._log_remainder)
    torch.testing.assert_close(q.marginal_sum().scale, 2.2 * remainder)  # no cancellation down to 1e-13
    assert 0 < q.marginal_sum().scale < 1e-12


@pytest.mark.parametrize("logit", [-60.0, 0.0, 60.0])
def test_extreme_logits_stay_finite(logit):
    logits = torch.full((3,), logit, requires_grad=True)
    q = CorrelatedNormal(torch.zeros(3), torch.ones(3), rho_logits=logits)
    kl = kl_divergence(q, dist.Normal(torch.zeros(3), 1.0).to_event(1))
    (gradient,) = torch.autograd.grad(kl + q.entropy() + q.rsample().sum(), logits)
    assert torch.isfinite(kl)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("by", ["rho", "rho_logits"])
def test_gradients(by):
    q = make((2,), 3, 7)
    params = [p.detach().clone().requires_grad_() for p in (q.loc, q.scale, getattr(q, by))]
    value = torch.randn(2, 3, dtype=torch.float64)
    p = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.3).to_event(1)
    full = dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64) + 0.3)

    def functions(loc, scale, correlation):
        q = CorrelatedNormal(loc, scale, **{by: correlation})
        kls = kl_divergence(q, p), kl_divergence(q, full)
        return (q.log_prob(value), q.entropy(), q.variance, q.marginal_sum().scale, q.precision_matrix, *kls)

    assert torch.autograd.gradcheck(functions, params)


@pytest.mark.parametrize("by", ["rho", "rho_logits"])
def test_is_a_full_citizen(by):
    check_distribution(CorrelatedNormal, {"loc": torch.randn(2, 3, 4), "scale": torch.rand(4) + 0.5, by: torch.rand(3, 4) / 8})


def test_zero_rho_is_an_independent_normal():
    q = CorrelatedNormal(torch.zeros(3), torch.ones(3), rho=torch.zeros(3))
    p = dist.Normal(torch.zeros(3), 1.0).to_event(1)
    value = torch.randn(5, 3)
    torch.testing.assert_close(q.log_prob(value), p.log_prob(value))
    assert kl_divergence(q, p) == 0


def test_both_parameterisations_agree():
    q = make((2,), 4, 11)
    other = CorrelatedNormal(q.loc, q.scale, rho=q.rho)
    torch.testing.assert_close(other.rho_logits, q.rho_logits)
    torch.testing.assert_close(other.rho, q.rho)
    expanded = other.expand((3, 2))  # after both were derived
    torch.testing.assert_close(expanded.rho_logits, q.rho_logits.expand(3, 2, 4))


def test_order_of_the_parts_does_not_matter():
    q, order = make((2,), 5, 4), torch.tensor([3, 0, 4, 1, 2])
    permuted = CorrelatedNormal(q.loc[:, order], q.scale[:, order], rho_logits=q.rho_logits[:, order])
    value = q.sample()
    torch.testing.assert_close(permuted.log_prob(value[:, order]), q.log_prob(value))
    torch.testing.assert_close(permuted.marginal_sum().scale, q.marginal_sum().scale)


BAD = {
    "both": {"rho": torch.zeros(2), "rho_logits": torch.zeros(2)},
    "neither": {},
    "rho_too_large": {"rho": torch.tensor([0.5, 0.5])},
    "rho_negative": {"rho": torch.tensor([-0.1, 0.5])},
    "scale": {"rho_logits": torch.zeros(2), "scale": torch.tensor([1.0, -1.0])},
    "shapes": {"rho_logits": torch.zeros(3)},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_raise(name):
    with pytest.raises((ValueError, RuntimeError)):
        CorrelatedNormal(**{"loc": torch.zeros(2), "scale": torch.ones(2), **BAD[name]}, validate_args=True)


def test_scalars_raise():
    with pytest.raises(ValueError, match="last dimension"):
        CorrelatedNormal(torch.tensor(0.0), torch.tensor(1.0), rho=torch.tensor(0.1))


def test_a_value_of_another_shape_raises():
    with pytest.raises(ValueError, match=r"(?i)shape|size"):
        CorrelatedNormal(torch.zeros(3), torch.ones(3), rho=torch.zeros(3), validate_args=True).log_prob(torch.zeros(2))


def test_in_a_model_with_plates_and_masks():
    def model():
        with pyro.plate("data", 5), pyro.poutine.mask(mask=torch.arange(5) < 3):
            return pyro.sample("w", make((5,), 3, 0))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert (trace.nodes["w"]["log_prob"][3:] == 0).all()


def test_infer_shapes():
    assert CorrelatedNormal.infer_shapes((5, 3), (3,), rho_logits=(2, 1, 3)) == ((2, 5), (3,))


def test_traces_without_a_graph_break_or_a_sync():
    def step(loc, scale, logits):
        q = CorrelatedNormal(loc, scale, rho_logits=logits, validate_args=False)
        value = q.rsample()
        p = dist.Normal(loc.detach(), torch.ones_like(loc), validate_args=False).to_event(1)
        kls = kl_divergence(q, p) + kl_divergence(p, q) + kl_divergence(q, q)
        return q.log_prob(value).sum() + kls.sum()

    from torch.fx.experimental.proxy_tensor import make_fx

    q = make((2,), 3, 0)
    graph = make_fx(step)(q.loc, q.scale, q.rho_logits)
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not {t for t in targets if "aten.item" in t or "_local_scalar" in t}
    assert torch.isfinite(graph(q.loc, q.scale, q.rho_logits))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda():
    q = make((2,), 3, 0, dtype=torch.float32)
    on_gpu = CorrelatedNormal(q.loc.cuda(), q.scale.cuda(), rho_logits=q.rho_logits.cuda())
    value = q.sample()
    torch.testing.assert_close(on_gpu.log_prob(value.cuda()).cpu(), q.log_prob(value))
    assert on_gpu.rsample().is_cuda
