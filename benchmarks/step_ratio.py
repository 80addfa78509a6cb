"""How much longer a training step takes in one checkout of this repository than in another, both timed in turns on one core.

    python benchmarks/step_ratio.py BEFORE AFTER [RECIPE PRESET ENGINE STEPS]

BEFORE and AFTER are folders of checkouts; STEPS are those of a round. Prints the median of thirty rounds' ratios, their range,
and the ratio of all seconds together.
"""

import os
import statistics
import subprocess
import sys

CASES = [
    ("mib-multimodal", "digits", "eager", 25),
    ("compvae-sines", "small", "eager", 10),
    ("graph-vae", "digits", "traced", 40),
]
ROUNDS = 30
STEPPER = """
import sys, tempfile, time
from pathlib import Path
import pyro, torch
torch.set_num_threads(1)
from pyzoo.training import Hardware, Run, Trainer, find_recipe
name, preset, engine = sys.argv[1:]
recipe = find_recipe(name).preset(preset, steps=10**6)
run = Run.create(recipe, preset, Hardware("cpu", threads=1, engine=engine), Path(tempfile.mkdtemp()) / "run")
trainer = Trainer(run.recipe, run.folder, run.hardware, progress=False)
source = trainer.recipe.source(trainer.device)
with pyro.validation_enabled(False), run.hardware.arithmetic():
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            trainer._step(source)
            trainer.step += 1
        print(time.perf_counter() - start, flush=True)
"""


def start(checkout: str, *arguments: str) -> subprocess.Popen:
    """A process that takes as many steps as it reads, and prints their seconds."""
    environment = {**os.environ, "PYTHONPATH": os.path.abspath(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STEPPER, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, cwd=checkout, text=True, **pipes)  # the folder comes first in the path


def seconds(process: subprocess.Popen, steps: int) -> float:
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    if len(sys.argv) not in (3, 7):
        sys.exit(__doc__)
    before, after, *case = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):  # both on one core, which they use in turns
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for name, preset, engine, steps in [(*case[:3], int(case[3]))] if case else CASES:
        processes = {checkout: start(checkout, name, preset, engine) for checkout in (before, after)}
        for process in processes.values():
            seconds(process, 10)
        found = []
        for turn in range(ROUNDS):
            order = (before, after) if turn % 2 else (after, before)
            found.append({checkout: seconds(processes[checkout], steps) for checkout in order})
        for process in processes.values():
            process.stdin.close()
            process.wait()
        ratios = sorted(one[after] / one[before] for one in found)
        both = sum(one[after] for one in found) / sum(one[before] for one in found)
        each = 1e3 * statistics.median(one[before] for one in found) / steps
        spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"{name} {preset} {engine}: {each:.1f} ms before, ratio {spread}, of all seconds {both:.3f}", flush=True)


if __name__ == "__main__":
    main()
