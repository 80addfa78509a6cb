"""A prior over components that are all functions of one latent, which any of them tells of: the message passing prior."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import pyro.distributions as dist
import torch
from pyro.distributions.transforms import AffineCoupling
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.nn.functional import logsigmoid

from pyzoo.checks import (
    is_validation_enabled,
    require_broadcast,
    require_count,
    require_finite,
    require_floating,
    require_number,
    require_same_type,
    require_shape,
    require_sizes,
    require_switch,
    require_tensor,
)
from pyzoo.settings import AtLeast, AtMost

__all__ = ["InvertibleMap", "MessagePassingPrior", "procrustes_rotations"]

_MOST_LOG_SCALE = 2.0  # of one coupling: an inverse may not explode where the map was never trained


class MessagePassingPrior(nn.Module):
    r"""The distribution of K components y_1, ..., y_K of equal size that are related through one latent h.

    .. math:: h \sim \mathcal{N}(0, I), \qquad y_k \mid h \sim \mathcal{N}\bigl(f_k^{-1}(h), \sigma_k^2\bigr), \qquad
        q(h \mid y_S) = \mathcal{N}\Bigl(\sum_{k \in S} w_k f_k(y_k), s^2\Bigr), \quad \sum_{k \in S} w_k = 1

    Each f_k is a sequence of affine couplings, so that one network both encodes a component and reconstructs it. Messages go from
    any subset S of the components to h, and from there to all others: the prior infers h from what is present, and imputes what
    is missing. p(y) has no closed form; :meth:`elbo` bounds its logarithm from below, and :meth:`log_prob` comes as near to it
    as one pays for.

    In a Pyro program the distributions of this module are those of two sites, and ``pyro.module`` has its parameters trained::

        def model(y):
            pyro.module("prior", prior)
            with pyro.plate("rows", len(y)):
                h = pyro.sample("h", prior.latent(y.shape[:1]))
                pyro.sample("y", prior.components(h), obs=y)

        def guide(y):
            with pyro.plate("rows", len(y)):
                pyro.sample("h", prior.posterior(y))

    Source: Ren et al. (2023), "Learning Latent Structural Relations with Message Passing Prior", supplement, sections B, D, E and
    F. There messages have equal weights, the scales are fixed at 1, and couplings multiply by sigmoids (``learn=False, scale=1,
    posterior_scale=1, coupling="sigmoid"``). Then one component that is unrelated to all others spoils the mean; learned weights
    leave it out, and its learned scale says that h does not explain it. The ELBO of E.1 is printed with one more term,
    -1/(2 s^2) sum_k ||h - f_k(y_k)||^2, which does not follow from the line before it and is left out here: it would draw the
    messages of all components together, related or not.

    Couplings multiply by positive numbers, so that all f_k have one orientation: where one entry of a component is minus that of
    another, and all others are equal, no maps relate the two. So components may be turned before their maps, each by a rotation
    or reflection of its own, which :func:`procrustes_rotations` finds from data. The supplement has no such thing: its
    components are latents, and the network that infers them may choose how they lie.

    Args:
        num_components: K, at least 2.
        dim: entries of a component, and of h, at least 2.
        num_couplings: couplings in each map.
        hidden_dims: widths of the hidden layers of a coupling's network.
        scale: sigma, the standard deviation of a component's entries given h; at the start, where it is learned.
        posterior_scale: s, the standard deviation of h given components, likewise.
        learn: learn the weights w, (K, dim), sigma, (K, dim), and s, (dim,).
        coupling: "exp", a coupling multiplies by exp(a) for any a between -2 and 2; "sigmoid", by a sigmoid, as in table 7, of
            exp(-2) at least.
        batch_norm: normalize the output of a coupling's network over the batch, as in table 7. In training a map then depends on
            its batch, and its inverse, which sees another batch, is none.
        rotations: orthogonal matrices by which components are turned before their maps, (K, dim, dim); None leaves them. They
            are saved with the weights: to load these, make a prior with any rotations.

    Raises:
        ValueError: an argument is none of these.

    Example:
        >>> prior = MessagePassingPrior(num_components=3, dim=2)
        >>> y = prior.components(prior.latent((5,)).sample()).sample()
        >>> prior.elbo(y).shape
        torch.Size([5])
        >>> prior.impute(y, torch.tensor([True, True, False])).shape  # the third from the others
        torch.Size([5, 3, 2])
    """

    def __init__(
        self,
        num_components: int,
        dim: int,
        num_couplings: int = 3,
        hidden_dims: Sequence[int] = (64, 64),
        scale: float = 0.5,
        posterior_scale: float = 0.3,
        learn: bool = True,
        coupling: Literal["exp", "sigmoid"] = "exp",
        batch_norm: bool = False,
        rotations: Tensor | None = None,
    ) -> None:
        super().__init__()
        require_count(num_components, "num_components", 2)
        require_count(dim, "dim", 2)
        require_number(scale, "scale", AtLeast(1e-12), AtMost(1e12))
        require_number(posterior_scale, "posterior_scale", AtLeast(1e-12), AtMost(1e12))
        require_switch(learn, "learn")
        self.num_components: int = num_components
        self.dim: int = dim
        if rotations is not None:
            require_shape(rotations, "rotations", (num_components, dim, dim))
            require_floating(rotations, "rotations")
            if not torch.allclose(rotations @ rotations.mT, torch.eye(dim).to(rotations), atol=1e-4):
                raise ValueError("rotations must be orthogonal matrices: their inverses are their transposes.")
            left, _, right = torch.linalg.svd(rotations.detach().double())  # the nearest that is orthogonal to the last digit
            rotations = left @ right  # of which components take as many digits as they have
        self.register_buffer("rotations", rotations)
        self.maps: nn.ModuleList = nn.ModuleList(
            InvertibleMap(dim, num_couplings, hidden_dims, coupling, batch_norm) for _ in range(num_components)
        )
        values = {
            "log_weights": torch.zeros(num_components, dim),
            "log_scale": torch.full((num_components, dim), math.log(scale)),
            "log_posterior_scale": torch.full((dim,), math.log(posterior_scale)),
        }
        for name, value in values.items():
            if learn:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def encode(self, y: Tensor) -> Tensor:
        """What each component says of h: f_k(y_k), (..., K, dim).

        Args:
            y: components, (..., K, dim).
        """
        self._require(y, "y", (self.num_components, self.dim))
        if self.rotations is not None:
            y = _turned(self.rotations, y)
        return torch.stack([f(y_k) for f, y_k in zip(self.maps, y.unbind(-2), strict=True)], -2)

    def decode(self, h: Tensor) -> Tensor:
        """The components that h stands for: f_k^-1(h), (..., K, dim).

        Args:
            h: (..., dim).
        """
        self._require(h, "h", (self.dim,))
        y = torch.stack([f.inverse(h) for f in self.maps], -2)
        return y if self.rotations is None else _turned(self.rotations.mT, y)

    def latent(self, batch_shape: Sequence[int] = ()) -> dist.TorchDistribution:
        """p(h), a standard normal of dim entries."""
        if not isinstance(batch_shape, Sequence):
            raise ValueError(f"batch_shape must be a sequence of sizes, got {batch_shape!r}.")
        for size in batch_shape:
            require_count(size, "each size of batch_shape")
        zeros = self.log_posterior_scale.new_zeros(*batch_shape, self.dim)
        return dist.Normal(zeros, 1.0).to_event(1)

    def components(self, h: Tensor) -> dist.TorchDistribution:
        """p(y | h), whose event is (K, dim).

        Args:
            h: (..., dim).
        """
        return dist.Normal(self.decode(h), self.log_scale.exp()).to_event(2)

    def posterior(self, y: Tensor, present: Tensor | None = None) -> dist.TorchDistribution:
        """q(h | y_S), inferred from the components that are present.

        Args:
            y: components, (..., K, dim); what is absent may be anything.
            present: which components to infer from, boolean, (..., K), at least one in each row; by default all.

        Raises:
            ValueError: shapes do not fit, a row has no component, or what is present is not finite.
        """
        log_weights = self.log_weights
        if present is not None:
            self._require_present(present, y)
            log_weights = log_weights.masked_fill(~present.unsqueeze(-1), -math.inf)
            y = torch.where(present.unsqueeze(-1), y, torch.zeros_like(y))
        messages = self.encode(y)
        require_finite(y=y)
        loc = (log_weights.softmax(-2) * messages).sum(-2)
        return dist.Normal(loc, self.log_posterior_scale.exp()).to_event(1)

    def elbo(self, y: Tensor, present: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """An estimate, from one draw of h, of a lower bound of log p(y); differentiable, batch shape (appendix E.1).

        Args:
            y: components, (..., K, dim).
            present: which of them h is inferred from, boolean, (..., K); by default all. The others are scored too: from a subset
                this is a lower bound as well, and asks of h what the subset tells of the others.
            observed: which components there are, boolean, (..., K), at least one in each row; by default all. Others may be
                anything: they are not scored, nothing is inferred from them, and this is a bound of log p of the observed ones.
                So the prior is trained on rows of which some components are missing.

        Raises:
            ValueError: shapes do not fit, a row has nothing to infer h from, or what is scored is not finite.
        """
        if observed is not None:
            self._require_present(observed, y)
            present = observed if present is None else observed & present
            y = torch.where(observed.unsqueeze(-1), y, torch.zeros_like(y))
        q = self.posterior(y, present)
        require_finite(y=y)
        h = q.rsample()
        likelihood = self.components(h)
        if observed is not None:
            likelihood = likelihood.base_dist.mask(observed.unsqueeze(-1)).to_event(2)
        return likelihood.log_prob(y) - torch.distributions.kl_divergence(q, self.latent(h.shape[:-1]))

    def log_prob(self, y: Tensor, num_particles: int = 100) -> Tensor:
        """log p(y) by importance sampling: in expectation from below, and exact as the number of particles grows; batch shape.

        Args:
            y: components, (..., K, dim).
            num_particles: draws of h from q(h | y).
        """
        require_count(num_particles, "num_particles")
        q = self.posterior(y)
        h = q.rsample((num_particles,))
        log_ratio = self.latent(h.shape[:-1]).log_prob(h) + self.components(h).log_prob(y) - q.log_prob(h)
        return log_ratio.logsumexp(0) - math.log(num_particles)

    def log_prob_on_surface(self, h: Tensor) -> Tensor:
        """The log-density of the noiseless components f^-1(h), batch shape: lemma 1, eq. 15.

        Without noise the components lie on a surface of dim dimensions; the density is with respect to area on it.

        Args:
            h: (batch, dim) or (dim,).
        """
        self._require(h, "h", (self.dim,))
        if h.dim() > 2:
            raise ValueError(f"h must be (batch, {self.dim}) or ({self.dim},), got {tuple(h.shape)}.")
        if self.training and any(isinstance(layer, nn.BatchNorm1d) for layer in self.modules()):
            raise ValueError("The density with batch normalization is that of the trained maps: call eval() first.")
        rows = h if h.dim() > 1 else h.unsqueeze(0)
        jacobian = vmap(jacrev(self.decode))(rows).flatten(-3, -2)  # (batch, K dim, dim)
        half_log_det = torch.linalg.svdvals(jacobian).log().sum(-1)
        found = self.latent(rows.shape[:-1]).log_prob(rows) - half_log_det
        return found if h.dim() > 1 else found.squeeze(0)

    def impute(self, y: Tensor, present: Tensor) -> Tensor:
        """The components with those that are not present replaced by what the present ones tell of them, (..., K, dim).

        Args:
            y: components, (..., K, dim); what is absent may be anything.
            present: which of them to keep and to infer from, boolean, (..., K), at least one in each row.
        """
        require_tensor(present, "present")
        h = self.posterior(y, present).mean
        return torch.where(present.unsqueeze(-1), y, self.decode(h))

    def _require(self, value: Tensor, name: str, event_shape: tuple[int, ...]) -> None:
        _require_event(value, name, event_shape)
        require_same_type(value, name, self)

    def _require_present(self, present: Tensor, y: Tensor) -> None:
        require_tensor(present, "present")
        if present.dtype != torch.bool or present.shape[-1:] != (self.num_components,):
            found = f"{tuple(present.shape)} of {present.dtype}"
            raise ValueError(f"present must be boolean, (..., {self.num_components}), got {found}.")
        require_broadcast(present=present.shape, y=y.shape[:-1])
        if is_validation_enabled() and not present.any(-1).all():  # asking waits for the device
            raise ValueError("present must have at least one component in each row: there is nothing to infer h from.")


def _require_event(value: Tensor, name: str, event_shape: tuple[int, ...]) -> None:
    require_floating(value, name)
    if value.shape[-len(event_shape) :] != event_shape or not value.numel():
        raise ValueError(f"{name} must be (..., {', '.join(map(str, event_shape))}), got {tuple(value.shape)}.")


def _turned(rotations: Tensor, y: Tensor) -> Tensor:
    """Components, (..., K, dim), each times its matrix, (K, dim, dim); under autocast too in the components' precision."""
    return (rotations.to(y.dtype) * y.unsqueeze(-2)).sum(-1)


@torch.no_grad()
def procrustes_rotations(y: Tensor, rounds: int = 20) -> Tensor:
    """Rotations, or reflections, after which components lie near to each other: a local minimum of their squared distances.

    What only a nonlinear relation tells, they do not see. Components should be of one scale, and are centered here.

    Source: Gower (1975), "Generalized Procrustes Analysis", without scaling.

    Args:
        y: components, (rows, K, dim).
        rounds: how often each component is turned toward the others.

    Returns:
        Orthogonal matrices, (K, dim, dim), in single precision at least; the first component is turned too.

    Raises:
        ValueError: the shape is another, there are fewer than two components, or they are not finite.

    Example:
        >>> a = torch.randn(100, 2)
        >>> y = torch.stack([a, a * torch.tensor([1.0, -1.0])], 1)  # one entry the other way round
        >>> torch.linalg.det(procrustes_rotations(y)).prod().round()
        tensor(-1.)
    """
    require_shape(y, "y", ("rows", "K", "dim"))
    require_floating(y, "y")
    require_count(y.shape[1], "the number of components", 2)
    require_count(rounds, "rounds")
    require_finite(y=y)
    kind = torch.promote_types(y.dtype, torch.float32)  # in half precision they are not orthogonal any more
    y = y.double()
    y = y - y.mean(0)
    rotations, turned = torch.eye(y.shape[2]).to(y).repeat(y.shape[1], 1, 1), y.clone()
    for _ in range(rounds):
        for k, component in enumerate(y.unbind(1)):
            left, _, right = torch.linalg.svd((turned.sum(1) - turned[:, k]).mT @ component)
            rotations[k] = left @ right
            turned[:, k] = component @ rotations[k].mT
    return rotations.to(kind)


class InvertibleMap(nn.Module):
    """An invertible map of R^dim: affine couplings, each of which moves the half that the one before kept.

    With an odd dim halves differ by one entry, and take turns: after three couplings each entry depends on all. The supplement
    does not say how its couplings share out the entries.

    Args:
        dim: entries, at least 2.
        num_couplings: how many.
        hidden_dims: widths of the hidden layers of a coupling's network.
        coupling: what multiplies: "exp" or "sigmoid", see :class:`MessagePassingPrior`.
        batch_norm: normalize the networks' outputs over the batch.

    Raises:
        ValueError: an argument is none of these.

    Example:
        >>> f, y = InvertibleMap(4), torch.randn(3, 4)
        >>> torch.allclose(f.inverse(f(y)), y, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        num_couplings: int = 3,
        hidden_dims: Sequence[int] = (64, 64),
        coupling: Literal["exp", "sigmoid"] = "exp",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        require_count(dim, "dim", 2)
        require_count(num_couplings, "num_couplings")
        require_sizes(hidden_dims, "hidden_dims")
        if coupling not in ("exp", "sigmoid"):
            raise ValueError(f"coupling is 'exp' or 'sigmoid', not {coupling!r}.")
        require_switch(batch_norm, "batch_norm")
        self.dim: int = dim
        self.batch_norm: bool = batch_norm
        self.couplings: nn.ModuleList = nn.ModuleList()
        for place in range(num_couplings):
            kept = (dim + place % 2) // 2
            self.couplings.append(_Coupling(kept, _CouplingNetwork(kept, dim - kept, hidden_dims, coupling, batch_norm)))

    def forward(self, y: Tensor) -> Tensor:
        """f(y), (..., dim)."""
        self._require(y, "y")
        for place, coupling in enumerate(self.couplings):
            y = coupling(y.flip(-1) if place else y)
        return y

    def inverse(self, h: Tensor) -> Tensor:
        """f^-1(h), (..., dim)."""
        self._require(h, "h")
        for place, coupling in reversed(list(enumerate(self.couplings))):
            h = coupling.inv(h)
            h = h.flip(-1) if place else h
        return h

    def _require(self, value: Tensor, name: str) -> None:
        _require_event(value, name, (self.dim,))
        require_same_type(value, name, self)
        if self.training and self.batch_norm and value.shape[:-1].numel() < 2:
            raise ValueError(f"Batch normalization needs two rows or more in training, got {value.shape[:-1].numel()}.")


class _Coupling(AffineCoupling):
    """Pyro's coupling without its caches, which would return what the parameters of an earlier step gave, and can't be copied."""

    def __init__(self, kept: int, network: nn.Module) -> None:
        super().__init__(kept, network, log_scale_min_clip=-_MOST_LOG_SCALE, log_scale_max_clip=_MOST_LOG_SCALE)
        self._cache_size = 0

    def _call(self, x: Tensor) -> Tensor:
        y = super()._call(x)
        self._cached_log_scale = None
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x = super()._inverse(y)
        self._cached_log_scale = None
        return x


class _CouplingNetwork(nn.Sequential):
    """Shift and log-scale of a coupling from the half that it keeps (table 7). At the start the coupling changes little."""

    def __init__(self, kept: int, moved: int, hidden_dims: Sequence[int], coupling: str, batch_norm: bool) -> None:
        widths = [kept, *hidden_dims]
        layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
        last = nn.Linear(widths[-1], 2 * moved)
        outputs = [last, nn.BatchNorm1d(2 * moved)] if batch_norm else [last]
        nn.init.normal_(outputs[-1].weight, std=0.01)
        nn.init.zeros_(outputs[-1].bias)
        if coupling == "sigmoid":
            nn.init.constant_(outputs[-1].bias[moved:], _MOST_LOG_SCALE)
        super().__init__(*layers, *outputs)
        self.squash = logsigmoid if coupling == "sigmoid" else _bounded

    def forward(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        out = kept.flatten(0, -2) if kept.dim() > 1 else kept.unsqueeze(0)  # batch normalization takes rows
        shift, log_scale = super().forward(out).unflatten(0, kept.shape[:-1] or (1,)).chunk(2, -1)
        if kept.dim() == 1:
            shift, log_scale = shift.squeeze(0), log_scale.squeeze(0)
        return shift, self.squash(log_scale)


def _bounded(log_scale: Tensor) -> Tensor:
    """Between the most and minus the most, smoothly: Pyro's coupling cuts off, and lets a network run on behind the cut."""
    return _MOST_LOG_SCALE * (log_scale / _MOST_LOG_SCALE).tanh()
