import dataclasses
import math

import pytest
import torch

from pyzoo.data.images import load_images
from pyzoo.data.transformations import FAMILIES, Affine, AugmentedSource, Composition, Crop, Superpixels, ViewSource

AFFINE = [name for name, family in FAMILIES.items() if isinstance(family, Affine)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(count=6, side=28):
    """Smooth images whose ink keeps off the border, so that interpolation costs little."""
    place = torch.linspace(-1, 1, side)
    centers = 0.3 * (2 * torch.rand(count, 3, 2, generator=generator(5)) - 1)
    rows = (place.view(-1, 1) - centers[..., 1, None, None]).square()
    columns = (place - centers[..., 0, None, None]).square()
    return (-(rows + columns) / 0.02).exp().sum(1, keepdim=True).clamp(max=1)


def error(first, second):
    """Root mean squared difference, in shares of the images' own root mean square."""
    return ((first - second).square().mean() / second.square().mean()).sqrt().item()


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_are_repeatable_and_images_keep_their_kind(name):
    family, x = FAMILIES[name], blobs()
    parameters = family.sample(6, generator())
    assert parameters.shape == (6, family.num_parameters)
    assert torch.equal(parameters, family.sample(6, generator()))
    assert not torch.equal(parameters, family.sample(6, generator(1)))
    for dtype in (torch.float32, torch.float64):
        moved = family.apply(x.to(dtype), parameters)
        assert moved.shape == x.shape
        assert moved.dtype == dtype
        assert moved.min() >= 0
        assert moved.max() <= 1 + 1e-6
    torch.testing.assert_close(family.apply(x, parameters)[2:3], family.apply(x[2:3], parameters[2:3]))


@pytest.mark.parametrize("name", FAMILIES)
def test_colors_move_together(name):
    family, x = FAMILIES[name], blobs()
    color = torch.cat([x, x, x], dim=1)
    moved = family.apply(color, family.sample(6, generator()))
    torch.testing.assert_close(moved[:, 0], moved[:, 2])


@pytest.mark.parametrize("name", AFFINE)
def test_the_inverse_undoes_up_to_interpolation(name):
    family = FAMILIES[name]
    parameters = family.sample(6, generator())
    errors = []
    for side in (28, 112):  # with four times the pixels along a side linear interpolation is far better
        x = blobs(side=side)
        there = family.apply(x, parameters)
        assert error(there, x) > 0.1
        errors.append(error(family.apply(there, family.inverse(parameters)), x))
    assert errors[0] < 0.15
    assert errors[1] < errors[0] / 5
    identity = family.compose(parameters, family.inverse(parameters))
    torch.testing.assert_close(identity, torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(6, 6), atol=1e-6, rtol=0)


def test_the_identity_changes_nothing():
    still = Affine(rotation=0, shear=0, scale=(1, 1), translation=0)
    x = torch.rand(4, 2, 9, 9, generator=generator())
    torch.testing.assert_close(still.apply(x, still.sample(4, generator())), x, atol=1e-5, rtol=0)
    whole = Crop(smallest=1.0)
    assert torch.equal(whole.apply(x, whole.sample(4, generator())), x)


def test_composed_maps_move_as_one_after_the_other():
    family, x = FAMILIES["affine"], blobs(side=112)
    first, second = family.sample(6, generator()), family.sample(6, generator(1))
    one_by_one = family.apply(family.apply(x, first), second)
    assert error(family.apply(x, family.compose(first, second)), one_by_one) < 0.01
    assert error(family.apply(x, family.compose(second, first)), one_by_one) > 0.1


def test_directions_and_units():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 6] = 1.0  # right of the center
    family = Affine()

    def where(**arguments):
        arguments = {name: torch.tensor([value]) for name, value in arguments.items()}
        moved = family.apply(x, family.matrices(**{"rotation": torch.zeros(1), **arguments}))[0, 0]
        return [divmod(int(index), 9) for index in moved.flatten().topk(1).indices]

    assert where(rotation=90.0) == [(2, 4)]  # anticlockwise: above it
    assert where(translation=[0.0, 2 / 9]) == [(6, 6)]  # two of nine pixels down
    assert where(translation=[1 / 9, 0.0]) == [(4, 7)]
    assert where(scale=[2.0, 1.0]) == [(4, 8)]
    x[0, 0, 4, 6], x[0, 0, 6, 4] = 0.0, 1.0  # below the center
    assert where(shear=1.0) == [(6, 6)]
    assert where(scale=[1.0, 2.0]) == [(8, 4)]


def test_all_at_once_is_scale_then_shear_then_rotation_then_shift():
    family, still = Affine(), torch.zeros(3)
    generators = torch.Generator().manual_seed(2)
    rotation, shear = 40 * torch.rand(3, generator=generators), torch.rand(3, generator=generators)
    scale, translation = 0.5 + torch.rand(3, 2, generator=generators), torch.rand(3, 2, generator=generators)
    steps = [
        family.matrices(still, scale=scale),
        family.matrices(still, shear=shear),
        family.matrices(rotation),
        family.matrices(still, translation=translation),
    ]
    composed = steps[0]
    for step in steps[1:]:
        composed = family.compose(composed, step)
    torch.testing.assert_close(family.matrices(rotation, shear, scale, translation), composed)


def test_ranges_are_kept_and_filled():
    family = Affine(rotation=20.0, shear=0.0, scale=(1.0, 1.0), translation=0.25)
    a, b, c, d, e, f = family.sample(4000, generator()).unbind(-1)
    angle = torch.atan2(-d, a).rad2deg()
    assert angle.abs().max() <= 20
    assert angle.min() < -19 < 19 < angle.max()
    torch.testing.assert_close(a * e - b * d, torch.ones(4000))
    for shift in (c, f):  # in half sides
        assert 0.49 < shift.abs().max() <= 0.5
    stretched = Affine(rotation=0.0, shear=0.0, scale=(0.8, 1.2), translation=0.0).sample(4000, generator())
    for factor in (stretched[:, 0], stretched[:, 4]):
        assert 0.8 <= factor.min() < 0.81 < 1.19 < factor.max() <= 1.2


def test_a_crop_keeps_a_rectangle():
    x = torch.ones(50, 1, 28, 28)
    cropped = Crop(0.5).apply(x, Crop(0.5).sample(50, generator()))
    for image in cropped[:, 0]:
        rows, columns = image.any(1), image.any(0)
        assert image.sum() == rows.sum() * columns.sum()
        assert min(rows.sum(), columns.sum()) >= 13
    assert cropped.mean() < 0.8


def test_superpixels_are_means_of_few_regions():
    x = torch.rand(3, 1, 28, 28, generator=generator())
    family = Superpixels(per_side=4)
    painted = family.apply(x, family.sample(3, generator()))
    for image, original in zip(painted, x, strict=True):
        assert len(image.unique()) <= 16
        for color in image.unique():
            assert original[image == color].mean() == pytest.approx(color.item(), abs=0.03)
    torch.testing.assert_close(painted.mean((2, 3)), x.mean((2, 3)), atol=0.01, rtol=0)


def test_superpixels_keep_to_edges_and_to_their_neighborhood():
    x = torch.zeros(1, 1, 28, 28)
    x[..., 10:] = 1.0  # an edge that is on no line of the grid
    family = Superpixels(per_side=4)
    torch.testing.assert_close(family.apply(x, torch.tensor([[0.3, 0.3]])), x, atol=1e-4, rtol=0)
    spots = torch.zeros(1, 1, 28, 28)
    spots[0, 0, 3, 3], spots[0, 0, 24, 24] = 0.5, 0.5  # far apart, alike: not of one region
    places = Superpixels(per_side=4, compactness=10.0).apply(spots, torch.tensor([[0.3, 0.3]]))[0, 0]
    assert (places[:7, :7] > 0).sum() < 60
    assert places[9:18].sum() == 0


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.invertible])
def test_families_without_an_inverse_say_so(name):
    family = FAMILIES[name]
    with pytest.raises(ValueError, match=r"no inverse|has an inverse only if"):
        family.inverse(family.sample(2, generator()))
    with pytest.raises(ValueError, match="that has inverses"):
        ViewSource(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), family)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(rotation=-1.0), "at least 0"),
        (lambda: Affine(rotation=math.nan), "rotation must be a finite number"),
        (
            lambda: FAMILIES["affine"].apply(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1, 6)),
            "of a floating-point type",
        ),
        (lambda: ViewSource(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), Affine(), binarize="fixed"), "got 'fixed'"),
        (lambda: Affine(scale=(1.2, 0.8)), "in increasing order"),
        (lambda: Affine(scale=(0.0, 1.0)), "positive"),
        (lambda: Crop(0.0), "above 0"),
        (lambda: Superpixels(per_side=0), "at least 1"),
        (lambda: Superpixels(compactness=0.0), "positive"),
        (lambda: FAMILIES["affine"].apply(torch.zeros(1, 1, 4, 5), torch.zeros(1, 6)), "square"),
        (lambda: ViewSource(torch.zeros(4, 1, 28, 28, dtype=torch.uint8), Affine(), num_views=3), "not 3"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Sources --------------------------------------------------------------------------------------------------------------


def digits(count=40):
    return load_images("digits", "train")[0][:count]


@pytest.mark.parametrize("binarize", ["no", "dynamic"])
def test_views_are_a_function_of_seed_and_step(binarize):
    first, second, other = (ViewSource(digits(), Affine(), binarize=binarize, seed=seed) for seed in (3, 3, 4))
    for step in (5, 0, 5):
        ours, again = first.batch(step, 8), second.batch(step, 8)
        assert all(torch.equal(ours[key], again[key]) for key in ("x", "views"))
    assert not torch.equal(first.batch(0, 8)["views"], other.batch(0, 8)["views"])
    same = ViewSource(torch.full((8, 1, 28, 28), 128, dtype=torch.uint8), FAMILIES["rotation"], binarize=binarize).batch(0, 8)
    assert binarize == "no" or not torch.equal(same["views"][:, 0], same["views"][:, 1])  # each with noise of its own
    values = set(first.batch(0, 8)["views"].unique().tolist())
    assert (values == {0.0, 1.0}) == (binarize == "dynamic")


def test_views_are_of_a_transformation_and_its_inverse():
    rotation = dataclasses.replace(FAMILIES["rotation"], rotation=20.0)
    batch = ViewSource(digits(), rotation).batch(0, 20)
    angles = torch.arange(-20.0, 21.0, 2.0)

    def angle(view):
        turned = torch.stack([rotation.apply(batch["x"], rotation.matrices(angle.expand(20))) for angle in angles])
        return angles[(turned - view).square().flatten(2).sum(-1).argmin(0)]

    first, second = (angle(view) for view in batch["views"].unbind(1))
    assert (first + second).abs().max() <= 2
    assert first.abs().max() > 10


def test_views_without_inverses_are_drawn_one_by_one():
    source = ViewSource(digits(), Crop(), num_views=3, inverse_views=False)
    views = source.batch(0, 8)["views"]
    assert views.shape == (8, 3, 1, 28, 28)
    assert not torch.equal(views[:, 0], views[:, 1])
    source = ViewSource(digits(), Composition((Affine(), Crop())), num_views=1, inverse_views=False)
    assert source.batch(0, 8)["views"].shape == (8, 1, 1, 28, 28)


def test_augmented_images_are_the_views_images_each_a_third_of_the_time():
    views = ViewSource(digits(), Affine(), seed=2)
    augmented = AugmentedSource(views)
    chosen = torch.zeros(3)
    for step in range(20):
        batch, x = views.batch(step, 40), augmented.batch(step, 40)["x"]
        choices = torch.cat([batch["x"].unsqueeze(1), batch["views"]], dim=1)
        same = (choices == x.unsqueeze(1)).flatten(2).all(-1)
        assert same.any(1).all()
        chosen += same.float().sum(0)
    assert (chosen / chosen.sum() - 1 / 3).abs().max() < 0.06
    assert torch.equal(augmented.batch(7, 40)["x"], AugmentedSource(views).batch(7, 40)["x"])


def test_a_translation_is_by_at_most_the_margin_about_mnists_boxes():
    family = FAMILIES["translation"]
    assert math.isclose(family.translation * 28, 4)  # MNIST's digits are scaled into 20 of 28 pixels


def test_affine_families_compose_to_one_map_with_an_inverse():
    turn, shift = FAMILIES["rotation"], FAMILIES["translation"]
    both, x = Composition((turn, shift)), blobs()
    parameters = both.sample(6, generator())
    once = generator()
    first, second = turn.sample(6, once), shift.sample(6, once)
    torch.testing.assert_close(parameters, turn.compose(first, second))
    assert error(both.apply(x, parameters), shift.apply(turn.apply(x, first), second)) < 0.1  # which interpolates twice
    identity = torch.tensor([1.0, 0, 0, 0, 1, 0]).expand(6, -1)
    torch.testing.assert_close(turn.compose(parameters, both.inverse(parameters)), identity, atol=1e-6, rtol=0)
    assert ViewSource(digits(), both).batch(0, 8)["views"].shape == (8, 2, 1, 28, 28)


def test_compositions_with_other_families_have_no_inverse():
    mixed = Composition((Affine(), Crop()))
    assert not mixed.invertible
    with pytest.raises(ValueError, match="only if all its families are affine"):
        mixed.inverse(mixed.sample(2, generator()))
    with pytest.raises(ValueError, match="at least one family"):
        Composition(())


def test_a_source_has_a_view():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ViewSource(digits(), Crop(), num_views=0, inverse_views=False)
