"""What slots show, which slot shows which piece, and whether pieces are related."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import one_hot

from pyzoo.data.scenes import COLORS, are_related, sprites, tetrominoes
from pyzoo.evaluation import SlotPieces, match_slots, pieces_distance, pieces_of_slots


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def true_masks(scenes, slots):
    """Masks and components as they truly are, slots in an order drawn for each scene."""
    masks = one_hot(scenes.segments, slots).movedim(-1, 1).float()
    order = torch.rand(len(scenes), slots, generator=generator(1)).argsort(1)
    masks = masks.gather(1, order[..., None, None].expand_as(masks))
    components = (scenes.images / 255).unsqueeze(1) * masks.unsqueeze(2)
    return masks, components, order


@pytest.mark.parametrize("draw", [tetrominoes, sprites])
@pytest.mark.parametrize("relation", ["color", "place"])
def test_true_masks_of_related_scenes_are_related(draw, relation):
    scenes = draw(50, generator(), 48, 3, relation=relation)
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
    plain = draw(200, generator(), 48, 3)
    masks, components, _ = true_masks(plain, 5)
    assert are_related(pieces_of_slots(masks, components), relation, 3).double().mean() < 0.3  # one of six by chance, of colors


def test_slots_show_the_colors_and_places_of_their_pieces():
    scenes = tetrominoes(20, generator(), 35)
    masks, components, order = true_masks(scenes, 4)
    pieces = pieces_of_slots(masks, components)
    assert torch.equal(pieces.present, order != 0)
    slot_of = match_slots(masks, scenes.segments, 3)
    assert torch.equal(slot_of, order.argsort(1)[:, 1:])
    rows = torch.arange(20).unsqueeze(1)
    torch.testing.assert_close(pieces.colors[rows, slot_of], scenes.colors)
    assert (pieces.places[rows, slot_of] - scenes.places).abs().max() < 0.08  # center of mass and of the box around it


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_masks_in_half_precision_are_masks(kind):
    masks, components = (
        torch.rand(2, 4, 16, 16, generator=generator()).softmax(1),
        torch.rand(2, 4, 3, 16, 16, generator=generator()),
    )
    pieces, expected = pieces_of_slots(masks.to(kind), components.to(kind)), pieces_of_slots(masks, components)
    torch.testing.assert_close(pieces.colors, expected.colors, rtol=0.02, atol=0.02)
    assert pieces.colors.dtype == torch.float32


def test_a_slot_with_two_pieces_shows_none_and_halves_show_none():
    segments = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    both = one_hot(torch.tensor([[[0, 0, 1, 1, 1, 1]]]), 3).movedim(-1, 1).float()
    assert match_slots(both, segments, 2).tolist() == [[-1, -1]]
    halves = one_hot(torch.tensor([[[0, 0, 1, 2, 0, 0]]]), 3).movedim(-1, 1).float()
    assert match_slots(halves, segments, 3).tolist() == [[-1, -1, -1]]


def test_the_order_of_slots_does_not_matter_and_the_number_does():
    colors = COLORS[[2, 0, 1]].unsqueeze(0)  # green, red, yellow: a row of the circle in another order
    pieces = SlotPieces(colors, torch.zeros(1, 3, 2), torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
    assert are_related(pieces, "color", 3)
    assert not are_related(pieces, "color", 2)
    assert are_related(pieces, "color", 3, 2)
    wrong = SlotPieces(COLORS[[0, 1, 3]].unsqueeze(0), pieces.places, pieces.sizes, pieces.present)
    assert not are_related(wrong, "color", 3)


def test_scenes_of_one_kind_are_near_each_other_and_others_are_as_far_as_they_were_changed():
    def pieces(scenes, smallest=0.01):
        return pieces_of_slots(*true_masks(scenes, 5)[:2], smallest)

    true = pieces(sprites(500, generator(), 32, 4))
    assert pieces_distance(true, true) == 0
    assert pieces_distance(true, pieces(sprites(500, generator(2), 32, 4))) < 0.02
    related = pieces(sprites(500, generator(3), 32, 4, relation="place"))  # which places alone do not show
    assert pieces_distance(true, related) < 0.03
    moved = dataclasses.replace(true, places=true.places + 0.2)
    assert pieces_distance(moved, true) == pytest.approx(0.2 / 4)
    larger = dataclasses.replace(true, sizes=1.5 * true.sizes, colors=true.colors - 0.1)
    assert pieces_distance(larger, true) == pytest.approx((0.5 + 0.1) / 4)
    fewer = dataclasses.replace(true, present=true.present & false_once(true.present))
    number = true.present.sum().item()
    assert pieces_distance(fewer, true) == pytest.approx((500 / number) / 4, abs=0.02)
    nothing = dataclasses.replace(true, present=torch.zeros_like(true.present))
    assert pieces_distance(nothing, true) == 1
    assert math.isnan(pieces_distance(true, nothing))


def false_once(present):
    """False at the first true entry of each row."""
    return present.cumsum(1) > 1


def test_bad_input():
    masks = torch.full((2, 3, 4, 4), 1 / 3)
    with pytest.raises(ValueError, match="masks must not be negative, and must sum to 1"):
        pieces_of_slots(2 * masks, torch.zeros(2, 3, 3, 4, 4))
    with pytest.raises(ValueError, match="components must be"):
        pieces_of_slots(masks, torch.zeros(2, 3, 3, 4, 5))
    with pytest.raises(ValueError, match="least must be"):
        match_slots(masks, torch.zeros(2, 4, 4, dtype=torch.int64), 2, least=0.2)
    pieces = pieces_of_slots(masks, torch.zeros(2, 3, 3, 4, 4))
    gray = pieces_of_slots(masks, torch.zeros(2, 3, 1, 4, 4))
    with pytest.raises(ValueError, match="colors must be"):
        pieces_distance(gray, pieces_of_slots(masks, torch.zeros(2, 3, 3, 4, 4)))
    with pytest.raises(ValueError, match="found must be"):
        pieces_distance(masks, gray)
    with pytest.raises(ValueError, match="at most 3, the slots, got 4 and 4"):
        are_related(pieces, "color", 4)
    with pytest.raises(ValueError, match="relation is 'color' or 'place', not 'shape'"):
        are_related(pieces, "shape", 2)
