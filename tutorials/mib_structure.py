# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Learning which view depends on which latent
#
# *Five instruments record at once. Some of them see the same things, but which?* A model of several views needs a structure:
# which latent do two views share? Here it is learned together with the networks, by algorithm 1 of Zhang, Koyama and Ishiguro
# (2020): every edge has a probability, edges are drawn, and their probabilities follow the gradient of a score.
#
# The data are drawn from a structure that we know, so that you can see whether it is found. As a script it takes about two
# minutes on two cores: `python tutorials/mib_structure.py`. Its pictures go to the folder `tutorial-mib-structure` where you run
# it. (`PYZOO_TUTORIAL_STEPS=100` in the environment makes it short.)

# %%
import os
from pathlib import Path

import torch

from pyzoo.data.planted import PlantedGaussians, PlantedSource, parsed_structure
from pyzoo.infer import NegativeELBO
from pyzoo.models.mib import LearnedMaskNetworks
from pyzoo.plotting import draw_network, figure_grid, label_axes, show
from pyzoo.recipes.mib.structure.objectives import DistributionLoss, ScoreLoss
from pyzoo.recipes.mib.structure.report import matched, matched_edges
from pyzoo.training import keep_freed_memory, linear

STEPS = int(os.environ.get("PYZOO_TUTORIAL_STEPS", 2000))
OUT = Path("tutorial-mib-structure")
keep_freed_memory()
OUT.mkdir(exist_ok=True)

# %% [markdown]
# ## 1. Views with planted causes
#
# Three causes, five views. Each view is a vector of four numbers: a linear function of its causes, with noise. For normal
# variables every information is known exactly: the first two views have a cause in common, and the first and the last have none.

# %%
truth = parsed_structure("z1 -> x1, x2, x3; z2 -> x3, x4; z3 -> x2, x4, x5")
planted = PlantedGaussians(truth, x_dim=4, noise=0.3)
for pair in (["x1"], ["x2"]), (["x1"], ["x5"]):
    print(f"I({pair[0][0]}; {pair[1][0]}) = {planted.information(*pair):.3f} nats")

# %% [markdown]
# ## 2. Masks
#
# The networks know of all edges. Two masks decide on them: M^p, which views a latent generates, and M^q, from which views it is
# inferred. In training a mask is drawn, with entries between 0 and 1, so that there is a gradient; afterwards the most likely
# edges count.

# %%
views, latents = truth.variables.observed, ("z1", "z2", "z3")
networks = LearnedMaskNetworks(
    hidden_dim=32,
    observed=views,
    shared=latents,
    private=(),
    dims=tuple((z, 1) for z in latents),
    generative=f"{', '.join(latents)} -> {', '.join(views)}",
    inference=f"{', '.join(views)} -> {', '.join(latents)}",
    num_features=4,
)
torch.manual_seed(0)
model = networks.model()
guide = networks.guide(model)
print("a draw of the first rows of M^p:", model.mask()[:2].tolist())

# %% [markdown]
# ## 3. Two losses, in turns
#
# The distributions minimize the negative ELBO. The structure minimizes the same, plus a price for each edge. But there is a
# catch: two normal latents can be rotated into each other. Rotated, they explain the views as well, only with more edges.
# Leaving out any single one of these edges makes the views worse, so that a price on edges does not find the way back. The
# noise of the drawn masks does, a little; and the distributions also pay for the *effective number of parents* of each view,
# which falls smoothly as the latents rotate back. Edges are learned in the second half of the steps, and soon
# that price falls to a tenth.

# %%
elbo = NegativeELBO(model, guide)
masks = [model.mask, guide.mask]
distribution = DistributionLoss(elbo, model, concentration=1.0)
score = ScoreLoss(elbo, masks, sparsity=0.2)
logits = [mask.logits for mask in masks]
weights = [p for program in (model, guide) for p in program.parameters() if all(p is not one for one in logits)]
optimizers = torch.optim.Adam(weights, lr=1e-2, fused=True), torch.optim.Adam(logits, lr=3e-2, fused=True)
falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizers[0], STEPS)
turn, settle = linear(0, 1, steps=0.1 * STEPS, start=0.15 * STEPS), linear(1, 0.1, steps=0.2 * STEPS, start=0.6 * STEPS)

source = PlantedSource(planted)
history = []
for step in range(STEPS):
    distribution.share.fill_(turn(step) * settle(step))
    batch = source.batch(step, 128)
    for module, optimizer in zip((distribution, score), optimizers, strict=True):
        if module is score and step < STEPS / 2:
            continue
        optimizer.zero_grad()
        loss, terms = module(**batch)
        loss.backward()
        optimizer.step()
        if module is distribution:
            parents = terms["effective_parents"].item()
    falling.step()
    if step % max(1, STEPS // 20) == 0 or step == STEPS - 1:
        probabilities = model.mask.probabilities().detach()
        history.append((step + 1, parents, probabilities))

edges = (history[-1][2] > 0.5).float()
print(f"edges right: {matched_edges(edges, truth.generative_mask()):.0%}")

# %% [markdown]
# The effective number of parents falls to that of the truth, here 8 edges for 5 views, and the edges follow.

# %%
order = matched(edges, truth.generative_mask())
figure, [cells] = figure_grid(1, 6, "Probability of each edge (black: 1), latents in the causes' order", cell=(1.5, 2.2))
shown = [history[i] for i in torch.linspace(0, len(history) - 1, 5).long().tolist()]
pictures = [(f"step {step}", probabilities[:, order]) for step, _, probabilities in shown]
for cell, (title, mask) in zip(cells, [*pictures, ("the truth", truth.generative_mask())], strict=True):
    cell.imshow(mask, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    cell.set_title(title, fontsize=9)
    names = truth.variables.shared if title == "the truth" else [latents[j] for j in order]
    cell.set_xticks(range(len(names)), names, fontsize=8)
    cell.set_yticks(range(len(views)), views, fontsize=8)
show(figure, OUT / "1_masks.png")

figure, [[cell, left, right]] = figure_grid(1, 3, "From turned latents to the structure", cell=(3.2, 2.6))
cell.plot([step for step, _, _ in history], [parents for _, parents, _ in history])
cell.axhline(len(truth.edges) / len(views), color="gray", linewidth=0.8, linestyle=":")
label_axes(cell, "training step", "effective parents of a view")
found = [(z, x) for j, z in enumerate(latents) for i, x in enumerate(views) if edges[i, j]]
draw_network(left, [truth.variables.shared, views], truth.edges, views, "The truth")
draw_network(right, [[latents[j] for j in order], views], found, views, "Learned")
show(figure, OUT / "2_structures.png")

# %% [markdown]
# ## 4. Your turn
#
# Give the networks one latent more than there are causes, `latents = ("z1", "z2", "z3", "z4")` in section 2: it loses all of its
# edges. Or plant a structure of your own in section 1, as dense as you like, and see when it is no longer found; and whether
# `known="z1 -> x1"` in section 2, a part of the truth, helps. The recipe draws structures of any size, and strips of digits that
# share causes: `pyzoo train mib-structure --preset digits`.
