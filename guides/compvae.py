r"""The guide of CompVAE: the whole's latent first, then those of its parts, which share what the whole leaves open.

.. math:: q(z, \{w_i\} \mid x, \{\ell_i\}) = q(\{w_i\} \mid x, z, \{\ell_i\}) \, q(z \mid x)

Source: Berger and Sebag (2019), section 3.3.1 (eq. 5); networks from appendix A. How we read its gaps:

- z is drawn before w here and after it in the model. So w's KL given z is in closed form (the guide marks it), while z's
  term stays a sampled log-ratio: z cannot be integrated out with w, which is drawn given z, held fixed.
- The noise eps_i that tells equal parts apart is N(0, 1). It is an auxiliary variable with the same density in p and q: the
  two cancel, so it is a site of the guide alone, with its score masked.
- Table 6 prints ELU on the row that puts out log-variances; there is none here.
- The authors' public code has wider blocks than table 4: ``graph_block="wide"``.

Not the paper's, and off unless asked for (the small presets do), is a guide relative to the prior. A guide that sees x learns to
copy x into w, and p(w_i | l_i) is left to predict a code that was never made to be predicted. Where the labels say nearly
everything about x, as colors and places do, the prior fails at that. With ``w_prior`` the guide gives w as a deviation from
p(w_i | l_i): w's KL then depends on the deviation alone, and the terms of x and z train the prior. ``place_gain`` and ``w_scale``
are ours too.
"""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.checks import require_kind, require_same_type, require_shape
from pyzoo.distributions import CorrelatedNormal
from pyzoo.infer import analytic
from pyzoo.models.compvae import CategoryEmbedding, ColorsNetworks, CompVAE, CompVAENetworks, PlaceEmbedding, SinesNetworks
from pyzoo.nn import Head, Residual, ShapeCheck, scale_from_log_variance

__all__ = ["CompVAEGuide", "colors_guide", "sines_guide"]

WPrior = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""From parts and positions to the means and standard deviations of p(w_i | l_i), each (batch, w_dim, parts)."""


class CompVAEGuide(PyroModule):
    """The inference story, for any kind of parts and of whole.

    Args:
        encoder: network from x to features of it, pre(x), (batch, features).
        whole_posterior: network from pre(x) to z's mean and log-variance, (batch, 2 * z_dim).
        label: network from (parts, positions) to an embedding of each part, (batch, parts, features).
        part_posterior: network over nodes, (batch, parts, features of pre(x), z and label), to the means, log-variances and
            correlation logits of the w_i, (batch, parts, 3 * w_dim).
        node_noise: standard deviation of the noise that tells parts of one category apart.
        w_prior: :meth:`pyzoo.models.compvae.CompVAE.w_prior` of the model, if q(w | ...) is to be given relative to p(w | l):
            means as deviations from its means, in units of its standard deviations, and standard deviations as multiples of its
            own (after Vahdat and Kautz 2020, "NVAE", section 3.2, whose deviations of the mean are not scaled). Its parameters
            stay the model's, so copy and pickle the two together, as ``copy.deepcopy(NegativeELBO(model, guide))`` does.

    Example:
        >>> networks = SinesNetworks(w_dim=16, z_dim=4, decoder_width=40, encoder_width=40, z_width=32, graph_widths=(32,))
        >>> guide = networks.guide(networks.model())
        >>> guide(parts=torch.tensor([[0, 2, 2]]), x=torch.zeros(1, 200))
    """

    def __init__(
        self,
        encoder: nn.Module,
        whole_posterior: nn.Module,
        label: nn.Module,
        part_posterior: nn.Module,
        node_noise: float = 1.0,
        w_prior: WPrior | None = None,
    ) -> None:
        super().__init__("guide")
        self.encoder = encoder
        self.whole_posterior = whole_posterior
        self.label = label
        self.part_posterior = part_posterior
        self.node_noise = node_noise
        self.w_prior = w_prior

    def forward(self, parts: Tensor, x: Tensor, positions: Tensor | None = None) -> None:
        """Draws z, then all w_i together.

        Args:
            parts: category of each part, (batch, parts), integer.
            x: the observed whole, (batch, ...).
            positions: where each part is, (batch, parts, 2), for parts that have a place.

        Raises:
            ValueError: an argument has another shape or type, there is no example or no part, or a category is none.
        """
        require_same_type(x, "x", self.encoder)
        features = self.encoder(x)  # pre(x): (batch, features)
        require_shape(parts, "parts", ("batch", "parts"), batch=len(features))
        with pyro.plate("data", len(parts)):
            z_loc, z_log_variance = self.whole_posterior(features).chunk(2, dim=-1)  # each (batch, z_dim)
            z = pyro.sample("z", dist.Normal(z_loc, scale_from_log_variance(z_log_variance)).to_event(1))  # q(z | x)
            label = self.label(parts, positions)  # e(l_i)
            unscored = dist.Normal(torch.zeros_like(label), 1.0).to_event(2).mask(False)
            epsilon = pyro.sample("epsilon", unscored, infer={"is_auxiliary": True})
            whole = torch.cat([features, z], dim=-1).unsqueeze(1).expand(-1, parts.shape[1], -1)
            nodes = torch.cat([whole, label + self.node_noise * epsilon], dim=-1)  # h^(0) of eq. 5: (batch, parts, features)
            w_loc, w_log_variance, rho_logits = self.part_posterior(nodes).mT.chunk(3, dim=1)  # each (batch, w_dim, parts)
            w_scale = scale_from_log_variance(w_log_variance)
            if self.w_prior is not None:
                prior_loc, prior_scale = self.w_prior(parts, positions)
                w_loc, w_scale = prior_loc + prior_scale * w_loc, prior_scale * w_scale
            q = self.parts_given(w_loc, w_scale, rho_logits)
            pyro.sample("w", q, infer=analytic)  # q({w_i} | x, z, {l_i})

    def parts_given(self, loc: Tensor, scale: Tensor, rho_logits: Tensor) -> dist.TorchDistribution:
        """Appendix C's distribution of all w_i, from three tensors of shape (batch, w_dim, parts)."""
        return CorrelatedNormal(loc, scale, rho_logits=rho_logits).to_event(1)


class GraphBlock(nn.Module):
    """One layer of eq. 5: every part looks at itself and at the sum of all others (table 4).

    Args:
        in_features: N, features of a node on entry.
        out_features: M, features of a node on exit.
        wide: the layout of the authors' public code, whose f keeps N + M features until its last layer.

    Shape: (batch, parts, N) to (batch, parts, M), equivariant under permutations of the parts.
    """

    def __init__(self, in_features: int, out_features: int, wide: bool = False) -> None:
        super().__init__()
        self.message = nn.Sequential(Residual(in_features), nn.ELU(), Residual(in_features))  # g
        self.received = nn.Sequential(nn.Tanh(), Residual(in_features))
        width = in_features + out_features if wide else out_features
        update = [nn.Linear(2 * in_features, width), nn.ELU(), Residual(width)]
        self.update = nn.Sequential(*update, *([nn.ELU(), nn.Linear(width, out_features)] if wide else []))

    def forward(self, nodes: Tensor) -> Tensor:
        message = self.message(nodes)
        others = message.sum(1, keepdim=True) - message  # sum over j != i, in O(parts)
        return self.update(torch.cat([nodes, self.received(others)], dim=-1))  # f


def _graph(in_features: int, networks: CompVAENetworks, w_scale: float = 1.0) -> nn.Sequential:
    """GraphBlocks one after another, and a linear layer for each node (tables 6 and 12)."""
    layers: list[nn.Module] = []
    for width in networks.graph_widths:
        layers += [GraphBlock(in_features, width, networks.graph_block == "wide"), nn.ELU()]
        in_features = width
    w_dim = networks.w_dim
    return nn.Sequential(*layers, Head(nn.Linear(in_features, 3 * w_dim), slice(w_dim, 2 * w_dim), w_scale))


def _w_prior(networks: CompVAENetworks, model: CompVAE) -> WPrior | None:
    require_kind(model, "model", CompVAE)
    return model.w_prior if networks.relative_guide else None


# Sines: appendix A.1.2 ----------------------------------------------------------------------------------------------


def sines_guide(networks: SinesNetworks, model: CompVAE, kind: type[CompVAEGuide] = CompVAEGuide) -> CompVAEGuide:
    """The guide for curves, with the networks of tables 3 to 6.

    Args:
        networks: their sizes.
        model: whose guide this is.
        kind: the class to make, for a variant of the guide with the same networks.
    """
    require_kind(networks, "networks", SinesNetworks)
    width, z_width, label_dim = networks.encoder_width, networks.z_width, networks.label_dim
    first, middle, last = width // 20, width // 10, width // 5
    encoder = nn.Sequential(  # table 3
        ShapeCheck((200,)),
        nn.Unflatten(1, (1, 200)),
        nn.Conv1d(1, first, 10, stride=5),  # (batch, channels, 39)
        nn.ELU(),
        nn.Conv1d(first, first, 7, padding=3),
        nn.ELU(),
        nn.Conv1d(first, middle, 6, stride=3),  # (batch, channels, 12)
        nn.ELU(),
        nn.Conv1d(middle, middle, 7, padding=3),
        nn.ELU(),
        nn.Conv1d(middle, last, 4, stride=2),  # (batch, channels, 5)
        nn.ELU(),
        nn.Flatten(),
        Residual(width),
        nn.ELU(),
    )
    whole_posterior = nn.Sequential(  # table 5
        nn.Linear(width, z_width),
        nn.ELU(),
        Residual(z_width),
        nn.ELU(),
        Residual(z_width),
        nn.ELU(),
        Head(nn.Linear(z_width, 2 * networks.z_dim)),
    )
    part_posterior = _graph(width + networks.z_dim + label_dim, networks)  # table 6
    label = LabelEmbedding(networks.num_categories, label_dim)
    return kind(encoder, whole_posterior, label, part_posterior, networks.node_noise, _w_prior(networks, model))


class LabelEmbedding(nn.Module):
    """e(l_i) as an embedding of the label."""

    def __init__(self, num_categories: int, label_dim: int) -> None:
        super().__init__()
        self.embedding = CategoryEmbedding(num_categories, label_dim)

    def forward(self, parts: Tensor, positions: Tensor | None = None) -> Tensor:
        return self.embedding(parts)  # (batch, parts, label_dim)


# Color gradients: appendix A.2.2 ------------------------------------------------------------------------------------


def colors_guide(networks: ColorsNetworks, model: CompVAE, kind: type[CompVAEGuide] = CompVAEGuide) -> CompVAEGuide:
    """The guide for images, with the networks of tables 4 and 10 to 12; arguments as in :func:`sines_guide`."""
    require_kind(networks, "networks", ColorsNetworks)
    width, z_dim = networks.encoder_width, networks.z_dim
    last, fourth, second, first = width // 16, 3 * width // 64, width // 32, width // 64
    encoder = nn.Sequential(  # table 10
        ShapeCheck((3, 32, 32)),
        nn.Conv2d(3, first, 5, padding=2),
        nn.ELU(),
        nn.Conv2d(first, second, 4, stride=2, padding=1),
        nn.ELU(),
        nn.Conv2d(second, second, 5, padding=2),
        nn.ELU(),
        nn.Conv2d(second, fourth, 4, stride=2, padding=1),
        nn.ELU(),
        nn.Conv2d(fourth, last, 4, stride=2, padding=1),  # (batch, channels, 4, 4)
        nn.ELU(),
        nn.Flatten(),
        Residual(width),
        nn.ELU(),
    )
    whole_posterior = nn.Sequential(Residual(width), nn.ELU(), Head(nn.Linear(width, 2 * z_dim)))  # table 11
    label = PlaceEmbedding(networks.num_categories, networks.place_width, networks.place_gain)
    # A relative guide starts at the prior's own scale.
    w_scale = 1.0 if networks.relative_guide else networks.w_scale
    part_posterior = _graph(width + z_dim + 2 * networks.place_width, networks, w_scale)  # table 12
    return kind(encoder, whole_posterior, label, part_posterior, networks.node_noise, _w_prior(networks, model))
