"""Sizes that no machine has: one line names the flag that asks for them, and nothing is left behind."""

import pytest
from attack import TRAIN, is_one_line, run

from tiny import GRAPH, MIB, TVAE, flags

HERE = ("--device", "cpu", "--threads", "1", "--no-progress")
RECIPES = {
    "compvae-sines": TRAIN[2:],
    "graph-vae": [*flags(GRAPH), *HERE],
    "tvae": [*flags(TVAE), *HERE],
    "mib-multimodal": [*flags({**MIB, "data": "digits"}), *HERE],
}
SIZES = {
    "compvae-sines": ("w-dim", "z-dim", "batch-size", "evaluation-sets", "threads", "graph-widths", "label-dim"),
    "graph-vae": ("nodes", "latent-dim", "widths", "hidden-dim", "particles", "image-size", "batch-size"),
    "tvae": ("z-dim", "hidden-dim", "encoder-channels", "image-size"),
    "mib-multimodal": ("hidden-dim",),
}
ALL = [(recipe, name, size) for recipe, names in SIZES.items() for name in names for size in (10**12, 10**20)]
QUICK = [("compvae-sines", "graph-widths", 10**12), ("graph-vae", "particles", 10**12), ("tvae", "image-size", 10**20)]


def refused(tmp_path, recipe, name, size):
    values = [str(size)] * (4 if name == "encoder-channels" else 1)
    ending = run("train", recipe, *RECIPES[recipe], f"--{name}", *values, "--out", tmp_path / "run")
    assert ending.code == 2, ending
    assert is_one_line(ending), ending
    assert f"--{name}" in ending.output, ending
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("recipe", "name", "size"), QUICK)
def test_a_size_is_refused_by_name(tmp_path, recipe, name, size):
    refused(tmp_path, recipe, name, size)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "name", "size"), ALL)
def test_sizes_are_refused_by_name(tmp_path, recipe, name, size):
    refused(tmp_path, recipe, name, size)


@pytest.mark.parametrize("data", ["~nosuch/x", "a\nb", "/dev/zero", "", " "])
def test_data_that_are_none(tmp_path, data):
    ending = run("train", "graph-vae", *RECIPES["graph-vae"], "--data", data, "--out", tmp_path / "run")
    assert ending.code == 2, ending
    assert is_one_line(ending), ending
    assert not (tmp_path / "run").exists()
