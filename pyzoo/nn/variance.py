"""Standard deviations from unconstrained network outputs."""

import math

from torch import Tensor
from torch.nn.functional import softplus

from pyzoo.checks import require_number, require_tensor
from pyzoo.settings import AtLeast

__all__ = ["scale_from_log_variance"]


def scale_from_log_variance(log_variance: Tensor, floor: float | Tensor = 0.0) -> Tensor:
    r"""Standard deviation of a log-variance, kept smoothly above a floor.

    .. math:: \sigma = \exp(v' / 2), \quad v' = \log f^2 + \mathrm{softplus}(v - \log f^2)

    Far above the floor f this is exp(v / 2); far below, it goes to f and its gradient to zero.

    Args:
        log_variance: any shape, any real number.
        floor: smallest standard deviation; 0 for none. A 0-dim tensor, which must be positive, is not read here, so that a
            compiled step follows a schedule of it.

    Raises:
        ValueError: the floor is a number and is negative or not finite, or a tensor with dimensions.

    Example:
        >>> scale_from_log_variance(torch.tensor([0.0, -100.0]), floor=0.1)
        tensor([1.0050, 0.1000])
    """
    require_tensor(log_variance, "log_variance")
    if not isinstance(floor, Tensor):
        require_number(floor, "floor", AtLeast(0))
    elif floor.dim():
        raise ValueError(f"floor must be a number or a 0-dim tensor, got one of shape {tuple(floor.shape)}.")
    if isinstance(floor, Tensor) or floor > 0:
        lowest = 2 * (floor.log() if isinstance(floor, Tensor) else math.log(floor))
        log_variance = lowest + softplus(log_variance - lowest)
    return (log_variance / 2).exp()
