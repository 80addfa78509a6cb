r"""Losses of the unified table that are not one ELBO: several inference networks, an estimator of information, an adversary.

Source: Zhang et al. (2020), tables 1 and 2. The costs of table 1 are computed so: C_0 and C_1 are the negative ELBO; C_2(x), the
Jensen-Shannon divergence of data and model, is what a discriminator estimates (:class:`DiscriminatorLoss`); C_3(z) is the rate
less the information (:class:`pyzoo.infer.IndexInformation`); and C_4(x_i, z) is the negative ELBO of one view alone
(:class:`SeveralNetworks`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyzoo.guides.mib import StructuredGuide
from pyzoo.infer import LearnedInformation, NegativeELBO, Penalized
from pyzoo.models.mib import StructuredVAE, those_given
from pyzoo.nn import Head, he_initialized

__all__ = ["DiscriminatorLoss", "EstimatorLoss", "GeneratorLoss", "SeveralNetworks", "drawn_images", "drawn_latents"]
__all__ += ["pixel_discriminator"]


class SeveralNetworks(nn.Module):
    r"""The weighted sum of the negative ELBOs of several inference networks, each conditioned on some of the views.

    .. math:: \sum_k w_k L_k = W\, E_{k \sim w / W} L_k, \qquad W = \sum_k w_k

    So for each row one network is drawn, with a probability in proportion to its weight: the gradient has the same mean, at more
    noise, and a step costs what it does with one network. (Wu and Goodman 2018 draw subsets of many views, to the same end.) Rows
    are divided between the networks as evenly as they can be, which leaves less noise than independent draws. A row with one view
    counts in the network that is conditioned on it, and again in one that is conditioned on it and others. The guide's penalties
    are of the network that is conditioned on all views, of every row, and count once.

    Args:
        model: the generative program.
        guide: the guide, whose experts all networks share, with its penalties if it has any.
        conditioned: for each network the views that it is conditioned on, and the weight of its ELBO.
        scored: which views it explains: those that it is conditioned on (MVAE, "own"), or all (BiVCCA, "all").
        kl_weights: as in :class:`pyzoo.infer.NegativeELBO`.
        site_weights: likewise.

    Raises:
        ValueError: a network is conditioned on nothing, or on what is no view; no weight is positive; or ``scored`` is neither.
    """

    def __init__(
        self,
        model: StructuredVAE,
        guide: StructuredGuide | Penalized,
        conditioned: Mapping[tuple[str, ...], float],
        scored: Literal["own", "all"],
        kl_weights: Mapping[str, float],
        site_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        names = model.variables.observed
        for views in conditioned:
            if not views or set(views) - set(names):
                raise ValueError(f"A network is conditioned on one or more of {', '.join(names)}, not '{', '.join(views)}'.")
        if scored not in ("own", "all"):
            raise ValueError(f"scored is 'own' or 'all', not '{scored}'.")
        self.total = sum(conditioned.values())
        if not (self.total > 0 and min(conditioned.values()) >= 0):
            raise ValueError(f"Weights must be at least 0, and one of them positive, got {list(conditioned.values())}.")
        penalties = guide.penalties if isinstance(guide, Penalized) else []
        once = {site: 1 / self.total for penalty in penalties for site in penalty.sites}
        self.elbo: NegativeELBO = NegativeELBO(model, guide, kl_weights, site_weights={**(site_weights or {}), **once})
        sets = torch.tensor([[name in views for name in names] for views in conditioned])
        self.register_buffer("sets", sets, persistent=False)
        self.register_buffer("weights", torch.tensor(list(conditioned.values()), dtype=torch.float64), persistent=False)
        self.scored = scored

    @property
    def model(self) -> StructuredVAE:
        """The generative program."""
        return self.elbo.model

    def forward(
        self, present: Tensor | None = None, drawn: Tensor | None = None, **views: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """An estimate of the weighted sum; and each site's share, detached, its mean over what is drawn; in nats per example.

        Args:
            present: which views each row has, (batch, views), boolean; all by default.
            drawn: the network of each row, (batch,), its place in ``conditioned``; drawn by default.
            **views: the observed views by name.
        """
        if drawn is None:
            drawn = self._draw(self.model.variables.batch_size(those_given(views)))
        conditioned_on = scored = self.sets[drawn]
        if self.scored == "all":  # but a row that lacks all of its network's views, which would train decoders without z
            available = conditioned_on if present is None else conditioned_on & present
            scored = available.any(1, keepdim=True).expand_as(conditioned_on)
        loss, terms = self.elbo(**views, present=present, conditioned_on=conditioned_on, scored=scored)
        return self.total * loss, terms

    def _draw(self, rows: int) -> Tensor:
        """Draws a network for each row, (rows,); each gets its share of the rows, rounded up or down."""
        # Systematic sampling: evenly spaced points, shifted and ordered at random.
        device, ends = self.weights.device, self.weights.cumsum(0)
        points = (torch.arange(rows, device=device) + torch.rand((), device=device, dtype=ends.dtype)) / rows
        drawn = torch.searchsorted(ends / ends[-1], points, right=True).clamp(max=len(ends) - 1)
        return drawn[torch.randperm(rows, device=device)]


class EstimatorLoss(nn.Module):
    """What trains estimators of informations that are networks: minus the sum of their estimates.

    Its optimizer moves the estimators alone, in turns with that of model and guide.

    Args:
        guide: infers the latents that they are about; without penalties.
        estimators: of the guide's penalties.
    """

    def __init__(self, guide: StructuredGuide, estimators: Sequence[LearnedInformation]) -> None:
        super().__init__()
        self.guide = guide
        self.estimators = nn.ModuleList(estimators)

    def forward(self, present: Tensor | None = None, **views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each estimate by its term, detached."""
        with torch.no_grad():
            draws = {name: q.sample() for name, q in self.guide.posteriors(views, present).items()}
        found = {str(estimator.term): estimator.learn(draws) for estimator in self.estimators}
        return -sum(found.values()), {name: value.detach() for name, value in found.items()}


# Adversaries ----------------------------------------------------------------------------------------------------------


def drawn_latents(model: StructuredVAE, count: int) -> dict[str, Tensor]:
    """Latents drawn from the prior, by name, (count, features) each."""
    device = next(model.parameters()).device
    return {name: torch.randn(count, dim, device=device) for name, dim in model.dims.items()}


def drawn_images(model: StructuredVAE, view: str, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Means of a view drawn from a model, differentiable, and the latents that they were drawn from, by name."""
    latents = drawn_latents(model, count)
    return model.likelihood(view, latents).mean, latents


def pixel_discriminator(hidden_dim: int, x_shape: Sequence[int] = (1, 28, 28)) -> nn.Sequential:
    """From images of a shape to the log-odds that they are data."""
    layers = [
        nn.Flatten(),
        nn.Linear(math.prod(x_shape), hidden_dim),
        nn.LeakyReLU(0.2),
        nn.Linear(hidden_dim, hidden_dim),
        nn.LeakyReLU(0.2),
    ]
    return he_initialized(nn.Sequential(*layers, Head(nn.Linear(hidden_dim, 1))))


class GeneratorLoss(nn.Module):
    r"""What trains a generator: C_2(x) in its non-saturating form, and minus a lower bound of the information about a code.

    .. math:: -E \log D(x) - \lambda\, E \log q(c \mid x), \qquad x = G(c, u)

    Up to the code's constant entropy the second expectation is a lower bound of I(c; x), which is to be large.

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
    """What trains a discriminator: the cross-entropy of telling data from what the model draws.

    Its minimum is 2 log 2 less twice the Jensen-Shannon divergence of the two, in nats.

    Args:
        model: the generative program, which is not trained by it.
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
