r"""The generative model of the multivariate-information-bottleneck framework: several views, shared and private latents.

.. math:: p(x, z, u) = \prod_{j=1}^{M} p(z_j) \prod_{i=1}^{N} p(u_i)\, p(x_i \mid z \odot m_i^p, u_i)

Which shared latent reaches which view is a Bayesian network over named variables, or its mask M^p. The decoder of a view hears
all shared latents, those that are no parents of it times zero, and its own private ones.

Source: Zhang, Koyama and Ishiguro (2020), "Learning Structured Latent Factors from Dependent Data", eq. 3 and section 3.4. Sizes
of networks were in an appendix that our copy lacks. Ours for digits are of the usual kind: two hidden layers, one for labels, and
three convolutions and a layer to encode coloured images of 32x32. But these are decoded as ink over what is behind it: shape and
colours then are learned apart, and numbers become legible sooner than with transposed convolutions (RESULTS.md).
"""

from collections.abc import Iterable, Mapping, Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.infer import BayesianNetwork, Variables
from pyzoo.nn import he_initialised

__all__ = ["VIEWS", "StructuredVAE", "batch_size", "check_complete", "check_rows", "check_views", "private_of", "structured_vae"]
__all__ += ["those_given", "view_dim", "without_absent"]


class StructuredVAE(PyroModule):
    """The generative story, for any networks; sites have the variables' names.

    Args:
        network: G^p, from each shared latent to the views that it reaches, and from each private latent to its view.
        dims: dimensions of each latent, by name.
        decoders: for each view, by name, the network from its latents side by side, (rows, features), to a distribution over one
            view for each row: all shared latents in the variables' order, then its private ones.

    Raises:
        ValueError: an edge leads elsewhere, a latent reaches no view, a latent's dimensions or a view's decoder are missing, or a
            variable has a name that is taken; names the variable.

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

    def __init__(self, network: BayesianNetwork, dims: Mapping[str, int], decoders: Mapping[str, nn.Module]) -> None:
        super().__init__("model")
        _check_generative(network)
        check_complete(network.variables, dims, decoders, "decoder")
        self.network = network
        self.variables = network.variables
        self.dims = dict(dims)
        self.decoders = nn.ModuleDict({view: decoders[view] for view in self.variables.observed})
        self.register_buffer("mask", network.generative_mask())

    def forward(
        self,
        present: Tensor | None = None,
        size: int = 1,
        heard: Tensor | None = None,
        scored: Tensor | None = None,
        **views: Tensor | None,
    ) -> dict[str, Tensor]:
        """Draws the latents, then the views; returns the views by name.

        A view that is not given is drawn. If others are given it scores nothing, which integrates it out.

        Args:
            present: which views each row has, (batch, views), boolean; all by default. Where one is absent it may hold anything;
                zeros, which the likelihood must be able to take, stand in its place.
            size: how many to draw if no view is given.
            heard: not used; the guide's.
            scored: which of its views a row is to explain, (batch, views), boolean; all by default. The others score nothing.
            **views: the observed views by name, each with the batch as its first dimension, or None.
        """
        given = those_given(views)
        rows = batch_size(self.variables, given) if given else size
        for mask in (present, scored):
            check_rows(self.variables, mask, rows)
        if scored is not None:
            present = scored if present is None else present & scored
        with pyro.plate("data", rows):
            latents = {name: self._draw(name, rows) for name in self.variables.latents}
            drawn = {}
            for index, name in enumerate(self.variables.observed):
                likelihood, view = self.likelihood(name, latents), given.get(name)
                if view is not None and present is not None:
                    likelihood, view = likelihood.mask(present[:, index]), without_absent(view, present[:, index])
                elif view is None and given:
                    likelihood = likelihood.mask(False)
                drawn[name] = pyro.sample(name, likelihood, obs=view)
        return drawn

    def likelihood(self, view: str, latents: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """p(view | latents), one row for each of theirs; latents by name, (rows, features)."""
        row = self.mask[self.variables.observed.index(view)]
        shared = [latents[z] * row[j] for j, z in enumerate(self.variables.shared)]
        return self.decoders[view](torch.cat([*shared, *(latents[u] for u in private_of(self.variables, view))], dim=-1))

    def _draw(self, name: str, rows: int) -> Tensor:
        """A latent from N(0, I)."""
        return pyro.sample(name, dist.Normal(self.mask.new_zeros(rows, self.dims[name]), 1.0).to_event(1))


# Views of digits ------------------------------------------------------------------------------------------------------

VIEWS = ("digit", "next", "label", "number")


def structured_vae(
    network: BayesianNetwork, dims: Mapping[str, int], hidden_dim: int = 512, number_scale: float = 0.1
) -> StructuredVAE:
    """The model of views of digits: "digit" and "next", images of 28x28; "label", a class; "number", a coloured image of 32x32.

    Args:
        network: G^p over some of these views.
        dims: dimensions of each latent, by name.
        hidden_dim: hidden units of a layer.
        number_scale: standard deviation of a coloured pixel, on the scale from 0 to 1.

    Raises:
        ValueError: there is no such view, or as :class:`StructuredVAE`; names the variable.

    Example:
        >>> names = Variables(("digit", "label"), shared=("z",))
        >>> model = structured_vae(BayesianNetwork.parse("z -> digit, label", names), {"z": 4}, hidden_dim=8)
        >>> {name: tuple(view.shape) for name, view in model(size=3).items()}
        {'digit': (3, 1, 28, 28), 'label': (3, 10)}
    """
    check_views(network.variables.observed, VIEWS)
    decoders = {}
    for view in network.variables.observed:
        width = view_dim(network.variables, dims, view)
        if view == "number":
            decoders[view] = _NumberDecoder(width, hidden_dim, number_scale)
        else:
            decoders[view] = _LabelDecoder(width, hidden_dim) if view == "label" else _PixelDecoder(width, hidden_dim)
    return StructuredVAE(network, dims, decoders)


def view_dim(variables: Variables, dims: Mapping[str, int], view: str) -> int:
    """Dimensions of a view's latents: all shared ones, and its own."""
    return sum(dims[latent] for latent in (*variables.shared, *private_of(variables, view)))


class _PixelDecoder(nn.Sequential):
    """Grey pixels, (1, 28, 28); their cross-entropy is the mean of log p over binarisations of the image."""

    def __init__(self, width: int, hidden_dim: int) -> None:
        layers = [nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden_dim, 784), nn.Unflatten(1, (1, 28, 28)))
        he_initialised(self)

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        return dist.Bernoulli(logits=super().forward(latents), validate_args=False).to_event(3)


class _LabelDecoder(nn.Sequential):
    """One of ten classes."""

    def __init__(self, width: int, hidden_dim: int) -> None:
        super().__init__(nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 10))
        he_initialised(self)

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        return dist.OneHotCategorical(logits=super().forward(latents), validate_args=False)


class _NumberDecoder(nn.Sequential):
    """Coloured pixels, (3, 32, 32), normal about a mean of 0 to 1: ink of one colour, more or less of it, over what is behind."""

    _SIZES = (3 * 32 * 32, 32 * 32, 3)  # behind, how much ink, its colour

    def __init__(self, width: int, hidden_dim: int, scale: float) -> None:
        layers = [nn.Linear(width, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden_dim, sum(self._SIZES)), nn.Sigmoid())
        he_initialised(self)
        self.scale = scale

    def forward(self, latents: Tensor) -> dist.TorchDistribution:
        behind, ink, colour = super().forward(latents).split(self._SIZES, dim=1)
        behind, ink, colour = behind.view(-1, 3, 32, 32), ink.view(-1, 1, 32, 32), colour.view(-1, 3, 1, 1)
        return dist.Normal(torch.lerp(behind, colour, ink), self.scale, validate_args=False).to_event(3)


# What model and guide share -------------------------------------------------------------------------------------------

_TAKEN = ("self", "present", "size", "heard", "scored", "drawn", "data")  # arguments, and the plate


def private_of(variables: Variables, view: str) -> list[str]:
    """The private latents of a view."""
    return [latent for latent, owner in variables.private.items() if owner == view]


def without_absent(view: Tensor, present: Tensor) -> Tensor:
    """A view with zeros in its absent rows: what stands there must not reach a gradient, not even times zero."""
    return torch.where(present.view(-1, *(1,) * (view.dim() - 1)), view, torch.zeros_like(view))


def those_given(views: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """The views that are not None."""
    return {name: view for name, view in views.items() if view is not None}


def batch_size(variables: Variables, views: Mapping[str, Tensor]) -> int:
    """The number of rows of the given views.

    Raises:
        ValueError: a name is no view, none is given, or they have different numbers of rows; names them.
    """
    check_views(views, variables.observed)
    if not views:
        raise ValueError(f"A batch needs one of the views {', '.join(variables.observed)}.")
    sizes = {name: len(view) for name, view in views.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"Views must have as many rows as each other, got {', '.join(f'{n} {s}' for n, s in sizes.items())}.")
    return next(iter(sizes.values()))


def check_views(asked: Iterable[str], known: Sequence[str]) -> None:
    """Raises a ValueError that names a view which is asked for and not known."""
    for name in asked:
        if name not in known:
            raise ValueError(f"There is no view '{name}': there are {', '.join(known)}.")


def check_rows(variables: Variables, mask: Tensor | None, rows: int) -> None:
    """Raises a ValueError unless a mask of the views of each row is boolean and of their number."""
    shape = (rows, len(variables.observed))
    if mask is not None and (mask.dtype != torch.bool or tuple(mask.shape) != shape):
        wanted = f"boolean, {rows} rows x {shape[1]} views ({', '.join(variables.observed)})"
        raise ValueError(f"What says of each row which views it has must be {wanted}, not {tuple(mask.shape)} of {mask.dtype}.")


def check_complete(variables: Variables, dims: Mapping[str, int], networks: Mapping[str, nn.Module], what: str) -> None:
    """Raises a ValueError that names a latent without dimensions, a view without its network, or one whose name is taken."""
    for name in variables.names:
        if name in _TAKEN or "." in name or (name in variables.observed and hasattr(nn.ModuleDict(), name)):
            raise ValueError(f"No variable can be called '{name}', which means something else to a model, its guide or to torch.")
    for latent in variables.latents:
        if dims.get(latent, 0) < 1:
            raise ValueError(f"The latent '{latent}' needs one or more dimensions, got {dims.get(latent)}.")
    for view in variables.observed:
        if view not in networks:
            raise ValueError(f"The view '{view}' has no {what}.")


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
