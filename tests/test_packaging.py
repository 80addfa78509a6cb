import configparser
import re
import subprocess
import sys
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


@pytest.mark.slow
def test_a_wheel_holds_the_zoo(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for path in (
        "models/compvae.py",
        "guides/compvae.py",
        "data/sines.py",
        "recipes/compvae/recipe.py",
        "recipes/images.py",
        "py.typed",
    ):
        assert f"pyzoo/{path}" in names
    assert {name.split("/")[0] for name in names} == {"pyzoo", f"{wheel.name.split('-')[0]}-{wheel.name.split('-')[1]}.dist-info"}


def test_the_version_is_the_same_everywhere():
    version = config()["metadata"]["version"]
    assert re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == version
    assert re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version
