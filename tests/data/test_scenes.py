"""Scenes: masks are exact, pieces do not overlap, planted relations hold, and a batch follows from seed and step."""

from functools import partial

import pytest
import torch

from pyzoo.data.scenes import COLORS, SceneSource, has_relation, sprites, tetrominoes
from pyzoo.errors import UsageError
from pyzoo.random import seeded


@pytest.mark.parametrize(("image_size", "num_pieces"), [(35, 3), (32, 3), (64, 4), (21, 1)])
def test_tetrominoes_are_four_squares_of_one_color(image_size, num_pieces):
    scenes = tetrominoes(20, seeded(0), image_size, num_pieces)
    unit = image_size // 7
    for piece in range(1, num_pieces + 1):
        mask = scenes.segments == piece
        assert (mask.flatten(1).sum(1) == 4 * unit**2).all()  # nothing is covered, nothing cut off
        for image, where, color in zip(scenes.images, mask, scenes.colors[:, piece - 1], strict=True):
            assert (image[:, where] == 255 * color[:, None]).all()
    assert (scenes.images.movedim(1, -1)[scenes.segments == 0] == 0).all()
    assert set(map(tuple, scenes.colors.flatten(0, 1).tolist())) <= set(map(tuple, COLORS.tolist()))


@pytest.mark.parametrize(("image_size", "num_pieces"), [(35, 5), (28, 6)])
def test_where_pieces_hardly_fit_all_scenes_are_different(image_size, num_pieces):
    scenes = tetrominoes(16, seeded(0), image_size, num_pieces)
    assert len({tuple(one.flatten().tolist()) for one in scenes.segments}) == 16
    for piece in range(1, num_pieces + 1):
        assert ((scenes.segments == piece).flatten(1).sum(1) == 4 * (image_size // 7) ** 2).all()


def test_centers_are_where_pieces_are():
    scenes = tetrominoes(10, seeded(1))
    for segments, places in zip(scenes.segments, scenes.places, strict=True):
        for piece, place in enumerate(places, start=1):
            pixels = (segments == piece).nonzero().double()
            middle = (pixels.min(0).values + pixels.max(0).values + 1) / 2 / 35
            torch.testing.assert_close(middle.float(), place)


def test_all_orientations_and_colors_occur_equally():
    scenes = tetrominoes(3000, seeded(0))
    counts = scenes.shapes.flatten().bincount()
    assert len(counts) == 19
    assert counts.min() > 0.7 * 9000 / 19  # long ones fit less often
    assert counts.max() < 1.4 * 9000 / 19  # the square most often


def test_mirrored_tetrominoes_are_told_apart_by_color():
    scenes = tetrominoes(100, torch.Generator().manual_seed(0), num_pieces=3, relation="place")
    hues = (scenes.colors.unsqueeze(2) == COLORS).all(-1).long().argmax(-1)
    assert torch.equal(hues // 2, torch.arange(3).expand(100, -1))
    assert set(hues.unique().tolist()) == set(range(6))


@pytest.mark.parametrize("relation", ["color", "place"])
@pytest.mark.parametrize("draw", [tetrominoes, partial(sprites, num_pieces=3)])
def test_relations_hold_where_they_are_planted(draw, relation):
    scenes = draw(50, seeded(0), relation=relation)
    assert has_relation(scenes, relation).all()
    assert has_relation(draw(500, seeded(0)), relation).float().mean() < 0.1


def test_later_sprites_cover_earlier_ones():
    scenes = sprites(200, seeded(0), num_pieces=4, fewest_pieces=2)
    assert scenes.present.sum(1).unique().tolist() == [2, 3, 4]
    seen = torch.stack([(scenes.segments == piece).flatten(1).any(1) for piece in range(1, 5)], 1)
    assert not (seen & ~scenes.present).any()
    assert (seen | ~scenes.present).float().mean() > 0.9  # few are covered wholly
    last = scenes.present.sum(1)
    assert (scenes.segments.flatten(1).amax(1) == last).all()  # the one in front is always seen
    gray = scenes.images.movedim(1, -1)[scenes.segments == 0]
    assert (gray == gray[:, :1]).all()


def test_batches_follow_from_seed_split_and_step():
    source = SceneSource(tetrominoes, seed=3)
    one = source.batch(5, 4)["x"]
    assert one.shape == (4, 3, 35, 35)
    assert one.dtype == torch.float32
    assert 0 <= one.min() <= one.max() <= 1
    assert torch.equal(one, source.batch(5, 4)["x"])
    for other in (source.batch(6, 4), SceneSource(tetrominoes, seed=3, split="test").batch(5, 4)):
        assert not torch.equal(one, other["x"])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (partial(tetrominoes, num_pieces=7), "num_pieces must be at most 6"),
        (partial(tetrominoes, image_size=10), "image_size must be a whole number of at least 14"),
        (partial(tetrominoes, relation="size"), "relation is 'none', 'color' or 'place', not 'size'"),
        (partial(sprites, relation="place"), "at most 4 where places are mirrored"),
        (partial(sprites, fewest_pieces=6), "fewest_pieces must be at most num_pieces, 5"),
        (partial(sprites, num_pieces=0), "num_pieces must be a whole number"),
        (partial(sprites, num_pieces=101), "num_pieces must be at most 100, got 101"),
    ],
)
def test_bad_arguments(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(20, seeded(0))


def test_pieces_that_do_not_fit(monkeypatch):
    monkeypatch.setattr("pyzoo.data.scenes._ROUNDS", 1)
    with pytest.raises(UsageError, match="6 pieces hardly fit into images of 14 x 14 pixels"):
        tetrominoes(20, seeded(0), image_size=14, num_pieces=6)


def test_no_scenes():
    with pytest.raises(ValueError, match="count must be"):
        tetrominoes(0, seeded(0))
    with pytest.raises(ValueError, match="size must be"):
        SceneSource(tetrominoes).batch(0, 0)
