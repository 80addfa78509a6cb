"""Training of models whose structure is learned (algorithm 1), on views whose structure is known.

Source: Zhang et al. (2020), section 3.5, eq. 15 and algorithm 1. The paper shows no experiment of its structure learning: data,
sizes and schedules are ours. They were chosen by planted structures of seeds from 1000 on.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch.optim.lr_scheduler import LambdaLR

from pyzoo.about import About
from pyzoo.data.images import load_image_data
from pyzoo.data.planted import ENVIRONMENT, PlantedGaussians, PlantedImages, PlantedSource, drawn_structure, parsed_structure
from pyzoo.errors import UsageError
from pyzoo.files import absolute, fingerprint_of
from pyzoo.infer import BayesianNetwork, RelaxedMask, Variables
from pyzoo.models.mib import LearnedMaskNetworks, require_free_names
from pyzoo.recipes.images import ImageRecipe, InData, is_own
from pyzoo.recipes.mib.methods import Declaration, Method
from pyzoo.recipes.mib.structure import ABOUT
from pyzoo.recipes.mib.structure.objectives import DistributionLoss, ScoreLoss
from pyzoo.recipes.mib.structure.report import StructureReport
from pyzoo.recipes.mib.structured import StructuredRecipe
from pyzoo.settings import Above, AtLeast, AtMost, Count, Positive, Share, Steps, Weight
from pyzoo.training import Objective, Pair, Schedule, Source, linear

__all__ = ["LearnedStructure", "LearnedStructureRecipe"]


@dataclasses.dataclass(frozen=True)
class LearnedStructure(Method):
    """All edges between shared latents and views are possible; their masks decide."""

    latents: Annotated[int, AtLeast(0)] = 0
    """Number of shared latents; 0 takes as many as there are causes. Those that are left over lose their edges."""
    z_dim: Count = 1
    """Dimensions of a shared latent."""
    u_dim: Annotated[int, AtLeast(0)] = 0
    """Dimensions of the private latent of each view; 0 for none. Images need one, for what is different in every view."""
    sparsity: Weight = 0.2
    """Weight of an edge in the score, in nats; lambda."""
    concentration: Weight = 1.0
    """Weight of each view's effective number of parents in the loss of the distributions, in nats; gamma."""

    def declare(self, views: tuple[str, ...]) -> Declaration:
        shared = tuple(f"z{j + 1}" for j in range(self.latents))
        private = {f"u_{view}": view for view in views if view != ENVIRONMENT} if self.u_dim else {}
        together, seen = ", ".join(shared), ", ".join(views)
        return Declaration(
            Variables(views, shared=shared, private=private),
            generative="; ".join([f"{together} -> {seen}", *(f"{u} -> {view}" for u, view in private.items())]),
            inference="; ".join([f"{seen} -> {together}", *(f"{view} -> {u}" for u, view in private.items())]),
        )

    def dims(self, variables: Variables) -> dict[str, int]:
        return {**dict.fromkeys(variables.shared, self.z_dim), **dict.fromkeys(variables.private, self.u_dim)}


_IMAGES = {
    "data": "digits",
    "steps": 4000,
    "num_views": 4,
    "most_causes": 2,
    "learning_rate": 4e-3,
    "hidden_dim": 96,
    "u_dim": 6,
    "mask_learning_rate": 2e-2,
}


@dataclasses.dataclass(frozen=True)
class LearnedStructureRecipe(StructuredRecipe):
    """Which view depends on which latent, learned by masks whose edges have probabilities (algorithm 1).

    The views are drawn from a structure that is known, at random or your own, so that one sees whether it is found.
    """

    name: ClassVar[str] = "mib-structure"
    about: ClassVar[About] = ABOUT["mib-structure"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {},
        "digits": _IMAGES,
        "environments": {"environments": 3},
    }
    common: ClassVar[tuple[str, ...]] = (
        "data",
        "structure",
        "num_views",
        "num_causes",
        *StructuredRecipe.common,
        "known_edges",
        "absent_edges",
        "sparsity",
        "concentration",
    )
    incidental: ClassVar[frozenset[str]] = StructuredRecipe.incidental | {"data_dir"}

    data: Annotated[str, InData] = "gaussian"
    """The views: gaussian, linear functions of normal causes; or strips of images, by what ``--data`` of graph-vae takes: digits,
    mnist, or your own."""
    data_dir: Annotated[Path | None, InData] = None
    """Folder in which named sets are looked for first; then in $PYZOO_DATA and in a cache, into which they are downloaded."""
    structure: Annotated[str, InData] = ""
    """Causes and their views, as "z1 -> x1, x2; z2 -> x2, x3"; a view called e is an environment. By default drawn at random."""
    num_views: Annotated[int, AtLeast(2), AtMost(50), InData] = 5
    """Number of views of a structure that is drawn."""
    num_causes: Annotated[int, AtLeast(1), AtMost(50), InData] = 3
    """Number of causes of a structure that is drawn; each has two views or more, and no two have the same ones."""
    most_causes: Annotated[Count, InData] = 3
    """Largest number of causes of a view of a structure that is drawn."""
    density: Annotated[float, Above(0), AtMost(1), InData] = 0.5
    """Probability of an edge of a structure that is drawn."""
    environments: Annotated[int, AtLeast(0), AtMost(50), InData] = 0
    """Number of environments, a further view "e" that a cause leads to: they differ in how large that cause is. 0 for none."""
    environment_blur: Annotated[Share, InData] = 0.2
    """Share of examples whose environment is drawn at random instead."""
    x_dim: Annotated[Count, InData] = 4
    """Numbers in a view of gaussian data."""
    cause_dim: Annotated[Count, InData] = 1
    """Dimensions of a cause of gaussian data."""
    noise: Annotated[Positive, InData] = 0.3
    """Standard deviation of the noise of gaussian data, beside which a view's coordinates have variance 1."""
    num_classes: Annotated[int, AtLeast(0), InData] = 0
    """Of images, the number of classes that a cause chooses among; with 0 it decides on their brightness, which is easier to
    find."""
    complete: Annotated[Share, InData] = 1.0
    """Share of examples that have all views; of the others each view is missing with probability one half."""
    masks: Literal["learned", "all", "planted"] = "learned"
    """Whether the masks are learned; or fixed, with all edges or with those of the structure."""
    known_edges: str = ""
    """Edges that are known to be there, as "z1 -> x1, x2"."""
    absent_edges: str = ""
    """Edges that are known not to be there, likewise."""
    networks: LearnedMaskNetworks = LearnedMaskNetworks(hidden_dim=32)
    """Sizes of the networks."""
    method: LearnedStructure = LearnedStructure()
    """The structure that is possible, and what an edge costs."""
    steps: Steps = 3000
    """Training steps."""
    batch_size: Count = 128
    """Examples in a step, over all devices."""
    learning_rate: Positive = 1e-2
    """Initial learning rate of Adam; it falls along a cosine to zero at the last step."""
    mask_learning_rate: Positive = 4e-2
    """Learning rate of the masks' log-odds."""
    mask_every: Count = 1
    """Steps of the distributions between two steps of the structure; steps_dist of algorithm 1, with steps_str 1."""
    mask_start: Annotated[float, AtLeast(0), AtMost(1)] = 0.5
    """Share of the steps after which the structure is learned. Until then all edges are likely, and latents rotate."""
    environment_weight: Positive = 5.0
    """Weight of the environment's likelihood, one nat where the views are dozens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_of_images and is_own(self.data, ImageRecipe.named_data):  # a run may be resumed elsewhere
            object.__setattr__(self, "data", str(absolute(self.data)))
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", absolute(self.data_dir))
        with _naming("structure"):
            views = self.views
            enough = self.environments >= 2 if ENVIRONMENT in views else self.environments == 0
            self.require(enough, "environments", "2 or more for a view e in --structure, and 0 without it")
            if not set(views) - {ENVIRONMENT}:
                raise UsageError("--structure needs a view besides the environment")
            require_free_names(self.declare().variables)
        known, absent = self._edges("known-edges", self.known_edges), self._edges("absent-edges", self.absent_edges)
        if both := [edge for edge in known if edge in absent]:
            raise UsageError(f"--known-edges and --absent-edges contradict each other: {' -> '.join(both[0])}")
        something_known = bool(self.known_edges or self.absent_edges)
        self.require(self.masks == "learned" or not something_known, "masks", "learned where edges are known or absent")

    def _edges(self, flag: str, text: str) -> Collection[tuple[str, str]]:
        """The edges that a flag names."""
        with _naming(flag):
            edges = BayesianNetwork.parse(text, self.declare().variables).edges
            if wrong := [edge for edge in edges if edge[1] not in self.views]:
                raise ValueError(f"An edge leads from a latent to a view, not as {' -> '.join(wrong[0])}.")
        return edges

    # Data -----------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def planted_structure(self) -> BayesianNetwork:
        """The structure that the views are drawn from."""
        if self.structure.strip():
            return parsed_structure(self.structure)
        most = self.most_causes if self.is_of_images else min(self.most_causes, self.x_dim // self.cause_dim)
        return drawn_structure(
            self.num_views, self.num_causes, max(1, most), self.seed, self.density, environment=self.environments > 0
        )

    @property
    def is_of_images(self) -> bool:
        """Whether the views are strips of images."""
        return self.data != "gaussian"

    def planted(self, part: Literal["train", "test"]) -> PlantedGaussians | PlantedImages:
        """What draws the views to train on, or to measure on: the same, but of other images.

        Raises:
            UsageError: the images are missing, or have no labels.
        """
        structure, environments = self.planted_structure, (self.environments, self.environment_blur)
        if not self.is_of_images:
            return PlantedGaussians(structure, self.x_dim, self.cause_dim, self.noise, self.seed, *environments)
        images, labels = self._images[part]
        return PlantedImages(structure, images, labels, self.num_classes, *environments)

    @functools.cached_property
    def _images(self) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
        dataset = load_image_data(self.data, self.data_dir)
        if self.num_classes and (dataset.train_labels is None or dataset.test_labels is None):
            raise UsageError(f"--num-classes needs images with labels, which {self.data} lacks")
        parts = {"train": (dataset.train, dataset.train_labels), "test": (dataset.test, dataset.test_labels)}
        return {part: (_small(images), labels) for part, (images, labels) in parts.items()}

    def prepare(self) -> None:
        for part in ("train", "test"):
            self.planted(part)

    def fingerprint(self) -> str:
        if not self.is_of_images or not is_own(self.data, ImageRecipe.named_data):
            return ""
        return fingerprint_of(*(part for pair in self._images.values() for part in pair if part is not None))

    @property
    def train_size(self) -> None:
        return None

    def source(self, device: torch.device) -> Source:
        return PlantedSource(self.planted("train"), self.complete, self.seed, device=device)

    def test_views(self, device: torch.device, count: int = 2000) -> dict[str, torch.Tensor]:
        """Views to measure on, by name, which training does not see."""
        return PlantedSource(self.planted("test"), seed=self.seed, split="test", device=device).batch(0, count)

    def held_out_views(self, device: torch.device, count: int = 2000) -> dict[str, torch.Tensor]:
        """Views to choose checkpoints by, drawn of the training images where there are images."""
        return PlantedSource(self.planted("train"), seed=self.seed, split="held_out", device=device).batch(0, count)

    @property
    def views(self) -> tuple[str, ...]:
        return self.planted_structure.variables.observed

    # Training -------------------------------------------------------------------------------------------------------

    def declare(self) -> Declaration:
        latents = self.method.latents or len(self.planted_structure.variables.shared)
        declared = dataclasses.replace(self.method, latents=latents).declare(self.views)
        if self.masks != "planted":
            return declared
        structure, names = self.planted_structure, declared.variables
        if len(structure.variables.shared) != len(names.shared):
            raise UsageError("--latents must be the number of causes with --masks planted")
        mask = structure.generative_mask()
        generative = BayesianNetwork.from_generative_mask(names, mask)
        inference = BayesianNetwork.from_inference_mask(names, mask)
        return dataclasses.replace(declared, generative=_text(generative), inference=_text(inference))

    def view_sizes(self) -> dict[str, Any]:
        learned = {"learned": self.masks == "learned", "known": self.known_edges, "absent": self.absent_edges}
        sizes = {**learned, "num_environments": max(1, self.environments)}
        if not self.is_of_images:
            return {**sizes, "num_features": self.x_dim}
        return {**sizes, "x_shape": self.planted("train").x_shape}

    def site_weights(self) -> dict[str, float]:
        return {ENVIRONMENT: self.environment_weight} if ENVIRONMENT in self.views else {}

    def objectives(self, pair: Pair) -> list[Objective]:
        model, guide = pair
        (plain,) = super().objectives(pair)
        module = DistributionLoss(plain.module, model, self.method.concentration)
        share = Schedule(module, "share", self._concentration, name="concentration")
        masks = [mask for mask in (model.mask, guide.mask) if isinstance(mask, RelaxedMask)]
        learned = {id(mask.logits) for mask in masks}
        moves = [p for p in plain.moves if id(p) not in learned]
        first = dataclasses.replace(plain, module=module, moves=moves, schedules=[*plain.schedules, share])
        if not masks:
            return [first]
        adam = partial(torch.optim.Adam, lr=self.mask_learning_rate, fused=True)
        start = self.mask_start * self.steps / self.mask_every
        second = Objective(
            ScoreLoss(plain.module, masks, self.method.sparsity),
            adam,
            moves=[mask.logits for mask in masks],
            scheduler=partial(LambdaLR, lr_lambda=lambda step: float(step >= start)),
            name="structure",
            every=self.mask_every,
        )
        return [first, second]

    def _concentration(self, step: int) -> float:
        """The share of gamma: none while views are not explained yet, all of it while latents turn, little at the end."""
        rises = linear(0.0, 1.0, steps=0.1 * self.steps, start=0.15 * self.steps)
        falls = linear(1.0, 0.1, steps=0.2 * self.steps, start=0.6 * self.steps)
        return rises(step) * falls(step)

    def report(self, pair: Pair, device: torch.device) -> StructureReport:
        return StructureReport(self, pair, device)


@contextlib.contextmanager
def _naming(flag: str) -> Iterator[None]:
    """The context in which what is wrong with a text is said by its flag."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"--{flag}: {error}".rstrip(".")) from error


def _small(images: torch.Tensor) -> torch.Tensor:
    """Gray images, of those of 16 pixels or more on a side every other pixel, or every fourth."""
    if images.shape[1] > 1:
        images = images.float().mean(1, keepdim=True).round().to(torch.uint8)
    stride = max(1, min(images.shape[2:]) // 8)
    return images[:, :, ::stride, ::stride]


def _text(network: BayesianNetwork) -> str:
    return "; ".join(f"{parent} -> {child}" for parent, child in network.edges)
