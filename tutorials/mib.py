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
# *What these two views share should be in one latent, and what is specific to each view in another.* A requirement like
# that is a statement about what depends on what, and a Bayesian network is how such statements are drawn. In the
# framework of Zhang, Koyama and Ishiguro (2020) a network becomes a penalty: the distance of the guide's distribution to
# the nearest one that the network allows.
#
# You need some Pyro, and to know what a VAE is. By the end you have drawn three networks, derived their penalties,
# trained a model of digits and their labels, and turned labels into pictures and back. As a script it takes about
# three minutes on two cores: `python tutorials/mib.py`. Its pictures go to the folder `tutorial-mib` where you run it.
# With [jupytext](https://jupytext.readthedocs.io) it opens as a notebook.
# (`PYZOO_TUTORIAL_STEPS=100` in the environment makes it short.)

# %%
import os
from pathlib import Path

import torch

import pyzoo
from pyzoo.data.multimodal import PairSource, load_pairs
from pyzoo.evaluation import class_probabilities, train_classifier
from pyzoo.infer import BayesianNetwork, NegativeELBO, Penalized, Penalty, TotalCorrelation, evaluating, projection
from pyzoo.models.mib import ViewNetworks
from pyzoo.plotting import draw_network, figure_grid, show
from pyzoo.recipes.mib.figures import cross_generation, exchange
from pyzoo.training import Pair, keep_freed_memory

STEPS = int(os.environ.get("PYZOO_TUTORIAL_STEPS", 1500))
OUT = Path("tutorial-mib")
keep_freed_memory()
torch.manual_seed(0)
OUT.mkdir(exist_ok=True)

# %% [markdown]
# ## 1. Names, and what may depend on what
#
# Two views are observed: the image of a digit, and its label. Both depend on a shared latent z; the image also has a
# private latent u, for what the label does not say: how the digit is written. `generative` is the model's network,
# `inference` the guide's, and `target` is a network that the guide's distribution should obey.

# %%
DIMS = {"z": 8, "u": 4}
networks = ViewNetworks(
    observed=("digit", "label"),
    shared=("z",),
    private=(("u", "digit"),),
    dims=tuple(DIMS.items()),
    generative="z, u -> digit; z -> label",
    inference="digit, label -> z; digit -> u",
    hidden_dim=256,
)
names = networks.variables
generative, inference = networks.network(networks.generative), networks.network(networks.inference)
target = networks.network("label -> z -> digit; digit -> u")


def draw(networks, path):
    """Networks side by side; what is observed is shaded."""
    figure, [cells] = figure_grid(1, len(networks), "What may depend on what", cell=(2.6, 2.4))
    for cell, (title, network) in zip(cells, networks.items(), strict=True):
        draw_network(cell, network.layers, network.edges, names.observed, title)
    show(figure, path)


draw({"the model": generative, "the guide": inference, "the target": target}, OUT / "1_networks.png")
print(inference.inference_mask())  # M^q of the paper, from views to shared latents

# %% [markdown]
# ## 2. A target, and its penalty
#
# The third network reads: *z follows from the label alone, and given z, the digit is independent of the label.* The
# guide's distribution need not obey it. Its distance to the network is a sum of informations, and each of them can be
# bounded or estimated:

# %%
print([str(term) for term in projection(inference, target)])
from_label = Penalty("z from the label", inference, target)
from_digit = Penalty("z from the digit", inference, BayesianNetwork.parse("digit -> z -> label; digit -> u", names))
print(from_label)
print(from_digit)

# %% [markdown]
# `projection` prints the distance as one information, I(digit; label | z). By the chain rule, and but for I(digit; label),
# which is the data's own, that is I(z; digit | label) - I(digit; z): these can be bounded, and make the first penalty.
#
# `I(z; digit | label)` is the information that the digit adds about z when the label is known. Its upper bound is
# KL(q(z | digit, label) || q(z | label)), where both sides come from the same two encoders: q(z | digit, label) is a
# product of experts, one for each view, and an absent view just takes no part. The other term is bounded from below
# by zero. An upper and a lower bound make the whole an upper bound, and the penalty says so. Both penalties push z towards
# what *either* view determines, the class; section 5 shows how far they get.
#
# One more target. Nothing so far keeps the class out of u. In this target there is no arrow between z and u, and every other
# one is allowed, so that only their information, I(u; z), is charged:

# %%
train, test = load_pairs("digits-label", "train"), load_pairs("digits-label", "test")
independent = Penalty(
    "independent",
    inference,
    networks.network("z, u -> digit, label; digit -> label"),
    weight=3.0,
    form="conditional",
    estimators={"I(u; z)": TotalCorrelation(len(train))},
)
print(independent)

# %% [markdown]
# The estimator is a total correlation from the minibatch, which is no bound: the penalty calls itself an estimate.
#
# ## 3. Training
#
# Model and guide are Pyro programs. `Penalized` wraps the guide and adds the penalties as `pyro.factor` sites, so the
# loss is one ELBO, in which every penalty is a term in nats. The bare guide has none: likelihoods are estimated with it.

# %%
source = PairSource(train, seed=0)


def trained(penalties, steps=STEPS):
    """A model and its guide, trained with some penalties."""
    torch.manual_seed(1)
    model = networks.model()
    guide = networks.guide(model)
    module = NegativeELBO(model, Penalized(guide, penalties), site_weights={"label": 50.0})  # an image is hundreds of nats
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
    return Pair(model, guide)


print("without penalties")
plain = trained([])
print("with both penalties on z")
both = trained([from_label, from_digit])
print("with all three")
pair = trained([from_label, from_digit, independent])

# %% [markdown]
# ## 4. From label to digit, and from digit to label
#
# Give the guide one view and leave the other out, draw z, and decode what is missing. A classifier, trained on the
# digits themselves, says what the pictures show.

# %%
judge = train_classifier(lambda step: (lambda b: (b["digit"], b["label"].argmax(1)))(source.batch(step, 128)), max(5, STEPS // 4))
views = test.views(slice(None), torch.Generator().manual_seed(0))
for name, each in {"no penalties": plain, "both on z": both, "all three": pair}.items():
    with evaluating(torch.nn.ModuleList(each)):
        z = {latent: q.sample() for latent, q in each.guide.posteriors({"label": views["label"]}).items()}
        digits = each.model.likelihood("digit", z).mean
        z = {latent: q.sample() for latent, q in each.guide.posteriors({"digit": views["digit"]}).items()}
        labels = each.model.likelihood("label", z).mean
    right = [(found.argmax(1) == test.labels).float().mean().item() for found in (class_probabilities(judge, digits), labels)]
    print(f"{name:12} label to digit {right[0]:.3f}   digit to label {right[1]:.3f}")

# %% [markdown]
# Without penalties z is always inferred from both views together, and nothing has trained inference from one of them
# alone. The two penalties on z do; and when u is independent of z as well, nearly every digit is of its label's class,
# by the classifier. In the first picture each row begins with a label, followed by eight digits drawn given it, each with
# a z and a u of its own. In the second each row begins with a digit, followed by eight labels drawn given it, with the
# probability that the model gives to each. (One of the digits, the 5, is taken for a 9 or a 3.)

# %%
first = [(test.labels == label).nonzero()[0].item() for label in range(10)]
views = {name: view[first] for name, view in views.items()}
show(cross_generation(pair, views, "label", "digit", rows=10), OUT / "2_digits_given_labels.png")
show(cross_generation(pair, views, "digit", "label", rows=10), OUT / "3_labels_given_digits.png")

# %% [markdown]
# ## 5. What is shared and what is private
#
# In the next picture each row has the z of the digit on its left, and each column the u of the digit above. Along a row
# the class stays, and so does nearly everything else: z, inferred from the digit itself, may hold the hand that wrote
# it as well as the class, and the u of our pair has little left to tell, about one nat in the last lines of section 3.

# %%
show(exchange(pair, "digit", views["digit"][:8]), OUT / "4_exchange.png")

# %% [markdown]
# The recipe `mib-multimodal` also charges for the digit as it is decoded from a z that was inferred from the label
# alone (`crossed_cost`): only u can tell the hand then. A model that it has trained comes with the package. Along its
# rows the class stays, as z has it (here it takes the 5 for a 9), while slant and stroke follow the column, but in the
# third, whose u makes some digits smudges. `z_keeps_class` is the share of such exchanges after which the classifier still
# sees the class of the row, and `u_changes_style` says how much the column changes: 1 is the difference between two digits
# of one class as the model draws them, 0 none.

# %%
charged = pyzoo.load("mib-digits")
show(exchange(charged.pair(), "digit", views["digit"][:8]), OUT / "5_exchange_of_the_trained_model.png")
print({name: round(charged.metrics[name], 2) for name in ("z_keeps_class", "u_changes_style")})

# %% [markdown]
# ## 6. Your own target
#
# Change `target` above: to `digit -> z; digit -> u`, say, and see which term appears. If no estimator suits a term, the
# error names the term. An estimator of your own is a class with three members, see `pyzoo.infer.Estimator`. Or change
# the data: `load_pairs("digits-numbers", ...)` pairs the digits with house numbers in color, and
# `pyzoo train mib-multimodal` trains on those. `recipes/mib/methods.py` holds eleven methods, old and new, each a
# declaration like the one above.
