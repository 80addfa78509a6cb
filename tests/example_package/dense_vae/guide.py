"""The guide: the latent from the image."""

import math

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor, nn

from dense_vae.model import DenseVAENetworks
from pyzoo.infer import analytic
from pyzoo.nn import scale_from_log_variance

__all__ = ["DenseVAEGuide"]


class DenseVAEGuide(PyroModule):
    """q(z | x), a normal distribution.

    Args:
        networks: the sizes.
    """

    def __init__(self, networks: DenseVAENetworks) -> None:
        super().__init__("guide")
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(networks.x_shape), networks.hidden_dim),
            nn.ReLU(),
            nn.Linear(networks.hidden_dim, 2 * networks.z_dim),
        )

    def forward(self, x: Tensor) -> None:
        """Draws z given the images x, (batch, channels, height, width)."""
        loc, log_variance = self.encoder(x).chunk(2, dim=-1)
        with pyro.plate("data", len(x)):
            q_z = dist.Normal(loc, scale_from_log_variance(log_variance)).to_event(1)
            pyro.sample("z", q_z, infer=analytic)  # its KL has a closed form
