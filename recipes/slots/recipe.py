"""Training of MONet, Genesis, MPP^M and MPP^G on scenes of several pieces.

Source: Burgess et al. (2019), appendix B; Engelcke et al. (2020); Ren et al. (2023), supplement. ``paper`` has their widths,
steps and image sizes. The weights of the terms are MONet's and Genesis's, also in MPP^M and MPP^G. Burgess et al. train with
RMSprop, here it is Adam.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import Self

from pyzoo.about import About
from pyzoo.data.files import FILE_TYPES, SCENE_TYPE, ImageData, resized_note
from pyzoo.data.images import IMAGE_SETS, ImageSource
from pyzoo.data.scene_files import SceneFile, read_scenes
from pyzoo.data.scenes import Relation, Scenes, SceneSource, sprites, tetrominoes
from pyzoo.errors import UsageError
from pyzoo.files import expanded
from pyzoo.infer import GECO, NegativeELBO
from pyzoo.models.genesis import GenesisNetworks, MPPGenesisNetworks
from pyzoo.models.monet import MONetNetworks, MPPMONetNetworks, RelatedNetworks
from pyzoo.random import derive_seed, seeded
from pyzoo.recipes.images import ImageRecipe, InData
from pyzoo.recipes.slots import ABOUT
from pyzoo.recipes.slots.report import SlotsReport
from pyzoo.settings import Above, AtLeast, AtMost, Count, Positive, Share, Weight, flag
from pyzoo.training import Objective, Pair, Source, constant_linear, linear

__all__ = ["GenesisRecipe", "MONetRecipe", "MPPGenesisRecipe", "MPPMONetRecipe", "SlotsRecipe"]

MOST_RELATED = {"color": 6, "place": 4}
"""Pieces of a scene that can be related: as many as there are colors, or mirror images."""

Rate = Callable[[int], float]

_GENERATED = {"tetrominoes": tetrominoes, "sprites": sprites}


@dataclasses.dataclass(frozen=True)
class SlotsRecipe(ImageRecipe):
    """Base of the recipes that take scenes apart."""

    named_data: ClassVar[tuple[str, ...]] = tuple(_GENERATED)
    common: ClassVar[tuple[str, ...]] = (*ImageRecipe.common, "image_size", "num_pieces", "relation", "num_slots", "z_dim")
    engine: ClassVar[Literal["eager", "traced"]] = "traced"
    group: ClassVar[str] = "training"

    data: Annotated[str, InData] = "tetrominoes"
    """Scenes to train on: tetrominoes or sprites, which are made as they are needed; a file .tfrecords of DeepMind's
    multi-object datasets, with masks; or images without masks: torchvision:NAME, such as torchvision:CelebA, or your own, a
    folder or a file .npz, .npy or .pt."""
    image_size: Annotated[int, AtLeast(1), AtMost(4096), InData] | None = None
    """Pixels on a side: of scenes that are made, and to which other images are resized."""
    num_pieces: Annotated[Count, InData] = 3
    """Pieces in a scene; of sprites the most."""
    relation: Annotated[Relation, InData] = "none"
    """What of each piece follows from the first: its color, its place, or nothing."""
    learning_rate: Positive = 1e-4
    """Learning rate of Adam."""
    decay_after: Share = 1.0
    """Share of the steps after which the learning rate falls to zero, in a straight line."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient."""
    evaluation_scenes: Annotated[int, AtLeast(1), AtMost(100_000), InData] = 1000
    """Scenes on which each metric is measured."""
    scenes_read: Annotated[int, AtLeast(2), InData] = 60_000
    """Scenes that are read from a file .tfrecords."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.relation != "none":
            most = MOST_RELATED[self.relation]
            self.require(self.num_pieces <= most, "num_pieces", f"at most {most} with --relation {self.relation}")
            self.require(self.num_pieces >= 2, "num_pieces", f"at least 2 with --relation {self.relation}")
            slots = self.networks.num_slots  # pieces in any slots are asked whether they are related
            self.require(slots >= self.num_pieces, "num_pieces", f"at most --num-slots {slots} with --relation {self.relation}")

    @property
    def fewest_examples(self) -> int:
        return 2 if isinstance(self.networks, RelatedNetworks) and self.networks.batch_norm else 1

    # Data -----------------------------------------------------------------------------------------------------------

    @property
    def is_generated(self) -> bool:
        """Whether scenes are made as they are needed, with their masks."""
        return self.data in _GENERATED

    def _draw(self, count: int, generator: torch.Generator) -> Scenes:
        side = self.networks.x_shape[1] if self.image_size is None else self.image_size
        fewest = {"fewest_pieces": min(2, self.num_pieces)} if self.data == "sprites" else {}
        try:
            return _GENERATED[self.data](count, generator, side, self.num_pieces, relation=self.relation, **fewest)
        except UsageError:
            raise
        except ValueError as error:
            name, _, rest = str(error).partition(" ")
            raise UsageError(f"{flag(name)} {rest.removesuffix('.')}") from error

    @property
    def is_scene_file(self) -> bool:
        """Whether scenes are read from a file, with their masks."""
        return self.data.endswith(SCENE_TYPE)

    @functools.cached_property
    def scene_file(self) -> SceneFile:
        """The scenes of a file."""
        return read_scenes(self.data, self.scenes_read, self.image_size)

    def read_data(self) -> ImageData:
        if not self.is_scene_file:
            named = (*_GENERATED, *IMAGE_SETS)
            if not (self.data in named or self.data.startswith("torchvision:") or expanded(self.data).exists()):
                forms = f"{', '.join(named)}, torchvision:NAME, a folder of images, or a file that ends in "
                forms += ", ".join((SCENE_TYPE, *FILE_TYPES))
                raise UsageError(f"there are no scenes '{self.data}': --data takes {forms}")
            return super().read_data()
        images = self.scene_file.images
        tested = min(max(round(self.test_share * len(images)), 1), len(images) - 1)
        if tested < 1:
            raise UsageError(f"{self.data} has a single scene; training and testing need at least two")
        note = f"Scenes from {self.data}: {len(images) - tested:,} to train on, the last {tested:,} to test on."
        if self.image_size is not None:
            note += f" {resized_note(self.image_size)}"
        return ImageData(Path(self.data).stem, images[:-tested], images[-tested:], note=note)

    @functools.cached_property
    def measured_scenes(self) -> Scenes:
        """The generated scenes to measure on."""
        return self._draw(self.evaluation_scenes, seeded(derive_seed(self.seed, "measured")))

    @functools.cached_property
    def held_out_scenes(self) -> Scenes:
        """The generated scenes of the held-out curve."""
        return self._draw(min(200, self.evaluation_scenes), seeded(derive_seed(self.seed, "held_out")))

    def held_out_images(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return (self.held_out_scenes.images, None) if self.is_generated else super().held_out_images()

    def measured_images(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.is_generated:
            return self.measured_scenes.images, None
        images, labels = super().measured_images()
        return images[: self.evaluation_scenes], None if labels is None else labels[: self.evaluation_scenes]

    def held_out_segments(self) -> torch.Tensor | None:
        """The piece at each pixel of the held-out images, (images, height, width); None of images without masks."""
        if self.is_generated:
            return self.held_out_scenes.segments
        end = len(self.dataset.train)
        return self.scene_file.segments[end - self.held_out_size : end] if self.is_scene_file else None

    def measured_segments(self) -> torch.Tensor | None:
        """The same of the images that are measured."""
        if self.is_generated:
            return self.measured_scenes.segments
        if not self.is_scene_file:
            return None
        found = self.held_out_segments() if self.validation else self.scene_file.segments[len(self.dataset.train) :]
        return found[: self.evaluation_scenes]

    @property
    def held_out_size(self) -> int:
        return len(self.held_out_scenes) if self.is_generated else super().held_out_size

    @property
    def note(self) -> str:
        return "" if self.is_generated else super().note

    def observed(self, images: torch.Tensor) -> torch.Tensor:
        """Images, uint8, as the likelihood takes them: from 0 to 1."""
        return images / 255

    def prepare(self) -> None:
        if self.is_generated:
            if self.held_out or self.validation:
                raise UsageError(
                    f"--held-out and --validation are of your own images: {self.data} are made anew for each purpose"
                )
            self._draw(self.batch_size, seeded(0))
        else:
            self.require(self.relation == "none", "relation", f"none with {self.data}: relations are planted in generated scenes")
            super().prepare()
        self.programs()  # which refuses images that the networks can't halve

    def fitted(self, given: Collection[str]) -> Self:
        if self.is_generated:
            return self
        if "num_pieces" in given:
            raise UsageError(f"--num-pieces is of scenes that are made: those of {self.data} have the pieces that they have")
        return super().fitted(given)

    def fingerprint(self) -> str:
        return self.data if self.is_generated else super().fingerprint()

    def sized(self) -> Self:
        images = self._draw(1, seeded(0)).images if self.is_generated else self.training_images()[0]
        networks = dataclasses.replace(self.networks, x_shape=tuple(images.shape[1:]))
        return dataclasses.replace(self, networks=networks)

    def source(self, device: torch.device) -> Source:
        if self.is_generated:
            return SceneSource(self._draw, self.seed, device=device)
        return ImageSource(self.training_images()[0], "no", self.seed, device)

    # Training -------------------------------------------------------------------------------------------------------

    def latents(self) -> tuple[str, ...]:
        """Names of the latents' sites."""
        raise NotImplementedError

    def loss(self, pair: Pair) -> tuple[nn.Module, Any]:
        """What is minimized, and what to call after each step."""
        raise NotImplementedError

    def objectives(self, pair: Pair) -> list[Objective]:
        module, after_step = self.loss(pair)
        groups, rates = self._groups(module, pair)
        return [
            Objective(
                module,
                partial(torch.optim.Adam, lr=self.learning_rate, fused=True),
                moves=groups,
                scheduler=partial(LambdaLR, lr_lambda=rates),
                clip_norm=self.clip_norm,
                after_step=after_step,
            )
        ]

    def _groups(self, module: nn.Module, pair: Pair) -> tuple[list[dict[str, Any]], list[Rate]]:
        """The parameters in groups, and how the learning rate of each group changes."""
        return [{"params": list(module.parameters())}], [constant_linear(self.steps, self.decay_after)]

    def report(self, pair: Pair, device: torch.device) -> SlotsReport:
        return SlotsReport(self, pair, device)


_SMALL = {
    "steps": 10_000,
    "batch_size": 16,
    "learning_rate": 5e-4,
    "decay_after": 0.7,
    "clip_norm": 1e4,
    "image_size": 32,
    "num_slots": 4,
    "mask_balance": 10.0,
    "attention_channels": (16, 32, 32, 32),
    "encoder_channels": (32, 32, 64, 64),
    "decoder_channels": (32, 32, 32),
}
_LONG = {  # the networks of the paper's tables, at 32 x 32
    **_SMALL,
    "steps": 100_000,
    "batch_size": 32,
    "decay_after": 0.8,
    "attention_channels": (32, 32, 64, 64),
    "decoder_channels": (32, 32, 32, 32),
}
_PAPER = {"steps": 1_000_000, "batch_size": 64, "image_size": 64, "num_slots": 5}
_AS_PUBLISHED = {"coupling": "sigmoid", "learn_relation_scales": False, "relation_scale": 1.0, "scene_scale": 1.0}
_SMALL_GENESIS = {
    "data": "sprites",
    "num_pieces": 4,
    "steps": 12_000,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "decay_after": 0.8,
    "clip_norm": 1e4,
    "image_size": 32,
    "num_slots": 5,
    # Slots come to be pieces, and not places of the image, where masks learn faster than what slots look like. So masks are cheap
    # (mask_kl_weight), decoders learn shapes late (decoder_reach), and the background is what the first slots leave, which costs
    # nothing (mask_logit).
    "z_dim": 8,
    "initial_beta": 0.12,
    "min_beta": 0.12,  # beta stays there until reconstructions are at the goal, which they are not after these steps
    "mask_kl_weight": 0.1,
    "mask_logit": -2.0,
    "decoder_reach": 0.1,
    "mask_dim": 16,
    "hidden_dim": 128,
    "channels": (16, 32, 32),
    "decoder_channels": (32, 32, 32),
}
_LONG_GENESIS = {**_SMALL_GENESIS, "steps": 100_000}  # with the paper's widths masks learn before colors, and slots stay gray
_PAPER_GENESIS = {"data": "sprites", "num_pieces": 4, "steps": 500_000, "batch_size": 32, "image_size": 64, "num_slots": 5}


@dataclasses.dataclass(frozen=True)
class MONetRecipe(SlotsRecipe):
    """MONet: attention takes a scene apart, and a small VAE explains each part.

    Slots are independent: the model draws components, and their masks do not fit each other. To draw scenes, train mpp-monet.
    """

    name: ClassVar[str] = "monet"
    about: ClassVar[About] = ABOUT["monet"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": _SMALL, "long": _LONG, "paper": _PAPER}

    networks: MONetNetworks = MONetNetworks()
    """Sizes of the networks."""

    latent_weight: Weight = 0.5
    """Weight of the divergence of the slots' latents from their prior: MONet's beta, and in MPP^M that of z^c, z^g and z^0."""

    def latents(self) -> tuple[str, ...]:
        return ("z",)

    def loss(self, pair: Pair) -> tuple[nn.Module, Any]:
        return NegativeELBO(*pair, kl_weights=dict.fromkeys(self.latents(), self.latent_weight)), None


@dataclasses.dataclass(frozen=True)
class RelatedSlotsRecipe(SlotsRecipe):
    """What recipes share whose slots are related by one latent of the scene."""

    relation_speed: Positive = 4.0
    """Final learning rate of the maps that relate the slots, as a multiple of --learning-rate. It rises to that while the
    networks' rate falls, after --decay-after; with --decay-after 1 neither changes."""

    def _groups(self, module: nn.Module, pair: Pair) -> tuple[list[dict[str, Any]], list[Rate]]:
        # The relations of slots that still change, or that mean two pieces, are not worth learning fast: slots would be held to
        # them. As the networks settle, the relations are learned faster.
        _, networks = super()._groups(module, pair)
        related = list(pair.model.relations.parameters())
        apart = {id(parameter) for parameter in related}
        others = [parameter for parameter in module.parameters() if id(parameter) not in apart]
        start = self.decay_after * self.steps
        rising = linear(1.0, self.relation_speed, self.steps - start, start)
        return [{"params": others}, {"params": related}], [*networks, rising]


@dataclasses.dataclass(frozen=True)
class MPPMONetRecipe(MONetRecipe, RelatedSlotsRecipe):
    """MPP^M: MONet whose slots are related by one latent of the scene, through invertible maps.

    All networks are MONet's; a part of each slot's latent has another prior. ``paper`` has its fixed scales and sigmoids, but no
    batch normalization in the maps, by which an inverse would not be one; and it has MONet's likelihood and weights, so that the
    prior alone differs, where eqs. 10 to 13 have 1 and eq. 12 another likelihood (``latent_weight``, ``mask_weight``,
    ``likelihood``).
    """

    name: ClassVar[str] = "mpp-monet"
    about: ClassVar[About] = ABOUT["mpp-monet"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": _SMALL,
        "long": _LONG,
        "paper": {**_PAPER, **_AS_PUBLISHED},
    }

    networks: MPPMONetNetworks = MPPMONetNetworks()
    """Sizes of the networks."""

    def latents(self) -> tuple[str, ...]:
        return ("z_c", "z_g", "z_0")


# Genesis --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GenesisRecipe(SlotsRecipe):
    """Genesis: a scene drawn slot by slot, first where each piece is, then what it looks like.

    Reconstructions have a goal, and the weight of the latents' divergence follows from how far they are from it (GECO). In
    ``small`` and ``long`` that weight begins at the smallest that it may be: it rises once the goal is reached.
    """

    name: ClassVar[str] = "genesis"
    about: ClassVar[About] = ABOUT["genesis"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": _SMALL_GENESIS, "long": _LONG_GENESIS, "paper": _PAPER_GENESIS}

    networks: GenesisNetworks = GenesisNetworks()
    """Sizes of the networks."""
    goal: float = 0.5655
    """What the reconstruction is to come down to, in nats for each channel of a pixel."""
    goal_speed: Positive = 1e-5
    """Speed of beta, the weight of the latents' divergence (GECO), for each nat of an image and each step."""
    initial_beta: Annotated[float, Above(0), AtMost(1)] = 1.0
    """Beta, the weight of the latents' divergence, at the start."""
    min_beta: Annotated[float, Above(0), AtMost(1)] = 1e-10
    """The smallest that beta, the weight of the latents' divergence, can become."""
    mask_kl_weight: Positive = 1.0
    """Weight of the divergence of the masks' latents, as a multiple of that of what the slots look like."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.min_beta <= self.initial_beta, "min_beta", f"at most --initial-beta {self.initial_beta:g}")

    @property
    def fewest_examples(self) -> int:
        return 2

    def latents(self) -> tuple[str, ...]:
        return (*(f"z_m_{slot + 1}" for slot in range(self.networks.num_slots)), "z_c")

    def loss(self, pair: Pair) -> tuple[nn.Module, Any]:
        weights = {name: self.mask_kl_weight if name.startswith("z_m") else 1.0 for name in self.latents()}
        elbo, goal = NegativeELBO(*pair, kl_weights=weights), self.goal * math.prod(self.sized().networks.x_shape)
        geco = GECO(elbo, goal, speed=self.goal_speed, smallest=self.min_beta, start=self.initial_beta)
        return geco, geco.update


@dataclasses.dataclass(frozen=True)
class MPPGenesisRecipe(GenesisRecipe, RelatedSlotsRecipe):
    """MPP^G: Genesis whose slots are related by one latent of the scene, through invertible maps.

    All networks are Genesis's; a part of what each slot looks like has another prior. ``paper`` is as that of mpp-monet.
    """

    name: ClassVar[str] = "mpp-genesis"
    about: ClassVar[About] = ABOUT["mpp-genesis"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {**_SMALL_GENESIS, "global_dim": 4},
        "long": {**_LONG_GENESIS, "global_dim": 4},
        "paper": {**_PAPER_GENESIS, **_AS_PUBLISHED},
    }

    networks: MPPGenesisNetworks = MPPGenesisNetworks()
    """Sizes of the networks."""

    def latents(self) -> tuple[str, ...]:
        return (*super().latents(), "z_g", "z_0")
