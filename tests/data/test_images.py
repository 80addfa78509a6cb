import gzip
import hashlib
import os
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pyzoo.data import images as module
from pyzoo.data.images import IMAGE_SETS, ImageSource, binarized, load_image_data, load_images
from pyzoo.errors import UsageError
from pyzoo.settings import flat
from pyzoo.training import find_recipe
from tiny import COLORS, GRAPH, MIB, SINES, TVAE


def pictures(count=10, channels=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 4, 4), dtype=torch.uint8, generator=generator)


# Batches --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binarize", ["dynamic", "fixed", "no"])
def test_a_batch_is_a_function_of_seed_and_step(binarize):
    first, second = (ImageSource(pictures(), binarize, seed=3) for _ in range(2))
    for step in (7, 0, 2, 7):
        assert torch.equal(first.batch(step, 4)["x"], second.batch(step, 4)["x"])
    assert not torch.equal(first.batch(0, 4)["x"], ImageSource(pictures(), binarize, seed=4).batch(0, 4)["x"])


def test_an_epoch_shows_each_image_once():
    source = ImageSource(torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1), "no")
    seen = [[round(255 * value) for value in source.batch(step, 4)["x"].flatten().tolist()] for step in range(6)]
    for epoch in (seen[:3], seen[3:]):
        assert sorted(value for batch in epoch for value in batch) == list(range(12))
    assert seen[:3] != seen[3:]


def test_binarized_pixels_are_zeros_and_ones_with_their_brightness_as_mean():
    image = torch.tensor([0, 51, 204, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    drawn = binarized(image.expand(20_000, -1, -1, -1), seed=0)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(0), image[0] / 255, atol=0.015, rtol=0)
    assert drawn.mean(0).flatten()[0] == 0
    assert drawn.mean(0).flatten()[3] == 1


def test_dynamic_and_fixed_binarization():
    dynamic, fixed = (ImageSource(pictures(4), binarize) for binarize in ("dynamic", "fixed"))
    kept = fixed.images.flatten(1).tolist()
    for step in range(3):
        assert sorted(fixed.batch(step, 4)["x"].flatten(1).int().tolist()) == sorted(kept)
    assert not torch.equal(*(dynamic.batch(step, 4)["x"].sum(0) for step in (0, 1)))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ImageSource(torch.zeros(3, 1, 4, 4)), ValueError, "uint8"),
        (lambda: ImageSource(torch.zeros(3, 4, 4, dtype=torch.uint8)), ValueError, r"\(3, 4, 4\)"),
        (lambda: ImageSource(pictures(), "sometimes"), ValueError, "'sometimes'"),
        (lambda: ImageSource(pictures()).batch(0, 11), UsageError, "--batch-size 11 is more than the 10 examples"),
        (lambda: load_images("cats", "train"), UsageError, "'cats'.*digits"),
        (lambda: load_images("digits", "both"), ValueError, "'both'"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No file is anywhere, and nothing can be downloaded."""
    (tmp_path / "data").mkdir()
    monkeypatch.delenv("PYZOO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*arguments, **options):
        raise OSError("no network")

    names = ("MNIST", "FashionMNIST", "Omniglot", "CIFAR10")
    monkeypatch.setitem(
        sys.modules, "torchvision", types.SimpleNamespace(datasets=types.SimpleNamespace(**dict.fromkeys(names, refuse)))
    )
    return tmp_path


def write_mnist(folder, monkeypatch, kind="MNIST", damage=False):
    """A tiny set in MNIST's format, whose sums are then the official ones."""
    images, labels = pictures(5), torch.arange(5, dtype=torch.uint8)
    images = torch.nn.functional.pad(images, (12, 12, 12, 12))
    raw = folder / kind / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        for name, content in ((f"{split}-images-idx3-ubyte.gz", images), (f"{split}-labels-idx1-ubyte.gz", labels)):
            header = bytes(16 if "images" in name else 8)
            packed = gzip.compress(header + content.numpy().tobytes())
            monkeypatch.setitem(module._MNIST_FILES, (kind, name), hashlib.md5(packed).hexdigest())
            (raw / name).write_bytes(packed[:-1] + b"?" if damage else packed)
    return images, labels.long()


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
@pytest.mark.parametrize("place", ["folder", "environment", "cache"])
def test_mnist_is_found_in_each_place(nowhere, monkeypatch, name, kind, place):
    root = nowhere / "cache" / "pyzoo" if place == "cache" else nowhere / "data"
    expected = write_mnist(root, monkeypatch, kind)
    if place == "environment":
        monkeypatch.setenv("PYZOO_DATA", str(root))
    found = load_images(name, "test", root if place == "folder" else None)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_wrong_checksum_names_the_file(nowhere, monkeypatch):
    write_mnist(nowhere / "data", monkeypatch, damage=True)
    with pytest.raises(UsageError, match=r"train-images-idx3-ubyte.gz is damaged.*MD5"):
        load_images("mnist", "train", nowhere / "data")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte.gz"),
        ("fashion-mnist", "FashionMNIST/raw/train-images-idx3-ubyte.gz"),
        ("omniglot", "omniglot-py/images_background"),
        ("cifar10", "cifar-10-batches-py"),
    ],
)
def test_a_missing_file_says_where_to_put_it_and_what_stands_in(nowhere, name, file):
    with pytest.raises(UsageError) as caught:
        load_images(name, "train", nowhere / "data")
    message = str(caught.value)
    assert "\n" not in message
    kind = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "omniglot": "Omniglot", "cifar10": "CIFAR-10"}[name]
    places = f"{nowhere / 'data'}, {nowhere / 'cache' / 'pyzoo'}"
    assert message == (
        f"{kind} was not found (looked for {file} in {places}) and could not be downloaded (no network). Copy it to one of these "
        "folders, name another one with --data-dir, or train on digits, which need none (--data digits)."
    )


def test_without_torchvision_the_message_says_so(nowhere, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    message = r"MNIST was not found \(.*\) and could not be downloaded \(torchvision cannot be imported: "
    with pytest.raises(UsageError, match=message):
        load_images("mnist", "train")


def test_what_is_downloaded_is_read(nowhere, monkeypatch):
    def download(root, download):
        assert download
        write_mnist(Path(root), monkeypatch)

    monkeypatch.setattr(sys.modules["torchvision"].datasets, "MNIST", download)
    images, labels = load_images("mnist", "train")
    assert len(images) == len(labels) == 5


def test_omniglot_drawings_become_small_and_white_on_black(nowhere, monkeypatch):
    from PIL import Image

    ink = np.zeros((105, 105), bool)
    ink[:15, :30] = True  # 4 x 8 of the small pixels
    for alphabet, group in (("Latin", "background"), ("Aurek", "evaluation")):
        for drawer in (3, 17):
            path = nowhere / "data" / "omniglot-py" / f"images_{group}" / alphabet / "character01" / f"0001_{drawer:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(~ink).save(path)
    monkeypatch.setattr(module, "_DRAWINGS", {"train": 2, "test": 2})
    images, labels = load_images("omniglot", "train", nowhere / "data")
    assert labels.tolist() == [1, 1]
    expected = torch.zeros(28, 28, dtype=torch.uint8)
    expected[:4, :8] = 255
    assert torch.equal(images[0, 0], expected)
    data = load_image_data("omniglot-drawers", nowhere / "data")  # each of two characters by the third drawer, and the 17th
    assert data.classes == ("Aurek/character01", "Latin/character01")
    assert sorted(data.train_labels.tolist()) == sorted(data.test_labels.tolist()) == [0, 1]
    monkeypatch.setitem(module._DRAWINGS, "train", 3)
    with pytest.raises(UsageError, match="has 2 drawings and should have 3"):
        load_images("omniglot", "train", nowhere / "data")


def test_omniglot_array_with_a_wrong_checksum(nowhere):
    path = nowhere / "data" / "omniglot-py" / "omniglot_28x28.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not it")
    with pytest.raises(UsageError, match=r"omniglot_28x28.npz is damaged"):
        load_images("omniglot", "train", nowhere / "data")


def test_cifar10_is_read_by_torchvision(nowhere, monkeypatch):
    (nowhere / "data" / "cifar-10-batches-py").mkdir(parents=True)
    pixels = pictures(3, channels=3).permute(0, 2, 3, 1).numpy()
    monkeypatch.setattr(
        sys.modules["torchvision"].datasets, "CIFAR10", lambda root, train: types.SimpleNamespace(data=pixels, targets=[4, 1, 0])
    )
    images, labels = load_images("cifar10", "train", nowhere / "data")
    assert torch.equal(images, pictures(3, channels=3))
    assert labels.tolist() == [4, 1, 0]

    def corrupted(root, train):
        raise RuntimeError("Dataset not found or corrupted.")

    monkeypatch.setattr(sys.modules["torchvision"].datasets, "CIFAR10", corrupted)
    with pytest.raises(UsageError, match=r"cifar-10-batches-py is damaged or incomplete: Dataset not found"):
        load_images("cifar10", "train", nowhere / "data")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UsageError, match="torchvision cannot be imported"):
        load_images("cifar10", "train", nowhere / "data")


def test_a_folder_that_is_not_there(nowhere):
    with pytest.raises(UsageError, match=r"--data-dir .*/typo: there is no such folder"):
        load_images("mnist", "train", nowhere / "typo")


def test_torchvision_itself_knows_these_sets():
    torchvision = pytest.importorskip("torchvision")
    for kind in ("MNIST", "FashionMNIST"):
        known = dict(getattr(torchvision.datasets, kind).resources)
        assert known == {name: md5 for (of, name), md5 in module._MNIST_FILES.items() if of == kind}
    assert callable(torchvision.datasets.Omniglot)
    assert callable(torchvision.datasets.CIFAR10)


def test_digits_need_no_file(nowhere):
    sets = {split: load_images("digits", split) for split in ("train", "test")}
    for split, (images, labels) in sets.items():
        assert images.shape == (getattr(IMAGE_SETS["digits"], split), 1, 28, 28)
        assert images.dtype == torch.uint8
        assert labels.bincount().tolist()[9] > 0
        assert images.float().mean() > 40
    assert torch.equal(sets["test"][0], load_images("digits", "test")[0])


@pytest.mark.skipif("PYZOO_DATA" not in os.environ, reason="no real files: PYZOO_DATA is not set")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "omniglot", "omniglot-drawers"])
def test_real_files(name):
    known = IMAGE_SETS[name]
    for split in ("train", "test"):
        images, labels = load_images(name, split)
        assert images.shape == (getattr(known, split), *known.shape)
        assert len(labels) == len(images)
        assert images.max() == 255
    if name == "mnist":
        assert images.float().mean().item() == pytest.approx(33.7912, abs=1e-4)
        assert labels[:5].tolist() == [7, 2, 1, 0, 4]


@pytest.mark.skipif("PYZOO_DATA" not in os.environ, reason="no real files: PYZOO_DATA is not set")
def test_omniglot_from_its_drawings_is_that_of_the_array(tmp_path):
    archive = Path(os.environ["PYZOO_DATA"]) / "omniglot-py" / "images_evaluation.zip"
    if not archive.exists():
        pytest.skip("no archive of drawings")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "omniglot-py")
    drawn = module._read_drawings(tmp_path / "omniglot-py" / "images_evaluation", module._DRAWINGS["test"])
    array = module._read_omniglot("test", None)
    rows = [  # the orders differ
        sorted(zip(each.characters, each.drawers.tolist(), map(bytes, each.images.flatten(1).numpy()), strict=True))
        for each in (drawn, array)
    ]
    assert rows[0] == rows[1]


@pytest.mark.skipif("PYZOO_DATA" not in os.environ, reason="no real files: PYZOO_DATA is not set")
def test_real_data():
    data = load_image_data("omniglot")
    assert len(data.classes) == 1623
    assert data.classes[0] == "Alphabet_of_the_Magi/character01"
    assert data.train_labels.bincount(minlength=1623).tolist() == [
        20 * (count == 0) for count in data.test_labels.bincount(minlength=1623).tolist()
    ]
    by_drawer = load_image_data("omniglot-drawers")
    assert by_drawer.classes == data.classes
    assert by_drawer.train_labels.bincount().tolist() == [15] * 1623
    assert by_drawer.test_labels.bincount().tolist() == [5] * 1623
    both = [torch.cat([each.train, each.test]).flatten(1).numpy() for each in (data, by_drawer)]
    assert sorted(map(bytes, both[0])) == sorted(map(bytes, both[1]))
    data = load_image_data("fashion-mnist", image_size=32)
    assert data.shape == (1, 32, 32)
    assert torch.equal(data.test_labels, load_images("fashion-mnist", "test")[1])
    assert data.classes[9] == "Ankle boot"
    subset = Path(os.environ["PYZOO_DATA"]) / "cifar10-subset" / "cifar10_lossless_5k.npz"
    if subset.exists():
        data = load_image_data(subset)
        assert (data.shape, len(data.train), len(data.test), data.classes[0]) == ((3, 32, 32), 4000, 1000, "airplane")


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", ["graph-vae", "tvae", "tvae-vae-plus", "mib-multimodal", "compvae-sines", "compvae-colors"])
def test_recipes_train_in_torchs_default_type(double, name):
    kind = find_recipe(name)
    tiny = {**SINES, **COLORS, **GRAPH, **TVAE, **MIB, "data": "digits", "batch_size": 16, "steps": 1}
    if name == "compvae-sines":
        tiny |= {"decoder_width": 40, "encoder_width": 40}
    recipe = kind.preset(**{field: value for field, value in tiny.items() if field in flat(kind())})
    pair = recipe.programs()
    [objective, *_] = recipe.objectives(pair)
    batch = recipe.source(torch.device("cpu")).batch(0, 16)
    assert {value.dtype for value in batch.values() if value.is_floating_point()} == {torch.float64}
    loss, _ = objective.module(**batch)
    assert loss.dtype == torch.float64
    loss.backward()
