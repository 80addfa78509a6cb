"""The multivariate information bottleneck: two images with shared and private latents, and IRM on colored images.

By hand IRM is as its authors describe it: an environment's penalty is the gradient by a scale of the logits, found by autograd.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from benchmarks.cases import Case
from pyzoo.infer import NegativeELBO, Penalized
from pyzoo.models.mib import EnvironmentNetworks, StructuredNetworks, ViewNetworks
from pyzoo.recipes.mib.methods import Method, Multimodal
from pyzoo.recipes.mib.ood.recipe import OOD

SIZES = {"pair": "two images, batch 64", "irm": "images of 2 x 14 x 14, batch 10,000"}
VIEWS = ("digit", "next")


def of_prior_and(*experts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the product of N(0, 1) and experts, each given by mean and log-variance."""
    precision, weighted = 1.0, 0.0
    for loc, log_variance in experts:
        precision = precision + (-log_variance).exp()
        weighted = weighted + loc * (-log_variance).exp()
    return weighted / precision, 1 / precision


def kl(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    """From q to p, normals given by mean and variance, summed."""
    ratio = q[1] / p[1]
    return 0.5 * (ratio - 1 - ratio.log() + (q[0] - p[0]) ** 2 / p[1]).sum()


def pair_loss(model: nn.Module, guide: nn.Module, views: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensor:
    """The negative ELBO per example, and what either view alone leaves open of the shared latent (section 4.2).

    Args:
        model: where the decoders are.
        guide: where the encoders are.
        views: two images.
        noise: standard normal draws by latent.
    """
    z_dim, rows = noise["z"].shape[1], len(noise["z"])
    shared, latents, loss = {}, {}, 0.0
    for view, private in zip(VIEWS, ("u_digit", "u_next"), strict=True):
        loc, log_variance = guide.encoders[view](views[view]).chunk(2, 1)
        shared[view] = loc[:, :z_dim], log_variance[:, :z_dim]
        q = of_prior_and((loc[:, z_dim:], log_variance[:, z_dim:]))
        latents[view] = q[0] + q[1].sqrt() * noise[private]
        loss = loss + kl(q, (torch.zeros_like(q[0]), torch.ones_like(q[1])))
    q = of_prior_and(*shared.values())
    z = q[0] + q[1].sqrt() * noise["z"]
    loss = loss + kl(q, (torch.zeros_like(q[0]), torch.ones_like(q[1])))
    for view in VIEWS:
        logits = nn.Sequential.forward(model.decoders[view], torch.cat([z, latents[view]], 1))
        loss = loss + binary_cross_entropy_with_logits(logits, views[view], reduction="sum")
        loss = loss + kl(q, of_prior_and(shared[view]))
    return loss / rows


def irm_loss(model: nn.Module, guide: nn.Module, x: Tensor, y: Tensor, e: Tensor, noise: Tensor, weight: float) -> Tensor:
    """Cross-entropy of the label, and the weighted mean of the environments' penalties (Arjovsky et al. 2019, IRMv1).

    Args:
        model: where the classifier is.
        guide: where the encoder is.
        x: images.
        y: their classes, int64.
        e: their environments, int64.
        noise: standard normal draws, (batch, z_dim).
        weight: of the penalty.
    """
    z_dim = noise.shape[1]
    loc, log_variance = guide.encoders["x"](x).chunk(2, 1)
    mean, variance = of_prior_and((loc[:, :z_dim], log_variance[:, :z_dim]))
    logits = model.decoders["y"].layer(mean + variance.sqrt() * noise)
    scale, penalties = torch.ones((), device=x.device, requires_grad=True), []
    for environment in range(2):
        own = (e == environment).nonzero().squeeze(1)
        slopes = []
        for half in (own[::2], own[1::2]):
            risk = cross_entropy(scale * logits[half], y[half])
            slopes.append(torch.autograd.grad(risk, scale, create_graph=True)[0])
        penalties.append(slopes[0] * slopes[1])
    return cross_entropy(logits, y) + weight * torch.stack(penalties).mean()


def programs(
    kind: type[StructuredNetworks], method: Method, views: tuple[str, ...], hidden_dim: int, device: torch.device, **sizes: object
) -> tuple[nn.Module, nn.Module]:
    """The model and the guide, with its penalties, of a method's declaration."""
    declared = method.declare(views)
    networks = kind(hidden_dim=hidden_dim, **declared.sizes(method.dims(declared.variables)), **sizes)
    model = networks.model().to(device)
    return model, Penalized(networks.guide(model).to(device), declared.penalties(model, None))


def make(size: str, device: torch.device) -> Case:
    return _pair(device) if size == "pair" else _irm(device)


def _pair(device: torch.device) -> Case:
    model, guide = programs(ViewNetworks, Multimodal(z_dim=8, u_dim=8), VIEWS, 512, device)
    views = {view: torch.rand(64, 1, 28, 28, device=device).round() for view in VIEWS}

    def by_hand() -> Tensor:
        noise = {name: torch.randn(64, 8, device=device) for name in model.variables.latents}
        return pair_loss(model, guide.guide, views, noise)

    return Case(model, guide, views, by_hand)


def _irm(device: torch.device) -> Case:
    rows, weight = 10_000, 1e4
    method = OOD(dist_weight=0.0, sufficient_weight=0.0, stability="irm", stability_weight=weight)
    model, guide = programs(EnvironmentNetworks, method, ("x", "y", "e"), 128, device, dropout=0.0)
    y, e = (torch.arange(rows, device=device) // step % 2 for step in (1, 2))
    batch = {"x": torch.rand(rows, 2, 14, 14, device=device), "y": one_hot(y, 2).float(), "e": one_hot(e, 2).float()}

    def by_hand() -> Tensor:
        noise = torch.randn(rows, method.z_dim, device=device)
        return irm_loss(model, guide.guide, batch["x"], y, e, noise, weight)

    loss = NegativeELBO(model, guide, site_weights=dict.fromkeys(model.variables.names, 0.0))
    return Case(model, guide, batch, by_hand, {"lr": 2e-3}, loss=loss)
