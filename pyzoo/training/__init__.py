"""Recipes, the training loop, checkpoints and run folders."""

from pyzoo.training.loop import Hardware, NonFiniteLoss, Stopped, Trainer
from pyzoo.training.memory import keep_freed_memory
from pyzoo.training.recipe import Objective, Recipe, Source, recipes
from pyzoo.training.run_folder import Busy, RunFolder, locked
from pyzoo.training.table import Row, Table, tables

__all__ = [
    "Busy",
    "Hardware",
    "NonFiniteLoss",
    "Objective",
    "Recipe",
    "Row",
    "RunFolder",
    "Source",
    "Stopped",
    "Table",
    "Trainer",
    "keep_freed_memory",
    "locked",
    "recipes",
    "tables",
]
