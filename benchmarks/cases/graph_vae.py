"""FC-VAE, a Graph VAE with all dependencies, with the networks of appendix B.1 on binary images."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.cases import Case
from pyzoo.models.graph_vae import GraphVAENetworks

NODES = 5
SIZES = dict.fromkeys(("64", "128", "512"), "images in a batch")


def handwritten_loss(model, guide, x, parents, noise):
    """The negative ELBO per image of a VAE whose node n has these parents, without Pyro and without gates.

    Args:
        model: where the networks of the generative story are.
        guide: where those of the inference story are.
        x: binary images.
        parents: the parents of each node; nodes count from 1.
        noise: standard normal draws for each node, (batch, node_dim).
    """
    features = guide.encoder(x)
    z, loss = {}, 0.0
    for node in sorted(parents, reverse=True):
        loc, log_variance = guide.bottom_up[str(node)](features)
        prior_loc, prior_log_variance = torch.zeros_like(loc), torch.zeros_like(loc)
        if parents[node]:
            above = torch.cat([z[parent] for parent in parents[node]], -1)
            prior_loc, prior_log_variance = model.top_down[str(node)](above)
            guess_loc, guess_log_variance = guide.top_down[str(node)](above)
            precision = 1 / log_variance.exp() + 1 / guess_log_variance.exp()
            loc = (loc / log_variance.exp() + guess_loc / guess_log_variance.exp()) / precision
            log_variance = -precision.log()
        z[node] = loc + (log_variance / 2).exp() * noise[node]
        ratio = (log_variance - prior_log_variance).exp()
        loss = loss + 0.5 * (ratio - 1 - ratio.log() + (loc - prior_loc) ** 2 / prior_log_variance.exp()).sum()
    logits = model.decoder.network(torch.cat([z[node] for node in sorted(z)], -1))
    loss = loss + binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
    return loss / len(x)


def make(size: str, device: torch.device) -> Case:
    return _case(NODES, int(size), device)


def with_nodes(nodes: int, device: torch.device) -> Case:
    """So many nodes, on 64 images."""
    return _case(nodes, 64, device)


def _case(nodes: int, batch: int, device: torch.device) -> Case:
    networks = GraphVAENetworks(nodes=nodes, structure="full")
    model = networks.model()
    model, guide = model.to(device), networks.guide(model).to(device)
    x = torch.rand(batch, 1, 28, 28, device=device).round()
    parents = {node: list(range(node + 1, nodes + 1)) for node in range(1, nodes + 1)}

    def by_hand() -> torch.Tensor:
        noise = {node: torch.randn(len(x), model.node_dim, device=device) for node in parents}
        return handwritten_loss(model, guide, x, parents, noise)

    return Case(model, guide, {"x": x}, by_hand, steps=50)
