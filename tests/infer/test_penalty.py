import inspect
import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from hsic import HSIC
from pyzoo.infer import (
    BayesianNetwork,
    Beliefs,
    Distortion,
    Information,
    LearnedInformation,
    Penalized,
    Penalty,
    TotalCorrelation,
    TraceKL_ELBO,
    Variables,
    analytic,
    dependence,
    index_information,
    projection,
    total_correlation,
)

NAMES = Variables(("x", "y"), shared=("z", "s"), private={"u": "x"})
JOINT = BayesianNetwork.parse("x, y -> z, s; x -> u", NAMES)


def normal(seed, features):
    generator = torch.Generator().manual_seed(seed)
    loc, noise = torch.randn(2, 6, features, generator=generator)
    return dist.Normal(loc, 0.5 + torch.rand(6, features, generator=generator)), loc + noise


class SomeViews(Beliefs):
    """Of examples that lack a view."""

    def __init__(self, mask, *arguments):
        super().__init__(*arguments)
        self.mask, self.asked = mask, []

    def complete(self, names):
        self.asked.append(set(names))
        return self.mask if names else None


def parts():
    """Draws and posteriors given all sets of views."""
    sizes = {"z": 3, "s": 1, "u": 2}
    found, draws = {}, {}
    for i, views in enumerate([(), ("x",), ("y",), ("x", "y")]):
        pairs = {name: normal(10 * i + j, size) for j, (name, size) in enumerate(sizes.items())}
        found[views] = {name: q for name, (q, _) in pairs.items()}
        draws = {name: z for name, (_, z) in pairs.items()}  # of the last, given all views
    return draws, found


def beliefs(views=None):
    return Beliefs(*parts(), views)


def penalty(text, **settings):
    return Penalty("target", JOINT, BayesianNetwork.parse(text, NAMES), **settings)


def rate(q, p):
    return kl_divergence(q, p).sum() / 6


def test_rates_and_conditional_rates():
    """z and s from x alone; what y adds is penalized."""
    cross, b = penalty("x -> z, s, u; z, s -> y", weight=2.0), beliefs()
    found = cross.values(b)
    assert list(found) == ["penalty/target/I(z; y | x)", "penalty/target/I(s; y | x)", "penalty/target/I(y; s, z)"]
    for name in ("z", "s"):
        exact = 2.0 * rate(b.given(["x", "y"])[name], b.given(["x"])[name])
        torch.testing.assert_close(found[f"penalty/target/I({name}; y | x)"], exact)
    assert found["penalty/target/I(y; s, z)"] == 0
    assert cross.is_bound
    assert cross.kind == "upper bound"


def test_the_empty_network_is_the_sum_of_all_rates():
    b = beliefs()
    total = sum(penalty("").values(b).values())
    exact = sum(rate(b.given(None)[name], b.given([])[name]) for name in ("z", "s"))
    exact += rate(b.given(["x"])["u"], b.given([])["u"])
    torch.testing.assert_close(total, exact)


@pytest.mark.parametrize("size", [None, 50])
def test_total_correlation_between_latents(size):
    """Independent latents, each view from all: the conditional form telescopes to one total correlation."""
    estimators = dict.fromkeys(["I(s; z)", "I(u; s, z)"], TotalCorrelation(size))
    independent = penalty("z, s, u -> x, y; x -> y", form="conditional", estimators=estimators)
    assert [str(term) for _, term, _ in independent.terms] == ["I(s; z)", "I(u; s, z)"]
    assert independent.kind == "estimate"
    b = beliefs()
    q, z = b.joined(["z", "s", "u"])  # s, u, z
    exact = total_correlation(q, z, [[0], [1, 2], [3, 4, 5]], size)
    torch.testing.assert_close(sum(independent.values(b).values()), exact)


def test_estimators_on_request():
    text, form = "z, s, u -> x, y; x -> y", "conditional"
    learned = next(term for _, term, _ in penalty(text, form=form).terms if str(term) == "I(u; s, z)")
    mine = LearnedInformation(learned, {"z": 3, "s": 1, "u": 2})
    independent = penalty(text, form=form, estimators={"I(s; z)": "dependence", "I(u; s, z)": mine})
    assert independent.kind == "surrogate"
    assert not independent.is_bound
    b = beliefs()
    found = list(independent.values(b).values())
    torch.testing.assert_close(found[0], dependence(b.draws["s"], b.draws["z"]))
    torch.testing.assert_close(found[1], mine.learn(b.draws))
    torch.testing.assert_close(found[1], mine.mine(b.draws["u"], torch.cat([b.draws["s"], b.draws["z"]], -1)))
    empty = penalty("", estimators={"I(z; x, y)": "index_information"})
    q, z = b.given(None)["z"], b.draws["z"]
    torch.testing.assert_close(empty.values(b)["penalty/target/I(z; x, y)"], index_information(q, z))
    assert empty.kind == "estimate"


def test_a_learned_estimator_is_not_moved_by_the_penalty():
    text, form = "z, s, u -> x, y; x -> y", "conditional"
    _, term, _ = penalty(text, form=form).terms[0]
    mine = LearnedInformation(term, {"z": 3, "s": 1, "u": 2})
    draws, found = parts()
    draws = {name: z.requires_grad_() for name, z in draws.items()}
    value = penalty(text, form=form, estimators={str(term): mine}).values(Beliefs(draws, found))["penalty/target/I(s; z)"]
    gradients = torch.autograd.grad(value, [draws["z"], *mine.parameters()], allow_unused=True, retain_graph=True)
    assert gradients[0].any()
    assert gradients[1:] == (None,) * len(gradients[1:])
    assert all(g is not None for g in torch.autograd.grad(mine.learn(draws), list(mine.parameters())))


def test_examples_without_the_given_views_do_not_count():
    mask = torch.tensor([True, True, False, True, False, False])
    b = SomeViews(mask, *parts())
    found = penalty("x -> z, s, u; z, s -> y").values(b)
    wide, narrow = b.given(["x", "y"])["z"], b.given(["x"])["z"]
    exact = kl_divergence(wide, narrow)[mask].sum() / 6
    torch.testing.assert_close(found["penalty/target/I(z; y | x)"], exact)
    assert b.asked == [{"x"}, {"x"}]
    torch.testing.assert_close(penalty("").values(b)["penalty/target/I(u; x)"], rate(b.given(["x"])["u"], b.given([])["u"]))


class Scorer:
    """A model that knows the likelihood of x alone."""

    network = BayesianNetwork.parse("z, u -> x; s -> y", NAMES)

    def __init__(self):
        self.p, self.asked = dist.Normal(torch.zeros(6, 2), 1.5), []

    def likelihood(self, view, latents):
        self.asked.append((view, set(latents)))
        return self.p


def test_distortion():
    """Under a minus, what the latents tell of a view: bounded from below by its distortion, which adds to the loss."""
    x, scorer = torch.randn(6, 2), Scorer()
    known = {"I(x; u, z)": Distortion(scorer)}
    alone = penalty("x, y -> s; z, u -> x", weight=2.0, estimators=known)
    assert alone.is_bound
    found = alone.values(beliefs({"x": x}))["penalty/target/I(x; u, z)"]
    torch.testing.assert_close(found, -2.0 * scorer.p.log_prob(x).sum() / 6)
    assert [view for view, _ in scorer.asked] == ["x"]
    mask = torch.tensor([True, False, True, True, True, True])
    expected = -2.0 * scorer.p.log_prob(x)[mask].sum() / 6
    x[1] = math.nan  # stands in a row that lacks x
    found = alone.values(SomeViews(mask, *parts(), {"x": x}))["penalty/target/I(x; u, z)"]
    torch.testing.assert_close(found, expected)


def test_says_what_it_is():
    assert str(penalty("x, y -> z, s; x -> u")) == "target (an upper bound): 0"
    assert str(penalty("x, y -> s; x -> u; x -> z")).startswith("target (an upper bound): + I(z; y | x) by rate (upper)")
    assert "(an estimate)" in str(penalty("z, s, u -> x, y; x -> y", form="conditional"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "", "weight": -1.0}, "at least 0, got -1"),
        ({"text": "", "form": "printed"}, "not 'printed'"),
        ({"text": "", "estimators": {"I(z; x)": "rate"}}, r"no term I\(z; x\) in 'target': there are I\(z; x, y\)"),
        (
            {"text": "", "estimators": {"I(z; x, y)": "distortion"}},
            r"'distortion' does not suit I\(z; x, y\), a term with a plus",
        ),
        ({"text": "", "estimators": {"I(z; x, y)": "zero"}}, r"'zero' does not suit I\(z; x, y\), a term with a plus"),
        (
            {"text": "", "estimators": {"I(z; x, y)": Distortion(Scorer())}},
            r"'Distortion' does not suit I\(z; x, y\), a term with a plus",
        ),
        ({"text": "x -> z, s, u; z -> y", "form": "conditional"}, r"no estimator suits I\(y; .*a term with a plus"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        penalty(**arguments)


def test_beliefs_name_what_they_lack():
    draws, found = parts()
    b = Beliefs(draws, {names: q for names, q in found.items() if names != ("y",)})
    with pytest.raises(ValueError, match=r"no posterior given y: it has those given .*; x"):
        b.given(["y"])
    without_prior = Beliefs(draws, {("x", "y"): found["x", "y"]})
    assert (without_prior.given(())["z"].stddev == 1).all()
    assert without_prior.rows == 6


# In a guide -----------------------------------------------------------------------------------------------------------

ONE = Variables(("x",), shared=("z", "s"))
FROM_X = BayesianNetwork.parse("x -> z, s", ONE)
RATES = Penalty("rates", FROM_X, BayesianNetwork(ONE), weight=3.0)
INDEPENDENT = BayesianNetwork.parse("z, s -> x", ONE)


def model(x):
    with pyro.plate("data", len(x)):
        z, s = (pyro.sample(name, dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1)) for name in ("z", "s"))
        pyro.sample("x", dist.Normal(z + s, 1.0).to_event(1), obs=x)


class Guide(nn.Module):
    """Someone's own guide. It has a network and returns its beliefs, or adds the penalties itself."""

    network = FROM_X

    def __init__(self, own=()):
        super().__init__()
        self.scales, self.own = nn.Parameter(torch.tensor([0.5, 2.0])), own

    def forward(self, x):
        q = {name: dist.Normal(x, scale) for name, scale in zip(("z", "s"), self.scales, strict=True)}
        with pyro.plate("data", len(x)):
            draws = {name: pyro.sample(name, each.to_event(1), infer=analytic) for name, each in q.items()}
        beliefs = Beliefs(draws, {("x",): q}, {"x": x})
        for penalty in self.own:
            penalty.factor(beliefs, rows=len(x))
        return beliefs


X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))


def terms(guide):
    torch.manual_seed(0)
    return TraceKL_ELBO().terms(model, guide, X)


def test_a_penalty_in_your_own_guide():
    """At most five lines beyond the guide: what it believes, and the factor. The loss grows by the weight times the rate."""
    beyond = [line for line in inspect.getsource(Guide.forward).splitlines() if "beliefs" in line or "penalty" in line]
    assert len(beyond) <= 5
    plain, found = terms(Guide()), terms(Guide(own=[RATES]))
    for name, scale in (("z", 0.5), ("s", 2.0)):
        kl = kl_divergence(dist.Normal(X, scale), dist.Normal(0.0, 1.0)).sum()
        torch.testing.assert_close(found[f"penalty/rates/I({name}; x)"], 3.0 * kl)
        torch.testing.assert_close(plain[name], kl)
    assert {name: found[name] for name in plain} == plain


def test_a_wrapped_guide_is_the_guide_and_its_penalties():
    guide = Guide()
    assert terms(Penalized(guide, [RATES])) == terms(Guide(own=[RATES]))
    assert terms(Penalized(guide, [])) == terms(guide)
    assert dict(Penalized(guide, [RATES]).named_parameters()).keys() == {"guide.scales"}


def test_penalties_that_do_not_fit_a_guide():
    other = Penalty("other", JOINT, BayesianNetwork(NAMES))
    for penalties, message in (
        ([RATES, RATES], "two penalties 'rates'"),
        ([other], "'other' is of the network 'x, y -> z, s; x -> u'"),
    ):
        with pytest.raises(ValueError, match=message):
            Penalized(Guide(), penalties)


def test_your_own_estimator():
    """HSIC is one class of at most 25 lines, which a penalty takes as it takes ours."""
    assert len(inspect.getsource(HSIC).splitlines()) <= 25
    independent = Penalty("hsic", FROM_X, INDEPENDENT, 5.0, "conditional", {"I(s; z)": HSIC()})
    assert str(independent) == "hsic (a surrogate): + I(s; z) by HSIC (surrogate)"
    found = terms(Penalized(Guide(), [independent]))["penalty/hsic/I(s; z)"]
    torch.manual_seed(0)
    draws = Guide()(X).draws
    kernels = [torch.exp(-torch.cdist(draws[name], draws[name]).square() / 4) for name in ("s", "z")]
    center = torch.eye(6) - 1 / 6
    exact = (kernels[0] @ center @ kernels[1] @ center).trace() / 25
    torch.testing.assert_close(found, 6 * 5.0 * exact)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: projection(JOINT, None), "target must be of type BayesianNetwork, got NoneType"),
        (lambda: Information(["z"], ["x"]), "left must be of type frozenset, got list"),
        (lambda: Penalty("hsic", FROM_X, INDEPENDENT, 5.0, "conditional", {"I(s; z)": 3}), "the estimator of I(s; z) must be of"),
        (lambda: RATES.values(None), "beliefs must be of type Beliefs, got NoneType"),
        (lambda: Penalized(Guide(), RATES), "penalties must be of type Sequence, got Penalty"),
        (lambda: Penalized(Guide(), [3]), "each penalty must be of type Penalty, got int"),
        (lambda: Penalized(lambda: None, [RATES])(), "What a guide with penalties returns must be of type Beliefs, got NoneType"),
        (lambda: Beliefs(None), "draws must be of type Mapping, got NoneType"),
        (lambda: Beliefs({"z": torch.tensor(0.0)}).rows, "Draws of all latents must have one number of rows, got {'z': None}"),
        (lambda: Guide()(X).joined([]), "names must hold a latent"),
        (lambda: LearnedInformation(Information.of("z", "u"), {"z": 2}), "There is no latent 'u': there are z"),
        (
            lambda: LearnedInformation(Information.of("z", "u"), {"z": 2, "u": 1}).learn({"z": torch.zeros(4, 2)}),
            "There is no latent 'u': there are z",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
