"""Several processes that train one run: they take the steps of one, and a run goes on with another number of them."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import processes
import pytest
import torch

from pyzoo.training import RunFolder
from tiny import TINY, flags, tiny

WITHIN_THE_BATCH = ("mib-beta-tcvae", "mib-bivcca", "mib-fair", "mib-mvae", "mib-ood", "mib-telbo")
"""Recipes whose losses compare the examples of a batch, or share them out among their terms: a process does so with its own."""
QUICK = ("compvae-sines", "graph-vae")
OTHERS = (
    *("compvae-colors", "fc-vae", "ladder-vae", "vae", "tvae", "tvae-vae", "tvae-vae-plus", "mib-multimodal", "mib-jmvae"),
    *("mib-wyner-vae", "mib-vae", "mib-beta-vae", "mib-gan", "mib-infogan", "mib-structure", "monet", "mpp-monet", "genesis"),
    "mpp-genesis",
)


def free_ports(count):
    """The first of so many ports in a row that nothing listens on; below those that a system gives to connections."""
    while True:
        first = random.SystemRandom().randrange(20_000, 30_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


def train_with(folder, names, devices):
    """Trains recipes with so many processes, as torchrun starts them."""
    for name in names:
        RunFolder.create(folder / f"first_gradient-{name}-{devices}", {})
        if name in processes.NORMALIZED:
            RunFolder.create(folder / f"trained-{name}-{devices}", {})
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    of_all = {"LOCAL_WORLD_SIZE": str(devices), "WORLD_SIZE": str(devices), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "tests"}
    if devices > 1:
        environment |= {**of_all, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(2 * len(names)))}
    command = [sys.executable, processes.__file__, folder, *names]
    started = []
    for rank in range(devices):
        of_one = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if devices > 1 else {}
        with open(folder / f"{devices}-{rank}.txt", "w") as said:
            started.append(subprocess.Popen(command, env={**environment, **of_one}, stderr=said))
    try:
        for process, rank in zip(started, range(devices), strict=True):
            assert process.wait(timeout=120) == 0, (folder / f"{devices}-{rank}.txt").read_text()
    finally:  # one that fails leaves the others waiting
        for process in started:
            process.kill()


def kept(folder, job, name, devices):
    """What each process has kept."""
    return [torch.load(folder / f"{job}-{name}-{devices}-{rank}.pt", weights_only=True) for rank in range(devices)]


@pytest.mark.parametrize("names", [QUICK, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["quick", "others"])
def test_two_processes_have_the_gradient_of_one(tmp_path, names):
    """With the same noise for each example, in every recipe whose loss is a mean over examples."""
    for devices in (1, 2):
        train_with(tmp_path, names, devices)
    for name in names:
        [expected] = kept(tmp_path, "first_gradient", name, 1)
        first, second = kept(tmp_path, "first_gradient", name, 2)
        largest = max(value.abs().max() for value in expected.values())
        assert largest > 0
        assert first.keys() == second.keys() == expected.keys()
        for parameter, value in expected.items():
            assert torch.equal(first[parameter], second[parameter]), (name, parameter)
            torch.testing.assert_close(first[parameter], value, rtol=0, atol=2e-5 * largest.item(), msg=f"{name}, {parameter}")
    for name in set(names) & set(processes.NORMALIZED):  # each process has its own averages, and the same parameters
        first, second = kept(tmp_path, "trained", name, 2)
        assert all(torch.equal(value, second[parameter]) for parameter, value in first.items()), name
        losses = [row["loss"] for row in RunFolder(tmp_path / f"trained-{name}-2").metrics()]
        assert losses[-1] < losses[0], name


def test_every_recipe_is_compared_or_says_why_not():
    assert sorted((*QUICK, *OTHERS, *WITHIN_THE_BATCH)) == sorted(TINY)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """From the same checkpoint, and says so; the files are those of one run."""
    run = tmp_path / "run"

    def pyzoo(*arguments):
        command = [sys.executable, "-m", "pyzoo.cli", *map(str, arguments), "--no-evaluate", "--no-figures", "--no-progress"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True).stdout

    pyzoo(
        *("train", "compvae-sines", "--device", "cpu", "--devices", 2, "--out", run),
        *flags({**tiny("compvae-sines"), "steps": 4}),
    )
    said = pyzoo("resume", run, "--steps", 8, "--devices", 1)
    assert "computing with processes 1, not 2" in said
    assert RunFolder(run).checkpoints.load()["computed_with"]["processes"] == "1"
    pyzoo("resume", run, "--steps", 10, "--devices", 2)
    state = RunFolder(run).checkpoints.load()
    assert (state["step"], state["computed_with"]["processes"]) == (10, "2")
    assert [row["step"] for row in RunFolder(run).metrics()] == [4, 5, 8, 10]
