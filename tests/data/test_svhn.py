import hashlib
import sys

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pyzoo.data import svhn
from pyzoo.data.multimodal import load_pairs
from pyzoo.data.svhn import load_svhn
from pyzoo.errors import UsageError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("PYZOO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(folder, monkeypatch, split="train", labels=(10, 1, 2, 9), images=None):
    """A file in SVHN's format, whose sum is taken for the official one."""
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8) if images is None else images
    path = folder / f"{split}_32x32.mat"
    savemat(path, {"X": images, "y": np.array(labels, dtype=np.uint8)[:, None]})
    monkeypatch.setitem(svhn._FILES, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    return images


def test_images_and_labels(folder, monkeypatch):
    written = write(folder, monkeypatch)
    images, labels = load_svhn("train", folder)
    assert images.shape == (4, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.tolist() == [0, 1, 2, 9]  # ten stands for zero
    for index in range(4):
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), written[..., index])


def test_damage_is_named(folder, monkeypatch):
    write(folder, monkeypatch)
    path = folder / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UsageError, match=r"train_32x32\.mat is damaged: its MD5"):
        load_svhn("train", folder)


@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (32, 32, 3, 5)])
def test_another_layout(folder, monkeypatch, shape):
    write(folder, monkeypatch, images=np.zeros(shape, np.uint8))
    with pytest.raises(UsageError, match="does not have the layout of SVHN"):
        load_svhn("train", folder)


def test_a_file_that_is_not_matlab(folder, monkeypatch):
    path = folder / "test_32x32.mat"
    path.write_bytes(b"nothing of the kind")
    monkeypatch.setitem(svhn._FILES, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    with pytest.raises(UsageError, match=r"test_32x32\.mat is not a file of SVHN"):
        load_svhn("test", folder)


def test_a_missing_file_says_what_to_do(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    message = (
        r"SVHN was not found \(looked for train_32x32\.mat in .*or use --data mnist-numbers, whose house numbers are rendered"
    )
    with pytest.raises(UsageError, match=message):
        load_svhn("train", folder)
    with pytest.raises(ValueError, match="got 'extra'"):
        load_svhn("extra", folder)


def test_sums_are_torchvisions():
    datasets = pytest.importorskip("torchvision.datasets", exc_type=(ImportError, RuntimeError))
    known = {name: md5 for _, name, md5 in datasets.SVHN.split_list.values()}
    assert svhn._FILES.items() <= known.items()


def test_pairs(folder, monkeypatch):
    """MNIST's digits with photographs: the small files stand for the whole."""
    digits = load_pairs("digits-label", "test")
    monkeypatch.setattr("pyzoo.data.multimodal.load_images", lambda *where: (digits.images, digits.labels))
    labels = [10, *range(1, 10)] * 2
    write(folder, monkeypatch, labels=labels)
    images, classes = load_svhn("train", folder)
    pairs = load_pairs("mnist-svhn", "train", folder)
    drawn = (255 * pairs.views(slice(0, 50), torch.Generator().manual_seed(0))["number"]).round().to(torch.uint8)
    which = (drawn.flatten(1).unsqueeze(1) == images.flatten(1)).all(-1).long().argmax(1)
    assert torch.equal(classes[which], digits.labels[:50])
