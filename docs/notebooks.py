"""Runs tutorials, and keeps them beside their scripts as notebooks with what they print and draw.

    python docs/notebooks.py              all of them, an hour on two cores
    python docs/notebooks.py graph_vae    one

``PYZOO_TUTORIAL_STEPS=3`` in the environment makes them short: to try, not to keep.
"""

import sys
import tempfile
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parents[1] / "tutorials"


def run(script: Path) -> Path:
    """Runs a script as a notebook, in a folder of its own, and writes the notebook beside it."""
    notebook = jupytext.read(script)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None, coalesce_streams=True, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each was run
        if "outputs" in cell:  # warnings have paths of the machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    jupytext.write(notebook, script.with_suffix(".ipynb"))
    return script.with_suffix(".ipynb")


def main() -> None:
    """Runs those that are named on the command line, or all."""
    names = sys.argv[1:] or sorted(path.stem for path in TUTORIALS.glob("*.py"))
    for name in names:
        if not (TUTORIALS / f"{name}.py").exists():
            sys.exit(f"there is no tutorial '{name}'")
    for name in names:
        start = time.monotonic()
        path = run(TUTORIALS / f"{name}.py")
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {path.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
