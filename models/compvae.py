r"""CompVAE: a whole is made of parts, and each part has a latent of its own.

.. math:: p(x, z, \{w_i\} \mid \{\ell_i\}) = p(x \mid z, \tilde w) \, p(z \mid \tilde w) \prod_i p(w_i \mid \ell_i),
    \qquad \tilde w = \sum_i w_i

What is minimized, with the guide's q (eq. 4):

.. math:: \mathcal{L} = \mathbb{E}_q \Bigl[ \mathrm{KL}\bigl(q(\{w_i\} \mid x, z, \{\ell_i\}) \,\|\, \textstyle\prod_i p(w_i \mid
    \ell_i)\bigr) + \log \frac{q(z \mid x)}{p(z \mid \tilde w)} - \log p(x \mid z, \tilde w) \Bigr]

Given z the KL of w has a closed form. The term of z is a log-ratio of one draw, and may be negative: w is drawn after z.

Source: Berger and Sebag (2019), "From abstract items to latent spaces to observed data and back: Compositional Variational
Auto-Encoder", eq. 1; networks from appendix A. How we read its gaps:

- Text and tables disagree on the sizes of w and z in 1D (256 and 128 against 1024 and 256): the tables' are the defaults.
- Tables 6 and 9 print ELU on rows that put out log-variances. No standard deviation could then fall under 0.6: none here.
- Section 3.3 asks for a lower bound on the variances of p: all three have a smooth floor on the standard deviation, 0.001.
- Table 9's last convolution takes 16 channels where the one before it gives 24, and images of 64x64 where they are 32x32: here
  it maps 24 to 4, at 32x32.
- ``foreign_scale``, ``place_gain``, ``w_scale``, ``x_scale``, a moving ``x_floor``, and a ``node_noise`` of 0, which leaves out
  the noise of eq. 5, are ours. Unless they are asked for the model is the paper's; the small presets do
  (docs/results/compvae.md says what for).
"""

import dataclasses
import math
from typing import Annotated, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import (
    as_indices,
    require_count,
    require_floating,
    require_number,
    require_observed,
    require_same_type,
    require_shape,
)
from pyzoo.nn import Head, Networks, Residual, scale_from_log_variance
from pyzoo.settings import Above, AtLeast, AtMost, Count, MultipleOf, NoFlag, Positive, Weight, Widths

__all__ = ["CategoryEmbedding", "ColorsNetworks", "CompVAE", "CompVAENetworks", "PlaceEmbedding", "SinesNetworks"]


class CompVAE(PyroModule):
    """The generative story, for any kind of parts and of whole.

    Args:
        part_prior: network from (parts, positions) to the mean and log-variance of each w_i, (batch, parts, 2 * w_dim).
        whole_prior: network from the sum of the w_i, (batch, w_dim), to z's mean and log-variance, (batch, 2 * z_dim).
        decoder: network from that sum and z to the mean and log-variance of x, which broadcast against x.
        scale_floor: smallest standard deviation of w, z and x, in the units of each, positive. x's own is the buffer
            ``x_floor``: it starts here, and a schedule may move it.

    Raises:
        ValueError: scale_floor is not positive.

    Example:
        >>> model = SinesNetworks(w_dim=16, z_dim=4, prior_width=32, decoder_width=40).model()
        >>> model(parts=torch.tensor([[0, 2, 2]])).shape  # one curve made of three sines
        torch.Size([1, 200])
    """

    def __init__(self, part_prior: nn.Module, whole_prior: nn.Module, decoder: nn.Module, scale_floor: float = 0.001) -> None:
        super().__init__("model")
        require_number(scale_floor, "scale_floor", Above(0))
        self.part_prior = part_prior
        self.whole_prior = whole_prior
        self.decoder = decoder
        self.scale_floor = scale_floor
        self.register_buffer("x_floor", torch.tensor(float(scale_floor)))  # a buffer, so that a schedule can move it

    def forward(self, parts: Tensor, positions: Tensor | None = None, x: Tensor | None = None) -> Tensor:
        """Draws the parts' w, then z for the whole, then x; returns x.

        Args:
            parts: category of each part, (batch, parts), integer. Any number of parts; a category may stand there repeatedly.
            positions: where each part is, (batch, parts, 2), for parts that have a place.
            x: the observed whole, (batch, ...), or None to draw it.

        Raises:
            ValueError: an argument has another shape or type, there is no example or no part, or a category is none.
        """
        w_loc, w_scale = self.w_prior(parts, positions)
        with pyro.plate("data", len(parts)):
            w = pyro.sample("w", dist.Normal(w_loc, w_scale).to_event(2))  # p(w_i | l_i)
            whole = w.sum(-1)  # order-invariant: (batch, w_dim)
            z_loc, z_log_variance = self.whole_prior(whole).chunk(2, dim=-1)  # each (batch, z_dim)
            z_scale = scale_from_log_variance(z_log_variance, self.scale_floor)
            z = pyro.sample("z", dist.Normal(z_loc, z_scale).to_event(1))  # p(z | sum_i w_i)
            x_loc, x_log_variance = self.decoder(whole, z)
            x_scale = scale_from_log_variance(x_log_variance, self.x_floor)
            likelihood = dist.Normal(x_loc, x_scale).to_event(x_loc.dim() - 1)
            if x is not None:
                require_observed(x, "x", len(parts), likelihood.event_shape)
            return pyro.sample("x", likelihood, obs=x)  # p(x | z, sum_i w_i)

    def w_prior(self, parts: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(w_i | l_i), each (batch, w_dim, parts)."""
        loc, log_variance = self.part_prior(parts, positions).mT.chunk(2, dim=1)
        return loc, scale_from_log_variance(log_variance, self.scale_floor)


# Sizes --------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class CompVAENetworks(Networks):
    """What the networks of both problems share; the sizes are those of the tables for sines."""

    num_categories: Annotated[Count, NoFlag()] = 10
    """Number of kinds of part."""
    w_dim: Count = 1024
    """Features of a part's latent."""
    z_dim: Count = 256
    """Features of the whole's latent."""
    graph_widths: Widths = (2048, 2048, 2048)
    """Features of a part after each graph block of the guide."""
    graph_block: Literal["paper", "wide"] = "paper"
    """Graph blocks of table 4, or the wider ones of the authors' public code."""
    node_noise: Weight = 1.0
    """Standard deviation of the noise that tells equal parts apart in the guide."""
    relative_guide: bool = False
    """Parameterize q(w | x, z, l) relative to p(w | l), so that the terms of x and z train that prior, and w's KL does not."""
    scale_floor: Annotated[float, AtLeast(1e-30), AtMost(1e30)] = 0.001
    """Smallest standard deviation of p(w) and p(z), and of p(x) where x_floor does not say otherwise."""


@dataclasses.dataclass(frozen=True)
class SinesNetworks(CompVAENetworks):
    """Networks for curves of 200 steps: tables 1 to 6.

    Example:
        >>> networks = SinesNetworks(w_dim=16, z_dim=4, prior_width=32, decoder_width=40, encoder_width=40, graph_widths=(32,))
        >>> model = networks.model()
        >>> guide = networks.guide(model)
        >>> model(parts=torch.tensor([[0, 2, 2]])).shape  # one curve made of three sines
        torch.Size([1, 200])
    """

    prior_width: Count = 1280
    """Hidden units of p(z | sum w)."""
    decoder_width: Annotated[Count, MultipleOf(40)] = 800
    """Hidden units of p(x | z, sum w); its convolutions start from (width / 5, 5)."""
    encoder_width: Annotated[Count, MultipleOf(20)] = 800
    """Features of the encoded curve."""
    z_width: Count = 512
    """Hidden units of q(z | x)."""
    label_dim: Count = 1024
    """Features of a part's label in the guide; table 6's 2080 inputs are 800 + 256 + 1024."""
    foreign_scale: Positive = 1.0
    """Initial standard deviation of p(w_i | l_i) in the features that belong to another frequency; 1 for no division of labor."""

    def model(self) -> CompVAE:
        return CompVAE(
            LabelPrior(self.num_categories, self.w_dim, self.foreign_scale),
            nn.Sequential(  # table 1
                nn.Linear(self.w_dim, self.prior_width), nn.ELU(), Head(nn.Linear(self.prior_width, 2 * self.z_dim))
            ),
            CurveDecoder(self.w_dim + self.z_dim, self.decoder_width),
            self.scale_floor,
        )

    def guide(self, model: CompVAE) -> PyroModule:
        from pyzoo.guides.compvae import sines_guide

        return sines_guide(self, model)


@dataclasses.dataclass(frozen=True)
class ColorsNetworks(CompVAENetworks):
    """Networks for RGB images of 32x32 pixels: tables 4 and 7 to 12.

    Example:
        >>> networks = ColorsNetworks(w_dim=8, z_dim=4, part_width=8, prior_width=8, decoder_width=256, encoder_width=64)
        >>> networks.model()(parts=torch.tensor([[0, 2]]), positions=torch.zeros(1, 2, 2)).shape
        torch.Size([1, 3, 32, 32])
    """

    num_categories: Annotated[Count, NoFlag()] = 5
    """Number of colors."""
    w_dim: Count = 2048
    z_dim: Count = 1024
    place_width: Count = 32
    """Features of a part's position, and of its color; table 12's 2112 inputs are 1024 + 1024 + 32 + 32."""
    place_gain: Positive = 1.0
    """Factor on the initial weights of the position, in model and guide."""
    part_width: Count = 1024
    """Hidden units of p(w_i | l_i)."""
    prior_width: Count = 1024
    """Hidden units of p(z | sum w)."""
    decoder_width: Annotated[Count, MultipleOf(256)] = 2048
    """Hidden units of p(x | z, sum w); its convolutions start from (width / 16, 4, 4)."""
    encoder_width: Annotated[Count, MultipleOf(64)] = 1024
    """Features of the encoded image."""
    w_scale: Positive = 1.0
    """Initial standard deviation of a part's latent, in model and guide."""
    x_scale: Positive = 1.0
    """Initial standard deviation of x, whose values run from 0 to 1."""

    def model(self) -> CompVAE:
        return CompVAE(
            PlacePrior(self.num_categories, self.w_dim, self.place_width, self.part_width, self.place_gain, self.w_scale),
            nn.Sequential(  # table 8
                nn.Linear(self.w_dim, self.prior_width),
                nn.ELU(),
                Residual(self.prior_width),
                nn.ELU(),
                Head(nn.Linear(self.prior_width, 2 * self.z_dim)),
            ),
            ImageDecoder(self.w_dim, self.z_dim, self.decoder_width, self.x_scale),
            self.scale_floor,
        )

    def guide(self, model: CompVAE) -> PyroModule:
        from pyzoo.guides.compvae import colors_guide

        return colors_guide(self, model)


class CategoryEmbedding(nn.Embedding):
    """Features of each part's category.

    Shape: integers (batch, parts), of any type, to (batch, parts, features).

    Raises:
        ValueError: there is no example or no part, or, while Pyro validates, a category is none.
    """

    def forward(self, parts: Tensor) -> Tensor:
        require_shape(parts, "parts", ("batch", "parts"))
        return super().forward(as_indices(parts, "parts", dim=2, below=self.num_embeddings))


# Sines: appendix A.1.1 ----------------------------------------------------------------------------------------------


class LabelPrior(nn.Module):
    """p(w_i | l_i) as an embedding of the label (appendix A.1.1).

    Only the sum of the w_i is seen, so two categories that vary in the same feature can't be told apart there, and the
    guide lets one's noise cancel the other's. A ``foreign_scale`` below 1 starts from a division of labor: feature j belongs to
    category j modulo the number of categories, and the others vary little in it. Training is free to undo that.
    """

    def __init__(self, num_categories: int, w_dim: int, foreign_scale: float = 1.0) -> None:
        super().__init__()
        self.loc = CategoryEmbedding(num_categories, w_dim)
        self.log_variance = CategoryEmbedding(num_categories, w_dim)
        owned = torch.arange(w_dim) % num_categories == torch.arange(num_categories).unsqueeze(-1)
        nn.init.constant_(self.log_variance.weight, 2 * math.log(foreign_scale))
        with torch.no_grad():
            self.log_variance.weight[owned] = 0.0

    def forward(self, parts: Tensor, positions: Tensor | None = None) -> Tensor:
        return torch.cat([self.loc(parts), self.log_variance(parts)], dim=-1)  # (batch, parts, 2 * w_dim)


class CurveDecoder(nn.Module):
    """p(x | z, sum w) for curves of 200 steps (table 2)."""

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        blocks = [layer for _ in range(3) for layer in (Residual(width), nn.ELU())]
        self.dense = nn.Sequential(nn.Linear(in_features, width), nn.ELU(), *blocks)
        first, second, third, last = width // 5, width // 10, width // 20, width // 40
        self.convolutions = nn.Sequential(
            nn.Unflatten(1, (first, 5)),
            nn.ConvTranspose1d(first, second, 4, stride=2),  # (batch, channels, 12)
            nn.ELU(),
            nn.Conv1d(second, second, 7, padding=3),
            nn.ELU(),
            nn.ConvTranspose1d(second, third, 8, stride=4),  # (batch, channels, 52)
            nn.ELU(),
            nn.Conv1d(third, third, 7, padding=3),
            nn.ELU(),
            nn.ConvTranspose1d(third, last, 15, stride=5),  # (batch, channels, 270)
            nn.ELU(),
            Head(nn.Conv1d(last, 2, 7, padding=3)),
        )

    def forward(self, whole: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.convolutions(self.dense(torch.cat([whole, z], dim=-1)))
        # The crop keeps clear of the boundary effects of transposed convolutions.
        return tuple(hidden[:, :, 35:235].unbind(1))  # mean and log-variance: each (batch, 200)


# Color gradients: appendix A.2.1 ------------------------------------------------------------------------------------


class PlaceEmbedding(nn.Module):
    """Features of a part's position, ELU(Linear(2, width)), beside features of its category, Embedding(categories, width).

    Source: Berger and Sebag (2019), tables 7 and 12.

    Args:
        num_categories: how many categories there are.
        width: features of the position, and of the category.
        gain: factor on the initial weights of the position's layer. As torch draws them, its features change by a quarter of what
            the category's do and are nearly linear over [-1, 1], and the network behind both takes long to use them.

    Shape: integers (batch, parts) and positions (batch, parts, 2) to (batch, parts, 2 * width).

    Example:
        >>> PlaceEmbedding(5, width=32)(torch.tensor([[0, 3]]), torch.zeros(1, 2, 2)).shape
        torch.Size([1, 2, 64])
    """

    def __init__(self, num_categories: int, width: int, gain: float = 1.0) -> None:
        super().__init__()
        require_count(num_categories, "num_categories")
        require_count(width, "width")
        self.category = CategoryEmbedding(num_categories, width)
        self.place = nn.Linear(2, width)
        with torch.no_grad():
            self.place.weight *= gain
            self.place.bias *= gain

    def forward(self, parts: Tensor, positions: Tensor | None) -> Tensor:
        category = self.category(parts)
        if positions is None:
            raise ValueError("These parts have a place: positions must be given, (batch, parts, 2).")
        require_shape(positions, "positions", (*parts.shape, 2))
        require_floating(positions, "positions")
        require_same_type(positions, "positions", self.place)
        return torch.cat([nn.functional.elu(self.place(positions)), category], dim=-1)


class PlacePrior(nn.Module):
    """p(w_i | l_i) where a part is a color at a position (table 7)."""

    def __init__(
        self, num_categories: int, w_dim: int, place_width: int, part_width: int, place_gain: float, scale: float
    ) -> None:
        super().__init__()
        self.label = PlaceEmbedding(num_categories, place_width, place_gain)
        self.joint = nn.Sequential(
            nn.Linear(2 * place_width, part_width), nn.ELU(), Head(nn.Linear(part_width, 2 * w_dim), slice(w_dim, None), scale)
        )

    def forward(self, parts: Tensor, positions: Tensor | None) -> Tensor:
        return self.joint(self.label(parts, positions))  # (batch, parts, 2 * w_dim)


class ImageDecoder(nn.Module):
    """p(x | z, sum w) for RGB images of 32x32 pixels (table 9); one variance for the three channels of a pixel."""

    def __init__(self, w_dim: int, z_dim: int, width: int, scale: float) -> None:
        super().__init__()
        # Table 9 adds Residual(2048) of the sum to Linear(1024, 2048) of z: the sum of w must be as wide as the decoder.
        self.from_whole = nn.Sequential(Residual(w_dim), *([] if w_dim == width else [nn.Linear(w_dim, width)]))
        self.from_z = nn.Linear(z_dim, width)
        self.dense = nn.Sequential(nn.ELU(), Residual(width), nn.Tanh(), Residual(width), nn.ELU())
        first, second, third, last = width // 16, width // 32, width // 64, 3 * width // 256
        self.convolutions = nn.Sequential(
            nn.Unflatten(1, (first, 4, 4)),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(first, second, 5, padding=2),
            nn.ELU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(second, third, 5, padding=2),
            nn.ELU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(third, last, 5, padding=2),
            nn.ELU(),
            Head(nn.Conv2d(last, 4, 5, padding=2), slice(3, 4), scale),
        )

    def forward(self, whole: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.convolutions(self.dense(self.from_whole(whole) + self.from_z(z)))
        return hidden[:, :3], hidden[:, 3:]  # (batch, 3, 32, 32) and (batch, 1, 32, 32)
