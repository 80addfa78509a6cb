import math

import pyro
import pytest
import torch

from pyzoo.data.colors import COLORS
from pyzoo.errors import UsageError
from pyzoo.evaluation import pooled_r2
from pyzoo.infer import TraceKL_ELBO
from pyzoo.recipes.compvae.panels import colors_panels, sines_panels
from pyzoo.recipes.compvae.recipe import CompVAEColors, CompVAESines
from pyzoo.recipes.compvae.report import ColorsReport, SinesReport, random_subsets
from tiny import colors, sines

CPU = torch.device("cpu")


def report_of(recipe, pair=None):
    return recipe.report((recipe.programs() if pair is None else pair).eval(), CPU)


def schedules(recipe):
    """By column, the value as a function of the step."""
    (objective,) = recipe.objectives(recipe.programs())
    return {schedule.column: schedule.value for schedule in objective.schedules}


# The recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "parts", "parameters"), [(CompVAESines, 16, 143_248_510), (CompVAEColors, 8, 184_857_036)])
def test_the_papers_preset_is_the_papers_setting(kind, parts, parameters):
    recipe = kind.preset("paper")
    assert (recipe.parts, recipe.batch_size, recipe.learning_rate, recipe.steps) == (parts, 256, 1e-4, 500_000)
    assert [recipe.max_parts(step) for step in (0, 2999, 3000, 6000, 10**6)] == [2, 2, 3, 4, parts]
    with torch.device("meta"):
        pair = recipe.programs()
        (objective,) = recipe.objectives(pair)
        optimizer = objective.optimizer(objective.groups)
        rate = objective.scheduler(optimizer).lr_lambdas[0]
    assert pair.num_parameters == parameters
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)
    assert [1e-4 * rate(step) for step in (0, 19_999, 20_000, 40_000)] == [1e-4, 1e-4, 5e-5, 2.5e-5]
    assert 1e-4 * rate(10**6) == pytest.approx(1e-6)
    assert recipe.clip_norm is objective.clip_norm is None
    assert recipe.z_weight == 1.0


def test_small_is_the_default_preset_and_settings_replace():
    assert CompVAESines.preset() == CompVAESines.preset("small")
    assert CompVAESines.preset("small", parts=3).parts == 3
    assert CompVAESines.preset("small", w_dim=30).networks.w_dim == 30
    with pytest.raises(UsageError, match="no preset 'tiny'"):
        CompVAESines.preset("tiny")


def test_weight_of_z_ends_at_one():
    schedule = schedules(sines(z_weight=5.0, weight_steps=10))["kl_weight_z"]
    assert [schedule(step) for step in (0, 5, 10, 99)] == [5.0, 3.0, 1.0, 1.0]
    assert schedules(sines(z_weight=5.0, weight_steps=0))["kl_weight_z"](99) == 5.0


def test_floor_of_x_goes_down_geometrically():
    recipe = colors(x_floor=0.5, x_floor_steps=10, scale_floor=0.005)
    pair = recipe.programs()
    (objective,) = recipe.objectives(pair)
    schedule = next(schedule for schedule in objective.schedules if schedule.column == "x_floor")
    assert [schedule.value(step) for step in (0, 5, 10, 99)] == pytest.approx([0.5, 0.05, 0.005, 0.005])
    schedule.apply(5)
    assert pair.model.x_floor == pytest.approx(0.05)
    batch = colors().source(CPU).batch(0, 4)
    x = pyro.poutine.trace(pair.model).get_trace(**batch).nodes["x"]["fn"].base_dist
    assert x.scale.min() >= 0.05
    assert [schedules(colors(scale_floor=0.01))["x_floor"](step) for step in (0, 9)] == [0.01, 0.01]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_floor": 1e-4}, "--x-floor must be between --scale-floor and 1e30, got 0.0001"),
        ({"x_floor": 1e31}, "--x-floor must be positive and at most 1e+30, got 1e+31"),
        ({"x_floor_steps": 10}, "--x-floor-steps must be 0 unless --x-floor is given, got 10"),
        ({"parts": 0}, "--parts must be at least 1, got 0"),
        ({"nonlinearity": 0.0}, "--nonlinearity must be positive, got 0.0"),
        ({"evaluation_sets": 1}, "--evaluation-sets must be at least 2 and at most 1,000,000, got 1"),
    ],
)
def test_settings_that_do_not_fit_each_other(changes, message):
    with pytest.raises(UsageError) as caught:
        sines(**changes)
    assert str(caught.value) == message


def test_relative_guide_is_a_setting():
    for make in (sines, colors):
        pair = make(relative_guide=True).programs()
        assert pair.guide.w_prior == pair.model.w_prior
        assert make().programs().guide.w_prior is None


def test_the_networks_have_a_category_for_each_kind_of_part():
    assert sines(num_frequencies=4).sized().networks.num_categories == 4
    assert sines(num_frequencies=4).programs().model.part_prior.loc.num_embeddings == 4
    assert colors().sized().networks.num_categories == len(COLORS)


def test_data_are_generated_and_none_are_taken(tmp_path):
    with pytest.raises(UsageError, match="compvae-sines generates its data and takes none"):
        CompVAESines.keep_data(tmp_path, torch.zeros(3, 4, 4))


# What is measured -----------------------------------------------------------------------------------------------------


def test_random_subsets_are_proper_and_of_all_sizes():
    keep = random_subsets(3000, 4, torch.Generator().manual_seed(0))
    sizes = keep.sum(-1)
    for size in (1, 2, 3):
        assert abs((sizes == size).sum() - 1000) < 150
    assert sizes.unique().tolist() == [1, 2, 3]
    assert (keep.float().mean(0) - 0.5).abs().max() < 0.05


class Oracle(SinesReport):
    """Knows the truth: w holds a part's cosine and sine, in places that belong to its frequency, and counts it."""

    def __init__(self, recipe):
        super().__init__(recipe, None, CPU)
        self.truth = None

    def draw(self, *arguments, **options):
        self.truth = super().draw(*arguments, **options)
        return self.truth

    def infer_latents(self, batch, fixed=None, sample_w=False):
        t = self.truth
        w = torch.zeros(*t.parts.shape, 21)
        w.scatter_(2, t.parts.unsqueeze(-1), (t.amplitudes * t.phases.cos()).unsqueeze(-1))
        w.scatter_(2, t.parts.unsqueeze(-1) + 10, (t.amplitudes * t.phases.sin()).unsqueeze(-1))
        w[..., 20] = 1
        if sample_w:
            w = w + 0.05 * torch.randn_like(w)
        return {"w": w.mT, "z": torch.zeros(len(w), 1)}

    def decode(self, whole, z=None):
        time = torch.arange(200.0)
        angle = 2 * math.pi / 200 * torch.arange(1, 11).unsqueeze(-1) * time
        total = whole[:, :10] @ angle.cos() - whole[:, 10:20] @ angle.sin()
        count = whole[:, 20:].round().clamp(min=1)
        return count * torch.tanh(3 / count * total)


def test_metrics_of_a_model_that_knows_the_truth():
    recipe = sines(evaluation_sets=300, steps=1000)
    oracle = Oracle(recipe)
    found = oracle.r2(3)
    for name in ("reconstruction_r2", "subset_r2", "subset_r2_repeated"):
        assert found[name] == pytest.approx(1.0, abs=1e-5)
    assert 0.3 < found["subset_r2_sampled"] < 0.99
    gap = oracle.sum_of_parts_gap(3)
    curves = recipe.source(CPU).draw(2000, 3, seed=5, distinct=True)
    alone = sum(recipe.source(CPU).subset(curves, torch.arange(3).expand(2000, -1) == i) for i in range(3))
    assert gap == pytest.approx(1 - pooled_r2(curves.x, alone), abs=0.03)


class OracleOfSums(Oracle):
    """Knows the sum of each frequency, all that a curve can tell: by symmetry, the best guess of one of n sines is an n-th."""

    def infer_latents(self, batch, fixed=None, sample_w=False):
        parts, found = self.truth.parts, super().infer_latents(batch)
        same = (parts.unsqueeze(-1) == parts.unsqueeze(-2)).float()
        return {**found, "w": found["w"] @ (same / same.sum(-1, keepdim=True))}


@pytest.mark.parametrize(("count", "best"), [(4, 0.92), (10, 0.87), (16, 0.835), (30, 0.795)])
def test_repeated_parts_can_be_told_apart_so_far_and_no_further(count, best):
    found = OracleOfSums(sines(evaluation_sets=1000)).r2(count)
    assert found["reconstruction_r2_repeated"] == pytest.approx(1.0, abs=1e-5)
    assert found["subset_r2_repeated"] == pytest.approx(best, abs=0.02)


def test_beyond_ten_parts_only_repeated_ones():
    assert set(Oracle(sines(evaluation_sets=20)).r2(12)) == {"reconstruction_r2_repeated", "subset_r2_repeated"}


@pytest.mark.parametrize("make", [sines, colors])
def test_metric_names(make):
    recipe = make(steps=30)
    assert recipe.trained_parts == 3
    metrics = report_of(recipe).metrics()
    names = {"reconstruction_r2", "subset_r2", "subset_r2_sampled"}
    for count in (2, 3, 5, 6):  # up to the trained 3, 1.5 and 2 times that
        assert {f"{name}/K{count}" for name in names} <= metrics.keys()
    assert ("subset_r2_repeated/K30" in metrics) == (make is sines)
    assert metrics["subset_r2"] == metrics["subset_r2/K3"]
    assert {"order_gap", "label_r2", "sum_of_parts_gap", "nats_w", "nats_z", "nats_x", "elbo"} <= metrics.keys()
    assert metrics["order_gap"] < 1e-5
    assert metrics["elbo"] == pytest.approx(-sum(metrics[f"nats_{name}"] for name in "wzx"))
    assert (metrics["scale_floor"], metrics["x_floor"]) == pytest.approx((0.001, 0.001))


def test_label_r2_of_a_prior_that_knows_the_colors():
    recipe = colors(evaluation_sets=300)
    mean_color = torch.tensor(list(COLORS.values()))

    class Prior:
        def w_prior(self, parts, positions):
            return mean_color[parts].mT / parts.shape[1], None  # the sum is the mean color of the sites

    class Pair:
        model = Prior()

    class Plain(ColorsReport):
        def decode(self, whole, z=None):
            return whole[..., None, None].expand(-1, -1, 32, 32)

    images = recipe.source(CPU).draw(2000, 3, seed=1)
    expected = pooled_r2(images.x, mean_color[images.parts].mean(1)[..., None, None].expand_as(images.x))
    assert Plain(recipe, Pair(), CPU).label_r2(3) == pytest.approx(expected, abs=0.06)


def test_headlines_of_more_parts_than_frequencies():
    metrics = report_of(sines(num_frequencies=2, parts=3)).metrics()
    assert metrics["subset_r2"] == metrics["subset_r2/K2"]
    assert metrics["subset_r2_repeated"] == metrics["subset_r2_repeated/K3"]


@pytest.mark.parametrize("make", [sines, colors])
def test_the_held_out_elbo_is_of_fresh_sets_which_are_the_same_each_time(make):
    recipe = make()
    report = report_of(recipe)
    assert report.can_validate
    torch.manual_seed(0)
    first = report.validate(10)
    torch.manual_seed(0)
    assert report.validate(20) == first
    trained_on = recipe.source(CPU).batch(0, 8)["x"]
    seen = []
    draw = report.draw
    report.draw = lambda *arguments, **options: seen.append(draw(*arguments, **options)) or seen[-1]
    report.validate(10)
    assert len(seen[0].parts[0]) == recipe.parts
    assert not any(torch.equal(x, row) for x in trained_on for row in seen[0].x)
    terms = TraceKL_ELBO().terms(*report.pair, **seen[0].batch())
    assert first["held_out_elbo"] == pytest.approx(-sum(terms.values()).item() / len(seen[0].x), rel=0.2)


# Figures and samples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sines, colors])
@pytest.mark.parametrize("steps", [1, 30])
def test_figures_of_any_run(make, steps):
    recipe = make(steps=steps)
    row = {"step": 1, "w": 1.0, "z": 1.0, "x": 1.0, "loss": 3.0, "x_floor": 0.3}
    rows = [row, {**row, "step": 5, "x_floor": 0.1}]
    report = report_of(recipe)
    names = [name for name, _ in report.figures(rows)]
    expected = {
        sines: {"figure2_aggregation", "figure5_parts", "figure6_composition", "figure10_nonlinearity", "subsets"},
        colors: {"subsets"},
    }[make]
    assert expected <= set(names)
    assert len(set(names)) == len(names)
    without = [name for name, _ in report.figures([])]
    assert [name for name in names if name not in without] == [name for name in names if name.endswith("losses")]


@pytest.mark.parametrize(("make", "parts"), [(sines, ["2", 4]), (colors, list(COLORS)[:2])])
def test_samples_have_what_they_are_made_of(make, parts):
    report = report_of(make())
    given = report.sample(3, seed=0, given={"parts": parts})
    assert given["parts"].shape == (3, 2)
    free = report.sample(3, seed=0)
    assert free["parts"].shape == (3, report.recipe.trained_parts)
    assert ("positions" in free) == (make is colors)
    assert len(report.picture(free).axes) >= 3
    with pytest.raises(UsageError, match="there is nothing 'label' to condition on in compvae-"):
        report.sample(3, seed=0, given={"label": 3})


@pytest.mark.parametrize("parts", [[1, 3], "1,3", "1, 3", torch.tensor([1, 3])])
def test_parts_are_named_in_any_way(parts):
    assert report_of(sines()).sample(2, seed=0, given={"parts": parts})["parts"].tolist() == [[0, 2]] * 2
    assert report_of(sines()).sample(1, seed=0, given={"parts": torch.tensor(3)})["parts"].tolist() == [[2]]


@pytest.mark.parametrize(("make", "panels"), [(sines, sines_panels), (colors, colors_panels)])
def test_one_part_at_least_is_kept(make, panels):
    with pytest.raises(UsageError, match="keep at least one part"):
        panels(report_of(make()))[0].draw(number=0, kept=())
