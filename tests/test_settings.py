import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest

from pyzoo.about import entries
from pyzoo.errors import UsageError
from pyzoo.settings import (
    Above,
    Below,
    Count,
    Group,
    Length,
    MultipleOf,
    NoFlag,
    Positive,
    Settings,
    Share,
    Weight,
    Widths,
    changed,
    descriptions,
    flag,
    flat,
    groups,
    restored,
    shown,
    walk,
)


@dataclasses.dataclass(frozen=True)
class Sizes(Settings):
    width: Count = 8
    """Hidden units."""
    widths: Widths = (4, 2)
    """Hidden units of each
    layer."""
    blocks: Annotated[int, MultipleOf(4)] = 4
    """Blocks."""
    shape: Annotated[tuple[int, int], NoFlag()] = (2, 3)
    """Height and width."""


@dataclasses.dataclass(frozen=True)
class Base(Settings):
    group: ClassVar[str] = "training"
    labels: ClassVar[int] = 3
    """Not a setting."""

    sizes: Sizes = Sizes()
    """Sizes of the networks."""
    rate: Positive = 1e-3
    """Learning rate."""
    weight: Weight = 1.0
    """A weight."""
    share: Share = 0.5
    """A share."""


@dataclasses.dataclass(frozen=True)
class Whole(Base):
    group: ClassVar[str] = "data"

    kind: Literal["a", "b"] = "a"
    """Which."""
    clip: Positive | None = None
    """Largest norm."""
    folder: Path | None = None
    """Where."""
    names: tuple[str, ...] = ()
    """Which ones."""
    pairs: tuple[tuple[Count, Count], ...] = ()
    """Two by two."""
    three: Annotated[tuple[float, ...], Length(3, exactly=True)] = (0.0, 1.0, 2.0)
    """Three numbers."""
    inside: Annotated[float, Above(0), Below(1), Group("run")] = 0.5
    """Between 0 and 1."""
    flagged: bool = False
    """Yes or no."""
    free: Any = None
    """Anything."""


# What is allowed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "--width must be at least 1, got 0"),
        ({"width": 2.5}, "--width must be a whole number, got 2.5"),
        ({"width": True}, "--width must be a whole number, got True"),
        ({"width": "8"}, "--width must be a whole number, got '8'"),
        ({"width": 10**20}, "--width must be a whole number between -2^63 and 2^63, got 100000000000000000000"),
        ({"width": -(10**5000)}, "--width must be a whole number between -2^63 and 2^63, got about -10^5000"),
        ({"widths": (4, 10**400)}, "--widths must be a whole number between -2^63 and 2^63 each, got 4 about 10^400"),
        ({"rate": 10**400}, "--rate must be finite, got about 10^400"),
        ({"widths": ()}, "--widths must be 1 or more values, got none"),
        ({"widths": (4, 0)}, "--widths must be at least 1 each, got 4 0"),
        ({"widths": 4}, "--widths must be a tuple, got 4"),
        ({"blocks": 6}, "--blocks must be a multiple of 4, got 6"),
        ({"shape": (1, 2, 3)}, "--shape must be 2 values, got 1 2 3"),
        ({"rate": 0.0}, "--rate must be positive, got 0.0"),
        ({"rate": math.nan}, "--rate must be finite, got nan"),
        ({"rate": math.inf}, "--rate must be finite, got inf"),
        ({"rate": "fast"}, "--rate must be a number, got fast"),
        ({"weight": -1}, "--weight must be at least 0, got -1"),
        ({"share": 1.5}, "--share must be at least 0 and at most 1, got 1.5"),
        ({"kind": "c"}, "--kind must be one of a, b, got c"),
        ({"clip": -1.0}, "--clip must be positive, got -1.0"),
        ({"clip": "x"}, "--clip must be a number, got x"),
        ({"folder": 3}, "--folder must be a path, got 3"),
        ({"names": (1,)}, "--names must be a text each, got 1"),
        ({"pairs": ((1, 0),)}, "--pairs must be at least 1 each, got (1, 0)"),
        ({"three": (1.0, 2.0)}, "--three must be 3 values, got 1.0 2.0"),
        ({"inside": 1.0}, "--inside must be positive and below 1, got 1.0"),
        ({"flagged": 1}, "--flagged must be true or false, got 1"),
    ],
)
def test_what_a_hint_does_not_allow_is_named(changes, message):
    with pytest.raises(UsageError) as caught:
        changed(Whole(), changes)
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({"clip": 3}, 3),
        ({"clip": None}, None),
        ({"rate": 1}, 1),
        ({"widths": [3, 2]}, (3, 2)),
        ({"shape": [5, 6]}, (5, 6)),
        ({"pairs": [[1, 2], [3, 4]]}, ((1, 2), (3, 4))),
        ({"three": [1.0, 2.0, 3.0]}, (1.0, 2.0, 3.0)),
        ({"names": ["a", "b"]}, ("a", "b")),
        ({"folder": "some/where"}, Path("some/where")),
        ({"free": ["as", "it", "is"]}, ["as", "it", "is"]),
        ({"free": object}, object),
    ],
)
def test_what_is_allowed_and_what_stands_for_it(changes, value):
    (name,) = changes
    assert flat(changed(Whole(), changes))[name] == value


def test_checks_run_when_settings_are_made():
    with pytest.raises(UsageError, match="--width must be at least 1, got -1"):
        Sizes(width=-1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sizes().width = 3


# By name --------------------------------------------------------------------------------------------------------------


def test_settings_within_settings_are_flat_by_name():
    whole = Whole()
    assert list(flat(whole))[:5] == ["width", "widths", "blocks", "shape", "rate"]
    assert "sizes" not in flat(whole)
    new = changed(whole, {"width": 3, "rate": 0.5})
    assert (new.sizes.width, new.rate) == (3, 0.5)
    assert changed(new, {"width": 8, "rate": 1e-3}) == whole
    assert type(new) is Whole


def test_an_unknown_name_has_its_neighbors_in_the_message():
    with pytest.raises(UsageError, match=r"there is no setting 'widht'; nearest: width"):
        changed(Whole(), {"widht": 3})
    with pytest.raises(UsageError, match=r"there is no setting 'qqqqq'$"):
        changed(Whole(), {"qqqqq": 3})
    with pytest.raises(UsageError, match="no setting 'labels'"):  # a class variable
        changed(Whole(), {"labels": 4})


def test_a_name_is_declared_once():
    @dataclasses.dataclass(frozen=True)
    class Twice(Settings):
        sizes: Sizes = Sizes()
        width: int = 3

    with pytest.raises(TypeError, match="'width' is declared twice"):
        flat(Twice())


def test_through_json_and_back():
    whole = changed(Whole(), {"width": 3, "widths": (7,), "folder": Path("/data"), "clip": 2.0, "pairs": ((1, 2),)})
    text = json.dumps(flat(whole), default=str)
    assert restored(Whole, json.loads(text)) == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda values: values.pop("width"),
            "the setting 'width' is missing; if the run is older than that, add the default: .width.: 8$",
        ),
        (lambda values: (values.pop("width"), values.pop("widths")), r"'width' is missing; .* .width.: 8, .widths.: \[4, 2\]$"),
        (lambda values: values.update(height=3), "there is no setting 'height'"),
        (lambda values: values.update(width=0), "--width must be at least 1, got 0"),
    ],
)
def test_settings_that_do_not_fit_are_not_restored(change, message):
    values = json.loads(json.dumps(flat(Whole()), default=str))
    change(values)
    with pytest.raises(UsageError, match=message):
        restored(Whole, values)


def test_values_and_flags_as_one_types_them():
    assert flag("learning_rate") == "--learning-rate"
    assert [shown(value) for value in ((4, 2), (), 0.5, None, "a")] == ["4 2", "none", "0.5", "None", "a"]


# What a field says of itself ------------------------------------------------------------------------------------------


def test_descriptions_stand_below_the_fields():
    texts = descriptions(Whole)
    assert texts["sizes"] == "Sizes of the networks."  # inherited
    assert texts["kind"] == "Which."
    assert descriptions(Sizes)["widths"] == "Hidden units of each layer."
    assert "labels" not in texts


def test_a_field_stands_in_the_group_of_its_class_or_in_its_own():
    assert groups(Whole) == {
        **dict.fromkeys(("sizes", "rate", "weight", "share"), "training"),
        **dict.fromkeys(("kind", "clip", "folder", "names", "pairs", "three", "flagged", "free"), "data"),
        "inside": "run",
    }


def test_walk_gives_each_field_with_its_holder():
    found = {field.name: (holder, field) for holder, field in walk(Whole())}
    assert found["width"][0] == Sizes()
    assert found["width"][1].group == "model"
    assert found["width"][1].help == "Hidden units."
    assert [name for name, (_, field) in found.items() if not field.has_flag] == ["shape"]


# The settings of the zoo ----------------------------------------------------------------------------------------------

RECIPES = entries("pyzoo.recipes")
TABLES = entries("pyzoo.tables")


@pytest.mark.parametrize("name", RECIPES)
def test_no_field_of_the_networks_is_declared_again_in_a_recipe(name):
    kind = RECIPES[name].load()
    sizes = {field.name for field in dataclasses.fields(kind().networks)}
    own = {field.name for field in dataclasses.fields(kind)}
    assert sizes
    assert not sizes & own


@pytest.mark.parametrize("name", {**RECIPES, **TABLES})
def test_every_setting_has_a_description_and_its_default_is_allowed(name):
    kind = {**RECIPES, **TABLES}[name].load()
    assert kind.name == name
    texts = {field.name: field.help for _, field in walk(kind())}
    assert [name for name, text in texts.items() if not text.endswith(".")] == []
    assert not {word for text in texts.values() for word in text.split() if word in ("hears", "wish", "dear")}


@pytest.mark.parametrize("name", RECIPES)
def test_every_preset_is_allowed_and_known_to_the_list(name):
    kind = RECIPES[name].load()
    assert list(kind.about.minutes) == list(kind.presets)
    for preset in kind.presets:
        recipe = kind.preset(preset)
        assert type(recipe) is kind
        assert flat(recipe).items() >= kind.presets[preset].items()
        assert set(kind.common) <= flat(recipe).keys()
        assert kind.incidental <= flat(recipe).keys()
    assert kind.preset() == kind.preset(next(iter(kind.presets)))
    with pytest.raises(UsageError, match=f"{name} has no preset 'tiny'; it has"):
        kind.preset("tiny")
