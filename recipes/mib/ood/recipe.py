"""Training of predictions that hold in environments unseen in training, on colored images.

Source: Zhang et al. (2020), section 6 and eq. 18; Arjovsky et al. (2019), "Invariant Risk Minimization", for data and penalty.
The paper's networks are lost with figure 5, and sizes and weights with its appendix. Ours were chosen by two things: the test
environment of colored Fashion-MNIST, and held-out images in colored MNIST's training environments, where accuracies should be
high and equal. Environments are sharpened first, which is ours (:mod:`pyzoo.recipes.mib.ood.sharpening`).
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import Self

from pyzoo.about import About
from pyzoo.data.environments import ColoredImages, EnvironmentSource, colored_images
from pyzoo.errors import UsageError
from pyzoo.infer import EnvironmentGain, GradientPenalty, Prediction, Variables
from pyzoo.models.mib import EnvironmentNetworks
from pyzoo.random import derive_seed, seeded
from pyzoo.recipes.images import ImageRecipe, InData
from pyzoo.recipes.mib.methods import Declaration, Method, Target
from pyzoo.recipes.mib.ood import ABOUT
from pyzoo.recipes.mib.ood.report import OODReport
from pyzoo.recipes.mib.ood.sharpening import sharpened_environments
from pyzoo.recipes.mib.structured import StructuredRecipe
from pyzoo.settings import Above, AtLeast, AtMost, Below, Count, Positive, Share, Weight, changed
from pyzoo.training import Objective, Pair, Source, geometric

__all__ = ["OOD", "OODRecipe"]


@dataclasses.dataclass(frozen=True)
class OOD(Method):
    r"""The row of section 6 (eq. 18): z is what an image x tells of the label y in every environment e.

    .. math:: \alpha L_{dist} + \beta_1 E\, \mathrm{KL}(q(z \mid x, e, y) \| q(z \mid x)) + \beta_2 I(x, e; y \mid z)
        + \beta_3 \frac{1}{E} \sum_e \Bigl\| \frac{\partial R_e}{\partial w} \Bigr\|^2

    G^ood says that z follows from x and e, and y from z alone, so that y and e are independent given z. Its distance is
    I(x, e; y | z), where eq. 18 prints a comma for the semicolon. The cross-entropy of p(y | z), with z drawn from q(z | x) as in
    a prediction, bounds it where q(z | x, e, y) = q(z | x), which beta_1's target asks for. alpha is ours: eq. 18 has 1. The last
    term asks that p(y | z), a part of M^p, be the same in all environments: it is a second estimator of the same distance, which
    sees of it what the environments add. w is a scale of the logits (IRM), or all weights of p(y | z); then the norm is that of
    the curvature, and its square is halved (:func:`pyzoo.infer.environment_gain`).
    """

    z_dim: Count = 8
    """Dimensions of the latent that predicts the label."""
    u_dim: Count = 8
    """Dimensions of the latent for the rest of the image."""
    dist_weight: Weight = 1e-4
    """Weight of L_dist, the negative ELBO of image, label and environment; alpha. With 0 it is not computed."""
    sufficient_weight: Weight = 1e-2
    """Weight of the target that z follow from the image alone; beta_1."""
    prediction_weight: Weight = 1.0
    """Weight of the information that image and environment add to z about the label; beta_2."""
    stability: Literal["gain", "irm"] = "gain"
    """What makes p(y | z) the same in all environments: what environments' own classifiers gain, or IRM's penalty."""
    stability_weight: Weight = 1.0
    """Weight of that; beta_3. Environments that are not sharpened need a thousand times as much."""
    stability_ramp: Share = 0.0
    """Share of the steps over which that weight grows, by equal factors from 1. If a large one were there at once, shapes would
    not be learned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        others = self.sufficient_weight, self.prediction_weight, self.stability_weight
        self.require(self.dist_weight or any(others), "dist_weight", "above 0 where all other weights are 0")

    def declare(self, views: tuple[str, ...]) -> Declaration:
        x, y, e = views
        network, term = f"{x}, {e} -> z -> {y}; {x} -> u", f"I({y}; {', '.join(sorted((e, x)))} | z)"
        targets = []
        if self.sufficient_weight:
            targets.append(Target("sufficient", f"{x} -> z; {x} -> u", self.sufficient_weight))
        if self.prediction_weight:
            by = {term: lambda model: Prediction(model, [x])}
            targets.append(Target("ood", network, self.prediction_weight, "conditional", by))
        if self.stability_weight:
            kind = EnvironmentGain if self.stability == "gain" else GradientPenalty
            by = {term: lambda model: kind(model, [x], e)}
            targets.append(Target("stable", network, self.stability_weight, "conditional", by))
        return Declaration(
            Variables(views, shared=("z",), private={"u": x}),
            generative=f"z -> {x}, {y}; u -> {x}",
            inference=f"{x}, {y}, {e} -> z; {x} -> u",
            targets=tuple(targets),
        )

    def dims(self, variables: Variables) -> dict[str, int]:
        return {"z": self.z_dim, "u": self.u_dim}

    def penalty_shares(self, steps: int) -> dict[str, Callable[[int], float]]:
        if not self.stability_weight or not self.stability_ramp:
            return {}
        return {"stable": geometric(1 / self.stability_weight, 1.0, self.stability_ramp * steps)}


@dataclasses.dataclass(frozen=True)
class OODRecipe(ImageRecipe, StructuredRecipe):
    """A label from what is the same in all environments: colored images, whose color tells more than their shape, but not in
    every environment.

    Nothing is chosen by the test environment, and training never sees it.
    """

    name: ClassVar[str] = "mib-ood"
    about: ClassVar[About] = ABOUT["mib-ood"]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"data": "mnist", "steps": 300, "batch_size": 10_000},
        "digits": {"data": "digits", "steps": 400, "batch_size": 2000, "copies": 10, "hidden_dim": 64},
    }
    common: ClassVar[tuple[str, ...]] = (*ImageRecipe.common, "labeled", "sharpen", "stability_weight", "dropout")
    group: ClassVar[str] = "training"

    held_out: Annotated[float, AtLeast(0), Below(1), InData] = 1 / 6
    """Share of the training images that are held out from training, in the colors of the training environments."""
    color_flips: Annotated[tuple[Share, ...], InData] = (0.2, 0.1)
    """For each environment of the training the share of images whose color is not the label's."""
    test_color_flip: Annotated[float, AtLeast(0), AtMost(1), InData] = 0.9
    """The same for the test environment."""
    label_flips: Annotated[float, AtLeast(0), AtMost(1), InData] = 0.25
    """Share of labels that are wrong, in all environments."""
    copies: Annotated[Count, InData] = 1
    """How often each image is colored, each time with a label of its own: of few images, single labels are learned by heart."""
    grayscale: Annotated[bool, InData] = False
    """Leave the colors out: what a predictor that knew of them could reach at best."""
    labeled: Annotated[float, Above(0), AtMost(1), InData] = 1.0
    """Share of the training images whose label is known."""
    sharpen: bool = True
    """Group labeled images by the environment that image and label point to; in training the view e is then the group."""
    networks: EnvironmentNetworks = EnvironmentNetworks(hidden_dim=128)
    """Sizes of the networks."""
    method: OOD = OOD()
    """The row of the table."""
    learning_rate: Positive = 2e-3
    """Initial learning rate of Adam; it falls along a cosine to zero at the last step."""
    weight_decay: Weight = 2e-4
    """Weight of half the squared norm of all parameters that the loss depends on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(len(self.color_flips) >= 1, "color_flips", "one or more shares, one for each environment")
        self.require(self.batch_size >= 2 * len(self.color_flips), "batch_size", f"at least {2 * len(self.color_flips)}")
        possible = len(self.color_flips) >= 2 and not self.grayscale
        self.require(possible or not self.sharpen, "sharpen", "off (--no-sharpen) with one environment, or without colors")

    # Data -----------------------------------------------------------------------------------------------------------

    def _colored(self, part: str, color_flips: tuple[float, ...]) -> ColoredImages:
        found = {"train": self.training_images, "held_out": self.held_out_images, "test": self.measured_images}
        images, classes = found[part]()
        if classes is None or len(self.dataset.classes) < 2:
            raise UsageError(f"mib-ood needs images with labels of two classes or more, which {self.dataset.name} lack")
        if part == "held_out" and len(images) * self.copies < len(color_flips):
            few = f"holds out {len(images)} images, too few for {len(color_flips)} environments"
            raise UsageError(f"--held-out {self.held_out:g} {few}: take more, or --held-out 0")
        seed = derive_seed(self.seed, part) % 2**62
        images, classes = images.repeat(self.copies, 1, 1, 1), classes.repeat(self.copies)
        return colored_images(images, classes, len(self.dataset.classes), color_flips, self.label_flips, seed, self.grayscale)

    @functools.cached_property
    def training_set(self) -> ColoredImages:
        """The images to train on, of all training environments."""
        return self._colored("train", self.color_flips)

    @functools.cached_property
    def held_out_set(self) -> ColoredImages:
        """The images that are held out, of the same environments."""
        return self._colored("held_out", self.color_flips)

    @functools.cached_property
    def test_set(self) -> ColoredImages:
        """The images of the test environment; with --validation, which chooses settings, the held-out ones in its colors."""
        return self._colored("test", (self.test_color_flip,))

    @property
    def train_size(self) -> int:
        return self.copies * super().train_size

    def fitted(self, given: Collection[str]) -> Self:
        found = super().fitted(given)
        if found is self or not self.sharpen:
            return found
        half = max(2 * len(self.color_flips), found.batch_size // 2)  # groups are not all of one size
        return changed(found, {"batch_size": half})

    def prepare(self) -> None:
        super().prepare()
        self.source(torch.device("cpu"))
        _ = self.test_set
        if self.held_out_size:
            _ = self.held_out_set

    @property
    def views(self) -> tuple[str, ...]:
        return ("x", "y", "e")

    def source(self, device: torch.device) -> Source:
        return EnvironmentSource(self._grouped_set, self.labeled, self.seed, device)

    @functools.cached_property
    def _grouped_set(self) -> ColoredImages:
        """The images to train on, in the groups from which a batch takes as many each."""
        train = self.training_set
        if not self.sharpen:
            return train
        present = EnvironmentSource(train, self.labeled, self.seed).present
        known = torch.ones(len(train), dtype=torch.bool) if present is None else present[:, 1]
        groups = self._sharpened(train.rows(known))
        places = torch.randint(len(groups), (len(train),), generator=seeded(derive_seed(self.seed, "unlabelled")))
        environments = groups[places]  # without a label by chance, so that the groups keep their shares
        environments[known] = groups
        return dataclasses.replace(train, environments=environments)

    def _sharpened(self, labeled: ColoredImages) -> Tensor:
        """The groups of labeled images."""
        images, number = labeled.images.float() / 255, len(self.color_flips)
        groups = sharpened_environments(images, labeled.labels, labeled.environments, derive_seed(self.seed, "sharpen"))
        smallest = torch.bincount(groups, minlength=number).min().item()
        if smallest * number < self.batch_size * len(labeled) / len(self.training_set):
            what = f"the smallest group of images has {smallest:,} with labels, less than its share of a batch"
            most = smallest * number * len(self.training_set) // len(labeled)
            smaller = f"take a --batch-size of at most {most}, or " if most >= 2 * number else "take "
            raise UsageError(f"--sharpen: {what}: {smaller}--no-sharpen")
        return groups

    # Training -------------------------------------------------------------------------------------------------------

    def view_sizes(self) -> dict[str, Any]:
        return {"x_shape": tuple(self.training_set.images.shape[1:]), "num_environments": len(self.color_flips)}

    def site_weights(self) -> dict[str, float]:
        return dict.fromkeys(self.declare().variables.names, self.method.dist_weight)

    def objective(self, *arguments: Any, **options: Any) -> Objective:
        return super().objective(*arguments, **options, weight_decay=self.weight_decay)

    def report(self, pair: Pair, device: torch.device) -> OODReport:
        return OODReport(self, pair, device)
