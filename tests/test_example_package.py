"""What adding a system costs: a package of someone else's, installed through its entry point, and the page that explains it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pyzoo
from pyzoo.errors import UsageError
from pyzoo.testing import PairTests

PACKAGE = Path(__file__).parent / "example_package"
FILES = sorted(
    str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*") if path.suffix in (".py", ".toml") and "build" not in path.parts
)
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "adding-a-model.md"
TINY = {"preset": "digits", "batch_size": 16, "hidden_dim": 8, "z_dim": 2, "held_out": 0.02, "log_every": 1, "progress": False}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package, installed into a folder of its own, without network."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(PACKAGE, folder / "source")  # building writes beside the source
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", folder / "site", folder / "source"]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    return folder


@pytest.fixture(scope="module")
def run(installed):
    """A run of three steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(installed / "site"))
        yield pyzoo.train("dense-vae", steps=3, out=installed / "run", **TINY)


def call(installed, *arguments):
    """Runs Python where the package is installed; returns what it prints."""
    paths = os.pathsep.join(filter(None, [str(installed / "site"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, *arguments], cwd=installed / "source", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_lists_it_without_torch(installed):
    listed = call(installed, "-c", "import sys, pyzoo.cli; pyzoo.cli.main(['list']); assert 'torch' not in sys.modules")
    assert "dense-vae" in listed
    assert "Kingma and Welling 2014" in listed


def test_its_own_tests_pass(installed):
    done = call(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_dense_vae.py")
    count = sum(name.startswith("test_") for name in dir(PairTests))
    assert f"{count} passed" in done


def test_it_trains(run):
    assert [row["step"] for row in run.history] == [1, 2, 3]
    assert all(row["loss"] > 0 and row["held_out_elbo"] < 0 for row in run.history)
    assert run.recipe.networks.x_shape == run.recipe.dataset.shape
    assert run.networks == run.recipe.networks


def test_resuming_is_exact(run, tmp_path):
    resumed = pyzoo.train("dense-vae", steps=1, out=tmp_path / "run", evaluate=False, figures=False, **TINY)
    resumed.extend(3)
    resumed.train(progress=False, evaluate=False, figures=False)
    for whole, parts in zip(run.pair("cpu"), resumed.pair("cpu"), strict=True):
        expected, found = whole.state_dict(), parts.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_it_reports(run):
    assert run.metrics["test_log_likelihood"] < 0
    assert [path.name for path in sorted((run.path / "figures").iterdir())] == ["reconstructions.png"]
    assert list(run.figures()) == ["reconstructions"]


def test_it_samples(run):
    drawn = run.sample(count=3)
    assert drawn["x"].shape == (3, *run.recipe.dataset.shape)
    assert run.picture(drawn).axes
    with pytest.raises(UsageError, match="'label'"):
        run.sample(given={"label": 3})


def blocks():
    """The blocks of code in the page that show a file, by the file's name."""
    return dict(re.findall(r"`([\w./]+)`:\n\n```(?:python|toml)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.mark.parametrize("name", FILES)
def test_the_page_shows_each_file_as_it_stands(name):
    assert blocks()[name] == (PACKAGE / name).read_text()


def test_the_page_shows_nothing_else_as_code():
    assert sorted(blocks()) == FILES
    assert len(re.findall(r"^```(?:python|toml)$", PAGE.read_text(), re.MULTILINE)) == len(FILES)
