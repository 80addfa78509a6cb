"""Checkpoints that survive a kill, a full disk and a curious user."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from torch import Tensor

from pyzoo.errors import UsageError, one_line
from pyzoo.files import require_file, require_folder, write_whole
from pyzoo.settings import AtLeast, Steps, Weight, difference, require_entries

__all__ = ["Checkpoint", "CheckpointFolder", "StepState", "plain", "require_same_form", "require_same_run"]


class StepState(TypedDict):
    """What a checkpoint holds of an objective."""

    module: dict[str, Tensor]
    """The state of the loss, with all its parameters."""
    optimizer: dict[str, Any]
    """The state of the optimizer."""
    scheduler: dict[str, Any]
    """The state of the learning rate's schedule; empty without one."""


class Checkpoint(TypedDict):
    """What a checkpoint holds."""

    recipe: str
    settings: dict[str, bool | int | float | str | None]
    """The settings that decide what is learned."""
    computed_with: dict[str, str]
    """What decides the last digits of a step."""
    step: Annotated[int, AtLeast(0)]
    """How many steps were taken."""
    steps: Steps
    """How many the run was to take."""
    seconds: Weight
    """How long they took."""
    best: float | None
    """The best value of the report's criterion; None if none was measured."""
    waited: Annotated[int, AtLeast(0)]
    """Measurements since the best one."""
    values: dict[str, Tensor]
    """Of each loss and term, the values since the last row of metrics.csv."""
    model: dict[str, Tensor]
    guide: dict[str, Tensor]
    objectives: list[StepState]


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
        """Checkpoint files, oldest first.

        Raises:
            UsageError: there is something other than a folder in the folder's place, or than a file in a checkpoint's.
        """
        require_folder(self.path)
        found = [path for path in self.path.glob("step-*.pt") if path.stem.removeprefix("step-").isdecimal()]
        for path in found:
            require_file(path)
        return sorted(found, key=_step)

    def newest_step(self) -> int:
        """The step of the newest checkpoint; 0 without one."""
        files = self.files()
        return _step(files[-1]) if files else 0

    @property
    def best(self) -> Path:
        """The checkpoint that was best on held-out examples, if one was kept."""
        return self.path / "best.pt"

    def save(self, step: int, state: Checkpoint, best: bool = False) -> Path:
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

    def load(self, best: bool = False) -> Checkpoint:
        """The newest checkpoint, or the best one if there is one, on the CPU.

        Raises:
            UsageError: there is none, or the newest is truncated or no checkpoint at all.
        """
        files = self.files()
        if not files:
            raise UsageError(f"{self.path.parent} has no checkpoint yet")
        file = self.best if best and self.best.is_file() else files[-1]
        try:
            require_whole(file)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of kinds of tensors that are refused below
                state = torch.load(file, map_location="cpu", weights_only=True)
                require_checkpoint(state)
            if file != self.best and state["step"] != _step(file):
                raise UsageError(f"it is of step {state['step']}, and its name says {_step(file)}")
        except Exception as error:  # torch raises many kinds for a damaged file
            before = f"; delete it to go back to {files[-2].name}" if len(files) > 1 and file != self.best else ""
            raise UsageError(f"checkpoint {file} is damaged ({_reason(error)}){before}") from error
        if best and file != self.best and state["best"] is not None:
            raise UsageError(f"{self.best}, the best checkpoint that --keep-best kept, is missing: put it back")
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


def require_checkpoint(state: Any) -> None:
    """Raises a UsageError unless a checkpoint has its form, and parameters that are finite."""
    require_entries(state, Checkpoint, "the checkpoint")
    for name, values in state["values"].items():
        require_finite(values, f"values of '{name}'")
        if values.dim() != 1:
            raise UsageError(f"its values of '{name}' are of shape {tuple(values.shape)}")
    if state["step"] > state["steps"]:
        raise UsageError(f"it is of step {state['step']} of {state['steps']}")
    for name in ("model", "guide"):
        require_finite(state[name], name)
    for number, objective in enumerate(state["objectives"]):
        require_finite(objective, f"objective {number}")


def plain(value: Any) -> bool | int | float | str | None:
    """A setting as a checkpoint holds it, and a config.json's list like the tuple that it stands for."""
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    return str(_as_tuple(value))


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, (list, tuple)) else value


def require_same_run(state: Checkpoint, recipe: str, settings: Mapping[str, Any], path: Path) -> None:
    """Raises a UsageError unless a checkpoint is of a recipe, and of its settings, as far as these are given.

    Args:
        state: the checkpoint.
        recipe: the recipe's name.
        settings: values by name.
        path: the run's folder, for the error.
    """
    if state["recipe"] != recipe:
        raise UsageError(f"the checkpoint in {path} is of recipe {state['recipe']}, not of {recipe}")
    for name, value in settings.items():
        if name in state["settings"] and state["settings"][name] != plain(value):
            theirs = difference(name, state["settings"][name], plain(value))
            raise UsageError(f"the checkpoint in {path} is of a run with {theirs}: config.json was changed since")


def require_finite(value: Any, name: str) -> None:
    """Raises a UsageError if a number in a state is not finite."""
    if isinstance(value, dict):
        for key, one in value.items():
            require_finite(one, f"{name}, {key}")
    elif isinstance(value, (list, tuple)):
        for key, one in enumerate(value):
            require_finite(one, f"{name}, {key}")
    elif isinstance(value, (Tensor, float)):
        tensor = torch.as_tensor(value)
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise UsageError(f"its {name} is no plain tensor")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UsageError(f"its {name} is not finite")


def require_same_form(saved: Any, own: Any, name: str) -> None:
    """Raises a UsageError unless a saved state can replace one: the same keys, lengths, shapes and types throughout.

    Args:
        saved: what a checkpoint holds.
        own: what it is to replace.
        name: what an error calls it.
    """
    if isinstance(own, dict):
        if not isinstance(saved, dict) or saved.keys() != own.keys():
            raise UsageError(f"its {name} has other entries")
        for key, value in own.items():
            require_same_form(saved[key], value, f"{name}, {key}")
    elif isinstance(own, (list, tuple)):
        if not isinstance(saved, (list, tuple)) or len(saved) != len(own):
            raise UsageError(f"its {name} has other entries")
        for key, (one, other) in enumerate(zip(saved, own, strict=True)):
            require_same_form(one, other, f"{name}, {key}")
    elif isinstance(own, Tensor):
        if not isinstance(saved, Tensor) or (saved.shape, saved.dtype) != (own.shape, own.dtype):
            is_tensor = isinstance(saved, Tensor)
            found = f"{tuple(saved.shape)} in {saved.dtype}" if is_tensor else f"a {type(saved).__name__}"
            raise UsageError(f"its {name} is {found}, not {tuple(own.shape)} in {own.dtype}")
    elif not _is_same_type(saved, own):
        raise UsageError(f"its {name} is {saved!r}, not like {own!r}")


def _is_same_type(saved: Any, own: Any) -> bool:
    numbers = (int, float)
    if type(saved) in numbers and type(own) in numbers:  # a rate may be 1 or 1.0
        return True
    return type(saved) is type(own)


def _reason(error: Exception) -> str:
    """Why a file was refused, in one line, without torch's advice to trust it."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds something other than tensors and plain values"
    return one_line(error) or type(error).__name__
