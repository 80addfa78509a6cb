"""The folder of a run: everything needed to continue it, evaluate it or redraw it."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from pyzoo.errors import UsageError
from pyzoo.training.checkpoint import CheckpointFolder

__all__ = ["RunFolder"]


class RunFolder:
    """``config.json``, ``metrics.csv``, ``results.json``, ``log.txt``, ``figures/`` and ``checkpoints/``.

    Args:
        path: the folder; :meth:`create` makes it and :meth:`open` checks it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = CheckpointFolder(path / "checkpoints")

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> "RunFolder":
        """Makes a new run folder; never overwrites one.

        Raises:
            UsageError: the path is a file, can't be written, or holds something already.
        """
        try:
            if path.is_dir() and any(path.iterdir()):
                hint = (
                    f"continue it with 'pyzoo resume {path}', or choose another --out"
                    if cls._is_run(path)
                    else "choose another --out"
                )
                raise UsageError(f"{path} exists and is not empty: {hint}")
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path)
            run._write_json("config.json", config)
        except OSError as error:
            raise UsageError(f"can't make the run folder {path}: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder.

        Raises:
            UsageError: it is not one.
        """
        if not cls._is_run(path):
            raise UsageError(f"{path} is not a run folder: it has no config.json")
        return cls(path)

    @staticmethod
    def _is_run(path: Path) -> bool:
        return (path / "config.json").is_file()

    def config(self) -> dict[str, Any]:
        """What :meth:`create` was given."""
        try:
            return json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path / 'config.json'} can't be read: {error}") from error

    def write_results(self, results: dict[str, Any]) -> None:
        """The metrics of an evaluation, and what they were measured with."""
        self._write_json("results.json", results)

    def results(self) -> dict[str, Any]:
        """What :meth:`write_results` was given last."""
        return json.loads((self.path / "results.json").read_text())

    def log(self, line: str) -> None:
        """Adds a line to log.txt."""
        with open(self.path / "log.txt", "a") as file:
            file.write(line + "\n")

    def append_metrics(self, row: dict[str, float]) -> None:
        """Adds a row to metrics.csv; the first row's keys are the columns, and later ones must be among them."""
        file_path = self.path / "metrics.csv"
        columns = self._columns() or list(row)
        with open(file_path, "a", newline="") as file:
            writer = csv.DictWriter(file, columns)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv; an empty cell is nan."""
        if not self._columns():
            return []
        with open(self.path / "metrics.csv", newline="") as file:
            return [{key: float(cell) if cell else math.nan for key, cell in row.items()} for row in csv.DictReader(file)]

    def forget_metrics_after(self, step: int) -> None:
        """Drops rows that a resumed run will write again, and a last row that a kill cut short."""
        columns = self._columns()
        if not columns:
            return
        with open(self.path / "metrics.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values() and row["step"] and int(row["step"]) <= step]
        if not rows:
            (self.path / "metrics.csv").unlink()
            return
        with open(self.path / "metrics.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def _columns(self) -> list[str]:
        try:
            with open(self.path / "metrics.csv", newline="") as file:
                return next(csv.reader(file), [])
        except FileNotFoundError:
            return []

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        partial = self.path / (name + ".partial")
        partial.write_text(json.dumps(value, indent=2) + "\n")
        partial.replace(self.path / name)
