"""Seeds as pure functions of what they are for, so that nothing about a run depends on what was drawn before."""

import hashlib
from numbers import Integral
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["derive_seed", "seeded"]


def derive_seed(*keys: int | str) -> int:
    """A 63-bit seed from any number of keys; equal keys give equal seeds on every machine and Python.

    Example:
        >>> derive_seed(0, "train", 17) == derive_seed(0, "train", 17)
        True
    """
    plain = [int(key) if isinstance(key, Integral) and not isinstance(key, bool) else key for key in keys]  # NumPy's too
    for key in plain:
        if not isinstance(key, (int, str)):
            raise ValueError(f"What a seed is derived from must be whole numbers and names, got {key!r}.")
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in plain)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seeded(seed: int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A generator of random numbers on a device.

    Raises:
        ValueError: the seed is not a whole number of 64 bits.

    Example:
        >>> torch.rand(1, generator=seeded(0))
        tensor([0.4963])
    """
    import torch

    if isinstance(seed, bool) or not isinstance(seed, int) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"seed must be a whole number of 64 bits, got {seed!r}.")
    from pyzoo.checks import as_device

    try:
        return torch.Generator(as_device(device)).manual_seed(seed)
    except RuntimeError as error:  # a device that this machine has not, or that holds no numbers
        raise ValueError(f"There is no generator on the device {str(device)!r}.") from error
