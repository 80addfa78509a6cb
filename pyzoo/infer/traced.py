"""A training step as one graph: the model's and the guide's Python runs once, and only its arithmetic afterwards."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import make_fx

from pyzoo.checks import require_kind, require_pair, require_switch, require_tensor

__all__ = ["TracedStep"]


class TracedStep:
    """Loss, terms and gradients of a module, traced once for each shape of batch.

    Pyro's messengers, the distributions' constructors and autograd cost as much as the arithmetic of a small step. Here
    they run while the step is traced, loss and gradient together, so that what is detached stays so. Whatever is not a
    parameter, a buffer, the batch or random is a constant of the graph, silently: numbers that change belong in buffers.

    Args:
        module: its ``forward(**batch)`` returns a 0-dim loss and a dict of terms, and neither branches on values of tensors nor
            waits for the device.
        compiled: compile the graphs with ``torch.compile``, which takes up to minutes for each and a C++ compiler on a CPU.
        context: makes the context to trace in, such as autocast.
        parameters: those whose gradients are wanted; by default all that are trainable.

    Example:
        >>> class Square(torch.nn.Linear):
        ...     def forward(self, x):
        ...         loss = super().forward(x).square().sum()
        ...         return loss, {"x": loss.detach()}
        >>> module = Square(2, 1)
        >>> loss, terms = TracedStep(module)({"x": torch.ones(3, 2)})
        >>> module.weight.grad.shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        module: nn.Module,
        compiled: bool = False,
        context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
        parameters: Collection[nn.Parameter] | None = None,
    ) -> None:
        require_kind(module, "module", nn.Module)
        require_switch(compiled, "compiled")
        require_kind(context, "context", Callable)
        self.module = module
        self.compiled = compiled
        self.context = context
        self._wanted = None if parameters is None else {id(parameter) for parameter in parameters}
        self._graphs: dict[Any, Callable] = {}

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms, detached; the gradient goes to the parameters' ``grad``, in place of what was there."""
        require_kind(batch, "batch", Mapping)
        for name, value in batch.items():
            require_tensor(value, name)
        params, buffers = dict(self.module.named_parameters()), dict(self.module.named_buffers())
        inputs = params, buffers, dict(batch)
        trained = tuple(name for name, p in params.items() if p.requires_grad and (self._wanted is None or id(p) in self._wanted))
        for name in trained:
            params[name].grad = None  # else the last gradient takes up memory beside the next
        key = trained, self.module.training, tuple((k, v.shape, v.dtype, v.device) for k, v in batch.items())
        if key not in self._graphs:
            self._graphs[key] = self._trace(trained, inputs)
        with torch.no_grad(), _keep_validation():
            loss, terms, gradients = self._graphs[key](*inputs)
        for name, gradient in zip(trained, gradients, strict=True):
            params[name].grad = gradient
        return loss, terms

    def _trace(self, trained: tuple[str, ...], inputs: tuple[dict[str, Tensor], ...]) -> Callable:
        if not trained:
            raise ValueError("No parameter of the module is to be trained.")

        def step(params, buffers, batch):
            result = torch.func.functional_call(self.module, (params, buffers), kwargs=batch)
            require_pair(result, "What the module returns", "a loss and a dict of terms")
            loss, terms = result
            gradients = torch.autograd.grad(loss, [params[name] for name in trained], allow_unused=True)
            return loss, terms, gradients

        # Tracing runs the step, which will be run again: its noise must be drawn again, and batch norm must not count it
        # twice. Validation would read values.
        before = {name: buffer.clone() for name, buffer in inputs[1].items()}
        with self.context(), torch.random.fork_rng(), pyro.validation_enabled(False):
            graph = make_fx(step)(*inputs)
        for name, buffer in inputs[1].items():
            buffer.copy_(before[name])
        if not self.compiled:
            return graph
        with _keep_validation():
            return torch.compile(graph)


@contextlib.contextmanager
def _keep_validation():
    """torch.compile switches the validation of distributions off for the whole process."""
    before = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
