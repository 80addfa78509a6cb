"""First values of weights."""

import math

import torch
from torch import nn

from pyzoo.checks import require_kind

__all__ = ["he_initialized"]


@torch.no_grad()
def he_initialized(network: nn.Module) -> nn.Module:
    r"""Draws the weights of linear and convolutional layers so that a ReLU network without padding keeps its signal's variance.

    .. math:: w \sim N(0, 2 / n), \qquad b = 0

    with n the inputs that a unit sums over. For a transposed convolution of stride s that is its input channels times its
    kernel's area over the square of s; ``torch.nn.init.kaiming_normal_`` takes the output channels and forgets the stride. Where
    much of a kernel falls on padding, as on the smallest feature maps, the signal gets weaker.

    Source: He, Zhang, Ren and Sun (2015), "Delving Deep into Rectifiers", eq. 10.

    Args:
        network: its layers are changed in place.

    Returns:
        The network.

    Example:
        >>> he_initialized(torch.nn.Linear(10_000, 4)).weight.std() < 0.015
        tensor(True)
    """
    require_kind(network, "network", nn.Module)
    for layer in network.modules():
        if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
            raise ValueError("network must have no lazy layers: run it once before.")
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            inputs = math.prod(layer.weight.shape[1:])
        elif isinstance(layer, nn.ConvTranspose2d):
            inputs = layer.weight.shape[0] / layer.groups * math.prod(layer.kernel_size) / math.prod(layer.stride)
        else:
            continue
        layer.weight.normal_(std=math.sqrt(2 / max(inputs, 1)))
        if layer.bias is not None:
            layer.bias.zero_()
    return network
