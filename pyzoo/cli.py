"""The ``pyzoo`` command: parsing, messages and exit codes."""

import contextlib
import dataclasses
import difflib
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pyzoo.about import About, about_all, entries
from pyzoo.errors import UsageError, one_line, printable
from pyzoo.files import MARK, expanded, require_file, require_ours, resume_command, save_arrays, save_figure, write_whole
from pyzoo.settings import Count, Group, Settings, Steps, changed, flat
from pyzoo.signals import Interrupted, on_signals
from pyzoo.streams import lasting_streams
from pyzoo.threads import available_cores, is_first_process, limit_spinning
from pyzoo.trained import about_trained, trained

if TYPE_CHECKING:
    from pyzoo.training import Hardware, Recipe, Run, Table, TrainedModel

# torch, Pyro and the recipes take seconds to import, tyro a tenth: each command imports what it needs, so that --help and list
# answer at once.

__all__ = ["main"]

_USAGE = """usage: pyzoo COMMAND ...

  pyzoo list [--trained]          the recipes and tables, by paper; or the trained models that come with the package
  pyzoo train RECIPE [flags]      train, measure and draw; 'pyzoo train RECIPE --help' lists the flags
  pyzoo resume RUN [flags]        continue a run where it stopped, or train it longer
  pyzoo evaluate RUN [flags]      measure a run again, or a trained model by its name
  pyzoo figures RUN [flags]       draw its figures again
  pyzoo sample RUN [flags]        draw from the trained model into a .png or .npz file
  pyzoo explore RUN [flags]       play with it on a page of this machine
  pyzoo pack RUN FOLDER [flags]   copy a trained model into a small folder, to share
  pyzoo runs [FOLDER]             the runs in a folder
  pyzoo compare RUN RUN ...       settings that differ, metrics side by side, and curves in one picture
  pyzoo reproduce TABLE [flags]   train the rows of a paper's table, and show ours beside the paper's

'pyzoo COMMAND --help' explains a command. Bad input gives one line and exit code 2.
"""


# Flags that are not of a recipe or a table ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Flags(Settings):
    group: ClassVar[str] = "run"


@dataclasses.dataclass(frozen=True)
class _Progress(_Flags):
    progress: bool = True
    """Show a progress bar."""


@dataclasses.dataclass(frozen=True)
class _AfterTraining(_Progress):
    evaluate: bool = True
    """Measure at the end."""
    figures: bool = True
    """Draw the figures at the end."""


@dataclasses.dataclass(frozen=True)
class TrainFlags(_AfterTraining):
    """Where a run starts from, and where it goes."""

    preset: str = ""
    """Preset to start from; the other flags change single settings of it."""
    like: Path | None = None
    """Start from the settings of this run or trained model, in place of a preset."""
    out: Path | None = None
    """Folder of the run, which must not exist or be empty. By default it is in runs/, and its name says the recipe, the preset,
    the settings that differ from it, and the seed."""


@dataclasses.dataclass(frozen=True)
class ResumeFlags(_AfterTraining):
    """How a run goes on."""

    steps: Steps | None = None
    """Train up to so many steps, in place of the number that the run was made with."""


@dataclasses.dataclass(frozen=True)
class EvaluateFlags(_Flags):
    """What to measure."""

    full: bool = False
    """Also measure what takes long, such as a likelihood by 5,000 samples of all test images."""


@dataclasses.dataclass(frozen=True)
class FiguresFlags(_Flags):
    """Where the pictures go."""

    out: Path | None = None
    """Folder of the pictures; by default figures in the run's folder, or in a folder of a trained model's name."""


@dataclasses.dataclass(frozen=True)
class ExploreFlags(_Flags):
    """Where the page is."""

    port: int = 7860
    """Port of this machine where the page is served; where it is taken, the next free one."""
    browser: bool = True
    """Open the page in the browser."""


@dataclasses.dataclass(frozen=True)
class PackFlags(_Flags):
    """How small a packed model is."""

    bits: Literal[8, 16, 32] = 16
    """Bits of each number in a matrix of weights: 32 keeps it as it is, 16 and 8 round it."""


@dataclasses.dataclass(frozen=True)
class SampleFlags(_Flags):
    """What to draw."""

    out: Path | None = None
    """A .png or .npz file; by default samples.png in the run's folder, or in a folder of a trained model's name."""
    count: int = 8
    """How many to draw."""
    given: tuple[str, ...] | None = None
    """Views or parts to condition on, each as NAME=VALUE: label=3 for a class, parts=1,4 for parts, and for a view that is an
    image its place among those that the run is measured on, as digit=17. By default everything is drawn."""
    seed: int = 0
    """The draws follow from it."""


@dataclasses.dataclass(frozen=True)
class CompareFlags(_Flags):
    """Where the comparison goes."""

    out: Path = Path("comparison.png")
    """The picture of the curves, a .png file."""


@dataclasses.dataclass(frozen=True)
class ReproduceFlags(_Progress):
    """Where the runs go."""

    out: Path | None = None
    """Folder of the table's runs, which may hold some already; by default runs/TABLE-PRESET."""
    jobs: Count = 1
    """Runs that are trained side by side, each with its share of the threads. Who interrupts them loses a minute at most."""
    backend: str = "loky"
    """What joblib runs them by: loky, processes on this machine; or a cluster that has the folder at the same place: dask, at
    $DASK_SCHEDULER_ADDRESS, or ray, at $RAY_ADDRESS."""


@dataclasses.dataclass(frozen=True)
class _Place(Settings):
    group: ClassVar[str] = "hardware"

    device: Annotated[str, Group("hardware")] = "auto"
    """Device as torch spells it: cpu, cuda, cuda:1, mps. auto takes a GPU where there is one."""


# The command ----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 for a failed run, 2 for bad input, 128 + n after signal n."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_streams(), on_signals(), _warnings_in_a_line():
        return _main(arguments) or _lost_output(arguments)


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Has our own warnings look like the command's other messages, without the line of code that they come from."""
    usual, ours = warnings.formatwarning, f"{Path(__file__).parent}{os.sep}"

    def formatted(message: Warning | str, category: type[Warning], filename: str, *where: Any) -> str:
        return f"pyzoo: {printable(str(message))}\n" if filename.startswith(ours) else usual(message, category, filename, *where)

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _lost_output(arguments: list[str]) -> int:
    """The exit code of a command whose lines are all that it makes, and could not be written; a training goes on without."""
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if lost is None or arguments[:1] in (["train"], ["resume"], ["reproduce"]):
        return 0
    return _failed(f"standard output: {lost.strerror or lost}", 1)


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0 if arguments else 2
    os.environ["MPLBACKEND"] = "agg"  # pictures go into files, whatever a desktop's setting is
    try:
        if arguments[0] == "--version":
            print(f"pyzoo {version('pyzoo')}")
            return 0
        if sys.flags.optimize > 1:
            raise UsageError("Pyro can't be imported without docstrings: run Python without -OO and PYTHONOPTIMIZE=2")
        command = _lookup(arguments[0], COMMANDS, "command")
        _require_here()
        return command(arguments[1:])
    except UsageError as error:
        return _failed(error, 2)
    except OSError as error:
        return _failed(f"{error.filename or 'input or output'}: {error.strerror or error}", 2)
    except (ImportError, MemoryError) as error:  # torch says the one where there is no memory for its libraries
        reason = "there is not enough memory" if isinstance(error, MemoryError) else "a library can't be loaded"
        return _failed(f"{reason}: {one_line(error)}".removesuffix(": "), 1)
    except Interrupted as stop:  # files are written whole or not at all
        how = "goes on from here" if arguments[0] == "reproduce" else "starts over"
        return _failed(f"{stop}; the same command {how}", 128 + stop.number)


def _require_here() -> None:
    """Raises a UsageError if the current folder has been deleted: torch's libraries would end the process."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder has been deleted: change to another one") from error


def _failed(reason: object, code: int) -> int:
    """Says in one line why a command failed; returns its exit code."""
    print(f"pyzoo: {printable(str(reason))}", file=sys.stderr)
    return code


# list -----------------------------------------------------------------------------------------------------------------


def _list(arguments: list[str]) -> int:
    if _asks_for_help(arguments):
        print(
            "usage: pyzoo list [--trained]\n\n"
            "The recipes and tables by paper, with what each shows and how long each preset takes.\n"
            "--trained lists the trained models that come with the package."
        )
        return 0
    if arguments == ["--trained"]:
        return _list_trained()
    if arguments:
        raise UsageError(f"'pyzoo list' takes no arguments but --trained, got {' '.join(arguments)}")
    print("Recipes, for 'pyzoo train'\n")
    _print_list("pyzoo.recipes")
    print("\nTables and figures of the papers, for 'pyzoo reproduce'\n")
    _print_list("pyzoo.tables")
    return 0


def _list_trained() -> int:
    """Prints the first sentence of each trained model's card."""
    width = max(map(len, trained())) + 2
    for name in trained():
        print("\n".join(_wrapped(f"{name:{width}}", about_trained(name), width)))
    print("\n'pyzoo figures NAME' draws one's figures, pyzoo.load(\"NAME\") loads it in Python; its card says what else it does")
    return 0


def _print_list(group: str) -> None:
    """The entries of a group by paper, wrapped to the terminal."""
    papers: dict[str, dict[str, About]] = {}
    for name, about in about_all(group).items():
        papers.setdefault(about.paper, {})[name] = about
    width = max((len(name) for found in papers.values() for name in found), default=0) + 4
    blocks = []
    for paper, found in papers.items():
        lines = [paper]
        for name, about in found.items():
            lines += _wrapped(f"  {name:{width - 2}}", about.line, width)
            if about.minutes:
                lines += _wrapped(" " * width, f"presets: {presets_with_times(about)}", width)
        blocks.append("\n".join(lines))
    print("\n\n".join(blocks))


def _wrapped(head: str, text: str, indent: int) -> list[str]:
    columns = max(shutil.get_terminal_size().columns, indent + 30)
    return textwrap.wrap(text, columns, initial_indent=head, subsequent_indent=" " * indent, break_on_hyphens=False)


def presets_with_times(about: About) -> str:
    """A recipe's presets with the time that they take on two cores."""
    return ", ".join(f"{name} ({_duration(minutes)})" for name, minutes in about.minutes.items())


def _duration(minutes: float | None) -> str:
    if minutes is None:
        return "a GPU"
    return f"{minutes:g} min" if minutes < 120 else f"{minutes / 60:.0f} hours"


# train and resume -----------------------------------------------------------------------------------------------------


def _train(arguments: list[str]) -> int:
    name, rest = _named(arguments, "pyzoo.recipes", "train RECIPE", "recipe")
    if name is None:
        return 0
    from pyzoo.flags import parse, peek, plain
    from pyzoo.training import Run, find_recipe
    from pyzoo.training.run import run_name

    kind = find_recipe(name)
    preset, recipe, hardware = _start(kind, rest)
    flags = TrainFlags(preset=preset)
    about = f"{plain(kind.__doc__)}\n\nPresets: {presets_with_times(kind.about)}. The times are those on two cores."
    common = (*kind.common, "preset", "out", "device")
    changes = parse(f"pyzoo train {name}", rest, [recipe, hardware, flags], about, common)
    data = {} if "data" not in changes or peek(rest, "--like") else {"data": changes["data"]}
    like = flat(recipe) if peek(rest, "--like") else {}
    recipe = _changed(kind.preset(preset, **data) if data else recipe, changes).fitted({**like, **changes})
    hardware, flags = _changed(hardware, changes), _changed(flags, changes)
    if not is_first_process(hardware.processes):  # launched by the first one, which has made the folder
        return _run(Run(flags.out or Path("runs") / run_name(recipe, preset)), hardware, flags)
    run = Run.create(recipe, preset, hardware, flags.out, _say)
    run.say(f"{name}, preset {preset}, {recipe.steps:,} steps on {hardware.find()}; run folder {run.path}")
    return _run(run, hardware, flags)


def _start(kind: "type[Recipe]", arguments: list[str]) -> "tuple[str, Recipe, Hardware]":
    """The preset, recipe and hardware that the flags of ``train`` change: a preset's, or those of another run."""
    from pyzoo.flags import peek
    from pyzoo.training import Hardware, load

    preset, like = peek(arguments, "--preset"), peek(arguments, "--like")
    if like is None:
        preset = preset or next(iter(kind.presets))
        _lookup(preset, kind.presets, f"preset of {kind.name}")
        return preset, kind.preset(preset), Hardware()
    if preset is not None:
        raise UsageError("--like takes the settings of a run, and --preset those of a preset: give one of them")
    run = load(like)
    if run.config["recipe"] != kind.name:
        raise UsageError(f"--like: {like} is a run of {run.config['recipe']}, not of {kind.name}")
    return run.preset, run.recipe, Hardware(precision=run.hardware.precision, engine=run.hardware.engine)


def _resume(arguments: list[str]) -> int:
    from pyzoo.training import Hardware
    from pyzoo.training.run import described

    flags = ResumeFlags()
    if _asks_for_help(arguments[:1]):
        return _parse("resume RUN", ["--help"], [Hardware(), flags], "Continues a run where it stopped, or trains it longer.")
    run, rest = _open(arguments, "resume", is_run=True)
    changes = _parse("resume RUN", rest, [run.hardware, flags], "Continues a run where it stopped, or trains it longer.")
    hardware, flags = _changed(run.hardware, changes), _changed(flags, changes)
    if not is_first_process(hardware.processes):
        return _run(run, hardware, flags)
    with run.folder.lock():  # nothing is written before it is known that the run can go on
        hardware.find()
        hardware.require_equal_shares(run.recipe.batch_size, run.recipe.fewest_examples)
        run.recipe.prepare()
        if flags.steps is not None:
            run.extend(flags.steps)
        run.say(f"resuming {run.config['recipe']} in {run.path} with {described(hardware)}")
        return _run(run, hardware, flags)


def _run(run: "Run", hardware: "Hardware", flags: _AfterTraining, full: bool = False) -> int:
    """Trains to the end, measures and draws."""
    from pyzoo.training import LostProcess, NonFiniteLoss, Stopped, keep_freed_memory

    keep_freed_memory()
    try:
        run.train(hardware, flags.progress, flags.evaluate, flags.figures, full)
    except Stopped as stop:
        if is_first_process(hardware.processes):
            run.say(f"{stop}; continue with {resume_command(run.path)}")
        return 128 + stop.signal_number
    except Interrupted as stop:
        if not run.folder.checkpoints.files():  # there is nothing yet to go on from
            raise
        return _failed(f"{stop}; continue with {resume_command(run.path)}", 128 + stop.number)
    except (LostProcess, NonFiniteLoss) as error:
        return _failed(error, 1)
    return 0


# evaluate, figures and sample -----------------------------------------------------------------------------------------


def _evaluate(arguments: list[str]) -> int:
    run, flags = _trained(arguments, "evaluate", "Measures a trained run again.", [_Place(), EvaluateFlags()])
    run.measure(flags["full"], flags["device"])
    return 0


def _figures(arguments: list[str]) -> int:
    run, flags = _trained(arguments, "figures", "Draws the figures of a trained run again.", [_Place(), FiguresFlags()])
    if not run.draw(flags["device"], flags["out"] and expanded(flags["out"])):
        run.say(f"{run.config['recipe']} has no figures")
    return 0


def _sample(arguments: list[str]) -> int:
    run, flags = _trained(arguments, "sample", "Draws from a trained model.", [_Place(), SampleFlags()])
    count, path = flags["count"], expanded(flags["out"] or run.output / "samples.png")
    if path.suffix not in (".png", ".npz"):
        raise UsageError(f"--out must end in .png or .npz, got {path}")
    if count > 64 and path.suffix == ".png":
        raise UsageError(f"--count: a picture holds at most 64, got {count}; draw more into an .npz")
    require_ours(path)
    samples = run.sample(count, _given(flags["given"] or ()), flags["seed"], flags["device"])
    if flags["out"] is None:
        run.output.mkdir(exist_ok=True)
    if path.suffix == ".png":
        save_figure(run.picture(samples, flags["device"]), path)
    else:
        save_arrays({name: value.cpu().numpy() for name, value in samples.items()}, path)
    print(f"wrote {path}")
    return 0


def _explore(arguments: list[str]) -> int:
    description = "Opens a page to play with a trained model. It is served to this machine alone, at 127.0.0.1."
    run, flags = _trained(arguments, "explore", description, [ExploreFlags()])
    from pyzoo.explore import explore

    with contextlib.suppress(Interrupted):
        explore(run, flags["port"], flags["browser"], say=_say)
    return 0


def _pack(arguments: list[str]) -> int:
    description = "Copies a trained model into a folder of its own, small enough to share: pyzoo.load(FOLDER) loads it."
    if _asks_for_help(arguments[:1]):
        _parse("pack RUN FOLDER", ["--help"], [PackFlags()], description)
    run, rest = _open(arguments, "pack RUN FOLDER", is_run=True)
    if not rest or rest[0].startswith("-"):
        raise UsageError("which folder? usage: pyzoo pack RUN FOLDER")
    flags = _changed(PackFlags(), _parse("pack RUN FOLDER", rest[1:], [PackFlags()], description))
    packed = run.pack(expanded(rest[0]), flags.bits)
    size = sum(file.stat().st_size for file in packed.path.iterdir())
    print(f"wrote {packed.path}, {size / 1e6:.1f} MB")
    return 0


def _given(texts: Iterable[str]) -> dict[str, str]:
    """Views or parts by name, from texts NAME=VALUE."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--given must be NAME=VALUE, such as label=3, got {text}")
        if name in found:
            raise UsageError(f"--given: there are two values of '{name}'")
        found[name] = value
    return found


def _trained(
    arguments: list[str], command: str, description: str, settings: list[Settings]
) -> "tuple[TrainedModel, dict[str, Any]]":
    """A run or a trained model, and the values of some flags by name."""
    from pyzoo.training import keep_freed_memory

    if _asks_for_help(arguments[:1]):
        _parse(f"{command} RUN", ["--help"], settings, description)
    run, rest = _open(arguments, command)
    changes = _parse(f"{command} RUN", rest, settings, description)
    keep_freed_memory()
    return run, {name: value for one in settings for name, value in flat(_changed(one, changes)).items()}


# runs and compare -----------------------------------------------------------------------------------------------------


def _runs(arguments: list[str]) -> int:
    if _asks_for_help(arguments):
        print("usage: pyzoo runs [FOLDER]\n\nThe runs in a folder and in its subfolders, by default in runs/, the newest last.")
        return 0
    if len(arguments) > 1:
        raise UsageError(f"'pyzoo runs' takes one folder, got {' '.join(arguments)}")
    folder = Path(arguments[0] if arguments else "runs")
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder" if arguments else "there is no folder runs/ here")
    from pyzoo.training import load

    files = sorted(folder.rglob("config.json"), key=lambda file: file.stat().st_mtime)
    rows = []
    for file in files:
        try:
            rows.append(_row(load(file.parent)))
        except UsageError as error:
            rows.append([str(file.parent), str(error).removeprefix(f"{file} "), "", ""])
    if not rows:
        print(f"there are no runs in {folder}")
        return 0
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(run: "TrainedModel") -> list[str]:
    """What ``pyzoo runs`` says of a run: its folder, its steps, its time and its first metric."""
    step, steps = run.trained, run.config["settings"].get("steps")
    seconds = run.folder.results().get("training_seconds")
    metric = next(iter(run.metrics.items()), None)
    stale = "" if run.measured_after == step else f" (measured after {run.measured_after:,} steps)"
    return [
        str(run.path),
        f"{step:,} steps" if step == steps else f"{step:,} of {steps:,} steps",
        f"{seconds:,.0f} s" if seconds else "",
        f"{metric[0]} {metric[1]:.4g}{stale}" if metric else "not measured",
    ]


def _compare(arguments: list[str]) -> int:
    description = "Shows settings that differ and metrics side by side, and draws the curves into one picture."
    if _asks_for_help(arguments[:1]):
        _parse("compare RUN RUN ...", ["--help"], [CompareFlags()], description)
    count = next((i for i, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    flags = _changed(CompareFlags(), _parse("compare RUN RUN ...", arguments[count:], [CompareFlags()], description))
    if flags.out.suffix != ".png":
        raise UsageError(f"--out must end in .png, got {flags.out}")
    if not flags.out.parent.is_dir():
        raise UsageError(f"can't write {flags.out}: there is no folder {flags.out.parent}")
    if count < 2:
        raise UsageError("which runs? usage: pyzoo compare RUN RUN ...")
    limit_spinning()
    from pyzoo.training import Comparison, load

    require_ours(flags.out)
    comparison = Comparison([load(path) for path in arguments[:count]])
    print(comparison)
    save_figure(comparison.figure(), flags.out)
    print(f"\nwrote {flags.out}")
    return 0


# reproduce ------------------------------------------------------------------------------------------------------------


def _reproduce(arguments: list[str]) -> int:
    name, rest = _named(arguments, "pyzoo.tables", "reproduce TABLE", "table")
    if name is None:
        return 0
    from pyzoo.flags import parse, plain
    from pyzoo.training import Hardware, find_table

    kind = find_table(name)
    table, hardware, flags = kind(), Hardware(), ReproduceFlags()
    changes = parse(f"pyzoo reproduce {name}", rest, [table, hardware, flags], plain(kind.__doc__))
    table, hardware, flags = (_changed(one, changes) for one in (table, hardware, flags))
    if hardware.processes > 1:
        raise UsageError("--devices: a table's runs take one device each; several 'pyzoo reproduce' share the runs of a folder")
    out = expanded(flags.out or Path("runs") / f"{name}-{table.preset}")
    require_ours(out / "table.md")
    seeds = ", ".join(map(str, table.seeds))
    print(f"{name}, preset {table.preset}, seeds {seeds} on {hardware.find()}; folder {out}", flush=True)
    for row in table.rows():  # what is missing is said before the first run is trained
        if not (out / row.folder(table.seeds[0]) / "config.json").exists():
            table.recipe(row, table.seeds[0]).prepare()
    runs = (  # one after the other: a recipe keeps the data that it has read
        (table.recipe(row, seed), out / row.folder(seed), row.preset or table.preset, table.full and seed == table.seeds[0])
        for seed in table.seeds
        for row in table.rows()
    )
    failed = 0
    with contextlib.closing(_side_by_side(runs, hardware, flags)) as codes:
        for code in codes:
            if code > 128:
                print("the same 'pyzoo reproduce' goes on from here")
                return code
            failed = failed or code
    for seed in table.seeds:
        table.kept_references(seed, out)
    _show_table(table, out)
    return failed


def _side_by_side(runs: Iterable[tuple["Recipe", Path, str, bool]], hardware: "Hardware", flags: ReproduceFlags) -> Iterator[int]:
    """Brings runs of a table to their ends, and gives their exit codes as they come.

    Who stops before the last one ends the processes of the others, whose runs can be resumed.
    """
    if flags.jobs == 1 and flags.backend == "loky":
        yield from (_reproduce_run(*run, hardware, flags) for run in runs)
        return
    import joblib

    from pyzoo.training.cluster import connect

    connect(flags.backend)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")  # of what processes that were ended had open
    share = max(1, available_cores() // flags.jobs)
    hardware = dataclasses.replace(hardware, threads=hardware.threads or share)
    flags = dataclasses.replace(flags, progress=False)
    try:
        with joblib.parallel_config(flags.backend, n_jobs=flags.jobs):  # which knows of clusters, as Parallel does not
            as_they_come = "list" if flags.backend == "ray" else "generator_unordered"  # Ray's gives all at the end
            parallel = joblib.Parallel(return_as=as_they_come, batch_size=1)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--backend {flags.backend}: {one_line(error)}") from error
    here = Path.cwd()  # which the machines of a cluster may not be in
    yield from parallel(
        joblib.delayed(_reproduce_run)(recipe, here / path, preset, full, hardware, flags) for recipe, path, preset, full in runs
    )


def _reproduce_run(recipe: "Recipe", path: Path, preset: str, full: bool, hardware: "Hardware", flags: ReproduceFlags) -> int:
    """Brings one run of a table to its end, unless it is there or another process trains it."""
    from pyzoo.training import Busy, Run, keep_freed_memory, locked

    if not (path / "config.json").exists():
        recipe.prepare()
    path.parent.mkdir(parents=True, exist_ok=True)
    require_file(path.parent / "lock")
    with open(path.parent / "lock", "a") as file, locked(file, wait=True):  # who comes second finds the folder made
        if (path / "config.json").exists():
            run = Run(path, _say)
            run.require_same(recipe, hardware)
        else:
            run = Run.create(recipe, preset, hardware, path, _say)
    hardware = hardware.completed_by(run.hardware)
    try:
        with run.folder.lock():
            if not run.is_finished:
                print(f"{path}: {recipe.steps:,} steps", flush=True)
                return _run(run, hardware, _AfterTraining(flags.progress), full)
            if full and not run.folder.results().get("full"):
                print(f"{path}: measuring what takes long", flush=True)
                keep_freed_memory()
                run.measure(full, hardware.device)
    except Busy:
        print(f"{path}: another process trains it", flush=True)
    return 0


def _show_table(table: "Table", out: Path) -> None:
    """Prints the table of the finished runs, and writes it and its figures into the folder."""
    from pyzoo.training import Run

    runs: dict[str, list[Run]] = {}
    for row in table.rows():
        folders = [out / row.folder(seed) for seed in table.seeds]
        found = [Run(folder) for folder in folders if (folder / "config.json").exists()]
        runs[row.label] = [run for run in found if run.is_finished]
    references = {seed: table.kept_references(seed, out) for seed in table.seeds}
    text = table.render(runs, references)
    print(text)
    content = f"{text}\n\n<!-- {MARK.decode()} -->\n".encode()
    write_whole(out / "table.md", lambda file: file.write(content))
    figures = dict(table.figures(runs, references))
    for name, figure in figures.items():
        save_figure(figure, out / f"{name}.png")
    missing = sum(len(table.seeds) - len(found) for found in runs.values())
    drawn = " and its figures" if figures else ""
    print(f"\nwrote {out / 'table.md'}{drawn}" + (f"; {missing} runs are not finished yet" if missing else ""))


# What the commands share ----------------------------------------------------------------------------------------------


def _named(arguments: list[str], group: str, usage: str, what: str) -> tuple[str | None, list[str]]:
    """The recipe or table that a command names, and the other arguments; without a name after help was printed."""
    if not arguments or _asks_for_help(arguments[:1]):
        print(f"usage: pyzoo {usage} [flags]\n\n'pyzoo {usage} --help' lists the flags. There are:\n")
        _print_list(group)
        if not arguments:
            raise UsageError(f"which {what}?")
        return None, []
    _lookup(arguments[0], entries(group), what)
    limit_spinning()  # before torch is imported
    return arguments[0], arguments[1:]


def _open(arguments: list[str], command: str, is_run: bool = False) -> tuple[Any, list[str]]:
    """The run that a command names, or the trained model, and the other arguments."""
    if not arguments:
        raise UsageError(f"which run? usage: pyzoo {command}{'' if ' ' in command else ' RUN'}")
    limit_spinning()
    from pyzoo.training import Run, load

    found = load(arguments[0], _say)
    if is_run and not isinstance(found, Run):
        raise UsageError(f"{arguments[0]} is a trained model, without the checkpoints that a run goes on from")
    return found, arguments[1:]


def _parse(usage: str, arguments: list[str], settings: Sequence[Settings], description: str) -> Any:
    from pyzoo.flags import parse

    return parse(f"pyzoo {usage}", arguments, settings, description)


def _changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    """Settings with those of the changes that are theirs."""
    from pyzoo.settings import flat

    own = flat(settings)
    return changed(settings, {name: value for name, value in changes.items() if name in own})


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return any(argument in ("-h", "--help", "--help-all") for argument in arguments)


def _lookup(name: str, known: Mapping[str, Any], what: str) -> Any:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise UsageError(f"unknown {what} '{name}'; {'nearest' if near else 'there are'}: {', '.join(near or known)}")
    return known[name]


def _say(line: str) -> None:
    print(printable(line), flush=True)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "list": _list,
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "figures": _figures,
    "sample": _sample,
    "explore": _explore,
    "pack": _pack,
    "runs": _runs,
    "compare": _compare,
    "reproduce": _reproduce,
}


if __name__ == "__main__":
    sys.exit(main())
