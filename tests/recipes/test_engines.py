"""Every recipe by every engine."""

import math

import pyro
import pytest
import torch

from pyzoo.about import entries
from pyzoo.training import Hardware, find_recipe
from pyzoo.training.steps import Compiled, Eager, make_step
from tiny import tiny


def prepared(name, **changes):
    """A recipe of tiny size, with its data."""
    recipe = find_recipe(name).preset(None, **{**tiny(name), **changes})
    recipe.prepare()
    return recipe.sized()


@pytest.mark.filterwarnings("error:The step")
@pytest.mark.parametrize("name", sorted(entries("pyzoo.recipes")))
def test_traced_steps_are_eager_ones(name):
    """To the last bit, for every recipe."""
    recipe = prepared(name, steps=10)
    batch = recipe.source(torch.device("cpu")).batch(0, recipe.batch_size)
    found = {}
    for engine in ("eager", "traced"):
        torch.manual_seed(0)
        objectives = list(recipe.objectives(recipe.programs()))
        steps = [make_step(objective, engine, Hardware("cpu").fabric(), len(objectives) > 1) for objective in objectives]
        with pyro.validation_enabled(False):
            losses = [step(batch)[0] for step in steps]
        found[engine] = [*losses, *(p.detach() for objective in objectives for p in objective.module.parameters())]
    assert all(loss.isfinite() for loss in found["eager"][: len(losses)])
    assert all(torch.equal(one, other) for one, other in zip(found["eager"], found["traced"], strict=True))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {}) for name in sorted(entries("pyzoo.recipes"))),
        ("mib-multimodal", {"data": "digits-numbers"}),
    ],
)
def test_distributions_have_full_precision_in_bfloat16(name, changes):
    """Under autocast, as on a CPU with convolutions and always on a GPU: a log-variance in bfloat16 has three digits."""
    recipe = prepared(name, **changes)
    pair, batch = recipe.programs(), recipe.source(torch.device("cpu")).batch(0, recipe.batch_size)
    with torch.autocast("cpu", torch.bfloat16):
        guide = pyro.poutine.trace(pair.guide).get_trace(**batch)
        model = pyro.poutine.trace(pyro.poutine.replay(pair.model, guide)).get_trace(**batch)
    for trace in map(pyro.poutine.util.prune_subsample_sites, (guide, model)):
        trace.compute_log_prob()
        for site in trace.stochastic_nodes + trace.observation_nodes:
            assert trace.nodes[site]["value"].dtype == torch.float32, site
            assert trace.nodes[site]["log_prob"].dtype == torch.float32, site
            for parameter, value in parameters(trace.nodes[site]["fn"]):
                assert value.dtype == torch.float32, f"{site}, {parameter}"


def parameters(distribution):
    """Names and values of the tensors of a distribution, and of those within it."""
    while isinstance(distribution, (torch.distributions.Independent, pyro.distributions.MaskedDistribution)):
        distribution = distribution.base_dist
    return [(name, value) for name, value in vars(distribution).items() if torch.is_tensor(value) and value.is_floating_point()]


@pytest.mark.slow  # half a minute for each
@pytest.mark.filterwarnings("error:The step")  # nothing falls back
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", sorted(entries("pyzoo.recipes")))
def test_compiled_steps_are_eager_ones(name, precision):
    """The losses of the same steps by the same noise."""
    recipe = prepared(name, steps=10)
    losses = {}
    for engine in ("eager", "compiled"):
        torch.manual_seed(0)
        pair = recipe.programs()
        objectives = list(recipe.objectives(pair))
        fabric = Hardware("cpu", precision).fabric(*pair)
        steps = [make_step(objective, engine, fabric, len(objectives) > 1) for objective in objectives]
        assert {type(step) for step in steps} == {Eager if engine == "eager" else Compiled}
        source, losses[engine] = recipe.source(torch.device("cpu")), []
        with pyro.validation_enabled(False):
            for number in range(3):
                torch.manual_seed(number)
                batch = source.batch(number, recipe.batch_size)
                losses[engine] += [step(batch)[0].item() for step in steps]
    tolerance = {"fp32": 1e-3, "bf16": 2e-2}[precision]
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=tolerance, abs=tolerance)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("engine", ["eager", "traced", "captured"])
@pytest.mark.parametrize("name", sorted(entries("pyzoo.recipes")))
def test_steps_on_a_gpu(name, engine):
    """Every recipe takes steps, which stay finite, and the first of which has the loss of a CPU's but for its noise."""
    recipe = prepared(name, steps=10)
    first = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        fabric = Hardware(device).fabric()
        objectives = list(recipe.objectives(recipe.programs().to(fabric.device)))
        steps = [make_step(one, engine if device == "cuda" else "eager", fabric, len(objectives) > 1) for one in objectives]
        source, losses = recipe.source(fabric.device), []
        with pyro.validation_enabled(False):
            for number in range(6):
                batch = source.batch(number, recipe.batch_size)
                losses += [step(batch)[0].item() for step in steps]
        assert all(map(math.isfinite, losses))
        first[device] = losses[0]
    assert first["cuda"] == pytest.approx(first["cpu"], rel=0.2, abs=2.0)
