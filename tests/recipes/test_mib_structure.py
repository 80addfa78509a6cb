"""Structure learning: algorithm 1's step against integrals and enumeration, planted structures found, known edges, bad input."""

import itertools

import pytest
import torch
from torch import nn

from pyzoo.errors import UsageError
from pyzoo.evaluation import site_terms
from pyzoo.guides.mib import StructuredGuide
from pyzoo.infer import BayesianNetwork, NegativeELBO, RelaxedMask, Variables, evaluating
from pyzoo.models.mib import StructuredVAE
from pyzoo.recipes.mib.structure.objectives import DistributionLoss, ScoreLoss, effective_parents
from pyzoo.recipes.mib.structure.recipe import LearnedStructureRecipe
from pyzoo.recipes.mib.structure.report import matched, matched_edges
from pyzoo.recipes.mib.structure.tables import MIBStructures
from pyzoo.training import Hardware, Run
from tiny import STRUCTURE, structure, trainer_of

CPU = torch.device("cpu")

# The step of algorithm 1 ----------------------------------------------------------------------------------------------


class Decoder(nn.Linear):
    """A linear decoder with a fixed scale."""

    def forward(self, z):
        import pyro.distributions as dist

        return dist.Normal(super().forward(z), 0.8).to_event(1)


X = torch.tensor([[1.2], [-0.4], [0.7]], dtype=torch.float64)
WEIGHT, LOC, LOG_VARIANCE = 0.9, 1.1, -0.5  # of the decoder, and of the expert: N(LOC x, exp(LOG_VARIANCE))
LOGITS = (0.4, -0.7)  # of M^p and of M^q


def two_variables(temperature):
    """The score of one latent and one view, whose masks are one edge each."""
    names = Variables(("x",), shared=("z",))
    masks = [
        RelaxedMask("m_p", (1, 1), temperature=temperature, program="model"),
        RelaxedMask("m_q", (1, 1), temperature=temperature, program="guide"),
    ]
    encoder = nn.Linear(1, 2)
    model = StructuredVAE(BayesianNetwork.parse("z -> x", names), {"z": 1}, {"x": Decoder(1, 1)}, masks[0])
    guide = StructuredGuide(BayesianNetwork.parse("x -> z", names), {"z": 1}, {"x": encoder}, masks[1])
    with torch.no_grad():
        model.decoders["x"].weight.fill_(WEIGHT)
        model.decoders["x"].bias.zero_()
        encoder.weight.copy_(torch.tensor([[LOC], [0.0]]))
        encoder.bias.copy_(torch.tensor([0.0, LOG_VARIANCE]))
        for mask, logit in zip(masks, LOGITS, strict=True):
            mask.logits.fill_(logit)
    return ScoreLoss(NegativeELBO(model, guide), masks, sparsity=0.3).double()


def loss_by_hand(m_p, m_q):
    """The negative ELBO of a mean over X, z integrated out, for masks of any shape."""
    m_p, m_q = m_p[..., None], m_q[..., None]
    x = X[:, 0]
    precision = 1 + m_q * torch.tensor(-LOG_VARIANCE).exp()
    mean, variance = m_q * LOC * x * torch.tensor(-LOG_VARIANCE).exp() / precision, 1 / precision
    kl = 0.5 * (mean**2 + variance - 1 - variance.log())
    error = (x - WEIGHT * m_p * mean) ** 2 + (WEIGHT * m_p) ** 2 * variance
    nll = 0.5 * error / 0.8**2 + torch.tensor(0.8).log() + 0.5 * torch.tensor(2 * torch.pi).log()
    return (kl + nll).mean(-1)


def integrated_gradient(temperature, points=400):
    """The gradient of the expected score by the log-odds: an integral over the noise of both relaxed edges."""
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    uniform = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    noise = uniform.logit()
    m_p, m_q = (torch.sigmoid((logits[k] + noise) / temperature) for k in (0, 1))
    loss = loss_by_hand(*torch.meshgrid(m_p, m_q, indexing="ij")).mean() + 0.3 * logits.sigmoid().sum()
    return torch.autograd.grad(loss, logits)[0]


def enumerated_gradient():
    """The same for edges that are there or not: the four structures by their probabilities."""
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    p = logits.sigmoid()
    score = 0.3 * p.sum()
    for m_p, m_q in itertools.product((0.0, 1.0), repeat=2):
        probability = (p[0] if m_p else 1 - p[0]) * (p[1] if m_q else 1 - p[1])
        score = score + probability * loss_by_hand(*torch.tensor([m_p, m_q], dtype=torch.float64))
    return torch.autograd.grad(score, logits)[0]


def test_the_structure_step_has_the_gradient_of_the_expected_score():
    module = two_variables(temperature=0.5)
    found = []
    torch.manual_seed(0)
    for _ in range(1500):
        loss, _ = module(x=X)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [mask.logits for mask in module.masks])]))
    found = torch.stack(found)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - integrated_gradient(0.5)).abs() < 4 * error).all()


def test_at_a_low_temperature_it_is_that_of_all_structures_enumerated():
    torch.testing.assert_close(integrated_gradient(0.02, points=1500), enumerated_gradient(), atol=5e-3, rtol=0)


def test_certain_edges_have_the_score_of_their_structure():
    module = two_variables(temperature=0.5).eval()
    with torch.no_grad():
        for m_p, m_q in itertools.product((0.0, 1.0), repeat=2):
            for mask, edge in zip(module.masks, (m_p, m_q), strict=True):
                mask.logits.fill_(40 * (edge - 0.5))
            losses = torch.stack([module.loss(x=X)[0] for _ in range(400)])
            error = losses.std() / 20
            expected = loss_by_hand(*torch.tensor([m_p, m_q], dtype=torch.float64))
            assert (losses.mean() - expected).abs() < 4 * error + 1e-7


def test_the_score_is_the_one_that_is_trained():
    """At the most likely masks, of held-out examples, with the environment's weight."""
    recipe = structure(environments=3, environment_weight=5.0)
    pair = recipe.programs().eval()
    report = recipe.report(pair, CPU)
    assert recipe.site_weights() == {"e": 5.0}
    torch.manual_seed(0)
    found = report.metrics()["score"]
    with evaluating(torch.nn.ModuleList(pair)):
        torch.manual_seed(0)
        site_terms(*pair, report.views)  # which is drawn first
        terms = site_terms(*pair, report.held_out_views)
    edges = sum(float(program.mask().sum()) for program in pair)
    assert found == pytest.approx(sum(terms.values()) + 4 * terms["e"] + recipe.method.sparsity * edges)


def test_each_objective_moves_what_is_its_own():
    recipe = structure()
    pair = recipe.programs()
    distributions, scores = recipe.objectives(pair)
    masks = {id(pair.model.mask.logits), id(pair.guide.mask.logits)}
    moved = [{id(p) for p in objective.parameters} for objective in (distributions, scores)]
    assert moved[1] == masks
    assert moved[0] == {id(p) for program in pair for p in program.parameters()} - masks


@pytest.mark.slow
def test_masks_stand_still_until_their_time(tmp_path):
    recipe = structure(steps=20, mask_start=0.5)
    trainer = trainer_of(recipe, tmp_path / "run")
    mask, source = trainer.pair.model.mask, recipe.source(CPU)
    before = mask.logits.clone()
    for step in range(20):
        trainer._step(source)
        trainer.step += 1
        assert torch.equal(mask.logits, before) == (step < 10), step


# The effective number of parents --------------------------------------------------------------------------------------


def test_the_effective_number_is_between_one_and_all():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        weight = torch.randn(5, 6, generator=generator)
        found = effective_parents(weight, [1, 2, 3])
        assert 1 <= found <= 3
        torch.testing.assert_close(effective_parents(7 * weight, [1, 2, 3]), found, atol=1e-3, rtol=0)  # whatever its size
    equal = torch.eye(3).repeat(1, 1)
    assert effective_parents(equal, [1, 1, 1]).item() == pytest.approx(3)


def test_it_tells_a_rotation_of_the_latents_which_the_elbo_does_not():
    """Two views of one latent each: turned by 45 degrees, each view needs both."""
    angle = torch.tensor(0.3, requires_grad=True)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    number = sum(effective_parents(row.expand(1, 2), [1, 1]) for row in rotation)
    assert number.item() > 2.5
    assert torch.autograd.grad(number, angle)[0] > 0


def test_it_is_added_once_for_each_view():
    recipe = structure(concentration=0.7)
    pair = recipe.programs()
    module = recipe.objectives(pair)[0].module
    assert isinstance(module, DistributionLoss)
    batch = recipe.source(CPU).batch(0, 8)
    losses = []
    for share in (0.0, 1.0):
        module.share.fill_(share)
        torch.manual_seed(0)
        losses.append(module(**batch)[0])
    numbers = [effective_parents(pair.model.decoders[view][0].weight, [1, 1]) for view in recipe.views]
    torch.testing.assert_close(losses[1] - losses[0], 0.7 * sum(numbers), atol=1e-3, rtol=0)


# Known answers --------------------------------------------------------------------------------------------------------


def test_a_planted_structure_is_found(tmp_path):
    changes = {"steps": 800, "batch_size": 128, "hidden_dim": 16, "log_every": 200, "checkpoint_seconds": 60.0}
    recipe = structure(structure="z1 -> x1, x2; z2 -> x2, x3", mask_learning_rate=0.06, **changes)
    run = Run.create(recipe, "small", Hardware("cpu", threads=1), tmp_path / "run")
    run.train(progress=False, figures=False)
    assert run.history[0]["edges_correct"] == pytest.approx(4 / 6)  # all edges, at first
    assert run.metrics["edges_correct"] == 1


def test_checkpoints_are_chosen_by_other_views_than_are_measured():
    recipe = structure()
    report = recipe.report(recipe.programs(), torch.device("cpu"))
    assert not torch.equal(report.views["x1"], report.held_out_views["x1"])
    report.held_out_views = report.views
    same = report.validate(0)["held_out_elbo"]
    del report.held_out_views
    assert report.validate(0)["held_out_elbo"] != pytest.approx(same, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["small", "digits"])
def test_presets_find_structures(tmp_path, preset):
    found = []
    for seed in (1000, 1001, 1002):
        recipe = LearnedStructureRecipe.preset(preset, seed=seed)
        run = Run.create(recipe, preset, Hardware("cpu", threads=1), tmp_path / str(seed))
        run.train(progress=False, figures=False)
        found.append(run.metrics["structure_found"])
    assert sum(found) >= 2


def test_latents_are_matched_whatever_their_order():
    truth = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    for order in itertools.permutations(range(3)):
        assert matched_edges(truth[:, list(order)], truth) == 1
        assert torch.equal(truth[:, list(order)][:, matched(truth[:, list(order)], truth)], truth)


def test_matching_is_the_best_of_all_orders():
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        edges, truth = (torch.rand(2, 4, 3, generator=generator) < 0.5).float()
        best = max((edges[:, list(order)] == truth).double().mean().item() for order in itertools.permutations(range(3)))
        assert matched_edges(edges, truth) == pytest.approx(best)


def test_a_latent_that_is_left_over_should_have_no_edge():
    truth = torch.tensor([[1.0], [1.0]])
    assert matched_edges(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), truth) == 1
    assert matched_edges(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), truth) == 0.75
    assert matched_edges(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])) == 0.25


def test_masks_of_other_views():
    with pytest.raises(ValueError, match="of the same views"):
        matched_edges(torch.zeros(2, 3), torch.zeros(3, 3))


# What is known, and what is fixed -------------------------------------------------------------------------------------


def test_known_edges_stay():
    recipe = structure(known_edges="z1 -> x1", absent_edges="z2 -> x1, x2").sized()
    pair = recipe.programs()
    for mask in (pair.model.mask, pair.guide.mask):
        assert mask()[0].tolist() == [1, 0]
        assert mask()[1, 1] == 0
        with torch.no_grad():
            mask.logits.copy_(-mask.logits)
        assert mask.eval()()[0].tolist() == [1, 0]


@pytest.mark.parametrize(("masks", "edges"), [("all", 8), ("planted", 5)])
def test_fixed_masks_have_one_objective(masks, edges):
    recipe = structure(masks=masks, structure="z1 -> x1, x2, x3; z2 -> x3, x4").sized()
    pair = recipe.programs()
    assert len(recipe.objectives(pair)) == 1
    assert pair.model.mask().sum() == pair.guide.mask().sum() == edges
    assert recipe.report(pair, CPU).metrics()["edges"] == edges


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"known_edges": "z1 -> x1", "absent_edges": "z2, z1 -> x1"}, "contradict each other: z1 -> x1"),
        ({"known_edges": "z1 -> x9"}, "--known-edges: .*x9"),
        ({"known_edges": "z7 -> x1"}, "--known-edges: .*z7"),
        ({"known_edges": "z1"}, "--known-edges: A statement is"),
        ({"structure": "z1 -> x1, z1"}, "--structure: 'z1' can't be both"),
        ({"masks": "all", "known_edges": "z1 -> x1"}, "must be learned where"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"complete": -0.1}, "complete"),
        ({"num_views": 2, "num_causes": 4}, "2 views can hardly have 4 causes"),
        ({"structure": "z1, z2, z3 -> x1; z1, z2, z3 -> x2", "x_dim": 2}, "2 dimensions can't show 3 causes"),
        ({"structure": "z1 -> x1, e; z2 -> x1, x2"}, "environments"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_settings_that_do_not_fit(changes, message):
    with pytest.raises((UsageError, ValueError), match=message):
        structure(**changes).prepare()


# Incomplete examples, environments, images, and the table -------------------------------------------------------------


def test_absent_views_take_no_part():
    recipe = structure(complete=0.3)
    pair = recipe.programs()
    module = recipe.objectives(pair)[0].module
    batch = recipe.source(CPU).batch(0, 16)
    assert not batch["present"].all()
    losses = []
    for nonsense in (0.0, float("nan")):
        views = {
            name: torch.where(batch["present"][:, [i]], view, torch.full_like(view, nonsense))
            for i, (name, view) in enumerate((n, v) for n, v in batch.items() if n != "present")
        }
        torch.manual_seed(0)
        losses.append(module(**views, present=batch["present"])[0])
    assert torch.equal(losses[0], losses[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"environments": 3}, {"data": "digits", "u_dim": 2}, {"data": "digits", "u_dim": 2, "num_classes": 4}]
)
def test_other_kinds_of_views_train_and_are_drawn(tmp_path, changes):
    recipe = structure(steps=6, complete=0.5, **changes)
    run = Run.create(recipe, "small", Hardware("cpu", threads=1), tmp_path / "run")
    run.train(progress=False)
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {"structures", "views", "masks", "edges", "loss"}
    assert set(recipe.views) <= run.sample(count=3).keys()
    assert 0 <= run.metrics["edges_correct"] <= 1


def test_nothing_to_condition_on():
    recipe = structure().sized()
    with pytest.raises(UsageError, match="nothing to condition on"):
        recipe.report(recipe.programs(), CPU).sample(2, 0, given={"x1": 1})


def test_the_table_has_a_row_for_each_question():
    rows = MIBStructures(seeds=(0,)).rows()
    assert [row.preset for row in rows] == ["small"] * 4 + ["environments", "digits"]
    for row in rows:
        row.recipe.preset(row.preset, **row.fields)
    assert STRUCTURE["steps"] == 30
