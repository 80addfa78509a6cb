import copy
import dataclasses
import re

import pyro
import pytest
import torch
from torch import nn

from benchmarks.cases.compvae import handwritten_loss
from pyzoo.data.colors import COLORS, Colors
from pyzoo.data.sines import Sines
from pyzoo.errors import UsageError
from pyzoo.guides.compvae import GraphBlock, colors_guide, sines_guide
from pyzoo.infer import AtMean, NegativeELBO, TraceKL_ELBO, log_likelihood
from pyzoo.models.compvae import ColorsNetworks, CompVAE, PlaceEmbedding, SinesNetworks
from pyzoo.testing import PairTests, check_elbo

SMALL_SINES = SinesNetworks(
    w_dim=12, z_dim=4, prior_width=16, decoder_width=40, encoder_width=40, z_width=16, graph_widths=(16, 16), label_dim=10
)
SMALL_COLORS = ColorsNetworks(
    w_dim=16,
    z_dim=4,
    place_width=4,
    part_width=16,
    prior_width=16,
    decoder_width=256,
    encoder_width=64,
    graph_widths=(16, 16),
    w_scale=0.3,
)


def made(networks, **changes):
    networks = dataclasses.replace(networks, **changes)
    model = networks.model()
    return model, networks.guide(model)


def sines(**changes):
    return made(SMALL_SINES, **changes)


def colors(**changes):
    return made(SMALL_COLORS, **changes)


def batch(problem, size=5, parts=3):
    source = {"sines": Sines, "colors": Colors}[problem](lambda step: parts)
    return source.draw(size, parts, seed=1).batch()


PAIRS = {"sines": sines, "colors": colors}
problems = pytest.mark.parametrize("problem", PAIRS)
relative_or_not = pytest.mark.parametrize("relative", [False, True])


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        # By hand from tables 1 to 12; the authors' README gives 143 million, and 270 million for their code.
        (SinesNetworks(), 143_248_510),
        (SinesNetworks(graph_block="wide"), 269_958_366),
        (ColorsNetworks(), 184_857_036),
    ],
)
def test_sizes_of_the_tables(networks, expected):
    with torch.device("meta"):
        assert count(*made(networks)) == expected


def test_there_is_a_category_for_each_color():
    assert ColorsNetworks().num_categories == len(COLORS)


class TestSines(PairTests):
    analytic_marks = False  # compared below, where p(x | ...) is wide

    def make(self):
        return sines()

    def batch(self):
        return batch("sines")


class TestRelativeSines(TestSines):
    def make(self):
        return sines(relative_guide=True)


class TestColors(PairTests):
    analytic_marks = False

    def make(self):
        return colors()

    def batch(self):
        return batch("colors")


class TestRelativeColors(TestColors):
    def make(self):
        return colors(relative_guide=True)


@problems
@relative_or_not
def test_analytic_marks_are_valid(problem, relative):
    torch.manual_seed(2)
    model, guide = PAIRS[problem](relative_guide=relative)
    for module in (model.decoder, model.whole_prior):  # a wide p(x | ...) keeps the Monte Carlo error of the comparison small
        for p in module.parameters():
            p.data.mul_(0.3)
    check_elbo(model, guide, batch(problem, size=3), num_samples=60)


@pytest.mark.parametrize("parts", [1, 2, 5])
@relative_or_not
@pytest.mark.parametrize(("problem", "changes"), [("sines", {}), ("sines", {"foreign_scale": 0.2}), ("colors", {})])
def test_elbo_equals_the_hand_written_one(parts, relative, problem, changes):
    model, guide = (module.double() for module in PAIRS[problem](relative_guide=relative, **changes))
    given = batch(problem, parts=parts)
    given = {name: value.double() if value.is_floating_point() else value for name, value in given.items()}
    module = NegativeELBO(model, guide)
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(7)
        expected = handwritten_loss(model, guide, **given)
        torch.manual_seed(7)
        loss, _ = module(**given)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-8)
    parameters = list(module.parameters())
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)


@problems
def test_generates_any_number_of_parts(problem):
    model, _ = PAIRS[problem]()
    for parts in (1, 2, 9):
        given = batch(problem, parts=parts)
        x = given.pop("x")
        assert model(**given).shape == x.shape


@problems
def test_order_of_the_parts_does_not_matter(problem):
    model, guide = PAIRS[problem]()
    given, order = batch(problem, parts=4), torch.tensor([2, 0, 3, 1])
    permuted = {key: value if key == "x" else value[:, order] for key, value in given.items()}
    epsilon = torch.randn_like(guide.label(given["parts"], given.get("positions")))

    def whole(given, epsilon):
        with AtMean({"z", "w"}):
            trace = pyro.poutine.trace(pyro.condition(guide, {"epsilon": epsilon})).get_trace(**given)
        return trace.nodes["w"]["value"]

    first, second = whole(given, epsilon), whole(permuted, epsilon[:, order])
    torch.testing.assert_close(first[..., order], second)  # equivariant
    z = torch.zeros(5, 4)
    torch.testing.assert_close(model.decoder(first.sum(-1), z), model.decoder(second.sum(-1), z))


def test_equal_parts_get_different_latents_only_by_their_noise():
    _, guide = sines()
    given = {"parts": torch.zeros(2, 2, dtype=torch.long), "x": torch.randn(2, 200)}
    _, quiet = sines(node_noise=0.0)
    quiet.load_state_dict(guide.state_dict())
    means = {}
    for name, program in {"noisy": guide, "quiet": quiet}.items():
        with AtMean({"z", "w"}):
            means[name] = pyro.poutine.trace(program).get_trace(**given).nodes["w"]["value"]
    assert not torch.allclose(means["noisy"][..., 0], means["noisy"][..., 1])
    torch.testing.assert_close(means["quiet"][..., 0], means["quiet"][..., 1])


@problems
def test_a_relative_guide_deviates_from_the_prior_in_units_of_its_scale(problem):
    _, guide = PAIRS[problem]()
    model, relative = PAIRS[problem](relative_guide=True)
    relative.load_state_dict(guide.state_dict())  # no parameters but its own
    given, q = batch(problem), {}
    for program in (guide, relative):
        torch.manual_seed(3)
        q[program] = pyro.poutine.trace(program).get_trace(**given).nodes["w"]["fn"].base_dist
    loc, scale = model.w_prior(given["parts"], given.get("positions"))
    torch.testing.assert_close(q[relative].loc, loc + scale * q[guide].loc)
    torch.testing.assert_close(q[relative].scale, scale * q[guide].scale)
    torch.testing.assert_close(q[relative].rho, q[guide].rho)


@problems
@relative_or_not
def test_only_with_a_relative_guide_the_likelihood_trains_the_prior(problem, relative):
    model, guide = PAIRS[problem](relative_guide=relative)
    x = TraceKL_ELBO().terms(model, guide, **batch(problem))["x"]
    gradients = torch.autograd.grad(x, list(model.part_prior.parameters()), allow_unused=True)
    assert all((gradient is not None) == relative for gradient in gradients)


@pytest.mark.parametrize("wide", [False, True])
def test_graph_block_is_equation_5(wide):
    block = GraphBlock(6, 4, wide)
    nodes = torch.randn(2, 3, 6)
    for i in range(3):
        others = sum(block.message(nodes[:, j]) for j in range(3) if j != i)
        expected = block.update(torch.cat([nodes[:, i], block.received(others)], -1))
        torch.testing.assert_close(block(nodes)[:, i], expected)


@problems
def test_standard_deviations_of_p_have_a_floor(problem):
    model, guide = PAIRS[problem]()
    given = batch(problem)
    for network in (model.part_prior, model.whole_prior, model.decoder):
        for p in network.parameters():
            p.data.mul_(30)  # log-variances far below the floor
    if problem == "sines":
        model.part_prior.log_variance.weight.data.fill_(-60.0)
    trace = pyro.poutine.trace(pyro.poutine.replay(model, pyro.poutine.trace(guide).get_trace(**given))).get_trace(**given)
    for name in ("w", "z", "x"):
        assert trace.nodes[name]["fn"].base_dist.scale.min() >= 0.001 * (1 - 1e-5)


@problems
def test_copies_of_both_keep_a_relative_guide_on_its_prior(problem):
    module = NegativeELBO(*PAIRS[problem](relative_guide=True))
    copied = copy.deepcopy(module)
    for p in copied.model.part_prior.parameters():
        p.data *= 1.5
    given, losses = batch(problem), {}
    for name, pair in {"original": module, "copy": copied}.items():
        torch.manual_seed(5)
        losses[name] = pair(**given)[1]["w"]
    torch.testing.assert_close(losses["copy"], losses["original"], rtol=1e-3, atol=1e-3)  # only the deviations count


def test_the_floor_must_be_positive():
    networks = dataclasses.replace(SMALL_SINES, scale_floor=1)
    assert networks.model().x_floor.dtype == torch.float32
    with pytest.raises(UsageError, match="--scale-floor must be at least 1e-30 and at most 1e\\+30, got 0"):
        dataclasses.replace(networks, scale_floor=0)
    model = networks.model()
    with pytest.raises(ValueError, match="scale_floor must be positive, got 0"):
        CompVAE(model.part_prior, model.whole_prior, model.decoder, scale_floor=0)


def test_a_misspelt_graph_block_raises():
    with pytest.raises(UsageError, match="--graph-block must be one of paper, wide, got wdie"):
        sines(graph_block="wdie")


@pytest.mark.parametrize("sizes", [{"decoder_width": 50}, {"encoder_width": 30}])
def test_widths_that_the_convolutions_cannot_divide(sizes):
    with pytest.raises(UsageError, match="a multiple of"):
        sines(**sizes)


def test_division_of_labor_at_the_start():
    prior = dataclasses.replace(SMALL_SINES, num_categories=3, w_dim=6, foreign_scale=0.1).model().part_prior
    scale = (prior.log_variance.weight / 2).exp()
    expected = torch.tensor([[1, 0.1, 0.1] * 2, [0.1, 1, 0.1] * 2, [0.1, 0.1, 1] * 2])
    torch.testing.assert_close(scale.detach(), expected)


def test_gain_of_the_place_is_a_factor():
    given, embeddings = batch("colors"), []
    for gain in (1.0, 4.0):
        torch.manual_seed(0)
        embeddings.append(PlaceEmbedding(5, 8, gain))
    plain, strong = (embedding(given["parts"], given["positions"]) for embedding in embeddings)
    torch.testing.assert_close(plain[..., 8:], strong[..., 8:])  # the category's features
    expected = nn.functional.elu(4 * embeddings[0].place(given["positions"]))
    torch.testing.assert_close(strong[..., :8], expected)


@problems
def test_distribution_parameters_stay_in_float32_under_autocast(problem):
    model, guide = PAIRS[problem]()
    given = batch(problem)
    with torch.autocast("cpu", torch.bfloat16):
        terms = TraceKL_ELBO().terms(model, guide, **given)
    assert {term.dtype for term in terms.values()} == {torch.float32}


@problems
def test_likelihood_of_a_pair(problem):
    model, guide = PAIRS[problem]()
    given = batch(problem)
    values = log_likelihood(model, guide, given, num_samples=20, max_rows=30)
    assert values.shape == (5,)
    assert torch.isfinite(values).all()


@problems
def test_a_few_steps_train(problem):
    model, guide = PAIRS[problem]()
    module = NegativeELBO(model, guide)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    given = batch(problem, size=32)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = module(**given)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 50.0)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


PARTS = torch.zeros(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: made(SMALL_SINES)[1](parts=PARTS, x=torch.zeros(2, 200).double()),
            "x must be torch.float32 as the parameters are, got torch.float64",
        ),
        (
            lambda: made(SMALL_COLORS)[0](parts=PARTS, positions=torch.zeros(2, 3, 2).double()),
            "positions must be torch.float32 as the parameters are, got torch.float64",
        ),
        (lambda: sines_guide(SMALL_COLORS, SMALL_COLORS.model()), "networks must be of type SinesNetworks, got ColorsNetworks"),
        (lambda: colors_guide(SMALL_SINES, SMALL_SINES.model()), "networks must be of type ColorsNetworks, got SinesNetworks"),
        (lambda: sines_guide(SMALL_SINES, None), "model must be of type CompVAE, got NoneType"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
