import math

import pyro
import pytest
import torch

from pyzoo.data.colors import COLORS
from pyzoo.errors import UsageError
from pyzoo.evaluation import pooled_r2
from pyzoo.recipes import compvae_metrics
from pyzoo.recipes.compvae import CompVAEColors, CompVAESines
from tiny import colors, sines

CPU = torch.device("cpu")


@pytest.mark.parametrize(("kind", "parts", "parameters"), [(CompVAESines, 16, 143_248_510), (CompVAEColors, 8, 184_857_036)])
def test_the_papers_preset_is_the_papers_setting(kind, parts, parameters):
    recipe = kind.preset("paper")
    assert (recipe.parts, recipe.batch_size, recipe.learning_rate, recipe.steps) == (parts, 256, 1e-4, 500_000)
    assert [recipe.max_parts(step) for step in (0, 2999, 3000, 6000, 10**6)] == [2, 2, 3, 4, parts]
    with torch.device("meta"):
        (objective,) = recipe.objectives()
    assert sum(p.numel() for p in objective.module.parameters()) == parameters
    assert objective.optimizer.param_groups[0]["betas"] == (0.5, 0.9)
    rate = objective.scheduler.lr_lambdas[0]
    assert [1e-4 * rate(step) for step in (0, 19_999, 20_000, 40_000)] == [1e-4, 1e-4, 5e-5, 2.5e-5]
    assert 1e-4 * rate(10**6) == pytest.approx(1e-6)
    assert recipe.clip_norm is None
    assert recipe.z_weight == 1.0


def test_small_is_the_default_preset_and_fields_replace():
    assert CompVAESines.preset() == CompVAESines.preset("small")
    assert CompVAESines.preset("small", parts=3).parts == 3
    with pytest.raises(UsageError, match="no preset 'tiny'"):
        CompVAESines.preset("tiny")


def test_weight_of_z_ends_at_one():
    schedule = sines(z_weight=5.0, weight_steps=10).objectives()[0].schedules["kl_weight_z"]
    assert [schedule(step) for step in (0, 5, 10, 99)] == [5.0, 3.0, 1.0, 1.0]
    assert sines(z_weight=5.0, weight_steps=0).objectives()[0].schedules["kl_weight_z"](99) == 5.0


def test_floor_of_x_goes_down_geometrically():
    objective = colors(x_floor=0.5, x_floor_steps=10, scale_floor=0.005).objectives()[0]
    schedule = objective.schedules["model.x_floor"]
    assert [schedule(step) for step in (0, 5, 10, 99)] == pytest.approx([0.5, 0.05, 0.005, 0.005])
    objective.module.get_buffer("model.x_floor").fill_(schedule(5))
    batch = colors().source(CPU).batch(0, 4)
    x = pyro.poutine.trace(objective.module.model).get_trace(**batch).nodes["x"]["fn"].base_dist
    assert x.scale.min() >= 0.05
    assert [colors(scale_floor=0.01).objectives()[0].schedules["model.x_floor"](step) for step in (0, 9)] == [0.01, 0.01]


def test_relative_guide_is_a_flag():
    for make in (sines, colors):
        module = make(relative_guide=True).objectives()[0].module
        assert module.guide.w_prior == module.model.w_prior
        assert make().objectives()[0].module.guide.w_prior is None


def test_random_subsets_are_proper_and_of_all_sizes():
    keep = compvae_metrics.random_subsets(3000, 4, torch.Generator().manual_seed(0))
    sizes = keep.sum(-1)
    for size in (1, 2, 3):
        assert abs((sizes == size).sum() - 1000) < 150
    assert sizes.unique().tolist() == [1, 2, 3]
    assert (keep.float().mean(0) - 0.5).abs().max() < 0.05


class Oracle:
    """Knows the truth: w holds a part's cosine and sine, in places that belong to its frequency, and counts it."""

    def __init__(self, recipe, monkeypatch):
        self.source = recipe.source(CPU)
        self.truth = None
        draw = recipe.draw

        def remember(*arguments, **options):
            self.truth = draw(*arguments, **options)
            return self.truth

        monkeypatch.setattr(recipe, "draw", remember)
        monkeypatch.setattr(compvae_metrics, "infer_latents", self.infer)
        monkeypatch.setattr(compvae_metrics, "decode", self.decode)

    def infer(self, module, batch, fixed=None, sample_w=False):
        t = self.truth
        w = torch.zeros(*t.parts.shape, 21)
        w.scatter_(2, t.parts.unsqueeze(-1), (t.amplitudes * t.phases.cos()).unsqueeze(-1))
        w.scatter_(2, t.parts.unsqueeze(-1) + 10, (t.amplitudes * t.phases.sin()).unsqueeze(-1))
        w[..., 20] = 1
        if sample_w:
            w = w + 0.05 * torch.randn_like(w)
        return {"w": w.mT, "z": torch.zeros(len(w), 1)}

    def decode(self, module, whole, z=None):
        time = torch.arange(200.0)
        angle = 2 * math.pi / 200 * torch.arange(1, 11).unsqueeze(-1) * time
        total = whole[:, :10] @ angle.cos() - whole[:, 10:20] @ angle.sin()
        count = whole[:, 20:].round().clamp(min=1)
        return count * torch.tanh(3 / count * total)


def test_metrics_of_a_model_that_knows_the_truth(monkeypatch):
    recipe = sines(evaluation_sets=300, steps=1000)
    Oracle(recipe, monkeypatch)
    found = compvae_metrics._r2(recipe, None, CPU, 3)
    for name in ("reconstruction_r2", "subset_r2", "subset_r2_repeated"):
        assert found[name] == pytest.approx(1.0, abs=1e-5)
    assert 0.3 < found["subset_r2_sampled"] < 0.99
    gap = compvae_metrics._sum_of_parts_gap(recipe, None, CPU, 3)["sum_of_parts_gap"]
    curves = recipe.source(CPU).draw(2000, 3, seed=5, distinct=True)
    alone = sum(recipe.source(CPU).subset(curves, torch.arange(3).expand(2000, -1) == i) for i in range(3))
    assert gap == pytest.approx(1 - pooled_r2(curves.x, alone), abs=0.03)


def test_beyond_ten_parts_only_repeated_ones(monkeypatch):
    recipe = sines(evaluation_sets=20)
    Oracle(recipe, monkeypatch)
    assert set(compvae_metrics._r2(recipe, None, CPU, 12)) == {"reconstruction_r2_repeated", "subset_r2_repeated"}


@pytest.mark.parametrize("make", [sines, colors])
def test_metric_names(make):
    recipe = make(steps=30)
    assert recipe.trained_parts == 3
    module = recipe.objectives()[0].module
    metrics = recipe.evaluate(module, CPU)
    names = {"reconstruction_r2", "subset_r2", "subset_r2_sampled"}
    for count in (2, 3, 5, 6):  # up to the trained 3, 1.5 and 2 times that
        assert {f"{name}/K{count}" for name in names} <= metrics.keys()
    assert ("subset_r2_repeated/K30" in metrics) == (make is sines)
    assert metrics["subset_r2"] == metrics["subset_r2/K3"]
    assert {"order_gap", "label_r2", "sum_of_parts_gap", "nats_w", "nats_z", "nats_x", "elbo"} <= metrics.keys()
    assert metrics["order_gap"] < 1e-5
    assert metrics["elbo"] == pytest.approx(-sum(metrics[f"nats_{name}"] for name in "wzx"))


def test_label_r2_of_a_prior_that_knows_the_colours(monkeypatch):
    recipe = colors(evaluation_sets=300)
    module = recipe.objectives()[0].module
    mean_color = torch.tensor(list(COLORS.values()))

    def w_prior(parts, positions):
        return mean_color[parts].mT / parts.shape[1], None  # the sum is the mean colour of the sites

    monkeypatch.setattr(module.model, "w_prior", w_prior, raising=True)
    monkeypatch.setattr(compvae_metrics, "decode", lambda module, whole: whole[..., None, None].expand(-1, -1, 32, 32))
    images = recipe.source(CPU).draw(2000, 3, seed=1)
    expected = pooled_r2(images.x, mean_color[images.parts].mean(1)[..., None, None].expand_as(images.x))
    assert compvae_metrics._label_r2(recipe, module, CPU, 3) == pytest.approx(expected, abs=0.06)


def test_headlines_of_more_parts_than_frequencies():
    recipe = sines(num_frequencies=2, parts=3)
    metrics = recipe.evaluate(recipe.objectives()[0].module, CPU)
    assert metrics["subset_r2"] == metrics["subset_r2/K2"]
    assert metrics["subset_r2_repeated"] == metrics["subset_r2_repeated/K3"]
