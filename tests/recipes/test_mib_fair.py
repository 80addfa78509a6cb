"""Section 5: the objective of eq. 17 by hand, what the penalties make of a table of known bias, and the table."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from pyzoo.data.tables import synthetic_table
from pyzoo.errors import UsageError
from pyzoo.evaluation import fairness_metrics, leakage
from pyzoo.infer import dependence, total_correlation
from pyzoo.recipes.mib.fair.baselines import baselines
from pyzoo.recipes.mib.fair.recipe import FairRecipe
from pyzoo.recipes.mib.fair.report import compared, linear_classifier, representation
from pyzoo.recipes.mib.fair.tables import MIBTable3
from pyzoo.training import Hardware, Run
from tiny import FAIR, fair, trained_state

CPU = torch.device("cpu")


def trained(recipe, path):
    """A finished run, measured and not drawn."""
    return Run.create(recipe, "synthetic", Hardware("cpu"), path, None).train(progress=False, figures=False)


def product(*experts):
    """Mean and variance of N(0, 1) times experts, each a weight, a mean and a log-variance."""
    precision = 1 + sum(w * (-v).exp() for w, _, v in experts)
    return sum(w * m * (-v).exp() for w, m, v in experts) / precision, 1 / precision


def rate(q):
    return 0.5 * (q[1] + q[0] ** 2 - 1 - q[1].log()).sum(1)


@pytest.mark.parametrize("known", [1.0, 0.5])
@pytest.mark.parametrize("independence", ["mmd", "total_correlation", "none"])
def test_the_objective_is_eq_17(at_mean, independence, known):
    weights = {"independence": independence, "independence_weight": 4.0, "informative_weight": 0.5, "attribute_weight": 7.0}
    recipe = fair(known=known, **weights)
    torch.manual_seed(0)
    pair = recipe.programs()
    module = recipe.objectives(pair)[0].module.double()
    batch = recipe.source(CPU).batch(0, 12)
    batch = {name: value if value.dtype == torch.bool else value.double() for name, value in batch.items()}
    found, _ = module(**batch)

    x, a, seen = batch["x"], batch["a"], torch.ones(12, 1, dtype=torch.float64)
    if known < 1:
        seen = batch["present"][:, 1:].double()
    of_x, of_a = (pair.guide.encoders[name](batch[name]).chunk(2, 1) for name in ("x", "a"))
    z = product((1.0, of_x[0][:, :1], of_x[1][:, :1]), (seen, *of_a))
    u = product((1.0, of_x[0][:, 1:], of_x[1][:, 1:]))
    mean = torch.nn.Sequential.forward(pair.model.decoders["x"], torch.cat([z[0], u[0]], 1))
    log_p = torch.distributions.Normal(mean, 0.3).log_prob(x).sum(1)
    logits = torch.nn.Sequential.forward(pair.model.decoders["a"], z[0])
    of_attribute = seen[:, 0] * cross_entropy(logits, a, reduction="none")
    expected = (-log_p + 7.0 * of_attribute + (1 + 0.5) * rate(z) + rate(u)).mean()
    if independence == "mmd":
        expected = expected + 4.0 * dependence(z[0], u[0])
    if independence == "total_correlation":
        q = torch.distributions.Normal(torch.cat([u[0], z[0]], 1), torch.cat([u[1], z[1]], 1).sqrt())
        expected = expected + 4.0 * total_correlation(q, q.loc, [[0, 1, 2], [3]], recipe.train_size)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_penalties_say_what_they_are():
    kinds = {"mmd": "surrogate", "total_correlation": "estimate", "mine": "estimate"}
    for independence, kind in kinds.items():
        recipe = fair(independence=independence, informative_weight=1.0)
        penalties = recipe.declare().penalties(recipe.programs().model, 100)
        assert {penalty.name: penalty.kind for penalty in penalties} == {"informative": "upper bound", "invariant": kind}


def test_training_never_sees_the_target():
    recipe = fair()
    assert recipe.source(CPU).batch(0, 4).keys() == {"x", "a"}
    assert recipe.splits[0].x.shape[1] == 8  # five numbers, and three regions
    assert fair(known=0.5).source(CPU).batch(0, 4).keys() == {"x", "a", "present"}


@pytest.mark.slow
def test_a_penalty_makes_a_code_that_tells_less(tmp_path):
    """The proxies of the group are left out of the code, and the groups' rates of favorable predictions come together."""
    settings = {"steps": 200, "batch_size": 128, "u_dim": 6, "hidden_dim": 32, "feature_scale": 0.3, "bias": 2.0}
    settings |= {"keep_best": False, "first_share": 1.0}
    free, bound = (
        trained(fair(**settings, independence=independence, independence_weight=30.0), tmp_path / independence).metrics
        for independence in ("none", "total_correlation")
    )
    assert bound["leakage"] < free["leakage"] - 0.04
    assert bound["demographic_parity"] < free["demographic_parity"] - 0.05
    assert bound["accuracy"] > 0.65


def test_traced_steps_learn_what_eager_ones_learn(tmp_path):
    traced, eager = (trained_state(fair(known=0.5), tmp_path / engine, engine) for engine in ("traced", "eager"))
    for name, value in traced.items():
        torch.testing.assert_close(value, eager[name], rtol=1e-3, atol=1e-5)


def test_metrics_are_those_of_a_classifier_on_the_code(tmp_path):
    recipe = fair()
    run = trained(recipe, tmp_path / "run")
    guide, metrics = run.pair().eval().guide, run.metrics
    train, held, test = recipe.splits
    with torch.no_grad():
        codes = [representation(guide, split.x) for split in recipe.splits]
    classifier = linear_classifier(torch.cat(codes[:2]), torch.cat([train.y, held.y]))
    expected = fairness_metrics(torch.as_tensor(classifier.predict(codes[2].numpy())), test.y, test.a)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert metrics["leakage"] == pytest.approx(leakage(codes[0], train.a, codes[2], test.a))
    share = test.a.double().mean().item()
    assert metrics["leakage_floor"] == pytest.approx(max(share, 1 - share))
    assert all(math.isfinite(value) for value in metrics.values())
    assert "validation_deo" not in trained(fair(held_out=0.0, keep_best=False), tmp_path / "all").metrics


def test_figures_and_samples(tmp_path):
    run = trained(fair(), tmp_path / "run")
    report = fair().report(run.pair().eval(), CPU)
    with torch.no_grad():
        assert [name for name, _ in report.figures(run.history)] == ["networks", "scores", "front", "loss"]
        assert [name for name, _ in report.figures([])] == ["networks", "scores"]
        drawn = report.sample(5, 0)
        assert {name: tuple(value.shape) for name, value in drawn.items()} == {"x": (5, 8), "a": (5, 2)}
        assert report.sample(2, 0, {"a": "B"})["a"].tolist() == [[0, 1]] * 2
    for given in ({"a": "C"}, {"x": "1"}):
        with pytest.raises(UsageError, match="there is n"):
            report.sample(1, 0, given)


def csv(folder, rows):
    (folder / "people.csv").write_text("age,job,sex,hired\n" + "\n".join(rows) + "\n")
    return str(folder / "people.csv")


def people(count=60):
    return [f"{20 + i},{('cook', 'clerk')[i % 3 == 0]},{'fm'[i % 2]},{('no', 'yes')[i // 2 % 2]}" for i in range(count)]


def test_a_table_of_ones_own(tmp_path):
    recipe = FairRecipe.preset("synthetic", data=csv(tmp_path, people()), target="hired", sensitive="sex", steps=5)
    fitted = recipe.fitted({"data", "target", "sensitive", "steps"})
    assert fitted.batch_size == fitted.train_size == 32
    fitted.prepare()
    assert set(trained(fitted, tmp_path / "run").metrics) >= {"accuracy", "deo", "leakage"}


def test_a_category_that_only_test_rows_have_is_said(tmp_path):
    rows = people()
    rows[7] = "27,pilot,m,yes"
    notes = {
        FairRecipe.preset("synthetic", data=csv(tmp_path, rows), target="hired", sensitive="sex", seed=seed, held_out=0.0).note
        for seed in range(12)
    }
    favorable = "Of 'hired', 'yes' is favorable."
    assert notes == {favorable, f"{favorable} Test rows with a category that no training row has: job (1)."}


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (people(), {"target": ""}, "--target must name a column"),
        (people(), {"sensitive": "race"}, "has no column 'race'"),
        (people(), {"target": "job2"}, "has no column 'job2'"),
        (people(), {"target": "sex"}, "--target and --sensitive are both 'sex'"),
        ([row.replace("yes", "no") for row in people()], {}, "must have two values, got 1"),
        ([row.replace("m,", "f,") for row in people()], {}, "must have two values, got 1"),
        (people(), {"target": "age"}, "must have two values, got 60"),
        ([], {}, "has no rows"),
        (people(20), {"batch_size": 100}, "--batch-size must be at most"),
    ],
)
def test_tables_that_do_not_serve(tmp_path, rows, changes, message):
    settings = {"data": csv(tmp_path, rows), "target": "hired", "sensitive": "sex", "held_out": 0.0, **changes}
    with pytest.raises(UsageError, match=message):
        FairRecipe.preset("synthetic", **settings).prepare()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"independence_weight": -1.0}, "--independence-weight must be at least 0"),
        ({"known": 1.5}, "--known must be"),
        ({"test_share": 1.0}, "--test-share must be"),
        ({"independence": "hsic"}, "--independence must be one of none, total_correlation, mine, mmd"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        fair(**changes)


def test_baselines_are_measured_on_the_same_rows():
    train, test = synthetic_table(rows=600, bias=2.0).split(seed=0, test_share=0.5)
    found = baselines(train, test)
    assert list(found) == ["Constant", "Logistic regression", "SVM", "MLP", "Reductions (fairlearn)"]
    assert found["Constant"]["deo"] == 0
    assert found["Logistic regression"]["accuracy"] > found["Constant"]["accuracy"] + 0.1
    assert 0.5 < found["Logistic regression"]["leakage"] <= 1
    assert found == baselines(train, test)


def test_the_weight_rises_once_the_representation_is_there():
    recipe = fair(steps=100, first_share=0.25)
    share = recipe.method.penalty_shares(100)["invariant"]
    assert [share(step) for step in (0, 30, 65, 100)] == pytest.approx([0.25, 0.25, 0.5, 1])
    assert fair(first_share=1.0).method.penalty_shares(100) == fair(independence="none").method.penalty_shares(100) == {}
    (share,) = [s for s in recipe.objectives(recipe.programs())[0].schedules if s.column == "share_invariant"]
    share.apply(65)
    assert share.current() == pytest.approx(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [0.0, 0.05, 1.0])
def test_the_representation_that_is_kept_is_the_best_on_held_out_rows(tmp_path, allowed):
    recipe = fair(steps=40, allowed_deo=allowed, validate_every=2)
    run = trained(recipe, tmp_path / "run")
    rows = [row for row in run.history if row["step"] >= 12 and not math.isnan(row.get("validation_deo", math.nan))]
    assert len(rows) == 15
    fair_ones = [row for row in rows if row["validation_deo"] <= allowed]
    if fair_ones:
        best = max(fair_ones, key=lambda row: row["validation_accuracy"])
    else:
        best = min(rows, key=lambda row: row["validation_deo"])
    assert run.step == best["step"]
    assert run.metrics["validation_deo"] == pytest.approx(best["validation_deo"])
    points = compared(recipe, run.history)
    assert list(points) == list(range(12, 41, 2))
    share = recipe.method.penalty_shares(40)["invariant"]
    assert points[26][0] == pytest.approx(recipe.method.independence_weight * share(25), rel=1e-6)


def test_the_table_says_at_which_weight_a_representation_was_kept(tmp_path):
    table = MIBTable3(preset="synthetic", seeds=(0,))
    assert [row.label for row in table.rows()] == ["OURS-MMD", "OURS-TC", "OURS-MINE"]
    row = table.rows()[2]
    recipe = FairRecipe.preset("synthetic", **{**FAIR, **row.fields, "steps": 10})
    run = trained(recipe, tmp_path / row.folder(0))
    references = {0: {"Constant": {"accuracy": 0.5, "deo": 0.0}}}
    text = table.render({"OURS-MINE": [run]}, references)
    assert f"| {compared(recipe, run.history)[run.step][0]:.0f}" in text
    assert "| Constant | 1 | 0.50 | 0 |" in text
    assert "| OURS-MMD | 0 | - |" in text
    assert "chosen on each split by the held-out rows" in text
    assert [name for name, _ in table.figures({"OURS-MINE": [run]}, references)] == ["front"]
    assert list(table.figures({}, {})) == []


def test_references_are_measured_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(MIBTable3, "references", lambda self, seed: calls.append(seed) or {"Constant": {"accuracy": 0.5}})
    table = MIBTable3(preset="synthetic")
    assert table.kept_references(0, tmp_path) == table.kept_references(0, tmp_path) == {"Constant": {"accuracy": 0.5}}
    assert calls == [0]
    file = tmp_path / "references-seed0.json"
    file.write_text(file.read_text().replace("0.5", "0.6"))  # its check sum shows it
    assert table.kept_references(0, tmp_path) == {"Constant": {"accuracy": 0.5}}
    MIBTable3(preset="synthetic", data="other.csv").kept_references(0, tmp_path)
    assert calls == [0, 0, 0]
