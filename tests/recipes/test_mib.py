"""Rows of the unified table: their losses against the original methods' by hand, and how they train and are measured."""

import dataclasses
import math
import types

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from hsic import HSIC
from pyzoo.data.multimodal import NUM_CLASSES
from pyzoo.errors import UsageError
from pyzoo.evaluation import site_terms
from pyzoo.infer import Penalized, TotalCorrelation
from pyzoo.recipes.mib import methods, metrics, report
from pyzoo.recipes.mib import recipe as rows
from pyzoo.recipes.mib.fair.recipe import FairRecipe
from pyzoo.recipes.mib.figures import cross_generation, exchange
from pyzoo.recipes.mib.objectives import SeveralNetworks
from pyzoo.recipes.mib.ood.recipe import OODRecipe
from pyzoo.recipes.mib.structure.recipe import LearnedStructureRecipe
from pyzoo.recipes.mib.tables import MIBFigure3, MIBTable2
from pyzoo.settings import flat
from tiny import mib, state_of, trained_state, trainer_of

CPU = torch.device("cpu")
VIEWS = ("digit", "label")
PAIRS = [rows.JMVAERecipe, rows.MVAERecipe, rows.WynerVAERecipe, rows.BiVCCARecipe, rows.TELBORecipe, rows.MultimodalRecipe]
SINGLE = [rows.VAERecipe, rows.GANRecipe, rows.InfoGANRecipe, rows.BetaVAERecipe, rows.BetaTCVAERecipe]


def trained_by(recipe):
    """A fresh pair and its objectives."""
    pair = recipe.programs()
    return pair, recipe.objectives(pair)


def module_of(recipe):
    """The loss of the first objective of a fresh pair."""
    return trained_by(recipe)[1][0].module


def penalties_of(recipe):
    return recipe.declare().penalties(recipe.programs().model, recipe.train_size)


# By hand ----------------------------------------------------------------------------------------------------------------


class Hand:
    """A recipe's networks, and the arithmetic of multimodal VAEs without Pyro or pyzoo."""

    def __init__(self, recipe):
        torch.manual_seed(1)
        self.recipe = recipe
        pair, (objective, *_) = trained_by(recipe)
        self.module = objective.module.double()
        self.decoders, self.encoders = pair.model.decoders, pair.guide.encoders
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
    hand = Hand(mib(rows.VAERecipe))
    q = hand.product(hand.expert("digit"))
    agree(hand, hand.cost("digit", draw(q, *hand.noise(2))) + hand.kl(q))


def test_beta_vae():
    hand = Hand(mib(rows.BetaVAERecipe, beta=5.0))
    q = hand.product(hand.expert("digit"))
    agree(hand, hand.cost("digit", draw(q, *hand.noise(2))) + 5 * hand.kl(q))


def test_beta_tcvae():
    """ELBO + (beta - 1) TC, by the minibatch estimate of Esmaeili et al. (2019) of a set of 1,437 digits."""
    hand = Hand(mib(rows.BetaTCVAERecipe, beta=4.0))
    q = hand.product(hand.expert("digit"))
    u = draw(q, torch.cat(hand.noise(1, 1), 1))
    pairs = q.log_prob(u[:, None])  # (6, 6, 2), of u_i under q(u | x_j)
    weights = torch.full((6, 6, 1), (1 - 1 / 1437) / 5, dtype=torch.float64)
    weights[torch.arange(6), torch.arange(6)] = 1 / 1437
    joint = (weights[..., 0] * pairs.sum(-1).exp()).sum(1).log()
    marginals = (weights * pairs.exp()).sum(1).log().sum(-1)
    agree(hand, hand.cost("digit", u) + hand.kl(q) + 3 * (joint - marginals).mean())


def test_jmvae():
    hand = Hand(mib(rows.JMVAERecipe, cross_weight=0.3))
    experts = {view: hand.expert(view) for view in VIEWS}
    q = hand.product(*experts.values())
    z = draw(q, *hand.noise(3))
    expected = sum(hand.cost(view, z) + 0.3 * hand.kl(q, hand.product(experts[view])) for view in VIEWS)
    agree(hand, expected + hand.kl(q))


def several(hand, given, explained, weights):
    """A weighted sum of negative ELBOs, with the noise in the order in which they draw."""
    noise, expected = hand.noise(*[3] * len(given)), 0.0
    for names, explain, weight, epsilon in zip(given, explained, weights, noise, strict=True):
        q = hand.product(*(hand.expert(view) for view in names))
        expected = expected + weight * (hand.kl(q) + sum(hand.cost(view, draw(q, epsilon)) for view in explain))
    return expected


def test_mvae():
    """An ELBO for both views and one for each (Wu and Goodman 2018, eq. 3 and section 2.3)."""
    hand = Hand(mib(rows.MVAERecipe))
    given = [VIEWS, VIEWS[:1], VIEWS[1:]]
    agree(hand, several(hand, given, given, (1, 1, 1)))


def test_telbo():
    hand = Hand(mib(rows.TELBORecipe, single_weight=4.0))
    given = [VIEWS, VIEWS[:1], VIEWS[1:]]
    agree(hand, several(hand, given, given, (1, 4, 4)))


def test_bivcca():
    """Both views from each one's posterior, half of each (Wang et al. 2016, eq. 13)."""
    hand = Hand(mib(rows.BiVCCARecipe))
    agree(hand, several(hand, [VIEWS[:1], VIEWS[1:]], [VIEWS, VIEWS], (0.5, 0.5)))


def private(hand):
    """q(z | both), q(u | digit), z and u, and each view's expert on z."""
    experts = {view: hand.expert(view, slice(0, 3)) for view in VIEWS}
    q, own = hand.product(*experts.values()), hand.product(hand.expert("digit", slice(3, None)))
    z, u = (draw(each, noise) for each, noise in zip((q, own), hand.noise(3, 2), strict=True))
    return experts, q, own, z, u


def test_ours_mm():
    """L_x + L_u + L_z of section 4.2."""
    hand = Hand(mib(rows.MultimodalRecipe))
    experts, q, own, z, u = private(hand)
    expected = hand.cost("digit", z, u) + hand.cost("label", z) + hand.kl(own) + hand.kl(q)
    agree(hand, expected + sum(hand.kl(q, hand.product(experts[view])) for view in VIEWS))


def test_ours_mm_with_crossed_costs():
    """And C_4: all views once more with z from each view alone, and u from the digit."""
    hand = Hand(mib(rows.MultimodalRecipe, crossed_cost=0.4))
    experts = {view: hand.expert(view, slice(0, 3)) for view in VIEWS}
    own, both = hand.product(hand.expert("digit", slice(3, None))), hand.product(*experts.values())
    noise, expected = hand.noise(3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2), 0.0
    for q, weight in ((both, 1.0), (hand.product(experts["digit"]), 0.4), (hand.product(experts["label"]), 0.4)):
        z, u = draw(q, noise.pop(0)), draw(own, noise.pop(0))
        del noise[:2]  # draws given all views, for penalties
        expected = expected + weight * (hand.cost("digit", z, u) + hand.cost("label", z) + hand.kl(own) + hand.kl(q))
    agree(hand, expected + sum(hand.kl(both, hand.product(experts[view])) for view in VIEWS))


def test_wyner_vae():
    """Our reading: the ELBO, z's rate, the cross terms, and for the digit the rates of z and u and its own cost once more."""
    hand = Hand(mib(rows.WynerVAERecipe, succinct_weight=0.2, cross_weight=0.7, private_weight=0.3))
    experts, q, own, z, u = private(hand)
    digit = hand.cost("digit", z, u)
    expected = digit + hand.cost("label", z) + hand.kl(own) + hand.kl(q) + 0.2 * hand.kl(q)
    expected = expected + 0.7 * sum(hand.kl(q, hand.product(experts[view])) for view in VIEWS)
    agree(hand, expected + 0.3 * (hand.kl(q) + hand.kl(own) + digit))


def test_settings_reach_the_networks():
    model = mib(rows.MultimodalRecipe, data="digits-numbers", number_scale=0.3).programs().model
    assert model.decoders["number"].scale == 0.3
    _, objectives = trained_by(mib(rows.GANRecipe))
    assert all(o.optimizer(o.groups).param_groups[0]["betas"] == (0.5, 0.999) for o in objectives)
    (penalty,) = penalties_of(mib(rows.BetaTCVAERecipe, validation=True))
    assert all(isinstance(e, TotalCorrelation) and e.dataset_size == 1198 for e in penalty.estimators)


def test_what_the_penalties_are():
    for kind in (rows.BetaVAERecipe, rows.JMVAERecipe, rows.MultimodalRecipe, rows.WynerVAERecipe):
        assert all(penalty.is_bound for penalty in penalties_of(mib(kind)))
    kinds = {"total_correlation": "estimate", "mine": "estimate", "mmd": "surrogate"}
    for independence, kind in kinds.items():
        assert penalties_of(mib(rows.MultimodalRecipe, independence=independence))[-1].kind == kind


def test_the_bare_guide_of_a_run_has_no_penalties():
    """So that its likelihoods are bounds: the report's ELBO is that of model and guide."""
    recipe = mib(rows.MultimodalRecipe)
    pair, (objective,) = trained_by(recipe)
    assert isinstance(objective.module.guide, Penalized)
    assert objective.module.guide.guide is pair.guide
    assert site_terms(*pair, recipe.source(CPU).batch(0, 6)).keys() == {"z", "u_digit", *VIEWS}


# Your own row -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OwnMethod(methods.Multimodal):
    """OURS-MM with latents made independent by an estimator that pyzoo does not have."""

    def declare(self, views):
        row = super().declare(views)
        networks = "z, u_digit -> digit, label; digit -> label"
        own = methods.Target("hsic", networks, 30.0, "conditional", {"I(u_digit; z)": HSIC()})
        return dataclasses.replace(row, targets=(*row.targets, own))


def test_a_new_estimator_in_your_own_row(tmp_path):
    """A class for the estimator and one for the row: trained, traced and resumed as others are, without touching a file."""
    recipe = dataclasses.replace(mib(rows.MultimodalRecipe, steps=4), method=OwnMethod(z_dim=3, u_dim=2))
    trainer = trainer_of(recipe, tmp_path / "eager", "eager")
    trainer.train()
    _, terms = trainer.objectives[0].module(**recipe.source(CPU).batch(0, 20))
    assert terms["penalty/hsic/I(u_digit; z)"] > 0
    traced = trained_state(recipe, tmp_path / "traced", "traced")
    assert all(torch.equal(value, traced[name]) for name, value in state_of(trainer).items())


# Other objectives -------------------------------------------------------------------------------------------------------


def moved(objective, batch):
    """Names of the parameters that one step of an objective moves."""
    before = {name: p.detach().clone() for name, p in objective.module.named_parameters()}
    optimizer = objective.optimizer(objective.groups)
    objective.module(**batch)[0].backward()
    optimizer.step()
    optimizer.zero_grad()
    return {name for name, p in objective.module.named_parameters() if not torch.equal(before[name], p)}


def test_adversaries_move_their_own_networks():
    for kind in (rows.GANRecipe, rows.InfoGANRecipe):
        recipe = mib(kind)
        _, (generator, judge) = trained_by(recipe)
        batch = recipe.source(CPU).batch(0, 20)
        parts = {name.split(".")[0] for name in moved(generator, batch)}
        assert parts == ({"model"} if kind is rows.GANRecipe else {"model", "guide"})
        assert {name.split(".")[0] for name in moved(judge, batch)} == {"discriminator"}


def test_losses_of_adversaries():
    """-log D of what is drawn, the discriminator's cross-entropy, and a lower bound of the images' information on the code."""
    recipe = mib(rows.InfoGANRecipe, code_weight=0.5)
    _, (generator, judge) = trained_by(recipe)
    batch = recipe.source(CPU).batch(0, 20)
    torch.manual_seed(2)
    loss, terms = generator.module(**batch)
    torch.manual_seed(2)
    c, u = torch.randn(20, 4), torch.randn(20, 2)
    model, guide, odds = generator.module.model, generator.module.guide, generator.module.discriminator
    x = model.decoders["digit"](torch.cat([c, u], 1)).mean
    torch.testing.assert_close(terms["digit"], -torch.sigmoid(odds(x)).log().mean())
    information = guide.posteriors({"digit": x})["c"].log_prob(c).sum(1).mean()
    torch.testing.assert_close(loss, terms["digit"] - 0.5 * information)
    torch.manual_seed(2)
    loss, _ = judge.module(**batch)
    expected = -torch.sigmoid(odds(batch["digit"])).log().mean() - (1 - torch.sigmoid(odds(x))).log().mean()
    torch.testing.assert_close(loss, expected)


def test_mine_is_trained_by_an_objective_of_its_own():
    recipe = mib(rows.MultimodalRecipe, independence="mine")
    _, (main, judge) = trained_by(recipe)
    batch = recipe.source(CPU).batch(0, 20)
    assert not any("estimators" in name for name in moved(main, batch))
    assert all("estimators" in name for name in moved(judge, batch))
    gradients = []
    for independence in ("mine", "none"):  # the estimate pulls at the guide
        torch.manual_seed(0)
        pair, (objective, *_) = trained_by(mib(rows.MultimodalRecipe, independence=independence))
        torch.manual_seed(0)
        loss, _ = objective.module(**batch)
        gradients.append(torch.autograd.grad(loss, pair.guide.encoders["digit"][-2].layer.weight)[0])
    assert not torch.allclose(*gradients)


def test_mine_learns_what_latents_share():
    """z and u_digit are made to tell much of the digit, and so of each other, which the estimate finds."""
    recipe = mib(rows.MultimodalRecipe, independence="mine", batch_size=200, learning_rate=1e-2)
    pair, (_, judge) = trained_by(recipe)
    last = pair.guide.encoders["digit"][-2].layer
    with torch.no_grad():
        last.weight[:5] *= 5.0  # means
        last.weight[5:] *= 0.0
        last.bias[5:] = -4.0  # log-variances
    source, optimizer = recipe.source(CPU), judge.optimizer(judge.groups)
    estimates = []
    for step in range(150):
        optimizer.zero_grad()
        loss, terms = judge.module(**source.batch(step, 200))
        loss.backward()
        optimizer.step()
        estimates.append(terms["I(u_digit; z)"].item())
    assert abs(estimates[0]) < 0.3
    assert sum(estimates[-20:]) / 20 > 0.8


# Training and measuring -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "engine"),
    [
        (rows.MultimodalRecipe, {"independence": "mine", "paired": 0.5, "digit_kl_start": 3.0, "crossed_cost": 1.0}, "eager"),
        (rows.MultimodalRecipe, {"data": "digits-numbers", "paired": 0.3, "crossed_cost": 1.0, "shared_kl_end": 0.5}, "traced"),
        (rows.InfoGANRecipe, {}, "eager"),
    ],
)
def test_resume_is_exact(tmp_path, monkeypatch, kind, changes, engine):
    """Killed after five steps and continued, by another engine too, it ends where an undisturbed eager run does."""
    recipe = mib(kind, steps=8, **changes)
    undisturbed = trained_state(recipe, tmp_path / "whole", "eager")

    class Killed(Exception):
        pass

    def source(self, device, whole=kind.source):
        found = whole(self, device)
        batch = found.batch

        def until_five(step, size):
            if step == 5:
                raise Killed
            return batch(step, size)

        found.batch = until_five
        return found

    with monkeypatch.context() as patched:
        patched.setattr(kind, "source", source)
        with pytest.raises(Killed):
            trained_state(recipe, tmp_path / "parts", engine)
    resumed = trained_state(recipe, tmp_path / "parts", engine)
    for name, value in undisturbed.items():
        assert torch.equal(value, resumed[name]), name


def schedules_of(kind, **changes):
    """Column and value of each schedule, and the buffers that they start from."""
    _, (objective,) = trained_by(mib(kind, steps=100, **changes))
    values = {schedule.column: schedule.value for schedule in objective.schedules}
    buffers = {name.split(".")[-1]: value.item() for name, value in objective.module.named_buffers() if value.dim() == 0}
    return values, {name: buffers[name] for name in values}


@pytest.mark.parametrize("crossed_cost", [0.0, 1.0])
def test_the_kl_weight_of_the_digits_private_latent_starts_large(crossed_cost):
    values, starts = schedules_of(rows.MultimodalRecipe, digit_kl_start=5.0, crossed_cost=crossed_cost)
    assert starts == {"kl_weight_u_digit": 5.0}
    assert [values["kl_weight_u_digit"](step) for step in (0, 35, 70, 99)] == [5.0, 3.0, 1.0, 1.0]
    values, _ = schedules_of(rows.MultimodalRecipe, data="digits-numbers", digit_kl_start=5.0)
    assert list(values) == ["kl_weight_u_digit"]
    assert not schedules_of(rows.MultimodalRecipe)[0]


def test_that_of_the_numbers_private_latent_ends_large_and_that_of_the_shared_one_small():
    changes = {"number_kl_end": 5.0, "shared_kl_end": 0.5, "digit_kl_start": 2.0}
    values, starts = schedules_of(rows.MultimodalRecipe, data="digits-numbers", crossed_cost=1.0, **changes)
    assert starts == {"kl_weight_z": 1.0, "kl_weight_u_digit": 2.0, "kl_weight_u_number": 1.0}
    for name, weights in {"u_number": [1.0, 1.0, 3.0, 5.0, 5.0], "z": [1.0, 1.0, 0.75, 0.5, 0.5]}.items():
        assert [values[f"kl_weight_{name}"](step) for step in (0, 20, 40, 60, 99)] == pytest.approx(weights)
    values, _ = schedules_of(rows.MultimodalRecipe, **changes)
    assert list(values) == ["kl_weight_z", "kl_weight_u_digit"]  # a label has no private latent
    values, _ = schedules_of(rows.JMVAERecipe, data="digits-numbers", shared_kl_end=0.5)
    assert list(values) == ["kl_weight_z"]


@pytest.mark.parametrize("kind", PAIRS + SINGLE)
def test_rows_have_the_settings_that_mean_something_to_them(kind):
    names = set(flat(kind()))
    private = kind in (rows.WynerVAERecipe, rows.MultimodalRecipe) or kind in SINGLE
    assert ("u_dim" in names) == private
    assert ("z_dim" in names) == ("paired" in names) == ("second_view" in names) == (kind in PAIRS)
    assert ("digit_kl_start" in names) == (kind in (rows.WynerVAERecipe, rows.MultimodalRecipe))
    assert ("beta" in names) == (kind in (rows.BetaVAERecipe, rows.BetaTCVAERecipe))


def test_a_view_that_a_row_lacks_changes_nothing():
    """Weak supervision: what stands in a missing view reaches neither loss nor gradient, in any row of several views."""
    for kind in PAIRS:
        recipe = mib(kind, paired=0.0)
        module = module_of(recipe)
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


@pytest.mark.parametrize("kind", [rows.BiVCCARecipe, rows.MultimodalRecipe])
def test_a_network_scores_no_row_that_lacks_all_its_views(kind):
    """Else decoders would learn to make do without z."""
    recipe = mib(kind, **({"crossed_cost": 1.0} if kind is rows.MultimodalRecipe else {}))
    module = module_of(recipe)
    batch = recipe.source(CPU).batch(0, 20)
    label_only = torch.tensor([False, True]).expand(20, 2)
    sets = module.sets.tolist()
    _, terms = module(**batch, present=label_only, drawn=torch.full((20,), sets.index([True, False])))
    assert all(value == 0 for value in terms.values())
    _, terms = module(**batch, present=label_only, drawn=torch.full((20,), sets.index([False, True])))
    assert terms["label"] > 0
    assert terms["digit"] == 0


def test_networks_are_drawn_as_often_as_they_weigh():
    """Of each row in the long run, and of a batch as evenly as can be."""
    recipe = mib(rows.TELBORecipe, single_weight=2.0)
    module, batch = module_of(recipe), recipe.source(CPU).batch(0, 10)
    found = []

    def conditioned(module, arguments, given):
        assert torch.equal(given["conditioned_on"], given["scored"])
        found.append(given["conditioned_on"])

    module.elbo.guide.register_forward_pre_hook(conditioned, with_kwargs=True)
    torch.manual_seed(0)
    for _ in range(300):
        module(**batch)
    drawn = torch.stack([(torch.stack(found) == row).all(-1) for row in module.sets], dim=-1).double()  # (300, 10, networks)
    weights = torch.tensor([0.2, 0.4, 0.4], dtype=torch.float64)
    assert torch.equal(drawn.sum(1), (10 * weights).expand(300, -1))  # whole numbers here, else rounded up or down
    torch.testing.assert_close(drawn.mean(0), weights.expand(10, -1), atol=0.1, rtol=0)


def test_networks_of_uneven_shares_are_rounded_up_or_down():
    pair = mib(rows.MVAERecipe).programs()
    module = SeveralNetworks(*pair, {VIEWS: 1.0, VIEWS[:1]: 0.0, VIEWS[1:]: 0.7}, "own", {})
    batch, counts = mib(rows.MVAERecipe).source(CPU).batch(0, 10), []
    module.elbo.guide.register_forward_pre_hook(
        lambda module, arguments, given: counts.append(given["conditioned_on"].sum(0).tolist()), with_kwargs=True
    )
    for _ in range(50):
        module(**batch)
    digits, labels = zip(*counts, strict=True)
    assert set(digits) == {5, 6}  # 1 / 1.7 of the rows; no row is conditioned on the digit alone
    assert set(labels) == {10}


@pytest.mark.parametrize("scored", ["own", "all"])
def test_penalties_are_of_every_row_whichever_networks_are_drawn(monkeypatch, scored):
    recipe = mib(rows.MultimodalRecipe, independence="total_correlation")
    model, guide = recipe.programs()
    penalties = recipe.declare().penalties(model, recipe.train_size)
    networks = {VIEWS: 1.0, VIEWS[:1]: 0.5, VIEWS[1:]: 0.5}
    module = SeveralNetworks(model, Penalized(guide, penalties), networks, scored, {})
    batch = recipe.source(CPU).batch(0, 20)
    whole, known, found = guide.posteriors(batch)["z"], [], []
    values = penalties[-1].values

    def seen(beliefs, share):
        known.append((beliefs.given(None)["z"], beliefs.draws["z"]))
        return values(beliefs, share)

    monkeypatch.setattr(penalties[-1], "values", seen)
    for place in range(3):
        _, terms = module(**batch, drawn=torch.full((20,), place))
        found.append({name: value for name, value in terms.items() if name.startswith("penalty/cross")})
    assert found[0] == found[1] == found[2]
    assert sum(found[0].values()) > 0
    for q, z in known:
        torch.testing.assert_close((q.loc, q.scale), (whole.loc, whole.scale))
        assert ((z - whole.loc) / whole.scale).square().mean().item() == pytest.approx(1.0, abs=0.6)


def test_each_row_has_the_network_that_is_drawn_for_it():
    """Also rows that lack a view: what needs no draws is the mean over the rows, each by itself."""
    recipe = mib(rows.MultimodalRecipe, crossed_cost=0.5, paired=0.4)
    module = module_of(recipe)
    batch, drawn = recipe.source(CPU).batch(0, 30), torch.arange(30) % 3
    _, together = module(**batch, drawn=drawn)
    each = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(30)]
    alone = [module(**row, drawn=drawn[i : i + 1])[1] for i, row in enumerate(each)]
    for name, value in together.items():
        if name in ("z", "u_digit") or name.startswith("penalty/"):
            torch.testing.assert_close(value, sum(terms[name] for terms in alone) / 30)


def test_bad_networks():
    pair = mib(rows.MVAERecipe).programs()
    for networks, message in (
        ({(): 1.0}, "conditioned on one or more"),
        ({("next",): 1.0}, "'next'"),
        ({VIEWS: 0.0}, "one of them positive"),
    ):
        with pytest.raises(ValueError, match=message):
            SeveralNetworks(*pair, networks, "all", {})
    with pytest.raises(ValueError, match="'own' or 'all', not 'any'"):
        SeveralNetworks(*pair, {VIEWS: 1.0}, "any", {})


def test_a_row_that_lacks_the_view_says_nothing_of_its_cross_term():
    """With one view only, q(z | all) is q(z | it): no cross term is left, neither its own nor the missing view's."""
    recipe = mib(rows.MultimodalRecipe, paired=0.0)
    _, terms = module_of(recipe)(**recipe.source(CPU).batch(0, 20))
    assert all(value == 0 for name, value in terms.items() if name.startswith("penalty/"))
    recipe = mib(rows.MultimodalRecipe)
    _, terms = module_of(recipe)(**recipe.source(CPU).batch(0, 20))
    assert all(terms[f"penalty/cross({a})/I(z; {b} | {a})"] > 0 for a, b in (VIEWS, VIEWS[::-1]))


@pytest.fixture
def quick_judges(monkeypatch):
    """Judges of 40 steps, and likelihoods by three samples."""
    metrics.trained_judge.cache_clear()
    train, likelihood = metrics.train_classifier, report.mean_log_likelihood
    monkeypatch.setattr(metrics, "train_classifier", lambda batch, steps, *more: train(batch, 40, *more))
    monkeypatch.setattr(report, "mean_log_likelihood", lambda model, guide, batch, *a, **k: likelihood(model, guide, batch, 3))
    yield
    metrics.trained_judge.cache_clear()


@pytest.mark.parametrize(
    "kind", [rows.VAERecipe, rows.InfoGANRecipe, rows.MVAERecipe, rows.WynerVAERecipe]
)  # the others: tests/test_cli.py
def test_evaluating_moves_nothing_and_repeats(kind, quick_judges):
    recipe = mib(kind)
    pair, objectives = trained_by(recipe)
    before = {name: value.clone() for name, value in objectives[0].module.state_dict().items()}
    found = []
    for _ in range(2):
        torch.manual_seed(7)
        found.append(recipe.report(pair.eval(), CPU).metrics())
    assert found[0] == found[1]
    assert all(math.isfinite(value) for value in found[0].values())
    assert all(torch.equal(value, objectives[0].module.state_dict()[name]) for name, value in before.items())
    several, names = len(recipe.views) > 1, found[0].keys()
    assert several == ("cross_accuracy/digit_to_label" in names) == ("joint_coherence" in names)
    assert ("z_keeps_class" in names) == (kind in (rows.MultimodalRecipe, rows.WynerVAERecipe))
    assert ("test_log_likelihood" in names) == (kind not in (rows.GANRecipe, rows.InfoGANRecipe))
    assert ("code_information" in names) == (kind is rows.InfoGANRecipe)


class Known:
    """A model and guide of images whose z is the class and u the brightness, exactly."""

    def __init__(self, u_tells_class=False):
        self.u_tells_class = u_tells_class
        self.variables = mib(rows.MultimodalRecipe).declare().variables
        self.dims = {"z": NUM_CLASSES, "u_digit": 1}

    def parameters(self):
        yield torch.zeros(())

    def likelihood(self, view, latents):
        if view == "label":
            return _Mean(latents["z"])
        cls = latents["z"].argmax(1)
        if self.u_tells_class:
            cls = (cls + latents["u_digit"][:, 0].long()) % NUM_CLASSES
        x = torch.zeros(len(cls), 1, 28, 28)
        x[torch.arange(len(cls)), 0, 0, cls] = 1.0
        if not self.u_tells_class:
            x[:, 0, 1, 0] = latents["u_digit"][:, 0]
        return _Mean(x)

    def posteriors(self, given):
        if "label" in given:
            return {"z": _Mean(given["label"]), "u_digit": _Mean(torch.zeros(len(given["label"]), 1))}
        z = given["digit"][:, 0, 0, :NUM_CLASSES]
        u = z.argmax(1).float() if self.u_tells_class else given["digit"][:, 0, 1, 0]
        return {"z": _Mean(z), "u_digit": _Mean(u.unsqueeze(1))}


class _Mean:
    def __init__(self, value):
        self.mean = value

    def sample(self):
        return self.mean


def test_separation_and_crossing_of_a_known_model():
    labels = torch.arange(50) % NUM_CLASSES
    x = torch.zeros(50, 1, 28, 28)
    x[torch.arange(50), 0, 0, labels] = 1.0
    x[:, 0, 1, 0] = 0.25 * (torch.arange(50) // NUM_CLASSES)  # the brightness, another one for each image of a class
    views = {"digit": x, "label": torch.nn.functional.one_hot(labels, NUM_CLASSES).float()}
    classes = {"digit": labels, "label": labels}
    judges = {"digit": lambda images: images[:, 0, 0, :NUM_CLASSES], "label": lambda label: label}
    model = Known()
    found = metrics.separation(model, model, views, classes, judges)
    assert (found["z_keeps_class"], found["u_changes_class"], found["z_brings_class"]) == (1.0, 0.0, 1.0)
    # Exchanged with the image before, brightness changes by 0.25 four times and once by 1; within a class by 0.25 each time.
    assert found["u_changes_style"] == pytest.approx((4 * 0.25 + 1) / 50 / 0.25)
    crossed = metrics.cross_accuracies(model, model, views, classes, judges)
    assert crossed == {"cross_accuracy/digit_to_label": 1.0, "cross_accuracy/label_to_digit": 1.0}
    wrong = metrics.cross_accuracies(model, model, views, {**classes, "digit": (labels + 1) % NUM_CLASSES}, judges)
    assert wrong == {"cross_accuracy/digit_to_label": 1.0, "cross_accuracy/label_to_digit": 0.0}
    model = Known(u_tells_class=True)
    found = metrics.separation(model, model, views, classes, judges)
    assert found["u_changes_class"] > 0.8


def pixels(images):
    return tuple(images.flatten().tolist())


def test_held_out_pairs_have_nothing_in_common_with_those_trained_on():
    recipe = mib(rows.MultimodalRecipe, data="digits-plus-one", validation=True)
    training, held = recipe.pairs("train"), recipe.pairs("measured")
    assert (len(training), len(held)) == (1198, 239)
    known = {pixels(image) for image in (*training.images, *training.partner.images)}
    new = {pixels(image) for image in (*held.images, *held.partner.images)}
    assert not known & new
    assert len(mib(rows.MultimodalRecipe, data="digits-plus-one").pairs("measured")) == 360


def test_judges_are_trained_on_what_models_are_trained_on(monkeypatch):
    recipe = mib(rows.MultimodalRecipe, data="digits-plus-one", held_out=0.5)
    monkeypatch.setattr(metrics, "train_classifier", lambda batch, steps, *more: batch(0))
    metrics.trained_judge.cache_clear()
    images, labels = metrics.trained_judge(metrics.JudgedViews(recipe, "next", CPU))
    metrics.trained_judge.cache_clear()
    pairs = recipe.pairs("train")
    assert len(pairs) == recipe.train_size < 720
    known = {pixels(image): label for image, label in zip(pairs.images, pairs.labels.tolist(), strict=True)}
    assert [known[pixels(image)] for image in (255 * images).round().to(torch.uint8)] == labels.tolist()


def test_rows_of_a_table_share_their_judges():
    def judged(kind, view="digit", **changes):
        return metrics.JudgedViews(mib(kind, **changes), view, CPU)

    ours = judged(rows.MultimodalRecipe)
    same = [judged(rows.MVAERecipe, z_dim=4, seed=3, steps=7), judged(rows.MultimodalRecipe, crossed_cost=1.0)]
    assert all(other == ours and hash(other) == hash(ours) for other in same)
    others = [judged(rows.MVAERecipe, view="label"), judged(rows.MVAERecipe, held_out=0.1)]
    others += [judged(rows.MVAERecipe, data="digits-numbers")]
    assert not [other for other in others if other == ours]


def test_coherence_of_the_next_digit():
    """0.0 where both views are of one class, 1.0 where the second is of the next."""
    for offset, coherence in ((0, 0.0), (1, 1.0)):

        class Next(Known):
            variables = mib(rows.MultimodalRecipe, data="digits-plus-one").declare().variables

            def __init__(self):
                self.dims = {"z": NUM_CLASSES}

            def likelihood(self, view, latents, offset=offset):
                return _Mean(latents["z"].roll(offset, 1) if view == "next" else latents["z"])

        judges = dict.fromkeys(("digit", "next"), lambda z: z)
        assert metrics.joint_coherence(Next(), judges, 1) == coherence


def test_samples_and_codes_by_hand():
    class Coded:
        dims = types.MappingProxyType({"c": 3, "u": 2})
        variables = mib(rows.InfoGANRecipe).declare().variables
        parameters = Known.parameters

        def likelihood(self, view, latents):
            return _Mean(latents["c"])

        def posteriors(self, given):
            return {"c": Normal(given["digit"], 0.5)}

    def judge(images):  # sure of one of four classes
        return torch.nn.functional.one_hot(torch.arange(len(images)) % 4, NUM_CLASSES).double() * 0.9 + 0.01

    found = metrics.sample_metrics(Coded(), "digit", judge)
    shares = torch.tensor([0.235] * 4 + [0.01] * 6, dtype=torch.float64)
    assert found["sample_confidence"] == pytest.approx(0.91)
    assert found["sample_classes"] == pytest.approx((-(shares * shares.log()).sum()).exp().item())
    assert metrics.code_information(Coded(), Coded(), "digit") == pytest.approx(3 * (0.5 - math.log(0.5)))


def test_conditional_likelihoods_are_differences(monkeypatch, quick_judges):
    known = {("digit", "label"): -10.0, ("digit",): -8.0, ("label",): -3.0}
    monkeypatch.setattr(report, "mean_log_likelihood", lambda model, guide, batch, *a, **k: known[tuple(sorted(batch))])
    recipe = mib(rows.MultimodalRecipe)
    found = recipe.report(recipe.programs().eval(), CPU).metrics()
    assert found["test_log_likelihood"] == -10.0
    assert found["test_log_likelihood/digit_given_label"] == -7.0
    assert found["test_log_likelihood/label_given_digit"] == -2.0


@pytest.mark.parametrize("data", ["digits-label", "digits-plus-one"])
def test_figures_and_samples(data):
    recipe = mib(rows.MultimodalRecipe, data=data)
    pair, objectives = trained_by(recipe)
    _, terms = objectives[0].module(**recipe.source(CPU).batch(0, 20))
    terms = {"loss": 1.0, "learning_rate": 0.1, **{name: value.item() for name, value in terms.items()}}
    history = [{"step": step, "seconds": 1.0, **terms} for step in (5, 10)]
    x, y = recipe.views
    shown = recipe.report(pair.eval(), CPU)
    names = [name for name, figure in shown.figures(history) if figure.axes]
    own = [f"exchange_{view}" for view in recipe.views if view != "label"]
    assert names == ["networks", f"figure3_{x}_to_{y}", f"figure3_{y}_to_{x}", *own, "samples", "loss"]
    with torch.no_grad():
        samples = shown.sample(5, seed=0)
    assert samples["x"].shape == (5, 1, 28, 28)
    assert ((samples["x"] == 0) | (samples["x"] == 1)).all()
    assert shown.picture(samples).axes
    assert "loss" not in [name for name, _ in shown.figures([])]  # of a run that was stopped early


def test_samples_given_a_view():
    """What is given is kept, and what is drawn follows from it."""
    recipe = mib(rows.MultimodalRecipe)
    shown = recipe.report(recipe.programs().eval(), CPU)
    given = shown.sample(4, seed=0, given={"label": 3})
    assert given["label"].argmax(1).tolist() == [3] * 4
    assert given["x"].shape == given["digit"].shape == (4, 1, 28, 28)
    image = shown.views["digit"][7]
    for value in (7, "7", image):
        found = shown.sample(2, seed=0, given={"digit": value})
        assert torch.equal(found["digit"], image.expand(2, -1, -1, -1))
        assert found["x"].shape == found["label"].shape == (2, 10)
    for wrong, message in (
        ({"number": 1}, "no view 'number'; there are digit, label"),
        ({"label": 10}, "no label '10'"),
        ({"label": "seven"}, "no label 'seven'; there are 0, 1"),
        ({"digit": 360}, "0 to 359, not 360"),
        ({"digit": torch.zeros(1, 20, 20)}, r"must be \(1, 28, 28\), not \(1, 20, 20\)"),
        ({"digit": 1, "label": 1}, "no view left to draw"),
    ):
        with pytest.raises(UsageError, match=message):
            shown.sample(2, seed=0, given=wrong)


def test_figures_show_what_they_say():
    """Beside each given view stand draws of the other; a table's diagonal is its images, decoded from their own latents."""
    recipe = mib(rows.MultimodalRecipe)
    pair = recipe.programs()
    views = {name: view[:10] for name, view in recipe.report(pair, CPU).views.items()}
    [axes] = cross_generation(pair, views, "label", "digit", rows=3, draws=2).axes
    assert [text.get_text() for text in axes.texts] == [str(view.argmax().item()) for view in views["label"][:3]]
    assert axes.images[0].get_array().shape == (3 * 30, 3 * 30, 3)
    x = views["digit"][:2]
    [axes] = exchange(pair, "digit", x).axes
    drawn = torch.as_tensor(axes.images[0].get_array()[..., 0]).unflatten(0, (3, 30)).unflatten(2, (3, 30))
    latents = {name: q.mean for name, q in pair.guide.posteriors({"digit": x}).items()}
    own = pair.model.likelihood("digit", latents).mean
    other = pair.model.likelihood("digit", {**latents, "u_digit": latents["u_digit"].roll(1, 0)}).mean
    for index in range(2):
        places = [(0, 1 + index, x[index]), (1 + index, 0, x[index]), (1 + index, 1 + index, own[index])]
        for row, column, image in [*places, (1 + index, 2 - index, other[index])]:
            found = drawn[row, 1:29, column, 1:29]
            torch.testing.assert_close(found, 1 - image[0].detach(), atol=1e-6, rtol=0)


def test_tables():
    assert {row.recipe for row in MIBTable2().rows()} == {*PAIRS, *SINGLE, FairRecipe, OODRecipe, LearnedStructureRecipe}
    ours = rows.MultimodalRecipe
    plain, preset = (MIBTable2().recipe(row, 0) for row in MIBTable2().rows() if row.recipe is ours)
    changed = {"crossed_cost", "cross_weight", "independence"}
    defaults = flat(ours())
    assert plain == ours.preset("digits", **{field: defaults[field] for field in changed})
    assert preset == ours.preset("digits")
    table = MIBFigure3(data=("digits-label", "digits-numbers"), preset="digits")
    assert len(table.rows()) == len({row.label for row in table.rows()}) == 6
    assert all(table.recipe(row, 2).seed == 2 for row in table.rows())
    assert "| OURS-MM, digits-label | 0 |" in table.render({})


@pytest.mark.parametrize("preset", ["small", "digits", "digits-numbers"])
def test_rows_have_as_many_dimensions_as_each_other(preset):
    """The latents of a digit have as many dimensions in all rows of a table; those of two images together likewise."""
    data = "digits-label" if preset == "digits" else "digits-numbers"
    table = MIBTable2(preset=preset, data=data)
    sizes = {}
    for row in table.rows():
        if row.recipe in PAIRS:
            recipe = table.recipe(row, 0)
            sizes[row.label] = sum(recipe.method.dims(recipe.declare().variables).values())
    assert len(set(sizes.values())) == 1, sizes


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (rows.MultimodalRecipe, {"paired": 1.2}, "--paired must be"),
        (rows.MultimodalRecipe, {"z_dim": 0}, "--z-dim must be at least 1"),
        (rows.MultimodalRecipe, {"label_weight": 0.0}, "--label-weight must be positive"),
        (rows.MultimodalRecipe, {"number_scale": -1.0}, "--number-scale"),
        (rows.MultimodalRecipe, {"cross_weight": -1.0}, "--cross-weight"),
        (rows.MultimodalRecipe, {"crossed_cost": -1.0}, "--crossed-cost"),
        (rows.MultimodalRecipe, {"independence": "hsic"}, "--independence must be one of none, total_correlation, mine, mmd"),
        (rows.MultimodalRecipe, {"batch_size": 1}, "--batch-size must be at least 2"),
        (rows.MultimodalRecipe, {"batch_size": 1438}, "--batch-size must be at most 1437"),
        (rows.MultimodalRecipe, {"validation": True, "batch_size": 1200}, "at most 1198"),
        (rows.MultimodalRecipe, {"image_size": 20}, "--image-size must be left out with --data digits-label"),
        (rows.BetaVAERecipe, {"beta": 0.5}, "--beta must be at least 1"),
        (rows.JMVAERecipe, {"cross_weight": -1.0}, "--cross-weight must be at least 0"),
        (rows.WynerVAERecipe, {"private_weight": -1.0}, "--private-weight"),
        (rows.WynerVAERecipe, {"succinct_weight": -1.0}, "--succinct-weight"),
        (rows.TELBORecipe, {"single_weight": -5.0}, "--single-weight"),
        (rows.InfoGANRecipe, {"code_weight": -1.0}, "--code-weight"),
        (rows.InfoGANRecipe, {"code_dim": 0}, "--code-dim must be at least 1"),
    ],
)
def test_bad_settings(kind, changes, message):
    with pytest.raises(UsageError, match=message):
        mib(kind, **changes).prepare()
