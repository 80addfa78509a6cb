"""The model: an image from one latent.

Source: Kingma and Welling (2014), "Auto-Encoding Variational Bayes", appendix C.1, with ReLU in place of tanh.
"""

import dataclasses
import math
from typing import Annotated

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.nn import Networks
from pyzoo.settings import Count, NoFlag

__all__ = ["DenseVAE", "DenseVAENetworks"]


class DenseVAE(PyroModule):
    r"""p(x, z) = N(z; 0, I) Bernoulli(x; decoder(z)).

    Args:
        networks: the sizes.
    """

    def __init__(self, networks: "DenseVAENetworks") -> None:
        super().__init__("model")
        self.z_dim = networks.z_dim
        self.decoder = nn.Sequential(
            nn.Linear(networks.z_dim, networks.hidden_dim),
            nn.ReLU(),
            nn.Linear(networks.hidden_dim, math.prod(networks.x_shape)),
            nn.Unflatten(1, networks.x_shape),
        )

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Draws z, then x; returns x.

        Args:
            x: the observed images, (batch, channels, height, width), or None to draw them.
            size: how many to draw if x is None.
        """
        size = size if x is None else len(x)
        loc = next(self.decoder.parameters()).new_zeros(size, self.z_dim)
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Normal(loc, 1).to_event(1))
            return pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(3), obs=x)


@dataclasses.dataclass(frozen=True)
class DenseVAENetworks(Networks):
    """Sizes of the networks of model and guide."""

    z_dim: Count = 16
    """Dimensions of z."""
    hidden_dim: Count = 256
    """Hidden units of the decoder, and of the encoder."""
    x_shape: Annotated[tuple[int, int, int], NoFlag()] = (1, 28, 28)
    """Channels, height and width of an image, which a recipe reads from its data."""

    def model(self) -> DenseVAE:
        return DenseVAE(self)

    def guide(self, model: DenseVAE) -> PyroModule:
        from dense_vae.guide import DenseVAEGuide

        return DenseVAEGuide(self)
