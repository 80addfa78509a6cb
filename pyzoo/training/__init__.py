"""Recipes, objectives, steps, the training loop, runs and tables."""

from pyzoo.training.compare import Comparison
from pyzoo.training.front import load, train
from pyzoo.training.hardware import Hardware
from pyzoo.training.memory import keep_freed_memory
from pyzoo.training.objective import Objective
from pyzoo.training.panel import Choice, Choices, OwnImage, Panel, Slider
from pyzoo.training.recipe import Pair, Recipe, Source, find_recipe
from pyzoo.training.report import PairReport, Report
from pyzoo.training.run import Run
from pyzoo.training.run_folder import Busy, RunFolder, locked
from pyzoo.training.schedules import Schedule, constant, constant_linear, cosine, geometric, linear, warmup
from pyzoo.training.table import Entry, References, Row, Table, find_table, reference_entries
from pyzoo.training.trained import TrainedModel
from pyzoo.training.trainer import LostProcess, NonFiniteLoss, Stopped, Trainer

__all__ = [
    "Busy",
    "Choice",
    "Choices",
    "Comparison",
    "Entry",
    "Hardware",
    "LostProcess",
    "NonFiniteLoss",
    "Objective",
    "OwnImage",
    "Pair",
    "PairReport",
    "Panel",
    "Recipe",
    "References",
    "Report",
    "Row",
    "Run",
    "RunFolder",
    "Schedule",
    "Slider",
    "Source",
    "Stopped",
    "Table",
    "TrainedModel",
    "Trainer",
    "constant",
    "constant_linear",
    "cosine",
    "find_recipe",
    "find_table",
    "geometric",
    "keep_freed_memory",
    "linear",
    "load",
    "locked",
    "reference_entries",
    "train",
    "warmup",
]
