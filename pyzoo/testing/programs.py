"""Checks of a model with its guide."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pyro
import torch
from pyro.infer import ELBO, SVI, Trace_ELBO
from torch import Tensor, nn

from pyzoo.checks import require_count, require_kind
from pyzoo.infer import TraceKL_ELBO
from pyzoo.infer.parameter_store import name_conflict
from pyzoo.settings import cut

__all__ = ["check_elbo", "check_svi"]


def check_elbo(
    model: nn.Module, guide: nn.Module, batch: Mapping[str, Tensor], num_samples: int = 100, elbo: ELBO | None = None
) -> None:
    """Checks the guide's analytic marks: TraceKL_ELBO and Trace_ELBO agree in value and in gradient, in expectation.

    The gradient is compared along 8 random directions of all parameters, each within six standard errors of the mean difference.
    Both draw the same noise, so that most of what varies from draw to draw is not in the difference.

    Args:
        model: the generative program.
        guide: the inference program.
        batch: their keyword arguments.
        num_samples: how often to draw both estimates.
        elbo: the one to compare with Trace_ELBO; by default ``TraceKL_ELBO()``.

    Raises:
        AssertionError: they disagree, or model and guide share entries of Pyro's parameter store.
        ValueError: these are no pair with something to train, or it does not take the batch.

    Example:
        >>> from pyzoo.infer import analytic
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> class Guide(torch.nn.Linear):
        ...     def forward(self, x):
        ...         pyro.sample("z", dist.Normal(super().forward(x.view(1, 1)).squeeze(), 0.5), infer=analytic)
        >>> check_elbo(model, Guide(1, 1), {"x": torch.tensor(2.0)})
    """
    require_count(num_samples, "num_samples", 2)
    require_kind(elbo, "elbo", ELBO, type(None))
    require_programs((model, guide), batch)
    assert_no_conflict(model, guide)
    # Not a set, whose order is another one in each process.
    parameters = list(dict.fromkeys(p for program in (model, guide) for _, p in named_parameters(program) if p.requires_grad))
    directions = [torch.cat([torch.randn_like(p).flatten() for p in parameters]) for _ in range(8)]
    names = ["value", *(f"gradient along direction {i}" for i in range(len(directions)))]

    def draw(elbo: ELBO, seed: int) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            loss = elbo.differentiable_loss(model, guide, **batch)
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
        gradient = torch.cat([g.flatten() for g in gradients])
        return torch.stack([loss.detach(), *((gradient * direction).sum() for direction in directions)]).double()

    elbos = (TraceKL_ELBO() if elbo is None else elbo, Trace_ELBO())
    seeds = torch.randint(2**62, (num_samples,)).tolist()
    ours, theirs = (torch.stack([draw(each, seed) for seed in seeds]) for each in elbos)
    difference = ours - theirs
    error = difference.mean(0).abs()
    bound = 6 * (difference.var(0) / num_samples).sqrt() + 1e-4 * theirs.mean(0).abs()
    for name, e, b in zip(names, error.tolist(), bound.tolist(), strict=True):
        assert e <= b, f"{name} differs by {6 * e / b:.1f} standard errors: is each analytic mark of the guide valid?"


def check_svi(model: nn.Module, guide: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Checks that the pair takes a plain ``SVI`` step in which every trainable parameter moves and nothing else does.

    Clears Pyro's parameter store.

    Args:
        model: the generative program.
        guide: the inference program.
        batch: their keyword arguments.

    Raises:
        AssertionError: a trainable parameter did not move; a parameter appeared, disappeared, or was frozen and is not any more;
            or model and guide share entries of Pyro's parameter store.

    Example:
        >>> def model(x):
        ...     z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> class Guide(pyro.nn.PyroModule):
        ...     def __init__(self):
        ...         super().__init__("guide")
        ...         self.layer = torch.nn.Linear(1, 1)
        ...     def forward(self, x):
        ...         pyro.sample("z", dist.Normal(self.layer(x.view(1, 1)).squeeze(), 0.5))
        >>> check_svi(model, Guide(), {"x": torch.tensor(2.0)})
    """
    require_programs((model, guide), batch)
    assert_no_conflict(model, guide)
    before, after = svi_step(model, guide, batch)
    assert_kept_frozen(before, after)
    assert_moved(before, after)


def require_programs(pair: Any, batch: Any) -> None:
    """Raises a ValueError unless these are a model and a guide with parameters to train, and a batch that both take."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"A pair must be a model and its guide, got {cut(pair)}.")
    require_kind(batch, "batch", Mapping)
    if not all(isinstance(name, str) for name in batch):
        raise ValueError(f"The batch must hold tensors by the names of arguments, got {cut(list(batch))}.")
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError("The batch must hold a tensor, and holds none.")
    for name, value in tensors.items():
        if not value.numel():
            raise ValueError(f"'{name}' of the batch must not be empty, got {tuple(value.shape)}.")
    for what, program in zip(("model", "guide"), pair, strict=True):
        if not callable(program) or isinstance(program, type):
            raise ValueError(f"The {what} must be a module or a function, got {cut(program)}.")
        try:
            inspect.signature(getattr(program, "forward", program)).bind(**batch)
        except TypeError as error:
            raise ValueError(f"The {what} does not take the batch: {error}.") from error
    if not any(p.requires_grad for program in pair for _, p in named_parameters(program)):
        raise ValueError("Neither program has a parameter to train.")


def assert_no_conflict(model: nn.Module, guide: nn.Module) -> None:
    message = name_conflict(model, guide)
    assert message is None, message


def named_parameters(program: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The named parameters of a program, none if it is a plain function."""
    if isinstance(program, nn.Module):
        yield from program.named_parameters(name)


Snapshot = Mapping[str, tuple[bool, Tensor]]
"""Whether each parameter is trainable, and its value."""


def svi_step(model: nn.Module, guide: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Snapshot, Snapshot]:
    """The parameters before and after one plain step from an empty parameter store."""

    def snapshot() -> Snapshot:
        named = [*named_parameters(model, "model"), *named_parameters(guide, "guide")]
        return {name: (p.requires_grad, p.detach().clone()) for name, p in named}

    pyro.clear_param_store()
    before = snapshot()
    SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step(**batch)
    return before, snapshot()


def assert_moved(before: Snapshot, after: Snapshot) -> None:
    still = [name for name, (trainable, value) in before.items() if trainable and torch.equal(value, after[name][1])]
    assert not still, f"parameters did not move: {still}"


def assert_kept_frozen(before: Snapshot, after: Snapshot) -> None:
    changed = sorted(before.keys() ^ after.keys())
    assert not changed, f"parameters appeared or disappeared: {changed}"
    frozen = [name for name, (trainable, _) in before.items() if not trainable]
    thawed = [name for name in frozen if after[name][0] or not torch.equal(before[name][1], after[name][1])]
    assert not thawed, f"parameters were frozen and became trainable: {thawed}; keep constants in buffers"
