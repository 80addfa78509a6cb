import dataclasses
import json
import math
import shutil

import pytest
import torch
from matplotlib.figure import Figure
from pyro.infer import Trace_ELBO

import pyzoo
from pyzoo.errors import UsageError
from pyzoo.models.compvae import SinesNetworks
from pyzoo.recipes.compvae.recipe import CompVAEColors, CompVAESines
from pyzoo.recipes.graph_vae.recipe import GraphVAERecipe
from pyzoo.settings import changed
from pyzoo.training import Busy, Hardware, NonFiniteLoss, Run, RunFolder
from pyzoo.training.run import FORMAT, run_name
from tiny import SINES, colors, graph, sines

pytestmark = pytest.mark.usefixtures("quick_figures")

CPU = Hardware("cpu")
QUICK = {"progress": False, "evaluate": False, "figures": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of sines that kept its best checkpoint, measured and drawn."""
    lines = []
    path = tmp_path_factory.mktemp("runs") / "trained"
    run = Run.create(sines(keep_best=True), "small", CPU, path, lines.append).train(progress=False)
    run.lines = lines
    return run


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "copy")
    return tmp_path / "copy"


def edit(path, change):
    file = path / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


# Its name -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "preset", "name"),
    [
        (CompVAESines.preset(), "small", "compvae-sines-small-seed0"),
        (CompVAESines.preset(seed=3, parts=6), "small", "compvae-sines-small-parts6-seed3"),
        (CompVAESines.preset("paper"), "paper", "compvae-sines-paper-seed0"),
        (CompVAESines.preset(graph_widths=(64, 32)), "small", "compvae-sines-small-graph-widths64x32-seed0"),
        (CompVAESines.preset(relative_guide=False), "small", "compvae-sines-small-relative-guide-off-seed0"),
        (CompVAESines.preset(log_every=7, checkpoint_seconds=1.0), "small", "compvae-sines-small-seed0"),
        (GraphVAERecipe.preset("digits", nodes=4), "digits", "graph-vae-digits-nodes4-seed0"),
        (GraphVAERecipe.preset("paper", data="omniglot"), "paper", "graph-vae-paper-data-omniglot-seed0"),
        (GraphVAERecipe.preset("paper-omniglot"), "paper-omniglot", "graph-vae-paper-omniglot-seed0"),
        (
            GraphVAERecipe.preset("paper", data="omniglot", steps=7),
            "paper",
            "graph-vae-paper-steps7-data-omniglot-seed0",
        ),
        (GraphVAERecipe.preset("small", data="/some/where/my photos.npz"), "small", "graph-vae-small-data-my-photos-seed0"),
        (GraphVAERecipe.preset("small", data="torchvision:KMNIST"), "small", "graph-vae-small-data-torchvision-KMNIST-seed0"),
        (GraphVAERecipe.preset("digits").sized(), "digits", "graph-vae-digits-seed0"),
    ],
)
def test_a_name_says_what_differs_from_the_preset(recipe, preset, name):
    assert run_name(recipe, preset) == name


def test_a_long_name_keeps_its_seed():
    recipe = dataclasses.replace(GraphVAERecipe.preset(), seed=7, data="/x/" + "a" * 300)
    name = run_name(recipe, "small")
    assert len(name) <= 200
    assert name.endswith("-seed7")


# Made and read --------------------------------------------------------------------------------------------------------


def test_a_config_holds_everything(trained):
    config = json.loads((trained.path / "config.json").read_text())
    assert config["format"] == FORMAT
    assert (config["recipe"], config["preset"]) == ("compvae-sines", "small")
    assert config["settings"]["parts"] == 3
    assert config["networks"]["class"] == "pyzoo.models.compvae:SinesNetworks"
    assert config["networks"]["graph_widths"] == [8]
    assert config["hardware"]["device"] == "cpu"
    assert torch.__version__.startswith(config["versions"]["torch"])
    assert not config["settings"].keys() & config["networks"].keys()  # each setting once
    assert trained.recipe == sines(keep_best=True)
    assert trained.networks == sines().networks
    assert trained.hardware == dataclasses.replace(CPU, threads=1)  # the number that it was trained with
    assert repr(trained) == f"Run({str(trained.path)!r})"


def test_the_model_is_rebuilt_without_the_recipe(copied):
    edit(copied, lambda config: config.update(recipe="of-another-package"))
    for file in (copied / "checkpoints").iterdir():
        state = torch.load(file, weights_only=True)
        torch.save({**state, "recipe": "of-another-package"}, file)
    run = Run(copied)
    assert run.networks == SinesNetworks(**{name: SINES[name] for name in SINES if hasattr(SinesNetworks, name)})
    x = run.model(parts=torch.tensor([[0, 2]]))
    assert x.shape == (1, 200)
    with pytest.raises(UsageError, match="does not describe a run of an installed recipe: unknown recipe 'of-another-package'"):
        _ = run.recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("format"), "is of format 1, this version reads format 2: train it again"),
        (lambda config: config.update(format=99), "is of format 99, this version reads format 2: train it again"),
        (lambda config: config.pop("recipe"), "has no 'recipe'"),
        (lambda config: config.pop("preset"), "has no 'preset'"),
        (lambda config: config.update(settings=3), "'settings' must hold values by name, got 3"),
        (lambda config: config["settings"].update(steps=30.5), "'steps' must be a whole number, got 30.5"),
        (lambda config: config["settings"].update(steps=True), "'steps' must be a whole number, got True"),
        (lambda config: config["settings"].update(seed={}), "'seed' must be a whole number, got {}"),
        (lambda config: config["settings"].pop("seed"), "has no 'seed'"),
        (lambda config: config.pop("networks"), "has no 'networks'"),
        (lambda config: config["networks"].update({"class": "os:path"}), "'os:path' is not a class of networks"),
        (lambda config: config["networks"].update({"class": "nowhere:X"}), "'nowhere:X' is in no package with recipes"),
        (lambda config: config["networks"].update({"class": "pyzoo.nowhere:X"}), "there are no networks 'pyzoo.nowhere:X'"),
        (lambda config: config["networks"].update({"class": ".pyzoo.models.tvae:X"}), "there are no networks"),
        (lambda config: config["networks"].update({"class": "this:d"}), "'this:d' is in no package with recipes"),
        (lambda config: config["networks"].update(w_dim=0), "--w-dim must be at least 1, got 0"),
        (lambda config: config["networks"].update(width=3), "there is no setting 'width'"),
        (lambda config: config["networks"].pop("w_dim"), "the setting 'w_dim' is missing"),
        (lambda config: config["hardware"].update(device=3), "--device must be a text, got 3"),
        (lambda config: config["hardware"].pop("device"), "the setting 'device' is missing"),
    ],
)
def test_a_config_that_describes_no_run_is_said_in_one_line(copied, change, message):
    run = Run(copied)
    edit(copied, change)
    with pytest.raises(UsageError) as caught:
        Run(copied)
    assert message in str(caught.value)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError) as again:  # of a run that was loaded before
        run.extend(10**6)
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["settings"].update(parts=0), "--parts must be at least 1, got 0"),
        (lambda config: config["settings"].pop("parts"), "the setting 'parts' is missing"),
        (lambda config: config["settings"].update(color="red"), "there is no setting 'color'"),
    ],
)
def test_settings_that_do_not_fit_the_recipe(copied, change, message):
    edit(copied, change)
    with pytest.raises(UsageError, match=message):
        _ = Run(copied).recipe


def test_what_is_no_run_folder(tmp_path):
    with pytest.raises(UsageError, match=r"is not a run folder: it has no config\.json"):
        Run(tmp_path)


def test_nothing_is_overwritten(trained):
    with pytest.raises(UsageError, match="exists and is not empty: continue it with 'pyzoo resume"):
        Run.create(sines(), "small", CPU, trained.path)


@pytest.mark.parametrize(
    ("recipe", "hardware", "message"),
    [
        (graph(held_out=0.0, patience=2), CPU, "--patience needs held-out examples"),
        (graph(held_out=0.0, keep_best=True), CPU, "--keep-best needs held-out examples"),
        (graph(batch_size=1500), CPU, "--batch-size must be at most 1293, the number of images to train on"),
        (sines(), Hardware("cpu", devices=3), "can't be shared equally by 3 processes"),
        (graph(data="nowhere/at-all"), CPU, "nowhere/at-all"),
    ],
)
def test_a_refused_run_leaves_no_folder(tmp_path, monkeypatch, recipe, hardware, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        Run.create(recipe, "small", hardware)
    assert list(tmp_path.iterdir()) == []


# Trained --------------------------------------------------------------------------------------------------------------


def test_what_a_trained_run_has(trained):
    found = {path.name for path in trained.path.iterdir()}
    assert found == {"config.json", "metrics.csv", "results.json", "log.txt", "figures", "checkpoints", ".lock"}
    assert {path.name for path in (trained.path / "checkpoints").iterdir()} >= {"step-00000030.pt", "best.pt"}
    assert {path.stem for path in (trained.path / "figures").iterdir()} == trained.figures().keys()
    assert trained.is_finished
    assert trained.history[-1]["step"] == 30
    assert trained.metrics["order_gap"] < 1e-4
    log = (trained.path / "log.txt").read_text().splitlines()
    assert trained.lines == log
    assert log[0].startswith("trained 30 steps in ")
    assert any(line.startswith("drew 6 figures in") for line in log)


def test_results_say_what_was_measured(trained):
    results = json.loads((trained.path / "results.json").read_text())
    assert results["finished"] is True
    assert (results["trained"], results["steps"], results["full"]) == (30, 30, False)
    assert results["step"] in (15, 30)  # the best of those that were validated
    assert results["parameters"] == trained.pair().num_parameters
    assert results["versions"].keys() == {"python", "pyzoo", "torch", "pyro-ppl", "lightning-fabric"}
    assert results["metrics"] == trained.metrics


def test_the_best_checkpoint_is_what_is_loaded(trained):
    best = max((row for row in trained.history if not math.isnan(row["held_out_elbo"])), key=lambda row: row["held_out_elbo"])
    assert trained.step == best["step"]
    state = trained.folder.checkpoints.load(best=True)
    for program, name in ((trained.model, "model"), (trained.guide, "guide")):
        assert not program.training
        assert all(torch.equal(value, program.state_dict()[key]) for key, value in state[name].items())


def test_a_loaded_pair_is_plain_pyro(trained):
    batch = trained.recipe.source(torch.device("cpu")).batch(0, 4)
    assert math.isfinite(Trace_ELBO().loss(trained.model, trained.guide, **batch))


def test_measuring_drawing_and_sampling_move_nothing_and_are_repeatable(trained):
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    random = torch.get_rng_state()
    metrics = dict(trained.metrics)
    assert Run(trained.path).measure() == metrics
    assert all(math.isfinite(value) for value in metrics.values())
    figures = trained.figures()
    first, second = trained.sample(3, seed=5), trained.sample(3, seed=5)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["x"], trained.sample(3, seed=6)["x"])
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, trained.model.state_dict()[name]) for name, value in before.items())
    assert all(isinstance(figure, Figure) for figure in figures.values())
    assert figures._repr_html_().count('<img alt="') == len(figures)
    assert isinstance(trained.picture(first), Figure)


def test_samples_are_of_the_parts_that_are_given(trained):
    samples = trained.sample(3, given={"parts": [1, 4, 4]})
    assert samples["parts"].tolist() == [[0, 3, 3]] * 3
    assert samples["x"].shape == (3, 200)
    assert trained.sample(2, given={"parts": 5})["parts"].tolist() == [[4]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "--count must be a whole number of at least 1, got 0"),
        ({"count": 2.5}, "--count must be a whole number of at least 1, got 2.5"),
        ({"seed": -1}, "--seed must be a whole number of at least 0, got -1"),
        ({"given": {"label": 3}}, "there is nothing 'label' to condition on in compvae-sines: there are parts"),
        ({"given": {"parts": [1, 99]}}, "parts: '99' is not a frequency from 1 to 10"),
        ({"given": {"parts": []}}, "parts: name at least one part"),
    ],
)
def test_samples_that_there_are_none_of(trained, arguments, message):
    with pytest.raises(ValueError, match=message):
        trained.sample(**arguments)


def test_color_samples(tmp_path):
    run = Run.create(colors(steps=1), "small", CPU, tmp_path / "run").train(**QUICK)
    samples = run.sample(2, given={"parts": ["red", "blue"]})
    assert samples["x"].shape == (2, 3, 32, 32)
    assert samples["parts"][0].tolist() == samples["parts"][1].tolist()
    assert isinstance(run.picture(samples), Figure)
    with pytest.raises(UsageError, match="parts: 'mauve' is not one of"):
        run.sample(2, given={"parts": ["mauve"]})
    assert type(run.recipe) is CompVAEColors


def test_a_run_without_a_checkpoint(tmp_path):
    run = Run.create(sines(), "small", CPU, tmp_path / "run")
    assert (run.metrics, run.history, run.is_finished) == ({}, [], False)
    with pytest.raises(UsageError, match="has no checkpoint yet: train it with 'pyzoo resume"):
        run.pair()


def test_a_checkpoint_of_other_networks(copied):
    edit(copied, lambda config: config["networks"].update(w_dim=9))
    with pytest.raises(UsageError, match=r"of a run with --w-dim 8, not 9: config\.json was changed since"):
        Run(copied).pair()


# Trained on -----------------------------------------------------------------------------------------------------------


def test_a_run_is_trained_on(copied):
    run = Run(copied)
    run.extend(35)
    assert not run.is_finished
    assert Run(copied).recipe.steps == 35
    run.train(**QUICK)
    assert run.folder.checkpoints.newest_step() == 35
    assert [row["step"] for row in run.history][-2:] == [30, 35]
    assert not run.is_finished  # measured before
    run.measure()
    assert run.is_finished
    with pytest.raises(ValueError, match=r"--steps must be at least 35, which .* is trained to, got 34"):
        run.extend(34)
    run.extend(35)


def test_what_is_measured_on_the_way_is_not_finished(copied):
    """Also where the best checkpoint is kept, which may be of any step."""
    edit(copied, lambda config: config["settings"].update(steps=50))
    run = Run(copied)
    run.measure()
    assert json.loads((copied / "results.json").read_text())["finished"] is False
    assert not run.is_finished


def test_a_checkpoint_after_the_measurement_counts(copied):
    run = Run(copied)
    assert run.is_finished
    state = run.folder.checkpoints.load()
    run.folder.checkpoints.save(29, {**state, "step": 29})
    for file in run.folder.checkpoints.files()[1:]:
        file.unlink()
    assert not run.is_finished


def test_a_run_that_patience_stopped_is_finished(tmp_path):
    still = sines(learning_rate=1e-30, lowest_rate=1e-30, steps=100, validate_every=2, patience=2, checkpoint_seconds=1e9)
    still = changed(still, {"weight_steps": 0})
    lines = []
    run = Run.create(still, "small", CPU, tmp_path / "run", lines.append).train(progress=False, figures=False)
    stopped = run.folder.checkpoints.newest_step()
    assert stopped < 100
    assert lines[0] == f"no better held_out_elbo in 2 measurements: stopped after {stopped} steps"
    assert run.is_finished


def test_what_took_long_to_measure_is_kept(copied):
    run = Run(copied)
    results = run.folder.results()
    run.folder.write_results({**results, "full": True, "metrics": {**results["metrics"], "slow": 1.5}})
    assert run.measure()["slow"] == 1.5
    run.folder.write_results({**results, "full": True, "step": 3, "metrics": {"slow": 1.5}})
    assert "slow" not in run.measure()


def test_a_run_of_other_settings_is_named(trained):
    trained.require_same(sines(keep_best=True, log_every=50), CPU)
    with pytest.raises(UsageError, match="was made with --parts 3, not 4: choose another --out"):
        trained.require_same(sines(parts=4, keep_best=True), CPU)
    with pytest.raises(UsageError, match="--precision fp32, not bf16"):
        trained.require_same(sines(keep_best=True), dataclasses.replace(CPU, precision="bf16"))


def test_rows_for_tensorboard_too(tmp_path):
    pytest.importorskip("tensorboard")
    run = Run.create(sines(steps=5, log="tensorboard"), "small", CPU, tmp_path / "run").train(**QUICK)
    assert len(list((run.path / "tensorboard").iterdir())) == 1
    assert RunFolder(run.path).metrics()[0]["step"] == 5


@pytest.mark.slow
def test_resuming_with_other_threads_says_so(tmp_path):
    said = []
    run = Run.create(sines(steps=2), "small", CPU, tmp_path / "run").train(**QUICK)
    run.extend(3)
    Run(run.path, said.append).train(dataclasses.replace(CPU, threads=2), **QUICK)
    assert any("computing with threads 2, not 1, as before: last digits may differ" in line for line in said)


def test_two_that_resume_at_once_do_not_mix(tmp_path):
    """Who comes second reads neither config nor checkpoint before the first has ended."""
    run = Run.create(sines(steps=2), "small", CPU, tmp_path / "run")
    second = Run(run.path)
    with run.folder.lock():
        run.extend(3)
        with pytest.raises(Busy):
            second.train(**QUICK)
        run.train(**QUICK)
    second.train(**QUICK)
    assert [row["step"] for row in second.history] == [3]
    assert second.config["settings"]["steps"] == 3


def test_a_run_that_was_never_finite_leaves_no_folder(tmp_path):
    recipe = sines(steps=3, node_noise=1e38)
    with pytest.raises(NonFiniteLoss, match="step 0"):
        Run.create(recipe, "small", Hardware("cpu"), tmp_path / "run").train(progress=False)
    assert not (tmp_path / "run").exists()


def test_an_entry_of_a_later_version_is_no_hindrance(copied):
    for file in (copied / "checkpoints").iterdir():
        state = torch.load(file, weights_only=True)
        state["computed_with"]["gpu"] = "H100"
        torch.save(state, file)
    run = Run(copied)
    run.extend(run.config["settings"]["steps"] + 1)
    run.train(progress=False, evaluate=False, figures=False)
    assert run.step == run.config["settings"]["steps"]


def test_several_machines_need_a_launcher(monkeypatch):
    for name in ("MASTER_ADDR", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="--num-nodes 2 needs a launcher on each machine, such as torchrun or SLURM"):
        Hardware("cpu", num_nodes=2).find()


def test_numbers_that_no_tensor_can_hold_are_named(tmp_path):
    with pytest.raises(UsageError, match="the largest of which is --w-weight 1e\\+308"):
        Run.create(sines(steps=3, w_weight=1e308), "small", Hardware("cpu"), tmp_path / "run").train(progress=False)


@pytest.mark.parametrize("steps", [None, "a", 2.5])
def test_a_length_that_is_none(trained, steps):
    with pytest.raises(UsageError, match="--steps must be a whole number"):
        trained.extend(steps)


def test_paths_that_are_none():
    for path in (None, 5, b"x", []):
        with pytest.raises(UsageError, match="a run's folder must be a path"):
            pyzoo.load(path)


def test_what_another_process_has_trained_further_is_measured_anew(tmp_path):
    begun = Run.create(sines(steps=2), "small", CPU, tmp_path / "run").train(**QUICK)
    begun.pair()
    other = Run(tmp_path / "run")
    other.extend(6)
    other.train(**QUICK)
    assert begun.measure() == Run(tmp_path / "run").measure()
    assert (begun.folder.results()["steps"], begun.is_finished) == (6, True)
    Run(tmp_path / "run")._keep_hardware(threads=1, engine="traced")
    other.extend(7)
    begun.train(**QUICK)
    assert (begun.hardware.threads, begun.hardware.engine) == (1, "traced")
    assert RunFolder.open(tmp_path / "run").checkpoints.load()["step"] == 7
