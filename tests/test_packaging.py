import configparser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pyzoo.about import entries

ROOT = Path(__file__).parents[1]


def config():
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def test_every_folder_with_code_is_packaged():
    listed = config()["options"]["packages"].split()
    folders = [ROOT / "pyzoo", *(ROOT / name for name in ("models", "guides", "data", "recipes"))]
    files = [path for folder in folders for path in folder.rglob("__init__.py")]
    found = set()
    for file in files:
        parts = file.parent.relative_to(ROOT).parts
        found.add(".".join(parts if parts[0] == "pyzoo" else ("pyzoo", *parts)))
    assert len(listed) == len(set(listed))
    assert set(listed) == found


def test_every_entry_point_is_there_and_of_its_name():
    for group in ("pyzoo.recipes", "pyzoo.tables"):
        listed = dict(line.split(" = ") for line in config()["options.entry_points"][group].strip().splitlines())
        installed = {name: entry.value for name, entry in entries(group).items() if entry.value.startswith("pyzoo.")}
        assert listed == installed  # if not, install the package again
        for entry in listed.values():
            module = entry.partition(":")[0].removeprefix("pyzoo.").replace(".", "/")
            assert (ROOT / f"{module}.py").is_file()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A wheel, and the source distribution that it was built from; by tools in an environment of their own."""
    folder = tmp_path_factory.mktemp("distributions")
    tools = environment(folder / "tools")
    run(tools, "-m", "pip", "install", "--quiet", "build", "twine")
    run(tools, "-m", "build", "--outdir", folder, ROOT)
    [wheel], [source] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    run(tools, "-m", "twine", "check", "--strict", wheel, source)
    return wheel, source


def environment(path):
    """The Python of a new, empty environment."""
    run(sys.executable, "-m", "venv", path)
    return path / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(python, *arguments, **options):
    """What a Python writes to standard output."""
    done = subprocess.run([python, *map(str, arguments)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_holds_the_zoo(distributions):
    wheel, _ = distributions
    names = zipfile.ZipFile(wheel).namelist()
    for path in (
        "models/compvae.py",
        "guides/compvae.py",
        "data/sines.py",
        "recipes/compvae/recipe.py",
        "recipes/images.py",
        "trained/graph-vae-mnist/README.md",
        "py.typed",
    ):
        assert f"pyzoo/{path}" in names
    assert {name.split("/")[0] for name in names} == {"pyzoo", f"{wheel.name.split('-')[0]}-{wheel.name.split('-')[1]}.dist-info"}


@pytest.mark.slow
def test_a_source_distribution_holds_what_is_needed_to_build_and_test(distributions):
    _, source = distributions
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "setup.cfg", "models/compvae.py", "tests/tiny.py"):
        assert path in names
    assert not any(name.startswith((".git/", ".ci/")) for name in names)


@pytest.mark.slow
def test_an_installed_wheel_loads_and_draws(distributions, tmp_path):
    """In an environment that has this one's packages, but not the repository, and in another folder."""
    python = environment(tmp_path / "environment")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", distributions[0])
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (own / "others.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")  # comes after its own packages
    code = "import pyzoo; print(pyzoo.__file__); print(pyzoo.load('mpp-monet-tetrominoes').sample(count=2)['x'].shape)"
    found, shape = run(python, "-c", code, cwd=tmp_path).splitlines()
    assert Path(found).is_relative_to(own)
    assert shape == "torch.Size([2, 3, 32, 32])"
    said = run(python, "-m", "pyzoo.cli", "list", "--trained", cwd=tmp_path)
    assert "graph-vae-mnist" in said


def test_the_version_is_the_same_everywhere():
    version = config()["metadata"]["version"]
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == version
    assert re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version
    assert re.search(r"^  version = {(.*)},$", (ROOT / "README.md").read_text(), re.MULTILINE)[1] == version
