r"""The guide of the multivariate-information-bottleneck framework: the posterior of a latent is a product of the views' experts.

.. math:: q(z_j \mid x_S) \propto p(z_j) \prod_{i \in S} \tilde q(z_j \mid x_i)^{m_{ij}^q}, \qquad q(u_i \mid x_i) \propto
    p(u_i)\, \tilde q(u_i \mid x_i)

One encoder for each view serves all subsets of the views: an absent view takes no part, and without any view the posterior is the
prior.

Source: Zhang, Koyama and Ishiguro (2020), eqs. 4, 12 and 13. The experts are the quotients of q(z | x_i) and p(z), so q(z | x_i)
itself is the product of the prior and one expert; eq. 13's sigma is a variance, and the factor of its mean is sigma, not
1 / sigma. The paper has a network give the expert; ours give q(z | x_i), and the expert follows (see :class:`Quotient`).
"""

import functools
import math
from collections.abc import Collection, Mapping, Sequence

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import require_count, require_floating, require_kind, require_same_type, require_shape
from pyzoo.distributions import WeightedProductOfExperts
from pyzoo.infer import BayesianNetwork, Beliefs, FixedMask, Variables, analytic
from pyzoo.infer.masks import both
from pyzoo.models.mib import StructuredNetworks, check_complete, those_given, view_dim, without_absent
from pyzoo.nn import Head, ImageCheck, ShapeCheck, he_initialized, scale_from_log_variance

__all__ = ["Quotient", "StructuredGuide", "encoder", "view_guide"]

Experts = Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]
"""By the view's name the means and standard deviations of its experts, (batch, features), by the latent's name."""


class StructuredGuide(PyroModule):
    """The inference story, for any networks; the sites have the names of the variables.

    Args:
        network: G^q, from views to the shared latents that are inferred from them, and from each view to its private latents.
        dims: dimensions of each latent, by name.
        encoders: for each view, by name, the network from the view to its experts, (rows, 2 features): means and log-variances,
            side by side, of all shared latents in the order of the variables and then of its private ones.
        mask: a module that gives M^q, (views, shared latents); by default the mask of ``network``, fixed.

    Raises:
        ValueError: an edge is not one from a view to a latent, no view leads to a latent, a latent's dimensions or a view's
            encoder are missing, or a variable has a reserved name; names the variable.

    Example:
        >>> from pyzoo.infer import Variables
        >>> names = Variables(("x", "y"), shared=("z",), private={"u": "x"})
        >>> network = BayesianNetwork.parse("x, y -> z; x -> u", names)
        >>> guide = StructuredGuide(network, {"z": 2, "u": 1}, {"x": torch.nn.Linear(20, 6), "y": torch.nn.Linear(5, 4)})
        >>> guide.posteriors({"y": torch.zeros(3, 5)})["u"].stddev.flatten()  # without its view, u has its prior
        tensor([1., 1., 1.])
    """

    def __init__(
        self,
        network: BayesianNetwork,
        dims: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        mask: nn.Module | None = None,
    ) -> None:
        super().__init__("guide")
        require_kind(network, "network", BayesianNetwork)
        _check_inference(network)
        check_complete(network.variables, dims, encoders, "encoder")
        self.network = network
        self.variables: Variables = network.variables
        self.dims: dict[str, int] = dict(dims)
        self.encoders: nn.ModuleDict = nn.ModuleDict({view: encoders[view] for view in self.variables.observed})
        self.mask: nn.Module = FixedMask(network.inference_mask()) if mask is None else mask

    def forward(
        self,
        present: Tensor | None = None,
        size: int = 1,
        conditioned_on: Tensor | None = None,
        scored: Tensor | None = None,
        **views: Tensor | None,
    ) -> Beliefs:
        """Draws each latent given the views; returns what it infers, for penalties.

        Args:
            present: which views each row has, (batch, views), boolean; all that are given by default.
            size: used by the model only.
            conditioned_on: which of its views a row's shared latents are conditioned on, (batch, views), boolean; all by default.
                The guide is then one of several inference networks. What it returns is still inferred from all views.
            scored: which of its views the model explains, (batch, views), boolean; all by default. A private latent is
                conditioned on its view if that is among them.
            **views: the observed views by name, each with the batch as its first dimension, or None.
        """
        given = those_given(views)
        rows = self.variables.batch_size(given)
        for mask in (present, conditioned_on, scored):
            self.variables.check_mask(mask, rows)
        edges = self.mask()
        experts = self._experts(given, present)  # once, for all subsets of the views that penalties ask for
        whole = conditioned_on is None and scored is None
        posteriors = self._products(rows, experts, edges, given, both(present, conditioned_on), both(present, scored))
        draws = {}
        with pyro.plate("data", rows):
            for name, q in posteriors.items():
                draws[name] = pyro.sample(name, q.to_event(1), infer=analytic)  # priors depend on nothing
        return _ViewBeliefs(self, rows, experts, edges, present, given, (posteriors, draws) if whole else None)

    def posteriors(
        self, views: Mapping[str, Tensor | None], present: Tensor | None = None, subset: Collection[str] | None = None
    ) -> dict[str, WeightedProductOfExperts]:
        """The posterior of each latent by name, over (batch, features), given views.

        Args:
            views: by name, each with the batch as its first dimension.
            present: which views each row has, (batch, views), boolean; all that are given by default.
            subset: names of the views to condition on; all by default. The others take no part.

        Raises:
            ValueError: no view is given, a name is no view, views differ in their number of rows, or ``present`` is not boolean
                and of the views of each row.
        """
        self.variables.check_views(subset or ())
        given = those_given(views)
        rows = self.variables.batch_size(given)
        self.variables.check_mask(present, rows)
        names = given if subset is None else [name for name in given if name in subset]
        return self._products(rows, self._experts(given, present), self.mask(), names, present, present)

    def _products(
        self,
        rows: int,
        experts: Experts,
        edges: Tensor,
        names: Collection[str],
        shared_from: Tensor | None,
        private_from: Tensor | None,
    ) -> dict[str, WeightedProductOfExperts]:
        """The posterior of each latent.

        Args:
            rows: how many.
            experts: of the views that are given.
            edges: M^q, (views, shared latents).
            names: the views that take part. The others are left out here rather than by a mask, so that their encoders are not
                trained, by gradients of zeros, for nothing.
            shared_from: which of these a row's shared latents are conditioned on, (batch, views); all by default.
            private_from: which of these have their private latents conditioned on them, (batch, views); all by default.
        """

        observed = self.variables.observed
        like = next((loc for of_view in experts.values() for loc, _ in of_view.values()), next(self.parameters()))

        def product(
            latent: str, views: Sequence[int], present: Tensor | None, weights: Tensor | None = None
        ) -> WeightedProductOfExperts:
            if not views:
                nothing = like.new_zeros(rows, 0, self.dims[latent])
                return WeightedProductOfExperts(nothing, nothing)
            loc, scale = (torch.stack([experts[observed[i]][latent][part] for i in views], dim=1) for part in (0, 1))
            return WeightedProductOfExperts(loc, scale, weights, present if present is None else present[:, views])

        taking_part = [i for i, view in enumerate(observed) if view in names]
        found = {}
        for j, latent in enumerate(self.variables.shared):
            found[latent] = product(latent, taking_part, shared_from, edges[taking_part, j, None])
        for latent, owner in self.variables.private.items():
            found[latent] = product(latent, [i for i in taking_part if observed[i] == owner], private_from)
        return found

    def _experts(self, views: Mapping[str, Tensor], present: Tensor | None) -> Experts:
        """The experts of the views that are given."""
        return {
            name: self._expert(name, views[name], None if present is None else present[:, i])
            for i, name in enumerate(self.variables.observed)
            if name in views
        }

    def _expert(self, name: str, view: Tensor, present: Tensor | None) -> dict[str, tuple[Tensor, Tensor]]:
        """The experts of one view for each of its latents: mean and standard deviation, (batch, features)."""
        latents = [*self.variables.shared, *self.variables.private_of(name)]
        sizes = [self.dims[latent] for latent in latents]
        require_same_type(view, f"the view '{name}'", self.encoders[name])
        experts = self.encoders[name](view if present is None else without_absent(view, present))
        require_shape(experts, f"what the encoder of '{name}' gives", ("batch", 2 * sum(sizes)), batch=len(view))
        loc, log_variance = experts.chunk(2, dim=-1)
        scale = scale_from_log_variance(log_variance)
        return dict(zip(latents, zip(loc.split(sizes, -1), scale.split(sizes, -1), strict=True), strict=True))


class _ViewBeliefs(Beliefs):
    """What a :class:`StructuredGuide` infers: posteriors given any set of views, computed when they are asked for.

    Args:
        guide: whose beliefs these are.
        rows: how many examples.
        experts: of the views that are given.
        edges: M^q, (views, shared latents).
        present: which views each row has, (batch, views); all that are given by default.
        views: those that are given, by name.
        whole: posteriors given all views and draws from these, if the guide has made them; else they are made when asked for.
    """

    def __init__(
        self, guide: StructuredGuide, rows: int, experts: Experts, edges: Tensor, present: Tensor | None, views, whole
    ) -> None:
        super().__init__({}, views=views)
        self._guide, self._rows, self._experts, self._edges, self._present = guide, rows, experts, edges, present
        if whole is not None:
            self._whole, self._draws = whole

    @functools.cached_property
    def _whole(self) -> Mapping[str, WeightedProductOfExperts]:
        return self._products(self.views)

    @functools.cached_property
    def draws(self) -> Mapping[str, Tensor]:
        return self._draws or {name: q.rsample() for name, q in self._whole.items()}

    @property
    def rows(self) -> int:
        return self._rows

    def given(self, names: Collection[str] | None) -> Mapping[str, WeightedProductOfExperts]:
        if names is None:
            return self._whole
        self._guide.variables.check_views(names)
        return self._products([name for name in self.views if name in names])

    def complete(self, names: Collection[str]) -> Tensor | None:
        self._guide.variables.check_views(names)
        if any(name not in self.views for name in names):
            return torch.zeros(self._rows, dtype=torch.bool, device=self._edges.device)
        if self._present is None:
            return None
        return self._present[:, [self._guide.variables.observed.index(name) for name in names]].all(1)

    def _products(self, names: Collection[str]) -> dict[str, WeightedProductOfExperts]:
        return self._guide._products(self._rows, self._experts, self._edges, names, self._present, self._present)


# Encoders -------------------------------------------------------------------------------------------------------------


def view_guide(networks: StructuredNetworks) -> StructuredGuide:
    """The guide of the model that some sizes describe."""
    names, dims = networks.variables, dict(networks.dims)
    encoders = {view: encoder(networks, view, view_dim(names, dims, view)) for view in names.observed}
    return StructuredGuide(networks.network(networks.inference), dims, encoders, networks.mask("guide"))


def encoder(networks: StructuredNetworks, view: str, width: int) -> nn.Module:
    """From a view to the means and log-variances of its experts, (rows, 2 width).

    Args:
        networks: sizes of the networks.
        view: its name.
        width: dimensions of the view's latents together.
    """
    require_count(width, "width")
    hidden_dim, kind, shape = networks.hidden_dim, networks.kind(view), networks.shape(view)
    if kind == "number":
        layers: list[nn.Module] = [ShapeCheck(shape), nn.Conv2d(3, 16, 4, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(1024, hidden_dim), nn.ReLU()]
    elif kind == "image":
        layers = [ImageCheck(shape), nn.Flatten(), nn.Linear(math.prod(shape), hidden_dim), nn.ReLU()]
        if unseen := networks.unseen_share(view):
            layers.insert(1, nn.Dropout(unseen))
        layers += [nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
    else:
        layers = [ShapeCheck(shape), nn.Linear(*shape, hidden_dim), nn.ReLU()]
    return he_initialized(nn.Sequential(*layers, Head(nn.Linear(hidden_dim, 2 * width)), Quotient()))


class Quotient(nn.Module):
    r"""From m and v, side by side, to the mean and log-variance of the expert that makes q(z | x_i) = N(m, sigmoid(v')).

    .. math:: \tilde q = \frac{q(z \mid x_i)}{p(z)} = N\bigl(m (1 + e^{v'}),\ e^{v'}\bigr)

    If a network gave the expert's own mean, its gradient would be in proportion to the expert's precision: an expert whose
    precision has once become small would hardly learn any more. The mean m of q(z | x_i) keeps its gradient. For the same reason
    v' is v, smoothly kept below 4: the expert's precision stays above 0.018.

    Example:
        >>> loc, log_variance = Quotient()(torch.tensor([[2.0, -1.0]])).chunk(2, dim=-1)
        >>> variance = log_variance.exp() / (1 + log_variance.exp())  # of the product with N(0, 1)
        >>> (variance / log_variance.exp() * loc).round(decimals=4)
        tensor([[2.]])
    """

    def forward(self, parameters: Tensor) -> Tensor:
        require_floating(parameters, "parameters")
        if not parameters.dim() or parameters.shape[-1] % 2:
            raise ValueError(f"parameters must be (..., 2 * features), got {tuple(parameters.shape)}.")
        mean, v = parameters.chunk(2, dim=-1)
        log_variance = 4 - nn.functional.softplus(4 - v)
        return torch.cat([mean * (1 + log_variance.exp()), log_variance], dim=-1)


def _check_inference(network: BayesianNetwork) -> None:
    names = network.variables
    for parent, child in network.edges:
        if parent in names.latents or child in names.observed:
            raise ValueError(f"An inference network leads from views to latents, not from '{parent}' to '{child}'.")
        if names.private.get(child, parent) != parent:
            raise ValueError(f"The private latent '{child}' belongs to '{names.private[child]}', not to '{parent}'.")
    for latent in names.latents:
        if not network.parents(latent):
            raise ValueError(f"No view leads to the latent '{latent}'.")
