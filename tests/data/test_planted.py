import itertools
import math

import pytest
import torch

from pyzoo.data.planted import PlantedGaussians, PlantedImages, PlantedSource, drawn_structure, parsed_structure
from pyzoo.errors import UsageError
from pyzoo.random import seeded

STRUCTURE = parsed_structure("z1 -> x1, x2; z2 -> x2, x3")
WITH_ENVIRONMENT = parsed_structure("z1 -> x1, x2; z2 -> x2, x3, e")
IMAGES = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 4, 4) * 6 + 1


# Structures -----------------------------------------------------------------------------------------------------------


def test_names_are_in_the_order_of_their_numbers_and_the_environment_is_last():
    structure = parsed_structure("z10 -> e, x10; z2 -> x9, x1")
    assert structure.variables.observed == ("x1", "x9", "x10", "e")
    assert structure.variables.shared == ("z2", "z10")
    assert structure.generative_mask().tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z1", "A statement is"),
        ("z1 -> x1 -> x2", "A statement is"),
        ("z1 -> ", "A statement is"),
        ("z1 -> x1; x1 -> x2", "'x1' can't be both"),
        ("", "needs a cause and a view"),
    ],
)
def test_texts_that_are_no_structure(text, message):
    with pytest.raises(ValueError, match=message):
        parsed_structure(text)


@pytest.mark.parametrize("seed", range(5))
def test_drawn_structures_obey_their_rules(seed):
    mask = drawn_structure(6, 4, most_causes=3, seed=seed).generative_mask()
    assert (mask.sum(0) >= 2).all()
    assert (mask.sum(1) >= 1).all()
    assert (mask.sum(1) <= 3).all()
    assert len(set(map(tuple, mask.T.tolist()))) == 4
    assert torch.equal(mask, drawn_structure(6, 4, most_causes=3, seed=seed).generative_mask())
    assert not torch.equal(mask, drawn_structure(6, 4, most_causes=3, seed=seed + 1).generative_mask())


def test_an_environment_depends_on_the_first_cause():
    structure = drawn_structure(4, 2, most_causes=2, seed=0, environment=True)
    assert structure.variables.observed[-1] == "e"
    assert structure.parents("e") == ("z1",)


def test_rules_that_hardly_any_structure_obeys():
    with pytest.raises(UsageError, match="2 views can hardly have 4 causes"):
        drawn_structure(2, 4, most_causes=4, seed=0)


# Normal variables -----------------------------------------------------------------------------------------------------


def test_draws_have_the_covariance_that_is_said():
    planted = PlantedGaussians(STRUCTURE, x_dim=3, noise=0.5, seed=1)
    views = planted.draw(200_000, seeded(0))
    for a, b in itertools.product(planted.views, repeat=2):
        found = views[a].T.double() @ views[b].double() / 200_000
        torch.testing.assert_close(found, planted.covariance[a, b], atol=0.02, rtol=0)
    for view in planted.views:  # variance 1 without the noise, on average
        assert planted.covariance[view, view].diagonal().mean().item() == pytest.approx(1.25)


def test_informations_against_closed_forms():
    """With one dimension x1 and x2 have correlation r = 1 / (1 + noise^2) times the share of z1 in x2."""
    planted = PlantedGaussians(parsed_structure("z1 -> x1, x2"), x_dim=1, noise=0.5)
    correlation = 1 / 1.25
    assert planted.information(["x1"], ["x2"]) == pytest.approx(-0.5 * math.log(1 - correlation**2))
    assert planted.information(["x1"], ["z1"]) == pytest.approx(0.5 * math.log(1 + 1 / 0.25))
    assert planted.information(["x1"], ["x2"], given=["z1"]) == pytest.approx(0, abs=1e-12)


def test_informations_follow_the_structure():
    planted = PlantedGaussians(STRUCTURE, x_dim=4, z_dim=2, noise=0.3)
    assert planted.information(["x1"], ["x3"]) == pytest.approx(0, abs=1e-10)
    assert 0 < planted.information(["x1"], ["x2"], given=["x3"]) < planted.information(["x1"], ["z1"])
    assert planted.information(["z1"], ["x3"]) == pytest.approx(0, abs=1e-10)
    chain = planted.information(["x1"], ["x2"]) + planted.information(["x1"], ["x3"], given=["x2"])
    assert planted.information(["x1"], ["x2", "x3"]) == pytest.approx(chain)


@pytest.mark.parametrize(
    ("arguments", "message"), [(([], ["x1"]), "one variable or more"), ((["x9"], ["x1"]), "x9"), ((["x1"], ["e"]), "'?e'?")]
)
def test_informations_of_nothing_known(arguments, message):
    with pytest.raises(ValueError, match=message):
        PlantedGaussians(WITH_ENVIRONMENT, num_environments=2).information(*arguments)


def test_a_view_too_small_for_its_causes():
    with pytest.raises(UsageError, match="1 dimensions can't show 2 causes of 1, as x2 should"):
        PlantedGaussians(STRUCTURE, x_dim=1)


def test_the_environment_depends_on_its_cause_alone():
    planted = PlantedGaussians(WITH_ENVIRONMENT, x_dim=2, noise=0.1, num_environments=3, blur=0.0)
    views = planted.draw(30_000, seeded(0))
    shares = views["e"].mean(0)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.02, rtol=0)

    def gap(view):
        of_first, of_last = (views[view][views["e"][:, e] == 1].mean(0) for e in (0, 2))
        return (of_first - of_last).norm().item()

    assert gap("x3") > 1
    assert gap("x1") < 0.1


# Images ---------------------------------------------------------------------------------------------------------------


def test_brightness_is_what_views_share():
    white = torch.full((5, 1, 4, 4), 255, dtype=torch.uint8)
    views = PlantedImages(STRUCTURE, white).draw(100, seeded(0))
    assert torch.equal(views["x1"][..., :4], views["x2"][..., :4])  # z1
    assert torch.equal(views["x2"][..., 4:], views["x3"][..., :4])  # z2
    assert not views["x1"][..., 4:].any()
    level = views["x1"][:, 0, 0, 0]
    assert 0.1 <= level.min() < 0.2
    assert 0.9 < level.max() <= 1
    assert abs(torch.corrcoef(torch.stack([level, views["x3"][:, 0, 0, 0]]))[0, 1]) < 0.3


def test_classes_are_what_views_share():
    """Images of one gray level each: the level says which image it is."""
    labels = torch.arange(40) % 4
    views = PlantedImages(STRUCTURE, IMAGES, labels, num_classes=4).draw(200, seeded(0))

    def drawn(view, place):
        return labels[((views[view][:, 0, 0, 4 * place] * 255).round().long() - 1) // 6], views[view][:, 0, 0, 4 * place]

    assert torch.equal(drawn("x1", 0)[0], drawn("x2", 0)[0])
    assert torch.equal(drawn("x2", 1)[0], drawn("x3", 0)[0])
    assert not torch.equal(drawn("x1", 0)[1], drawn("x2", 0)[1])  # another image of the class
    assert set(drawn("x1", 0)[0].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_labels_of_any_integer_type(dtype):
    views = PlantedImages(STRUCTURE, IMAGES, (torch.arange(40) % 4).to(dtype), num_classes=4).draw(5, seeded(0))
    assert views["x1"].shape == (5, 1, 4, 8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": IMAGES.float()}, ValueError, "images must be uint8"),
        ({"images": IMAGES[:0]}, ValueError, "images must be uint8"),
        ({"num_classes": 3, "labels": None}, ValueError, "labels are needed"),
        ({"num_classes": 3, "labels": torch.zeros(3).long()}, ValueError, "a label for each of the 40 images"),
        ({"num_classes": 3, "labels": torch.zeros(40).long()}, UsageError, "no image of class 1, of 3 classes"),
    ],
)
def test_images_that_do_not_fit(change, error, message):
    with pytest.raises(error, match=message):
        PlantedImages(STRUCTURE, **{"images": IMAGES, **change})


# Batches --------------------------------------------------------------------------------------------------------------


def test_batches_are_a_function_of_seed_split_and_step():
    def batch(step=3, seed=0, split="train"):
        return PlantedSource(PlantedGaussians(STRUCTURE), seed=seed, split=split).batch(step, 8)["x1"]

    assert torch.equal(batch(), batch())
    assert not any(torch.equal(batch(), other) for other in (batch(step=4), batch(seed=1), batch(split="test")))


def test_incomplete_examples_have_a_view_at_least():
    source = PlantedSource(PlantedGaussians(STRUCTURE), complete=0.25)
    present = source.batch(0, 20_000)["present"]
    assert present.any(1).all()
    whole = 0.25 + 0.75 / 4  # of three views the two that are not kept are both drawn in a quarter of the cases
    assert present.all(1).double().mean().item() == pytest.approx(whole, abs=0.01)
    assert "present" not in PlantedSource(PlantedGaussians(STRUCTURE)).batch(0, 8)
