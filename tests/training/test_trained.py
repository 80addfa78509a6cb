"""Trained models in folders of their own: packed from a run, loaded, measured, drawn and refused."""

import json
import math
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

import pyzoo
from pyzoo import cli
from pyzoo.errors import UsageError
from pyzoo.evaluation import site_terms
from pyzoo.flags import parse
from pyzoo.settings import changed, flat, walk
from pyzoo.trained import find_trained, trained
from pyzoo.training import Run, TrainedModel, find_recipe
from tiny import graph

pytestmark = pytest.mark.usefixtures("quick_figures")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = graph(steps=6, batch_size=8)
    return Run.create(recipe, "digits", path=tmp_path_factory.mktemp("runs") / "run").train(progress=False)


@pytest.fixture(scope="module")
def packed(run):
    return run.pack(run.path.parent / "packed", 32)


def test_a_packed_model_is_the_runs(run, packed):
    assert isinstance(pyzoo.load(packed.path), TrainedModel)
    assert not isinstance(pyzoo.load(packed.path), Run)
    assert {file.name for file in packed.path.iterdir()} == {"config.json", "metrics.csv", "results.json", "weights.safetensors"}
    for mine, theirs in ((packed.model, run.model), (packed.guide, run.guide)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in mine.state_dict().items())
        assert not mine.training
    assert (packed.step, packed.metrics, packed.history) == (run.step, run.metrics, run.history)
    assert torch.equal(packed.sample(3, seed=1)["x"], run.sample(3, seed=1)["x"])
    assert packed.figures().keys() == run.figures().keys()


def test_measuring_leaves_a_packed_model_as_it_is(packed):
    before = {file.name: file.read_bytes() for file in packed.path.iterdir()}
    assert packed.measure() == packed.metrics
    assert {file.name: file.read_bytes() for file in packed.path.iterdir()} == before


def test_a_packed_model_names_no_folder_of_its_machine(tmp_path):
    recipe = graph(steps=2, batch_size=8, data_dir=tmp_path)
    packed = (
        Run.create(recipe, "digits", path=tmp_path / "run")
        .train(progress=False, evaluate=False, figures=False)
        .pack(tmp_path / "x")
    )
    assert str(tmp_path) not in (packed.path / "config.json").read_text()


def test_a_users_own_data_are_named_where_they_are_missing(tmp_path):
    images = torch.rand(40, 8, 8, generator=torch.Generator().manual_seed(0))
    settings = {"widths": (6,), "nodes": 2, "latent_dim": 4, "hidden_dim": 4, "steps": 2, "batch_size": 8}
    run = pyzoo.train("graph-vae", "digits", data=images, out=tmp_path / "run", progress=False, figures=False, **settings)
    packed = run.pack(tmp_path / "packed")
    assert packed.sample(2)["x"].shape == (2, 1, 8, 8)
    with pytest.raises(UsageError, match=r"are its user's, and not in it: put them there as data\.npz"):
        packed.measure()
    shutil.copy(run.path / "data.npz", packed.path)
    assert packed.measure().keys() == run.metrics.keys()


def test_sizes_that_no_memory_holds_are_named(packed, tmp_path):
    shutil.copytree(packed.path, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    config["networks"]["hidden_dim"] = 10**15
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="the largest of which is --hidden-dim 1000000000000000"):
        pyzoo.load(tmp_path / "copy").pair()


def test_settings_of_a_trained_model_start_a_run_and_are_compared(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "train",
        "graph-vae",
        "--like",
        str(packed.path),
        "--steps",
        "3",
        "--out",
        "run",
        "--no-progress",
        "--no-figures",
    ]
    assert cli.main(arguments) == 0
    assert cli.main(["compare", "run", str(packed.path)]) == 0
    assert cli.main(["runs", str(packed.path.parent)]) == 0
    assert "6 steps" in capsys.readouterr().out


@pytest.mark.parametrize("bits", [8, 16])
def test_rounded_weights_are_small_and_nearly_as_good(run, packed, tmp_path, bits):
    small = run.pack(tmp_path / "small", bits)
    sizes = [(model.path / "weights.safetensors").stat().st_size for model in (small, packed)]
    assert sizes[0] < 0.75 * sizes[1]
    assert small.measure()["test_elbo"] == pytest.approx(run.metrics["test_elbo"], abs=2.0)


def test_pictures_of_a_packed_model_go_where_one_is(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", str(packed.path)]) == 0
    assert cli.main(["figures", str(packed.path), "--out", "drawn"]) == 0
    assert (tmp_path / "packed" / "samples.png").is_file()
    assert {file.stem for file in (tmp_path / "drawn").iterdir()} == packed.figures().keys()


def test_the_command_packs(run, tmp_path, capsys):
    assert cli.main(["pack", str(run.path), str(tmp_path / "small"), "--bits", "8"]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {tmp_path / 'small'}, 0.")
    assert cli.main(["evaluate", str(tmp_path / "small")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack"], "which run? usage: pyzoo pack RUN FOLDER"),
        (["pack", "{run}"], "which folder? usage: pyzoo pack RUN FOLDER"),
        (["pack", "{run}", "{run}"], "exists and is not empty"),
        (["pack", "{packed}", "other"], "without the checkpoints that a run goes on from"),
        (["resume", "{packed}"], "without the checkpoints that a run goes on from"),
        (["pack", "{run}", "other", "--bits", "4"], "--bits"),
    ],
)
def test_what_can_not_be_packed_is_said_in_one_line(run, packed, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main([argument.format(run=run.path, packed=packed.path) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_lists_the_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=r"there is no folder 'graph' here, and no trained model of the name; there are .*mib-digits"
    ):
        pyzoo.load("graph")
    with pytest.raises(UsageError, match="is not a run folder"):
        pyzoo.load(tmp_path / "graph")


def test_another_models_weights_are_refused(run, packed, tmp_path):
    shutil.copytree(packed.path, tmp_path / "copy")
    run.pack(tmp_path / "other", 8)
    shutil.copy(tmp_path / "other" / "weights.safetensors", tmp_path / "copy")
    with pytest.raises(UsageError, match="damaged, or another model's"):
        pyzoo.load(tmp_path / "copy").pair()
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    del config["weights"]["sha256"]
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="sha256"):
        pyzoo.load(tmp_path / "copy").pair()


# Those that come with the package ---------------------------------------------------------------------------------------


def test_they_are_small():
    sizes = {name: sum(file.stat().st_size for file in find_trained(name).iterdir()) for name in trained()}
    assert max(sizes.values()) <= 3e6
    assert sum(sizes.values()) <= 20e6


@pytest.mark.parametrize("name", trained())
def test_each_is_loaded_by_its_name_and_says_what_it_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = pyzoo.load(name)
    assert model.pair().num_parameters == model.folder.results()["parameters"]
    card = (model.path / "README.md").read_text()
    assert card.startswith(f"# {name}\n")
    assert all(heading in card for heading in ("Intended use", "Limits", "Data", "Trained by", "## Metrics"))
    config = (model.path / "config.json").read_text()
    assert '"data_dir": null' in config or "data_dir" not in config


def test_the_list_says_what_there_is(capsys):
    assert cli.main(["list", "--trained"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].isalpha()] == trained()


def test_a_folder_of_pictures_does_not_hide_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", "mib-digits", "--count", "2"]) == 0
    assert (tmp_path / "mib-digits" / "samples.png").is_file()
    assert pyzoo.load("mib-digits").path == find_trained("mib-digits")


def data_of(name):
    return pyzoo.load(name).config["settings"].get("data")


@pytest.mark.parametrize("name", trained())
def test_each_is_as_good_as_its_card_says(name):
    """By the ELBO of held-out examples, fresh sets or test examples, or by the accuracy; those whose data are neither made nor
    scikit-learn's, where PYZOO_DATA has them."""
    model = pyzoo.load(name)
    folder = {"mnist": "MNIST", "adult": "adult"}.get(data_of(name))
    if folder and not (Path(os.environ.get("PYZOO_DATA", "nowhere")) / folder).exists():
        pytest.skip("its data are not at hand")
    expected = {row["step"]: row["held_out_elbo"] for row in model.history if not math.isnan(row.get("held_out_elbo", math.nan))}
    with model._report("cpu", "evaluate") as (report, _):
        if name == "mib-ood":
            found, wanted = (100 * of["accuracy_held_out"] for of in (report.validate(model.step), model.metrics))
        elif name.startswith("compvae"):
            found, wanted = report.nats(report.recipe.trained_parts)["elbo"], model.metrics["elbo"]
        elif model.step in expected:
            found, wanted = report.validate(model.step)["held_out_elbo"], expected[model.step]
        else:
            views = {"x": report.measured[0]} if name == "tvae-mnist" else report.views
            found, wanted = -sum(site_terms(*report.pair, views).values()), model.metrics["test_elbo"]
    assert found == pytest.approx(wanted, rel=0.01, abs=0.5)


def test_the_private_latent_of_a_digit_is_how_it_is_written():
    """What the tutorial on MIB and the gallery say of the model."""
    metrics = pyzoo.load("mib-digits").metrics
    assert metrics["z_keeps_class"] > 0.9
    assert metrics["u_changes_class"] < 0.1
    assert metrics["u_changes_style"] > 0.9


@pytest.mark.parametrize("name", trained())
def test_the_command_on_a_models_card_makes_it(name):
    path = find_trained(name)
    command = re.search(r"\| Trained by \| `pyzoo train (\S+) ?(.*?)`", (path / "README.md").read_text())
    kind, recipe = find_recipe(command[1]), pyzoo.load(path).recipe
    given = re.sub(r"--(?:precision|engine) \S+", "", command[2]).split()
    preset = kind.preset(given.pop(given.index("--preset") + 1) if "--preset" in given else None)
    made = changed(preset, parse("pyzoo", [word for word in given if word != "--preset"], [preset]))
    for field in (field for _, field in walk(made) if field.has_flag and field.name not in kind.incidental):
        assert flat(recipe)[field.name] == field.value, field.name
