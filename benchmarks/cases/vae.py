"""The VAE of Pyro's own example: 784-400-50, softplus, Bernoulli pixels; the one case that NumPyro has an example of, too."""

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.cases import Case
from pyzoo.infer import analytic

SIZES = {"64": "images in a batch", "256": "images in a batch"}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.loc, self.log_scale = nn.Linear(784, 400), nn.Linear(400, 50), nn.Linear(400, 50)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = nn.functional.softplus(self.hidden(x))
        return self.loc(hidden), self.log_scale(hidden).exp()


class Model(PyroModule):
    def __init__(self) -> None:
        super().__init__("model")
        self.decoder = nn.Sequential(nn.Linear(50, 400), nn.Softplus(), nn.Linear(400, 784))

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 50), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self) -> None:
        super().__init__("guide")
        self.encoder = Encoder()

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1), infer=analytic)


def make(size: str, device: torch.device) -> Case:
    model, guide = Model().to(device), Guide().to(device)
    x = torch.rand(int(size), 784, device=device).round()

    def by_hand() -> Tensor:
        loc, scale = guide.encoder(x)
        logits = model.decoder(loc + scale * torch.randn_like(loc))
        kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()
        return (kl + binary_cross_entropy_with_logits(logits, x, reduction="sum")) / len(x)

    return Case(model, guide, {"x": x}, by_hand, steps=200)
