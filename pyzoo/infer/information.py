r"""What latents tell of data and of each other, from a minibatch.

Each function says what it is of the information that it is named for:

- an *upper* bound: not below it, in expectation;
- a *lower* bound: not above it;
- an *estimate*: near it, on no known side;
- a *surrogate*: zero where it is zero, and not in nats.

All but surrogates are in nats per example.
"""

import math
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from pyzoo.checks import (
    require_broadcast,
    require_count,
    require_finite,
    require_floating,
    require_kind,
    require_same_type,
    require_shape,
    require_tensor,
)
from pyzoo.infer.mmd import kernel_matrix
from pyzoo.nn import Head
from pyzoo.settings import cut

__all__ = [
    "MINE",
    "aggregate_log_prob",
    "dependence",
    "distortion",
    "index_information",
    "rate",
    "total_correlation",
]


def rate(q: Distribution, p: Distribution, mask: Tensor | None = None) -> Tensor:
    r"""An upper bound: the rate of I(z; x), or the conditional rate of I(z; rest | x_S).

    .. math:: I(z; x) \le E\, \mathrm{KL}(q(z \mid x) \| p(z)), \qquad
        I(z; x_{\text{rest}} \mid x_S) \le E\, \mathrm{KL}(q(z \mid x) \| q(z \mid x_S))

    It is too large by the KL of the aggregate posterior (given x_S) to p.

    Args:
        q: q(z | x) of each example, the batch its first dimension.
        p: p(z), or q(z | x_S) of each example.
        mask: which examples count, (batch,), boolean; all by default. The others add nothing to the sum over the batch.

    Returns:
        0-dim: the mean over the batch, summed over all other dimensions.

    Raises:
        ValueError: p is over more than q's batch, or the mask does not fit it.

    Example:
        >>> rate(dist.Normal(torch.ones(5, 2), 1.0), dist.Normal(0.0, 1.0))
        tensor(1.)
    """
    require_kind(q, "q", Distribution)
    require_kind(p, "p", Distribution)
    require_broadcast(q=q.batch_shape, p=p.batch_shape)
    try:
        values = kl_divergence(q, p)
    except NotImplementedError as error:
        kinds = f"{type(q).__name__} to a {type(p).__name__}"
        raise ValueError(f"There is no closed form of the divergence from a {kinds}.") from error
    if values.shape != q.batch_shape:  # else the mean would be over another number of examples
        raise ValueError(f"p must broadcast to q's batch, {tuple(q.batch_shape)}, got {tuple(p.batch_shape)}.")
    return _mean_over_batch(values, mask)


def distortion(p: Distribution, x: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""What is lost of x in z: minus it, and the entropy of x, are a lower bound of I(x; z).

    .. math:: I(x; z) \ge H(x) + E \log p(x \mid z)

    It is too low by the KL of q(x | z) to p(x | z). H(x) is the data's, and nothing that training moves.

    Args:
        p: p(x | z) at a draw of z for each example, the batch its first dimension.
        x: the examples.
        mask: which of them count, (batch,), boolean; all by default.

    Returns:
        0-dim: the mean over the batch, summed over all other dimensions, of -log p(x | z).

    Example:
        >>> distortion(dist.Bernoulli(torch.full((5, 2), 0.5)), torch.ones(5, 2))
        tensor(1.3863)
    """
    require_kind(p, "p", Distribution)
    require_tensor(x, "x")
    if x.shape != p.batch_shape + p.event_shape:
        raise ValueError(f"x must be of the shape of p's draws, {tuple(p.batch_shape + p.event_shape)}, got {tuple(x.shape)}.")
    return -_mean_over_batch(p.log_prob(x), mask)


def _mean_over_batch(values: Tensor, mask: Tensor | None) -> Tensor:
    """Of (batch, ...), summed over all other dimensions; examples that don't count are zeros."""
    if not values.dim() or not len(values):
        raise ValueError(f"There must be examples along the first dimension, got the shape {tuple(values.shape)}.")
    if mask is not None:
        require_shape(mask, "mask", ("batch",), batch=len(values))
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be boolean, got {mask.dtype}.")
        values = torch.where(mask.view(-1, *(1,) * (values.dim() - 1)), values, 0.0)
    return values.sum() / len(values)


# By minibatch estimates of the aggregate posterior --------------------------------------------------------------------


def aggregate_log_prob(q: Normal, z: Tensor, dataset_size: int | None = None) -> Tensor:
    r"""log q(z), where q(z) is the mean of q(z | x) over the data, at one draw for each example; an estimate, too low on average.

    .. math:: \hat q(z_i) = \frac{1}{N} q(z_i \mid x_i) + \frac{N - 1}{N} \frac{1}{B - 1} \sum_{j \ne i} q(z_i \mid x_j)

    Source: Esmaeili et al. (2019), "Structured Disentangled Representations", appendix on minibatch approximations.

    Args:
        q: q(z | x), (batch, features).
        z: drawn from it, (batch, features).
        dataset_size: N; by default that of an endless stream, where no draw meets its own example again.

    Returns:
        (batch,), summed over the features.

    Raises:
        ValueError: there are fewer than two examples, z is not of q's shape, or the data are fewer than the batch.

    Example:
        >>> q = dist.Normal(torch.zeros(3, 2), 1.0)
        >>> z = torch.zeros(3, 2)
        >>> torch.allclose(aggregate_log_prob(q, z), q.log_prob(z).sum(-1))
        True
    """
    _check_posterior(q, z)
    batch = len(z)
    if batch < 2:
        raise ValueError("An aggregate posterior is estimated from two or more examples.")
    if dataset_size is not None:
        require_count(dataset_size, "dataset_size", batch)
    own = 0.0 if dataset_size is None else 1 / dataset_size
    weights = torch.full((batch, batch), (1 - own) / (batch - 1), dtype=z.dtype, device=z.device).fill_diagonal_(own)
    pairs = Normal(q.loc, q.scale, validate_args=False).log_prob(z.unsqueeze(1)).sum(-1)  # of z_i under q(z | x_j)
    return (pairs + weights.log()).logsumexp(1)


def total_correlation(q: Normal, z: Tensor, groups: Sequence[slice | Sequence[int]], dataset_size: int | None = None) -> Tensor:
    r"""KL(q(z) || prod_g q(z_g)), how far groups of features are from being independent: an estimate.

    With two groups it is their mutual information, with one feature in each the total correlation of a beta-TCVAE.

    Args:
        q: q(z | x), (batch, features).
        z: drawn from it, (batch, features).
        groups: for each group its features, together all of them.
        dataset_size: as in :func:`aggregate_log_prob`.

    Returns:
        0-dim.

    Raises:
        ValueError: as :func:`aggregate_log_prob`; or a feature is in no group, or in two.

    Example:
        >>> q = dist.Normal(torch.tensor([[-9.0, -9.0], [9.0, 9.0], [-9.0, -9.0], [9.0, 9.0]]), 1.0)
        >>> total_correlation(q, q.loc, [[0], [1]], dataset_size=4).round(decimals=2)  # either tells the other: log 2
        tensor(0.6900)
    """
    _check_posterior(q, z)
    require_kind(groups, "groups", Sequence)
    for group in groups:
        require_kind(group, "each group", slice, Sequence)
    features = list(range(z.shape[1]))
    found = [index for group in groups for index in (features[group] if isinstance(group, slice) else group)]
    whole = all(isinstance(index, Integral) and not isinstance(index, bool) for index in found)
    if not all(isinstance(group, slice) or len(group) for group in groups):
        raise ValueError(f"groups must hold a feature each, got {cut(groups)}.")
    if not whole or sorted(found) != features:
        raise ValueError(f"groups must hold each of the features 0 to {z.shape[1] - 1} once, got {cut(groups)}.")
    joint = aggregate_log_prob(q, z, dataset_size)
    parts = [aggregate_log_prob(Normal(q.loc[:, g], q.scale[:, g]), z[:, g], dataset_size) for g in groups]
    return (joint - sum(parts)).mean()


def index_information(q: Normal, z: Tensor, dataset_size: int | None = None) -> Tensor:
    """I(z; x) = E log q(z | x) - log q(z): an estimate. 0-dim; arguments as in :func:`aggregate_log_prob`."""
    _check_posterior(q, z)
    return (q.log_prob(z).sum(-1) - aggregate_log_prob(q, z, dataset_size)).mean()


def _check_posterior(q: Normal, z: Tensor) -> None:
    require_shape(z, "z", ("batch", "features"))
    require_floating(z, "z")
    require_finite(z=z)
    require_kind(q, "q", Normal)
    if q.batch_shape != z.shape:
        raise ValueError(f"q must be over z's shape, {tuple(z.shape)}, got {tuple(q.batch_shape)}.")


# From samples alone ---------------------------------------------------------------------------------------------------


def dependence(z: Tensor, u: Tensor, bandwidth: float | None = None) -> Tensor:
    r"""A surrogate of I(z; u): the squared maximum mean discrepancy of q(z, u) and q(z) q(u), with a product of kernels.

    .. math:: \frac{1}{n^2} \sum_{i,j} K_{ij} L_{ij} + \frac{1}{n^2} \sum_{i,j} K_{ij}\, \frac{1}{n^2} \sum_{i,j} L_{ij}
        - \frac{2}{n^3} \sum_{i,j,k} K_{ij} L_{ik}

    K and L are the kernels of all pairs of z and of u, each on a scale of its own. This is the Hilbert-Schmidt independence
    criterion. As an estimate it is too large by some 1 / n.

    Source: Gretton et al. (2005), "Measuring Statistical Dependence with Hilbert-Schmidt Norms", eq. 9.

    Args:
        z: (batch, features).
        u: (batch, other features).
        bandwidth: of both kernels; by default the square root of the number of features of each.

    Returns:
        0-dim, at least 0; not in nats.

    Raises:
        ValueError: z and u are not two or more examples of some features.

    Example:
        >>> z = torch.tensor([[0.0], [9.0], [0.0], [9.0]])
        >>> dependence(z, z), dependence(z, torch.tensor([[0.0], [0.0], [9.0], [9.0]]))
        (tensor(0.2500), tensor(0.))
    """
    _check_pairs(z, u)
    of_z, of_u = kernel_matrix(z, z, bandwidth), kernel_matrix(u, u, bandwidth)
    return (of_z * of_u).mean() + of_z.mean() * of_u.mean() - 2 * (of_z.mean(1) * of_u.mean(1)).mean()


class MINE(nn.Module):
    r"""I(z; u) by a network that learns to tell pairs from strangers: an estimate, once the network has been trained.

    .. math:: I(z; u) \ge E_{q(z, u)} T - \log E_{q(z) q(u)} e^T

    For a fixed T and many examples that is a lower bound; but T learns on the examples that it judges, and what a model minimizes
    of it is not bounded by it. Train T to make it large, as an objective of its own, and the model to make it small.

    Source: Belghazi et al. (2018), "Mutual Information Neural Estimation", eq. 10.

    Args:
        z_dim: features of z.
        u_dim: features of u.
        width: hidden units of both layers.

    Example:
        >>> MINE(2, 3)(torch.randn(8, 2), torch.randn(8, 3)).shape
        torch.Size([])
    """

    def __init__(self, z_dim: int, u_dim: int, width: int = 64) -> None:
        super().__init__()
        for name, size in (("z_dim", z_dim), ("u_dim", u_dim), ("width", width)):
            require_count(size, name)
        self.z_dim = z_dim
        self.u_dim = u_dim
        self.network: nn.Sequential = nn.Sequential(
            nn.Linear(z_dim + u_dim, width), nn.ELU(), nn.Linear(width, width), nn.ELU(), Head(nn.Linear(width, 1))
        )

    def forward(self, z: Tensor, u: Tensor) -> Tensor:
        """The estimate from two or more examples z, (batch, features), and u, (batch, other features): 0-dim.

        Raises:
            ValueError: z and u are not.
        """
        _check_pairs(z, u)
        require_shape(z, "z", ("batch", self.z_dim))
        require_shape(u, "u", ("batch", self.u_dim))
        require_same_type(z, "z", self)
        require_same_type(u, "u", self)
        pairs = self.network(torch.cat([z, u], -1)).squeeze(-1)
        strangers = self.network(torch.cat([z, _shuffled(u)], -1)).squeeze(-1)
        return pairs.mean() - (strangers.logsumexp(0) - math.log(len(strangers)))


def _check_pairs(z: Tensor, u: Tensor) -> None:
    require_shape(z, "z", ("batch", "features"))
    require_shape(u, "u", ("batch", "features"), batch=len(z))
    require_floating(z, "z")
    require_floating(u, "u")
    require_finite(z=z, u=u)
    if len(z) < 2:
        raise ValueError("What two variables tell of each other is estimated from two or more examples.")


def _shuffled(u: Tensor) -> Tensor:
    """Each row another's: moved on by one, since the examples are in no order."""
    return u.roll(1, 0)
