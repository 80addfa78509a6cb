"""What is measured: each system as pyzoo's pair of programs, and its loss by hand with the same networks."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["CASES", "Case"]

CASES = {
    "vae": "benchmarks.cases.vae",
    "graph-vae": "benchmarks.cases.graph_vae",
    "compvae": "benchmarks.cases.compvae",
    "tvae": "benchmarks.cases.tvae",
    "mib": "benchmarks.cases.mib",
    "slots": "benchmarks.cases.slots",
}
"""Modules of the cases. Each has ``SIZES``, names of problem sizes and what to print of them, and ``make(size, device)``."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A system at one size.

    Args:
        model: the generative program.
        guide: the inference program.
        batch: their arguments.
        by_hand: the loss as one writes it without Pyro and pyzoo, by the same networks; draws its own noise.
        adam: options of Adam.
        steps: how many are measured in a round.
        loss: what our engines minimize, if it is not the negative ELBO: then there is no step of Pyro's SVI.
    """

    model: nn.Module
    guide: nn.Module
    batch: Mapping[str, Tensor]
    by_hand: Callable[[], Tensor]
    adam: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"lr": 1e-3})
    steps: int = 20
    loss: nn.Module | None = None
