"""Which way imports run: cli -> training <- recipes -> models, guides, data -> nn, infer, evaluation -> distributions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ZOO = ("models", "guides", "data", "recipes")
ALLOWED = {  # what else of pyzoo a folder may import, besides itself, pyzoo.errors and pyzoo.random
    "distributions": (),
    "nn": ("distributions",),
    "infer": ("distributions",),
    "evaluation": ("distributions",),
    "training": ("infer",),
    "plotting": (),
    "testing": ("infer", "distributions"),
    "cli": ("training",),
    "models": ("nn", "infer", "distributions", "evaluation"),
    "guides": ("nn", "infer", "distributions", "evaluation", "models"),
    "data": ("nn", "infer", "distributions", "evaluation"),
    "recipes": ("models", "guides", "data", "nn", "infer", "evaluation", "distributions", "training", "plotting"),
}
FILES = sorted(
    path
    for folder in ("pyzoo", *ZOO)
    for path in (ROOT / folder).rglob("*.py")
    if not set(path.relative_to(ROOT).parts[1:]) & set(ZOO)
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_are_absolute_and_run_one_way(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    home = parts[0] if parts[0] in ZOO else parts[min(1, len(parts) - 1)]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names = [node.module] if node.module != "pyzoo" else [f"pyzoo.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "pyzoo" and home != "__init__":
                target = [*name.split("."), "__init__"][1]
                allowed = {home, "errors", "random", *ALLOWED.get(home, ())}
                assert target in allowed, f"{home} imports {name} in line {node.lineno}"


def test_links_lead_to_the_folders():
    for folder in ZOO:
        assert (ROOT / "pyzoo" / folder).resolve() == ROOT / folder
