import math

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pyzoo.data import affnist as module
from pyzoo.data.affnist import affnist_from, at_mnists_size, fit_to_28, load_affnist
from pyzoo.data.images import load_images
from pyzoo.errors import UsageError


def digits(count=200):
    """The digits at MNIST's size: 20 of 28 pixels."""
    return at_mnists_size(load_images("digits", "train")[0][:count])


def write(folder, name="test_batches/1.mat", images=None, labels=None, key="affNISTdata"):
    path = folder / "affNIST" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    images = torch.randint(0, 256, (5, 1, 40, 40), dtype=torch.uint8) if images is None else images
    labels = np.arange(5, dtype=np.uint8) if labels is None else labels
    savemat(path, {key: {"image": images.flatten(1).T.numpy(), "label_int": labels}})
    return path, images


# Made from MNIST ------------------------------------------------------------------------------------------------------


def test_digits_stay_inside_and_go_everywhere():
    images = digits()
    made = affnist_from(images, seed=0)
    assert made.shape == (200, 1, 40, 40)
    assert made.dtype == torch.uint8
    ink = made.float().sum((1, 2, 3)) / images.float().sum((1, 2, 3))
    assert ink.min() > 0.55  # 0.8 times 0.8
    assert ink.max() < 1.5  # 1.2 times 1.2
    border = torch.cat([made[..., 0, :], made[..., -1, :], made[..., 0], made[..., -1]], dim=-1)
    assert (border > 128).float().mean() < 0.01  # ink may touch the border, and is not cut there
    weights = made.squeeze(1).float()
    place = torch.arange(40.0)
    for axis in (1, 2):
        center = (weights.sum(axis) * place).sum(-1) / weights.sum((1, 2))
        assert center.min() < 14
        assert center.max() > 25


def test_digits_are_turned_sheared_and_scaled_by_the_published_ranges():
    """Of a cross: the directions and lengths of its arms, from where their ends are."""
    cross = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    cross[..., 13:15, 6:22] = 255
    cross[..., 6:22, 13:15] = 255
    made = affnist_from(cross.expand(400, -1, -1, -1), seed=0).float().squeeze(1)
    rows, columns = made.amax(2) > 60, made.amax(1) > 60
    heights, widths = rows.sum(1), columns.sum(1)
    assert 10 <= widths.min() < 14  # 16 pixels times 0.8 at the least
    assert 18 < widths.max() <= 24
    place = torch.arange(40.0)
    top = torch.stack([image[line][: len(place)].float() for image, line in zip(made, rows.float().argmax(1) + 1, strict=True)])
    bottom_lines = 39 - rows.flip(1).float().argmax(1) - 1
    bottom = torch.stack([image[line] for image, line in zip(made, bottom_lines, strict=True)])
    lean = ((top * place).sum(1) / top.sum(1) - (bottom * place).sum(1) / bottom.sum(1)) / heights
    assert lean.abs().max() < math.tan(math.radians(20)) + 0.2 + 0.15
    assert lean.std() > 0.1  # rotation and shear both lean it


def test_making_is_repeatable():
    images = digits(20)
    assert torch.equal(affnist_from(images, seed=0), affnist_from(images, seed=0))
    assert not torch.equal(affnist_from(images, seed=0), affnist_from(images, seed=1))


def test_each_split_has_transformations_of_its_own(monkeypatch):
    images, labels = digits(20), torch.arange(20) % 10
    monkeypatch.setattr(module, "load_images", lambda *arguments: (images, labels))
    train, test = (load_affnist(split)[0] for split in ("train", "test"))
    assert train.shape == (20, 1, 40, 40)
    assert not torch.equal(train, test)
    assert torch.equal(train, load_affnist("train")[0])


def test_the_stand_in_needs_no_file():
    for split, count in (("train", 1437), ("test", 360)):
        images, labels = load_affnist(split, origin="digits")
        assert images.shape == (count, 1, 40, 40)
        assert torch.equal(labels, load_images("digits", split)[1])
    with pytest.raises(UsageError, match="'svhn'"):
        load_affnist("test", origin="svhn")


def test_bringing_to_28():
    images = torch.zeros(1, 1, 40, 40, dtype=torch.uint8)
    images[..., 6:34, 6:34] = 200
    assert (fit_to_28(images, "crop") == 200).all()
    small = fit_to_28(images, "resize")
    assert small.shape == (1, 1, 28, 28)
    assert (small.sum() / 200).item() == pytest.approx(28**2 * 0.49, rel=0.02)
    with pytest.raises(ValueError, match="'stretch'"):
        fit_to_28(images, "stretch")


@pytest.mark.parametrize("function", [fit_to_28, at_mnists_size, lambda images: affnist_from(images, 0)])
def test_images_are_bytes_of_one_size(function):
    for bad in (torch.rand(2, 1, 28, 28), torch.zeros(2, 1, 30, 30, dtype=torch.uint8), torch.zeros(28, 28, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"uint8 and \(images, 1"):
            function(bad)


# Read from its own files ----------------------------------------------------------------------------------------------


def test_reads_affnists_layout(tmp_path):
    _, images = write(tmp_path)
    found, labels = load_affnist("test", tmp_path, origin="files")
    assert torch.equal(found, images)
    assert torch.equal(fit_to_28(found, "crop"), images[..., 6:34, 6:34])
    assert labels.tolist() == [0, 1, 2, 3, 4]
    for index in (1, 2):
        write(tmp_path, f"training_and_validation_batches/{index}.mat")
    assert len(load_affnist("train", tmp_path, origin="files", batches=2)[1]) == 10


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"affNIST was not found .*/1\.mat in .*test_batches\.zip"):
        load_affnist("test", tmp_path, origin="files")
    with pytest.raises(UsageError, match="32 batches"):
        load_affnist("test", tmp_path, origin="files", batches=33)
    path, _ = write(tmp_path, images=torch.zeros(5, 1, 28, 28, dtype=torch.uint8))
    with pytest.raises(UsageError, match="does not have the layout"):
        load_affnist("test", tmp_path, origin="files")
    write(tmp_path, labels=np.arange(4, dtype=np.uint8))
    with pytest.raises(UsageError, match=r"does not have the layout.*4 labels"):
        load_affnist("test", tmp_path, origin="files")
    write(tmp_path, images=torch.rand(5, 1, 40, 40))
    with pytest.raises(UsageError, match="does not have the layout of affNIST: float32"):
        load_affnist("test", tmp_path, origin="files")
    write(tmp_path, labels=np.array([0, 1, 2, 3, 10]))
    with pytest.raises(UsageError, match="not digits: 0 to 10"):
        load_affnist("test", tmp_path, origin="files")
    write(tmp_path, labels=np.array([0, 1, 2, 3, 3.5]))
    with pytest.raises(UsageError, match="not digits"):
        load_affnist("test", tmp_path, origin="files")
    write(tmp_path, images=torch.zeros(0, 1, 40, 40, dtype=torch.uint8), labels=np.zeros(0, np.uint8))
    with pytest.raises(UsageError, match="does not have the layout"):
        load_affnist("test", tmp_path, origin="files")
    with pytest.raises(UsageError, match="not 'validation'"):
        load_affnist("validation", tmp_path, origin="files")
    write(tmp_path, key="digits")
    with pytest.raises(UsageError, match="not a file of affNIST"):
        load_affnist("test", tmp_path, origin="files")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"1\.mat is damaged"):
        load_affnist("test", tmp_path, origin="files")
