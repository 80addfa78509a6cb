"""Settings as flags of the command, by tyro: parsing, short help and full help."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import shutil
import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro

from pyzoo.errors import UsageError
from pyzoo.settings import Field, Settings, alternatives, cut, expected, flag, walk

__all__ = ["columns", "parse", "peek", "plain"]

_ORDER = ("training", "data", "model", "table", "run", "hardware")
"""The headings of the help, in this order; others come after them."""


def parse(
    prog: str,
    arguments: Sequence[str],
    settings: Sequence[Settings],
    description: str = "",
    common: Collection[str] | None = None,
) -> dict[str, Any]:
    """The values that the arguments change, by the settings' flat names.

    Args:
        prog: the command, as the usage line has it.
        arguments: flags with their values. ``--help`` and ``--help-all`` print the help and end the process.
        settings: what there are flags for, with the default values. No two have a name in common.
        description: what the help begins with, paragraph by paragraph; the short one with the first and the last.
        common: names that ``--help`` shows, with ``--help-all`` for all; by default there is one help.

    Raises:
        UsageError: a flag is unknown, or a value is of another type than the setting's hint.
    """
    fields = [field for one in settings for _, field in walk(one) if field.has_flag]
    fields.sort(key=lambda field: _ORDER.index(field.group) if field.group in _ORDER else len(_ORDER))
    if "--help-all" in arguments:
        arguments = ["--help"]
    elif common is not None and ("--help" in arguments or "-h" in arguments):
        arguments, count = ["--help"], len(fields)
        fields = [dataclasses.replace(field, group="common") for field in fields if field.name in common]
        paragraphs = description.split("\n\n")
        note = f"These are the flags that one changes first; --help-all shows all {count}."
        description = "\n\n".join(dict.fromkeys([paragraphs[0], paragraphs[-1], note]))
    _require_known(arguments, fields)
    groups: dict[str, list[Field]] = {}
    for field in fields:
        groups.setdefault(field.group, []).append(field)
    kind = dataclasses.make_dataclass("flags", [(name, _group(name, members)) for name, members in groups.items()])
    output, errors = io.StringIO(), io.StringIO()
    width = max(40, shutil.get_terminal_size().columns)  # in a terminal of very few columns tyro breaks lines for ever
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), columns(width):
            parsed = tyro.cli(kind, args=list(arguments), prog=prog)
    except SystemExit as stop:
        if stop.code in (0, None):
            _print_help(output.getvalue(), description)
            raise
        raise UsageError(f"{_reason(_first_paragraph(errors.getvalue()), arguments, fields)} (see {prog} --help)") from None
    values = {field.name: getattr(getattr(parsed, field.group), field.name) for field in fields}
    return {field.name: values[field.name] for field in fields if values[field.name] != field.value}


@contextlib.contextmanager
def columns(count: int) -> Iterator[None]:
    """The context in which the terminal has so many columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(count)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        os.environ.update({} if before is None else {"COLUMNS": before})


def _require_known(arguments: Sequence[str], fields: Sequence[Field]) -> None:
    """Raises a UsageError that names the first argument that looks like a flag and is none."""
    known = ["--help", "--help-all", *(flag(field.name) for field in fields)]
    known += [flag(f"no_{field.name}") for field in fields if isinstance(field.value, bool)]
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
            raise UsageError(f"there is no flag {name}" + (f"; nearest: {', '.join(near)}" if near else ""))


def _group(name: str, fields: Sequence[Field]) -> Any:
    """A dataclass of some fields, which tyro shows under one heading."""
    made = []
    for field in fields:
        default = None if field.value is not None else ""  # tyro's "(default: ...)", but not of None
        shown = tyro.conf.arg(help=plain(field.help), metavar=_placeholder(field.hint), help_behavior_hint=default)
        made.append((field.name, Annotated[field.hint, shown], dataclasses.field(default=field.value)))
    kind = dataclasses.make_dataclass(name, made)
    kind.__doc__ = ""  # tyro would show the one that dataclasses make
    return tyro.conf.OmitArgPrefixes[kind]


def _placeholder(hint: Any) -> str | None:
    """What stands for the value in the help, where tyro's would show that None or an empty list is allowed too."""
    kinds = [kind for kind in alternatives(hint) if kind is not type(None)]
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if get_origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,):
        (inner,) = alternatives(get_args(kind)[0])
        if get_origin(inner) is Literal:
            return f"{{{','.join(map(str, get_args(inner)))}}} ..."
        return f"{inner.__name__.upper()} ..."
    return kind.__name__.upper() if len(kinds) < len(alternatives(hint)) and isinstance(kind, type) else None


def _print_help(text: str, description: str) -> None:
    """Prints tyro's help with a description below the usage line, wrapped to the terminal, which tyro would not wrap."""
    usage, _, flags = text.strip().partition("\n\n")
    width = shutil.get_terminal_size().columns
    paragraphs = [textwrap.fill(part, width, break_on_hyphens=False) for part in description.split("\n\n") if part]
    print("\n\n".join([usage, *paragraphs, flags]))


def _reason(text: str, arguments: Sequence[str], fields: Sequence[Field]) -> str:
    """Why tyro refuses arguments, in our words where its own are those of Python's ``int``."""
    named = re.match(r"Error parsing (--[\w-]+):", text)
    for field in fields:
        if named and named[1] == flag(field.name):
            given = re.findall(rf"{named[1].replace('-', '[-_]')}[= ](.*?)(?= --|$)", " ".join(arguments), re.DOTALL)
            return f"{named[1]} must be {expected(field.hint)}, got {cut(given[-1] if given else '')}"  # the last one counts
    return text.partition(" For full helptext")[0].removesuffix(".")


def _first_paragraph(box: str) -> str:
    """The first message of the box in which tyro prints errors, as one line."""
    lines = [re.sub(r"^[│╭╰─\s]+|[│╮╯─\s]+$", "", line) for line in box.splitlines()[1:]]
    lines = [line for line in lines if not re.fullmatch(r"[-+=]{3,}", line)]  # the box, where the output is not UTF-8
    end = next((i for i, line in enumerate(lines) if not line), len(lines))
    return " ".join(lines[:end])


def peek(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag that must be known before the others can be read; the last one counts."""
    value = None
    for index, argument in enumerate(arguments):
        if argument.startswith(flag + "="):
            value = argument.removeprefix(flag + "=")
        elif argument == flag and index + 1 < len(arguments):
            value = arguments[index + 1]
    return value


def plain(docstring: str | None) -> str:
    """A docstring as the help shows it: without markup, each paragraph in one line.

    Example:
        >>> plain("Trains :class:`~pyzoo.models.tvae.TVAE`,\\n    with ``T``.")
        'Trains TVAE, with T.'
    """
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", docstring or "").replace("``", "")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip()))
