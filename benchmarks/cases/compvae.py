"""CompVAE on curves."""

import math

import torch
from torch.nn.functional import log_softmax, softplus

from benchmarks.cases import Case
from pyzoo.data.sines import Sines
from pyzoo.models.compvae import SinesNetworks

BATCH, PARTS = 64, 4
SMALL = {"w_dim": 64, "z_dim": 8, "prior_width": 128, "decoder_width": 200, "encoder_width": 200, "z_width": 128}
_SIZES: dict[str, dict] = {
    "small": {**SMALL, "graph_widths": (256,), "label_dim": 64},
    "wide": {"graph_block": "wide"},
    "paper": {},
}
SIZES = dict.fromkeys(_SIZES, f"batch {BATCH}, K = {PARTS}")


def handwritten_loss(model, guide, parts, x, positions=None):
    """The negative ELBO per set (Berger and Sebag 2019, algorithm 1), with the networks of both programs and nothing else."""

    def floored(log_variance, floor=model.scale_floor):
        lowest = 2 * math.log(floor)
        return lowest + softplus(log_variance - lowest)

    x_floor = model.x_floor.item()
    features = guide.encoder(x)
    z_loc, z_log_variance = guide.whole_posterior(features).chunk(2, -1)
    z_noise = torch.randn_like(z_loc)
    z = z_loc + (z_log_variance / 2).exp() * z_noise
    label = guide.label(parts, positions)
    label = label + guide.node_noise * torch.randn_like(label)
    nodes = torch.cat([torch.cat([features, z], -1).unsqueeze(1).expand(-1, parts.shape[1], -1), label], -1)
    q_loc, q_log_variance, logits = guide.part_posterior(nodes).chunk(3, -1)  # each (batch, parts, w_dim)
    p_loc, p_log_variance = model.part_prior(parts, positions).chunk(2, -1)
    p_log_variance = floored(p_log_variance)
    if guide.w_prior is not None:  # relative to p(w | l)
        q_loc, q_log_variance = p_loc + (p_log_variance / 2).exp() * q_loc, p_log_variance + q_log_variance
    shares = log_softmax(torch.cat([logits, torch.zeros_like(logits[:, :1])], 1), 1)
    rho, log_remainder = shares[:, :-1].exp(), shares[:, -1]
    noise = torch.randn(q_loc.mT.shape, device=q_loc.device).mT  # drawn as (batch, w_dim, parts), so that seeds agree
    w = q_loc + (q_log_variance / 2).exp() * (noise - rho * noise.sum(1, keepdim=True))
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


def make(size: str, device: torch.device) -> Case:
    return _case(SinesNetworks(**_SIZES[size]), PARTS, 50 if size == "small" else 5, device)


def with_parts(parts: int, device: torch.device) -> Case:
    """The small networks on so many parts."""
    return _case(SinesNetworks(**_SIZES["small"]), parts, 20, device)


def _case(networks: SinesNetworks, parts: int, steps: int, device: torch.device) -> Case:
    model = networks.model()
    model, guide = model.to(device), networks.guide(model).to(device)
    curves = Sines(lambda step: parts, device=device).draw(BATCH, parts, seed=0)
    adam = {"lr": 1e-4, "betas": (0.5, 0.9)}
    return Case(model, guide, curves.batch(), lambda: handwritten_loss(model, guide, curves.parts, curves.x), adam, steps)
