"""What is measured of a Graph VAE: bounds, likelihoods and the graph, on images binarised once and for all.

In metrics.csv, as training goes on:

- ``gate_3_1``: the probability of the edge from node 3 to node 1, and so on.
- ``log_likelihood``: of the first 500 images or what there are, by 100 importance samples.

In results.json, in nats per image, with the most likely graph and batch norm's running averages; on test images, or, with
``--validation``, on held-out ones, and then ``validation_`` in place of ``test_``:

- ``test_elbo``, ``test_kl``: the bound and its sum of KLs, one sample for each image; ``nats_z_n`` is the KL of node n.
- ``train_elbo``: the bound on as many images that were trained on, binarised once.
- ``test_log_likelihood_quick``: by 500 importance samples, the first 1,000 images or what there are.
- ``test_log_likelihood``: by 5,000 importance samples, all images; only on request.
- the same with ``_bpd`` at their end, for pixels with a density: log p / (D ln 2) - 8 bits per dimension of 256 grey levels, as
  the paper has it; the pixels are not dequantised, so it is of a density and has no upper bound.
- ``parameters``: of model and guide; ``edges_kept``: in the most likely graph.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyzoo.infer import NegativeELBO, evaluating, log_likelihood
from pyzoo.random import derive_seed

if TYPE_CHECKING:
    from pyzoo.recipes.graph_vae import GraphVAERecipe

__all__ = ["evaluate", "monitor"]

_QUICK_IMAGES, _QUICK_SAMPLES, _FULL_SAMPLES = 1000, 500, 5000
_ROWS = 1000  # images in a call


def monitor(recipe: "GraphVAERecipe", module: NegativeELBO, device: torch.device, likelihood: bool) -> dict[str, float]:
    """Columns of metrics.csv."""
    gates = module.model.gates
    found = {}
    if gates.learned:
        probabilities = gates.probabilities().tolist()
        for node in range(recipe.nodes):
            found |= {f"gate_{parent + 1}_{node + 1}": probabilities[parent][node] for parent in gates.parents(node)}
    if likelihood:
        x, _ = recipe.observed_images(device)
        with evaluating(module):
            found["log_likelihood"] = log_likelihood(module.model, module.guide, {"x": x[:500]}, 100).mean().item()
    return found


def evaluate(recipe: "GraphVAERecipe", module: NegativeELBO, device: torch.device, full: bool = False) -> dict[str, float]:
    """The metrics of results.json."""
    split = recipe.measured_split
    x, _ = recipe.observed_images(device)
    trained_on, _ = recipe.observed_images(device, training=True)
    with torch.random.fork_rng(), evaluating(module):
        torch.manual_seed(derive_seed(recipe.seed, "evaluate"))
        terms, train_terms = _terms(module, x), _terms(module, trained_on[: len(x)])
        nats = {
            f"{split}_elbo": -sum(terms.values()),
            f"{split}_kl": sum(term for name, term in terms.items() if name != "x"),
            "train_elbo": -sum(train_terms.values()),
            f"{split}_log_likelihood_quick": _likelihood(module, x[:_QUICK_IMAGES], _QUICK_SAMPLES),
        }
        if full:
            nats[f"{split}_log_likelihood"] = _likelihood(module, x, _FULL_SAMPLES)
    found = dict(nats)
    if recipe.is_color:
        found |= {f"{name}_bpd": _bits(name, value, x[0].numel()) for name, value in nats.items()}
    found |= {f"nats_{name}": term for name, term in terms.items() if name != "x"}
    found["parameters"] = sum(parameter.numel() for parameter in module.parameters())
    found["edges_kept"] = module.model.gates.most_likely().sum().item()
    return found


def _terms(module: NegativeELBO, x: Tensor) -> dict[str, float]:
    """Each site's share of the negative bound, in nats per image."""
    total: dict[str, float] = {}
    for part in x.split(_ROWS):
        for name, term in module.elbo.terms(module.model, module.guide, x=part).items():
            total[name] = total.get(name, 0.0) + term.item() / len(x)
    return total


def _likelihood(module: NegativeELBO, x: Tensor, num_samples: int) -> float:
    return log_likelihood(module.model, module.guide, {"x": x}, num_samples, max_rows=10_000).double().mean().item()


def _bits(name: str, nats: float, dimensions: int) -> float:
    """Bits per dimension; those of a density are of 256 grey levels, a KL is a difference."""
    return nats / (dimensions * math.log(2)) - (0 if name.endswith("_kl") else 8)
