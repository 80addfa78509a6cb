"""Checkpoints that survive a kill, a full disk and a curious user."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch

from pyzoo.errors import UsageError

__all__ = ["CheckpointFolder"]

_KEYS = {"recipe", "step", "steps", "seconds", "best", "waited", "values", "model", "guide", "objectives"}


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
        return sorted(path for path in self.path.glob("step-*.pt") if path.stem.removeprefix("step-").isdigit())

    def newest_step(self) -> int:
        """The step of the newest checkpoint; 0 without one."""
        files = self.files()
        return int(files[-1].stem.removeprefix("step-")) if files else 0

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
        partial = final.with_suffix(".partial")
        try:
            self.path.mkdir(exist_ok=True)
            for left in self.path.glob("*.partial"):  # by a kill
                left.unlink()
            with open(partial, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, final)
            _sync_folder(self.path)
        except (OSError, RuntimeError) as error:  # torch follows a failed write with a RuntimeError of its own
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else f"{str(error).splitlines()[0]}; is the disk full?"
            kept = self.files()
            last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no earlier checkpoint"
            raise UsageError(f"could not write {final}: {reason}; {last}") from error
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
            state = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or not state.keys() >= _KEYS:
                raise ValueError("it is not a pyzoo checkpoint of this version")
        except Exception as error:  # torch raises many kinds for a damaged file
            before = f"; delete it to go back to {files[-2].name}" if len(files) > 1 else ""
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(f"checkpoint {file} is damaged ({reason}){before}") from error
        return state


def _sync_folder(path: Path) -> None:
    """Makes a rename durable, where the system lets a folder be synced."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
