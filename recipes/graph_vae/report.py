"""What is measured of a Graph VAE: bounds, likelihoods and the graph, on images binarized once and for all.

In metrics.csv, as training goes on:

- ``gate_3_1``: the probability of the edge from node 3 to node 1, and so on.
- ``held_out_elbo`` of up to 1,000 held-out images, and ``log_likelihood`` of the first 500 by 100 importance samples.

In results.json, in nats per image, with the most likely graph and batch norm's running averages; on test images, or, with
``--validation``, on held-out ones, and then ``validation_`` in place of ``test_``:

- ``test_elbo``, ``test_kl``: the bound and its sum of KLs, one sample for each image; ``nats_z_n`` is the KL of node n.
- ``train_elbo``: the bound on as many images that were trained on, binarized once.
- ``test_log_likelihood_quick``: by 500 importance samples, the first 1,000 images or what there are.
- ``test_log_likelihood``: by 5,000 importance samples, all images; only on request.
- the same with ``_bpd`` at their end, for pixels with a density: log p / (D ln 2) - 8 bits per dimension of 256 gray levels,
  which is what the paper's numbers look like (exactly it would be log2 255); the pixels are not dequantized, so it is of a
  density and has no upper bound.
- ``parameters``: of model and guide; ``edges_kept``: in the most likely graph.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from pyzoo.evaluation import mean_log_likelihood, site_terms
from pyzoo.recipes.images import ImageReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pyzoo.training import Panel

__all__ = ["GraphVAEReport", "bits_per_dimension"]


class GraphVAEReport(ImageReport):
    """The report of Graph VAE and of its fixed structures."""

    quick_images: ClassVar[int] = 1000
    quick_samples: ClassVar[int] = 500
    full_samples: ClassVar[int] = 5000

    def monitor(self, step: int) -> dict[str, float]:
        gates, found = self.pair.model.gates, {}
        if gates.learned:
            probabilities = gates.probabilities().tolist()
            for node in range(self.recipe.networks.nodes):
                found |= {f"gate_{parent + 1}_{node + 1}": probabilities[parent][node] for parent in gates.parents(node)}
        return found

    def validate(self, step: int) -> dict[str, float]:
        found = mean_log_likelihood(*self.pair, {"x": self.held_out[:500]}, 100)
        return super().validate(step) | {"log_likelihood": found}

    def metrics(self, full: bool = False) -> dict[str, float]:
        split, (x, _) = self.recipe.measured_split, self.measured
        terms, train_terms = site_terms(*self.pair, {"x": x}), site_terms(*self.pair, {"x": self.trained_on[: len(x)]})
        nats = {
            f"{split}_elbo": -sum(terms.values()),
            f"{split}_kl": sum(term for name, term in terms.items() if name != "x"),
            "train_elbo": -sum(train_terms.values()),
            f"{split}_log_likelihood_quick": self._likelihood(x[: self.quick_images], self.quick_samples),
        }
        if full:
            nats[f"{split}_log_likelihood"] = self._likelihood(x, self.full_samples)
        found = dict(nats)
        if self.recipe.is_color:
            found |= {f"{name}_bpd": bits_per_dimension(name, value, x[0].numel()) for name, value in nats.items()}
        found |= {f"nats_{name}": term for name, term in terms.items() if name != "x"}
        found["parameters"] = self.pair.num_parameters
        found["edges_kept"] = self.pair.model.gates.most_likely().sum().item()
        return found

    @functools.cached_property
    def trained_on(self) -> Tensor:
        """The images that were trained on as the likelihood takes them."""
        return self.recipe.observed_training_images().to(self.device)

    def _likelihood(self, x: Tensor, num_samples: int) -> float:
        return mean_log_likelihood(*self.pair, {"x": x}, num_samples, max_rows=10_000)

    def panels(self) -> Sequence["Panel"]:
        from pyzoo.recipes.graph_vae.panels import panels

        return panels(self)

    def figures(self, history: Sequence[Mapping[str, float]]) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.graph_vae.figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, history)


def bits_per_dimension(name: str, nats: float, dimensions: int) -> float:
    """A metric in bits per dimension; those of a density are of 256 gray levels, a KL is a difference."""
    return nats / (dimensions * math.log(2)) - (0 if name.endswith("_kl") else 8)
