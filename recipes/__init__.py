"""Recipes, one folder per paper: data, networks, objectives, reports and tables.

Called, ``pyzoo.recipes()`` gives their names and one line on each.
"""

import sys
import types

from pyzoo import about


class _Recipes(types.ModuleType):
    """This package under its two uses: a place of modules, and a function of the front door."""

    def __call__(self) -> dict[str, str]:
        return about.recipes()


sys.modules[__name__].__class__ = _Recipes
