import copy
import dataclasses
import itertools
import math
import pickle
import re

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from pyzoo.distributions import WeightedProductOfExperts
from pyzoo.errors import UsageError
from pyzoo.guides.mib import Quotient, StructuredGuide, encoder
from pyzoo.infer import (
    BayesianNetwork,
    Distortion,
    FixedMask,
    NegativeELBO,
    Penalized,
    Penalty,
    RelaxedMask,
    TraceKL_ELBO,
    Variables,
    log_likelihood,
)
from pyzoo.models.mib import PairNetworks, StructuredVAE, ViewNetworks, those_given, without_absent
from pyzoo.testing import PairTests, check_elbo

NAMES = Variables(("x", "y", "w"), shared=("z", "s"), private={"u": "x", "v": "y"})
GENERATIVE = BayesianNetwork.parse("z, u -> x; z, s, v -> y; s -> w", NAMES)
INFERENCE = BayesianNetwork.parse("x, y -> z; y, w -> s; x -> u; y -> v", NAMES)
DIMS = {"z": 3, "s": 2, "u": 2, "v": 1}
SIZES = {"x": 6, "y": 4, "w": 3}
PRIVATE = {"x": 2, "y": 1, "w": 0}
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 0]]).bool()


class Gaussian(nn.Linear):
    """A linear decoder with a fixed scale."""

    def forward(self, z):
        return dist.Normal(super().forward(z), 0.7).to_event(1)


def pair(inference=INFERENCE, generative=GENERATIVE, guide_mask=None, model_mask=None):
    decoders = {view: Gaussian(5 + PRIVATE[view], size) for view, size in SIZES.items()}
    encoders = {view: nn.Linear(size, 2 * (5 + PRIVATE[view])) for view, size in SIZES.items()}
    model = StructuredVAE(generative, DIMS, decoders, model_mask)
    return model, StructuredGuide(inference, DIMS, encoders, guide_mask)


def with_penalties(bare):
    """A guide with a penalty of each kind of estimator that it can have."""
    model, guide = bare
    independent = BayesianNetwork.parse("z, s, u, v -> x, y, w; x -> y, w; y -> w", NAMES)
    terms = {"I(s; z)": "total_correlation", "I(u; s, z)": "dependence"}
    penalties = [
        Penalty("cross(x)", INFERENCE, BayesianNetwork.parse("x -> z; y, w -> s; z -> y; x -> u; y -> v", NAMES), 0.5),
        Penalty("independent", INFERENCE, independent, 0.3, "conditional", terms),
    ]
    return model, Penalized(guide, penalties)


def views(rows=5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {view: torch.randn(rows, size, generator=generator, dtype=dtype) for view, size in SIZES.items()}


def handwritten_loss(model, guide, batch, noise, given, gates=GENERATIVE, weights=INFERENCE):
    """The negative ELBO per row of some of the views, by hand: precisions add up, and means in proportion to them."""
    latents, loss = {}, 0.0
    shared = {"z": slice(0, 3), "s": slice(3, 5)}
    for name in ("z", "s", "u", "v"):
        precision, weighted = torch.ones(DIMS[name], dtype=torch.float64), 0.0
        for view in given:
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
    for view in given:
        gate = {name: float((name, view) in gates.edges) for name in shared}
        parts = [latents["z"] * gate["z"], latents["s"] * gate["s"], *[latents[p] for p in {"x": "u", "y": "v"}.get(view, "")]]
        out = model.decoders[view]
        mean = torch.cat(parts, -1) @ out.weight.mT + out.bias
        loss = loss + (((batch[view] - mean) / 0.7) ** 2 / 2 + math.log(0.7) + math.log(2 * math.pi) / 2).sum()
    return loss / len(batch["x"])


# What every pair passes -----------------------------------------------------------------------------------------------


class TestPair(PairTests):
    def make(self):
        return pair()

    def batch(self):
        return views()


class TestPairWithoutSomeViews(TestPair):
    def batch(self):
        return {**views(), "present": PRESENT}


class TestPairWithSeveralInferenceNetworks(TestPair):
    def batch(self):
        conditioned_on = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]).bool()
        return {**views(), "conditioned_on": conditioned_on, "scored": PRESENT}


class TestPenalizedPair(TestPair):
    def make(self):
        return with_penalties(pair())


class TestPairWithLearnedMasks(TestPair):
    def make(self):
        guide_mask = RelaxedMask("m_q", (3, 2), initial=0.7, program="guide")
        return pair(guide_mask=guide_mask, model_mask=RelaxedMask("m_p", (3, 2), initial=0.6, program="model"))


NETWORKS = PairNetworks(
    hidden_dim=4,
    observed=("digit", "number", "label"),
    shared=("z",),
    private=(("u_digit", "digit"), ("u_number", "number")),
    dims=(("z", 2), ("u_digit", 1), ("u_number", 1)),
    generative="z -> digit, number, label; u_digit -> digit; u_number -> number",
    inference="digit, number, label -> z; digit -> u_digit; number -> u_number",
)


class TestImagesNumbersAndLabels(PairTests):
    analytic_marks = False  # tested above, with views of which each weighs a few nats

    def make(self):
        model = NETWORKS.model()
        return model, NETWORKS.guide(model)

    def batch(self):
        label = nn.functional.one_hot(torch.tensor([3, 9]), 10).float()
        return {"digit": torch.rand(2, 1, 28, 28).round(), "number": torch.rand(2, 3, 32, 32), "label": label}


# The generative story -------------------------------------------------------------------------------------------------


def test_generates_every_view():
    model, _ = pair()
    drawn = model(size=4)
    assert {name: tuple(view.shape) for name, view in drawn.items()} == {view: (4, size) for view, size in SIZES.items()}
    sites = poutine.trace(model).get_trace(size=4).nodes
    assert set(NAMES.names) <= set(sites)


def test_a_view_depends_on_its_parents_alone():
    model, _ = pair()
    latents = {name: torch.randn(4, DIMS[name]) for name in NAMES.latents}

    def means(values):
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace(size=4)
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
        ("x -> z, u; y -> v", "No view leads to the latent 's'"),
    ],
)
def test_bad_inference_networks(text, message):
    with pytest.raises(ValueError, match=message):
        pair(inference=BayesianNetwork.parse(text, NAMES))


def test_missing_parts_are_named():
    model, _ = pair()
    with pytest.raises(ValueError, match="dimensions of the latent 's' must be a whole number of at least 1, got None"):
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


@pytest.mark.parametrize("mask", [torch.ones(5, 3), torch.ones(4, 3, dtype=torch.bool), torch.ones(5, 1, dtype=torch.bool)])
def test_masks_that_are_not_of_the_views_of_each_row(mask):
    model, guide = pair()
    for name in ("present", "scored"):
        for program in (guide, model):
            with pytest.raises(ValueError, match=r"boolean, 5 rows x 3 views \(x, y, w\)"):
                program(**{name: mask}, **views())
    with pytest.raises(ValueError, match="boolean, 5 rows"):
        guide(conditioned_on=mask, **views())
    with pytest.raises(ValueError, match="no view 'q'"):
        guide.posteriors(views(), subset=["q"])


@pytest.mark.parametrize("name", ["size", "present", "conditioned_on", "scored", "drawn", "data", "a.b", "type"])
def test_names_that_are_reserved(name):
    names = Variables((name, "y"), shared=("z",))
    networks = {name: nn.Identity(), "y": nn.Identity()}
    with pytest.raises(ValueError, match=f"can be called '{name}'"):
        StructuredVAE(BayesianNetwork(names, [("z", name), ("z", "y")]), {"z": 1}, networks)
    with pytest.raises(ValueError, match=f"can be called '{name}'"):
        StructuredGuide(BayesianNetwork(names, [(name, "z"), ("y", "z")]), {"z": 1}, networks)


# Penalties ------------------------------------------------------------------------------------------------------------


def test_penalties_are_of_the_guides_network():
    _, guide = pair()
    other = BayesianNetwork.parse("x -> z, s, u; y -> v", NAMES)
    target = BayesianNetwork.parse("x -> z -> y", NAMES)
    with pytest.raises(ValueError, match="'cross' is of the network 'x -> z"):
        Penalized(guide, [Penalty("cross", other, target)])
    same = Penalty("same", INFERENCE, INFERENCE)
    with pytest.raises(ValueError, match="two penalties 'same'"):
        Penalized(guide, [same, same])


def test_the_bare_guide_knows_nothing_of_its_penalties():
    model, guide = pair()
    _, wrapped = with_penalties((model, guide))
    batch = views()
    torch.manual_seed(0)
    terms = TraceKL_ELBO().terms(model, wrapped, **batch)
    torch.manual_seed(0)
    bare = TraceKL_ELBO().terms(model, guide, **batch)
    assert {name for name in terms if not name.startswith("penalty/")} == bare.keys()
    sites = [f"penalty/independent/I({term})" for term in ("s; z", "u; s, z", "v; s, u, z")]
    assert terms.keys() - bare.keys() >= {*sites, "penalty/cross(x)/I(z; y | x)"}
    assert all(torch.equal(terms[name], bare[name]) for name in bare)


def test_what_a_guide_returns_is_what_it_infers():
    """Draws are its sites' values, posteriors given any views those of ``posteriors``, and rows that lack a view are known."""
    _, guide = pair()
    trace = poutine.trace(guide).get_trace(**views(), present=PRESENT)
    beliefs = trace.nodes["_RETURN"]["value"]
    assert beliefs.rows == 5
    assert beliefs.draws.keys() == set(NAMES.latents)
    for name, draw in beliefs.draws.items():
        assert torch.equal(draw, trace.nodes[name]["value"])
    for subset in [None, (), ("x",), ("y", "w")]:
        found = beliefs.given(subset)
        expected = guide.posteriors(views(), PRESENT, () if subset == () else subset)
        for name, q in found.items():
            if subset == ():
                assert torch.equal(q.loc, torch.zeros(5, DIMS[name]))
                assert torch.equal(q.scale, torch.ones(5, DIMS[name]))
            else:
                assert torch.equal(q.loc, expected[name].loc)
                assert torch.equal(q.scale, expected[name].scale)
    assert beliefs.complete(["x", "y"]).tolist() == [True, False, False, False, True]
    assert beliefs.complete([]).all()
    assert all(torch.equal(beliefs.views[name], view) for name, view in views().items())


def test_what_a_guide_returns_is_inferred_from_all_views_whatever_its_sites_are_conditioned_on():
    _, guide = pair()
    some = torch.tensor([False, False, True]).expand(5, -1)
    beliefs, whole = guide(**views(), conditioned_on=some, scored=some), guide.posteriors(views())
    for name, q in beliefs.given(None).items():
        assert torch.equal(q.loc, whole[name].loc)
    large = {name: view.repeat(4000, 1) for name, view in views().items()}
    draws, q = guide(**large, conditioned_on=some.repeat(4000, 1)).draws, guide.posteriors(large)
    for name in NAMES.latents:
        standardized = (draws[name] - q[name].loc) / q[name].scale
        torch.testing.assert_close(standardized.mean(0), torch.zeros(DIMS[name]), atol=0.05, rtol=0)
        torch.testing.assert_close(standardized.square().mean(0), torch.ones(DIMS[name]), atol=0.05, rtol=0)


@pytest.mark.parametrize("view", SIZES)
def test_a_distortion_is_of_the_models_likelihood_of_its_parents(view):
    model, guide = pair()
    parents, others = set(GENERATIVE.parents(view)), set(NAMES.latents)
    estimator = Distortion(model)
    target = BayesianNetwork.parse(f"{', '.join(sorted(parents))} -> {view}", NAMES)
    term = f"I({view}; {', '.join(sorted(parents))})"
    penalty = Penalty("private", INFERENCE, target, estimators={term: estimator})
    beliefs = guide(**views())
    expected = -model.likelihood(view, beliefs.draws).log_prob(views()[view]).mean()
    torch.testing.assert_close(penalty.values(beliefs)[f"penalty/private/{term}"], expected)
    names = {name for name, _ in Penalized(guide, [penalty]).named_parameters()}
    assert names == {f"guide.{name}" for name, _ in guide.named_parameters()}  # the model's are not among them
    for wrong in (parents - {min(parents)}, parents | {min(others - parents)}):
        target = BayesianNetwork.parse(f"{', '.join(sorted(wrong))} -> {view}" if wrong else "", NAMES)
        term = f"I({view}; {', '.join(sorted(wrong))})"
        if wrong:
            with pytest.raises(ValueError, match=r"'Distortion' does not suit I\(.*a term with a minus"):
                Penalty("private", INFERENCE, target, estimators={term: estimator})


# Posteriors -----------------------------------------------------------------------------------------------------------


def test_with_every_view_missing_the_posterior_is_the_prior_exactly():
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


def test_a_latent_is_inferred_from_its_parents_alone():
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


def test_a_posterior_conditioned_on_some_of_the_views_is_that_given_those():
    """Each row its own; private latents are conditioned on their own view, if it is scored."""
    _, guide = pair()
    batch, whole = views(), guide.posteriors(views())
    subsets = [name for size in (1, 2, 3) for name in itertools.combinations(SIZES, size)][:5]
    some = torch.tensor([[name in subset for name in SIZES] for subset in subsets])
    for scored in (None, some):
        trace = poutine.trace(guide).get_trace(**batch, conditioned_on=some, scored=scored)
        for row, subset in enumerate(subsets):
            for latent, q in guide.posteriors(batch, subset=subset).items():
                q = whole[latent] if latent in guide.variables.private and scored is None else q
                found = trace.nodes[latent]["fn"].base_dist
                torch.testing.assert_close((found.loc[row], found.scale[row]), (q.loc[row], q.scale[row]))


# The objective --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [c for size in (1, 2, 3) for c in itertools.combinations(SIZES, size)])
def test_elbo_of_any_views_equals_a_handwritten_one(given):
    model, guide = (part.double() for part in pair())
    batch = views(dtype=torch.float64)
    present = torch.tensor([view in given for view in SIZES]).expand(5, -1)
    torch.manual_seed(3)
    loss, terms = NegativeELBO(model, guide)(**batch, present=present)
    torch.manual_seed(3)
    noise = {name: torch.empty(5, DIMS[name], dtype=torch.float64).normal_() for name in NAMES.latents}
    expected = handwritten_loss(model, guide, batch, noise, given)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    parameters = [*model.parameters(), *guide.parameters()]
    ours, theirs = (torch.autograd.grad(value, parameters, allow_unused=True) for value in (loss, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if other is None else other, rtol=1e-9, atol=1e-12)
    assert all(terms[view] == 0 for view in SIZES if view not in given)


def test_not_a_number_in_an_absent_view_reaches_no_gradient():
    for make in (pair, lambda: with_penalties(pair())):
        model, guide = make()
        batch = views()
        batch["x"][2] = math.nan
        present = torch.ones(5, 3, dtype=torch.bool)
        present[2, 0] = False
        loss, _ = NegativeELBO(model, guide)(**batch, present=present)
        loss.backward()
        assert math.isfinite(loss.item())
        gradients = [p.grad for part in (model, guide) for p in part.parameters() if p.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


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
        for decoder, network in zip(model.decoders.values(), guide.encoders.values(), strict=True):
            decoder.weight.mul_(0.4)
            network.weight.mul_(0.1)
            network.bias.zero_()[len(network.bias) // 2 :] = 3.0  # experts that hardly narrow the prior
    batch = {view: value for view, value in views(3, dtype=torch.float64).items() if view != "w"}
    loading = torch.zeros(10, 8, dtype=torch.float64)  # of z, s, u, v in x, y
    x, y = model.decoders["x"].weight, model.decoders["y"].weight
    loading[:6, :3], loading[:6, 5:7] = x[:, :3], x[:, 5:]
    loading[6:, :5], loading[6:, 7:] = y[:, :5], y[:, 5:]
    mean = torch.cat([model.decoders["x"].bias, model.decoders["y"].bias])
    covariance = loading @ loading.mT + 0.49 * torch.eye(10, dtype=torch.float64)
    exact = dist.MultivariateNormal(mean, covariance).log_prob(torch.cat([batch["x"], batch["y"]], -1))
    torch.testing.assert_close(log_likelihood(model, guide, batch, 40_000), exact, atol=0.1, rtol=0)


def test_analytic_marks_are_valid_if_views_are_missing():
    check_elbo(*pair(), {**views(), "present": PRESENT}, num_samples=40)


def test_copies():
    for made in (pair(), with_penalties(pair())):
        for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            losses = []
            for programs in (made, other):
                torch.manual_seed(0)
                losses.append(NegativeELBO(*programs)(**views())[0])
            assert losses[0] == losses[1]


# Networks -------------------------------------------------------------------------------------------------------------


def test_sizes_that_are_read_from_the_data():
    """Every view but a label is an image of one shape, and a label has as many classes as there are."""
    networks = ViewNetworks(
        hidden_dim=3,
        observed=("photo", "label"),
        shared=("z",),
        private=(),
        dims=(("z", 2),),
        generative="z -> photo, label",
        inference="photo, label -> z",
        x_shape=(3, 8, 6),
        num_classes=4,
    )
    model = networks.model()
    drawn = model(size=2)
    assert {name: tuple(view.shape) for name, view in drawn.items()} == {"photo": (2, 3, 8, 6), "label": (2, 4)}
    assert networks.guide(model).posteriors(drawn)["z"].loc.shape == (2, 2)
    with pytest.raises(ValueError, match=r"x must be \(batch, 3, 8, 6\), got \(\d+, 3, 6, 8\)"):
        networks.guide(model).posteriors({"photo": torch.zeros(2, 3, 6, 8)})


def test_only_pairs_have_house_numbers():
    """Elsewhere a view of that name is an image like any other."""
    sizes = {"hidden_dim": 3, "observed": ("number",), "private": (("u", "number"),), "dims": (("u", 2),)}
    sizes |= {"generative": "u -> number", "inference": "number -> u"}
    for kind, shape in ((ViewNetworks, (1, 28, 28)), (PairNetworks, (3, 32, 32))):
        model = kind(**sizes).model()
        drawn = model(size=2)
        assert drawn["number"].shape == (2, *shape)
        assert kind(**sizes).guide(model).posteriors(drawn)["u"].loc.shape == (2, 2)


def test_sizes_that_are_not_allowed():
    for changes, message in (
        ({"hidden_dim": 0}, "--hidden-dim must be at least 1, got 0"),
        ({"number_scale": 0.0}, "--number-scale must be positive, got 0.0"),
        ({"num_classes": 0}, "--num-classes must be at least 1, got 0"),
        ({"dims": (("z", 0),)}, "--dims must be"),
    ):
        with pytest.raises(UsageError, match=message):
            dataclasses.replace(NETWORKS, **changes)
    with pytest.raises(ValueError, match="dimensions of the latent 'u_number' must be a whole number of at least 1, got None"):
        dataclasses.replace(NETWORKS, dims=(("z", 2), ("u_digit", 1))).model()


def test_a_number_is_ink_over_its_background():
    names = {"observed": ("number",), "shared": (), "private": (("u", "number"),), "dims": (("u", 2),)}
    networks = PairNetworks(hidden_dim=4, generative="u -> number", inference="number -> u", number_scale=0.3, **names)
    model = networks.model()
    last = [layer for layer in model.decoders["number"].modules() if isinstance(layer, nn.Linear)][-1]
    background, ink, color = last.bias.data.split([3072, 1024, 3])
    last.weight.data.zero_()
    background.copy_(torch.linspace(-2, 2, 3072))
    color.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    pixels = torch.arange(1024) % 3  # none, half and all of a pixel is ink
    ink.copy_(torch.tensor([-100.0, 0.0, 100.0])[pixels])
    p = model.likelihood("number", {"u": torch.randn(2, 2)})
    assert (p.stddev == 0.3).all()
    seen, under, over = p.mean[1].flatten(1), background.sigmoid().view(3, 1024), color.sigmoid().view(3, 1)
    for share, which in zip((0.0, 0.5, 1.0), (pixels == 0, pixels == 1, pixels == 2), strict=True):
        torch.testing.assert_close(seen[:, which], (share * over + (1 - share) * under)[:, which])


def test_networks_give_the_posterior_of_one_view():
    """q(z | x_i), the product of N(0, I) and the expert, has the mean and variance that the last layer gives."""
    m, v = torch.randn(2, 6, 3, dtype=torch.float64)
    loc, log_variance = Quotient()(torch.cat([m, v], -1)).chunk(2, -1)
    q = WeightedProductOfExperts(loc.unsqueeze(1), (log_variance / 2).exp().unsqueeze(1))
    torch.testing.assert_close(q.mean, m)
    torch.testing.assert_close(q.variance, torch.sigmoid(4 - nn.functional.softplus(4 - v)))
    for view in NETWORKS.observed:  # all encoders end so
        assert isinstance(encoder(NETWORKS, view, 3)[-1], Quotient)


def test_an_expert_of_little_precision_can_still_learn():
    """However large v: the precision is not zero, all is finite, and the mean has its whole gradient."""
    parameters = torch.tensor([[0.5, 1e4], [0.5, -30.0]], requires_grad=True)
    loc, log_variance = Quotient()(parameters).chunk(2, -1)
    q = WeightedProductOfExperts(loc.unsqueeze(1), (log_variance / 2).exp().unsqueeze(1))
    assert q.variance[0].item() == pytest.approx(torch.sigmoid(torch.tensor(4.0)).item())
    [gradient] = torch.autograd.grad(q.mean.sum(), parameters)
    torch.testing.assert_close(gradient[:, 0], torch.ones(2))
    assert torch.isfinite(gradient).all()


# Learned masks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_mask_that_is_certain_is_the_networks(training):
    """Edges of probability almost one and almost zero are there and are not; in training mode up to the relaxation."""
    model, guide = pair()
    masks = {"model_mask": RelaxedMask("m_p", (3, 2)), "guide_mask": RelaxedMask("m_q", (3, 2), program="guide")}
    masks["model_mask"].logits.data.copy_(200 * (GENERATIVE.generative_mask() - 0.5))
    masks["guide_mask"].logits.data.copy_(200 * (INFERENCE.inference_mask() - 0.5))
    learned_model, learned_guide = (program.train(training) for program in pair(**masks))
    learned_model.decoders, learned_guide.encoders = model.decoders, guide.encoders
    latents = {name: torch.randn(5, dim) for name, dim in DIMS.items()}
    for name, q in guide.posteriors(views()).items():
        found = learned_guide.posteriors(views())[name]
        torch.testing.assert_close((found.loc, found.scale), (q.loc, q.scale))
    for view in SIZES:
        found = learned_model.likelihood(view, latents).mean
        torch.testing.assert_close(found, model.likelihood(view, latents).mean)


def test_one_draw_of_a_mask_holds_for_all_posteriors_of_a_batch():
    """Those that penalties ask for are of the network that the batch was inferred with."""
    _, guide = pair(guide_mask=RelaxedMask("m_q", (3, 2), program="guide"))
    trace = poutine.trace(guide).get_trace(**views())
    q, found = trace.nodes["_RETURN"]["value"].given(SIZES), trace.nodes
    for name in NAMES.latents:
        torch.testing.assert_close(q[name].loc, found[name]["fn"].base_dist.loc)


def test_learned_masks_are_trained_by_the_likelihood():
    """An edge from a latent that a view needs becomes likely, in a model that explains y by z alone."""
    names = Variables(("x", "y"), shared=("z",))
    network = BayesianNetwork.parse("z -> x, y", names)
    mask = RelaxedMask("m_p", (2, 1), initial=0.5, temperature=0.3)
    decoders = {view: Gaussian(2, 2) for view in names.observed}
    with torch.no_grad():
        for decoder in decoders.values():
            decoder.weight.copy_(torch.eye(2))
            decoder.bias.zero_()
    model = StructuredVAE(network, {"z": 2}, decoders, mask)
    guide = StructuredGuide(BayesianNetwork.parse("x, y -> z", names), {"z": 2}, {view: nn.Linear(2, 4) for view in "xy"})
    with torch.no_grad():  # q(z | y) is narrow about y, and x tells nothing
        guide.encoders["x"].weight.zero_()
        guide.encoders["x"].bias.copy_(torch.tensor([0.0] * 2 + [10.0] * 2))
        guide.encoders["y"].weight.copy_(torch.cat([torch.eye(2), torch.zeros(2, 2)]))
        guide.encoders["y"].bias.copy_(torch.tensor([0.0] * 2 + [-6.0] * 2))
    optimizer = torch.optim.Adam(mask.parameters(), lr=0.2)
    module = NegativeELBO(model, guide)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        x, y = torch.randn(2, 20, 2, generator=generator)
        optimizer.zero_grad()
        module(x=x, y=y)[0].backward()
        optimizer.step()
    assert mask.probabilities()[0].item() < 0.1  # x is another's noise, which z explains badly
    assert mask.probabilities()[1].item() > 0.9
    assert mask.eval()().flatten().tolist() == [0.0, 1.0]


def latents(rows=4, **changes):
    return {name: torch.zeros(rows, size) for name, size in DIMS.items()} | changes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair()[0](x=[0.0]), "The view 'x' must be a tensor, got a list"),
        (lambda: pair()[1](x=views(dtype=torch.float64)["x"]), "the view 'x' must be torch.float32 as the parameters are"),
        (lambda: pair()[0].likelihood("x", latents(u=torch.zeros(3, 2))), "latents of 'x' must have one number of rows and 7"),
        (lambda: pair()[0].likelihood("x", latents(u=torch.zeros(4, 1))), "7 features together, got (4, 3), (4, 2), (4, 1)"),
        (lambda: StructuredVAE(GENERATIVE, None, {}), "dims must be of type Mapping, got NoneType"),
        (lambda: StructuredVAE(GENERATIVE, DIMS, None), "decoders must be of type Mapping or ModuleDict, got NoneType"),
        (lambda: StructuredVAE(GENERATIVE, DIMS, {"x": 3}), "The decoder of 'x' must be of type Module, got int"),
        (lambda: without_absent(torch.tensor(1.0), torch.ones(1).bool()), "present must be (), got (1,)"),
        (lambda: those_given([]), "views must be of type Mapping, got list"),
        (lambda: Quotient()(torch.zeros(3, 1)), "parameters must be (..., 2 * features), got (3, 1)"),
        (lambda: Quotient()(torch.tensor(1.0)), "parameters must be (..., 2 * features), got ()"),
        (lambda: Quotient()(torch.zeros(3, 2).long()), "parameters must be of a floating-point type, got torch.int64"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_a_mask_of_booleans_is_one():
    _, guide = pair(guide_mask=FixedMask(INFERENCE.inference_mask().bool()))
    for name, q in guide.posteriors(views(), subset=()).items():
        assert torch.equal(q.loc, torch.zeros(5, DIMS[name]))
    assert guide.posteriors({"y": views()["y"]})["z"].loc.is_floating_point()
