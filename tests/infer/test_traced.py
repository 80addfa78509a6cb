import copy
import logging
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Distribution

import pyzoo.infer.traced
from pyzoo.infer import NegativeELBO, TracedStep, compile_step
from pyzoo.infer.graph import _expm1, _log1p, _prepare_compiler, has_compiler, traced
from tiny import sines


def module_and_batches():
    recipe = sines()
    module = NegativeELBO(*recipe.programs(), kl_weights={"z": 1.0})
    source = recipe.source("cpu")
    return module, [source.draw(4, parts, seed=parts).batch() for parts in (1, 3)]


def eager(module, batch):
    module.zero_grad()
    loss, terms = module(**batch)
    loss.backward()
    return loss.detach(), terms, [p.grad for p in module.parameters()]


def test_bit_identical_to_eager_whatever_the_shape():
    module, batches = module_and_batches()
    step = TracedStep(module)
    for seed, batch in enumerate([*batches, *batches]):
        torch.manual_seed(seed)
        loss, terms, gradients = eager(module, batch)
        gradients = [g.clone() for g in gradients]
        after = torch.get_rng_state()
        torch.manual_seed(seed)
        traced_loss, traced_terms = step(batch)
        assert torch.equal(loss, traced_loss)
        assert all(torch.equal(terms[name], traced_terms[name]) for name in terms)
        assert all(torch.equal(g, p.grad) for g, p in zip(gradients, module.parameters(), strict=True))
        assert torch.equal(after, torch.get_rng_state())


def test_what_no_result_needs_is_left_out_but_for_its_noise_and_what_it_writes():
    def function(x, written):
        torch.exp(x)
        torch.rand_like(x).sqrt()
        written.add_(1)
        return x + torch.randn_like(x)

    x, written = torch.ones(3), torch.zeros(3)
    graph = traced(function, (x, written))
    targets = [str(node.target) for node in graph.code.graph.nodes]
    assert not any("exp" in target or "sqrt" in target for target in targets)
    torch.manual_seed(0)
    expected = function(x, torch.zeros(3))
    before = written.clone()
    torch.manual_seed(0)
    assert torch.equal(graph(x, written), expected)
    assert torch.equal(written, before + 1)


class SideNorm(nn.Module):
    """A batch norm whose result nothing needs."""

    def __init__(self):
        super().__init__()
        self.used, self.side = nn.Linear(3, 1), nn.BatchNorm1d(3)

    def forward(self, x):
        self.side(x)
        loss = self.used(x).square().mean()
        return loss, {"x": loss}


@pytest.mark.parametrize("compiled", [False, True])
def test_a_batch_norm_that_no_result_needs_still_counts(compiled):
    module, x = SideNorm(), torch.randn(8, 3)
    twin = copy.deepcopy(module)
    step = TracedStep(module, compiled)
    for _ in range(2):
        step({"x": x})
        twin(x)
    torch.testing.assert_close(module.side.running_mean, twin.side.running_mean)
    torch.testing.assert_close(module.side.running_var, twin.side.running_var)
    assert module.side.num_batches_tracked == 2


def test_parameters_and_buffers_are_read_at_each_call():
    module, (batch, _) = module_and_batches()
    step = TracedStep(module)
    step(batch)
    module.get_buffer("kl_weight_z").fill_(5.0)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(0.9)
    torch.manual_seed(0)
    expected = eager(module, batch)[0]
    torch.manual_seed(0)
    assert torch.equal(step(batch)[0], expected)


class Partial(nn.Module):
    """One parameter is used, one is not, one is frozen."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x):
        loss = (self.used * self.frozen * x).sum()
        return loss, {"x": loss.detach()}


def test_only_what_is_used_and_trained_gets_a_gradient():
    module = Partial()
    TracedStep(module)({"x": torch.tensor([1.0, 2.0])})
    assert torch.equal(module.used.grad, torch.tensor([1.0, 2.0]))
    assert module.unused.grad is None
    assert module.frozen.grad is None


class Everything(nn.Module):
    """A loss with all that a graph could get wrong: noise, dropout, batch norm, a detached part, a scheduled weight, softplus."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.Softplus(), nn.Dropout(0.5), nn.Linear(8, 3)
        )
        self.other = nn.Linear(3, 3)
        self.register_buffer("weight", torch.tensor(1.0))

    def forward(self, x):
        logits = self.network(x) + 0.1 * torch.randn_like(x)
        terms = {
            "x": nn.functional.binary_cross_entropy_with_logits(logits, x),
            "other": (self.other(x) * logits.detach()).mean(),
        }
        return terms["x"] + self.weight * terms["other"], {name: term.detach() for name, term in terms.items()}


@pytest.mark.filterwarnings("error:The step")
def test_compiled_normalizations_keep_the_types_of_autocast():
    """Of the groups' normalization the compiler's own gradients have the weights' type, which the product before has not."""

    class Normalized(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 64), nn.Conv2d(4, 4, 3, padding=1)
            self.norm = nn.GroupNorm(4, 4)

        def forward(self, x):
            loss = self.norm(self.second(self.first(x).unflatten(1, (4, 4, 4)))).float().pow(3).mean()
            return loss, {}

    module, gradients = Normalized(), []
    for compiled in (False, True):
        step = TracedStep(module, compiled, partial(torch.autocast, "cpu", torch.bfloat16))
        loss, _ = step({"x": torch.rand(8, 3, generator=torch.Generator().manual_seed(0))})
        gradients.append(torch.cat([loss.view(1), *(parameter.grad.flatten() for parameter in module.parameters())]))
    assert torch.allclose(*gradients, rtol=0.05, atol=2e-3)


def test_compiled_convolutions_have_their_channels_last_and_parameters_stay_as_they_are():
    class Convolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.seen = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), []

        def forward(self, x):
            self.seen.append(self.second.weight.is_contiguous(memory_format=torch.channels_last))
            return self.second(self.first(x).relu()).pow(2).mean(), {}

    torch.manual_seed(0)
    module = Convolutions()
    twin = copy.deepcopy(module)
    step = compile_step(module, torch.optim.Adam(module.parameters(), lr=0.01))
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
    for seed in range(3):
        x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
        step(x=x)
        optimizer.zero_grad()
        twin(x)[0].backward()
        optimizer.step()
    assert all(module.seen)
    assert not any(twin.seen)
    for parameter, plain in zip(module.parameters(), twin.parameters(), strict=True):
        assert parameter.is_contiguous()
        torch.testing.assert_close(parameter, plain, rtol=1e-3, atol=1e-4)


def test_what_is_not_compiled_keeps_its_layout(monkeypatch):
    """Where the compiler fails, the step is traced again without what is for the compiler."""

    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.seen = nn.Conv2d(3, 8, 3), []

        def forward(self, x):
            self.seen.append(self.convolution.weight.is_contiguous(memory_format=torch.channels_last))
            return self.convolution(x).pow(2).mean(), {}

    def failing(*inputs, **options):
        raise RuntimeError("no compiler")

    monkeypatch.setattr("torch._inductor.standalone_compile", failing)
    module = Convolution()
    with pytest.warns(RuntimeWarning, match="The step is traced, and not compiled: no compiler"):
        TracedStep(module, compiled=True)({"x": torch.rand(2, 3, 9, 9)})
    assert module.seen == [True, False]


def test_compiled_steps_are_those_of_plain_torch():
    """By the same noise, through a changed weight, evaluation of a part, frozen parameters and restored ones."""
    torch.manual_seed(0)
    module = Everything()
    twin = copy.deepcopy(module)
    step = compile_step(module, torch.optim.Adam(module.parameters(), lr=0.01, fused=True))
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
    assert Distribution._validate_args

    def eval_norm(either):
        either.network[1].eval()

    changes = [
        lambda either: None,
        lambda either: either.weight.fill_(0.3),
        lambda either: either.other.requires_grad_(False),
        eval_norm,
        lambda either: either.train(),
        lambda either: either.load_state_dict(start),
    ]
    start = copy.deepcopy(module.state_dict())
    for seed, change in enumerate(changes):
        for either in (module, twin):
            change(either)
        x = torch.rand(16, 3, generator=torch.Generator().manual_seed(seed)).round()
        torch.manual_seed(seed)
        loss, terms = step(x=x)
        torch.manual_seed(seed)
        optimizer.zero_grad()
        expected, expected_terms = twin(x)
        expected.backward()
        optimizer.step()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
        assert terms.keys() == expected_terms.keys()
        for (name, one), other in zip(module.state_dict().items(), twin.state_dict().values(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=f"{name} after change {seed}")
    assert Distribution._validate_args


def test_log1p_to_the_last_digits():
    x = torch.cat([torch.logspace(-30, 30, 2001), -torch.logspace(-30, -0.01, 2001), torch.tensor([0.0, math.inf])])
    exact = x.double().log1p()
    assert ((_log1p(x).double() - exact).abs() <= 3e-7 * exact.abs())[:-1].all()
    assert _log1p(x)[-1] == math.inf


def test_expm1_to_the_last_digits():
    x = torch.cat([-torch.logspace(-42, 2.2, 10_000), torch.logspace(-42, 1.9, 10_000), torch.tensor([0.0])])
    exact = x.double().expm1()
    assert ((_expm1(x).double() - exact).abs() <= 4e-7 * exact.abs()).all()
    assert _expm1(torch.tensor([-math.inf, -1000.0, 1000.0, math.inf])).tolist() == [-1, -1, math.inf, math.inf]
    assert _expm1(torch.tensor(math.nan)).isnan()


@pytest.mark.parametrize(
    "change",
    [
        lambda module: setattr(module, "layer", nn.Linear(2, 3)),
        lambda module: setattr(module.layer, "bias", nn.Parameter(torch.ones(3))),
        lambda module: module.layer.add_module("more", nn.Linear(1, 1)),
    ],
    ids=["a layer replaced", "a bias where there was none", "a layer more"],
)
def test_a_changed_module_is_noticed(change):
    class Layered(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 3, bias=False)

        def forward(self, x):
            loss = self.layer(x).square().sum()
            return loss, {"x": loss.detach()}

    module = Layered()
    step = TracedStep(module)
    step({"x": X})
    change(module)
    loss, _ = step({"x": X})
    found = [p.grad.clone() for p in module.layer.parameters(recurse=False)]
    expected, _, gradients = eager(module, {"x": X})
    assert torch.equal(loss, expected)
    assert all(torch.equal(one, other) for one, other in zip(found, gradients[: len(found)], strict=True))


class Branching(nn.Linear):
    def forward(self, x):
        y = super().forward(x).sum()
        loss = y**2 if y > 0 else 2 * y**2
        return loss, {"x": loss.detach()}


def test_a_branch_on_values_runs_as_it_stands():
    torch.manual_seed(0)
    module = Branching(2, 1)
    step = TracedStep(module)
    with pytest.warns(RuntimeWarning, match="not traced: its model or guide branches on values") as warned:
        step({"x": torch.ones(3, 2)})
    assert warned[0].filename == __file__  # whose step it is
    assert step.fallback == str(warned[0].message)
    for sign in (1, -1):  # both branches
        x = sign * torch.ones(3, 2)
        loss, _ = step({"x": x})
        gradient = module.weight.grad.clone()
        module.zero_grad()
        expected, _ = module(x)
        expected.backward()
        assert loss == expected
        assert not loss.requires_grad
        assert torch.equal(gradient, module.weight.grad)


def test_what_is_sized_by_values_is_no_graph():
    x, places = torch.randn(5), torch.tensor([3, 1])
    assert traced(lambda x: x[x > 0].sum(), (x,)) is None
    assert traced(lambda x: x.nonzero().sum(), (x,)) is None
    assert traced(lambda x, places: x[: places.tolist()[0]].sum(), (x, places)) is None
    assert traced(lambda x, places: x[: places.numpy()[0]].sum(), (x, places)) is None
    assert traced(lambda x, places: x[: np.asarray(places)[0]].sum(), (x, places)) is None
    assert traced(lambda x, places: x[: int(np.from_dlpack(places)[0])].sum(), (x, places)) is None
    graph = traced(lambda x, places: x[places].sum() + x[x.argsort()][0], (x, places))
    assert graph(x, places) == x[places].sum() + x.min()


@pytest.mark.parametrize("compiled", [False, True])
def test_what_torch_fails_to_repeat_runs_as_it_stands(compiled):
    """torch's LSTM, whose gradient on a CPU needs what its graph does not keep."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.LSTM(3, 5)

        def forward(self, x):
            loss = self.network(x)[0].square().mean()
            return loss, {"x": loss.detach()}

    module, x = Recurrent(), torch.rand(4, 6, 3)
    with pytest.warns(RuntimeWarning, match="The step runs as it stands, and is not traced: [^\n]*$"):
        loss, _ = TracedStep(module, compiled)({"x": x})
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    expected, _ = module(x)
    expected.backward()
    assert loss == expected
    assert all(parameter.grad.equal(gradient) for parameter, gradient in zip(module.parameters(), gradients, strict=True))


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_the_compiler_is_prepared_by_this_release_of_torch(caplog):
    caplog.set_level(logging.DEBUG, "pyzoo.infer.graph")
    _prepare_compiler.cache_clear()
    _prepare_compiler().join()
    assert not [record for record in caplog.records if record.name == "pyzoo.infer.graph"]


def test_without_a_compiler_the_traced_graph_runs(monkeypatch):
    def failing(graph, inputs, **options):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("torch._inductor.standalone_compile", failing)
    module, (batch, _) = module_and_batches()
    torch.manual_seed(0)
    expected, *_ = eager(module, batch)
    step = TracedStep(module, compiled=True)
    torch.manual_seed(0)
    with pytest.warns(RuntimeWarning, match="traced, and not compiled: .*No working C"):
        loss, _ = step(batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_few_graphs_are_kept(monkeypatch):
    monkeypatch.setattr(pyzoo.infer.traced, "MOST_GRAPHS", 2)
    step = TracedStep(Partial())
    for sign in (1.0, 2.0, 3.0):
        step.module.used.data.fill_(sign)
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            step({"x": torch.tensor([1.0, 2.0], dtype=dtype)})
    assert len(step._graphs) == 2


def test_batch_norm_counts_each_step_once():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))

        def forward(self, x):
            loss = self.network(x).square().mul(torch.arange(3.0)).mean()
            return loss, {"loss": loss.detach()}

    torch.manual_seed(0)
    module = Normed()
    other = copy.deepcopy(module)
    step = TracedStep(module)
    for _ in range(3):
        x = torch.randn(5, 2)
        step({"x": x})
        other(x)
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, other.get_buffer(name)), name


class Square(nn.Linear):
    def forward(self, x):
        loss = super().forward(x).square().sum()
        return loss, {"x": loss.detach()}


X = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TracedStep(None), "module must be of type Module, got NoneType"),
        (lambda: TracedStep(Square(2, 1))(X), "batch must be of type Mapping, got Tensor"),
        (lambda: TracedStep(Square(2, 1))({"x": [1.0, 2.0]}), "x must be a tensor, got a list"),
        (lambda: TracedStep(nn.Linear(2, 1))({"input": X}), "What the module returns must be a loss and a dict of terms"),
        (lambda: TracedStep(Square(2, 1), parameters=[])({"x": X}), "No parameter of the module is to be trained"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.filterwarnings("error:The step")
def test_one_gradient_of_two_biases_is_compiled_in_half_precision():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(16, 64), nn.Linear(16, 64), nn.Linear(64, 1)

        def forward(self, x):
            loss = self.last((self.first(x) + self.second(x)).relu()).float().square().mean()
            return loss, {}

    torch.manual_seed(0)
    module, gradients = Sum(), []
    batch = {"x": torch.randn(8, 16)}
    for compiled in (False, True):
        TracedStep(module, compiled, lambda: torch.autocast("cpu", torch.bfloat16))(batch)
        gradients.append([parameter.grad for parameter in module.parameters()])
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0.05)
    assert len({gradient.data_ptr() for gradient in gradients[1]}) == len(gradients[1])  # who clips them changes each once


class Sized(nn.Module):
    """Its loss reads a buffer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("offset", torch.arange(4.0))

    def forward(self, x):
        loss = (self.weight * x).sum() + (2 * self.offset).sum().float()
        return loss, {"x": loss.detach()}


@pytest.mark.filterwarnings("error:The step")
@pytest.mark.parametrize("whole", [False, True])
def test_a_buffer_of_another_type_or_size_is_noticed(whole):
    module = Sized()
    if whole:
        compiled = compile_step(module, torch.optim.Adam(module.parameters(), lr=1e-8))
        step = lambda batch: compiled(**batch)  # noqa: E731
    else:
        step = TracedStep(module, compiled=True)
    batch = {"x": torch.ones(2)}
    for offset in (
        torch.arange(4.0),
        torch.arange(4),
        torch.arange(4.0, dtype=torch.float64),
        torch.arange(8.0),
        torch.arange(2.0),
    ):
        module.offset = offset
        loss, _ = step(batch)
        assert loss.item() == pytest.approx(2 + 2 * offset.sum().item(), rel=1e-5)
