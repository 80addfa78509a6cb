"""Importance-weighted log-likelihoods of single examples, in bounded memory."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine import block, replay, trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pyzoo.checks import require_batch, require_count, require_kind, require_switch, require_tensor
from pyzoo.infer.graph import compilers_reason, traced
from pyzoo.infer.parameter_store import without_parameter_store
from pyzoo.infer.trace_kl import is_masked_out

__all__ = ["log_likelihood"]

Batch = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


@torch.no_grad()
def log_likelihood(
    model: Any, guide: Any, batch: Batch, num_samples: int = 5000, max_rows: int = 4096, compile: bool = False
) -> Tensor:
    r"""Importance-weighted estimate of each example's log p(x).

    .. math:: \log \frac{1}{S} \sum_{s=1}^{S} \frac{p(x, z_s)}{q(z_s \mid x)}, \qquad z_s \sim q(z \mid x)

    Its expectation is a lower bound, and grows to log p(x) with S. Pyro's ``RenyiELBO(alpha=0)`` averages the weights of a whole
    batch, or needs all samples at once; this one repeats examples along the batch, so any model with one plate over the
    examples serves, and only ``max_rows`` rows exist at a time. Factors named ``penalty/...`` are left out.

    A guide may have a method ``precompute`` that takes the batch and returns further keyword arguments of its own, a dict of
    tensors with one row for each example: what it computes from the batch alone. It is called once for an example, not once for
    a sample.

    Source: Burda, Grosse and Salakhutdinov (2016), "Importance Weighted Autoencoders", eq. 8.

    Args:
        model: the generative program, in evaluation mode; all its sites stand in the plate over the examples.
        guide: the inference program; likewise. A site that examples share (a graph, say) must be fixed first.
        batch: the programs' arguments, tensors with the examples along their first dimension: a dict of keyword arguments, or a
            tuple of positional ones, or the only one itself.
        num_samples: S.
        max_rows: the most rows (examples times samples) in one call of the programs.
        compile: compile what the programs compute, which takes a quarter of a minute and a C++ compiler, and then half of the
            time. They must not branch on values of tensors. The noise is the same.

    Returns:
        (examples,), in nats.

    Raises:
        ValueError: guide and model draw other latents, a site is outside the plate over the examples, the batch's tensors differ
            in length, num_samples or max_rows is below 1, or a batch normalization is in training mode, in which an example's
            density depends on the others'.

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
        >>> log_likelihood(model, guide, torch.tensor([0.0, 2.0]), num_samples=3)
        tensor([-1.2655, -2.2655])
    """
    require_kind(model, "model", Callable)
    require_kind(guide, "guide", Callable)
    require_count(num_samples, "num_samples")
    require_count(max_rows, "max_rows")
    require_switch(compile, "compile")
    for name, program in (("model", model), ("guide", guide)):
        parts = program.modules() if isinstance(program, nn.Module) else ()
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in parts):
            raise ValueError(f"The {name} normalizes over a batch: call .eval() first, or an example's density is of its batch.")
    arguments = _named(batch)
    examples = require_batch(arguments)
    blocks = [{key: value[i : i + max_rows] for key, value in arguments.items()} for i in range(0, examples, max_rows)]
    if not blocks:
        return torch.zeros(0, device=next(iter(arguments.values())).device)
    weigh = _Compiled(model, guide) if compile else partial(_log_sums, model, guide)
    with without_parameter_store(model, guide):
        return torch.cat([_block(guide, weigh, part, num_samples, max_rows) for part in blocks])


def _named(batch: Batch) -> dict[int | str, Tensor]:
    """The arguments by keyword, or by position."""
    if isinstance(batch, Mapping):
        return dict(batch)
    require_kind(batch, "batch", Tensor, Sequence, Mapping)
    return dict(enumerate([batch] if isinstance(batch, Tensor) else batch))


def _call(program: Callable, arguments: Mapping[int | str, Tensor], further: Mapping[str, Tensor]) -> Any:
    positional = [value for key, value in arguments.items() if isinstance(key, int)]
    return program(*positional, **{key: value for key, value in arguments.items() if isinstance(key, str)}, **further)


def _block(guide, weigh: Callable, batch: Mapping[int | str, Tensor], num_samples: int, max_rows: int) -> Tensor:
    examples = len(next(iter(batch.values())))
    most = max(1, max_rows // examples)
    encoded = _call(guide.precompute, batch, {}) if hasattr(guide, "precompute") else {}
    require_kind(encoded, "what the guide's precompute returns", Mapping)
    for name, value in encoded.items():
        require_tensor(value, f"'{name}' of the guide's precompute")
        if not value.dim() or len(value) != examples:
            what = f"as many rows as the batch, {examples}, got {tuple(value.shape)}"
            raise ValueError(f"'{name}' of the guide's precompute must have {what}.")
    total = None
    for start in range(0, num_samples, most):
        repeats = min(most, num_samples - start)
        rows, features = (
            {key: value if repeats == 1 else value.repeat_interleave(repeats, 0) for key, value in part.items()}
            for part in (batch, encoded)
        )
        log_sum = weigh(rows, features, examples, repeats)
        total = log_sum if total is None else torch.logaddexp(total, log_sum)
    return total - math.log(num_samples)


def _log_sums(model, guide, rows, encoded, examples: int, repeats: int) -> Tensor:
    """The logarithm of the sum of each example's weights, (examples,)."""
    return _log_weights(model, guide, rows, encoded, examples, repeats).view(examples, repeats).logsumexp(1)


class _Compiled:
    """:func:`_log_sums` of rows of one number of examples and of repeats after another; those that come again are compiled."""

    def __init__(self, model, guide) -> None:
        self.as_it_stands = partial(_log_sums, model, guide)
        self.seen: dict[tuple[int, int], Callable | None] = {}

    def __call__(self, rows, encoded, examples: int, repeats: int) -> Tensor:
        form = examples, repeats
        if form not in self.seen:  # with all checks, and for the number that comes once only
            self.seen[form] = None
            return self.as_it_stands(rows, encoded, examples, repeats)
        if self.seen[form] is None:
            self.seen[form] = self._made(rows, encoded, examples, repeats)
        return self.seen[form](rows, encoded)

    def _made(self, rows, encoded, examples: int, repeats: int) -> Callable:
        def log_sums(rows, encoded):
            return self.as_it_stands(rows, encoded, examples, repeats)

        graph = traced(log_sums, (rows, encoded), for_compiler=True)
        reason = "the programs branch on values of tensors, or read them"
        if graph is not None:
            found = graph.compiled()
            try:
                with torch.random.fork_rng():
                    found(rows, encoded)
                return found
            except Exception as error:  # torch fails in many ways
                reason = compilers_reason(error)
        warnings.warn(f"The likelihood is not compiled: {reason}", RuntimeWarning, stacklevel=6)
        return log_sums if graph is None else graph


def _log_weights(
    model, guide, rows: Mapping[int | str, Tensor], encoded: Mapping[str, Tensor], examples: int, repeats: int
) -> Tensor:
    """log p(x, z) - log q(z | x) of each row; what is encoded goes to the guide alone."""
    model, guide = (block(program, hide_fn=lambda site: site["name"].startswith("penalty/")) for program in (model, guide))
    guide_trace = _call(trace(guide).get_trace, rows, encoded)
    model_trace = _call(trace(replay(model, trace=guide_trace)).get_trace, rows, {})
    size = examples * repeats
    plates = _plates([*_scored(model_trace), *_scored(guide_trace)], examples, repeats)
    if len(plates) > 1:  # another plate has as many entries by chance: it does not grow with the rows
        rows, encoded = ({key: torch.cat([value, value[-1:]]) for key, value in part.items()} for part in (rows, encoded))
        plates &= _plates(_scored(_call(trace(guide).get_trace, rows, encoded)), 1, size + 1)
    plate = min(plates)
    _require_same_latents(model_trace, guide_trace)
    return _joint(model_trace, plate, size) - _joint(guide_trace, plate, size)


def _require_same_latents(model_trace, guide_trace) -> None:
    """Raises a ValueError unless the guide draws the model's latents, and besides these auxiliary variables alone."""
    ours, theirs = ({site["name"] for site in _scored(each) if _is_latent(site)} for each in (model_trace, guide_trace))
    auxiliary = {site["name"] for site in _scored(guide_trace) if site["infer"].get("is_auxiliary")}
    for names, problem in ((ours - theirs, "does not draw"), (theirs - ours - auxiliary, "draws, and the model does not,")):
        if names:
            raise ValueError(f"The guide {problem} {', '.join(map(repr, sorted(names)))}: the result would be no likelihood.")


def _is_latent(site: Mapping[str, Any]) -> bool:
    """Whether a site draws something whose density counts."""
    return not (site["is_observed"] or is_masked_out(site))


def _scored(program_trace) -> list[dict[str, Any]]:
    return [site for site in program_trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]


def _plates(sites: list[dict[str, Any]], examples: int, repeats: int) -> set[str]:
    """Names of the plates that may be the one over the rows: those of their number, around every site."""
    size = examples * repeats
    around = [{frame.name for frame in site["cond_indep_stack"] if frame.vectorized and frame.size == size} for site in sites]
    common = set.intersection(*around) if around else set()
    if not common:
        alone = next(
            (site["name"] for site, names in zip(sites, around, strict=True) if not names), sites[0]["name"] if sites else "none"
        )
        raise ValueError(
            f"Site '{alone}' is not in one plate with all others over the {size} rows of {examples} examples times {repeats} "
            "samples: fix its value first, or call .eval() if it is only drawn in training."
        )
    return common


def _joint(program_trace, plate: str, size: int) -> Tensor:
    """The log-density of each row, in single precision or better: sums in half precision would be off by nats.

    A plate's scale is for estimates over a whole data set and does not belong here.
    """
    total = 0.0
    for site in _scored(program_trace):
        log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
        log_prob = log_prob.to(torch.promote_types(log_prob.dtype, torch.float32))
        dim = next(frame.dim for frame in site["cond_indep_stack"] if frame.name == plate)
        log_prob = log_prob.expand(torch.broadcast_shapes(log_prob.shape, (size,) + (1,) * (-dim - 1)))
        total = total + log_prob.movedim(dim, -1).reshape(-1, size).sum(0)
    return total
