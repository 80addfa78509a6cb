"""The fully connected residual block."""

from torch import Tensor, nn

from pyzoo.checks import require_count, require_input, require_same_type

__all__ = ["Residual"]


class Residual(nn.Module):
    """x + Linear(N, N)(ELU(Linear(N, N)(x))), over the last dimension.

    Source: Berger and Sebag (2019), figure 9, which our copy of the paper lacks: the layout is the authors' code's.

    Example:
        >>> Residual(8)(torch.zeros(2, 3, 8)).shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        require_count(width, "width")
        self.inner: nn.Linear = nn.Linear(width, width)
        self.outer: nn.Linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        require_input(x, "x", self.inner)
        require_same_type(x, "x", self.inner)
        return x + self.outer(nn.functional.elu(self.inner(x)))
