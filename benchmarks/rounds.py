"""One measurement, and rounds of them: sides take turns, each in a process of its own.

So a change of the machine's speed meets all sides, and ratios are taken within a round.
"""

import contextlib
import functools
import importlib
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case

__all__ = ["SIDES", "measure", "medians", "peak", "rounds", "sides_of", "stepping"]

WARM = 5
"""Steps before those that are timed: graphs are made in them."""

IN_NUMPYRO = ("vae", "graph-vae", "compvae")
"""Cases that have a program in :mod:`benchmarks.with_numpyro`."""

BY_HAND = ("handwritten", "handwritten, kept memory", "handwritten, compiled")
SIDES = (
    *BY_HAND,
    "Pyro's SVI",
    "fp32 eager",
    "fp32 traced",
    "fp32 compiled",
    "bf16 eager",
    "bf16 traced",
    "bf16 compiled",
    "fp32 captured",
    "bf16 captured",
)
"""By hand: with PyTorch's default settings; with memory kept between steps; compiled, with kept memory and fused Adam. Then
Pyro's SVI with Trace_ELBO, and what ``pyzoo train`` runs, by precision and engine."""


def sides_of(device: str) -> tuple[str, ...]:
    """The sides that a device has: CUDA graphs are a GPU's, and memory that is kept is a CPU's."""
    absent = "captured" if device == "cpu" else "kept memory"
    return tuple(side for side in SIDES if absent not in side)


def measure(case: str, size: str, side: str, most: int, device: str = "cpu") -> dict[str, float] | None:
    """A side of a case: milliseconds of a step, the median; the first step's seconds; memory in MB; its losses.

    None where Pyro's SVI has no such loss.

    The memory is the process's, or what it had of a GPU's at most.
    """
    import torch

    from pyzoo.training import keep_freed_memory

    torch.manual_seed(0)
    if side not in ("handwritten", "Pyro's SVI"):
        keep_freed_memory()
    made: Case = importlib.import_module(CASES[case]).make(size, torch.device(device))
    if made.loss is not None and side == "Pyro's SVI":
        return None
    count, times, losses = min(made.steps, most), [], []
    with stepping(made, side, device) as step:
        for _ in range(count + WARM):
            started = time.perf_counter()
            losses.append(step())
            times.append(time.perf_counter() - started)
    assert all(map(math.isfinite, losses)), losses
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device != "cpu":
        megabytes = torch.cuda.max_memory_allocated(device) / 2**20
    found = {"ms": 1000 * statistics.median(times[WARM:]), "first_s": times[0], "MB": megabytes}
    found |= {"first": losses[0], "last": losses[-1]}
    return found | ({"flop": _flop(made)} if side == BY_HAND[0] else {})


@contextlib.contextmanager
def stepping(made: Case, side: str, device: str) -> Iterator[Callable[[], float]]:
    """A function that takes one step and returns its loss."""
    import torch

    if side in BY_HAND:
        fused = {"fused": True} if side == BY_HAND[2] else {}
        optimizer = torch.optim.Adam([*made.model.parameters(), *made.guide.parameters()], **made.adam, **fused)
        loss_of = torch.compile(made.by_hand) if side == BY_HAND[2] else made.by_hand

        def step() -> float:
            optimizer.zero_grad()
            loss = loss_of()
            loss.backward()
            optimizer.step()
            return loss.item()

        yield step
        return
    if side == "Pyro's SVI":
        import pyro
        from pyro.infer import SVI, Trace_ELBO

        svi = SVI(made.model, made.guide, pyro.optim.Adam(dict(made.adam)), Trace_ELBO())
        examples = len(next(iter(made.batch.values())))
        yield lambda: svi.step(**made.batch) / examples
        return
    with _our_step(made, *side.split(), device) as step:
        yield step


@contextlib.contextmanager
def _our_step(made: Case, precision: str, engine: str, device: str) -> Iterator[Callable[[], float]]:
    """One step of the training loop, without a run folder."""
    import pyro
    import torch

    from pyzoo.infer import NegativeELBO
    from pyzoo.training import Hardware, Objective
    from pyzoo.training.steps import make_step

    hardware = Hardware(device=device, precision=precision, engine=engine)
    loss = NegativeELBO(made.model, made.guide) if made.loss is None else made.loss
    objective = Objective(loss, functools.partial(torch.optim.Adam, **made.adam, fused=True))
    take_step = make_step(objective, engine, hardware.fabric(made.model, made.guide))
    with pyro.validation_enabled(False), hardware.arithmetic():  # around all steps, as in training
        yield lambda: take_step(made.batch)[0].item()


def _flop(made: Case) -> float:
    """Operations in the matrix products and convolutions of a step, a multiplication and an addition being two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        made.by_hand().backward()
    return counter.get_total_flops()


def peak(dtype: str, device: str = "cpu") -> dict[str, float]:
    """What a device multiplies at most in a second, by a product of large matrices."""
    import torch

    size = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    times = []
    for _ in range(8):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # which waits for the device
        times.append(time.perf_counter() - started)
    return {"flop_per_s": 2 * size**3 / min(times)}


def rounds(
    case: str, size: str, sides: Sequence[str], count: int, most: int, device: str = "cpu", numpyro: str | None = None
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """The measurements of each side, one for each round; and of each side that failed, why. Those are not measured further.

    Args:
        case: name of the case.
        size: one of its sizes.
        sides: what is compared.
        count: of rounds.
        most: steps in a measurement, at most.
        device: where the steps are taken.
        numpyro: a Python with numpyro and jax, to measure its program too where there is one.
    """
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    errors: list[str] = []
    commands = {side: [sys.executable, "-m", "benchmarks", "--one", case, size, side, str(most), device] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        if numpyro and case in IN_NUMPYRO:
            found["NumPyro, jitted"] = []
            file = Path(folder) / "case.npz"
            steps = write_case(case, size, file)
            commands["NumPyro, jitted"] = [numpyro, "-m", "benchmarks.with_numpyro", case, str(file), str(min(most, steps))]
        for _ in range(count):
            for side, command in list(commands.items()):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    errors.append(f"{case} {size}, {side}: {done.stderr.strip()[-2000:]}")
                    del commands[side], found[side]
                else:
                    found[side].append(json.loads(done.stdout.splitlines()[-1]))
    return {side: rows for side, rows in found.items() if all(rows)}, errors


def write_case(case: str, size: str, path: Path) -> int:
    """Writes what :mod:`benchmarks.with_numpyro` reads: weights, batch, and a draw of the latents with its densities.

    Returns:
        How many steps are measured in a round.
    """
    import numpy as np
    import torch
    from pyro import poutine

    torch.manual_seed(0)
    made: Case = importlib.import_module(CASES[case]).make(size, torch.device("cpu"))
    programs = {"model": made.model, "guide": made.guide}
    groups: dict[str, Mapping[str, Any]] = {name: dict(program.named_parameters()) for name, program in programs.items()}
    with torch.no_grad():
        drawn = poutine.trace(made.guide).get_trace(**made.batch)
        scored = poutine.trace(poutine.replay(made.model, drawn)).get_trace(**made.batch)
        groups["densities"] = {"guide": drawn.log_prob_sum(), "model": scored.log_prob_sum()}
    groups["latents"] = {name: drawn.nodes[name]["value"] for name in drawn.stochastic_nodes}
    groups |= {"batch": made.batch, "adam": made.adam}
    arrays = {
        f"{group}/{name}": torch.as_tensor(value).detach() for group, found in groups.items() for name, value in found.items()
    }
    np.savez(path, **{name: value.numpy() for name, value in arrays.items()})
    return made.steps


def medians(rows: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of a side's rounds: milliseconds, memory, the first step's seconds, and the ratio to another side, with its range."""
    ratios = [row["ms"] / other["ms"] for row, other in zip(rows, base, strict=True)]
    kept = {name: statistics.median(row[name] for row in rows) for name in ("ms", "MB", "first_s") if name in rows[0]}
    return {**kept, "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
