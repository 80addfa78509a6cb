"""The shipped checks must catch what they are for."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyzoo.testing import check_distribution, check_svi

PARAMS = {"loc": torch.randn(3), "scale": torch.rand(3) + 0.5}


class WrongVariance(dist.Normal):
    @property
    def variance(self):
        return 1.1 * self.scale.square()


class NoGradient(dist.Normal):
    def rsample(self, sample_shape=torch.Size()):
        return self.loc + self.scale.detach() * torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype)


class WrongDensity(dist.Normal):
    def log_prob(self, value):
        return super().log_prob(value) + 0.1


def test_what_is_right_passes():
    check_distribution(dist.Normal, PARAMS)
    check_distribution(dist.Dirichlet, {"concentration": torch.rand(2, 3) + 1})


@pytest.mark.parametrize(
    ("make", "what"), [(WrongVariance, "the variance"), (NoGradient, "gradient of samples by scale"), (WrongDensity, "entropy")]
)
def test_what_is_wrong_is_named(make, what):
    with pytest.raises(AssertionError, match=what):
        check_distribution(make, PARAMS)


class OwnParameter(pyro.nn.PyroModule):
    """Unnamed, as a model should not be: model and guide share the entry 'layer.weight' of Pyro's store."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)


class Model(OwnParameter):
    def forward(self, x):
        z = pyro.sample("z", dist.Normal(self.layer(x).sum(), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x.sum())


class Guide(OwnParameter):
    def forward(self, x):
        pyro.sample("z", dist.Normal(self.layer(x).sum(), 1.0))


def test_a_parameter_that_never_trains_is_found():
    with pytest.raises(AssertionError, match="did not move"):
        check_svi(Model(), Guide(), {"x": torch.ones(1)})
