r"""The guide of Genesis and of MPP^G: where each piece is, slot by slot, then what it looks like.

.. math:: q(z^m, z^c \mid x) = \prod_{k=1}^{K} q(z_k^m \mid x, z_{<k}^m)\, q(z_k^c \mid x, m_k)

Source: as the model's. What infers z_k^c sees the image beside m_k, as in Ren et al.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import num_rows, require_kind, require_same_type, require_tensor
from pyzoo.distributions import MessagePassingPrior
from pyzoo.guides.monet import draw_related, slot_moments
from pyzoo.infer import analytic
from pyzoo.models.genesis import Genesis, GenesisNetworks, decoded_masks, gated
from pyzoo.nn import Head, ImageCheck, RecurrentCell, scale_from_log_variance

__all__ = ["GenesisGuide", "genesis_guide"]


class GenesisGuide(PyroModule):
    """The inference story, for any networks.

    Args:
        model: whose guide this is: its mask decoder makes the masks, and its relations infer the scene's latent.
        image_encoder: network from images to features, (batch, features).
        recurrent: recurrent cell from the features and the latent of the mask before, side by side.
        mask_head: network from the cell's state to mean and log-variance of a mask's latent, side by side.
        component_encoder: network from an image and a mask, (rows, channels + 1, height, width), to mean and log-variance of what
            the slot looks like, side by side.

    Example:
        >>> networks = GenesisNetworks(num_slots=3, mask_dim=4, z_dim=4, hidden_dim=8, channels=(4, 4), x_shape=(3, 8, 8))
        >>> guide = networks.guide(networks.model())
        >>> guide(x=torch.rand(2, 3, 8, 8))
    """

    def __init__(
        self,
        model: Genesis,
        image_encoder: nn.Module,
        recurrent: nn.LSTMCell,
        mask_head: nn.Module,
        component_encoder: nn.Module,
    ) -> None:
        super().__init__("guide")
        require_kind(model, "model", Genesis)
        self.mask_decoder: nn.Module = model.mask_decoder
        self.relations: MessagePassingPrior | None = model.relations
        self.num_slots: int = model.num_slots
        self.mask_dim: int = model.mask_dim
        self.image_encoder = image_encoder
        self.recurrent = recurrent
        self.mask_head = mask_head
        self.component_encoder = component_encoder

    def forward(self, x: Tensor, size: int = 1) -> None:
        """Draws where the pieces are, decodes their masks, and draws what they look like.

        Args:
            x: images, (batch, channels, height, width).
            size: not used; the model's.
        """
        require_tensor(x, "x")
        require_same_type(x, "x", self.image_encoder)
        with pyro.plate("data", num_rows(x, 1)):
            features, state, drawn = self.image_encoder(x), None, []
            for slot in range(self.num_slots):
                before = drawn[-1] if drawn else features.new_zeros(len(x), self.mask_dim)
                state = self.recurrent(torch.cat([features, before], -1), state)
                loc, log_variance = self.mask_head(state[0]).chunk(2, -1)
                q = dist.Normal(loc, scale_from_log_variance(log_variance)).to_event(1)
                drawn.append(pyro.sample(f"z_m_{slot + 1}", q, infer=analytic))
            log_masks = decoded_masks(self.mask_decoder, torch.stack(drawn, 1))
            pyro.sample("m", dist.Delta(log_masks, event_dim=3).mask(False))
            loc, scale = self.slots(x, log_masks)
            if self.relations is None:
                pyro.sample("z_c", dist.Normal(loc, scale).to_event(2), infer=analytic)
            else:
                draw_related(self.relations, loc, scale)

    def slots(self, x: Tensor, log_masks: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of what each slot looks like, (batch, slots, z_dim) each."""
        return slot_moments(self.component_encoder, x, log_masks)


def genesis_guide(networks: GenesisNetworks, model: Genesis) -> GenesisGuide:
    """The guide of a Genesis or an MPP^G.

    Args:
        networks: the sizes of its networks.
        model: whose guide this is.
    """
    require_kind(networks, "networks", GenesisNetworks)
    require_kind(model, "model", Genesis)
    for name in ("num_slots", "mask_dim", "z_dim"):
        if getattr(model, name) != getattr(networks, name):
            raise ValueError(f"The model's {name} is {getattr(model, name)}, not {getattr(networks, name)}.")
    channels, height, width = networks.x_shape
    return GenesisGuide(
        model,
        encoder(networks.x_shape, networks.channels, networks.hidden_dim, nn.BatchNorm2d),
        RecurrentCell(networks.hidden_dim + networks.mask_dim, networks.hidden_dim),
        Head(nn.Linear(networks.hidden_dim, 2 * networks.mask_dim)),
        encoder((channels + 1, height, width), networks.channels, 2 * networks.z_dim, partial(nn.GroupNorm, 2)),
    )


def encoder(
    x_shape: tuple[int, int, int], widths: Sequence[int], features: int, normalize: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Features of an image, (rows, features): gated layers that halve it."""
    channels, height, width = x_shape
    layers: list[nn.Module] = [ImageCheck(x_shape)]
    layers += [gated(*pair, 2, normalize) for pair in itertools.pairwise([channels, *widths])]
    pixels = (height >> len(widths)) * (width >> len(widths))
    return nn.Sequential(*layers, nn.Flatten(), Head(nn.Linear(widths[-1] * pixels, features)))
