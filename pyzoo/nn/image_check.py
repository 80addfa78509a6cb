"""What a network may ask of its images."""

from collections.abc import Sequence

from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn

__all__ = ["ImageCheck"]


class ImageCheck(nn.Module):
    """Passes images on as they are, if they are what the next layer takes.

    Args:
        x_shape: of one image.

    Raises:
        ValueError: they have another shape, or, while Pyro validates, a pixel is not between 0 and 1.

    Example:
        >>> ImageCheck((1, 2, 2))(torch.rand(5, 1, 2, 2)).shape
        torch.Size([5, 1, 2, 2])
    """

    def __init__(self, x_shape: Sequence[int]) -> None:
        super().__init__()
        self.x_shape = tuple(x_shape)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.x_shape:
            raise ValueError(f"The guide takes images of shape {self.x_shape}, not {tuple(x.shape[1:])}.")
        if is_validation_enabled() and not ((x >= 0) & (x <= 1)).all():
            raise ValueError(f"Pixels are numbers from 0 to 1, not from {x.min().item():.3g} to {x.max().item():.3g}.")
        return x
