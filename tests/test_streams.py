"""What a terminal does to the command: its training goes on, or stops with everything saved."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest

from pyzoo.streams import LastingStream, lasting_streams
from pyzoo.training import Run
from tiny import SINES, flags

TRAIN = [
    sys.executable,
    "-m",
    "pyzoo.cli",
    "train",
    "compvae-sines",
    *flags({**SINES, "steps": 3}),
    "--no-evaluate",
    "--no-figures",
]


def is_trained(path):
    return Run(path).folder.checkpoints.newest_step() == 3


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise ValueError("closed")


@pytest.mark.parametrize("stream", [None, Broken()])
def test_what_can_not_be_written_is_dropped(stream):
    lasting = LastingStream(stream)
    assert lasting.write("text") == 4
    lasting.flush()
    assert not lasting.isatty()


def test_what_an_encoding_lacks_is_escaped():
    raw = io.BytesIO()
    lasting = LastingStream(io.TextIOWrapper(raw, encoding="ascii"))
    lasting.write("\u00e9 \udcff x")
    lasting.flush()
    assert raw.getvalue() == b"\\xe9 \\udcff x"


def test_the_streams_come_back():
    before = sys.stdout, sys.stderr
    with lasting_streams():
        assert isinstance(sys.stdout, LastingStream)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "shell",
    [
        '"$@" | head -0',
        '"$@" >&-',
        '"$@" 2>&-',
        '"$@" >&- 2>&-',
        '"$@" > /dev/full',
        'LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii "$@"',
        'env -u HOME -u USER -u LOGNAME "$@"',
    ],
)
def test_training_survives_the_terminal(tmp_path, shell):
    run = tmp_path / "r\u00fcn"
    subprocess.run(["bash", "-c", f"set -o pipefail; {shell}", "bash", *TRAIN, "--out", run], check=True, capture_output=True)
    assert is_trained(run)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_closes_saves_what_there_is(tmp_path, ignored):
    run = tmp_path / "a run"
    command = [*TRAIN, "--steps", "1000000", "--out", run]
    before = (lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if ignored else None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=before) as process:
        while not list(run.glob("checkpoints/step-*.pt")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        if ignored:
            time.sleep(0.5)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    name = "SIGTERM" if ignored else "SIGHUP"
    assert process.returncode == 128 + getattr(signal, name)
    assert f"stopped by {name}" in said
    assert f"continue with pyzoo resume '{run}'" in said
    assert os.listdir(run / "checkpoints")
