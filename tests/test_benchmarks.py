"""The benchmarks run; nothing here is timed."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

from benchmarks import __main__, plot, scaling
from benchmarks.cases import CASES
from benchmarks.rounds import IN_NUMPYRO, measure, medians, peak, rounds, write_case
from benchmarks.scaling import GROWTHS, SIDES, measured
from pyzoo.infer import NegativeELBO

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("case", ["vae", "graph-vae", "tvae"])
def test_sides_train_the_same_model(case):
    size = next(iter(importlib.import_module(CASES[case]).SIZES))
    found = {side: measure(case, size, side, 2) for side in ("handwritten", "Pyro's SVI", "fp32 traced")}
    first = found["handwritten"]["first"]
    assert all(one["first"] == pytest.approx(first, rel=0.05) for one in found.values())  # each draws noise of its own
    assert found["handwritten"]["flop"] > 1e6
    assert all(one["ms"] > 0 and one["MB"] > 0 for one in found.values())


def test_the_vae_by_hand_is_the_program():
    torch.manual_seed(0)
    case = importlib.import_module(CASES["vae"]).make("64", torch.device("cpu"))
    torch.manual_seed(1)
    by_hand = case.by_hand()
    torch.manual_seed(1)
    loss, _ = NegativeELBO(case.model, case.guide)(**case.batch)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_two_views_by_hand_are_the_program():
    torch.manual_seed(0)
    case = importlib.import_module(CASES["mib"]).make("pair", torch.device("cpu"))
    torch.manual_seed(1)
    by_hand = case.by_hand()
    torch.manual_seed(1)
    loss, _ = NegativeELBO(case.model, case.guide)(**case.batch)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_irm_by_hand_is_the_program():
    case = importlib.import_module(CASES["mib"]).make("irm", torch.device("cpu"))
    found = torch.stack([torch.stack([case.loss(**case.batch)[0], case.by_hand()]) for _ in range(5)]).detach()
    assert found[:, 0].mean().item() == pytest.approx(found[:, 1].mean().item(), rel=0.02)  # each draws noise of its own
    assert measure("mib", "irm", "Pyro's SVI", 1) is None  # it has no weights for sites


@pytest.mark.parametrize("case", IN_NUMPYRO)
def test_what_numpyro_starts_from(case, tmp_path):
    size = next(iter(importlib.import_module(CASES[case]).SIZES))
    assert write_case(case, size, tmp_path / "case.npz") > 0
    with np.load(tmp_path / "case.npz") as file:
        assert {name.partition("/")[0] for name in file.files} == {"model", "guide", "batch", "latents", "densities", "adam"}
        assert all(np.isfinite(file[name]).all() for name in file.files)


def test_every_case_can_be_made():
    for module in CASES.values():
        case = importlib.import_module(module)
        made = case.make(next(iter(case.SIZES)), torch.device("cpu"))
        assert len({len(value) for value in made.batch.values()}) == 1
    assert peak("float32")["flop_per_s"] > 1e8


def test_ratios_are_taken_within_a_round():
    rows, base = ([{"ms": ms, "MB": 1.0} for ms in found] for found in ((1.0, 10.0, 3.0), (2.0, 10.0, 4.0)))
    assert medians(rows, base) == {"ms": 3.0, "MB": 1.0, "ratio": 0.75, "least": 0.5, "most": 1.0}


@pytest.mark.parametrize("case", GROWTHS)
def test_what_grows_is_measured_and_drawn(case):
    growth = GROWTHS[case]._replace(numbers=GROWTHS[case].numbers[:1])
    with pyro.validation_enabled(False):
        found = measured(growth, 1, "cpu", most=1)
    assert found.keys() == SIDES.keys()
    assert all(len(times) == 1 and times[0] > 0 for times in found.values())
    times = {side: [1.0] * len(GROWTHS[case].numbers) for side in SIDES}
    assert len(scaling.figure({case: times}).axes) == 1


def test_ratios_are_drawn():
    found = {"handwritten": [{"ms": 2.0}, {"ms": 3.0}], "fp32 traced": [{"ms": 1.0}, {"ms": 3.0}]}
    drawn = plot.figure(dict.fromkeys("abcd", found))
    assert [bar.get_width() for bar in drawn.axes[0].patches] == [1.0, 0.75]


def test_the_quick_benchmark_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "vae", "--quick", "--sides", "handwritten", "fp32 traced"])
    __main__.main()
    assert "| fp32 traced |" in capsys.readouterr().out


def test_the_script_for_a_gpu_can_be_read():
    read = subprocess.run(["bash", "-n", ROOT / "benchmarks" / "gpu.sh"], capture_output=True, text=True)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.slow
def test_an_epoch_by_both_sides():
    command = [sys.executable, "-m", "benchmarks.epoch", "--images", "200", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "| on the device, traced |" in done.stdout


@pytest.mark.slow
def test_the_command(tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], capture_output=True, text=True, cwd=ROOT)

    done = run("vae", "--quick", "--sides", "handwritten", "--json", f"{tmp_path}/found.json", "--plot", f"{tmp_path}/a.png")
    assert done.returncode == 0, done.stderr
    assert "| handwritten |" in done.stdout
    assert (tmp_path / "a.png").stat().st_size
    kept = json.loads((tmp_path / "found.json").read_text())
    assert kept["cases"]["vae 64"].keys() == {"handwritten"}
    assert "unknown case vea; there are vae" in run("vea").stderr
    assert "unknown size 65 of vae; there are 64, 256" in run("vae", "--sizes", "65").stderr


def test_a_side_that_fails_is_told_and_the_others_are_measured():
    found, errors = rounds("vae", "64", ["handwritten", "by magic, twice"], count=1, most=1)
    assert [len(rows) for rows in found.values()] == [1]
    assert found.keys() == {"handwritten"}
    [error] = errors
    assert error.startswith("vae 64, by magic, twice: ")


@pytest.mark.parametrize("size", ["monet-small", "genesis-small", "mpp-monet-small", "mpp-genesis-small"])
def test_slots_by_hand_are_the_program(size):
    torch.manual_seed(0)
    case = importlib.import_module(CASES["slots"]).make(size, torch.device("cpu"))
    loss = NegativeELBO(case.model, case.guide)
    with torch.no_grad():
        found = torch.stack([torch.stack([loss(**case.batch)[0], case.by_hand()]) for _ in range(4)]).mean(0)
    assert found[0].item() == pytest.approx(found[1].item(), rel=0.03)  # each draws noise of its own
