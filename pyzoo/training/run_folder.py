"""The folder of a run: everything needed to continue it, evaluate it or redraw it."""

import contextlib
import csv
import io
import itertools
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, TypedDict

from pyzoo.checks import require_kind
from pyzoo.errors import UsageError, one_line, printable
from pyzoo.files import read_bytes, remove_leftovers, require_file, resume_command, write_whole
from pyzoo.settings import AtLeast, Steps, Weight, require_entries
from pyzoo.training.checkpoint import CheckpointFolder
from pyzoo.training.weights import WEIGHTS

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

__all__ = ["OWN_DATA", "Busy", "RunFolder", "locked", "read_checked", "write_checked"]


class Results(TypedDict):
    """What results.json holds."""

    metrics: dict[str, float | None]
    """By name; null for one that is not finite."""
    full: bool
    """Whether what takes long was measured too."""
    note: str
    step: Annotated[int, AtLeast(0)]
    """The step of the checkpoint that was measured."""
    trained: Annotated[int, AtLeast(0)]
    """The step of the newest checkpoint."""
    steps: Steps
    """How many steps the run was to take."""
    finished: bool
    training_seconds: Weight | None
    hardware: dict[str, Any]
    parameters: Annotated[int, AtLeast(0)]
    versions: dict[str, str]
    machine: str


OWN_DATA = "data.npz"
"""The file of a run's folder that keeps data which were given as tensors."""

_LOCK = ".lock"
"""The file that is locked by who makes the run, or trains it."""


class Busy(UsageError):
    """Another process trains in the folder."""


@contextlib.contextmanager
def locked(file: IO, wait: bool = False) -> Iterator[None]:
    """Keeps other processes out while a file is open, where the system has file locks.

    Raises:
        Busy: another process is in, and we are not to wait.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise Busy(f"another process is training in {Path(file.name).parent}") from error
    yield


class RunFolder:
    """``config.json``, ``metrics.csv``, ``results.json``, ``log.txt``, ``figures/`` and ``checkpoints/``.

    Args:
        path: the folder; :meth:`create` makes it and :meth:`open` checks it.
    """

    def __init__(self, path: Path) -> None:
        require_kind(path, "path", Path)
        self.path = path
        self.checkpoints: CheckpointFolder = CheckpointFolder(path / "checkpoints")
        self.figures: Path = path / "figures"
        self.made_data = False  # whether data.npz was written for this run, and is not its user's
        self._locked = False
        self._writer: Any = None
        self._id: str | None = None

    @property
    def was_begun(self) -> bool:
        """Whether making the run was begun: its lock comes first."""
        return (self.path / _LOCK).exists()

    @classmethod
    def require_free(cls, path: Path) -> None:
        """Raises a UsageError if a path holds something other than data for a new run, or what a kill left of making one."""
        if path.is_dir() and any(e.name not in (OWN_DATA, _LOCK) and not e.match(".*.partial") for e in path.iterdir()):
            hint = (
                f"continue it with {resume_command(path)}, or choose another --out"
                if cls.is_run(path)
                else "choose another --out"
            )
            raise UsageError(f"{path} exists and is not empty: {hint}")

    @classmethod
    @contextlib.contextmanager
    def making(cls, path: Path) -> Iterator["RunFolder"]:
        """The context in which a new run's folder is filled by one process alone; what fails in it leaves nothing behind.

        Raises:
            UsageError: the path is a file, can't be written, or holds something already.
            Busy: another process makes the same folder.
        """
        try:
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            cls.require_free(path)  # before a lock is put into someone's folder
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path)
            with run.lock():
                cls.require_free(path)  # another process may have been first
                try:
                    yield run
                except BaseException:
                    run.discard()
                    for folder in made:
                        with contextlib.suppress(OSError):
                            folder.rmdir()
                    raise
        except OSError as error:
            raise UsageError(f"can't make the run folder {path}: {error.strerror}") from error

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> "RunFolder":
        """Makes a new run folder, with its config.json; never overwrites one. Errors as :meth:`making`."""
        with cls.making(path) as run:
            run.write_config(config)
        return run

    def discard(self) -> None:
        """Removes the files of a run that was never trained, and its folder if nothing else is in it."""
        made = ("config.json", "log.txt", "metrics.csv", "results.json", WEIGHTS, _LOCK)
        for name in (*made, *([OWN_DATA] if self.made_data else [])):
            with contextlib.suppress(OSError):
                (self.path / name).unlink()
        for folder in (self.checkpoints.path, self.figures, self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder.

        Raises:
            UsageError: it is not one.
        """
        if not cls.is_run(path):
            why = "it has no config.json" if path.exists() else "there is nothing of that name"
            raise UsageError(f"{path} is not a run folder: {why}")
        return cls(path)

    @staticmethod
    def is_run(path: Path) -> bool:
        """Whether a path is the folder of a run, or of a trained model."""
        try:
            return (path / "config.json").is_file()
        except OSError:  # a name that is too long
            return False

    def config(self) -> dict[str, Any]:
        """What :meth:`write_config` was given last.

        Raises:
            UsageError: it can't be read.
        """
        try:
            found = json.loads(read_bytes(self.path / "config.json"))
        except UsageError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{self.path / 'config.json'} can't be read: {one_line(error)}") from error
        if not isinstance(found, dict):
            raise UsageError(f"{self.path / 'config.json'} does not describe a run")
        return found

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes config.json, or replaces it."""
        self._write_json("config.json", config)
        self._id = None

    @property
    def id(self) -> str:
        """The run's own number, which goes into check sums: rows and results of another run are not taken for this one's.

        Empty in runs of earlier versions.
        """
        if self._id is None:
            try:
                self._id = str(self.config().get("id", ""))
            except UsageError:
                return ""
        return self._id

    def write_results(self, results: dict[str, Any]) -> None:
        """The metrics of an evaluation, and what they were measured with; with a check sum."""
        write_checked(self.path / "results.json", results, self.id)

    def results(self) -> dict[str, Any]:
        """What :meth:`write_results` was given last; empty if that was never, or if the file is damaged or another run's."""
        try:
            found = read_checked(self.path / "results.json", self.id)
            require_entries(found, Results, "results.json")
        except UsageError:
            return {}
        metrics = {name: math.nan if value is None else float(value) for name, value in found["metrics"].items()}
        return {**found, "metrics": metrics}

    def take_numbers(self, other: "RunFolder") -> None:
        """Copies metrics.csv and results.json from a folder of the same :attr:`id`, as far as they are there."""
        for name in ("metrics.csv", "results.json"):
            with contextlib.suppress(FileNotFoundError):
                content = read_bytes(other.path / name)
                write_whole(self.path / name, lambda file, content=content: file.write(content))

    def log(self, line: str) -> None:
        """Adds a line to log.txt."""
        require_file(self.path / "log.txt")
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(printable(line) + "\n")

    def append_metrics(self, row: dict[str, float]) -> None:
        """Adds a row to metrics.csv, with a check sum; a column that the file lacks is added to it."""
        row = {printable(name): value for name, value in row.items()}
        columns = self._columns()
        if columns and set(row) - set(columns):
            columns = [*columns, *(name for name in row if name not in columns)]
            self._write_rows(columns, self._rows())
        text = "" if columns else _head(list(row))
        text += _line(columns or list(row), row, self.id)
        with open(self.path / "metrics.csv", "a", newline="", encoding="utf-8") as file:
            file.write(text)

    def write_tensorboard(self, row: Mapping[str, float]) -> None:
        """Writes a row for TensorBoard, into the folder ``tensorboard``.

        Raises:
            UsageError: the package tensorboard is not installed.
        """
        if self._writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UsageError("--log tensorboard needs the package tensorboard: pip install tensorboard") from error
            self._writer = SummaryWriter(str(self.path / "tensorboard"), purge_step=int(row["step"]))
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv; an empty cell is nan."""
        return [{name: float(cell) if cell else math.nan for name, cell in row.items()} for row in self._rows()]

    def forget_metrics_after(self, step: int) -> None:
        """Drops rows that a resumed run will write again, and a last row that a kill cut short."""
        if not (self.path / "metrics.csv").exists():
            return
        rows = [row for row in self._rows() if int(row["step"]) <= step]
        if rows:
            self._write_rows(self._columns(), rows)
        else:
            (self.path / "metrics.csv").unlink()

    def _columns(self) -> list[str]:
        """The columns of metrics.csv; reads its head alone, since this is asked for each row."""
        require_file(self.path / "metrics.csv")
        try:
            with open(self.path / "metrics.csv", newline="", encoding="utf-8", errors="replace") as file:
                return [name for name in _names(file.readline()) if name != _CHECKSUM]
        except FileNotFoundError:
            return []

    def _rows(self) -> list[dict[str, str]]:
        """The rows of metrics.csv as text, without what a kill or a power cut left at its end.

        Raises:
            UsageError: something before the end is damaged.
        """
        file = self.path / "metrics.csv"
        try:
            head, *lines = read_bytes(file).decode(errors="replace").split("\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UsageError(f"{file} can't be read: {error.strerror}") from error
        columns = _names(head)
        rows = [_row(columns, line.removesuffix("\r"), self.id) for line in lines[:-1]]
        good = rows.index(None) if None in rows else len(rows)
        cut_short = not lines and "step,".startswith(head[:5]) and "\r" not in head[:-1]
        whole = [row for row in rows[:good] if row is not None]
        rising = all(int(row["step"]) < int(after["step"]) for row, after in itertools.pairwise(whole))
        cut = [line for line in lines[good:-1] if line.count(",") + 1 == len(columns)]  # a kill leaves one such line at most
        if ("step" not in columns and not cut_short) or any(rows[good:]) or not rising or len(cut) > 1:
            raise UsageError(f"{file} is damaged or another run's: move it away to go on without it")
        return whole

    def _write_rows(self, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
        text = _head(columns) + "".join(_line(columns, row, self.id) for row in rows)
        write_whole(self.path / "metrics.csv", lambda file: file.write(text.encode()))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in this folder, where the system has file locks; reading is free.

        Who holds it may take it again.

        Raises:
            Busy: another process trains in it.
        """
        if self._locked:
            yield
            return
        require_file(self.path / _LOCK)
        with open(self.path / _LOCK, "a") as file, locked(file):
            self._locked = True
            try:
                remove_leftovers(self.path)
                remove_leftovers(self.checkpoints.path)
                remove_leftovers(self.figures)
                yield
            finally:
                self._locked = False

    def forget_lock(self) -> None:
        """Removes the file of the lock from a folder that nobody will train in."""
        (self.path / _LOCK).unlink(missing_ok=True)

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        write_whole(self.path / name, lambda file: file.write(_json(value).encode()))


def write_checked(path: Path, values: Mapping[str, Any], owner: str = "") -> None:
    """Writes values by name as JSON, with a check sum of them and of whose they are."""
    values = json.loads(_json(values))  # as they will be read
    write_whole(path, lambda file: file.write(_json({**values, _CHECKSUM: _sum_of(values, owner)}).encode()))


def read_checked(path: Path, owner: str = "") -> dict[str, Any]:
    """What :func:`write_checked` was given; empty if there is no such file, or if it is damaged or someone else's."""
    try:
        found = json.loads(read_bytes(path))
        return found if found.pop(_CHECKSUM) == _sum_of(found, owner) else {}
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return {}


def _json(value: Any) -> str:
    return json.dumps(_strict(value), indent=2, default=str, allow_nan=False) + "\n"  # paths as text


def _sum_of(results: Any, owner: str) -> str:
    return f"{zlib.crc32((owner + json.dumps(results, sort_keys=True)).encode()):08x}"


def _strict(value: Any) -> Any:
    """What strict JSON can say: null for a number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, (list, tuple)) else value


# Rows of metrics.csv --------------------------------------------------------------------------------------------------

_CHECKSUM = "checksum"
"""The last column, which ties a row to the head and would show a digit that has changed."""


def _head(columns: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerow([*columns, _CHECKSUM])
    return text.getvalue()


def _names(head: str) -> list[str]:
    """The columns of a head. Names of terms may need quotes; numbers never do."""
    try:
        return next(csv.reader([head.rstrip("\r\n")]), [])
    except csv.Error:
        return []


def _line(columns: Sequence[str], row: Mapping[str, Any], owner: str) -> str:
    cells = [str(row.get(name, "")) for name in columns]
    return ",".join([*cells, _checksum(columns, cells, owner)]) + "\r\n"


def _row(columns: Sequence[str], line: str, owner: str) -> dict[str, str] | None:
    """A line by the columns' names; None if it is not whole, or another run's: a cell is missing, or a character has changed."""
    cells = line.split(",")
    if len(cells) != len(columns):
        return None
    row = dict(zip(columns, cells, strict=True))
    if _CHECKSUM in row:  # earlier versions wrote none
        found = row.pop(_CHECKSUM)
        if found != _checksum(list(row), list(row.values()), owner):
            return None
    try:
        is_whole = int(row["step"]) >= 0 and all(float(cell or 0) or True for cell in row.values())
    except (KeyError, ValueError):
        return None
    return row if is_whole else None


def _checksum(columns: Sequence[str], cells: Sequence[str], owner: str) -> str:
    return f"{zlib.crc32((owner + ','.join([*columns, *cells])).encode()):08x}"
