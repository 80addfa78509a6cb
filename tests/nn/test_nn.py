import math

import pytest
import torch
from torch import nn

from pyzoo.nn import Head, ImageCheck, Residual, he_initialized, scale_from_log_variance


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


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(300, 200), 300),
        (nn.Conv2d(20, 100, 4, stride=2), 320),
        (nn.ConvTranspose2d(200, 30, 4, stride=2), 800),
        (nn.ConvTranspose2d(200, 30, 4), 3200),
    ],
)
def test_he_initialization(layer, inputs):
    he_initialized(nn.Sequential(layer))
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.05)
    assert not layer.bias.any()


@pytest.mark.parametrize("layer", [nn.Conv2d(30, 200, 4, stride=2), nn.ConvTranspose2d(200, 60, 4, stride=2)])
def test_he_initialization_keeps_the_signal_away_from_the_border(layer):
    """Behind a ReLU of standard normals the mean square of what comes out is one."""
    he_initialized(layer)
    with torch.no_grad():
        out = layer(torch.randn(8, layer.in_channels, 16, 16).relu())[..., 3:-3, 3:-3]
    assert out.square().mean().item() == pytest.approx(1.0, rel=0.15)


def test_images_are_checked():
    check = ImageCheck((1, 4, 4))
    x = torch.rand(3, 1, 4, 4)
    assert check(x) is x
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, 4, 4\), got \(3, 1, 5, 4\)"):
        check(torch.rand(3, 1, 5, 4))
    with pytest.raises(ValueError, match="from 0 to 1, not"):
        check(x - 0.5)
