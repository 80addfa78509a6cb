import pyro
import pyro.distributions as dist
import pytest
import torch

from pyzoo.evaluation import blocks, generate, mean_log_likelihood, posterior_means, reconstruct, site_terms
from pyzoo.infer import analytic


def model(x=None, size=1):
    """z ~ N(0, 1), y ~ N(z, 1), x ~ N(y, 1): x ~ N(0, 3)."""
    with pyro.plate("data", size if x is None else len(x)) as rows:
        z = pyro.sample("z", dist.Normal(torch.zeros(len(rows)), 1.0))
        y = pyro.sample("y", dist.Normal(z, 1.0))
        return pyro.sample("x", dist.Normal(y, 1.0), obs=x)


def guide(x, size=1):
    """The exact posterior, z from N(x / 3, 2 / 3) and then y from N((x + z) / 2, 1 / 2)."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x / 3, (2 / 3) ** 0.5), infer=analytic)
        pyro.sample("y", dist.Normal((x + z) / 2, 0.5**0.5), infer=analytic)


BATCH = {"x": torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0])}
EXACT = dist.Normal(0.0, 3**0.5).log_prob(BATCH["x"])


def test_blocks_are_all_examples_in_order():
    found = list(blocks({"x": torch.arange(5), "y": torch.arange(10).view(5, 2)}, rows=2))
    assert [len(block["x"]) for block in found] == [2, 2, 1]
    assert torch.equal(torch.cat([block["y"] for block in found]), torch.arange(10).view(5, 2))


def test_site_terms_are_means_whose_sum_is_minus_the_elbo():
    batch = {"x": BATCH["x"].repeat(4000)}
    terms = site_terms(model, guide, batch)
    assert set(terms) == {"z", "y", "x"}
    assert -sum(terms.values()) == pytest.approx(EXACT.mean().item(), abs=0.03)
    # The KL of N(x / 3, 2 / 3) from N(0, 1).
    kl = 0.5 * (2 / 3 + BATCH["x"].square() / 9 - 1 - torch.tensor(2 / 3).log())
    assert terms["z"] == pytest.approx(kl.mean().item(), abs=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 5, 99])
def test_site_terms_in_blocks_are_the_same(rows):
    """A block that is smaller than the others counts by its examples."""
    assert site_terms(model, guide, BATCH, rows)["z"] == pytest.approx(site_terms(model, guide, BATCH)["z"], rel=1e-6)


def test_the_likelihood_of_an_exact_guide_is_exact():
    assert mean_log_likelihood(model, guide, BATCH, num_samples=7) == pytest.approx(EXACT.mean().item(), abs=1e-5)
    assert mean_log_likelihood(model, guide, BATCH, 7, max_rows=3) == pytest.approx(EXACT.mean().item(), abs=1e-5)


def test_posterior_means_follow_from_those_before_them():
    means = posterior_means(guide, BATCH, ["z", "y"])
    torch.testing.assert_close(means["z"], BATCH["x"] / 3)
    torch.testing.assert_close(means["y"], BATCH["x"] * 2 / 3)
    assert list(posterior_means(guide, BATCH, ["y"])) == ["y"]
    with pytest.raises(ValueError, match="There is no site 'w': there are z, y"):
        posterior_means(guide, BATCH, ["w"])


def test_reconstructions_are_means_of_x_at_a_draw():
    torch.manual_seed(1)
    found = reconstruct(model, guide, BATCH)
    torch.manual_seed(1)
    drawn = pyro.poutine.trace(guide).get_trace(**BATCH)
    assert torch.equal(found, drawn.nodes["y"]["value"])


def test_generated_x_come_with_their_means():
    found = generate(model, size=4000)
    assert (found["x"] - found["mean"]).std() == pytest.approx(1, abs=0.05)
    assert found["x"].std() == pytest.approx(3**0.5, abs=0.1)
    other = generate(model, site="y", size=3)
    assert other["x"].shape == other["mean"].shape == (3,)


def test_nothing_keeps_a_gradient():
    weight = torch.tensor(1.0, requires_grad=True)

    def with_weight(x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(size if x is None else len(x)), 1.0))
            pyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)

    def guide_with_weight(x, size=1):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(weight * x, 1.0))

    assert not generate(with_weight, size=3)["x"].requires_grad
    assert not reconstruct(with_weight, guide_with_weight, BATCH).requires_grad
    assert not posterior_means(guide_with_weight, BATCH, ["z"])["z"].requires_grad
