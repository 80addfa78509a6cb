"""T-VAE and the two VAEs it is compared with: one recipe, three ways to train the same encoder and decoder.

Source: Giannone et al. (2019). Its training (appendix B): batches of 100, 200 epochs, Adam at 1e-4, halved every 50 epochs, and
binary cross-entropy, which of grey pixels is the mean of log p over binarisations. What it does not say, and we
chose: the weights of the discrepancies, and the transformations that it trains on. Presets that train for minutes also choose
otherwise than it, see :class:`TVAERecipe`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pyzoo.data.affnist import Origin, at_mnists_size, load_affnist
from pyzoo.data.images import IMAGE_SETS, ImageSource, load_images
from pyzoo.data.transformations import FAMILIES, AugmentedSource, ViewSource
from pyzoo.errors import UsageError
from pyzoo.guides.tvae import tvae_guide
from pyzoo.infer import NegativeELBO
from pyzoo.models.tvae import Additive, Coherence, Matrix, tvae, vae
from pyzoo.recipes import tvae_metrics
from pyzoo.recipes.images import ImageRecipe
from pyzoo.training import Objective, Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PlainVAE", "TVAERecipe", "TrainingSet", "VAEPlus"]

TrainingSet = Literal["mnist", "fashion-mnist", "digits"]

_LATENT_MAPS = {"additive": Additive, "matrix": Matrix}
_STEPS_PER_EPOCH = IMAGE_SETS["mnist"].train // 100
# What means nothing to a VAE:
_OF_T = frozenset({"latent_map", "coherence", "coherence_weight", "prior_weight", "transformation_weight", "hidden_dim"})
# What presets share that train for minutes:
_QUICK = {"schedule": "cosine", "learning_rate": 1e-3, "coherence": "conditional"}
_QUICK |= {"coherence_weight": 100.0, "prior_weight": 1.0}
_SMALL = {"steps": 3000, "log_every": 100, "transformation_weight": 3.0, **_QUICK}


@dataclasses.dataclass
class TVAERecipe(ImageRecipe):
    """A VAE whose latent space also holds the transformations between images (table 1, figures 2 to 4).

    It trains on an image, its transformed version, and that by the inverse transformation. The preset "paper" is eq. 3 as we read
    it, with marginal coherence, with which T need not mean anything (see the model), and the paper's learning rate. "small" and
    "digits" train for minutes, with larger rates along a cosine, conditional coherence and T scored by its prior. That serves the
    embedding, and costs T its effect on other images: 0 for ``transformation_weight`` where T matters more.
    """

    name: ClassVar[str] = "tvae"
    paper: ClassVar[str] = "Giannone et al. 2019"
    about_data: ClassVar[str] = "MNIST, Fashion-MNIST, digits; measured on affNIST too"
    shows: ClassVar[str] = "transformations of images as latent variables"
    trains_on: ClassVar[Literal["views", "images", "augmented"]] = "views"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {**_SMALL, "learning_rate": 3e-3},
        "digits": {"data": "digits", "affnist": "digits", "steps": 1000, "transformation_weight": 1.0, **_QUICK},
        "paper": {"steps": 200 * _STEPS_PER_EPOCH, "log_every": _STEPS_PER_EPOCH, "checkpoint_seconds": 600.0},
    }

    data: TrainingSet = "mnist"
    """The images; digits are made as large as MNIST's, so that they can be moved."""
    batch_size: int = 100
    """Images in a step, over all devices; each with its views."""
    z_dim: int = 10
    """Dimensions of z."""
    family: str = "affine"
    """The transformations: affine, rotation, shear, scale, translation or rotation-translation; or, without an inverse, crop,
    rotation-crop or superpixels, and then each view has a transformation of its own."""
    num_views: int = 2
    """Transformed versions of each image; other than 2, each has a transformation of its own."""
    latent_map: Literal["additive", "matrix"] = "additive"
    """How T acts on z: z + T, or a product with an invertible matrix."""
    coherence: Coherence = "marginal"
    """What the discrepancy compares, z_1 with T z: of all images together, or of each."""
    coherence_weight: float = 1.0
    """Of the discrepancies of z_1 and z_2, in nats for each image."""
    prior_weight: float = 1.0
    """Of the discrepancy between z and the standard normal."""
    transformation_weight: float = 0.0
    """Of T's prior, which draws the latents of an image's views to each other; 0 leaves T unscored, as the paper has it."""
    binarize: Literal["no", "dynamic"] = "no"
    """Whether pixels of training images are drawn anew as zeros and ones; no keeps them grey."""
    encoder_channels: tuple[int, ...] = (32, 32, 64, 128)
    """Of the encoder's hidden layers."""
    decoder_channels: tuple[int, ...] = (128, 64, 32, 32)
    """Of the decoder's hidden layers."""
    hidden_dim: int = 1000
    """Hidden units of the networks of z and T."""
    warmup_steps: int = 0
    """Steps over which the weight of z_0's KL grows from 0 to 1; with 0 it is 1 throughout."""
    learning_rate: float = 1e-4
    """Of Adam, at the start."""
    schedule: Literal["step", "cosine"] = "step"
    """Of the learning rate: halved every 50 epochs, or along a cosine to zero at the last step."""
    affnist: Origin = "mnist"
    """What affNIST is: made from mnist, read from its own files, or a stand-in made from digits."""
    neighbours: int = 5
    """k of the classifier."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "data": ("mnist", "fashion-mnist", "digits"),
            "family": tuple(FAMILIES),
            "latent_map": tuple(_LATENT_MAPS),
            "coherence": ("marginal", "conditional"),
        }
        choices |= {"binarize": ("no", "dynamic"), "schedule": ("step", "cosine"), "affnist": ("mnist", "files", "digits")}
        for field, known in choices.items():
            self.require(getattr(self, field) in known, field, f"one of {', '.join(known)}")
        for field in ("z_dim", "num_views", "hidden_dim", "neighbours"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        for field in ("encoder_channels", "decoder_channels"):
            self.require(
                len(getattr(self, field)) == 4 and min(getattr(self, field)) >= 1, field, "four numbers, at least 1 each"
            )
        for field in ("coherence_weight", "prior_weight", "transformation_weight", "warmup_steps"):
            self.require(getattr(self, field) >= 0, field, "at least 0")
        self.require(self.learning_rate > 0, "learning_rate", "positive")
        affnist = IMAGE_SETS["digits" if self.affnist == "digits" else "mnist"].train
        labelled = min(self.train_size, affnist - affnist // 6 if self.validation else affnist)
        self.require(self.neighbours <= labelled, "neighbours", f"at most {labelled}, the number of labelled images")
        self.require(self.batch_size <= self.train_size, "batch_size", f"at most {self.train_size}, the number of images")

    # Data -----------------------------------------------------------------------------------------------------------

    @property
    def inverse_views(self) -> bool:
        """Whether an image's views are of a transformation and its inverse."""
        return FAMILIES[self.family].invertible and self.num_views == 2

    @property
    def note(self) -> str:
        affnist = {
            "mnist": "affNIST is made from MNIST by its published ranges, one version of each image.",
            "files": "affNIST is the first of its 32 batches.",
            "digits": "affNIST is a stand-in made from scikit-learn's digits.",
        }
        likelihood = "Likelihoods are of grey pixels, cross-entropies." if self.binarize == "no" else ""
        return " ".join(note for note in (IMAGE_SETS[self.data].note, affnist[self.affnist], likelihood) if note)

    def prepare(self) -> None:
        super().prepare()
        if self.affnist == "mnist":  # made when it is needed
            for split in ("train", "test"):
                load_images("mnist", split, self.data_dir)
        if self.affnist == "files":
            (_, labelled), (_, tested) = self.affnist_images()
            counts = labelled.bincount(minlength=10)
            self.require(len(labelled) >= self.neighbours, "neighbours", f"at most {len(labelled)}, affNIST's training images")
            missing = sorted(set(tested.tolist()) - set(counts.nonzero().flatten().tolist()))
            if missing:
                raise UsageError(f"affNIST's files have no training image of the digits {missing}, which are tested")

    def training_images(self) -> tuple[Tensor, Tensor]:
        images, labels = super().training_images()
        return (at_mnists_size(images) if self.data == "digits" else images), labels

    def measured_images(self) -> tuple[Tensor, Tensor]:
        images, labels = super().measured_images()
        return (at_mnists_size(images) if self.data == "digits" else images), labels

    def affnist_images(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """affNIST's images, 40x40, and labels: those to classify by, and those to classify."""
        images, labels = load_affnist("train", self.data_dir, self.affnist)
        if self.validation:
            keep = len(images) - len(images) // 6
            return (images[:keep], labels[:keep]), (images[keep:], labels[keep:])
        return (images, labels), load_affnist("test", self.data_dir, self.affnist)

    def source(self, device: torch.device) -> Source:
        images, _ = self.training_images()
        if self.trains_on == "images":
            return ImageSource(images, self.binarize, self.seed, device)
        family = FAMILIES[self.family]
        views = ViewSource(images, family, self.num_views, self.inverse_views, self.binarize, self.seed, device)
        return views if self.trains_on == "views" else AugmentedSource(views)

    # Training -------------------------------------------------------------------------------------------------------

    def objectives(self) -> list[Objective]:
        module = NegativeELBO(*self.networks(), {"z_0": 1.0})
        optimizer = torch.optim.Adam(module.parameters(), lr=self.learning_rate, fused=True)
        if self.schedule == "cosine":
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps)
        else:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 50 * self.epoch_steps, gamma=0.5)
        return [Objective(module, optimizer, scheduler, {"kl_weight_z_0": self._kl_weight})]

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The model and its guide."""
        if self.trains_on != "views":
            model = vae(self.z_dim, self.decoder_channels)
        else:
            model = tvae(
                self.z_dim,
                _LATENT_MAPS[self.latent_map](),
                self.decoder_channels,
                num_views=self.num_views,
                inverse_views=self.inverse_views,
                coherence=self.coherence,
                coherence_weight=self.coherence_weight,
                prior_weight=self.prior_weight,
                transformation_weight=self.transformation_weight,
            )
        return model, tvae_guide(model, self.encoder_channels, self.hidden_dim)

    def _kl_weight(self, step: int) -> float:
        return min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0

    # Metrics, figures and samples -----------------------------------------------------------------------------------

    def evaluate(self, module: NegativeELBO, device: torch.device, full: bool = False) -> dict[str, float]:
        return tvae_metrics.evaluate(self, module, device, full)

    def figures(
        self, module: NegativeELBO, device: torch.device, history: Sequence[Mapping[str, float]]
    ) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.tvae_figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, module, device, history)


# The baselines --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class PlainVAE(TVAERecipe):
    """A VAE with T-VAE's encoder and decoder, trained on the images alone.

    What is of transformations and of coherence means nothing to it. Its preset "small" has a third of T-VAE's learning rate,
    with which all but one of the baselines embed held-out images better (RESULTS.md).
    """

    name: ClassVar[str] = "tvae-vae"
    shows: ClassVar[str] = "T-VAE's networks as a VAE: its first baseline"
    incidental: ClassVar[frozenset[str]] = TVAERecipe.incidental | _OF_T | {"family", "num_views"}
    trains_on: ClassVar[Literal["views", "images", "augmented"]] = "images"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {**TVAERecipe.presets, "small": _SMALL}


@dataclasses.dataclass
class VAEPlus(TVAERecipe):
    """A VAE with T-VAE's encoder and decoder, trained on images of T-VAE's triplets, at each step one of each triplet.

    In as many steps it sees a third of the images that T-VAE does.

    What is of T and of coherence means nothing to it. Its learning rate is :class:`PlainVAE`'s.
    """

    name: ClassVar[str] = "tvae-vae-plus"
    shows: ClassVar[str] = "the same trained on transformed images: its second baseline"
    incidental: ClassVar[frozenset[str]] = TVAERecipe.incidental | _OF_T
    trains_on: ClassVar[Literal["views", "images", "augmented"]] = "augmented"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PlainVAE.presets
