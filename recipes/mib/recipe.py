"""Training of the methods of the unified table: one recipe for each row, on pairs of views or on images alone.

Source: Zhang et al. (2020), tables 1 and 2 and section 4.2. Sizes, optimizer and weights were in an appendix that our copy lacks:
the presets are ours.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from torch import nn

from pyzoo.about import About
from pyzoo.data.images import ImageData, load_image_data
from pyzoo.data.multimodal import Label, PairSet, PairSetName, PairSource, load_pairs, pairs_of, partner_name
from pyzoo.models.mib import PairNetworks, ViewNetworks
from pyzoo.recipes.images import ImageRecipe, InData
from pyzoo.recipes.mib import ABOUT
from pyzoo.recipes.mib import methods as rows
from pyzoo.recipes.mib.objectives import DiscriminatorLoss, GeneratorLoss, pixel_discriminator
from pyzoo.recipes.mib.report import MIBReport
from pyzoo.recipes.mib.structured import StructuredRecipe
from pyzoo.settings import Positive, Share
from pyzoo.training import Objective, Pair, Source

__all__ = [
    "BetaTCVAERecipe",
    "BetaVAERecipe",
    "BiVCCARecipe",
    "GANRecipe",
    "InfoGANRecipe",
    "JMVAERecipe",
    "MIBRecipe",
    "MVAERecipe",
    "MultimodalRecipe",
    "PairRecipe",
    "TELBORecipe",
    "VAERecipe",
    "ViewRecipe",
    "WynerVAERecipe",
]


@dataclasses.dataclass(frozen=True)
class MIBRecipe(ImageRecipe, StructuredRecipe):
    """Base of the rows, which are all on images."""

    group: ClassVar[str] = "training"
    has_likelihood: ClassVar[bool] = True
    """Whether the model is trained by its likelihood, so that an ELBO says something of it."""

    networks: ViewNetworks = ViewNetworks()
    """Sizes of the networks."""

    @property
    def first_view(self) -> str:
        """Name of the view that is an image of the data."""
        return "digit" if self.data.split("-")[0] in ("mnist", "digits") else "image"

    @property
    def has_classes(self) -> bool:
        """Whether the images have labels, of two classes or more."""
        labeled = self.dataset.train_labels is not None and self.dataset.test_labels is not None
        return labeled and len(self.dataset.classes) >= 2

    def view_sizes(self) -> dict[str, Any]:
        return {"x_shape": self.dataset.shape, "num_classes": max(1, len(self.dataset.classes))}

    def pairs(self, part: Literal["train", "held_out", "measured"]) -> PairSet:
        """Views of the examples to train on, of the held-out ones, or of those to measure (with --validation held-out ones)."""
        raise NotImplementedError

    def source(self, device: torch.device) -> Source:
        return PairSource(self.pairs("train"), seed=self.seed, device=device, views=self.views)

    def prepare(self) -> None:
        for part in ("train", "measured"):
            self.pairs(part)
        if self.held_out_size:
            self.pairs("held_out")
        super().prepare()

    def report(self, pair: Pair, device: torch.device) -> MIBReport:
        return MIBReport(self, pair, device)


# Rows with several views ----------------------------------------------------------------------------------------------

_SMALL = {"data": "mnist-numbers", "steps": 4000, "batch_size": 64, "number_scale": 0.7}
_DIGITS = {"data": "digits-label", "steps": 1500, "batch_size": 128, "hidden_dim": 256, "label_weight": 50.0}
_LONG = {"steps": 20_000, "log_every": 200, "checkpoint_seconds": 300.0}
_DIGITS_NUMBERS = {**_SMALL, "data": "digits-numbers", "hidden_dim": 256}


def _presets(pairs_of_images: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The presets, with further settings for two images and for an image with its label."""
    return {
        "small": {**_SMALL, **pairs_of_images},
        "digits": {**_DIGITS, **labels},
        "digits-numbers": {**_DIGITS_NUMBERS, **pairs_of_images},
        "long": {**_SMALL, **_LONG, **pairs_of_images},
    }


_SHARED_ALONE = _presets({"z_dim": 24}, {"z_dim": 12})  # as many dimensions as the others have together
_SHARED_AND_PRIVATE = _presets({"z_dim": 8, "u_dim": 8}, {"z_dim": 8, "u_dim": 4})


@dataclasses.dataclass(frozen=True)
class PairRecipe(MIBRecipe):
    """Base of the rows with two views."""

    common: ClassVar[tuple[str, ...]] = (*MIBRecipe.common, "second_view", "z_dim", "hidden_dim")
    named_data: ClassVar[tuple[str, ...]] = (*MIBRecipe.named_data, *get_args(PairSetName))

    data: str = "mnist-numbers"
    """Pairs to train on: mnist-label, mnist-numbers (rendered house numbers), mnist-svhn, mnist-plus-one (the next digit); the
    same of digits, but for svhn; or any images with labels that ``pyzoo train graph-vae`` takes, your own among them."""
    networks: PairNetworks = PairNetworks()
    """Sizes of the networks."""
    second_view: Annotated[Literal["label", "next"], InData] = "label"
    """For images with labels, what the second view is: the label, or an image of the next class."""
    paired: Annotated[Share, InData] = 1.0
    """Share of training examples that come with both views; of the others one view is missing."""
    label_weight: Positive = 10.0
    """Weight of a label's likelihood, which is a few nats where that of an image is hundreds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.image_size is None or not self._is_named_pairs, "image_size", f"left out with --data {self.data}")

    @property
    def _is_named_pairs(self) -> bool:
        return self.data in get_args(PairSetName)

    @property
    def views(self) -> tuple[str, ...]:
        return (self.first_view, partner_name(self.data) if self._is_named_pairs else self.second_view)

    def read_data(self) -> ImageData:
        if self._is_named_pairs:
            return load_image_data(self.data.split("-")[0], self.data_dir)
        return super().read_data()

    @property
    def note(self) -> str:
        rendered = "House numbers are rendered, not SVHN." if self.data.endswith("-numbers") else ""
        return " ".join(part for part in (super().note, rendered) if part)

    def pairs(self, part: Literal["train", "held_out", "measured"]) -> PairSet:
        kept = self.train_size / len(self.dataset.train)
        if part == "measured" and not self.validation:
            split, share = "test", (0.0, 1.0)
        else:
            split, share = "train", (0.0, kept) if part == "train" else (kept, 1.0)
        if self._is_named_pairs:
            return load_pairs(self.data, split, self.data_dir, share)
        return dataclasses.replace(pairs_of(self.dataset, self.second_view, split, share), first=self.first_view)

    def source(self, device: torch.device) -> Source:
        return PairSource(self.pairs("train"), self.paired, self.seed, device)

    def site_weights(self) -> dict[str, float]:
        return {"label": self.label_weight} if "label" in self.views else {}


_OURS_WITH_LABELS = {"independence": "total_correlation", "independence_weight": 3.0, "crossed_cost": 0.5, "cross_weight": 1.5}
_OURS_WITH_NUMBERS = {
    "digit_kl_start": 30.0,
    "number_kl_end": 8.0,
    "shared_kl_end": 0.5,
    "crossed_cost": 1.0,
    "cross_weight": 3.0,
}


@dataclasses.dataclass(frozen=True)
class MultimodalRecipe(PairRecipe):
    """Two views (OURS-MM): shared latents hold what they have in common, private latents what is specific to each.

    It trains L_x + L_u + L_z of section 4.2. Its presets add to that bound: a weight of the label's likelihood, as all rows with
    labels have (``label_weight``), and a scale of house numbers' pixels (``number_scale``); crossed costs; with labels, a penalty
    on the dependence of shared and private latents; and with house numbers, KL weights that start large for the digit's private
    latent, end large for the number's, and end small for the shared one (docs/results/mib.md says why).
    """

    name: ClassVar[str] = "mib-multimodal"
    about: ClassVar[About] = ABOUT["mib-multimodal"]
    common: ClassVar[tuple[str, ...]] = (*PairRecipe.common, "u_dim")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {**preset, **(_OURS_WITH_LABELS if name == "digits" else _OURS_WITH_NUMBERS)}
        for name, preset in _SHARED_AND_PRIVATE.items()
    }

    method: rows.Multimodal = rows.Multimodal()
    """The row of the table."""


@dataclasses.dataclass(frozen=True)
class JMVAERecipe(PairRecipe):
    """Two views from one shared latent, which should follow from either of them (Suzuki et al. 2017)."""

    name: ClassVar[str] = "mib-jmvae"
    about: ClassVar[About] = ABOUT["mib-jmvae"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _SHARED_ALONE

    method: rows.JMVAE = rows.JMVAE()
    """The row of the table."""


@dataclasses.dataclass(frozen=True)
class MVAERecipe(PairRecipe):
    """Two views from one shared latent, by the ELBOs of both views and of each (Wu and Goodman 2018)."""

    name: ClassVar[str] = "mib-mvae"
    about: ClassVar[About] = ABOUT["mib-mvae"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _SHARED_ALONE

    method: rows.MVAE = rows.MVAE()
    """The row of the table."""


@dataclasses.dataclass(frozen=True)
class TELBORecipe(PairRecipe):
    """Two views from one shared latent, by three ELBOs, those of single views with larger weights (Vedantam et al. 2018)."""

    name: ClassVar[str] = "mib-telbo"
    about: ClassVar[About] = ABOUT["mib-telbo"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _SHARED_ALONE

    method: rows.TELBO = rows.TELBO()
    """The row of the table."""


@dataclasses.dataclass(frozen=True)
class BiVCCARecipe(PairRecipe):
    """Two views from one shared latent, which is inferred from one view at a time (Wang et al. 2016)."""

    name: ClassVar[str] = "mib-bivcca"
    about: ClassVar[About] = ABOUT["mib-bivcca"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _SHARED_ALONE

    method: rows.BiVCCA = rows.BiVCCA()
    """The row of the table."""


@dataclasses.dataclass(frozen=True)
class WynerVAERecipe(PairRecipe):
    """Two views with shared and private latents, of which the shared one holds little (Ryu et al. 2020)."""

    name: ClassVar[str] = "mib-wyner-vae"
    about: ClassVar[About] = ABOUT["mib-wyner-vae"]
    common: ClassVar[tuple[str, ...]] = (*PairRecipe.common, "u_dim")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _SHARED_AND_PRIVATE

    method: rows.WynerVAE = rows.WynerVAE()
    """The row of the table."""


# Rows with one view ---------------------------------------------------------------------------------------------------

_VIEW_SMALL = {"data": "mnist", "steps": 4000, "batch_size": 64, "u_dim": 8}
_ONE_VIEW = {
    "small": _VIEW_SMALL,
    "digits": {"data": "digits", "steps": 1500, "batch_size": 128, "u_dim": 4, "hidden_dim": 256},
    "digits-numbers": {**_VIEW_SMALL, "data": "digits", "hidden_dim": 256},  # the budget of the rows with two views
    "long": {**_VIEW_SMALL, **_LONG},
}


@dataclasses.dataclass(frozen=True)
class ViewRecipe(MIBRecipe):
    """Base of the rows with one view, an image."""

    common: ClassVar[tuple[str, ...]] = (*MIBRecipe.common, "u_dim", "hidden_dim")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = _ONE_VIEW

    @property
    def views(self) -> tuple[str, ...]:
        return (self.first_view,)

    def pairs(self, part: Literal["train", "held_out", "measured"]) -> PairSet:
        """The images, with their labels as second views, which nothing takes."""
        found = {"train": self.training_images, "held_out": self.held_out_images, "measured": self.measured_images}
        images, labels = found[part]()
        labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels
        return PairSet(images, labels, Label(max(1, len(self.dataset.classes))), self.first_view)


@dataclasses.dataclass(frozen=True)
class VAERecipe(ViewRecipe):
    """Images with one latent, and no penalty (Kingma and Welling 2014)."""

    name: ClassVar[str] = "mib-vae"
    about: ClassVar[About] = ABOUT["mib-vae"]

    method: rows.VAE = rows.VAE()
    """The row of the table."""


@dataclasses.dataclass(frozen=True)
class BetaVAERecipe(ViewRecipe):
    """Images with a latent that should hold little of them (Higgins et al. 2016)."""

    name: ClassVar[str] = "mib-beta-vae"
    about: ClassVar[About] = ABOUT["mib-beta-vae"]
    common: ClassVar[tuple[str, ...]] = (*ViewRecipe.common, "beta")

    method: rows.BetaVAE = rows.BetaVAE()
    """The row of the table."""


@dataclasses.dataclass(frozen=True)
class BetaTCVAERecipe(ViewRecipe):
    """Images with latents that should be independent of each other (Chen et al. 2018)."""

    name: ClassVar[str] = "mib-beta-tcvae"
    about: ClassVar[About] = ABOUT["mib-beta-tcvae"]
    common: ClassVar[tuple[str, ...]] = (*ViewRecipe.common, "beta")

    method: rows.BetaTCVAE = rows.BetaTCVAE()
    """The row of the table."""


@dataclasses.dataclass(frozen=True)
class GANRecipe(ViewRecipe):
    """Images from a generator that is trained against a discriminator (Goodfellow et al. 2014)."""

    name: ClassVar[str] = "mib-gan"
    about: ClassVar[About] = ABOUT["mib-gan"]
    has_likelihood: ClassVar[bool] = False

    method: rows.VAE = rows.GAN()
    """The row of the table."""
    learning_rate: Positive = 2e-4
    """Initial learning rate of Adam; it falls along a cosine to zero at the last step."""

    def objectives(self, pair: Pair) -> list[Objective]:
        discriminator = pixel_discriminator(self.networks.hidden_dim, self.dataset.shape)
        generator, moves = self._generator(pair, discriminator)
        judge = DiscriminatorLoss(pair.model, discriminator, self.first_view)
        return [
            self.objective(generator, moves, betas=(0.5, 0.999)),
            self.objective(judge, list(discriminator.parameters()), "discriminator", betas=(0.5, 0.999)),
        ]

    def _generator(self, pair: Pair, discriminator: nn.Module) -> tuple[GeneratorLoss, list[nn.Parameter]]:
        """What trains the generator, and the parameters that it moves."""
        return GeneratorLoss(pair.model, discriminator, self.first_view), list(pair.model.parameters())


@dataclasses.dataclass(frozen=True)
class InfoGANRecipe(GANRecipe):
    """A GAN with a code that can be read off its images (Chen et al. 2016)."""

    name: ClassVar[str] = "mib-infogan"
    about: ClassVar[About] = ABOUT["mib-infogan"]
    common: ClassVar[tuple[str, ...]] = (*GANRecipe.common, "code_dim", "code_weight")

    method: rows.InfoGAN = rows.InfoGAN()
    """The row of the table."""

    def _generator(self, pair: Pair, discriminator: nn.Module) -> tuple[GeneratorLoss, list[nn.Parameter]]:
        loss = GeneratorLoss(pair.model, discriminator, self.first_view, pair.guide, self.method.code, self.method.code_weight)
        return loss, [*pair.model.parameters(), *pair.guide.parameters()]
