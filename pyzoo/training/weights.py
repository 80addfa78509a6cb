"""Trained weights in one small file, in safetensors' format, which holds tensors and no code."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load, save
from torch import Tensor

from pyzoo.errors import UsageError, one_line
from pyzoo.files import read_bytes, write_whole

__all__ = ["WEIGHTS", "Bits", "load_weights", "save_weights"]

WEIGHTS = "weights.safetensors"
"""The file of a trained model's folder that holds its weights."""

Bits = Literal[8, 16, 32]
"""Bits of each number in a matrix of weights."""

_SMALL = 5000
"""Numbers of a matrix that is in 16 bits where larger ones are in 8. It weighs little, and what it does can weigh much: the means
and variances of a few latents come out of such."""

_STEP = ":step"
"""Ends the name of the steps between neighboring whole numbers of a matrix in 8 bits, one for each of its rows."""

_SAME = "same"
"""The entry of the file's metadata that says which tensors are held under another name, as JSON."""


def save_weights(path: Path, states: dict[str, dict[str, Tensor]], bits: Bits = 16) -> str:
    """Writes the states of some modules into one file.

    Matrices and kernels are rounded: to half precision in 16 bits, or to whole numbers times a step for each of their rows in 8,
    but for small ones, which are then in 16. Those that would not be finite then stay as they are, and so do vectors, such as
    biases. Equal tensors, such as those that two modules share, are written once.

    Args:
        path: the file.
        states: the modules' ``state_dict()`` by their names.
        bits: of each number in a matrix.

    Returns:
        The file's SHA-256, to give to :func:`load_weights`.

    Raises:
        UsageError: the file can't be written.
    """
    tensors: dict[str, Tensor] = {}
    same: dict[str, str] = {}
    written: dict[str, Tensor] = {}
    for name, value in ((f"{module}.{key}", value) for module, state in states.items() for key, value in state.items()):
        kind = value.dtype, value.shape
        twins = (
            other for other, tensor in written.items() if (tensor.dtype, tensor.shape) == kind and torch.equal(tensor, value)
        )
        twin = next(twins, None)
        if twin is not None:
            same[name] = twin
        else:
            written[name] = value
            tensors |= _rounded(name, value.detach().cpu(), bits)
    content = save(tensors, {_SAME: json.dumps(same)})
    write_whole(path, lambda file: file.write(content))
    return hashlib.sha256(content).hexdigest()


def load_weights(path: Path, sha256: str) -> dict[str, dict[str, Tensor]]:
    """What :func:`save_weights` was given, up to its rounding, on the CPU; numbers with a point are 32 bits wide.

    Args:
        path: the file.
        sha256: what :func:`save_weights` returned.

    Raises:
        UsageError: the file is missing, or not the one that was written.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UsageError(f"{path} is damaged, or another model's: its SHA-256 is {found[:16]}..., not {sha256[:16]}...")
    try:
        tensors, same = load(content), _same_tensors(content)
        steps = {name: value for name, value in tensors.items() if name.endswith(_STEP)}
        values = {name: _restored(tensors[name], steps.get(name + _STEP)) for name in tensors.keys() - steps.keys()}
        values |= {name: values[twin].clone() for name, twin in same.items()}
    except Exception as error:  # safetensors raises many kinds, and what it read can be of any form
        raise UsageError(f"{path} is no file of weights: {one_line(error) or type(error).__name__}") from error
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in values.items():
        module, _, key = name.partition(".")
        states.setdefault(module, {})[key] = value
    return states


def _same_tensors(content: bytes) -> dict[str, str]:
    """The names of tensors that are held under another one, from the file's head, which :func:`load` leaves out."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + size]).get("__metadata__", {}).get(_SAME, "{}"))


def _rounded(name: str, value: Tensor, bits: Bits) -> dict[str, Tensor]:
    """A tensor as the file holds it."""
    if value.dim() < 2 or not value.is_floating_point() or not value.numel() or bits == 32:
        return {name: value.contiguous().clone()}
    in_half = bits == 16 or value.numel() <= _SMALL
    if not value.isfinite().all() or (in_half and not value.half().isfinite().all()):
        return {name: value.contiguous().clone()}
    if in_half:
        return {name: value.half().contiguous()}
    rows = value.float().flatten(1)
    step = rows.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    return {name: (rows / step).round().to(torch.int8).reshape(value.shape).contiguous(), name + _STEP: step.squeeze(1)}


def _restored(value: Tensor, step: Tensor | None) -> Tensor:
    """A tensor as a module takes it."""
    if step is not None:
        return (value.flatten(1).float() * step[:, None]).reshape(value.shape)
    return value.float() if value.is_floating_point() else value
