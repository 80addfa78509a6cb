"""A training step as one graph: the model's and the guide's Python runs once, and only its arithmetic afterwards."""

import contextlib
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyzoo.checks import require_kind, require_pair, require_switch, require_tensor
from pyzoo.infer.graph import compilers_reason, traced

__all__ = ["TracedStep", "with_channels_last"]

MOST_GRAPHS = 32
"""Graphs that a step keeps, one for each shape of batch; beyond them the one that was not used for longest is forgotten."""


class TracedStep:
    """Loss, terms and gradients of a module, traced once for each shape of batch.

    Pyro's messengers, the distributions' constructors and autograd cost as much as the arithmetic of a small step. Here
    they run while the step is traced, loss and gradient together, so that what is detached stays so. Whatever is not a
    parameter, a buffer, the batch or random is a constant of the graph, silently: numbers that change belong in buffers. Modules
    that are switched between training and evaluation are noticed.

    What cannot be traced, because it branches on values of tensors, runs as it stands; and where nothing can be compiled, as
    without a C++ compiler, the traced graph runs. A warning says so in one line.

    Args:
        module: its ``forward(**batch)`` returns a 0-dim loss and a dict of terms, and should neither branch on values of tensors
            nor wait for the device.
        compiled: compile the graphs with torch's compiler, which takes seconds to minutes for each and a C++ compiler on a CPU.
            Noise is the same as without.
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
        self.fallback: str = ""
        """In one line, what of the step is not computed as it was asked for, and why; empty where all of it is."""
        self._graphs: OrderedDict[Any, Callable] = OrderedDict()
        self._contents = _Contents(module)

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms, detached; the gradient goes to the parameters' ``grad``, in place of what was there."""
        self.require_batch(batch)
        key, inputs = self.key(batch)
        params, trained = inputs[0], key[0]
        for parameter in params.values():
            if self._wanted is None or id(parameter) in self._wanted:
                parameter.grad = None  # else it takes up memory beside the next one, or moves what has been frozen since
        if key in self._graphs:
            self._graphs.move_to_end(key)
            loss, terms, gradients = self._graphs[key](*inputs)
        else:
            loss, terms, gradients = self._first(key, trained, inputs)
        for name, gradient in zip(trained, gradients, strict=True):
            params[name].grad = gradient
        return loss, terms

    @staticmethod
    def require_batch(batch: Mapping[str, Tensor]) -> None:
        """Raises a ValueError unless a batch is tensors by name."""
        require_kind(batch, "batch", Mapping)
        for name, value in batch.items():
            require_tensor(value, name)

    def key(self, batch: Mapping[str, Tensor]) -> tuple[Any, tuple[dict[str, Tensor], ...]]:
        """What a graph is made for, the trained parameters' names first; and its inputs: parameters, buffers and batch."""
        if not self._contents.are_current():
            self._contents = _Contents(self.module)
            self._graphs.clear()
        params, buffers, modes = self._contents.read()
        trained = tuple(name for name, p in params.items() if p.requires_grad and (self._wanted is None or id(p) in self._wanted))
        layouts = tuple((x.shape, x.stride(), x.dtype, x.device) for part in (params, buffers, batch) for x in part.values())
        return (trained, modes, tuple(batch), layouts, _same(batch.values())), (params, buffers, dict(batch))

    def _first(self, key: Any, trained: tuple[str, ...], inputs: tuple[dict[str, Tensor], ...]) -> Any:
        """Makes the graph of a key, and runs it."""
        if not trained:
            raise ValueError("No parameter of the module is to be trained.")

        def step(params, buffers, batch):
            loss, terms = self._loss(params, buffers, batch)
            gradients = torch.autograd.grad(loss, [params[name] for name in trained], allow_unused=True)
            return loss, terms, gradients

        def step_to_compile(params, buffers, batch):
            return step(with_channels_last(params), buffers, batch)

        def as_it_stands(params, buffers, batch):
            with torch.enable_grad(), self.context():
                loss, terms, gradients = step(params, buffers, batch)
            return loss.detach(), {name: term.detach() for name, term in terms.items()}, gradients

        def compiled_graph():
            graph = self._trace(step_to_compile, inputs, inputs[1].values(), for_compiler=True)
            return graph and graph.compiled()

        makers: list[Callable] = [lambda: self._trace(step, inputs, inputs[1].values()), lambda: as_it_stands]
        if self.compiled:
            makers.insert(0, compiled_graph)
        failure: Exception | None = None
        for make in makers:
            way = make()
            way = as_it_stands if way is None else way  # what cannot be traced for a compiler cannot be traced at all
            try:
                found = self._keep(key, way, inputs)
                break
            except Exception as error:  # torch fails in many ways; what is not its fault fails as it stands too
                if way is as_it_stands:
                    raise
                failure = failure or error
        if way is as_it_stands:
            reason = "its model or guide branches on values of tensors, or reads them."
            reason = reason if failure is None else compilers_reason(failure)
            self.falls_back(f"The step runs as it stands, and is not traced: {reason}")
        elif failure is not None:
            self.falls_back(f"The step is traced, and not compiled: {compilers_reason(failure)}")
        return found

    def falls_back(self, message: str) -> None:
        """Warns, at the line of whoever takes the step, and keeps the message as :attr:`fallback`."""
        self.fallback = message
        level, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_globals["__name__"].startswith("pyzoo.infer"):
            level, frame = level + 1, frame.f_back
        warnings.warn(message, RuntimeWarning, stacklevel=level)

    def _loss(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Any:
        result = torch.func.functional_call(self.module, ({**params}, {**buffers}), kwargs={**batch})
        require_pair(result, "What the module returns", "a loss and a dict of terms")
        return result

    def _trace(
        self, function: Callable, inputs: tuple[Any, ...], written: Iterable[Tensor], for_compiler: bool = False
    ) -> Callable | None:
        """The graph of a function; None if it reads values.

        Args:
            function: what is traced.
            inputs: its arguments.
            written: those of their tensors that it may write to: tracing runs it, and it will be run again.
            for_compiler: as in :func:`traced`.
        """
        before = [(tensor, tensor.clone()) for tensor in written]
        slots = [(kept, key, kept[key]) for _, kept, key in self._contents.places]
        try:
            return traced(function, inputs, for_compiler, self.context)
        finally:
            for tensor, value in before:
                tensor.copy_(value)
            for kept, key, value in slots:  # functional_call loses what two parts of a module share
                kept[key] = value

    def _keep(self, key: Any, graph: Callable, inputs: tuple[Any, ...]) -> Any:
        """Runs a graph, and keeps it if it does."""
        found = graph(*inputs)
        while len(self._graphs) >= MOST_GRAPHS:
            self._graphs.popitem(last=False)
        self._graphs[key] = graph
        return found


class _Contents:
    """Where a module's parameters and buffers are, by name: walking through it at each step takes a twentieth of a small one."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = [(part, tuple(part._modules.values()), *_names(part)) for part in module.modules()]
        owners = dict(module.named_modules())

        def places(names: Iterable[tuple[str, Tensor]], attribute: str) -> list[tuple[str, dict[str, Tensor], str]]:
            parts = [(name, *name.rpartition(".")[::2]) for name, _ in names]
            return [(name, getattr(owners[owner], attribute), key) for name, owner, key in parts]

        self._held = [(kept, key) for part in module.modules() for kept in (part._parameters, part._buffers) for key in kept]
        self._tied = self._ties()
        self._parameters = places(module.named_parameters(), "_parameters")
        self._buffers = places(module.named_buffers(), "_buffers")

    @property
    def places(self) -> list[tuple[str, dict[str, Tensor], str]]:
        """Where they all are: name, the part's dict, and the key in it."""
        return [*self._parameters, *self._buffers]

    def are_current(self) -> bool:
        """Whether the module has the parts, and these have the names, that they had."""
        return (
            all(
                tuple(part._modules.values()) == children and _names(part) == (parameters, buffers)
                for part, children, parameters, buffers in self._parts
            )
            and self._ties() == self._tied
        )

    def _ties(self) -> tuple[int, ...]:
        """Which of all parameters and buffers are one."""
        return _same([kept.get(key) for kept, key in self._held])

    def read(self) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[bool, ...]]:
        """The parameters, the buffers, and which parts are in training."""
        parameters, buffers = ({name: kept[key] for name, kept, key in each} for each in (self._parameters, self._buffers))
        return parameters, buffers, tuple(part.training for part, *_ in self._parts)


def with_channels_last(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters, those that may be kernels of a convolution of images on a CPU with their channels last.

    oneDNN then keeps the images so too, and each convolution takes three quarters of the time. The parameters themselves stay as
    they are, and so do steps that are not compiled: there a group normalization of images with their channels last takes thirty
    times as long.
    """

    def arranged(parameter: Tensor) -> Tensor:
        if parameter.dim() != 4 or parameter.device.type != "cpu":
            return parameter
        return parameter.contiguous(memory_format=torch.channels_last)

    return {name: arranged(parameter) for name, parameter in parameters.items()}


def _same(values: Iterable[Any]) -> tuple[int, ...]:
    """For each value the place of the first that is the same object; None is never the same."""
    seen: dict[int, int] = {}
    return tuple(-1 if value is None else seen.setdefault(id(value), place) for place, value in enumerate(values))


def _names(part: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a part's own parameters and buffers."""
    parameters, buffers = ([n for n, kept in named.items() if kept is not None] for named in (part._parameters, part._buffers))
    return tuple(parameters), tuple(buffers)
