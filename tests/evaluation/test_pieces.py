"""What slots show, which slot shows which piece, and how far the pieces of scenes are from those of others."""

import dataclasses
import math

import pytest
import torch
from scene_records import true_masks
from torch.nn.functional import one_hot

from pyzoo.data.scenes import sprites, tetrominoes
from pyzoo.evaluation import match_slots, pieces_distance, pieces_of_slots


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
    masks = torch.rand(2, 4, 16, 16, generator=generator()).softmax(1)
    components = torch.rand(2, 4, 3, 16, 16, generator=generator())
    pieces, expected = pieces_of_slots(masks.to(kind), components.to(kind)), pieces_of_slots(masks, components)
    torch.testing.assert_close(pieces.colors, expected.colors, rtol=0.02, atol=0.02)
    assert pieces.colors.dtype == torch.float32


def test_a_slot_with_two_pieces_shows_none_and_halves_show_none():
    segments = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    both = one_hot(torch.tensor([[[0, 0, 1, 1, 1, 1]]]), 3).movedim(-1, 1).float()
    assert match_slots(both, segments, 2).tolist() == [[-1, -1]]
    halves = one_hot(torch.tensor([[[0, 0, 1, 2, 0, 0]]]), 3).movedim(-1, 1).float()
    assert match_slots(halves, segments, 3).tolist() == [[-1, -1, -1]]


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
    gray = pieces_of_slots(masks, torch.zeros(2, 3, 1, 4, 4))
    with pytest.raises(ValueError, match="colors must be"):
        pieces_distance(gray, pieces_of_slots(masks, torch.zeros(2, 3, 3, 4, 4)))
    with pytest.raises(ValueError, match="found must be"):
        pieces_distance(masks, gray)
