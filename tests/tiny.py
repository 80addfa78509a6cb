"""Recipes small enough to train in a test."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyzoo.recipes.compvae.recipe import CompVAEColors, CompVAESines
from pyzoo.recipes.graph_vae.recipe import GraphVAERecipe
from pyzoo.recipes.mib.fair.recipe import FairRecipe
from pyzoo.recipes.mib.ood.recipe import OODRecipe
from pyzoo.recipes.mib.recipe import ViewRecipe
from pyzoo.recipes.mib.structure.recipe import LearnedStructureRecipe
from pyzoo.recipes.tvae.recipe import TVAERecipe
from pyzoo.settings import changed, flat
from pyzoo.training import Hardware, Recipe, RunFolder, Trainer, find_recipe

SINES = {
    "steps": 30,
    "batch_size": 8,
    "parts": 3,
    "grow_every": 10,
    "log_every": 5,
    "validate_every": 15,
    "checkpoint_seconds": 0.0,  # after every step
    "evaluation_sets": 12,
    "w_dim": 8,
    "z_dim": 3,
    "graph_widths": (8,),
    "prior_width": 8,
    "decoder_width": 40,
    "encoder_width": 40,
    "z_width": 8,
    "label_dim": 6,
    "z_weight": 2.0,
    "weight_steps": 20,
    "halve_every": 12,
    "learning_rate": 1e-3,
}
COLORS = {
    **{k: v for k, v in SINES.items() if k not in ("z_width", "label_dim", "decoder_width", "encoder_width")},
    "decoder_width": 256,
    "encoder_width": 64,
    "part_width": 8,
    "place_width": 4,
}
GRAPH = {
    "data": "digits",
    "steps": 30,
    "batch_size": 32,
    "held_out": 0.1,
    "log_every": 5,
    "validate_every": 10,
    "checkpoint_seconds": 0.0,
    "nodes": 3,
    "latent_dim": 6,
    "widths": (12, 8),
    "hidden_dim": 6,
}
TVAE = {
    "data": "digits",
    "affnist": "digits",
    "steps": 30,
    "batch_size": 20,
    "log_every": 5,
    "checkpoint_seconds": 0.0,
    "z_dim": 4,
    "encoder_channels": (6, 6, 8, 8),
    "decoder_channels": (8, 8, 6, 6),
    "hidden_dim": 20,
}
MIB = {
    "data": "digits-label",
    "steps": 30,
    "batch_size": 20,
    "log_every": 5,
    "checkpoint_seconds": 0.0,
    "z_dim": 3,
    "u_dim": 2,
    "hidden_dim": 16,
}

FAIR = {
    "data": "synthetic",
    "steps": 30,
    "batch_size": 64,
    "log_every": 5,
    "validate_every": 5,
    "checkpoint_seconds": 0.0,
    "z_dim": 1,
    "u_dim": 3,
    "hidden_dim": 8,
}
OOD = {
    "data": "digits",
    "sharpen": False,
    "steps": 30,
    "batch_size": 60,
    "log_every": 5,
    "checkpoint_seconds": 0.0,
    "z_dim": 2,
    "u_dim": 2,
    "hidden_dim": 16,
}
STRUCTURE = {
    "num_views": 4,
    "num_causes": 2,
    "steps": 30,
    "batch_size": 16,
    "log_every": 5,
    "checkpoint_seconds": 0.0,
    "hidden_dim": 8,
}
SLOTS = {
    "data": "tetrominoes",
    "image_size": 16,
    "num_pieces": 2,
    "num_slots": 3,
    "evaluation_scenes": 6,
    "steps": 30,
    "batch_size": 4,
    "log_every": 5,
    "checkpoint_seconds": 0.0,
    "z_dim": 5,
    "encoder_channels": (4, 4),
    "decoder_channels": (4,),
    "attention_channels": (4, 4),
    "attention_hidden_dim": 6,
    "global_dim": 2,
    "coupling_dims": (6,),
    "mask_dim": 2,
    "hidden_dim": 6,
    "channels": (4, 4),
}
_ROWS = ("multimodal", "jmvae", "mvae", "telbo", "bivcca", "wyner-vae", "vae", "beta-vae", "beta-tcvae", "gan", "infogan")
TINY = {
    "compvae-sines": SINES,
    "compvae-colors": COLORS,
    **dict.fromkeys(("graph-vae", "fc-vae", "ladder-vae", "vae"), GRAPH),
    **dict.fromkeys(("tvae", "tvae-vae", "tvae-vae-plus"), TVAE),
    **dict.fromkeys((f"mib-{row}" for row in _ROWS), MIB),
    "mib-fair": FAIR,
    "mib-ood": OOD,
    "mib-structure": STRUCTURE,
    "monet": SLOTS,
    "mpp-monet": SLOTS,
    "genesis": SLOTS,
    "mpp-genesis": SLOTS,
}
"""Settings of each recipe, and some that only others of its paper have."""


def tiny(recipe: str) -> dict[str, Any]:
    """The settings of a recipe by name."""
    known = flat(find_recipe(recipe)())
    found = {name: value for name, value in TINY[recipe].items() if name in known}
    one_view = TINY[recipe] is MIB and "second_view" not in known
    return {**found, "data": "digits"} if one_view else found


def made(kind: type[Recipe], tiny: dict[str, Any], changes: dict[str, Any]) -> Any:
    """A recipe of tiny size; of a kind that lacks some of the tiny settings, without them."""
    known = flat(kind())
    return changed(kind(), {**{name: value for name, value in tiny.items() if name in known}, **changes})


def sines(**changes) -> CompVAESines:
    return made(CompVAESines, SINES, changes)


def colors(**changes) -> CompVAEColors:
    return made(CompVAEColors, COLORS, changes)


def graph(kind: type[GraphVAERecipe] = GraphVAERecipe, **changes) -> GraphVAERecipe:
    return made(kind, GRAPH, changes)


def tvae(kind: type[Recipe] = TVAERecipe, **changes) -> Any:
    return made(kind, TVAE, changes)


def mib(kind: type[Recipe], **changes) -> Any:
    one_view = {"data": "digits"} if issubclass(kind, ViewRecipe) else {}
    return made(kind, MIB, {**one_view, **changes})


def fair(**changes) -> FairRecipe:
    return made(FairRecipe, FAIR, changes)


def ood(**changes) -> OODRecipe:
    return made(OODRecipe, OOD, changes)


def structure(**changes) -> LearnedStructureRecipe:
    return made(LearnedStructureRecipe, STRUCTURE, changes)


def blank(count: int, shape: tuple[int, ...] = (1, 28, 28)) -> Tensor:
    """So many images without their memory."""
    return torch.zeros(1, *shape, dtype=torch.uint8).expand(count, *shape)


def trainer_of(recipe: Recipe, path: Path, engine: str = "auto", **hardware) -> Trainer:
    """A trainer on the CPU in a run folder, from where the folder stands."""
    folder = RunFolder(path) if (path / "config.json").exists() else RunFolder.create(path, {})
    return Trainer(recipe, folder, Hardware("cpu", engine=engine, **hardware), progress=False)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """A copy of all parameters and buffers that training moves, with "model." and "guide." before those of the pair."""
    modules = {"model": trainer.pair.model, "guide": trainer.pair.guide}
    modules |= {f"objective_{index}": objective.module for index, objective in enumerate(trainer.objectives)}
    return {f"{place}.{name}": value.clone() for place, module in modules.items() for name, value in module.state_dict().items()}


def trained_state(recipe: Recipe, path: Path, engine: str) -> dict[str, Tensor]:
    """Trains a recipe in a run folder, from where the folder stands; returns what training moved."""
    trainer = trainer_of(recipe, path, engine)
    trainer.train()
    return state_of(trainer)


def flags(fields: dict[str, Any]) -> list[str]:
    """The fields as flags of ``pyzoo train``."""
    arguments = []
    for name, value in fields.items():
        flag, values = name.replace("_", "-"), value if isinstance(value, tuple) else (value,)
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            arguments += [f"--{flag}", *map(str, values)]
    return arguments
