"""Time and memory of T-VAE's training step: hand-written PyTorch with default settings against ours, and against a VAE's.

    python benchmarks/tvae_step.py [--sizes 10 100] [--sides ...] [--rounds 3]

All sides train the networks of appendix B on the same batch of 100 images. The hand-written T-VAE encodes and decodes one tensor
after the other, as eq. 3 is written. The VAE has the same encoder and decoder, by our side or by hand.
"""

from rounds import main, our_step, time_steps

SIZES = ("10", "100")
SIDES = (
    "handwritten T-VAE",
    "T-VAE fp32 eager",
    "T-VAE fp32 traced",
    "handwritten VAE",
    "VAE fp32 eager",
    "VAE fp32 traced",
)
BATCH = 100


def handwritten_mmd(first, second):
    """The squared discrepancy of two batches under exp(-|a - b|^2 / 2d), pair by pair."""
    import torch

    def mean(a, b):
        return torch.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * a.shape[1])).mean()

    return mean(first, first) + mean(second, second) - 2 * mean(first, second)


def handwritten_loss(model, guide, x, views, noise, weights=(1.0, 1.0, 0.0)):
    """The loss per image of eq. 3 with the indirect coherence term, without Pyro.

    Args:
        model: where the decoder is.
        guide: where encoder, h_psi and h_xi are.
        x: images, (batch, 1, 28, 28).
        views: f(x) and f^-1(x), (batch, 2, 1, 28, 28); None for a VAE.
        noise: standard normal draws for z_0, z_1, z_2 and z, (batch, z_dim) each.
        weights: of the discrepancies of z_1 and z_2, of that of z, and of T's prior.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

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
    loss = loss + weights[0] * (handwritten_mmd(z_1, z + T) + handwritten_mmd(z_2, z - T))
    loss = loss + weights[2] * 0.5 * (T**2).sum() / len(x)
    d = z.shape[1]
    to_normal = (d / (1 + d)) ** (d / 2) * torch.exp(-(z**2).sum(1) / (2 * (1 + d))).mean()
    within = torch.exp(-((z[:, None] - z[None]) ** 2).sum(-1) / (2 * d)).mean()
    return loss + weights[1] * (within + (d / (2 + d)) ** (d / 2) - 2 * to_normal)


def measure(size: str, side: str, steps: int) -> dict[str, float]:
    """Milliseconds of a step and megabytes of the process."""
    import torch

    from pyzoo.models.tvae import TVAENetworks, VAENetworks
    from pyzoo.training import keep_freed_memory

    torch.manual_seed(0)
    is_tvae = "T-VAE" in side
    if not side.startswith("handwritten"):
        keep_freed_memory()
    networks = (TVAENetworks if is_tvae else VAENetworks)(z_dim=int(size))
    model = networks.model()
    guide = networks.guide(model)
    x, views = torch.rand(BATCH, 1, 28, 28), torch.rand(BATCH, 2, 1, 28, 28) if is_tvae else None
    if not side.startswith("handwritten"):
        batch = {"x": x, "views": views} if is_tvae else {"x": x}
        return time_steps(our_step(model, guide, batch, *side.split()[1:], lr=1e-3), steps)
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=1e-3)

    def step():
        optimizer.zero_grad()
        loss = handwritten_loss(model, guide, x, views, torch.randn(4, BATCH, model.z_dim))
        loss.backward()
        optimizer.step()
        return loss.item()

    return time_steps(step, steps)


if __name__ == "__main__":
    main(__file__, __doc__, dict.fromkeys(SIZES, "dimensions of z"), SIDES, measure, lambda size: 20)
