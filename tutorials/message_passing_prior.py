# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Components that are related
#
# *Each of several measurements tells of the others, and nobody knows how.* The message passing prior (Ren et al. 2023) learns
# it: every component sends a message, through an invertible map of its own, to one latent; and the same map, taken backward,
# says what the latent stands for in that component. So whatever is missing can be filled in from whatever is there.
#
# By the end you have a prior that fills in missing components, and one that has noticed which component has nothing to do with
# the others. As a script it takes about a minute on two cores: `python tutorials/message_passing_prior.py`. Its pictures go to
# the folder `tutorial-message-passing-prior` where you run it. (`PYZOO_TUTORIAL_STEPS=100` in the environment makes it short.)

# %%
import os
from pathlib import Path

import pyro
import torch

from pyzoo.distributions import MessagePassingPrior
from pyzoo.plotting import figure_grid, label_axes, show
from pyzoo.training import keep_freed_memory

STEPS = int(os.environ.get("PYZOO_TUTORIAL_STEPS", 1500))
OUT = Path("tutorial-message-passing-prior")
keep_freed_memory()
NAMES = ("A", "B", "C", "D")
OUT.mkdir(exist_ok=True)

# %% [markdown]
# ## 1. Four components
#
# Each has four numbers. A is anything; B and C are functions of A that bend and mix its numbers, with a little noise; D has
# nothing to do with any of them. The prior is told none of this.


# %%
def draw(count, seed):
    """Components, (count, 4, 4)."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c, d = torch.randn(4, count, generator=generator)
    first = torch.stack([a, b, c, d], 1)
    second = torch.stack([d, c + torch.sin(2 * d), b * torch.exp(0.5 * torch.tanh(d)) + 0.5 * c, a - d**2 / 2], 1)
    third = torch.stack([a, b, c + a * b, d * torch.exp(-0.4 * torch.tanh(a))], 1)
    unrelated = torch.randn(count, 4, generator=generator)
    y = torch.stack([first, second, third, unrelated], 1)
    return y + 0.03 * torch.randn(y.shape, generator=generator)


train, test = draw(20_000, seed=0), draw(1000, seed=1)
mean, deviation = train.mean(0), train.std(0)
train, test = (train - mean) / deviation, (test - mean) / deviation

# %% [markdown]
# ## 2. The prior, and its ELBO
#
# $$h \sim N(0, I), \qquad y_k \mid h \sim N(f_k^{-1}(h), \sigma_k^2), \qquad
# q(h \mid y) = N(\textstyle\sum_k w_k f_k(y_k), s^2)$$
#
# In a Pyro program these are two sites, and any of Pyro's ELBOs will do. `prior.elbo` is the same in one call.

# %%
pyro.set_rng_seed(0)
prior = MessagePassingPrior(num_components=4, dim=4)


def model(y):
    with pyro.plate("rows", len(y)):
        h = pyro.sample("h", prior.latent((len(y),)))
        pyro.sample("y", prior.components(h), obs=y)


def guide(y):
    with pyro.plate("rows", len(y)):
        pyro.sample("h", prior.posterior(y))


by_pyro = -pyro.infer.Trace_ELBO(num_particles=50).loss(model, guide, test[:100])
by_prior = torch.stack([prior.elbo(test[:100]).sum() for _ in range(50)]).mean()
print(f"ELBO of 100 rows before training: {by_pyro:.0f} nats by Pyro, {by_prior:.0f} by the prior")

# %% [markdown]
# ## 3. Training
#
# Messages start with equal weights. A component that misleads the others loses weight, and its noise grows: both are learned.

# %%
optimizer = torch.optim.Adam(prior.parameters(), lr=4e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
for step in range(STEPS):
    optimizer.zero_grad()
    loss = -prior.elbo(train[torch.randint(len(train), (256,))]).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(prior.parameters(), 10.0)
    optimizer.step()
    schedule.step()
    if step % max(1, STEPS // 5) == 0:
        print(f"step {step:5}: {loss.item():8.2f} nats per row")

# %% [markdown]
# ## 4. What is missing, from the rest
#
# Each component in turn is taken away, and filled in from the other three. R2, of all four numbers of a component, is 1 where it
# comes back exactly, and 0 where its mean would do as well. The picture shows the second number of each.


# %%
def filled_in(missing):
    """A component as the others tell it, (rows, 4)."""
    present = torch.ones(4, dtype=torch.bool)
    present[missing] = False
    with torch.no_grad():
        return prior.impute(test, present)[:, missing]


figure, [axes] = figure_grid(1, 4, "Each component from the other three: its second number", cell=(2.4, 2.4))
for component, cell in enumerate(axes):
    again, truth = filled_in(component), test[:, component]
    r2 = 1 - ((again - truth).square().sum() / (truth - truth.mean(0)).square().sum()).item()
    weight = prior.log_weights.softmax(0)[component].mean().item()
    noise = prior.log_scale[component].exp().mean().item()
    print(f"{NAMES[component]}: R2 {r2:5.2f}   weight of its message {weight:.2f}   noise {noise:.2f}")
    cell.scatter(truth[:, 1], again[:, 1], s=3)
    cell.set_title(f"{NAMES[component]}: R2 {r2:.2f}", fontsize=9)
    label_axes(cell, "true", "filled in")
show(figure, OUT / "1_filled_in.png")

# %% [markdown]
# The message of D is all but ignored, and its noise says that the latent does not explain it.
#
# ## 5. Rows that are drawn
#
# Drawn from the prior, components keep their relation: the fourth number of B falls with the square of that of A.

# %%
with torch.no_grad():
    drawn = prior.components(prior.latent((1000,)).sample()).sample()
figure, [axes] = figure_grid(1, 2, "Rows from the data, and rows from the prior", cell=(2.8, 2.6))
for cell, (title, y) in zip(axes, {"data": test, "drawn": drawn}.items(), strict=True):
    cell.scatter(y[:, 0, 3], y[:, 1, 3], s=3)
    cell.set_title(title, fontsize=9)
    label_axes(cell, "fourth number of A", "fourth number of B")
show(figure, OUT / "2_drawn.png")

# %% [markdown]
# ## 6. Your turn
#
# Train with `learn=False, scale=1.0, posterior_scale=1.0, coupling="sigmoid"`, as the paper has it: then D counts as much as the
# others. How well are A, B and C filled in? Then leave D out of the data. Or hide components while you train:
# `prior.elbo(y, present)` infers h from some of them and scores all. Where components are missing from your data,
# `prior.elbo(y, observed=...)` leaves them out. Or turn round the sign of one number of A: the maps can't
# follow, since couplings keep the orientation. They can with `rotations=procrustes_rotations(train)`, from
# `pyzoo.distributions`.
