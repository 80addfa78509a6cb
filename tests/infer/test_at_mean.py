import pyro
import pyro.distributions as dist
import torch

from pyzoo.infer import AtMean


def program():
    z = pyro.sample("z", dist.Normal(3.0, 1.0))
    w = pyro.sample("w", dist.Normal(2 * z, 1.0))
    x = pyro.sample("x", dist.Normal(w, 1.0), obs=torch.tensor(1.0))
    return z, w, x


def test_named_sites_are_at_their_means_and_later_ones_see_it():
    with AtMean({"z", "w", "x"}):
        assert program() == (3, 6, 1)  # an observation stays
    with AtMean({"z"}):
        z, w, _ = program()
    assert z == 3
    assert w != 6


def test_values_given_by_others_stay():
    with AtMean({"z", "w"}):
        z, w, _ = pyro.condition(program, {"z": torch.tensor(1.0)})()
    assert (z, w) == (1, 2)
