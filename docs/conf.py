"""How Sphinx makes the site: ``python -m sphinx -W docs docs/_build``."""

import os
import re
import shutil
import sys
from pathlib import Path

import jupytext
from sphinx.application import Sphinx

import pyzoo

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

from from_help import write_reference  # noqa: E402

project = "pyzoo"
author = "The pyzoo developers"
project_copyright = "the pyzoo developers, under the Apache License 2.0"
release = version = pyzoo.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "jupyter_execute"]  # myst-nb puts the latter beside the site
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # to run the tutorials takes an hour: docs/notebooks.py does, and keeps them

html_theme = "furo"
html_title = f"pyzoo {release}"
html_static_path = ["style.css"]
html_css_files = ["style.css"]

add_module_names = False
autodoc_inherit_docstrings = False  # torch and Pyro document their own methods
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # what the arguments are their texts say
toc_object_entries = False
napoleon_use_ivar = True  # fields of a named tuple are described once

# Pages of the repository that the site has too, and papers of the files in models/ and guides/.
PAGES = {"start": "README.md", "results": "RESULTS.md", "changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
PAPERS = {"compvae": "compvae", "graph_vae": "graph-vae", "tvae": "tvae", "mib": "mib", "monet": "slots", "genesis": "slots"}


def write_tutorials() -> None:
    """Turns each tutorial's script into a page, or takes the notebook beside it, which has been run."""
    for script in sorted((ROOT / "tutorials").glob("*.py")):
        notebook = jupytext.read(script.with_suffix(".ipynb") if script.with_suffix(".ipynb").exists() else script)
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        jupytext.write(notebook, DOCS / "tutorials" / f"{script.stem}.ipynb")


def write_cards() -> None:
    """Copies the cards of the trained models."""
    for card in sorted((ROOT / "pyzoo" / "trained").glob("*/README.md")):
        shutil.copyfile(card, DOCS / "trained-models" / f"{card.parent.name}.md")


def place_on_site(path: Path) -> Path | None:
    """The page of the site that a file of the repository is, shows or is described on; None if there is none."""
    if path.is_relative_to(DOCS):
        return path
    name = path.relative_to(ROOT).as_posix()
    for page, file in PAGES.items():
        if name == file:
            return DOCS / f"{page}.md"
    if path.parent.parent == ROOT / "pyzoo" / "trained":
        return DOCS / "trained-models" / f"{path.parent.name}.md"
    if path.parent == ROOT / "tutorials":
        return DOCS / "tutorials" / f"{path.stem}.ipynb"
    if path.parent in (ROOT / "models", ROOT / "guides") and path.stem in PAPERS:
        return DOCS / "papers" / f"{PAPERS[path.stem]}.md"
    return None


def on_site(text: str, folder: Path, page: Path) -> str:
    """A page's text whose links to files of the repository lead to the site's pages; without a link where there is no other."""

    def replaced(match: re.Match) -> str:
        words, link, anchor = match["words"], match["link"], match["anchor"] or ""
        if "://" in link or not link:
            return match[0]
        place = place_on_site((folder / link).resolve())
        no_other = place is None or (place == page and not anchor)
        return words[1:-1] if no_other else f"{words}({os.path.relpath(place, page.parent)}{anchor})"

    return re.sub(r"(?P<words>\[[^\]\n]*\])\((?P<link>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)", replaced, text)


def read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Puts the repository's pages in the place of those that stand for them, and brings links to the site."""
    page = DOCS / f"{name}.md"
    if not page.exists():  # a notebook
        return
    if name in PAGES:
        hidden = re.search(r"```\{toctree\}.*?```", source[0], re.DOTALL)
        text = (ROOT / PAGES[name]).read_text().replace("# pyzoo\n", "# Start\n", 1)
        source[0] = on_site(text, ROOT, page) + ("\n" + hidden[0] if hidden else "")
    else:
        source[0] = on_site(source[0], page.parent, page)


def setup(app: Sphinx) -> None:
    """Makes the pages of tutorials, trained models, commands and recipes, and has Sphinx call :func:`read_page`."""
    write_tutorials()
    write_cards()
    write_reference(DOCS / "reference")
    app.connect("source-read", read_page)
