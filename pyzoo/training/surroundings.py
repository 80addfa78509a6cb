"""What a run computes in: nothing that a caller has set of torch or Pyro changes its numbers."""

import contextlib
import threading
from collections.abc import Iterator

import pyro
import torch
from pyro.poutine.runtime import am_i_wrapped, get_plates

from pyzoo.errors import UsageError

__all__ = ["own_surroundings"]

_ALONE = threading.RLock()


@contextlib.contextmanager
def own_surroundings() -> Iterator[None]:
    """The context in which a run computes as in a fresh process, whatever is set around it: no gradients, another default type
    or device, autocast, handlers of Pyro.

    Only a ``pyro.plate`` can't be left. Threads of one process take turns: they share Pyro's handlers and torch's default type.

    Raises:
        UsageError: it is entered within a ``pyro.plate``.

    Example:
        >>> with torch.no_grad(), own_surroundings():
        ...     torch.is_grad_enabled()
        True
    """
    if get_plates():
        raise UsageError("a run is trained and measured outside of every pyro.plate: the dimensions of its own would be others")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_ALONE)
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")  # as config.json says: fp32
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":  # only then: it slows down every call
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if am_i_wrapped():
            stack.enter_context(pyro.poutine.block())
        yield
