"""Files of published scenes, written here byte by byte as they are described."""

import contextlib

import numpy as np
import pytest
import torch
from scene_records import feature, field, record, records_of, write

from pyzoo.data.scene_files import read_scenes
from pyzoo.data.scenes import sprites, tetrominoes
from pyzoo.errors import UsageError


@pytest.mark.parametrize(("draw", "size", "entities", "last"), [(tetrominoes, 35, 4, False), (sprites, 64, 6, True)])
def test_scenes_come_back_as_they_were(tmp_path, draw, size, entities, last):
    scenes = draw(3, torch.Generator().manual_seed(0), size)
    path = write(tmp_path / "scenes.tfrecords", records_of(scenes, entities, last))
    found = read_scenes(path)
    assert torch.equal(found.images, scenes.images)
    assert torch.equal(found.segments.long(), scenes.segments)
    assert len(read_scenes(path, count=2).images) == 2
    resized = read_scenes(path, image_size=32)
    assert resized.images.shape == (3, 3, 32, 32)
    assert resized.segments.shape == (3, 32, 32)
    assert set(resized.segments.unique().tolist()) <= set(scenes.segments.unique().tolist())


def test_what_is_no_such_file_is_refused(tmp_path):
    scenes = tetrominoes(2, torch.Generator().manual_seed(0), 35)
    whole = list(records_of(scenes, 4))
    path = tmp_path / "scenes.tfrecords"

    def zeros(count):
        return np.zeros(count, np.uint8)

    cases = {
        "has no scenes": [],
        "scene 0: it has no image and mask, but image": [field(1, feature("image", field(1, b"\x0a\x01\x00")))],
        "an image of 12 bytes is of none": [record(zeros(12), zeros(12))],
        "masks of 12 bytes do not fit": [record(zeros(3675), zeros(12))],
        "its masks do not share out the pixels": [record(zeros(3675), zeros(4 * 35 * 35))],
        "scene 1: a field is longer": [whole[0], whole[1][:500]],
        "its images differ in size": [whole[0], *records_of(sprites(1, torch.Generator().manual_seed(0), 64), 6)],
    }
    for message, records in cases.items():
        with pytest.raises(UsageError, match=message):
            read_scenes(write(path, records))
    with pytest.raises(UsageError, match="No such file"):
        read_scenes(tmp_path / "missing.tfrecords")
    path.write_bytes(b"not compressed")
    with pytest.raises(UsageError, match="not compressed with gzip, or is damaged"):
        read_scenes(path)


def test_any_cut_or_flipped_byte_is_refused_or_harmless(tmp_path):
    scenes = tetrominoes(2, torch.Generator().manual_seed(0), 35)
    whole = write(tmp_path / "scenes.tfrecords", records_of(scenes, 4)).read_bytes()
    damaged = tmp_path / "damaged.tfrecords"
    generator = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        if generator.random() < 0.5:
            content = content[: generator.integers(len(content))]
        else:
            content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        damaged.write_bytes(content)
        with contextlib.suppress(UsageError):
            found = read_scenes(damaged)
            assert torch.equal(found.images, scenes.images)
            assert torch.equal(found.segments.long(), scenes.segments)
