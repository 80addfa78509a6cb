"""What the benchmarks of training steps share: sides that take turns, each measurement in a process of its own.

So a change of the machine's speed meets all sides, and ratios are taken within a round.
"""

import argparse
import functools
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

__all__ = ["main", "our_step", "time_steps"]


def time_steps(step: Callable[[], float], count: int) -> dict[str, float]:
    """Milliseconds of a step, the median, and the peak of the process's memory in MB; ``step`` returns its loss."""
    times = []
    for _ in range(count + 2):
        started = time.perf_counter()
        loss = step()
        times.append(1000 * (time.perf_counter() - started))
    assert math.isfinite(loss)
    return {"ms": statistics.median(times[2:]), "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def our_step(model, guide, batch, precision: str, engine: str, **adam) -> Callable[[], float]:
    """One step of the training loop, without a run folder; the keywords are Adam's."""
    import pyro
    import torch

    from pyzoo.infer import NegativeELBO
    from pyzoo.training import Hardware, Objective
    from pyzoo.training.steps import make_step

    pyro.enable_validation(False)
    hardware = Hardware(device="cpu", precision=precision, engine=engine)
    objective = Objective(NegativeELBO(model, guide), functools.partial(torch.optim.Adam, **adam, fused=True))
    take_step = make_step(objective, engine, hardware.fabric(model, guide))

    def step():
        with hardware.arithmetic():
            return take_step(batch)[0].item()

    return step


def main(
    script: str,
    description: str,
    sizes: Mapping[str, str],
    sides: Sequence[str],
    measure: Callable[[str, str, int], dict[str, float]],
    steps: Callable[[str], int],
) -> None:
    """The command of a benchmark.

    Args:
        script: its file, which is run again for each measurement.
        description: for ``--help``.
        sizes: names of problem sizes, and what to print of them.
        sides: what is compared; the first is what ratios are to.
        measure: from size, side and number of steps to milliseconds and megabytes.
        steps: how many steps to measure at a size.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=sizes, default=list(sizes))
    parser.add_argument("--sides", nargs="+", choices=sides, default=list(sides), help="the first is what ratios are to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("SIZE", "SIDE", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], arguments.one[1], int(arguments.one[2]))))
        return
    for size in arguments.sizes:
        found = {side: [] for side in arguments.sides}
        for _ in range(arguments.rounds):
            for side in arguments.sides:
                command = [sys.executable, script, "--one", size, side, str(steps(size))]
                found[side].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(f"{size}, {sizes[size]}: medians of {arguments.rounds} rounds")
        for side, rows in found.items():
            ratios = [row["ms"] / base["ms"] for row, base in zip(rows, found[arguments.sides[0]], strict=True)]
            ms, megabytes = statistics.median(row["ms"] for row in rows), statistics.median(row["MB"] for row in rows)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            ratio = f"{statistics.median(ratios):.2f} of {arguments.sides[0]} ({spread})"
            print(f"  {side:25} {ms:8.1f} ms  {megabytes:6.0f} MB  {ratio}")
