import pytest
import torch
from torch import nn

from pyzoo.nn import Head, Residual, scale_from_log_variance


def test_residual_starts_from_its_input():
    block = Residual(4)
    x = torch.randn(3, 2, 4)
    torch.testing.assert_close(block(x) - x, block.outer(nn.functional.elu(block.inner(x))))


@pytest.mark.parametrize("floor", [0.0, 0.001, 0.1])
def test_scale_has_a_floor_and_is_the_exponential_far_above(floor):
    v = torch.tensor([-80.0, 0.0, 6.0], dtype=torch.float64)
    scale = scale_from_log_variance(v, floor)
    assert scale.min() >= floor
    torch.testing.assert_close(scale[2], (v[2] / 2).exp(), rtol=1e-3, atol=0)
    assert (scale.diff() > 0).all()


def test_floor_may_be_a_tensor():
    v = torch.linspace(-20, 5, 9)
    torch.testing.assert_close(scale_from_log_variance(v, torch.tensor(0.1)), scale_from_log_variance(v, 0.1))


def test_head_keeps_its_precision_under_autocast():
    head = Head(nn.Linear(64, 8))
    x = torch.randn(5, 64)
    exact = head(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(x), exact)
        assert not torch.equal(head.layer(x).float(), exact)
