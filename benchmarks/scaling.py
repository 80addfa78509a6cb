"""How a step grows: with the batch of a VAE, the parts of CompVAE, the nodes of Graph VAE and the slots of MONet.

    python -m benchmarks.scaling [vae compvae graph-vae slots] [--rounds 3] [--device cpu] [--json FILE] [--plot FILE]

By hand it is PyTorch with its default settings; ours are steps in fp32, traced. Sides and numbers take turns.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter

from benchmarks.cases import Case, compvae, graph_vae, slots, vae
from benchmarks.rounds import stepping
from pyzoo.plotting import figure_grid, label_axes
from pyzoo.threads import limit_spinning
from pyzoo.training import keep_freed_memory

SIDES = {"handwritten": "by hand", "fp32 traced": "pyzoo, traced"}


class Growth(NamedTuple):
    """What grows: its name, the numbers that are measured, and how a case is made of one."""

    name: str
    numbers: tuple[int, ...]
    make: Callable[[int, torch.device], Case]


GROWTHS = {
    "vae": Growth("images in a batch", (16, 64, 256, 1024), lambda number, device: vae.make(str(number), device)),
    "compvae": Growth("parts", (1, 2, 4, 8, 16, 30), compvae.with_parts),
    "graph-vae": Growth("nodes", (2, 4, 5, 8, 10), graph_vae.with_nodes),
    "slots": Growth("slots", (2, 3, 4, 6, 8), slots.with_slots),
}

Found = dict[str, dict[str, list[float]]]
"""Milliseconds of a step at each number, by case and side."""


def measured(growth: Growth, rounds: int, device: str, most: int = 10**6) -> dict[str, list[float]]:
    """Milliseconds of a step at each number, by side: medians of the rounds.

    Args:
        growth: what grows.
        rounds: how often each is measured.
        device: where the steps are taken.
        most: steps in a measurement, at most.
    """
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in growth.numbers:
        times: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                torch.manual_seed(0)
                made = growth.make(number, torch.device(device))
                with stepping(made, side, device) as step:
                    step()  # graphs are made in it
                    started = time.perf_counter()
                    count = min(made.steps, most)
                    for _ in range(count):
                        step()
                    times[side].append(1000 * (time.perf_counter() - started) / count)
        for side in SIDES:
            found[side].append(statistics.median(times[side]))
    return found


def figure(found: Found) -> Figure:
    """A step's milliseconds against what grows, both in logarithms."""
    drawn, [cells] = figure_grid(1, len(found), "What a step takes, as it grows", cell=(2.6, 2.4))
    for (case, sides), axes in zip(found.items(), cells, strict=True):
        for side, milliseconds in sides.items():
            axes.loglog(GROWTHS[case].numbers, milliseconds, marker="o", markersize=3, label=SIDES[side])
        axes.set_title(case, fontsize=9)
        axes.set_xticks(GROWTHS[case].numbers, [str(number) for number in GROWTHS[case].numbers])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
        label_axes(axes, GROWTHS[case].name, "milliseconds")
    cells[0].legend(fontsize=7)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(GROWTHS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them here")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - GROWTHS.keys():
        parser.error(f"unknown case {min(unknown)}; there are {', '.join(GROWTHS)}")
    limit_spinning()
    keep_freed_memory()
    found: Found = {}
    for case in arguments.cases or GROWTHS:
        growth = GROWTHS[case]
        found[case] = measured(growth, arguments.rounds, arguments.device)
        print(f"\n{case}, milliseconds by {growth.name}\n\n| | {' | '.join(map(str, growth.numbers))} |")
        print("|---" * (len(growth.numbers) + 1) + "|")
        for side, milliseconds in found[case].items():
            print(f"| {SIDES[side]} | {' | '.join(f'{value:.1f}' for value in milliseconds)} |")
        sys.stdout.flush()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    if arguments.plot:
        figure(found).savefig(arguments.plot, dpi=150)


if __name__ == "__main__":
    main()
