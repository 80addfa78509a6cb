import io
import json
import math
import os
import sys

import numpy as np
import pytest
import torch

import pyzoo
from pyzoo.errors import UsageError
from pyzoo.training import Busy, NonFiniteLoss, RunFolder

RESULTS = {
    "metrics": {"r2": 0.5},
    "full": False,
    "note": "",
    "step": 3,
    "trained": 3,
    "steps": 3,
    "finished": True,
    "training_seconds": None,
    "hardware": {},
    "parameters": 10,
    "versions": {},
    "machine": "x86_64, cpu",
}


def test_config_and_results_round_trip(tmp_path):
    run = RunFolder.create(tmp_path / "deep" / "run", {"recipe": "r", "fields": {"a": (1, 2)}})
    assert RunFolder.open(run.path).config() == {"recipe": "r", "fields": {"a": [1, 2]}}
    results = RESULTS
    run.write_results(results)
    assert run.results() == results
    run.write_results({**results, "metrics": {"r2": math.nan}})
    assert math.isnan(run.results()["metrics"]["r2"])
    assert json.loads((run.path / "results.json").read_text(), parse_constant=pytest.fail)["metrics"] == {"r2": None}


@pytest.mark.parametrize(
    "damage",
    ["", "[]", "[" * 10_000, {"metrics": []}, {"metrics": {"a": True}}, {"step": 1.5}, {"steps": 0}, {"note": None}],
    ids=str,
)
def test_results_that_are_something_else_are_none(tmp_path, damage):
    run = RunFolder.create(tmp_path / "run", {})
    (run.path / "results.json").write_text(damage if isinstance(damage, str) else json.dumps({**RESULTS, **damage}))
    assert run.results() == {}


def test_a_quote_takes_no_other_row_with_it(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    for step in (5, 10, 15):
        run.append_metrics({"step": step, "loss": step / 2})
    whole = (run.path / "metrics.csv").read_text()
    (run.path / "metrics.csv").write_text(whole.replace("5.0", '"5.0'))
    with pytest.raises(UsageError, match=r"metrics\.csv is damaged"):
        run.forget_metrics_after(15)
    (run.path / "metrics.csv").write_text(whole.replace("7.5", '"7.5'))  # the end may be cut short
    assert [row["step"] for row in run.metrics()] == [5, 10]


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [*lines[:3], lines[2], *lines[3:]],
        lambda lines: ["\r".join(line.rstrip() for line in lines)],
        lambda lines: [lines[0], lines[1].replace("2.5", "3.5"), *lines[2:]],
    ],
    ids=["swapped", "repeated", "line ends", "digit"],
)
def test_rows_that_were_changed_are_said(tmp_path, change):
    run = RunFolder.create(tmp_path / "run", {})
    for step in (5, 10, 15):
        run.append_metrics({"step": step, "loss": step / 2})
    file = run.path / "metrics.csv"
    file.write_bytes("".join(change(file.read_bytes().decode().splitlines(keepends=True))).encode())
    with pytest.raises(UsageError, match=r"metrics\.csv is damaged"):
        run.metrics()


def test_names_of_terms_that_need_quotes(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.append_metrics({"step": 5, 'a, "b"': 1.0})
    run.append_metrics({"step": 10, 'a, "b"': 2.0, "c\nd": 3.0})
    run.append_metrics({"step": 15, "c\nd": 4.0})
    assert [row['a, "b"'] for row in run.metrics()][:2] == [1.0, 2.0]
    assert [row["c\\nd"] for row in run.metrics()][1:] == [3.0, 4.0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    for name in ("config.json", "metrics.csv", "results.json", "log.txt"):
        (run.path / name).unlink(missing_ok=True)
        os.mkfifo(run.path / name)
    calls = (
        run.config,
        run.metrics,
        lambda: run.log("x"),
        lambda: run.append_metrics({"step": 1}),
        lambda: run.write_results({}),
    )
    for call in calls:
        with pytest.raises(UsageError, match="is a pipe or a device, and not a file"):
            call()
    assert run.results() == {}


def test_what_a_kill_left_of_making_a_folder_is_no_hindrance(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".config.json.999999999.partial").write_text("{")
    made = RunFolder.create(run, {"recipe": "r"})
    assert {path.name for path in made.path.iterdir()} == {"config.json", ".lock"}


def test_one_process_alone_makes_a_folder(tmp_path):
    run = tmp_path / "deep" / "run"
    with RunFolder.making(run) as made:
        (run / "data.npz").touch()
        with pytest.raises(Busy), RunFolder.making(run):
            pass
        made.write_config({"recipe": "first"})
    assert {path.name for path in run.iterdir()} == {"config.json", "data.npz", ".lock"}


def test_what_fails_in_making_a_folder_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError), RunFolder.making(tmp_path / "deep" / "run") as made:
        made.write_config({1j: "a name that JSON lacks"})
    assert not list(tmp_path.iterdir())


def test_the_lock_survives_a_new_config(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    with run.lock():
        run.write_config({"recipe": "other"})
        with pytest.raises(Busy), RunFolder.open(run.path).lock():
            pass


def test_metrics_round_trip_and_forget(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    assert run.metrics() == []
    for step in (5, 10, 15):
        run.append_metrics({"step": step, "loss": step / 2})
    run.forget_metrics_after(10)
    assert run.metrics() == [{"step": 5, "loss": 2.5}, {"step": 10, "loss": 5.0}]
    run.forget_metrics_after(0)
    assert run.metrics() == []
    run.append_metrics({"step": 5, "loss": 1.0})
    assert run.metrics() == [{"step": 5, "loss": 1.0}]


def test_a_row_that_a_kill_cut_short_is_dropped(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.append_metrics({"step": 5, "loss": 1.0, "w": 2.0})
    with open(run.path / "metrics.csv", "a") as file:
        file.write("10,0.")
    run.forget_metrics_after(10)
    assert run.metrics() == [{"step": 5, "loss": 1.0, "w": 2.0}]


@pytest.mark.parametrize("end", ["10,0.", "10,\0\0,1", "x,1,2"])
def test_what_a_power_cut_leaves_at_the_end_is_dropped(tmp_path, end):
    run = RunFolder.create(tmp_path / "run", {})
    run.append_metrics({"step": 5, "loss": 1.0, "w": 2.0})
    with open(run.path / "metrics.csv", "a") as file:
        file.write(end)
    assert run.metrics() == [{"step": 5, "loss": 1.0, "w": 2.0}]


@pytest.mark.parametrize("content", [b"garbage", b"step,loss\n5,x\n10,1.0\n", b"\xff\xfe\n"])
def test_damage_elsewhere_is_said(tmp_path, content):
    run = RunFolder.create(tmp_path / "run", {})
    (run.path / "metrics.csv").write_bytes(content)
    with pytest.raises(UsageError, match=r"metrics\.csv is damaged"):
        run.forget_metrics_after(100)
    assert (run.path / "metrics.csv").read_bytes() == content


def test_a_column_that_comes_later(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.append_metrics({"step": 5, "a": 1.0})
    run.append_metrics({"step": 10, "b": 2.0})
    first, second = run.metrics()
    assert (first["a"], second["b"]) == (1.0, 2.0)
    assert math.isnan(first["b"])


def test_what_exists_is_never_overwritten(tmp_path):
    RunFolder.create(tmp_path / "run", {"recipe": "first"})
    with pytest.raises(UsageError, match="pyzoo resume"):
        RunFolder.create(tmp_path / "run", {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="not empty"):
        RunFolder.create(tmp_path / "other", {})
    assert RunFolder.open(tmp_path / "run").config() == {"recipe": "first"}


def test_an_empty_folder_will_do(tmp_path):
    RunFolder.create(tmp_path, {})


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="can't make the run folder"):
            RunFolder.create(path, {})
        with pytest.raises(UsageError, match="not a run folder"):
            RunFolder.open(path)


def test_who_holds_the_lock_may_take_it_again(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    with run.lock(), run.lock(), pytest.raises(Busy, match="another process is training in"), RunFolder(run.path).lock():
        pass
    with RunFolder(run.path).lock():
        pass


def test_data_for_a_new_run_may_be_there(tmp_path):
    (tmp_path / "data.npz").touch()
    RunFolder.require_free(tmp_path)
    RunFolder.create(tmp_path, {"recipe": "r"})
    with pytest.raises(UsageError, match="pyzoo resume"):
        RunFolder.require_free(tmp_path)


def test_the_log_and_a_new_config(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"steps": 3})
    run.log("one")
    run.log("two")
    assert (run.path / "log.txt").read_text() == "one\ntwo\n"
    run.write_config({"steps": 4})
    assert run.config() == {"steps": 4}
    assert {path.name for path in run.path.iterdir()} == {"config.json", "log.txt", ".lock"}


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_damaged_config(tmp_path, content):
    run = RunFolder.create(tmp_path / "run", {})
    (run.path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config\.json"):
        run.config()
    (run.path / "results.json").write_text(content)
    assert run.results() == {}


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunFolder.create(tmp_path / "run", {})
    run.write_tensorboard({"step": 5, "loss": 2.0})
    run.write_tensorboard({"step": 10, "loss": 1.0, "held_out_elbo": -3.0})
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["held_out_elbo", "loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(5, 2.0), (10, 1.0)]


def test_tensorboard_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = RunFolder.create(tmp_path / "run", {})
    with pytest.raises(UsageError, match="needs the package tensorboard: pip install tensorboard"):
        run.write_tensorboard({"step": 5, "loss": 2.0})


def test_a_users_data_in_the_folder_of_a_run_stay_whatever_happens(tmp_path):
    """Also where the run fails before its first checkpoint, and where tensors would be kept under the same name."""
    out = tmp_path / "run"
    out.mkdir()
    content = io.BytesIO()
    np.savez(content, images=np.zeros((60, 8, 8), np.uint8))
    (out / "data.npz").write_bytes(content.getvalue())
    settings = {"out": out, "steps": 2, "progress": False}
    with pytest.raises(NonFiniteLoss):
        pyzoo.train("vae", "digits", data=out / "data.npz", batch_size=4, learning_rate=1e30, **{**settings, "steps": 30})
    with pytest.raises(UsageError):
        pyzoo.train("vae", "digits", data=out / "data.npz", batch_size=999, **settings)
    with pytest.raises(UsageError, match="in the way of the images to keep there"):
        pyzoo.train("vae", "digits", data=torch.rand(60, 8, 8), batch_size=4, **settings)
    assert [path.name for path in out.iterdir()] == ["data.npz"]
    assert (out / "data.npz").read_bytes() == content.getvalue()


def test_data_that_were_kept_for_a_run_go_with_it(tmp_path):
    with pytest.raises(UsageError):
        pyzoo.train("vae", "digits", data=torch.rand(60, 8, 8), out=tmp_path / "run", batch_size=999, progress=False)
    assert not (tmp_path / "run").exists()
