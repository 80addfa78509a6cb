"""Images of the user's own, and sets of torchvision, in all their forms; and what is said of bad ones."""

import random
import re
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyzoo.data.files import FILE_TYPES, IMAGE_TYPES, ImageData
from pyzoo.data.images import ImageSource, image_data, load_image_data, write_npz
from pyzoo.errors import UsageError


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def numbered(folder, counts=(("cat", 6), ("dog", 4)), shape=(5, 4)):
    """A folder of classes; the images of class c are of one gray, 20 c + their number."""
    for index, (name, count) in enumerate(counts):
        for number in range(count):
            save(folder / name / f"{number}.png", np.full(shape, 20 * index + number, np.uint8))
    return folder


def values(images):
    return images[:, 0, 0, 0].tolist()


def error(data, **options):
    """The one line that is said of bad images."""
    with pytest.raises(UsageError) as caught:
        load_image_data(data, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def refusal(data):
    """What is said of images, or nothing if they are read."""
    try:
        load_image_data(data)
    except UsageError as error:
        return str(error)
    return ""


def same(first, second):
    assert (first.name, first.classes, first.note, first.shape) == (second.name, second.classes, second.note, second.shape)
    for part in ("train", "test", "train_labels", "test_labels"):
        one, other = getattr(first, part), getattr(second, part)
        assert (one is None and other is None) or (one.dtype == other.dtype and torch.equal(one, other)), part


# Tensors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((10, 8, 6), (1, 8, 6)),
        ((10, 1, 8, 6), (1, 8, 6)),
        ((10, 3, 8, 6), (3, 8, 6)),
        ((10, 4, 8, 6), (3, 8, 6)),
        ((10, 8, 6, 1), (1, 8, 6)),
        ((10, 8, 6, 3), (3, 8, 6)),
        ((10, 8, 6, 4), (3, 8, 6)),
        ((10, 3, 8, 3), (3, 8, 3)),  # channels come first where both are possible
        ((10, 4, 8, 3), (3, 4, 8)),  # but three of them before four
        ((10, 8, 3), (1, 8, 3)),
    ],
)
def test_layouts_of_tensors(shape, expected):
    data = image_data(torch.from_numpy(pixels(*shape)))
    assert data.shape == expected
    assert data.train.dtype == data.test.dtype == torch.uint8
    assert data.train.is_contiguous()
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.train_labels is data.test_labels is None
    assert data.classes == ()


def test_pixels_survive_each_layout():
    images = torch.from_numpy(pixels(10, 3, 5, 7))
    expected = image_data(images)
    for same_images in (images.permute(0, 2, 3, 1), images / 255, (images / 255).double(), images.long(), images.to(torch.int16)):
        data = image_data(same_images)
        assert torch.equal(data.train, expected.train)
        assert torch.equal(data.test, expected.test)
    every = torch.cat([expected.train, expected.test])
    assert sorted(map(bytes, every.flatten(1).numpy())) == sorted(map(bytes, images.flatten(1).numpy()))


def test_pixels_of_every_type():
    grays = torch.tensor([0.0, 0.2, 0.5, 1.0])
    for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        data = image_data(grays.to(kind).view(4, 1, 1))
        expected = {round(255 * value) for value in grays.to(kind).double().tolist()}
        assert {*values(data.train), *values(data.test)} == expected
        assert "rounded to 256 levels" in data.note
    for binary in (torch.tensor([False, True, True, False]), torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 1, 0]).byte()):
        data = image_data(binary.view(4, 1, 1))
        assert sorted(values(data.train) + values(data.test)) == [0, 0, 255, 255]
    assert image_data(torch.zeros(4, 2, 2).byte()).train.max() == 0
    assert values(image_data(torch.full((4, 1, 1), 1 + 1e-7, dtype=torch.float64)).train) == [255] * 3
    requires_grad = torch.rand(4, 2, 2, requires_grad=True)
    assert image_data(requires_grad).shape == (1, 2, 2)


def test_the_users_tensor_is_not_touched():
    images = torch.from_numpy(pixels(4, 3, 3))
    kept = images.clone()
    data = image_data(images)
    data.train.zero_()
    data.test.zero_()
    assert torch.equal(images, kept)


def test_alpha_is_composited_on_black():
    images = torch.tensor([200, 100, 50, 255, 200, 100, 51, 128], dtype=torch.uint8).view(2, 1, 1, 4).expand(2, 2, 2, 4)
    data = image_data(images)
    found = {tuple(image[:, 0, 0].tolist()) for image in (*data.train, *data.test)}
    assert found == {(200, 100, 50), (100, 50, 26)}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((4, 2, 2), 2.0), "pixels from 2 to 2; floats must lie between 0 and 1"),
        (torch.linspace(-1, 1, 16).view(4, 2, 2), "from -1 to 1"),
        (torch.full((4, 2, 2), 300), "from 300 to 300; integers must lie between 0 and 255"),
        (torch.full((4, 2, 2), -1), "from -1 to -1"),
        (torch.tensor([0.0, float("nan")]).view(2, 1, 1), "not a number"),
        (torch.tensor([0.0, float("inf")]).view(2, 1, 1), "from 0 to inf"),
        (torch.zeros(4, 2, 2, dtype=torch.complex64), "complex64, which are not pixels"),
        (torch.zeros(0, 2, 2), r"empty: its shape is \(0, 2, 2\)"),
        (torch.zeros(4, 0, 2), r"empty: its shape is \(4, 0, 2\)"),
        (torch.zeros(4, 784), r"shape \(4, 784\); images are"),
        (torch.zeros(4, 2, 5, 5), r"shape \(4, 2, 5, 5\)"),
        (torch.zeros(2, 2, 1, 5, 5), "images are"),
        (torch.zeros(1, 5, 5), "a single image"),
        (np.array(["a", "b"]), "not pixels"),
    ],
)
def test_bad_tensors(images, message):
    with pytest.raises(UsageError, match=message) as caught:
        image_data(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_bad_shares(share):
    with pytest.raises(UsageError, match="--test-share must be above 0 and below 1"):
        image_data(torch.zeros(4, 2, 2), test_share=share)
    assert "--test-share" in error("digits", test_share=share)


@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_bad_sizes(size):
    with pytest.raises(UsageError, match="--image-size must be a whole number from 1 to 16,384"):
        image_data(torch.zeros(4, 2, 2), image_size=size)
    assert "--image-size" in error("digits", image_size=size)


# Labels and splits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes", "mapped"),
    [
        ([0, 1, 2, 0], ("0", "1", "2"), [0, 1, 2, 0]),
        ([5, 7, 5, -1], ("-1", "5", "7"), [1, 2, 1, 0]),
        ([10, 9, 10, 9], ("9", "10"), [1, 0, 1, 0]),
        ([True, False, True, True], ("0", "1"), [1, 0, 1, 1]),
        ([1.0, 3.0, 1.0, 3.0], ("1", "3"), [0, 1, 0, 1]),
        (["b", "a", "b", "c"], ("a", "b", "c"), [1, 0, 1, 2]),
        ([b"b", b"a", b"b", b"b"], ("a", "b"), [1, 0, 1, 1]),
        ([[3], [4], [3], [4]], ("3", "4"), [0, 1, 0, 1]),
    ],
)
def test_labels(labels, classes, mapped):
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1)
    data = image_data(images, np.array(labels))
    assert data.classes == classes
    found = dict(
        zip(values(data.train) + values(data.test), [*data.train_labels.tolist(), *data.test_labels.tolist()], strict=True)
    )
    assert found == dict(enumerate(mapped))
    assert data.train_labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(3), r"'labels' has the shape \(3,\); labels of 4 images have the shape \(4,\)"),
        (torch.zeros(4, 3), r"shape \(4, 3\)"),
        (torch.tensor([0.5, 1, 2, 3]), "integers or strings"),
        (torch.tensor([0, 1, float("nan"), 3]), "integers or strings"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(UsageError, match=message):
        image_data(torch.zeros(4, 2, 2), labels)


@pytest.mark.parametrize(("count", "share", "tested"), [(10, 0.2, 2), (10, 0.5, 5), (2, 0.01, 1), (2, 0.99, 1), (100, 0.001, 1)])
def test_the_split_is_fixed_and_shuffled(count, share, tested):
    images = 100 + torch.arange(count, dtype=torch.uint8).view(-1, 1, 1)
    data, again = (image_data(images, images.flatten() - 100, test_share=share) for _ in range(2))
    same(data, again)
    assert len(data.test) == tested
    assert sorted(values(data.train) + values(data.test)) == list(range(100, 100 + count))
    assert values(data.train) == (100 + data.train_labels).tolist()
    assert values(data.test) == (100 + data.test_labels).tolist()
    if count == 100:
        assert values(data.train) != sorted(values(data.train))  # so that the last ones are of all classes


def test_holding_out():
    data = image_data(torch.rand(10, 4, 4), torch.arange(10) % 2)
    rest, images, labels = data.hold_out(3)
    assert torch.equal(torch.cat([rest.train, images]), data.train)
    assert torch.equal(torch.cat([rest.train_labels, labels]), data.train_labels)
    assert torch.equal(rest.test, data.test)
    assert len(images) == 3
    assert rest.note.endswith("The last 3 training images are held out.")
    assert image_data(torch.rand(10, 4, 4)).hold_out(1)[2] is None
    for count in (0, -1, 8, 9):
        with pytest.raises(UsageError, match=f"cannot hold out {count} of the 8 training images of images"):
            data.hold_out(count)


def test_data_are_checked_when_made():
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    for change, message in [
        ({"train": images / 255}, "uint8"),
        ({"test": images[0]}, "uint8 and"),
        ({"test": images[..., :3]}, "differ in shape"),
        ({"train_labels": torch.arange(2)}, r"must be \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            ImageData(**{"name": "x", "train": images, "test": images, **change})


def test_resizing_cuts_the_middle():
    images = torch.zeros(4, 1, 8, 16, dtype=torch.uint8)
    images[..., 4:12] = 200  # the central square
    data = image_data(images, image_size=4)
    assert data.shape == (1, 4, 4)
    assert (data.train == 200).all()
    assert data.note.endswith("Resized to 4x4.")
    assert "Resized" not in image_data(images[..., :8], image_size=8).note
    large = image_data(images, image_size=24)
    assert large.shape == (1, 24, 24)
    checkers = ((torch.arange(16).view(-1, 1) + torch.arange(16)) % 2 * 200).byte().expand(4, 16, 16)
    assert (image_data(checkers, image_size=4).train.float() - 100).abs().max() <= 26  # antialiased


# Folders --------------------------------------------------------------------------------------------------------------


def test_a_folder_of_classes(tmp_path):
    data = load_image_data(numbered(tmp_path / "pets"))
    assert (data.name, data.shape, data.classes) == ("pets", (1, 5, 4), ("cat", "dog"))
    assert (len(data.train), len(data.test)) == (8, 2)
    for images, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        assert [value // 20 for value in values(images)] == labels.tolist()
    assert data.note == f"Images from {tmp_path / 'pets'}: 8 to train on, 2 to test on."
    same(data, load_image_data(str(tmp_path / "pets")))
    assert ImageSource(data.train).batch(0, 8)["x"].shape == (8, 1, 5, 4)


def test_a_flat_folder_has_no_labels(tmp_path, monkeypatch):
    for number in range(5):
        save(tmp_path / "mine" / f"{number}.png", np.full((3, 3), number, np.uint8))
    data = load_image_data(tmp_path / "mine", test_share=0.4)
    assert (len(data.train), len(data.test), data.classes, data.train_labels) == (3, 2, (), None)
    monkeypatch.chdir(tmp_path / "mine")
    assert load_image_data(".").name == "mine"


def test_folders_of_splits(tmp_path):
    numbered(tmp_path / "train", [("cat", 15), ("dog", 15)])
    numbered(tmp_path / "test", [("cat", 2), ("emu", 3)])
    save(tmp_path / "val" / "other.png", pixels(9, 9))
    data = load_image_data(tmp_path, test_share=0.9)
    assert (len(data.train), len(data.test), data.classes) == (30, 5, ("cat", "dog", "emu"))
    assert sorted(values(data.test)) == [0, 1, 20, 21, 22]
    assert data.test_labels.bincount().tolist() == [2, 0, 3]
    assert [value // 20 for value in values(data.train)] == data.train_labels.tolist()
    assert 0 < data.hold_out(10)[2].sum() < 10  # both classes are held out
    same(data, load_image_data(tmp_path))


def test_flat_folders_of_splits(tmp_path):
    for split, count in (("Train", 4), ("Test", 1)):
        for number in range(count):
            save(tmp_path / split / f"{number}.png", pixels(3, 3))
    data = load_image_data(tmp_path)
    assert (len(data.train), len(data.test), data.train_labels, data.test_labels) == (4, 1, None, None)


def test_other_files_are_skipped(tmp_path):
    numbered(tmp_path)
    for path in ("README.md", ".DS_Store", "cat/labels.csv", "cat/.hidden.png", ".cache/x.png", "cat/.thumbnails/1.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"not an image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat" / "folder.png").mkdir()
    save(tmp_path / "dog" / "deeper" / "still" / "9.PNG", np.full((5, 4), 29, np.uint8))
    data = load_image_data(tmp_path)
    assert data.classes == ("cat", "dog")
    every = dict(
        zip(values(data.train) + values(data.test), torch.cat([data.train_labels, data.test_labels]).tolist(), strict=True)
    )
    assert len(every) == 11
    assert every[29] == 1


@pytest.mark.parametrize("ending", IMAGE_TYPES)
def test_every_type_of_image_file(tmp_path, ending):
    for number in range(3):
        save(tmp_path / f"{number}{ending.upper() if number else ending}", np.full((6, 4), 100 + number, np.uint8))
    data = load_image_data(tmp_path)
    assert data.shape == (1, 6, 4)
    assert sorted(values(data.train) + values(data.test)) == [100, 101, 102]


def folder_of_one_kind(folder, image, **options):
    for number in range(2):
        image.save(folder / f"{number}.png", **options)
    data = load_image_data(folder)
    assert torch.equal(data.train, data.test)
    return data.train[0]


def test_modes_of_image_files(tmp_path):
    gray, color = pixels(6, 6), pixels(6, 6, 3)

    def read(image, **options):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return folder_of_one_kind(folder, image, **options)

    assert np.array_equal(read(Image.fromarray(gray))[0], gray)
    assert np.array_equal(read(Image.fromarray(color)).permute(1, 2, 0), color)
    assert np.array_equal(read(Image.fromarray(gray).convert("RGB"))[0], gray)  # of no color, so of one channel
    assert read(Image.fromarray(gray).convert("RGB")).shape == (1, 6, 6)
    assert np.array_equal(read(Image.fromarray(gray > 99))[0], 255 * (gray > 99))
    assert np.array_equal(read(Image.fromarray(gray.astype(np.uint16) * 257))[0], gray)  # 16 bits
    palette = Image.fromarray(color).quantize(8)
    assert np.array_equal(read(palette).permute(1, 2, 0), np.asarray(palette.convert("RGB")))
    alpha = np.dstack([color, np.full((6, 6), 255, np.uint8)])
    alpha[:3, :, 3] = 0
    found = read(Image.fromarray(alpha)).permute(1, 2, 0).numpy()
    assert np.array_equal(found, np.where(alpha[..., 3:] == 255, color, 0))
    found = read(Image.fromarray(np.dstack([gray, alpha[..., 3]]), mode=None))
    assert np.array_equal(found[0], np.where(alpha[..., 3] == 255, gray, 0))
    assert found.shape == (1, 6, 6)
    transparent = read(Image.fromarray(np.full((6, 6), 7, np.uint8)), transparency=7)
    assert transparent.max() == 0


def test_one_image_with_color_makes_all_have_three_channels(tmp_path):
    save(tmp_path / "train" / "a.png", pixels(4, 4))
    save(tmp_path / "train" / "b.png", pixels(4, 4))
    save(tmp_path / "test" / "c.png", pixels(4, 4, 3))
    data = load_image_data(tmp_path)
    assert data.shape == (3, 4, 4)
    assert np.array_equal(data.train[0, 2], pixels(4, 4))


def test_photographs_are_turned_as_the_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    for number in range(2):
        save(tmp_path / f"{number}.png", np.zeros((4, 6), np.uint8), exif=exif)
    assert load_image_data(tmp_path).shape == (1, 6, 4)


def test_mixed_sizes_need_a_size(tmp_path):
    save(tmp_path / "a" / "1.png", pixels(4, 6))
    save(tmp_path / "b" / "2.png", pixels(8, 5))
    message = error(tmp_path)
    assert message == (
        f"{tmp_path} has images of different sizes: a/1.png has 6x4 pixels and b/2.png 5x8; --image-size N makes them alike"
    )
    data = load_image_data(tmp_path, image_size=3)
    assert data.shape == (1, 3, 3)
    assert data.note.endswith("Resized to 3x3.")


def test_splits_of_different_sizes_need_a_size(tmp_path):
    for number in range(2):
        save(tmp_path / "train" / f"{number}.png", pixels(4, 4))
    save(tmp_path / "test" / "0.png", pixels(5, 7))
    assert "training images of 4x4 and test images of 7x5 pixels; --image-size N" in error(tmp_path)
    assert load_image_data(tmp_path, image_size=4).shape == (1, 4, 4)


def test_a_file_and_a_tensor_are_resized_alike(tmp_path):
    images = pixels(6, 9, 14, 3)
    for number, image in enumerate(images):
        save(tmp_path / f"{number}.png", image)
    same_pixels = image_data(torch.from_numpy(images), image_size=5)
    assert torch.equal(load_image_data(tmp_path, image_size=5).train, same_pixels.train)


def test_bad_folders(tmp_path):
    empty = tmp_path / "empty"
    (empty / "inside").mkdir(parents=True)
    (empty / "notes.txt").write_text("")
    assert error(empty).startswith(f"{empty} has no images: no file in it ends in .png, .jpg")
    save(empty / "1.png", pixels(3, 3))
    assert error(empty) == f"{empty} has a single image; training and testing need at least two"
    save(empty / "inside" / "2.png", pixels(3, 3))
    assert "has images beside its subfolders, such as 1.png" in error(empty)
    splits = tmp_path / "splits"
    save(splits / "train" / "1.png", pixels(3, 3))
    assert error(splits) == f"{splits} has a subfolder train and none that is named test: rename or add one"
    (splits / "test").mkdir()
    assert error(splits).startswith(f"{splits / 'test'} has no images")
    save(splits / "test" / "cat" / "1.png", pixels(3, 3))
    assert error(splits) == f"{splits / 'test'} has a subfolder for each class, and {splits / 'train'} has none"


@pytest.mark.parametrize("content", [b"", b"not an image", b"P5 0 0 255\n", b"P5 4 4 255\n1234"])
def test_files_that_are_not_images(tmp_path, content):
    numbered(tmp_path)
    (tmp_path / "cat" / "broken.pgm").write_bytes(content)
    assert error(tmp_path).startswith(f"{tmp_path / 'cat' / 'broken.pgm'} ")


def test_masks_of_zeros_and_ones(tmp_path):
    for split, most in (("train", 1), ("test", 0)):
        for number in range(2):
            save(tmp_path / split / f"{number}.png", np.array([[0, most]], np.uint8))
    data = load_image_data(tmp_path)
    assert set(data.train.unique().tolist()) == {0, 255}
    assert data.test.max() == 0


def test_masks_are_resized_alike_from_files_and_from_a_tensor(tmp_path):
    masks = (torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).to(torch.uint8)
    for number, mask in enumerate(masks):
        save(tmp_path / f"{number}.png", mask[0].numpy())
    found = load_image_data(tmp_path, image_size=4)
    expected = image_data(masks, image_size=4)
    for split in ("train", "test"):
        assert torch.equal(getattr(found, split), getattr(expected, split))
    save(tmp_path / "5.png", np.full((8, 8), 7, np.uint8))  # then the others are nearly black
    levels = torch.cat([*(getattr(load_image_data(tmp_path, image_size=4), split) for split in ("train", "test"))])
    assert set(levels.unique().tolist()) == {0, 1, 7}


def test_dark_floats_are_no_masks():
    assert image_data(torch.rand(4, 1, 8, 8) / 255).train.max() <= 1
    assert image_data(torch.ones(4, 1, 8, 8)).train.max() == 255


def test_dark_images_of_16_bits_are_no_masks(tmp_path):
    for number in range(4):
        Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 4 + number).save(tmp_path / f"{number}.png")
    assert load_image_data(tmp_path).train.max() == 1  # 255 of 65,535


def test_a_transparent_gray_of_16_bits_is_black(tmp_path):
    for number in range(2):
        values = np.array([[0, 30000], [60000, 65535]], dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}.png", transparency=60000)
    image = Image.open(tmp_path / "0.png")
    assert image.info.get("transparency") == 60000
    assert load_image_data(tmp_path).train.flatten().tolist() == [0, 117, 0, 255]


def test_other_members_of_an_archive_are_left_alone(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 3, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("README.txt", "about it")
    assert len(load_image_data(tmp_path / "a.npz").train) == 3


def test_views_of_tensors():
    images = torch.rand(5, 4, 4)
    assert torch.equal(image_data(torch._neg_view(-images)).train, image_data(images).train)


def test_float_images_are_refused(tmp_path):
    for number in range(2):
        save(tmp_path / f"{number}.tif", np.zeros((3, 3), np.float32))
    assert error(tmp_path) == f"{tmp_path / '0.tif'} cannot be read as an image: its pixels are floats"


# Files of arrays ------------------------------------------------------------------------------------------------------

IMAGES, LABELS = pixels(10, 5, 4), np.arange(10) % 3


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch.save({key: torch.from_numpy(value) for key, value in arrays.items()}, path)
    return path


@pytest.mark.parametrize("ending", [".npz", ".pt"])
@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "labels"),
        ("x", "y"),
        ("X", "Y"),
        ("arr_0", "arr_1"),
        ("faces", "who"),
        ("images", None),
        ("train_images", "train_labels"),
    ],
)
def test_one_array_of_images(tmp_path, ending, images, labels):
    path = write(tmp_path / f"mine{ending}", {images: IMAGES} | ({labels: LABELS} if labels else {}))
    data = load_image_data(path)
    expected = image_data(torch.from_numpy(IMAGES), torch.from_numpy(LABELS) if labels else None)
    assert torch.equal(data.train, expected.train)
    assert data.name == "mine"
    assert data.classes == (("0", "1", "2") if labels else ())
    assert data.note == f"Images from {path}: 8 to train on, 2 to test on."
    if labels:
        assert torch.equal(data.test_labels, expected.test_labels)


@pytest.mark.parametrize("ending", [".npz", ".pt"])
@pytest.mark.parametrize("names", ["train_images test_images train_labels test_labels", "x_train x_test y_train y_test"])
@pytest.mark.parametrize("labeled", [True, False])
def test_arrays_of_both_splits_keep_their_order(tmp_path, ending, names, labeled):
    arrays = dict(zip(names.split(), (IMAGES, IMAGES[:3], LABELS, LABELS[:3]), strict=True))
    data = load_image_data(write(tmp_path / f"mine{ending}", dict(list(arrays.items())[: 4 if labeled else 2])))
    assert np.array_equal(data.train[:, 0], IMAGES)
    assert np.array_equal(data.test[:, 0], IMAGES[:3])
    if labeled:
        assert data.train_labels.tolist() == LABELS.tolist()
        assert data.test_labels.tolist() == LABELS[:3].tolist()
    else:
        assert data.train_labels is data.test_labels is None


def test_a_single_array(tmp_path):
    expected = image_data(torch.from_numpy(IMAGES), name="mine")
    np.save(tmp_path / "mine.npy", IMAGES)
    torch.save(torch.from_numpy(IMAGES), tmp_path / "mine.pt")
    np.savez(tmp_path / "mine.npz", IMAGES)
    for ending in (".npy", ".pt", ".npz"):
        data = load_image_data(tmp_path / f"mine{ending}")
        assert torch.equal(data.train, expected.train)
        assert data.name == "mine"


def test_names_of_classes(tmp_path):
    names = np.array(["ant", "bee", "cat", "none"])
    for key in ("classes", "class_names"):
        np.savez(tmp_path / "a.npz", IMAGES, LABELS, **{key: names})
        assert load_image_data(tmp_path / "a.npz").classes == ("ant", "bee", "cat", "none")
    torch.save({"images": torch.from_numpy(IMAGES), "y": LABELS.tolist(), "classes": names.tolist()}, tmp_path / "a.pt")
    assert load_image_data(tmp_path / "a.pt").classes == ("ant", "bee", "cat", "none")
    np.savez(tmp_path / "a.npz", IMAGES, LABELS, classes=names[:2])
    assert "names 2 classes and has labels from 0 to 2" in error(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=names[LABELS])
    assert load_image_data(tmp_path / "a.npz").classes == ("ant", "bee", "cat")


def test_forms_of_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES / 255.0)
    assert "rounded" in load_image_data(tmp_path / "a.npz").note
    np.savez(tmp_path / "a.npz", train_images=IMAGES, test_images=np.stack([IMAGES] * 3, -1))
    assert load_image_data(tmp_path / "a.npz").shape == (3, 5, 4)
    np.savez(tmp_path / "a.npz", x_train=IMAGES, x_test=IMAGES[:, :4])
    assert "training images of 4x5 and test images of 4x4 pixels" in error(tmp_path / "a.npz")
    assert load_image_data(tmp_path / "a.npz", image_size=3).shape == (1, 3, 3)
    np.savez(tmp_path / "a.npz", images=IMAGES.astype(">u2"), labels=LABELS.astype(">i8"))
    assert torch.equal(load_image_data(tmp_path / "a.npz").train, image_data(torch.from_numpy(IMAGES)).train)


def test_bad_arrays(tmp_path):
    path = tmp_path / "bad.npz"

    def said(**arrays):
        np.savez(path, **arrays)
        message = error(path)
        assert message.startswith(str(path))
        assert "allow_pickle" not in message
        return message

    assert "has no array of images" in said(rows=np.zeros((4, 7)))
    assert "has no array of images, which has three or four axes (arrays: none)" in said()
    assert "several arrays that could be images, a, b" in said(a=IMAGES, b=IMAGES)
    assert "'labels' has the shape (9,); labels of 10 images" in said(images=IMAGES, labels=LABELS[:9])
    assert "'y_test' has the shape (10,)" in said(x_train=IMAGES, x_test=IMAGES[:2], y_train=LABELS, y_test=LABELS)
    assert "'images' holds no plain array" in said(images=np.array([IMAGES, None], dtype=object))
    assert "stuff holds no plain array" in said(stuff=np.array([IMAGES, None], dtype=object))
    assert "empty" in said(images=IMAGES[:0])
    assert "empty" in said(images=IMAGES[:, :0])
    assert "not a number" in said(images=np.full((4, 3, 3), np.nan))
    assert "integers and labels that are strings" in said(
        x_train=IMAGES, x_test=IMAGES, y_train=LABELS, y_test=LABELS.astype(str)
    )
    np.savez(path, images=IMAGES, extra=np.array([None, {}], dtype=object))  # which nobody needs
    assert load_image_data(path).shape == (1, 5, 4)
    path.write_bytes(b"no archive")
    assert "is damaged, or is not a file that numpy.savez wrote" in error(path)
    np.save(tmp_path / "bad.npy", np.array([None, {}], dtype=object))
    assert "holds pickled Python objects, which are not loaded" in error(tmp_path / "bad.npy")


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


def test_pickles_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"images": torch.zeros(4, 2, 2), "more": Harmful()}, "bad.pt")
    message = error("bad.pt")
    assert message.startswith("bad.pt cannot be read: it is damaged, or holds other Python objects than tensors")
    assert "weights_only" not in message
    assert not Path("harmed").exists()
    torch.save([torch.zeros(4, 2, 2)], "bad.pt")
    assert error("bad.pt") == "bad.pt holds a list, and not a tensor or a dict of tensors"
    torch.save({"numbers": torch.zeros(4), "more": {"deep": 1}}, "bad.pt")
    assert "has no array of images" in error("bad.pt")


def test_truncated_and_damaged_files_are_named(tmp_path):
    """Each file is cut or changed at random places: it is read, or one line names it."""
    chance = random.Random(0)
    paths = []
    for ending in (".png", ".jpg", ".bmp", ".gif", ".webp", ".ppm"):
        paths += [save(tmp_path / ending[1:] / f"a{ending}", pixels(12, 12, 3))]
        save(paths[-1].with_name("b.png"), pixels(12, 12, 3))
    paths += [write(tmp_path / f"a{ending}", {"images": IMAGES, "labels": LABELS}) for ending in (".npz", ".pt")]
    np.save(tmp_path / "a.npy", IMAGES)
    refused = 0
    for path in [*paths, tmp_path / "a.npy"]:
        whole = path.read_bytes()
        target = path if path.suffix in FILE_TYPES else path.parent
        for trial in range(30):
            content = bytearray(whole)
            if trial % 2:
                del content[chance.randrange(len(content)) :]
            else:
                content[chance.randrange(len(content))] = chance.randrange(256)
            path.write_bytes(content)
            message = refusal(target)
            if message:
                refused += 1
                assert str(target) in message
                assert "\n" not in message
    assert refused > 100


# Round trip -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        image_data(torch.from_numpy(IMAGES)),
        image_data(torch.from_numpy(IMAGES), torch.from_numpy(LABELS), name="from Python"),
        image_data(torch.rand(10, 3, 4, 3), np.array(["b", "a"] * 5), image_size=2),
        image_data(torch.rand(10, 4, 4) > 0.5, torch.arange(10)),
        image_data(torch.rand(9, 1, 3, 3), torch.arange(9) % 2).hold_out(2)[0],
        ImageData("dark", torch.ones(3, 1, 2, 2).byte(), torch.zeros(3, 1, 2, 2).byte()),
        ImageData(
            "half",
            torch.zeros(3, 3, 1, 3).byte(),
            torch.ones(2, 3, 1, 3).byte() * 9,
            torch.tensor([2, 0, 2]),
            None,
            ("x", "y", "z"),
        ),
    ],
    ids=["plain", "labels", "strings", "binary", "held out", "dark", "half"],
)
def test_what_is_written_is_read_back(tmp_path, data):
    path = tmp_path / "data.npz"
    write_npz(path, data)
    same(load_image_data(path), data)
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]
    resized = load_image_data(path, image_size=6)
    same(resized, data.resized(6))
    assert resized.note.endswith("Resized to 6x6.")


def test_writing_needs_the_right_ending(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        write_npz(tmp_path / "data.pt", image_data(torch.rand(4, 2, 2)))


# Names ----------------------------------------------------------------------------------------------------------------


def test_a_named_set():
    data = load_image_data("digits")
    assert (data.name, data.shape, len(data.train), len(data.test)) == ("digits", (1, 28, 28), 1437, 360)
    assert data.classes == tuple("0123456789")
    assert data.note == "scikit-learn's 8x8 digits enlarged, not MNIST."
    assert load_image_data("digits", image_size=16).shape == (1, 16, 16)
    assert load_image_data("digits", image_size=16).note.endswith("not MNIST. Resized to 16x16.")


def test_unknown_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forms = "--data takes mnist, fashion-mnist, omniglot, omniglot-drawers, cifar10, digits, torchvision:NAME, a folder of "
    forms += "images, or a file that ends"
    for data in ("cats", ""):
        assert error(data).startswith(f"there are no images '{data}': {forms}")
    for data in ("./cats", "cats.npz", "some/where", "~/nowhere-at-all", tmp_path / "cats", Path("digits")):
        assert error(data).startswith(f"there is no file or folder '{data}': {forms}")
    Path("digits").mkdir()
    assert load_image_data("digits").name == "digits"  # the name wins
    assert error(Path("digits")).startswith("digits has no images")
    save(tmp_path / "one.png", pixels(3, 3))
    assert error("one.png").startswith(f"one.png is a single image: {forms}")
    Path("images.zip").touch()
    assert error("images.zip").startswith(f"images.zip is not a file of a kind that can be read: {forms}")


# Sets of torchvision --------------------------------------------------------------------------------------------------


class Held:
    """A set in the manner of torchvision: arrays in a file, which a download makes."""

    classes = ("o", "ki", "su")
    count = 12

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        path = Path(root) / type(self).__name__ / "raw"
        if download:
            self.fetch(path)
        if not path.is_dir():
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        self.train = train
        count = self.count if train else 5
        self.data = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 4, 4).contiguous()
        self.targets = torch.arange(count) % 3

    def fetch(self, path):
        raise OSError("no network")

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return Image.fromarray(self.data[index].numpy()), int(self.targets[index])


class KMNIST(Held):
    pass


class Downloaded(Held):
    def fetch(self, path):
        path.mkdir(parents=True, exist_ok=True)


class EMNIST(Held):
    splits = ("balanced", "letters")
    classes = ("N/A", "o", "ki", "su")

    def __init__(self, root, split, **kwargs):
        super().__init__(root, **kwargs)
        self.targets = self.targets + 1  # no image of the first class
        assert split in self.splits


class BySplit(Held):
    """Images are made when they are asked for, and come sorted by class."""

    known = ("trainval", "test")

    def __init__(self, root, split="trainval", download=False):
        if split not in self.known:
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are {self.known}.")
        super().__init__(root, split != "test", download=download)
        self.shades, self.targets = self.data[:, 0, 0].tolist(), self.targets.sort().values
        del self.data

    def __len__(self):
        return len(self.shades)

    def __getitem__(self, index):
        size = (6, 4 + index % 2)
        return Image.new("RGB", size, (self.shades[index], 0, 0)), int(self.targets[index])


class Background(Held):
    def __init__(self, root, background=True, download=False):
        super().__init__(root, background)


class OneSplit(Held):
    def __init__(self, root, download=False):
        super().__init__(root)


class Attributes(BySplit):
    """Labels are not classes."""

    known = ("train", "valid")

    def __getitem__(self, index):
        return Image.new("L", (4, 4), self.shades[index]), torch.zeros(40)


class Videos(BySplit):
    def __getitem__(self, index):
        return torch.zeros(20, 1, 4, 4)


class Annotated(Held):
    def __init__(self, root, annotations, words):
        super().__init__(root)


class NoDownload(Held):
    def __init__(self, root, train=True):
        super().__init__(root, train)


class Damaged(Held):
    def __init__(self, root, train=True):
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")


KINDS = (KMNIST, Downloaded, EMNIST, BySplit, Background, OneSplit, Attributes, Videos, Annotated, NoDownload, Damaged)


@pytest.fixture
def torchvision_folder(tmp_path, monkeypatch):
    """A torchvision of our own, and a folder with the files of all its sets but Downloaded."""
    monkeypatch.delenv("PYZOO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    datasets = types.SimpleNamespace(**{kind.__name__: kind for kind in KINDS}, some_function=lambda: None)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=datasets))
    for kind in KINDS:
        if kind is not Downloaded:
            (tmp_path / "data" / kind.__name__ / "raw").mkdir(parents=True)
    return tmp_path / "data"


@pytest.mark.parametrize("name", ["KMNIST", "kmnist"])
@pytest.mark.parametrize("place", ["folder", "environment", "cache"])
def test_a_set_of_torchvision_is_found(torchvision_folder, monkeypatch, tmp_path, name, place):
    if place == "environment":
        monkeypatch.setenv("PYZOO_DATA", str(torchvision_folder))
    if place == "cache":
        (tmp_path / "cache").mkdir()
        torchvision_folder.rename(tmp_path / "cache" / "pyzoo")
    data = load_image_data(f"torchvision:{name}", torchvision_folder if place == "folder" else None)
    assert (data.name, data.shape, data.classes) == ("kmnist", (1, 4, 4), ("o", "ki", "su"))
    assert (sorted(values(data.train)), sorted(values(data.test))) == (list(range(12)), list(range(5)))
    assert [value % 3 for value in values(data.train)] == data.train_labels.tolist()
    assert data.note == f"Images from torchvision:{name}: 12 to train on, 5 to test on."
    assert load_image_data("torchvision:KMNIST", torchvision_folder if place == "folder" else None, image_size=3).shape == (
        1,
        3,
        3,
    )


def test_a_set_of_torchvision_is_downloaded_into_the_cache(torchvision_folder, tmp_path):
    data = load_image_data("torchvision:Downloaded", torchvision_folder)
    assert len(data.train) == 12
    assert (tmp_path / "cache" / "pyzoo" / "Downloaded").is_dir()
    assert not (torchvision_folder / "Downloaded").exists()


def test_what_torchvision_cannot_find_or_download(torchvision_folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "pyzoo"
    assert error("torchvision:KMNIST") == (
        f"KMNIST was not found (torchvision looked in {cache}) and could not be downloaded (no network). Copy it to one of these "
        "folders, name another one with --data-dir, or train on digits, which need none (--data digits)."
    )
    message = error("torchvision:NoDownload")
    assert message == f"torchvision:NoDownload was not found in {cache}, and torchvision does not download it"
    assert error("torchvision:KMNIST", folder=tmp_path / "typo") == f"--data-dir {tmp_path / 'typo'}: there is no such folder"
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert error("torchvision:KMNIST").startswith("torchvision cannot be imported: ")


def test_versions_of_sets(torchvision_folder):
    data = load_image_data("torchvision:EMNIST:letters", torchvision_folder)
    assert data.name == "emnist-letters"
    assert data.classes == ("o", "ki", "su")  # those that images have
    assert [value % 3 for value in values(data.train)] == data.train_labels.tolist()
    assert "EMNIST needs its split, one of balanced, letters" in error("torchvision:EMNIST", folder=torchvision_folder)
    assert "takes nothing after its name" in error("torchvision:KMNIST:letters", folder=torchvision_folder)
    assert "needs the arguments annotations and words" in error("torchvision:Annotated", folder=torchvision_folder)


def test_other_ways_to_split(torchvision_folder):
    data = load_image_data("torchvision:Background", torchvision_folder)
    assert (len(data.train), len(data.test)) == (12, 5)
    data = load_image_data("torchvision:OneSplit", torchvision_folder, test_share=0.5)
    assert (len(data.train), len(data.test)) == (6, 6)
    assert [value % 3 for value in values(data.train)] == data.train_labels.tolist()


def test_images_that_torchvision_makes_one_by_one(torchvision_folder):
    message = error("torchvision:BySplit", folder=torchvision_folder)
    assert re.search(
        r"torchvision:BySplit has images of different sizes: image 0 has 6x4 pixels and image 1 6x5; --image-size N", message
    )
    data = load_image_data("torchvision:BySplit", torchvision_folder, image_size=4)
    assert (data.shape, len(data.train), len(data.test)) == ((3, 4, 4), 12, 5)
    assert data.note.endswith("Resized to 4x4.")
    assert sorted(data.train_labels.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    assert data.train_labels.tolist() != sorted(data.train_labels.tolist())
    assert dict(zip(values(data.train), data.train_labels.tolist(), strict=True)) == {i: i // 4 for i in range(12)}
    data = load_image_data("torchvision:Attributes", torchvision_folder)
    assert (data.shape, data.classes, data.train_labels) == ((1, 4, 4), (), None)


def test_sets_that_cannot_be_used(torchvision_folder):
    assert "torchvision has no data set 'KMIST'; nearest: KMNIST" in error("torchvision:KMIST")
    assert "torchvision has no data set 'some_function'" in error("torchvision:some_function")
    assert "not a set of images: it has items of the type Tensor" in error("torchvision:Videos", folder=torchvision_folder)
    assert "torchvision:Damaged cannot be read: Compressed file ended" in error("torchvision:Damaged", folder=torchvision_folder)


def test_the_signatures_of_the_real_torchvision(monkeypatch, tmp_path):
    """Every set of images with classes is refused for nothing but its files, which are in no folder."""
    datasets = pytest.importorskip("torchvision.datasets", exc_type=(ImportError, RuntimeError))
    monkeypatch.delenv("PYZOO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*arguments, **options):
        raise OSError("no network")

    for module in [module for name, module in sys.modules.items() if name.startswith("torchvision.datasets")]:
        for name in ("download_url", "download_and_extract_archive", "download_file_from_google_drive"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, refuse)
    names = (
        "MNIST",
        "KMNIST",
        "EMNIST:balanced",
        "QMNIST",
        "USPS",
        "SVHN",
        "CIFAR10",
        "CIFAR100",
        "STL10",
        "SEMEION",
        "Flowers102",
    )
    for name in (
        *names,
        "Omniglot",
        "Imagenette",
        "OxfordIIITPet",
        "FGVCAircraft",
        "DTD",
        "EuroSAT",
        "CelebA",
        "Food101",
        "GTSRB",
    ):
        assert hasattr(datasets, name.partition(":")[0])
        assert re.match(
            rf"{name.partition(':')[0]} was not found .* and could not be downloaded \(", error(f"torchvision:{name}")
        )
    message = error("torchvision:EMNIST")
    assert "needs its split, one of byclass, bymerge, balanced, letters, digits, mnist" in message
    assert message.endswith("torchvision:EMNIST:SPLIT")
