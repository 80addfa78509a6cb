"""Two processes on one folder, in every pair of commands: each does its work or says in a line why not, and nothing is lost."""

import itertools
import shutil

import pytest
from attack import SETTINGS, STEPS, TRAIN, fingerprint, is_one_line, leftovers, run, start, wait

from pyzoo.errors import UsageError
from pyzoo.training import Hardware, Run, RunFolder, find_recipe

QUIET = ("--no-evaluate", "--no-figures")
COMMANDS = {
    "train": (*TRAIN, *QUIET, "--out", "{run}"),
    "resume": ("resume", "{run}", "--no-progress", *QUIET),
    "longer": ("resume", "{run}", "--steps", str(STEPS + 2), "--no-progress", *QUIET),
    "evaluate": ("evaluate", "{run}"),
    "figures": ("figures", "{run}"),
    "sample": ("sample", "{run}"),
    "runs": ("runs", "{run}"),
}
PAIRS = list(itertools.combinations_with_replacement(COMMANDS, 2))
QUICK = [("train", "train"), ("longer", "longer"), ("longer", "evaluate")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run(*TRAIN, *QUIET, "--out", folder).code == 0
    return folder


@pytest.fixture(scope="module")
def longer(tmp_path_factory, trained):
    """What the run learns if it is made longer undisturbed."""
    folder = tmp_path_factory.mktemp("longer") / "run"
    shutil.copytree(trained, folder)
    assert run("resume", folder, "--steps", str(STEPS + 2), "--no-progress", *QUIET).code == 0
    return fingerprint(folder)


def side_by_side(pair, folder, trained, longer):
    if "train" not in pair:
        shutil.copytree(trained, folder)
    started = [start(*(part.format(run=folder) for part in COMMANDS[command])) for command in pair]
    endings = [wait(one) for one in started]
    for command, ending in zip(pair, endings, strict=True):
        assert ending.code in (0, 2), f"{command} in {pair}: {ending}"
        assert ending.code == 0 or is_one_line(ending), f"{command} in {pair}: {ending}"
    assert any(ending.code == 0 for ending in endings), endings
    again = run("resume", folder, "--steps", str(STEPS + 2), "--no-progress", *QUIET)
    assert again.code == 0, again
    assert fingerprint(folder) == longer, pair
    assert not leftovers(folder), pair
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(2, STEPS + 3, 2)), pair


@pytest.mark.parametrize("pair", QUICK, ids="+".join)
def test_two_commands_at_once(tmp_path, trained, longer, pair):
    side_by_side(pair, tmp_path / "run", trained, longer)


@pytest.mark.parametrize("moment", ["after the folder was found free", "before config.json is written"])
def test_two_make_a_folder_at_once_with_other_settings(tmp_path, monkeypatch, moment):
    """Another process makes the same folder while this one does: one of them is refused, and the other's config stands."""
    folder, endings = tmp_path / "run", []
    name = "require_free" if moment.startswith("after") else "write_config"
    real = getattr(RunFolder, name)

    def meanwhile(*arguments):
        found = real(*arguments) if name == "require_free" else None
        if not endings:
            endings.append(run(*TRAIN, *QUIET, "--seed", "1", "--out", folder))
        return found if name == "require_free" else real(*arguments)

    monkeypatch.setattr(RunFolder, name, staticmethod(meanwhile) if name == "require_free" else meanwhile)
    recipe = find_recipe("compvae-sines").preset("small", **SETTINGS, seed=2)
    if name == "require_free":
        with pytest.raises(UsageError, match="pyzoo resume"):
            Run.create(recipe, "small", Hardware("cpu"), folder)
        assert endings[0].code == 0, endings
        assert Run(folder).recipe.seed == 1
    else:
        Run.create(recipe, "small", Hardware("cpu"), folder)
        assert endings[0].code == 2, endings
        assert is_one_line(endings[0]), endings
        assert Run(folder).recipe.seed == 2


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_every_two_commands_at_once(tmp_path, trained, longer, pair):
    for attempt in range(2):
        side_by_side(pair, tmp_path / str(attempt), trained, longer)
