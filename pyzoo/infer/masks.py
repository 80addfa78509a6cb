"""Masks of a network's edges, fixed or learned."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyzoo.checks import require_number, require_sizes, require_tensor
from pyzoo.settings import Above

__all__ = ["FixedMask", "RelaxedMask"]


class FixedMask(nn.Module):
    """A mask that is given. Called, it returns the mask.

    Args:
        edges: zeros and ones, (observed, shared), as :meth:`pyzoo.infer.BayesianNetwork.inference_mask` gives them.

    Raises:
        ValueError: they are other numbers, or not a matrix.

    Example:
        >>> FixedMask(torch.eye(2))()
        tensor([[1., 0.],
                [0., 1.]])
    """

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        require_tensor(edges, "edges")
        if edges.dim() != 2:
            raise ValueError(f"edges must be (observed, shared), got {tuple(edges.shape)}.")
        if not ((edges == 0) | (edges == 1)).all():
            raise ValueError("edges must be zeros and ones.")
        self.register_buffer("edges", edges)

    def forward(self) -> Tensor:
        return self.edges


class RelaxedMask(nn.Module):
    """A mask that is learned by its edges' probabilities: drawn in training mode, and the most likely one in evaluation mode.

    A draw is a Gumbel-softmax relaxation between 0 and 1, whose density is not scored.

    Source: Zhang, Koyama and Ishiguro (2020), section 3.5, on learning the structure.

    Args:
        site: name of the sample site. A mask that model and guide share is called in both, in the guide first.
        shape: (observed, shared).
        initial: initial probability of an edge.
        temperature: of the relaxation; a buffer, so that a schedule can move it.
        auxiliary: whether the site stands in the guide alone, as that of M^q does.

    Example:
        >>> mask = RelaxedMask("m", (2, 3), initial=0.9).eval()
        >>> mask()
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
    """

    def __init__(
        self, site: str, shape: tuple[int, int], initial: float = 0.5, temperature: float = 1.0, auxiliary: bool = False
    ) -> None:
        super().__init__()
        require_number(initial, "initial")
        if not 0 < initial < 1:
            raise ValueError(f"initial must be between 0 and 1, got {initial}.")
        require_number(temperature, "temperature", Above(0))
        require_sizes(shape, "shape", 2)
        self.site = site
        self.auxiliary = auxiliary
        self.logits = nn.Parameter(
            torch.full(shape, math.log(initial) - math.log1p(-initial))
        )  # not in float32, where 1 - 1e-9 is 1
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def probabilities(self) -> Tensor:
        """The probability of each edge, (observed, shared)."""
        return self.logits.sigmoid()

    def forward(self) -> Tensor:
        if not self.training:
            return (self.logits > 0).to(self.logits.dtype)
        relaxed = dist.RelaxedBernoulli(self.temperature, logits=self.logits).to_event(2).mask(False)
        return pyro.sample(self.site, relaxed, infer={"is_auxiliary": True} if self.auxiliary else {})
