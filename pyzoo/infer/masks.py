"""Masks of a network's edges, fixed or learned, and of what counts."""

import math
from typing import Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyzoo.checks import require_number, require_shape, require_sizes, require_tensor
from pyzoo.settings import Above

__all__ = ["FixedMask", "RelaxedMask", "both"]

Program = Literal["both", "model", "guide"]


def both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Where two boolean masks are true; one that is None is true throughout."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


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
        site: name of the sample site.
        shape: (observed, shared).
        initial: initial probability of an edge.
        temperature: of the relaxation; a buffer, so that a schedule can move it.
        program: which program calls it. M^p is the model's alone, M^q the guide's; one that they share is called in both, in the
            guide first.
        present: the edges that are known to be there, (observed, shared), boolean; none by default.
        absent: the edges that are known not to be there, likewise.

    Raises:
        ValueError: an argument is out of range or of another shape, or an edge is both present and absent.

    Example:
        >>> mask = RelaxedMask("m", (2, 3), initial=0.9).eval()
        >>> mask()
        tensor([[1., 1., 1.],
                [1., 1., 1.]])
        >>> RelaxedMask("m", (1, 2), absent=torch.tensor([[False, True]])).probabilities()
        tensor([[0.5000, 0.0000]], grad_fn=<WhereBackward0>)
    """

    def __init__(
        self,
        site: str,
        shape: tuple[int, int],
        initial: float = 0.5,
        temperature: float = 1.0,
        program: Program = "both",
        present: Tensor | None = None,
        absent: Tensor | None = None,
    ) -> None:
        super().__init__()
        require_number(initial, "initial")
        if not 0 < initial < 1:
            raise ValueError(f"initial must be between 0 and 1, got {initial}.")
        require_number(temperature, "temperature", Above(0))
        require_sizes(shape, "shape", 2)
        self.site = site
        if program not in get_args(Program):
            raise ValueError(f"program is 'both', 'model' or 'guide', not {program!r}.")
        self.program = program
        self.logits: nn.Parameter = nn.Parameter(
            torch.full(shape, math.log(initial) - math.log1p(-initial))
        )  # not in float32, where 1 - 1e-9 is 1
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        for name, known in (("present", present), ("absent", absent)):
            known = torch.zeros(shape, dtype=torch.bool) if known is None else known
            require_shape(known, name, shape)
            if known.dtype != torch.bool:
                raise ValueError(f"{name} must be boolean, got {known.dtype}.")
            self.register_buffer(name, known.clone(), persistent=False)
        if both := (self.present & self.absent).nonzero().tolist():
            raise ValueError(f"The edge {tuple(both[0])} can't be both present and absent.")

    def probabilities(self) -> Tensor:
        """The probability of each edge, (observed, shared); 1 or 0 where it is known."""
        return self._with_known(self.logits.sigmoid())

    def forward(self) -> Tensor:
        if not self.training:
            return self._with_known((self.logits > 0).to(self.logits.dtype))
        relaxed = dist.RelaxedBernoulli(self.temperature, logits=self.logits).to_event(2).mask(False)
        if self.program == "model":  # Pyro would look for a latent of the model in its guide
            return self._with_known(pyro.deterministic(self.site, relaxed.rsample()))
        return self._with_known(pyro.sample(self.site, relaxed, infer={"is_auxiliary": True} if self.program == "guide" else {}))

    def _with_known(self, edges: Tensor) -> Tensor:
        edges = torch.where(self.present, torch.ones_like(edges), edges)
        return torch.where(self.absent, torch.zeros_like(edges), edges)
