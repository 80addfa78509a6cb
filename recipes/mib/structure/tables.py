"""How often planted structures are found, and what that needs. The paper has no such table."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pyzoo.about import About
from pyzoo.recipes.mib.structure import ABOUT
from pyzoo.recipes.mib.structure.recipe import LearnedStructureRecipe
from pyzoo.training import Row, Table

__all__ = ["MIBStructures"]

_ROWS = {
    "normal variables": ("small", {}),
    "the same, without the effective number of parents": ("small", {"concentration": 0.0}),
    "the same, a latent too many": ("small", {"latents": 4}),
    "the same, half of the examples lack views": ("small", {"complete": 0.5}),
    "with environments": ("environments", {}),
    "strips of digits": ("digits", {}),
}


@dataclasses.dataclass(frozen=True)
class MIBStructures(Table):
    """Structures drawn at random, another one for each seed, learned by algorithm 1 of Zhang et al. (2020)."""

    name: ClassVar[str] = "mib-structures"
    about: ClassVar[About] = ABOUT["mib-structures"]
    columns: ClassVar[Mapping[str, str]] = {
        "structure_found": "structures found, share",
        "edges_correct": "edges right, share",
        "test_elbo": "ELBO of test examples, nats",
    }
    note: ClassVar[str] = (
        "Another structure for each seed. Edges are right up to the order of the latents. Settings were chosen by structures of "
        "seeds from 1000 on; the paper has no experiment of its structure learning."
    )

    seeds: tuple[int, ...] = tuple(range(10))
    """Seeds with which each row is trained; the table gives means and standard deviations."""
    data_dir: Path | None = None
    """Folder in which named sets are looked for first; then in $PYZOO_DATA and in a cache, into which they are downloaded."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.preset == "small", "preset", "small: each row has a preset of its own")

    def rows(self) -> Sequence[Row]:
        shared = {"data_dir": self.data_dir} if self.data_dir else {}
        return [
            Row(label, LearnedStructureRecipe, {**shared, **fields}, preset=preset) for label, (preset, fields) in _ROWS.items()
        ]
