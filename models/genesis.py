r"""Genesis: a scene drawn slot by slot, first where each piece is, then what it looks like; and the message passing prior, MPP^G.

.. math:: p(x, z^m, z^c) = \prod_{k=1}^{K} p(z_k^m \mid z_{<k}^m)\, p(z_k^c \mid z_k^m)
    \prod_{i} \sum_{k=1}^{K} m_{ki}(z^m)\, \mathcal{N}(x_i; \hat x_{ki}(z_k^c), \sigma^2)

A slot's mask follows from its z_k^m, which knows those of the slots before; what the slot looks like follows from its z_k^c.
Masks share out every pixel one after the other: slot k takes a part of what is left, and the last one the rest. In MPP^G a part
of z_k^c, the global one, follows from the latent of the scene, z^0, through invertible maps: all slots are related at once, not
in a row.

What is minimized, with the guide's q and a weight that follows from how far the first term is from its goal (GECO, see
:class:`pyzoo.infer.GECO`):

.. math:: \mathcal{L} = \mathbb{E}_q [-\log p(x \mid z^m, z^c)] + \beta\, \mathrm{KL}(q(z^m, z^c \mid x) \,\|\, p(z^m, z^c))

Source: Engelcke, Kosiorek, Parker Jones and Posner (2020), "GENESIS: Generative Scene Inference and Sampling with Object-Centric
Latent Representations"; Ren et al. (2023), supplement, sections B and C. How we read them:

- Masks are decoded once, in the guide, which hands them on as the unscored point m.
- The mixture is one for each pixel, joint over its channels.
- What infers and decodes masks has batch normalization, as in the paper. The encoder of what slots look like has the same gated
  layers with group normalization, where the paper has plain convolutions: with these, as with batch normalization, slots learn
  their colors later.
- Networks have the paper's kinds of layers in an arrangement of ours: the masks' halve the image in each layer down to a few
  pixels, and double it by repeating pixels; ReLU stands for ELU in the components' decoder; and the priors' means and deviations
  have no bounds.
- The supplement's other likelihood, eq. 12, is MONet's and MPP^M's alone: Genesis and MPP^G have the mixture.
- In MPP^G the local part of z_k^c keeps Genesis's prior, and the global part has that of the supplement in its place.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

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
    require_shape,
    require_sizes,
)
from pyzoo.distributions import Deferred, MessagePassingPrior
from pyzoo.models.monet import (
    RelatedNetworks,
    SpatialBroadcastDecoder,
    pixel_mixture,
    require_halvings,
    require_relations,
)
from pyzoo.nn import Head, Networks, RecurrentCell, scale_from_log_variance
from pyzoo.settings import AtLeast, AtMost, Count, Length, NoFlag, Widths

__all__ = ["Genesis", "GenesisNetworks", "MPPGenesisNetworks", "MaskDecoder", "MaskPrior", "decoded_masks", "log_shares"]


class Genesis(PyroModule):
    """The generative story, for any networks.

    Args:
        mask_prior: gives mean and standard deviation of a mask's latent from the one before; see :class:`MaskPrior`.
        mask_decoder: network from a mask's latent, (rows, mask_dim), to logits of what it takes, (rows, 1, height, width).
        component_prior: network from a mask's latent to mean and log-variance of what the slot looks like, side by side.
        decoder: network from what a slot looks like, (rows, z_dim), to an image, (rows, channels, height, width).
        num_slots: K, at least 2.
        mask_dim: dimensions of a mask's latent.
        z_dim: dimensions of what a slot looks like.
        relations: the prior of the slots' global latents, the last ``relations.dim`` entries of z_k^c; None in Genesis.
        scale: sigma, in units of x.

    Raises:
        ValueError: a number is out of range, or the relations are among another number of slots, or not of fewer dimensions.

    Example:
        >>> networks = GenesisNetworks(num_slots=3, mask_dim=4, z_dim=4, hidden_dim=8, channels=(4, 4), x_shape=(3, 8, 8))
        >>> networks.model()(size=2).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        mask_prior: nn.Module,
        mask_decoder: nn.Module,
        component_prior: nn.Module,
        decoder: nn.Module,
        num_slots: int,
        mask_dim: int,
        z_dim: int,
        relations: MessagePassingPrior | None = None,
        scale: float = 0.7,
    ) -> None:
        super().__init__("model")
        require_kind(mask_prior, "mask_prior", nn.Module)
        require_kind(mask_decoder, "mask_decoder", nn.Module)
        require_kind(component_prior, "component_prior", nn.Module)
        require_kind(decoder, "decoder", nn.Module)
        require_count(num_slots, "num_slots", 2)
        require_count(mask_dim, "mask_dim")
        require_count(z_dim, "z_dim")
        require_number(scale, "scale", AtLeast(1e-12), AtMost(1e12))
        require_relations(relations, num_slots, z_dim)
        self.mask_prior = mask_prior
        self.mask_decoder = mask_decoder
        self.component_prior = component_prior
        self.decoder = decoder
        self.num_slots = num_slots
        self.mask_dim = mask_dim
        self.z_dim = z_dim
        self.relations = relations
        self.register_buffer("scale", torch.tensor(scale))

    draws_scenes: ClassVar[bool] = True
    """Whether its components fit each other where it draws them."""
    has_mask_latents: ClassVar[bool] = True
    """Whether masks have latents of their own, which :func:`decoded_masks` decodes."""

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Draws where the pieces are, what they look like, then x; returns x, (batch, channels, height, width).

        Args:
            x: the observed images, or None to draw them.
            size: how many to draw if x is None.
        """
        size = num_rows(x, size)
        with pyro.plate("data", size):
            zeros = self.scale.new_zeros(size, self.mask_dim)
            p_z_m, state, drawn = dist.Normal(zeros, 1.0), None, []
            for slot in range(1, self.num_slots + 1):
                drawn.append(pyro.sample(f"z_m_{slot}", p_z_m.to_event(1)))
                if slot < self.num_slots:
                    p_z_m, state = self.mask_prior(drawn[-1], state)
            z_m = torch.stack(drawn, 1)
            means = self.components(self._draw_components(z_m))
            log_masks = pyro.sample("m", self._masks(z_m, x, means.shape[-2:]).mask(False))
            p_x = pixel_mixture(means, log_masks, self.scale)
            if x is None:
                return pyro.sample("x", p_x).movedim(-1, 1)
            height, width, channels = p_x.event_shape
            require_observed(x, "x", size, (channels, height, width))
            return pyro.sample("x", p_x, obs=x.movedim(1, -1)).movedim(-1, 1)

    def _masks(self, z_m: Tensor, x: Tensor | None, size: torch.Size) -> dist.TorchDistribution:
        """The masks, as a point; for an image not before they are drawn, since its guide has decoded them already."""
        if x is None:
            return dist.Delta(decoded_masks(self.mask_decoder, z_m), event_dim=3)
        return Deferred(lambda: decoded_masks(self.mask_decoder, z_m), z_m.shape[:1], (self.num_slots, *size))

    def _draw_components(self, z_m: Tensor) -> Tensor:
        """Draws what the slots look like, (batch, slots, z_dim)."""
        loc, log_variance = self.component_prior(z_m).chunk(2, -1)
        scale = scale_from_log_variance(log_variance)
        if self.relations is None:
            return pyro.sample("z_c", dist.Normal(loc, scale).to_event(2))
        local = self.z_dim - self.relations.dim
        z_0 = pyro.sample("z_0", self.relations.latent((len(z_m),)))
        z_g = pyro.sample("z_g", self.relations.components(z_0))
        z_c = pyro.sample("z_c", dist.Normal(loc[..., :local], scale[..., :local]).to_event(2))
        return torch.cat([z_c, z_g], -1)

    def components(self, z: Tensor) -> Tensor:
        """Each slot's image, (batch, slots, channels, height, width), from what it looks like, (batch, slots, z_dim)."""
        require_shape(z, "z", ("batch", self.num_slots, self.z_dim))
        return self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2]).sigmoid()


def decoded_masks(decoder: nn.Module, z_m: Tensor) -> Tensor:
    """Logarithms of the masks, (batch, slots, height, width); that of the last slot is what the others leave.

    Args:
        decoder: from a mask's latent, (rows, mask_dim), to logits of what it takes, (rows, 1, height, width).
        z_m: latents of the masks, (batch, slots, mask_dim).
    """
    require_shape(z_m, "z_m", ("batch", "slots", "mask_dim"))
    logits = decoder(z_m[:, :-1].flatten(0, 1)).unflatten(0, (len(z_m), z_m.shape[1] - 1)).squeeze(2)
    return log_shares(logits)


def log_shares(logits: Tensor) -> Tensor:
    """Logarithms of the shares of K slots, (batch, K, ...): each takes a part of what is left, and the last one the rest.

    Args:
        logits: of the part that each but the last one takes, (batch, K - 1, ...).

    Example:
        >>> log_shares(torch.zeros(1, 2, 1)).exp().flatten()
        tensor([0.5000, 0.2500, 0.2500])
    """
    zeros = logits.new_zeros(len(logits), 1, *logits.shape[2:])
    left = torch.cat([zeros, logsigmoid(-logits).cumsum(1)], 1)
    return left + torch.cat([logsigmoid(logits), zeros], 1)


class MaskPrior(nn.Module):
    """p(z_k^m | z_<k^m) of all masks but the first: a recurrent cell that reads one latent after the other.

    Args:
        mask_dim: dimensions of a mask's latent.
        hidden_dim: of the cell.

    Example:
        >>> p, state = MaskPrior(mask_dim=4, hidden_dim=8)(torch.zeros(2, 4))
        >>> p.batch_shape
        torch.Size([2, 4])
    """

    def __init__(self, mask_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.cell = RecurrentCell(mask_dim, hidden_dim)
        self.head = Head(nn.Linear(hidden_dim, 2 * mask_dim))

    def forward(self, z_m: Tensor, state: Any = None) -> tuple[dist.Normal, Any]:
        """The prior of the next latent given this one, (batch, mask_dim), and the state that the ones before have left."""
        state = self.cell(z_m, state)
        loc, log_variance = self.head(state[0]).chunk(2, -1)
        return dist.Normal(loc, scale_from_log_variance(log_variance)), state


class MaskDecoder(nn.Module):
    """Logits of what a slot takes, (rows, 1, height, width), from its mask's latent: gated layers that double the image.

    Args:
        mask_dim: dimensions of the latent.
        channels: of the layers, from the smallest image to the largest; each doubles it.
        size: height and width of the mask, which can be halved so often.
        logit: added to the logits at the start.

    Example:
        >>> MaskDecoder(4, (8, 8), (8, 8))(torch.zeros(2, 4)).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, mask_dim: int, channels: Sequence[int], size: tuple[int, int], logit: float = 0.0) -> None:
        super().__init__()
        require_count(mask_dim, "mask_dim")
        require_sizes(channels, "channels")
        require_sizes(size, "size", 2)
        if not channels or any(side % 2 ** len(channels) for side in size):
            raise ValueError(f"size must be what {len(channels)} doublings, at least one, come to, got {size}.")
        self.mask_dim: int = mask_dim
        smallest = (channels[0], *(side >> len(channels) for side in size))
        layers: list[nn.Module] = [nn.Linear(mask_dim, smallest[0] * smallest[1] * smallest[2]), nn.Unflatten(1, smallest)]
        for one, other in zip(channels, [*channels[1:], channels[-1]], strict=True):
            layers += [nn.Upsample(scale_factor=2), gated(one, other)]
        last = nn.Conv2d(channels[-1], 1, 1)
        with torch.no_grad():
            last.bias += logit
        self.network = nn.Sequential(*layers, Head(last))

    def forward(self, z_m: Tensor) -> Tensor:
        require_shape(z_m, "z_m", ("rows", self.mask_dim))
        return self.network(z_m)


def gated(
    in_channels: int, channels: int, stride: int = 1, normalize: Callable[[int], nn.Module] = nn.BatchNorm2d
) -> nn.Sequential:
    """A convolution whose output is one half of its channels times the sigmoid of the other half, after normalization."""
    bias = normalize is not nn.BatchNorm2d  # which takes a bias out again
    convolution = nn.Conv2d(in_channels, 2 * channels, 5, stride=stride, padding=2, bias=bias)
    return nn.Sequential(convolution, normalize(2 * channels), nn.GLU(dim=1))


# Sizes --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GenesisNetworks(Networks):
    """Genesis's networks.

    Example:
        >>> networks = GenesisNetworks(num_slots=3, mask_dim=4, z_dim=4, hidden_dim=8, channels=(4, 4), x_shape=(3, 8, 8))
        >>> model = networks.model()
        >>> guide = networks.guide(model)
    """

    num_slots: Annotated[int, AtLeast(2)] = 7
    """Number of slots."""
    mask_dim: Count = 64
    """Dimensions of a mask's latent."""
    z_dim: Count = 16
    """Dimensions of what a slot looks like."""
    hidden_dim: Count = 256
    """Hidden units of the recurrent networks, and of the prior of what a slot looks like."""
    channels: Annotated[tuple[Count, ...], Length(1)] = (32, 32, 64, 64)
    """Channels of the encoders' layers, each of which halves the image; the mask's decoder has them in reverse."""
    decoder_channels: Widths = (32, 32, 32, 32)
    """Channels of the layers of the components' decoder."""
    decoder_reach: Annotated[float, AtLeast(0), AtMost(100)] = 1.0
    """Coordinates that the components' decoder sees are between minus and plus this; 1 in the paper. At 0.1 slots learn colors
    sooner than shapes, which are left to the masks."""
    scale: Annotated[float, AtLeast(1e-12), AtMost(1e12)] = 0.7
    """Standard deviation of a pixel's channels."""
    mask_logit: Annotated[float, AtLeast(-100), AtMost(100)] = 0.0
    """Logit of what each slot but the last takes of what is left, at the start. At -2 the last slot has most pixels, and comes to
    mean the background."""
    x_shape: Annotated[tuple[Count, Count, Count], NoFlag()] = (3, 64, 64)
    """Channels, height and width of an image."""

    def model(self) -> Genesis:
        return self._model(None)

    def _model(self, relations: MessagePassingPrior | None) -> Genesis:
        require_halvings(self.x_shape, len(self.channels))  # which is known once there are data
        _, height, width = self.x_shape
        component_prior = nn.Sequential(
            nn.Linear(self.mask_dim, self.hidden_dim),
            nn.ELU(),
            nn.Linear(self.hidden_dim, self.hidden_dim),
            nn.ELU(),
            Head(nn.Linear(self.hidden_dim, 2 * self.z_dim)),
        )
        return Genesis(
            MaskPrior(self.mask_dim, self.hidden_dim),
            MaskDecoder(self.mask_dim, self.channels[::-1], (height, width), self.mask_logit),
            component_prior,
            SpatialBroadcastDecoder(self.z_dim, self.decoder_channels, self.x_shape, self.decoder_reach),
            self.num_slots,
            self.mask_dim,
            self.z_dim,
            relations,
            self.scale,
        )

    def guide(self, model: Genesis) -> PyroModule:
        from pyzoo.guides.genesis import genesis_guide

        return genesis_guide(self, model)


@dataclasses.dataclass(frozen=True)
class MPPGenesisNetworks(RelatedNetworks, GenesisNetworks):
    """MPP^G: Genesis's networks, and the maps of the message passing prior.

    Example:
        >>> sizes = {"mask_dim": 4, "hidden_dim": 8, "channels": (4, 4), "x_shape": (3, 8, 8)}
        >>> networks = MPPGenesisNetworks(num_slots=3, z_dim=6, global_dim=2, **sizes)
        >>> networks.model()(size=2).shape
        torch.Size([2, 3, 8, 8])
    """

    def model(self) -> Genesis:
        return self._model(self.relations())
