"""Checkpoints that survive a kill, a full disk and a curious user."""

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyzoo.errors import UsageError, one_line
from pyzoo.files import write_whole

__all__ = ["CheckpointFolder"]

_KEYS = {
    "recipe",
    "settings",
    "computed_with",
    "step",
    "steps",
    "seconds",
    "best",
    "waited",
    "values",
    "model",
    "guide",
    "objectives",
}


class CheckpointFolder:
    """A run's checkpoints, ``step-00001000.pt`` and so on: tensors and plain values, which load with ``weights_only=True``.

    A checkpoint is written beside its final name, synced and renamed, file and folder: whatever happens while it is
    written, the ones before it stay whole.

    Args:
        path: the folder; made at the first save.
        keep: how many of the newest to keep.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = path
        self.keep = keep

    def files(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        found = [path for path in self.path.glob("step-*.pt") if path.stem.removeprefix("step-").isdecimal()]
        return sorted(found, key=_step)

    def newest_step(self) -> int:
        """The step of the newest checkpoint; 0 without one."""
        files = self.files()
        return _step(files[-1]) if files else 0

    @property
    def best(self) -> Path:
        """The checkpoint with the best held-out ELBO, if one was kept."""
        return self.path / "best.pt"

    def save(self, step: int, state: dict[str, Any], best: bool = False) -> Path:
        """Writes a checkpoint and deletes all but the newest; the best one has a file of its own.

        Raises:
            UsageError: the disk is full, or the folder can't be written.
        """
        final = self.best if best else self.path / f"step-{step:08d}.pt"
        try:
            self.path.mkdir(exist_ok=True)
            write_whole(final, lambda file: torch.save(state, file))
        except (OSError, RuntimeError, UsageError) as error:  # torch has errors of its own for a failed write
            reason = str(error) if isinstance(error, UsageError) else f"could not write {final}: {one_line(error)}"
            kept = self.files()
            last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no earlier checkpoint"
            raise UsageError(f"{reason}; {last}") from error
        for old in self.files()[: -self.keep]:
            old.unlink()
        return final

    def load(self, best: bool = False) -> dict[str, Any]:
        """The newest checkpoint, or the best one if there is one, on the CPU.

        Raises:
            UsageError: there is none, or the newest is truncated or no checkpoint at all.
        """
        files = self.files()
        if not files:
            raise UsageError(f"{self.path.parent} has no checkpoint yet")
        file = self.best if best and self.best.exists() else files[-1]
        try:
            require_whole(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
            require_state(state)
        except Exception as error:  # torch raises many kinds for a damaged file
            before = f"; delete it to go back to {files[-2].name}" if len(files) > 1 else ""
            raise UsageError(f"checkpoint {file} is damaged ({_reason(error)}){before}") from error
        return state


def _step(file: Path) -> int:
    """The step in a checkpoint's name."""
    return int(file.stem.removeprefix("step-"))


def require_whole(file: Path) -> None:
    """Raises a ValueError if bytes of an archive have changed: torch does not look at its check sums."""
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the check sum of {damaged} is wrong")


def require_state(state: Any) -> None:
    """Raises a ValueError unless a checkpoint holds what it must, each of its type."""
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise ValueError("it is not a pyzoo checkpoint of this version")
    for name in ("step", "steps", "waited"):
        if type(state[name]) is not int or state[name] < 0:
            raise ValueError(f"its {name} is {state[name]!r}")
    for name in ("seconds", "best"):
        if type(state[name]) is not float or math.isnan(state[name]):
            raise ValueError(f"its {name} is {state[name]!r}")
    for name in ("settings", "computed_with"):
        if not isinstance(state[name], dict):
            raise ValueError(f"its {name} are not values by name")
    for name in ("model", "guide", "values"):
        tensors = state[name]
        if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise ValueError(f"its {name} is not tensors by name")
        for key, value in tensors.items():
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(f"'{key}' in its {name} is not finite")
    objectives = state["objectives"]
    if not isinstance(objectives, list) or not all(
        isinstance(one, dict) and {"module", "optimizer"} <= one.keys() for one in objectives
    ):
        raise ValueError("its objectives are not states of steps")


def _reason(error: Exception) -> str:
    """Why a file was refused, in one line, without torch's advice to trust it."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds something other than tensors and plain values"
    return one_line(error) or type(error).__name__
