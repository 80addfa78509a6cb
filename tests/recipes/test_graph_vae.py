import dataclasses
import math
import os
from pathlib import Path

import numpy
import pyro
import pytest
import torch

from pyzoo.data.images import binarized, load_images
from pyzoo.errors import UsageError
from pyzoo.evaluation import generate
from pyzoo.infer import NegativeELBO, log_likelihood
from pyzoo.plotting import figure_grid
from pyzoo.recipes.graph_vae.figures import latent_means, likelihood_by_division, likelihood_over_training, monitored
from pyzoo.recipes.graph_vae.recipe import FCVAE, GraphVAERecipe, LadderVAE, PlainVAE
from pyzoo.recipes.graph_vae.report import bits_per_dimension
from pyzoo.recipes.graph_vae.tables import GraphVAEFigure4, GraphVAEGates, GraphVAETable1
from pyzoo.settings import flat
from pyzoo.training import Hardware, Run
from tiny import blank, graph, state_of, trained_state, trainer_of

CPU = torch.device("cpu")
KINDS = [GraphVAERecipe, FCVAE, LadderVAE, PlainVAE]


def parts(recipe):
    """Pair, objective, optimizer and scheduler."""
    pair = recipe.programs()
    (objective,) = recipe.objectives(pair)
    optimizer = objective.optimizer(objective.groups)
    return pair, objective, optimizer, objective.scheduler(optimizer)


def schedule(objective, column):
    return next(schedule.value for schedule in objective.schedules if schedule.column == column)


# The recipe -----------------------------------------------------------------------------------------------------------


def test_the_papers_preset_is_the_papers_setting(images_are):
    images_are(blank(60_000))
    recipe = GraphVAERecipe.preset("paper")
    assert (recipe.batch_size, recipe.learning_rate, recipe.networks.nodes, recipe.networks.latent_dim) == (64, 1e-3, 5, 80)
    assert recipe.epoch(recipe.steps) == 2000
    pair, objective, _, scheduler = parts(recipe)
    step = 60_000 // 64
    rate = scheduler.lr_lambdas[0]
    assert [rate(epoch * step) for epoch in (0, 199, 200, 400)] == pytest.approx([1, 1, 0.75, 0.75**2])
    temperature = schedule(objective, "temperature")
    assert [temperature(epoch * step) for epoch in (0, 1, 100)] == pytest.approx([1, 0.99, 0.99**100])
    assert temperature(recipe.steps) == recipe.lowest_temperature
    assert schedule(objective, "kl_weight")(0) == 1.0
    assert objective.after_step is None
    assert recipe.particles == 1
    assert (recipe.held_out, recipe.held_out_size) == (0.0, 0)
    assert pair.num_parameters == 1_812_874


@pytest.mark.parametrize(
    ("preset", "data", "epochs", "images"),
    [
        ("paper-omniglot", "omniglot", 2000, blank(19_280)),
        ("paper-omniglot-drawers", "omniglot-drawers", 2000, blank(24_345)),
        ("paper-cifar10", "cifar10", 3000, blank(50_000, (3, 32, 32))),
    ],
)
def test_the_papers_presets_for_other_images(images_are, preset, data, epochs, images):
    images_are(images)
    recipe = GraphVAERecipe.preset(preset)
    assert (recipe.data, recipe.batch_size, recipe.epoch(recipe.steps)) == (data, 64, epochs)
    assert GraphVAERecipe.preset("paper", data=data) == recipe
    row = next(row for row in GraphVAETable1(preset="paper", data=("mnist", data)).rows() if data in row.label)
    assert GraphVAETable1(preset="paper").recipe(row, 0).steps == recipe.steps


@pytest.mark.parametrize(("preset", "held_out", "share"), [("small", 1200, 0.02), ("digits", 144, 0.1)])
def test_short_presets_hold_out_a_share_for_their_curves(images_are, preset, held_out, share):
    images_are(blank({"small": 60_000, "digits": 1437}[preset]))
    for kind in KINDS:
        recipe = kind.preset(preset)
        assert (recipe.held_out, recipe.held_out_size) == (share, held_out)


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({}, (1, 28, 28)),
        ({"nodes": 10}, (1, 28, 28)),
        ({}, (3, 32, 32)),
        ({"widths": (40, 20), "hidden_dim": 8}, (1, 28, 28)),
    ],
)
def test_the_plain_vae_has_as_many_parameters_as_fc_vae(images_are, changes, shape):
    images_are(blank(100, shape))
    with torch.device("meta"):
        vae, full = (kind.preset("paper", **changes).programs().num_parameters for kind in (PlainVAE, FCVAE))
        assert 0 <= vae - full < 0.01 * full
        assert FCVAE.preset("paper", guide_gates="full", **changes).programs().num_parameters == full


@pytest.mark.parametrize(
    ("kind", "possible"), list(zip(KINDS, (3, 3, 2, 0), strict=True)), ids=["learned", "full", "chain", "none"]
)
def test_structures_share_all_settings(kind, possible):
    ours, theirs = flat(kind.preset()), flat(GraphVAERecipe.preset())
    assert {name for name in ours if ours[name] != theirs[name]} == ({"structure"} if kind is not GraphVAERecipe else set())
    gates = graph(kind).programs().model.gates
    assert gates.possible.sum() == possible
    assert gates.learned == (kind is GraphVAERecipe)


def test_warmup_of_the_kls_ends_at_one():
    _, objective, _, _ = parts(graph(warmup_steps=10))
    value = schedule(objective, "kl_weight")
    assert [value(step) for step in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]
    (warmup,) = (schedule for schedule in objective.schedules if schedule.column == "kl_weight")
    warmup.apply(5)
    assert [objective.module.get_buffer(f"kl_weight_z_{node}").item() for node in (1, 2, 3)] == [0.5] * 3


def test_gates_have_a_learning_rate_of_their_own():
    _, _, optimizer, _ = parts(graph(gate_learning_rate=0.5))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 0.5]
    assert [p.shape for p in optimizer.param_groups[1]["params"]] == [(3,)]
    _, _, fixed, _ = parts(graph(FCVAE))
    assert [len(group["params"]) for group in fixed.param_groups] == [len(optimizer.param_groups[0]["params"])]


def test_gates_settle_in_training():
    pair, objective, _, _ = parts(graph(settle_margin=0.1))
    with torch.no_grad():
        pair.model.gates.logits[0] = 4.0
    objective.after_step(torch.tensor(0.0), {})
    assert pair.model.gates.settled.tolist() == [True, False, False]


def test_hard_gates_train(tmp_path):
    recipe = graph(gate_estimator="hard", particles=3, steps=4, gate_learning_rate=0.1)
    trainer = trainer_of(recipe, tmp_path / "run")
    before = trainer.pair.model.gates.logits.detach().clone()
    trainer.train()
    assert not torch.equal(trainer.pair.model.gates.logits, before)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (GraphVAERecipe, {"gate_estimator": "hard"}, "--particles must be at least 2 with --gate-estimator hard, got 1"),
        (FCVAE, {"gate_estimator": "hard"}, "--gate-estimator must be relaxed where no gate is learned, got hard"),
        (GraphVAERecipe, {"batch_size": 1}, "--batch-size must be at least 2, for batch norm, got 1"),
        (GraphVAERecipe, {"nodes": 4}, "--latent-dim must be a multiple of --nodes 4, got 6"),
        (GraphVAERecipe, {"held_out": 1.0}, "--held-out must be at least 0 and below 1, got 1.0"),
        (GraphVAERecipe, {"settle_margin": 0.5}, "--settle-margin must be at least 0 and below 0.5, got 0.5"),
        (GraphVAERecipe, {"structure": "tree"}, "--structure must be one of learned, full, chain, none, got tree"),
    ],
)
def test_settings_that_are_not_allowed(kind, changes, message):
    with pytest.raises(UsageError) as caught:
        graph(kind, **changes)
    assert str(caught.value) == message


def test_a_batch_larger_than_the_data():
    with pytest.raises(UsageError, match="--batch-size must be at most 1437, the number of images to train on"):
        graph(batch_size=1438, held_out=0.0).prepare()
    with pytest.raises(UsageError, match="--batch-size must be at most 1293"):
        graph(batch_size=1294).prepare()


def test_resume_is_exact_and_engines_agree(tmp_path):
    recipe = graph(settle_margin=0.4, gate_learning_rate=0.2, temperature_decay=0.9, warmup_steps=8, steps=12, batch_size=200)
    undisturbed = trained_state(recipe, tmp_path / "undisturbed", "eager")
    assert undisturbed["model.gates.settled"].any()
    for engine in ("eager", "traced"):
        trained_state(dataclasses.replace(recipe, steps=5), tmp_path / engine, engine)
        resumed = trained_state(recipe, tmp_path / engine, engine)
        assert [name for name, value in undisturbed.items() if not torch.equal(value, resumed[name])] == []


# Data -----------------------------------------------------------------------------------------------------------------


def test_validation_images_are_kept_from_training():
    recipe, test = graph(validation=True, held_out=0.0), graph(held_out=0.0)
    train, train_labels = load_images("digits", "train")
    held_out = len(train) // 6
    assert recipe.train_size == len(recipe.source(CPU).images) == len(train) - held_out
    images, labels = recipe.measured_images()
    assert torch.equal(images, train[-held_out:])
    assert torch.equal(labels, train_labels[-held_out:])
    assert torch.equal(recipe.observed(images), binarized(train[-held_out:], seed=0))
    assert torch.equal(recipe.observed_training_images(), binarized(train[:-held_out], seed=0))
    assert torch.equal(test.measured_images()[0], load_images("digits", "test")[0])
    x = [recipe.observed(recipe.measured_images()[0]) for recipe in (test, graph(seed=5))]
    assert torch.equal(*x)  # one test set for all runs
    names = recipe.report(recipe.programs().eval(), CPU).metrics().keys()
    assert {"validation_elbo", "validation_kl", "validation_log_likelihood_quick"} <= names
    assert not {"test_elbo", "test_log_likelihood_quick"} & names


def test_the_held_out_share_is_never_trained_on_nor_tested_on():
    recipe = graph(held_out=0.1)
    train, _ = load_images("digits", "train")
    assert recipe.held_out_size == 144
    assert torch.equal(recipe.held_out_images()[0], train[-144:])
    assert torch.equal(recipe.training_images()[0], train[:-144])
    assert torch.equal(recipe.measured_images()[0], load_images("digits", "test")[0])
    report = recipe.report(recipe.programs().eval(), CPU)
    assert torch.equal(report.held_out, binarized(train[-144:], seed=0))
    assert torch.equal(report.trained_on, binarized(train[:-144], seed=0))
    with pytest.raises(UsageError, match=r"--held-out 0\.0001 holds out none of the 1437 training images"):
        _ = graph(held_out=1e-4).train_size


def test_a_data_folder_is_absolute_and_comes_back_from_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = graph(data_dir="files")
    assert recipe.data_dir == tmp_path / "files"
    assert graph(data_dir=str(recipe.data_dir)) == recipe
    assert graph(data="mine.npz").data == str(tmp_path / "mine.npz")


def test_a_named_set_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "photos"):
        (tmp_path / name).mkdir()
    assert graph(data="digits").data == "digits"
    assert graph(data="photos").data == str(tmp_path / "photos")


def test_a_fixed_binarization_is_measured_as_it_was_trained_on():
    recipe = graph(binarize="fixed", seed=3)
    assert torch.equal(recipe.observed_training_images(), recipe.source(CPU).images.float())


def test_notes_say_how_images_became_binary(images_are):
    assert "binarized once by a fixed seed" in graph().note
    images_are(blank(20, (3, 8, 8)))
    assert "binarized" not in graph().note


# What is measured -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    """Of a model whose gates and running averages are not what they are at first."""
    torch.manual_seed(0)
    recipe = graph(settle_margin=0.1)
    pair = recipe.programs()
    with torch.no_grad():
        pair.model.gates.logits.copy_(torch.tensor([2.0, -2.0, 1.0]))
        for name, buffer in NegativeELBO(*pair).named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
    return recipe.report(pair.eval(), CPU)


@pytest.fixture(scope="module")
def metrics(report):
    torch.manual_seed(1)
    return report.metrics()


@torch.no_grad()
def test_metrics_are_what_their_names_say(report, metrics):
    x, _ = report.measured
    module = NegativeELBO(*report.pair).eval()
    terms = {name: torch.stack([module(x=x)[1][name] for _ in range(20)]) for name in ("x", "z_1", "z_2", "z_3")}
    quick = log_likelihood(*report.pair, {"x": x}, 500).mean().item()
    total = sum(terms.values())
    assert metrics["test_elbo"] == pytest.approx(-total.mean().item(), abs=6 * total.std().item() + 0.01)
    kl = terms["z_1"] + terms["z_2"] + terms["z_3"]
    assert metrics["test_kl"] == pytest.approx(kl.mean().item(), abs=6 * kl.std().item() + 1e-3)
    assert metrics["test_kl"] == pytest.approx(sum(metrics[f"nats_z_{node}"] for node in (1, 2, 3)))
    assert metrics["test_log_likelihood_quick"] == pytest.approx(quick, abs=0.1)
    assert metrics["parameters"] == report.pair.num_parameters
    assert metrics["edges_kept"] == 2
    assert not any(name.endswith("_bpd") for name in metrics)


def test_metrics_follow_from_the_seed_and_move_nothing(report, metrics):
    before = {name: value.clone() for name, value in report.pair.model.state_dict().items()}
    torch.manual_seed(1)
    assert report.metrics() == metrics
    assert all(torch.equal(before[name], value) for name, value in report.pair.model.state_dict().items())


def test_full_metrics_take_more_samples(report, metrics, monkeypatch):
    taken = []

    def likelihood(model, guide, batch, num_samples, max_rows):
        taken.append((len(batch["x"]), num_samples))
        return -1.0

    monkeypatch.setattr("pyzoo.recipes.graph_vae.report.mean_log_likelihood", likelihood)
    found = report.metrics(full=True)
    assert taken == [(360, 500), (360, 5000)]
    assert found.keys() - metrics.keys() == {"test_log_likelihood"}


def test_bits_per_dimension_of_a_density():
    # A density of 256 on each of D pixels, values in [0, 1], is one gray level known for sure: 0 bits.
    nats = 12 * math.log(256)
    assert bits_per_dimension("test_elbo", nats, 12) == pytest.approx(0)
    assert bits_per_dimension("test_elbo", 0.0, 12) == -8
    assert bits_per_dimension("test_kl", 12 * math.log(2), 12) == pytest.approx(1)


GATES = {"gate_2_1": 0.5, "gate_3_1": 0.5, "gate_3_2": 0.5}


def test_color_images(images_are):
    images_are(torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    recipe = graph(data="cifar10", steps=2, batch_size=8)
    batch = recipe.source(CPU).batch(0, 8)
    assert batch["x"].shape == (8, 3, 32, 32)
    assert len(batch["x"].unique()) > 100
    pair, objective, _, _ = parts(recipe)
    loss, _ = objective.module(**batch)
    assert torch.isfinite(loss)
    report = recipe.report(pair.eval(), CPU)
    found = report.metrics()
    assert found["test_elbo_bpd"] == pytest.approx(found["test_elbo"] / (3072 * math.log(2)) - 8)
    names = [name for name, _ in report.figures([{"step": 1, "x": 1.0, "z_1": 1.0, "z_2": 1.0, "z_3": 1.0, **GATES}])]
    assert "reconstructions" in names


@pytest.mark.skipif("PYZOO_DATA" not in os.environ, reason="no real files: PYZOO_DATA is not set")
def test_real_color_images(images_are):
    path = Path(os.environ["PYZOO_DATA"]) / "cifar10-subset" / "cifar10_lossless_5k.npz"
    if not path.exists():
        pytest.skip("no lossless CIFAR-10 images")
    with numpy.load(path) as arrays:
        images_are(torch.from_numpy(arrays["train_images"][:600]).permute(0, 3, 1, 2).contiguous())
    torch.manual_seed(0)
    recipe = graph(data="cifar10", batch_size=50, widths=(64, 64), hidden_dim=16, latent_dim=12)
    _, objective, optimizer, _ = parts(recipe)
    source = recipe.source(CPU)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        loss, _ = objective.module(**source.batch(step, 50))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10]) - 10 * 1000  # nats of 3,072 pixels


def test_columns_of_the_curves(report):
    found = report.monitor(5)
    assert found == pytest.approx({"gate_2_1": 0.8808, "gate_3_1": 0.1192, "gate_3_2": 0.7311}, abs=1e-4)
    held_out = report.validate(10)
    assert held_out.keys() == {"held_out_elbo", "log_likelihood"}
    assert held_out["held_out_elbo"] < held_out["log_likelihood"] < 0
    assert graph(FCVAE).report(graph(FCVAE).programs().eval(), CPU).monitor(5) == {}


def test_curves_are_measured_now_and_then_on_held_out_images_alone(tmp_path, monkeypatch):
    seen = []

    def likelihood(model, guide, batch, *arguments):
        seen.append(batch["x"])
        return -1.0

    monkeypatch.setattr("pyzoo.recipes.graph_vae.report.mean_log_likelihood", likelihood)
    trainer = trainer_of(graph(), tmp_path / "run")
    trainer.train()
    rows = trainer.run.metrics()
    assert [row["step"] for row in monitored(rows)] == [10, 20, 30]
    assert {"held_out_elbo", "log_likelihood", "temperature", "kl_weight", *GATES} <= rows[0].keys()
    held_out = binarized(load_images("digits", "train")[0][-144:], seed=0)
    assert len(seen) == 3
    assert all(torch.equal(x, held_out) for x in seen)
    state = state_of(trainer)
    assert all(torch.isfinite(value).all() for value in state.values())


def test_generated_images_are_drawn_from_their_means(report):
    samples = generate(report.pair.model, size=400)
    assert set(samples["x"].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(samples["x"].mean(0), samples["mean"].mean(0), atol=0.15, rtol=0)


def test_there_is_nothing_to_condition_on(report):
    assert report.sample(3, seed=0)["x"].shape == (3, 1, 28, 28)
    with pytest.raises(UsageError, match="there is nothing 'label' to condition on: graph-vae draws images without conditions"):
        report.sample(3, seed=0, given={"label": 3})


# Figures and tables ---------------------------------------------------------------------------------------------------


def test_ten_nodes_have_figures():
    recipe = graph(nodes=10, latent_dim=10, steps=2)
    report = recipe.report(recipe.programs().eval(), CPU)
    row = {"step": 1, "x": 1.0, **{f"z_{n}": 1.0 for n in range(1, 11)}, **report.monitor(1), "log_likelihood": -9.0}
    found = dict(report.figures([row]))
    names = {"figure3a_gates", "figure3b_graph", "figure5_likelihood", "figure6_embeddings"}
    assert found.keys() == names | {"reconstructions", "samples", "loss"}


def test_latent_means_are_each_nodes_given_its_parents_means(report):
    x = report.measured[0][:4]
    means = latent_means(report, x)
    assert means.shape == (4, 6)
    fixed = {f"z_{node + 1}": block for node, block in enumerate(means.split(2, -1))}
    nodes = pyro.poutine.trace(pyro.condition(report.pair.guide, fixed)).get_trace(x=x).nodes
    for name, value in fixed.items():
        torch.testing.assert_close(nodes[name]["fn"].mean, value)


def test_likelihood_over_training_draws_what_is_there():
    runs = {
        "a": [[{"step": 1, "log_likelihood": -9.0}, {"step": 2, "log_likelihood": -5.0}], [{"step": 1, "log_likelihood": -7.0}]]
    }
    figure = likelihood_over_training(runs, "title")
    (line,) = figure.axes[0].lines
    assert line.get_ydata() == [-8.0]  # where all runs of the row have been
    assert type(figure) is type(figure_grid(1, 1, "")[0])


def test_likelihood_by_division_has_a_line_for_each_m():
    figure = likelihood_by_division({40: {8: [-90.0, -91.0], 40: [-95.0]}, 80: {8: [-89.0]}}, "title")
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[-90.5, -95.0], [-89.0]]


def test_rows_of_table_1():
    rows = GraphVAETable1(data=("mnist", "cifar10")).rows()
    assert len(rows) == 8
    assert len({row.folder(0) for row in rows}) == 8
    assert rows[3].paper == {
        "test_log_likelihood": "-82.58 ± 0.08",
        "test_kl": "22.49 ± 0.10",
        "test_elbo": "-88.35 ± 0.14",
    }
    assert rows[4].paper["test_log_likelihood_bpd"] == "-6.37 ± Δ"
    recipe = GraphVAETable1(steps=77).recipe(rows[0], seed=3)
    assert (recipe.steps, recipe.seed, recipe.data, type(recipe)) == (77, 3, "mnist", PlainVAE)
    open_guide = GraphVAETable1(open_guide=True).rows()[-1]
    assert GraphVAETable1().recipe(open_guide, 0).networks.guide_gates == "full"
    assert open_guide.paper == {"test_log_likelihood": "-83.40"}


def test_rows_of_figure_4():
    table = GraphVAEFigure4(preset="digits", latent_dims=(4, 8), nodes=(1, 2))
    recipes = [table.recipe(row, 0) for row in table.rows()]
    assert [(recipe.networks.latent_dim, recipe.networks.nodes) for recipe in recipes] == [(4, 1), (4, 2), (8, 1), (8, 2)]
    assert {recipe.data for recipe in recipes} == {"digits"}
    with pytest.raises(UsageError, match="--latent-dims 4 can't be divided into --nodes 3"):
        GraphVAEFigure4(latent_dims=(4,), nodes=(3,))
    with pytest.raises(UsageError, match="--nodes must be one or more, and different"):
        GraphVAEFigure4(nodes=(2, 2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    run = Run.create(graph(steps=10), "digits", Hardware("cpu"), path)
    return run.train(progress=False, figures=False)


def test_a_run_ends_in_tables_and_figures(finished):
    table = GraphVAETable1(preset="digits", seeds=(0,))
    runs = {row.label: [finished] for row in table.rows()}
    rendered = table.render(runs)
    elbo = f"{finished.metrics['test_elbo']:,.2f}"
    assert rendered.count(elbo) == 4
    assert "Graph VAE, digits" in rendered
    assert "binarized once by a fixed seed" in rendered
    assert [name for name, _ in table.figures(runs, {})] == ["figure5_digits"]
    division = GraphVAEFigure4(preset="digits", latent_dims=(4,), nodes=(1, 2), seeds=(0,))
    runs = {row.label: [finished] for row in division.rows()}
    assert [name for name, _ in division.figures(runs, {})] == ["figure4_divisions"]
    assert list(division.figures({}, {})) == []
    assert "| M = 4, N = 2, N' = 2 | 0 |" in division.render({})


def test_the_table_of_what_closes_gates(finished):
    table = GraphVAEGates(preset="digits", seeds=(0,), edge_costs=(0.2,))
    recipes = {row.label: table.recipe(row, 0) for row in table.rows()}
    assert recipes["an edge costs 0.2 nats"].networks.edge_cost == 0.2
    assert recipes["no warm-up, an edge costs 0.2 nats"].warmup_steps == 0
    as_published = recipes["no warm-up, the paper's settings of the gates"]
    paper = GraphVAERecipe.preset("paper")
    for name in ("warmup_steps", "gate_learning_rate", "settle_margin", "temperature_decay"):
        assert getattr(as_published, name) == getattr(paper, name)
    runs = {row.label: [finished, finished] for row in table.rows()}
    [(name, figure)] = table.figures(runs, {})
    assert name == "gates"
    assert len(figure.axes[0].lines) == len(recipes)
    assert list(table.figures({row.label: [] for row in table.rows()}, {})) == []
    with pytest.raises(UsageError, match="--preset must be one that warms up the KLs"):
        GraphVAEGates(preset="paper")
    with pytest.raises(UsageError, match="--edge-costs must be positive"):
        GraphVAEGates(edge_costs=(0.0,))
