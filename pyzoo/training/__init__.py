"""Recipes, the training loop, checkpoints and run folders."""

from pyzoo.training.loop import Hardware, NonFiniteLoss, Stopped, Trainer
from pyzoo.training.memory import keep_freed_memory
from pyzoo.training.recipe import Objective, Recipe, Source, recipes
from pyzoo.training.run_folder import RunFolder

__all__ = [
    "Hardware",
    "NonFiniteLoss",
    "Objective",
    "Recipe",
    "RunFolder",
    "Source",
    "Stopped",
    "Trainer",
    "keep_freed_memory",
    "recipes",
]
