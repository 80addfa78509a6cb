# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A scene taken apart, and put together again
#
# *Two pieces on black, and nobody says where one ends and the next begins.* MONet (Burgess et al. 2019) learns to take such
# images apart into slots, one for each piece, without a single label. The message passing prior (Ren et al. 2023) then relates
# the slots to each other, so that whole scenes can be drawn, and what one slot holds follows from the rest.
#
# You need some Pyro, and to know what a VAE is. By the end you have taken scenes apart, removed a piece, imputed one from the
# others, and asked how much of a piece's place the model knows from the other piece. As a script it takes about ten
# minutes on two cores: `python tutorials/scenes.py`. Its pictures go to the folder `tutorial-scenes` where you run it.
# (`PYZOO_TUTORIAL_STEPS=100` in the environment makes it short.)

# %%
import os
from functools import partial
from pathlib import Path

import pyro
import torch

from pyzoo.data.scenes import SceneSource, tetrominoes
from pyzoo.evaluation import foreground_ari, segments_of
from pyzoo.infer import NegativeELBO, TracedStep
from pyzoo.models.monet import MPPMONetNetworks
from pyzoo.plotting import image_grid, image_sheet, show
from pyzoo.recipes.slots.decomposition import Decomposition, decompose
from pyzoo.recipes.slots.figures import decomposition
from pyzoo.recipes.slots.probes import impute_slots, relation_r2
from pyzoo.training import keep_freed_memory, linear

STEPS = int(os.environ.get("PYZOO_TUTORIAL_STEPS", 3000))
OUT = Path("tutorial-scenes")
keep_freed_memory()
OUT.mkdir(exist_ok=True)

# %% [markdown]
# ## 1. Scenes
#
# Tetrominoes, two in an image, made as they are needed. A relation is planted in them: the second piece stands where the mirror
# image of the first one would. The first is red, yellow or green, the second cyan, blue or magenta, so that it can be told which
# is which. With each image comes the truth, which piece one sees at each pixel. It is only for measuring:
# training never sees it.

# %%
draw = partial(tetrominoes, image_size=32, num_pieces=2, relation="place")
source = SceneSource(draw)
scenes = draw(400, torch.Generator().manual_seed(1))
x = scenes.images / 255
show(image_sheet(x[:20], "Twenty scenes"), OUT / "1_scenes.png")

# %% [markdown]
# ## 2. The model and its guide
#
# $$p(x, z \mid m) = p(z_1, \ldots, z_K) \prod_i \sum_k m_{ki}\, N(x_i;\ \hat x_{ki}(z_k), \sigma_k^2)$$
#
# Every pixel is a mixture of K slots. The masks m come from an attention network that sees the image, in the guide; what a slot
# looks like comes from its latent, in the model, and so does a mask of the decoder's own. Open `models/monet.py`: `forward` is
# the line above. The decoder's masks are tied to the attention's by a factor, `penalty/masks`, which is
# gamma KL(attention's masks, decoder's masks).
#
# In MONet the z_k are independent. Here a part of each, z_g, follows from one latent of the whole scene, z_0, through invertible
# maps: the message passing prior. Messages go up, from some slots to z_0, and down, to all slots.


# %%
def pair(**settings):
    """A model and its guide, smaller than the paper's."""
    torch.manual_seed(0)
    networks = MPPMONetNetworks(
        num_slots=3,
        global_dim=12,  # of 16: with fewer, where a piece is can be kept in the part that no relation reaches
        attention_channels=(16, 32, 32, 32),
        encoder_channels=(32, 32, 64, 64),
        decoder_channels=(32, 32, 32),
        x_shape=(3, 32, 32),
        **settings,
    )
    model = networks.model()
    return model, networks.guide(model)


model, guide = pair(mask_balance=10.0)
trace = pyro.poutine.trace(guide).get_trace(x=x[:2])
print({name: tuple(site["value"].shape) for name, site in trace.nodes.items() if site["type"] == "sample"})
masks = trace.nodes["m"]["value"].exp()
print(f"masks sum to {masks.sum(1).min():.4f} at least, {masks.sum(1).max():.4f} at most")

# %% [markdown]
# ## 3. Training
#
# What decides how soon slots come to mean pieces is when the decoder learns shapes. As long as it knows none, a slot may take any
# pixels for free. `mask_balance=10` lets the divergence of the masks move the decoder's masks ten times as strongly as the
# attention's. The loss is the same; the decoder only learns shapes sooner, and a slot with two pieces becomes harder to explain
# than two slots with one each. The maps of the prior relate what slots mean, and that changes at first. They are trained most at
# the end, when the networks' learning rate falls and slots no longer change: the maps' rate then rises to four times what it was.
#
# `TracedStep` records a step's arithmetic once and repeats it; autocast computes convolutions in bfloat16.


# %%
def separation(model, guide):
    """How well the masks separate the pieces: the adjusted Rand index of their pixels, 1 if perfectly."""
    masks = decompose(model.eval(), guide.eval(), x).masks
    model.train(), guide.train()
    return foreground_ari(segments_of(masks), scenes.segments).nanmean().item()


def train(model, guide, steps=STEPS):
    """Trains a pair on scenes; prints the loss and the separation as it goes."""
    module = NegativeELBO(model, guide, dict.fromkeys(("z_c", "z_g", "z_0"), 0.5))
    related = list(model.relations.parameters())
    others = [p for p in module.parameters() if all(p is not one for one in related)]
    optimizer = torch.optim.Adam([{"params": others}, {"params": related}], lr=5e-4, fused=True)
    rates = [linear(1, last, steps=0.3 * steps, start=0.7 * steps) for last in (0, 4)]
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)
    gradients = TracedStep(module, context=partial(torch.autocast, "cpu", torch.bfloat16))
    with pyro.validation_enabled(False):
        for step in range(steps):
            loss, terms = gradients(source.batch(step, 16))
            optimizer.step()
            rates.step()
            if (step + 1) % max(1, steps // 5) == 0:
                found = f"masks {terms['penalty/masks']:6.1f}, separation {separation(model, guide):.2f}"
                print(f"step {step + 1:5}: loss {loss:9.1f} nats, divergence of the {found}")
    return model.eval(), guide.eval()


model, guide = train(model, guide)

# %% [markdown]
# ## 4. Taken apart
#
# Each column is a scene. Below it are its reconstruction, the slot that has most of each pixel, in a color for each slot, and
# what each slot shows.

# %%
decomposed = decompose(model, guide, x)
show(decomposition(x[:8], decomposed.of(torch.arange(8))), OUT / "2_taken_apart.png")

# %% [markdown]
# ## 5. Put together again
#
# A scene is now a list of slots, and one can edit it. To remove a piece, give its pixels to the background. To put one back
# without its own slot, impute its latent: the scene's latent z_0 is inferred from the other slots, and tells where a piece is
# missing. What the slot looks like then, by the decoder's own mask, is laid over the rest. What relates to nothing, its shape
# and which of the three colors it has, is the prior's mean, so that one gets a blur, of another color at times. (The other
# slots' encoder has seen the whole image: `relation_r2` with a guide asks what is left where the piece was painted over first.)

# %%
numbers = torch.arange(3)
areas = (segments_of(decomposed.masks).unsqueeze(1) == numbers[:, None, None]).sum((2, 3))
order = areas.argsort(1, descending=True)
background, piece = order[:, 0], order[:, 1]
rows = torch.arange(len(x))

masks = decomposed.masks.clone()
masks[rows, background] += masks[rows, piece]
masks[rows, piece] = 0
removed = Decomposition(masks, decomposed.components, decomposed.latents, decomposed.mask_latents)
imputed = impute_slots(model, decomposed, piece)
blur, where = imputed.components[rows, piece], imputed.masks[rows, piece].unsqueeze(1)
put_back = torch.lerp(removed.reconstructions, blur, where)
shown = {"scene": x, "without a piece": removed.reconstructions, "the piece, imputed": put_back}
cells = [list(images[:8].clamp(0, 1)) for images in shown.values()]
edited = image_grid(cells, "A piece removed, and one imputed from the rest", side=0.8, labels=list(shown))
show(edited, OUT / "3_edited.png")

# %% [markdown]
# ## 6. What slots know of each other
#
# Take a slot away, and have the prior impute its latent from the others. Can one read from that where its piece was? 1 would be
# perfectly, 0 not at all. A MONet, whose slots are independent, imputes the same everywhere, and gets at most 0. (The others were
# encoded with the piece in sight; see section 5.)

# %%
print(f"R2 of the place of a piece whose slot is imputed: {relation_r2(model, decomposed, scenes, 'place'):.2f}")

# %% [markdown]
# ## 7. Change one thing: balance
#
# The same model with `mask_balance=1`, as MONet has it, for half as many steps. Compare the columns that are printed, and the
# picture with that of section 4: pieces are told apart later, but as well in the end by the numbers, though one of the scenes
# in the picture has a piece in two slots; and with a balance of 10 separation even falls a little again as training goes on.
# Where pieces share colors the balance decides more (docs/results/message-passing-prior.md).

# %%
plain = train(*pair(mask_balance=1.0), steps=max(1, STEPS // 2))
show(decomposition(x[:8], decompose(*plain, x[:8])), OUT / "4_without_balance.png")

# %% [markdown]
# ## 8. Your turn
#
# With three pieces and no relation (`tetrominoes(..., num_pieces=3)`, four slots) two pieces of one color are hard to tell apart:
# see how long it takes. `pyzoo train mpp-monet` trains on these, `pyzoo reproduce mpp-table5` compares MONet without and with
# the prior, MPP^M, on both kinds of scenes. Or take `GenesisNetworks`, which draws masks from a prior of their own.
