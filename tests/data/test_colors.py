import pytest
import torch

from pyzoo.data.colors import COLORS, Colors


def source(**changes):
    return Colors(lambda step: 4, **changes)


def test_a_batch_is_a_pure_function_of_seed_split_and_step():
    first, again = source().batch(3, 8), source().batch(3, 8)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["x"], source(seed=1).batch(3, 8)["x"])


def test_colors_are_those_of_the_text():
    assert list(COLORS) == ["red", "green", "blue", "white", "black"]
    assert len(set(COLORS.values())) == 5


def test_one_site_paints_everything_in_its_color():
    images = source().draw(40, 1, seed=0)
    expected = torch.tensor(list(COLORS.values()))[images.parts[:, 0]]
    torch.testing.assert_close(images.x, expected[..., None, None].expand(-1, -1, 32, 32))


def test_image_is_the_generator_of_appendix_b2():
    images = source().draw(2, 3, seed=0)
    line = torch.arange(32) * 2.0 / 31.0 - 1.0
    for row, column in [(0, 0), (5, 30), (31, 7)]:
        distance = (line[column] - images.positions[0, :, 0]) ** 2 + (line[row] - images.positions[0, :, 1]) ** 2
        share = torch.softmax(-images.intensities[0] * distance, 0)
        colors = torch.tensor(list(COLORS.values()))[images.parts[0]]
        torch.testing.assert_close(images.x[0, :, row, column], (share @ colors) ** (1 / 2.4), atol=1e-5, rtol=1e-5)


def test_ranges():
    images = source().draw(500, 4, seed=0)
    assert images.positions.abs().max() <= 0.9
    assert images.positions.abs().max() > 0.88
    assert 5 <= images.intensities.min() < 5.1
    assert 9.9 < images.intensities.max() <= 10
    assert images.x.min() >= 0
    assert images.x.max() <= 1


def test_a_subset_is_the_image_of_the_kept_sites():
    images = source().draw(6, 4, seed=0)
    keep = torch.tensor([[True, False, False, True]]).expand(6, -1)
    kept = [value[:, [0, 3]] for value in images[:3]]
    torch.testing.assert_close(source().subset(images, keep), source().image(*kept))


@pytest.mark.parametrize("size", [8, 32])
def test_image_size(size):
    assert source(image_size=size).draw(2, 3, seed=0).x.shape == (2, 3, size, size)
