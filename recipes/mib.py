"""Views of one digit under the multivariate-information-bottleneck framework: one recipe for each row of the unified table.

Each row is a declaration: the variables, G^p, G^q, and wishes about latents, all as text; where the table has another cost than
an ELBO (C_2, or C_1 for each of several inference networks), the row has a ``loss`` too. What rows must equal is proved in
``tests/recipes/test_mib.py`` against the original methods' losses, written by hand.

Source: Zhang et al. (2020), tables 1 and 2 and section 4.2. Edges of all networks but those named in its text are our reading,
since its figures are lost; sizes, optimiser and weights were in an appendix that our copy lacks.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from pyzoo.data.images import IMAGE_SETS, ImageSet
from pyzoo.data.multimodal import PairSet, PairSetName, PairSource, load_pairs, partner_name
from pyzoo.errors import UsageError
from pyzoo.guides.mib import StructuredGuide, structured_guide
from pyzoo.infer import MINE, BayesianNetwork, Information, NegativeELBO, Penalty, Variables, evaluating
from pyzoo.models.mib import StructuredVAE, private_of, structured_vae
from pyzoo.recipes import mib_metrics
from pyzoo.recipes.images import FileRecipe
from pyzoo.recipes.mib_objectives import DiscriminatorLoss, EstimatorLoss, GeneratorLoss, SeveralNetworks, pixel_discriminator
from pyzoo.training import Objective, Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GAN", "JMVAE", "MVAE", "TELBO", "VAE", "BetaTCVAE", "BetaVAE", "BiVCCA", "InfoGAN", "Multimodal", "WynerVAE"]


@dataclasses.dataclass(frozen=True)
class Wish:
    """A network that q is to come near, and how much."""

    name: str
    network: str
    weight: float
    form: Literal["signed", "conditional"] = "signed"
    estimators: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A row of the table: its variables, G^p, G^q, and what is wished of q."""

    variables: Variables
    generative: str
    inference: str
    wishes: tuple[Wish, ...] = ()

    def network(self, text: str) -> BayesianNetwork:
        """A network over the variables."""
        return BayesianNetwork.parse(text, self.variables)

    def penalties(self) -> list[Penalty]:
        """The wishes as penalties."""
        q = self.network(self.inference)
        return [Penalty(w.name, q, self.network(w.network), w.weight, w.form, w.estimators) for w in self.wishes]


_SMALL = {"data": "mnist-numbers", "steps": 4000, "batch_size": 64, "u_dim": 8, "z_dim": 8, "number_scale": 0.7}
_DIGITS = {"data": "digits-label", "steps": 1500, "u_dim": 4, "z_dim": 8, "hidden_dim": 256, "label_weight": 50.0}
_DIGITS_NUMBERS = {**_SMALL, "data": "digits-numbers", "hidden_dim": 256}
_OURS_WITH_LABELS = {"independence": "total_correlation", "independence_weight": 3.0, "crossed_cost": 0.5, "cross_weight": 1.5}
_OURS_WITH_NUMBERS = {"digit_kl_start": 30.0, "number_kl_end": 8.0, "shared_kl_end": 0.5}
_OURS_WITH_NUMBERS |= {"crossed_cost": 1.0, "cross_weight": 3.0}


@dataclasses.dataclass
class MIBRecipe(FileRecipe):
    """Base of the rows: data, networks, one ELBO with penalties."""

    paper: ClassVar[str] = "Zhang et al. 2020"
    about_data: ClassVar[str] = "MNIST or digits with labels, house numbers or the next digit"
    has_likelihood: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": _SMALL,
        "digits": _DIGITS,
        "digits-numbers": _DIGITS_NUMBERS,
    }

    data: PairSetName = "mnist-numbers"
    """The pairs: MNIST's digits, or scikit-learn's, with labels, with house numbers (rendered, or SVHN's), or with the next
    digit. Presets small and digits-numbers are made for house numbers, digits for labels."""
    paired: float = 1.0
    """Share of training examples that come with both views; of the others one is missing (weak supervision)."""
    batch_size: int = 128
    """Pairs in a step, over all devices."""
    z_dim: int = 16
    """Dimensions of the shared latent; without private ones it has theirs too."""
    u_dim: int = 16
    """Dimensions of the private latent of a view that is an image."""
    hidden_dim: int = 512
    """Hidden units of a layer."""
    label_weight: float = 10.0
    """Of a label's likelihood, which is a few nats beside an image's hundreds."""
    number_scale: float = 0.1
    """Standard deviation of a house number's pixels, on the scale from 0 to 1."""
    digit_kl_start: float = 1.0
    """Weight of the KL of the digit's private latent at the start, from which it goes to 1 over 70 % of the steps: while it is
    dear, what views have in common finds its place in the shared one. Means nothing without both kinds of latents."""
    number_kl_end: float = 1.0
    """Weight of the KL of a house number's private latent at the end, to which it goes from 1 between 20 and 60 % of the steps.
    It is cheap while the decoder learns shapes, for which it needs the colours, and dear afterwards, when what it says should be
    what its prior can draw, whatever the class. Means nothing without both kinds of latents, or without house numbers."""
    shared_kl_end: float = 1.0
    """Weight of the KL of the shared latent at the end, reached likewise: where it is cheap, draws of it are surer of the class.
    Means nothing where there is no shared one."""
    learning_rate: float = 1e-3
    """Of Adam, at the start; it falls along a cosine to zero at the last step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.data in get_args(PairSetName), "data", f"one of {', '.join(get_args(PairSetName))}")
        self.require(0 <= self.paired <= 1, "paired", "a share from 0 to 1")
        for field in ("label_weight", "number_scale", "learning_rate", "digit_kl_start", "number_kl_end", "shared_kl_end"):
            self.require(getattr(self, field) > 0, field, "positive")
        for field in (field.name for field in dataclasses.fields(self)):  # those that a row adds too
            if field.endswith("_dim"):
                self.require(getattr(self, field) >= 1, field, "at least 1")
            if field.endswith(("_weight", "_cost")):
                self.require(getattr(self, field) >= 0, field, "at least 0")
        self.require(2 <= self.batch_size <= self.train_size, "batch_size", f"at least 2, and at most {self.train_size}")

    # Data -----------------------------------------------------------------------------------------------------------

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the observed variables."""
        return ("digit", partner_name(self.data))

    @property
    def image_set(self) -> ImageSet:
        return IMAGE_SETS[self.data.split("-")[0]]

    @property
    def note(self) -> str:
        rendered = "House numbers are rendered, not SVHN." if self.data.endswith("numbers") and "number" in self.views else ""
        return " ".join(part for part in (self.image_set.note, rendered) if part)

    def prepare(self) -> None:
        for split in ("train", "test"):
            load_pairs(self.data, split, self.data_dir)

    @property
    def train_share(self) -> float:
        """Of the training images, what is trained on."""
        return self.train_size / self.image_set.train

    def training_pairs(self) -> PairSet:
        """What is trained on."""
        return load_pairs(self.data, "train", self.data_dir, (0.0, self.train_share))

    def measured_pairs(self) -> PairSet:
        """What is measured on: test pairs, or those that are held out."""
        if not self.validation:
            return load_pairs(self.data, "test", self.data_dir)
        return load_pairs(self.data, "train", self.data_dir, (self.train_share, 1.0))

    def source(self, device: torch.device) -> Source:
        return PairSource(self.training_pairs(), self.paired, self.seed, device, self.views)

    # Training -------------------------------------------------------------------------------------------------------

    def declare(self) -> Declaration:
        """The row."""
        raise NotImplementedError

    @property
    def privates(self) -> dict[str, str]:
        """Private latents, one for each view that is an image: a label has nothing of its own."""
        return {f"u_{view}": view for view in self.views if view != "label"}

    def dims(self, variables: Variables) -> dict[str, int]:
        """Dimensions of each latent."""
        shared = self.z_dim + (0 if variables.private else self.u_dim * len(self.privates))
        return {**dict.fromkeys(variables.shared, shared), **dict.fromkeys(variables.private, self.u_dim)}

    def networks(self) -> tuple[StructuredVAE, StructuredGuide]:
        """The model and its guide."""
        row = self.declare()
        dims, penalties = self.dims(row.variables), row.penalties()
        model = structured_vae(row.network(row.generative), dims, self.hidden_dim, self.number_scale)
        sizes = {
            name: [sum(dims[latent] for latent in side) for side in (t.left, t.right)] for name, t in _learned(penalties).items()
        }
        guide = structured_guide(
            row.network(row.inference),
            dims,
            self.hidden_dim,
            penalties=penalties,
            dataset_size=self.train_size,
            estimators={name: MINE(*both) for name, both in sizes.items()},
            model=model,
        )
        return model, guide

    def objectives(self) -> list[Objective]:
        model, guide = self.networks()
        module = self.loss(model, guide)
        learned = list(guide.estimators.parameters())  # lists, in an order that a checkpoint keeps
        judges = set(learned)
        main = self._objective(module, [p for p in module.parameters() if p not in judges])
        weights = {f"kl_weight_{latent}": weight for latent, weight in self._kl_weights(model.variables).items()}
        buffers = [(name, name.split(".")[-1]) for name, _ in module.named_buffers()]  # of losses within losses too
        main.schedules = {name: weights[last] for name, last in buffers if last in weights}
        terms = _learned(guide.penalties)
        return [main] if not terms else [main, self._objective(EstimatorLoss(guide, terms), learned, "mine")]

    def loss(self, model: StructuredVAE, guide: StructuredGuide) -> nn.Module:
        """What the first objective makes small: C_1, and the guide's penalties."""
        return NegativeELBO(model, guide, self.site_weights(model.variables))

    def site_weights(self, variables: Variables) -> dict[str, float]:
        """Weights of sites that have one."""
        weights = {"label": self.label_weight} if "label" in variables.observed else {}
        return {**weights, **{latent: weight(0) for latent, weight in self._kl_weights(variables).items()}}

    def _kl_weights(self, variables: Variables) -> dict[str, Callable[[int], float]]:
        """For each latent whose KL's weight is not 1 throughout, that weight at a step."""
        if not variables.shared:
            return {}
        found = {}
        if self.shared_kl_end != 1:
            found |= dict.fromkeys(variables.shared, self._towards(self.shared_kl_end))
        if self.digit_kl_start != 1:
            found |= dict.fromkeys(private_of(variables, "digit"), self._digit_kl)
        if self.number_kl_end != 1:
            found |= dict.fromkeys(private_of(variables, "number"), self._towards(self.number_kl_end))
        return found

    def _digit_kl(self, step: int) -> float:
        return 1 + (self.digit_kl_start - 1) * max(0.0, 1 - step / (0.7 * self.steps))

    def _towards(self, end: float) -> Callable[[int], float]:
        return lambda step: 1 + (end - 1) * min(1.0, max(0.0, (step / self.steps - 0.2) / 0.4))

    def _objective(self, module: nn.Module, parameters: Sequence[nn.Parameter], name: str = "") -> Objective:
        optimizer = torch.optim.Adam(parameters, lr=self.learning_rate, fused=True)
        return Objective(module, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps), {}, name)

    # Metrics, figures and samples -----------------------------------------------------------------------------------

    def evaluate(self, module: nn.Module, device: torch.device, full: bool = False) -> dict[str, float]:
        return mib_metrics.evaluate(self, module, device, full)

    def figures(
        self, module: nn.Module, device: torch.device, history: Sequence[Mapping[str, float]]
    ) -> Iterator[tuple[str, "Figure"]]:
        from pyzoo.recipes.mib_figures import figures  # matplotlib is imported only where something is drawn

        return figures(self, module, device, history)

    def sample(
        self, module: nn.Module, device: torch.device, count: int, parts: Sequence[str] | None, seed: int
    ) -> dict[str, Tensor]:
        if parts is not None:
            raise UsageError(f"--parts: the views of {self.name} are not made of parts")
        with evaluating(module):
            drawn = mib_metrics.draw(module.model, count)
            return {"x": drawn["digit"].sample(), **{view: p.mean for view, p in drawn.items()}}

    def picture(self, samples: Mapping[str, Tensor]) -> "Figure":
        from pyzoo.recipes.mib_figures import joint_samples  # matplotlib is imported only where something is drawn

        return joint_samples({view: samples[view] for view in self.views})


def _learned(penalties: Sequence[Penalty]) -> dict[str, Information]:
    """Terms that are estimated by a network."""
    return {str(term): term for penalty in penalties for _, term, estimator in penalty.terms if estimator == "mine"}


# Rows with several views ----------------------------------------------------------------------------------------------


def _of_one_latent(views: tuple[str, ...]) -> Declaration:
    """z alone, told by all views, tells them all."""
    x, y = views
    return Declaration(Variables(views, shared=("z",)), generative=f"z -> {x}, {y}", inference=f"{x}, {y} -> z")


def _with_private(views: tuple[str, ...], privates: Mapping[str, str]) -> Declaration:
    """And each private latent tells, and is told by, its own view."""
    z = _of_one_latent(views)
    return Declaration(
        Variables(views, shared=("z",), private=privates),
        generative="; ".join([z.generative, *(f"{latent} -> {view}" for latent, view in privates.items())]),
        inference="; ".join([z.inference, *_own(privates)]),
    )


def _own(privates: Mapping[str, str]) -> list[str]:
    """The edges of G^q to private latents."""
    return [f"{view} -> {latent}" for latent, view in privates.items()]


def _told_by_either(views: tuple[str, ...], weight: float, privates: Mapping[str, str] | None = None) -> tuple[Wish, ...]:
    """cross(x_i): z stands between a view and the other."""
    pairs = [views, views[::-1]]
    return tuple(Wish(f"cross({a})", "; ".join([f"{a} -> z -> {b}", *_own(privates or {})]), weight) for a, b in pairs)


def _all_and_each(views: tuple[str, ...], weight: float) -> dict[tuple[str, ...], float]:
    """Inference networks that hear all views, and one each; those of one view are weighted."""
    return {views: 1.0, **{(view,): weight for view in views}}


@dataclasses.dataclass
class Multimodal(MIBRecipe):
    """Several views with shared and private latents (OURS-MM): the shared ones are to be told by any one of the views.

    L_x + L_u + L_z of section 4.2: the ELBO, and for each view the wish that z stand between it and the others. Its presets add
    what that bound hardly asks for: crossed costs; with labels, that shared and private latents be independent; and with house
    numbers a private latent of the digit that is dear at first, one of the number that is dear at last, and a shared one that is
    cheap then (RESULTS.md says why).
    """

    name: ClassVar[str] = "mib-multimodal"
    shows: ClassVar[str] = "what two views share, told apart from what is each one's own"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {**_SMALL, **_OURS_WITH_NUMBERS},
        "digits-numbers": {**_DIGITS_NUMBERS, **_OURS_WITH_NUMBERS},
        "digits": {**_DIGITS, **_OURS_WITH_LABELS},
    }

    cross_weight: float = 1.0
    """Of the wish that z be told by either view."""
    crossed_cost: float = 0.0
    """Weight of the cost of all views with z told by one of them alone, and private latents by their own; once for each. It is
    C_4 of that view and the other's cost."""
    independence: Literal["none", "total_correlation", "mine", "mmd"] = "none"
    """Also wish that shared and private latents be independent, and estimate how much they are not in this way."""
    independence_weight: float = 1.0
    """Of that wish."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("none", "total_correlation", "mine", "mmd")
        self.require(self.independence in known, "independence", f"one of {', '.join(known)}")

    def declare(self) -> Declaration:
        crosses = _told_by_either(self.views, self.cross_weight, self.privates)
        return dataclasses.replace(_with_private(self.views, self.privates), wishes=(*crosses, *self._independent()))

    def loss(self, model: StructuredVAE, guide: StructuredGuide) -> nn.Module:
        if not self.crossed_cost:
            return super().loss(model, guide)
        heard = _all_and_each(self.views, self.crossed_cost)
        return SeveralNetworks(model, guide, heard, "all", self.site_weights(model.variables))

    def _independent(self) -> Iterator[Wish]:
        """All latents independent, and each view a function of all: what is left of the distance is between latents."""
        if self.independence == "none":
            return
        x, y = self.views
        latents = ["z", *self.privates]
        terms = [f"I({latent}; {', '.join(sorted(latents[:place]))})" for place, latent in enumerate(latents) if place]
        network = f"{', '.join(latents)} -> {x}, {y}; {x} -> {y}"
        estimator = "dependence" if self.independence == "mmd" else self.independence
        yield Wish("independent", network, self.independence_weight, "conditional", dict.fromkeys(terms, estimator))


@dataclasses.dataclass
class JMVAE(MIBRecipe):
    """All views from one shared latent, which any of them is to tell (Suzuki et al. 2017): [1, C_1] and [beta, cross(x_i)]."""

    name: ClassVar[str] = "mib-jmvae"
    shows: ClassVar[str] = "the same without private latents"

    cross_weight: float = 1.0
    """Of the wish that z be told by either view; the original's alpha."""

    def declare(self) -> Declaration:
        return dataclasses.replace(_of_one_latent(self.views), wishes=_told_by_either(self.views, self.cross_weight))


@dataclasses.dataclass
class MVAE(MIBRecipe):
    """All views from one shared latent, by a network for all and one for each (Wu and Goodman 2018): C_1 once for each."""

    name: ClassVar[str] = "mib-mvae"
    shows: ClassVar[str] = "one latent, and an ELBO for each subset of the views"
    single_weight: ClassVar[float] = 1.0

    def declare(self) -> Declaration:
        return _of_one_latent(self.views)

    def loss(self, model: StructuredVAE, guide: StructuredGuide) -> nn.Module:
        heard = _all_and_each(self.views, self.single_weight)
        return SeveralNetworks(model, guide, heard, "heard", self.site_weights(model.variables))


@dataclasses.dataclass
class TELBO(MVAE):
    """Three ELBOs, of both views and of each (Vedantam et al. 2018). Of two views it is MVAE's, but for how they are weighted."""

    name: ClassVar[str] = "mib-telbo"
    shows: ClassVar[str] = "three ELBOs, the single views' weighted more"

    single_weight: float = 5.0
    """Of the ELBOs of single views; the joint one's is 1."""


@dataclasses.dataclass
class BiVCCA(MIBRecipe):
    """All views explained from each one alone (Wang et al. 2016): C_4(x_i, z) and the other view's cost, half from each."""

    name: ClassVar[str] = "mib-bivcca"
    shows: ClassVar[str] = "one latent, told by one view at a time"

    def declare(self) -> Declaration:
        return _of_one_latent(self.views)

    def loss(self, model: StructuredVAE, guide: StructuredGuide) -> nn.Module:
        heard = {(view,): 0.5 for view in self.views}
        return SeveralNetworks(model, guide, heard, "all", self.site_weights(model.variables))


@dataclasses.dataclass
class WynerVAE(MIBRecipe):
    """Shared and private latents, the shared ones succinct (Ryu et al. 2020).

    Our reading: the ELBO; a weight on what z tells of both views; the wish that z be told by either view; and the wish that a
    view come from z and its private latent, which are independent of each other and of all else (rates and distortion).
    """

    name: ClassVar[str] = "mib-wyner-vae"
    shows: ClassVar[str] = "private latents, and a shared one that is to say little"

    succinct_weight: float = 0.1
    """Of the rate of z, beside the ELBO's."""
    cross_weight: float = 1.0
    """Of the wish that z be told by either view."""
    private_weight: float = 0.1
    """Of the wish that a view come from z and its private latent alone."""

    def declare(self) -> Declaration:
        wishes = (
            Wish("succinct", "; ".join(_own(self.privates)), self.succinct_weight),
            *_told_by_either(self.views, self.cross_weight, self.privates),
            *(self._private(latent, view) for latent, view in self.privates.items()),
        )
        return dataclasses.replace(_with_private(self.views, self.privates), wishes=wishes)

    def _private(self, latent: str, view: str) -> Wish:
        others = _own({name: owner for name, owner in self.privates.items() if name != latent})
        network = "; ".join([f"z, {latent} -> {view}", *others])
        return Wish(f"private({view})", network, self.private_weight, "signed", {f"I({view}; {latent}, z)": "distortion"})


# Rows with one view ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class VAE(MIBRecipe):
    """One view with one private latent (Kingma and Welling 2014): [1, C_1] and no wish."""

    name: ClassVar[str] = "mib-vae"
    shows: ClassVar[str] = "one view, and no wish"

    @property
    def views(self) -> tuple[str, ...]:
        return ("digit",)

    def declare(self) -> Declaration:
        return Declaration(Variables(self.views, private={"u": "digit"}), generative="u -> digit", inference="digit -> u")


@dataclasses.dataclass
class BetaVAE(VAE):
    """One view whose latent is to tell less of it (Higgins et al. 2016): [1, C_1], and [beta - 1] of C_3 and the empty network.

    The rate that bounds I(u; x), the distance to the empty network, is larger than it by C_3: it is both.
    """

    name: ClassVar[str] = "mib-beta-vae"
    shows: ClassVar[str] = "one view, and a latent that is to tell little"

    beta: float = 4.0
    """Weight of the rate, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.beta >= 1, "beta", "at least 1")

    def declare(self) -> Declaration:
        return dataclasses.replace(super().declare(), wishes=(Wish("empty", "", self.beta - 1),))


@dataclasses.dataclass
class BetaTCVAE(MIBRecipe):
    """One view whose latents, a node for each coordinate, are to be independent (Chen et al. 2018).

    [1, C_1] and [beta - 1, G^p].
    """

    name: ClassVar[str] = "mib-beta-tcvae"
    shows: ClassVar[str] = "one view, and latents that are to be independent"

    beta: float = 6.0
    """1 and the weight of the total correlation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.beta >= 1, "beta", "at least 1")

    @property
    def views(self) -> tuple[str, ...]:
        return ("digit",)

    def dims(self, variables: Variables) -> dict[str, int]:
        return dict.fromkeys(variables.latents, 1)

    def declare(self) -> Declaration:
        latents = [f"u_{index}" for index in range(self.u_dim)]
        together = ", ".join(latents)
        wish = Wish("independent", f"{together} -> digit", self.beta - 1, "conditional")
        names = Variables(self.views, private=dict.fromkeys(latents, "digit"))
        return Declaration(names, generative=f"{together} -> digit", inference=f"digit -> {together}", wishes=(wish,))


@dataclasses.dataclass
class GAN(VAE):
    """One view without inference, by a discriminator (Goodfellow et al. 2014): [1, C_2], a second objective."""

    name: ClassVar[str] = "mib-gan"
    shows: ClassVar[str] = "one view, by an adversary"
    has_likelihood: ClassVar[bool] = False

    learning_rate: float = 2e-4
    """Of Adam, at the start, with a first moment's decay of 0.5."""

    def objectives(self) -> list[Objective]:
        model, guide = self.networks()
        discriminator = pixel_discriminator(self.hidden_dim)
        generator = self.loss(model, guide, discriminator)
        moved = [p for name, p in generator.named_parameters() if not name.startswith("discriminator")]
        judge = DiscriminatorLoss(model, discriminator, "digit")
        return [self._objective(generator, moved), self._objective(judge, list(discriminator.parameters()), "discriminator")]

    def loss(self, model: StructuredVAE, guide: StructuredGuide, discriminator: nn.Module) -> GeneratorLoss:
        return GeneratorLoss(model, discriminator, "digit")

    def _objective(self, module: nn.Module, parameters: Sequence[nn.Parameter], name: str = "") -> Objective:
        objective = super()._objective(module, parameters, name)
        for group in objective.optimizer.param_groups:
            group["betas"] = (0.5, 0.999)
        return objective


@dataclasses.dataclass
class InfoGAN(GAN):
    """A GAN with a code that its images are to tell (Chen et al. 2016): [1, C_2], and I(c; x) kept, from below."""

    name: ClassVar[str] = "mib-infogan"
    shows: ClassVar[str] = "the same with a code that the images tell"

    code_dim: int = 4
    """Dimensions of the code."""
    code_weight: float = 0.1
    """Of what the images tell of it."""

    def dims(self, variables: Variables) -> dict[str, int]:
        return {**super().dims(variables), "c": self.code_dim}

    def declare(self) -> Declaration:
        names = Variables(self.views, shared=("c",), private={"u": "digit"})
        return Declaration(names, generative="c, u -> digit", inference="digit -> c, u")

    def loss(self, model: StructuredVAE, guide: StructuredGuide, discriminator: nn.Module) -> GeneratorLoss:
        return GeneratorLoss(model, discriminator, "digit", guide, "c", self.code_weight)
