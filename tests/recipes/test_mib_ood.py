"""Section 6: the objective of eq. 18 by hand, invariance where the color is the only thing that changes, and the table."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pyzoo.data.environments import colored_images
from pyzoo.data.files import image_data, write_npz
from pyzoo.errors import UsageError
from pyzoo.recipes.mib.ood.recipe import OODRecipe
from pyzoo.recipes.mib.ood.report import environment_information
from pyzoo.recipes.mib.ood.sharpening import sharpened_environments
from pyzoo.recipes.mib.ood.tables import MIBTable4
from pyzoo.training import Hardware, Run
from tiny import OOD, flags, ood, tiny, trained_state

CPU = torch.device("cpu")
COLOR_INFORMATION = 0.5 * sum(a * math.log(a / m) for a, m in ((0.2, 0.15), (0.8, 0.85))) + 0.5 * sum(
    a * math.log(a / m) for a, m in ((0.1, 0.15), (0.9, 0.85))
)
"""I(color; e | y) in nats, for shares 0.2 and 0.1 of other colors."""


def product(experts, rows=None):
    """Mean and variance of N(0, 1) times experts, each a mean and a log-variance, with weights of each row."""
    weights = [1.0] * len(experts) if rows is None else rows
    precision = 1 + sum(w * (-v).exp() for w, (_, v) in zip(weights, experts, strict=True))
    mean = sum(w * m * (-v).exp() for w, (m, v) in zip(weights, experts, strict=True)) / precision
    return mean, 1 / precision


def kl(q, p):
    return 0.5 * (q[1] / p[1] + (q[0] - p[0]) ** 2 / p[1] - 1 - (q[1] / p[1]).log()).sum(1)


@pytest.mark.parametrize(("labeled", "alpha"), [(1.0, 0.3), (0.5, 0.3), (1.0, 0.0)])
def test_the_objective_is_eq_18(at_mean, labeled, alpha):
    weights = {
        "dist_weight": alpha,
        "sufficient_weight": 0.7,
        "prediction_weight": 1.5,
        "stability_weight": 20.0,
        "stability": "irm",
    }
    recipe = ood(dropout=0.0, labeled=labeled, stability_ramp=0.0, **weights)
    torch.manual_seed(0)
    pair = recipe.programs()
    module = recipe.objectives(pair)[0].module.double()
    batch = {
        name: value if value.dtype == torch.bool else value.double() for name, value in recipe.source(CPU).batch(0, 12).items()
    }
    found, terms = module(**batch)
    assert alpha or all(name.startswith("penalty/") for name in terms)

    encoders, decoders, x, y, e = pair.guide.encoders, pair.model.decoders, batch["x"], batch["y"], batch["e"]
    known = batch["present"][:, 1].double() if labeled < 1 else torch.ones(12, dtype=torch.float64)
    of_x, of_y, of_e = (encoders[name](batch[name]).chunk(2, 1) for name in ("x", "y", "e"))
    z_x, u_x = ((of_x[0][:, part], of_x[1][:, part]) for part in (slice(0, 2), slice(2, 4)))
    ones = torch.ones(12, 1, dtype=torch.float64)
    q_z, q_zx, q_u = product([z_x, of_y, of_e], [ones, known[:, None], ones]), product([z_x]), product([u_x])
    prior = (torch.zeros(12, 2), torch.ones(12, 2))
    logits = torch.nn.Sequential.forward(decoders["x"], torch.cat([q_z[0], q_u[0]], 1))
    costs = binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3))
    costs = costs + kl(q_z, prior) + kl(q_u, prior)
    y_logits = decoders["y"].layer(q_z[0])
    costs = costs + known * cross_entropy(y_logits, y, reduction="none")
    e_logits = torch.nn.Sequential.forward(decoders["e"], torch.zeros(12, 2, dtype=torch.float64))
    costs = costs + cross_entropy(e_logits, e, reduction="none")
    predicted = decoders["y"].layer(q_zx[0])
    information = (known * cross_entropy(predicted, y, reduction="none")).sum() / known.sum()
    stability = 0.0
    for environment in (0, 1):
        rows = ((e[:, environment] == 1) & (known == 1)).nonzero().flatten()
        slopes = ((predicted.softmax(1) - y) * predicted).sum(1)[rows]
        stability = stability + slopes[::2].mean() * slopes[1::2].mean() / 2
    expected = alpha * costs.mean() + 0.7 * kl(q_z, q_zx).mean() + 1.5 * information + 20.0 * stability
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.slow
def test_two_processes_train_what_leaves_parameters_without_a_gradient(tmp_path):
    fields = {"dist_weight": 0.0, "sufficient_weight": 0.0, "steps": 2, "sharpen": False, "batch_size": 12}
    command = ["train", "mib-ood", *flags({**tiny("mib-ood"), **fields}), "--device", "cpu", "--devices", "2", "--no-figures"]
    run = subprocess.run(
        [sys.executable, "-m", "pyzoo.cli", *command, "--no-evaluate", "--no-progress", "--out", tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr


def test_penalties_say_what_they_are():
    penalties = ood().declare().penalties(ood().programs().model, 100)
    assert {penalty.name: penalty.kind for penalty in penalties} == {
        "sufficient": "upper bound",
        "ood": "estimate",
        "stable": "surrogate",
    }
    none = ood(stability_weight=0.0, sufficient_weight=0.0, prediction_weight=0.0)
    assert not none.declare().penalties(none.programs().model)


def trained(recipe, path):
    """A finished run, measured and not drawn."""
    return Run.create(recipe, "digits", Hardware("cpu"), path, None).train(progress=False, figures=False)


def test_the_share_of_the_stability_weight_grows(tmp_path):
    run = trained(ood(steps=20, stability_weight=100.0, stability_ramp=0.5, log_every=1), tmp_path / "run")
    column = [row["share_stable"] for row in run.history]
    assert column[5] / column[0] == pytest.approx(10.0, rel=1e-4)
    assert column[10] == column[-1] == 1


@pytest.mark.slow
def test_traced_steps_learn_what_eager_ones_learn(tmp_path):
    whole, eager = (trained_state(ood(labeled=0.5), tmp_path / engine, engine) for engine in ("traced", "eager"))
    for name, value in whole.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_environments_do_not_decide_where_only_colors_differ(tmp_path):
    """Bright above or bright below. ERM follows the color, and with the penalty it is the shape."""
    images = torch.zeros(3000, 1, 14, 14, dtype=torch.uint8)
    images[::2, 0, :7], images[1::2, 0, 7:] = 200, 200
    images = (images + torch.randint(56, images.shape, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    write_npz(tmp_path / "images.npz", image_data(images, torch.arange(3000) % 2))
    settings = {
        "data": str(tmp_path / "images.npz"),
        "steps": 250,
        "batch_size": 500,
        "learning_rate": 3e-3,
        "weight_decay": 1e-3,
        "stability_ramp": 0.5,
        "hidden_dim": 32,
        "held_out": 0.1,
    }
    found = {}
    for name, weight in (("erm", 0.0), ("ours", 1000.0)):
        found[name] = trained(ood(**settings, stability_weight=weight, stability="gain"), tmp_path / name).metrics
    assert found["erm"]["accuracy_train_envs"] > 0.8
    assert found["erm"]["accuracy_test_env"] < 0.3
    assert found["ours"]["accuracy_test_env"] > 0.65


@pytest.mark.slow
def test_sharpened_environments_are_where_color_and_label_agree():
    recipe = ood(sharpen=True, copies=10, labeled=0.5)
    grouped, train = recipe._grouped_set, recipe.training_set
    agrees = train.colors == train.labels
    known = recipe.source(CPU).present[:, 1]
    assert (grouped.environments[known] == agrees[known].long()).double().mean() > 0.95
    shares = [(grouped.environments[part] == 1).double().mean().item() for part in (known, ~known)]
    assert shares == pytest.approx([0.85, 0.85], abs=0.08)
    assert shares[0] == pytest.approx(shares[1], abs=0.02)  # without a label by chance, in the same shares
    for name in ("images", "labels", "classes", "colors"):
        assert getattr(grouped, name) is getattr(train, name)
    assert torch.equal(train.environments.bincount(), torch.tensor([len(train) // 2 + len(train) % 2, len(train) // 2]))


def test_no_label_is_sharpened_into_an_environment_where_it_never_is():
    labels = torch.cat([torch.zeros(100), torch.ones(200)]).long()
    environments = torch.cat([torch.ones(100), torch.zeros(200)]).long()
    images = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sharpened_environments(images, labels, environments), environments)


def test_a_group_too_small_for_its_share_of_a_batch():
    with pytest.raises(UsageError, match="--sharpen: the smallest group of images has"):
        ood(sharpen=True, batch_size=1000).prepare()


def test_environment_information_of_the_color_alone():
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(2):
        e, y = torch.randint(2, (2, 100_000), generator=generator)
        flips = torch.rand(100_000, generator=generator) < torch.tensor([0.2, 0.1])[e]
        parts.append(((y ^ flips.long()).float().unsqueeze(1), y, e))
    assert environment_information(*parts[0], *parts[1]) == pytest.approx(COLOR_INFORMATION, rel=0.15)
    noise = [(torch.randn(100_000, 2, generator=generator), y, e) for _, y, e in parts]
    assert abs(environment_information(*noise[0], *noise[1])) < 3e-4
    one = [(z, y, torch.zeros_like(e)) for z, y, e in parts]
    assert environment_information(*one[0], *one[1]) == 0


def test_metrics_figures_and_samples(tmp_path):
    run = trained(ood(), tmp_path / "run")
    metrics, history = run.metrics, run.history
    assert metrics.keys() == {
        "accuracy_train_envs",
        "accuracy_test_env",
        "accuracy_held_out",
        "environment_information",
        "held_out_elbo",
        "parameters",
    }
    assert all(math.isfinite(value) for value in metrics.values())
    assert {"accuracy_env_0", "accuracy_env_1", "accuracy_test_env"} <= history[-1].keys()
    held_out = ood().report(run.pair().eval(), CPU).validate(0)
    assert held_out.keys() == {"accuracy_held_out", "held_out_elbo"}
    assert held_out["accuracy_held_out"] == metrics["accuracy_held_out"]
    for other in ({"sharpen": True}, {"dist_weight": 0.0}):  # another variable, or an ELBO that nothing trains
        assert ood(**other).report(run.pair().eval(), CPU).validate(0).keys() == {"accuracy_held_out"}
    report = ood().report(run.pair().eval(), CPU)
    with torch.no_grad():
        assert [name for name, _ in report.figures(history)] == ["networks", "images", "latents", "accuracies", "loss"]
        assert [name for name, _ in report.figures([])] == ["networks", "images", "latents"]
        drawn = report.sample(4, 0)
        assert drawn["x"].shape == (4, 2, 14, 14)
        assert report.sample(3, 0, {"y": "1"})["y"].tolist() == [[0, 1]] * 3
        assert report.picture(drawn).axes
    for given in ({"y": "2"}, {"x": "1"}):
        with pytest.raises(UsageError, match="there is no"):
            report.sample(1, 0, given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labeled": 0.0}, "--labeled must be positive"),
        ({"stability_weight": -1.0}, "--stability-weight must be at least 0"),
        ({"color_flips": ()}, "--color-flips must be one or more shares"),
        ({"color_flips": (0.2, 1.5)}, "--color-flips must be"),
        ({"batch_size": 3}, "--batch-size must be at least 4"),
        ({"dropout": 1.0}, "--dropout must be"),
        ({"sharpen": True, "grayscale": True}, "--sharpen must be off"),
        ({"sharpen": True, "color_flips": (0.2,)}, "--sharpen must be off"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        ood(**changes)


def test_data_that_do_not_serve(images_are):
    with pytest.raises(UsageError, match="leaves environment 0 without a label"):
        ood(labeled=1e-9).prepare()
    images_are(torch.zeros(30, 1, 28, 28, dtype=torch.uint8))
    with pytest.raises(UsageError, match="--batch-size must be at most 25"):
        ood(data="mnist").prepare()
    with pytest.raises(ValueError, match="num_classes"):
        colored_images(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.long), 1)


@pytest.mark.slow
def test_the_table(tmp_path):
    table = MIBTable4(preset="digits", seeds=(0,), steps=4)
    labels = [row.label for row in table.rows()]
    as_they_are = ["OURS, environments as they are", "OURS, as they are, half the labels"]
    ours = [*as_they_are, "OURS, without the penalty", "OURS", "OURS, half the labels"]
    assert labels == ["Oracle (grayscale)", "ERM", "IRM", *ours]
    assert [table.recipe(row, 0).sharpen for row in table.rows()] == [False] * 5 + [True] * 3
    assert [table.recipe(row, 0).steps for row in table.rows()] == [4] * 8
    runs = {}
    for row in table.rows()[:2]:
        recipe = OODRecipe.preset("digits", **{**OOD, **row.fields, "steps": 4, "log_every": 2})
        runs[row.label] = [trained(recipe, tmp_path / row.folder(0))]
    text = table.render(runs)
    assert "| Random | 0 | - | - | - | - | 50 | 50 |" in text
    assert "| ERM | 1 | " in text
    assert "66.9 ± 2.5" in text
    assert "No run chooses anything by the test environment" in text
    assert [name for name, _ in table.figures(runs, {})] == ["accuracies"]
