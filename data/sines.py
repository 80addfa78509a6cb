r"""Curves made of sines: the 1D problem of CompVAE.

.. math:: x(t) = K \tanh\Bigl(\frac{C}{K} \sum_{i=1}^{K} a_i \cos\bigl(\tfrac{2 \pi \ell_i}{T} t + \kappa_i\bigr)\Bigr),
    \qquad a_i \sim \mathcal{N}(1, 0.3^2), \quad \kappa_i \sim \mathcal{N}(0, (\pi/2)^2)

Source: Berger and Sebag (2019), section 4.2. The second numbers of its N(1; 0.3) and N(0; pi/2) are taken as standard deviations,
and its sum over parts, printed from 0 to K, has K of them.
"""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pyzoo.checks import (
    as_device,
    as_indices,
    require_count,
    require_kept,
    require_kind,
    require_number,
    require_pair,
    require_shape,
)
from pyzoo.random import derive_seed, seeded
from pyzoo.settings import Above, AtLeast

__all__ = ["Curves", "Sines"]


class Curves(NamedTuple):
    """Curves, and the sines that they were made of.

    Attributes:
        parts: category of each sine, (batch, parts), integer from 0, which is its frequency less 1.
        amplitudes: amplitude of each sine, (batch, parts).
        phases: phase of each sine, (batch, parts), in radians.
        x: values of the curves, (batch, steps).
    """

    parts: Tensor
    amplitudes: Tensor
    phases: Tensor
    x: Tensor

    def batch(self) -> dict[str, Tensor]:
        """The arguments of model and guide."""
        return {"parts": self.parts, "x": self.x}


class Sines:
    """A source of curves made of sines, generated on the device.

    Args:
        max_parts: largest number of sines in a curve, as a function of the training step. All curves of a batch have the same
            number of sines, drawn uniformly from 1 to this.
        num_frequencies: number of frequencies, which are 1, 2, ... periods per T.
        num_steps: length of a curve.
        period: the period T, in steps.
        nonlinearity: the factor C.
        amplitude: mean and standard deviation of the amplitudes.
        phase: mean and standard deviation of the phases, in radians.
        seed: seed of all batches.
        split: name of the split; different names give different batches.
        device: where the curves are generated.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> source = Sines(max_parts=lambda step: 4)
        >>> batch = source.batch(step=0, size=8)
        >>> batch["x"].shape, batch["parts"].shape
        (torch.Size([8, 200]), torch.Size([8, 3]))
    """

    def __init__(
        self,
        max_parts: Callable[[int], int],
        num_frequencies: int = 10,
        num_steps: int = 200,
        period: float = 200.0,
        nonlinearity: float = 3.0,
        amplitude: tuple[float, float] = (1.0, 0.3),
        phase: tuple[float, float] = (0.0, math.pi / 2),
        seed: int = 0,
        split: str = "train",
        device: torch.device | str = "cpu",
    ) -> None:
        require_kind(max_parts, "max_parts", Callable)
        require_count(num_frequencies, "num_frequencies")
        require_count(num_steps, "num_steps")
        require_number(period, "period", Above(0))
        require_number(nonlinearity, "nonlinearity", Above(0))
        for name, moments in (("amplitude", amplitude), ("phase", phase)):
            require_pair(moments, name, "a mean and a standard deviation")
            require_number(moments[0], f"the mean of {name}")
            require_number(moments[1], f"the standard deviation of {name}", AtLeast(0))
        self.max_parts = max_parts
        self.num_frequencies = num_frequencies
        self.num_steps = num_steps
        self.period = period
        self.nonlinearity = nonlinearity
        self.amplitude = amplitude
        self.phase = phase
        self.seed = seed
        self.split = split
        self.device: torch.device = as_device(device)

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The training batch of a step: parts, (size, parts), and x, (size, steps)."""
        seed = derive_seed(self.seed, self.split, step)
        largest = self.max_parts(step)
        require_count(largest, "max_parts")
        num_parts = random.Random(seed).randint(1, largest)
        return self.draw(size, num_parts, seed=seed).batch()

    def draw(self, size: int, num_parts: int, seed: int, distinct: bool = False) -> Curves:
        """Draws curves of a given number of sines.

        Args:
            size: number of curves.
            num_parts: number of sines in each.
            seed: seed of the draw.
            distinct: draw the frequencies of a curve without replacement.

        Raises:
            ValueError: The parts must be distinct, and there are more of them than frequencies; or size or num_parts is below 1.
        """
        require_count(size, "size")
        require_count(num_parts, "num_parts")
        generator = seeded(seed, self.device)
        shape = (size, num_parts)
        if distinct:
            if num_parts > self.num_frequencies:
                raise ValueError(f"A curve cannot have {num_parts} distinct ones of {self.num_frequencies} frequencies.")
            order = torch.rand(size, self.num_frequencies, generator=generator, device=self.device).argsort(-1)
            parts = order[:, :num_parts]
        else:
            parts = torch.randint(self.num_frequencies, shape, generator=generator, device=self.device)
        normal = torch.randn(2, *shape, generator=generator, device=self.device)
        amplitudes = self.amplitude[0] + self.amplitude[1] * normal[0]
        phases = self.phase[0] + self.phase[1] * normal[1]
        return Curves(parts, amplitudes, phases, self.curve(parts, amplitudes, phases))

    def curve(self, parts: Tensor, amplitudes: Tensor, phases: Tensor, keep: Tensor | None = None) -> Tensor:
        """The curves x(t) of given sines for t = 0 to steps - 1, (batch, steps).

        Args:
            parts: categories, (batch, parts), integer.
            amplitudes: amplitudes, (batch, parts).
            phases: phases, (batch, parts), in radians.
            keep: which sines to sum, (batch, parts), boolean; all by default, and at least one of each curve. K is their number.

        Raises:
            ValueError: an argument has another shape or type; a category is none, or a curve has no sine, while Pyro validates.
        """
        parts = as_indices(parts, "parts", dim=2, below=self.num_frequencies)
        require_shape(parts, "parts", ("batch", "parts"))
        require_shape(amplitudes, "amplitudes", tuple(parts.shape))
        require_shape(phases, "phases", tuple(parts.shape))
        require_kept(keep, parts)
        keep = torch.ones_like(parts, dtype=torch.bool) if keep is None else keep
        kind = torch.promote_types(amplitudes.dtype, torch.float32)  # half precision can't count the steps
        time = torch.arange(self.num_steps, device=parts.device, dtype=kind)
        angle = (2 * math.pi / self.period * (parts + 1)).unsqueeze(-1) * time + phases.unsqueeze(-1)
        waves = (keep * amplitudes).unsqueeze(-1) * angle.cos()  # (batch, parts, steps)
        num_parts = keep.sum(-1, keepdim=True)
        return (num_parts * torch.tanh(self.nonlinearity / num_parts * waves.sum(-2))).to(amplitudes.dtype)

    def subset(self, curves: Curves, keep: Tensor) -> Tensor:
        """The curves that the kept sines alone would have given, (batch, steps).

        Args:
            curves: curves with their sines.
            keep: which sines to keep, (batch, parts), boolean.
        """
        return self.curve(curves.parts, curves.amplitudes, curves.phases, keep)
