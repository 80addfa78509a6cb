r"""The generative model of the multivariate-information-bottleneck framework: several views, shared and private latents.

.. math:: p(x, z, u) = \prod_{j=1}^{M} p(z_j) \prod_{i=1}^{N} p(u_i)\, p(x_i \mid z \odot m_i^p, u_i)

A Bayesian network over named variables, or its mask M^p, says which shared latents a view depends on. The decoder of a view takes
all shared latents, those that are not its parents multiplied by zero, and the private latents of that view.

What is minimized (eq. 8) is a cost, most often the negative ELBO, and the distance of the guide's q from networks that it should
obey, which :class:`pyzoo.infer.Penalty` bounds or estimates:

.. math:: \mathcal{L} = \mathrm{KL}(q(x, z, u) \,\|\, p(x, z, u)) + \sum_k \beta_k\, D(q \,\|\, G^k)

Source: Zhang, Koyama and Ishiguro (2020), "Learning Structured Latent Factors from Dependent Data", eq. 3 and section 3.4. The
sizes of the networks stood in an appendix that our copy lacks. Ours for images are of the usual kind: two hidden layers, one for
labels, and three convolutions and a layer to encode house numbers, color images of 32x32 pixels. House numbers are decoded as ink
over a background: shape and colors are then learned apart, and numbers become legible sooner than with transposed convolutions
(docs/results/mib.md).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import require_count, require_kind, require_names, require_observed, require_shape
from pyzoo.infer import BayesianNetwork, FixedMask, RelaxedMask, Variables
from pyzoo.infer.masks import both
from pyzoo.nn import Head, Networks, he_initialized
from pyzoo.settings import Above, AtLeast, Below, Count, NoFlag, Positive

__all__ = [
    "EnvironmentNetworks",
    "LearnedMaskNetworks",
    "PairNetworks",
    "StructuredNetworks",
    "StructuredVAE",
    "TableNetworks",
    "ViewKind",
    "ViewNetworks",
]
__all__ += ["check_complete", "those_given", "view_dim", "without_absent"]

ViewKind = Literal["image", "number", "class", "features"]
"""What a view can be: an image, a house number, a class as a one-hot vector, or a vector of numbers."""


class StructuredVAE(PyroModule):
    """The generative story, for any networks; the sites have the names of the variables.

    Args:
        network: G^p, from each shared latent to the views that depend on it, and from each private latent to its view.
        dims: dimensions of each latent, by name.
        decoders: for each view, by name, the network from its latents side by side, (rows, features), to a distribution over the
            view, one for each row: all shared latents in the order of the variables, then the private ones of the view.
        mask: a module that gives M^p, (views, shared latents); by default the mask of ``network``, fixed.

    Raises:
        ValueError: an edge is not one from a latent to a view, no view depends on a latent, a latent's dimensions or a view's
            decoder are missing, or a variable has a reserved name; names the variable.

    Example:
        >>> class Curve(torch.nn.Linear):
        ...     def forward(self, z):
        ...         return dist.Normal(super().forward(z), 0.1).to_event(1)
        >>> names = Variables(("x", "y"), shared=("z",), private={"u": "x"})
        >>> network = BayesianNetwork.parse("z, u -> x; z -> y", names)
        >>> model = StructuredVAE(network, {"z": 2, "u": 1}, {"x": Curve(3, 20), "y": Curve(2, 5)})
        >>> {name: tuple(view.shape) for name, view in model(size=4).items()}
        {'x': (4, 20), 'y': (4, 5)}
    """

    def __init__(
        self,
        network: BayesianNetwork,
        dims: Mapping[str, int],
        decoders: Mapping[str, nn.Module],
        mask: nn.Module | None = None,
    ) -> None:
        super().__init__("model")
        _check_generative(network)
        check_complete(network.variables, dims, decoders, "decoder")
        self.network = network
        self.variables: Variables = network.variables
        self.dims: dict[str, int] = dict(dims)
        self.decoders: nn.ModuleDict = nn.ModuleDict({view: decoders[view] for view in self.variables.observed})
        self.mask: nn.Module = FixedMask(network.generative_mask()) if mask is None else mask

    def forward(
        self,
        present: Tensor | None = None,
        size: int = 1,
        conditioned_on: Tensor | None = None,
        scored: Tensor | None = None,
        **views: Tensor | None,
    ) -> dict[str, Tensor]:
        """Draws the latents, then the views; returns the views by name.

        A view that is not given is drawn. If others are given it is not scored, which integrates it out.

        Args:
            present: which views each row has, (batch, views), boolean; all by default. An absent view may hold anything: zeros,
                which the likelihood must be able to take, replace it.
            size: number of rows to draw if no view is given.
            conditioned_on: used by the guide only.
            scored: the views whose likelihoods count for each row, (batch, views), boolean; all by default.
            **views: the observed views by name, each with the batch as its first dimension, or None.
        """
        given = those_given(views)
        rows = self.variables.batch_size(given) if given else size
        require_count(rows, "size")
        for mask in (present, scored):
            self.variables.check_mask(mask, rows)
        present = both(present, scored)
        edges = self.mask()
        with pyro.plate("data", rows):
            latents = {name: self._draw(name, rows) for name in self.variables.latents}
            drawn = {}
            for index, name in enumerate(self.variables.observed):
                likelihood, view = self.likelihood(name, latents, edges), given.get(name)
                if view is not None:
                    require_observed(view, f"the view '{name}'", rows, likelihood.event_shape)
                if view is not None and present is not None:
                    likelihood, view = likelihood.mask(present[:, index]), without_absent(view, present[:, index])
                elif view is None and given:
                    likelihood = likelihood.mask(False)
                drawn[name] = pyro.sample(name, likelihood, obs=view)
        return drawn

    def likelihood(self, view: str, latents: Mapping[str, Tensor], edges: Tensor | None = None) -> dist.TorchDistribution:
        """p(view | latents), one row for each of theirs.

        Args:
            view: its name.
            latents: by name, (rows, features).
            edges: M^p, (views, shared latents), if it has been drawn.
        """
        self.variables.check_views([view])
        require_names([*self.variables.shared, *self.variables.private_of(view)], latents, "latent")
        edges = self.mask() if edges is None else edges
        if edges.shape != (len(self.variables.observed), len(self.variables.shared)):
            raise ValueError(f"M^p must be (views, shared latents), got {tuple(edges.shape)}.")
        row = edges[self.variables.observed.index(view)]
        shared = [latents[z] * row[j] for j, z in enumerate(self.variables.shared)]
        parts = [*shared, *(latents[u] for u in self.variables.private_of(view))]
        sizes = view_dim(self.variables, self.dims, view)
        if len({part.shape[:-1] for part in parts}) > 1 or sum(part.shape[-1] for part in parts) != sizes:
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(f"latents of '{view}' must have one number of rows and {sizes} features together, got {shapes}.")
        return self.decoders[view](torch.cat(parts, dim=-1))

    def _zeros(self, *shape: int) -> Tensor:
        return next(self.parameters()).new_zeros(shape)

    def _draw(self, name: str, rows: int) -> Tensor:
        """A latent from N(0, I)."""
        return pyro.sample(name, dist.Normal(self._zeros(rows, self.dims[name]), 1.0).to_event(1))


# What model and guide share -------------------------------------------------------------------------------------------

_RESERVED = ("self", "present", "size", "conditioned_on", "scored", "drawn", "data")  # arguments, and the plate


def view_dim(variables: Variables, dims: Mapping[str, int], view: str) -> int:
    """Dimensions of the latents that a view's networks deal with: all shared ones, and its private ones."""
    return sum(dims.get(latent, 0) for latent in (*variables.shared, *variables.private_of(view)))  # one without is refused later


def without_absent(view: Tensor, present: Tensor) -> Tensor:
    """A view with zeros in its absent rows: what they hold must not reach a gradient, not even multiplied by zero."""
    require_shape(present, "present", view.shape[:1])
    if present.dtype != torch.bool:
        raise ValueError(f"present must be boolean, got {present.dtype}.")
    return torch.where(present.view(-1, *(1,) * (view.dim() - 1)), view, torch.zeros_like(view))


def those_given(views: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """The views that are not None."""
    require_kind(views, "views", Mapping)
    return {name: view for name, view in views.items() if view is not None}


def check_complete(variables: Variables, dims: Mapping[str, int], networks: Mapping[str, nn.Module], what: str) -> None:
    """Raises a ValueError that names a latent without dimensions, a view without its network, or a reserved name."""
    require_kind(dims, "dims", Mapping)
    require_kind(networks, f"{what}s", Mapping, nn.ModuleDict)
    require_free_names(variables)
    for latent in variables.latents:
        require_count(dims.get(latent), f"The number of dimensions of the latent '{latent}'")
    for view in variables.observed:
        if view not in networks:
            raise ValueError(f"The view '{view}' has no {what}.")
        require_kind(networks[view], f"The {what} of '{view}'", nn.Module)


def require_free_names(variables: Variables) -> None:
    """Raises a ValueError if a variable has a name that a program of these variables needs for something else."""
    for name in variables.names:
        if name in _RESERVED or "." in name or (name in variables.observed and hasattr(nn.ModuleDict(), name)):
            raise ValueError(f"No variable can be called '{name}': the name is reserved by the model, its guide or torch.")


def _check_generative(network: BayesianNetwork) -> None:
    names = network.variables
    for parent, child in network.edges:
        if parent in names.observed or child in names.latents:
            raise ValueError(f"A generative network leads from latents to views, not from '{parent}' to '{child}'.")
        if names.private.get(parent, child) != child:
            raise ValueError(f"The private latent '{parent}' belongs to '{names.private[parent]}', not to '{child}'.")
    for latent in names.latents:
        if not any(parent == latent for parent, _ in network.edges):
            raise ValueError(f"The latent '{latent}' has no path to any observation.")


# Decoders -------------------------------------------------------------------------------------------------------------


class PixelDecoder(nn.Sequential):
    """An image, (channels, height, width); minus the cross-entropy of its gray pixels is the mean of log p over binarizations."""

    def __init__(self, width: int, hidden_dim: int, x_shape: tuple[int, int, int]) -> None:
        layers = [nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
        super().__init__(*layers, Head(nn.Linear(hidden_dim, math.prod(x_shape))), nn.Unflatten(1, x_shape))
        he_initialized(self)

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=super().forward(latents), validate_args=False).to_event(3)


class ClassDecoder(nn.Sequential):
    """One of several classes, a one-hot vector."""

    def __init__(self, width: int, hidden_dim: int, num_classes: int) -> None:
        super().__init__(nn.Linear(width, hidden_dim), nn.ReLU(), Head(nn.Linear(hidden_dim, num_classes)))
        he_initialized(self)

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        return dist.OneHotCategorical(logits=super().forward(latents), validate_args=False)


class LinearClassDecoder(Head):
    """One of several classes, a one-hot vector whose logits are an affine map of the latents."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(nn.Linear(width, num_classes))

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        return dist.OneHotCategorical(logits=super().forward(latents), validate_args=False)


class NumberDecoder(nn.Sequential):
    """A house number, (3, 32, 32): pixels normal about a mean from 0 to 1, which is ink of one color over a background."""

    _SIZES = (3 * 32 * 32, 32 * 32, 3)  # background, opacity of the ink, its color

    def __init__(self, width: int, hidden_dim: int, scale: float) -> None:
        layers = [nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
        super().__init__(*layers, Head(nn.Linear(hidden_dim, sum(self._SIZES))), nn.Sigmoid())
        he_initialized(self)
        self.scale = scale

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        background, ink, color = super().forward(latents).split(self._SIZES, dim=1)
        background, ink, color = background.view(-1, 3, 32, 32), ink.view(-1, 1, 32, 32), color.view(-1, 3, 1, 1)
        return dist.Normal(torch.lerp(background, color, ink), self.scale, validate_args=False).to_event(3)


class FeatureDecoder(nn.Sequential):
    """A vector of numbers, normal about their means."""

    def __init__(self, width: int, hidden_dim: int, num_features: int, scale: float) -> None:
        super().__init__(nn.Linear(width, hidden_dim), nn.ReLU(), Head(nn.Linear(hidden_dim, num_features)))
        he_initialized(self)
        self.scale = scale

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        return dist.Normal(super().forward(latents), self.scale, validate_args=False).to_event(1)


# Sizes ----------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StructuredNetworks(Networks):
    """Base of all networks of a :class:`StructuredVAE`: its variables, G^p, G^q. A subclass says what each view is.

    A recipe fills in all but the hidden units.
    """

    hidden_dim: Count = 512
    """Hidden units in each layer."""
    observed: Annotated[tuple[str, ...], NoFlag()] = ("image",)
    """Names of the views."""
    shared: Annotated[tuple[str, ...], NoFlag()] = ()
    """Names of the shared latents."""
    private: Annotated[tuple[tuple[str, str], ...], NoFlag()] = (("u", "image"),)
    """Names of the private latents, each with its view."""
    dims: Annotated[tuple[tuple[str, Count], ...], NoFlag()] = (("u", 16),)
    """Dimensions of each latent."""
    generative: Annotated[str, NoFlag()] = "u -> image"
    """The network G^p, as :meth:`pyzoo.infer.BayesianNetwork.parse` reads it."""
    inference: Annotated[str, NoFlag()] = "image -> u"
    """The network G^q."""

    @property
    def variables(self) -> Variables:
        """All variables."""
        return Variables(self.observed, self.shared, dict(self.private))

    def network(self, text: str) -> BayesianNetwork:
        """A network over the variables."""
        return BayesianNetwork.parse(text, self.variables)

    def kind(self, view: str) -> ViewKind:
        """What a view is, which decides on its decoder and its encoder."""
        raise NotImplementedError

    def shape(self, view: str) -> tuple[int, ...]:
        """The shape of a view of one example."""
        raise NotImplementedError

    def unseen_share(self, view: str) -> float:
        """Share of a view's numbers that its encoder does not see in training, anew in each step (dropout)."""
        return 0.0

    def mask(self, program: Literal["model", "guide"]) -> nn.Module | None:
        """M^p of the model or M^q of the guide if it is learned; None for that of the network."""
        return None

    def model(self) -> StructuredVAE:
        dims = dict(self.dims)
        decoders = {view: self.decoder(view, view_dim(self.variables, dims, view)) for view in self.observed}
        return StructuredVAE(self.network(self.generative), dims, decoders, self.mask("model"))

    def guide(self, model: StructuredVAE) -> PyroModule:
        from pyzoo.guides.mib import view_guide

        return view_guide(self)

    def decoder(self, view: str, width: int) -> nn.Module:
        """The decoder of a view, from latents that have ``width`` dimensions together."""
        require_count(width, "width")
        if self.kind(view) == "class":
            return ClassDecoder(width, self.hidden_dim, *self.shape(view))
        return PixelDecoder(width, self.hidden_dim, self.shape(view))


@dataclasses.dataclass(frozen=True)
class ViewNetworks(StructuredNetworks):
    """The networks of views of one thing: images, and a label. "label" is a class; any other view is an image.

    Example:
        >>> networks = ViewNetworks(
        ...     hidden_dim=8,
        ...     observed=("digit", "label"),
        ...     shared=("z",),
        ...     private=(("u", "digit"),),
        ...     dims=(("z", 4), ("u", 2)),
        ...     generative="z -> digit, label; u -> digit",
        ...     inference="digit, label -> z; digit -> u",
        ... )
        >>> model = networks.model()
        >>> guide = networks.guide(model)
        >>> {name: tuple(view.shape) for name, view in model(size=3).items()}
        {'digit': (3, 1, 28, 28), 'label': (3, 10)}
    """

    x_shape: Annotated[tuple[Count, Count, Count], NoFlag()] = (1, 28, 28)
    """Channels, height and width of an image."""
    num_classes: Annotated[int, AtLeast(1), NoFlag()] = 10
    """Number of classes of a label."""

    def kind(self, view: str) -> ViewKind:
        require_names([view], self.observed, "view")
        return "class" if view == "label" else "image"

    def shape(self, view: str) -> tuple[int, ...]:
        return (self.num_classes,) if view == "label" else self.x_shape


@dataclasses.dataclass(frozen=True)
class PairNetworks(ViewNetworks):
    """The same, with a house number as a further kind of view, "number"."""

    number_scale: Positive = 0.1
    """Standard deviation of a house number's pixels, on the scale from 0 to 1."""

    def kind(self, view: str) -> ViewKind:
        return "number" if view == "number" else super().kind(view)

    def shape(self, view: str) -> tuple[int, ...]:
        return (3, 32, 32) if view == "number" else super().shape(view)

    def decoder(self, view: str, width: int) -> nn.Module:
        if self.kind(view) == "number":
            return NumberDecoder(width, self.hidden_dim, self.number_scale)
        return super().decoder(view, width)


@dataclasses.dataclass(frozen=True)
class TableNetworks(StructuredNetworks):
    """The networks of a table's rows: features "x", and the sensitive attribute "a", one of two groups.

    Example:
        >>> networks = TableNetworks(
        ...     hidden_dim=8,
        ...     observed=("x", "a"),
        ...     shared=("z",),
        ...     private=(("u_x", "x"),),
        ...     dims=(("z", 2), ("u_x", 3)),
        ...     generative="z -> x, a; u_x -> x",
        ...     inference="x, a -> z; x -> u_x",
        ...     num_features=5,
        ... )
        >>> {name: tuple(view.shape) for name, view in networks.model()(size=4).items()}
        {'x': (4, 5), 'a': (4, 2)}
    """

    num_features: Annotated[int, AtLeast(1), NoFlag()] = 1
    """Number of features, as columns of numbers."""
    feature_scale: Positive = 0.1
    """Standard deviation of a feature about its decoder's mean; the columns themselves have variance 1, or are zeros and ones."""

    def kind(self, view: str) -> ViewKind:
        require_names([view], self.observed, "view")
        return "features" if view == "x" else "class"

    def shape(self, view: str) -> tuple[int, ...]:
        return (self.num_features,) if view == "x" else (2,)

    def decoder(self, view: str, width: int) -> nn.Module:
        if self.kind(view) == "features":
            return FeatureDecoder(width, self.hidden_dim, self.num_features, self.feature_scale)
        return super().decoder(view, width)


@dataclasses.dataclass(frozen=True)
class EnvironmentNetworks(StructuredNetworks):
    """The networks of labeled images from several environments: an image "x", a class "y" and the environment "e".

    Example:
        >>> networks = EnvironmentNetworks(
        ...     hidden_dim=8,
        ...     observed=("x", "y", "e"),
        ...     shared=("z",),
        ...     private=(("u", "x"),),
        ...     dims=(("z", 4), ("u", 3)),
        ...     generative="z -> x, y; u -> x",
        ...     inference="x, y, e -> z; x -> u",
        ... )
        >>> {name: tuple(view.shape) for name, view in networks.model()(size=5).items()}
        {'x': (5, 2, 14, 14), 'y': (5, 2), 'e': (5, 2)}
    """

    x_shape: Annotated[tuple[Count, Count, Count], NoFlag()] = (2, 14, 14)
    """Channels, height and width of an image."""
    num_classes: Annotated[int, AtLeast(2), NoFlag()] = 2
    """Number of classes."""
    num_environments: Annotated[int, AtLeast(1), NoFlag()] = 2
    """Number of environments in training."""
    dropout: Annotated[float, AtLeast(0), Below(1)] = 0.3
    """Share of an image's pixels that its encoder does not see in training: it then learns fewer labels by heart, which would
    also meet a penalty on what environments add to predictions."""

    def kind(self, view: str) -> ViewKind:
        return "image" if view == "x" else "class"

    def shape(self, view: str) -> tuple[int, ...]:
        return {"x": self.x_shape, "y": (self.num_classes,), "e": (self.num_environments,)}[view]

    def unseen_share(self, view: str) -> float:
        return self.dropout if view == "x" else 0.0

    def decoder(self, view: str, width: int) -> nn.Module:
        if view == "y":  # all that prediction needs beyond z is an affine map
            require_count(width, "width")
            return LinearClassDecoder(width, self.num_classes)
        return super().decoder(view, width)


@dataclasses.dataclass(frozen=True)
class LearnedMaskNetworks(StructuredNetworks):
    """The networks of views whose masks M^p and M^q can be learned: vectors of numbers, or images, and environments.

    Example:
        >>> networks = LearnedMaskNetworks(
        ...     hidden_dim=8,
        ...     observed=("x1", "x2", "e"),
        ...     shared=("z1", "z2"),
        ...     private=(),
        ...     dims=(("z1", 1), ("z2", 1)),
        ...     generative="z1, z2 -> x1, x2, e",
        ...     inference="x1, x2, e -> z1, z2",
        ...     num_features=4,
        ...     known="z1 -> x1",
        ... )
        >>> model = networks.model()
        >>> {name: tuple(view.shape) for name, view in model(size=5).items()}
        {'x1': (5, 4), 'x2': (5, 4), 'e': (5, 2)}
        >>> model.mask.probabilities()[0, 0].item()
        1.0
    """

    learned: Annotated[bool, NoFlag()] = True
    """Whether the masks are learned; if not they are those of G^p and G^q."""
    known: Annotated[str, NoFlag()] = ""
    """Edges from latents to views that are known to be there, as a network; likewise from these views to the latents in G^q."""
    absent: Annotated[str, NoFlag()] = ""
    """Edges that are known not to be there."""
    initial: Annotated[float, Above(0), Below(1)] = 0.95
    """Initial probability of an edge that is learned."""
    temperature: Positive = 0.5
    """Temperature of the relaxed Bernoulli distribution from which learned masks are drawn."""
    num_features: Annotated[int, AtLeast(0), NoFlag()] = 0
    """Numbers in a view; 0 for images."""
    feature_scale: Positive = 0.3
    """Standard deviation of a view's numbers about its decoder's means."""
    x_shape: Annotated[tuple[Count, Count, Count], NoFlag()] = (1, 8, 16)
    """Channels, height and width of an image."""
    num_environments: Annotated[int, AtLeast(1), NoFlag()] = 2
    """Number of environments, which are the view "e"."""

    def kind(self, view: str) -> ViewKind:
        if view == "e":
            return "class"
        return "features" if self.num_features else "image"

    def shape(self, view: str) -> tuple[int, ...]:
        if view == "e":
            return (self.num_environments,)
        return (self.num_features,) if self.num_features else self.x_shape

    def decoder(self, view: str, width: int) -> nn.Module:
        if self.kind(view) == "features":
            return FeatureDecoder(width, self.hidden_dim, self.num_features, self.feature_scale)
        return super().decoder(view, width)

    def mask(self, program: Literal["model", "guide"]) -> RelaxedMask | None:
        if not self.learned:
            return None
        known, absent = (self.network(text).generative_mask().bool() for text in (self.known, self.absent))
        site, shape = {"model": "m_p", "guide": "m_q"}[program], (len(self.observed), len(self.shared))
        return RelaxedMask(site, shape, self.initial, self.temperature, program, known, absent)
