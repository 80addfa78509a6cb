"""Importance-weighted log-likelihoods of single examples, in bounded memory."""

import math
from collections.abc import Mapping

import torch
from pyro.poutine import block, replay, trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

__all__ = ["log_likelihood"]


@torch.no_grad()
def log_likelihood(model, guide, batch: Mapping[str, Tensor], num_samples: int = 5000, max_rows: int = 4096) -> Tensor:
    r"""Importance-weighted estimate of each example's log p(x).

    .. math:: \log \frac{1}{S} \sum_{s=1}^{S} \frac{p(x, z_s)}{q(z_s \mid x)}, \qquad z_s \sim q(z \mid x)

    Its expectation is a lower bound, and grows to log p(x) with S. Pyro's ``RenyiELBO(alpha=0)`` averages the weights of a whole
    batch, or needs all samples at once; this one repeats examples along the batch, so any model with one plate over the
    examples serves, and only ``max_rows`` rows exist at a time. Factors named ``penalty/...`` are left out.

    Source: Burda, Grosse and Salakhutdinov (2016), "Importance Weighted Autoencoders", eq. 8.

    Args:
        model: the generative program; all its sites stand in the plate over the examples.
        guide: the inference program; likewise. A site that examples share (a graph, say) must be fixed first.
        batch: the programs' keyword arguments, each with the examples along its first dimension.
        num_samples: S.
        max_rows: the most rows (examples times samples) in one call of the programs.

    Returns:
        (examples,), in nats.

    Raises:
        ValueError: a site is outside the plate over the examples, or num_samples or max_rows is below 1.

    Example:
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))  # the exact posterior, so every weight is p(x)
        >>> log_likelihood(model, guide, {"x": torch.tensor([0.0, 2.0])}, num_samples=3)
        tensor([-1.2655, -2.2655])
    """
    if num_samples < 1 or max_rows < 1:
        raise ValueError(f"num_samples and max_rows must be at least 1, got {num_samples} and {max_rows}.")
    examples = len(next(iter(batch.values())))
    blocks = [{key: value[i : i + max_rows] for key, value in batch.items()} for i in range(0, examples, max_rows)]
    return torch.cat([_block(model, guide, part, num_samples, max_rows) for part in blocks])


def _block(model, guide, batch: Mapping[str, Tensor], num_samples: int, max_rows: int) -> Tensor:
    examples = len(next(iter(batch.values())))
    most = max(1, max_rows // examples)
    total = None
    for start in range(0, num_samples, most):
        repeats = min(most, num_samples - start)
        rows = {key: value.repeat_interleave(repeats, 0) for key, value in batch.items()}
        log_sum = _log_weights(model, guide, rows, examples * repeats).view(examples, repeats).logsumexp(1)
        total = log_sum if total is None else torch.logaddexp(total, log_sum)
    return total - math.log(num_samples)


def _log_weights(model, guide, rows: Mapping[str, Tensor], size: int) -> Tensor:
    """log p(x, z) - log q(z | x) of each row."""
    model, guide = (block(program, hide_fn=lambda site: site["name"].startswith("penalty/")) for program in (model, guide))
    guide_trace = trace(guide).get_trace(**rows)
    model_trace = trace(replay(model, trace=guide_trace)).get_trace(**rows)
    return _joint(model_trace, size) - _joint(guide_trace, size)


def _joint(program_trace, size: int) -> Tensor:
    program_trace.compute_log_prob(lambda name, site: not site_is_subsample(site))
    total = 0.0
    for name, site in program_trace.nodes.items():
        if "log_prob" not in site:
            continue
        log_prob = site["log_prob"]
        dims = [frame.dim for frame in site["cond_indep_stack"] if frame.vectorized and frame.size == size]
        if len(dims) != 1:
            raise ValueError(f"Site '{name}' is not in one plate over the {size} rows: fix its value before taking likelihoods.")
        log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, (size,) + (1,) * (-dims[0] - 1)))
        total = total + log_prob.movedim(dims[0], -1).reshape(-1, size).sum(0)
    return total
