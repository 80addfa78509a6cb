r"""What algorithm 1 makes small, in turns: a loss of the distributions, and a score of the structure.

.. math:: L_{dist} + \gamma \sum_i K_i, \qquad L_{score} = L_{dist} + \lambda \sum_{ij} (\rho^p_{ij} + \rho^q_{ij})

The first moves the networks, the second the masks' probabilities rho, the last term being the expected number of edges. Both are
means over draws of the masks.

K_i is ours: the effective number of parents of view i. Where views are smooth functions of several normal latents, a rotation of
the latents explains them as well, but needs more edges; and no single edge can be left out then. A number of edges has no
gradient along which latents could turn back, and the noise of the drawn masks only a small one, which is enough for structures
with few edges. K_i has that gradient.

Source: Zhang et al. (2020), eq. 15 and algorithm 1. Without a target network its L_str_reg is zero; and both steps are of one
batch, where algorithm 1 draws another for the structure.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyzoo.infer import RelaxedMask
from pyzoo.models.mib import StructuredVAE

__all__ = ["DistributionLoss", "ScoreLoss", "effective_parents"]


def effective_parents(weight: Tensor, sizes: Sequence[int]) -> Tensor:
    r"""The effective number of latents that a layer reads, from 1 to their number.

    .. math:: K = \Bigl(\sum_j \sqrt{p_j}\Bigr)^2, \qquad p_j = \frac{\|W_j\|^2}{\sum_k \|W_k\|^2}

    This is the exponential of Rényi's entropy of order 1/2 of the shares p that the latents have in the weights. Unlike a sum of
    norms it does not shrink the weights, and unlike the number of weights that are not zero it has a gradient.

    Args:
        weight: of a linear layer, (outputs, features), with all latents' features side by side.
        sizes: the number of features of each latent.

    Example:
        >>> effective_parents(torch.tensor([[1.0, 1.0, 0.0]]), [1, 1, 1]).round(decimals=2)
        tensor(2.)
        >>> effective_parents(torch.tensor([[3.0, 4.0, 0.0]]), [2, 1]).round(decimals=2)
        tensor(1.)
    """
    energy = torch.stack([part.square().sum() for part in weight.split(list(sizes), 1)]) + 1e-8  # the root has a slope at zero
    return (energy / energy.sum()).sqrt().sum() ** 2


class DistributionLoss(nn.Module):
    """The loss of the distributions: the ELBO's, and the effective numbers of parents of all views.

    Args:
        loss: from a batch to the loss and its terms.
        model: the generative program, whose decoders begin with a linear layer of all shared latents, then private ones.
        concentration: gamma.
    """

    def __init__(self, loss: nn.Module, model: StructuredVAE, concentration: float) -> None:
        super().__init__()
        self.loss = loss
        self.model = model
        self.concentration = concentration
        self.register_buffer("share", torch.ones(()))  # of gamma, which a schedule moves

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the terms of the ELBO and the mean of the effective numbers, detached."""
        loss, terms = self.loss(**batch)
        parents = torch.stack([self._parents(view) for view in self.model.variables.observed])
        loss = loss + self.share * self.concentration * parents.sum()
        return loss, {**terms, "effective_parents": parents.mean().detach()}

    def _parents(self, view: str) -> Tensor:
        sizes = [self.model.dims[latent] for latent in self.model.variables.shared]
        return effective_parents(self.model.decoders[view][0].weight[:, : sum(sizes)], sizes)


class ScoreLoss(nn.Module):
    """The score of the structure (eq. 15 without L_str_reg): the same ELBO, and the expected number of edges of both masks.

    Args:
        loss: from a batch to the loss and its terms.
        masks: M^p and M^q.
        sparsity: lambda, in nats per edge.
    """

    def __init__(self, loss: nn.Module, masks: Sequence[RelaxedMask], sparsity: float) -> None:
        super().__init__()
        self.loss = loss
        self.masks = nn.ModuleList(masks)
        self.sparsity = sparsity

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The score in nats per example, and the expected number of edges, detached."""
        loss, _ = self.loss(**batch)
        edges = torch.stack([mask.probabilities().sum() for mask in self.masks]).sum()
        return loss + self.sparsity * edges, {"edges": edges.detach()}
