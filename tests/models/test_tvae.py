import itertools
import math
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from benchmarks.cases.tvae import handwritten_loss
from pyzoo.errors import UsageError
from pyzoo.guides.tvae import TVAEGuide, tvae_guide
from pyzoo.infer import NegativeELBO, TraceKL_ELBO, log_likelihood, squared_mmd
from pyzoo.models.tvae import TVAE, Additive, Matrix, TVAENetworks, VAENetworks
from pyzoo.testing import PairTests

MAPS = {"additive": Additive(), "matrix": Matrix()}
VIEWS = {"inverse": {}, "three": {"num_views": 3, "inverse_views": False}, "one": {"num_views": 1, "inverse_views": False}}


def sized(kind=TVAENetworks, **sizes):
    tiny = {"z_dim": 3, "encoder_channels": (6, 6, 8, 8), "decoder_channels": (8, 8, 6, 6)}
    tiny |= {"hidden_dim": 20} if kind is TVAENetworks else {}
    return kind(**{**tiny, **sizes})


def pair_of(networks):
    model = networks.model()
    return model, networks.guide(model)


def pair(kind=TVAENetworks, **sizes):
    torch.manual_seed(1)
    return pair_of(sized(kind, **sizes))


def images(size=5, views=2, seed=0):
    pixels = torch.rand(size, views + 1, 1, 28, 28, generator=torch.Generator().manual_seed(seed))
    return {"x": pixels[:, 0], "views": pixels[:, 1:]} if views else {"x": pixels[:, 0]}


def count(module):
    return sum(p.numel() for p in module.parameters())


# Sizes and story ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z_dim", [10, 100])
def test_sizes_of_appendix_b(z_dim):
    model, guide = pair_of(TVAENetworks(z_dim))

    def convolution(i, o):
        return 16 * i * o + o

    def linear(i, o):
        return i * o + o

    encoder, decoder = [1, 32, 32, 64, 128, 2 * z_dim], [z_dim, 128, 64, 32, 32, 1]
    for module, widths in ((guide.encoder, encoder), (model.decoder, decoder)):
        assert count(module) == sum(convolution(i, o) for i, o in itertools.pairwise(widths))
    assert count(guide.fuse) == linear(2 * z_dim, 1000) + linear(1000, 1000) + linear(1000, 2 * z_dim)
    assert count(guide.transformation) == linear(2 * z_dim, 1000) + linear(1000, z_dim)
    assert sum(map(count, pair_of(VAENetworks(z_dim)))) == count(guide.encoder) + count(model.decoder)


@pytest.mark.parametrize("latent_map", MAPS)
@pytest.mark.parametrize("views", VIEWS)
def test_generates_views_of_one_latent(latent_map, views):
    model, _ = pair(latent_map=latent_map, **VIEWS[views])
    trace = pyro.poutine.trace(model).get_trace(size=4)
    z, T = trace.nodes["z"]["value"], trace.nodes["T"]["value"]
    assert torch.equal(trace.nodes["z_0"]["value"], z)
    own = {"inverse": lambda view: -T if view else T}.get(views, lambda view: T[:, view])
    for view in range(model.num_views):
        z_view = trace.nodes[f"z_{view + 1}"]["value"]
        torch.testing.assert_close(z_view, MAPS[latent_map](z, own(view)))
        assert trace.nodes[f"x_{view + 1}"]["value"].shape == (4, 1, 28, 28)
    x, drawn = trace.nodes["_RETURN"]["value"]
    assert x.shape == (4, 1, 28, 28)
    assert drawn.shape == (4, model.num_views, 1, 28, 28)
    assert not [name for name in trace.nodes if name.startswith("penalty")]


@pytest.mark.parametrize("latent_map", MAPS)
def test_latent_maps_have_an_identity_and_an_inverse(latent_map):
    apply = MAPS[latent_map]
    torch.manual_seed(0)
    z, T = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, *apply.shape(4), dtype=torch.float64)
    torch.testing.assert_close(apply(z, torch.zeros_like(T)), z)
    torch.testing.assert_close(apply(apply(z, T), -T), z)
    assert not torch.allclose(apply(z, T), z)


@pytest.mark.parametrize("z_dim", [10, 100])
def test_a_matrix_of_the_papers_size_is_gentle_and_learns(z_dim):
    torch.manual_seed(0)
    z = torch.randn(20, z_dim)
    moved = Matrix()(z, torch.randn(20, z_dim, z_dim))
    assert 0.2 < (moved.norm(dim=1) / z.norm(dim=1)).mean() < 5
    model, guide = pair(z_dim=z_dim, latent_map="matrix", coherence="conditional", hidden_dim=40)
    terms = TraceKL_ELBO().terms(model, guide, **images())
    (gradient,) = torch.autograd.grad(terms["penalty/coherence/z_1"], guide.transformation[0].weight)
    assert gradient.norm() > 0.05


def test_discrepancies_and_matrices_keep_their_precision_under_autocast():
    torch.manual_seed(0)
    z, T = torch.randn(6, 4), torch.randn(6, 4, 4)
    model, _ = pair()
    exact = Matrix()(z, T), model.discrepancy(z, z + 0.01)
    with torch.autocast("cpu", torch.bfloat16):
        assert squared_mmd(z.bfloat16(), (z + 1).bfloat16()).dtype == torch.float32
        torch.testing.assert_close((Matrix()(z, T), model.discrepancy(z, z + 0.01)), exact)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"coherence": "paired"}, "--coherence must be one of marginal, conditional, got paired"),
        ({"latent_map": "affine"}, "--latent-map must be one of additive, matrix"),
        ({"coherence_weight": -1.0}, "--coherence-weight must be at least 0"),
        ({"prior_weight": math.nan}, "--prior-weight must be finite, got nan"),
        ({"transformation_weight": -0.5}, "--transformation-weight must be at least 0"),
        ({"decoder_channels": (4, 4)}, "--decoder-channels must"),
        ({"z_dim": 0}, "--z-dim must be at least 1"),
        ({"num_views": 0}, "--num-views must be at least 1"),
        ({"x_shape": (1, 30, 30)}, "images of 30 x 30 pixels don't fit"),
        ({"x_shape": (1, 28, 32)}, "images of 28 x 32 pixels don't fit"),
        ({"x_shape": (1, 12, 12)}, "at least 16"),
    ],
)
def test_sizes_that_are_not_allowed(sizes, message):
    with pytest.raises(UsageError, match=message):
        sized(**sizes)


def test_a_model_of_your_own_networks_checks_its_settings():
    for settings, message in (
        ({"num_views": 3}, "give two views, not 3"),
        ({"num_views": 0, "inverse_views": False}, "at least 1, got 0"),
        ({"coherence": "paired"}, "'paired'"),
        ({"prior_weight": math.nan}, "prior_weight must be a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            TVAE(nn.Linear(3, 4), 3, Additive(), **settings)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 32), (1, 48, 48)])
def test_images_of_other_sizes(shape):
    model, guide = pair(x_shape=shape)
    x, views = model(size=2)
    assert (x.shape, views.shape) == ((2, *shape), (2, 2, *shape))
    assert NegativeELBO(model, guide)(x=x, views=views)[0].isfinite()


def test_bad_images():
    model, guide = pair()
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, 28, 28\), got \(2, 1, 20, 20\)"):
        guide(x=torch.rand(2, 1, 20, 20))
    with pytest.raises(ValueError, match="from 0 to 255"):
        guide(x=torch.tensor([0.0, 255.0]).view(2, 1, 1, 1).expand(2, 1, 28, 28))
    with pytest.raises(ValueError, match=r"views must be \(batch, 2, 1, 28, 28\) with batch 5, got \(5, 3, 1, 28, 28\)"):
        NegativeELBO(model, guide)(**images(views=3))


# The objective --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coherence", ["marginal", "conditional"])
def test_loss_equals_a_handwritten_one(coherence):
    weights = {"coherence_weight": 30.0, "prior_weight": 50.0, "transformation_weight": 7.0}
    model, guide = (part.double() for part in pair(coherence=coherence, **weights))
    batch = {name: value.double() for name, value in images().items()}
    torch.manual_seed(3)
    loss, terms = NegativeELBO(model, guide)(**batch)
    torch.manual_seed(3)
    noise = [torch.empty(5, 3, dtype=torch.float64).normal_() for _ in range(4)]  # z_0, z_1, z_2, z
    weighted = (30.0, 50.0, 7.0)
    expected = handwritten_loss(model, guide, **batch, noise=noise, weights=weighted, conditional=coherence == "conditional")
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    coherence = {f"penalty/coherence/{site}" for site in ("z", "z_1", "z_2")}
    assert set(terms) == {"z_0", "x", "x_1", "x_2", "penalty/indirect/x", "penalty/prior/T", *coherence}
    assert min(terms[name] for name in coherence) > 0
    parameters = [*model.parameters(), *guide.parameters()]
    ours, theirs = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("latent_map", MAPS)
@pytest.mark.parametrize("views", VIEWS)
def test_a_transformation_is_scored_by_its_prior(latent_map, views):
    model, guide = pair(latent_map=latent_map, transformation_weight=2.0, **VIEWS[views])
    batch = images(views=model.num_views)
    guide_trace = poutine.trace(guide).get_trace(**batch)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(**batch)
    T = guide_trace.nodes["T"]["value"]
    expected = 2 * (dist.Normal(0.0, 1.0).log_prob(T) + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
    torch.testing.assert_close(model_trace.nodes["penalty/prior/T"]["fn"].log_factor, expected)


def test_without_transformation_it_is_a_standard_vae():
    x = images(views=0)["x"].double()
    for model, guide in (pair(VAENetworks), pair()):  # and a T-VAE, given x alone
        model, guide = model.double(), guide.double()
        torch.manual_seed(3)
        loss, terms = NegativeELBO(model, guide)(x=x)
        torch.manual_seed(3)
        noise = [torch.empty(5, 3, dtype=torch.float64).normal_()]
        torch.testing.assert_close(loss, handwritten_loss(model, guide, x, None, noise), rtol=1e-12, atol=1e-12)
        assert set(terms) == {"z_0", "x"}
    assert pair(VAENetworks)[0](size=4).shape == (4, 1, 28, 28)


def test_views_need_their_images_and_a_latent_map():
    batch = images()
    for model, arguments in (
        (pair(VAENetworks)[0], batch),
        (pair()[0], {"views": batch["views"]}),
        (pair()[0], {"x": batch["x"][:3], "views": batch["views"]}),
    ):
        with pytest.raises(ValueError, match="together with their images"):
            model(**arguments)
    with pytest.raises(ValueError, match="standard VAE takes no views"):
        pair(VAENetworks)[1](**batch)
    with pytest.raises(ValueError, match=r"views must be \(batch, 2, 1, 28, 28\) with batch 5, got \(5, 1, 1, 28, 28\)"):
        pair()[0](x=batch["x"], views=batch["views"][:, :1])
    with pytest.raises(ValueError, match=r"views must be \(batch, 2, 1, 28, 28\) with batch 5, got \(5, 2, 1, 20, 20\)"):
        pair()[1](x=batch["x"], views=batch["views"][..., :20, :20])


def test_discrepancies():
    torch.manual_seed(0)
    first, second = torch.randn(6, 3), torch.randn(6, 3)
    marginal, _ = pair()
    assert marginal.discrepancy(first, second) == squared_mmd(first, second)
    conditional, _ = pair(coherence="conditional")
    each = [squared_mmd(a[None], b[None]) for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(conditional.discrepancy(first, second), torch.stack(each).mean())
    torch.testing.assert_close(marginal.discrepancy(first, first.flip(0)), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert conditional.discrepancy(first, first.flip(0)) > 0.1  # other partners


@pytest.mark.parametrize("coherence", ["marginal", "conditional"])
def test_the_transformation_learns_from_coherence_alone(coherence):
    model, guide = pair(coherence=coherence)
    terms = TraceKL_ELBO().terms(model, guide, **images())
    weight = guide.transformation[0].weight
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, weight, retain_graph=True, allow_unused=True)
        assert (gradient is not None and gradient.any()) == name.startswith("penalty/coherence/z_")


def test_order_of_the_images_does_not_matter():
    class Mean(nn.Module):  # so that nothing is drawn by place
        def forward(self, parameters):
            loc, log_variance = parameters.chunk(2, -1)
            return torch.cat([loc, log_variance - 100], -1)

    model, guide = pair()
    guide = TVAEGuide(nn.Sequential(guide.encoder, Mean()), nn.Sequential(guide.fuse, Mean()), guide.transformation)
    batch = images()
    order = torch.tensor([3, 0, 4, 1, 2])
    loss, _ = NegativeELBO(model, guide)(**batch)
    permuted, _ = NegativeELBO(model, guide)(**{name: value[order] for name, value in batch.items()})
    torch.testing.assert_close(loss, permuted)


def test_likelihood_agrees_with_integration():
    """With one latent dimension, log p(x) is an integral over a line."""
    torch.manual_seed(0)
    model, guide = pair(z_dim=1)
    with torch.no_grad():
        model.decoder[1].weight.mul_(2)
    x = images(views=0)["x"].round()
    z = torch.linspace(-8, 8, 4001).unsqueeze(-1)
    with torch.no_grad():
        logits = model.decoder(z).flatten(1)
        log_joint = x.flatten(1) @ logits.mT - nn.functional.softplus(logits).sum(1)
        log_joint = log_joint - z.squeeze().square() / 2 - math.log(2 * math.pi) / 2
    exact = log_joint.logsumexp(1) + math.log(16 / 4000)
    torch.testing.assert_close(log_likelihood(model, guide, {"x": x}, 20_000), exact, atol=0.05, rtol=0)


# What every pair passes -----------------------------------------------------------------------------------------------


class TestPair(PairTests):
    num_views = 2
    elbo_samples = 30

    def make(self):
        return pair()

    def batch(self):
        return images(size=3, views=self.num_views)

    def generate(self, model):  # an image and its views are drawn together
        model(size=3)


class TestPairWithMatrices(TestPair):
    def make(self):
        return pair(latent_map="matrix", coherence="conditional", transformation_weight=2.0)


class TestPairWithOneView(TestPair):
    num_views = 1

    def make(self):
        return pair(**VIEWS["one"])


class TestPairWithThreeViews(TestPair):
    num_views = 3

    def make(self):
        return pair(**VIEWS["three"])


class TestVAE(PairTests):
    def make(self):
        return pair(VAENetworks)

    def batch(self):
        return images(size=3, views=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair()[0](x=images()["x"], views=torch.tensor(0.0)), "one row for each"),
        (lambda: pair()[0].likelihoods(), "the number of latents must be a whole number of at least 1, got 0"),
        (lambda: pair()[0].likelihoods(torch.zeros(5, 4)), "latents must be (batch, 3), got (5, 4)"),
        (lambda: pair(VAENetworks)[0].transform(torch.zeros(5, 3), torch.zeros(5, 3)), "A standard VAE has no transformation"),
        (lambda: pair()[1](x=images()["x"].double()), "images must be torch.float32 as the parameters are, got torch.float64"),
        (lambda: pair()[1](x=images()["x"], views=images()["views"].double()), "images must be torch.float32"),
        (lambda: pair()[1](x=None), "x must be a tensor, got a NoneType"),
        (lambda: pair()[1].posteriors(), "the number of batches of images must be a whole number of at least 1, got 0"),
        (lambda: pair()[1].posteriors(images()["x"], images()["x"][:, 0]), "images must be (batch, 1, 28, 28), got (5, 28, 28)"),
        (lambda: tvae_guide(sized(VAENetworks), pair()[0]), "networks must be of type TVAENetworks, got VAENetworks"),
        (lambda: tvae_guide(sized(), None), "model must be of type TVAE, got NoneType"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_an_image_has_channels():
    with pytest.raises(UsageError, match="--x-shape must be"):
        VAENetworks(x_shape=(-1, 28, 28))
