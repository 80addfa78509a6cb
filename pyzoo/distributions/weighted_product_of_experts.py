"""A Gaussian belief put together from several experts' beliefs and a prior, each with a weight, some of them absent."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyzoo.checks import require_kind, require_tensor
from pyzoo.settings import cut

__all__ = ["WeightedProductOfExperts"]


class WeightedProductOfExperts(dist.Normal):
    r"""The normalized product of a normal prior and of experts' normal densities, each to the power of its weight.

    .. math:: q(z) = \frac{1}{C}\, p_0(z) \prod_{i=1}^{N} \tilde q_i(z)^{m_i}, \qquad
        \frac{1}{\sigma^2} = \frac{1}{\sigma_0^2} + \sum_i \frac{m_i}{\sigma_i^2}, \qquad
        \mu = \sigma^2 \Bigl(\frac{\mu_0}{\sigma_0^2} + \sum_i \frac{m_i \mu_i}{\sigma_i^2}\Bigr)

    It is a ``Normal`` in all respects, with ``log_normalizer``, log C, beside. A weight of 0 removes an expert, and so does its
    absence, exactly: a product with absent experts is bit for bit that of the others, and with no expert at all it is the prior.
    Where an expert is absent its loc and scale may be anything, not-a-number too, and get no gradient; where it has a weight of 0
    they must be finite, since the weight has a gradient.

    In a multimodal VAE the experts are the quotients of q(z | x_i) and p(z): q(z | x_i) is the product of the prior and one.

    Source: Zhang, Koyama and Ishiguro (2020), eqs. 12 and 13, whose sigma is a variance, and whose mean is printed with a factor
    1 / sigma for sigma. With weights of 1 this is the product of Wu and Goodman (2018), "Multimodal Generative Models for
    Scalable Weakly-Supervised Learning".

    Args:
        loc: experts' means, with the experts along dimension ``dim``, in a VAE (batch, experts, features).
        scale: experts' standard deviations, positive; broadcasts with loc, as do all others.
        weights: the experts' powers m_i, from 0 to 1; 1 by default.
        present: which experts there are, boolean, with the shape of loc up to dimension ``dim``, in a VAE (batch, experts); by
            default all.
        prior_loc: mean of p_0, of the product's shape.
        prior_scale: its standard deviation, positive.
        dim: the experts' dimension, negative.
        validate_args: check arguments and values; the default is Pyro's.

    Raises:
        ValueError: shapes do not fit, or ``present`` is not boolean; a weight is not between 0 and 1; the scale of a present
            expert is not positive, or so small that its precision overflows; loc or scale are not floating-point; or ``dim`` is
            not negative and among the dimensions of loc.

    Example:
        >>> loc, scale = torch.tensor([[[2.0], [-1.0]]]), torch.ones(1, 2, 1)  # one row, two experts, one feature
        >>> q = WeightedProductOfExperts(loc, scale)
        >>> q.mean, q.variance
        (tensor([[0.3333]]), tensor([[0.3333]]))
        >>> WeightedProductOfExperts(loc, scale, present=torch.tensor([[True, False]])).mean
        tensor([[1.]])
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        weights: Tensor | None = None,
        present: Tensor | None = None,
        prior_loc: float | Tensor = 0.0,
        prior_scale: float | Tensor = 1.0,
        *,
        dim: int = -2,
        validate_args: bool | None = None,
    ) -> None:
        require_tensor(loc, "loc")
        require_tensor(scale, "scale")
        if not (loc.is_floating_point() and scale.is_floating_point()):
            raise ValueError(f"loc and scale must be floating-point tensors, got {loc.dtype} and {scale.dtype}.")
        if not isinstance(dim, int) or not -loc.dim() <= dim < 0:
            raise ValueError(f"dim must be negative and among the {loc.dim()} dimensions of loc, got {dim}.")
        require_kind(prior_loc, "prior_loc", Tensor, Real)
        require_kind(prior_scale, "prior_scale", Tensor, Real)
        weights = torch.ones_like(loc) if weights is None else _real(weights, "weights", loc)
        prior_loc, prior_scale = _real(prior_loc, "prior_loc", loc), _real(prior_scale, "prior_scale", loc)
        if present is not None:
            require_tensor(present, "present")
        if present is not None and present.dtype != torch.bool:
            raise ValueError(f"present must be boolean, got {present.dtype}.")
        is_checked = self._validate_args if validate_args is None else validate_args
        if is_checked:
            there = () if present is None else present.shape
            self.infer_shapes(loc.shape, scale.shape, weights.shape, there, prior_loc.shape, prior_scale.shape, dim=dim)
        if present is not None:
            there = present.reshape(*present.shape, *(1,) * (-dim - 1))
            # Before any arithmetic: a value that is not a number would reach the gradients through a product with zero.
            loc, scale = torch.where(there, loc, 0.0), torch.where(there, scale, 1.0)
            weights = torch.where(there, weights, 0.0)
        loc, scale, weights = torch.broadcast_tensors(loc, scale, weights)
        if is_checked:
            if not ((weights >= 0) & (weights <= 1)).all():
                raise ValueError(
                    f"Weights must be between 0 and 1, got {weights.min().item():.8g} to {weights.max().item():.8g}."
                )
            if not scale.isfinite().all():
                raise ValueError("The scales of present experts must be finite.")
            if not (scale > 0).all():
                raise ValueError(f"The scales of present experts must be positive, got {scale.min().item():.3g}.")
            if not (prior_scale > 0).all() or not prior_scale.isfinite().all():
                raise ValueError(f"prior_scale must be positive and finite, got {prior_scale.min().item():.3g}.")
            if not prior_loc.isfinite().all():
                raise ValueError("prior_loc must be finite.")
        none = 0.0 if loc.shape[dim] else loc.sum(dim)  # zeros of the product's shape, which nothing else gives then
        shares, means, densities = [], [], []
        for mean, deviation, weight in zip(loc.unbind(dim), scale.unbind(dim), weights.unbind(dim), strict=True):
            shares.append(weight * (prior_scale / deviation).square())  # of the expert's precision in the prior's
            means.append(mean - prior_loc)
            densities.append(weight * (2 * deviation.log() + ((mean - prior_loc) / deviation).square() + math.log(2 * math.pi)))
        # One after the other, and relative to the prior: so zeros change no bit.
        total = 1 + sum(shares, start=none)
        if is_checked and not total.isfinite().all():
            smallest = f"{scale.min().item():.3g}"
            raise ValueError(f"The precision of an expert of scale {smallest} overflows in {loc.dtype}, relative to the prior's.")
        shift = sum((share * mean for share, mean in zip(shares, means, strict=True)), start=none) / total
        product_scale = prior_scale / total.sqrt()
        self.log_normalizer = (total * (shift / prior_scale).square() - total.log() - sum(densities)) / 2
        product_loc = prior_loc + shift
        if is_checked and not (product_loc.isfinite() & self.log_normalizer.isfinite()).all():
            raise ValueError(f"The experts' means are not finite, or too far apart for {loc.dtype}.")
        super().__init__(product_loc, product_scale, validate_args=validate_args)

    @classmethod
    def infer_shapes(
        cls,
        loc: Sequence[int] = (),
        scale: Sequence[int] = (),
        weights: Sequence[int] = (),
        present: Sequence[int] = (),
        prior_loc: Sequence[int] = (),
        prior_scale: Sequence[int] = (),
        *,
        dim: int = -2,
    ) -> tuple[torch.Size, torch.Size]:
        """Batch and event shape from the arguments' shapes, without making the distribution; ``dim`` as of the class."""
        there = (*present, *(1,) * (-dim - 1)) if present else ()
        given = {"loc": loc, "scale": scale, "weights": weights, "present": present, "prior_loc": prior_loc}
        try:
            experts = torch.broadcast_shapes(tuple(loc), tuple(scale), tuple(weights), there)
            if not -len(experts) <= dim < 0:
                raise ValueError(f"dim must be negative and among the {len(experts)} dimensions of the experts, got {dim}.")
            product = experts[:dim] + experts[len(experts) + dim + 1 :]
            return torch.Size(torch.broadcast_shapes(product, tuple(prior_loc), tuple(prior_scale))), torch.Size()
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in {**given, "prior_scale": prior_scale}.items() if shape)
            raise ValueError(f"The experts' shapes must broadcast, and the prior's with the product, got {shapes}.") from error

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "WeightedProductOfExperts":
        new = type(self).__new__(type(self)) if _instance is None else _instance
        try:
            super().expand(batch_shape, new)
        except RuntimeError as error:
            raise ValueError(f"A batch of shape {tuple(self.batch_shape)} can't be expanded to {tuple(batch_shape)}.") from error
        new.log_normalizer = self.log_normalizer.expand(batch_shape)
        return new


def _real(value: Any, name: str, like: Tensor) -> Tensor:
    """Real numbers as a tensor of another's type and device.

    Raises:
        ValueError: they are none.
    """
    if isinstance(value, Tensor):
        if value.is_complex() or value.layout is not torch.strided or (value.is_meta and not like.is_meta):
            raise ValueError(f"{name} must be a plain tensor of real numbers, got one of {value.dtype}, {value.layout}.")
        return value.to(like)
    try:
        return torch.as_tensor(value, dtype=like.dtype, device=like.device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} must be real numbers, got {cut(value)}.") from error
