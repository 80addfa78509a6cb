"""T-VAE with the networks of appendix B on batches of 100 images, and the VAE that has the same encoder and decoder.

By hand T-VAE encodes and decodes one tensor after the other, as eq. 3 is written.
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.cases import Case
from pyzoo.models.tvae import TVAENetworks, VAENetworks

SIZES = {**dict.fromkeys(("10", "100"), "dimensions of z"), **dict.fromkeys(("vae-10", "vae-100"), "a VAE's step")}
BATCH = 100


def handwritten_mmd(first, second):
    """The squared discrepancy of two batches under exp(-|a - b|^2 / 2d), pair by pair."""

    def mean(a, b):
        return torch.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * a.shape[1])).mean()

    return mean(first, first) + mean(second, second) - 2 * mean(first, second)


def handwritten_loss(model, guide, x, views, noise, weights=(1.0, 1.0, 0.0), conditional=False):
    """The loss per image of eq. 3 with the indirect coherence term, without Pyro.

    Args:
        model: where the decoder is.
        guide: where encoder, h_psi and h_xi are.
        x: images, (batch, 1, 28, 28).
        views: f(x) and f^-1(x), (batch, 2, 1, 28, 28); None for a VAE.
        noise: standard normal draws for z_0, z_1, z_2 and z, (batch, z_dim) each.
        weights: of the discrepancies of z_1 and z_2, of that of z, and of T's prior.
        conditional: compare each z_1 with its own z + T, and not all with all.
    """

    def encode(image, epsilon):
        loc, log_variance = guide.encoder(image).chunk(2, 1)
        return loc, log_variance, loc + (log_variance / 2).exp() * epsilon

    def cost(image, latent):
        return binary_cross_entropy_with_logits(model.decoder(latent), image, reduction="sum") / len(x)

    loc, log_variance, z_0 = encode(x, noise[0])
    loss = cost(x, z_0) + 0.5 * (loc**2 + log_variance.exp() - 1 - log_variance).sum() / len(x)
    if views is None:
        return loss
    z_1, z_2 = encode(views[:, 0], noise[1])[2], encode(views[:, 1], noise[2])[2]
    together = torch.cat([z_1, z_2], 1)
    loc, log_variance = guide.fuse(together).chunk(2, 1)
    z = loc + (log_variance / 2).exp() * noise[3]
    T = guide.transformation(together)
    loss = loss + cost(x, z) + cost(views[:, 0], z_1) + cost(views[:, 1], z_2)
    pairs = ((z_1, z + T), (z_2, z - T))
    if conditional:
        apart = [2 - 2 * torch.exp(-((a - b) ** 2).sum(1) / (2 * z.shape[1])).mean() for a, b in pairs]
    else:
        apart = [handwritten_mmd(a, b) for a, b in pairs]
    loss = loss + weights[0] * sum(apart)
    loss = loss + weights[2] * 0.5 * (T**2).sum() / len(x)
    d = z.shape[1]
    to_normal = (d / (1 + d)) ** (d / 2) * torch.exp(-(z**2).sum(1) / (2 * (1 + d))).mean()
    within = torch.exp(-((z[:, None] - z[None]) ** 2).sum(-1) / (2 * d)).mean()
    return loss + weights[1] * (within + (d / (2 + d)) ** (d / 2) - 2 * to_normal)


def make(size: str, device: torch.device) -> Case:
    kind, _, z_dim = size.rpartition("-")
    networks = (VAENetworks if kind else TVAENetworks)(z_dim=int(z_dim))
    model = networks.model()
    model, guide = model.to(device), networks.guide(model).to(device)
    x = torch.rand(BATCH, 1, 28, 28, device=device)
    views = None if kind else torch.rand(BATCH, 2, 1, 28, 28, device=device)
    batch = {"x": x} if views is None else {"x": x, "views": views}

    def by_hand() -> torch.Tensor:
        return handwritten_loss(model, guide, x, views, torch.randn(4, BATCH, model.z_dim, device=device))

    return Case(model, guide, batch, by_hand)
