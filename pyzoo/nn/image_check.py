"""What a network may ask of its input."""

from collections.abc import Sequence

from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

from pyzoo.checks import require_floating, require_shape, require_sizes

__all__ = ["ImageCheck", "ShapeCheck"]


class ShapeCheck(nn.Module):
    """Passes examples on as they are, if they are what the next layer takes.

    Args:
        x_shape: of one example.

    Raises:
        ValueError: they have another shape, there is none, or they are not of a floating-point type.

    Example:
        >>> ShapeCheck((200,))(torch.rand(5, 200)).shape
        torch.Size([5, 200])
    """

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__()
        require_sizes(x_shape, "x_shape")
        self.x_shape: tuple[int, ...] = tuple(x_shape)

    def forward(self, x: Tensor) -> Tensor:
        require_shape(x, "x", ("batch", *self.x_shape))
        require_floating(x, "x")
        return x


class ImageCheck(ShapeCheck):
    """The same for images, whose pixels are numbers from 0 to 1.

    Raises:
        ValueError: as for :class:`ShapeCheck`; or, while Pyro validates, a pixel is not between 0 and 1.

    Example:
        >>> ImageCheck((1, 2, 2))(torch.rand(5, 1, 2, 2)).shape
        torch.Size([5, 1, 2, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if is_validation_enabled() and not ((x >= 0) & (x <= 1)).all():
            raise ValueError(f"Pixels are numbers from 0 to 1, not from {x.min().item():.3g} to {x.max().item():.3g}.")
        return x
