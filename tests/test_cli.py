import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch

from pyzoo import cli
from pyzoo.about import entries
from pyzoo.flags import parse
from pyzoo.recipes.graph_vae.recipe import FCVAE, GraphVAERecipe, LadderVAE
from pyzoo.recipes.graph_vae.recipe import PlainVAE as PlainGraphVAE
from pyzoo.recipes.graph_vae.report import GraphVAEReport
from pyzoo.recipes.graph_vae.tables import GraphVAETable1
from pyzoo.recipes.mib.report import MIBReport
from pyzoo.recipes.tvae.recipe import PlainVAE, TVAERecipe, VAEPlus
from pyzoo.recipes.tvae.report import TVAEReport
from pyzoo.recipes.tvae.tables import TVAETable1
from pyzoo.settings import flat, walk
from pyzoo.training import NonFiniteLoss, Run, RunFolder, Trainer
from tiny import GRAPH, SINES, TINY, TVAE, flags, tiny

COMPVAE = ("compvae-sines", "compvae-colors")
STRUCTURES = ("graph-vae", "fc-vae", "ladder-vae", "vae")
TRANSFORMATIONS = ("tvae", "tvae-vae", "tvae-vae-plus")
# Their objectives have the terms of other rows, and the command does with them what it does with these.
LIKE_OTHER_ROWS = ("mib-jmvae", "mib-mvae", "mib-telbo", "mib-bivcca", "mib-beta-vae", "mib-beta-tcvae")
TRAINED = tuple(name for name in TINY if name not in LIKE_OTHER_ROWS)
RECIPES = {name: entry.load() for name, entry in entries("pyzoo.recipes").items()}
TABLES = (
    "graph-vae-table1",
    "graph-vae-figure4",
    "graph-vae-gates",
    "mib-figure3",
    "mib-table2",
    "mib-table3",
    "mib-table4",
    "mib-structures",
    "mpp-ablations",
    "mpp-table5",
    "tvae-table1",
    "tvae-figure2",
)
QUIET = {"checkpoint_seconds": 1e6}


def train(recipe, out, *more, **fields):
    arguments = flags({**tiny(recipe), **QUIET, **fields})
    return cli.main(["train", recipe, *arguments, "--device", "cpu", "--no-progress", "--out", str(out), *more])


@pytest.fixture(scope="module", autouse=True)
def quick(quick_figures):
    """What judges of MIB's images say is not looked at here, nor are likelihoods."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyzoo.recipes.mib.metrics.JUDGE_STEPS", 20)
        patch.setattr(MIBReport, "quick_examples", 50)
        patch.setattr(TVAEReport, "num_sources", 3)
        patch.setattr(TVAEReport, "num_targets", 3)
        for report in (GraphVAEReport, TVAEReport):
            patch.setattr(report, "quick_images", 50)
        for report in (GraphVAEReport, TVAEReport, MIBReport):
            patch.setattr(report, "quick_samples", 20)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, quick):
    folder = tmp_path_factory.mktemp("runs")
    for recipe in TRAINED:
        assert train(recipe, folder / recipe) == 0
    return folder


def bad(capsys, *arguments):
    """The one line that bad input gets."""
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("pyzoo: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_list(capsys):
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert sorted(set(TINY) | set(TABLES)) == sorted(re.findall(r"^  (\S+)", shown, re.MULTILINE))
    assert "presets: small (5 min), long (2 hours), paper (a GPU)" in shown
    assert max(map(len, shown.splitlines())) <= 80
    papers = [line for line in shown.splitlines() if re.fullmatch(r"\w.* \d{4}", line)]
    assert len(papers) == 7 + 4  # seven with recipes, four with tables


def test_list_and_help_do_not_import_torch():
    code = (
        "import sys, pyzoo.cli\n"
        "for arguments in (['--help'], ['list'], ['train', '--help'], ['reproduce', '--help'], ['runs', '--help']):\n"
        "    assert pyzoo.cli.main(arguments) == 0\n"
        "assert not {'torch', 'pyro', 'numpy', 'tyro'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train"], ["train", "--help"], ["reproduce"], ["reproduce", "--help"]])
def test_usage(arguments, capsys):
    assert cli.main(arguments) == (2 if "--help" not in arguments else 0)
    shown = capsys.readouterr().out
    assert "usage: pyzoo" in shown
    assert ("compvae-sines" in shown) == (arguments[:1] == ["train"])
    assert ("mib-table2" in shown) == (arguments[:1] == ["reproduce"])


def help_of(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", TINY)
def test_short_help_shows_what_one_changes_first(recipe, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = help_of(capsys, "train", recipe, "--help")
    for name in ("steps", "batch-size", "learning-rate", "seed", "preset", "out", "device"):
        assert f"--{name} " in shown
    assert "--checkpoint-seconds" not in shown
    assert len(shown.splitlines()) <= 50
    assert max(map(len, shown.splitlines())) <= 80
    assert ":class:" not in shown
    assert "`" not in shown


def test_full_help_shows_all_flags_in_groups(capsys):
    shown = help_of(capsys, "train", "graph-vae", "--help-all")
    names = {field.name.replace("_", "-") for _, field in walk(GraphVAERecipe()) if field.has_flag}
    for name in (*names, "like", "evaluate", "figures", "precision", "threads", "engine"):
        assert re.search(rf"--{name}\b", shown), name
    assert "--x-shape" not in shown  # read from the data
    headings = [word for word in re.findall(r"(\w+) options", shown) if word != "options"]
    assert headings == ["training", "data", "model", "run", "hardware"]


@pytest.mark.parametrize("recipe", TINY)
def test_every_flag_can_be_given_as_its_default(recipe):
    kind = RECIPES[recipe]
    given = []
    for field in (field for _, field in walk(kind()) if field.has_flag):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.value, bool):
            given.append(flag if field.value else flag.replace("--", "--no-", 1))
        elif field.value is not None:
            given += flags({field.name: field.value})
    assert parse("pyzoo", given, [kind()]) == {}


@pytest.mark.parametrize("recipe", TRAINED)
def test_a_run_folder_is_complete(trained, recipe):
    run = trained / recipe
    names = {path.name for path in run.iterdir()}
    assert names == {"config.json", "metrics.csv", "results.json", "figures", "checkpoints", "log.txt", ".lock"}
    config = json.loads((run / "config.json").read_text())
    assert config["recipe"] == recipe
    assert config["settings"]["steps"] == 30
    assert config["hardware"]["threads"] == 1
    results = json.loads((run / "results.json").read_text())
    assert results["trained"] == 30
    assert results["metrics"]
    with open(run / "metrics.csv") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [5, 10, 15, 20, 25, 30]
    assert "trained 30 steps" in (run / "log.txt").read_text()
    for picture in (run / "figures").iterdir():
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("recipe", COMPVAE)
def test_metrics_of_compvae(trained, recipe):
    metrics = json.loads((trained / recipe / "results.json").read_text())["metrics"]
    config = json.loads((trained / recipe / "config.json").read_text())
    wanted = {
        "reconstruction_r2",
        "subset_r2",
        "subset_r2_sampled",
        "order_gap",
        "sum_of_parts_gap",
        "nats_w",
        "x_floor",
    }
    assert wanted <= metrics.keys()
    assert metrics["scale_floor"] == config["networks"]["scale_floor"]


@pytest.mark.parametrize("recipe", STRUCTURES)
def test_metrics_of_graph_vae(trained, recipe):
    metrics = json.loads((trained / recipe / "results.json").read_text())["metrics"]
    wanted = {"test_elbo", "test_kl", "test_log_likelihood_quick", "train_elbo", "nats_z_3", "parameters", "edges_kept"}
    assert wanted <= metrics.keys()
    assert "test_log_likelihood" not in metrics
    assert metrics["test_log_likelihood_quick"] >= metrics["test_elbo"]
    with open(trained / recipe / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    measured = [bool(row["log_likelihood"]) for row in rows]
    assert measured == [False, True] * 3
    assert ("gate_3_1" in rows[0]) == (recipe == "graph-vae")


@pytest.mark.parametrize("recipe", TRANSFORMATIONS)
def test_metrics_of_tvae(trained, recipe):
    metrics = json.loads((trained / recipe / "results.json").read_text())["metrics"]
    wanted = {"knn_same", "knn_affnist", "knn_affnist_crop", "knn_affnist_100_labels", "knn_affnist_100_labels_spread"}
    wanted |= {"test_elbo", "test_log_likelihood", "rotation_error_degrees", "parameters"}
    assert wanted <= metrics.keys()
    assert "knn_affnist_3000_labels" not in metrics  # there are not so many digits
    assert metrics["test_log_likelihood"] >= metrics["test_elbo"]
    assert 0 <= metrics["knn_affnist"] < metrics["knn_same"] <= 100
    assert 0 <= metrics["rotation_error_degrees"] <= 50


def test_figures_of_the_paper(trained):
    sines = {path.stem for path in (trained / "compvae-sines" / "figures").iterdir()}
    assert {name.split("_")[0] for name in sines} == {"figure2", "figure4", "figure5", "figure6", "figure10", "subsets"}
    colors = {path.stem for path in (trained / "compvae-colors" / "figures").iterdir()}
    assert {name.split("_")[0] for name in colors} == {"figure3", "figure7", "figure8", "subsets"}
    graph = {path.stem for path in (trained / "graph-vae" / "figures").iterdir()}
    names = {"figure3a_gates", "figure3b_graph", "figure5_likelihood", "figure6_embeddings", "samples", "reconstructions", "loss"}
    assert graph == names
    assert {path.stem for path in (trained / "vae" / "figures").iterdir()} == names - {"figure3a_gates"}
    names = {"figure1_views", "figure3_transfer", "figure4_interpolation", "samples", "reconstructions", "loss"}
    for recipe in TRANSFORMATIONS:
        assert {path.stem for path in (trained / recipe / "figures").iterdir()} == names


def test_evaluate_and_figures_again(trained, capsys):
    run = trained / "compvae-sines"
    before = json.loads((run / "results.json").read_text())
    picture = (run / "figures" / "figure6_composition.png").read_bytes()
    (run / "results.json").unlink()
    (run / "figures" / "figure6_composition.png").unlink()
    assert cli.main(["evaluate", str(run), "--device", "cpu"]) == 0
    assert json.loads((run / "results.json").read_text())["metrics"] == before["metrics"]
    assert cli.main(["figures", str(run)]) == 0
    assert (run / "figures" / "figure6_composition.png").read_bytes() == picture


@pytest.mark.parametrize(
    ("recipe", "parts", "shape"), [("compvae-sines", "3 7 7", (4, 200)), ("compvae-colors", "red blue", (4, 3, 32, 32))]
)
def test_sample(trained, tmp_path, recipe, parts, shape):
    numpy = pytest.importorskip("numpy")
    for suffix in ("png", "npz"):
        out = tmp_path / f"samples.{suffix}"
        given = f"parts={parts.replace(' ', ',')}"
        assert cli.main(["sample", str(trained / recipe), "--count", "4", "--given", given, "--out", str(out)]) == 0
    drawn = numpy.load(tmp_path / "samples.npz")
    assert drawn["x"].shape == shape
    assert (drawn["parts"] == ([2, 6, 6] if "sines" in recipe else [0, 2])).all()
    assert cli.main(["sample", str(trained / recipe)]) == 0
    assert (trained / recipe / "samples.png").exists()
    (trained / recipe / "samples.png").unlink()


def test_sample_of_images(trained, tmp_path, capsys):
    numpy = pytest.importorskip("numpy")
    out = tmp_path / "samples.npz"
    assert cli.main(["sample", str(trained / "graph-vae"), "--count", "5", "--out", str(out)]) == 0
    with numpy.load(out) as arrays:
        assert arrays["x"].shape == arrays["mean"].shape == (5, 1, 28, 28)
        assert set(arrays["x"].flatten().tolist()) <= {0.0, 1.0}
    assert cli.main(["sample", str(trained / "graph-vae"), "--count", "12", "--out", str(tmp_path / "samples.png")]) == 0
    assert "nothing 'parts' to condition on" in bad(capsys, "sample", trained / "graph-vae", "--given", "parts=3")


def test_sample_given_a_view(trained, tmp_path):
    numpy = pytest.importorskip("numpy")
    drawn = {}
    for label in (3, 5):
        out = tmp_path / f"{label}.npz"
        assert cli.main(["sample", str(trained / "mib-multimodal"), "--given", f"label={label}", "--out", str(out)]) == 0
        drawn[label] = numpy.load(out)
        assert (drawn[label]["label"].argmax(-1) == label).all()
        assert drawn[label]["x"].shape == (8, 1, 28, 28)
    assert (drawn[3]["x"] != drawn[5]["x"]).any()
    assert cli.main(["sample", str(trained / "mib-multimodal"), "--given", "digit=7", "--out", str(out)]) == 0
    assert numpy.load(out)["x"].shape == (8, 10)


def test_a_full_evaluation_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(GraphVAEReport, "full_samples", 20)
    run = tmp_path / "run"
    assert train("vae", run, "--no-figures") == 0
    assert not (run / "figures").exists()
    before = json.loads((run / "results.json").read_text())
    assert cli.main(["evaluate", str(run), "--full"]) == 0
    after = json.loads((run / "results.json").read_text())
    assert after["full"]
    assert not before["full"]
    likelihood = after["metrics"].pop("test_log_likelihood")
    assert likelihood < 0
    assert after["metrics"] == before["metrics"]
    assert cli.main(["evaluate", str(run)]) == 0  # keeps what took long
    assert json.loads((run / "results.json").read_text())["metrics"]["test_log_likelihood"] == likelihood
    assert "scikit-learn" in after["note"]


def test_resume_continues_with_the_recipe_of_the_folder(tmp_path, capsys):
    run = tmp_path / "run"
    assert train("compvae-sines", run, "--no-evaluate", "--no-figures") == 0
    assert not (run / "results.json").exists()
    assert not (run / "figures").exists()
    assert cli.main(["resume", str(run), "--no-progress"]) == 0
    said = capsys.readouterr().out
    assert "resuming compvae-sines" in said
    assert "already trained to 30 steps" in said
    assert json.loads((run / "results.json").read_text())["finished"]
    assert cli.main(["resume", str(run), "--steps", "40", "--no-progress", "--no-figures"]) == 0
    assert "trained 40 steps" in capsys.readouterr().out
    assert json.loads((run / "results.json").read_text())["step"] == 40
    assert "--steps must be at least 40" in bad(capsys, "resume", run, "--steps", 39)


@pytest.mark.filterwarnings("default:The step")
def test_a_step_that_is_not_compiled_is_told_in_a_line_and_kept_in_the_log(tmp_path, capsys, monkeypatch):
    def failing(graph, inputs, **options):
        raise RuntimeError("No working C++ compiler found\nSee elsewhere")

    def shown(message, category, filename, lineno, file=None, line=None):  # pytest keeps warnings for itself
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

    monkeypatch.setattr("warnings.showwarning", shown)
    monkeypatch.setattr("torch._inductor.standalone_compile", failing)
    assert train("vae", tmp_path / "run", "--engine", "compiled", "--no-evaluate", "--no-figures", steps=5) == 0
    line = "The step is traced, and not compiled: No working C++ compiler found"
    assert [told for told in capsys.readouterr().err.splitlines() if "step" in told] == [f"pyzoo: {line} See elsewhere"]
    assert line in (tmp_path / "run" / "log.txt").read_text()


def test_the_default_folder_is_named_after_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--no-progress", "--no-evaluate", "--no-figures", "--seed", "3", "--device", "cpu"]
    monkeypatch.setitem(RECIPES["compvae-sines"].presets, "small", {**SINES, **QUIET, "steps": 1})
    assert cli.main(["train", "compvae-sines", *arguments]) == 0
    assert (tmp_path / "runs" / "compvae-sines-small-seed3" / "config.json").exists()
    assert cli.main(["train", "compvae-sines", "--z-dim", "4", *arguments]) == 0
    assert (tmp_path / "runs" / "compvae-sines-small-z-dim4-seed3" / "config.json").exists()


# Several runs ---------------------------------------------------------------------------------------------------------


def test_a_run_like_another(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    other = trained / "compvae-sines"
    more = ["--steps", "1", "--z-dim", "5", "--no-progress", "--no-evaluate", "--no-figures", "--device", "cpu"]
    assert cli.main(["train", "compvae-sines", "--like", str(other), *more]) == 0
    (run,) = (Run(path) for path in (tmp_path / "runs").iterdir())
    before, now = flat(Run(other).recipe), flat(run.recipe)
    assert {name for name in now if now[name] != before[name]} == {"steps", "z_dim"}
    assert "is a run of compvae-sines, not of graph-vae" in bad(capsys, "train", "graph-vae", "--like", other)
    assert "give one of them" in bad(capsys, "train", "compvae-sines", "--like", other, "--preset", "small")
    assert "is not a run folder" in bad(capsys, "train", "compvae-sines", "--like", tmp_path)


def test_runs(trained, tmp_path, capsys, monkeypatch):
    assert cli.main(["runs", str(trained)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(str(trained / name) for name in TRAINED)
    (sines,) = (line for line in lines if "compvae-sines" in line)
    assert re.search(r" 30 steps +\d+ s +reconstruction_r2 -?[\d.]+$", sines)
    (tmp_path / "empty").mkdir()
    assert cli.main(["runs", str(tmp_path / "empty")]) == 0
    assert "there are no runs in" in capsys.readouterr().out
    assert "is not a folder" in bad(capsys, "runs", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    assert "there is no folder runs/ here" in bad(capsys, "runs")
    shutil.copytree(trained / "compvae-sines", tmp_path / "runs" / "old")
    for config, said in {'{"recipe": "compvae-sines"}': "is of format 1", "{}": "does not describe a run"}.items():
        (tmp_path / "runs" / "old" / "config.json").write_text(config)
        assert cli.main(["runs"]) == 0
        assert said in capsys.readouterr().out


def test_compare(trained, tmp_path, capsys):
    runs = [trained / name for name in ("vae", "graph-vae")]
    out = tmp_path / "curves.png"
    assert cli.main(["compare", *map(str, runs), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"A  {runs[0]}" in shown
    assert re.search(r"\| recipe +\| vae +\| graph-vae +\|", shown)
    assert "| steps " not in shown  # the same
    elbos = [Run(run).metrics["test_elbo"] for run in runs]
    assert re.search(rf"\| test_elbo +\| {elbos[0]:.4g} +\| {elbos[1]:.4g} +\|", shown)
    assert "A, B: scikit-learn's 8x8 digits" in shown
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "is not a run folder" in bad(capsys, "compare", runs[0], tmp_path)
    assert "two or more different runs" in bad(capsys, "compare", runs[0], runs[0])
    assert "which runs?" in bad(capsys, "compare", runs[0])
    assert "must end in .png" in bad(capsys, "compare", *runs, "--out", tmp_path / "x.jpg")
    assert "can't write" in bad(capsys, "compare", *runs, "--out", tmp_path / "no" / "x.png")


# Your own images --------------------------------------------------------------------------------------------------


def test_one_flag_trains_on_your_own_images(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    generator = torch.Generator().manual_seed(0)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = torch.randint(256, (12, 12), dtype=torch.uint8, generator=generator)
            image.fromarray(pixels.numpy()).save(tmp_path / "photos" / name / f"{i}.png")
    assert train("graph-vae", tmp_path / "run", data=tmp_path / "photos", steps=2, batch_size=8) == 0
    run = Run(tmp_path / "run")
    assert run.recipe.networks.x_shape == (1, 12, 12)
    assert run.recipe.dataset.classes == ("cats", "dogs")
    assert run.sample(3)["x"].shape == (3, 1, 12, 12)
    (tmp_path / "empty").mkdir()
    assert "no images" in bad(capsys, "train", "graph-vae", "--data", tmp_path / "empty", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


# Bad input: one line, exit code 2, nothing lost ---------------------------------------------------------------------


def test_unknown_names_show_the_nearest(capsys):
    assert "nearest: train" in bad(capsys, "trian", "compvae-sines")
    assert "unknown recipe 'compvae-sine'; nearest: compvae-sines" in bad(capsys, "train", "compvae-sine")
    assert "there are: compvae-colors, compvae-sines" in bad(capsys, "train", "zzz")
    assert "unknown preset of compvae-sines 'smal'; nearest: small" in bad(capsys, "train", "compvae-sines", "--preset", "smal")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--steps", "-5"),
        ("--x-floor", "-1"),
        ("--x-floor", "1e+300"),
        ("--x-floor-steps", "500"),
        ("--threads", "-1"),
        ("--patience", "-1"),
        ("--log", "wandb"),
        ("--scale-floor", "1e-46"),
        ("--steps", "many"),
        ("--steps", "1000000001"),
        ("--parts", "0"),
        ("--batch-size", "0"),
        ("--learning-rate", "-1"),
        ("--clip-norm", "0"),
        ("--decoder-width", "30"),
        ("--graph-block", "narrow"),
        ("--graph-widths", "0"),
        ("--precision", "fp8"),
        ("--device", "tpu"),
        ("--devices", "0"),
        ("--num-nodes", "0"),
        ("--log-every", "0"),
        ("--learning-rate", "inf"),
        ("--z-weight", "inf"),
        ("--nonlinearity", "nan"),
        ("--evaluation-sets", "1"),
        ("--decoder-width", "20"),
    ],
)
def test_bad_flags(capsys, tmp_path, flag, value):
    line = bad(capsys, "train", "compvae-sines", "--out", tmp_path / "run", flag, value)
    assert flag in line
    assert value.lstrip("-") in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--steps", "--seed", "--batch-size", "--log-every", "--graph-widths", "--evaluation-sets"])
def test_numbers_with_very_many_digits(capsys, tmp_path, flag):
    for digits in (20, 400, 5000):  # Python itself reads no more than 4300
        for sign in ("", "-"):
            line = bad(capsys, "train", "compvae-sines", "--out", tmp_path / "run", f"{flag}={sign}1{digits * '0'}")
            assert line.startswith(f"pyzoo: {flag} must be ")
            assert len(line) < 200


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--stepz", "there is no flag --stepz; nearest: --steps"),
        ("--stepz=3", "there is no flag --stepz; nearest: --steps"),
        ("--data", "there is no flag --data"),
        ("--no-steps", "there is no flag --no-steps"),
    ],
)
def test_an_unknown_flag_is_named_with_what_is_near(capsys, tmp_path, argument, line):
    assert line in bad(capsys, "train", "compvae-sines", "--out", tmp_path / "run", argument, "3")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--data", "cats"),
        ("--nodes", "7"),
        ("--nodes", "0"),
        ("--latent-dim", "81"),
        ("--widths", "0"),
        ("--temperature-decay", "0"),
        ("--lowest-temperature", "-1"),
        ("--initial-gate", "1"),
        ("--settle-margin", "0.5"),
        ("--gate-learning-rate", "0"),
        ("--validate-every", "-7"),
        ("--test-share", "1"),
        ("--held-out", "1"),
        ("--image-size", "0"),
        ("--batch-size", "70000"),
        ("--batch-size", "1"),
        ("--decoder-input", "last"),
        ("--schedule", "never"),
    ],
)
def test_bad_flags_of_graph_vae(capsys, tmp_path, flag, value):
    line = bad(capsys, "train", "graph-vae", "--preset", "digits", "--out", tmp_path / "run", flag, value)
    assert flag in line or "--latent-dim" in line
    assert value in line
    assert not (tmp_path / "run").exists()


def test_hard_gates_need_particles(capsys, tmp_path):
    line = bad(capsys, "train", "graph-vae", "--out", tmp_path / "run", "--gate-estimator", "hard")
    assert "--particles must be at least 2 with --gate-estimator hard" in line
    line = bad(capsys, "train", "vae", "--out", tmp_path / "run", "--gate-estimator", "hard", "--particles", "2")
    assert "--gate-estimator must be relaxed where no gate is learned" in line


def test_patience_needs_a_held_out_share(capsys, tmp_path):
    fields = flags({**GRAPH, "held_out": 0.0, "patience": 2})
    assert "--patience needs held-out examples" in bad(capsys, "train", "graph-vae", *fields, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_images_leave_no_run_behind(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("PYZOO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    line = bad(capsys, "train", "graph-vae", "--out", tmp_path / "run")
    assert "MNIST/raw/train-images-idx3-ubyte.gz" in line
    assert "--data digits" in line
    assert not (tmp_path / "run").exists()


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_preset(monkeypatch):
    """Graph VAE's small preset, made tiny; the tables' runs use it."""
    for kind in (GraphVAERecipe, FCVAE, LadderVAE, PlainGraphVAE):
        monkeypatch.setitem(kind.presets, "small", {**GRAPH, **QUIET, "steps": 10, "log_every": 5, "validate_every": 5})
    monkeypatch.setattr(GraphVAEReport, "figures", lambda *arguments: iter(()))
    monkeypatch.setattr(GraphVAEReport, "full_samples", 20)


def reproduce(*arguments):
    return cli.main(["reproduce", *map(str, arguments), "--device", "cpu", "--no-progress"])


@pytest.mark.slow
def test_a_table_grows_over_several_sittings(tiny_preset, tmp_path, capsys):
    out = tmp_path / "table"
    assert reproduce("graph-vae-table1", "--data", "digits", "--seeds", "0", "--out", out) == 0
    first = capsys.readouterr().out
    assert "| VAE, digits | 1 |" in first
    assert "scikit-learn's 8x8 digits enlarged" in first
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/checkpoints/*")}
    assert len(stamps) >= 4
    assert reproduce("graph-vae-table1", "--data", "digits", "--seeds", "0", "1", "--full", "--out", out) == 0
    second = capsys.readouterr().out
    assert "| Graph VAE, digits | 2 |" in second
    assert "±" in second
    assert {path: path.stat().st_mtime_ns for path in out.glob("*seed0/checkpoints/*")} == stamps
    for label in ("vae", "ladder-vae", "fc-vae", "graph-vae"):
        metrics = [json.loads((out / f"{label}-digits-seed{s}" / "results.json").read_text())["metrics"] for s in (0, 1)]
        assert ["test_log_likelihood" in found for found in metrics] == [True, False]
    assert (out / "table.md").read_text().partition("<!--")[0].strip() in second
    assert (out / "figure5_digits.png").exists()
    assert "(n = 1)" in second
    again = ("reproduce", "graph-vae-table1", "--data", "digits", "--out", out)
    assert "vae-digits-seed0 was made with --steps 10, not 4" in bad(capsys, *again, "--steps", 4)
    assert "was made with --precision fp32, not bf16" in bad(capsys, *again, "--precision", "bf16")
    (out / "vae-digits-seed0" / "results.json").write_text("")  # as a power cut leaves it
    (tmp_path / "data").mkdir()
    assert reproduce(*again[1:], "--seeds", "0", "--data-dir", tmp_path / "data") == 0
    assert "| VAE, digits | 1 |" in capsys.readouterr().out


def test_a_run_of_a_table_goes_on_as_it_began(tiny_preset, tmp_path, monkeypatch):
    arguments = ("graph-vae-figure4", "--data", "digits", "--seeds", 0, "--latent-dims", 6, "--nodes", 2, "--out", tmp_path / "t")
    assert reproduce(*arguments) == 0
    (run,) = (tmp_path / "t").glob("*-seed0")
    config = json.loads((run / "config.json").read_text())
    config["hardware"] |= {"engine": "compiled", "threads": 1}
    (run / "config.json").write_text(json.dumps(config))
    (run / "results.json").unlink()
    seen = []
    monkeypatch.setattr(Run, "train", lambda self, hardware, *arguments: seen.append(hardware))
    assert reproduce(*arguments) == 0
    assert [(hardware.engine, hardware.threads) for hardware in seen] == [("compiled", 1)]


@pytest.mark.slow
def test_runs_side_by_side(tiny_preset, tmp_path, capfd):
    arguments = ("graph-vae-figure4", "--data", "digits", "--seeds", 0, "--latent-dims", 6, "--nodes", 1, 2)
    assert reproduce(*arguments, "--out", tmp_path / "one") == 0
    assert reproduce(*arguments, "--out", tmp_path / "two", "--jobs", 2, "--threads", 1) == 0
    printed = capfd.readouterr().out
    assert printed.count("| M = 6, N = 2, N' = 3 | 1 |") == 2
    for folder in (tmp_path / "two").glob("*-seed0"):
        assert json.loads((folder / "config.json").read_text())["hardware"]["threads"] == 1
        ours, theirs = (RunFolder.open(path) for path in (folder, tmp_path / "one" / folder.name))
        assert [row["loss"] for row in ours.metrics()] == pytest.approx([row["loss"] for row in theirs.metrics()], rel=1e-4)
    assert reproduce(*arguments, "--out", tmp_path / "three", "--backend", "nosuch") == 2
    assert "pyzoo: --backend nosuch: Invalid backend" in capfd.readouterr().err


def test_figure4_and_the_open_guide(tiny_preset, tmp_path, capsys):
    out = tmp_path / "figure4"
    sizes = ("--latent-dims", 4, 6, "--nodes", 1, 2)
    assert reproduce("graph-vae-figure4", "--data", "digits", "--seeds", 0, *sizes, "--out", out) == 0
    assert "| M = 6, N = 2, N' = 3 | 1 |" in capsys.readouterr().out
    assert (out / "figure4_divisions.png").exists()
    assert "--latent-dims 5 can't be divided into --nodes 2" in bad(
        capsys, "reproduce", "graph-vae-figure4", "--latent-dims", 5, "--nodes", 2
    )
    rows = {row.label: row for row in GraphVAETable1(preset="paper", open_guide=True).rows()}
    assert rows["Graph VAE with open guide, mnist"].paper == {"test_log_likelihood": "-83.40"}
    assert rows["Graph VAE with open guide, mnist"].fields["guide_gates"] == "full"


@pytest.mark.slow
def test_tables_of_tvae_share_their_runs(monkeypatch, tmp_path, capsys):
    for kind in (TVAERecipe, PlainVAE, VAEPlus):
        known = flat(kind())
        monkeypatch.setitem(kind.presets, "small", {n: v for n, v in {**TVAE, **QUIET, "steps": 4}.items() if n in known})
    monkeypatch.setattr(TVAEReport, "figures", lambda *arguments: iter(()))
    arguments = ("--data", "digits", "--affnist", "digits", "--z-dims", 4, "--seeds", 0, "--out", tmp_path / "table")
    assert reproduce("tvae-table1", *arguments) == 0
    printed = capsys.readouterr().out
    for label in ("VAE", "VAE plus", "T-VAE"):
        assert f"| {label}, z 4, digits | 1 |" in printed
    assert (tmp_path / "table" / "figure4_z4_digits.png").exists()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "table").glob("*/checkpoints/*")}
    assert len(stamps) == 3
    assert reproduce("tvae-figure2", *arguments) == 0
    assert "100 labels" in capsys.readouterr().out
    assert (tmp_path / "table" / "figure2_few_labels.png").exists()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "table").glob("*/checkpoints/*")} == stamps
    rows = {row.label: row.paper for row in TVAETable1(preset="paper").rows()}
    assert rows["T-VAE, z 100, fashion-mnist"] == {"knn_affnist": "81.2", "knn_same": "86.9"}
    assert len(rows) == 12


def test_one_failed_run_does_not_keep_the_others_from_training(tiny_preset, tmp_path, capsys, monkeypatch):
    out, train = tmp_path / "table", Trainer.train

    def fails(self):
        if self.recipe.networks.nodes == 1:
            raise NonFiniteLoss("loss is nan")
        return train(self)

    monkeypatch.setattr(Trainer, "train", fails)
    sizes = ("--latent-dims", 6, "--nodes", 1, 2)
    assert reproduce("graph-vae-figure4", "--data", "digits", "--seeds", 0, *sizes, "--out", out) == 1
    printed = capsys.readouterr().out
    assert "| M = 6, N = 2, N' = 3 | 1 |" in printed
    assert "1 runs are not finished yet" in printed


def test_a_run_that_another_process_trains_is_left_to_it(tiny_preset, tmp_path, capsys):
    out = tmp_path / "table"
    arguments = ("graph-vae-figure4", "--data", "digits", "--seeds", 0, "--latent-dims", 6, "--nodes", 1, 2, "--out", out)
    assert reproduce(*arguments) == 0
    run = RunFolder.open(out / "m-6-n-1-n-6-seed0")
    (run.path / "results.json").unlink()
    with run.lock():
        capsys.readouterr()
        assert reproduce(*arguments) == 0
    printed = capsys.readouterr().out
    assert "another process trains it" in printed
    assert "1 runs are not finished yet" in printed


def test_bad_tables(capsys):
    assert "unknown table 'graph-vae-table'; nearest: graph-vae-table1" in bad(capsys, "reproduce", "graph-vae-table")
    assert "--seeds" in bad(capsys, "reproduce", "graph-vae-table1", "--seeds", "0", "0")
    assert "--data must be one or more, and different" in bad(capsys, "reproduce", "graph-vae-table1", "--data")
    assert "--nodes must be one or more" in bad(capsys, "reproduce", "graph-vae-figure4", "--nodes", "2", "2")
    assert "one device each" in bad(capsys, "reproduce", "graph-vae-table1", "--devices", "2")
    assert cli.main(["reproduce", "--help"]) == 0
    assert "graph-vae-figure4" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda(capsys, tmp_path):
    assert "no CUDA device" in bad(capsys, "train", "compvae-sines", "--out", tmp_path / "run", "--device", "cuda")


def test_a_batch_that_processes_cannot_share(capsys, tmp_path):
    line = bad(capsys, "train", "compvae-sines", "--devices", "3", "--out", tmp_path / "run")
    assert "--batch-size 64 can't be shared equally by 3 processes" in line
    assert not (tmp_path / "run").exists()


def test_a_folder_in_the_place_of_a_file(capsys, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained / "compvae-sines", run)
    (run / "log.txt").unlink()
    (run / "log.txt").mkdir()
    assert "log.txt is a folder, and not a file" in bad(capsys, "evaluate", run)


def test_bad_output_folders(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert "can't make the run folder" in bad(capsys, "train", "compvae-sines", "--out", tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    assert "not empty" in bad(capsys, "train", "compvae-sines", "--out", tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert "can't make the run folder" in bad(capsys, "train", "compvae-sines", "--out", tmp_path / "run")


def test_an_existing_run_is_not_overwritten(capsys, trained):
    run = trained / "compvae-sines"
    before = (run / "results.json").read_bytes()
    assert f"pyzoo resume {run}" in bad(capsys, "train", "compvae-sines", "--out", run)
    assert (run / "results.json").read_bytes() == before


@pytest.mark.parametrize("command", ["resume", "evaluate", "figures", "sample"])
def test_bad_run_folders(capsys, tmp_path, command):
    assert "which run?" in bad(capsys, command)
    assert "is not a run folder" in bad(capsys, command, tmp_path)
    assert "is not a run folder" in bad(capsys, command, tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in bad(capsys, command, tmp_path)
    for config, message in (
        ('{"recipe": "compvae-sines", "fields": {}, "hardware": {}}', "is of format 1"),
        ('{"format": 2, "recipe": "compvae-sines", "preset": "small"}', "config.json has no 'settings'"),
        ("[]", "does not describe a run"),
    ):
        (tmp_path / "config.json").write_text(config)
        assert message in bad(capsys, command, tmp_path)


@pytest.mark.parametrize("command", ["resume", "evaluate", "figures", "sample"])
def test_bad_checkpoints(capsys, tmp_path, command):
    run = tmp_path / "run"
    assert train("compvae-sines", run, "--no-evaluate", "--no-figures", steps=2) == 0
    (checkpoint,) = (run / "checkpoints").iterdir()
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    assert "is damaged" in bad(capsys, command, run)
    state = torch.load(__import__("io").BytesIO(content), weights_only=True)
    torch.save({**state, "recipe": "compvae-colors"}, checkpoint)
    assert "is of recipe compvae-colors" in bad(capsys, command, run)
    checkpoint.unlink()
    if command != "resume":
        assert "no checkpoint yet" in bad(capsys, command, run)


def test_a_run_of_a_gpu_can_go_on_without_one(tmp_path):
    run = tmp_path / "run"
    assert train("compvae-sines", run, "--no-evaluate", "--no-figures", steps=2) == 0
    config = json.loads((run / "config.json").read_text())
    config["hardware"]["device"] = "cuda"
    (run / "config.json").write_text(json.dumps(config))
    assert cli.main(["resume", str(run), "--device", "cpu", "--no-progress", "--no-figures"]) == 0


@pytest.mark.parametrize(
    ("command", "flag"),
    [("resume", "--steps"), ("evaluate", "--full"), ("figures", "--device"), ("sample", "--given"), ("compare", "--out")],
)
def test_help_of_a_run_command_needs_no_run(trained, command, flag, capsys):
    for arguments in (["--help"], [str(trained / "compvae-sines"), "--help"]):
        shown = help_of(capsys, command, *arguments)
        assert "usage: pyzoo " + command in shown
        assert flag in shown


def test_bad_samples(capsys, trained, tmp_path):
    run = trained / "compvae-sines"
    assert "--count" in bad(capsys, "sample", run, "--count", "0")
    assert "at most 64" in bad(capsys, "sample", run, "--count", "65")
    assert "'11' is not a frequency from 1 to 10" in bad(capsys, "sample", run, "--given", "parts=3,11")
    assert "must be NAME=VALUE" in bad(capsys, "sample", run, "--given", "parts")
    assert "two values of 'parts'" in bad(capsys, "sample", run, "--given", "parts=3", "parts=4")
    assert "nothing 'hue'" in bad(capsys, "sample", run, "--given", "hue=3")
    assert "there is no view 'hue'" in bad(capsys, "sample", trained / "mib-multimodal", "--given", "hue=3")
    assert "there is no label '11'" in bad(capsys, "sample", trained / "mib-multimodal", "--given", "label=11")
    assert "must end in .png or .npz" in bad(capsys, "sample", run, "--out", tmp_path / "x.jpg")
    assert "could not write" in bad(capsys, "sample", run, "--out", tmp_path / "no" / "x.png")
    assert "'mauve' is not one of red" in bad(capsys, "sample", trained / "compvae-colors", "--given", "parts=mauve")


@pytest.mark.slow
def test_a_full_disk(capsys, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def full(*arguments, **options):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(torch, "save", full)
    line = bad(capsys, "train", "compvae-sines", *flags({**SINES, "steps": 2}), "--no-progress", "--out", run)
    assert "No space left on device" in line
    monkeypatch.undo()
    assert not run.exists()  # nothing of it was kept
    assert cli.main(["train", "compvae-sines", *map(str, flags({**SINES, "steps": 2})), "--no-progress", "--out", str(run)]) == 0


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (("--hidden-dim", 10**12), "there is not enough memory for these sizes, the largest of which is --hidden-dim"),
        (("--hidden-dim", 10**18), "no tensor can have these sizes, the largest of which is --hidden-dim"),
        (("--hidden-dim", 10**20), "--hidden-dim must be a whole number between -2^63 and 2^63"),
    ],
)
def test_sizes_beyond_memory_are_named(capsys, tmp_path, sizes, message):
    line = bad(capsys, "train", "graph-vae", *flags(GRAPH), *sizes, "--out", tmp_path / "deep" / "run")
    assert message in line
    assert not (tmp_path / "deep").exists()


def test_memory_that_runs_out_in_the_first_step_leaves_no_folder(capsys, tmp_path, monkeypatch):
    def full(self, batch):
        raise MemoryError

    monkeypatch.setattr("pyzoo.training.steps.Eager.gradients", full)
    fields = [*flags({**SINES, "steps": 3}), "--no-progress", "--device", "cpu", "--engine", "eager"]
    line = bad(capsys, "train", "compvae-sines", *fields, "--out", tmp_path / "run")
    assert "there is not enough memory for these sizes" in line
    assert f"a smaller batch takes less: --batch-size {SINES['batch_size'] // 2}" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NAME": "x"},
        {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"},
    ],
    ids=["slurm", "torchrun"],
)
def test_a_clusters_variables_do_not_make_one_process_several(tmp_path, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fields = flags({**SINES, "steps": 2})
    run = tmp_path / "run"
    quiet = ("--no-progress", "--no-evaluate", "--no-figures", "--device", "cpu")
    assert cli.main(["train", "compvae-sines", *fields, *quiet, "--out", str(run)]) == 0
    assert (run / "checkpoints" / "step-00000002.pt").exists()


# The command as a process -------------------------------------------------------------------------------------------


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "pyzoo.cli", *map(str, arguments)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )


def wait_for(path, process):
    while not list(path.glob("checkpoints/step-*.pt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_how_to_resume(tmp_path, number):
    run = tmp_path / "run"
    fields = flags({**SINES, "steps": 100_000})  # so many that another engine would be compiled first
    process = start("train", "compvae-sines", *fields, "--engine", "eager", "--no-progress", "--out", run)
    wait_for(run, process)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number
    assert re.search(rf"stopped by {number.name} after step \d+; continue with 'pyzoo resume {run}'", output)


def parameters(run):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    state = torch.load(newest, weights_only=True)
    return {f"{part}.{name}": value for part in ("model", "guide") for name, value in state[part].items()}


def kill_and_resume(tmp_path, kills, steps):
    """Runs undisturbed and with SIGKILLs at random moments; the parameters of both."""
    quiet = ("--no-progress", "--no-evaluate", "--no-figures")
    fields = flags({**SINES, "steps": steps})
    assert cli.main(["train", "compvae-sines", *fields, *quiet, "--out", str(tmp_path / "undisturbed")]) == 0
    run = tmp_path / "killed"
    process = start("train", "compvae-sines", *fields, *quiet, "--out", run)
    generator = torch.Generator().manual_seed(0)
    for _ in range(kills):
        wait_for(run, process)
        time.sleep(2.0 * torch.rand((), generator=generator).item())
        process.kill()
        process.communicate()
        process = start("resume", run, *quiet)
    assert process.wait(timeout=300) == 0, process.stdout.read()
    return parameters(tmp_path / "undisturbed"), parameters(run)


@pytest.mark.slow
def test_ten_sigkills_end_bit_identical(tmp_path):
    first, second = kill_and_resume(tmp_path, kills=10, steps=2000)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_two_processes_make_one_run(tmp_path):
    run = tmp_path / "run"
    fields = flags({**SINES, "steps": 6})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = start(
        "train", "compvae-sines", *fields, "--no-progress", "--device", "cpu", "--devices", 2, "--out", run, env=environment
    )
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert (run / "results.json").exists()
    assert output.count("trained 6 steps") == 1


def test_import_needs_neither_torchvision_nor_matplotlib():
    code = (
        "import sys, pyzoo, pyzoo.training, pyzoo.infer, pyzoo.recipes.compvae.recipe, pyzoo.cli, pyzoo.testing\n"
        "import pyzoo.recipes.graph_vae.tables, pyzoo.recipes.tvae.tables, pyzoo.recipes.mib.recipe\n"
        "assert not {'torchvision', 'matplotlib', 'sklearn'} & set(sys.modules), 'imported too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_changes_no_global_state():
    code = (
        "import torch, pyro\n"
        "def state(): return (torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision(),\n"
        "    torch.distributions.Distribution._validate_args, pyro.settings.get(), torch.get_rng_state().tolist())\n"
        "before = state()\n"
        "import pyzoo.cli, pyzoo.training, pyzoo.infer, pyzoo.recipes.compvae.recipe, pyzoo.recipes.compvae.figures\n"
        "import pyzoo.testing, pyzoo.recipes.graph_vae.figures, pyzoo.recipes.graph_vae.tables, pyzoo.recipes.mib.tables\n"
        "assert state() == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_python_without_docstrings_is_refused_in_a_line():
    command = [sys.executable, "-OO", "-m", "pyzoo.cli", "runs"]
    ending = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ending.returncode == 2
    assert ending.stderr == "pyzoo: Pyro can't be imported without docstrings: run Python without -OO and PYTHONOPTIMIZE=2\n"
