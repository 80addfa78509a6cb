"""Times training steps of every system, each against hand-written PyTorch with the same networks on the same batch.

    python -m benchmarks                                  all of it, an hour or two
    python -m benchmarks --device cuda                    on a GPU; benchmarks/gpu.sh runs that and more
    python -m benchmarks --quick                          a few steps of each: whether everything runs
    python -m benchmarks vae --sizes 64 --numpyro PYTHON  beside NumPyro, by a Python that has it

How a step grows is timed by benchmarks.scaling, an epoch with its reading by benchmarks.epoch.

Ratios are to the first side, of the same round; "peak" is the share of what this machine multiplies at most.
"""

import argparse
import importlib
import json
import os
import platform
import sys
from typing import Any

from pyzoo.threads import limit_spinning

if "--one" in sys.argv and not {"Pyro's SVI", "handwritten"} & set(sys.argv):
    limit_spinning()  # as the pyzoo command does, before torch is imported; a process inherits it, so each side has its own

from benchmarks.cases import CASES
from benchmarks.rounds import SIDES, measure, medians, peak, rounds, sides_of

QUICK = ("handwritten", "fp32 eager", "fp32 traced")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--sizes", nargs="+", metavar="SIZE", help="those of each case that it has; all by default")
    parser.add_argument("--sides", nargs="+", choices=SIDES, metavar="SIDE", help="; ".join(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10**6, help="most steps in a measurement")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--numpyro", metavar="PYTHON", help="a Python that has numpyro and jax")
    parser.add_argument("--json", metavar="FILE", help="write all measurements here")
    parser.add_argument("--plot", metavar="FILE", help="draw all ratios here")
    parser.add_argument("--quick", action="store_true", help="one round of two steps, at the smallest size, by few sides")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for case in arguments.cases:
        if case not in CASES:
            parser.error(f"unknown case {case}; there are {', '.join(CASES)}")
    arguments.cases = arguments.cases or list(CASES)
    if arguments.sizes:  # cases are not imported otherwise: they would count as memory of the processes that are measured
        known = [size for case in arguments.cases for size in importlib.import_module(CASES[case]).SIZES]
        for size in set(arguments.sizes) - set(known):
            parser.error(f"unknown size {size} of {' and '.join(arguments.cases)}; there are {', '.join(dict.fromkeys(known))}")
    if arguments.quick:
        arguments.rounds, arguments.steps = 1, 2
    arguments.sides = arguments.sides or (list(QUICK) if arguments.quick else list(sides_of(arguments.device)))
    return arguments


def sizes_of(case: str, arguments: argparse.Namespace) -> dict[str, str]:
    """The sizes to measure a case at, and what to print of them."""
    sizes: dict[str, str] = importlib.import_module(CASES[case]).SIZES
    chosen = arguments.sizes or (list(sizes)[:1] if arguments.quick else list(sizes))
    return {size: what for size, what in sizes.items() if size in chosen}


def show(title: str, found: dict[str, list[dict[str, Any]]], peaks: dict[str, float]) -> None:
    """Prints the table of a case at a size."""
    print(f"\n{title}\n\n| | ms | ratio | range | MB | first step, s | peak |\n|---|---|---|---|---|---|---|")
    first = next(iter(found))
    flop = found[first][0].get("flop")
    for side, rows in found.items():
        one = medians(rows, found[first])
        top = peaks["bfloat16" if side.startswith("bf16") else "float32"]
        share = f"{100 * flop / (one['ms'] / 1000) / top:.0f} %" if flop else "-"
        started = f"{one['first_s']:.1f}" if "first_s" in one else "-"
        spread = f"{one['least']:.2f} to {one['most']:.2f}"
        print(f"| {side} | {one['ms']:.2f} | {one['ratio']:.2f} | {spread} | {one['MB']:.0f} | {started} | {share} |", flush=True)


def main() -> None:
    arguments = parsed()
    if arguments.one:
        case, size, side, most, device = arguments.one
        print(json.dumps(measure(case, size, side, int(most), device)))
        return
    import torch

    peaks = {dtype: peak(dtype, arguments.device)["flop_per_s"] for dtype in ("float32", "bfloat16")}
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if arguments.device != "cpu":
        machine["gpu"] = torch.cuda.get_device_name(arguments.device)
    machine |= {"torch": torch.__version__, **{f"{name}, Gflop/s": round(value / 1e9) for name, value in peaks.items()}}
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    kept: dict[str, Any] = {"machine": machine, "cases": {}}
    has_failed = False
    for case in arguments.cases:
        for size, what in sizes_of(case, arguments).items():
            found, errors = rounds(
                case, size, arguments.sides, arguments.rounds, arguments.steps, arguments.device, arguments.numpyro
            )
            for error in errors:
                has_failed = True
                print(error, file=sys.stderr, flush=True)
            if not found:
                continue
            show(f"{case} {size}, {what}: medians of {arguments.rounds} rounds", found, peaks)
            kept["cases"][f"{case} {size}"] = found
            if arguments.json:
                with open(arguments.json, "w") as file:
                    json.dump(kept, file, indent=1)
    if arguments.plot and kept["cases"]:
        from benchmarks.plot import figure  # which would count as memory of the processes that are measured

        figure(kept["cases"]).savefig(arguments.plot, dpi=150)
    if has_failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
