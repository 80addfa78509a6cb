"""Pyro's parameter store: whether a model and a guide keep their parameters apart in it, and how to do without it."""

import contextlib
import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.nn.module import _Context
from pyro.params.param_store import normalize_param_name, param_with_module_name
from torch import Tensor, nn

__all__ = ["name_conflict", "require_separate_parameters", "without_parameter_store"]

_SHOWN = 3
_SEPARATE: dict[tuple[int, int], tuple[weakref.ref, weakref.ref]] = {}  # pairs that passed, by their ids while both exist


def require_separate_parameters(model: Any, guide: Any) -> None:
    """Raises an error if parameters of model and guide would share entries of Pyro's parameter store.

    Pyro stores a parameter under the name of its ``PyroModule``. If two modules have one name, only the parameter that is
    stored first is trained. A pair that passed is not checked again.

    Args:
        model: the generative program. What is no module has no name, and passes.
        guide: the inference program; likewise.

    Raises:
        ValueError: see :func:`name_conflict`.

    Example:
        >>> class Scale(pyro.nn.PyroModule):
        ...     def __init__(self, name=""):
        ...         super().__init__(name)
        ...         self.layer = torch.nn.Linear(1, 1)
        >>> require_separate_parameters(Scale("model"), Scale("guide"))
        >>> require_separate_parameters(Scale(), Scale())
        Traceback (most recent call last):
        ...
        ValueError: Model and guide are PyroModules of one name and share the parameters 'layer.weight', 'layer.bias': call ...
    """
    if not (isinstance(model, nn.Module) and isinstance(guide, nn.Module)):
        return
    key = id(model), id(guide)
    passed = _SEPARATE.get(key)
    if passed is not None and passed[0]() is model and passed[1]() is guide:
        return
    if pyro.settings.get("module_local_params"):  # then every module has a store of its own; the setting may change later
        return
    message = name_conflict(model, guide)
    if message is not None:
        raise ValueError(message)

    def forget(_) -> None:
        _SEPARATE.pop(key, None)

    _SEPARATE[key] = weakref.ref(model, forget), weakref.ref(guide, forget)


def name_conflict(model: Any, guide: Any) -> str | None:
    """Says in one line which parameters of model and guide share entries of Pyro's parameter store, and the cure.

    A parameter that both hold, such as that of a shared layer, may share its entry with itself.

    Returns:
        None if there are none, or if either is no module.
    """
    if not (isinstance(model, nn.Module) and isinstance(guide, nn.Module)):
        return None
    ours, theirs = dict(_entries(model)), dict(_entries(guide))
    # A parameter can have several entries, and one of its own is enough for it to be trained.
    safe = {id(p) for mine, other in ((ours, theirs), (theirs, ours)) for name, p in mine.items() if other.get(name, p) is p}
    shared = [name for name, p in ours.items() if name in theirs and not {id(p), id(theirs[name])} <= safe]
    if not shared:
        return None
    shown = [f"'{normalize_param_name(name)}'" for name in shared[:_SHOWN]]
    if len(shared) > _SHOWN:
        shown.append(f"and {len(shared) - _SHOWN} more")
    return (
        f"Model and guide are PyroModules of one name and share the parameters {', '.join(shown)}: "
        'call super().__init__("model") in one and super().__init__("guide") in the other.'
    )


def _entries(module: nn.Module, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The names in Pyro's store under which reading a module's attributes puts its parameters, and the parameters.

    Args:
        module: any module; only within ``PyroModule`` objects are parameters stored.
        name: the one that a nested ``PyroModule`` gets from its parent when it is read, if it has none yet.
    """
    is_pyro = isinstance(module, PyroModule)
    name = (module._pyro_name or name) if is_pyro else ""
    if is_pyro:
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                constrained = attribute.removesuffix("_unconstrained")
                yield _join(name, constrained if constrained in module._pyro_params else attribute), parameter
    for attribute, child in module._modules.items():  # not named_children, which leaves out a child's second name
        if child is None:
            continue
        yield from _entries(child, _join(name, attribute) if is_pyro else "")
        if is_pyro and not isinstance(child, PyroModule):  # stored by pyro.module, which leaves frozen ones out
            for path, parameter in child.named_parameters():
                if parameter.requires_grad:
                    yield param_with_module_name(_join(name, attribute), path), parameter


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


@contextlib.contextmanager
def without_parameter_store(*programs: Any) -> Iterator[None]:
    """The context to run programs in if their parameters are wanted from their modules, not from Pyro's store.

    Within a ``PyroModule``, each access to a layer announces all its parameters to the store and to every handler, which takes
    an eighth of a training step of Graph VAE. Whoever optimizes ``module.parameters()`` needs none of that. Modules with
    ``PyroParam`` or ``PyroSample`` attributes, which are announcements themselves, go on as they were.

    Args:
        programs: models and guides, or modules that hold some. What is no module has no parameters, and goes on as it was.

    Example:
        >>> program = pyro.nn.PyroModule("program")
        >>> program.layer = torch.nn.Linear(1, 1)
        >>> program.forward = lambda: program.layer(torch.ones(1))
        >>> with without_parameter_store(program), pyro.poutine.trace() as trace:
        ...     _ = program()
        >>> list(trace.trace.param_nodes)
        []
    """
    modules = [program.modules() for program in programs if isinstance(program, nn.Module)]
    parts = [part for part in itertools.chain(*modules) if isinstance(part, PyroModule)]
    announced = any(part._pyro_params or part._pyro_samples for part in parts)
    contexts = set() if announced else {part._pyro_context for part in parts}
    before = [(context, type(context)) for context in contexts]
    for context in contexts:
        context.__class__ = _Quiet
    try:
        yield
    finally:
        for context, kind in before:
            context.__class__ = kind


class _Quiet(_Context):
    """The context of a program's call that announces nothing: it is never active."""

    def __enter__(self) -> None:
        self.used = True

    def __exit__(self, *exception) -> None:
        pass
