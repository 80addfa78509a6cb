import copy
import re

import pytest
import torch
from torch import nn
from torch.distributions import Distribution

from pyzoo.infer import NegativeELBO, TracedStep
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


@pytest.mark.slow
def test_compiled_agrees_and_leaves_validation_on():
    module, (_, batch) = module_and_batches()
    assert Distribution._validate_args
    torch.manual_seed(0)
    loss, _, gradients = eager(module, batch)
    gradients = [g.clone() for g in gradients]
    torch.manual_seed(0)
    compiled_loss, _ = TracedStep(module, compiled=True)(batch)
    assert Distribution._validate_args
    assert torch.isfinite(compiled_loss)
    assert compiled_loss.item() == pytest.approx(loss.item(), rel=0.2)  # compiled code draws other noise
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


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
