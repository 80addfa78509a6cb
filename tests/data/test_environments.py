from types import SimpleNamespace

import pytest
import torch

from pyzoo.data.environments import EnvironmentSource, colored_images, views_of
from pyzoo.errors import UsageError
from pyzoo.training.trainer import Trainer


def pictures(count=4000, channels=1, side=28):
    images = torch.randint(1, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return images, torch.arange(count) % 10


def test_shares_are_those_that_are_asked_for():
    colored = colored_images(*pictures(40_000, side=2), 10, color_flips=(0.2, 0.1, 0.9), label_flips=0.25)
    assert colored.environments.bincount().tolist() == [13334, 13333, 13333]
    wrong = (colored.labels != (colored.classes < 5)).double().mean().item()
    assert wrong == pytest.approx(0.25, abs=0.01)
    for e, share in enumerate((0.2, 0.1, 0.9)):
        part = colored.rows(colored.environments == e)
        assert (part.labels != part.colors).double().mean().item() == pytest.approx(share, abs=0.01)


def test_an_image_is_in_the_channel_of_its_color():
    images, classes = pictures(100)
    images[:, 0, 0, 0] = torch.arange(100).to(torch.uint8)  # tells which one it was
    colored = colored_images(images, classes, 10)
    assert colored.images.shape == (100, 2, 14, 14)
    for image, color, kind in zip(colored.images, colored.colors, colored.classes, strict=True):
        assert not image[1 - color].any()
        number = int(image[color, 0, 0])
        assert torch.equal(image[color], images[number, 0, ::2, ::2])
        assert kind == classes[number]


def test_without_colors_all_images_are_red():
    colored = colored_images(*pictures(50), 10, grayscale=True)
    assert not colored.images[:, 1].any()
    assert not colored.colors.any()


def test_channels_are_averaged_and_small_images_keep_their_size():
    images, classes = pictures(20, channels=3, side=8)
    colored = colored_images(images, classes, 10, color_flips=(0.0,))
    assert colored.images.shape == (20, 2, 8, 8)
    totals = colored.images.sum(1).double().mean((1, 2)).sort().values
    torch.testing.assert_close(totals, images.double().mean((1, 2, 3)).sort().values, atol=0.5, rtol=0)


def test_the_seed_decides():
    first, again, other = (colored_images(*pictures(100), 10, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)


def test_batches_have_as_many_images_from_each_environment():
    colored = colored_images(*pictures(300), 10, color_flips=(0.2, 0.1, 0.3))
    source = EnvironmentSource(colored, labeled=0.4, seed=1)
    batch = source.batch(step=3, size=30)
    assert batch["e"].sum(0).tolist() == [10, 10, 10]
    assert batch["x"].amin() >= 0
    assert batch["x"].amax() <= 1
    assert batch["present"].dtype == torch.bool
    assert batch["present"][:, [0, 2]].all()
    again = EnvironmentSource(colored, labeled=0.4, seed=1).batch(step=3, size=30)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    epoch = torch.cat([source.batch(step, 30)["x"] for step in range(10)])
    assert len(epoch.flatten(1).unique(dim=0)) == len(colored.images.flatten(1).unique(dim=0))  # each image once
    known = torch.cat([source.batch(step, 30)["present"][:, 1] for step in range(10)])
    assert 0.2 < known.double().mean() < 0.6
    assert "present" not in EnvironmentSource(colored).batch(0, 6)


def test_views_are_one_hot():
    colored = colored_images(*pictures(12), 10)
    views = views_of(colored, 2)
    assert views["x"].dtype == views["y"].dtype == torch.get_default_dtype()
    assert torch.equal(views["y"].argmax(1), colored.labels)
    assert torch.equal(views["e"].argmax(1), colored.environments)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda i, c: colored_images(i.float(), c, 10), ValueError, "images must be uint8"),
        (lambda i, c: colored_images(i[0], c, 10), ValueError, "images must be uint8"),
        (lambda i, c: colored_images(i, c[1:], 10), ValueError, "a class for each"),
        (lambda i, c: colored_images(i, c, 5), ValueError, "classes"),
        (lambda i, c: colored_images(i, c, 1), ValueError, "num_classes"),
        (lambda i, c: colored_images(i, c, 10, (1.5,)), ValueError, "share of flips"),
        (lambda i, c: colored_images(i, c, 10, label_flips=-0.1), ValueError, "share of flips"),
        (lambda i, c: colored_images(i[:1], c[:1], 10), UsageError, "too few for 2 environments"),
        (lambda i, c: EnvironmentSource(colored_images(i, c, 10), labeled=0.0), ValueError, "labeled"),
        (lambda i, c: EnvironmentSource(colored_images(i, c, 10), labeled=1e-9), UsageError, "without a label"),
        (lambda i, c: EnvironmentSource(colored_images(i, c, 10)).batch(0, 1), ValueError, "size"),
        (lambda i, c: EnvironmentSource(colored_images(i, c, 10)).batch(0, 100), UsageError, "examples there are"),
    ],
)
def test_bad_input(call, kind, message):
    with pytest.raises(kind, match=message):
        call(*pictures(20))


def test_each_process_has_images_of_all_environments():
    colored = colored_images(*pictures(120, side=2), 10, color_flips=(0.2, 0.1))
    batch = EnvironmentSource(colored, seed=0).batch(0, 21)
    for rank in range(3):
        process = SimpleNamespace(fabric=SimpleNamespace(global_rank=rank, world_size=3))
        part = Trainer._slice(process, batch)["e"]
        assert len(part) == 7
        assert (part.sum(0) >= 3).all()
