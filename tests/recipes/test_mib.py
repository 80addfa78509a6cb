"""Rows of the unified table: their losses against the original methods' by hand, and how they train and are measured."""

import math
import types

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pyzoo.data.multimodal import NUM_CLASSES
from pyzoo.errors import UsageError
from pyzoo.recipes import mib as rows
from pyzoo.recipes import mib_metrics
from pyzoo.recipes.mib_figures import cross_generation, exchange
from pyzoo.recipes.mib_objectives import SeveralNetworks
from pyzoo.recipes.mib_tables import MIBFigure3, MIBTable2
from tiny import mib, trained_state

CPU = torch.device("cpu")
VIEWS = ("digit", "label")
ALL = [rows.VAE, rows.GAN, rows.InfoGAN, rows.BetaVAE, rows.BetaTCVAE, rows.JMVAE, rows.MVAE, rows.WynerVAE, rows.BiVCCA]
ALL += [rows.TELBO, rows.Multimodal]


# By hand ----------------------------------------------------------------------------------------------------------------


class Hand:
    """A recipe's networks, and the arithmetic of multimodal VAEs without Pyro or pyzoo."""

    def __init__(self, recipe):
        torch.manual_seed(1)
        self.recipe = recipe
        self.module = recipe.objectives()[0].module.double()
        self.decoders, self.encoders = self.module.model.decoders, self.module.guide.encoders
        batch = recipe.source(CPU).batch(0, 6)
        self.batch = {view: value.double() for view, value in batch.items()}

    def loss(self):
        """The recipe's; of several networks, of which each row draws one, the mean over what can be drawn."""
        torch.manual_seed(3)
        if not isinstance(self.module, SeveralNetworks):
            return self.module(**self.batch)[0]
        every = [torch.full((6,), index) for index in range(len(self.module.weights))]
        losses = torch.stack([self.module(**self.batch, drawn=drawn)[0] for drawn in every])
        return (self.module.weights * losses).sum() / self.module.weights.sum()

    def noise(self, *sizes):
        torch.manual_seed(3)
        return [torch.empty(6, size, dtype=torch.float64).normal_() for size in sizes]

    def expert(self, view, part=slice(None)):
        """Mean and variance of some of a view's latents."""
        network = self.encoders[view]
        out = network(self.batch[view])
        half = out.shape[1] // 2
        return out[:, :half][:, part], out[:, half:][:, part].exp()

    def product(self, *experts):
        """Of N(0, 1) and the experts."""
        precision = 1 + sum(1 / variance for _, variance in experts)
        return Normal(sum(mean / variance for mean, variance in experts) / precision, precision**-0.5)

    def kl(self, q, p=None):
        return kl_divergence(q, Normal(torch.zeros_like(q.loc), 1.0) if p is None else p).sum() / 6

    def cost(self, view, *latents):
        """-log p(view | latents) per example, weighted as the recipe does."""
        logits = torch.nn.Sequential.forward(self.decoders[view], torch.cat(latents, 1))
        if view == "label":
            return self.recipe.label_weight * cross_entropy(logits, self.batch["label"].argmax(1))
        return binary_cross_entropy_with_logits(logits, self.batch[view], reduction="sum") / 6


def draw(q, noise):
    return q.loc + q.scale * noise


def agree(hand, expected):
    loss = hand.loss()
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    parameters = [p for p in hand.module.parameters() if p.requires_grad]
    ours, theirs = (torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True) for value in (loss, expected))
    for a, b in zip(ours, theirs, strict=True):  # None and zeros are alike
        torch.testing.assert_close(*(torch.zeros(()) if g is None or not g.any() else g for g in (a, b)), rtol=1e-8, atol=1e-10)


def test_vae():
    hand = Hand(mib(rows.VAE))
    q = hand.product(hand.expert("digit"))
    agree(hand, hand.cost("digit", draw(q, *hand.noise(2))) + hand.kl(q))


def test_beta_vae():
    hand = Hand(mib(rows.BetaVAE, beta=5.0))
    q = hand.product(hand.expert("digit"))
    agree(hand, hand.cost("digit", draw(q, *hand.noise(2))) + 5 * hand.kl(q))


def test_beta_tcvae():
    """ELBO + (beta - 1) TC, by minibatch stratified sampling (Chen et al. 2018, appendix C.2) of a set of 1,437 digits."""
    hand = Hand(mib(rows.BetaTCVAE, beta=4.0))
    q = hand.product(hand.expert("digit"))
    u = draw(q, torch.cat(hand.noise(1, 1), 1))
    pairs = q.log_prob(u[:, None])  # (6, 6, 2), of u_i under q(u | x_j)
    weights = torch.full((6, 6, 1), (1 - 1 / 1437) / 5, dtype=torch.float64)
    weights[torch.arange(6), torch.arange(6)] = 1 / 1437
    joint = (weights[..., 0] * pairs.sum(-1).exp()).sum(1).log()
    marginals = (weights * pairs.exp()).sum(1).log().sum(-1)
    agree(hand, hand.cost("digit", u) + hand.kl(q) + 3 * (joint - marginals).mean())


def test_jmvae():
    hand = Hand(mib(rows.JMVAE, cross_weight=0.3))
    experts = {view: hand.expert(view) for view in VIEWS}
    q = hand.product(*experts.values())
    z = draw(q, *hand.noise(5))
    expected = sum(hand.cost(view, z) + 0.3 * hand.kl(q, hand.product(experts[view])) for view in VIEWS)
    agree(hand, expected + hand.kl(q))


def several(hand, heard, explained, weights):
    """A weighted sum of negative ELBOs, with the noise in the order in which they draw."""
    noise, expected = hand.noise(*[5] * len(heard)), 0.0
    for names, explain, weight, epsilon in zip(heard, explained, weights, noise, strict=True):
        q = hand.product(*(hand.expert(view) for view in names))
        expected = expected + weight * (hand.kl(q) + sum(hand.cost(view, draw(q, epsilon)) for view in explain))
    return expected


def test_mvae():
    """An ELBO for both views and one for each (Wu and Goodman 2018, eq. 3 and section 2.3)."""
    hand = Hand(mib(rows.MVAE))
    heard = [VIEWS, VIEWS[:1], VIEWS[1:]]
    agree(hand, several(hand, heard, heard, (1, 1, 1)))


def test_telbo():
    hand = Hand(mib(rows.TELBO, single_weight=4.0))
    heard = [VIEWS, VIEWS[:1], VIEWS[1:]]
    agree(hand, several(hand, heard, heard, (1, 4, 4)))


def test_bivcca():
    """Both views from each one's posterior, half of each (Wang et al. 2016, eq. 13)."""
    hand = Hand(mib(rows.BiVCCA))
    agree(hand, several(hand, [VIEWS[:1], VIEWS[1:]], [VIEWS, VIEWS], (0.5, 0.5)))


def private(hand):
    """q(z | both), q(u | digit), z and u, and each view's expert on z."""
    experts = {view: hand.expert(view, slice(0, 3)) for view in VIEWS}
    q, own = hand.product(*experts.values()), hand.product(hand.expert("digit", slice(3, None)))
    z, u = (draw(belief, noise) for belief, noise in zip((q, own), hand.noise(3, 2), strict=True))
    return experts, q, own, z, u


def test_ours_mm():
    """L_x + L_u + L_z of section 4.2."""
    hand = Hand(mib(rows.Multimodal))
    experts, q, own, z, u = private(hand)
    expected = hand.cost("digit", z, u) + hand.cost("label", z) + hand.kl(own) + hand.kl(q)
    agree(hand, expected + sum(hand.kl(q, hand.product(experts[view])) for view in VIEWS))


def test_ours_mm_with_crossed_costs():
    """And C_4: all views once more with z from each view alone, and u from the digit."""
    hand = Hand(mib(rows.Multimodal, crossed_cost=0.4))
    experts = {view: hand.expert(view, slice(0, 3)) for view in VIEWS}
    own, both = hand.product(hand.expert("digit", slice(3, None))), hand.product(*experts.values())
    noise, expected = hand.noise(3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2), 0.0
    for q, weight in ((both, 1.0), (hand.product(experts["digit"]), 0.4), (hand.product(experts["label"]), 0.4)):
        z, u = draw(q, noise.pop(0)), draw(own, noise.pop(0))
        del noise[:2]  # for wishes that look at draws
        expected = expected + weight * (hand.cost("digit", z, u) + hand.cost("label", z) + hand.kl(own) + hand.kl(q))
    agree(hand, expected + sum(hand.kl(both, hand.product(experts[view])) for view in VIEWS))


def test_wyner_vae():
    """Our reading: the ELBO, z's rate, the cross terms, and for the digit the rates of z and u and its own cost once more."""
    hand = Hand(mib(rows.WynerVAE, succinct_weight=0.2, cross_weight=0.7, private_weight=0.3))
    experts, q, own, z, u = private(hand)
    digit = hand.cost("digit", z, u)
    expected = digit + hand.cost("label", z) + hand.kl(own) + hand.kl(q) + 0.2 * hand.kl(q)
    expected = expected + 0.7 * sum(hand.kl(q, hand.product(experts[view])) for view in VIEWS)
    agree(hand, expected + 0.3 * (hand.kl(q) + hand.kl(own) + digit))


def test_settings_reach_the_networks():
    assert mib(data="digits-numbers", number_scale=0.3).networks()[0].decoders["number"].scale == 0.3
    assert all(o.optimizer.param_groups[0]["betas"] == (0.5, 0.999) for o in mib(rows.GAN).objectives())
    guide = mib(rows.BetaTCVAE, validation=True).networks()[1]
    assert guide.dataset_size == 1198


def test_what_the_wishes_are():
    for kind in (rows.BetaVAE, rows.JMVAE, rows.Multimodal, rows.WynerVAE):
        assert all(penalty.is_bound for penalty in mib(kind).declare().penalties())
    kinds = {"total_correlation": "estimate", "mine": "estimate", "mmd": "surrogate"}
    for independence, kind in kinds.items():
        assert mib(independence=independence).declare().penalties()[-1].kind == kind


# Other objectives -------------------------------------------------------------------------------------------------------


def moved(objective, batch):
    """Names of the parameters that one step of an objective moves."""
    before = {name: p.detach().clone() for name, p in objective.module.named_parameters()}
    objective.optimizer.zero_grad()
    objective.module(**batch)[0].backward()
    objective.optimizer.step()
    return {name for name, p in objective.module.named_parameters() if not torch.equal(before[name], p)}


def test_adversaries_move_their_own_networks():
    for kind in (rows.GAN, rows.InfoGAN):
        recipe = mib(kind)
        generator, judge = recipe.objectives()
        batch = recipe.source(CPU).batch(0, 20)
        parts = {name.split(".")[0] for name in moved(generator, batch)}
        assert parts == ({"model"} if kind is rows.GAN else {"model", "guide"})
        assert {name.split(".")[0] for name in moved(judge, batch)} == {"discriminator"}


def test_losses_of_adversaries():
    """-log D of what is drawn, the cross-entropy of the judge, and a lower bound of what the images tell of the code."""
    recipe = mib(rows.InfoGAN, code_weight=0.5)
    generator, judge = recipe.objectives()
    batch = recipe.source(CPU).batch(0, 20)
    torch.manual_seed(2)
    loss, terms = generator.module(**batch)
    torch.manual_seed(2)
    c, u = torch.randn(20, 4), torch.randn(20, 2)
    model, guide, odds = generator.module.model, generator.module.guide, generator.module.discriminator
    x = model.decoders["digit"](torch.cat([c, u], 1)).mean
    torch.testing.assert_close(terms["digit"], -torch.sigmoid(odds(x)).log().mean())
    told = guide.posteriors({"digit": x})["c"].log_prob(c).sum(1).mean()
    torch.testing.assert_close(loss, terms["digit"] - 0.5 * told)
    torch.manual_seed(2)
    loss, _ = judge.module(**batch)
    expected = -torch.sigmoid(odds(batch["digit"])).log().mean() - (1 - torch.sigmoid(odds(x))).log().mean()
    torch.testing.assert_close(loss, expected)


def test_mine_is_trained_by_an_objective_of_its_own():
    recipe = mib(independence="mine")
    main, judge = recipe.objectives()
    batch = recipe.source(CPU).batch(0, 20)
    assert not any("estimators" in name for name in moved(main, batch))
    assert all("estimators" in name for name in moved(judge, batch))
    plain = mib().objectives()[0]
    gradients = []
    for objective in (main, plain):  # the estimate pulls at the guide
        torch.manual_seed(0)
        loss, _ = objective.module(**batch)
        gradients.append(torch.autograd.grad(loss, objective.module.guide.encoders["digit"][1].weight)[0])
    assert not torch.allclose(*gradients)


def test_mine_learns_what_latents_share():
    """z and u_digit are made to tell much of the digit, and so of each other, which the estimate finds."""
    recipe = mib(independence="mine", batch_size=200, learning_rate=1e-2)
    _, judge = recipe.objectives()
    last = judge.module.guide.encoders["digit"][-2]
    with torch.no_grad():
        last.weight[:5] *= 5.0  # means
        last.weight[5:] *= 0.0
        last.bias[5:] = -4.0  # log-variances
    source = recipe.source(CPU)
    estimates = []
    for step in range(150):
        judge.optimizer.zero_grad()
        loss, terms = judge.module(**source.batch(step, 200))
        loss.backward()
        judge.optimizer.step()
        estimates.append(terms["I(u_digit; z)"].item())
    assert abs(estimates[0]) < 0.3
    assert sum(estimates[-20:]) / 20 > 0.8


# Training and measuring -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "engine"),
    [
        (rows.Multimodal, {"independence": "mine", "paired": 0.5, "digit_kl_start": 3.0, "crossed_cost": 1.0}, "eager"),
        (rows.Multimodal, {"data": "digits-numbers", "paired": 0.3, "crossed_cost": 1.0, "shared_kl_end": 0.5}, "traced"),
        (rows.InfoGAN, {}, "eager"),
    ],
)
def test_resume_is_exact(tmp_path, kind, changes, engine):
    """Killed after five steps and continued, by another engine too, it ends where an undisturbed eager run does."""
    recipe = mib(kind, steps=8, **changes)
    undisturbed = trained_state(recipe, tmp_path / "whole", "eager")
    whole = recipe.source

    class Killed(Exception):
        pass

    def source(device):
        found = whole(device)
        batch = found.batch

        def until_five(step, size):
            if step == 5:
                raise Killed
            return batch(step, size)

        found.batch = until_five
        return found

    recipe.source = source
    with pytest.raises(Killed):
        trained_state(recipe, tmp_path / "parts", engine)
    resumed = trained_state(mib(kind, steps=8, **changes), tmp_path / "parts", engine)
    for name, value in undisturbed.items():
        assert torch.equal(value, resumed[name]), name


def test_the_digits_private_latent_is_dear_at_first():
    [objective] = mib(digit_kl_start=5.0, steps=100, crossed_cost=1.0).objectives()
    assert list(objective.schedules) == ["elbo.kl_weight_u_digit"]
    [objective] = mib(digit_kl_start=5.0, steps=100).objectives()
    assert list(objective.schedules) == ["kl_weight_u_digit"]
    assert [objective.schedules["kl_weight_u_digit"](step) for step in (0, 35, 70, 99)] == [5.0, 3.0, 1.0, 1.0]
    assert objective.module.get_buffer("kl_weight_u_digit") == 5.0
    assert not mib().objectives()[0].schedules
    [objective] = mib(data="digits-numbers", digit_kl_start=5.0).objectives()
    assert list(objective.schedules) == ["kl_weight_u_digit"]
    assert not mib(rows.VAE, digit_kl_start=5.0).objectives()[0].schedules
    assert not mib(rows.JMVAE, digit_kl_start=5.0).objectives()[0].schedules


def test_the_numbers_private_latent_is_dear_at_last_and_the_shared_one_cheap():
    changes = {"number_kl_end": 5.0, "shared_kl_end": 0.5, "digit_kl_start": 2.0, "steps": 100}
    [objective] = mib(data="digits-numbers", crossed_cost=1.0, **changes).objectives()
    assert set(objective.schedules) == {f"elbo.kl_weight_{name}" for name in ("z", "u_digit", "u_number")}
    for name, weights in {"u_number": [1.0, 1.0, 3.0, 5.0, 5.0], "z": [1.0, 1.0, 0.75, 0.5, 0.5]}.items():
        weight = objective.schedules[f"elbo.kl_weight_{name}"]
        assert [weight(step) for step in (0, 20, 40, 60, 99)] == pytest.approx(weights)
        assert objective.module.get_buffer(f"elbo.kl_weight_{name}") == 1.0
    assert objective.module.get_buffer("elbo.kl_weight_u_digit") == 2.0
    assert list(mib(**changes).objectives()[0].schedules) == ["kl_weight_z", "kl_weight_u_digit"]  # a label has no private latent
    assert list(mib(rows.JMVAE, data="digits-numbers", **changes).objectives()[0].schedules) == ["kl_weight_z"]
    assert not mib(rows.VAE, **changes).objectives()[0].schedules


def test_a_view_that_a_row_lacks_changes_nothing():
    """Weak supervision: what stands in a missing view reaches neither loss nor gradient, in any row of several views."""
    for kind in (rows.Multimodal, rows.JMVAE, rows.MVAE, rows.BiVCCA, rows.WynerVAE, rows.TELBO):
        recipe = mib(kind, paired=0.0)
        module = recipe.objectives()[0].module
        batch = recipe.source(CPU).batch(0, 20)
        other = {**batch, "digit": batch["digit"].clone(), "label": batch["label"].clone()}
        other["digit"][~batch["present"][:, 0]] = math.nan
        other["label"][~batch["present"][:, 1]] = math.nan
        found = []
        for views in (batch, other):
            torch.manual_seed(0)
            loss = module(**views)[0]
            found.append([loss, *torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)])
        for a, b in zip(*found, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("kind", [rows.BiVCCA, rows.Multimodal])
def test_a_network_scores_no_row_of_which_it_hears_nothing(kind):
    """Else decoders would learn to make do without z."""
    recipe = mib(kind, **({"crossed_cost": 1.0} if kind is rows.Multimodal else {}))
    module = recipe.objectives()[0].module
    batch = recipe.source(CPU).batch(0, 20)
    label_only = torch.tensor([False, True]).expand(20, 2)
    hears = module.hears.tolist()
    _, terms = module(**batch, present=label_only, drawn=torch.full((20,), hears.index([True, False])))
    assert all(value == 0 for value in terms.values())
    _, terms = module(**batch, present=label_only, drawn=torch.full((20,), hears.index([False, True])))
    assert terms["label"] > 0
    assert terms["digit"] == 0


def test_networks_are_drawn_as_often_as_they_weigh():
    module = mib(rows.TELBO, single_weight=2.0).objectives()[0].module
    batch = mib().source(CPU).batch(0, 600)
    hears, scored = [], []

    def heard(module, arguments, given):
        hears.append(given["heard"])
        scored.append(given["scored"])

    module.guide.register_forward_pre_hook(heard, with_kwargs=True)
    torch.manual_seed(0)
    module(**batch)
    (hears,), (scored,) = hears, scored
    assert torch.equal(hears, scored)
    shares = [(hears == torch.tensor(row)).all(1).double().mean().item() for row in ([1, 1], [1, 0], [0, 1])]
    assert shares == pytest.approx([0.2, 0.4, 0.4], abs=0.06)


@pytest.mark.parametrize("scored", ["heard", "all"])
def test_wishes_are_of_every_row_whichever_networks_are_drawn(scored):
    model, guide = mib(independence="total_correlation").networks()
    module = SeveralNetworks(model, guide, {VIEWS: 1.0, VIEWS[:1]: 0.5, VIEWS[1:]: 0.5}, scored, {})
    batch = mib().source(CPU).batch(0, 20)
    whole, known, found = guide.posteriors(batch)["z"], [], []
    values = guide.penalties[-1].values

    def seen(beliefs):
        known.append((beliefs.given(None)["z"], beliefs.draws["z"]))
        return values(beliefs)

    guide.penalties[-1].values = seen
    for place in range(3):
        _, terms = module(**batch, drawn=torch.full((20,), place))
        found.append({name: value for name, value in terms.items() if name.startswith("penalty/cross")})
    assert found[0] == found[1] == found[2]
    assert sum(found[0].values()) > 0
    for belief, z in known:
        torch.testing.assert_close((belief.loc, belief.scale), (whole.loc, whole.scale))
        assert ((z - whole.loc) / whole.scale).square().mean().item() == pytest.approx(1.0, abs=0.6)


def test_networks_are_drawn_evenly():
    """Of a batch each has its share, rounded up or down; of each row, in the long run, too."""
    model, guide = mib(rows.MVAE).networks()
    module = SeveralNetworks(model, guide, {VIEWS: 1.0, VIEWS[:1]: 0.0, VIEWS[1:]: 0.7}, "heard", {})
    torch.manual_seed(0)
    drawn = torch.stack([module._draw(10) for _ in range(2000)])
    share = 0.7 / 1.7
    assert set((drawn == 2).sum(1).tolist()) == {4, 5}
    assert not (drawn == 1).any()
    torch.testing.assert_close((drawn == 2).double().mean(0), torch.full((10,), share, dtype=torch.float64), atol=0.05, rtol=0)


def test_each_row_has_the_network_that_is_drawn_for_it():
    """Also rows that lack a view: what needs no draws is the mean over the rows, each by itself."""
    recipe = mib(crossed_cost=0.5, paired=0.4)
    module = recipe.objectives()[0].module
    batch, drawn = recipe.source(CPU).batch(0, 30), torch.arange(30) % 3
    _, together = module(**batch, drawn=drawn)
    rows = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(30)]
    alone = [module(**row, drawn=drawn[i : i + 1])[1] for i, row in enumerate(rows)]
    for name, value in together.items():
        if name in ("z", "u_digit") or name.startswith("penalty/"):
            torch.testing.assert_close(value, sum(terms[name] for terms in alone) / 30)


def test_bad_networks():
    model, guide = mib(rows.MVAE).networks()
    for heard, message in (
        ({(): 1.0}, "hears one or more"),
        ({("next",): 1.0}, "'next'"),
        ({VIEWS: 0.0}, "one of them positive"),
    ):
        with pytest.raises(ValueError, match=message):
            SeveralNetworks(model, guide, heard, "all", {})
    with pytest.raises(ValueError, match="'heard' or 'all', not 'any'"):
        SeveralNetworks(model, guide, {VIEWS: 1.0}, "any", {})


def test_a_row_that_lacks_the_view_says_nothing_of_its_cross_term():
    """With one view only, q(z | all) is q(z | it): no cross term is left, neither its own nor the missing view's."""
    recipe = mib(paired=0.0)
    module = recipe.objectives()[0].module
    _, terms = module(**recipe.source(CPU).batch(0, 20))
    assert all(value == 0 for name, value in terms.items() if name.startswith("penalty/"))
    _, terms = module(**mib().source(CPU).batch(0, 20))
    assert all(terms[f"penalty/cross({a})/I(z; {b} | {a})"] > 0 for a, b in (VIEWS, VIEWS[::-1]))


@pytest.fixture
def quick_judges(monkeypatch):
    mib_metrics._classifier.cache_clear()
    whole = mib_metrics.train_classifier
    monkeypatch.setattr(mib_metrics, "train_classifier", lambda batch, steps, *more: whole(batch, 40, *more))
    yield
    mib_metrics._classifier.cache_clear()


@pytest.mark.parametrize("kind", [rows.VAE, rows.InfoGAN, rows.MVAE, rows.WynerVAE])  # the others by tests/test_cli.py
def test_evaluating_moves_nothing_and_repeats(kind, quick_judges):
    recipe = mib(kind)
    module = recipe.objectives()[0].module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    metrics = recipe.evaluate(module, CPU)
    assert torch.equal(state, torch.get_rng_state())
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics == recipe.evaluate(module, CPU)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in before.items())
    several = len(recipe.views) > 1
    assert several == ("cross_accuracy/digit_to_label" in metrics) == ("joint_coherence" in metrics)
    assert ("z_keeps_class" in metrics) == (kind in (rows.Multimodal, rows.WynerVAE))
    assert ("test_log_likelihood" in metrics) == (kind not in (rows.GAN, rows.InfoGAN))
    assert ("code_information" in metrics) == (kind is rows.InfoGAN)


class Known:
    """A model and guide of images whose z is the class and u the brightness, exactly."""

    def __init__(self, u_tells_class=False):
        self.u_tells_class = u_tells_class
        self.variables = rows.Multimodal(data="digits-label").declare().variables
        self.dims = {"z": NUM_CLASSES, "u_digit": 1}

    def likelihood(self, view, latents):
        if view == "label":
            return _Mean(latents["z"])
        cls = latents["z"].argmax(1)
        if self.u_tells_class:
            cls = (cls + latents["u_digit"][:, 0].long()) % NUM_CLASSES
        x = torch.zeros(len(cls), 1, 28, 28)
        x[torch.arange(len(cls)), 0, 0, cls] = 1.0
        return _Mean(x)

    def posteriors(self, given):
        if "label" in given:
            return {"z": _Mean(given["label"]), "u_digit": _Mean(torch.zeros(len(given["label"]), 1))}
        z = given["digit"][:, 0, 0, :NUM_CLASSES]
        return {"z": _Mean(z), "u_digit": _Mean(z.argmax(1, keepdim=True).float())}


class _Mean:
    def __init__(self, value):
        self.mean = value

    def sample(self):
        return self.mean


def test_separation_and_crossing_of_a_known_model():
    labels = torch.arange(50) % NUM_CLASSES
    x = torch.zeros(50, 1, 28, 28)
    x[torch.arange(50), 0, 0, labels] = 1.0
    views = {"digit": x, "label": torch.nn.functional.one_hot(labels, NUM_CLASSES).float()}
    classes = {"digit": labels, "label": labels}
    judges = {"digit": lambda images: images[:, 0, 0, :NUM_CLASSES], "label": lambda label: label}
    model = Known()
    found = mib_metrics._separation(model, model, views, classes, judges)
    assert (found["z_keeps_class"], found["u_changes_class"], found["z_brings_class"]) == (1.0, 0.0, 1.0)
    assert found["u_changes_style"] == 0.0 or math.isnan(found["u_changes_style"])
    crossed = mib_metrics._crossed(model, model, views, classes, judges)
    assert crossed == {"cross_accuracy/digit_to_label": 1.0, "cross_accuracy/label_to_digit": 1.0}
    wrong = mib_metrics._crossed(model, model, views, {**classes, "digit": (labels + 1) % NUM_CLASSES}, judges)
    assert wrong == {"cross_accuracy/digit_to_label": 1.0, "cross_accuracy/label_to_digit": 0.0}
    model = Known(u_tells_class=True)
    found = mib_metrics._separation(model, model, views, classes, judges)
    assert found["u_changes_class"] > 0.8


def test_held_out_pairs_have_nothing_in_common_with_those_trained_on():
    recipe = mib(data="digits-plus-one", validation=True)
    training, held = recipe.training_pairs(), recipe.measured_pairs()
    assert (len(training), len(held)) == (1198, 239)
    known = {tuple(image.flatten().tolist()) for image in (*training.images, *training.partner.images)}
    new = {tuple(image.flatten().tolist()) for image in (*held.images, *held.partner.images)}
    assert not known & new
    assert len(mib(data="digits-plus-one").measured_pairs()) == 360


def test_judges_are_trained_on_what_models_are_trained_on(monkeypatch):
    asked, whole = [], mib_metrics.load_pairs
    monkeypatch.setattr(mib_metrics, "load_pairs", lambda *where: asked.append(where) or whole(*where))
    monkeypatch.setattr(mib_metrics, "train_classifier", lambda batch, steps, *more: batch(0))
    mib_metrics._classifier.cache_clear()
    images, labels = mib_metrics._classifier("digits-plus-one", None, 0.5, "next", CPU)
    mib_metrics._classifier.cache_clear()
    assert asked == [("digits-plus-one", "train", None, (0.0, 0.5))]
    pairs = whole("digits-plus-one", "train", None, (0.0, 0.5))
    known = {tuple(image.flatten().tolist()): label for image, label in zip(pairs.images, pairs.labels.tolist(), strict=True)}
    assert [known[tuple(image.flatten().tolist())] for image in (255 * images).round().to(torch.uint8)] == labels.tolist()


def test_coherence_of_the_next_digit():
    """0.0 where both views are of one class, 1.0 where the second is of the next."""
    for offset, coherence in ((0, 0.0), (1, 1.0)):

        class Next(Known):
            variables = rows.Multimodal(data="digits-plus-one").declare().variables
            mask = torch.zeros(1)

            def __init__(self):
                self.dims = {"z": NUM_CLASSES}

            def likelihood(self, view, latents, offset=offset):
                return _Mean(latents["z"].roll(offset, 1) if view == "next" else latents["z"])

        judges = dict.fromkeys(("digit", "next"), lambda z: z)
        assert mib_metrics._coherence(Next(), judges, 1) == coherence


def test_samples_and_codes_by_hand():
    class Coded:
        dims = types.MappingProxyType({"c": 3, "u": 2})
        mask = torch.zeros(1)
        variables = rows.InfoGAN().declare().variables

        def likelihood(self, view, latents):
            return _Mean(latents["c"])

        def posteriors(self, given):
            return {"c": Normal(given["digit"], 0.5)}

    def judge(images):  # sure of one of four classes
        return torch.nn.functional.one_hot(torch.arange(len(images)) % 4, NUM_CLASSES).double() * 0.9 + 0.01

    found = mib_metrics._samples(Coded(), judge)
    shares = torch.tensor([0.235] * 4 + [0.01] * 6, dtype=torch.float64)
    assert found["sample_confidence"] == pytest.approx(0.91)
    assert found["sample_classes"] == pytest.approx((-(shares * shares.log()).sum()).exp().item())
    assert mib_metrics._code_information(Coded(), Coded()) == pytest.approx(3 * (0.5 - math.log(0.5)))


def test_conditional_likelihoods_are_differences(monkeypatch):
    known = {("digit", "label"): -10.0, ("digit",): -8.0, ("label",): -3.0}
    monkeypatch.setattr(
        mib_metrics, "log_likelihood", lambda model, guide, batch, *a, **k: torch.full((2,), known[tuple(sorted(batch))])
    )
    recipe = mib()
    module = recipe.objectives()[0].module
    found = mib_metrics._likelihoods(
        recipe, module.model, module.guide, mib_metrics.measured_views(recipe.measured_pairs(), VIEWS), False
    )
    assert found["test_log_likelihood"] == -10.0
    assert found["test_log_likelihood/digit_given_label"] == -7.0
    assert found["test_log_likelihood/label_given_digit"] == -2.0


@pytest.mark.parametrize("data", ["digits-label", "digits-plus-one"])
def test_figures_and_samples(data, quick_judges):
    recipe = mib(data=data)
    module = recipe.objectives()[0].module
    _, terms = module(**recipe.source(CPU).batch(0, 20))
    terms = {"loss": 1.0, "learning_rate": 0.1, **{name: value.item() for name, value in terms.items()}}
    history = [{"step": step, "seconds": 1.0, **terms} for step in (5, 10)]
    x, y = recipe.views
    names = [name for name, figure in recipe.figures(module, CPU, history) if figure.axes]
    own = [f"exchange_{view}" for view in recipe.views if view != "label"]
    assert names == ["networks", f"figure3_{x}_to_{y}", f"figure3_{y}_to_{x}", *own, "samples", "loss"]
    samples = recipe.sample(module, CPU, 5, None, seed=0)
    assert samples["x"].shape == (5, 1, 28, 28)
    assert ((samples["x"] == 0) | (samples["x"] == 1)).all()
    assert not any(value.requires_grad for value in samples.values())
    assert recipe.picture(samples).axes
    with pytest.raises(UsageError, match="--parts"):
        recipe.sample(module, CPU, 5, ["1"], seed=0)
    assert "loss" not in [name for name, _ in recipe.figures(module, CPU, [])]  # of a run that was stopped early


def test_figures_show_what_they_say():
    """Beside each given view stand draws of the other; a table's diagonal is its images, decoded from their own latents."""
    recipe = mib()
    module = recipe.objectives()[0].module
    views = {name: view[:10] for name, view in mib_metrics.measured_views(recipe.measured_pairs(), VIEWS).items()}
    [axes] = cross_generation(module, views, "label", "digit", rows=3, draws=2).axes
    assert [text.get_text() for text in axes.texts] == [str(view.argmax().item()) for view in views["label"][:3]]
    assert axes.images[0].get_array().shape == (3 * 30, 3 * 30, 3)
    x = views["digit"][:2]
    [axes] = exchange(module, "digit", x).axes
    drawn = torch.as_tensor(axes.images[0].get_array()[..., 0]).unflatten(0, (3, 30)).unflatten(2, (3, 30))
    latents = {name: q.mean for name, q in module.guide.posteriors({"digit": x}).items()}
    own = module.model.likelihood("digit", latents).mean
    other = module.model.likelihood("digit", {**latents, "u_digit": latents["u_digit"].roll(1, 0)}).mean
    for index in range(2):
        places = [(0, 1 + index, x[index]), (1 + index, 0, x[index]), (1 + index, 1 + index, own[index])]
        for row, column, image in [*places, (1 + index, 2 - index, other[index])]:
            found = drawn[row, 1:29, column, 1:29]
            torch.testing.assert_close(found, 1 - image[0].detach(), atol=1e-6, rtol=0)


def test_tables():
    assert {row.recipe for row in MIBTable2().rows()} == set(ALL)
    plain, preset = (MIBTable2().recipe(row, 0) for row in MIBTable2().rows() if row.recipe is rows.Multimodal)
    changed = {"crossed_cost", "cross_weight", "independence"}
    assert plain == rows.Multimodal.preset("digits", **{field: getattr(rows.Multimodal(), field) for field in changed})
    assert preset == rows.Multimodal.preset("digits")
    table = MIBFigure3(data=("digits-label", "digits-numbers"), preset="digits")
    assert len(table.rows()) == len({row.label for row in table.rows()}) == 6
    assert all(table.recipe(row, 2).seed == 2 for row in table.rows())
    assert "| OURS-MM, digits-label | 0 |" in table.render({})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "mnist"}, "--data must be one of mnist-label, mnist-numbers"),
        ({"paired": 1.2}, "--paired must be a share"),
        ({"z_dim": 0}, "--z-dim must be at least 1"),
        ({"label_weight": 0.0}, "--label-weight must be positive"),
        ({"number_scale": -1.0}, "--number-scale"),
        ({"cross_weight": -1.0}, "--cross-weight"),
        ({"independence": "hsic"}, "--independence must be one of none, total_correlation, mine, mmd"),
        ({"batch_size": 1438}, "--batch-size must be at least 2, and at most 1437"),
        ({"validation": True, "batch_size": 1200}, "at most 1198"),
        ({"kind": rows.BetaVAE, "beta": 0.5}, "--beta must be at least 1"),
        ({"kind": rows.JMVAE, "cross_weight": -1.0}, "--cross-weight must be at least 0"),
        ({"kind": rows.WynerVAE, "private_weight": -1.0}, "--private-weight"),
        ({"kind": rows.WynerVAE, "succinct_weight": -1.0}, "--succinct-weight"),
        ({"kind": rows.TELBO, "single_weight": -5.0}, "--single-weight"),
        ({"kind": rows.InfoGAN, "code_weight": -1.0}, "--code-weight"),
        ({"kind": rows.InfoGAN, "code_dim": 0}, "--code-dim must be at least 1"),
        ({"crossed_cost": -1.0}, "--crossed-cost"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        mib(**changes)
