import dataclasses
import math
import os
from pathlib import Path

import numpy
import pyro
import pytest
import torch

from pyzoo.data.images import IMAGE_SETS, binarized, load_images
from pyzoo.errors import UsageError
from pyzoo.infer import log_likelihood
from pyzoo.plotting import figure_grid
from pyzoo.recipes import graph_vae_figures, graph_vae_metrics
from pyzoo.recipes import images as images_recipe
from pyzoo.recipes.graph_vae import FCVAE, VAE, GraphVAERecipe, LadderVAE
from pyzoo.recipes.graph_vae_tables import GraphVAETable1
from pyzoo.training import Hardware, RunFolder, Trainer
from tiny import graph, trained_state

CPU = torch.device("cpu")
KINDS = [GraphVAERecipe, FCVAE, LadderVAE, VAE]


def parameters(recipe):
    return sum(p.numel() for p in recipe.objectives()[0].module.parameters())


# The recipe -----------------------------------------------------------------------------------------------------------


def test_the_papers_preset_is_the_papers_setting():
    recipe = GraphVAERecipe.preset("paper")
    assert (recipe.batch_size, recipe.learning_rate, recipe.nodes, recipe.latent_dim) == (64, 1e-3, 5, 80)
    assert recipe.epoch(recipe.steps) == 2000
    objective = recipe.objectives()[0]
    step = 60_000 // 64
    rate = objective.scheduler.lr_lambdas[0]
    assert [rate(epoch * step) for epoch in (0, 199, 200, 400)] == pytest.approx([1, 1, 0.75, 0.75**2])
    temperature = objective.schedules["model.gates.temperature"]
    assert [temperature(epoch * step) for epoch in (0, 1, 100)] == pytest.approx([1, 0.99, 0.99**100])
    assert temperature(recipe.steps) == recipe.lowest_temperature
    assert objective.schedules["kl_weight_z_5"](0) == 1.0
    assert objective.after_step is None
    assert recipe.particles == 1
    assert parameters(recipe) == 1_812_874


@pytest.mark.parametrize(("data", "epochs"), [("omniglot", 2000), ("cifar10", 3000)])
def test_the_papers_presets_for_other_images(data, epochs):
    recipe = GraphVAERecipe.preset(f"paper-{data}")
    assert (recipe.data, recipe.batch_size, recipe.epoch(recipe.steps)) == (data, 64, epochs)
    row = next(row for row in GraphVAETable1(preset="paper", data=("mnist", data)).rows() if data in row.label)
    assert GraphVAETable1(preset="paper").recipe(row, 0).steps == recipe.steps


def test_the_plain_vae_has_as_many_parameters_as_fc_vae():
    for changes in ({}, {"nodes": 10}, {"data": "cifar10"}, {"widths": (40, 20), "hidden_dim": 8}):
        vae, full = (kind.preset("paper", **changes) for kind in (VAE, FCVAE))
        assert 0 <= parameters(vae) - parameters(full) < 0.01 * parameters(full)
    assert parameters(FCVAE.preset("paper", guide_gates="full")) == parameters(FCVAE.preset("paper"))


@pytest.mark.parametrize("kind", KINDS)
def test_structures_share_all_settings(kind):
    assert kind.preset().__dict__ == GraphVAERecipe.preset().__dict__
    gates = graph(kind).objectives()[0].module.model.gates
    possible = {"learned": 3, "full": 3, "chain": 2, "none": 0}[kind.structure]
    assert gates.possible.sum() == possible
    assert gates.learned == (kind is GraphVAERecipe)


def test_warmup_of_the_kls_ends_at_one():
    schedule = graph(warmup_steps=10).objectives()[0].schedules["kl_weight_z_2"]
    assert [schedule(step) for step in (0, 5, 10, 99)] == [0.0, 0.5, 1.0, 1.0]


def test_gates_have_a_learning_rate_of_their_own():
    optimizer = graph(gate_learning_rate=0.5).objectives()[0].optimizer
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 0.5]
    assert [p.shape for p in optimizer.param_groups[1]["params"]] == [(3,)]
    assert len(optimizer.param_groups[0]["params"]) == len(graph(FCVAE).objectives()[0].optimizer.param_groups[0]["params"])


def test_gates_settle_in_training():
    objective = graph(settle_margin=0.1).objectives()[0]
    gates = objective.module.model.gates
    with torch.no_grad():
        gates.logits[0] = 4.0
    objective.after_step()
    assert gates.settled.tolist() == [True, False, False]


def test_hard_gates_train(tmp_path):
    recipe = graph(gate_estimator="hard", particles=3, steps=4, gate_learning_rate=0.1)
    trainer = Trainer(recipe, RunFolder.create(tmp_path / "run", {}), Hardware("cpu"), progress=False)
    before = trainer.module.model.gates.logits.detach().clone()
    trainer.train()
    assert not torch.equal(trainer.module.model.gates.logits, before)


@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_resume_is_exact_and_engines_agree(tmp_path, engine):
    recipe = graph(settle_margin=0.4, gate_learning_rate=0.2, temperature_decay=0.9, warmup_steps=8, steps=12, batch_size=200)

    undisturbed = trained_state(recipe, tmp_path / "undisturbed", "eager")
    trained_state(dataclasses.replace(recipe, steps=5), tmp_path / "resumed", engine)
    resumed = trained_state(recipe, tmp_path / "resumed", engine)
    assert undisturbed["model.gates.settled"].any()
    assert [name for name, value in undisturbed.items() if not torch.equal(value, resumed[name])] == []


def test_validation_images_are_kept_from_training():
    recipe, test = graph(validation=True), graph()
    train, _ = load_images("digits", "train")
    held_out = len(train) // 6
    assert recipe.train_size == len(recipe.source(CPU).images) == len(train) - held_out
    x, labels = recipe.observed_images(CPU)
    assert len(x) == len(labels) == held_out
    assert torch.equal(x, binarized(train[-held_out:], seed=0))
    assert torch.equal(recipe.observed_images(CPU, training=True)[0], binarized(train[:-held_out], seed=0))
    assert len(test.observed_images(CPU)[0]) == IMAGE_SETS["digits"].test
    assert torch.equal(test.observed_images(CPU)[0], graph(seed=5).observed_images(CPU)[0])  # one test set for all runs
    names = recipe.evaluate(recipe.objectives()[0].module, CPU).keys()
    assert {"validation_elbo", "validation_kl", "validation_log_likelihood_quick"} <= names
    assert not {"test_elbo", "test_log_likelihood_quick"} & names


def test_a_data_folder_is_absolute_and_comes_back_from_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = graph(data_dir="files")
    assert recipe.data_dir == tmp_path / "files"
    assert graph(data_dir=str(recipe.data_dir)) == recipe


# Metrics --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained():
    torch.manual_seed(0)
    recipe = graph(settle_margin=0.1)
    module = recipe.objectives()[0].module
    with torch.no_grad():
        module.model.gates.logits.copy_(torch.tensor([2.0, -2.0, 1.0]))
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
    return recipe, module


def test_metrics_are_what_their_names_say(trained):
    recipe, module = trained
    x, _ = recipe.observed_images(CPU)
    found = recipe.evaluate(module, CPU)
    assert module.training
    module.eval()
    with torch.no_grad():
        terms = {name: torch.stack([module(x=x)[1][name] for _ in range(20)]) for name in ("x", "z_1", "z_2", "z_3")}
        quick = log_likelihood(module.model, module.guide, {"x": x}, 500).mean().item()
    total = sum(terms.values())
    assert found["test_elbo"] == pytest.approx(-total.mean().item(), abs=6 * total.std().item() + 0.01)
    kl = terms["z_1"] + terms["z_2"] + terms["z_3"]
    assert found["test_kl"] == pytest.approx(kl.mean().item(), abs=6 * kl.std().item() + 1e-3)
    assert found["test_kl"] == pytest.approx(sum(found[f"nats_z_{node}"] for node in (1, 2, 3)))
    assert found["test_log_likelihood_quick"] == pytest.approx(quick, abs=0.1)
    assert found["parameters"] == parameters(recipe)
    assert found["edges_kept"] == 2
    assert not any(name.endswith("_bpd") for name in found)


def test_evaluation_moves_nothing_and_is_repeatable(trained):
    recipe, module = trained
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()
    first = recipe.evaluate(module, CPU)
    assert torch.equal(torch.get_rng_state(), random)
    assert recipe.evaluate(module, CPU) == first
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_bits_per_dimension_of_a_density():
    # A density of 256 on each of D pixels, values in [0, 1], is one grey level known for sure: 0 bits.
    nats = 12 * math.log(256)
    assert graph_vae_metrics._bits("test_elbo", nats, 12) == pytest.approx(0)
    assert graph_vae_metrics._bits("test_elbo", 0.0, 12) == -8
    assert graph_vae_metrics._bits("test_kl", 12 * math.log(2), 12) == pytest.approx(1)


def test_colour_images(monkeypatch):
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(images_recipe, "load_images", lambda *arguments: (images, torch.arange(40) % 10))
    recipe = graph(data="cifar10", steps=2, batch_size=8)
    batch = recipe.source(CPU).batch(0, 8)
    assert batch["x"].shape == (8, 3, 32, 32)
    assert len(batch["x"].unique()) > 100
    module = recipe.objectives()[0].module
    loss, _ = module(**batch)
    assert torch.isfinite(loss)
    found = recipe.evaluate(module, CPU)
    assert found["test_elbo_bpd"] == pytest.approx(found["test_elbo"] / (3072 * math.log(2)) - 8)
    names = [
        name for name, _ in recipe.figures(module, CPU, [{"step": 1, "x": 1.0, "z_1": 1.0, "z_2": 1.0, "z_3": 1.0, **GATES}])
    ]
    assert "reconstructions" in names


GATES = {"gate_2_1": 0.5, "gate_3_1": 0.5, "gate_3_2": 0.5}


def test_ten_nodes_have_figures():
    recipe = graph(nodes=10, latent_dim=10, steps=2)
    module = recipe.objectives()[0].module
    row = {"step": 1, "x": 1.0, **{f"z_{n}": 1.0 for n in range(1, 11)}, **recipe.monitor(module, CPU, 1)}
    assert len(dict(recipe.figures(module, CPU, [row]))) == 6


def test_a_fixed_binarisation_is_measured_as_it_was_trained_on():
    recipe = graph(binarize="fixed", seed=3)
    assert torch.equal(recipe.observed_images(CPU, training=True)[0], recipe.source(CPU).images.float())


@pytest.mark.skipif("PYZOO_DATA" not in os.environ, reason="no real files: PYZOO_DATA is not set")
def test_real_colour_images(monkeypatch):
    path = Path(os.environ["PYZOO_DATA"]) / "cifar10-subset" / "cifar10_lossless_5k.npz"
    if not path.exists():
        pytest.skip("no lossless CIFAR-10 images")
    with numpy.load(path) as arrays:
        images = torch.from_numpy(arrays["train_images"][:600]).permute(0, 3, 1, 2).contiguous()
    monkeypatch.setattr(images_recipe, "load_images", lambda *arguments: (images, torch.zeros(len(images))))
    torch.manual_seed(0)
    recipe = graph(data="cifar10", batch_size=50, widths=(64, 64), hidden_dim=16, latent_dim=12)
    objective, source = recipe.objectives()[0], recipe.source(CPU)
    losses = []
    for step in range(60):
        objective.optimizer.zero_grad()
        loss, _ = objective.module(**source.batch(step, 50))
        loss.backward()
        objective.optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10]) - 10 * 1000  # nats of 3,072 pixels


def test_monitor(trained):
    recipe, module = trained
    found = recipe.monitor(module, CPU, 5)
    assert found == pytest.approx({"gate_2_1": 0.8808, "gate_3_1": 0.1192, "gate_3_2": 0.7311}, abs=1e-4)
    assert recipe.monitor(module, CPU, 10)["log_likelihood"] < 0
    assert module.training


def test_generated_images_are_drawn_from_their_means(trained):
    _, module = trained
    samples = images_recipe.generate(module, 400)
    assert set(samples["x"].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(samples["x"].mean(0), samples["mean"].mean(0), atol=0.15, rtol=0)


# Figures and tables ---------------------------------------------------------------------------------------------------


def test_latent_means_are_each_nodes_given_its_parents_means(trained):
    recipe, module = trained
    x = recipe.observed_images(CPU)[0][:4]
    means = graph_vae_figures._latent_means(module, x)
    assert means.shape == (4, 6)
    module.eval()
    fixed = {f"z_{node + 1}": block for node, block in enumerate(means.split(2, -1))}
    nodes = pyro.poutine.trace(pyro.condition(module.guide, fixed)).get_trace(x=x).nodes
    for name, value in fixed.items():
        torch.testing.assert_close(nodes[name]["fn"].mean, value)


def test_likelihood_over_training_draws_what_is_there():
    runs = {
        "a": [[{"step": 1, "log_likelihood": -9.0}, {"step": 2, "log_likelihood": -5.0}], [{"step": 1, "log_likelihood": -7.0}]]
    }
    figure = graph_vae_figures.likelihood_over_training(runs, "title")
    (line,) = figure.axes[0].lines
    assert line.get_ydata() == [-8.0]  # where all runs of the row have been
    assert type(figure) is type(figure_grid(1, 1, "")[0])


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
    assert (recipe.steps, recipe.seed, recipe.data, type(recipe)) == (77, 3, "mnist", VAE)


def test_a_batch_larger_than_the_data():
    with pytest.raises(UsageError, match=r"--batch-size must be .* at most 1437"):
        graph(batch_size=1438)
