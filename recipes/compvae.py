"""CompVAE on its two problems, sines and colour gradients.

Source: Berger and Sebag (2019). Its training (section 4.3): Adam with betas 0.5 and 0.9 at 1e-4, halved every 20,000 steps down
to 1e-6, batches of 256, the number of parts uniform on 1 to a maximum that starts at 2 and grows by one every 3,000 steps.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pyzoo.data.colors import COLORS, Colors
from pyzoo.data.sines import Sines
from pyzoo.errors import UsageError
from pyzoo.guides.compvae import compvae_colors_guide, compvae_sines_guide
from pyzoo.infer import NegativeELBO
from pyzoo.models.compvae import compvae_colors, compvae_sines
from pyzoo.random import derive_seed
from pyzoo.recipes import compvae_metrics
from pyzoo.training import Objective, Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CompVAEColors", "CompVAERecipe", "CompVAESines"]


@dataclasses.dataclass
class CompVAERecipe(Recipe):
    """What both problems share: the training of section 4.3 and the metrics."""

    paper: ClassVar[str] = "Berger and Sebag 2019"

    parts: int = 16
    """Largest number of parts in training; the current maximum starts at 2."""
    grow_every: int = 3000
    """Steps until the current maximum grows by one."""
    learning_rate: float = 1e-4
    """Of Adam, at the start."""
    halve_every: int = 20_000
    """Steps until the learning rate is halved."""
    lowest_rate: float = 1e-6
    """The learning rate is not halved below this."""
    clip_norm: float | None = None
    """Largest norm of the gradient."""
    w_weight: float = 1.0
    """Weight of the KL of w at the start; above 1 the parts' descriptions have to explain what they can."""
    z_weight: float = 1.0
    """Weight of z's term at the start; above 1 it sends information to the parts."""
    weight_steps: int = 0
    """Steps over which both weights go to 1; with 0 they stay as they are."""
    w_dim: int = 1024
    """Features of a part's latent."""
    z_dim: int = 256
    """Features of the whole's latent."""
    graph_widths: tuple[int, ...] = (2048, 2048, 2048)
    """Features of a part after each graph block of the guide."""
    graph_block: Literal["paper", "wide"] = "paper"
    """Table 4's blocks, or the wider ones of the authors' public code."""
    node_noise: float = 1.0
    """Standard deviation of the noise that tells equal parts apart in the guide."""
    relative_guide: bool = False
    """Give q(w | x, z, l) relative to p(w | l), so that the terms of x and z train that prior, and w's KL does not."""
    scale_floor: float = 0.001
    """Smallest standard deviation of w and z, and of x where x_floor does not say otherwise."""
    x_floor: float | None = None
    """Smallest standard deviation of x at the start of training; by default scale_floor. The training loop moves it."""
    x_floor_steps: int = 0
    """Steps over which it goes down to scale_floor, geometrically; with 0 it stays as it is."""
    evaluation_sets: int = 2000
    """Fresh sets that each metric is measured on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("parts", "grow_every", "halve_every", "w_dim", "z_dim"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        self.require(self.evaluation_sets >= 2, "evaluation_sets", "at least 2")
        for field in ("learning_rate", "lowest_rate"):
            self.require(getattr(self, field) > 0, field, "positive")
        self.require(1e-30 <= self.scale_floor <= 1e30, "scale_floor", "between 1e-30 and 1e30")
        for field in ("w_weight", "z_weight", "weight_steps", "x_floor_steps", "node_noise"):
            self.require(getattr(self, field) >= 0, field, "at least 0")
        self.require(
            self.x_floor is None or self.scale_floor <= self.x_floor <= 1e30, "x_floor", "between --scale-floor and 1e30"
        )
        self.require(self.x_floor_steps == 0 or self.x_floor is not None, "x_floor_steps", "0 unless --x-floor is given")
        self.require(self.graph_block in ("paper", "wide"), "graph_block", "'paper' or 'wide'")
        self.require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "positive")
        self.require(min(self.graph_widths, default=0) >= 1, "graph_widths", "one or more, at least 1 each")

    # Training -------------------------------------------------------------------------------------------------------

    def max_parts(self, step: int) -> int:
        """The current maximum of the number of parts."""
        return min(self.parts, 2 + step // self.grow_every)

    @property
    def trained_parts(self) -> int:
        """The largest number of parts that the run got to see."""
        return self.max_parts(self.steps - 1)

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The model and its guide."""
        raise NotImplementedError

    def objectives(self) -> list[Objective]:
        module = NegativeELBO(*self.networks(), kl_weights={"w": 1.0, "z": 1.0})
        optimizer = torch.optim.Adam(module.parameters(), lr=self.learning_rate, betas=(0.5, 0.9), fused=True)
        lowest = self.lowest_rate / self.learning_rate
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, max(0.5 ** (step // self.halve_every), lowest))
        )
        schedules = {
            "kl_weight_w": partial(self._weight, self.w_weight),
            "kl_weight_z": partial(self._weight, self.z_weight),
            "model.x_floor": self._x_floor,
        }
        return [Objective(module, optimizer, scheduler, schedules, clip_norm=self.clip_norm)]

    def _weight(self, first: float, step: int) -> float:
        return first + (1.0 - first) * _progress(step, self.weight_steps)

    def _x_floor(self, step: int) -> float:
        progress = _progress(step, self.x_floor_steps)
        return (self.x_floor or self.scale_floor) ** (1 - progress) * self.scale_floor**progress

    # Metrics --------------------------------------------------------------------------------------------------------

    def draw(self, source: Any, size: int, num_parts: int, seed: int, repeated: bool = False) -> Any:
        """Sets for evaluation, with their truth: parts that can be told apart, unless repeated."""
        raise NotImplementedError

    def can_be_distinct(self, num_parts: int) -> bool:
        """Whether that many parts can all be told apart from x."""
        raise NotImplementedError

    can_repeat: ClassVar[bool]
    """Whether parts drawn at random may be impossible to tell apart."""

    def evaluate(self, module: NegativeELBO, device: torch.device, full: bool = False) -> dict[str, float]:
        return compvae_metrics.evaluate(self, module, device)

    # Figures and samples --------------------------------------------------------------------------------------------

    def parse_parts(self, names: Sequence[str]) -> Tensor:
        """Categories of parts from what a user calls them, (parts,)."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(
        self, module: NegativeELBO, device: torch.device, count: int, parts: Sequence[str] | None, seed: int
    ) -> dict[str, Tensor]:
        batch = self.described(count, None if parts is None else self.parse_parts(parts), device, seed)
        return {**batch, "x": compvae_metrics.generate(module, batch)["x"]}

    def described(self, count: int, categories: Tensor | None, device: torch.device, seed: int) -> dict[str, Tensor]:
        """Descriptions of sets to generate: these categories for all, or random ones of the largest trained number."""
        seed = derive_seed(self.seed, "sample", seed)
        num_parts = self.trained_parts if categories is None else len(categories)
        batch = self.draw(self.source(device), count, num_parts, seed, repeated=True).batch()
        del batch["x"]
        if categories is not None:
            batch["parts"] = categories.to(device).expand(count, -1)
        return batch


def _progress(step: int, steps: int) -> float:
    """How much of a schedule has passed, from 0 to 1; one without steps does not begin."""
    return min(1.0, step / steps) if steps else 0.0


# Sines --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class CompVAESines(CompVAERecipe):
    """CompVAE on curves made of sines (section 5.1).

    Each part is a sine of known frequency with its own amplitude and phase; the whole is a curve, a saturating function of their
    sum. The model learns a latent for each part and one for the whole, and can then leave parts out, or add some.
    """

    name: ClassVar[str] = "compvae-sines"
    about_data: ClassVar[str] = "generated curves"
    can_repeat: ClassVar[bool] = True
    shows: ClassVar[str] = "taking a curve apart into sines, and putting others together"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
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
        },
        "paper": {"steps": 500_000, "checkpoint_seconds": 600.0},
    }

    num_frequencies: int = 10
    """The frequencies are 1 to this."""
    nonlinearity: float = 3.0
    """C of section 4.2: how strongly the sum of the sines saturates."""
    prior_width: int = 1280
    """Hidden units of p(z | sum w)."""
    decoder_width: int = 800
    """Hidden units of p(x | z, sum w)."""
    encoder_width: int = 800
    """Features of the preprocessed curve."""
    z_width: int = 512
    """Hidden units of q(z | x)."""
    label_dim: int = 1024
    """Features of a part's label in the guide."""
    foreign_scale: float = 1.0
    """Initial prior scale of a part in the features that another frequency owns; 1 for no division of labour."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("num_frequencies", "prior_width", "z_width", "label_dim"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        for field, unit in {"decoder_width": 40, "encoder_width": 20}.items():
            value = getattr(self, field)
            self.require(value % unit == 0 and value > 0, field, f"a multiple of {unit}")
        self.require(self.foreign_scale > 0, "foreign_scale", "positive")

    def source(self, device: torch.device) -> Sines:
        return Sines(self.max_parts, self.num_frequencies, nonlinearity=self.nonlinearity, seed=self.seed, device=device)

    def networks(self) -> tuple[nn.Module, nn.Module]:
        shared = {"num_categories": self.num_frequencies, "w_dim": self.w_dim, "z_dim": self.z_dim}
        model = compvae_sines(
            **shared,
            prior_width=self.prior_width,
            decoder_width=self.decoder_width,
            scale_floor=self.scale_floor,
            foreign_scale=self.foreign_scale,
        )
        guide = compvae_sines_guide(
            **shared,
            encoder_width=self.encoder_width,
            z_width=self.z_width,
            graph_widths=self.graph_widths,
            label_dim=self.label_dim,
            graph_block=self.graph_block,
            node_noise=self.node_noise,
            w_prior=model.w_prior if self.relative_guide else None,
        )
        return model, guide

    def draw(self, source: Sines, size: int, num_parts: int, seed: int, repeated: bool = False) -> Any:
        return source.draw(size, num_parts, seed, distinct=not repeated)

    def can_be_distinct(self, num_parts: int) -> bool:
        return num_parts <= self.num_frequencies

    def parse_parts(self, names: Sequence[str]) -> Tensor:
        frequencies = {str(f): f - 1 for f in range(1, self.num_frequencies + 1)}
        return _categories(names, frequencies, f"a frequency from 1 to {self.num_frequencies}")

    def figures(
        self, module: NegativeELBO, device: torch.device, history: Sequence[Mapping[str, float]]
    ) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.compvae_figures import sines_figures  # matplotlib is imported only where something is drawn

        return sines_figures(self, module, device, history)

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.plotting import figure_grid, show_curves

        figure, axes = figure_grid(-(-len(samples["x"]) // 4), 4, "Curves drawn from the model", cell=(2.8, 1.7))
        limit = 1.1 * samples["x"].abs().max().item()
        for cell, parts, x in _cells(axes, samples):
            show_curves(cell, {"": x}, limit, f"frequencies {', '.join(str(p + 1) for p in sorted(parts.tolist()))}")
        return figure


# Colour gradients ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class CompVAEColors(CompVAERecipe):
    """CompVAE on images made of coloured sites (section 5.2).

    Each part is a site of known colour and place, whose intensity varies; the whole is an image in which every pixel mixes
    the colours of the sites near it.
    """

    name: ClassVar[str] = "compvae-colors"
    about_data: ClassVar[str] = "generated images"
    can_repeat: ClassVar[bool] = False
    shows: ClassVar[str] = "composing an image from coloured sites, one by one"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
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
        },
        "paper": {"steps": 500_000, "parts": 8, "w_dim": 2048, "z_dim": 1024, "checkpoint_seconds": 600.0},
    }

    place_width: int = 32
    """Features of a part's position, and of its colour."""
    place_gain: float = 1.0
    """Factor on the initial weights of the position, in model and guide."""
    part_width: int = 1024
    """Hidden units of p(w_i | l_i)."""
    prior_width: int = 1024
    """Hidden units of p(z | sum w)."""
    decoder_width: int = 2048
    """Hidden units of p(x | z, sum w)."""
    encoder_width: int = 1024
    """Features of the preprocessed image."""
    w_scale: float = 1.0
    """Initial standard deviation of a part's latent, in model and guide."""
    x_scale: float = 1.0
    """Initial standard deviation of x, whose values run from 0 to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("place_width", "part_width", "prior_width"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        for field in ("w_scale", "x_scale", "place_gain"):
            self.require(getattr(self, field) > 0, field, "positive")
        self.require(self.decoder_width % 256 == 0 and self.decoder_width > 0, "decoder_width", "a multiple of 256")
        self.require(self.encoder_width % 64 == 0 and self.encoder_width > 0, "encoder_width", "a multiple of 64")

    def source(self, device: torch.device) -> Colors:
        return Colors(self.max_parts, seed=self.seed, device=device)

    def networks(self) -> tuple[nn.Module, nn.Module]:
        shared = {"num_categories": len(COLORS), "w_dim": self.w_dim, "z_dim": self.z_dim}
        shared |= {"place_width": self.place_width, "place_gain": self.place_gain}
        model = compvae_colors(
            **shared,
            part_width=self.part_width,
            prior_width=self.prior_width,
            decoder_width=self.decoder_width,
            scale_floor=self.scale_floor,
            w_scale=self.w_scale,
            x_scale=self.x_scale,
        )
        guide = compvae_colors_guide(
            **shared,
            encoder_width=self.encoder_width,
            graph_widths=self.graph_widths,
            graph_block=self.graph_block,
            node_noise=self.node_noise,
            w_prior=model.w_prior if self.relative_guide else None,
            w_scale=1.0 if self.relative_guide else self.w_scale,
        )
        return model, guide

    def draw(self, source: Colors, size: int, num_parts: int, seed: int, repeated: bool = False) -> Any:
        return source.draw(size, num_parts, seed)

    def can_be_distinct(self, num_parts: int) -> bool:
        return True  # two sites have the same place with probability zero

    def parse_parts(self, names: Sequence[str]) -> Tensor:
        return _categories(names, {name: i for i, name in enumerate(COLORS)}, f"one of {', '.join(COLORS)}")

    def figures(
        self, module: NegativeELBO, device: torch.device, history: Sequence[Mapping[str, float]]
    ) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.compvae_figures import colors_figures

        return colors_figures(self, module, device, history)

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.plotting import figure_grid, show_image

        figure, axes = figure_grid(-(-len(samples["x"]) // 4), 4, "Images drawn from the model", cell=(1.6, 1.6))
        for cell, parts, x in _cells(axes, samples):
            show_image(cell, x, " ".join(list(COLORS)[p] for p in parts.tolist()))
        return figure


# What both pictures and both parsers share --------------------------------------------------------------------------


def _categories(names: Sequence[str], known: Mapping[str, int], what: str) -> Tensor:
    for name in names:
        if name not in known:
            raise UsageError(f"--parts: '{name}' is not {what}")
    if not names:
        raise UsageError("--parts: name at least one part")
    return torch.tensor([known[name] for name in names])


def _cells(axes: list[list[Any]], samples: Mapping[str, Tensor]) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """The axes that have something to show, with its parts and x; the others are switched off."""
    from pyzoo.plotting import first_cells

    cells = first_cells(axes, len(samples["x"]))
    return zip(cells, samples["parts"], samples["x"], strict=True)
