"""What the campaign shares: a run that is small enough to be made hundreds of times, and processes that can be killed anywhere.

Each attack runs the command in a process of its own, forked from a server that has imported everything. There every operation
that changes a disk is counted, and one of them can be the last: the process is killed before it, in the middle of it, or the
operation fails.
"""

import builtins
import contextlib
import dataclasses
import hashlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from pyzoo import cli
from pyzoo.training import Run
from tiny import SINES, flags

STEPS = 4
SETTINGS = {**SINES, "steps": STEPS, "log_every": 2, "validate_every": 2, "evaluation_sets": 4, "checkpoint_seconds": 0.0}
TRAIN = ["train", "compvae-sines", *flags(SETTINGS), "--device", "cpu", "--threads", "1", "--no-progress"]
Kind = Literal["kill", "torn", "full"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong at which of a process's operations on the disk, counted from 0."""

    at: int
    kind: Kind
    """The process is killed before the operation, or halfway through a write; or the disk is full."""


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a process ended."""

    code: int
    """Its exit code, negative after a signal."""
    output: str
    operations: int
    """How many operations on the disk it made."""

    @property
    def lines(self) -> list[str]:
        """What it wrote to standard error."""
        return self.output.splitlines()


def run(*arguments: str | Path, fault: Fault | None = None) -> Ending:
    """Runs ``pyzoo`` with some arguments."""
    return wait(start(*arguments, fault=fault))


def start(*arguments: str | Path, fault: Fault | None = None) -> tuple[Any, Any]:
    """The same, without waiting for its end: to be given to :func:`wait`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pyzoo.training", "pyzoo.recipes.compvae.recipe", "lightning_fabric", "pyzoo.flags"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_command, args=([str(a) for a in arguments], fault, sender))
    process.start()
    sender.close()
    return process, receiver


def wait(started: tuple[Any, Any]) -> Ending:
    """Waits for the end of a process."""
    process, receiver = started
    code, output, operations = None, "", 0
    with contextlib.suppress(EOFError):
        code, output, operations = receiver.recv()
    process.join(timeout=120)
    assert process.exitcode is not None, "it goes on for ever"
    return Ending(process.exitcode if code is None else code, output, operations)


def _command(arguments: list[str], fault: Fault | None, sender: Any) -> None:
    torch.set_num_threads(1)
    output = io.StringIO()
    sys.stdout, sys.stderr = io.StringIO(), output
    with faults(fault) as counter:
        try:
            code = cli.main(arguments)
        except BaseException as error:  # what the command should never let through
            code, _ = 99, output.write(f"{type(error).__name__}: {error}")
    sender.send((code, output.getvalue(), counter[0]))


@contextlib.contextmanager
def faults(fault: Fault | None) -> Iterator[list[int]]:
    """The context in which operations on the disk are counted, and one goes wrong."""
    counter = [0]

    def due(kind: str = "kill") -> bool:
        """Counts an operation; kills the process or fails if this is the one."""
        here = counter[0]
        counter[0] += 1
        if fault is None or fault.at != here:
            return False
        if fault.kind == "full":
            raise OSError(28, os.strerror(28))
        if fault.kind == "kill" or kind != "write":
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    class File:
        """A file whose writes are counted: the first, second, fourth and so on, of the thousand that torch makes of a state."""

        def __init__(self, file: Any) -> None:
            self._file = file
            self._writes = 0

        def write(self, content: Any) -> Any:
            self._writes += 1
            if not self._writes & (self._writes - 1) and due("write"):
                self._file.write(content[: len(content) // 2])
                self._file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            return self._file.write(content)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> "File":
            return self

        def __exit__(self, *arguments: object) -> None:
            self._file.close()

        def __iter__(self) -> Iterator[Any]:
            return iter(self._file)

    def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+") or not isinstance(path, (str, Path)):
            return real_open(path, mode, *arguments, **options)
        due()
        return File(real_open(path, mode, *arguments, **options))

    def counted(function: Callable) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            due()
            return function(*arguments, **options)

        return call

    real_open, names = open, ("replace", "fsync", "unlink", "mkdir", "rmdir")
    before = {name: getattr(os, name) for name in names}
    builtins.open = opened
    for name, function in before.items():
        setattr(os, name, counted(function))
    try:
        yield counter
    finally:
        builtins.open = real_open
        for name, function in before.items():
            setattr(os, name, function)


def fingerprint(folder: Path) -> str:
    """What a run has learned, to the last bit."""
    state = Run(folder).folder.checkpoints.load()
    found = hashlib.sha256()
    for part in ("model", "guide"):
        for name, value in state[part].items():
            found.update(name.encode() + value.numpy().tobytes())
    return found.hexdigest()


def leftovers(folder: Path) -> list[Path]:
    """Files that a write left behind."""
    return list(folder.rglob(".*.partial"))


def is_one_line(ending: Ending) -> bool:
    """Whether all that was said of an error is one line of the command's own."""
    return len(ending.lines) == 1 and ending.lines[0].startswith("pyzoo: ")


def spread(count: int, most: int) -> Sequence[int]:
    """So many numbers below a count, evenly spread, or all of them."""
    return sorted({round(i * (count - 1) / max(1, most - 1)) for i in range(min(count, most))})
