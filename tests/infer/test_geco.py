"""GECO: its multiplier by hand, that it reaches its goal, and bad input."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyzoo.infer import GECO, NegativeELBO, analytic


class Model(pyro.nn.PyroModule):
    def __init__(self):
        super().__init__("model")
        self.decoder = torch.nn.Linear(2, 3)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class Guide(pyro.nn.PyroModule):
    def __init__(self):
        super().__init__("guide")
        self.encoder = torch.nn.Linear(3, 4)

    def forward(self, x):
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1), infer=analytic)


def geco(**options):
    torch.manual_seed(0)
    return GECO(NegativeELBO(Model(), Guide(), {"z": 1.0}), **{"goal": 2.0, "speed": 0.1, "decay": 0.9, **options})


def test_the_multiplier_by_hand():
    module, beta, average = geco(), 1.0, None
    for error in (5.0, 4.0, 1.0, -3.0, -8.0, -9.0):
        module.update(torch.zeros(()), {"x": torch.tensor(error)})
        average = error if average is None else 0.9 * average + 0.1 * error
        beta = min(1.0, beta * math.exp(0.1 * (2.0 - average)))
        assert module.average.item() == pytest.approx(average)
        assert module.beta.item() == pytest.approx(beta)
        assert module.loss.kl_weight_z.item() == pytest.approx(beta)
    loss, terms = module(x=torch.rand(4, 3))
    assert loss.item() == pytest.approx((terms["x"] + module.beta * terms["z"]).item())


def test_weights_keep_their_proportions():
    torch.manual_seed(0)
    module = GECO(NegativeELBO(Model(), Guide(), {"z": 0.25}), goal=0.0, speed=0.1, start=0.5, smallest=0.2)
    assert module.loss.kl_weight_z.item() == pytest.approx(0.125)
    for _ in range(10):
        module.update(torch.zeros(()), {"x": torch.tensor(5.0)})
    assert module.beta.item() == pytest.approx(0.2)
    assert module.loss.kl_weight_z.item() == pytest.approx(0.05)


def test_a_step_that_is_not_finite_moves_nothing():
    module = geco()
    module.update(torch.zeros(()), {"x": torch.tensor(5.0)})
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.update(torch.zeros(()), {"x": torch.tensor(math.nan)})
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_goal_is_reached_where_the_elbo_alone_would_not():
    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 0.5, -0.3], [0.0, 1.0, 0.8]])
    found = {}
    for goal in (100.0, 3.0):
        module = geco(goal=goal, speed=0.02)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
        for _ in range(600):
            optimizer.zero_grad()
            loss, terms = module(x=x)
            loss.backward()
            optimizer.step()
            module.update(loss, terms)
        found[goal] = module.average.item(), module.beta.item()
    assert found[100.0][0] > 3.3
    assert found[100.0][1] == 1
    assert found[3.0][0] == pytest.approx(3.0, abs=0.1)
    assert found[3.0][1] < 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": math.nan}, "goal must be a finite number"),
        ({"speed": 0.0}, "speed must be positive"),
        ({"decay": 1.0}, "decay must be at least 0 and below 1"),
        ({"smallest": 2.0}, "smallest must be positive and at most 1"),
        ({"start": 0.1, "smallest": 0.2}, "start must be at least 0.2 and at most 1"),
        ({"site": 3}, "site must be of type str"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        geco(**options)


def test_a_loss_without_weights_or_a_site_that_is_not_there():
    with pytest.raises(ValueError, match="loss must have KL weights"):
        GECO(NegativeELBO(Model(), Guide()), goal=1.0)
    with pytest.raises(ValueError, match="'x'"):
        geco().update(torch.zeros(()), {"y": torch.zeros(())})
