r"""The guide of T-VAE: each image's latent from the image, z and the transformation T from the latents of the views.

.. math:: q(T, z, z_0, z_1, z_2 \mid x, x_1, x_2) = q(T \mid z_1, z_2)\, q(z \mid z_1, z_2)\, q(z_0 \mid x)\, q(z_1 \mid x_1)\,
    q(z_2 \mid x_2)

Source: Giannone et al. (2019), eq. 2 and appendix B. How we read its gaps:

- q(T | z_1, z_2) is implicit: a function of z_1 and z_2, here a point without a score.
- Of z, z_1 and z_2 no density is scored, since a discrepancy between samples stands in each one's place: see the model.
"""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import num_rows, require_count, require_kind, require_same_type, require_shape, require_tensor
from pyzoo.infer import analytic
from pyzoo.models.tvae import TVAE, TVAENetworks, VAENetworks
from pyzoo.nn import Head, ImageCheck, he_initialized, scale_from_log_variance

__all__ = ["TVAEGuide", "tvae_guide"]


class TVAEGuide(PyroModule):
    """The inference story, for any networks.

    Args:
        encoder: network from an image to the mean and log-variance of its latent side by side, (rows, 2 z_dim).
        fuse: h_psi, network from the latents of the views side by side to mean and log-variance of z; None in a standard VAE.
        transformation: h_xi, network from the latents of the views side by side to T; None in a standard VAE.
        num_views: of each image.

    Example:
        >>> networks = TVAENetworks(z_dim=3, encoder_channels=(4, 4, 4, 4), decoder_channels=(4, 4, 4, 4), hidden_dim=8)
        >>> guide = networks.guide(networks.model())
        >>> guide(x=torch.rand(5, 1, 28, 28), views=torch.rand(5, 2, 1, 28, 28))
    """

    def __init__(
        self, encoder: nn.Module, fuse: nn.Module | None = None, transformation: nn.Module | None = None, num_views: int = 2
    ) -> None:
        super().__init__("guide")
        self.encoder = encoder
        self.fuse = fuse
        self.transformation = transformation
        self.num_views = num_views

    def forward(self, x: Tensor, views: Tensor | None = None, size: int = 1) -> None:
        """Draws z_0 from q(z_0 | x), each view's latent likewise, and z and T given those.

        Args:
            x: images, (batch, channels, height, width).
            views: their transformed versions, (batch, views, channels, height, width), or None: the standard VAE within.
            size: not used; the model's.

        Raises:
            ValueError: there are views and the guide takes none, or another number, or images of another shape.
        """
        require_tensor(x, "x")
        rows = num_rows(x, 1)
        if views is not None:
            if self.transformation is None:
                raise ValueError("The guide of a standard VAE takes no views.")
            require_shape(views, "views", ("batch", self.num_views, *x.shape[1:]), batch=rows)
        with pyro.plate("data", rows):
            if views is None:
                [q_z_0] = self.posteriors(x)
                pyro.sample("z_0", q_z_0, infer=analytic)
                return
            q_z_0, *q_views = self.posteriors(x, *views.unbind(1))
            pyro.sample("z_0", q_z_0, infer=analytic)  # its prior depends on nothing
            drawn = [pyro.sample(f"z_{view + 1}", q.mask(False)) for view, q in enumerate(q_views)]
            together = torch.cat(drawn, dim=-1)
            pyro.sample("z", _normal(self.fuse(together)).mask(False))
            T = self.transformation(together)
            pyro.sample("T", dist.Delta(T, event_dim=T.dim() - 1).mask(False))

    def posteriors(self, *images: Tensor) -> list[dist.TorchDistribution]:
        """q(z | x) for each of several batches of images; one call of the encoder, which is faster than one for each."""
        require_count(len(images), "the number of batches of images")
        for batch in images:
            require_same_type(batch, "images", self.encoder)
            require_shape(batch, "images", ("batch", *images[0].shape[1:]))
        return [_normal(part) for part in self.encoder(torch.cat(images)).split([len(batch) for batch in images])]


def _normal(parameters: Tensor) -> dist.TorchDistribution:
    loc, log_variance = parameters.chunk(2, dim=-1)
    return dist.Normal(loc, scale_from_log_variance(log_variance)).to_event(1)


def vae_guide(networks: VAENetworks) -> TVAEGuide:
    """The guide of the standard VAE, with the encoder of appendix B."""
    return TVAEGuide(encoder(networks))


def tvae_guide(networks: TVAENetworks, model: TVAE) -> TVAEGuide:
    """The guide of a T-VAE, with the networks of appendix B.

    Args:
        networks: their sizes.
        model: whose guide this is.
    """
    require_kind(networks, "networks", TVAENetworks)
    require_kind(model, "model", TVAE)
    z_dim, hidden_dim = networks.z_dim, networks.hidden_dim
    views_dim, T_shape = model.num_views * z_dim, model.transformation_shape
    fuse = nn.Sequential(
        nn.Linear(views_dim, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.ReLU(),
        Head(nn.Linear(hidden_dim, 2 * z_dim)),
    )
    transformation = nn.Sequential(
        nn.Linear(views_dim, hidden_dim), nn.ReLU(), Head(nn.Linear(hidden_dim, math.prod(T_shape))), nn.Unflatten(1, T_shape)
    )
    return TVAEGuide(encoder(networks), he_initialized(fuse), he_initialized(transformation), model.num_views)


def encoder(networks: VAENetworks) -> nn.Sequential:
    """Appendix B: mean and log-variance of z, (rows, 2 z_dim), from an image; heights 28, 14, 7, 3, 1, 1.

    Where four layers that halve the height leave more than one pixel, the last kernel covers all that is left.
    """
    channels, pixels, _ = networks.x_shape
    sizes = (channels, *networks.encoder_channels, 2 * networks.z_dim)
    left = pixels // 16
    last = (4, 2, 2) if left == 1 else (left, 1, 0)
    layers: list[nn.Module] = [ImageCheck(networks.x_shape)]
    for i, (kernel, stride, padding) in enumerate([*[(4, 2, 1)] * 4, last]):
        layers += [nn.ReLU()] if i else []
        layers.append(nn.Conv2d(sizes[i], sizes[i + 1], kernel, stride=stride, padding=padding))
    return he_initialized(nn.Sequential(*layers[:-1], Head(layers[-1]), nn.Flatten()))
