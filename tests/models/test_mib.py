import copy
import itertools
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyzoo.distributions import WeightedProductOfExperts
from pyzoo.guides.mib import Quotient, StructuredGuide, structured_guide
from pyzoo.infer import BayesianNetwork, NegativeELBO, Penalty, TraceKL_ELBO, Variables, log_likelihood
from pyzoo.models.mib import StructuredVAE, structured_vae
from pyzoo.testing import check_elbo, check_svi

NAMES = Variables(("x", "y", "w"), shared=("z", "s"), private={"u": "x", "v": "y"})
GENERATIVE = BayesianNetwork.parse("z, u -> x; z, s, v -> y; s -> w", NAMES)
INFERENCE = BayesianNetwork.parse("x, y -> z; y, w -> s; x -> u; y -> v", NAMES)
DIMS = {"z": 3, "s": 2, "u": 2, "v": 1}
SIZES = {"x": 6, "y": 4, "w": 3}
PRIVATE = {"x": 2, "y": 1, "w": 0}


class Gaussian(nn.Linear):
    """A linear decoder with a fixed scale."""

    def forward(self, z):
        return dist.Normal(super().forward(z), 0.7).to_event(1)


def pair(inference=INFERENCE, generative=GENERATIVE):
    torch.manual_seed(1)
    decoders = {view: Gaussian(5 + PRIVATE[view], size) for view, size in SIZES.items()}
    encoders = {view: nn.Linear(size, 2 * (5 + PRIVATE[view])) for view, size in SIZES.items()}
    return StructuredVAE(generative, DIMS, decoders), StructuredGuide(inference, DIMS, encoders)


def views(rows=5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {view: torch.randn(rows, size, generator=generator, dtype=dtype) for view, size in SIZES.items()}


def handwritten_loss(model, guide, batch, noise, heard, gates=GENERATIVE, weights=INFERENCE):
    """The negative ELBO per row of some of the views, by hand: precisions add up, and means in proportion to them."""
    latents, loss = {}, 0.0
    shared = {"z": slice(0, 3), "s": slice(3, 5)}
    for name in ("z", "s", "u", "v"):
        precision, weighted = torch.ones(DIMS[name], dtype=torch.float64), 0.0
        for view in heard:
            half = 5 + PRIVATE[view]
            place = shared.get(name) or slice(5, half)
            if name in weights.variables.latents and (view, name) in weights.edges:
                out = guide.encoders[view](batch[view])
                loc, log_variance = out[:, :half][:, place], out[:, half:][:, place]
                precision = precision + (-log_variance).exp()
                weighted = weighted + loc * (-log_variance).exp()
        mean, variance = weighted / precision, 1 / precision
        mean = mean + torch.zeros(len(batch["x"]), DIMS[name], dtype=torch.float64)
        loss = loss + 0.5 * (mean**2 + variance - 1 - variance.log() + 0 * mean).sum()
        latents[name] = mean + variance.sqrt() * noise[name]
    for view in heard:
        gate = {name: float((name, view) in gates.edges) for name in shared}
        parts = [latents["z"] * gate["z"], latents["s"] * gate["s"], *[latents[p] for p in {"x": "u", "y": "v"}.get(view, "")]]
        out = model.decoders[view]
        mean = torch.cat(parts, -1) @ out.weight.mT + out.bias
        loss = loss + (((batch[view] - mean) / 0.7) ** 2 / 2 + math.log(0.7) + math.log(2 * math.pi) / 2).sum()
    return loss / len(batch["x"])


# The generative story -------------------------------------------------------------------------------------------------


def test_generates_every_view():
    model, _ = pair()
    drawn = model(size=4)
    assert {name: tuple(view.shape) for name, view in drawn.items()} == {view: (4, size) for view, size in SIZES.items()}
    sites = pyro.poutine.trace(model).get_trace(size=4).nodes
    assert set(NAMES.names) <= set(sites)


def test_a_view_hears_its_parents_alone():
    model, _ = pair()
    latents = {name: torch.randn(4, DIMS[name]) for name in NAMES.latents}

    def means(values):
        trace = pyro.poutine.trace(pyro.poutine.condition(model, data=values)).get_trace(size=4)
        return {view: trace.nodes[view]["fn"].mean for view in SIZES}

    before = means(latents)
    for name in NAMES.latents:
        after = means({**latents, name: torch.randn(4, DIMS[name])})
        changed = {view for view in SIZES if not torch.equal(before[view], after[view])}
        assert changed == {child for parent, child in GENERATIVE.edges if parent == name}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x -> y; z -> x; s -> w; u -> x; v -> y", "from latents to views, not from 'x' to 'y'"),
        ("z -> s; s -> x; u -> x; v -> y", "not from 'z' to 's'"),
        ("z, s, v -> x; u -> x", "'v' belongs to 'y', not to 'x'"),
        ("z -> x; u -> x; v -> y", "'s' has no path to any observation"),
    ],
)
def test_bad_generative_networks(text, message):
    with pytest.raises(ValueError, match=message):
        pair(generative=BayesianNetwork.parse(text, NAMES))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z -> x; x, y -> s", "from views to latents, not from 'z' to 'x'"),
        ("x -> y, z, s, u; y -> v", "not from 'x' to 'y'"),
        ("x -> z, s, u, v", "'v' belongs to 'y', not to 'x'"),
        ("x -> z, u; y -> v", "No view tells of the latent 's'"),
    ],
)
def test_bad_inference_networks(text, message):
    with pytest.raises(ValueError, match=message):
        pair(inference=BayesianNetwork.parse(text, NAMES))


def test_missing_parts_are_named():
    model, _ = pair()
    with pytest.raises(ValueError, match="latent 's' needs one or more dimensions, got None"):
        StructuredVAE(GENERATIVE, {"z": 1}, model.decoders)
    with pytest.raises(ValueError, match="view 'w' has no decoder"):
        StructuredVAE(GENERATIVE, DIMS, {"x": nn.Identity(), "y": nn.Identity()})
    with pytest.raises(ValueError, match="view 'x' has no encoder"):
        StructuredGuide(INFERENCE, DIMS, {})


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "one of the views x, y, w"),
        ({"x": None, "y": None}, "one of the views x, y, w"),
        ({"x": torch.zeros(3, 6), "y": torch.zeros(2, 4)}, "got x 3, y 2"),
        ({"q": torch.zeros(3, 6)}, "no view 'q'"),
    ],
)
def test_bad_batches(batch, message):
    _, guide = pair()
    with pytest.raises(ValueError, match=message):
        guide(**batch)


@pytest.mark.parametrize("batch", [{}, {"x": None, "y": None}])
def test_a_loss_needs_a_view(batch):
    with pytest.raises(ValueError, match="at least one tensor"):
        NegativeELBO(*pair())(**batch)


def test_views_that_are_none_are_not_given():
    model, guide = pair()
    batch = views()
    torch.manual_seed(0)
    loss, _ = NegativeELBO(model, guide)(x=batch["x"])
    torch.manual_seed(0)
    again, _ = NegativeELBO(model, guide)(w=None, x=batch["x"])
    assert torch.equal(loss, again)
    for name, q in guide.posteriors({"w": None, "x": batch["x"]}).items():
        assert torch.equal(q.loc, guide.posteriors({"x": batch["x"]})[name].loc)


@pytest.mark.parametrize("present", [torch.ones(5, 3), torch.ones(4, 3, dtype=torch.bool), torch.ones(5, 1, dtype=torch.bool)])
def test_bad_presence(present):
    model, guide = pair()
    for program in (guide, model):
        with pytest.raises(ValueError, match=r"boolean, 5 rows x 3 views \(x, y, w\)"):
            program(present=present, **views())
    with pytest.raises(ValueError, match="boolean, 5 rows"):
        guide(heard=present, **views())
    with pytest.raises(ValueError, match="no view 'q'"):
        guide.posteriors(views(), subset=["q"])


@pytest.mark.parametrize("name", ["size", "present", "data", "a.b", "type"])
def test_names_that_are_taken(name):
    names = Variables((name, "y"), shared=("z",))
    networks = {name: nn.Identity(), "y": nn.Identity()}
    with pytest.raises(ValueError, match=f"can be called '{name}'"):
        StructuredVAE(BayesianNetwork(names, [("z", name), ("z", "y")]), {"z": 1}, networks)
    with pytest.raises(ValueError, match=f"can be called '{name}'"):
        StructuredGuide(BayesianNetwork(names, [(name, "z"), ("y", "z")]), {"z": 1}, networks)


def test_views_without_networks_are_named():
    names = Variables(("digit", "colour"), shared=("z",))
    with pytest.raises(ValueError, match="no view 'colour': there are digit, next, label, number"):
        structured_vae(BayesianNetwork.parse("z -> digit, colour", names), {"z": 2})
    with pytest.raises(ValueError, match="no view 'colour'"):
        structured_guide(BayesianNetwork.parse("digit, colour -> z", names), {"z": 2})


def test_penalties_are_of_the_guides_network():
    _, guide = pair()
    other = BayesianNetwork.parse("x -> z, s, u; y -> v", NAMES)
    target = BayesianNetwork.parse("x -> z -> y", NAMES)
    with pytest.raises(ValueError, match="'wish' is of the network 'x -> z"):
        StructuredGuide(INFERENCE, DIMS, guide.encoders, penalties=[Penalty("wish", other, target)])
    wish = Penalty("wish", INFERENCE, INFERENCE)
    with pytest.raises(ValueError, match="two penalties 'wish'"):
        StructuredGuide(INFERENCE, DIMS, guide.encoders, penalties=[wish, wish])


# Beliefs --------------------------------------------------------------------------------------------------------------


def test_with_every_view_missing_the_belief_is_the_prior_exactly():
    _, guide = pair()
    batch = {view: torch.full((5, size), math.nan) for view, size in SIZES.items()}
    for name, q in guide.posteriors(batch, torch.zeros(5, 3, dtype=torch.bool)).items():
        assert torch.equal(q.loc, torch.zeros(5, DIMS[name]))
        assert torch.equal(q.scale, torch.ones(5, DIMS[name]))


@pytest.mark.parametrize("kept", [c for size in (1, 2) for c in itertools.combinations(SIZES, size)])
def test_a_view_that_is_absent_changes_nothing_exactly(kept):
    """Not given, or absent in every row, or not in the subset: all the same, whatever stands in its place."""
    _, guide = pair()
    batch = views()
    alone = guide.posteriors({view: batch[view] for view in kept})
    present = torch.tensor([view in kept for view in SIZES]).expand(5, -1)
    holes = {view: value if view in kept else torch.full_like(value, math.nan) for view, value in batch.items()}
    for other in (guide.posteriors(holes, present), guide.posteriors(batch, subset=kept)):
        for name, q in alone.items():
            assert torch.equal(other[name].loc, q.loc)
            assert torch.equal(other[name].scale, q.scale)


def test_a_latent_believes_its_parents_alone():
    _, guide = pair()
    before = guide.posteriors(views())
    for view in SIZES:
        after = guide.posteriors({**views(), view: views(seed=9)[view]})
        changed = {name for name in NAMES.latents if not torch.equal(before[name].loc, after[name].loc)}
        assert changed == {child for parent, child in INFERENCE.edges if parent == view}


def test_rows_may_lack_different_views():
    _, guide = pair()
    batch, present = views(), torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]]).bool()
    mixed = guide.posteriors(batch, present)
    for row in range(4):
        given = {view: batch[view][row : row + 1] for i, view in enumerate(SIZES) if present[row, i]}
        for name, q in guide.posteriors(given).items():
            torch.testing.assert_close(mixed[name].loc[row], q.loc[0])
            torch.testing.assert_close(mixed[name].scale[row], q.scale[0])


# The objective --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heard", [c for size in (1, 2, 3) for c in itertools.combinations(SIZES, size)])
def test_elbo_of_any_views_equals_a_handwritten_one(heard):
    model, guide = (part.double() for part in pair())
    batch = views(dtype=torch.float64)
    present = torch.tensor([view in heard for view in SIZES]).expand(5, -1)
    torch.manual_seed(3)
    loss, terms = NegativeELBO(model, guide)(**batch, present=present)
    torch.manual_seed(3)
    noise = {name: torch.empty(5, DIMS[name], dtype=torch.float64).normal_() for name in NAMES.latents}
    expected = handwritten_loss(model, guide, batch, noise, heard)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    parameters = [*model.parameters(), *guide.parameters()]
    ours, theirs = (torch.autograd.grad(value, parameters, allow_unused=True) for value in (loss, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if other is None else other, rtol=1e-9, atol=1e-12)
    assert all(terms[view] == 0 for view in SIZES if view not in heard)


def test_not_a_number_in_an_absent_view_reaches_no_gradient():
    model, guide = pair()
    batch = views()
    batch["x"][2] = math.nan
    present = torch.ones(5, 3, dtype=torch.bool)
    present[2, 0] = False
    loss, _ = NegativeELBO(model, guide)(**batch, present=present)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(torch.isfinite(p.grad).all() for part in (model, guide) for p in part.parameters())


def test_a_view_that_is_not_given_is_integrated_out():
    model, guide = pair()
    batch = views()
    given = {"x": batch["x"], "y": batch["y"]}
    torch.manual_seed(0)
    terms = TraceKL_ELBO().terms(model, guide, **given)
    torch.manual_seed(0)
    present = torch.tensor([True, True, False]).expand(5, -1)
    masked = TraceKL_ELBO().terms(model, guide, **batch, present=present)
    for name in terms:
        torch.testing.assert_close(terms[name], masked[name])


def test_likelihood_of_a_subset_agrees_with_the_exact_marginal():
    """All is linear: p(x, y) is normal, and any guide's importance weights average to it."""
    model, guide = (part.double() for part in pair())
    with torch.no_grad():  # little to infer, so that few weights decide nothing
        for decoder, encoder in zip(model.decoders.values(), guide.encoders.values(), strict=True):
            decoder.weight.mul_(0.4)
            encoder.weight.mul_(0.1)
            encoder.bias.zero_()[len(encoder.bias) // 2 :] = 3.0  # experts that hardly narrow the prior
    batch = {view: value for view, value in views(3, dtype=torch.float64).items() if view != "w"}
    loading = torch.zeros(10, 8, dtype=torch.float64)  # of z, s, u, v in x, y
    x, y = model.decoders["x"].weight, model.decoders["y"].weight
    loading[:6, :3], loading[:6, 5:7] = x[:, :3], x[:, 5:]
    loading[6:, :5], loading[6:, 7:] = y[:, :5], y[:, 5:]
    mean = torch.cat([model.decoders["x"].bias, model.decoders["y"].bias])
    covariance = loading @ loading.mT + 0.49 * torch.eye(10, dtype=torch.float64)
    exact = dist.MultivariateNormal(mean, covariance).log_prob(torch.cat([batch["x"], batch["y"]], -1))
    torch.testing.assert_close(log_likelihood(model, guide, batch, 40_000), exact, atol=0.1, rtol=0)


# Citizens of Pyro -----------------------------------------------------------------------------------------------------


def test_plain_svi():
    for _ in range(2):
        check_svi(*pair(), views())


def test_analytic_marks_are_valid():
    check_elbo(*pair(), views(3), num_samples=100)


def test_copies():
    model, guide = pair()
    for other in (copy.deepcopy((model, guide)), pickle.loads(pickle.dumps((model, guide)))):
        losses = []
        for programs in ((model, guide), other):
            torch.manual_seed(0)
            losses.append(NegativeELBO(*programs)(**views())[0])
        assert losses[0] == losses[1]


def test_hearing_some_of_the_views_is_the_belief_in_those():
    """Each row its own; private latents hear their own view, if it is scored."""
    _, guide = pair()
    batch, whole = views(), guide.posteriors(views())
    subsets = [name for size in (1, 2, 3) for name in itertools.combinations(SIZES, size)][:5]
    heard = torch.tensor([[name in subset for name in SIZES] for subset in subsets])
    for scored in (None, heard):
        trace = poutine.trace(guide).get_trace(**batch, heard=heard, scored=scored)
        for row, subset in enumerate(subsets):
            for latent, q in guide.posteriors(batch, subset=subset).items():
                q = whole[latent] if latent in guide.variables.private and scored is None else q
                found = trace.nodes[latent]["fn"].base_dist
                torch.testing.assert_close((found.loc[row], found.scale[row]), (q.loc[row], q.scale[row]))


def test_a_number_is_ink_over_what_is_behind_it():
    names = Variables(("number",), private={"u": "number"})
    model = structured_vae(BayesianNetwork.parse("u -> number", names), {"u": 2}, hidden_dim=4)
    last = [layer for layer in model.decoders["number"].modules() if isinstance(layer, nn.Linear)][-1]
    behind, ink, colour = last.bias.data.split([3072, 1024, 3])
    last.weight.data.zero_()
    behind.copy_(torch.linspace(-2, 2, 3072))
    colour.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    pixels = torch.arange(1024) % 3  # none, half and all of a pixel is ink
    ink.copy_(torch.tensor([-100.0, 0.0, 100.0])[pixels])
    x = model.likelihood("number", {"u": torch.randn(2, 2)}).mean
    seen, under, over = x[1].flatten(1), behind.sigmoid().view(3, 1024), colour.sigmoid().view(3, 1)
    for share, which in zip((0.0, 0.5, 1.0), (pixels == 0, pixels == 1, pixels == 2), strict=True):
        torch.testing.assert_close(seen[:, which], (share * over + (1 - share) * under)[:, which])


def test_encoders_of_digits_say_the_belief_itself():
    """q(z | x_i), the product of N(0, I) and the expert, has the mean and variance that the last layer gives."""
    m, v = torch.randn(2, 6, 3, dtype=torch.float64)
    loc, log_variance = Quotient()(torch.cat([m, v], -1)).chunk(2, -1)
    q = WeightedProductOfExperts(loc.unsqueeze(1), (log_variance / 2).exp().unsqueeze(1))
    torch.testing.assert_close(q.mean, m)
    torch.testing.assert_close(q.variance, torch.sigmoid(4 - nn.functional.softplus(4 - v)))


def test_an_expert_that_says_nothing_can_still_learn():
    """However large v: the precision is not zero, all is finite, and the mean has its whole gradient."""
    parameters = torch.tensor([[0.5, 1e4], [0.5, -30.0]], requires_grad=True)
    loc, log_variance = Quotient()(parameters).chunk(2, -1)
    q = WeightedProductOfExperts(loc.unsqueeze(1), (log_variance / 2).exp().unsqueeze(1))
    assert q.variance[0].item() == pytest.approx(torch.sigmoid(torch.tensor(4.0)).item())
    [gradient] = torch.autograd.grad(q.mean.sum(), parameters)
    torch.testing.assert_close(gradient[:, 0], torch.ones(2))
    assert torch.isfinite(gradient).all()


def test_likelihoods_that_a_guide_can_not_give():
    """Penalties that ask for a distortion name what is missing."""
    model, guide = pair()
    names = guide.variables
    view = names.observed[0]
    parents = model.network.parents(view)
    other = next(latent for latent in names.latents if latent not in parents) if len(parents) < len(names.latents) else None
    draws = {name: torch.zeros(5, dim) for name, dim in guide.dims.items()}
    ask = lambda guide, latents: guide._likelihood(views(), draws, torch.ones(5, len(names.observed)).bool(), view, latents)  # noqa: E731
    with pytest.raises(ValueError, match="the guide knows no model"):
        ask(guide, parents)
    knowing = StructuredGuide(guide.network, guide.dims, guide.encoders, model=model)
    p, x = ask(knowing, parents)
    assert torch.equal(x, views()[view])
    torch.testing.assert_close(p.log_prob(x), model.likelihood(view, draws).log_prob(x))
    with pytest.raises(ValueError, match="its parents are"):
        ask(knowing, [*parents, other] if other else parents[:-1])
    assert not any(name.startswith("_model") for name, _ in knowing.named_parameters())
