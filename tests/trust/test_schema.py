"""config.json and checkpoints with anything in the place of anything: they are what they say, or are refused in one line."""

import copy
import functools
import json
import math
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyzoo.about import entries
from pyzoo.errors import UsageError
from pyzoo.settings import flat
from pyzoo.training import Hardware, Run, Trainer, find_recipe
from tiny import SINES

EXAMPLES = {"fast": 60, "slow": 1500}
numbers = st.integers(-3, 10**20) | st.floats() | st.sampled_from([2.5, 10**400, -0.0, 1e308, 2**63])
words = st.text(max_size=8) | st.sampled_from(["cpu", "tpu", "a\nb", "\udcff", "~nosuch/x"])
leaves = st.none() | st.booleans() | numbers | words
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))
TEXTS = ["[" * 10_000, "{" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "1" * 5000, "\0", "nan", "[]"]


@functools.cache
def config_of(name):
    """The config.json of a recipe with its first preset, as text."""
    with tempfile.TemporaryDirectory() as folder:
        kind = find_recipe(name)
        presets = "digits" if "digits" in kind.presets else next(iter(kind.presets))
        preset, fields = (presets, {}) if name != "compvae-sines" else ("small", SINES)
        return (Run.create(kind.preset(preset, **fields), preset, path=Path(folder) / "run").path / "config.json").read_text()


def places(value, path=()):
    """Every place in nested dicts and lists."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def changed(value, path, new):
    """A copy with another value at a place."""
    if not path:
        return new
    found = copy.copy(value)
    found[path[0]] = changed(found[path[0]], path[1:], new)
    return found


def without(value, path):
    found = copy.copy(value)
    if len(path) > 1:
        found[path[0]] = without(found[path[0]], path[1:])
    else:
        del found[path[0]]
    return found


def believed(config):
    """What a run says of a config.json, or None if it refuses it in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        try:
            (path / "config.json").write_text(json.dumps(config), "utf-8")
        except (ValueError, UnicodeError):  # what JSON can't say
            return None
        try:
            run = Run(path)
            return run, run.recipe
        except UsageError as error:
            require_one_line(error)
            return None


def require_one_line(error):
    assert len(str(error).splitlines()) == 1


def check(config):
    found = believed(config)
    if found is None:
        return
    run, recipe = found
    values = flat(recipe)
    for part in ("settings", "networks"):
        for name, value in config[part].items():
            if name in values and name not in ("data", "data_dir"):
                assert as_json(values[name]) == value, name
                assert type(as_json(values[name])) is type(value) or not isinstance(value, bool), name
    assert as_json(run.hardware.threads) == config["hardware"]["threads"]


def as_json(value):
    return json.loads(json.dumps(value, default=str))


def fuzz(name, examples):
    config = json.loads(config_of(name))
    everywhere = list(places(config))

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(everywhere), values)
    def one(path, new):
        check(changed(config, path, new))

    one()
    for path in everywhere[1:]:
        check(without(config, path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compvae-sines", "graph-vae", "mib-multimodal"])
def test_anything_in_the_place_of_anything(name):
    fuzz(name, EXAMPLES["fast"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(entries("pyzoo.recipes")))
def test_much_of_anything_in_the_place_of_anything(name):
    fuzz(name, EXAMPLES["slow"])


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_that_is_no_config(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError):
        Run(tmp_path)


# Checkpoints ----------------------------------------------------------------------------------------------------------

tensors = st.sampled_from([torch.zeros(3), torch.tensor(math.nan), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(0)])
states = values | tensors


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run and the state of its checkpoint."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run = Run.create(find_recipe("compvae-sines").preset("small", **{**SINES, "steps": 2}), "small", Hardware("cpu"), folder)
    run.train(progress=False, evaluate=False, figures=False)
    return run, run.folder.checkpoints.load()


def fuzz_checkpoints(run, state, examples):
    everywhere = [path for path in places(state) if path]
    file = run.folder.checkpoints.files()[-1]
    content = file.read_bytes()

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(everywhere), states, st.booleans())
    def one(path, new, removed):
        other = without(state, path) if removed else changed(state, path, new)
        torch.save(other, file)
        try:
            trainer = Trainer(run.recipe, run.folder, run.hardware, progress=False)
        except UsageError as error:
            require_one_line(error)
            return
        # It was believed: then each parameter is of its own shape and finite, and the counts are counts.
        assert 0 <= trainer.step <= run.recipe.steps
        assert math.isfinite(trainer.seconds)
        for name, value in trainer.pair.model.state_dict().items():
            assert value.isfinite().all(), name

    try:
        one()
    finally:
        file.write_bytes(content)


@pytest.mark.slow
def test_anything_in_a_checkpoint(trained):
    fuzz_checkpoints(*trained, EXAMPLES["fast"])


@pytest.mark.slow
def test_much_of_anything_in_a_checkpoint(trained):
    fuzz_checkpoints(*trained, EXAMPLES["slow"])
