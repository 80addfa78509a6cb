"""The ``pyzoo`` command."""

import contextlib
import dataclasses
import difflib
import inspect
import io
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import tyro

from pyzoo.errors import UsageError

# torch, Pyro and the recipes take seconds to import: each command imports what it needs, so that --help answers at once.

__all__ = ["main"]

_USAGE = """usage: pyzoo COMMAND ...

  pyzoo list                      the recipes: paper, presets, what each shows
  pyzoo train RECIPE [flags]      train, measure and draw; 'pyzoo train RECIPE --help' lists the flags
  pyzoo resume RUN [flags]        continue a run where it stopped
  pyzoo evaluate RUN [flags]      metrics again, from the newest checkpoint
  pyzoo figures RUN [flags]       pictures again
  pyzoo sample RUN [flags]        draw from the trained model into a PNG or .npz
  pyzoo reproduce TABLE [flags]   train the rows of a paper's table, and show ours beside the paper's
"""


@dataclasses.dataclass
class RunFlags:
    """Where the run goes."""

    preset: str = ""
    """Which of the recipe's presets to start from; the flags of the recipe change single fields."""
    out: Path | None = None
    """The run folder, which must not exist; by default runs/RECIPE-PRESET-seedN."""
    progress: bool = True
    """Show a progress bar."""


@dataclasses.dataclass
class EvaluateFlags:
    """What to measure."""

    full: bool = False
    """Also what takes long, such as a likelihood by 5,000 samples of all test images."""


@dataclasses.dataclass
class SampleFlags:
    """What to draw."""

    out: Path | None = None
    """A .png or .npz file; by default samples.png in the run folder."""
    count: int = 8
    """How many to draw."""
    parts: tuple[str, ...] | None = None
    """What each is made of: frequencies, or colours; by default at random."""
    sample_seed: int = 0
    """The draws follow from it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 for a failed run, 2 for bad input, 128 + n after signal n."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "list": _list,
        "train": _train,
        "resume": _resume,
        "evaluate": _evaluate,
        "figures": _figures,
        "sample": _sample,
        "reproduce": _reproduce,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0 if arguments else 2
    try:
        if arguments[0] == "--version":
            print(f"pyzoo {version('pyzoo')}")
            return 0
        command = _lookup(arguments[0], commands, "command")
        return command(arguments[1:])
    except UsageError as error:
        print(f"pyzoo: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # what read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"pyzoo: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pyzoo: interrupted", file=sys.stderr)
        return 130


# The commands -------------------------------------------------------------------------------------------------------


def _list(arguments: list[str]) -> int:
    from pyzoo.training import recipes, tables

    if arguments:
        raise UsageError(f"'pyzoo list' takes no arguments, got {' '.join(arguments)}")
    for name, recipe in recipes().items():
        print(f"{name:20}{recipe.paper}; {recipe.about_data}; presets {', '.join(recipe.presets)}; shows {recipe.shows}")
    for name, table in tables().items():
        print(f"{name:20}for 'pyzoo reproduce': {table.shows}")
    return 0


def _train(arguments: list[str]) -> int:
    from pyzoo.training import Hardware, RunFolder, recipes

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: pyzoo train RECIPE [flags]\n")
        return _list([]) or (0 if arguments else 2)
    kind = _lookup(arguments[0], recipes(), "recipe")
    preset = _peek(arguments[1:], "--preset") or next(iter(kind.presets))
    _lookup(preset, kind.presets, f"preset of {kind.name}")
    prog = f"pyzoo train {kind.name}"
    recipe, hardware, flags = _parse(arguments[1:], prog, [kind.preset(preset), Hardware(), RunFlags(preset)], kind.__doc__)
    device = hardware.accelerator
    hardware.require_equal_shares(recipe.batch_size)
    path = flags.out or Path("runs") / f"{recipe.name}-{preset}-seed{recipe.seed}"
    if not _is_first_process():  # launched by the first one, which has made the folder
        return _run(recipe, RunFolder.open(path), hardware, flags.progress)
    recipe.prepare()
    run = _create(path, recipe, preset, hardware)
    _say(run, f"{recipe.name}, preset {preset}, {recipe.steps} steps on {device}; run folder {path}")
    run.log(_described(hardware))
    return _run(recipe, run, hardware, flags.progress)


def _resume(arguments: list[str]) -> int:
    run, recipe, saved, rest = _open(arguments, "resume")
    hardware, flags = _parse(rest, "pyzoo resume RUN", [saved, _Progress()], "Continues a run where it stopped.")
    if _is_first_process():
        _say(run, f"resuming {recipe.name} in {run.path} with {_described(hardware)}")
    return _run(recipe, run, hardware, flags.progress)


def _evaluate(arguments: list[str]) -> int:
    trainer, recipe, run, flags = _load(arguments, "evaluate", "Measures the newest checkpoint of a run again.", EvaluateFlags())
    _measure(trainer, recipe, run, flags.full)
    return 0


def _figures(arguments: list[str]) -> int:
    trainer, recipe, run, _ = _load(arguments, "figures", "Draws the figures of a run again.")
    _draw(trainer, recipe, run)
    return 0


def _sample(arguments: list[str]) -> int:
    trainer, recipe, run, flags = _load(arguments, "sample", "Draws from the trained model.", SampleFlags())
    import torch

    if flags.count < 1:
        raise UsageError(f"--count must be at least 1, got {flags.count}")
    if flags.count > 64 and (flags.out is None or flags.out.suffix == ".png"):
        raise UsageError(f"--count: a picture holds at most 64, got {flags.count}; draw more into an .npz")
    path = flags.out or run.path / "samples.png"
    if path.suffix not in (".png", ".npz"):
        raise UsageError(f"--out must end in .png or .npz, got {path}")
    torch.manual_seed(flags.sample_seed)
    samples = recipe.sample(trainer.module, trainer.device, flags.count, flags.parts, flags.sample_seed)
    try:
        if path.suffix == ".png":
            recipe.picture(samples).savefig(path, dpi=150)
        else:
            import numpy

            numpy.savez(path, **{name: value.cpu().numpy() for name, value in samples.items()})
    except OSError as error:
        raise UsageError(f"can't write {path}: {error.strerror}") from error
    print(f"wrote {path}")
    return 0


# Tables -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class ReproduceFlags:
    """Where the runs go."""

    out: Path | None = None
    """The folder of the table's runs, which may hold some already; by default runs/TABLE-PRESET."""
    progress: bool = True
    """Show a progress bar."""


def _reproduce(arguments: list[str]) -> int:
    from pyzoo.training import Hardware, tables

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: pyzoo reproduce TABLE [flags]\n")
        return _list([]) or (0 if arguments else 2)
    kind = _lookup(arguments[0], tables(), "table")
    prog = f"pyzoo reproduce {kind.name}"
    table, hardware, flags = _parse(arguments[1:], prog, [kind(), Hardware(), ReproduceFlags()], kind.__doc__)
    if hardware.devices * hardware.num_nodes > 1:
        raise UsageError("--devices: a table's runs take one device each; several 'pyzoo reproduce' share the runs of a folder")
    device = hardware.accelerator
    out = flags.out or Path("runs") / f"{table.name}-{table.preset}"
    print(f"{table.name}, preset {table.preset}, seeds {', '.join(map(str, table.seeds))} on {device}; folder {out}", flush=True)
    failed = 0
    for seed in table.seeds:
        for row in table.rows():
            recipe, path = table.recipe(row, seed), out / row.folder(seed)
            code = _reproduce_run(recipe, path, table, hardware, flags.progress, table.full and seed == table.seeds[0])
            if code > 128:
                print("the same 'pyzoo reproduce' goes on from here")
                return code
            failed = failed or code
    _show_table(table, out)
    return failed


def _reproduce_run(recipe, path: Path, table, hardware, progress: bool, full: bool) -> int:
    """Brings one run of a table to its end, unless it is there or another process is at it."""
    from pyzoo.training import Busy, RunFolder, Trainer, keep_freed_memory, locked

    if not (path / "config.json").exists():
        recipe.prepare()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / "lock", "a") as file, locked(file, wait=True):  # who comes second finds the folder made
        if (path / "config.json").exists():
            run = RunFolder.open(path)
            _require_same(run, recipe, hardware)
        else:
            run = _create(path, recipe, table.preset, hardware)
    try:
        with run.lock():
            if not _is_finished(run):
                print(f"{path}: {recipe.steps} steps", flush=True)
                return _run(recipe, run, hardware, progress, full)
            if full and not run.results().get("full"):
                print(f"{path}: measuring what takes long", flush=True)
                keep_freed_memory()
                _measure(Trainer(recipe, run, hardware, progress=False), recipe, run, full)
    except Busy:
        print(f"{path}: another process is at it", flush=True)
    return 0


def _is_finished(run) -> bool:
    """Whether a run has been trained to its end and measured."""
    return run.results().get("step") == run.config().get("fields", {}).get("steps", 0)


def _require_same(run, recipe, hardware) -> None:
    """Raises a UsageError that names what differs, if a run was made with settings that make its numbers other ones."""
    config = run.config()
    before = {**config.get("fields", {}), "precision": config.get("hardware", {}).get("precision")}
    now = json.loads(json.dumps({**dataclasses.asdict(recipe), "precision": hardware.precision}, default=str))
    for name in sorted(now.keys() - recipe.incidental):
        if before.get(name) != now[name]:
            flag = name.replace("_", "-")
            raise UsageError(f"{run.path} was made with --{flag} {before.get(name)}, not {now[name]}: choose another --out")


def _show_table(table, out: Path) -> None:
    """Prints the table of the finished runs, and writes it and its figures into the folder."""
    from pyzoo.training import RunFolder

    runs: dict[str, list[Any]] = {}
    for row in table.rows():
        folders = [RunFolder(out / row.folder(seed)) for seed in table.seeds]
        runs[row.label] = [run for run in folders if _is_finished(run)]
    text = table.render(runs)
    print(text)
    (out / "table.md").write_text(text + "\n")
    figures = dict(table.figures(runs))
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=150)
    missing = sum(len(table.seeds) - len(found) for found in runs.values())
    drawn = " and its figures" if figures else ""
    print(f"\nwrote {out / 'table.md'}{drawn}" + (f"; {missing} runs are not finished yet" if missing else ""))


# What they share ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Progress:
    progress: bool = True
    """Show a progress bar."""


@dataclasses.dataclass
class _Place:
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""


def _create(path: Path, recipe, preset: str, hardware):
    """A new run folder."""
    from pyzoo.training import RunFolder

    config = {
        "recipe": recipe.name,
        "preset": preset,
        "fields": dataclasses.asdict(recipe),
        "hardware": dataclasses.asdict(hardware),
        "versions": _versions(),
    }
    return RunFolder.create(path, config)


def _run(recipe, run, hardware, progress: bool, full: bool = False) -> int:
    """Trains to the end, measures and draws."""
    from pyzoo.training import NonFiniteLoss, Stopped, Trainer, keep_freed_memory

    keep_freed_memory()
    trainer = Trainer(recipe, run, hardware, progress)
    try:
        trainer.train()
    except Stopped as stop:
        if trainer.fabric.is_global_zero:
            _say(run, f"{stop}; continue with 'pyzoo resume {run.path}'")
        return 128 + stop.signal_number
    except NonFiniteLoss as error:
        run.log(f"pyzoo: {error}")
        print(f"pyzoo: {error}", file=sys.stderr)
        return 1
    if trainer.fabric.is_global_zero:
        _say(run, f"trained {trainer.step} steps in {trainer.seconds:.0f} s")
        _measure(trainer, recipe, run, full)
        _draw(trainer, recipe, run)
    return 0


def _measure(trainer, recipe, run, full: bool = False) -> None:
    started = time.monotonic()
    metrics = recipe.evaluate(trainer.module, trainer.device, full)
    before = run.results()
    if not full and before.get("full") and before.get("step") == trainer.step:  # what took long still holds
        metrics, full = {**before["metrics"], **metrics}, True
    results = {
        "metrics": metrics,
        "full": full,
        "note": recipe.note,
        "step": trainer.step,
        "training_seconds": round(trainer.seconds, 1),
        "hardware": dataclasses.asdict(trainer.hardware),
        "parameters": sum(parameter.numel() for parameter in trainer.module.parameters()),
        "versions": _versions(),
        "machine": f"{platform.machine()}, {trainer.device}",
    }
    run.write_results(results)
    width = max(map(len, metrics))
    for name, value in metrics.items():
        _say(run, f"  {name:{width}}  {value:,.0f}" if float(value).is_integer() else f"  {name:{width}}  {value:.4g}")
    if recipe.note:
        _say(run, f"  ({recipe.note})")
    _say(run, f"measured in {time.monotonic() - started:.0f} s; wrote {run.path / 'results.json'}")


def _draw(trainer, recipe, run) -> None:
    import pyro
    import torch

    from pyzoo.random import derive_seed

    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    with torch.random.fork_rng(), pyro.validation_enabled(False):
        torch.manual_seed(derive_seed(recipe.seed, "figures"))
        for name, figure in recipe.figures(trainer.module, trainer.device, run.metrics()):
            figure.savefig(folder / f"{name}.png", dpi=150)
    _say(run, f"drew {len(list(folder.glob('*.png')))} figures in {folder}")


def _open(arguments: list[str], command: str):
    """The run folder that a command names, its recipe and hardware, and the other arguments."""
    from pyzoo.training import Hardware, RunFolder, recipes

    if not arguments:
        raise UsageError(f"which run? usage: pyzoo {command} RUN")
    if arguments[0] in ("-h", "--help"):
        print(f"usage: pyzoo {command} RUN [flags]; 'pyzoo {command} RUN --help', with a run folder, lists the flags")
        raise SystemExit(0)
    run = RunFolder.open(Path(arguments[0]))
    config = run.config()
    try:
        kind, fields = recipes()[config["recipe"]], config["fields"]
        # JSON has lists for tuples
        recipe = kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
        hardware = Hardware(**config["hardware"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{run.path / 'config.json'} does not describe a run of an installed recipe: {error}") from error
    return run, recipe, hardware, arguments[1:]


def _load(arguments: list[str], command: str, description: str, flags: Any = None):
    """A trained run, from its newest checkpoint."""
    from pyzoo.training import Trainer, keep_freed_memory

    run, recipe, saved, rest = _open(arguments, command)
    place, *others = _parse(rest, f"pyzoo {command} RUN", [_Place()] + ([flags] if flags else []), description)
    hardware = dataclasses.replace(saved, device=place.device, devices=1, num_nodes=1)
    keep_freed_memory()
    if not run.checkpoints.files():
        raise UsageError(f"{run.path} has no checkpoint yet: train it with 'pyzoo resume {run.path}'")
    trainer = Trainer(recipe, run, hardware, progress=False)
    # What is measured and drawn is what was trained so far.
    recipe = dataclasses.replace(recipe, steps=max(1, min(recipe.steps, trainer.step)))
    return trainer, recipe, run, others[0] if others else None


def _parse(arguments: list[str], prog: str, defaults: list[Any], description: str | None) -> list[Any]:
    """The dataclasses with what the arguments change, by tyro; its errors as one line."""
    # A field for each dataclass, named for the headings of the help.
    fields = [(type(default).__name__.strip("_").lower(), tyro.conf.OmitArgPrefixes[type(default)]) for default in defaults]
    bundle = dataclasses.make_dataclass("flags", fields)
    description = inspect.cleandoc(description or "")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(bundle, default=bundle(*defaults), args=arguments, prog=prog, description=description)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        lines = [re.sub(r"^[│╭╰─\s]+|[│╮╯─\s]+$", "", line) for line in errors.getvalue().splitlines()[1:]]
        lines = [line for line in lines if not re.fullmatch(r"[-+=]{3,}", line)]  # the box, where the output is not UTF-8
        end = next((i for i, line in enumerate(lines) if not line), len(lines))
        raise UsageError(f"{' '.join(lines[:end])} (see {prog} --help)") from None
    return [getattr(parsed, field.name) for field in dataclasses.fields(parsed)]


def _peek(arguments: list[str], flag: str) -> str | None:
    """The value of a flag that must be known before the others can be read; the last one counts."""
    value = None
    for index, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            value = argument.removeprefix(flag + "=")
        elif argument == flag and index + 1 < len(arguments):
            value = arguments[index + 1]
    return value


def _lookup(name: str, known: Mapping[str, Any], what: str) -> Any:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise UsageError(f"unknown {what} '{name}'; {'nearest' if near else 'there are'}: {', '.join(near or known)}")
    return known[name]


def _say(run, line: str) -> None:
    """Prints a line and keeps it in the run's log."""
    print(line, flush=True)
    run.log(line)


def _described(hardware) -> str:
    return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(hardware).items())


def _is_first_process() -> bool:
    """Fabric starts the others with LOCAL_RANK set."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def _versions() -> dict[str, str]:
    names = ("pyzoo", "torch", "pyro-ppl", "lightning-fabric")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


if __name__ == "__main__":
    sys.exit(main())
