"""A recipe of a single number, whose objectives, batches and held-out ELBO a test decides."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyzoo.nn import Networks
from pyzoo.settings import Positive
from pyzoo.training import Objective, Pair, Recipe, Report


@dataclasses.dataclass(frozen=True)
class ToyNetworks(Networks):
    """Programs that do nothing, of one parameter each."""

    def model(self) -> PyroModule:
        return named("model")

    def guide(self, model: PyroModule) -> PyroModule:
        return named("guide")


def named(name: str) -> PyroModule:
    program = PyroModule(name)
    program.layer = nn.Linear(1, 1)
    return program


class ToyLoss(nn.Module):
    """weight ** 2 + weight * x, as terms a and b: not finite where x is not."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        terms = {"a": self.weight**2, "b": self.weight * x.mean()}
        return sum(terms.values()), {name: term.detach() for name, term in terms.items()}


class RootLoss(nn.Module):
    """sqrt(weight * x), whose gradient, but not itself, is infinite where x is zero."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        loss = (self.weight * x.mean()).sqrt()
        return loss, {"root": loss.detach()}


class NoNoise(nn.Module):
    """A loss that depends on the batch alone, so that one process and two must agree."""

    def __init__(self, layer: nn.Linear, power: int) -> None:
        super().__init__()
        self.layer, self.power = layer, power

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = x.unsqueeze(-1) + torch.arange(5.0)
        loss = (self.layer(x) + self.layer.bias).abs().pow(self.power).mean(-1).mean()
        return loss, {"x": loss.detach()}


def shared_layer(count: int) -> Callable[[Pair], Sequence[Objective]]:
    """One objective that moves a layer, or two that share it and move its weight and its bias."""

    def make(pair: Pair) -> Sequence[Objective]:
        layer, sgd = nn.Linear(5, 3), partial(torch.optim.SGD, lr=0.001)
        if count == 1:
            return [Objective(NoNoise(layer, 2), sgd)]
        parts = ((2, layer.weight), (3, layer.bias))
        return [Objective(NoNoise(layer, power), sgd, moves=[part], name=str(power)) for power, part in parts]

    return make


class ToyReport(Report):
    """The held-out ELBO of a step, where there is one."""

    def __init__(self, elbo: Callable[[int], float] | None) -> None:
        self.elbo = elbo

    @property
    def can_validate(self) -> bool:
        return self.elbo is not None

    def validate(self, step: int) -> dict[str, float]:
        return {"held_out_elbo": self.elbo(step)}


@dataclasses.dataclass(frozen=True)
class Toy(Recipe):
    name: ClassVar[str] = "toy"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": {}}

    networks: ToyNetworks = ToyNetworks()
    """Sizes of the networks."""
    learning_rate: Positive = 0.1
    """Learning rate of SGD."""


class ToySource:
    def __init__(self, x: Callable[[int], float]) -> None:
        self.x = x

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        return {"x": torch.full((size,), float(self.x(step)))}


def toy(
    make: Callable[[Pair], Sequence[Objective]],
    x: Callable[[int], float] = lambda step: 1.0,
    elbo: Callable[[int], float] | None = None,
    **fields: Any,
) -> Toy:
    """A recipe with these objectives, with the x of each step, and perhaps the held-out ELBO of each step."""

    class Made(Toy):
        def source(self, device: torch.device) -> ToySource:
            return ToySource(x)

        def objectives(self, pair: Pair) -> Sequence[Objective]:
            return make(pair)

        def report(self, pair: Pair, device: torch.device) -> ToyReport:
            return ToyReport(elbo)

    return Made(**{"steps": 10, "batch_size": 4, "log_every": 5, "checkpoint_seconds": 0.0, **fields})
