import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_folder_with_code_is_packaged():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    links = {"models", "guides", "data", "recipes"}
    found = {f"pyzoo.{link}" for link in links} | {"pyzoo"}
    found |= {f"pyzoo.{path.parent.name}" for path in (ROOT / "pyzoo").glob("*/__init__.py")}
    assert listed == found


@pytest.mark.slow
def test_a_wheel_holds_the_zoo(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for path in ("models/compvae.py", "guides/compvae.py", "data/sines.py", "recipes/compvae.py", "py.typed"):
        assert f"pyzoo/{path}" in names
    assert {name.split("/")[0] for name in names} == {"pyzoo", f"{wheel.name.split('-')[0]}-{wheel.name.split('-')[1]}.dist-info"}
