"""What a shell can do to the command: pipes, streams that are closed or full, locales, no home, and signals at any moment."""

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from attack import STEPS, TRAIN, fingerprint, is_one_line, leftovers, run

from pyzoo.training import Run
from tiny import MIB, flags

QUIET = ("--no-evaluate", "--no-figures")
COMMAND = shlex.join([sys.executable, "-m", "pyzoo.cli", *TRAIN])
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")

# What follows the command, the environment's changes, and the name of the run's folder.
TABLE = {
    "a reader that leaves": ("2>&1 | head -1", {}, "run"),
    "nobody to read": ("| true", {}, "run"),
    "standard output closed": (">&-", {}, "run"),
    "standard error closed": ("2>&-", {}, "run"),
    "both closed": (">&- 2>&-", {}, "run"),
    "all three closed": ("<&- >&- 2>&-", {}, "run"),
    "a full disk behind standard output": ("> /dev/full", {}, "run"),
    "a full disk behind both": ("> /dev/full 2>&1", {}, "run"),
    "an ASCII locale and another path": ("", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "läuft-\u4e2d"),
    "a path that is not UTF-8": ("", {}, os.fsdecode(b"run-\xff")),
    "a path with spaces and quotes": ("", {}, 'it\'s a "run"\nof two lines'),
    "no home and no user": ("", {"HOME": None, "USER": None, "LOGNAME": None}, "run"),
    "a picture backend that is none": ("", {"MPLBACKEND": "nonsense"}, "run"),
    "a cluster's variables": ("", {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "WORLD_SIZE": "8", "RANK": "3"}, "run"),
}
QUICK = ("all three closed",)


def shell(command, folder, changes):
    """Runs a line in a shell; its exit code is the command's, not that of who reads it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, value in changes.items():
        environment.pop(name, None)
        environment.update({} if value is None else {name: value})
    script = f"set -o pipefail; {command}"
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, timeout=180, check=False)


def goes_on(tmp_path, case):
    redirected, changes, name = TABLE[case]
    ending = shell(f"{COMMAND} --out {shlex.quote(name)} {redirected}", tmp_path, changes)
    assert ending.returncode in (0, 141), ending  # bash says 141 where a reader has left
    assert b"Traceback" not in ending.stdout + ending.stderr, ending
    found = Run(tmp_path / name)
    assert found.folder.checkpoints.newest_step() == STEPS
    assert found.metrics
    assert list(found.folder.figures.glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("case", QUICK)
def test_a_training_goes_on(tmp_path, case):
    goes_on(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, marks=FULL if "full" in case else ()) for case in TABLE])
def test_a_training_goes_on_whatever_the_shell_does(tmp_path, case):
    goes_on(tmp_path, case)


REFUSED = {
    "a current folder that was deleted": ("mkdir x; cd x; rmdir ../x", "the current folder has been deleted"),
    "no memory for torch itself": ("ulimit -v 600000", "can't be loaded|not enough memory"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux has it")
@pytest.mark.parametrize("case", REFUSED)
def test_a_shell_in_which_nothing_can_run(tmp_path, case):
    before, message = REFUSED[case]
    ending = shell(f"{before}; {COMMAND}", tmp_path, {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))})
    assert ending.returncode in (1, 2), ending
    assert re.fullmatch(rf"pyzoo: [^\n]*({message})[^\n]*\n", ending.stderr.decode()), ending


@pytest.mark.parametrize("columns", ["0", "1", "nonsense"])
def test_a_terminal_that_is_too_narrow(tmp_path, columns):
    ending = shell(
        f"{shlex.join([sys.executable, '-m', 'pyzoo.cli'])} train compvae-sines --help", tmp_path, {"COLUMNS": columns}
    )
    assert ending.returncode == 0, ending
    assert b"--steps" in ending.stdout, ending


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(*TRAIN, *QUIET, "--steps", "40", "--out", folder).code == 0
    return fingerprint(folder)


def interrupted(folder, number, seconds, train=(*TRAIN, "--steps", "40")):
    """Sends a signal after some seconds; then the run goes on to the same end."""
    arguments = [sys.executable, "-m", "pyzoo.cli", *train, "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    time.sleep(seconds)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 128 + number, -number), (seconds, process.returncode, errors)
    assert "Traceback" not in errors, (seconds, errors)
    if process.returncode == 128 + number and "stopped by" in output:
        assert re.search(r"continue with 'pyzoo resume ", output), output
    resumed = run("resume", folder, "--no-progress") if (folder / "config.json").exists() else run(*arguments[3:])
    assert resumed.code == 0, (seconds, resumed)
    assert not leftovers(folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_at_any_moment(tmp_path, undisturbed, number):
    generator = random.Random(int(number))
    for attempt in range(8):
        interrupted(tmp_path / str(attempt), number, 12 * generator.random())
        assert fingerprint(tmp_path / str(attempt)) == undisturbed


@pytest.mark.slow
def test_signals_while_steps_are_traced(tmp_path):
    """Tracing takes most of these seconds."""
    settings = (*flags({**MIB, "steps": 10}), "--device", "cpu", "--threads", "1", "--no-progress")
    train, generator = ("train", "mib-multimodal", *settings, "--engine", "traced"), random.Random(0)
    assert run(*train, *QUIET, "--out", tmp_path / "undisturbed").code == 0
    for attempt, number in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)):
        interrupted(tmp_path / str(attempt), number, 2 + 6 * generator.random(), train)
        assert fingerprint(tmp_path / str(attempt)) == fingerprint(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", ["evaluate", "figures", "sample", "resume", "compare", "runs"])
def test_signals_while_a_run_is_read(tmp_path, command, number):
    for name in ("a", "b"):
        assert run(*TRAIN, *QUIET, "--out", tmp_path / name).code == 0
    more = [tmp_path / "b", "--out", tmp_path / "curves.png"] if command == "compare" else []
    generator = random.Random(int(number))
    for _ in range(4):
        arguments = [sys.executable, "-m", "pyzoo.cli", command, tmp_path / "a", *more]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(1 + 6 * generator.random())
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number, -number), errors  # -number while Python itself starts or ends
        assert process.returncode <= 0 or re.fullmatch(r"pyzoo: interrupted by \w+; [^\n]+\n", errors), errors
        assert "Traceback" not in errors, errors
        assert not leftovers(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_while_a_table_is_reproduced(tmp_path, number):
    """At the start, in a training, in what is measured and drawn after it, between runs, and in what is trained beside them."""
    table = ["reproduce", "mib-table3", "--preset", "synthetic", "--steps", "20", "--seeds", "0", "--device", "cpu"]
    assert run(*table, "--out", tmp_path / "undisturbed").code == 0
    generator = random.Random(int(number))
    out = tmp_path / "table"
    for words in ("", "seed0: 20 steps", "trained 20 steps", "measured in", "drew 4 figures", "mine-seed0/figures"):
        arguments = [sys.executable, "-m", "pyzoo.cli", *table, "--out", out]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        said = next((line for line in process.stdout if words in line), "")
        time.sleep((0.5 if words else 3) * generator.random())
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number, -number), errors
        assert process.returncode <= 0 or "goes on from here" in said + output + errors
        assert "Traceback" not in errors, errors
        assert not leftovers(out)
    assert run(*table, "--out", out).code == 0
    assert (out / "table.md").read_text() == (tmp_path / "undisturbed" / "table.md").read_text()
    rows = [path.parent.name for path in (tmp_path / "undisturbed").glob("*/config.json")]
    assert len(rows) == 3
    for row in rows:
        assert fingerprint(out / row) == fingerprint(tmp_path / "undisturbed" / row)


def test_a_refusal_is_one_line_whatever_the_name(tmp_path):
    for name in ("a\nb", "\udcff", "x" * 5000):
        for command in ("resume", "sample", "runs", "compare"):
            ending = run(command, name, *([tmp_path] if command == "compare" else []))
            assert ending.code == 2, (command, ending)
            assert is_one_line(ending), (command, ending)


# Several processes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_dead_process_stops_its_neighbors(tmp_path, killed):
    folder = tmp_path / "run"
    more = ["--steps", "100000", "--devices", "2", "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "errors", "w") as errors:
        first = subprocess.Popen([sys.executable, "-m", "pyzoo.cli", *TRAIN, *more], stderr=errors, env=environment)
    wait_until(lambda: (folder / "config.json").exists() and Run(folder).folder.checkpoints.newest_step() > 2)
    processes = running(str(folder))
    assert first.pid in processes
    assert len(processes) == 2
    os.kill(first.pid if killed == 0 else next(one for one in processes if one != first.pid), signal.SIGKILL)
    wait_until(lambda: first.poll() is not None and not running(str(folder)), seconds=60)
    assert first.returncode == (1 if killed else -9)
    said = [line for line in (tmp_path / "errors").read_text().splitlines() if line.startswith("pyzoo: ")]
    assert len(said) == 1
    assert "another process of this run has ended; the last good checkpoint is" in said[0]
    assert "Traceback" not in (tmp_path / "errors").read_text()
    assert Run(folder).step == Run(folder).folder.checkpoints.newest_step() > 2  # and it is whole


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.2)


def running(text):
    """The processes that have a text in their command line."""
    found = []
    for folder in os.listdir("/proc"):
        place = Path("/proc", folder)
        try:
            command, state = (place / "cmdline").read_bytes(), (place / "stat").read_text()
        except (OSError, ValueError):  # no process, or one that has just ended
            continue
        if folder.isdigit() and text.encode() in command and " Z " not in state:
            found.append(int(folder))
    return found
