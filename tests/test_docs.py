"""Pages: code that runs as it stands and prints what they say, links that lead somewhere, and commands that there are."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pyzoo
from pyzoo.settings import flag, flat
from pyzoo.trained import trained
from pyzoo.training import Hardware, find_recipe, find_table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "pyzoo" / "trained").glob("*/README.md")])


@pytest.mark.parametrize("page", ["how-to/use-a-trained-model.md", "how-to/write-your-own-penalty.md"])
def test_a_page_prints_what_it_says(page, capsys):
    blocks = re.findall(r"```(\w*)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    code = "".join(text for language, text in blocks if language == "python")
    said = "".join(text for language, text in blocks if not language)
    exec(compile(code, page, "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == said


@pytest.mark.slow  # trains for half a minute
def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "readme"}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "digits.png").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_recipes_tables_and_flags_that_there_are(page):
    commands = re.findall(r"pyzoo (train|reproduce) ([a-z][\w-]*)([^\n`;|]*)", page.read_text())
    of_command = {"--preset", "--out", "--help", "--help-all", "--progress", "--no-progress", "--jobs", "--backend"}
    for command, name, rest in commands:
        if name == "dense-vae":  # of the page that writes it
            continue
        settings = (find_recipe(name) if command == "train" else find_table(name))()
        known = of_command | {flag(field) for field in (*flat(settings), *flat(Hardware()))}
        assert set(re.findall(r"--[a-z][\w-]*", rest)) <= known, name


def test_cards_are_those_of_their_script():
    specification = importlib.util.spec_from_file_location("trained_models", DOCS / "trained.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    assert set(trained()) <= set(script.MODELS)
    page = (DOCS / "trained-models" / "index.md").read_text()
    assert re.findall(r"pyzoo/trained/([\w-]+)/README.md", page) == trained()
    assert script.listed(page) == page
    for name in trained():
        model = pyzoo.load(name)
        assert (model.path / "README.md").read_text() == script.card(name, script.MODELS[name], model), name


def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", DOCS, tmp_path / "site"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = ("index", "start", "results", "papers/compvae", "trained-models/mib-digits", "tutorials/compvae")
    for page in (*pages, "reference/distributions", "reference/commands", "reference/tables", "reference/recipes/graph-vae"):
        assert (tmp_path / "site" / f"{page}.html").exists()
    assert "CorrelatedNormal" in (tmp_path / "site" / "reference" / "distributions.html").read_text()
