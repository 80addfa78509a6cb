"""Time and memory of FC-VAE's training step: hand-written PyTorch with default settings against ours.

    python benchmarks/graph_vae_step.py [--sizes 64 128 512] [--sides ...] [--rounds 3]

Both sides train the networks of appendix B.1 on the same binary images. The hand-written one is what one writes without Pyro and
pyzoo: plain modules, the loss by hand, ``torch.optim.Adam`` as it comes. Ours is what ``pyzoo train fc-vae`` runs: the model
and guide with their gates through ``NegativeELBO`` and Fabric, fused Adam, memory kept between steps.
"""

from rounds import main, our_step, time_steps

NODES = 5
SIZES = ("64", "128", "512")
SIDES = ("handwritten", "handwritten, kept memory", "ours fp32 eager", "ours fp32 traced", "ours bf16 traced")


def handwritten_loss(model, guide, x, parents, noise):
    """The negative ELBO per image of a VAE whose node n has these parents, without Pyro and without gates.

    Args:
        model: where the networks of the generative story are.
        guide: where those of the inference story are.
        x: binary images.
        parents: the parents of each node; nodes count from 1.
        noise: standard normal draws for each node, (batch, node_dim).
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

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


def measure(size: str, side: str, steps: int) -> dict[str, float]:
    """Milliseconds of a step and megabytes of the process."""
    import torch

    from pyzoo.models.graph_vae import GraphVAENetworks
    from pyzoo.training import keep_freed_memory

    torch.manual_seed(0)
    if side != "handwritten":
        keep_freed_memory()
    networks = GraphVAENetworks(nodes=NODES, structure="full")
    model = networks.model()
    guide = networks.guide(model)
    x = torch.rand(int(size), 1, 28, 28).round()
    if not side.startswith("handwritten"):
        return time_steps(our_step(model, guide, {"x": x}, *side.split()[1:], lr=1e-3), steps)
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=1e-3)
    parents = {node: list(range(node + 1, NODES + 1)) for node in range(1, NODES + 1)}

    def step():
        optimizer.zero_grad()
        noise = {node: torch.randn(len(x), model.node_dim) for node in parents}
        loss = handwritten_loss(model, guide, x, parents, noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    return time_steps(step, steps)


if __name__ == "__main__":
    main(__file__, __doc__, dict.fromkeys(SIZES, "images in a batch"), SIDES, measure, lambda size: 50)
