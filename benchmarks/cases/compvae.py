"""Time and memory of CompVAE's training step: hand-written PyTorch with default settings against ours.

    python benchmarks/compvae_step.py [--sizes wide paper small] [--sides ...] [--rounds 3]

Both sides train the same networks on the same batches. The hand-written one is what one writes without Pyro and pyzoo: plain
modules, the loss by hand, ``torch.optim.Adam`` as it comes. Ours is what ``pyzoo train`` runs: the model and guide through
``NegativeELBO`` and Fabric, fused Adam, memory kept between steps; in fp32 and in bf16. Each measurement is a process of its
own; they take turns, so that a change of the machine's speed meets all, and ratios are taken within a round.
"""

import math

from rounds import main, our_step, time_steps

BATCH, PARTS = 64, 4
SMALL = {"w_dim": 64, "z_dim": 8, "prior_width": 128, "decoder_width": 200, "encoder_width": 200, "z_width": 128}
SIZES = {"wide": {"graph_block": "wide"}, "paper": {}, "small": {**SMALL, "graph_widths": (256,), "label_dim": 64}}
SIDES = ("handwritten", "handwritten, kept memory", "ours fp32 eager", "ours bf16 eager", "ours fp32 traced")


def handwritten_loss(model, guide, parts, x):
    """The negative ELBO per set (Berger and Sebag 2019, algorithm 1), with the networks of both programs and nothing else."""
    import torch
    from torch.nn.functional import log_softmax, softplus

    def floored(log_variance, floor=model.scale_floor):
        lowest = 2 * math.log(floor)
        return lowest + softplus(log_variance - lowest)

    x_floor = model.x_floor.item()
    features = guide.encoder(x)
    z_loc, z_log_variance = guide.whole_posterior(features).chunk(2, -1)
    z_noise = torch.randn_like(z_loc)
    z = z_loc + (z_log_variance / 2).exp() * z_noise
    label = guide.label(parts)
    label = label + guide.node_noise * torch.randn_like(label)
    nodes = torch.cat([torch.cat([features, z], -1).unsqueeze(1).expand(-1, parts.shape[1], -1), label], -1)
    q_loc, q_log_variance, logits = guide.part_posterior(nodes).chunk(3, -1)  # each (batch, parts, w_dim)
    shares = log_softmax(torch.cat([logits, torch.zeros_like(logits[:, :1])], 1), 1)
    rho, log_remainder = shares[:, :-1].exp(), shares[:, -1]
    noise = torch.randn(q_loc.mT.shape).mT  # drawn as (batch, w_dim, parts), so that seeds agree
    w = q_loc + (q_log_variance / 2).exp() * (noise - rho * noise.sum(1, keepdim=True))
    p_loc, p_log_variance = model.part_prior(parts).chunk(2, -1)
    p_log_variance = floored(p_log_variance)
    count = parts.shape[1]
    ratio = (q_log_variance - p_log_variance).exp() * (1 - 2 * rho + count * rho**2)
    shift = (q_loc - p_loc) ** 2 * (-p_log_variance).exp()
    kl_w = 0.5 * (p_log_variance - q_log_variance + shift + ratio - 1).sum() - log_remainder.sum()
    whole = w.sum(1)
    m_loc, m_log_variance = model.whole_prior(whole).chunk(2, -1)
    m_log_variance = floored(m_log_variance)
    log_ratio_z = 0.5 * ((z - m_loc) ** 2 * (-m_log_variance).exp() + m_log_variance - z_noise**2 - z_log_variance).sum()
    x_loc, x_log_variance = model.decoder(whole, z)
    x_log_variance = floored(x_log_variance, x_floor)
    nll = 0.5 * ((x - x_loc) ** 2 * (-x_log_variance).exp() + x_log_variance + math.log(2 * math.pi)).sum()
    return (kl_w + log_ratio_z + nll) / len(x)


def measure(size: str, side: str, steps: int) -> dict[str, float]:
    """Milliseconds of a step and megabytes of the process."""
    import torch

    from pyzoo.data.sines import Sines
    from pyzoo.models.compvae import SinesNetworks
    from pyzoo.training import keep_freed_memory

    torch.manual_seed(0)
    if side != "handwritten":
        keep_freed_memory()
    networks = SinesNetworks(**SIZES[size])
    model = networks.model()
    guide = networks.guide(model)
    curves = Sines(lambda step: PARTS).draw(BATCH, PARTS, seed=0)
    if side.startswith("handwritten"):
        optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=1e-4, betas=(0.5, 0.9))

        def step():
            optimizer.zero_grad()
            loss = handwritten_loss(model, guide, curves.parts, curves.x)
            loss.backward()
            optimizer.step()
            return loss.item()

    else:
        step = our_step(model, guide, curves.batch(), *side.split()[1:], lr=1e-4, betas=(0.5, 0.9))
    return time_steps(step, steps)


if __name__ == "__main__":
    described = dict.fromkeys(SIZES, f"batch {BATCH}, K = {PARTS}")
    main(__file__, __doc__, described, SIDES, measure, lambda size: 50 if size == "small" else 5)
