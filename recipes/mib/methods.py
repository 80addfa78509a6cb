"""The rows of the unified table: each method is a declaration of networks and targets, and the loss of its ELBO.

A declaration names the variables, G^p, G^q, and the networks G^k that the guide's distribution should obey, all as text. Where
the table has another cost than one ELBO (C_1 for each of several inference networks, or C_4), the method has a ``loss`` too. That
the rows equal the original methods' losses, written by hand, is proved in ``tests/recipes/test_mib.py``; Wyner-VAE is by our
reading. The weight of a label's likelihood is not the methods' but the recipe's.

Source: Zhang et al. (2020), tables 1 and 2 and section 4.2. Edges of all networks but those named in its text are our reading,
since its figures are lost; sizes, optimizer and weights were in an appendix that our copy lacks.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from torch import nn

from pyzoo.infer import (
    BayesianNetwork,
    Distortion,
    Estimator,
    IndexInformation,
    Information,
    LearnedInformation,
    NegativeELBO,
    Penalty,
    TotalCorrelation,
    Variables,
)
from pyzoo.recipes.mib.objectives import SeveralNetworks
from pyzoo.settings import AtLeast, Count, Positive, Settings, Weight
from pyzoo.training import linear

__all__ = [
    "ESTIMATORS",
    "GAN",
    "JMVAE",
    "MVAE",
    "TELBO",
    "VAE",
    "BetaTCVAE",
    "BetaVAE",
    "BiVCCA",
    "Declaration",
    "InfoGAN",
    "Method",
    "Multimodal",
    "Target",
    "WynerVAE",
    "independent",
]

# Declarations ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Target:
    """A network G^k that the guide's distribution should obey; becomes a :class:`pyzoo.infer.Penalty`."""

    name: str
    """What its terms are called."""
    network: str
    """G^k, as :meth:`pyzoo.infer.BayesianNetwork.parse` reads it."""
    weight: float
    """Weight of the distance."""
    form: Literal["signed", "conditional"] = "signed"
    """As in :class:`pyzoo.infer.Penalty`."""
    estimators: Mapping[str, str | Estimator | Callable[[Any], Estimator]] = dataclasses.field(default_factory=dict)
    """For terms, as printed, the estimator; or its name: one of those that a penalty knows, "mine" or "distortion"; or what makes
    one for a model."""


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A row of the table: its variables, G^p, G^q, and the targets of the guide's distribution."""

    variables: Variables
    generative: str
    inference: str
    targets: tuple[Target, ...] = ()

    def sizes(self, dims: Mapping[str, int]) -> dict[str, Any]:
        """The fields of the networks that follow from it, and from the latents' dimensions."""
        return {
            "observed": self.variables.observed,
            "shared": self.variables.shared,
            "private": tuple(self.variables.private.items()),
            "dims": tuple(dims.items()),
            "generative": self.generative,
            "inference": self.inference,
        }

    def network(self, text: str) -> BayesianNetwork:
        """A network over the variables."""
        return BayesianNetwork.parse(text, self.variables)

    def penalties(self, model: Any, dataset_size: int | None = None) -> list[Penalty]:
        """The targets as penalties.

        Args:
            model: the generative program, for estimators that take a likelihood or the latents' dimensions.
            dataset_size: number of training examples, for estimators of an aggregate posterior.
        """
        q = self.network(self.inference)

        def estimator(text: str, named: str | Estimator | Callable[[Any], Estimator]) -> str | Estimator:
            if isinstance(named, str):
                return _MADE[named](_information(text), model, dataset_size) if named in _MADE else named
            return named if isinstance(named, Estimator) else named(model)

        return [
            Penalty(
                target.name,
                q,
                self.network(target.network),
                target.weight,
                target.form,
                {text: estimator(text, named) for text, named in target.estimators.items()},
            )
            for target in self.targets
        ]


_MADE: dict[str, Callable[[Information, Any, int | None], Estimator]] = {
    "index_information": lambda term, model, dataset_size: IndexInformation(dataset_size),
    "total_correlation": lambda term, model, dataset_size: TotalCorrelation(dataset_size),
    "mine": lambda term, model, dataset_size: LearnedInformation(term, model.dims),
    "distortion": lambda term, model, dataset_size: Distortion(model),
}
"""Estimators that are made for a model and its data."""


ESTIMATORS = {"total_correlation": "total_correlation", "mine": "mine", "mmd": "dependence"}
"""What settings call the estimators of dependence between latents, and what a target calls them."""


def _information(text: str) -> Information:
    """An unconditional information from its text."""
    sides = text.removeprefix("I(").removesuffix(")").split(";")
    return Information.of(*([name.strip() for name in side.split(",")] for side in sides))


def _of_one_latent(views: tuple[str, ...]) -> Declaration:
    """All views depend on z, and z is inferred from all of them."""
    x, y = views
    return Declaration(Variables(views, shared=("z",)), generative=f"z -> {x}, {y}", inference=f"{x}, {y} -> z")


def _private(views: tuple[str, ...]) -> dict[str, str]:
    """Private latents, one for each view that is an image: a label has nothing of its own."""
    return {f"u_{view}": view for view in views if view != "label"}


def _with_private(views: tuple[str, ...]) -> Declaration:
    """The same, and a private latent of each image, inferred from it."""
    z, private = _of_one_latent(views), _private(views)
    return Declaration(
        Variables(views, shared=("z",), private=private),
        generative="; ".join([z.generative, *(f"{latent} -> {view}" for latent, view in private.items())]),
        inference="; ".join([z.inference, *_own(private)]),
    )


def _own(private: Mapping[str, str]) -> list[str]:
    """The edges of G^q to private latents."""
    return [f"{view} -> {latent}" for latent, view in private.items()]


def _cross(views: tuple[str, ...], weight: float, private: Mapping[str, str] | None = None) -> tuple[Target, ...]:
    """cross(x_i), one for each view: z holds all that the view and the other one have in common, and follows from the view."""
    pairs = [views, views[::-1]]
    return tuple(Target(f"cross({a})", "; ".join([f"{a} -> z -> {b}", *_own(private or {})]), weight) for a, b in pairs)


def independent(latents: Sequence[str], views: Sequence[str], weight: float, estimator: str, name: str = "independent") -> Target:
    """All latents independent, and the views functions of all of them: the distance is then one between latents alone."""
    terms = [f"I({latent}; {', '.join(sorted(latents[:place]))})" for place, latent in enumerate(latents) if place]
    network = "; ".join([f"{', '.join(latents)} -> {', '.join(views)}", *(f"{a} -> {b}" for a, b in itertools.pairwise(views))])
    return Target(name, network, weight, "conditional", dict.fromkeys(terms, estimator))


def _all_and_each(views: tuple[str, ...], weight: float) -> dict[tuple[str, ...], float]:
    """An inference network conditioned on all views, and one on each alone; the latter are weighted."""
    return {views: 1.0, **{(view,): weight for view in views}}


# Rows with several views ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Method(Settings):
    """Base of the rows: a declaration, and one ELBO with the penalties of its targets."""

    def declare(self, views: tuple[str, ...]) -> Declaration:
        """The row for views of these names, of which "label" is a class and the others are images."""
        raise NotImplementedError

    def dims(self, variables: Variables) -> dict[str, int]:
        """Dimensions of each latent."""
        raise NotImplementedError

    def kl_weights(self, variables: Variables, steps: int) -> dict[str, Callable[[int], float]]:
        """For each latent whose KL weight changes in training, that weight as a function of the step."""
        return {}

    def penalty_shares(self, steps: int) -> dict[str, Callable[[int], float]]:
        """For each target whose weight changes in training, the share of it that counts, as a function of the step."""
        return {}

    def loss(
        self, model: nn.Module, guide: nn.Module, kl_weights: Mapping[str, float], site_weights: Mapping[str, float]
    ) -> nn.Module:
        """What is minimized: by default C_1 and the guide's penalties.

        Args:
            model: the generative program.
            guide: the guide, with its penalties if it has any.
            kl_weights: of latents, which schedules may move.
            site_weights: of further sites, latents or views, which do not change.
        """
        return NegativeELBO(model, guide, kl_weights, site_weights=site_weights)


@dataclasses.dataclass(frozen=True)
class _Shared(Method):
    """Base of the rows with a shared latent."""

    z_dim: Count = 16
    """Dimensions of the shared latent."""
    shared_kl_end: Positive = 1.0
    """Final KL weight of the shared latent, reached from 1 between 20 and 60 % of the steps. With a small one the latent holds
    more, and what is drawn from its prior is of clearer classes."""

    def dims(self, variables: Variables) -> dict[str, int]:
        return dict.fromkeys(variables.shared, self.z_dim)

    def kl_weights(self, variables: Variables, steps: int) -> dict[str, Callable[[int], float]]:
        if self.shared_kl_end == 1:
            return {}
        return dict.fromkeys(variables.shared, _late(self.shared_kl_end, steps))


@dataclasses.dataclass(frozen=True)
class _SharedAlone(_Shared):
    """Base of the rows without private latents."""

    z_dim: Count = 48
    """Dimensions of the shared latent, which also takes the place of private ones."""

    def declare(self, views: tuple[str, ...]) -> Declaration:
        return _of_one_latent(views)


@dataclasses.dataclass(frozen=True)
class _SharedAndPrivate(_Shared):
    """Base of the rows with shared and private latents."""

    u_dim: Count = 16
    """Dimensions of the private latent of each view that is an image."""
    digit_kl_start: Positive = 1.0
    """Initial KL weight of the first view's private latent; it goes to 1 over 70 % of the steps. While it is large, what the
    views have in common is stored in the shared latent."""
    number_kl_end: Positive = 1.0
    """Final KL weight of a house number's private latent, reached from 1 between 20 and 60 % of the steps. It should be small
    while the decoder learns shapes, for which it needs the colors, and large afterwards, so that the latent holds what its prior
    can generate for any class."""

    def dims(self, variables: Variables) -> dict[str, int]:
        return {**super().dims(variables), **dict.fromkeys(variables.private, self.u_dim)}

    def kl_weights(self, variables: Variables, steps: int) -> dict[str, Callable[[int], float]]:
        found = super().kl_weights(variables, steps)
        if self.digit_kl_start != 1:
            first = variables.private_of(variables.observed[0])
            found |= dict.fromkeys(first, linear(self.digit_kl_start, 1.0, steps=0.7 * steps))
        if self.number_kl_end != 1 and "number" in variables.observed:
            found |= dict.fromkeys(variables.private_of("number"), _late(self.number_kl_end, steps))
        return found


def _late(end: float, steps: int) -> Callable[[int], float]:
    """From 1 to another weight between 20 and 60 % of the steps."""
    return linear(1.0, end, steps=0.4 * steps, start=0.2 * steps)


@dataclasses.dataclass(frozen=True)
class Multimodal(_SharedAndPrivate):
    """L_x + L_u + L_z of section 4.2 (OURS-MM): the ELBO, and for each view the target that z follow from it alone.

    L_z is a sum of KLs, one for the prior and one for each view. Eq. 16 calls it a Jensen-Shannon divergence, which it is not:
    the weight of the prior in the geometric mean would be negative.
    """

    cross_weight: Weight = 1.0
    """Weight of the penalties that make the shared latent follow from either view alone."""
    crossed_cost: Weight = 0.0
    """Weight of the cost of all views with z conditioned on one of them alone, and private latents on their own view; once for
    each view. It is C_4 of that view and the other's cost."""
    independence: Literal["none", "total_correlation", "mine", "mmd"] = "none"
    """How the dependence of shared and private latents on each other is estimated, in order to penalize it."""
    independence_weight: Weight = 1.0
    """Weight of that penalty."""

    def declare(self, views: tuple[str, ...]) -> Declaration:
        private = _private(views)
        targets = (*_cross(views, self.cross_weight, private), *self._independence(views, private))
        return dataclasses.replace(_with_private(views), targets=targets)

    def _independence(self, views: tuple[str, ...], private: Mapping[str, str]) -> Iterator[Target]:
        if self.independence != "none":
            yield independent(["z", *private], views, self.independence_weight, ESTIMATORS[self.independence])

    def loss(
        self, model: nn.Module, guide: nn.Module, kl_weights: Mapping[str, float], site_weights: Mapping[str, float]
    ) -> nn.Module:
        if not self.crossed_cost:
            return super().loss(model, guide, kl_weights, site_weights)
        return SeveralNetworks(
            model, guide, _all_and_each(model.variables.observed, self.crossed_cost), "all", kl_weights, site_weights
        )


@dataclasses.dataclass(frozen=True)
class JMVAE(_SharedAlone):
    """One shared latent that should follow from either view (Suzuki et al. 2017): [1, C_1] and [alpha, cross(x_i)]."""

    cross_weight: Weight = 1.0
    """Weight of the penalties that make the shared latent follow from either view alone; the original's alpha."""

    def declare(self, views: tuple[str, ...]) -> Declaration:
        return dataclasses.replace(super().declare(views), targets=_cross(views, self.cross_weight))


@dataclasses.dataclass(frozen=True)
class MVAE(_SharedAlone):
    """One shared latent, an inference network for all views and one for each (Wu and Goodman 2018): C_1 once for each network.

    Table 2 prints the networks of single views as targets; the original's loss has an ELBO for each, and so has this.
    """

    def loss(
        self, model: nn.Module, guide: nn.Module, kl_weights: Mapping[str, float], site_weights: Mapping[str, float]
    ) -> nn.Module:
        return SeveralNetworks(model, guide, _all_and_each(model.variables.observed, 1.0), "own", kl_weights, site_weights)


@dataclasses.dataclass(frozen=True)
class TELBO(_SharedAlone):
    """Three ELBOs, of both views and of each (Vedantam et al. 2018). Of two views it is MVAE with other weights."""

    single_weight: Weight = 5.0
    """Weight of the ELBOs of single views; that of the joint one is 1."""

    def loss(
        self, model: nn.Module, guide: nn.Module, kl_weights: Mapping[str, float], site_weights: Mapping[str, float]
    ) -> nn.Module:
        return SeveralNetworks(
            model, guide, _all_and_each(model.variables.observed, self.single_weight), "own", kl_weights, site_weights
        )


@dataclasses.dataclass(frozen=True)
class BiVCCA(_SharedAlone):
    """All views explained from each one alone (Wang et al. 2016): C_4(x_i, z) and the other view's cost, half from each."""

    def loss(
        self, model: nn.Module, guide: nn.Module, kl_weights: Mapping[str, float], site_weights: Mapping[str, float]
    ) -> nn.Module:
        return SeveralNetworks(model, guide, {(view,): 0.5 for view in model.variables.observed}, "all", kl_weights, site_weights)


@dataclasses.dataclass(frozen=True)
class WynerVAE(_SharedAndPrivate):
    """Shared and private latents, of which the shared one holds little (Ryu et al. 2020).

    Our reading, where table 2 prints two inference networks and no weight of z's rate: the ELBO; a weight on the information of z
    about both views; the targets that z follow from either view; and the targets that a view depend on z and its private latent
    alone, which are independent of each other and of all else (rates and distortion).
    """

    succinct_weight: Weight = 0.1
    """Weight of the rate of z, in addition to the ELBO's."""
    cross_weight: Weight = 1.0
    """Weight of the penalties that make the shared latent follow from either view alone."""
    private_weight: Weight = 0.1
    """Weight of the penalties that make a view depend on z and its private latent alone."""

    def declare(self, views: tuple[str, ...]) -> Declaration:
        private = _private(views)
        targets = (
            Target("succinct", "; ".join(_own(private)), self.succinct_weight),
            *_cross(views, self.cross_weight, private),
            *(self._alone(latent, view, private) for latent, view in private.items()),
        )
        return dataclasses.replace(_with_private(views), targets=targets)

    def _alone(self, latent: str, view: str, private: Mapping[str, str]) -> Target:
        others = _own({name: owner for name, owner in private.items() if name != latent})
        network = "; ".join([f"z, {latent} -> {view}", *others])
        return Target(f"private({view})", network, self.private_weight, "signed", {f"I({view}; {latent}, z)": "distortion"})


# Rows with one view ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class VAE(Method):
    """One view with one private latent (Kingma and Welling 2014): [1, C_1] and no target."""

    u_dim: Count = 16
    """Dimensions of the latent."""

    def dims(self, variables: Variables) -> dict[str, int]:
        return dict.fromkeys(variables.private, self.u_dim)

    def declare(self, views: tuple[str, ...]) -> Declaration:
        (x,) = views
        return Declaration(Variables(views, private={"u": x}), generative=f"u -> {x}", inference=f"{x} -> u")


@dataclasses.dataclass(frozen=True)
class BetaVAE(VAE):
    """One view whose latent should hold little of it (Higgins et al. 2016): [1, C_1]; [beta - 1] of C_3 and the empty network.

    The rate, which bounds I(u; x), the distance to the empty network, is larger than it by C_3: it is the sum of both.
    """

    beta: Annotated[float, AtLeast(1)] = 4.0
    """Weight of the rate."""

    def declare(self, views: tuple[str, ...]) -> Declaration:
        return dataclasses.replace(super().declare(views), targets=(Target("empty", "", self.beta - 1),))


@dataclasses.dataclass(frozen=True)
class BetaTCVAE(VAE):
    """One view whose latents, a node for each coordinate, should be independent (Chen et al. 2018): [1, C_1], [beta - 1, G^p].

    Table 2 prints beta for beta - 1, and a cost C_2 besides, which is a GAN's.
    """

    beta: Annotated[float, AtLeast(1)] = 6.0
    """Weight of the total correlation in the whole loss: 1 of it is in the ELBO, the rest is the penalty."""

    def dims(self, variables: Variables) -> dict[str, int]:
        return dict.fromkeys(variables.latents, 1)

    def declare(self, views: tuple[str, ...]) -> Declaration:
        (x,), latents = views, [f"u_{index}" for index in range(self.u_dim)]
        together = ", ".join(latents)
        names = Variables(views, private=dict.fromkeys(latents, x))
        target = independent(latents, views, self.beta - 1, "total_correlation")
        return Declaration(names, generative=f"{together} -> {x}", inference=f"{x} -> {together}", targets=(target,))


@dataclasses.dataclass(frozen=True)
class GAN(VAE):
    """One view without inference, by a discriminator (Goodfellow et al. 2014): [1, C_2]."""


@dataclasses.dataclass(frozen=True)
class InfoGAN(VAE):
    """A GAN with a code that can be read off its images (Chen et al. 2016): [1, C_2], and I(c; x) made large.

    Table 2 gives that a weight of 1; ours is ``code_weight``.
    """

    code: ClassVar[str] = "c"

    code_dim: Count = 4
    """Dimensions of the code."""
    code_weight: Weight = 0.1
    """Weight of the code's log-density given the image."""

    def dims(self, variables: Variables) -> dict[str, int]:
        return {self.code: self.code_dim, **super().dims(variables)}

    def declare(self, views: tuple[str, ...]) -> Declaration:
        (x,), c = views, self.code
        names = Variables(views, shared=(c,), private={"u": x})
        return Declaration(names, generative=f"{c}, u -> {x}", inference=f"{x} -> {c}, u")
