"""Last layers, whose outputs are the parameters of a distribution."""

import math

import torch
from torch import Tensor, nn

from pyzoo.checks import require_input, require_kind, require_number
from pyzoo.settings import Above

__all__ = ["Head"]


class Head(nn.Module):
    """A layer that keeps its parameters' precision under autocast.

    A mean in bfloat16 has three significant digits, too few for a likelihood whose scale may be a thousandth. The layers before
    the last can bear that; the last one is cheap and is computed in full.

    Args:
        layer: the last layer, linear or convolutional, transposed or not.
        log_variance: which of its outputs, or channels, are log-variances.
        scale: the standard deviation that those start from. A density that starts far too wide hardly pulls at its mean.

    Raises:
        ValueError: the layer is of another kind; the scale is not positive, or without ``log_variance``; or the layer has no bias
            to set it by.

    Example:
        >>> head = Head(torch.nn.Linear(4, 2))
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     head(torch.zeros(1, 4)).dtype
        torch.float32
    """

    def __init__(
        self,
        layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d,
        log_variance: slice | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        require_kind(layer, "layer", nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
        require_kind(log_variance, "log_variance", slice, type(None))
        require_number(scale, "scale", Above(0))
        if log_variance is None and scale != 1.0:
            raise ValueError("scale needs log_variance, which says where log-variances are.")
        if log_variance is not None and layer.bias is None:
            raise ValueError("scale is set by the layer's bias, and it has none.")
        self.layer = layer
        if log_variance is not None:
            if not layer.bias[log_variance].numel():
                raise ValueError(
                    f"log_variance must choose outputs of the layer, which has {len(layer.bias)}, got {log_variance}."
                )
            with torch.no_grad():
                layer.bias[log_variance] += 2 * math.log(scale)

    def forward(self, x: Tensor) -> Tensor:
        require_input(x, "x", self.layer)
        with torch.autocast(x.device.type, enabled=False):
            return self.layer(x.to(self.layer.weight.dtype))
