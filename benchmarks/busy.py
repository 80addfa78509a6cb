"""A training beside busy processes: the command's own choice of threads and waiting against fixed settings.

    python benchmarks/busy.py [--busy 0 2] [--steps 200] [--rounds 3] [--sides ...]

Each measurement is ``pyzoo train compvae-sines``, preset small, in a process of its own, as a user starts it. What is timed is
the training, with the measurements by which the command chooses and without the imports, which are the same for all. The settings
take turns, and ratios are taken within a round, to the best fixed setting of that round. Beside them run as many processes as
``--busy`` says, each of which keeps one core busy.
"""

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyzoo.threads import SPIN_COUNT

CHOSEN = "the command's choice"
FIXED = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads, spinning as long as OpenMP has them": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "300000"},
    f"2 threads, spinning {SPIN_COUNT:,} rounds": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": str(SPIN_COUNT)},
    "2 threads, spinning 1,000 rounds": {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "1000"},
    "2 threads, sleeping at once": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"},
}
SETTINGS = {CHOSEN: {}, **FIXED}
LIMIT = 120.0  # seconds, after which a setting counts as hopeless


def training_seconds(variables: dict[str, str], steps: int) -> float:
    """Seconds from the first step to the last, with the choice before it; infinite beyond the limit."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "MKL_"))}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "pyzoo.cli", "train", "compvae-sines", "--steps", str(steps), "--out", str(run)]
        command += ["--no-evaluate", "--no-figures"]
        with subprocess.Popen(command, env=clean | variables, stdout=subprocess.DEVNULL) as process:
            while not (run / "config.json").exists():  # written when the imports are done, before anything is chosen
                if process.poll():
                    raise RuntimeError("the training failed")
                time.sleep(0.01)
            started = time.monotonic()
            try:
                if process.wait(LIMIT):
                    raise RuntimeError("the training failed")
            except subprocess.TimeoutExpired:
                process.kill()
                return math.inf
            seconds = time.monotonic() - started
        with (run / "metrics.csv").open(newline="") as file:
            assert int(list(csv.DictReader(file))[-1]["step"]) == steps
    return seconds


def main() -> None:
    """Prints a table for each number of busy processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2], help="busy processes beside the training")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    arguments = parser.parse_args()
    for count in arguments.busy:
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
        try:
            found = {side: [] for side in arguments.sides}
            for _ in range(arguments.rounds):
                for side, seconds in found.items():
                    seconds.append(training_seconds(SETTINGS[side], arguments.steps))
        finally:
            for process in others:
                process.kill()
                process.wait()
        best = [min(found[side][turn] for side in found if side != CHOSEN) for turn in range(arguments.rounds)]
        print(f"{arguments.steps} steps beside {count} busy processes: medians of {arguments.rounds} rounds")
        for side, seconds in found.items():
            ratios = [mine / least for mine, least in zip(seconds, best, strict=True)]
            print(
                f"  {side:48} {statistics.median(seconds):7.1f} s  {statistics.median(ratios):5.2f} of the best fixed setting "
                f"({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
