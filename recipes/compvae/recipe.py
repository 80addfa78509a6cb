"""CompVAE on its two problems, sines and color gradients.

Source: Berger and Sebag (2019). Its training (section 4.3): Adam with betas 0.5 and 0.9 at 1e-4, halved every 20,000 steps down
to 1e-6, batches of 256, the number of parts uniform on 1 to a maximum that starts at 2 and grows by one every 3,000 steps. Larger
weights of the terms of w and z, which fall to eq. 4's 1, and a largest norm of the gradient are ours, and not in ``paper``.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from pyzoo.about import About
from pyzoo.data.colors import COLORS, Colors
from pyzoo.data.sines import Sines
from pyzoo.errors import UsageError
from pyzoo.infer import NegativeELBO
from pyzoo.models.compvae import ColorsNetworks, CompVAENetworks, SinesNetworks
from pyzoo.recipes.compvae import ABOUT
from pyzoo.recipes.compvae.report import ColorsReport, CompVAEReport, SinesReport
from pyzoo.settings import Above, AtLeast, AtMost, Count, Positive, Weight
from pyzoo.training import Objective, Pair, Recipe, Schedule, constant_linear, geometric, linear

__all__ = ["CompVAEColors", "CompVAERecipe", "CompVAESines"]


@dataclasses.dataclass(frozen=True)
class CompVAERecipe(Recipe):
    """What both problems share: the training of section 4.3."""

    common: ClassVar[tuple[str, ...]] = (*Recipe.common, "parts", "w_dim", "z_dim", "z_weight")
    engine: ClassVar[Literal["eager", "traced"]] = "traced"

    networks: CompVAENetworks = CompVAENetworks()
    """Sizes of the networks."""
    parts: Count = 16
    """Largest number of parts in training; the current maximum starts at 2."""
    grow_every: Count = 3000
    """Steps until the current maximum grows by one."""
    learning_rate: Positive = 1e-4
    """Initial learning rate of Adam."""
    schedule: Literal["step", "constant-linear"] = "step"
    """Schedule of the learning rate: halved every --halve-every steps; or constant, and in a straight line to zero over the
    last three tenths of the steps."""
    halve_every: Count = 20_000
    """Steps until the learning rate is halved, in the step schedule."""
    lowest_rate: Positive = 1e-6
    """The learning rate is not halved below this."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient."""
    w_weight: Weight = 1.0
    """Initial weight of w's KL; above 1 it makes the labels explain what they can of the parts."""
    z_weight: Weight = 1.0
    """Initial weight of z's term; above 1 it moves information from z to the parts."""
    weight_steps: Annotated[int, AtLeast(0)] = 0
    """Steps over which both weights go to 1; with 0 they stay as they are."""
    x_floor: Annotated[float, Above(0), AtMost(1e30)] | None = None
    """Initial smallest standard deviation of x; by default scale_floor."""
    x_floor_steps: Annotated[int, AtLeast(0)] = 0
    """Steps over which x_floor goes down to scale_floor, geometrically; with 0 it stays as it is."""
    evaluation_sets: Annotated[int, AtLeast(2), AtMost(1_000_000)] = 2000
    """Fresh sets on which each metric is measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        floor = self.networks.scale_floor
        self.require(self.x_floor is None or floor <= self.x_floor, "x_floor", "between --scale-floor and 1e30")
        self.require(self.x_floor_steps == 0 or self.x_floor is not None, "x_floor_steps", "0 unless --x-floor is given")

    # Data -----------------------------------------------------------------------------------------------------------

    def max_parts(self, step: int) -> int:
        """The current maximum of the number of parts."""
        return min(self.parts, 2 + step // self.grow_every)

    @property
    def trained_parts(self) -> int:
        """The largest number of parts that the run got to see."""
        return self.max_parts(self.steps - 1)

    def parse_parts(self, names: Sequence[Any]) -> Tensor:
        """Categories of parts from what a user calls them, (parts,)."""
        raise NotImplementedError

    # Training -------------------------------------------------------------------------------------------------------

    def objectives(self, pair: Pair) -> list[Objective]:
        module = NegativeELBO(*pair, kl_weights={"w": 1.0, "z": 1.0})
        floor = self.networks.scale_floor
        return [
            Objective(
                module,
                partial(torch.optim.Adam, lr=self.learning_rate, betas=(0.5, 0.9), fused=True),
                scheduler=partial(LambdaLR, lr_lambda=self._rate()),
                schedules=[
                    Schedule(module, "kl_weight_w", linear(self.w_weight, 1.0, self.weight_steps)),
                    Schedule(module, "kl_weight_z", linear(self.z_weight, 1.0, self.weight_steps)),
                    Schedule(pair.model, "x_floor", geometric(self.x_floor or floor, floor, self.x_floor_steps)),
                ],
                clip_norm=self.clip_norm,
            )
        ]

    def _rate(self) -> Callable[[int], float]:
        """The learning rate as a share of the initial one, by the step."""
        if self.schedule == "constant-linear":
            return constant_linear(self.steps)
        lowest = self.lowest_rate / self.learning_rate
        return lambda step: min(1.0, max(0.5 ** (step // self.halve_every), lowest))

    def report(self, pair: Pair, device: torch.device) -> CompVAEReport:
        raise NotImplementedError


def _categories(names: Sequence[Any], known: Mapping[str, int], what: str) -> Tensor:
    for name in names:
        if str(name) not in known:
            raise UsageError(f"parts: '{name}' is not {what}")
    if not names:
        raise UsageError("parts: name at least one part")
    return torch.tensor([known[str(name)] for name in names])


# Sines --------------------------------------------------------------------------------------------------------------

_SMALL_SINES = {
    "steps": 8000,
    "batch_size": 64,
    "parts": 4,
    "grow_every": 600,
    "learning_rate": 1e-3,
    "halve_every": 1600,
    "clip_norm": 50.0,
    "z_weight": 5.0,
    "weight_steps": 5600,
    "foreign_scale": 0.2,
    "relative_guide": True,
    "w_dim": 64,
    "z_dim": 8,
    "graph_widths": (256,),
    "prior_width": 128,
    "decoder_width": 200,
    "encoder_width": 200,
    "z_width": 128,
    "label_dim": 64,
}


@dataclasses.dataclass(frozen=True)
class CompVAESines(CompVAERecipe):
    """CompVAE on curves made of sines (section 5.1).

    Each part is a sine of known frequency with its own amplitude and phase; the whole is a curve, a saturating function of their
    sum. The model learns a latent for each part and one for the whole, and can then leave parts out, or add some.
    """

    name: ClassVar[str] = "compvae-sines"
    about: ClassVar[About] = ABOUT["compvae-sines"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": _SMALL_SINES,
        "long": {
            **_SMALL_SINES,
            "steps": 100_000,
            "parts": 16,
            "grow_every": 2000,
            "schedule": "constant-linear",
            "weight_steps": 70_000,
            "log_every": 500,
            "checkpoint_seconds": 300.0,
        },
        "paper": {"steps": 500_000, "checkpoint_seconds": 600.0},
    }

    networks: SinesNetworks = SinesNetworks()
    """Sizes of the networks."""
    num_frequencies: Count = 10
    """Number of frequencies, which are 1 to this."""
    nonlinearity: Positive = 3.0
    """C of section 4.2: how strongly the sum of the sines saturates."""

    def source(self, device: torch.device) -> Sines:
        return Sines(self.max_parts, self.num_frequencies, nonlinearity=self.nonlinearity, seed=self.seed, device=device)

    def sized(self) -> "CompVAESines":
        return dataclasses.replace(self, networks=dataclasses.replace(self.networks, num_categories=self.num_frequencies))

    def parse_parts(self, names: Sequence[Any]) -> Tensor:
        frequencies = {str(f): f - 1 for f in range(1, self.num_frequencies + 1)}
        return _categories(names, frequencies, f"a frequency from 1 to {self.num_frequencies}")

    def report(self, pair: Pair, device: torch.device) -> SinesReport:
        return SinesReport(self, pair, device)


# Color gradients ----------------------------------------------------------------------------------------------------

_SMALL_COLORS = {
    "steps": 10_000,
    "batch_size": 64,
    "parts": 4,
    "grow_every": 600,
    "learning_rate": 5e-4,
    "halve_every": 2000,
    "clip_norm": 50.0,
    "w_weight": 4.0,
    "z_weight": 20.0,
    "weight_steps": 7000,
    "x_floor": 0.3,
    "x_floor_steps": 4000,
    "relative_guide": True,
    "place_gain": 12.0,
    "w_scale": 0.1,
    "x_scale": 0.2,
    "node_noise": 0.0,
    "w_dim": 256,
    "z_dim": 32,
    "graph_widths": (256,),
    "part_width": 256,
    "prior_width": 128,
    "decoder_width": 512,
    "encoder_width": 256,
    "scale_floor": 0.005,
}


@dataclasses.dataclass(frozen=True)
class CompVAEColors(CompVAERecipe):
    """CompVAE on images made of colored sites (section 5.2).

    Each part is a site of known color and place, whose intensity varies; the whole is an image in which every pixel mixes
    the colors of the sites near it.
    """

    name: ClassVar[str] = "compvae-colors"
    about: ClassVar[About] = ABOUT["compvae-colors"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": _SMALL_COLORS,
        "long": {
            **_SMALL_COLORS,
            "steps": 60_000,
            "parts": 16,
            "grow_every": 1500,
            "schedule": "constant-linear",
            "weight_steps": 42_000,
            "x_floor_steps": 24_000,
            "log_every": 500,
            "checkpoint_seconds": 300.0,
        },
        "paper": {"steps": 500_000, "checkpoint_seconds": 600.0},
    }

    networks: ColorsNetworks = ColorsNetworks()
    """Sizes of the networks."""
    parts: Count = 8
    """Largest number of parts in training; the current maximum starts at 2."""

    def source(self, device: torch.device) -> Colors:
        return Colors(self.max_parts, seed=self.seed, device=device)

    def parse_parts(self, names: Sequence[Any]) -> Tensor:
        return _categories(names, {name: i for i, name in enumerate(COLORS)}, f"one of {', '.join(COLORS)}")

    def report(self, pair: Pair, device: torch.device) -> ColorsReport:
        return ColorsReport(self, pair, device)
