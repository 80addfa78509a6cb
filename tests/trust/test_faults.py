"""Kills and full disks at each operation on the disk: nothing is lost, and a run goes on to the same last bit."""

import random
import shutil

import pytest
from attack import STEPS, TRAIN, Fault, fingerprint, is_one_line, leftovers, run, spread

from tiny import TINY, flags, tiny

QUIET = ("--no-evaluate", "--no-figures")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished run, and how many operations on the disk it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    ending = run(*TRAIN, *QUIET, "--out", folder)
    assert ending.code == 0, ending.output
    return folder, ending.operations


def go_on(folder, train=(*TRAIN, *QUIET)):
    """Brings a run to its end, from whatever was left of it."""
    resume = ("resume", folder, "--no-progress", *QUIET)
    ending = run(*resume) if (folder / "config.json").exists() else run(*train, "--out", folder)
    assert ending.code == 0, ending.output


def survives(tmp_path, undisturbed, fault):
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    ending = run(*TRAIN, *QUIET, "--out", folder, fault=fault)
    if fault.kind == "full":
        assert ending.code in (0, 2), f"{fault}: {ending}"  # a log that can't be written may be done without
        assert ending.code == 0 or is_one_line(ending), f"{fault}: {ending}"
        assert not leftovers(folder), fault
    else:
        assert ending.code == -9, f"{fault}: {ending}"
    go_on(folder)
    assert fingerprint(folder) == fingerprint(undisturbed[0]), fault
    assert not leftovers(folder), fault


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "torn", "full"])
def test_a_fault_at_some_operations(tmp_path, undisturbed, kind):
    for at in spread(undisturbed[1], 3):
        survives(tmp_path, undisturbed, Fault(at, kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "torn", "full"])
def test_a_fault_at_each_operation(tmp_path, undisturbed, kind):
    for at in range(undisturbed[1]):
        survives(tmp_path, undisturbed, Fault(at, kind))


COMMANDS = {
    "resume": ("resume", "{run}", "--steps", str(STEPS + 2), "--no-progress", *QUIET),
    "evaluate": ("evaluate", "{run}"),
    "figures": ("figures", "{run}"),
    "sample": ("sample", "{run}", "--out", "{run}/samples.npz"),
}


def survives_in(command, tmp_path, undisturbed, fault):
    """A fault in a command on a finished run; returns how many operations an undisturbed one takes."""
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(undisturbed[0], folder)
    arguments = [part.format(run=folder) for part in COMMANDS[command]]
    ending = run(*arguments, fault=fault)
    assert ending.code in (0, 2, -9), f"{fault}: {ending}"
    assert ending.code != 2 or is_one_line(ending), f"{fault}: {ending}"
    again = run(*arguments)
    assert again.code == 0, f"{fault}: {again}"
    if command != "resume":
        assert fingerprint(folder) == fingerprint(undisturbed[0]), fault
    return again.operations


@pytest.mark.slow
@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_a_fault_in_a_command(tmp_path, undisturbed, command):
    count = survives_in(command, tmp_path, undisturbed, None)
    survives_in(command, tmp_path, undisturbed, Fault(count // 2, "kill"))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_faults_in_each_command(tmp_path, undisturbed, command):
    count = survives_in(command, tmp_path, undisturbed, None)
    for at in spread(count, 12):
        for kind in ("kill", "torn", "full"):
            survives_in(command, tmp_path, undisturbed, Fault(at, kind))


# All recipes, by each engine ---------------------------------------------------------------------------------------------


def goes_on_by(recipe, engine, tmp_path, kills, seed):
    """Kills a training again and again, each time at another operation; it ends as an undisturbed one does."""
    settings = flags({**tiny(recipe), "steps": 4, "checkpoint_seconds": 0.0})
    train = ("train", recipe, *settings, "--device", "cpu", "--threads", "1", "--engine", engine, "--no-progress", *QUIET)
    assert run(*train, "--out", tmp_path / "undisturbed").code == 0
    folder, generator, killed = tmp_path / "run", random.Random(seed), 0
    for _ in range(kills):
        command = ("resume", folder, "--no-progress", *QUIET) if (folder / "config.json").exists() else (*train, "--out", folder)
        ending = run(*command, fault=Fault(generator.randrange(40), generator.choice(["kill", "torn"])))
        assert ending.code in (0, -9), ending
        killed += ending.code == -9
        if ending.code == 0:  # it has come to its end: another one
            assert fingerprint(folder) == fingerprint(tmp_path / "undisturbed")
            shutil.rmtree(folder)
    go_on(folder, train)
    assert fingerprint(folder) == fingerprint(tmp_path / "undisturbed")
    return killed


def test_a_recipe_is_killed_and_goes_on(tmp_path):
    assert goes_on_by("mib-jmvae", "traced", tmp_path, kills=2, seed=0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["eager", "traced"])
@pytest.mark.parametrize("recipe", sorted(TINY))
def test_each_recipe_is_killed_and_goes_on(tmp_path, recipe, engine):
    """Five kills for each of twenty recipes and two engines: 200 together."""
    assert goes_on_by(recipe, engine, tmp_path, kills=6, seed=1) > 0
