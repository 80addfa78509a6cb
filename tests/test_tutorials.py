import contextlib
import runpy
from pathlib import Path

import jupytext
import pytest

from pyzoo.about import entries
from test_cli import TINY


class EagerStep:
    """Gradients as :class:`pyzoo.infer.TracedStep` gives them, without the seconds that tracing takes."""

    def __init__(self, module, context=contextlib.nullcontext):
        self.module, self.context = module, context

    def __call__(self, batch):
        self.module.zero_grad()
        with self.context():
            loss, terms = self.module(**batch)
        loss.backward()
        return loss.detach(), terms


TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.py"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorial_runs_in_short(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYZOO_TUTORIAL_STEPS", "3")
    monkeypatch.setattr("pyzoo.infer.TracedStep", EagerStep)
    runpy.run_path(str(path), run_name="__main__")
    assert list(tmp_path.glob("*/*.png"))


@pytest.mark.parametrize("path", [p for p in TUTORIALS if p.with_suffix(".ipynb").exists()], ids=lambda path: path.stem)
def test_the_notebook_is_of_the_script_as_it_stands_and_shows_its_pictures(path):
    script, notebook = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in script.cells]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert "site-packages" not in path.with_suffix(".ipynb").read_text()  # a warning's place on someone's machine


def test_every_recipe_is_trained_by_the_tests():
    assert set(entries("pyzoo.recipes")) == set(TINY)
