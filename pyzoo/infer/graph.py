"""The arithmetic of a function as a graph: recorded once, repeated without the function's Python, and compiled."""

import contextlib
import functools
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch._guards import TracingContext, tracing
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from pyzoo.errors import one_line
from pyzoo.streams import logger_at

__all__ = ["Graph", "compilers_reason", "has_compiler", "traced"]


class Graph:
    """What a function of tensors computes, for inputs of the same shapes and strides as those that it was traced with.

    Args:
        code: from the inputs' tensors, one after the other, to those that the function returns.
        returned: how these are arranged.
    """

    def __init__(self, code: Callable[..., Sequence[Any]], returned: TreeSpec) -> None:
        self.code = code
        self.returned = returned

    def __call__(self, *inputs: Any) -> Any:
        """What the function returns; nothing has a gradient."""
        with torch.no_grad():
            return tree_unflatten(list(self.code(*tree_leaves(inputs))), self.returned)

    def compiled(self) -> "Graph":
        """The same, compiled when it is first run; it draws the same noise."""
        return Graph(_Compiled(self.code), self.returned)


class _Compiled:
    """Compiled code of a graph, for each number of threads.

    ``torch.compile`` would read the graph node by node in each process anew, which takes longer than all else where the compiled
    code is on the disk.
    """

    def __init__(self, graph: GraphModule) -> None:
        self.graph = graph
        self.made: dict[int, Callable[..., Sequence[Any]]] = {}

    def __call__(self, *inputs: Tensor) -> Sequence[Any]:
        threads = torch.get_num_threads()
        if threads not in self.made:
            from torch._inductor import standalone_compile  # takes a second to import

            on_cpu = all(x.device.type == "cpu" for x in inputs)
            patches = {"fallback_random": True, "cpp_wrapper": on_cpu, "post_grad_custom_pre_pass": _sums_once()}
            with logger_at("torch._inductor.ir", logging.ERROR):  # which warns of an operation that Python calls it
                self.made[threads] = standalone_compile(
                    self.graph, list(inputs), dynamic_shapes="from_example_inputs", options={"config_patches": patches}
                )
        return self.made[threads](*inputs)


def _sums_once() -> Any:
    """A pass of the compiler after which a sum in half precision is taken once, where the gradients of two biases are the same.

    For two of them torch 2.14 writes C++ in which a name is declared twice. Sums that the graph returns are left: two results
    may not share one memory.
    """
    from torch._inductor.custom_graph_pass import CustomGraphPass

    class SumsOnce(CustomGraphPass):
        def __call__(self, graph: torch.fx.Graph) -> None:
            seen: dict[str, torch.fx.Node] = {}
            returned = graph.output_node().all_input_nodes
            for node in graph.find_nodes(op="call_function", target=torch.ops.aten.sum.dim_IntList):
                if node in returned or _dtype_of(node) not in (torch.bfloat16, torch.float16):
                    continue
                first = seen.setdefault(f"{node.args} {node.kwargs}", node)
                if first is not node:
                    node.replace_all_uses_with(first)
                    graph.erase_node(node)

        def uuid(self) -> str:
            return "pyzoo: sums in half precision, once"

    return SumsOnce()


@functools.cache
def _prepare_compiler() -> threading.Thread:
    """Does beside the tracing what the first compilation on a machine would wait for, some 15 seconds: it finds out the CPU's
    instructions and compiles torch's headers, into torch's cache on the disk."""
    # Not imported by the thread: a process that is forked meanwhile would wait for the import's lock for ever.
    import torch._inductor.codecache

    def prepare() -> None:
        try:  # an empty program, of which only the headers are compiled
            torch._inductor.codecache.CppWrapperCodeCache.load_async("", device_type="cpu")
        except Exception as error:  # without it compiling takes longer; what is wrong with the compiler is told when it is called
            logging.getLogger(__name__).debug("not prepared: %s", error)

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    return thread


def traced(
    function: Callable,
    inputs: tuple[Any, ...],
    for_compiler: bool = False,
    context: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> Graph | None:
    """The graph of what a function computes; None if it branches on values of tensors, or reads them.

    Args:
        function: of tensors, or of tuples and dicts of them.
        inputs: its arguments. It is run by them once; noise that it draws is drawn again.
        for_compiler: replace operations that compiled code has faster in parts.
        context: makes the context to run it in, such as autocast.

    Example:
        >>> graph = traced(lambda x: {"double": 2 * x}, (torch.ones(2),))
        >>> graph(torch.arange(2.0))
        {'double': tensor([0., 2.])}
    """
    leaves, given = tree_flatten(inputs)
    returned = None
    if for_compiler and all(x.device.type == "cpu" for x in leaves if isinstance(x, Tensor)):
        _prepare_compiler()

    def flat(*tensors: Tensor) -> list[Any]:
        nonlocal returned
        found, returned = tree_flatten(function(*tree_unflatten(list(tensors), given)))
        return found

    try:
        # Validation reads values.
        with context(), torch.random.fork_rng(), pyro.validation_enabled(False), _shared_fakes(), _RefusesReading():
            graph = make_fx(flat, decomposition_table=_faster() if for_compiler else None)(*leaves)
    except RuntimeError as error:
        if "tracing tensor" not in str(error):  # so torch says that a value is read
            raise
        return None
    if any(_is_sized_by_values(node) for node in graph.graph.nodes):
        return None
    for node in graph.graph.find_nodes(op="placeholder"):
        node.meta.pop("val", None)  # a fake tensor of another mode than the compiler's own, which torch 2.8 does not take
    graph.graph.eliminate_dead_code(_has_effect)
    graph.recompile()
    return Graph(graph, returned)


class _RefusesReading(TorchFunctionMode):
    """Raises what torch raises for ``item()`` where values are read in other ways, which it would take for constants."""

    reading = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self.reading:
            raise RuntimeError("tracing tensor: its values are read")
        return func(*args, **(kwargs or {}))


def _shared_fakes() -> contextlib.AbstractContextManager:
    """torch notes size and type of what each node gives by a fake tensor, and without this makes a mode for every one of them,
    which is half of the time that tracing takes."""
    return tracing(TracingContext(FakeTensorMode()))


def _has_effect(node: torch.fx.Node) -> bool:
    """Whether a node does more than to give its value: it writes, checks, or draws noise, after which all other noise differs."""
    name = str(node.target)
    # Batch norms write to running statistics, and a check without a message has no result; torch's schemas say neither.
    if ("batch_norm" in name and "backward" not in name) or "assert" in name:
        return True
    return node.is_impure() or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _is_sized_by_values(node: torch.fx.Node) -> bool:
    """Whether what a node gives has as many entries as its input has of some value: the graph has the first batch's number."""
    if torch.Tag.dynamic_output_shape not in getattr(node.target, "tags", ()):
        return False
    if node.target is not torch.ops.aten.index.Tensor:
        return True
    indices = [index for index in node.args[1] if isinstance(index, torch.fx.Node)]
    return any(_dtype_of(index) in (torch.bool, torch.uint8, None) for index in indices)


def _dtype_of(node: torch.fx.Node) -> torch.dtype | None:
    """The type of what a node gives; None where it was not recorded."""
    recorded = node.meta.get("val", node.meta.get("tensor_meta"))
    return getattr(recorded, "dtype", None)


def compilers_reason(error: Exception) -> str:
    """Why something was not compiled, in one line, without torch's advice on how to hear more."""
    return one_line(error).split(" Set TORCHDYNAMO_VERBOSE")[0]


def has_compiler() -> bool:
    """Whether this machine seems to have the C++ compiler that torch's own calls on a CPU."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX", usual)) is not None


# Operations -----------------------------------------------------------------------------------------------------------


def _faster() -> dict[Any, Callable]:
    """Operations that compiled code has faster in parts: torch's log1p and expm1 take ten times as long as its log and exp on
    many CPUs, where they are not vectorized.

    log1p is in the losses of Bernoulli variables, and in softplus; expm1 is in ELU.
    """
    aten = torch.ops.aten
    made_of_log1p = [aten.softplus, aten.log_sigmoid_forward, aten.binary_cross_entropy_with_logits]
    backward = [aten.softplus_backward, aten.log_sigmoid_backward, aten.elu_backward]
    made_of = get_decompositions([*made_of_log1p, aten.elu, *backward])
    return {
        **made_of,
        aten.log1p.default: _log1p,
        aten.expm1.default: _expm1,
        aten.native_group_norm_backward.default: _group_norm_backward,
    }


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


def _group_norm_backward(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
    """The gradients of a group normalization. torch decomposes it so that under autocast they have the weights' type, in which
    what comes before it is then computed too, or cannot be."""
    operation = torch.ops.aten.native_group_norm_backward.default
    of_x, *of_weights = get_decompositions([operation])[operation](grad, x, *rest)
    return (None if of_x is None else of_x.to(x.dtype), *of_weights)
