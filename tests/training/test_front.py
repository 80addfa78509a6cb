import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pyzoo
from pyzoo import cli
from pyzoo.about import entries
from pyzoo.errors import UsageError
from pyzoo.evaluation import site_terms
from pyzoo.recipes.graph_vae.recipe import GraphVAERecipe
from pyzoo.training import Recipe, Run
from tiny import GRAPH, SINES, graph, sines

TINY = {name: value for name, value in GRAPH.items() if name != "data"}
QUICK = {"device": "cpu", "progress": False, "figures": False}

# As the documentation has them: to train takes three lines, to load and evaluate two, own images three.
TRAIN = """
import pyzoo
run = pyzoo.train("graph-vae", preset="digits", steps=6, widths=(12, 8), evaluate=False, figures=False)
print(run.history[-1]["loss"])
"""
LOAD = """
run = pyzoo.load("runs/graph-vae-digits-widths12x8-steps6-seed0")
print(run.measure()["test_elbo"])
"""
OWN = """
import pyzoo
images = torch.rand(60, 12, 12)
run = pyzoo.train("graph-vae", preset="digits", data=images, steps=3, batch_size=8, evaluate=False, figures=False)
"""


def lines(example):
    return len(example.strip().splitlines())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("front")


@pytest.fixture(scope="module")
def run(folder):
    """A run on a user's images with labels, as tensors."""
    images = torch.rand(80, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = (images, torch.arange(80) % 4)
    return pyzoo.train("graph-vae", data=data, out=folder / "own", **{**TINY, "steps": 10, "batch_size": 8}, **QUICK)


# Examples -------------------------------------------------------------------------------------------------------------


def test_three_lines_train_and_two_load_and_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (lines(TRAIN), lines(LOAD)) == (3, 2)
    names = {}
    exec(TRAIN, names)
    exec(LOAD, names)
    loss, elbo = (float(line) for line in capsys.readouterr().out.splitlines() if re.fullmatch(r"-?[\d.]+", line))
    assert loss > 0 > elbo
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["graph-vae-digits-widths12x8-steps6-seed0"]


def test_three_lines_train_on_your_own_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert lines(OWN) == 3
    names = {"torch": torch}
    exec(OWN, names)
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name == "graph-vae-digits-images-steps3-batch-size8-seed0"
    assert names["run"].networks.x_shape == (1, 12, 12)
    assert (path / "data.npz").is_file()


# What there is --------------------------------------------------------------------------------------------------------


def test_recipes_with_a_line_each():
    found = pyzoo.recipes()
    assert found.keys() == entries("pyzoo.recipes").keys()
    assert all(line and "\n" not in line for line in found.values())
    from pyzoo.recipes import images  # which is a package too

    assert images.__name__ == "pyzoo.recipes.images"


def test_the_front_door_has_a_version_and_no_other_door():
    assert pyzoo.__version__.count(".") >= 1
    assert set(pyzoo.__all__) == {"__version__", "load", "recipes", "train"}
    with pytest.raises(AttributeError, match="module 'pyzoo' has no attribute 'trian'"):
        _ = pyzoo.trian


# Training -------------------------------------------------------------------------------------------------------------


def test_a_run_is_all_that_one_needs(run):
    assert isinstance(run, Run)
    assert type(run.recipe) is GraphVAERecipe
    assert run.history[-1]["step"] == 10
    assert run.metrics["parameters"] == run.pair().num_parameters
    assert not run.model.training
    assert not run.guide.training
    loaded = pyzoo.load(run.path)
    assert all(torch.equal(value, run.model.state_dict()[name]) for name, value in loaded.model.state_dict().items())
    x, _ = loaded.recipe.measured_images()
    terms = site_terms(loaded.model, loaded.guide, {"x": loaded.recipe.observed(x)})
    assert -sum(terms.values()) == pytest.approx(loaded.metrics["test_elbo"], rel=0.2)
    assert loaded.sample(count=3)["x"].shape == (3, 3, 8, 8)
    assert "samples" in loaded.figures()


def test_tensors_are_kept_in_the_run(run):
    recipe = run.recipe
    assert recipe.data == str(run.path / "data.npz")
    assert recipe.dataset.shape == (3, 8, 8)
    assert (len(recipe.dataset.train), len(recipe.dataset.test)) == (64, 16)
    assert recipe.dataset.train_labels.unique().tolist() == [0, 1, 2, 3]
    assert run.networks.likelihood == "gaussian"
    assert "80 images" in recipe.note or "64 to train on, 16 to test on" in recipe.note


def test_a_recipe_that_is_made_already(tmp_path):
    found = pyzoo.train(sines(steps=5), out=tmp_path / "run", evaluate=False, **QUICK)
    assert found.recipe == sines(steps=5)
    for arguments in ({"steps": 3}, {"preset": "small"}, {"data": "digits"}):
        with pytest.raises(ValueError, match="a recipe that is made already takes no preset, data or settings"):
            pyzoo.train(sines(), out=tmp_path / "other", **arguments)


def test_it_gives_what_the_trainer_gives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {**SINES, "steps": 5}
    first = pyzoo.train("compvae-sines", "paper", **settings, **QUICK, evaluate=False)
    second = Run.create(first.recipe, "paper", first.hardware, tmp_path / "second").train(
        progress=False, evaluate=False, figures=False
    )
    assert first.path.parent.name == "runs"
    assert first.path.name.startswith("compvae-sines-paper-w-dim8-z-dim3-")
    assert all(torch.equal(value, second.model.state_dict()[name]) for name, value in first.model.state_dict().items())


def test_your_own_folder_and_file(tmp_path, run):
    quick = {**TINY, "steps": 2, "batch_size": 8}
    shutil.copy(run.path / "data.npz", tmp_path / "mine.npz")
    found = pyzoo.train("graph-vae", data=tmp_path / "mine.npz", out=tmp_path / "run", evaluate=False, **quick, **QUICK)
    assert found.recipe.data == str(tmp_path / "mine.npz")
    assert found.networks.x_shape == (3, 8, 8)


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "graph-vea"}, "unknown recipe 'graph-vea'; there are"),
        ({"preset": "tiny"}, "graph-vae has no preset 'tiny'; it has small, digits"),
        ({"stpes": 3}, "there is no setting 'stpes'; nearest: steps"),
        ({"nodes": 0}, "--nodes must be at least 1, got 0"),
        ({"nodes": 3}, "--latent-dim must be a multiple of --nodes 3, got 80"),
        ({"device": "gpu"}, "--device must be auto, cpu, cuda"),
        ({"precision": "fp8"}, "--precision must be one of fp32, bf16, got fp8"),
        ({"patience": 2, "held_out": 0.0}, "--patience needs held-out examples"),
        ({"keep_best": True, "held_out": 0.0}, "--keep-best needs held-out examples"),
        ({"data": torch.zeros(3, 4)}, "axes|shape|dimensions"),
        ({"data": torch.rand(20, 8, 8) * 9}, "between 0 and 1"),
        ({"data": torch.rand(1, 8, 8)}, "two"),
        ({"data": (torch.rand(20, 8, 8), torch.zeros(3))}, "abels"),
        ({"data": (torch.rand(20, 8, 8),)}, "data must be a name, a path, a tensor or"),
        ({"data": [1, 2]}, "data must be a name, a path, a tensor or"),
        ({"data": torch.rand(20, 8, 8), "batch_size": 500}, "--batch-size must be"),
        ({"data": torch.rand(20, 8, 8), "image_size": -1}, "--image-size must be"),
        ({"data": torch.rand(20, 8, 8), "test_share": 2.0}, "--test-share must be"),
        (
            {"data": torch.rand(20, 8, 8), "recipe": "compvae-sines", "preset": None},
            "compvae-sines generates its data and takes none",
        ),
        ({"data": "digits", "recipe": "compvae-sines", "preset": None}, "there is no setting 'data'"),
    ],
)
@pytest.mark.parametrize("out", [None, "deep/in/here"])
def test_what_is_refused_leaves_nothing_behind(tmp_path, monkeypatch, arguments, message, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        pyzoo.train(**{"recipe": "graph-vae", "preset": "digits", "out": out, "progress": False, **arguments})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_kept(run, tmp_path):
    (tmp_path / "thesis.txt").touch()
    for data in (None, torch.rand(20, 8, 8)):
        with pytest.raises(UsageError, match="exists and is not empty: choose another --out"):
            pyzoo.train("graph-vae", preset="digits", data=data, out=tmp_path)
        with pytest.raises(UsageError, match="exists and is not empty: continue it with"):
            pyzoo.train("graph-vae", preset="digits", data=data, out=run.path)
        with pytest.raises(UsageError, match="can't make the run folder"):
            pyzoo.train("graph-vae", preset="digits", data=data, out=tmp_path / "thesis.txt" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        pyzoo.load(tmp_path / "nowhere")


# Typed ----------------------------------------------------------------------------------------------------------------


def test_a_preset_is_of_its_own_class():
    assert type(GraphVAERecipe.preset("digits")) is GraphVAERecipe
    assert isinstance(graph(), Recipe)


MISSPELT = """
import pyzoo
from pyzoo.recipes.graph_vae.recipe import GraphVAERecipe

recipe = GraphVAERecipe.preset("digits")
print(recipe.networks.nodes, recipe.learning_rate)
print(recipe.lerning_rate)
print(recipe.networks.ndoes)
print(pyzoo.load("run").metircs)
"""


def test_pyright_finds_a_misspelt_field(tmp_path):
    pyright = shutil.which("pyright", path=Path(sys.executable).parent)
    if pyright is None:
        pytest.skip("no pyright")
    (tmp_path / "script.py").write_text(MISSPELT)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(Path(__file__).parents[2])]}))
    command = [pyright, "--pythonpath", sys.executable, str(tmp_path / "script.py")]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout
    errors = [line for line in found.splitlines() if " - error: " in line]
    assert len(errors) == 3, found
    for line, name in zip(errors, ("lerning_rate", "ndoes", "metircs"), strict=True):
        assert f'"{name}"' in line


def test_a_run_on_tensors_may_move(tmp_path):
    run = pyzoo.train("graph-vae", data=torch.rand(60, 8, 8), out=tmp_path / "here", **{**TINY, "steps": 2}, **QUICK)
    assert run.recipe.batch_size == 32
    assert run.config["settings"]["data"] == "data.npz"
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = pyzoo.load(tmp_path / "there")
    assert moved.recipe.data == str(tmp_path / "there" / "data.npz")
    moved.extend(4)
    assert moved.config["settings"]["data"] == "data.npz"
    assert pyzoo.load(moved.path).train(**{k: v for k, v in QUICK.items() if k != "device"}).metrics


def test_a_preset_of_large_batches_takes_few_images_of_a_users(tmp_path):
    images = torch.rand(30, 8, 8)
    few = {name: value for name, value in TINY.items() if name not in ("batch_size", "steps")}
    run = pyzoo.train("graph-vae", "digits", data=images, out=tmp_path / "run", steps=2, evaluate=False, **few, **QUICK)
    assert run.recipe.batch_size == run.recipe.train_size == 22
    with pytest.raises(
        UsageError, match=r"at most 22, the number of images to train on \(6 are for testing, 2 held out\), got 23"
    ):
        pyzoo.train("graph-vae", "digits", data=images, out=tmp_path / "other", batch_size=23, **few, **QUICK)


def test_what_was_measured_before_the_last_step_says_so(tmp_path, capsys):
    run = pyzoo.train(sines(steps=2), out=tmp_path / "run", **QUICK)
    assert run.measured_after == 2
    run.extend(3)
    run.train(progress=False, evaluate=False, figures=False)
    assert (run.measured_after, run.folder.checkpoints.newest_step()) == (2, 3)
    assert cli.main(["runs", str(tmp_path)]) == 0
    assert "(measured after 2 steps)" in capsys.readouterr().out


def test_a_condition_is_a_dict(run):
    with pytest.raises(ValueError, match="given must be a dict of names and values, such as"):
        run.sample(given="label=1")


def test_a_refused_resume_changes_nothing(tmp_path, capsys):
    run = pyzoo.train(sines(steps=2), out=tmp_path / "run", evaluate=False, **QUICK)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    assert cli.main(["resume", str(run.path), "--steps", "9", "--device", "cuda:7"]) == 2
    with run.folder.lock():
        assert cli.main(["resume", str(run.path), "--steps", "9"]) == 2
    assert "another process is training" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before
