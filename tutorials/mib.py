# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # MIB: draw a network, get the training objective
#
# *What these two views share should stand in one latent, and what is each one's own in another.* A wish like that is a
# statement about what depends on what, and a Bayesian network is how such statements are drawn. Zhang, Koyama and
# Ishiguro (2020) take this at its word: a network is a penalty, the distance of the model's own distribution to the
# nearest one that the network allows.
#
# You need some Pyro, and to know what a VAE is. By the end you have drawn three networks, read off what they cost,
# trained a model of digits and their labels, and turned labels into pictures and back. As a script it takes about
# three minutes on two cores: `python tutorials/mib.py`. Its pictures go to the folder `tutorial-mib` where you run it.
# With [jupytext](https://jupytext.readthedocs.io) it opens as a notebook.

# %%
import os
from pathlib import Path

import torch

from pyzoo.data.multimodal import PairSource, load_pairs
from pyzoo.evaluation import class_probabilities, train_classifier
from pyzoo.guides.mib import structured_guide
from pyzoo.infer import BayesianNetwork, NegativeELBO, Penalty, Variables, evaluating, projection
from pyzoo.models.mib import structured_vae
from pyzoo.plotting import draw_network, figure_grid
from pyzoo.recipes.mib_figures import cross_generation, exchange
from pyzoo.training import keep_freed_memory

STEPS = int(os.environ.get("PYZOO_TUTORIAL_STEPS", 1500))
OUT = Path("tutorial-mib")
OUT.mkdir(exist_ok=True)
keep_freed_memory()
torch.manual_seed(0)

# %% [markdown]
# ## 1. Names, and what may depend on what
#
# Two views are observed: the image of a digit, and its label. Both are to come from a shared latent z; the image has
# a latent of its own, u, for what the label does not say: how it is written. `generative` is the model's network and
# `inference` the guide's. Text goes in, and a drawing comes out.

# %%
names = Variables(("digit", "label"), shared=("z",), private={"u": "digit"})
generative = BayesianNetwork.parse("z, u -> digit; z -> label", names)
inference = BayesianNetwork.parse("digit, label -> z; digit -> u", names)
wish = BayesianNetwork.parse("label -> z -> digit; digit -> u", names)


def draw(networks, path):
    """Networks side by side; what is observed is shaded."""
    figure, [cells] = figure_grid(1, len(networks), "What may depend on what", cell=(2.6, 2.4))
    for cell, (title, network) in zip(cells, networks.items(), strict=True):
        draw_network(cell, network.layers, network.edges, names.observed, title)
    figure.savefig(path, dpi=120)


draw({"the model": generative, "the guide": inference, "the wish": wish}, OUT / "1_networks.png")
print(inference.inference_mask())  # M^q of the paper, from views to shared latents

# %% [markdown]
# ## 2. A wish, and what it costs
#
# The third network reads: *the label tells z, and z is all that the digit knows of the label.* The guide's
# distribution need not obey. How far it is from obeying is a sum of informations, and each of them is something that
# we can bound or estimate:

# %%
print([str(term) for term in projection(inference, wish)])
from_label = Penalty("label tells z", inference, wish)
from_digit = Penalty("digit tells z", inference, BayesianNetwork.parse("digit -> z -> label; digit -> u", names))
print(from_label)
print(from_digit)

# %% [markdown]
# `I(z; digit | label)` is what the digit still says of z when the label is known. Its upper bound is
# KL(q(z | digit, label) || q(z | label)), where both sides come from the same two encoders: q(z | digit, label) is a
# product of experts, one for each view, and an absent view just takes no part. The other term is bounded from below
# by zero. An upper and a lower bound make the whole an upper bound, and the penalty says so. With both wishes, z is to
# hold what *either* view can tell: the class.
#
# One more wish. Nothing so far forbids u to hold the class as well. Let z and u be independent:

# %%
independent = Penalty(
    "independent",
    inference,
    BayesianNetwork.parse("z, u -> digit, label; digit -> label", names),
    weight=3.0,
    form="conditional",
)
print(independent)

# %% [markdown]
# The estimator is a total correlation from the minibatch, which is no bound: the penalty calls itself an estimate.
#
# ## 3. Training
#
# Model and guide are Pyro programs, and the penalties are `pyro.factor` sites in the guide. So the loss is one ELBO,
# and every wish shows up beside it, in nats.

# %%
DIMS = {"z": 8, "u": 4}
train, test = load_pairs("digits-label", "train"), load_pairs("digits-label", "test")
source = PairSource(train, seed=0)


def trained(penalties, steps=STEPS):
    """A model and guide with some wishes, trained."""
    torch.manual_seed(1)
    model = structured_vae(generative, DIMS, hidden_dim=256)
    guide = structured_guide(inference, DIMS, hidden_dim=256, penalties=penalties, dataset_size=len(train))
    module = NegativeELBO(model, guide, {"label": 50.0})  # a label is a few nats beside an image's hundreds
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss, terms = module(**source.batch(step, 128))
        loss.backward()
        optimizer.step()
        schedule.step()
    for name, term in terms.items():
        print(f"  {name:50} {term.item():8.2f}")
    return module


print("without wishes")
plain = trained([])
print("with both wishes")
both = trained([from_label, from_digit])
print("with all three")
module = trained([from_label, from_digit, independent])

# %% [markdown]
# ## 4. From label to digit, and from digit to label
#
# Give the guide one view and leave the other out, draw z, and decode what is missing. A classifier, trained on the
# digits themselves, says what the pictures show.

# %%
judge = train_classifier(lambda step: (lambda b: (b["digit"], b["label"].argmax(1)))(source.batch(step, 128)), max(5, STEPS // 4))
views = test.views(slice(None), torch.Generator().manual_seed(0))
for name, each in {"without wishes": plain, "with both": both, "with all three": module}.items():
    with evaluating(each):
        z = {latent: q.sample() for latent, q in each.guide.posteriors({"label": views["label"]}).items()}
        digits = each.model.likelihood("digit", z).mean
        z = {latent: q.sample() for latent, q in each.guide.posteriors({"digit": views["digit"]}).items()}
        labels = each.model.likelihood("label", z).mean
    right = [(found.argmax(1) == test.labels).float().mean().item() for found in (class_probabilities(judge, digits), labels)]
    print(f"{name:16} label to digit {right[0]:.3f}   digit to label {right[1]:.3f}")

# %% [markdown]
# Without wishes z is told by both views together, and nothing has made either learn to do it alone. The two wishes do;
# and when u is kept apart from z as well, a digit drawn with any u is of its label's class. Now look at the pictures:
# each row begins with a label, and goes on with eight digits drawn given it, each with a u of its own.

# %%
first = [(test.labels == label).nonzero()[0].item() for label in range(10)]
views = {name: view[first] for name, view in views.items()}
cross_generation(module, views, "label", "digit", rows=10).savefig(OUT / "2_digits_given_labels.png", dpi=120)
cross_generation(module, views, "digit", "label", rows=10).savefig(OUT / "3_labels_given_digits.png", dpi=120)

# %% [markdown]
# ## 5. What is shared and what is private
#
# In the next picture each row has the z of the digit on its left, and each column the u of the digit above. Down a
# column the class changes and the hand stays; along a row it is the other way round.

# %%
exchange(module, "digit", views["digit"][:8]).savefig(OUT / "4_exchange.png", dpi=120)

# %% [markdown]
# ## 6. Your own wish
#
# Change `wish` above: draw `digit -> z; digit -> u`, say, and see which term appears. If an estimator is missing, the
# error says which term wants one, and which would suit. Or change the data: `load_pairs("digits-numbers", ...)` pairs
# the digits with house numbers in colour (add `"v": "number"` to `private`), and `pyzoo train mib-multimodal` trains on
# those. `recipes/mib.py` holds eleven methods, old and new, each a declaration like the one above.
