"""Graph VAE and the three fixed structures it is compared with: one recipe, four structures.

Source: He et al. (2019). Its training (appendix B.2): Adam at 1e-3, batches of 64, 2,000 epochs of MNIST or Omniglot and 3,000 of
CIFAR-10, a Gumbel-softmax temperature of 0.99 to the power of the epoch. The learning rate is "decreased by 0.25 every 200
epochs", which would stop training if it were a factor: we multiply by 0.75. Warm-up of the KLs, a learning rate of the gates,
their freezing, and other schedules of the learning rate are ours and not in ``paper``, but that the temperature stays above 0.01.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR
from typing_extensions import Self

from pyzoo.about import About
from pyzoo.data.images import ImageSource, binarized
from pyzoo.infer import NegativeELBO
from pyzoo.models.graph_vae import GraphVAENetworks
from pyzoo.random import derive_seed
from pyzoo.recipes.graph_vae import ABOUT
from pyzoo.recipes.graph_vae.report import GraphVAEReport
from pyzoo.recipes.images import InData, PlainImageRecipe
from pyzoo.settings import Above, AtLeast, AtMost, Below, Count, Positive
from pyzoo.training import Objective, Pair, Schedule, constant_linear, warmup

__all__ = ["FCVAE", "GraphVAERecipe", "LadderVAE", "PlainVAE"]


_SMALL = {
    "steps": 14_000,
    "batch_size": 128,
    "held_out": 0.02,
    "warmup_steps": 7000,
    "schedule": "cosine",
    "log_every": 200,
    "validate_every": 1400,
    "gate_learning_rate": 1e-2,
    "temperature_decay": 0.9,
    "settle_margin": 0.01,
}


def _papers_training(data: str, epochs: int, images: int) -> dict[str, Any]:
    """The settings of appendix B.2 for a set of so many training images."""
    steps_per_epoch = images // 64
    settings = {"data": data, "batch_size": 64, "steps": epochs * steps_per_epoch, "log_every": steps_per_epoch}
    return {**settings, "checkpoint_seconds": 600.0}


@dataclasses.dataclass(frozen=True)
class GraphVAERecipe(PlainImageRecipe):
    """A VAE that learns which latent depends on which (table 1 and figures 3 to 6; figure 5 needs images that are held out).

    Latents stand in nodes, and a gate between two nodes is open with a probability that is learned together with the networks.
    """

    name: ClassVar[str] = "graph-vae"
    about: ClassVar[About] = ABOUT["graph-vae"]
    common: ClassVar[tuple[str, ...]] = (*PlainImageRecipe.common, "nodes", "latent_dim", "widths", "hidden_dim", "warmup_steps")
    # Halves a step of networks this small; nothing in it is Python that changes.
    engine: ClassVar[Literal["eager", "traced"]] = "traced"
    group: ClassVar[str] = "training"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": _SMALL,
        "digits": {
            "data": "digits",
            "steps": 3000,
            "batch_size": 128,
            "held_out": 0.1,
            "warmup_steps": 1500,
            "schedule": "cosine",
            "validate_every": 300,
            "gate_learning_rate": 1e-2,
            "temperature_decay": 0.985,
            "settle_margin": 0.01,
        },
        "long": {
            **_SMALL,
            "steps": 400_000,
            "warmup_steps": 20_000,
            "schedule": "constant-linear",
            "log_every": 1000,
            "validate_every": 10_000,
            "checkpoint_seconds": 300.0,
        },
        "paper": _papers_training("mnist", epochs=2000, images=60_000),
        "paper-omniglot": _papers_training("omniglot", epochs=2000, images=19_280),
        "paper-omniglot-drawers": _papers_training("omniglot-drawers", epochs=2000, images=24_345),
        "paper-cifar10": _papers_training("cifar10", epochs=3000, images=50_000),
    }

    networks: GraphVAENetworks = GraphVAENetworks()
    """Sizes of the networks."""
    binarize: Annotated[Literal["dynamic", "fixed"], InData] = "dynamic"
    """Whether the pixels of training images are drawn anew in each batch or once; color images are not binarized."""
    particles: Annotated[Count, AtMost(1000)] = 1
    """Samples of the guide in a step, each with its own gates; hard gates need two or more."""
    temperature_decay: Annotated[float, Above(0), AtMost(1)] = 0.99
    """The Gumbel-softmax temperature is this to the power of the epoch."""
    lowest_temperature: Positive = 0.01
    """The temperature stays above this, where the gradient would be noise alone."""
    settle_margin: Annotated[float, AtLeast(0), Below(0.5)] = 0.0
    """Gates whose probability comes that close to 0 or 1 are frozen."""
    warmup_steps: Annotated[int, AtLeast(0)] = 0
    """Steps over which the weight of the latents' KLs grows from 0 to 1; with 0 it is 1 throughout."""
    learning_rate: Positive = 1e-3
    """Initial learning rate of Adam."""
    gate_learning_rate: Positive | None = None
    """Initial learning rate of the gates; by default that of the networks."""
    schedule: Literal["step", "cosine", "constant-linear"] = "step"
    """Schedule of the learning rate: times --decay every --decay-epochs; along a cosine to zero at the last step; or constant,
    and in a straight line to zero over the last three tenths of the steps."""
    decay: Annotated[float, Above(0), AtMost(1)] = 0.75
    """Factor of the step schedule."""
    decay_epochs: Count = 200
    """Epochs between the steps of the step schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        networks = self.networks
        enough = networks.structure != "learned" or networks.gate_estimator == "relaxed" or self.particles >= 2
        self.require(enough, "particles", "at least 2 with --gate-estimator hard")

    @property
    def fewest_examples(self) -> int:
        return 2

    @classmethod
    def preset(cls, name: str | None = None, **changes: Any) -> Self:
        special = f"{name}-{changes.get('data')}"  # the paper trains longer on some images than on others
        return super().preset(special if special in cls.presets else name, **changes)

    # Data -----------------------------------------------------------------------------------------------------------

    @property
    def is_color(self) -> bool:
        """Whether pixels are numbers with a Gaussian likelihood; if not they are zeros and ones."""
        return self.dataset.shape[0] == 3

    def sized(self) -> Self:
        likelihood = "gaussian" if self.is_color else "bernoulli"
        sized = super().sized()
        return dataclasses.replace(sized, networks=dataclasses.replace(sized.networks, likelihood=likelihood))

    def source(self, device: torch.device) -> ImageSource:
        images, _ = self.training_images()
        return ImageSource(images, "no" if self.is_color else self.binarize, self.seed, device)

    @property
    def note(self) -> str:
        notes = [super().note]
        if not self.is_color:
            notes.append("Test images are binarized once by a fixed seed, not those of Larochelle and Murray (2011).")
        return " ".join(note for note in notes if note)

    def observed(self, images: Tensor, seed: int = 0) -> Tensor:
        # Drawn on the CPU, so that all devices see one set.
        return images / 255 if self.is_color else binarized(images, seed)

    def observed_training_images(self) -> Tensor:
        """The images that are trained on, binarized once, as the likelihood takes them."""
        seed = derive_seed(self.seed, "binarize") if self.binarize == "fixed" else 0  # as they were trained on
        return self.observed(self.training_images()[0], seed)

    # Training -------------------------------------------------------------------------------------------------------

    def objectives(self, pair: Pair) -> list[Objective]:
        gates = pair.model.gates
        sites = [f"z_{node + 1}" for node in range(self.networks.nodes)]
        module = NegativeELBO(*pair, dict.fromkeys(sites, 1.0), self.particles)
        groups: list[dict[str, Any]] = [{"params": [p for p in module.parameters() if p is not getattr(gates, "logits", None)]}]
        weights = [f"kl_weight_{site}" for site in sites]
        schedules = [Schedule(module, weights, warmup(self.warmup_steps), "kl_weight")]
        if gates.learned:
            groups.append({"params": [gates.logits], "lr": self.gate_learning_rate or self.learning_rate})
            schedules.append(Schedule(gates, "temperature", self._temperature))
        if self.schedule == "cosine":
            scheduler = partial(CosineAnnealingLR, T_max=self.steps)
        elif self.schedule == "constant-linear":
            scheduler = partial(LambdaLR, lr_lambda=constant_linear(self.steps))
        else:
            scheduler = partial(LambdaLR, lr_lambda=lambda step: self.decay ** (self.epoch(step) // self.decay_epochs))

        def settle(loss: Tensor, terms: Mapping[str, Tensor]) -> None:
            gates.settle(self.settle_margin)

        return [
            Objective(
                module,
                partial(torch.optim.Adam, lr=self.learning_rate, fused=True),
                moves=groups,
                scheduler=scheduler,
                schedules=schedules,
                after_step=settle if self.settle_margin > 0 else None,
            )
        ]

    def _temperature(self, step: int) -> float:
        return max(self.temperature_decay ** self.epoch(step), self.lowest_temperature)

    def report(self, pair: Pair, device: torch.device) -> GraphVAEReport:
        return GraphVAEReport(self, pair, device)


# The fixed structures -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FCVAE(GraphVAERecipe):
    """A VAE whose every latent depends on all latents above it, as in Graph VAE with all gates open."""

    name: ClassVar[str] = "fc-vae"
    about: ClassVar[About] = ABOUT["fc-vae"]

    networks: GraphVAENetworks = GraphVAENetworks(structure="full")
    """Sizes of the networks."""


@dataclasses.dataclass(frozen=True)
class LadderVAE(GraphVAERecipe):
    """A VAE whose latents form a chain (Sonderby et al. 2016), as in Graph VAE with a chain of gates open."""

    name: ClassVar[str] = "ladder-vae"
    about: ClassVar[About] = ABOUT["ladder-vae"]

    networks: GraphVAENetworks = GraphVAENetworks(structure="chain")
    """Sizes of the networks."""


@dataclasses.dataclass(frozen=True)
class PlainVAE(GraphVAERecipe):
    """A plain VAE, as Graph VAE without possible dependencies, with a larger encoder that makes up for missing parameters."""

    name: ClassVar[str] = "vae"
    about: ClassVar[About] = ABOUT["vae"]

    networks: GraphVAENetworks = GraphVAENetworks(structure="none")
    """Sizes of the networks."""
