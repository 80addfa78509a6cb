import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO

from pyzoo.infer import log_likelihood

torch.manual_seed(0)
LOADING = torch.randn(4, 2)
X = torch.randn(5, 4)


def model(x):
    """Probabilistic PCA: log p(x) is known."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ LOADING.T, 0.5).to_event(1), obs=x)


def guide(x):
    precision = torch.eye(2) + LOADING.T @ LOADING / 0.25
    covariance = precision.inverse()
    mean = x @ LOADING @ covariance / 0.25
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.MultivariateNormal(mean, 1.3 * covariance))  # wider than the posterior: weights vary


def normal_guide(x):
    """One whose posterior has no covariances, whose checks read values."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x @ LOADING, 1.0).to_event(1))


EXACT = dist.MultivariateNormal(torch.zeros(4), LOADING @ LOADING.T + 0.25 * torch.eye(4)).log_prob(X)


@pytest.mark.parametrize("max_rows", [1, 7, 64, 100_000])
def test_agrees_with_the_exact_marginal(max_rows):
    num_samples = 300 if max_rows < 10 else 4000
    estimate = log_likelihood(model, guide, {"x": X}, num_samples, max_rows)
    assert estimate.shape == (5,)
    torch.testing.assert_close(estimate, EXACT, atol=0.1 if max_rows < 10 else 0.03, rtol=0)


def test_one_sample_is_the_elbo():
    torch.manual_seed(0)
    estimates = torch.stack([log_likelihood(model, guide, {"x": X}, 1) for _ in range(300)]).mean(0).sum()
    elbo = -pyro.infer.Trace_ELBO(num_particles=2000, vectorize_particles=True).loss(model, guide, X)
    assert estimates.item() == pytest.approx(elbo, abs=0.1)
    assert estimates < EXACT.sum()


def test_agrees_with_pyros_renyi_elbo_of_one_example():
    ours = log_likelihood(model, guide, {"x": X[:1]}, 4000)
    theirs = -RenyiELBO(alpha=0, num_particles=4000, vectorize_particles=True).loss(model, guide, X[:1])
    assert ours.item() == pytest.approx(theirs, abs=0.05)


def test_penalties_are_left_out():
    def penalized(x):
        guide(x)
        pyro.factor("penalty/g/rate", torch.tensor(100.0), has_rsample=True)

    torch.manual_seed(0)
    with_penalty = log_likelihood(model, penalized, {"x": X}, 50)
    torch.manual_seed(0)
    torch.testing.assert_close(with_penalty, log_likelihood(model, guide, {"x": X}, 50))


def inner(x):
    """One latent for four pixels, which have a plate of their own."""
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0))
        with pyro.plate("pixels", 4, dim=-1):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def inner_posterior(x):
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", dist.Normal(x.mean(-1, keepdim=True) * 0.8, 0.2**0.5))  # exact: every weight is p(x)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_plates_inside_the_batch(samples):
    """With two samples of two examples the inner plate has as many entries as there are rows."""
    exact = dist.MultivariateNormal(torch.zeros(4), torch.eye(4) + 1.0).log_prob(X[:2])
    torch.testing.assert_close(log_likelihood(inner, inner_posterior, {"x": X[:2]}, samples), exact)


def test_scale_of_a_subsampled_plate_is_left_out():
    def scaled(program):
        return pyro.poutine.scale(program, 50.0)

    torch.manual_seed(0)
    expected = log_likelihood(model, guide, {"x": X}, 10)
    torch.manual_seed(0)
    torch.testing.assert_close(log_likelihood(scaled(model), scaled(guide), {"x": X}, 10), expected)


def test_no_examples():
    assert log_likelihood(model, guide, {"x": X[:0]}, 10).shape == (0,)


def test_tensors_of_different_lengths_raise():
    for batch in ({"x": X, "y": X[:3]}, (X, X[:3])):
        with pytest.raises(ValueError, match=r"sizes \[3, 5\]"):
            log_likelihood(model, guide, batch, 10)


def test_a_shared_site_raises():
    def shared(x):
        pyro.sample("c", dist.Normal(0.0, 1.0))
        guide(x)

    cure = r"'c' .* 50 rows of 5 examples times 10 samples: fix its value first, or call \.eval\(\)"
    with pytest.raises(ValueError, match=cure):
        log_likelihood(model, shared, {"x": X}, 10)


@pytest.mark.parametrize("max_rows", [12, 4096])
@pytest.mark.parametrize("batch", [X, (X,), [X]], ids=["tensor", "tuple", "list"])
def test_positional_arguments(batch, max_rows):
    torch.manual_seed(0)
    expected = log_likelihood(model, guide, {"x": X}, 50, max_rows)
    torch.manual_seed(0)
    assert torch.equal(log_likelihood(model, guide, batch, 50, max_rows), expected)


def test_several_positional_arguments_keep_their_order():
    def shifted(x, shift):
        model(x - shift)

    def shifted_guide(x, shift):
        guide(x - shift)

    shift = torch.linspace(-1, 1, 5).unsqueeze(-1)
    torch.testing.assert_close(log_likelihood(shifted, shifted_guide, (X + shift, shift), 4000), EXACT, atol=0.03, rtol=0)


class Encoding:
    """A guide that computes once for each example what it needs for all samples."""

    def __init__(self):
        self.calls = []

    def precompute(self, x):
        self.calls.append(len(x))
        return {"doubled": 2 * x}

    def __call__(self, x, doubled):
        guide(doubled / 2)


@pytest.mark.parametrize("batch", [{"x": X}, X, (X,)], ids=["dict", "tensor", "tuple"])
def test_what_a_guide_precomputes(batch):
    encoding = Encoding()
    torch.manual_seed(0)
    found = log_likelihood(model, encoding, batch, 50, max_rows=12)
    assert encoding.calls == [5]
    torch.manual_seed(0)
    torch.testing.assert_close(found, log_likelihood(model, guide, {"x": X}, 50, max_rows=12))


@pytest.mark.parametrize("batch", [torch.tensor(1.0), {"x": torch.tensor(1.0)}, (), {}])
def test_a_batch_without_examples_along_its_first_dimension_raises(batch):
    with pytest.raises(ValueError, match="first dimension"):
        log_likelihood(model, guide, batch, 10)


@pytest.mark.parametrize("bad", [{"num_samples": 0}, {"max_rows": 0}])
def test_bad_sizes_raise(bad):
    with pytest.raises(ValueError, match="at least 1"):
        log_likelihood(model, guide, {"x": X}, **bad)


@pytest.mark.slow
def test_memory_of_5000_samples_for_10000_images():
    import resource

    images = torch.rand(10_000, 784)
    weight = torch.randn(784, 20) / 28

    def big_model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 20), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T, 1.0).to_event(1), obs=x)

    def big_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ weight / 10, 1.0).to_event(1))

    assert torch.isfinite(log_likelihood(big_model, big_guide, {"x": images}, 5000)).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * 2**20  # kilobytes


def test_a_guide_must_draw_the_models_latents():
    def program(name="z", more="", auxiliary=False):
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample(name, dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
                if more:
                    pyro.sample(more, dist.Normal(torch.zeros(len(x)), 1.0), infer={"is_auxiliary": auxiliary})

        return guide

    with pytest.raises(ValueError, match="The guide does not draw 'z': the result would be no likelihood"):
        log_likelihood(model, program("zz"), {"x": X}, 3)
    with pytest.raises(ValueError, match="The guide draws, and the model does not, 'w'"):
        log_likelihood(model, program(more="w"), {"x": X}, 3)
    assert log_likelihood(model, program(more="w", auxiliary=True), {"x": X}, 3).shape == (len(X),)


@pytest.mark.parametrize(("features", "examples", "samples"), [(12, 4, 3), (4, 4, 1)])
def test_a_plate_that_has_as_many_entries_by_chance(features, examples, samples):
    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("cells", features, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("cells", features, dim=-2):
            pyro.sample("z", dist.Normal(x.T / 2, 0.5**0.5))  # the exact posterior

    x = torch.arange(examples * features).float().reshape(examples, features) / 7
    expected = dist.Normal(0.0, 2**0.5).log_prob(x).sum(1)
    torch.testing.assert_close(log_likelihood(model, guide, x, samples), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_many_samples_in_half_precision(dtype):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), x.new_ones(())))
            pyro.sample("x", dist.Normal(z, x.new_ones(())), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, x.new_tensor(0.5**0.5)))

    found = log_likelihood(model, guide, torch.tensor([0.0, 2.0], dtype=dtype), 3000, max_rows=6)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([-1.2655, -2.2655]), rtol=0, atol=0.03)


def test_a_batch_norm_in_training_mode_is_refused():
    class Guide(torch.nn.Sequential):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(super().forward(x.unsqueeze(1)).squeeze(1), 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=x)

    guide = Guide(torch.nn.BatchNorm1d(1))
    with pytest.raises(ValueError, match=r"The guide normalizes over a batch: call \.eval\(\) first"):
        log_likelihood(model, guide, torch.randn(3), num_samples=2)
    assert log_likelihood(model, guide.eval(), torch.randn(3), num_samples=2).shape == (3,)


def test_compiled_it_is_the_same_by_the_same_noise():
    found = []
    for compile in (False, True):
        torch.manual_seed(0)
        found.append(log_likelihood(model, normal_guide, {"x": X}, 100, max_rows=60, compile=compile))  # 12 samples at a time
    torch.testing.assert_close(*found)
    assert torch.distributions.Distribution._validate_args


def test_what_cannot_be_compiled_runs_as_it_stands():
    def branching(x):
        if x.sum() > -1e9:
            normal_guide(x)

    torch.manual_seed(0)
    expected = log_likelihood(model, branching, {"x": X}, 30, max_rows=50)
    torch.manual_seed(0)
    with pytest.warns(RuntimeWarning, match="The likelihood is not compiled: the programs branch on values"):
        found = log_likelihood(model, branching, {"x": X}, 30, max_rows=50, compile=True)
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="compile must be True or False"):
        log_likelihood(model, guide, {"x": X}, compile="yes")
