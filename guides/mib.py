r"""The guide of the multivariate-information-bottleneck framework: each latent's belief is a product of the views' experts.

.. math:: q(z_j \mid x_S) \propto p(z_j) \prod_{i \in S} \tilde q(z_j \mid x_i)^{m_{ij}^q}, \qquad q(u_i \mid x_i) \propto
    p(u_i)\, \tilde q(u_i \mid x_i)

One encoder for each view serves all subsets of the views: an absent one takes no part, and without any the belief is the prior.

Source: Zhang, Koyama and Ishiguro (2020), eqs. 4, 12 and 13. The experts are the quotients of q(z | x_i) and p(z), so q(z | x_i)
itself is the product of the prior and one expert; eq. 13's sigma is a variance. The paper has a network give the expert; ours
give q(z | x_i), and the expert follows (see :class:`Quotient`).
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.distributions import WeightedProductOfExperts
from pyzoo.infer import BayesianNetwork, Beliefs, Penalty
from pyzoo.models.mib import (
    VIEWS,
    StructuredVAE,
    batch_size,
    check_complete,
    check_rows,
    check_views,
    private_of,
    those_given,
    view_dim,
    without_absent,
)
from pyzoo.nn import he_initialised, scale_from_log_variance

__all__ = ["Quotient", "StructuredGuide", "structured_guide"]


class StructuredGuide(PyroModule):
    """The inference story, for any networks; sites have the variables' names.

    Args:
        network: G^q, from views to the shared latents that they tell of, and from each view to its private latents.
        dims: dimensions of each latent, by name.
        encoders: for each view, by name, the network from the view to its experts, (rows, 2 features): means and log-variances,
            side by side, of all shared latents in the variables' order and then of its private ones.
        penalties: wishes about the latents; their terms are factors.
        dataset_size: number of training examples, for penalties that estimate an aggregate posterior.
        estimators: networks of penalties' terms that have one, by the term as printed: a :class:`pyzoo.infer.MINE` for each that
            is estimated so. No gradient of the penalty reaches them: they want an objective of their own.
        model: whose guide this is, for penalties that ask what a decoder makes of latents.

    Raises:
        ValueError: an edge leads elsewhere, no view tells of a latent, a latent's dimensions or a view's encoder are missing, or
            a variable has a name that is taken; names the variable. Or a penalty is of another network, or two have one name.

    Example:
        >>> from pyzoo.infer import Variables
        >>> names = Variables(("x", "y"), shared=("z",), private={"u": "x"})
        >>> network = BayesianNetwork.parse("x, y -> z; x -> u", names)
        >>> guide = StructuredGuide(network, {"z": 2, "u": 1}, {"x": torch.nn.Linear(20, 6), "y": torch.nn.Linear(5, 4)})
        >>> guide.posteriors({"y": torch.zeros(3, 5)})["u"].stddev.flatten()  # y says nothing of u
        tensor([1., 1., 1.])
    """

    def __init__(
        self,
        network: BayesianNetwork,
        dims: Mapping[str, int],
        encoders: Mapping[str, nn.Module],
        penalties: Sequence[Penalty] = (),
        dataset_size: int | None = None,
        estimators: Mapping[str, nn.Module] | None = None,
        model: StructuredVAE | None = None,
    ) -> None:
        super().__init__("guide")
        _check_inference(network)
        check_complete(network.variables, dims, encoders, "encoder")
        _check_penalties(network, penalties)
        self.network = network
        self.variables = network.variables
        self.dims = dict(dims)
        self.encoders = nn.ModuleDict({view: encoders[view] for view in self.variables.observed})
        self.register_buffer("mask", network.inference_mask())
        self.penalties = list(penalties)
        self.dataset_size = dataset_size
        self.estimators = nn.ModuleDict(estimators or {})
        self._model = (model,)  # in a tuple, which hides its parameters: they are not the guide's

    def forward(
        self,
        present: Tensor | None = None,
        size: int = 1,
        heard: Tensor | None = None,
        scored: Tensor | None = None,
        **views: Tensor | None,
    ) -> None:
        """Draws each latent given the views.

        Args:
            present: which views each row has, (batch, views), boolean; all that are given by default.
            size: not used; the model's.
            heard: which of its views a row's shared latents are told by, (batch, views), boolean; all by default. It is one of
                several inference networks, then; the wishes are of the one that hears all.
            scored: which of its views a row is to explain, (batch, views), boolean; all by default. Private latents are told by
                their own view if it is among them.
            **views: the observed views by name, each with the batch as its first dimension, or None.
        """
        given = those_given(views)
        rows, draws = batch_size(self.variables, given), {}
        present = self._present(given, present, rows)
        for mask in (heard, scored):
            check_rows(self.variables, mask, rows)
        experts = self._experts(given, present)  # once, for all subsets that penalties ask for
        told = self._products(experts, *(present if part is None else present & part for part in (heard, scored)))
        with pyro.plate("data", rows):
            for name, q in told.items():
                draws[name] = pyro.sample(name, q.to_event(1), infer={"kl": "analytic"})  # priors depend on nothing
        if not self.penalties:
            return
        whole = told
        if heard is not None or scored is not None:
            whole = self._products(experts, present)
            draws = {name: q.rsample() for name, q in whole.items()}
        networks = {term: partial(_frozen, network) for term, network in self.estimators.items()}
        beliefs = Beliefs(
            draws,
            lambda names: whole if names is None else self._products(experts, present & self._among(names)),
            self.dataset_size,
            networks,
            lambda names: (present | ~self._among(names)).all(1),
            partial(self._likelihood, given, draws, present),
        )
        for penalty in self.penalties:
            for name, value in penalty.values(beliefs).items():
                # Pyro sums over the batch; and a guide's factor is subtracted from the ELBO, so that it adds to the loss.
                pyro.factor(name, rows * value, has_rsample=True)

    def without_penalties(self) -> "StructuredGuide":
        """A guide with the same networks and no wishes, which are no part of a bound."""
        return StructuredGuide(self.network, self.dims, self.encoders).to(self.mask.device).train(self.training)

    def posteriors(
        self, views: Mapping[str, Tensor | None], present: Tensor | None = None, subset: Collection[str] | None = None
    ) -> dict[str, WeightedProductOfExperts]:
        """The belief about each latent by name, (batch, features), given the views.

        Args:
            views: by name, each with the batch as its first dimension.
            present: which views each row has, (batch, views), boolean; all that are given by default.
            subset: names of the views to believe; all by default. The others take no part.

        Raises:
            ValueError: no view is given, a name is no view, views differ in their number of rows, or ``present`` is not boolean
                and of the views of each row.
        """
        check_views(subset or (), self.variables.observed)
        views = those_given(views)
        present = self._present(views, present, batch_size(self.variables, views))
        experts = self._experts(views, present)
        return self._products(experts, present if subset is None else present & self._among(subset))

    def _likelihood(
        self, views: Mapping[str, Tensor], draws: Mapping[str, Tensor], present: Tensor, view: str, latents: Collection[str]
    ) -> tuple[TorchDistribution, Tensor]:
        """p(view | latents) of the model, and the view; the model hears the latents in its network, which must be these."""
        (model,) = self._model
        if model is None or set(latents) != set(model.network.parents(view)):
            why = "the guide knows no model" if model is None else f"its parents are {', '.join(model.network.parents(view))}"
            raise ValueError(f"There is no likelihood of '{view}' given {', '.join(sorted(latents))}: {why}.")
        p = model.likelihood(view, draws)
        x = views[view] if view in views else p.mean.detach()  # of rows that don't count
        return p, without_absent(x, present[:, self.variables.observed.index(view)])

    def _present(self, views: Collection[str], present: Tensor | None, rows: int) -> Tensor:
        """Which views each row has, (batch, views): of those that are given."""
        check_rows(self.variables, present, rows)
        given = self._among(views)
        return given.expand(rows, -1) if present is None else present & given

    def _among(self, names: Collection[str]) -> Tensor:
        """Which views are named, (views,)."""
        return torch.tensor([name in names for name in self.variables.observed], device=self.mask.device)

    def _products(
        self,
        experts: Sequence[Mapping[str, tuple[Tensor, Tensor]]],
        heard: Tensor,
        own: Tensor | None = None,
    ) -> dict[str, WeightedProductOfExperts]:
        """Each latent's belief: a shared one's by the experts of ``heard`` views, a private one's by its own if in ``own``."""
        own = heard if own is None else own
        found = {}
        for j, name in enumerate(self.variables.shared):
            loc, scale = (torch.stack([expert[name][part] for expert in experts], dim=1) for part in (0, 1))
            found[name] = WeightedProductOfExperts(loc, scale, self.mask[:, j, None], heard)
        for name, owner in self.variables.private.items():
            i = self.variables.observed.index(owner)
            loc, scale = (part.unsqueeze(1) for part in experts[i][name])
            found[name] = WeightedProductOfExperts(loc, scale, present=own[:, i : i + 1])
        return found

    def _experts(self, views: Mapping[str, Tensor], present: Tensor) -> list[dict[str, tuple[Tensor, Tensor]]]:
        """For each view what it says of its latents."""
        return [self._expert(name, views.get(name), present[:, i]) for i, name in enumerate(self.variables.observed)]

    def _expert(self, name: str, view: Tensor | None, present: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What a view says of each of its latents: mean and standard deviation, (batch, features)."""
        latents = [*self.variables.shared, *private_of(self.variables, name)]
        sizes = [self.dims[latent] for latent in latents]
        if view is None:
            nothing = self.mask.new_zeros(len(present), sum(sizes))
            loc, scale = nothing, nothing + 1
        else:
            loc, log_variance = self.encoders[name](without_absent(view, present)).chunk(2, dim=-1)
            scale = scale_from_log_variance(log_variance)
        return dict(zip(latents, zip(loc.split(sizes, -1), scale.split(sizes, -1), strict=True), strict=True))


# Views of digits ------------------------------------------------------------------------------------------------------


def structured_guide(
    network: BayesianNetwork, dims: Mapping[str, int], hidden_dim: int = 512, **settings: Any
) -> StructuredGuide:
    """The guide of :func:`pyzoo.models.mib.structured_vae`.

    Args:
        network: G^q over some of the views "digit", "next", "label" and "number".
        dims: dimensions of each latent, by name.
        hidden_dim: hidden units of a layer.
        **settings: further arguments of :class:`StructuredGuide`.
    """
    check_views(network.variables.observed, VIEWS)
    encoders = {view: encoder(view, view_dim(network.variables, dims, view), hidden_dim) for view in network.variables.observed}
    return StructuredGuide(network, dims, encoders, **settings)


def encoder(view: str, width: int, hidden_dim: int) -> nn.Module:
    """From a view of a digit to the means and log-variances of its experts, (rows, 2 width)."""
    if view == "number":
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 4, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(1024, hidden_dim), nn.ReLU()]
    elif view == "label":
        layers = [nn.Linear(10, hidden_dim), nn.ReLU()]
    else:
        layers = [nn.Flatten(), nn.Linear(784, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
    return he_initialised(nn.Sequential(*layers, nn.Linear(hidden_dim, 2 * width), Quotient()))


class Quotient(nn.Module):
    r"""From m and v, side by side, to the mean and log-variance of the expert that makes q(z | x_i) = N(m, sigmoid(v')).

    .. math:: \tilde q = \frac{q(z \mid x_i)}{p(z)} = N\bigl(m (1 + e^{v'}),\ e^{v'}\bigr)

    If a network gave the expert's own mean, its gradient would be in proportion to the expert's precision: an expert that once
    says nothing would be deaf, and say nothing ever after. The mean m of q(z | x_i) keeps its gradient. For the same reason v' is
    v, smoothly kept below 4: the expert's precision stays above 0.018.

    Example:
        >>> loc, log_variance = Quotient()(torch.tensor([[2.0, -1.0]])).chunk(2, dim=-1)
        >>> variance = log_variance.exp() / (1 + log_variance.exp())  # of the product with N(0, 1)
        >>> (variance / log_variance.exp() * loc).round(decimals=4)
        tensor([[2.]])
    """

    def forward(self, parameters: Tensor) -> Tensor:
        mean, v = parameters.chunk(2, dim=-1)
        log_variance = 4 - nn.functional.softplus(4 - v)
        return torch.cat([mean * (1 + log_variance.exp()), log_variance], dim=-1)


def _frozen(network: nn.Module, *arguments: Tensor) -> Tensor:
    """What a network says, without a gradient for its parameters."""
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    return torch.func.functional_call(network, parameters, arguments)


def _check_penalties(network: BayesianNetwork, penalties: Sequence[Penalty]) -> None:
    seen = set()
    for penalty in penalties:
        if penalty.inference != network:  # what bounds a distance of another q bounds nothing of this one's
            raise ValueError(f"The penalty '{penalty.name}' is of the network '{penalty.inference}', the guide's is '{network}'.")
        if penalty.name in seen:
            raise ValueError(f"There are two penalties '{penalty.name}'.")
        seen.add(penalty.name)


def _check_inference(network: BayesianNetwork) -> None:
    names = network.variables
    for parent, child in network.edges:
        if parent in names.latents or child in names.observed:
            raise ValueError(f"An inference network leads from views to latents, not from '{parent}' to '{child}'.")
        if names.private.get(child, parent) != parent:
            raise ValueError(f"The private latent '{child}' belongs to '{names.private[child]}', not to '{parent}'.")
    for latent in names.latents:
        if not network.parents(latent):
            raise ValueError(f"No view tells of the latent '{latent}'.")
