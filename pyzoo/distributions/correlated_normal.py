"""A Gaussian over the parts of a whole whose sum can be far more certain than its terms."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, constraints, register_kl
from torch.distributions.utils import broadcast_all, lazy_property

from pyzoo.checks import require_broadcast, require_floating, require_kind, require_number

__all__ = ["CorrelatedNormal"]


class _Logits(constraints.Constraint):
    """Vectors of real numbers, or of -inf, the logit of nothing."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value < math.inf).all(-1)


class _SubSimplex(constraints.Constraint):
    """Vectors with non-negative entries whose sum is strictly below 1."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(-1) & (value.sum(-1) < 1)


class CorrelatedNormal(TorchDistribution):
    r"""K-variate normal in which one shared term sets the variance of the sum.

    .. math:: w_i = \mu_i + \sigma_i \Bigl(\epsilon_i - \rho_i \sum_{j=1}^{K} \epsilon_j\Bigr),
        \qquad \epsilon_i \sim \mathcal{N}(0, 1), \quad \rho_i \ge 0, \quad \sum_i \rho_i < 1

    In matrix form :math:`w \sim \mathcal{N}(\mu, D S S^\top D)` with :math:`D = \mathrm{diag}(\sigma)` and
    :math:`S = I - \rho \mathbf{1}^\top`. Sampling, density and entropy cost O(K), and so do the KLs to and from a diagonal
    normal and another of this kind: by the formula of Sherman and Morrison :math:`S^{-1} = I + \rho \mathbf{1}^\top / r`, and by
    the matrix determinant lemma :math:`\det S = r`, where :math:`r = 1 - \sum_i \rho_i`. There are KLs to and from a
    ``MultivariateNormal`` too.

    As r goes to 0 the sum becomes certain, if scales are equal, while every single term stays uncertain: of its variance 1 - 1/K
    is left where all rho are equal. Samples, entropy and the KL from this distribution use log r, and any r will do.
    ``log_prob``, the precision and the KL to this distribution need 1 / r: in float32 ``log_prob`` of the distribution's own
    samples is exact to some digits for logits of up to 14, and the other two for up to 43. At r = 0, which only arguments that
    are not validated can reach, the covariance is singular: there is no density and no precision, and every KL to it is infinite.

    Source: Berger and Sebag (2019), "Compositional Variational Auto-Encoder", appendix C. Two of its equations are misprinted:
    eq. 7, the variance of the sum (:meth:`marginal_sum` has the right one), from which follows that the sum becomes certain with
    any scales, where it does so with equal ones; and eq. 9, the KL to a diagonal normal, which lacks a factor 1/2 on its trace
    term and the constant -K/2. The tests hold both against dense matrices.

    Args:
        loc: mean, (..., K).
        scale: standard deviation of a term before the shared one is subtracted, (..., K), positive. See :attr:`variance`.
        rho: share of the summed noise taken from each term, (..., K), non-negative, sum below 1. Zero: independent terms.
        rho_logits: instead of rho, (..., K), any real number: rho is the softmax of these and of a last logit of zero (eq. 8).
        validate_args: check arguments and values; the default is Pyro's.

    Raises:
        ValueError: not exactly one of rho and rho_logits is given, an argument has no dimension, or it breaks its constraint.

    Example:
        >>> q = CorrelatedNormal(torch.zeros(3), torch.ones(3), rho_logits=torch.full((3,), 4.0))
        >>> q.variance
        tensor([0.6667, 0.6667, 0.6667])
        >>> q.marginal_sum().scale  # the sum is nearly certain
        tensor(0.0105)
        >>> p = dist.Normal(torch.zeros(3), 1.0).to_event(1)
        >>> torch.distributions.kl_divergence(q, p)
        tensor(4.6047)
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
        "rho": _SubSimplex(),
        "rho_logits": _Logits(),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        rho: Tensor | None = None,
        rho_logits: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if (rho is None) == (rho_logits is None):
            raise ValueError("CorrelatedNormal takes either rho or rho_logits, and not both.")
        self._correlation = "rho" if rho_logits is None else "rho_logits"  # the other one is derived when asked for
        arguments = {"loc": loc, "scale": scale, self._correlation: rho if rho_logits is None else rho_logits}
        for name, value in arguments.items():
            require_kind(value, name, Tensor, int, float)
            if isinstance(value, Tensor):
                require_floating(value, name)
            else:
                require_number(value, name)
        try:
            self.loc, self.scale, value = broadcast_all(*arguments.values())
        except RuntimeError as error:
            tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
            shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
            raise ValueError(f"The arguments of CorrelatedNormal must broadcast, got {shapes}.") from error
        if self.loc.dim() < 1:
            raise ValueError("CorrelatedNormal is K-variate: at least one argument must have a last dimension of size K.")
        if not self.loc.shape[-1]:
            raise ValueError("CorrelatedNormal is over one or more terms, got none.")
        setattr(self, self._correlation, value)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    @classmethod
    def infer_shapes(cls, loc: Any, scale: Any, rho: Any = None, rho_logits: Any = None) -> tuple[torch.Size, torch.Size]:
        given = {"loc": loc, "scale": scale, "rho": rho, "rho_logits": rho_logits}
        given = {name: shape for name, shape in given.items() if shape is not None}
        require_broadcast(**given)
        shape = torch.broadcast_shapes(*given.values())
        if not shape:
            raise ValueError("CorrelatedNormal is K-variate: at least one argument must have a last dimension of size K.")
        return shape[:-1], shape[-1:]

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "CorrelatedNormal":
        new = self._get_checked_instance(CorrelatedNormal, _instance)
        batch_shape = torch.Size(batch_shape)
        shape = batch_shape + self.event_shape
        new._correlation = self._correlation
        for name in ("loc", "scale", self._correlation):
            try:
                setattr(new, name, getattr(self, name).expand(shape))
            except RuntimeError as error:
                raise ValueError(
                    f"A batch of shape {tuple(self.batch_shape)} can't be expanded to {tuple(batch_shape)}."
                ) from error
        super(CorrelatedNormal, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @lazy_property
    def _log_shares(self) -> Tensor:
        """log(rho_1), ..., log(rho_K), log(1 - sum rho) out of one log-softmax, so that none underflows alone; (..., K + 1)."""
        return torch.nn.functional.pad(self.rho_logits, (0, 1)).log_softmax(-1)

    @lazy_property
    def rho(self) -> Tensor:
        """Share of the summed noise that each term gives up, (..., K)."""
        return self._log_shares[..., :-1].exp()

    @lazy_property
    def rho_logits(self) -> Tensor:
        """Logits of rho against a last logit of zero, (..., K); -inf where rho is 0."""
        return self.rho.log() - self._log_remainder.unsqueeze(-1)

    @lazy_property
    def _log_remainder(self) -> Tensor:
        """log(1 - sum rho) = log det S, batch shape."""
        return self._log_shares[..., -1] if self._correlation == "rho_logits" else (-self.rho.sum(-1)).log1p()

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Variance of each term, (..., K): scale^2 (1 - 2 rho + K rho^2)."""
        return self.scale.square() * self._trace_weight

    @property
    def stddev(self) -> Tensor:
        """Standard deviation of each term, (..., K), also where the variance would overflow."""
        return self.scale * self._trace_weight.sqrt()

    @property
    def _trace_weight(self) -> Tensor:
        """Squared length of each row of S: Var(w_i) / scale_i^2, (..., K)."""
        return (1 - self.rho).square() + (self.event_shape[0] - 1) * self.rho.square()

    @property
    def scale_factor(self) -> Tensor:
        """D S, a square root of the covariance (not triangular), (..., K, K)."""
        eye = torch.eye(self.event_shape[0], dtype=self.loc.dtype, device=self.loc.device)
        return self.scale.unsqueeze(-1) * (eye - self.rho.unsqueeze(-1))

    @property
    def covariance_matrix(self) -> Tensor:
        """D S S^T D, (..., K, K)."""
        return self.scale_factor @ self.scale_factor.mT

    @property
    def precision_matrix(self) -> Tensor:
        """Inverse of the covariance, without inverting it, (..., K, K)."""
        eye = torch.eye(self.event_shape[0], dtype=self.loc.dtype, device=self.loc.device)
        whiten = eye + (self.rho * (-self._log_remainder).exp().unsqueeze(-1)).unsqueeze(-1)  # S^-1
        whiten = whiten / self.scale.unsqueeze(-2)
        return whiten.mT @ whiten

    def marginal_sum(self) -> Normal:
        r"""The normal of :math:`\sum_i w_i`, batch shape.

        With :math:`s = \sum_i \sigma_i \rho_i` its variance is :math:`\sum_i (\sigma_i - s)^2`, which is what eq. 7 should say.
        """
        # Around the mean scale, so that equal scales give mean * r with no cancellation.
        mean, offset = _mean_and_deviations(self.scale)
        shared = mean * self._log_remainder.exp().unsqueeze(-1) - (self.rho * offset).sum(-1, keepdim=True)
        terms = offset + shared
        unit = terms.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(terms.dtype).tiny)  # whose square can be represented
        norm = unit.squeeze(-1) * torch.linalg.vector_norm(terms / unit, dim=-1)
        return dist.Normal(self.loc.sum(-1), norm, validate_args=False)

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        noise = self.loc.new_empty(self._extended_shape(sample_shape)).normal_()
        return self.loc + self.scale * (noise - self.rho * noise.sum(-1, keepdim=True))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        noise = _whiten(value - self.loc, self.scale, self.rho, self._log_remainder)
        return -0.5 * noise.square().sum(-1) - self._half_log_det - 0.5 * self.event_shape[0] * math.log(2 * math.pi)

    @property
    def _half_log_det(self) -> Tensor:
        """log det(D S), half the covariance's, batch shape."""
        return self.scale.log().sum(-1) + self._log_remainder

    def entropy(self) -> Tensor:
        return self._half_log_det + 0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi))


def _whiten(offset: Tensor, scale: Tensor, rho: Tensor, log_remainder: Tensor) -> Tensor:
    """S^-1 D^-1 applied to offsets along the last dimension, (..., K), in O(K) by the formula of Sherman and Morrison."""
    scaled = offset / scale
    inverse = (-log_remainder).exp().clamp(max=torch.finfo(log_remainder.dtype).max)  # infinite, it would make nan of a sum of 0
    total = scaled.sum(-1, keepdim=True) * inverse.unsqueeze(-1)
    return scaled + rho * total


def _mean_and_deviations(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean along the last dimension, which is kept, and the deviations from it, which are exactly 0 for equal values."""
    first = values[..., :1]
    mean = first + (values - first).mean(-1, keepdim=True)
    return mean, values - mean


def _require_equal_size(q: torch.distributions.Distribution, p: torch.distributions.Distribution) -> None:
    if q.event_shape != p.event_shape:
        raise ValueError(f"KL from a distribution over {q.event_shape[0]} terms to one over {p.event_shape[0]}.")
    require_broadcast(q=q.batch_shape, p=p.batch_shape)


def _diagonal(d: Independent) -> Normal:
    """The normals of a diagonal normal over vectors."""
    if not isinstance(d.base_dist, Normal) or d.reinterpreted_batch_ndims != 1:
        what = f"{type(d.base_dist).__name__} with {d.reinterpreted_batch_ndims} event dimensions"
        raise NotImplementedError(f"There is a closed form for a Normal with one event dimension, and none for a {what}.")
    return d.base_dist


@register_kl(CorrelatedNormal, Independent)
def _kl_correlated_diagonal(q: CorrelatedNormal, p: Independent) -> Tensor:
    """Eq. 9 corrected; O(K). Under ``to_event`` Pyro strips the shared event dimensions and comes here."""
    normal = _diagonal(p)
    _require_equal_size(q, p)
    ratio = q.scale / normal.scale
    shift = ((q.loc - normal.loc) / normal.scale).square()
    return (0.5 * (shift + q._trace_weight * ratio.square() - 1) - ratio.log()).sum(-1) - q._log_remainder


@register_kl(CorrelatedNormal, MultivariateNormal)
def _kl_correlated_dense(q: CorrelatedNormal, p: MultivariateNormal) -> Tensor:
    """Trace and shift together are the squares of one triangular solve; O(K^3), for p's sake."""
    _require_equal_size(q, p)
    shift = (p.loc - q.loc).unsqueeze(-1)
    columns = torch.cat([q.scale_factor.expand(*shift.shape[:-1], -1), shift], -1)
    squares = torch.linalg.solve_triangular(p.scale_tril, columns, upper=False).square().sum((-2, -1))
    half_log_det = p.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (squares - q.event_shape[0]) + half_log_det - q._half_log_det


def _kl_to_correlated(squares: Tensor, half_log_det: Tensor, p: CorrelatedNormal) -> Tensor:
    """The KL from half the log-determinant of q's covariance, and the trace and the squared shift in units of p's noise."""
    kl = 0.5 * (squares - p.event_shape[0]) + p._half_log_det - half_log_det
    # Singular, or of scales whose ratio overflows: inf - inf otherwise.
    return torch.where(p._log_remainder.isneginf() | ~squares.isfinite(), math.inf, kl)


@register_kl(Independent, CorrelatedNormal)
def _kl_diagonal_correlated(q: Independent, p: CorrelatedNormal) -> Tensor:
    """The trace is the sum of ratio_i ((S S^T)^-1)_ii; O(K)."""
    normal = _diagonal(q)
    _require_equal_size(q, p)
    ratio = (normal.scale / p.scale).square()
    inverse = (-p._log_remainder).exp()
    # Sums before factors: a share that underflows to 0 must not meet an infinite 1 / r.
    trace = ratio.sum(-1) + 2 * (p.rho * ratio).sum(-1) * inverse + p.rho.square().sum(-1) * ratio.sum(-1) * inverse.square()
    shift = _whiten(normal.loc - p.loc, p.scale, p.rho, p._log_remainder).square().sum(-1)
    return _kl_to_correlated(trace + shift, normal.scale.log().sum(-1), p)


@register_kl(MultivariateNormal, CorrelatedNormal)
def _kl_dense_correlated(q: MultivariateNormal, p: CorrelatedNormal) -> Tensor:
    """Trace and shift together are squares of whitened vectors, the columns of q's Cholesky factor and the shift; O(K^2)."""
    _require_equal_size(q, p)
    shift = (q.loc - p.loc).unsqueeze(-2)
    rows = torch.cat([q.scale_tril.mT.expand(*shift.shape[:-2], -1, -1), shift], -2)
    noise = _whiten(rows, p.scale.unsqueeze(-2), p.rho.unsqueeze(-2), p._log_remainder.unsqueeze(-1))
    half_log_det = q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl_to_correlated(noise.square().sum((-2, -1)), half_log_det, p)


@register_kl(CorrelatedNormal, CorrelatedNormal)
def _kl_correlated_correlated(q: CorrelatedNormal, p: CorrelatedNormal) -> Tensor:
    r"""The trace is the squared norm of :math:`S_p^{-1} G S_q`, where G is the diagonal of the ratios of the scales; O(K).

    With :math:`g_j = \bar g + \delta_j` an entry of that matrix is :math:`g_i [i = j] + d_i + \rho_{p,i} \delta_j / r_p`, where
    :math:`d_i = \rho_{p,i} (\bar g r_q - \sum_k \rho_{q,k} \delta_k) / r_p - g_i \rho_{q,i}`. The deviations from the mean ratio
    keep equal ratios exact: then r_q and r_p occur as their quotient alone, which can be moderate where both are tiny.
    """
    _require_equal_size(q, p)
    ratio = q.scale / p.scale  # g
    mean, deviation = _mean_and_deviations(ratio)
    deviation = deviation * (-p._log_remainder).exp().unsqueeze(-1)  # delta / r_p
    quotient = (q._log_remainder - p._log_remainder).exp().unsqueeze(-1)
    d = p.rho * (mean * quotient - (q.rho * deviation).sum(-1, keepdim=True)) - ratio * q.rho
    spread = p.rho.square() * deviation.square().sum(-1, keepdim=True)  # the deviations sum to 0, so no product with d is left
    trace = q.event_shape[0] * d.square() + spread + 2 * ratio * (d + p.rho * deviation) + ratio.square()
    shift = _whiten(q.loc - p.loc, p.scale, p.rho, p._log_remainder).square()
    return _kl_to_correlated((trace + shift).sum(-1), q._half_log_det, p)
