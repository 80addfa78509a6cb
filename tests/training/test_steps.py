import copy
import math
from functools import partial

import pyro
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from pyzoo.errors import UsageError
from pyzoo.training import Hardware, Objective
from pyzoo.training.steps import Captured, Compiled, Eager, Traced, make_step
from tiny import graph, sines
from toy import RootLoss, ToyLoss

OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, lr=0.1),
    "SGD with momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "Adam": partial(torch.optim.Adam, lr=0.1),
    "fused Adam": partial(torch.optim.Adam, lr=0.1, fused=True),
}


@pytest.fixture(scope="module")
def fabric():
    return Hardware("cpu").fabric()


def x(value):
    return {"x": torch.full((3,), float(value))}


def optimizer_state(step):
    return {
        (index, name): value.clone() if isinstance(value, torch.Tensor) else value
        for index, entries in step.optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_a_step_is_a_step_of_the_optimizer(fabric, engine):
    module = ToyLoss(1.0)
    step = make_step(Objective(module, OPTIMIZERS["SGD"]), engine, fabric)
    loss, terms = step(x(3))
    assert module.weight.item() == pytest.approx(1 - 0.1 * (2 * 1 + 3))
    assert (loss.item(), terms["a"].item(), terms["b"].item()) == (4.0, 1.0, 3.0)
    assert not any(value.requires_grad for value in (loss, *terms.values()))
    assert step.skipped.item() == 0


@pytest.mark.parametrize("engine", ["eager", "traced"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize(
    ("kind", "bad"), [(ToyLoss, math.nan), (ToyLoss, math.inf), (RootLoss, 0.0)], ids=["nan", "inf", "gradient alone"]
)
def test_what_is_not_finite_never_moves_the_optimizer(fabric, engine, optimizer, clip_norm, kind, bad):
    twin, module = kind(), kind()
    objectives = [Objective(each, OPTIMIZERS[optimizer], clip_norm=clip_norm) for each in (twin, module)]
    undisturbed, step = (make_step(objective, engine, fabric) for objective in objectives)
    step(x(bad))  # at first, when the optimizer has no state
    assert module.weight.item() == 1.0
    for value in (2, 3):
        undisturbed(x(value))
        step(x(value))
        before = optimizer_state(step)
        step(x(bad))
        after = optimizer_state(step)
        assert before.keys() == after.keys()
        assert all(before[name] == after[name] for name in before)
    assert torch.equal(module.weight, twin.weight)
    assert step.skipped.item() == 3
    assert undisturbed.skipped.item() == 0


def test_large_but_finite_gradients_move_it(fabric):
    class Large(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            loss = 1e30 * self.weight.sum()  # the squares of its gradient overflow
            return loss, {"x": loss.detach()}

    module = Large()
    step = make_step(Objective(module, partial(torch.optim.Adam, lr=0.1, fused=True)), "eager", fabric)
    step(x(1))
    assert step.skipped.item() == 0


def test_gradients_are_clipped(fabric):
    module = ToyLoss(1.0)
    make_step(Objective(module, partial(torch.optim.SGD, lr=1.0), clip_norm=0.25), "eager", fabric)(x(3))
    assert module.weight.item() == pytest.approx(0.75)


def test_after_step_sees_the_loss_and_its_terms(fabric):
    """A multiplier with a state of its own, as GECO has it, is an objective's function."""

    class Constrained(ToyLoss):
        def __init__(self):
            super().__init__(1.0)
            self.register_buffer("multiplier", torch.tensor(1.0))

        def forward(self, x):
            terms = {"a": self.weight**2, "b": self.weight * x.mean()}
            return terms["a"] + self.multiplier * terms["b"], {name: term.detach() for name, term in terms.items()}

    module, seen = Constrained(), []

    def adapt(loss, terms):
        seen.append((loss.item(), sorted(terms), module.weight.item()))
        module.multiplier *= torch.exp(0.1 * terms["b"])

    step = make_step(Objective(module, OPTIMIZERS["SGD"], after_step=adapt), "eager", fabric)
    step(x(1))
    assert seen == [(2.0, ["a", "b"], pytest.approx(0.7))]  # after the step, with the loss before it
    assert module.multiplier.item() == pytest.approx(math.exp(0.1))


def test_only_what_an_objective_moves_gets_a_gradient(fabric):
    first, second = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x):
            loss = self.first * self.second * x.mean()
            return loss, {}

    make_step(Objective(Both(), OPTIMIZERS["SGD"], moves=[second]), "eager", fabric)(x(1))
    assert first.grad is None
    assert (first.item(), second.item()) == pytest.approx((1.0, 0.9))


def test_the_scheduler_is_stepped_and_a_state_comes_back(fabric):
    def objective(module, length=10):
        scheduler = partial(LambdaLR, lr_lambda=lambda step: 1 - step / length)
        return Objective(module, OPTIMIZERS["fused Adam"], scheduler=scheduler)

    module = ToyLoss()
    step = make_step(objective(module), "eager", fabric)
    for _ in range(4):
        step(x(1))
    assert step.optimizer.param_groups[0]["lr"] == pytest.approx(0.06)
    state = copy.deepcopy(step.state_dict())  # as through a file
    again = make_step(objective(ToyLoss(5.0)), "eager", fabric)
    again.load_state_dict(state)
    assert again.module.weight.item() == module.weight.item()
    assert again.optimizer.param_groups[0]["lr"] == pytest.approx(0.06)
    for each in (step, again):
        each(x(1))
    assert torch.equal(step.module.weight, again.module.weight)
    # Of a run of another length, at the same step: its own learning rate.
    longer = make_step(objective(ToyLoss(5.0), length=20), "eager", fabric)
    longer.load_state_dict(state, steps_changed=4)
    assert longer.optimizer.param_groups[0]["lr"] == pytest.approx(0.08)

    longer(x(1))
    assert longer.optimizer.param_groups[0]["lr"] == pytest.approx(0.075)


@pytest.mark.parametrize("recipe", [sines(clip_norm=5.0), graph()], ids=["compvae", "graph-vae"])
@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_a_step_reads_nothing_back_from_the_device(fabric, monkeypatch, recipe, engine):
    (objective,) = recipe.objectives(recipe.programs())
    step = make_step(objective, engine, fabric)
    batch = recipe.source(torch.device("cpu")).batch(0, 8)

    def refuse(self, *arguments):
        raise AssertionError("a step waits for the device")

    with pyro.validation_enabled(False):
        step(batch)  # what is made once may read
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
            monkeypatch.setattr(torch.Tensor, name, refuse)
        step(batch)
    monkeypatch.undo()
    assert step.skipped.item() == 0


def test_engines(fabric):
    for engine, kind in (("eager", Eager), ("traced", Traced), ("compiled", Compiled)):
        assert type(make_step(Objective(ToyLoss(), OPTIMIZERS["SGD"]), engine, fabric)) is kind


class Replayed:
    """What a CUDA graph does, on a CPU: nothing when it is recorded, the same again at each replay, with outputs in one place."""

    recorded = 0

    def __init__(self, function):
        Replayed.recorded += 1
        self._function, self.outputs = function, None

    def replay(self):
        loss, terms = self._function()
        if self.outputs is None:
            self.outputs = loss.clone(), {name: term.clone() for name, term in terms.items()}
        self.outputs[0].copy_(loss)
        for name, term in terms.items():
            self.outputs[1][name].copy_(term)


def falling(optimizer):
    return LambdaLR(optimizer, lr_lambda=lambda step: 0.9**step)


def captured_and_eager(fabric, **options):
    pairs = []
    for make in (lambda o: Captured(o, fabric, graph=Replayed), lambda o: Eager(o, fabric)):
        (objective,) = (recipe := graph(learning_rate=0.01)).objectives(seeded_programs(recipe))
        pairs.append(make(Objective(objective.module, OPTIMIZERS["fused Adam"], scheduler=falling, **options)))
    return recipe, *pairs


def seeded_programs(recipe):
    torch.manual_seed(0)
    return recipe.programs()


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_captured_steps_are_eager_ones(fabric, clip_norm):
    """With a learning rate that falls, two shapes of batch, and losses that are kept from step to step."""
    Replayed.recorded, kept = 0, {"captured": [], "eager": []}
    recipe, captured, eager = captured_and_eager(fabric, clip_norm=clip_norm)
    source = recipe.source(torch.device("cpu"))
    for number in range(12):
        batch = source.batch(number, 8 if number % 2 else 6)
        for name, step in (("captured", captured), ("eager", eager)):
            torch.manual_seed(number)
            kept[name].append(step(batch)[0])
    assert Replayed.recorded == 2
    torch.testing.assert_close(torch.stack(kept["captured"]), torch.stack(kept["eager"]), rtol=1e-5, atol=0)  # rates are float32
    states = captured.state_dict(), eager.state_dict()
    groups = [state["optimizer"]["param_groups"][0] for state in states]
    assert groups[0] | {"lr": 0.0} == groups[1] | {"lr": 0.0}
    assert groups[0]["lr"] == pytest.approx(groups[1]["lr"])
    # Either goes on from the other's checkpoint.
    captured.load_state_dict(states[1])
    eager.load_state_dict(states[0])
    for number in range(12, 18):
        batch = source.batch(number, 8)
        losses = []
        for step in (captured, eager):
            torch.manual_seed(number)
            losses.append(step(batch)[0])
        assert losses[0] == pytest.approx(losses[1].item(), rel=1e-4)
    assert Replayed.recorded == 3  # what was recorded is of the optimizer before


def test_what_can_not_be_captured(fabric):
    with pytest.raises(UsageError, match="needs a CUDA device"):
        make_step(Objective(ToyLoss(), OPTIMIZERS["fused Adam"]), "captured", fabric)
    with pytest.raises(UsageError, match="needs an optimizer with fused=True"):
        Captured(Objective(ToyLoss(), OPTIMIZERS["Adam"]), fabric, graph=Replayed)


def test_what_the_device_can_not_record_is_traced(fabric):
    def failing(function):
        raise RuntimeError("operation not permitted when stream is capturing")

    (objective,) = (recipe := graph()).objectives(seeded_programs(recipe))
    step = Captured(Objective(objective.module, OPTIMIZERS["fused Adam"]), fabric, graph=failing)
    batch = recipe.source(torch.device("cpu")).batch(0, 6)
    for _ in range(step.WARM_STEPS):
        step(batch)
    with pytest.warns(RuntimeWarning, match="traced, and not captured: operation not permitted"):
        losses = [step(batch)[0]]
    losses.append(step(batch)[0])
    assert all(loss.isfinite() for loss in losses)
    assert "not captured" in step.fallback


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.cuda
@pytest.mark.parametrize("engine", ["traced", "captured"])
def test_engines_agree_on_a_gpu(engine):
    fabric = Hardware("cuda").fabric()
    losses = []
    for name in ("eager", engine):
        recipe = graph(learning_rate=0.01)
        (objective,) = recipe.objectives(seeded_programs(recipe).to(fabric.device))
        step = make_step(objective, name, fabric)
        source, found = recipe.source(fabric.device), []
        with pyro.validation_enabled(False):
            for number in range(8):
                torch.manual_seed(number)
                found.append(step(source.batch(number, 8))[0].item())
        losses.append(found)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
