import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyzoo.about import entries
from test_cli import TINY

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.py"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs_in_short(path, tmp_path):
    environment = {**os.environ, "PYZOO_TUTORIAL_STEPS": "3"}
    done = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*/*.png"))


def test_every_recipe_is_trained_by_the_tests():
    assert set(entries("pyzoo.recipes")) == set(TINY)
