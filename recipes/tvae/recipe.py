"""T-VAE and the two VAEs it is compared with: three ways to train the same encoder and decoder.

Source: Giannone et al. (2019). Its training (appendix B): batches of 100, 200 epochs, Adam at 1e-4, halved every 50 epochs, and
binary cross-entropy, minus which is of gray pixels the mean of log p over binarizations. What it does not say, and we chose: the
weights and the kernel of the discrepancies, the transformations that it trains on, and five nearest neighbors. Presets that train
for minutes also choose otherwise than it, see :class:`TVAERecipe`.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, StepLR
from typing_extensions import Self

from pyzoo.about import About
from pyzoo.data.affnist import Origin, at_mnists_size, load_affnist
from pyzoo.data.images import ImageSource, binarized, load_images
from pyzoo.data.transformations import FAMILIES, AugmentedSource, ViewSource
from pyzoo.errors import UsageError
from pyzoo.infer import NegativeELBO
from pyzoo.models.tvae import TVAENetworks, VAENetworks
from pyzoo.recipes.images import InData, PlainImageRecipe
from pyzoo.recipes.tvae import ABOUT
from pyzoo.recipes.tvae.report import TVAEReport
from pyzoo.settings import AtLeast, Count, Positive
from pyzoo.training import Objective, Pair, Schedule, Source, constant_linear, warmup

__all__ = ["PlainVAE", "TVAERecipe", "VAEPlus"]

_STEPS_PER_EPOCH = 60_000 // 100  # of MNIST
_PAPER = {"steps": 200 * _STEPS_PER_EPOCH, "log_every": _STEPS_PER_EPOCH, "checkpoint_seconds": 600.0}
# What the presets share that train for minutes:
_SMALL = {"steps": 3000, "log_every": 100, "schedule": "cosine", "learning_rate": 1e-3}
_LONG = {
    "steps": 100 * _STEPS_PER_EPOCH,
    "log_every": _STEPS_PER_EPOCH,
    "schedule": "constant-linear",
    "learning_rate": 1e-3,
    "checkpoint_seconds": 300.0,
}
_DIGITS = {"data": "digits", "affnist": "digits", "steps": 1000, "schedule": "cosine", "learning_rate": 1e-3}
_COHERENCE = {"coherence": "conditional", "coherence_weight": 100.0, "prior_weight": 1.0}


@dataclasses.dataclass(frozen=True)
class EmbeddingRecipe(PlainImageRecipe):
    """What T-VAE and its baselines share: encoder, decoder, training, and what is measured."""

    common: ClassVar[tuple[str, ...]] = (*PlainImageRecipe.common, "z_dim")
    engine: ClassVar[Literal["eager", "traced"]] = "traced"
    group: ClassVar[str] = "training"

    networks: VAENetworks = VAENetworks()
    """Sizes of the networks."""
    batch_size: Count = 100
    """Images in a step, over all devices; each with its views."""
    binarize: Annotated[Literal["no", "dynamic"], InData] = "no"
    """Whether pixels of training images are drawn anew as zeros and ones; no keeps them gray."""
    warmup_steps: Annotated[int, AtLeast(0)] = 0
    """Steps over which the weight of z_0's KL grows from 0 to 1; with 0 it is 1 throughout."""
    learning_rate: Positive = 1e-4
    """Initial learning rate of Adam."""
    schedule: Literal["step", "cosine", "constant-linear"] = "step"
    """Schedule of the learning rate: halved every 50 epochs; along a cosine to zero at the last step; or constant, and in a
    straight line to zero over the last three tenths of the steps."""
    affnist: Annotated[Origin | Literal["none"], InData] = "mnist"
    """Source of affNIST, on which embeddings are measured too: made from mnist, read from its own files, a stand-in made from
    digits, or none."""
    neighbors: Annotated[Count, InData] = 5
    """Neighbors of the k-NN classifier, k."""

    # Data -----------------------------------------------------------------------------------------------------------

    @property
    def measures_affnist(self) -> bool:
        """Whether embeddings of affNIST are measured, which the networks must be able to take."""
        return self.affnist != "none" and self.dataset.shape == (1, 28, 28) and self.dataset.train_labels is not None

    @property
    def note(self) -> str:
        affnist = {
            "mnist": "affNIST is made from MNIST by its published ranges, one version of each image.",
            "files": "affNIST is the first of its 32 batches.",
            "digits": "affNIST is a stand-in made from scikit-learn's digits.",
        }
        likelihood = "Likelihoods are of gray pixels: minus their cross-entropy." if self.binarize == "no" else ""
        notes = (super().note, affnist[self.affnist] if self.measures_affnist else "", likelihood)
        return " ".join(note for note in notes if note)

    def prepare(self) -> None:
        super().prepare()
        self.sized()
        if self.dataset.train_labels is not None:
            self.require(self.neighbors <= self.train_size, "neighbors", f"at most {self.train_size}, the number of images")
        if not self.measures_affnist:
            return
        if self.affnist == "mnist":  # made when it is needed
            for split in ("train", "test"):
                load_images("mnist", split, self.data_dir)
            return
        (_, labeled), (_, tested) = self.affnist_images()
        self.require(self.neighbors <= len(labeled), "neighbors", f"at most {len(labeled)}, affNIST's training images")
        missing = sorted(set(tested.tolist()) - set(labeled.tolist()))
        if missing:
            raise UsageError(f"affNIST's files have no training image of the digits {missing}, which are tested")

    def _moved(self, found: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        """scikit-learn's digits fill their images; made as large as MNIST's, they can be moved."""
        images, labels = found
        return (at_mnists_size(images) if self.data == "digits" else images), labels

    def training_images(self) -> tuple[Tensor, Tensor | None]:
        return self._moved(super().training_images())

    def held_out_images(self) -> tuple[Tensor, Tensor | None]:
        return self._moved(super().held_out_images())

    def measured_images(self) -> tuple[Tensor, Tensor | None]:
        return self.held_out_images() if self.validation else self._moved((self.dataset.test, self.dataset.test_labels))

    def affnist_images(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """affNIST's images, 40x40, and labels: those to classify by, and those to classify."""
        images, labels = load_affnist("train", self.data_dir, self.affnist)
        if self.validation:
            same_images = self.affnist == self.data  # moved, and in the same order: those that are trained on are not measured
            keep = len(images) - (self.held_out_size if same_images else len(images) // 6)
            return (images[:keep], labels[:keep]), (images[keep:], labels[keep:])
        return (images, labels), load_affnist("test", self.data_dir, self.affnist)

    def observed(self, images: Tensor) -> Tensor:
        return binarized(images, seed=0) if self.binarize == "dynamic" else images / 255

    def source(self, device: torch.device) -> Source:
        return ImageSource(self.training_images()[0], self.binarize, self.seed, device)

    # Training -------------------------------------------------------------------------------------------------------

    def objectives(self, pair: Pair) -> list[Objective]:
        module = NegativeELBO(*pair, {"z_0": 1.0})
        if self.schedule == "cosine":
            scheduler = partial(CosineAnnealingLR, T_max=self.steps)
        elif self.schedule == "constant-linear":
            scheduler = partial(LambdaLR, lr_lambda=constant_linear(self.steps))
        else:
            scheduler = partial(StepLR, step_size=50 * self.epoch_steps, gamma=0.5)
        return [
            Objective(
                module,
                partial(torch.optim.Adam, lr=self.learning_rate, fused=True),
                scheduler=scheduler,
                schedules=[Schedule(module, "kl_weight_z_0", warmup(self.warmup_steps))],
            )
        ]

    def report(self, pair: Pair, device: torch.device) -> TVAEReport:
        return TVAEReport(self, pair, device)


@dataclasses.dataclass(frozen=True)
class PlainVAE(EmbeddingRecipe):
    """A VAE with T-VAE's encoder and decoder, trained on the images alone.

    Its preset "small" has a third of T-VAE's learning rate, with which all but one of the baselines embed held-out images better
    (docs/results/tvae.md).
    """

    name: ClassVar[str] = "tvae-vae"
    about: ClassVar[About] = ABOUT["tvae-vae"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": _SMALL, "digits": _DIGITS, "long": _LONG, "paper": _PAPER}


@dataclasses.dataclass(frozen=True)
class TransformedRecipe(EmbeddingRecipe):
    """What recipes share that see transformed images."""

    common: ClassVar[tuple[str, ...]] = (*EmbeddingRecipe.common, "family")

    family: Annotated[
        Literal[
            "affine", "rotation", "shear", "scale", "translation", "rotation-translation", "crop", "rotation-crop", "superpixels"
        ],
        InData,
    ] = "affine"
    """Transformations of the images: affine, rotation, shear, scale, translation or rotation-translation; or, without an inverse,
    crop, rotation-crop or superpixels, and then each view has a transformation of its own."""

    num_views: ClassVar[int] = 2

    @property
    def inverse_views(self) -> bool:
        """Whether an image's views are of a transformation and its inverse."""
        return FAMILIES[self.family].invertible and self.num_views == 2

    def views(self, device: torch.device) -> ViewSource:
        """Images with their views."""
        images, family = self.training_images()[0], FAMILIES[self.family]
        return ViewSource(images, family, self.num_views, self.inverse_views, self.binarize, self.seed, device)


@dataclasses.dataclass(frozen=True)
class VAEPlus(TransformedRecipe):
    """A VAE with T-VAE's encoder and decoder, trained on images of T-VAE's triplets, at each step one of each triplet.

    In as many steps it sees a third of the images that T-VAE does. Its learning rate is :class:`PlainVAE`'s.
    """

    name: ClassVar[str] = "tvae-vae-plus"
    about: ClassVar[About] = ABOUT["tvae-vae-plus"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PlainVAE.presets

    def source(self, device: torch.device) -> Source:
        return AugmentedSource(self.views(device))


@dataclasses.dataclass(frozen=True)
class TVAERecipe(TransformedRecipe):
    """A VAE whose latent space also holds the transformations between images (table 1, figures 2 to 4).

    It trains on an image, its transformed version, and that by the inverse transformation. The preset "paper" is eq. 3 as we read
    it, with marginal coherence, with which T need not mean anything (see the model), and the paper's learning rate. "small" and
    "digits" train for minutes, with larger rates along a cosine, conditional coherence and T scored by its prior. That serves the
    embedding, and costs T its effect on other images: set ``transformation_weight`` to 0 where T matters more.
    """

    name: ClassVar[str] = "tvae"
    about: ClassVar[About] = ABOUT["tvae"]
    common: ClassVar[tuple[str, ...]] = (*TransformedRecipe.common, "coherence_weight")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {**_SMALL, **_COHERENCE, "transformation_weight": 3.0, "learning_rate": 3e-3},
        "digits": {**_DIGITS, **_COHERENCE, "transformation_weight": 1.0},
        "long": {**_LONG, **_COHERENCE, "transformation_weight": 3.0},
        "paper": _PAPER,
    }

    networks: TVAENetworks = TVAENetworks()
    """Sizes of the networks."""

    @property
    def num_views(self) -> int:  # type: ignore[override]
        """Transformed versions of each image."""
        return self.networks.num_views

    def sized(self) -> Self:
        sized = super().sized()
        return dataclasses.replace(sized, networks=dataclasses.replace(sized.networks, inverse_views=self.inverse_views))

    def source(self, device: torch.device) -> Source:
        return self.views(device)
