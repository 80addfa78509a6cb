"""Recipes small enough to train in a test."""

from pyzoo.recipes.compvae import CompVAEColors, CompVAESines
from pyzoo.recipes.graph_vae import GraphVAERecipe
from pyzoo.recipes.mib import Multimodal
from pyzoo.recipes.tvae import TVAERecipe
from pyzoo.training import Hardware, RunFolder, Trainer

SINES = {
    "steps": 30,
    "batch_size": 8,
    "parts": 3,
    "grow_every": 10,
    "log_every": 5,
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
    "log_every": 5,
    "monitor_every": 10,
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


def sines(**changes) -> CompVAESines:
    return CompVAESines(**{**SINES, **changes})


def colors(**changes) -> CompVAEColors:
    return CompVAEColors(**{**COLORS, **changes})


def graph(kind=GraphVAERecipe, **changes) -> GraphVAERecipe:
    return kind(**{**GRAPH, **changes})


def tvae(kind=TVAERecipe, **changes) -> TVAERecipe:
    return kind(**{**TVAE, **changes})


def mib(kind=Multimodal, **changes):
    return kind(**{**MIB, **changes})


def trained_state(recipe, path, engine) -> dict:
    """Trains a recipe in a run folder, from where the folder stands; returns what training moved."""
    folder = RunFolder(path) if path.exists() else RunFolder.create(path, {})
    trainer = Trainer(recipe, folder, Hardware("cpu", engine=engine), progress=False)
    trainer.train()
    return trainer.module.state_dict()


def flags(fields: dict) -> list[str]:
    """The fields as flags of ``pyzoo train``."""
    arguments = []
    for name, value in fields.items():
        values = value if isinstance(value, tuple) else (value,)
        arguments += ["--" + name.replace("_", "-"), *map(str, values)]
    return arguments
