"""A training step as one graph: the model's and the guide's Python runs once, and only its arithmetic afterwards."""

import contextlib
import os
import shutil
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import Optimizer

from pyzoo.checks import require_kind, require_number, require_pair, require_switch, require_tensor
from pyzoo.errors import one_line
from pyzoo.infer.update import update
from pyzoo.settings import Above

__all__ = ["CompiledStep", "TracedStep", "compile_step"]

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
        compiled: compile the graphs with ``torch.compile``, which takes seconds to minutes for each and a C++ compiler on a CPU.
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
        self._graphs: OrderedDict[Any, Callable] = OrderedDict()
        self._contents = _Contents(module)

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms, detached; the gradient goes to the parameters' ``grad``, in place of what was there."""
        require_kind(batch, "batch", Mapping)
        for name, value in batch.items():
            require_tensor(value, name)
        key, inputs = self.key(batch)
        params, trained = inputs[0], key[0]
        for parameter in params.values():
            if self._wanted is None or id(parameter) in self._wanted:
                parameter.grad = None  # else it takes up memory beside the next one, or moves what has been frozen since
        if key in self._graphs:
            self._graphs.move_to_end(key)
            loss, terms, gradients = self._run(self._graphs[key], inputs)
        else:
            loss, terms, gradients = self._first(key, trained, inputs)
        for name, gradient in zip(trained, gradients, strict=True):
            params[name].grad = gradient
        return loss, terms

    def key(self, batch: Mapping[str, Tensor]) -> tuple[Any, tuple[dict[str, Tensor], ...]]:
        """What a graph is made for, the trained parameters' names first; and its inputs: parameters, buffers and batch."""
        if not self._contents.are_current():
            self._contents = _Contents(self.module)
        params, buffers, modes = self._contents.read()
        trained = tuple(name for name, p in params.items() if p.requires_grad and (self._wanted is None or id(p) in self._wanted))
        shapes = tuple((name, value.shape, value.dtype, value.device) for name, value in batch.items())
        return (trained, modes, shapes), (params, buffers, dict(batch))

    @staticmethod
    def _run(graph: Callable, inputs: tuple[dict[str, Tensor], ...]) -> Any:
        with torch.no_grad(), _keep_validation():
            return graph(*inputs)

    def _first(self, key: Any, trained: tuple[str, ...], inputs: tuple[dict[str, Tensor], ...]) -> Any:
        """Makes the graph of a key, and runs it: it is compiled when it is run."""
        graph, is_traced = self._trace(trained, inputs)
        while len(self._graphs) >= MOST_GRAPHS:
            self._graphs.popitem(last=False)
        if self.compiled and is_traced:
            with _keep_validation():
                compiled = torch.compile(graph, options={"fallback_random": True})  # else it draws other noise
            try:
                found = self._run(compiled, inputs)
                self._graphs[key] = compiled
                return found
            except torch._dynamo.exc.TorchDynamoException as error:
                reason = one_line(error).split(" Set TORCHDYNAMO_VERBOSE")[0]
                warnings.warn(f"The step is traced, and not compiled: {reason}", RuntimeWarning, stacklevel=3)
        self._graphs[key] = graph
        return self._run(graph, inputs)

    def _trace(self, trained: tuple[str, ...], inputs: tuple[dict[str, Tensor], ...]) -> tuple[Callable, bool]:
        """The graph of a step, and whether it is one: otherwise it is the step itself."""
        if not trained:
            raise ValueError("No parameter of the module is to be trained.")

        def step(params, buffers, batch):
            result = torch.func.functional_call(self.module, (params, buffers), kwargs=batch)
            require_pair(result, "What the module returns", "a loss and a dict of terms")
            loss, terms = result
            gradients = torch.autograd.grad(loss, [params[name] for name in trained], allow_unused=True)
            return loss, terms, gradients

        def as_it_stands(params, buffers, batch):
            with torch.enable_grad(), self.context():
                loss, terms, gradients = step(params, buffers, batch)
            return loss.detach(), {name: term.detach() for name, term in terms.items()}, gradients

        # Tracing runs the step, which will be run again: its noise must be drawn again, and batch norm must not count it
        # twice. Validation would read values.
        before = {name: buffer.clone() for name, buffer in inputs[1].items()}
        try:
            with self.context(), torch.random.fork_rng(), pyro.validation_enabled(False):
                return make_fx(step, decomposition_table=_faster() if self.compiled else None)(*inputs), True
        except RuntimeError as error:
            if "tracing tensor" not in str(error):  # so torch says that a value is read
                raise
            reason = "its model or guide branches on values of tensors, or reads them"
            warnings.warn(f"The step runs as it stands, and is not traced: {reason}.", RuntimeWarning, stacklevel=4)
            return as_it_stands, False
        finally:
            for name, buffer in inputs[1].items():
                buffer.copy_(before[name])


class _Contents:
    """Where a module's parameters and buffers are, by name: walking through it at each step takes a twentieth of a small one."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = [(part, tuple(part._modules.values()), *_names(part)) for part in module.modules()]
        owners = dict(module.named_modules())

        def places(names: Iterable[tuple[str, Tensor]], attribute: str) -> list[tuple[str, dict[str, Tensor], str]]:
            parts = [(name, *name.rpartition(".")[::2]) for name, _ in names]
            return [(name, getattr(owners[owner], attribute), key) for name, owner, key in parts]

        self._parameters = places(module.named_parameters(), "_parameters")
        self._buffers = places(module.named_buffers(), "_buffers")

    def are_current(self) -> bool:
        """Whether the module has the parts, and these have the names, that they had."""
        return all(
            tuple(part._modules.values()) == children and _names(part) == (parameters, buffers)
            for part, children, parameters, buffers in self._parts
        )

    def read(self) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[bool, ...]]:
        """The parameters, the buffers, and which parts are in training."""
        parameters, buffers = ({name: kept[key] for name, kept, key in each} for each in (self._parameters, self._buffers))
        return parameters, buffers, tuple(part.training for part, *_ in self._parts)


def _names(part: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a part's own parameters and buffers."""
    parameters, buffers = ([n for n, kept in named.items() if kept is not None] for named in (part._parameters, part._buffers))
    return tuple(parameters), tuple(buffers)


def _faster() -> dict[Any, Callable]:
    """Operations that compiled code has faster in parts: torch's log1p and expm1 take ten times as long as its log and exp on
    many CPUs, where they are not vectorized.

    log1p is in the losses of Bernoulli variables, and in softplus; expm1 is in ELU.
    """
    aten = torch.ops.aten
    made_of_log1p = [aten.softplus, aten.log_sigmoid_forward, aten.binary_cross_entropy_with_logits]
    backward = [aten.softplus_backward, aten.log_sigmoid_backward, aten.elu_backward]
    made_of = get_decompositions([*made_of_log1p, aten.elu, *backward])
    return {**made_of, aten.log1p.default: _log1p, aten.expm1.default: _expm1}


def _log1p(x: Tensor) -> Tensor:
    """log(1 + x) to the last digits: what 1 + x loses of x is put back as a factor. Its gradient is log1p's own, taken before.

    Source: Goldberg (1991), "What Every Computer Scientist Should Know About Floating-Point Arithmetic", theorem 4.
    """
    rounded = 1 + x
    exact = (rounded == 1) | rounded.isinf()
    return torch.where(exact, x, rounded.log() * (x / (rounded - 1)))


def _expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 to the last digits: what exp(x) loses of x is put back as a factor.

    Source: Higham (2002), "Accuracy and Stability of Numerical Algorithms", section 1.14.1, after Kahan.
    """
    rounded = x.exp()
    less = rounded - 1
    found = torch.where((less == -1) | rounded.isinf(), less, less * (x / rounded.log()))
    return torch.where(rounded == 1, x, found)


def has_compiler() -> bool:
    """Whether this machine seems to have the C++ compiler that ``torch.compile`` calls on a CPU."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX", usual)) is not None


@contextlib.contextmanager
def _keep_validation():
    """torch.compile switches the validation of distributions off for the whole process."""
    before = Distribution._validate_args
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


class CompiledStep:
    """A training step: a compiled graph of loss and gradient, then clipping and the optimizer. See :func:`compile_step`."""

    def __init__(self, loss: nn.Module, optimizer: Optimizer, clip_norm: float | None = None) -> None:
        require_kind(optimizer, "optimizer", Optimizer)
        if clip_norm is not None:
            require_number(clip_norm, "clip_norm", Above(0))
        self.optimizer = optimizer
        self.clip_norm = clip_norm
        self.parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        self._traced = TracedStep(loss, compiled=True, parameters=self.parameters)

    def __call__(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Takes a step; returns the loss and its terms, detached. If loss or gradient is not finite, no parameter moves."""
        loss, terms = self._traced(batch)
        update(self.optimizer, self.parameters, loss, self.clip_norm)
        return loss, terms


def compile_step(loss: nn.Module, optimizer: Optimizer, clip_norm: float | None = None) -> CompiledStep:
    """A training step of a model and a guide of your own, compiled.

    Pyro's ``SVI.step`` runs model and guide in Python each time, and ``torch.compile`` cannot read them. Here their Python runs
    once for each shape of batch, and what it computes is compiled together with its gradient: see :class:`TracedStep`. The
    optimizer is torch's own; with ``fused=True`` it is one kernel, which no compiled code has beaten.

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
        >>> step = compile_step(loss, torch.optim.Adam(loss.parameters(), lr=1e-3, fused=True))
        >>> for _ in range(10):  # doctest: +SKIP
        ...     value, terms = step(x=torch.zeros(64, 3))
    """
    return CompiledStep(loss, optimizer, clip_norm)
