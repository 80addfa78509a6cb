"""The sizes of a pair's networks, as one value that builds the pair."""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from typing import Any

from pyro.nn import PyroModule

from pyzoo.about import entries
from pyzoo.errors import UsageError, one_line
from pyzoo.settings import Settings, flat, restored

__all__ = ["Networks"]


@dataclasses.dataclass(frozen=True)
class Networks(Settings):
    """Sizes and switches of a model's and its guide's networks; stands beside the model.

    A subclass adds fields, the paper's values as their defaults, and writes the two methods.

    Example:
        >>> from pyzoo.models.tvae import VAENetworks
        >>> networks = VAENetworks(z_dim=3, encoder_channels=(4, 4, 4, 4), decoder_channels=(4, 4, 4, 4))
        >>> model = networks.model()
        >>> guide = networks.guide(model)
    """

    def model(self) -> PyroModule:
        """The generative program."""
        raise NotImplementedError

    def guide(self, model: Any) -> PyroModule:
        """The inference program of a model that :meth:`model` made."""
        raise NotImplementedError

    def described(self) -> dict[str, Any]:
        """Its class and values, for a file; :meth:`restored` takes it back."""
        kind = type(self)
        return {"class": f"{kind.__module__}:{kind.__qualname__}", **flat(self)}

    @staticmethod
    def restored(description: dict[str, Any]) -> "Networks":
        """From what :meth:`described` returned, with lists for tuples as JSON has them.

        Raises:
            UsageError: the class is not there or is no such class, or a value is missing or not allowed.
        """
        if not isinstance(description, Mapping):
            raise UsageError(f"networks are described by an object of names and values, not by {description!r}")
        values = dict(description)
        module, _, name = str(values.pop("class", "")).partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), name)):
            raise UsageError(f"there are no networks '{module}:{name}'")
        if module not in sys.modules and module.partition(".")[0] not in _packages():  # a file may not name any code
            raise UsageError(f"'{module}:{name}' is in no package with recipes")
        try:
            kind = getattr(importlib.import_module(module), name)
        except Exception as error:  # someone else's code can raise anything
            raise UsageError(f"there are no networks '{module}:{name}': {one_line(error)}") from error
        if not (isinstance(kind, type) and issubclass(kind, Networks)):
            raise UsageError(f"'{module}:{name}' is not a class of networks")
        return restored(kind, values)


def _packages() -> set[str]:
    """The packages that have recipes."""
    return {"pyzoo", *(entry.module.partition(".")[0] for entry in entries("pyzoo.recipes").values())}
