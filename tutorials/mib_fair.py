# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A fair representation of a table of your own
#
# *Predictions may use what a row says of the person, but not what it says of their group.* Leaving the group's column out
# is not enough: other columns tell it. In the framework of Zhang, Koyama and Ishiguro (2020) one draws the network that one
# would like to hold, and trains a representation that obeys it.
#
# By the end you have such a representation of a table, a classifier on it, and four numbers for how accurate and how fair
# that is. As a script it takes about two minutes on two cores: `python tutorials/mib_fair.py`. Its pictures go to the folder
# `tutorial-mib-fair` where you run it. (`PYZOO_TUTORIAL_STEPS=100` in the environment makes it short.)

# %%
import os
from pathlib import Path

import torch

from pyzoo.data.tables import TableSource, load_table
from pyzoo.evaluation import fairness_metrics, leakage
from pyzoo.infer import NegativeELBO, Penalized, Penalty, TotalCorrelation, evaluating
from pyzoo.models.mib import TableNetworks
from pyzoo.plotting import draw_network, figure_grid, show
from pyzoo.recipes.mib.fair.figures import front
from pyzoo.recipes.mib.fair.report import linear_classifier, representation
from pyzoo.training import Pair, keep_freed_memory

STEPS = int(os.environ.get("PYZOO_TUTORIAL_STEPS", 600))
OUT = Path("tutorial-mib-fair")
keep_freed_memory()
OUT.mkdir(exist_ok=True)

# %% [markdown]
# ## 1. A table
#
# This one is synthetic, so that its bias is known: two groups, A and B, have the same merits, and B is favored. For your own
# table write `load_table("people.csv", target="hired", sensitive="sex")`. Numbers are brought to variance 1, categories become
# one column each, and missing values are filled in and marked.

# %%
table = load_table("synthetic", bias=2.0)
train, test = table.split(seed=0, test_share=1 / 3)
print(table.frame.head(3).round(2).to_string())
for group, name in enumerate(table.groups):
    print(f"group {name}: {test.y[test.a == group].double().mean():.0%} {table.outcomes[1]}")


def measured(name, x, other):
    """Accuracy and unfairness of a linear classifier, and what trees recover of the group."""
    predicted = torch.as_tensor(linear_classifier(x, train.y).predict(other.numpy()))
    found = {**fairness_metrics(predicted, test.y, test.a), "leakage": leakage(x, train.a, other, test.a)}
    print(f"{name:24}" + "".join(f"{metric} {value:.3f}   " for metric, value in found.items()))
    return found


everything = measured("all columns", train.x, test.x)

# %% [markdown]
# `demographic_parity` is the difference of the groups' rates of favorable predictions. `deo` is the same among those who
# have the favorable outcome in truth. `leakage` is how often gradient-boosted trees guess the group right.
#
# ## 2. Three networks
#
# A shared latent z explains what the columns x and the group a have in common; a private latent u_x explains the rest of x.
# u_x will be the representation. The third network is the target: z and u_x are independent. Since z must explain the group,
# u_x should then not tell it.

# %%
networks = TableNetworks(
    hidden_dim=64,
    feature_scale=0.3,
    observed=("x", "a"),
    shared=("z",),
    private=(("u_x", "x"),),
    dims=(("z", 1), ("u_x", 8)),
    generative="z -> x, a; u_x -> x",
    inference="x, a -> z; x -> u_x",
    num_features=train.x.shape[1],
)
inference = networks.network(networks.inference)
target = networks.network("z, u_x -> x, a; x -> a")
figure, [cells] = figure_grid(1, 3, "What may depend on what", cell=(2.6, 2.4))
drawn = {"the model": networks.network(networks.generative), "the guide": inference, "the target": target}
for cell, (title, network) in zip(cells, drawn.items(), strict=True):
    draw_network(cell, network.layers, network.edges, networks.observed, title)
show(figure, OUT / "1_networks.png")


def penalty(weight):
    """The distance of the guide's distribution to the target: the information between both latents, estimated."""
    estimators = {"I(u_x; z)": TotalCorrelation(len(train))}
    return Penalty("invariant", inference, target, weight, form="conditional", estimators=estimators)


print(penalty(20.0))

# %% [markdown]
# ## 3. Training, without the outcome
#
# The outcome y is not among the views: the representation is trained without knowing what it will be used for. The group's
# likelihood has a large weight, so that z cannot become independent of u_x by forgetting the group.

# %%
source = TableSource(train, seed=0)


def trained(weight, steps=STEPS):
    """A model and its guide, trained with the penalty."""
    torch.manual_seed(0)
    model = networks.model()
    guide = networks.guide(model)
    module = NegativeELBO(model, Penalized(guide, [penalty(weight)]), site_weights={"a": 300.0})
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss, _ = module(**source.batch(step, 256))
        loss.backward()
        optimizer.step()
        schedule.step()
    return Pair(model, guide)


curve = []
for weight in (0.0, 3.0, 10.0, 30.0):
    pair = trained(weight)
    with evaluating(torch.nn.ModuleList(pair)):
        codes = [representation(pair.guide, split.x) for split in (train, test)]
    found = measured(f"penalty's weight {weight:g}", *codes)
    curve.append((weight, found["demographic_parity"], found["accuracy"]))

# %% [markdown]
# A weight of 3 changes next to nothing. From 10 on the groups' rates of favorable predictions come together, and accuracy falls
# by three to four points: it is measured against outcomes that are biased themselves. That is also why `deo` doubles here. Among
# rows with the favorable outcome, those of group A have more merit, since they had to; a classifier that sees merit alone rates
# them higher. The representation still tells something of the group: trees guess it right in about 0.6 of the rows, where 0.5 is
# chance.

# %%
points = {"all columns": (everything["demographic_parity"], everything["accuracy"])}
title = "Accuracy against unfairness; the penalty's weight beside each point"
show(front({"representation": curve}, points, title, "demographic parity (difference of the groups' rates)"), OUT / "2_front.png")

# %% [markdown]
# ## 4. Your turn
#
# Change the table's bias in section 1 to 0: then the groups have equal chances, and the penalty should cost next to nothing. Or
# take your own table. The recipe does all of this in one command, with held-out rows to choose the weight by:
#
# `pyzoo train mib-fair --data people.csv --target hired --sensitive sex`
#
# And `pyzoo reproduce mib-table3` compares three estimators of the penalty with fairlearn's reductions and others.
