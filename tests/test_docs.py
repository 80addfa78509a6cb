"""Pages whose code runs as it stands, and prints what they say."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["write-your-own-penalty.md"])
def test_a_page_prints_what_it_says(page, capsys):
    blocks = re.findall(r"```(python)?\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    code = "".join(text for language, text in blocks if language)
    said = "".join(text for language, text in blocks if not language)
    exec(compile(code, page, "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == said
