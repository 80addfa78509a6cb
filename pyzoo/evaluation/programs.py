"""What serves any model and its guide: shares of the ELBO, likelihoods, posterior means, reconstructions, samples.

All expect programs in evaluation mode and draw from the global random state.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyzoo.checks import require_batch, require_count, require_kind, require_names, require_names_of
from pyzoo.infer import AtMean, TraceKL_ELBO, log_likelihood
from pyzoo.infer.at_mean import mean_of
from pyzoo.infer.graph import has_compiler

__all__ = ["blocks", "generate", "mean_log_likelihood", "posterior_means", "reconstruct", "site_terms"]


_WORTH_COMPILING = 4_000_000
"""Samples for whose weights the programs are compiled: a minute or more of what a compiler halves."""


def blocks(batch: Mapping[str, Tensor], rows: int) -> Iterator[dict[str, Tensor]]:
    """The examples of a batch, at most so many at a time.

    Raises:
        ValueError: ``rows`` is below 1, or the batch's tensors differ in length.
    """
    count = require_batch(batch)
    require_count(rows, "rows")
    for start in range(0, count, rows):
        yield {name: value[start : start + rows] for name, value in batch.items()}


@torch.no_grad()
def site_terms(model: Any, guide: Any, batch: Mapping[str, Tensor], rows: int = 1000) -> dict[str, float]:
    """Each site's share of the negative ELBO, in nats per example; minus their sum is the ELBO.

    Args:
        model: the generative program.
        guide: the inference program, without penalties, which are no part of a bound.
        batch: their keyword arguments, the examples along each first dimension.
        rows: examples in a call.

    Example:
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x, 1.0), infer={"kl": "analytic"})
        >>> round(site_terms(model, guide, {"x": torch.tensor([1.0, -1.0])})["z"], 3)
        0.5
    """
    count, total = require_batch(batch), {}
    require_kind(model, "model", Callable)
    require_kind(guide, "guide", Callable)
    if not count:
        raise ValueError("The mean over a batch needs an example.")
    for block in blocks(batch, rows):
        for name, term in TraceKL_ELBO().terms(model, guide, **block).items():
            total[name] = total.get(name, 0.0) + term.item() / count
    return total


def mean_log_likelihood(model: Any, guide: Any, batch: Mapping[str, Tensor], num_samples: int, max_rows: int = 4096) -> float:
    """The mean of :func:`pyzoo.infer.log_likelihood` over the examples of a batch, in nats.

    On a CPU with a compiler the programs are compiled if there are enough samples to gain by it.
    """
    examples = require_batch(batch)
    if not examples:
        raise ValueError("The mean over a batch needs an example.")
    on_cpu = all(value.device.type == "cpu" for value in batch.values())
    pays = on_cpu and examples * num_samples >= _WORTH_COMPILING and has_compiler()
    return log_likelihood(model, guide, batch, num_samples, max_rows, compile=pays).double().mean().item()


@torch.no_grad()
def posterior_means(guide: Any, batch: Mapping[str, Tensor], sites: Collection[str]) -> dict[str, Tensor]:
    """Each latent's mean given the batch, and given the means of the sites that the guide draws before it."""
    require_kind(batch, "batch", Mapping)
    require_kind(guide, "guide", Callable)
    require_names_of(sites, "sites")
    with AtMean(sites):
        trace = pyro.poutine.trace(guide).get_trace(**batch)
    require_names(sites, _sites(trace), "site")
    return {name: trace.nodes[name]["value"] for name in sites}


@torch.no_grad()
def reconstruct(model: Any, guide: Any, batch: Mapping[str, Tensor], site: str = "x") -> Tensor:
    """The mean of p(x | latents) at a draw of the latents given the batch."""
    require_kind(batch, "batch", Mapping)
    require_kind(model, "model", Callable)
    require_kind(guide, "guide", Callable)
    drawn = pyro.poutine.trace(guide).get_trace(**batch)
    trace = pyro.poutine.trace(pyro.poutine.replay(model, trace=drawn)).get_trace(**batch)
    require_names([site], _sites(trace), "site")
    return mean_of(trace.nodes[site]["fn"], site)


@torch.no_grad()
def generate(model: Any, site: str = "x", **arguments: Any) -> dict[str, Tensor]:
    """Draws from a model: ``x``, and the mean of p(x | latents) that each was drawn from."""
    trace = pyro.poutine.trace(model).get_trace(**arguments)
    require_names([site], _sites(trace), "site")
    found = trace.nodes[site]
    return {"x": found["value"], "mean": mean_of(found["fn"], site)}


def _sites(trace: Any) -> list[str]:
    """The names of what a program draws or observes."""
    return [name for name, site in trace.nodes.items() if site["type"] == "sample" and not site_is_subsample(site)]
