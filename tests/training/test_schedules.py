import math

import pytest
import torch
from torch import nn

from pyzoo.training import Schedule, constant, constant_linear, cosine, geometric, linear, warmup


@pytest.mark.parametrize(
    ("value", "steps", "expected"),
    [
        (constant(3.0), (0, 5, 99), [3, 3, 3]),
        (linear(5, 1, steps=10), (0, 5, 10, 99), [5, 3, 1, 1]),
        (linear(5, 1, steps=10, start=10), (0, 10, 15, 20, 99), [5, 5, 3, 1, 1]),
        (linear(5, 1, steps=0), (0, 99), [5, 5]),
        (warmup(10), (0, 5, 10, 99), [0, 0.5, 1, 1]),
        (warmup(0), (0, 99), [1, 1]),
        (geometric(1, 0.01, steps=10), (0, 5, 10, 99), [1, 0.1, 0.01, 0.01]),
        (geometric(1, 0.01, steps=0), (0, 99), [1, 1]),
        (cosine(2, 0, steps=10), (0, 5, 10, 99), [2, 1, 0, 0]),
        (cosine(2, 0, steps=100), (25,), [1 + math.sqrt(0.5)]),
    ],
)
def test_values(value, steps, expected):
    assert [value(step) for step in steps] == pytest.approx(expected)


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Module()
        self.inner.register_buffer("weight", torch.tensor(0.0))
        self.inner.register_buffer("other", torch.tensor([0.0, 0.0], dtype=torch.float64))


def test_a_schedule_moves_its_buffers_in_place():
    module = Weighted()
    before = module.inner.weight
    schedule = Schedule(module, ["inner.weight", "inner.other"], linear(4, 0, steps=4))
    schedule.apply(1)
    assert module.inner.weight is before
    assert before.item() == schedule.current() == 3.0
    assert module.inner.other.tolist() == [3.0, 3.0]
    assert schedule.column == "inner.weight"
    assert Schedule(module, "inner.other", constant(0.0)).column == "inner.other"
    assert Schedule(module, "inner.other", constant(0.0), "weight").column == "weight"


def test_a_buffer_that_is_not_there():
    with pytest.raises(ValueError, match="There is no buffer 'inner\\.wieght'"):
        Schedule(Weighted(), "inner.wieght", constant(0.0)).apply(0)


def test_your_own_schedule_is_a_function():
    module = Weighted()
    schedule = Schedule(module, "inner.weight", lambda step: step**2)
    schedule.apply(7)
    assert module.inner.weight == 49


def test_schedules_that_would_give_wrong_numbers():
    module = torch.nn.Module()
    module.register_buffer("whole", torch.tensor(0))
    with pytest.raises(ValueError, match="The buffer 'whole' must be of a floating-point type"):
        Schedule(module, "whole", linear(0, 1, 10))
    with pytest.raises(ValueError, match="at least one buffer"):
        Schedule(module, [], linear(0, 1, 10))
    with pytest.raises(ValueError, match="start must be a finite number"):
        linear(0, 1, 10, start=float("nan"))


def test_constant_linear_stays_and_falls():
    value = constant_linear(200, share=0.5)
    assert [value(step) for step in (0, 100, 150, 200, 300)] == [1, 1, 0.5, 0, 0]
    with pytest.raises(ValueError, match="share"):
        constant_linear(200, share=1.5)
