"""Makes pages of the reference from what the command's help is made of: commands, recipes and tables with their flags."""

import contextlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pyzoo import cli
from pyzoo.about import About, about_all
from pyzoo.files import write_whole
from pyzoo.flags import columns, plain
from pyzoo.settings import Field, flag, flat, shown, walk
from pyzoo.training import Hardware, Recipe, Table, find_recipe, find_table


def write_reference(folder: Path) -> None:
    """Writes ``commands.md``, ``recipes/`` and ``tables.md`` into the folder of the reference."""
    recipes, tables = about_all("pyzoo.recipes"), about_all("pyzoo.tables")
    pages = {"commands": _commands(), "tables": _tables(tables), "recipes/index": _index(recipes)}
    pages |= {f"recipes/{name}": _recipe(find_recipe(name), about) for name, about in recipes.items()}
    (folder / "recipes").mkdir(exist_ok=True)
    for name, text in pages.items():
        write_whole(folder / f"{name}.md", lambda file, text=text: file.write(text.encode()))


# Commands -------------------------------------------------------------------------------------------------------------


def _commands() -> str:
    parts = [
        "# Commands",
        "What `pyzoo COMMAND --help` prints. Recipes have [pages of their own](recipes/index.md), and so have "
        "[the papers' tables](tables.md).",
        _printed(),
    ]
    shared = {
        "train": _fields(Hardware(), cli.TrainFlags(preset="the first one")),
        "reproduce": _fields(Hardware(), cli.ReproduceFlags()),
    }
    pages = {"train": "[Each recipe](recipes/index.md)", "reproduce": "[Each table](tables.md)"}
    for command in cli.COMMANDS:
        parts.append(f"## {command}")
        if command in shared:
            parts += [f"{pages[command]} has flags of its own. All of them have these:", _flags(shared[command])]
        else:
            parts.append(_printed(command, "--help"))
    return _page(parts)


def _printed(*arguments: str) -> str:
    """What a command prints, as a block of a page."""
    output = io.StringIO()
    with columns(86), contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        cli.main(arguments or ["--help"])
    lines = [line.rstrip() for line in output.getvalue().rstrip().splitlines()]
    return "\n".join(["```text", *lines, "```"])


# Recipes and tables ---------------------------------------------------------------------------------------------------


def _index(recipes: Mapping[str, About]) -> str:
    """The page of all recipes, by paper."""
    parts = ["# Recipes", "What `pyzoo train` and `pyzoo.train` can train, with how long each preset takes on two cores."]
    for paper in dict.fromkeys(about.paper for about in recipes.values()):
        lines = ["| recipe | what one sees | data | presets |", "|---|---|---|---|"]
        for name, about in recipes.items():
            if about.paper == paper:
                lines.append(f"| [`{name}`]({name}.md) | {about.shows} | {about.data} | {cli.presets_with_times(about)} |")
        parts += [f"## {paper}", "\n".join(lines)]
    parts.append("\n".join(["```{toctree}", ":hidden:", "", *recipes, "```"]))
    return _page(parts)


def _recipe(kind: type[Recipe], about: About) -> str:
    """A recipe's page: what it is, and its settings by preset."""
    values = {name: flat(kind.preset(name)) for name in kind.presets}
    parts = [
        f"# {kind.name}",
        plain(kind.__doc__),
        f"*{about.paper}.* Data: {about.data}. Presets, with their times on two cores: {cli.presets_with_times(about)}.",
        f"```bash\npyzoo train {kind.name}\n```",
        "An empty cell is the value of the first preset. [Flags of all recipes](../commands.md#train) come to these.",
    ]
    fields = sorted(_fields(kind()), key=lambda field: ("training", "model", "data", "run").index(field.group))
    for group in dict.fromkeys(field.group for field in fields):
        members = [field for field in fields if field.group == group]
        parts += [f"## {group.capitalize()}", _flags(members, values)]
    return _page(parts)


def _tables(tables: Mapping[str, About]) -> str:
    parts = ["# The papers' tables", "What `pyzoo reproduce` can make: the rows of a table trained, and ours beside the paper's."]
    for name, about in tables.items():
        kind: type[Table] = find_table(name)
        parts += [f"## {name}", plain(kind.__doc__), f"*{about.paper}.*", _flags(_fields(kind()))]
    return _page(parts)


def _fields(*settings: object) -> list[Field]:
    return [field for one in settings for _, field in walk(one) if field.has_flag]


def _flags(fields: Sequence[Field], values: Mapping[str, Mapping[str, object]] | None = None) -> str:
    """A table of flags, with a column of values for each preset, or with one of their default values."""
    values = values or {"default": {field.name: field.value for field in fields}}
    lines = [_row(["flag", "meaning", *values]), _row(["---"] * (2 + len(values)))]
    for field in fields:
        first, *others = (_value(column[field.name]) for column in values.values())
        cells = [first, *("" if value == first else value for value in others)]
        lines.append(_row([f"`{flag(field.name)}`", _marked(field.help), *cells]))
    return "\n".join(lines)


def _marked(text: str) -> str:
    """The words of the help with its flags as code."""
    return re.sub(r"(?<![\w-])--[a-z][\w-]*", r"`\g<0>`", plain(text)).replace("|", "\\|")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None or value == "" else shown(value)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(parts) + "\n"
