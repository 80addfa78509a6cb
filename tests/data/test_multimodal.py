import pytest
import torch

from pyzoo.data.multimodal import Images, PairSet, PairSource, load_pairs, partner_name
from pyzoo.errors import UsageError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def class_images(per_class=3):
    """Images that say their class: its number in every pixel."""
    labels = torch.arange(10).repeat(per_class)[torch.randperm(10 * per_class, generator=generator())]
    return labels.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).to(torch.uint8), labels


@pytest.mark.parametrize("offset", [0, 1])
def test_partners_are_of_the_right_class_and_all_of_them_occur(offset):
    images, labels = class_images()
    images = images + 10 * torch.arange(30, dtype=torch.uint8).view(-1, 1, 1, 1)  # so that each can be told
    partner = Images("next", images, labels, offset)
    wanted = torch.arange(10).repeat(50)
    found = (255 * partner(wanted, generator())[:, 0, 0, 0]).round().long()
    which = (images[:, 0, 0, 0].long() == found.unsqueeze(1)).long().argmax(1)
    assert torch.equal(labels[which], (wanted + offset) % 10)
    assert which.unique().numel() == 30


def test_a_class_without_an_image_is_named():
    images, labels = class_images()
    with pytest.raises(ValueError, match=r"classes \[4\] have no image of 'next'"):
        Images("next", images[labels != 4], labels[labels != 4])


@pytest.mark.parametrize(
    ("name", "shape", "offset"),
    [("digits-label", (10,), 0), ("digits-numbers", (3, 32, 32), 0), ("digits-plus-one", (1, 28, 28), 1)],
)
def test_embedded_pairs(name, shape, offset):
    pairs = load_pairs(name, "test")
    assert len(pairs) == 360
    views = pairs.views(slice(0, 6), generator())
    assert list(views) == ["digit", partner_name(name)] == list(pairs.names)
    assert views[partner_name(name)].shape == (6, *shape)
    assert torch.equal(pairs.classes(partner_name(name)), (pairs.labels + offset) % 10)
    assert torch.equal(pairs.classes("digit"), pairs.labels)
    if name == "digits-label":
        assert torch.equal(views["label"].argmax(1), pairs.labels[:6])


def test_partners_of_a_split_come_from_it():
    train, test = load_pairs("digits-plus-one", "train"), load_pairs("digits-plus-one", "test")
    known = {tuple(image.flatten().tolist()) for image in train.images}
    drawn = 255 * test.views(slice(None), generator())["next"]
    assert not known & {tuple(image.flatten().round().to(torch.uint8).tolist()) for image in drawn}


def test_batches_are_a_function_of_seed_and_step():
    source = PairSource(load_pairs("digits-numbers", "train"), seed=3)
    first = source.batch(step=5, size=8)
    source.batch(step=1, size=8)
    again = PairSource(load_pairs("digits-numbers", "train"), seed=3).batch(step=5, size=8)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = PairSource(load_pairs("digits-numbers", "train"), seed=4).batch(step=5, size=8)
    assert not torch.equal(first["digit"], other["digit"])
    assert list(first) == ["digit", "number"]


def test_a_digit_meets_new_partners():
    source = PairSource(load_pairs("digits-plus-one", "test"))
    one, two = (source.batch(step, 360)["next"][source.epochs.rows(step, 360).argsort()] for step in (0, 1))
    assert (one != two).flatten(1).any(1).float().mean() > 0.9


def test_a_digit_lacks_the_same_view_in_every_epoch():
    images, labels = class_images(40)
    images = torch.arange(400, dtype=torch.int64).view(-1, 1, 1, 1)
    pairs = PairSet((images % 256).to(torch.uint8), labels, load_pairs("digits-label", "test").partner)
    source = PairSource(pairs, paired=0.3)
    assert source.present.any(1).all()
    share = source.present.all(1).float().mean()
    assert 0.2 < share < 0.4
    only = source.present[~source.present.all(1)]
    assert 0.35 < only[:, 0].float().mean() < 0.65
    batch = source.batch(step=0, size=400)
    rows = source.epochs.rows(0, 400)
    assert torch.equal(batch["present"], source.present[rows])
    assert torch.equal(source.batch(step=1, size=400)["present"], source.present[source.epochs.rows(1, 400)])


def test_one_view_alone():
    batch = PairSource(load_pairs("digits-numbers", "train"), paired=0.5, views=("digit",)).batch(0, 4)
    assert list(batch) == ["digit"]


def test_bad_arguments():
    with pytest.raises(ValueError, match="no pairs 'digits-svhn'"):
        load_pairs("digits-svhn", "train")
    with pytest.raises(ValueError, match=r"share from 0 to 1, not 1\.5"):
        PairSource(load_pairs("digits-label", "test"), paired=1.5)
    with pytest.raises(UsageError, match="--batch-size 361 is more than the 360"):
        PairSource(load_pairs("digits-label", "test")).batch(0, 361)
