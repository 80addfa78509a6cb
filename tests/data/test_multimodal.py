import numpy as np
import pytest
import torch

from pyzoo.data.images import image_data
from pyzoo.data.multimodal import ImagePartner, PairSet, PairSource, load_pairs, pairs_of, partner_name
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
    partner = ImagePartner("next", images, labels, offset)
    wanted = torch.arange(10).repeat(50)
    found = (255 * partner(wanted, generator())[:, 0, 0, 0]).round().long()
    which = (images[:, 0, 0, 0].long() == found.unsqueeze(1)).long().argmax(1)
    assert torch.equal(labels[which], (wanted + offset) % 10)
    assert which.unique().numel() == 30


def test_a_class_without_an_image_is_named():
    images, labels = class_images()
    with pytest.raises(UsageError, match="an image of 'next', and these have none: 4"):
        ImagePartner("next", images[labels != 4], labels[labels != 4])


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
    with pytest.raises(ValueError, match=r"share from 0 to 1, got 1\.5"):
        PairSource(load_pairs("digits-label", "test"), paired=1.5)
    with pytest.raises(UsageError, match="--batch-size 361 is more than the 360"):
        PairSource(load_pairs("digits-label", "test")).batch(0, 361)


# Own images -----------------------------------------------------------------------------------------------------------


def own_images(count=60, labels=("cat", "dog", "fox")):
    """Images of 3 channels whose pixels say their class, and the names of the classes."""
    numbers = torch.arange(count) % len(labels)
    images = (numbers + 100).view(-1, 1, 1, 1).expand(-1, 3, 6, 5).to(torch.uint8)
    return image_data(images, np.array(labels)[numbers.numpy()], name="pets")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("partner", ["label", "next"])
def test_pairs_of_own_images(partner, split):
    data = own_images()
    pairs = pairs_of(data, partner, split)
    assert pairs.names == ("image", partner)
    assert pairs.num_classes == 3
    assert len(pairs) == {"train": 48, "test": 12}[split]
    views = pairs.views(slice(None), generator())
    assert list(views) == ["image", partner]
    assert views["image"].shape == (len(pairs), 3, 6, 5)
    classes = (255 * views["image"][:, 0, 0, 0]).round().long() - 100
    assert torch.equal(classes, pairs.classes("image"))
    if partner == "label":
        assert views["label"].shape == (len(pairs), 3)
        assert torch.equal(views["label"].argmax(1), classes)
        assert torch.equal(pairs.classes("label"), classes)
    else:
        assert torch.equal((255 * views["next"][:, 0, 0, 0]).round().long() - 100, (classes + 1) % 3)
        assert torch.equal(pairs.classes("next"), (classes + 1) % 3)


def test_batches_of_own_images_carry_the_name_of_the_first_view():
    source = PairSource(pairs_of(own_images(), "next", "train"), paired=0.5)
    batch = source.batch(step=0, size=7)
    assert list(batch) == ["image", "next", "present"]
    assert source.pairs.names == ("image", "next")  # after they moved to the device


def test_shares_of_own_images_do_not_overlap():
    data = image_data(torch.arange(40, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 2, 2), torch.arange(40) % 2)
    first, second = (pairs_of(data, "next", "train", share) for share in ((0.0, 0.75), (0.75, 1.0)))
    assert len(first) == 24
    assert len(second) == 8
    seen = [set(pairs.images.flatten().tolist()) for pairs in (first, second)]
    assert not seen[0] & seen[1]
    drawn = [set((255 * pairs.views(slice(None), generator())["next"]).round().flatten().tolist()) for pairs in (first, second)]
    assert not drawn[0] & drawn[1]


def test_pairs_need_labels_and_classes():
    for bad, message in [
        (image_data(torch.rand(10, 4, 4), name="mine"), "pairs need images with labels, and the train images of mine have none"),
        (own_images(labels=("cat",)), "at least two classes, and those of pets are all of the class cat"),
    ]:
        with pytest.raises(UsageError, match=message):
            pairs_of(bad, "label", "train")
    rare = image_data(torch.rand(50, 4, 4), torch.tensor([0, 1] * 24 + [2, 3]))
    for split in ("train", "test"):
        pairs_of(rare, "label", split)
    with pytest.raises(UsageError, match="the test images of images lack 2, 3"):
        pairs_of(rare, "next", "test")
    with pytest.raises(ValueError, match="got 'previous'"):
        pairs_of(rare, "previous", "test")
    with pytest.raises(ValueError, match="got 'validation'"):
        pairs_of(rare, "next", "validation")
