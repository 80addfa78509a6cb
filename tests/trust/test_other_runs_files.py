"""Files of a run that are another run's, gone, or changed by hand."""

import json
import shutil

import pytest
import torch

import pyzoo
from pyzoo import cli
from pyzoo.errors import UsageError
from tiny import tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one recipe with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {name: value for name, value in tiny("mib-fair").items() if name not in ("data", "steps", "log_every")}
    quiet = {"progress": False, "figures": False}
    for seed in (0, 1):
        pyzoo.train("mib-fair", "synthetic", steps=4, log_every=1, seed=seed, out=folder / str(seed), **quiet, **settings)
    return folder


@pytest.fixture
def run(runs, tmp_path):
    shutil.copytree(runs / "0", tmp_path / "run")
    return tmp_path / "run"


def edit(run, **changes):
    config = json.loads((run / "config.json").read_text())
    config["settings"].update(changes)
    (run / "config.json").write_text(json.dumps(config))


def test_results_of_another_run_are_not_its_own(runs, run):
    assert pyzoo.load(run).metrics
    shutil.copy(runs / "1" / "results.json", run)
    assert not pyzoo.load(run).metrics


def test_rows_of_another_run_are_refused(runs, run, capsys):
    shutil.copy(runs / "1" / "metrics.csv", run)
    assert cli.main(["resume", str(run), "--steps", "6", "--no-progress"]) == 2
    assert "metrics.csv is damaged or another run's" in capsys.readouterr().err


@pytest.mark.slow
def test_a_copied_folder_is_the_same_run(run):
    assert len(pyzoo.load(run).history) == 4
    assert cli.main(["resume", str(run), "--steps", "5", "--no-progress", "--no-figures"]) == 0
    assert [row["step"] for row in pyzoo.load(run).history] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_config_made_shorter_by_hand_harms_nothing(run):
    before = {file: file.read_bytes() for file in (run / "checkpoints").iterdir()}
    edit(run, steps=3)
    assert cli.main(["resume", str(run), "--no-progress", "--no-evaluate", "--no-figures"]) == 0
    assert {file: file.read_bytes() for file in (run / "checkpoints").iterdir()} == before
    assert cli.main(["resume", str(run), "--steps", "6", "--no-progress", "--no-evaluate", "--no-figures"]) == 0


def test_a_refused_resume_writes_nothing(run):
    edit(run, learning_rate=0.5)
    before = [(run / name).read_bytes() for name in ("config.json", "log.txt")]
    assert cli.main(["resume", str(run), "--steps", "7", "--no-progress"]) == 2
    assert [(run / name).read_bytes() for name in ("config.json", "log.txt")] == before


@pytest.mark.slow
def test_a_missing_checkpoint_is_said(run, capsys):
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    assert cli.main(["resume", str(run), "--no-progress", "--no-figures"]) == 0
    assert "has no checkpoint: training begins again" in capsys.readouterr().out


def test_lines_that_are_all_a_command_makes_are_not_lost_in_silence(run, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert cli.main(["runs", str(run)]) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == "pyzoo: standard output: No space left on device\n"


def test_texts_are_in_alphabetical_order_and_the_favorable_one_is_named(tmp_path):
    from pyzoo.data.tables import load_table

    rows = ["age,sex,hired", *(f"{20 + i},{'fm'[i % 2]},{('Yes', 'no')[i // 2 % 2]}" for i in range(40))]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    table = load_table(str(tmp_path / "table.csv"), target="hired", sensitive="sex")
    assert table.outcomes == ("no", "Yes")
    assert "Of 'hired', 'Yes' is favorable." in table.note


def test_a_file_of_tensors_that_was_cut_is_damaged(tmp_path):
    torch.save({"images": torch.zeros(500, 1, 8, 8, dtype=torch.uint8)}, tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="it is damaged, or holds"):
        pyzoo.train("vae", data=tmp_path / "x.pt", out=tmp_path / "run")


def test_a_link_to_the_folder_itself_is_no_class(tmp_path):
    from PIL import Image

    from pyzoo.data.files import read_folder

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "self").symlink_to(".")
    data = read_folder(tmp_path)
    assert len(data.train) + len(data.test) == 10
    assert data.classes == ("a", "b")


def test_a_checkpoint_under_a_later_name_is_damaged_whatever_is_asked(run, capsys):
    shutil.copy(run / "checkpoints" / "step-00000004.pt", run / "checkpoints" / "step-00000099.pt")
    for steps in ("6", "200"):
        assert cli.main(["resume", str(run), "--steps", steps, "--no-progress"]) == 2
        assert "it is of step 4, and its name says 99" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0.0001", "0.9999"])
def test_a_share_that_leaves_no_rows(tmp_path, capsys, share):
    assert cli.main(["train", "mib-fair", "--data", "synthetic", "--held-out", share, "--out", str(tmp_path / "run")]) == 2
    assert "leaves none in one of the parts" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("base", [10**9, 4 * 10**15])
def test_large_numbers_that_differ_little_are_standardized(tmp_path, base):
    from pyzoo.data.tables import load_table

    rows = ["x,time,s,y", *(f"{i * 37 % 101},{base + i},{'fm'[i % 2]},{'ab'[i // 2 % 2]}" for i in range(2000))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    x = load_table(str(tmp_path / "t.csv"), "y", "s").split(0)[0].x
    torch.testing.assert_close(x.std(0), torch.ones(2), rtol=0.01, atol=0)
    torch.testing.assert_close(x.mean(0), torch.zeros(2), rtol=0, atol=0.01)
