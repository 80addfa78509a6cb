r"""T-VAE: a VAE whose latent space holds images and the transformations between them.

.. math:: p(x, x_1, x_2, z, T) = \pi(z)\, \pi(T)\, p(x \mid z_0)\, p(x_1 \mid z_1)\, p(x_2 \mid z_2), \qquad
    z_0 = z, \quad z_1 = T z, \quad z_2 = T^{-1} z

Of a triplet of images (x, f(x), f^-1(x)) the model knows neither f nor its kind: T is a latent variable, and the map that applies
it to z makes it one that has an inverse and an identity. Where no transformation exists, the model is a standard VAE.

What is minimized, with the guide's q (eq. 3, and the indirect term that takes the place of its second):

.. math:: \mathcal{L} = \mathbb{E}_q \bigl[ &-\log p(x \mid z_0) - \log p(x_1 \mid z_1) - \log p(x_2 \mid z_2) + \mathrm{KL}(q(z_0
    \mid x) \,\|\, \pi) - \log p(x \mid z) \bigr] \\ &+ D(z_1, T z) + D(z_2, T^{-1} z) + D(z, \pi)

Source: Giannone, Masci and Osendorfer (2019), "No Representation without Transformation", section 2 and appendix B. How we read
its gaps:

- z_0 = z, since T_id is the identity: here z_0 is drawn from the prior, and z is set to it. In training the indirect coherence
  term F_x|z makes them equal: the KL of z_0, which is that site's own term, and the factor ``penalty/indirect/x``.
- Eq. 3 decodes the z_1 that the guide draws from q(z_1 | x_1). So z_1 and z_2 are sites, here points at T z and T^-1 z, whose
  densities are not scored: the factors ``penalty/coherence/z_1`` and ``.../z_2`` stand in their place, and that of z in place
  of pi(z)'s. D is the squared maximum mean discrepancy; its weight and its kernel are not printed. Ours is normal,
  and its width the square root of the number of dimensions.
- D in eq. 3 compares two distributions of one triplet, and in InfoVAE, which it follows, those of all examples together. With
  ``coherence`` "marginal" it is between all z_1 of a batch and all its T z, and can vanish though no triplet's z_1 is near its
  T z. "conditional" is ours: the mean over triplets of the discrepancy of one point z_1 to one point T z, which vanishes for
  equal points alone, not for equal distributions. That of z and N(0, I) is marginal in any case. A marginal discrepancy is no
  sum over images: processes that share a batch each see that of their slice.
- Eq. 3 has no term for pi(T), though eq. 1 has it: in the paper nothing ties T to its prior, which here is N(0, I). With a
  ``transformation_weight``, which is ours again, the factor ``penalty/prior/T`` scores T by that prior. It is not a KL, since
  the entropy of an implicit q(T) is not known. So it draws T toward 0, the identity, and the latents of an image's views
  toward each other. A weight of 0 is the paper's setting.
- Where no density is scored nothing rewards entropy: q(z | z_1, z_2) becomes all but a point, and z keeps a spread of its own,
  smaller than the prior's, wherever the weight of its discrepancy is small beside a likelihood.
- How weights are drawn is not said: as He et al. (2015) for ReLU, since with torch's defaults five layers learn very slowly.
- 28x28 images come out with paddings of 1, 1, 1, 1, 2 in the encoder and 0, 0, 1, 2, 1 in the decoder.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, runtime_checkable

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import num_rows, require_count, require_floating, require_kind, require_number, require_observed, require_shape
from pyzoo.errors import UsageError
from pyzoo.infer import gaussian_kernel, squared_mmd, squared_mmd_to_normal
from pyzoo.nn import Head, Networks, he_initialized
from pyzoo.settings import AtLeast, Count, Length, NoFlag, Weight

__all__ = ["LATENT_MAPS", "TVAE", "Additive", "Coherence", "LatentMap", "Matrix", "TVAENetworks", "VAENetworks"]

Coherence = Literal["marginal", "conditional"]


@runtime_checkable
class LatentMap(Protocol):
    """r_chi of eq. 1: how a transformation T acts on a latent z. T = 0 is the identity, and -T the inverse of T."""

    def shape(self, z_dim: int) -> tuple[int, ...]:
        """The shape of T, for latents of so many dimensions."""

    def __call__(self, z: Tensor, T: Tensor) -> Tensor:
        """T applied to z, (batch, z_dim)."""


class Additive:
    """z + T: the paper's map.

    Example:
        >>> Additive()(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 3.0]]))
        tensor([[1., 5.]])
    """

    def shape(self, z_dim: int) -> tuple[int, ...]:
        return (z_dim,)

    def __call__(self, z: Tensor, T: Tensor) -> Tensor:
        require_shape(T, "T", tuple(z.shape))
        return z + T


class Matrix:
    """exp(T / z_dim) z, a product of matrix and vector. Section 4 has T z; with the exponential, which is ours, there is an
    inverse always, exp(-T / z_dim).

    Without the division a T with entries of order one, as networks and N(0, I) give it, would be an enormous map.

    Example:
        >>> eighth = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]) * torch.pi / 2
        >>> Matrix()(torch.tensor([[1.0, 0.0]]), eighth)
        tensor([[0.7071, 0.7071]])
    """

    def shape(self, z_dim: int) -> tuple[int, ...]:
        return (z_dim, z_dim)

    def __call__(self, z: Tensor, T: Tensor) -> Tensor:
        require_floating(z, "z")
        require_shape(T, "T", (*z.shape, *z.shape[-1:]))
        with torch.autocast(z.device.type, enabled=False):  # the exponential goes wrong in half precision
            matrix = torch.linalg.matrix_exp(T.to(z.dtype) / z.shape[-1])
            return (matrix @ z.unsqueeze(-1)).squeeze(-1)


class TVAE(PyroModule):
    """The generative story, for any decoder.

    :func:`pyzoo.infer.log_likelihood` is of x alone, that is, of the standard VAE of figure 1c. With views, sites without a score
    take part, and its result is then not a likelihood.

    Args:
        decoder: network from z, (rows, z_dim), to the logits of the pixels, (rows, channels, height, width).
        z_dim: dimensions of z.
        latent_map: how T acts on z; None where there is no transformation, which leaves a standard VAE of z_0 and x.
        num_views: transformed images of each image.
        inverse_views: there are two views, the second by the inverse of T; if not, each view has a transformation of its own,
            and none needs an inverse (section 4).
        coherence: "marginal" or "conditional", see above.
        coherence_weight: of the discrepancies of z_1, z_2, ..., in nats for each image.
        prior_weight: of the discrepancy between z and N(0, I), likewise.
        transformation_weight: of -log pi(T).

    Raises:
        ValueError: there are inverse views and not two, no view at all, coherence is neither, or a weight is negative.

    Example:
        >>> model = TVAENetworks(z_dim=3, decoder_channels=(4, 4, 4, 4)).model()
        >>> x, views = model(size=5)
        >>> x.shape, views.shape
        (torch.Size([5, 1, 28, 28]), torch.Size([5, 2, 1, 28, 28]))
    """

    def __init__(
        self,
        decoder: nn.Module,
        z_dim: int,
        latent_map: LatentMap | None = None,
        num_views: int = 2,
        inverse_views: bool = True,
        coherence: Coherence = "marginal",
        coherence_weight: float = 1.0,
        prior_weight: float = 1.0,
        transformation_weight: float = 0.0,
    ) -> None:
        super().__init__("model")
        require_kind(decoder, "decoder", nn.Module)
        require_kind(latent_map, "latent_map", LatentMap, type(None))
        if inverse_views and num_views != 2:
            raise ValueError(f"A transformation and its inverse give two views, not {num_views}.")
        require_count(num_views, "num_views")
        require_count(z_dim, "z_dim")
        if coherence not in ("marginal", "conditional"):
            raise ValueError(f"coherence is 'marginal' or 'conditional', not '{coherence}'.")
        require_number(coherence_weight, "coherence_weight", AtLeast(0))
        require_number(prior_weight, "prior_weight", AtLeast(0))
        require_number(transformation_weight, "transformation_weight", AtLeast(0))
        self.decoder = decoder
        self.z_dim = z_dim
        self.latent_map = latent_map
        self.num_views = num_views
        self.inverse_views = inverse_views
        self.coherence = coherence
        self.coherence_weight = coherence_weight
        self.prior_weight = prior_weight
        self.transformation_weight = transformation_weight

    def forward(self, x: Tensor | None = None, views: Tensor | None = None, size: int = 1) -> Tensor | tuple[Tensor, Tensor]:
        """Draws z and T, then x and its views; returns x and the views.

        Given x alone, or where there is no transformation, it is the standard VAE of figure 1c, z_0 and x, and returns x: that is
        what likelihoods are of.

        Args:
            x: the observed images, (batch, channels, height, width), or None to draw them.
            views: their transformed versions, (batch, views, channels, height, width), or None.
            size: how many to draw if x is None.

        Raises:
            ValueError: there are views without x, of another number of images, or others than ``num_views`` of each; or the model
                has no transformation.
        """
        size = num_rows(x, size)
        if views is not None and (self.latent_map is None or x is None or x.shape[:1] != views.shape[:1]):
            raise ValueError("Views are given together with their images x, one row for each, to a model that has a latent map.")
        if views is not None:
            require_shape(views, "views", ("batch", self.num_views, *x.shape[1:]), batch=size)
        like = next(self.decoder.parameters(), torch.zeros(()))
        zeros = like.new_zeros(size, self.z_dim)
        with pyro.plate("data", size):
            z_0 = pyro.sample("z_0", dist.Normal(zeros, 1).to_event(1))
            if self.latent_map is None or (x is not None and views is None):
                [p_x] = self.likelihoods(z_0)
                if x is not None:
                    require_observed(x, "x", size, p_x.event_shape)
                return pyro.sample("x", p_x, obs=x)
            z = pyro.sample("z", dist.Delta(z_0, event_dim=1).mask(False))  # T_id: z and z_0 are equal
            T_shape = self.transformation_shape
            T = pyro.sample("T", dist.Normal(zeros.new_zeros(size, *T_shape), 1).to_event(len(T_shape)).mask(False))
            moved = self.transform(z, T)
            z_views = [pyro.sample(f"z_{i}", dist.Delta(z_T, event_dim=1).mask(False)) for i, z_T in enumerate(moved, 1)]
            p_x_0, p_x, *p_views = self.likelihoods(z_0, z, *z_views)
            if x is not None:
                require_observed(x, "x", size, p_x.event_shape)
            seen = [None] * self.num_views if views is None else views.unbind(1)
            drawn = [pyro.sample(f"x_{i}", p, obs=image) for i, (p, image) in enumerate(zip(p_views, seen, strict=True), 1)]
            if x is not None:
                pyro.factor("penalty/indirect/x", p_x.log_prob(x))  # F_x|z, but for z_0's KL, which is z_0's own term
            if views is not None and self.transformation_weight:
                # log pi(T) but for its constant, hundreds of nats that say nothing
                pyro.factor("penalty/prior/T", -0.5 * self.transformation_weight * T.square().flatten(1).sum(-1))
            x = pyro.sample("x", p_x_0, obs=x)
        if views is not None:
            # The discrepancies of eq. 3. Each is one number for the whole batch, over which Pyro sums.
            pyro.factor("penalty/coherence/z", -size * self.prior_weight * squared_mmd_to_normal(z))
            for i, (z_view, z_T) in enumerate(zip(z_views, moved, strict=True), 1):
                pyro.factor(f"penalty/coherence/z_{i}", -size * self.coherence_weight * self.discrepancy(z_view, z_T))
        return x, torch.stack(drawn, dim=1)

    @property
    def transformation_shape(self) -> tuple[int, ...]:
        """Of one image's T: the map's, or with views that are no inverses (views, ...)."""
        if self.latent_map is None:
            raise ValueError("A standard VAE has no transformation: latent_map is None.")
        shape = self.latent_map.shape(self.z_dim)
        return shape if self.inverse_views else (self.num_views, *shape)

    def transform(self, z: Tensor, T: Tensor) -> tuple[Tensor, ...]:
        """The latents of the views, each (batch, z_dim): T z and T^-1 z, or each view's own T applied to z."""
        require_shape(z, "z", ("batch", self.z_dim))
        require_shape(T, "T", ("batch", *self.transformation_shape), batch=len(z))
        transformations = (T, -T) if self.inverse_views else T.unbind(1)
        return tuple(self.latent_map(z, transformation) for transformation in transformations)

    def discrepancy(self, first: Tensor, second: Tensor) -> Tensor:
        """D between the latents of the batch's images, (batch, z_dim) each: 0-dim."""
        if self.coherence == "marginal":
            return squared_mmd(first, second)
        return 2 - 2 * gaussian_kernel(first, second).mean()  # squared_mmd of two single points

    def likelihoods(self, *latents: Tensor) -> list[dist.TorchDistribution]:
        """p(x | z) for each of several latents, (batch, z_dim); one call of the decoder, which is faster than one for each."""
        require_count(len(latents), "the number of latents")
        for z in latents:
            require_shape(z, "latents", ("batch", self.z_dim))
        logits = self.decoder(torch.cat(latents)).split([len(z) for z in latents])
        # Gray pixels are allowed: minus their cross-entropy is the mean of log p over binarizations of the image.
        return [dist.Bernoulli(logits=part, validate_args=False).to_event(3) for part in logits]


def decoder(z_dim: int, channels: Sequence[int], x_shape: tuple[int, int, int] = (1, 28, 28)) -> nn.Sequential:
    """Appendix B: logits of the pixels from z, (rows, z_dim); heights 1, 4, 7, 8, 14, 28.

    The last layers double the height twice. Images of another size, square and of 16 or more pixels, a multiple of 4, have
    another first kernel: of size 4 for the paper's 28 pixels, 5 for 32.
    """
    pixels = x_shape[1]
    sizes = (z_dim, *channels, x_shape[0])
    first = (pixels - 12) // 4
    layers: list[nn.Module] = [nn.Unflatten(1, (z_dim, 1, 1))]
    for i, (kernel, stride, padding) in enumerate([(first, 1, 0), (4, 1, 0), (4, 1, 1), (4, 2, 2), (4, 2, 1)]):
        layers += [nn.ReLU()] if i else []
        layers.append(nn.ConvTranspose2d(sizes[i], sizes[i + 1], kernel, stride=stride, padding=padding))
    return he_initialized(nn.Sequential(*layers[:-1], Head(layers[-1])))


# Sizes --------------------------------------------------------------------------------------------------------------

Channels = Annotated[tuple[Count, ...], Length(4, exactly=True)]

LATENT_MAPS: dict[str, type[LatentMap]] = {"additive": Additive, "matrix": Matrix}
"""The maps by which T acts on z, by name."""


@dataclasses.dataclass(frozen=True)
class VAENetworks(Networks):
    """The standard VAE within, with the encoder and decoder of appendix B.

    Example:
        >>> VAENetworks(z_dim=3, decoder_channels=(4, 4, 4, 4)).model()(size=5).shape
        torch.Size([5, 1, 28, 28])
    """

    z_dim: Count = 10
    """Dimensions of z."""
    encoder_channels: Channels = (32, 32, 64, 128)
    """Channels of the encoder's hidden layers, from x to z."""
    decoder_channels: Channels = (128, 64, 32, 32)
    """Channels of the decoder's hidden layers, from z to x."""
    x_shape: Annotated[tuple[Count, Count, Count], NoFlag()] = (1, 28, 28)
    """Channels, height and width of an image: square, with a side that is a multiple of 4 and at least 16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _, height, width = self.x_shape
        if height != width or height % 4 or height < 16:
            raise UsageError(
                f"images of {height} x {width} pixels don't fit: T-VAE's networks take square images whose side is a multiple of "
                "4 and at least 16; set --image-size"
            )

    def model(self) -> TVAE:
        return TVAE(decoder(self.z_dim, self.decoder_channels, self.x_shape), self.z_dim)

    def guide(self, model: TVAE) -> PyroModule:
        from pyzoo.guides.tvae import vae_guide

        return vae_guide(self)


@dataclasses.dataclass(frozen=True)
class TVAENetworks(VAENetworks):
    """T-VAE, with the networks of appendix B and the weights of its discrepancies.

    Example:
        >>> networks = TVAENetworks(z_dim=3, encoder_channels=(4, 4, 4, 4), decoder_channels=(4, 4, 4, 4), hidden_dim=8)
        >>> model = networks.model()
        >>> guide = networks.guide(model)
        >>> x, views = model(size=5)
        >>> x.shape, views.shape
        (torch.Size([5, 1, 28, 28]), torch.Size([5, 2, 1, 28, 28]))
    """

    hidden_dim: Count = 1000
    """Hidden units of the networks of z and T."""
    latent_map: Literal["additive", "matrix"] = "additive"
    """How T acts on z: z + T, or a product with an invertible matrix."""
    coherence: Coherence = "marginal"
    """What the discrepancy of z_1 and T z compares: all images of a batch together, or each image by itself."""
    coherence_weight: Weight = 1.0
    """Weight of the discrepancies of z_1 and z_2, in nats for each image."""
    prior_weight: Weight = 1.0
    """Weight of the discrepancy between z and the standard normal."""
    transformation_weight: Weight = 0.0
    """Weight of T's prior, which draws the latents of an image's views to each other; 0 leaves T unscored, as in the paper."""
    num_views: Count = 2
    """Transformed versions of each image; with other numbers than 2, each has a transformation of its own."""
    inverse_views: Annotated[bool, NoFlag()] = True
    """Whether there are two views, the second by the inverse of T."""

    def model(self, latent_map: LatentMap | None = None) -> TVAE:
        """The generative program.

        Args:
            latent_map: your own map; by default that of ``latent_map``'s name.
        """
        return TVAE(
            decoder(self.z_dim, self.decoder_channels, self.x_shape),
            self.z_dim,
            latent_map or LATENT_MAPS[self.latent_map](),
            num_views=self.num_views,
            inverse_views=self.inverse_views,
            coherence=self.coherence,
            coherence_weight=self.coherence_weight,
            prior_weight=self.prior_weight,
            transformation_weight=self.transformation_weight,
        )

    def guide(self, model: TVAE) -> PyroModule:
        from pyzoo.guides.tvae import tvae_guide

        return tvae_guide(self, model)
