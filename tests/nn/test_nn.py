import math
import re

import pytest
import torch
from torch import nn

from pyzoo.nn import Head, ImageCheck, Residual, ShapeCheck, he_initialized, scale_from_log_variance


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Residual(8)(torch.zeros(2, 7)), "x must be (..., 8), got (2, 7)"),
        (lambda: Residual(8)(torch.tensor(0.0)), "x must be (..., 8), got ()"),
        (lambda: Residual(8)(torch.zeros(2, 8).long()), "x must be of a floating-point type, got torch.int64"),
        (lambda: Residual(8)(torch.zeros(2, 8).double()), "x must be torch.float32 as the parameters are, got torch.float64"),
        (lambda: Head(nn.Linear(4, 2))(torch.zeros(1, 5)), "x must be (..., 4), got (1, 5)"),
        (lambda: Head(nn.Linear(4, 2))([0.0] * 4), "x must be a tensor, got a list"),
        (lambda: Head(nn.Conv1d(4, 2, 3))(torch.zeros(4)), "x must be (..., 4, length), got (4,)"),
        (lambda: Head(nn.Conv2d(4, 2, 3, groups=2))(torch.zeros(1, 2, 5, 5)), "x must be (..., 4, length, length)"),
        (lambda: Head(nn.ReLU()), "layer must be of type Linear or Conv1d or Conv2d or ConvTranspose2d, got ReLU"),
        (lambda: Head(nn.Linear(4, 2), 1), "log_variance must be of type slice or NoneType, got int"),
        (lambda: ShapeCheck(3), "x_shape must be a sequence of whole numbers, got 3"),
        (lambda: ImageCheck((1, -6, 6)), "each size of x_shape must be a whole number of at least 1, got -6"),
        (lambda: he_initialized(None), "network must be of type Module, got NoneType"),
        (lambda: scale_from_log_variance(0.0, 0.1), "log_variance must be a tensor, got a float"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_layers_take_what_their_parameters_are_and_anything_under_autocast():
    x = torch.zeros(2, 8)
    assert Residual(8).double()(x.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        Residual(8)(x.bfloat16())
    assert Head(nn.Conv2d(4, 2, 3, groups=2))(torch.zeros(4, 5, 5)).shape == (2, 3, 3)  # an image without a batch


def test_a_layer_without_inputs_has_no_weights_to_draw():
    assert not he_initialized(nn.Linear(0, 4)).bias.any()
