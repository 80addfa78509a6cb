"""A whole training step as one compiled graph: loss, gradient, clipping and Adam."""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyzoo.checks import require_kind, require_number
from pyzoo.infer.flat_adam import FlatAdam
from pyzoo.infer.graph import compilers_reason
from pyzoo.infer.traced import TracedStep, with_channels_last
from pyzoo.infer.update import update
from pyzoo.settings import Above

__all__ = ["CompiledStep", "compile_step"]


class _Unused(Exception):
    """A parameter is not used, and has no gradient: the optimizer leaves it where it is, which a whole graph does not."""


class CompiledStep(TracedStep):
    """A training step by a compiler. See :func:`compile_step`."""

    def __init__(
        self,
        loss: nn.Module,
        optimizer: Optimizer,
        clip_norm: float | None = None,
        context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
        parameters: Collection[nn.Parameter] | None = None,
    ) -> None:
        require_kind(optimizer, "optimizer", Optimizer)
        if clip_norm is not None:
            require_number(clip_norm, "clip_norm", Above(0))
        super().__init__(loss, compiled=True, context=context, parameters=() if parameters is None else parameters)
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self._given = None if parameters is None else list(parameters)
        self._flat: FlatAdam | None = None
        self._apart: set[Any] = set()  # keys of steps that are not one graph

    def __call__(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Takes a step; returns the loss and its terms, detached. If loss or gradient is not finite, no parameter moves."""
        loss, terms, _ = self.take(batch)
        return loss, terms

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those that it moves: of the optimizer's groups, as they are now, unless they were given."""
        if self._given is not None:
            return self._given
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    def take(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Takes a step; returns the loss, its terms, and 1.0 if no parameter moved, else 0.0."""
        self.require_batch(batch)
        self._wanted = {id(parameter) for parameter in self.parameters}
        key, inputs = self.key(batch)
        failure = ""
        if key not in self._apart:
            found, failure = self._whole(key, inputs)
            if found is not None:
                self.optimizer._opt_called = True  # no warning that a scheduler went first
                return found
            self._apart.add(key)
            if self._flat is not None:
                self._flat.release()
        if failure:
            self.fallback = ""
        loss, terms = super().__call__(batch)
        if failure and not self.fallback:  # else the rest was not compiled either, and the warning was of that
            self.falls_back(f"The step is compiled without its optimizer: {failure}")
        return loss, terms, update(self.optimizer, self.parameters, loss, self.clip_norm)

    def _whole(self, key: Any, inputs: tuple[dict[str, Tensor], ...]) -> tuple[Any, str]:
        """Takes the step as one graph; what it gives is None if it is none, and beside it is the reason if that is a failure."""
        params, buffers, batch = inputs
        trained = [params[name] for name in key[0]]
        if self._flat is None or not self._flat.is_current(trained):
            if self._flat is not None:
                self._flat.release()
            self._flat = FlatAdam.of(self.optimizer, trained)
        flat = self._flat
        if flat is None:
            return None, ""
        for parameter in trained:
            parameter.grad = None
        names = {id(params[name]): name for name in key[0]}
        fixed = {name: p for name, p in params.items() if id(p) not in names}
        kept = flat.tensors()
        moves = torch.ones((), dtype=torch.bool, device=trained[0].device)
        whole, arguments = ("whole", *key, flat.form), (kept, fixed, buffers, batch, moves)
        if whole in self._graphs:
            self._graphs.move_to_end(whole)
            return self._graphs[whole](*arguments), ""

        def step(kept, fixed, buffers, batch, moves):
            views = {place: view.detach().requires_grad_() for place, view in flat.views(kept).items()}
            params = {names[place]: view for place, view in views.items()}
            loss, terms = self._loss(with_channels_last({**params, **fixed}), buffers, batch)
            gradients = dict(zip(views, torch.autograd.grad(loss, list(views.values()), allow_unused=True), strict=True))
            if any(gradient is None for gradient in gradients.values()):
                raise _Unused
            with torch.no_grad():
                gathered, good = self._clipped(flat.gathered(gradients), loss)
                flat.move(kept, gathered, good & moves)
            return loss.detach(), {name: term.detach() for name, term in terms.items()}, 1 - good.to(torch.float32)

        try:
            # Tracing runs the step. So that it need not keep copies of all that Adam writes to, it moves nothing then.
            still = (kept, fixed, buffers, batch, ~moves)
            graph = self._trace(step, still, buffers.values(), for_compiler=True)
            if graph is None:
                return None, ""
            return self._keep(whole, graph.compiled(), arguments), ""
        except _Unused:
            return None, ""
        except Exception as error:  # a compiler fails in many ways
            return None, compilers_reason(error)

    def _clipped(self, gradients: Sequence[Tensor], loss: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """The gradients, clipped, and whether they and the loss are finite. As :func:`pyzoo.infer.update.update` does it."""
        if self.clip_norm is None:
            extremes = [extreme for gradient in gradients if gradient.numel() for extreme in (gradient.amin(), gradient.amax())]
            return gradients, torch.stack([loss.isfinite(), *(extreme.isfinite() for extreme in extremes)]).all()
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        share = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        return [gradient * share for gradient in gradients], norm.isfinite() & loss.isfinite()


def compile_step(loss: nn.Module, optimizer: Optimizer, clip_norm: float | None = None) -> CompiledStep:
    """A training step of a model and a guide of your own, compiled.

    Pyro's ``SVI.step`` runs model and guide in Python each time, and ``torch.compile`` cannot read them. Here their Python runs
    once for each shape of batch, and what it computes is compiled together with its gradient: see :class:`TracedStep`. Where the
    optimizer is torch's Adam or AdamW, its step is a part of the same graph: its parameters are then views of one tensor. Its
    learning rate may be scheduled, and its state is saved and restored, as ever. Other optimizers take their own step afterwards.

    Args:
        loss: such as ``NegativeELBO(model, guide)``.
        optimizer: of its parameters.
        clip_norm: largest norm of the gradient.

    Returns:
        A function from keyword arguments, the programs' batch, to the loss and its terms.

    Example:
        >>> from pyzoo.infer import NegativeELBO
        >>> class Model(pyro.nn.PyroModule):
        ...     def __init__(self):
        ...         super().__init__("model")
        ...         self.decoder = torch.nn.Linear(2, 3)
        ...     def forward(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        ...             pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)
        >>> class Guide(pyro.nn.PyroModule):
        ...     def __init__(self):
        ...         super().__init__("guide")
        ...         self.encoder = torch.nn.Linear(3, 2)
        ...     def forward(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))
        >>> loss = NegativeELBO(Model(), Guide())
        >>> step = compile_step(loss, torch.optim.Adam(loss.parameters(), lr=1e-3))
        >>> for _ in range(10):  # doctest: +SKIP
        ...     value, terms = step(x=torch.zeros(64, 3))
    """
    return CompiledStep(loss, optimizer, clip_norm)
