r"""The guide of the multivariate-information-bottleneck framework: each latent's belief is a product of the views' experts.

.. math:: q(z_j \mid x_S) \propto p(z_j) \prod_{i \in S} \tilde q(z_j \mid x_i)^{m_{ij}^q}, \qquad q(u_i \mid x_i) \propto
    p(u_i)\, \tilde q(u_i \mid x_i)

One encoder for each view serves all subsets of the views: an absent one takes no part, and without any the belief is the prior.

Source: Zhang, Koyama and Ishiguro (2020), eqs. 4, 12 and 13. The experts are the quotients of q(z | x_i) and p(z), so q(z | x_i)
itself is the product of the prior and one expert; eq. 13's sigma is a variance.
"""

from collections.abc import Collection, Mapping, Sequence

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.distributions import WeightedProductOfExperts
from pyzoo.infer import BayesianNetwork, Beliefs, Penalty
from pyzoo.models.mib import batch_size, check_complete, private_of, without_absent
from pyzoo.nn import scale_from_log_variance

__all__ = ["StructuredGuide"]


class StructuredGuide(PyroModule):
    """The inference story, for any networks; sites have the variables' names.

    Args:
        network: G^q, from views to the shared latents that they tell of, and from each view to its private latents.
        dims: dimensions of each latent, by name.
        encoders: for each view, by name, the network from the view to its experts, (rows, 2 features): means and log-variances,
            side by side, of all shared latents in the variables' order and then of its private ones.
        penalties: wishes about the latents; their terms are factors.
        dataset_size: number of training examples, for penalties that estimate an aggregate posterior.

    Raises:
        ValueError: an edge leads elsewhere, no view tells of a latent, or a latent's dimensions or a view's encoder are missing;
            names the variable.

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
    ) -> None:
        super().__init__("guide")
        _check_inference(network)
        check_complete(network.variables, dims, encoders, "encoder")
        self.variables = network.variables
        self.dims = dict(dims)
        self.encoders = nn.ModuleDict({view: encoders[view] for view in self.variables.observed})
        self.register_buffer("mask", network.inference_mask())
        self.penalties = list(penalties)
        self.dataset_size = dataset_size

    def forward(self, present: Tensor | None = None, size: int = 1, **views: Tensor | None) -> None:
        """Draws each latent given the views.

        Args:
            present: which views each row has, (batch, views), boolean; all that are given by default.
            size: not used; the model's.
            **views: the observed views by name, each with the batch as its first dimension, or None.
        """
        given = {name: view for name, view in views.items() if view is not None}
        rows, draws = batch_size(self.variables, given), {}
        present = self._present(given, present, rows)
        experts = self._experts(given, present)  # once, for all subsets that penalties ask for
        with pyro.plate("data", rows):
            for name, q in self._products(experts, present).items():
                draws[name] = pyro.sample(name, q.to_event(1), infer={"kl": "analytic"})  # priors depend on nothing
        beliefs = Beliefs(draws, lambda names: self._products(experts, present, names), self.dataset_size)
        for penalty in self.penalties:
            for name, value in penalty.values(beliefs).items():
                # Pyro sums over the batch; and a guide's factor is subtracted from the ELBO, so that it adds to the loss.
                pyro.factor(name, rows * value, has_rsample=True)

    def posteriors(
        self, views: Mapping[str, Tensor], present: Tensor | None = None, subset: Collection[str] | None = None
    ) -> dict[str, WeightedProductOfExperts]:
        """The belief about each latent by name, (batch, features), given the views.

        Args:
            views: by name, each with the batch as its first dimension.
            present: which views each row has, (batch, views), boolean; all that are given by default.
            subset: names of the views to believe; all by default. The others take no part.

        Raises:
            ValueError: no view is given, a name is no view, or views differ in their number of rows.
        """
        present = self._present(views, present, batch_size(self.variables, views))
        return self._products(self._experts(views, present), present, subset)

    def _present(self, views: Collection[str], present: Tensor | None, rows: int) -> Tensor:
        """Which views each row has, (batch, views): of those that are given."""
        given = self._among(views)
        return given.expand(rows, -1) if present is None else present & given

    def _among(self, names: Collection[str]) -> Tensor:
        """Which views are named, (views,)."""
        return torch.tensor([name in names for name in self.variables.observed], device=self.mask.device)

    def _products(
        self, experts: Sequence[Mapping[str, tuple[Tensor, Tensor]]], present: Tensor, subset: Collection[str] | None = None
    ) -> dict[str, WeightedProductOfExperts]:
        """Each latent's belief from the experts of the present views, or of those of them in a subset."""
        present = present if subset is None else present & self._among(subset)
        found = {}
        for j, name in enumerate(self.variables.shared):
            loc, scale = (torch.stack([expert[name][part] for expert in experts], dim=1) for part in (0, 1))
            found[name] = WeightedProductOfExperts(loc, scale, self.mask[:, j, None], present)
        for name, owner in self.variables.private.items():
            i = self.variables.observed.index(owner)
            loc, scale = (part.unsqueeze(1) for part in experts[i][name])
            found[name] = WeightedProductOfExperts(loc, scale, present=present[:, i : i + 1])
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
