"""Bytes that change, files that end early, blocks and files that change places: each is detected, or it changes nothing."""

import json
import random
import shutil

import pytest
import torch
from attack import STEPS, TRAIN, fingerprint, run

from pyzoo.errors import UsageError
from pyzoo.training import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in their seed."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, more in (("0", ()), ("1", ("--no-figures",))):
        ending = run(*TRAIN, "--seed", seed, "--out", folder / seed, *more)
        assert ending.code == 0, ending.output
    return folder


def read(folder):
    """All that a run's folder tells."""
    found = Run(folder)
    with torch.no_grad():
        state = {name: value.clone() for program in found.pair("cpu") for name, value in program.state_dict().items()}
    return {
        "settings": found.recipe,
        "hardware": found.hardware,
        "state": state,
        "history": found.history,
        "metrics": found.metrics,
        "step": found.step,
        "resumable": found.folder.checkpoints.load()["settings"],
    }


def differences(folder, expected):
    """Which parts of what a damaged folder tells are other ones; "refused" if it says that it is damaged."""
    try:
        found = read(folder)
    except UsageError:
        return {"refused"}
    same = found["state"].keys() == expected["state"].keys() and all(
        torch.equal(value, expected["state"][name]) for name, value in found["state"].items()
    )
    parts = {name for name in ("settings", "hardware", "metrics", "step", "resumable") if found[name] != expected[name]}
    parts |= {"history"} if repr(found["history"]) != repr(expected["history"]) else set()
    return parts if same else parts | {"state"}


def damaged(content, other, generator):
    """A file's content after one of the accidents, and its name."""
    kind = generator.choice(["bit", "bytes", "truncated", "blocks", "zeros", "another's"])
    place = generator.randrange(max(1, len(content)))
    if kind == "bit":
        return kind, content[:place] + bytes([content[place] ^ (1 << generator.randrange(8))]) + content[place + 1 :]
    if kind == "bytes":
        return kind, content[:place] + generator.randbytes(64) + content[place + 64 :]
    if kind == "truncated":
        return kind, content[:place]
    if kind == "zeros":
        return kind, content[:place] + bytes(len(content) - place)
    if kind == "blocks":
        size = max(1, len(content) // 8)
        first, second = sorted(generator.sample(range(8), 2))
        parts = [content[i * size : (i + 1) * size] for i in range(8)] + [content[8 * size :]]
        parts[first], parts[second] = parts[second], parts[first]
        return kind, b"".join(parts)
    return kind, other


def attack(runs, tmp_path, count, seed):
    """Damages files of a run one at a time; what nobody noticed, and matters."""
    original, folder, generator = runs / "0", tmp_path / "run", random.Random(seed)
    shutil.copytree(original, folder)
    expected = read(original)
    files = sorted(path.relative_to(original) for path in original.rglob("*") if path.is_file() and path.stat().st_size)
    unnoticed = []
    for _ in range(count):
        file = generator.choice(files)
        content = (original / file).read_bytes()
        other = (runs / "1" / file).read_bytes() if (runs / "1" / file).exists() else b""
        kind, changed = damaged(content, other, generator)
        if changed == content:
            continue
        (folder / file).write_bytes(changed)
        found = differences(folder, expected)
        # Rows at the end may have been cut short by a kill, damaged metrics count as not measured, and a config.json may be
        # edited, which is another run's then: see below.
        harmless = {"metrics.csv": {"history"}, "results.json": {"metrics"}, "config.json": {"settings", "hardware"}}
        harmless = harmless.get(file.name, set())
        if "refused" not in found and found - harmless:
            unnoticed.append((str(file), kind, found))
        elif found & harmless and file.name != "config.json":
            now = Run(folder)
            assert now.metrics in ({}, expected["metrics"]) or kind == "another's", (file, kind)
            rows = [repr(row) for row in expected["history"]]
            assert [repr(row) for row in now.history] == rows[: len(now.history)] or kind == "another's", (file, kind)
        (folder / file).write_bytes(content)
    return unnoticed


def test_damage_to_a_run_is_detected_or_harmless(runs, tmp_path):
    assert attack(runs, tmp_path, 60, seed=0) == []


@pytest.mark.slow
def test_much_damage_to_a_run_is_detected_or_harmless(runs, tmp_path):
    assert attack(runs, tmp_path, 1500, seed=1) == []


@pytest.mark.parametrize("name", ["seed", "w_dim", "learning_rate", "z_weight", "batch_size"])
def test_a_config_that_was_changed_is_refused_by_who_trains_on(runs, tmp_path, name):
    """A config.json may be edited; then it is another run, whose checkpoints are not these."""
    folder = tmp_path / "run"
    shutil.copytree(runs / "0", folder)
    config = json.loads((folder / "config.json").read_text())
    place = config["networks" if name in config["networks"] else "settings"]
    place[name] = place[name] * 2 + 2
    (folder / "config.json").write_text(json.dumps(config))
    before = fingerprint(folder)
    ending = run("resume", folder, "--steps", str(STEPS + 2), "--no-progress")
    assert ending.code == 2
    assert ending.output.count("\n") == 1
    assert fingerprint(folder) == before


@pytest.mark.parametrize(("name", "commands"), [("checkpoints", ("resume", "evaluate", "sample")), ("figures", ("figures",))])
@pytest.mark.parametrize("place", ["a file", "a link to nowhere"])
def test_what_stands_in_the_place_of_a_folder_is_named(runs, tmp_path, name, commands, place):
    folder = tmp_path / "run"
    shutil.copytree(runs / "0", folder)
    shutil.rmtree(folder / name)
    if place == "a file":
        (folder / name).touch()
    else:
        (folder / name).symlink_to("nowhere")
    for command in commands:
        ending = run(command, folder)
        assert ending.code == 2, ending
        assert ending.output == f"pyzoo: {folder / name} is not a folder: move it away\n", ending
