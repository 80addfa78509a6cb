"""Every function that takes integers takes every integer type, and says in its own words what it refuses."""

import math
import re

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from pyzoo.checks import (
    as_device,
    as_indices,
    num_rows,
    require_batch,
    require_broadcast,
    require_count,
    require_kind,
    require_number,
    require_pair,
    require_same_type,
    require_shape,
    require_sizes,
)
from pyzoo.data.affnist import at_mnists_size
from pyzoo.data.colors import Colors
from pyzoo.data.files import ImageData, write_npz
from pyzoo.data.images import Epochs, ImageSource
from pyzoo.data.multimodal import ImagePartner, Label, PairSet, PairSource, load_pairs
from pyzoo.data.sines import Sines
from pyzoo.data.street_numbers import street_numbers
from pyzoo.data.transformations import Affine, AugmentedSource, Composition, Crop, ViewSource
from pyzoo.distributions import CorrelatedNormal, WeightedProductOfExperts, dual_geometric_jensen_shannon
from pyzoo.evaluation import class_probabilities, posterior_means, site_terms, train_classifier
from pyzoo.infer import (
    AtMean,
    FixedMask,
    NegativeELBO,
    RelaxedMask,
    TraceKL_ELBO,
    aggregate_log_prob,
    distortion,
    evaluating,
    gaussian_kernel,
    log_likelihood,
    rate,
    total_correlation,
)
from pyzoo.models.compvae import SinesNetworks
from pyzoo.models.graph_vae import GraphVAENetworks
from pyzoo.models.tvae import TVAENetworks
from pyzoo.nn import scale_from_log_variance
from pyzoo.random import seeded
from pyzoo.settings import Above, AtMost, hints
from pyzoo.testing import check_distribution, check_elbo
from pyzoo.training import Schedule, constant, linear

INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64]
IMAGES = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)


def generator():
    return torch.Generator().manual_seed(0)


def pairs(labels):
    partner = ImagePartner("next", IMAGES, labels, offset=1)
    set_of_pairs = PairSet(IMAGES, labels, partner)
    return torch.cat([view.flatten() for view in set_of_pairs.views(slice(None), generator()).values()])


def compvae(labels):
    torch.manual_seed(0)
    networks = SinesNetworks(w_dim=8, z_dim=3, graph_widths=(8,), prior_width=8, decoder_width=40, encoder_width=40)
    model = networks.model()
    guide = networks.guide(model)
    parts = labels.view(2, 5)
    return torch.cat([model(parts=parts), guide(parts=parts, x=torch.zeros(2, 200)) or torch.zeros(0, 200)])


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize(
    "function", [lambda labels: street_numbers(labels, generator()), lambda labels: Label()(labels, generator()), pairs, compvae]
)
def test_every_integer_type_gives_the_same(function, dtype):
    labels = torch.tensor([9, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    torch.manual_seed(0)
    expected = function(labels)
    torch.manual_seed(0)
    assert torch.equal(function(labels.to(dtype)), expected)


@pytest.mark.parametrize("labels", [torch.tensor([1.0]), torch.tensor([True]), torch.tensor(1), torch.zeros(2, 2).long()])
def test_what_is_no_list_of_integers_is_refused_by_name(labels):
    for function in (lambda x: as_indices(x, "labels"), lambda x: street_numbers(x, generator()), lambda x: Label()(x, None)):
        with pytest.raises(ValueError, match="labels must be integers in 1 dimension, got torch"):
            function(labels)


# What is refused is refused in the library's own words -----------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -3, 2.5, True, math.nan, None, "2"])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(ValueError, match="size must be a whole number of at least 1, got "):
        require_count(value, "size")
    require_count(np.int64(3), "size")


@pytest.mark.parametrize("value", [math.nan, math.inf, True, None, "1"])
def test_a_number_is_finite(value):
    with pytest.raises(ValueError, match="scale must be a finite number, got "):
        require_number(value, "scale")


def test_numbers_within_limits():
    require_number(0.5, "share", Above(0), AtMost(1))
    with pytest.raises(ValueError, match=r"share must be positive and at most 1, got 1\.5"):
        require_number(1.5, "share", Above(0), AtMost(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: as_device("nope"), "device must be one that torch knows, such as 'cpu' or 'cuda', got 'nope'"),
        (lambda: num_rows([1.0], 1), "x must be a tensor, got a list"),
        (lambda: require_batch(None), "batch must be of type Mapping, got NoneType"),
        (lambda: require_batch({"x": [0.0]}), "'x' of batch must be a tensor, got a list"),
        (lambda: require_batch({}), "must have the examples along their first dimension, got sizes []"),
        (lambda: require_batch({"x": torch.tensor(1.0)}), "along their first dimension, and one has no dimension"),
        (lambda: require_broadcast(q=(2,), p=(3,)), "q and p must be of shapes that broadcast, got (2,) and (3,)"),
        (lambda: require_kind(3, "text", str), "text must be of type str, got int"),
        (lambda: require_pair(5.0, "share"), "share must be two numbers, got 5.0"),
        (lambda: require_pair("ab", "share"), "share must be two numbers, got 'ab'"),
        (lambda: require_sizes((2,), "shape", 2), "shape must be 2 whole numbers, got (2,)"),
        (lambda: require_sizes("23", "shape"), "shape must be a sequence of whole numbers, got '23'"),
    ],
)
def test_checks_name_what_they_refuse(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_a_tensor_has_the_type_of_the_parameters_if_it_has_a_floating_point_type():
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"x must be torch\.float32 as the parameters are, got torch\.float16"):
        require_same_type(torch.zeros(2).half(), "x", layer)
    require_same_type(torch.zeros(2).long(), "x", layer)  # an embedding takes these
    require_same_type(torch.zeros(2).double(), "x", torch.nn.Flatten())
    with torch.autocast("cpu", torch.bfloat16):
        require_same_type(torch.zeros(2).bfloat16(), "x", layer)


@pytest.mark.parametrize("shape", [(5, 28, 28), (5, 1, 28, 27), (), (5, 1, 28, 28, 1)])
def test_a_shape_is_named_with_its_axes(shape):
    with pytest.raises(ValueError, match=re.escape(f"x must be (batch, 1, 28, 28), got {shape}")):
        require_shape(torch.zeros(shape), "x", ("batch", 1, 28, 28))


def test_an_axis_with_nothing_is_named():
    with pytest.raises(ValueError, match=re.escape("x must have one or more along 'batch', got the shape (0, 1, 28, 28)")):
        require_shape(torch.zeros(0, 1, 28, 28), "x", ("batch", 1, 28, 28))


def test_an_axis_that_another_argument_has_decided():
    require_shape(torch.zeros(5, 2), "y", ("batch", 2), batch=5)
    with pytest.raises(ValueError, match=re.escape("y must be (batch, 2) with batch 4, got (5, 2)")):
        require_shape(torch.zeros(5, 2), "y", ("batch", 2), batch=4)


def test_values_are_read_only_while_pyro_validates():
    classes = torch.tensor([0, 7])
    with pytest.raises(ValueError, match="labels must be from 0 to 4, got 0 to 7"):
        as_indices(classes, "labels", below=5)
    with pyro.validation_enabled(False):
        assert torch.equal(as_indices(classes, "labels", below=5), classes)


SINES = SinesNetworks(w_dim=8, z_dim=3, graph_widths=(8,), prior_width=8, decoder_width=40, encoder_width=40)
TVAE = TVAENetworks(z_dim=3, encoder_channels=(4, 4, 4, 4), decoder_channels=(4, 4, 4, 4), hidden_dim=8)
GRAPH = GraphVAENetworks(nodes=2, latent_dim=4, structure="full", x_shape=(1, 6, 6), widths=(8,), hidden_dim=8)
X, PARTS = torch.zeros(2, 200), torch.zeros(2, 3, dtype=torch.int64)
Q = dist.Normal(torch.zeros(4, 2), 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SINES.model()(parts=PARTS - 1), "parts must be from 0 to 9, got -1 to -1"),
        (lambda: SINES.model()(parts=PARTS, x=X[:, :1]), "x must be (batch, 200) with batch 2, got (2, 1)"),
        (lambda: SINES.model()(parts=PARTS[:, :0]), "parts must have one or more along 'parts', got the shape (2, 0)"),
        (lambda: SINES.guide(SINES.model())(parts=PARTS, x=X[0]), "x must be (batch, 200), got (200,)"),
        (lambda: SINES.guide(SINES.model())(parts=PARTS, x=X.long()), "x must be of a floating-point type, got torch.int64"),
        (lambda: TVAE.model()(x=torch.zeros(5, 28, 28)), "x must be (batch, 1, 28, 28) with batch 5, got (5, 28, 28)"),
        (lambda: TVAE.model()(size=0), "size must be a whole number of at least 1, got 0"),
        (lambda: GRAPH.model()(x=torch.zeros(0, 1, 6, 6)), "The number of rows of x must be a whole number of at least 1"),
        (lambda: GRAPH.model()(size=1), "Batch norm needs two or more examples in training mode"),
        (lambda: aggregate_log_prob(Q, torch.zeros(4, 2), dataset_size=3), "dataset_size must be a whole number of at least 4"),
        (lambda: total_correlation(Q, torch.zeros(4, 2), [[0], [0]]), "groups must hold each of the features 0 to 1 once"),
        (lambda: distortion(Q, torch.zeros(4)), "x must be of the shape of p's draws, (4, 2), got (4,)"),
        (lambda: rate(Q, Q, torch.ones(2, 2, dtype=torch.bool)), "mask must be (batch,) with batch 4, got (2, 2)"),
        (lambda: gaussian_kernel(torch.zeros(2, dtype=torch.uint8), torch.ones(2)), "x must be of a floating-point type"),
        (lambda: FixedMask(torch.full((2, 1), 7.0)), "edges must be zeros and ones"),
        (lambda: TraceKL_ELBO(2.5), "num_particles must be a whole number of at least 1, got 2.5"),
        (lambda: TraceKL_ELBO(1, {"z": -1.0}), "at least 0, got -1.0"),
        (lambda: NegativeELBO(SINES.model(), SINES.model(), {"z": 1.0}, site_weights={"z": 2.0}), "two weights for the site 'z'"),
        (lambda: scale_from_log_variance(X, -1.0), "floor must be at least 0, got -1.0"),
        (lambda: linear(0, 1, steps=-5), "steps must be at least 0, got -5"),
        (lambda: Colors(lambda step: 4, gamma=0.0), "gamma must be positive, got 0.0"),
        (lambda: Colors(lambda step: 4).draw(0, 2, seed=0), "size must be a whole number of at least 1, got 0"),
        (lambda: Sines(lambda step: 0).batch(0, 4), "max_parts must be a whole number of at least 1, got 0"),
        (lambda: Label(3)(torch.tensor([3]), generator()), "labels must be from 0 to 2, got 3 to 3"),
        (lambda: Epochs(5).rows(0, -1), "size must be a whole number of at least 1, got -1"),
        (lambda: Crop().apply(torch.ones(1, 1, 4, 4), torch.zeros(2, 4)), "parameters must be (1, 4), got (2, 4)"),
        (lambda: seeded(0.5), "seed must be a whole number of 64 bits, got 0.5"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


PAIRS = PairSet(IMAGES, torch.arange(10), Label())
IMAGE = torch.full((10, 1, 8, 8), 255, dtype=torch.uint8)
LOC, ONE = torch.zeros(2, 3), torch.ones(2, 3)
CORRELATED = CorrelatedNormal(LOC, ONE, rho_logits=LOC)
FLAT = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
WIDE = (torch.zeros(2, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CorrelatedNormal([0.0], ONE, rho_logits=LOC), "loc must be of type Tensor or int or float, got list"),
        (
            lambda: torch.distributions.kl_divergence(CORRELATED, dist.Normal(torch.zeros(4, 3), 1.0).to_event(1)),
            "q and p must be of shapes that broadcast, got (2,) and (4,)",
        ),
        (lambda: WeightedProductOfExperts(LOC, ONE, present=True), "present must be a tensor, got a bool"),
        (lambda: WeightedProductOfExperts(LOC, ONE, dim=-2.5), "dim must be negative"),
        (lambda: WeightedProductOfExperts(LOC, ONE, prior_scale="a"), "prior_scale must be of type Tensor or Real, got str"),
        (lambda: dual_geometric_jensen_shannon(LOC, ONE, dim=-1.5), "dim must be negative and a dimension of loc"),
        (lambda: rate(Q, dist.Normal(torch.zeros(5, 2), 1.0)), "q and p must be of shapes that broadcast, got (4, 2) and (5, 2)"),
        (lambda: rate(Q, None), "p must be of type Distribution, got NoneType"),
        (lambda: aggregate_log_prob(dist.Bernoulli(torch.ones(4, 2)), torch.zeros(4, 2)), "q must be of type Normal"),
        (lambda: total_correlation(Q, torch.zeros(4, 2), [0, 1]), "each group must be of type slice or Sequence, got int"),
        (lambda: gaussian_kernel(torch.zeros(3, 4), torch.zeros(5, 4)), "x and y must be of shapes that broadcast"),
        (lambda: gaussian_kernel(LOC, ONE, "a"), "bandwidth must be positive and finite, got a"),
        (lambda: log_likelihood(None, None, 3.0), "model must be of type Callable, got NoneType"),
        (lambda: log_likelihood(print, print, 3.0), "batch must be of type Tensor or Sequence or Mapping, got float"),
        (lambda: site_terms(None, None, LOC), "batch must be of type Mapping, got Tensor"),
        (lambda: posterior_means(None, LOC, {"z"}), "batch must be of type Mapping, got Tensor"),
        (lambda: TraceKL_ELBO(1, 0.5), "kl_weights must be of type Mapping or NoneType, got float"),
        (lambda: TraceKL_ELBO(max_plate_nesting=1.5), "max_plate_nesting must be a whole number of at least 0, got 1.5"),
        (lambda: TraceKL_ELBO(1, {"z": torch.tensor(1j)}), "The weight of 'z' must be a finite number"),
        (lambda: NegativeELBO(SINES.model(), SINES.model())(x=[1.0]), "x must be of type Tensor or NoneType, got list"),
        (lambda: AtMean(None), "sites must be a collection of names, got None"),
        (lambda: evaluating(None).__enter__(), "module must be of type Module, got NoneType"),
        (lambda: FixedMask([[1.0]]), "edges must be a tensor, got a list"),
        (lambda: RelaxedMask("m", (2,)), "shape must be 2 whole numbers, got (2,)"),
        (lambda: RelaxedMask("m", (2, 3), "a"), "initial must be a finite number, got 'a'"),
        (lambda: train_classifier(lambda step: WIDE, 1, 2), "images must be torch.float32 as the parameters are"),
        (lambda: class_probabilities(FLAT, WIDE[0]), "images must be torch.float32 as the parameters are"),
        (lambda: Schedule(None, "k", constant(1.0)), "module must be of type Module, got NoneType"),
        (lambda: Schedule(FLAT, (), constant(1.0)), "buffers must name at least one buffer"),
        (lambda: Schedule(FLAT, "k", 2.0), "value must be of type Callable, got float"),
        (lambda: Colors(4), "max_parts must be of type Callable, got int"),
        (lambda: Colors(lambda step: 4, intensity=5.0), "intensity must be two numbers, got 5.0"),
        (lambda: Colors(lambda step: 4, device="nope"), "device must be one that torch knows"),
        (lambda: Colors(lambda step: 4).image(PARTS, torch.zeros(2, 3, 2).long(), X[:, :3]), "positions must be of a floating"),
        (lambda: Sines(lambda step: 4, amplitude=1.0), "amplitude must be a mean and a standard deviation, got 1.0"),
        (lambda: Epochs(5, device="nope"), "device must be one that torch knows"),
        (lambda: ImageSource(None), "images must be a tensor, got a NoneType"),
        (lambda: ImageData("a", None, IMAGE), "images must be a tensor, got a NoneType"),
        (lambda: write_npz("a.npz", None), "data must be of type ImageData, got NoneType"),
        (lambda: at_mnists_size(None), "images must be a tensor, got a NoneType"),
        (lambda: street_numbers(torch.tensor([1]), None), "generator must be of type Generator, got NoneType"),
        (lambda: ImagePartner("n", IMAGES, torch.arange(10), 0.5), "offset must be of type int, got float"),
        (lambda: load_pairs("digits-label", "test", share=0.5), "share must be two numbers, got 0.5"),
        (lambda: PairSet(IMAGES, torch.arange(10), None), "partner must be of type Partner, got NoneType"),
        (lambda: PairSource(PAIRS, device="nope"), "device must be one that torch knows"),
        (lambda: Affine(scale=1.0), "scale must be two positive numbers in increasing order, got 1.0"),
        (lambda: Affine().sample(2, None), "generator must be of type Generator, got NoneType"),
        (lambda: Affine().matrices(90.0), "rotation must be a tensor, got a float"),
        (lambda: Composition((3,)), "each family must be of type Family, got int"),
        (lambda: Composition(Affine()), "families must be of type tuple or list, got Affine"),
        (lambda: ViewSource(IMAGE, "affine"), "family must be of type Family, got str"),
        (lambda: AugmentedSource(ImageSource(IMAGE)), "views must be of type ViewSource, got ImageSource"),
        (lambda: check_distribution(dist.Normal, {"loc": 0.0}), "loc must be a tensor, got a float"),
        (lambda: check_elbo(lambda x: None, lambda x: None, {"x": IMAGE}, 2), "Neither program has a parameter to train"),
        (lambda: hints(int), "Settings are dataclasses, and int is none"),
    ],
)
def test_other_kinds_of_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_no_image_is_moved_where_there_is_none():
    assert street_numbers(torch.zeros(0, dtype=torch.int64), generator()).shape == (0, 3, 32, 32)
