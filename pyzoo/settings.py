"""Settings: frozen dataclasses whose type hints state what is allowed, checked here for Python, the command and files alike.

A setting is declared once, with its default and with a string below it that describes it. Settings may hold other settings (a
recipe holds its networks' sizes); by name they are then flat, as the flags of the command are.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import json
import math
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pyzoo.errors import UsageError

__all__ = [
    "Above",
    "AtLeast",
    "AtMost",
    "Below",
    "Count",
    "Field",
    "Group",
    "Length",
    "MultipleOf",
    "NoFlag",
    "Positive",
    "Settings",
    "Share",
    "Steps",
    "Weight",
    "Widths",
    "annotations",
    "changed",
    "cut",
    "descriptions",
    "expected",
    "flag",
    "flat",
    "groups",
    "hints",
    "is_finite",
    "require_entries",
    "restored",
    "shown",
    "walk",
]


# Hints ----------------------------------------------------------------------------------------------------------------


def _digits(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """A number that is not below ``low``."""

    low: float

    def allows(self, value: float) -> bool:
        return value >= self.low

    def __str__(self) -> str:
        return f"at least {_digits(self.low)}"


@dataclasses.dataclass(frozen=True)
class AtMost:
    """A number that is not above ``high``."""

    high: float

    def allows(self, value: float) -> bool:
        return value <= self.high

    def __str__(self) -> str:
        return f"at most {_digits(self.high)}"


@dataclasses.dataclass(frozen=True)
class Above:
    """A number that exceeds ``low``."""

    low: float

    def allows(self, value: float) -> bool:
        return value > self.low

    def __str__(self) -> str:
        return f"above {_digits(self.low)}" if self.low else "positive"


@dataclasses.dataclass(frozen=True)
class Below:
    """A number that is smaller than ``high``."""

    high: float

    def allows(self, value: float) -> bool:
        return value < self.high

    def __str__(self) -> str:
        return f"below {_digits(self.high)}"


@dataclasses.dataclass(frozen=True)
class MultipleOf:
    """A whole number that ``unit`` divides."""

    unit: int

    def allows(self, value: int) -> bool:
        return value % self.unit == 0

    def __str__(self) -> str:
        return f"a multiple of {self.unit}"


@dataclasses.dataclass(frozen=True)
class Length:
    """A tuple of ``low`` or more entries, or of exactly so many."""

    low: int
    exactly: bool = False

    def allows(self, value: tuple) -> bool:
        return len(value) == self.low if self.exactly else len(value) >= self.low

    def __str__(self) -> str:
        return f"{self.low} values" if self.exactly else f"{self.low} or more values"


@dataclasses.dataclass(frozen=True)
class NoFlag:
    """Marks a setting that the recipe or its data decide: the command has no flag for it."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Puts a setting under a heading of the command's help, in place of its class's ``group``."""

    name: str


Count = Annotated[int, AtLeast(1)]
Positive = Annotated[float, Above(0)]
Weight = Annotated[float, AtLeast(0)]
Share = Annotated[float, AtLeast(0), AtMost(1)]
Steps = Annotated[int, AtLeast(1), AtMost(1_000_000_000)]
Widths = Annotated[tuple[Count, ...], Length(1)]


# Settings -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all settings: checks its values against their type hints when it is made.

    Raises:
        UsageError: a value is of another type than its hint, is not finite, or is out of range; names the flag.

    Example:
        >>> import dataclasses
        >>> @dataclasses.dataclass(frozen=True)
        ... class Sizes(Settings):
        ...     width: Count = 8
        >>> Sizes(width=0)
        Traceback (most recent call last):
            ...
        pyzoo.errors.UsageError: --width must be at least 1, got 0
    """

    group: ClassVar[str] = "model"
    """The heading of the command's help under which a class's own settings stand."""

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            value = getattr(self, name)
            if (plain := _plain(value)) is not value:
                object.__setattr__(self, name, plain)
            problem = _problem(plain, hint)
            self.require(problem is None, name, problem or "")

    def require(self, condition: bool, name: str, what: str) -> None:
        """Raises a UsageError that names the flag unless the condition holds."""
        if not condition:
            value = getattr(self, name)
            is_text = isinstance(value, str) and what in (_KINDS[int], _KINDS[float]) and value.strip().isdecimal()  # "3" for 3
            raise UsageError(f"{flag(name)} must be {what}, got {cut(value) if is_text else shown(value)}")


def flag(name: str) -> str:
    """A setting as the command spells it."""
    return "--" + name.replace("_", "-")


def _plain(value: Any) -> Any:
    """A number of NumPy's, or a tuple of such, as Python's own."""
    if isinstance(value, tuple):
        plain = tuple(map(_plain, value))
        return plain if any(one is not other for one, other in zip(plain, value, strict=True)) else value
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0 else value


def difference(name: str, one: Any, other: Any) -> str:
    """A setting with a value, and the one that it has elsewhere."""
    return f"{flag(name)} {shown(one)}, not {shown(other)}"


def shown(value: Any) -> str:
    """A value as one types it; of a number with very many digits, about how many."""
    if isinstance(value, int) and abs(value) >= 10**30:
        return f"about {'-' * (value < 0)}10^{math.log10(abs(value)):.0f}"
    if isinstance(value, (tuple, list)):
        return " ".join(shown(one) if isinstance(one, int) else str(one) for one in value) or "none"
    return str(value)


@functools.cache
def hints(kind: type) -> Mapping[str, Any]:
    """The type hint of each field, with its annotations; class variables are left out."""
    if not dataclasses.is_dataclass(kind):
        raise ValueError(f"Settings are dataclasses, and {kind.__name__} is none.")
    found = typing.get_type_hints(kind, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def annotations(hint: Any) -> tuple[Any, ...]:
    """What an ``Annotated`` hint carries besides its type."""
    return hint.__metadata__ if get_origin(hint) is Annotated else ()


def flat(settings: Settings) -> dict[str, Any]:
    """All values by name, those of settings within settings among them."""
    found: dict[str, Any] = {}
    for _, field in walk(settings):
        if field.name in found:
            raise TypeError(f"the setting '{field.name}' is declared twice")
        found[field.name] = field.value
    return found


@dataclasses.dataclass(frozen=True)
class Field:
    """A setting with all that is known of it."""

    name: str
    value: Any
    hint: Any
    help: str
    group: str

    @property
    def has_flag(self) -> bool:
        """Whether the command can set it."""
        return not any(isinstance(a, NoFlag) for a in annotations(self.hint))


def walk(settings: Settings) -> Iterator[tuple[Settings, Field]]:
    """Each field that is no settings itself, with the settings that hold it."""
    texts, places = descriptions(type(settings)), groups(type(settings))
    for name, hint in hints(type(settings)).items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from walk(value)
        else:
            yield settings, Field(name, value, hint, texts.get(name, ""), places[name])


def changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    """A copy with some values replaced, by their flat names. Lists will do for tuples, and texts for paths.

    Raises:
        UsageError: there is no such setting, or a value is not allowed.
    """
    known = {field.name: field.hint for _, field in walk(settings)}
    for name in changes:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise UsageError(f"there is no setting '{name}'{hint}")
    return _changed(settings, {name: _fitted(value, known[name]) for name, value in changes.items()})


def _changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    own: dict[str, Any] = {}
    for name in hints(type(settings)):
        value = getattr(settings, name)
        if isinstance(value, Settings):
            new = _changed(value, changes)
            if new is not value:
                own[name] = new
        elif name in changes:
            own[name] = changes[name]
    return dataclasses.replace(settings, **own) if own else settings


def restored(kind: type, values: Mapping[str, Any]) -> Any:
    """Settings from all their flat values as JSON has them: lists for tuples, texts for paths.

    Raises:
        UsageError: a setting is missing or unknown, or a value is not allowed.
    """
    default = kind()
    defaults = flat(default)
    if missing := defaults.keys() - values.keys():
        entries = json.dumps({name: defaults[name] for name in sorted(missing)}, default=str)[1:-1]
        raise UsageError(f"the setting '{min(missing)}' is missing; if the run is older than that, add the default: {entries}")
    return changed(default, values)


def _fitted(value: Any, hint: Any) -> Any:
    """A value as its hint has it, where a list stands for a tuple or a text for a path."""
    allowed = alternatives(hint)
    if isinstance(value, list):
        kinds = [one for one in allowed if one is tuple or get_origin(one) is tuple]
        inner = get_args(kinds[0]) if kinds else ()
        if Ellipsis in inner or len(inner) != len(value):
            inner = (inner[0] if inner else Any,) * len(value)
        return tuple(map(_fitted, value, inner)) if kinds else value
    if isinstance(value, str) and Path in allowed and str not in allowed:
        return Path(value)
    return value


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows, without annotations."""
    if get_origin(hint) is Annotated:
        return alternatives(hint.__origin__)
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(one for part in get_args(hint) for one in alternatives(part))
    return (hint,)


@functools.cache
def descriptions(kind: type) -> Mapping[str, str]:
    """The string below each field, of a class and of those that it inherits from."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(part):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
        except (OSError, TypeError, SyntaxError):  # made at a prompt, or without its source
            continue
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
                text = after.value.value if isinstance(after.value, ast.Constant) else None
                if isinstance(text, str):
                    found[node.target.id] = " ".join(text.split())
    return {name: found[name] for name in hints(kind) if name in found}


def groups(kind: type) -> Mapping[str, str]:
    """The heading under which each field stands: its own, or that of the class that declares it."""
    known = hints(kind)
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        for name in inspect.get_annotations(part).keys() & known.keys():
            found.setdefault(name, getattr(part, "group", "model"))
    for name, hint in known.items():
        for annotation in annotations(hint):
            if isinstance(annotation, Group):
                found[name] = annotation.name
    return found


# Checks ---------------------------------------------------------------------------------------------------------------


def require_entries(values: Any, kind: type, what: str) -> None:
    """Raises a UsageError unless values have the form of a ``TypedDict``: what a file must hold, each entry as its hint says.

    Entries that the form does not name are let through.

    Example:
        >>> from typing import TypedDict
        >>> class Form(TypedDict):
        ...     step: Annotated[int, AtLeast(0)]
        >>> require_entries({"step": -5}, Form, "the file")
        Traceback (most recent call last):
            ...
        pyzoo.errors.UsageError: the file's 'step' must be at least 0, got -5
    """
    if not isinstance(values, dict):
        raise UsageError(f"{what} must hold values by name, got {cut(values)}")
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name not in values:
            raise UsageError(f"{what} has no '{name}'")
        place, value, inner = f"{what}'s '{name}'", values[name], get_args(hint)
        if typing.is_typeddict(hint):
            require_entries(value, hint, place)
        elif (problem := _problem(value, hint)) is not None:
            raise UsageError(f"{place} must be {problem}, got {cut(value)}")
        elif get_origin(hint) is list and typing.is_typeddict(inner[0]):
            for one in value:
                require_entries(one, inner[0], place)


def cut(value: Any) -> str:
    """The beginning of a value as Python writes it, for a message of one line."""
    try:
        text = " ".join(repr(value).split())
    except (RecursionError, ValueError):  # nested too deep, or a number with too many digits
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "values by name", list: "a list"}


def expected(hint: Any) -> str:
    """What a hint asks for, without its limits, in words.

    Example:
        >>> expected(Widths)
        'a whole number each'
    """
    kind = next(one for one in alternatives(hint) if one is not type(None))
    if get_origin(kind) is tuple:
        return f"{expected(get_args(kind)[0]).removesuffix(' each')} each"
    return _KINDS.get(kind, "another value")


def _problem(value: Any, hint: Any) -> str | None:
    """What a value must be and is not."""
    if get_origin(hint) is Annotated:
        problem = _problem(value, hint.__origin__)
        limits = [a for a in hint.__metadata__ if hasattr(a, "allows")]
        if problem is None and value is not None and not all(limit.allows(value) for limit in limits):
            problem = " and ".join(map(str, limits))
        return problem
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return None if value in inner else f"one of {', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        problems = [_problem(value, one) for one in inner]
        return None if None in problems else next(p for one, p in zip(inner, problems, strict=True) if one is not type(None))
    if origin is tuple:
        if not isinstance(value, tuple):
            return "a tuple"
        if inner and inner[-1] is Ellipsis:
            inner = (inner[0],) * len(value)
        if len(inner) != len(value):
            return f"{len(inner)} values"
        problem = next(filter(None, map(_problem, value, inner)), None)
        return problem and f"{problem.removesuffix(' each')} each"
    if origin is list:
        problem = None if isinstance(value, list) else _KINDS[list]
        return problem or next((f"a list, each {found}" for one in value if (found := _problem(one, inner[0]))), None)
    if origin is dict:
        if not isinstance(value, dict):
            return _KINDS[dict]
        problems = ((name, _problem(name, inner[0]) or _problem(one, inner[1])) for name, one in value.items())
        return next((f"values by name, '{name}' {found}" for name, found in problems if found), None)
    if hint is Any or typing.is_typeddict(hint):
        return None
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return _KINDS[float]
        return None if is_finite(value) else "finite"
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            return _KINDS[int]
        return None if abs(value) < 2**63 else "a whole number between -2^63 and 2^63"  # as a tensor's
    if hint is Path:
        return None if isinstance(value, Path) else "a path"
    if isinstance(hint, type):
        return None if isinstance(value, hint) else _KINDS.get(hint, f"a {hint.__name__}")
    return None


def is_finite(value: float) -> bool:
    """Whether a number is one that a float can hold."""
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
