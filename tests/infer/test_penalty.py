import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyzoo.infer import MINE, BayesianNetwork, Beliefs, Penalty, Variables, dependence, index_information, total_correlation

NAMES = Variables(("x", "y"), shared=("z", "s"), private={"u": "x"})
JOINT = BayesianNetwork.parse("x, y -> z, s; x -> u", NAMES)


def normal(seed, features):
    generator = torch.Generator().manual_seed(seed)
    loc, noise = torch.randn(2, 6, features, generator=generator)
    return dist.Normal(loc, 0.5 + torch.rand(6, features, generator=generator)), loc + noise


def beliefs(**more):
    sizes = {"z": 3, "s": 1, "u": 2}
    found, draws = {}, {}
    for i, views in enumerate([(), ("x",), ("y",), ("x", "y")]):
        pairs = {name: normal(10 * i + j, size) for j, (name, size) in enumerate(sizes.items())}
        found[frozenset(views)] = {name: q for name, (q, _) in pairs.items()}
        draws = {name: z for name, (_, z) in pairs.items()}  # of the last, given all views
    given = lambda names: found[frozenset(("x", "y") if names is None else names)]  # noqa: E731
    return Beliefs(draws, given, **more)


def penalty(text, **settings):
    return Penalty("wish", JOINT, BayesianNetwork.parse(text, NAMES), **settings)


def rate(q, p):
    return kl_divergence(q, p).sum() / 6


def test_rates_and_conditional_rates():
    """z and s from x alone; what y adds is penalised."""
    wish = penalty("x -> z, s, u; z, s -> y", weight=2.0)
    b = beliefs()
    found = wish.values(b)
    assert list(found) == ["penalty/wish/I(z; y | x)", "penalty/wish/I(s; y | x)", "penalty/wish/I(y; s, z)"]
    for name in ("z", "s"):
        exact = 2.0 * rate(b.given(["x", "y"])[name], b.given(["x"])[name])
        torch.testing.assert_close(found[f"penalty/wish/I({name}; y | x)"], exact)
    assert found["penalty/wish/I(y; s, z)"] == 0
    assert wish.is_bound
    assert wish.kind == "upper bound"


def test_the_empty_network_is_the_sum_of_all_rates():
    b = beliefs()
    total = sum(penalty("").values(b).values())
    exact = sum(rate(b.given(None)[name], b.given([])[name]) for name in ("z", "s"))
    exact += rate(b.given(["x"])["u"], b.given([])["u"])
    torch.testing.assert_close(total, exact)


@pytest.mark.parametrize("size", [None, 50])
def test_total_correlation_between_latents(size):
    """Independent latents, each view from all: the conditional form telescopes to one total correlation."""
    wish = penalty("z, s, u -> x, y; x -> y", form="conditional")
    assert [str(term) for _, term, _ in wish.terms] == ["I(s; z)", "I(u; s, z)"]
    assert wish.kind == "estimate"
    b = beliefs(dataset_size=size)
    q, z = b.joined(["z", "s", "u"])  # s, u, z
    exact = total_correlation(q, z, [[0], [1, 2], [3, 4, 5]], size)
    torch.testing.assert_close(sum(wish.values(b).values()), exact)


def test_estimators_on_request():
    terms = {"I(s; z)": "dependence", "I(u; s, z)": "mine"}
    wish = penalty("z, s, u -> x, y; x -> y", form="conditional", estimators=terms)
    assert wish.kind == "surrogate"
    assert not wish.is_bound
    mine = MINE(2, 4)
    b = beliefs(networks={"I(u; s, z)": mine})
    found = list(wish.values(b).values())
    torch.testing.assert_close(found[0], dependence(b.draws["s"], b.draws["z"]))
    torch.testing.assert_close(found[1], mine(b.draws["u"], torch.cat([b.draws["s"], b.draws["z"]], -1)))
    with pytest.raises(ValueError, match=r"no MINE for I\(u; s, z\)"):
        wish.values(beliefs())
    wish = penalty("", estimators={"I(z; x, y)": "index_information"})
    q, z = b.given(None)["z"], b.draws["z"]
    torch.testing.assert_close(wish.values(b)["penalty/wish/I(z; x, y)"], index_information(q, z))
    assert wish.kind == "estimate"


def test_examples_without_the_given_views_do_not_count():
    mask = torch.tensor([True, True, False, True, False, False])
    asked = []
    b = beliefs(complete=lambda names: asked.append(set(names)) or (mask if names else None))
    found = penalty("x -> z, s, u; z, s -> y").values(b)
    wide, narrow = b.given(["x", "y"])["z"], b.given(["x"])["z"]
    exact = kl_divergence(wide, narrow)[mask].sum() / 6
    torch.testing.assert_close(found["penalty/wish/I(z; y | x)"], exact)
    assert asked == [{"x"}, {"x"}]
    torch.testing.assert_close(penalty("").values(b)["penalty/wish/I(u; x)"], rate(b.given(["x"])["u"], b.given([])["u"]))


def test_distortion():
    """Under a minus, what the latents tell of a view: bounded from below by its distortion, which so is added."""
    x = torch.randn(6, 2)
    p = dist.Normal(torch.zeros(6, 2), 1.5)
    asked = []
    b = beliefs(likelihood=lambda view, latents: asked.append((view, set(latents))) or (p, x))
    wish = penalty("x, y -> s; z, u -> x", weight=2.0, estimators={"I(x; u, z)": "distortion"})
    assert wish.is_bound
    torch.testing.assert_close(wish.values(b)["penalty/wish/I(x; u, z)"], -2.0 * p.log_prob(x).sum() / 6)
    assert asked == [("x", {"z", "u"})]
    with pytest.raises(ValueError, match=r"bounds I\(x; u, z\) needs a guide that knows its model"):
        wish.values(beliefs())


def test_says_what_it_is():
    assert str(penalty("x, y -> z, s; x -> u")) == "wish (an upper bound): 0"
    assert str(penalty("x, y -> s; x -> u; x -> z")).startswith("wish (an upper bound): + I(z; y | x) by rate (upper)")
    assert "(an estimate)" in str(penalty("z, s, u -> x, y; x -> y", form="conditional"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "", "weight": -1.0}, "at least 0, got -1"),
        ({"text": "", "form": "printed"}, "not 'printed'"),
        ({"text": "", "estimators": {"I(z; x)": "rate"}}, r"no term I\(z; x\) in 'wish': there are I\(z; x, y\)"),
        (
            {"text": "", "estimators": {"I(z; x, y)": "distortion"}},
            r"'distortion' does not suit I\(z; x, y\), a term with a plus",
        ),
        ({"text": "", "estimators": {"I(z; x, y)": "zero"}}, r"'zero' does not suit I\(z; x, y\), a term with a plus"),
        ({"text": "x -> z, s, u; z -> y", "form": "conditional"}, r"no estimator suits I\(y; .*a term with a plus"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        penalty(**arguments)
