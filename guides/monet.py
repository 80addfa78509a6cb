r"""The guide of MONet and of MPP^M: masks by attention, then each slot's latent from the image and its mask.

.. math:: q(z, m \mid x) = \delta(m - a(x)) \prod_{k=1}^{K} q(z_k \mid x, m_k)

    m_k = s_k\, \alpha_k, \quad s_{k+1} = s_k (1 - \alpha_k), \quad \alpha_k = a_\psi(x, s_k)

The attention network is asked once for each slot what of the image's scope s_k, which no slot has taken yet, this one takes; the
last slot takes the rest. In MPP^M the latent of the scene, z^0, is inferred from the slots' global latents.

Source: as the model's; the U-Net is that of Burgess et al. (2019), appendix B.2, with sizes for smaller images. The supplement's
figure 11 has 1 - m_k where MONet, and this, have 1 - alpha_k: with m_k masks would not sum to 1. The encoder sees the image
beside m_k, as in the supplement; in Burgess et al. it is beside log m_k.
"""

import itertools
from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import interpolate, logsigmoid

from pyzoo.checks import (
    num_rows,
    require_count,
    require_input,
    require_kind,
    require_same_type,
    require_shape,
    require_sizes,
    require_tensor,
)
from pyzoo.distributions import MessagePassingPrior
from pyzoo.infer import analytic
from pyzoo.models.monet import MONet, MONetNetworks
from pyzoo.nn import Head, ImageCheck, scale_from_log_variance

__all__ = ["Attention", "MONetGuide", "UNet", "monet_guide"]


class MONetGuide(PyroModule):
    """The inference story, for any networks.

    Args:
        attention: network from images to the logarithms of the masks, (batch, slots, height, width).
        encoder: network from an image and a mask, (rows, channels + 1, height, width), to mean and log-variance of the slot's
            latent side by side, (rows, 2 z_dim).
        relations: the model's prior of the slots' global latents; None in MONet.
        check: called with the images before anything else.

    Example:
        >>> networks = MONetNetworks(num_slots=3, z_dim=4, decoder_channels=(8,), x_shape=(3, 16, 16), attention_channels=(4, 4))
        >>> guide = networks.guide(networks.model())
        >>> guide(x=torch.rand(2, 3, 16, 16))
    """

    def __init__(
        self,
        attention: nn.Module,
        encoder: nn.Module,
        relations: MessagePassingPrior | None = None,
        check: nn.Module | None = None,
    ) -> None:
        super().__init__("guide")
        require_kind(relations, "relations", MessagePassingPrior, type(None))
        self.check: nn.Module = nn.Identity() if check is None else check
        self.attention = attention
        self.encoder = encoder
        self.relations = relations

    def forward(self, x: Tensor, size: int = 1) -> None:
        """Takes the image apart, then draws each slot's latent; in MPP^M also the scene's.

        Args:
            x: images, (batch, channels, height, width).
            size: not used; the model's.
        """
        require_tensor(x, "x")
        require_same_type(x, "x", self.encoder)
        self.check(x)
        with pyro.plate("data", num_rows(x, 1)):
            log_masks = self.attention(x)
            pyro.sample("m", dist.Delta(log_masks, event_dim=3).mask(False))
            loc, scale = self.slots(x, log_masks)
            if self.relations is None:
                pyro.sample("z", dist.Normal(loc, scale).to_event(2), infer=analytic)
            else:
                draw_related(self.relations, loc, scale)

    def slots(self, x: Tensor, log_masks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each slot's latent, (batch, slots, z_dim) each; arguments as :func:`slot_moments`."""
        return slot_moments(self.encoder, x, log_masks)


def slot_moments(encoder: nn.Module, x: Tensor, log_masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each slot's latent, (batch, slots, z_dim) each, from the image and the slot's mask.

    Args:
        encoder: network from an image and a mask, (rows, channels + 1, height, width), to mean and log-variance side by side.
        x: images, (batch, channels, height, width).
        log_masks: logarithms of the masks, (batch, slots, height, width).
    """
    require_shape(x, "x", ("batch", "channels", "height", "width"))
    require_shape(log_masks, "log_masks", (len(x), "slots", *x.shape[2:]))
    images = x.unsqueeze(1).expand(-1, log_masks.shape[1], -1, -1, -1)
    seen = torch.cat([images, log_masks.exp().unsqueeze(2)], 2)
    loc, log_variance = encoder(seen.flatten(0, 1)).unflatten(0, seen.shape[:2]).chunk(2, -1)
    return loc, scale_from_log_variance(log_variance)


def draw_related(relations: MessagePassingPrior, loc: Tensor, scale: Tensor) -> None:
    """Draws the slots' local and global latents, and from the global ones that of the scene: sites z_c, z_g and z_0.

    Args:
        relations: the prior of the global latents, the last ``relations.dim`` of a slot's.
        loc: means of the slots' latents, (batch, slots, z_dim).
        scale: their standard deviations, likewise.
    """
    local = loc.shape[-1] - relations.dim
    pyro.sample("z_c", dist.Normal(loc[..., :local], scale[..., :local]).to_event(2), infer=analytic)
    z_g = pyro.sample("z_g", dist.Normal(loc[..., local:], scale[..., local:]).to_event(2))
    pyro.sample("z_0", relations.posterior(z_g), infer=analytic)


class Attention(nn.Module):
    """Masks that share out an image among slots, one after the other: logarithms, (batch, slots, height, width).

    Args:
        network: from an image and the logarithm of the scope that is left, (rows, channels + 1, height, width), to logits of
            what a slot takes of it, (rows, 1, height, width).
        num_slots: K.

    Example:
        >>> log_masks = Attention(UNet(4, (4, 4), 8, (16, 16)), num_slots=3)(torch.rand(2, 3, 16, 16))
        >>> torch.allclose(log_masks.exp().sum(1), torch.ones(2, 16, 16))
        True
    """

    def __init__(self, network: nn.Module, num_slots: int) -> None:
        super().__init__()
        require_kind(network, "network", nn.Module)
        require_count(num_slots, "num_slots", 2)
        self.network = network
        self.num_slots = num_slots

    def forward(self, x: Tensor) -> Tensor:
        log_scope = torch.zeros_like(x[:, :1])
        log_masks = []
        for _ in range(self.num_slots - 1):
            logits = self.network(torch.cat([x, log_scope], 1))
            log_masks.append(log_scope + logsigmoid(logits))
            log_scope = log_scope + logsigmoid(-logits)
        return torch.cat([*log_masks, log_scope], 1)


class UNet(nn.Module):
    """Blocks of a convolution, an instance normalization and a ReLU, down to few pixels and up again, with skips between.

    Source: Ronneberger et al. (2015), as changed by Burgess et al. (2019): nearest neighbors in place of pooling and transposed
    convolutions, and a network of three layers at the bottom.

    Args:
        in_channels: of the input.
        channels: of each block on the way down; each but the last halves the image.
        hidden_dim: hidden units at the bottom.
        size: height and width of the input, which can be halved so often.

    Example:
        >>> UNet(4, (8, 8), 16, (16, 16))(torch.zeros(2, 4, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(self, in_channels: int, channels: Sequence[int], hidden_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        require_sizes(channels, "channels")
        require_sizes(size, "size", 2)
        halvings = len(channels) - 1
        if halvings < 0 or any(side % 2**halvings for side in size):
            raise ValueError(f"size must be what {halvings} halvings leave whole, one for each block but the last, got {size}.")
        self.size: tuple[int, ...] = tuple(size)
        self.down = nn.ModuleList(block(*pair) for pair in zip([in_channels, *channels[:-1]], channels, strict=True))
        last = channels[-1]
        bottom = (last, *(side // 2 ** (len(channels) - 1) for side in size))
        features = bottom[0] * bottom[1] * bottom[2]
        self.bottom = nn.Sequential(
            nn.Flatten(),
            nn.Linear(features, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, features),
            nn.ReLU(),
            nn.Unflatten(1, bottom),
        )
        upward = list(reversed(channels))
        self.up = nn.ModuleList(block(2 * one, other) for one, other in zip(upward, [*upward[1:], upward[-1]], strict=True))
        self.last = Head(nn.Conv2d(upward[-1], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        require_input(x, "x", self.down[0][0])
        require_shape(x, "x", ("rows", "channels", *self.size))
        skips = []
        for place, down in enumerate(self.down):
            x = down(x if place == 0 else x[..., ::2, ::2])  # the nearest neighbor
            skips.append(x)
        x = self.bottom(x)
        for place, (up, skip) in enumerate(zip(self.up, reversed(skips), strict=True)):
            x = up(torch.cat([x if place == 0 else interpolate(x, scale_factor=2), skip], 1))
        return self.last(x)


def block(in_channels: int, channels: int) -> nn.Sequential:
    """A convolution, an instance normalization and a ReLU."""
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    # With a group for each channel it is the same as InstanceNorm2d, which is slower on a CPU.
    return nn.Sequential(convolution, nn.GroupNorm(channels, channels), nn.ReLU())


def monet_guide(networks: MONetNetworks, model: MONet) -> MONetGuide:
    """The guide of a MONet or an MPP^M.

    Args:
        networks: the sizes of its networks.
        model: whose guide this is.
    """
    require_kind(networks, "networks", MONetNetworks)
    require_kind(model, "model", MONet)
    if (model.num_slots, model.z_dim) != (networks.num_slots, networks.z_dim):
        have = f"{model.num_slots} slots of {model.z_dim} dimensions, not {networks.num_slots} of {networks.z_dim}"
        raise ValueError(f"The model has {have}.")
    channels, *size = networks.x_shape
    unet = UNet(channels + 1, networks.attention_channels, networks.attention_hidden_dim, (size[0], size[1]))
    attention = Attention(unet, networks.num_slots)
    return MONetGuide(attention, encoder(networks), model.relations, ImageCheck(networks.x_shape))


def encoder(networks: MONetNetworks) -> nn.Sequential:
    """Table 8: mean and log-variance of a slot's latent, (rows, 2 z_dim), from an image and a mask."""
    channels, height, width = networks.x_shape
    widths = [channels + 1, *networks.encoder_channels]
    layers: list[nn.Module] = [ImageCheck((channels + 1, height, width))]
    for pair in itertools.pairwise(widths):
        layers += [nn.Conv2d(*pair, 3, stride=2, padding=1), nn.ReLU()]
    pixels = (height >> len(networks.encoder_channels)) * (width >> len(networks.encoder_channels))
    return nn.Sequential(*layers, nn.Flatten(), Head(nn.Linear(widths[-1] * pixels, 2 * networks.z_dim)))
