"""The front door from Python: ``pyzoo.train`` and ``pyzoo.load``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from pyzoo.checks import require_switch
from pyzoo.errors import UsageError
from pyzoo.files import absolute
from pyzoo.settings import cut
from pyzoo.trained import find_trained, trained
from pyzoo.training.hardware import Hardware
from pyzoo.training.recipe import Recipe, find_recipe
from pyzoo.training.run import Run, run_name
from pyzoo.training.run_folder import OWN_DATA, RunFolder
from pyzoo.training.trained import TrainedModel

__all__ = ["load", "train"]


def train(
    recipe: str | Recipe,
    preset: str | None = None,
    *,
    data: str | Path | Tensor | tuple[Tensor, Tensor] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    engine: Literal["auto", "eager", "traced", "compiled", "captured"] = "auto",
    progress: bool = True,
    evaluate: bool = True,
    figures: bool = True,
    **settings: Any,
) -> Run:
    """Trains a recipe, measures and draws it, as ``pyzoo train`` does; returns the run.

    Args:
        recipe: its name, or a recipe with all its settings.
        preset: where to start from; by default the recipe's first preset.
        data: for recipes of images: the name of a set, a folder, a file, or a tensor of images, (images, height, width) or
            (images, channels, height, width), alone or with labels, (images,). Tensors are kept in the run's folder.
        out: the run's folder, which must not exist or be empty; by default ``runs/`` and a name that says what differs from the
            preset.
        device: as torch spells it; "auto" takes a GPU where there is one.
        precision: "bf16" computes the networks' products in bfloat16.
        engine: how a step is run; "auto" is the recipe's choice.
        progress: show a progress bar, and print what the run reports.
        evaluate: measure at the end.
        figures: draw at the end.
        **settings: the recipe's settings that differ from the preset, by the names of the command's flags for training, data and
            model.

    Raises:
        UsageError: there is no such recipe, preset or setting, a value is not allowed, or data are missing; a ValueError.
        NonFiniteLoss: a loss is not finite; names the term.

    Example:
        >>> import pyzoo
        >>> run = pyzoo.train("compvae-sines", steps=2000)  # doctest: +SKIP
        >>> run.metrics["reconstruction_r2"]  # doctest: +SKIP
        0.93
    """
    if out is not None and (not isinstance(out, (str, Path)) or "\0" in str(out) or not str(out)):
        raise UsageError(f"out must be a path, got {cut(out)}")
    if preset is not None and not isinstance(preset, str):
        raise UsageError(f"preset must be a name, got {cut(preset)}")
    for name, value in (("progress", progress), ("evaluate", evaluate), ("figures", figures)):
        require_switch(value, name)
    hardware = Hardware(device, precision, engine=engine)
    say = print if progress else None
    if isinstance(recipe, Recipe):
        if settings or preset is not None or data is not None:
            raise UsageError("a recipe that is made already takes no preset, data or settings")
        made, preset = recipe, next(iter(type(recipe).presets))
    else:
        kind = find_recipe(recipe)
        preset = next(iter(kind.presets)) if preset is None else preset
        if isinstance(data, (str, Path)):
            settings["data"] = data if isinstance(data, str) else str(absolute(data))  # a path is never a set's name
        elif isinstance(data, Tensor) or (isinstance(data, tuple) and len(data) == 2):
            return _with_tensors(kind, preset, data, out, hardware, settings, say).train(
                progress=progress, evaluate=evaluate, figures=figures
            )
        elif data is not None:
            raise UsageError(f"data must be a name, a path, a tensor or (images, labels), got {type(data).__name__}")
        made = kind.preset(preset, **settings).fitted(settings)
    path = absolute(Path("runs") / run_name(made, preset) if out is None else out)  # also after a change of folder
    return Run.create(made, preset, hardware, path, say).train(progress=progress, evaluate=evaluate, figures=figures)


def _with_tensors(
    kind: type[Recipe], preset: str, data: Any, out: Any, hardware: Hardware, settings: dict[str, Any], say: Any
) -> Run:
    """A run on images that were given as tensors, which its folder keeps."""
    name = run_name(kind.preset(preset, **settings), preset)
    path = absolute(Path("runs") / name.replace(f"-{preset}-", f"-{preset}-images-", 1) if out is None else out)
    if (path / OWN_DATA).exists() and not RunFolder(path).was_begun:
        raise UsageError(f"{path / OWN_DATA} is in the way of the images to keep there: choose another folder")
    with RunFolder.making(path) as folder:
        folder.made_data = True
        file = kind.keep_data(path, *(data if isinstance(data, tuple) else (data,)), **settings)
        return Run.create(kind.preset(preset, **settings, data=str(file)).fitted(settings), preset, hardware, folder, say)


def load(path: str | Path, say: Callable[[str], None] | None = None) -> TrainedModel:
    """A trained model and its guide, with metrics, samples and figures.

    Args:
        path: the folder of a run, or the name of a model that comes with the package, as ``pyzoo list --trained`` prints it.
        say: what to do with each line that reports progress.

    Returns:
        A :class:`Run` if the folder is a run's.

    Raises:
        UsageError: it is no such folder and no such name, or it is damaged; a ValueError.

    Example:
        >>> import pyzoo
        >>> trained = pyzoo.load("mib-digits")
        >>> model, guide = trained.pair()
        >>> tuple(trained.sample(count=3, given={"label": 7})["x"].shape)
        (3, 1, 28, 28)
        >>> run = pyzoo.load("runs/compvae-sines-small-seed0")  # doctest: +SKIP
    """
    if not isinstance(path, (str, Path)):
        raise UsageError(f"a run's folder must be a path, got {cut(path)}")
    folder = absolute(path)
    if isinstance(path, str) and not RunFolder.is_run(folder):
        shipped = find_trained(path)
        if shipped is not None:
            return TrainedModel(shipped, say)
        if Path(path).name == path and not os.path.lexists(folder):
            names = ", ".join(trained())
            raise UsageError(f"there is no folder {cut(path)} here, and no trained model of the name; there are {names}")
    found = TrainedModel(folder, say)
    return found if "weights" in found.config else Run(folder, say)
