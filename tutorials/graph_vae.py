# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Graph VAE: from a ladder to a learned graph
#
# A VAE's latents are independent in its prior, and that costs likelihood: the data's latents are not. Ladder VAE lets
# each latent depend on the one above it. He et al. (2019) ask why one should have to choose: put a gate on each
# possible dependency, and learn which gates to open together with the networks.
#
# You need some Pyro, and to know what a VAE is. By the end you have trained four structures with one model and one guide,
# looked at the gates' two gradients, and plugged in a structure of your own. As a script it takes about
# five minutes on two cores: `python tutorials/graph_vae.py`. Its pictures go to the folder `tutorial-graph-vae` where
# you run it. With [jupytext](https://jupytext.readthedocs.io) it opens as a notebook. (`PYZOO_TUTORIAL_STEPS=100`
# in the environment makes it short.)

# %%
import os
from pathlib import Path

import pyro
import torch

from pyzoo.data.images import ImageSource, binarized, load_images
from pyzoo.guides.graph_vae import fuse
from pyzoo.infer import NegativeELBO, TracedStep, log_likelihood
from pyzoo.models.graph_vae import Gates, GraphVAENetworks
from pyzoo.plotting import figure_grid, image_sheet, show
from pyzoo.recipes.graph_vae.figures import graph_picture
from pyzoo.training import keep_freed_memory

STEPS = int(os.environ.get("PYZOO_TUTORIAL_STEPS", 3000))
SAMPLES = min(STEPS, 200)  # of the latents, for a likelihood
OUT = Path("tutorial-graph-vae")
keep_freed_memory()
torch.manual_seed(0)
OUT.mkdir(exist_ok=True)

# %% [markdown]
# ## 1. The data
#
# scikit-learn's handwritten digits: 1,437 to train on, 360 to test on, enlarged to 28x28. They need no download;
# `load_images("mnist", "train")` gives the real thing. A pixel is black or white with the probability that is its
# brightness, drawn anew for every batch.

# %%
images, _ = load_images("digits", "train")
source = ImageSource(images, binarize="dynamic")
test = binarized(load_images("digits", "test")[0], seed=0)
show(image_sheet(test[:20], "Twenty test images"), OUT / "1_data.png")

# %% [markdown]
# ## 2. A ladder
#
# $$p(x, z) = p(x \mid z) \prod_{n=N}^{1} p(z_n \mid z_{pa(n)})$$
#
# In a ladder the only parent of node n is node n + 1. Open `models/graph_vae.py`: its `forward` is the line above,
# from the topmost node down. Which node depends on which is the business of a `Gates` object, a matrix whose entry
# [i, j] says whether node i + 1 is a parent of node j + 1. Here are four nodes of four dimensions. The sizes of all
# networks are one value, `GraphVAENetworks`, which makes the model and its guide.

# %%
NODES = 4


def pair(structure="learned", gates=None, **settings):
    """A model and its guide with small networks, and with the gates of a structure, or with your own."""
    sizes = {"latent_dim": 4 * NODES, "widths": (128, 64), "hidden_dim": 32}
    networks = GraphVAENetworks(nodes=NODES, structure=structure, **sizes, **settings)
    model = networks.model(gates)
    return model, networks.guide(model)


model, guide = pair("chain")
print(model.gates())
trace = pyro.poutine.trace(model).get_trace(size=2)
print({name: tuple(site["value"].shape) for name, site in trace.nodes.items() if site["type"] == "sample"})

# %% [markdown]
# The guide combines x and the parents. From below comes a normal that the encoder made of x, from above one that
# the parents predict, and the two are multiplied: the product is more certain than either, and nearer to the one that is
# more certain.

# %%
below, above = (torch.tensor(0.0), torch.tensor(0.0)), (torch.tensor(1.0), torch.tensor(-2.0))  # mean, log-variance
loc, log_variance = fuse(below, above)
print(f"N(0, 1) and N(1, {torch.tensor(-2.0).exp():.2f}) fuse to N({loc:.2f}, {log_variance.exp():.2f})")

# %% [markdown]
# ## 3. Gates
#
# With all gates possible, each is a coin of its own, tossed once for a whole batch. A coin has no gradient, so in
# training it is a *relaxed* coin, a number between 0 and 1 that multiplies the parent's value. As the temperature
# falls it becomes a coin again. Model and guide share the toss, so the gates add no term to the bound.

# %%
gates = Gates(NODES, "learned", initial=0.7)
figure, [axes] = figure_grid(1, 3, "A gate that is open with probability 0.7, at three temperatures", cell=(2.6, 1.8))
for cell, temperature in zip(axes, (1.0, 0.3, 0.05), strict=True):
    gates.temperature.fill_(temperature)
    with torch.no_grad():
        tosses = torch.stack([gates()[1, 0] for _ in range(2000)])
    cell.hist(tosses.numpy(), bins=40, range=(0, 1), density=True)
    cell.set_title(f"temperature {temperature}", fontsize=9)
    cell.set_yticks([])
show(figure, OUT / "2_gates.png")

# %% [markdown]
# In evaluation mode nothing is tossed: the gates are the most likely graph, and the model is an ordinary one, whose
# likelihood can be estimated by importance sampling.

# %% [markdown]
# ## 4. Four structures, one training
#
# `NegativeELBO` returns the loss and each node's share of it. `TracedStep` records its arithmetic once and runs it
# twice as fast; that is allowed because nothing in a step is Python that changes: temperature and KL weights are
# buffers. The weight of the KLs grows from 0 to 1 over the first half. Without that, latents that carry no information yet
# cost less than latents that do, and many stay unused for good. (`pyzoo train graph-vae` does all this with
# checkpoints, metrics and pictures.)


# %%
def train(structure="learned", steps=STEPS, **settings):
    """Trains a pair; returns the module that holds both, and the edges' probabilities as they went."""
    torch.manual_seed(1)
    model, guide = pair(structure, **settings)
    gates = model.gates
    module = NegativeELBO(model, guide, {f"z_{n + 1}": 1.0 for n in range(NODES)})
    networks = [p for p in module.parameters() if p is not getattr(gates, "logits", None)]
    groups = [{"params": networks}] + ([{"params": [gates.logits], "lr": 1e-2}] if gates.learned else [])
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    gradients, history = TracedStep(module), []
    with pyro.validation_enabled(False):
        for step in range(steps):
            for node in range(NODES):
                module.get_buffer(f"kl_weight_z_{node + 1}").fill_(min(1.0, 2 * step / steps))
            gates.temperature.fill_(0.05 ** (step / steps))
            gradients(source.batch(step, 128))
            optimizer.step()
            cosine.step()
            history.append(gates.probabilities().detach())
    return module.eval(), torch.stack(history)


@torch.no_grad()
def measure(name, module):
    """Prints the bound and an importance-weighted likelihood on test images."""
    terms = {site: term.item() for site, term in module(x=test)[1].items()}
    likelihood = log_likelihood(module.model, module.guide, {"x": test}, num_samples=SAMPLES).mean().item()
    nodes = " ".join(f"{terms[f'z_{node + 1}']:5.2f}" for node in reversed(range(NODES)))
    print(f"{name:12} likelihood {likelihood:8.2f}  ELBO {-sum(terms.values()):8.2f}  KL of z_{NODES} to z_1: {nodes}")


trained = {}
for structure in ("none", "chain", "full", "learned"):
    trained[structure], history = train(structure)
    measure(structure, trained[structure])

# %% [markdown]
# All four end within two nats of each other. Nearly all of the 282 nats are the noise of drawing black and white
# from gray, and what is left of 1,437 blurred digits gives a graph little to explain. It takes more images for the
# dependencies to show: on MNIST the plain VAE is 2.2 nats behind the ladder, the ladder 0.3 behind the full graph, and
# there the topmost node carries 10 of 24.5 nats after 30 epochs, more than any other. (After 349 epochs it shares the
# lead with the next.) The table and the figures are in docs/results/graph-vae.md.

# %%
learned = trained["learned"].model.gates
show(graph_picture(learned.probabilities().detach(), "The learned graph"), OUT / "3_graph.png")
figure, [[axes]] = figure_grid(1, 1, "Probabilities of the edges over training", cell=(5.6, 3.0))
for child in range(NODES):
    for parent in learned.parents(child):
        axes.plot(history[:, parent, child].numpy(), label=f"{parent + 1} to {child + 1}")
axes.set_ylim(-0.03, 1.03)
axes.set_xlabel("training step", fontsize=8)
axes.legend(fontsize=7)
show(figure, OUT / "4_training.png")
with torch.no_grad():
    show(
        image_sheet(pyro.poutine.trace(trained["learned"].model).get_trace(size=20).nodes["x"]["fn"].mean, "Drawn from it"),
        OUT / "5_samples.png",
    )

# %% [markdown]
# All six edges stay: the learned graph is the full one. Where some do not, read no meaning into it. A fuller graph contains
# every sparser one and nothing charges for an edge, so data alone cannot tell that an edge is not there; what decides is
# which way training went.

# %% [markdown]
# ## 5. Change one thing: a structure of your own
#
# Any matrix below the diagonal will do. Here the topmost node is the only parent of all the others: a star.

# %%
star = torch.zeros(NODES, NODES)
star[NODES - 1, : NODES - 1] = 1
trained["star"], _ = train(gates=Gates(NODES, star))
measure("star", trained["star"])

# %% [markdown]
# The gates of the guide need not be the model's: `guide_gates="full"` leaves them all open. The paper found that worse
# than sharing them; here it makes no difference that one could tell from one run.

# %%
trained["open guide"], _ = train("learned", guide_gates="full")
measure("open guide", trained["open guide"])

# %% [markdown]
# ## 6. Hard gates
#
# Relaxed gates are biased: the networks are trained with gates that are neither open nor closed. Hard ones are
# tossed as coins, and their gradient comes from comparing: `TraceKL_ELBO` draws several particles, each with a graph of
# its own, and pushes the probabilities towards the graphs that did better than the others. That is unbiased, and noisy: the
# last number below is the standard deviation of the gates' gradients, as a multiple of their means. A step with four particles
# takes about four times as long.

# %%
PARTICLES, DRAWS = 4, min(STEPS, 100)
spread = {}
for estimator, particles in (("relaxed", 1), ("hard", PARTICLES)):
    torch.manual_seed(2)
    model, guide = pair("learned", gate_estimator=estimator)
    gates = model.gates
    module = NegativeELBO(model, guide, num_particles=particles)
    module.load_state_dict(trained["learned"].state_dict(), strict=False)  # networks as trained
    with torch.no_grad():
        gates.logits.zero_()
        gates.temperature.fill_(0.3)
    module.eval()
    gates.train()
    step = TracedStep(module)
    gradients = []
    for draw in range(DRAWS):
        step(source.batch(draw, 128))
        gradients.append(gates.logits.grad)
    gradients = torch.stack(gradients)
    spread[estimator] = gradients.std(0).mean() / gradients.mean(0).abs().mean()
    print(
        f"{estimator:8} mean gradient of the first edge {gradients[:, 0].mean():7.3f}, spread over mean {spread[estimator]:.1f}"
    )

# %% [markdown]
# ## Where to go from here
#
# - `pyzoo train graph-vae` on MNIST, in about ten minutes; `--gate-estimator hard --particles 4` for section 6.
# - `pyzoo reproduce graph-vae-table1` for the paper's comparison of the four structures, with seeds.
# - `docs/results/graph-vae.md` for what it printed, and for what separates the structures.
