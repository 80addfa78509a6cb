"""Which way imports run: the library knows nothing of the zoo; models, guides and data know the library; recipes know all."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ZOO = ("models", "guides", "data", "recipes")
NOT_OF_THE_ZOO = {  # what of the zoo a folder may not import
    "library": {"models", "guides", "data", "recipes"},
    "models": {"guides", "data", "recipes"},  # guides within functions: a model's networks make its guide
    "guides": {"data", "recipes"},
    "data": {"models", "guides", "recipes"},
    "recipes": set(),
}
ABOVE_ALL = {"cli", "__init__"}  # imported by no part of the library
FILES = sorted(
    path
    for folder in ("pyzoo", *ZOO)
    for path in (ROOT / folder).rglob("*.py")
    if not set(path.relative_to(ROOT).parts[1:]) & set(ZOO)
)
LIBRARY = [path for path in FILES if path.is_relative_to(ROOT / "pyzoo")]


def imports(path, inside_functions=True):
    """Modules of pyzoo that a file imports, with the lines."""
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names = [node.module] if node.module != "pyzoo" else [f"pyzoo.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(name, node) for name in names if name.split(".")[0] == "pyzoo"]
    if not inside_functions:
        within = {
            part
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.If))  # also those for type checkers alone
            for part in ast.walk(node)
        }
        found = [(name, node) for name, node in found if node not in within]
    return [(name, node.lineno) for name, node in found]


def part_of(name):
    """The part of the library, or the folder of the zoo, that a module is of."""
    return [*name.split("."), "__init__"][1]


def home_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] in ZOO else parts[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_absolute_and_run_one_way(path):
    home = home_of(path)
    forbidden = NOT_OF_THE_ZOO.get(home, NOT_OF_THE_ZOO["library"])
    allowed_within_functions = {"guides"} if home == "models" else set()
    at_top = imports(path, inside_functions=False)
    for name, line in imports(path):
        part = part_of(name)
        if part in allowed_within_functions and (name, line) not in at_top:
            continue
        assert part not in forbidden, f"{home} imports {name} in line {line}"
        assert part not in ABOVE_ALL or home in ABOVE_ALL, f"{home} imports {name} in line {line}"


def test_no_two_parts_of_the_library_need_each_other():
    """Also not through a third one, and not within functions."""
    needs = {}
    for path in LIBRARY:
        home = home_of(path)
        if home not in ABOVE_ALL:
            needs.setdefault(home, set()).update(part_of(name) for name, _ in imports(path) if part_of(name) != home)
    assert {"distributions", "infer", "nn", "training"} <= needs.keys()
    list(graphlib.TopologicalSorter(needs).static_order())  # raises CycleError, which names the circle


def test_recipes_of_one_paper_know_nothing_of_another():
    papers = {path.name for path in (ROOT / "recipes").iterdir() if (path / "__init__.py").is_file()}
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        if parts[0] == "recipes" and len(parts) == 3:
            others = {name for name, _ in imports(path) if name.split(".")[1] == "recipes" and len(name.split(".")) > 2}
            assert {name.split(".")[2] for name in others} & papers <= {parts[1]}


def test_links_lead_to_the_folders():
    for folder in ZOO:
        assert (ROOT / "pyzoo" / folder).resolve() == ROOT / folder


LIGHT = ["pyzoo", "pyzoo.about", "pyzoo.errors", "pyzoo.flags", "pyzoo.settings", "pyzoo.threads", "pyzoo.cli"]


def test_what_the_command_starts_with_does_not_import_torch():
    there = [name for name in LIGHT if name == "pyzoo" or (ROOT / f"{name.replace('.', '/')}.py").is_file()]
    lines = ["import sys, importlib, pyzoo", "heavy = ('torch', 'pyro', 'matplotlib', 'sklearn', 'torchvision')"]
    lines += [f"importlib.import_module({name!r}); print({name!r}, [n for n in heavy if n in sys.modules])" for name in there]
    lines += ["pyzoo.recipes(); print('pyzoo.recipes()', [n for n in heavy if n in sys.modules])"]
    said = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"{name} []" for name in [*there, "pyzoo.recipes()"]]


def test_importing_pyzoo_changes_no_global_state():
    code = """
import random, numpy, torch, pyro
torch.manual_seed(0)
before = torch.get_rng_state(), torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.get_num_threads()
validate = torch.distributions.Distribution._validate_args
import pyzoo.training, pyzoo.infer, pyzoo.models.compvae, pyzoo.recipes.graph_vae.recipe
after = torch.get_rng_state(), torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.get_num_threads()
assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
assert torch.distributions.Distribution._validate_args == validate
assert not list(pyro.get_param_store())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
