"""Graph VAE and the three fixed structures it is compared with: one recipe, four structures.

Source: He et al. (2019). Its training (appendix B.2): Adam at 1e-3, batches of 64, 2,000 epochs of MNIST or Omniglot and 3,000 of
CIFAR-10, a Gumbel-softmax temperature of 0.99 to the power of the epoch. The learning rate is "decreased by 0.25 every 200
epochs", which would stop training if it were a factor: we multiply by 0.75.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pyzoo.data.images import IMAGE_SETS, ImageSource, binarized
from pyzoo.guides.graph_vae import graph_vae_guide
from pyzoo.infer import NegativeELBO
from pyzoo.models.graph_vae import Gates, Structure, graph_vae
from pyzoo.random import derive_seed
from pyzoo.recipes import graph_vae_metrics
from pyzoo.recipes.images import ImageRecipe
from pyzoo.training import Objective, Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FCVAE", "VAE", "GraphVAERecipe", "LadderVAE"]


def _papers_training(data: str, epochs: int) -> dict[str, Any]:
    """The fields of appendix B.2 for a set of images."""
    steps_per_epoch = IMAGE_SETS[data].train // 64
    fields = {"data": data, "batch_size": 64, "steps": epochs * steps_per_epoch, "log_every": steps_per_epoch}
    return {**fields, "monitor_every": 20 * steps_per_epoch, "checkpoint_seconds": 600.0}


@dataclasses.dataclass
class GraphVAERecipe(ImageRecipe):
    """A VAE that learns which latent depends on which (table 1 and figures 3 to 6).

    Latents stand in nodes, and a gate between two nodes is open with a probability that is learned together with the networks.
    """

    name: ClassVar[str] = "graph-vae"
    paper: ClassVar[str] = "He et al. 2019"
    about_data: ClassVar[str] = "MNIST, Fashion-MNIST, Omniglot, CIFAR-10, digits"
    shows: ClassVar[str] = "which latent depends on which, learned with the networks"
    # Halves a step of networks this small; nothing in it is Python that changes.
    engine: ClassVar[Literal["eager", "traced"]] = "traced"
    structure: ClassVar[Structure] = "learned"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {
            "steps": 14_000,
            "batch_size": 128,
            "warmup_steps": 7000,
            "schedule": "cosine",
            "log_every": 200,
            "monitor_every": 1400,
            "gate_learning_rate": 1e-2,
            "temperature_decay": 0.9,
            "settle_margin": 0.01,
        },
        "digits": {
            "data": "digits",
            "steps": 3000,
            "batch_size": 128,
            "warmup_steps": 1500,
            "schedule": "cosine",
            "monitor_every": 300,
            "gate_learning_rate": 1e-2,
            "temperature_decay": 0.985,
            "settle_margin": 0.01,
        },
        "paper": _papers_training("mnist", epochs=2000),
        "paper-omniglot": _papers_training("omniglot", epochs=2000),
        "paper-cifar10": _papers_training("cifar10", epochs=3000),
    }

    binarize: Literal["dynamic", "fixed"] = "dynamic"
    """Whether the pixels of training images are drawn anew each time or once; CIFAR-10's are not binarised."""
    nodes: int = 5
    """N."""
    latent_dim: int = 80
    """M, dimensions of all nodes together."""
    decoder_input: Literal["all", "first"] = "all"
    """Which nodes the decoder hears: the paper writes both."""
    guide_gates: Literal["shared", "full"] = "shared"
    """Gates of the guide: the model's, or all open (section 4.3's fully connected encoder)."""
    widths: tuple[int, ...] = (512, 512, 256)
    """Hidden units of the encoder, and in reverse of the decoder. The plain VAE's encoder is widened in proportion, until it has
    FC-VAE's number of parameters."""
    hidden_dim: int = 128
    """Features of x, and hidden units of the networks of the nodes."""
    gate_estimator: Literal["relaxed", "hard"] = "relaxed"
    """Gradient of the gates: Gumbel-softmax, or the score function with the other particles as its baseline."""
    particles: int = 1
    """Samples of the guide in a step, each with its own gates; hard gates need two or more."""
    initial_gate: float = 0.5
    """Probability of an edge at the start."""
    temperature_decay: float = 0.99
    """The Gumbel-softmax temperature is this to the power of the epoch."""
    lowest_temperature: float = 0.01
    """It stays above this, where the gradient would be noise alone."""
    settle_margin: float = 0.0
    """Gates whose probability comes that close to 0 or 1 are frozen."""
    warmup_steps: int = 0
    """Steps over which the weight of the latents' KLs grows from 0 to 1; with 0 it is 1 throughout."""
    learning_rate: float = 1e-3
    """Of Adam, at the start."""
    gate_learning_rate: float | None = None
    """Of the gates; by default that of the networks."""
    schedule: Literal["step", "cosine"] = "step"
    """Of the learning rate: times 0.75 every 200 epochs, or along a cosine to zero at the last step."""
    decay: float = 0.75
    """Factor of the step schedule."""
    decay_epochs: int = 200
    """Epochs between its steps."""
    monitor_every: int = 0
    """Steps between likelihoods (100 samples, 500 images) in metrics.csv, a multiple of --log-every; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {"binarize": ("dynamic", "fixed"), "decoder_input": ("all", "first")}
        choices |= {"guide_gates": ("shared", "full"), "gate_estimator": ("relaxed", "hard"), "schedule": ("step", "cosine")}
        for field, known in choices.items():
            self.require(getattr(self, field) in known, field, f"one of {', '.join(known)}")
        for field in ("nodes", "latent_dim", "hidden_dim", "particles", "decay_epochs"):
            self.require(getattr(self, field) >= 1, field, "at least 1")
        self.require(self.latent_dim % self.nodes == 0, "latent_dim", f"a multiple of --nodes {self.nodes}")
        self.require(self.warmup_steps >= 0, "warmup_steps", "at least 0")
        self.require(min(self.widths, default=0) >= 1, "widths", "one or more, at least 1 each")
        self.require(0 < self.initial_gate < 1, "initial_gate", "between 0 and 1")
        self.require(0 <= self.settle_margin < 0.5, "settle_margin", "at least 0 and below 0.5")
        for field in ("temperature_decay", "decay"):
            self.require(0 < getattr(self, field) <= 1, field, "above 0 and at most 1")
        for field in ("lowest_temperature", "learning_rate"):
            self.require(getattr(self, field) > 0, field, "positive")
        self.require(self.gate_learning_rate is None or self.gate_learning_rate > 0, "gate_learning_rate", "positive")
        self.require(self.monitor_every % self.log_every == 0, "monitor_every", f"a multiple of --log-every {self.log_every}")
        enough = self.structure != "learned" or self.gate_estimator == "relaxed" or self.particles >= 2
        self.require(enough, "particles", "at least 2 with --gate-estimator hard")
        relaxed = self.structure == "learned" or self.gate_estimator == "relaxed"
        self.require(relaxed, "gate_estimator", "relaxed where no gate is learned")
        sizes = 2 <= self.batch_size <= self.train_size
        self.require(sizes, "batch_size", f"at least 2, for batch norm, and at most {self.train_size}, the number of images")

    @classmethod
    def preset(cls, name: str | None = None, **fields: Any) -> "Recipe":
        special = f"{name}-{fields.get('data')}"  # the paper trains longer on some images than on others
        return super().preset(special if special in cls.presets else name, **fields)

    # Data -----------------------------------------------------------------------------------------------------------

    @property
    def node_dim(self) -> int:
        """N'."""
        return self.latent_dim // self.nodes

    @property
    def is_color(self) -> bool:
        """Whether pixels are numbers with a Gaussian likelihood; if not they are zeros and ones."""
        return self.data == "cifar10"

    def source(self, device: torch.device) -> ImageSource:
        images, _ = self.training_images()
        return ImageSource(images, "no" if self.is_color else self.binarize, self.seed, device)

    @property
    def note(self) -> str:
        notes = [IMAGE_SETS[self.data].note]
        if not self.is_color:
            notes.append("Test images are binarised once by a fixed seed, not those of Larochelle and Murray (2011).")
        return " ".join(note for note in notes if note)

    def observed_images(self, device: torch.device, training: bool = False) -> tuple[Tensor, Tensor]:
        """Images as the likelihood takes them, and their labels; binarised once for all runs.

        Args:
            device: where to put them.
            training: give those that were trained on, in place of those to measure on.
        """
        images, labels = self.training_images() if training else self.measured_images()
        if self.is_color:
            return (images / 255).to(device), labels
        seed = derive_seed(self.seed, "binarize") if training and self.binarize == "fixed" else 0  # as they were trained on
        return binarized(images, seed).to(device), labels  # drawn on the CPU, so that all devices see one set

    # Training -------------------------------------------------------------------------------------------------------

    def objectives(self) -> list[Objective]:
        gates = Gates(self.nodes, self.structure, self.gate_estimator, self.initial_gate)
        sites = [f"z_{node + 1}" for node in range(self.nodes)]
        module = NegativeELBO(*self.networks(gates), dict.fromkeys(sites, 1.0), self.particles)
        groups: list[dict[str, Any]] = [{"params": [p for p in module.parameters() if p is not getattr(gates, "logits", None)]}]
        if gates.learned:
            groups.append({"params": [gates.logits], "lr": self.gate_learning_rate or self.learning_rate})
        optimizer = torch.optim.Adam(groups, lr=self.learning_rate, fused=True)
        if self.schedule == "cosine":
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps)
        else:
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        schedules = {f"kl_weight_{site}": self._kl_weight for site in sites}
        if gates.learned:
            schedules["model.gates.temperature"] = self._temperature
        settle = partial(gates.settle, self.settle_margin)
        return [Objective(module, optimizer, scheduler, schedules, after_step=settle if self.settle_margin > 0 else None)]

    def networks(self, gates: Gates) -> tuple[nn.Module, nn.Module]:
        """The model and its guide with these gates."""
        widths = self._matching_widths(gates) if self.structure == "none" else self.widths
        return self._model(gates), self._guide(gates, widths)

    def _model(self, gates: Gates) -> nn.Module:
        shape, likelihood = IMAGE_SETS[self.data].shape, "gaussian" if self.is_color else "bernoulli"
        decoder_widths = self.widths[::-1]
        return graph_vae(gates, self.node_dim, shape, self.hidden_dim, decoder_widths, likelihood, self.decoder_input)

    def _guide(self, gates: Gates, widths: Sequence[int]) -> nn.Module:
        shape = IMAGE_SETS[self.data].shape
        return graph_vae_guide(gates, self.node_dim, shape, self.hidden_dim, widths, self.hidden_dim, self.guide_gates)

    def _matching_widths(self, gates: Gates) -> tuple[int, ...]:
        """The narrowest encoder of these proportions with which a plain VAE has no fewer parameters than FC-VAE."""

        def count(gates: Gates, widths: Sequence[int]) -> int:
            with torch.device("meta"):
                programs = self._model(gates), self._guide(gates, widths)
            return sum(parameter.numel() for program in programs for parameter in program.parameters())

        def scaled(first: int) -> tuple[int, ...]:
            return tuple(round(width * first / self.widths[0]) for width in self.widths)

        wanted = count(Gates(self.nodes, "full"), self.widths)
        low, high = self.widths[0], self.widths[0] + 1
        while count(gates, scaled(high)) < wanted:
            high *= 2
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if count(gates, scaled(middle)) >= wanted else (middle + 1, high)
        return scaled(low)

    def _rate(self, step: int) -> float:
        return self.decay ** (self.epoch(step) // self.decay_epochs)

    def _kl_weight(self, step: int) -> float:
        return min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0

    def _temperature(self, step: int) -> float:
        return max(self.temperature_decay ** self.epoch(step), self.lowest_temperature)

    # Metrics, figures and samples -----------------------------------------------------------------------------------

    def monitor(self, module: NegativeELBO, device: torch.device, step: int) -> dict[str, float]:
        likelihood = self.monitor_every > 0 and step % self.monitor_every == 0
        return graph_vae_metrics.monitor(self, module, device, likelihood)

    def evaluate(self, module: NegativeELBO, device: torch.device, full: bool = False) -> dict[str, float]:
        return graph_vae_metrics.evaluate(self, module, device, full)

    def figures(
        self, module: NegativeELBO, device: torch.device, history: Sequence[Mapping[str, float]]
    ) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.graph_vae_figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, module, device, history)


# The fixed structures -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class FCVAE(GraphVAERecipe):
    """A VAE whose every latent depends on all latents above it, as in Graph VAE with all gates open."""

    name: ClassVar[str] = "fc-vae"
    shows: ClassVar[str] = "all latents depend on all above them: Graph VAE's first baseline"
    structure: ClassVar[Structure] = "full"


@dataclasses.dataclass
class LadderVAE(GraphVAERecipe):
    """A VAE whose latents form a chain (Sonderby et al. 2016), as in Graph VAE with a chain of gates open."""

    name: ClassVar[str] = "ladder-vae"
    shows: ClassVar[str] = "latents in a chain: Graph VAE's second baseline"
    structure: ClassVar[Structure] = "chain"


@dataclasses.dataclass
class VAE(GraphVAERecipe):
    """A plain VAE, as in Graph VAE with all gates closed, with a larger encoder that makes up for the missing parameters."""

    name: ClassVar[str] = "vae"
    shows: ClassVar[str] = "independent latents: Graph VAE's third baseline"
    structure: ClassVar[Structure] = "none"
