"""What is measured of a learned structure, beside the one that the views were drawn from.

Edges are those of the most likely mask M^p. Latents have no names of their own: each is matched with a cause so that as many
edges as possible agree, and a latent that is left over should have none.

- ``edges_correct``: share of all possible edges that are right, present or absent, between latents and views.
- ``structure_found``: whether all are.
- ``edges``: the number of edges.
- ``score``: L_score of eq. 15 at the most likely masks, as it is trained, on held-out examples, in nats. Of several runs on the
  same data the one with the smallest score is to be preferred; it needs neither the truth nor test examples.
- ``test_elbo``: of test examples, without weights, in nats per example; one draw for each.
- ``parameters``: of model and guide.

In metrics.csv, ``p/<latent>-<view>`` is the probability of an edge of M^p, ``edges_correct`` as above, and ``held_out_elbo`` that
of other examples, by which checkpoints are chosen.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyzoo.checks import require_tensor
from pyzoo.errors import UsageError
from pyzoo.evaluation import site_terms
from pyzoo.infer import RelaxedMask
from pyzoo.recipes.mib.metrics import draw
from pyzoo.training import PairReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["StructureReport", "matched", "matched_edges"]


def matched(edges: Tensor, truth: Tensor) -> list[int]:
    """For each cause the latent whose edges agree best with its own, each latent at most once; then the spare latents.

    Where there are more causes than latents, numbers from the number of latents on stand for no latent.

    Args:
        edges: learned mask or probabilities, (views, latents).
        truth: the causes' mask, (views, causes).

    Example:
        >>> matched(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0], [1.0]]))
        [1, 0]
    """
    from scipy.optimize import linear_sum_assignment  # a dependency of scikit-learn

    edges, truth = _padded(edges, truth)
    cost = (edges.unsqueeze(2) - truth.unsqueeze(1)).abs().sum(0)  # (latents, causes)
    _, latents = linear_sum_assignment(cost.T.numpy())
    return latents.tolist()


def matched_edges(edges: Tensor, truth: Tensor) -> float:
    """Share of edges that agree between two masks, up to the order of the latents.

    Args:
        edges: learned mask, (views, latents).
        truth: the causes' mask, (views, causes). A cause or a latent without counterpart is one without edges on the other side.

    Raises:
        ValueError: these are no masks of the same views.

    Example:
        >>> matched_edges(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        0.75
    """
    for mask, name in ((edges, "edges"), (truth, "truth")):
        require_tensor(mask, name)
    if edges.dim() != 2 or truth.dim() != 2 or len(edges) != len(truth) or not (edges.numel() and truth.numel()):
        raise ValueError(f"Masks must be (views, latents) of the same views, got {tuple(edges.shape)} and {tuple(truth.shape)}.")
    order = matched(edges, truth)
    edges, truth = _padded(edges, truth)
    return (edges[:, order] == truth).double().mean().item()


def _padded(edges: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Two masks with empty columns, so that they have as many."""
    width = max(edges.shape[1], truth.shape[1])
    first, second = (torch.nn.functional.pad(mask, (0, width - mask.shape[1])) for mask in (edges, truth))
    return first.detach().double(), second.detach().double()


class StructureReport(PairReport):
    """The report of a learned structure."""

    @functools.cached_property
    def truth(self) -> Tensor:
        """M of the planted structure, (views, causes)."""
        return self.recipe.planted_structure.generative_mask()

    @property
    def probabilities(self) -> Tensor:
        """The probability of each edge of M^p, (views, latents)."""
        mask = self.pair.model.mask
        return (mask.probabilities() if isinstance(mask, RelaxedMask) else mask()).detach().cpu()

    @property
    def edges(self) -> Tensor:
        """The most likely M^p, (views, latents)."""
        return (self.probabilities > 0.5).float()

    def monitor(self, step: int) -> dict[str, float]:
        names, found = self.pair.model.variables, self.probabilities
        columns = {
            f"p/{latent}-{view}": found[i, j].item()
            for j, latent in enumerate(names.shared)
            for i, view in enumerate(names.observed)
        }
        return {**columns, "edges_correct": matched_edges(self.edges, self.truth)}

    @property
    def can_validate(self) -> bool:
        return True

    @functools.cached_property
    def views(self) -> dict[str, Tensor]:
        """Views to measure on."""
        return self.recipe.test_views(self.device)

    @functools.cached_property
    def held_out_views(self) -> dict[str, Tensor]:
        """Views to choose checkpoints by."""
        return self.recipe.held_out_views(self.device)

    def validate(self, step: int) -> dict[str, float]:
        return {"held_out_elbo": -sum(site_terms(*self.pair, self.held_out_views).values())}

    def metrics(self, full: bool = False) -> dict[str, float]:
        model, guide = self.pair
        correct = matched_edges(self.edges, self.truth)
        elbo = -sum(site_terms(*self.pair, self.views).values())
        weights, held_out = self.recipe.site_weights(), site_terms(*self.pair, self.held_out_views)
        loss = sum(weights.get(name, 1.0) * term for name, term in held_out.items())
        edges = sum(float(mask().sum()) for mask in (model.mask, guide.mask))
        return {
            "edges_correct": correct,
            "structure_found": float(correct == 1),
            "edges": self.edges.sum().item(),
            "score": loss + self.recipe.method.sparsity * edges,
            "test_elbo": elbo,
            "parameters": self.pair.num_parameters,
        }

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.mib.structure.figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, history)

    def sample(self, count: int, seed: int, given: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Draws all views, as their means; ``x`` is a draw of the first one.

        Raises:
            UsageError: something is given to condition on.
        """
        if given:
            raise UsageError("the views of a learned structure are drawn together: there is nothing to condition on")
        drawn = draw(self.pair.model, count)
        return {"x": drawn[self.recipe.views[0]].sample(), **{name: p.mean for name, p in drawn.items()}}

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.recipes.mib.structure.figures import view_sheet  # matplotlib is imported only where something is drawn

        return view_sheet({name: samples[name] for name in self.recipe.views}, "Views drawn together")
