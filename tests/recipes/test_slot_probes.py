"""Probes of relations: on models that know the planted relation by construction, and on those that know none."""

import dataclasses
import math

import pytest
import torch
from scene_records import true_masks

from pyzoo.data.scenes import COLORS, sprites, tetrominoes
from pyzoo.distributions import MessagePassingPrior
from pyzoo.evaluation import SlotPieces, pieces_of_slots
from pyzoo.models.genesis import GenesisNetworks
from pyzoo.models.monet import MONetNetworks, MPPMONetNetworks
from pyzoo.recipes.slots.decomposition import decompose, draw_scenes, put_together
from pyzoo.recipes.slots.probes import (
    are_related,
    impute_slots,
    related_after_swap,
    related_by_chance,
    relation_r2,
    share_related,
    share_shown,
    swap_slots,
)


class Knows(torch.nn.Module):
    """A model whose slots' latents are (one entry for what is there, two for the global latent: the hue as a point on a circle).

    Slot 0 is the background; slot k shows piece k where it truly is. The relation turns the circle by one step for each piece.
    """

    num_slots = 4
    has_mask_latents = False

    def __init__(self, scenes, related):
        super().__init__()
        self.scenes = scenes
        prior = MessagePassingPrior(4, 2)
        steps = torch.arange(4).double() * torch.pi / 3 - torch.pi / 3
        turn = torch.stack([steps.cos(), -steps.sin(), steps.sin(), steps.cos()], -1).unflatten(-1, (2, 2)).float()
        prior.encode = lambda y: (turn.mT @ y.unsqueeze(-1)).squeeze(-1)
        prior.decode = lambda h: (turn @ h[..., None, :, None]).squeeze(-1)
        with torch.no_grad():
            prior.log_weights[0] = -50.0  # the background tells of nothing
        self.relations = prior if related else None

    def decoded(self, z):
        hue = torch.atan2(z[..., 2], z[..., 1]).div(torch.pi / 3).round().long() % 6
        colors = COLORS[hue]
        colors[:, 0] = 0
        masks = (self.scenes.segments[z[:, 0, 0].long()].unsqueeze(1) == torch.arange(4)[:, None, None]).float()
        return colors[..., None, None].expand(-1, -1, -1, *masks.shape[2:]), 50 * masks

    def latents(self):
        hue = (self.scenes.colors.unsqueeze(2) == COLORS).all(-1).double().argmax(-1) * torch.pi / 3
        which = torch.arange(len(self.scenes)).double()[:, None, None].expand(-1, 4, 1)
        circle = torch.cat([torch.zeros(len(hue), 1, 2), torch.stack([hue.cos(), hue.sin()], -1)], 1)
        return torch.cat([which, circle], -1).float()


@pytest.fixture(scope="module")
def scenes():
    return tetrominoes(200, torch.Generator().manual_seed(0), 28, relation="color")


def knows(scenes, related):
    model = Knows(scenes, related)
    z = model.latents()
    return model, put_together(model, z, z[..., :0])


def following_masks(model):
    """Has a model that knows show pieces where they are also where a slot's latent is imputed, which is not about that."""
    model.decoded_ = model.decoded
    model.decoded = lambda z: model.decoded_(torch.cat([z.amax(1, keepdim=True)[..., :1].expand(-1, 4, 1), z[..., 1:]], -1))


def test_who_knows_the_relation_imputes_and_follows(scenes):
    model, decomposed = knows(scenes, related=True)
    assert share_related(decomposed.pieces, "color", scenes) == 1
    assert relation_r2(model, decomposed, scenes, "color") > 0.95
    following_masks(model)
    assert related_after_swap(model, decomposed, scenes, "color") == 1
    changed = swap_slots(model, decomposed, torch.ones(200, dtype=torch.int64))
    assert not torch.equal(changed.reconstructions, decomposed.reconstructions)


def test_others_are_encoded_without_the_piece(scenes):
    model, decomposed = knows(scenes, related=True)
    seen = []

    class Guide(torch.nn.Module):
        def slots(self, x, log_masks):
            seen.append(x)
            return model.latents(), None

    found = relation_r2(model, decomposed, scenes, "color", Guide())
    assert found == relation_r2(model, decomposed, scenes, "color")  # what it encodes is the same
    assert len(seen) == 3
    for piece, x in enumerate(seen, 1):
        shown = (scenes.segments == piece).unsqueeze(1)
        torch.testing.assert_close(x, torch.where(shown, 0.0, scenes.images / 255), rtol=0, atol=1e-6)


def test_components_beyond_an_images_range_are_painted_within_it():
    """MONet's have no bound, and a guide takes pixels from 0 to 1 alone; and the probes leave a pair as it was."""
    torch.manual_seed(0)
    sizes = {"num_slots": 3, "z_dim": 6, "global_dim": 2, "batch_norm": True}
    shapes = {"decoder_channels": (8,), "x_shape": (3, 16, 16), "attention_channels": (4, 4), "encoder_channels": (4,)}
    networks = MPPMONetNetworks(**sizes, **shapes)
    model = networks.model()
    guide = networks.guide(model)
    scenes = tetrominoes(60, torch.Generator().manual_seed(0), 16, 2, relation="place")
    decomposed = decompose(model, guide, scenes.images / 255)
    decomposed.components[:, :, 0] = 1.5
    decomposed = decomposed._replace(masks=(scenes.segments.unsqueeze(1) == torch.arange(3)[:, None, None]).float())
    before = {name: value.clone() for name, value in (*model.state_dict().items(), *guide.state_dict().items())}
    assert math.isfinite(relation_r2(model, decomposed, scenes, "place", guide))
    impute_slots(model, decomposed, torch.ones(60, dtype=torch.int64))
    swap_slots(model, decomposed, torch.ones(60, dtype=torch.int64))
    for name, value in (*model.state_dict().items(), *guide.state_dict().items()):
        assert torch.equal(value, before[name]), name
    assert model.training
    assert guide.training


def test_pieces_that_are_shown_are_counted(scenes):
    _, decomposed = knows(scenes, related=True)
    assert share_shown(decomposed, scenes) == 1
    together = decomposed.masks.clone()
    together[:, 1] += together[:, 2]  # two pieces in one slot
    together[:, 2] = 0
    assert share_shown(decomposed._replace(masks=together), scenes) < 0.8


def test_independent_slots_do_not(scenes):
    model, decomposed = knows(scenes, related=False)
    assert relation_r2(model, decomposed, scenes, "color") <= 0
    following_masks(model)
    assert related_after_swap(model, decomposed, scenes, "color") < 0.5


def genesis_that_knows(scenes, far=0.0):
    """A Genesis whose masks' latents are the slots' latents: its prior knows the next piece's hue, and what a mask looks like."""
    model, decomposed = knows(scenes, related=False)
    model.has_mask_latents = True
    model.component_prior = lambda z_m: torch.cat([z_m + far, torch.zeros_like(z_m)], -1)
    turn = torch.tensor(torch.pi / 3)
    turned = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()]).view(2, 2)

    def mask_prior(z_m, state):  # the background's latent tells nothing: what follows it is the mean of the prior
        return torch.distributions.Normal(torch.cat([z_m[:, :1], z_m[:, 1:] @ turned], 1), 1.0), state

    model.mask_prior = mask_prior
    return model, decomposed._replace(mask_latents=model.latents())


def test_in_genesis_a_mask_and_what_it_looks_like_follow_from_the_slots_before(scenes):
    model, decomposed = genesis_that_knows(scenes)
    found = relation_r2(model, decomposed, scenes, "color")
    assert found == pytest.approx(2 / 3, abs=0.05)  # the first piece follows from none
    model.mask_prior = lambda z_m, state: (torch.distributions.Normal(torch.zeros_like(z_m), 1.0), state)
    assert relation_r2(model, decomposed, scenes, "color") == pytest.approx(0, abs=0.05)  # though its own latent knows the hue


def test_far_from_all_latents_the_mean_is_read(scenes):
    model, decomposed = genesis_that_knows(scenes, far=1e4)
    assert relation_r2(model, decomposed, scenes, "color") == pytest.approx(0, abs=0.05)


def test_a_relation_that_is_another_one_explains_nothing(scenes):
    model, decomposed = knows(scenes, related=True)
    wrong = model.relations.decode
    model.relations.decode = lambda h: wrong(h.flip(-1))
    assert relation_r2(model, decomposed, scenes, "color") <= 0


def test_without_pieces_nothing_is_read(scenes):
    model, decomposed = knows(scenes, related=True)
    assert math.isnan(relation_r2(model, decomposed._replace(masks=torch.full_like(decomposed.masks, 0.25)), scenes, "color"))


@pytest.mark.parametrize(
    "networks",
    [
        MONetNetworks(num_slots=3, z_dim=4, decoder_channels=(8,), x_shape=(3, 16, 16), attention_channels=(4, 4)),
        GenesisNetworks(num_slots=3, mask_dim=4, z_dim=4, hidden_dim=8, channels=(4, 4), x_shape=(3, 16, 16)),
    ],
)
def test_only_one_slot_changes_where_slots_are_independent(networks):
    torch.manual_seed(0)
    model = networks.model()
    decomposed = decompose(model, networks.guide(model), torch.rand(4, 3, 16, 16))
    slots = torch.tensor([0, 1, 2, 1])
    for change in (impute_slots, swap_slots):
        found = change(model, decomposed, slots)
        same = (found.components == decomposed.components).flatten(2).all(2)
        assert torch.equal(same, torch.arange(3) != slots.unsqueeze(1))
    assert torch.allclose(put_together(model, decomposed.latents, decomposed.mask_latents).components, decomposed.components)


def test_odd_arguments_are_named():
    networks = MONetNetworks(num_slots=3, z_dim=4, decoder_channels=(4,), x_shape=(3, 16, 16), attention_channels=(4, 4))
    model = networks.model()
    decomposed = decompose(model, networks.guide(model), torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match="model draws no scenes"):
        draw_scenes(model, 2)
    bytes_as_floats, unknown = torch.full((2, 3, 16, 16), 255.0), torch.full((2, 3, 16, 16), math.nan)
    for x in (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(0, 3, 16, 16), [0.5], bytes_as_floats, unknown):
        with pytest.raises(ValueError, match=r"^x must"):
            decompose(model, networks.guide(model), x)
    for probe in (impute_slots, swap_slots):
        for slots, message in (([0, 7], "slots must be"), ([-1, 0], "slots must be"), ([0, 1, 2], "slots must be")):
            with pytest.raises(ValueError, match=message):
                probe(model, decomposed, torch.tensor(slots))
    with pytest.raises(ValueError, match="two or more scenes"):
        swap_slots(model, decomposed.of(torch.tensor([0])), torch.tensor([1]))
    with pytest.raises(ValueError, match="relation is 'color' or 'place', not 'size'"):
        relation_r2(model, decomposed, tetrominoes(2, torch.Generator(), 16), "size")
    with pytest.raises(ValueError, match="size must be"):
        draw_scenes(model, 0)
    with pytest.raises(ValueError, match="latents must be"):
        put_together(model, torch.zeros(2, 4, 4), torch.zeros(2, 4, 0))


@pytest.mark.parametrize("draw", [tetrominoes, sprites])
@pytest.mark.parametrize("relation", ["color", "place"])
def test_true_masks_of_related_scenes_are_related(draw, relation):
    scenes = draw(50, torch.Generator().manual_seed(0), 48, 3, relation=relation)
    masks, components, _ = true_masks(scenes, 5)
    pieces = pieces_of_slots(masks, components, smallest=0)
    numbers = scenes.present.sum(1)
    visible = torch.stack([(scenes.segments == k).flatten(1).any(1) for k in (1, 2, 3)], 1).sum(1) == numbers
    found = are_related(pieces, relation, 3, 2)
    if draw is sprites and relation == "place":  # the center of what another sprite covers in part is not the sprite's
        assert found.double().mean() > 0.5
    else:
        assert found[visible].all()
        assert visible.double().mean() > 0.8
    plain = draw(200, torch.Generator().manual_seed(0), 48, 3)
    masks, components, _ = true_masks(plain, 5)
    assert are_related(pieces_of_slots(masks, components), relation, 3).double().mean() < 0.3  # one of six by chance, of colors


def test_the_order_of_slots_does_not_matter_and_the_number_does():
    colors = COLORS[[2, 0, 1]].unsqueeze(0)  # green, red, yellow: a row of the circle in another order
    pieces = SlotPieces(colors, torch.zeros(1, 3, 2), torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
    assert are_related(pieces, "color", 3)
    assert not are_related(pieces, "color", 2)
    assert are_related(pieces, "color", 3, 2)
    wrong = SlotPieces(COLORS[[0, 1, 3]].unsqueeze(0), pieces.places, pieces.sizes, pieces.present)
    assert not are_related(wrong, "color", 3)


def test_odd_numbers_of_pieces_are_refused():
    nothing = torch.zeros(2, 3)
    pieces = SlotPieces(torch.zeros(2, 3, 3), torch.zeros(2, 3, 2), nothing, nothing.bool())
    with pytest.raises(ValueError, match="at most 3, the slots, got 4 and 4"):
        are_related(pieces, "color", 4)
    with pytest.raises(ValueError, match="relation is 'color' or 'place', not 'shape'"):
        are_related(pieces, "shape", 2)


def test_independent_pieces_are_related_by_chance_only(scenes):
    _, decomposed = knows(scenes, related=True)
    assert share_related(decomposed.pieces, "color", scenes) == 1
    assert related_by_chance(decomposed.pieces, "color", scenes) < 0.3  # one triple in six, in any order
    center = dataclasses.replace(decomposed.pieces, places=torch.full((200, 4, 2), 0.5))  # its own mirror image
    assert are_related(center, "place", 3).all()
