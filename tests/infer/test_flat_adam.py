"""Adam as a part of a compiled step: the same as torch's own, and its state the optimizer's."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from pyzoo.infer import TracedStep, compile_step, flat_adam
from pyzoo.infer.compiled_step import CompiledStep
from pyzoo.infer.flat_adam import FlatAdam

KINDS = {
    "Adam": partial(torch.optim.Adam, lr=0.05),
    "fused": partial(torch.optim.Adam, lr=0.05, fused=True, betas=(0.5, 0.9), eps=1e-3),
    "weight decay": partial(torch.optim.Adam, lr=0.05, weight_decay=0.1),
    "AdamW": partial(torch.optim.AdamW, lr=0.05, weight_decay=0.1),
}


class Fit(nn.Module):
    """A regression whose layers are moved by two groups of options."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 4, dtype=dtype), nn.Linear(4, 1, dtype=dtype)

    def forward(self, x):
        loss = (self.second(self.first(x).tanh()) - x.sum(1, keepdim=True)).square().mean()
        return loss, {"x": loss.detach()}

    @property
    def groups(self):
        return [{"params": list(self.first.parameters())}, {"params": list(self.second.parameters()), "lr": 0.01}]


def batches(number):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(number)]


def by_torch(module, optimizer, x, clip_norm=None):
    optimizer.zero_grad()
    module(x)[0].backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
    optimizer.step()


def assert_same(module, optimizer, twin, other):
    for one, two in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    states = [each.state_dict() for each in (optimizer, other)]
    assert [group["lr"] for group in states[0]["param_groups"]] == [group["lr"] for group in states[1]["param_groups"]]
    torch.testing.assert_close(states[0]["state"], states[1]["state"], rtol=1e-9, atol=1e-12)


@pytest.fixture(params=[flat_adam.LARGE, 4], ids=["none is large", "some are large"])
def large(request, monkeypatch):
    monkeypatch.setattr(flat_adam, "LARGE", request.param)


@pytest.mark.parametrize(("kind", "clip_norm"), list(zip(KINDS, [None, 0.5, 0.5, None], strict=True)))
def test_the_whole_step_is_torchs(kind, clip_norm, large):
    module, twin = Fit(), Fit()
    optimizer, other = KINDS[kind](module.groups), KINDS[kind](twin.groups)
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, 0.8) for each in (optimizer, other)]
    step = compile_step(module, optimizer, clip_norm)
    for x in batches(6):
        step(x=x)
        by_torch(twin, other, x, clip_norm)
        for scheduler in schedulers:
            scheduler.step()
    assert not step._apart  # it was one graph
    assert all(p.grad is None for p in module.parameters())
    assert_same(module, optimizer, twin, other)


def test_its_state_goes_to_torchs_own_step_and_back(large):
    module, twin = Fit(), Fit()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    first, second, third, fourth = batches(4)
    step = compile_step(module, optimizer)
    step(x=first)
    by_torch(twin, other, first)
    by_torch(module, optimizer, second)  # by hand in between
    by_torch(twin, other, second)
    step(x=third)
    by_torch(twin, other, third)
    assert_same(module, optimizer, twin, other)
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))  # as a checkpoint does
    step(x=fourth)
    optimizer.load_state_dict(saved)
    module.load_state_dict(twin.state_dict())
    step(x=fourth)
    by_torch(twin, other, fourth)
    assert_same(module, optimizer, twin, other)
    fresh = KINDS["Adam"](twin.groups)
    fresh.load_state_dict(saved)
    by_torch(twin, fresh, first)
    assert {float(state["step"]) for state in fresh.state.values()} == {4.0}  # each parameter counts its own


@pytest.mark.parametrize(("clip_norm", "bad"), [(None, math.inf), (0.5, math.nan)])
def test_nothing_moves_where_the_loss_is_not_finite(clip_norm, bad):
    module, twin = Fit(), Fit()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    step = CompiledStep(module, optimizer, clip_norm)
    first, second = batches(2)
    assert step.take({"x": torch.full_like(first, bad)})[2] == 1
    assert step.take({"x": first})[2] == 0
    assert step.take({"x": torch.full_like(first, bad)})[2] == 1
    step.take({"x": second})
    for x in (first, second):
        by_torch(twin, other, x, clip_norm)
    assert_same(module, optimizer, twin, other)


def test_what_replaces_a_parameter_is_noticed():
    module, twin = Fit(), Fit()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    step = compile_step(module, optimizer)
    changes = [
        lambda either: None,
        lambda either: setattr(either.first.weight, "data", torch.ones_like(either.first.weight)),
        lambda either: either.second.bias.data.fill_(3.0),
        lambda either: either.first.requires_grad_(False),
        lambda either: either.first.requires_grad_(True),  # it has taken fewer steps now: torch's own step goes on
    ]
    for change, x in zip(changes, batches(len(changes)), strict=True):
        for either in (module, twin):
            change(either)
        step(x=x)
        by_torch(twin, other, x)
        assert_same(module, optimizer, twin, other)


def test_one_optimizer_has_one_at_a_time():
    module, twin = Fit(), Fit()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    steps = [compile_step(module, optimizer), compile_step(module, optimizer)]
    for number, x in enumerate(batches(4)):
        steps[number % 2](x=x)
        by_torch(twin, other, x)
    assert_same(module, optimizer, twin, other)
    copied, following = copy.deepcopy((module, optimizer))  # which goes on in plain torch
    by_torch(copied, following, batches(1)[0])
    by_torch(twin, other, batches(1)[0])
    assert_same(copied, following, twin, other)


@pytest.mark.slow
def test_what_becomes_of_the_optimizer_is_noticed():
    module, twin = Fit(), Fit()
    pairs = [(each, torch.optim.Adam(each.first.parameters(), lr=0.05)) for each in (module, twin)]
    step = compile_step(*pairs[0])
    changes = [
        lambda module, optimizer: None,
        lambda module, optimizer: optimizer.add_param_group({"params": list(module.second.parameters()), "lr": 0.01}),
        lambda module, optimizer: optimizer.param_groups[1].update(maximize=True),
        lambda module, optimizer: optimizer.param_groups[1].update(maximize=False, weight_decay=0.1),
        lambda module, optimizer: optimizer.state.clear(),
        lambda module, optimizer: optimizer.param_groups[0]["params"].pop(),
        lambda module, optimizer: module.second.weight.register_hook(lambda gradient: 2 * gradient),
    ]
    for change, x in zip(changes, batches(len(changes)), strict=True):
        for pair in pairs:
            change(*pair)
        step(x=x)
        by_torch(*pairs[1], x)
        for one, two in zip(module.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


class TwoBatches(Fit):
    def forward(self, x, y):
        loss = (self.second(self.first(x).tanh()) - y.sum(1, keepdim=True)).square().mean()
        return loss, {"x": loss.detach()}


def test_one_tensor_given_twice_is_not_two():
    module, twin = TwoBatches(), TwoBatches()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    step = compile_step(module, optimizer)
    first, second = batches(2)
    for batch in ({"x": first, "y": first}, {"x": first, "y": second}):
        step(**batch)
        other.zero_grad()
        twin(**batch)[0].backward()
        other.step()
    assert_same(module, optimizer, twin, other)


class Sized(Fit):
    def forward(self, x):
        loss = self.first(x).square().sum() / len(x[x > 0])
        return loss, {"x": loss.detach()}


def test_sizes_that_depend_on_values_are_not_traced():
    module, twin = Sized(), Sized()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    step = compile_step(module, optimizer)
    first, second = batches(2)
    with pytest.warns(RuntimeWarning, match="branches on values of tensors, or reads them") as warned:
        step(x=first)
    assert [warning.filename for warning in warned] == [__file__]  # whose step it is
    step(x=second)
    for x in (first, second):
        by_torch(twin, other, x)
    assert_same(module, optimizer, twin, other)


class Sharing(Fit):
    """Two of its parts are one."""

    def __init__(self):
        super().__init__()
        self.again = self.first
        self.tied = nn.Linear(3, 4, dtype=torch.float64)
        self.tied.bias = self.first.bias

    def forward(self, x):
        loss = (self.second((self.again(x) + self.tied(x)).tanh()) - x.sum(1, keepdim=True)).square().mean()
        return loss, {"x": loss.detach()}

    @property
    def groups(self):
        return [{"params": [*super().groups[0]["params"], self.tied.weight]}, super().groups[1]]


def test_parts_and_parameters_that_are_shared():
    module, twin = Sharing(), Sharing()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    step = compile_step(module, optimizer)
    for x in batches(3):
        step(x=x)
        by_torch(twin, other, x)
        assert module.tied.bias is module.again.bias is optimizer.param_groups[0]["params"][1]
    assert not step._apart
    assert_same(module, optimizer, twin, other)


def test_a_batch_that_lies_otherwise_in_memory_is_noticed():
    module, twin = Fit(), Fit()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    step = compile_step(module, optimizer)
    first, second = batches(2)
    for x in (first, second.mT.contiguous().mT, torch.cat([second, first], 1)[:, :3], first):
        step(x=x)
        by_torch(twin, other, x)
    assert_same(module, optimizer, twin, other)


class Uneven(Fit):
    """One of its layers is not used."""

    def forward(self, x):
        loss = (self.first(x) - 1).square().mean()
        return loss, {"x": loss.detach()}


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        (Uneven, KINDS["weight decay"]),
        (Fit, partial(torch.optim.SGD, lr=0.1)),
        (Fit, partial(torch.optim.Adam, amsgrad=True)),
        (Fit, partial(torch.optim.NAdam, lr=0.1)),
    ],
    ids=["a parameter that is not used", "SGD", "amsgrad", "NAdam"],
)
def test_other_steps_are_torchs_own(kind, optimizer):
    module, twin = kind(), kind()
    ours, other = optimizer(module.groups), optimizer(twin.groups)
    step = compile_step(module, ours)
    for x in batches(3):
        step(x=x)
        by_torch(twin, other, x)
    assert step._apart
    assert_same(module, ours, twin, other)


def test_parameters_are_views_and_stay_the_modules():
    module = Fit(torch.float32)
    optimizer = KINDS["Adam"](module.groups)
    before = copy.deepcopy(module.state_dict())
    flat = FlatAdam.of(optimizer, list(module.parameters()))
    assert flat.is_current(list(module.parameters()))
    assert all(torch.equal(one, two) for one, two in zip(module.state_dict().values(), before.values(), strict=True))
    assert module.first.weight.untyped_storage().data_ptr() == module.first.bias.untyped_storage().data_ptr()
    copied = copy.deepcopy(module)
    TracedStep(copied)({"x": torch.ones(2, 3)})
    assert flat.is_current(list(module.parameters()))
    assert not flat.is_current(list(copied.parameters()))
    module.double()
    assert not flat.is_current(list(module.parameters()))


def test_where_adam_can_not_be_compiled_the_rest_is(monkeypatch):
    def failing(*arguments):
        raise RuntimeError("no Adam\nSet TORCHDYNAMO_VERBOSE=1")

    module, twin = Fit(), Fit()
    optimizer, other = KINDS["Adam"](module.groups), KINDS["Adam"](twin.groups)
    step, (first, second) = compile_step(module, optimizer), batches(2)
    monkeypatch.setattr("pyzoo.infer.flat_adam.FlatAdam.move", failing)
    with pytest.warns(RuntimeWarning, match="The step is compiled without its optimizer: no Adam$"):
        step(x=first)
    step(x=second)  # without another warning
    assert "no Adam" in step.fallback
    for x in (first, second):
        by_torch(twin, other, x)
    assert_same(module, optimizer, twin, other)


def test_a_loaded_state_is_copied(large):
    module = Fit()
    optimizer = KINDS["Adam"](module.groups)
    first, second = batches(2)
    by_torch(module, optimizer, first)
    saved = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(saved)
    optimizer.load_state_dict(saved)
    compile_step(module, optimizer)(x=second)
    torch.testing.assert_close(saved["state"], kept["state"], rtol=0, atol=0)
