"""Structured variational auto-encoders as Pyro programs.

The front door, imported when it is used:

- ``pyzoo.recipes()``: what there is.
- ``pyzoo.train("graph-vae", preset="digits")``: trains a recipe and returns its run.
- ``pyzoo.load("runs/graph-vae-digits-seed0")``: a trained run, with its model and guide.
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyzoo.about import recipes
    from pyzoo.training.front import load, train

__all__ = ["__version__", "load", "recipes", "train"]

__version__ = version("pyzoo")


def __getattr__(name: str) -> Any:
    # torch and Pyro take seconds to import: the command's --help and list do without.
    if name in ("load", "train"):
        from pyzoo.threads import limit_spinning

        limit_spinning()  # before torch is imported, if it is not yet
        from pyzoo.training import front

        return getattr(front, name)
    if name == "recipes":  # a package that can be called
        return importlib.import_module("pyzoo.recipes")
    raise AttributeError(f"module 'pyzoo' has no attribute '{name}'")
