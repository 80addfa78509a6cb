"""What each of several processes of one run does: ``python processes.py FOLDER RECIPE...`` in the environment of torchrun.

Each recipe takes a step with the noise that one process would draw for the same examples, and with batch normalization in
evaluation mode; its gradient is kept. Those with batch normalization then train with it, and their parameters are kept.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

import pyzoo.training.trainer
from pyzoo.random import derive_seed
from pyzoo.settings import changed
from pyzoo.training import Hardware, RunFolder, Trainer, find_recipe
from tiny import tiny

NORMALIZED = ("graph-vae", "genesis")
"""Recipes that train with batch normalization too."""

CHANGES = {"tvae": {"coherence": "conditional", "prior_weight": 0.0}}
"""Settings with which a loss is a mean over examples."""


class NoiseOfOneProcess(TorchDispatchMode):
    """Where a process draws noise for its share of a batch, it draws that of the whole one and takes its rows.

    Args:
        share: rows of a process.
        rank: its number.
        world: how many there are.
    """

    def __init__(self, share: int, rank: int, world: int) -> None:
        super().__init__()
        self.share, self.rank, self.world = share, rank, world

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords, before = keywords or {}, torch.get_rng_state()
        found = operation(*arguments, **keywords)
        draws = torch.Tag.nondeterministic_seeded in operation.tags and isinstance(found, torch.Tensor)
        of_a_source = any(isinstance(each, torch.Generator) for each in (*arguments, *keywords.values()))
        if draws and not of_a_source and found.dim() and len(found) == self.share:
            torch.set_rng_state(before)
            found.copy_(operation(*map(self.whole, arguments), **keywords)[self.rank :: self.world])
        return found

    def whole(self, argument: Any) -> Any:
        """A size, or a tensor, as it is of the whole batch."""
        if isinstance(argument, torch.Tensor):
            return argument.repeat_interleave(self.world, 0) if argument.dim() and len(argument) == self.share else argument
        return [self.world * self.share, *argument[1:]] if isinstance(argument, list | tuple) else argument


def settle(trainer: Trainer) -> None:
    """Keeps batch normalization in evaluation mode."""
    for objective in trainer.objectives:
        for module in objective.module.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
                module.train = lambda mode=True, module=module: module


def first_gradient(name: str, path: Path, devices: int) -> dict[str, torch.Tensor]:
    """The gradient of a recipe's first step, by parameter."""
    recipe = changed(find_recipe(name)(), {**tiny(name), "steps": 1, **CHANGES.get(name, {})})
    trainer = Trainer(recipe, RunFolder(path), Hardware("cpu", devices=devices, engine="eager"), progress=False)
    settle(trainer)
    rank, world = trainer.fabric.global_rank, trainer.fabric.world_size
    with NoiseOfOneProcess(recipe.batch_size // world, rank, world):
        trainer.train()
    return {
        f"{number}.{parameter}": value.grad
        for number, objective in enumerate(trainer.objectives)
        for parameter, value in objective.module.named_parameters()
        if value.grad is not None
    }


def trained(name: str, path: Path, devices: int) -> dict[str, torch.Tensor]:
    """All parameters after training with batch normalization."""
    recipe = changed(find_recipe(name)(), {**tiny(name), "steps": 20, "learning_rate": 3e-3})
    trainer = Trainer(recipe, RunFolder(path), Hardware("cpu", devices=devices, engine="eager"), progress=False)
    trainer.train()
    return dict(trainer.objectives[0].module.named_parameters())


def main(folder: Path, names: list[str]) -> None:
    rank, devices = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    port = int(os.environ.get("MASTER_PORT", "0"))
    todo = [(first_gradient, name) for name in names] + [(trained, name) for name in names if name in NORMALIZED]
    for number, (job, name) in enumerate(todo):
        os.environ["MASTER_PORT"] = str(port + number)  # the group before may not have left its own yet
        path = folder / f"{job.__name__}-{name}-{devices}"
        torch.save(job(name, path, devices), f"{path}-{rank}.pt")


if __name__ == "__main__":
    # The noise of a step is another one for each process, so that no two examples have the same.
    pyzoo.training.trainer.derive_seed = lambda seed, *names: derive_seed(seed, *(names[:2] if names[0] == "noise" else names))
    main(Path(sys.argv[1]), sys.argv[2:])
