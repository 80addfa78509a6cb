r"""MONet: a scene as a mixture of components, one for each slot; and the message passing prior on it, MPP^M.

.. math:: p(x, z \mid m) = \prod_{k=1}^{K} p(z_k) \prod_{i} \sum_{k=1}^{K} m_{ki}\, \mathcal{N}(x_i; \hat x_{ki}(z_k), \sigma_k^2)

Each pixel i belongs to one of K slots, slot k with probability m_ki. All slots share one decoder, which makes of z_k an image and
a mask of its own. What is minimized, with the guide's masks m and the decoder's, is

.. math:: \mathcal{L} = \mathbb{E}_q \bigl[-\log p(x \mid z, m) + \gamma\, \mathrm{KL}(m \,\|\, \hat m(z))\bigr] +
    \beta\, \mathrm{KL}(q(z \mid x, m) \,\|\, p(z))

In MONet the z_k are independent. In MPP^M each splits into a local part and a global one,
z_k = (z_k^c, z_k^g), and the global parts are related by one latent of the scene, z^0, through invertible maps; z is then all
three.

Source: Burgess et al. (2019), "MONet: Unsupervised Scene Decomposition and Representation"; Ren et al. (2023), "Learning Latent
Structural Relations with Message Passing Prior", supplement, sections B, D and F, tables 8 and 9. How we read them:

- There are two kinds of masks. Attention makes some in the guide, where the site m is a point without a score; the model reads
  these where it scores an image. The decoder makes others, which the model draws with. The factor ``penalty/masks``, gamma KL of
  MONet, ties the second to the first.
- The mixture is one for each pixel, joint over its channels.
- Eq. 12 of the supplement has another likelihood, each slot's own weighted by its mask, and masks that are Bernoulli in each
  slot, whose divergence has a weight of 1: ``likelihood`` is "mixture" or "weighted", the same for all rows of a table, and
  gamma is ``mask_weight`` with either. Drawn masks are shares that sum to 1 with either, too.
- Eq. 11 decodes z_k^g itself, figure 11 and table 9 what z^0 makes of it: here it is z_k^g.
- Eqs. 11 and 14 infer z^0 from one component, and charge its divergence once for each of them; here it is inferred from all
  and charged once for a scene, as in section B.
- MONet is no model of scenes without an image: it draws components independently, whose masks do not fit each other. MPP^M
  draws components that are related.
- Decoders learn masks slowly where the likelihood's gradient is a hundred times that of gamma KL, and until they have learned
  them the attention loses nothing by giving a slot all that has one color. ``mask_balance`` multiplies the divergence's gradient
  where it goes through the decoder's masks, to the decoder and by the latents to the encoder, but not where it goes through the
  attention's masks, as DreamerV2 does with the two sides of its KL (Hafner et al. 2021); at 1 it is MONet's.
- The ReLU that table 9 prints behind the last layer would keep a mask's logits positive: there is none.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from pyzoo.checks import (
    num_rows,
    require_count,
    require_kind,
    require_number,
    require_observed,
    require_same_type,
    require_shape,
    require_sizes,
)
from pyzoo.distributions import MessagePassingPrior
from pyzoo.errors import UsageError
from pyzoo.nn import Head, Networks
from pyzoo.settings import AtLeast, AtMost, Count, Length, NoFlag, Widths

__all__ = ["MONet", "MONetNetworks", "MPPMONetNetworks", "RelatedNetworks", "SpatialBroadcastDecoder", "pixel_mixture"]

Likelihood = Literal["mixture", "weighted"]


class MONet(PyroModule):
    """The generative story, for any decoder.

    Args:
        decoder: network from latents, (rows, z_dim), to an image and the logits of its mask, (rows, channels + 1, height, width).
        num_slots: K, at least 2.
        z_dim: dimensions of a slot's latent.
        relations: the prior of the slots' global latents, the last ``relations.dim`` entries of z_k; None in MONet.
        background_scale: sigma of the first slot, in units of x.
        scale: sigma of the other slots.
        mask_weight: gamma, of the divergence of the attention's masks from the decoder's.
        likelihood: "mixture" or "weighted", see above.
        mask_balance: how many times as strongly that divergence moves the decoder's masks as it moves the attention's.

    Raises:
        ValueError: an argument is none of these, or the relations are among another number of slots, or not of fewer dimensions.

    Example:
        >>> networks = MONetNetworks(num_slots=3, decoder_channels=(8,), x_shape=(3, 16, 16), attention_channels=(4, 4))
        >>> networks.model()(size=2).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        decoder: nn.Module,
        num_slots: int,
        z_dim: int,
        relations: MessagePassingPrior | None = None,
        background_scale: float = 0.09,
        scale: float = 0.11,
        mask_weight: float = 0.5,
        likelihood: Likelihood = "mixture",
        mask_balance: float = 1.0,
    ) -> None:
        super().__init__("model")
        require_kind(decoder, "decoder", nn.Module)
        require_count(num_slots, "num_slots", 2)
        require_count(z_dim, "z_dim")
        require_number(background_scale, "background_scale", AtLeast(1e-12), AtMost(1e12))
        require_number(scale, "scale", AtLeast(1e-12), AtMost(1e12))
        require_number(mask_weight, "mask_weight", AtLeast(0))
        require_number(mask_balance, "mask_balance", AtLeast(0))
        if likelihood not in ("mixture", "weighted"):
            raise ValueError(f"likelihood is 'mixture' or 'weighted', not {likelihood!r}.")
        require_relations(relations, num_slots, z_dim)
        self.decoder = decoder
        self.num_slots = num_slots
        self.z_dim = z_dim
        self.relations = relations
        self.mask_weight = mask_weight
        self.likelihood = likelihood
        self.mask_balance = mask_balance
        self.register_buffer("scales", torch.tensor([background_scale, *[scale] * (num_slots - 1)]))

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Draws the slots' latents, then masks and x; returns x, (batch, channels, height, width).

        Args:
            x: the observed images, or None to draw them.
            size: how many to draw if x is None.
        """
        size = num_rows(x, size)
        with pyro.plate("data", size):
            z = self._draw_latents(size)
            means, mask_logits = self.decoded(z)
            mask_logits = with_gradient_times(mask_logits, self.mask_balance)
            decoded = mask_logits.log_softmax(1)
            log_masks = pyro.sample("m", dist.Delta(decoded, event_dim=3).mask(False))  # in training the guide's
            if x is None:
                return pyro.sample("x", self.mixture(means, log_masks)).movedim(-1, 1)
            require_observed(x, "x", size, means.shape[2:])
            if self.likelihood == "mixture":
                pyro.sample("x", self.mixture(means, log_masks), obs=x.movedim(1, -1))
                divergence = (log_masks.exp() * (log_masks - decoded)).sum((1, 2, 3))
            else:  # eq. 12
                slots = dist.Normal(means, self.scales[:, None, None, None], validate_args=False).log_prob(x.unsqueeze(1))
                pyro.factor("x", (log_masks.exp() * slots.sum(2)).sum((1, 2, 3)))
                divergence = bernoulli_divergence(log_masks, mask_logits).sum((1, 2, 3))
            pyro.factor("penalty/masks", -self.mask_weight * divergence)
            return x

    def _draw_latents(self, size: int) -> Tensor:
        """Draws the slots' latents, (batch, slots, z_dim)."""
        zeros = self.scales.new_zeros(size, self.num_slots, self.z_dim)
        if self.relations is None:
            return pyro.sample("z", dist.Normal(zeros, 1).to_event(2))
        z_0 = pyro.sample("z_0", self.relations.latent((size,)))
        z_g = pyro.sample("z_g", self.relations.components(z_0))
        z_c = pyro.sample("z_c", dist.Normal(zeros[..., self.relations.dim :], 1).to_event(2))
        return torch.cat([z_c, z_g], -1)

    has_mask_latents: ClassVar[bool] = False
    """Whether masks have latents of their own; here the components' decoder draws them too."""

    @property
    def draws_scenes(self) -> bool:
        """Whether its components fit each other where it draws them."""
        return self.relations is not None

    def components(self, z: Tensor) -> Tensor:
        """Each slot's image, (batch, slots, channels, height, width), from latents, (batch, slots, z_dim)."""
        return self.decoded(z)[0]

    def decoded(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Each slot's image, (batch, slots, channels, height, width), and the logits of its mask, (batch, slots, height, width).

        Args:
            z: latents, (batch, slots, z_dim).
        """
        require_shape(z, "z", ("batch", "slots", self.z_dim))
        decoded = self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return decoded[:, :, :-1], decoded[:, :, -1]

    def mixture(self, means: Tensor, log_masks: Tensor) -> dist.TorchDistribution:
        """p(x | z, m), one mixture for each pixel; its event is (height, width, channels).

        Args:
            means: each slot's image, (batch, slots, channels, height, width).
            log_masks: logarithms of the masks, (batch, slots, height, width).
        """
        require_shape(means, "means", ("batch", self.num_slots, "channels", "height", "width"))
        require_shape(log_masks, "log_masks", (len(means), self.num_slots, *means.shape[3:]))
        return pixel_mixture(means, log_masks, self.scales.unsqueeze(-1))


def pixel_mixture(means: Tensor, log_masks: Tensor, scales: Tensor) -> dist.TorchDistribution:
    """One mixture of the slots for each pixel, joint over its channels; the event is (height, width, channels).

    Args:
        means: each slot's image, (batch, slots, channels, height, width).
        log_masks: logarithms of the masks, (batch, slots, height, width).
        scales: standard deviations, which broadcast to (slots, channels).
    """
    require_shape(means, "means", ("batch", "slots", "channels", "height", "width"))
    require_shape(log_masks, "log_masks", (*means.shape[:2], *means.shape[3:]))
    slots = dist.Normal(means.movedim((1, 2), (-2, -1)), scales, validate_args=False).to_event(1)
    masks = dist.Categorical(logits=log_masks.movedim(1, -1), validate_args=False)
    return dist.MixtureSameFamily(masks, slots, validate_args=False).to_event(2)


def require_relations(relations: MessagePassingPrior | None, num_slots: int, z_dim: int) -> None:
    """Raises a ValueError unless relations are among so many slots, and of fewer than so many dimensions."""
    require_kind(relations, "relations", MessagePassingPrior, type(None))
    if relations is not None and (relations.num_components != num_slots or relations.dim >= z_dim):
        raise ValueError(f"relations must be among {num_slots} slots, of fewer than their {z_dim} dimensions.")


def require_halvings(x_shape: Sequence[int], times: int) -> None:
    """Raises a UsageError unless height and width of an image can be halved so often; names the nearest size that can."""
    unit = 2**times
    for side in x_shape[1:]:
        if side % unit:
            near = max(unit, unit * round(side / unit))
            raise UsageError(f"images of {side} pixels on a side can't be halved {times} times: --image-size {near} can")


def with_gradient_times(value: Tensor, factor: float) -> Tensor:
    """The same value, whose gradient is so many times as large."""
    return value if factor == 1 else value.detach() + factor * (value - value.detach())


def bernoulli_divergence(log_masks: Tensor, logits: Tensor) -> Tensor:
    """KL from Bernoulli variables with the masks as probabilities to those with logits, elementwise."""
    masks = log_masks.exp()
    log_rest = torch.log1p(-masks.clamp(max=1 - torch.finfo(masks.dtype).eps))
    return masks * (log_masks - logsigmoid(logits)) + (1 - masks) * (log_rest - logsigmoid(-logits))


class SpatialBroadcastDecoder(nn.Module):
    """A latent repeated at every pixel, with the pixel's coordinates beside it, and convolutions on that (table 9).

    The first convolution is written as what it is: of what is the same at every pixel a linear map, and of the coordinates a map
    that no latent changes.

    Source: Watters et al. (2019), "Spatial Broadcast Decoder".

    Args:
        z_dim: dimensions of the latent.
        channels: channels of each layer.
        x_shape: channels, height and width of what is decoded.
        reach: coordinates, of the image and of the margin that convolutions take away, are between minus and plus this. With a
            small one the decoder learns colors sooner than shapes.

    Example:
        >>> SpatialBroadcastDecoder(5, (8, 8), (4, 16, 16))(torch.zeros(2, 5)).shape
        torch.Size([2, 4, 16, 16])
    """

    def __init__(self, z_dim: int, channels: Sequence[int], x_shape: tuple[int, int, int], reach: float = 1.0) -> None:
        super().__init__()
        require_count(z_dim, "z_dim")
        require_sizes(channels, "channels")
        require_sizes(x_shape, "x_shape", 3)
        require_number(reach, "reach", AtLeast(0))
        if not channels:
            raise ValueError("channels must have a layer.")
        out, height, width = x_shape
        margin = 2 * len(channels)  # which convolutions without padding take away
        down, right = (torch.linspace(-reach, reach, size + margin) for size in (height, width))
        self.register_buffer("places", torch.stack(torch.meshgrid(down, right, indexing="ij")).unsqueeze(0))
        self.of_latent = nn.Linear(z_dim, channels[0], bias=False)
        self.of_place = nn.Conv2d(2, channels[0], 3)
        layers = [layer for pair in itertools.pairwise(channels) for layer in (nn.Conv2d(*pair, 3), nn.ReLU())]
        self.rest = nn.Sequential(nn.ReLU(), *layers, Head(nn.Conv2d(channels[-1], out, 1)))

    def forward(self, z: Tensor) -> Tensor:
        require_shape(z, "z", ("rows", self.of_latent.in_features))
        require_same_type(z, "z", self.of_latent)
        return self.rest(self.of_latent(z)[..., None, None] + self.of_place(self.places))


# Sizes --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MONetNetworks(Networks):
    """MONet's networks: those of tables 8 and 9, and an attention network as in Burgess et al.

    Example:
        >>> networks = MONetNetworks(num_slots=3, z_dim=4, decoder_channels=(8,), x_shape=(3, 16, 16), attention_channels=(4, 4))
        >>> model = networks.model()
        >>> guide = networks.guide(model)
    """

    num_slots: Annotated[int, AtLeast(2)] = 5
    """Number of slots, of which the first is for the background."""
    z_dim: Annotated[int, AtLeast(1)] = 16
    """Dimensions of a slot's latent."""
    encoder_channels: Annotated[tuple[Count, ...], Length(1)] = (32, 32, 64, 64)
    """Channels of the encoder's layers, each of which halves the image."""
    decoder_channels: Widths = (32, 32, 32, 32)
    """Channels of the decoder's layers."""
    attention_channels: Annotated[tuple[Count, ...], Length(2)] = (32, 32, 64, 64, 64)
    """Channels of the U-Net's blocks on the way down; each but the last halves the image."""
    attention_hidden_dim: Count = 128
    """Hidden units between the U-Net's way down and up."""
    background_scale: Annotated[float, AtLeast(1e-12), AtMost(1e12)] = 0.09
    """Standard deviation of a pixel's channels in the first slot."""
    scale: Annotated[float, AtLeast(1e-12), AtMost(1e12)] = 0.11
    """Standard deviation of a pixel's channels in the other slots."""
    mask_weight: Annotated[float, AtLeast(0)] = 0.5
    """Weight of the divergence of the attention's masks from the decoder's."""
    mask_balance: Annotated[float, AtLeast(0)] = 1.0
    """How many times as strongly that divergence moves the decoder's masks as it moves the attention's; 1 in the paper."""
    likelihood: Likelihood = "mixture"
    """One mixture for each pixel, or each slot's likelihood weighted by its mask."""
    x_shape: Annotated[tuple[Count, Count, Count], NoFlag()] = (3, 64, 64)
    """Channels, height and width of an image."""

    def _require_size(self) -> None:
        """Raises a UsageError unless the networks can halve images of ``x_shape``, which is known once there are data."""
        halvings = max(len(self.attention_channels) - 1, len(self.encoder_channels))
        smallest = 2 ** len(self.attention_channels)  # the U-Net's normalization needs more than one pixel at the bottom
        for side in self.x_shape[1:]:
            if side < smallest:
                raise UsageError(
                    f"images of {side} pixels on a side are too small for {len(self.attention_channels)} --attention-channels: "
                    f"--image-size {max(2**halvings, smallest)} can be halved so often"
                )
        require_halvings(self.x_shape, halvings)

    def model(self) -> MONet:
        return self._model(None)

    def _model(self, relations: MessagePassingPrior | None) -> MONet:
        self._require_size()
        channels, height, width = self.x_shape
        decoder = SpatialBroadcastDecoder(self.z_dim, self.decoder_channels, (channels + 1, height, width))
        scales = (self.background_scale, self.scale)
        how = (self.mask_weight, self.likelihood, self.mask_balance)
        return MONet(decoder, self.num_slots, self.z_dim, relations, *scales, *how)

    def guide(self, model: MONet) -> PyroModule:
        from pyzoo.guides.monet import monet_guide

        return monet_guide(self, model)


@dataclasses.dataclass(frozen=True)
class RelatedNetworks(Networks):
    """The maps of the message passing prior, which MPP^M and MPP^G have besides the networks of MONet and Genesis."""

    global_dim: Annotated[int, AtLeast(2)] = 8
    """Dimensions of a slot's latent that are related to those of the other slots; fewer than its dimensions."""
    num_couplings: Count = 3
    """Couplings in each map."""
    coupling_dims: Widths = (64, 64)
    """Hidden units of the couplings' networks."""
    relation_scale: Annotated[float, AtLeast(1e-12), AtMost(1e12)] = 0.5
    """Standard deviation of a slot's global latent given that of the scene, at the start."""
    scene_scale: Annotated[float, AtLeast(1e-12), AtMost(1e12)] = 0.3
    """Standard deviation of the scene's latent given the slots' global ones, at the start."""
    learn_relation_scales: bool = True
    """Learn the scales of the relations and how much each slot tells of the scene; off in the paper."""
    coupling: Literal["exp", "sigmoid"] = "exp"
    """What a coupling multiplies by: an exponential, or a sigmoid as in table 7."""
    batch_norm: bool = False
    """Normalize the outputs of the couplings' networks over the batch, as in table 7."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.global_dim < self.z_dim, "global_dim", f"below --z-dim {self.z_dim}")

    def relations(self) -> MessagePassingPrior:
        """The prior of the slots' global latents."""
        return MessagePassingPrior(
            self.num_slots,
            self.global_dim,
            self.num_couplings,
            self.coupling_dims,
            self.relation_scale,
            self.scene_scale,
            learn=self.learn_relation_scales,
            coupling=self.coupling,
            batch_norm=self.batch_norm,
        )


@dataclasses.dataclass(frozen=True)
class MPPMONetNetworks(RelatedNetworks, MONetNetworks):
    """MPP^M: MONet's networks, and the maps of the message passing prior.

    Example:
        >>> sizes = {"decoder_channels": (8,), "x_shape": (3, 16, 16), "attention_channels": (4, 4)}
        >>> networks = MPPMONetNetworks(num_slots=3, z_dim=6, global_dim=2, **sizes)
        >>> networks.model()(size=2).shape
        torch.Size([2, 3, 16, 16])
    """

    def model(self) -> MONet:
        return self._model(self.relations())
