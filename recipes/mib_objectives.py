r"""Losses of the unified table that are not one ELBO: several inference networks, an estimator of information, an adversary.

Source: Zhang et al. (2020), tables 1 and 2. The costs of table 1 are found so: C_0 and C_1 are the negative ELBO; C_2(x), the
Jensen-Shannon divergence of data and model, is what a discriminator estimates (:class:`DiscriminatorLoss`); C_3(z) is
:func:`pyzoo.infer.marginal_kl`; and C_4(x_i, z) is the negative ELBO of one view alone (:class:`SeveralNetworks`).
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyzoo.guides.mib import StructuredGuide
from pyzoo.infer import Information, NegativeELBO
from pyzoo.models.mib import StructuredVAE, batch_size, those_given
from pyzoo.nn import he_initialised

__all__ = ["DiscriminatorLoss", "EstimatorLoss", "GeneratorLoss", "SeveralNetworks", "drawn_images", "drawn_latents"]
__all__ += ["pixel_discriminator"]


class SeveralNetworks(nn.Module):
    r"""The weighted sum of the negative ELBOs of several inference networks, each of which hears some of the views.

    .. math:: \sum_k w_k L_k = W\, E_{k \sim w / W} L_k, \qquad W = \sum_k w_k

    So for each row one network is drawn, as often as it weighs: the gradient has the same mean, at more noise, and a step costs
    what it does with one network. (Wu and Goodman 2018 draw subsets of many views, to the same end.) Rows share the networks out
    as evenly as they can, which leaves less noise than independent draws. A row with one view counts in the network that hears
    it, and again in one that hears it and others. The guide's wishes are of the network that hears all views, of every row, and
    count once.

    Args:
        model: the generative program.
        guide: the experts that all networks share.
        heard: for each network the views that it hears, and the weight of its ELBO.
        scored: which views it is to explain: those that it hears (MVAE), or all (BiVCCA).
        kl_weights: as in :class:`pyzoo.infer.NegativeELBO`.

    Raises:
        ValueError: a network hears nothing, or what is no view; no weight is positive; or what is scored is neither.
    """

    def __init__(
        self,
        model: StructuredVAE,
        guide: StructuredGuide,
        heard: Mapping[tuple[str, ...], float],
        scored: Literal["heard", "all"],
        kl_weights: Mapping[str, float],
    ) -> None:
        super().__init__()
        names = guide.variables.observed
        for views in heard:
            if not views or set(views) - set(names):
                raise ValueError(f"A network hears one or more of {', '.join(names)}, not '{', '.join(views)}'.")
        if scored not in ("heard", "all"):
            raise ValueError(f"What is scored is 'heard' or 'all', not '{scored}'.")
        self.total = sum(heard.values())
        if not (self.total > 0 and min(heard.values()) >= 0):
            raise ValueError(f"Weights must be at least 0, and one of them positive, got {list(heard.values())}.")
        once = {site: 1 / self.total for penalty in guide.penalties for site in penalty.sites}
        self.elbo = NegativeELBO(model, guide, kl_weights, fixed_weights=once)
        self.register_buffer("hears", torch.tensor([[name in views for name in names] for views in heard]), persistent=False)
        self.register_buffer("weights", torch.tensor(list(heard.values()), dtype=torch.float64), persistent=False)
        self.scored = scored

    @property
    def model(self) -> StructuredVAE:
        """The generative program."""
        return self.elbo.model

    @property
    def guide(self) -> StructuredGuide:
        """The inference program."""
        return self.elbo.guide

    def forward(
        self, present: Tensor | None = None, drawn: Tensor | None = None, **views: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """An estimate of the weighted sum; and each site's share, detached, its mean over what is drawn; in nats per example.

        Args:
            present: which views each row has, (batch, views), boolean; all by default.
            drawn: the network of each row, (batch,), its place in ``heard``; drawn by default.
            **views: the observed views by name.
        """
        if drawn is None:
            drawn = self._draw(batch_size(self.model.variables, those_given(views)))
        heard = scored = self.hears[drawn]
        if self.scored == "all":  # but a row of which it hears nothing, which would train decoders to make do without z
            told = heard if present is None else heard & present
            scored = told.any(1, keepdim=True).expand_as(heard)
        loss, terms = self.elbo(**views, present=present, heard=heard, scored=scored)
        return self.total * loss, terms

    def _draw(self, rows: int) -> Tensor:
        """Draws a network for each row, (rows,), as often as it weighs: of all rows its share, rounded up or down."""
        # Systematic sampling: evenly spaced points, shifted and ordered by chance.
        device, ends = self.weights.device, self.weights.cumsum(0)
        points = (torch.arange(rows, device=device) + torch.rand((), device=device, dtype=ends.dtype)) / rows
        drawn = torch.searchsorted(ends / ends[-1], points, right=True).clamp(max=len(ends) - 1)
        return drawn[torch.randperm(rows, device=device)]


class EstimatorLoss(nn.Module):
    """What trains a guide's estimators of information: minus the sum of what they say, to be made small.

    Its optimiser moves the estimators alone, in turns with that of the model and guide.

    Args:
        guide: whose ``estimators`` they are; networks of the latents that a term has on its left and right.
        terms: the informations that they estimate, by the term as printed.
    """

    def __init__(self, guide: StructuredGuide, terms: Mapping[str, Information]) -> None:
        super().__init__()
        self.guide = guide
        self.terms = dict(terms)

    def forward(self, present: Tensor | None = None, **views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each estimate, detached."""
        with torch.no_grad():
            draws = {name: q.sample() for name, q in self.guide.posteriors(views, present).items()}
        found = {}
        for name, term in self.terms.items():
            sides = (torch.cat([draws[latent] for latent in sorted(side)], -1) for side in (term.left, term.right))
            found[name] = self.guide.estimators[name](*sides)
        return -sum(found.values()), {name: value.detach() for name, value in found.items()}


# Adversaries ----------------------------------------------------------------------------------------------------------


def drawn_latents(model: StructuredVAE, count: int) -> dict[str, Tensor]:
    """Latents drawn from the prior, by name, (count, features) each."""
    return {name: torch.randn(count, dim, device=model.mask.device) for name, dim in model.dims.items()}


def drawn_images(model: StructuredVAE, view: str, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Means of a view drawn from a model, differentiable, and the latents that they were drawn from, by name."""
    latents = drawn_latents(model, count)
    return model.likelihood(view, latents).mean, latents


def pixel_discriminator(hidden_dim: int) -> nn.Sequential:
    """From images of 28x28 to the log-odds that they are data."""
    layers = [nn.Flatten(), nn.Linear(784, hidden_dim), nn.LeakyReLU(0.2), nn.Linear(hidden_dim, hidden_dim), nn.LeakyReLU(0.2)]
    return he_initialised(nn.Sequential(*layers, nn.Linear(hidden_dim, 1)))


class GeneratorLoss(nn.Module):
    r"""What moves a generator: C_2(x) by its non-saturating stand-in, and minus a bound of what the images tell of a code.

    .. math:: -E \log D(x) - \lambda\, E \log q(c \mid x), \qquad x = G(c, u)

    Up to the code's constant entropy the second expectation is a lower bound of I(c; x), which a wish to keep wants large.

    Source: Goodfellow et al. (2014), "Generative Adversarial Nets"; Chen et al. (2016), "InfoGAN", eq. 5.

    Args:
        model: the generative program.
        discriminator: from images to the log-odds that they are data.
        view: which of the model's views are the images.
        guide: of the code given the images; None for a GAN.
        code: the code's name.
        weight: lambda.
    """

    def __init__(
        self,
        model: StructuredVAE,
        discriminator: nn.Module,
        view: str,
        guide: StructuredGuide | None = None,
        code: str = "c",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.guide = guide
        self.discriminator = discriminator
        self.view = view
        self.code = code
        self.weight = weight

    def forward(self, **views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms, detached."""
        images, latents = drawn_images(self.model, self.view, len(views[self.view]))
        terms = {self.view: softplus(-self.discriminator(images)).mean()}
        if self.guide is not None:
            q = self.guide.posteriors({self.view: images})[self.code]
            terms[self.code] = -self.weight * q.log_prob(latents[self.code]).sum(-1).mean()
        return sum(terms.values()), {name: term.detach() for name, term in terms.items()}


class DiscriminatorLoss(nn.Module):
    """What moves a discriminator: the cross-entropy of telling data from what the model draws.

    At its least it is 2 log 2 less twice the Jensen-Shannon divergence of the two, in nats.

    Args:
        model: the generative program, which it does not move.
        discriminator: from images to the log-odds that they are data.
        view: which of the model's views are the images.
    """

    def __init__(self, model: StructuredVAE, discriminator: nn.Module, view: str) -> None:
        super().__init__()
        self.model = model
        self.discriminator = discriminator
        self.view = view

    def forward(self, **views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms, detached."""
        with torch.no_grad():
            images, _ = drawn_images(self.model, self.view, len(views[self.view]))
        on_data, on_drawn = self.discriminator(views[self.view]), self.discriminator(images)
        terms = {"data": softplus(-on_data).mean(), "drawn": softplus(on_drawn).mean()}
        return sum(terms.values()), {name: term.detach() for name, term in terms.items()}
