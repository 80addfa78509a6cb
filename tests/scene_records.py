"""Files of scenes as DeepMind's multi-object datasets have them, written byte by byte as they are described; and true masks."""

import gzip
import struct

import numpy as np
import torch
from torch.nn.functional import one_hot


def varint(value):
    found = b""
    while value >= 0x80:
        found, value = found + bytes([value & 0x7F | 0x80]), value >> 7
    return found + bytes([value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(name, content):
    return field(1, field(1, name.encode()) + field(2, content))


def record(image, masks, **more):
    def as_bytes(array):
        return field(1, b"".join(b"\x0a\x01" + bytes([value]) for value in array.flatten().tolist()))

    floats = field(2, field(1, struct.pack("<4f", 1, 2, 3, 4)))
    return field(1, feature("x", floats) + feature("image", as_bytes(image)) + feature("mask", as_bytes(masks)))


def write(path, records):
    with gzip.open(path, "wb") as file:
        for content in records:
            file.write(struct.pack("<Q", len(content)) + b"crc1" + content + b"crc2")
    return path


def records_of(scenes, entities, entities_last=False):
    for image, segments in zip(scenes.images.numpy(), scenes.segments, strict=True):
        masks = 255 * one_hot(segments, entities).numpy().astype(np.uint8)  # (height, width, entities)
        yield record(image.transpose(1, 2, 0), masks if entities_last else masks.transpose(2, 0, 1))


def write_scenes(path, scenes, entities):
    return write(path, records_of(scenes, entities))


def true_masks(scenes, slots):
    """Masks and components as they truly are, slots in an order drawn for each scene."""
    masks = one_hot(scenes.segments, slots).movedim(-1, 1).float()
    order = torch.rand(len(scenes), slots, generator=torch.Generator().manual_seed(1)).argsort(1)
    masks = masks.gather(1, order[..., None, None].expand_as(masks))
    components = (scenes.images / 255).unsqueeze(1) * masks.unsqueeze(2)
    return masks, components, order
