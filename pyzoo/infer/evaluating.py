"""Running a trained module without training it."""

import contextlib
from collections.abc import Iterator

import pyro
import torch
from torch import nn

from pyzoo.checks import require_kind

__all__ = ["evaluating"]


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A context with the module in evaluation mode, and without gradients and Pyro's argument checks.

    Example:
        >>> layer = torch.nn.Dropout()
        >>> with evaluating(layer):
        ...     layer(torch.ones(2))
        tensor([1., 1.])
        >>> layer.training
        True
    """
    require_kind(module, "module", nn.Module)
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), pyro.validation_enabled(False):
            yield
    finally:
        for part, flag in training.items():
            part.training = flag
