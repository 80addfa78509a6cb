import pytest

from pyzoo.errors import UsageError
from pyzoo.training import RunFolder


def test_config_and_results_round_trip(tmp_path):
    run = RunFolder.create(tmp_path / "deep" / "run", {"recipe": "r", "fields": {"a": (1, 2)}})
    assert RunFolder.open(run.path).config() == {"recipe": "r", "fields": {"a": [1, 2]}}
    run.write_results({"metrics": {"r2": 0.5}})
    assert run.results() == {"metrics": {"r2": 0.5}}


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
