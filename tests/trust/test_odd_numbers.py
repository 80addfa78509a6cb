"""Numbers at the ends of what a type can hold, and arguments of a kind that no one expects: right, or refused by name."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import LogNormal, Normal, kl_divergence

import pyzoo.plotting
from pyzoo.data.environments import EnvironmentSource, colored_images
from pyzoo.data.planted import drawn_structure
from pyzoo.distributions import (
    CorrelatedNormal,
    InvertibleMap,
    MessagePassingPrior,
    WeightedProductOfExperts,
    dual_geometric_jensen_shannon,
)
from pyzoo.evaluation import generate, pooled_r2, posterior_means, train_classifier
from pyzoo.infer import (
    BayesianNetwork,
    Information,
    LearnedInformation,
    Penalized,
    Penalty,
    Variables,
    dependence,
    environment_gain,
    gaussian_kernel,
    gradient_penalty,
    squared_mmd_to_normal,
    total_correlation,
)
from tiny import tiny

T = torch.tensor


def test_the_gradient_penalty_counts_beyond_what_half_precision_can():
    logits = torch.cat([T([[0.0, 2.0]] * 600), T([[0.0, -2.0]] * 600)])
    arguments = logits, T([[0.0, 1.0]] * 1200), torch.ones(1200, 1)
    right = gradient_penalty(*arguments)
    for dtype in (torch.bfloat16, torch.half):
        found = gradient_penalty(*(value.to(dtype) for value in arguments))
        assert found.item() == pytest.approx(right.item(), rel=0.05)
    for offset in (1e5, 1e6):
        assert gradient_penalty(logits + offset, *arguments[1:]).item() == pytest.approx(right.item(), rel=0.01)


def test_kernels_in_half_precision():
    assert gaussian_kernel(300 * torch.ones(2).half(), torch.ones(2).half(), 200.0).item() == pytest.approx(0.107, abs=0.002)
    assert squared_mmd_to_normal(T([[300.0, 0.0]]).half(), 300.0).item() == pytest.approx(
        squared_mmd_to_normal(T([[300.0, 0.0]]), 300.0).item(), abs=0.01
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("count", [64, 1000])
def test_weights_that_do_not_sum_to_one_are_refused_in_every_type(dtype, count):
    loc, scale = torch.zeros(count, 1, dtype=dtype), torch.ones(count, 1, dtype=dtype)
    dual_geometric_jensen_shannon(loc, scale)
    for total in (2.0, 0.0):
        with pytest.raises(ValueError, match="sum to 1"):
            dual_geometric_jensen_shannon(loc, scale, torch.full_like(loc, total / count))


def test_r2_of_columns_of_very_unequal_size():
    big = torch.full((2,), 1e170, dtype=torch.float64)
    target, estimate = torch.stack([T([1.0, 2.0]).double(), big], 1), torch.stack([T([9.0, 9.0]).double(), big], 1)
    assert pooled_r2(target, estimate) == pytest.approx(-225)
    ends = torch.tensor([1e308, -1e308], dtype=torch.float64)
    assert pooled_r2(ends, ends) == 1


def test_kls_beyond_all_numbers_are_infinite():
    zero = torch.zeros(3)
    wide, narrow = (CorrelatedNormal(zero, torch.full((3,), scale), rho=zero) for scale in (1e30, 1e-30))
    assert kl_divergence(wide, narrow) == math.inf
    with pytest.raises(ValueError, match="rho_logits"):
        CorrelatedNormal(zero, torch.ones(3), rho_logits=T([math.inf, 0.0, 0.0]))
    assert CorrelatedNormal(zero, torch.ones(3), rho_logits=T([-math.inf, 0.0, 0.0])).rho[0] == 0


@pytest.mark.slow
def test_a_run_is_loaded_under_another_device_by_default(tmp_path):
    settings = {name: value for name, value in tiny("mib-fair").items() if name not in ("data", "steps")}
    pyzoo.train("mib-fair", "synthetic", steps=4, out=tmp_path / "run", progress=False, figures=False, **settings)
    with torch.device("meta"):
        assert pyzoo.load(tmp_path / "run").sample(2)["x"].isfinite().all()


@pytest.mark.slow
def test_a_folder_that_is_gone_is_said(tmp_path):
    settings = {name: value for name, value in tiny("mib-fair").items() if name not in ("data", "steps")}
    run = pyzoo.train("mib-fair", "synthetic", steps=4, out=tmp_path / "run", progress=False, figures=False, **settings)
    (tmp_path / "run").rename(tmp_path / "other")
    again = pyzoo.load(tmp_path / "other")
    (tmp_path / "other").rename(tmp_path / "third")
    for call in (again.sample, again.measure, again.draw, again.train, run.train):
        with pytest.raises(ValueError, match=r"the run folder .* is gone"):
            call()


NAMES = Variables(("x", "y"), shared=("z",))
NETWORK = BayesianNetwork.parse("x, y -> z", NAMES)
PRIOR = MessagePassingPrior(3, 2)
Y = torch.zeros(4, 3, 2)


def penalized(*names):
    return Penalized(lambda: None, [Penalty(name, NETWORK, NETWORK, 1.0) for name in names])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: penalized("a.b", "a_b"), "names differ by dots alone"),
        (lambda: Penalized(3, []), "guide must be of type Callable"),
        (lambda: Penalty("a", NETWORK, NETWORK, 1.0).values(3), "beliefs must be"),
        (lambda: LearnedInformation("I(z; u)", {"z": 1}), "term must be of type Information"),
        (lambda: Information.of(1, 2), "left must be a collection of names, got 1"),
        (lambda: Information.of(["x"], [2]), "right must hold names, got 2"),
        (lambda: Variables(None), "observed must be a collection of names"),
        (lambda: Variables(("x",), private=["u"]), "private must be of type Mapping"),
        (lambda: BayesianNetwork.parse("x -> z", None), "variables must be of type Variables"),
        (lambda: BayesianNetwork(NAMES, None), "edges must be of type Iterable"),
        (lambda: NETWORK.separates(1, 2), "first must be a collection of names"),
        (
            lambda: total_correlation(Normal(torch.zeros(4, 2), 1.0), torch.zeros(4, 2), [[0, 1], []]),
            "groups must hold a feature",
        ),
        (
            lambda: total_correlation(Normal(torch.zeros(4, 2), 1.0), torch.zeros(4, 2), [[False], [True]]),
            "groups must hold each",
        ),
        (lambda: dependence(torch.full((4, 1), math.nan), torch.zeros(4, 1)), "must be finite"),
        (lambda: gradient_penalty(torch.zeros(4, 2), torch.full((4, 2), 7.0), torch.ones(4, 1)), "labels must be one-hot"),
        (
            lambda: gradient_penalty(torch.zeros(4, 2), torch.eye(2).repeat(2, 1), torch.full((4, 1), 0.5)),
            "environments must be one",
        ),
        (
            lambda: environment_gain(
                torch.zeros(4, 2), torch.zeros(4, 1), torch.eye(2).repeat(2, 1), torch.ones(4, 1), damping=-1
            ),
            "damping must be at least 0",
        ),
        (
            lambda: environment_gain(
                torch.zeros(4, 2), torch.zeros(4, 1), torch.eye(2).repeat(2, 1), torch.ones(4, 1), damping=0
            ),
            "The curvature is singular",
        ),
        (lambda: posterior_means(lambda: pyro.sample("c", dist.Categorical(torch.ones(3))), {}, ["c"]), "'c' has no mean"),
        (lambda: generate(lambda: pyro.sample("x", dist.Cauchy(0.0, 1.0))), "'x' has no mean"),
        (lambda: train_classifier(3, 1, 2), "batch must be of type Callable"),
        (lambda: train_classifier(lambda step: None, 1, 2), "what batch returns must be images and labels"),
        (lambda: colored_images(torch.zeros(9, 1, 4, 4, dtype=torch.uint8), torch.arange(9), 9, ()), "the number of color_flips"),
        (
            lambda: colored_images(torch.zeros(9, 1, 4, 4, dtype=torch.uint8), torch.arange(9), 9, grayscale="no"),
            "grayscale must be True or False, got 'no'",
        ),
        (lambda: EnvironmentSource(3), "colored must be of type ColoredImages"),
        (lambda: drawn_structure(4, 2, 2, 0, environment="no"), "environment must be True or False"),
        (lambda: MessagePassingPrior(3, 2, learn="no"), "learn must be True or False, got 'no'"),
        (lambda: MessagePassingPrior(3, 2, batch_norm="no"), "batch_norm must be True or False"),
        (lambda: MessagePassingPrior(3, 2, scale=1e-320), "scale must be at least 1e-12"),
        (lambda: PRIOR.elbo(Y.double()), "y must be torch.float32 as the parameters are"),
        (lambda: PRIOR.elbo(Y[:0]), "y must be"),
        (lambda: PRIOR.latent((-1,)), "each size of batch_shape"),
        (lambda: PRIOR.posterior(Y, torch.ones(5, 3, dtype=torch.bool)), "present and y must be of shapes that broadcast"),
        (lambda: PRIOR.impute(Y, None), "present must be a tensor"),
        (lambda: PRIOR.log_prob_on_surface(torch.zeros(4, 3)), r"h must be \(..., 2\), got \(4, 3\)"),
        (lambda: PRIOR.log_prob_on_surface(torch.zeros(4, 3, 2)), "h must be"),
        (lambda: InvertibleMap(3)(torch.zeros(4, 2)), "y must be"),
        (lambda: InvertibleMap(3).inverse([1.0]), "h must be a tensor"),
        (lambda: InvertibleMap(3)(torch.zeros(4, 3).half()), "y must be torch.float32"),
        (lambda: InvertibleMap(2, batch_norm=True)(torch.zeros(1, 2)), "Batch normalization needs two rows"),
        (lambda: CorrelatedNormal(torch.zeros(3).to_sparse(), torch.ones(3), rho=torch.zeros(3)), "loc must be a dense tensor"),
        (lambda: WeightedProductOfExperts(torch.zeros(1, 2, 1), torch.ones(1, 2, 1), T([[[1.000001]]] * 1)), "got 1.000001 to"),
        (lambda: dual_geometric_jensen_shannon(torch.zeros(2, 1), torch.ones(2, 1), dim=True), "dim must be negative"),
        (lambda: pyzoo.train("vae", data="x" * 5000 + ".npz"), "File name too long"),
        (lambda: pyzoo.train("mib-fair", data="x" * 5000 + ".csv", target="a", sensitive="b"), "File name too long"),
        (lambda: pyzoo.training.Run(None), "path must be of type str or Path"),
        (lambda: pyzoo.training.Run.create(None, "small"), "recipe must be of type Recipe"),
    ],
)
def test_what_is_refused_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_posteriors_that_are_not_normal_are_not_joined():
    from pyzoo.infer import Beliefs

    beliefs = Beliefs({"z": torch.ones(4, 1)}, {frozenset({"x"}): {"z": LogNormal(torch.zeros(4, 1), 1.0)}})
    with pytest.raises(ValueError, match="the posterior of 'z' must be of type Normal, got LogNormal"):
        beliefs.joined(["z"])


def test_seeds_of_numpy_are_the_same_seeds():
    import numpy as np

    from pyzoo.data.scenes import SceneSource, tetrominoes

    plain = SceneSource(tetrominoes, seed=3).batch(5, 2)["x"]
    assert torch.equal(plain, SceneSource(tetrominoes, seed=np.int64(3)).batch(np.int64(5), np.int64(2))["x"])
    for bad in ({"seed": 1.5}, {"split": None}):
        with pytest.raises(ValueError, match="must be whole numbers and names"):
            SceneSource(tetrominoes, **bad).batch(0, 2)


def test_errors_in_a_program_stay_one_line():
    from pyzoo.infer import TraceKL_ELBO

    def model(x):
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Normal(0.0, 1.0))
        raise ValueError("someone's own words")

    with pytest.raises(ValueError, match=r"^someone's own words$"):
        TraceKL_ELBO().loss(model, lambda x: model(x), x=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_pieces": 7}, "--num-pieces must be at most 6"),
        ({"num_pieces": 5, "relation": "place"}, "--num-pieces must be at most 4"),
        ({"image_size": 8}, "--image-size must be a whole number of at least 14"),
        ({"attention_channels": (4,) * 5}, "too small for 5 --attention-channels"),
        ({"evaluation_scenes": 10**11}, "--evaluation-scenes must be"),
    ],
)
def test_settings_of_scenes_are_refused_before_training(tmp_path, settings, message):
    from pyzoo.errors import UsageError

    small = {name: value for name, value in tiny("monet").items() if name != "data"}
    with pytest.raises(UsageError, match=message):
        pyzoo.train("monet", out=tmp_path / "run", progress=False, **{**small, **settings})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_single_sprite_and_relations_at_the_ends_of_their_scale(tmp_path):
    from pyzoo.errors import UsageError

    small = {name: value for name, value in tiny("mpp-monet").items() if name not in ("data", "steps", "num_pieces")}
    run = pyzoo.train("mpp-monet", data="sprites", num_pieces=1, steps=2, out=tmp_path / "run", progress=False, **small)
    assert run.metrics
    for settings in ({"relation_scale": 1e13}, {"batch_norm": True, "batch_size": 1}):
        with pytest.raises(UsageError, match=r"--relation-scale must be|--batch-size must be at least 2"):
            pyzoo.train("mpp-monet", steps=2, out=tmp_path / "other", progress=False, **{**small, **settings})


def edited(run, section, **changes):
    import json

    file = run.path / "config.json"
    config = json.loads(file.read_text())
    config[section].update(changes)
    file.write_text(json.dumps(config))


def test_a_run_does_not_go_on_with_other_data_or_a_setting_in_the_wrong_place(tmp_path):
    small = {name: value for name, value in tiny("monet").items() if name not in ("data", "steps", "num_pieces")}
    run = pyzoo.train("monet", num_pieces=2, steps=2, out=tmp_path / "run", progress=False, figures=False, **small)
    edited(run, "settings", data="sprites")
    with pytest.raises(ValueError, match=r"the data of .* have changed"):
        pyzoo.load(run.path).train()
    edited(run, "settings", data="tetrominoes", z_dim=7)
    with pytest.raises(ValueError, match="'z_dim' among the settings and among the networks"):
        pyzoo.load(run.path).train()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pyzoo.infer.AtMean("zw"), "sites must be a collection of names"),
        (lambda: pyzoo.infer.EnvironmentGain(None, "z", "e"), "given must be a collection of names"),
        (lambda: Penalty("", NETWORK, NETWORK), "A penalty needs a name"),
        (lambda: pyzoo.infer.TraceKL_ELBO(vectorize_particles="no"), "vectorize_particles must be True or False"),
        (lambda: pyzoo.infer.TracedStep(torch.nn.Linear(1, 1), compiled="no"), "compiled must be True or False"),
        (lambda: pyzoo.training.Objective(torch.nn.Linear(1, 1), print, clip_norm=-1), "clip_norm must be positive"),
        (lambda: pyzoo.training.Objective(print, print), "module must be of type Module"),
        (lambda: PRIOR.latent(5), "batch_shape must be a sequence"),
        (lambda: CorrelatedNormal(torch.zeros(3), 10**400, rho=torch.zeros(3)), "scale must be a finite number"),
    ],
)
def test_more_that_is_refused_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_text_is_one_name():
    assert Information.of("z1", "x1") == Information.of(["z1"], ["x1"])


def _colored():
    return colored_images(torch.zeros(9, 1, 4, 4, dtype=torch.uint8), torch.arange(9), 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _colored().rows(T([99])), "chosen must be"),
        (lambda: _colored().rows(T([0.5])), "chosen must be integers"),
        (lambda: _colored().rows(torch.ones(3, dtype=torch.bool)), r"A mask of 9 images must be \(9,\)"),
        (lambda: pyzoo.data.environments.views_of(_colored(), 1), "environments must be"),
        (lambda: pyzoo.data.tables.Split(torch.zeros(3, 2), torch.zeros(3), torch.zeros(3).long()), "a must be integers"),
        (lambda: pyzoo.data.tables.Split(torch.zeros(3, 2), T([0, 1, 2]), torch.zeros(3).long()), "a must be"),
        (lambda: pyzoo.data.colors.Colors(lambda step: 2, margin=2.0), "margin must be"),
        (lambda: pyzoo.nn.Head(torch.nn.Linear(4, 2), slice(5, 9), 0.1), "log_variance must choose outputs"),
        (lambda: pyzoo.nn.he_initialized(torch.nn.LazyLinear(3)), "network must have no lazy layers"),
        (lambda: pyzoo.infer.rate(dist.Cauchy(torch.zeros(3), 1.0), dist.Normal(0.0, 1.0)), "no closed form of the divergence"),
        (lambda: pyzoo.infer.TraceKL_ELBO().weighted_sum([1]), "terms must be of type Mapping"),
        (lambda: pooled_r2(T([2**60, 2**60 + 1]), T([2**60, 2**60])), "whole numbers beyond 2"),
        (lambda: pyzoo.plotting.first_cells([1], 1), "each row of axes must be of type Sequence"),
        (lambda: pyzoo.plotting.loss_history([], {}, "title", window=0), "window must be"),
    ],
)
def test_even_more_that_is_refused_is_named(call, message):

    with pytest.raises(ValueError, match=message):
        call()


def test_the_gain_in_half_precision():
    z, e = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]).repeat(4, 1), torch.eye(2).repeat_interleave(8, 0)
    y = torch.eye(2).repeat_interleave(2, 0).repeat(4, 1)
    right = environment_gain(torch.zeros(16, 2), z, y, e)
    assert environment_gain(torch.zeros(16, 2).half(), z.half(), y.half(), e.half()).item() == pytest.approx(
        right.item(), abs=0.01
    )


def test_small_things_that_functions_are_given_are_named():
    from pyzoo.evaluation import class_probabilities, site_terms
    from pyzoo.guides.mib import StructuredGuide
    from pyzoo.models.mib import PairNetworks
    from pyzoo.models.tvae import TVAE
    from pyzoo.nn import Networks
    from pyzoo.plotting import figure_grid, show_curves

    _, [[axes]] = figure_grid(1, 1, "")
    cases = {
        "There is no view 'sound'": lambda: PairNetworks().kind("sound"),
        "network must be": lambda: StructuredGuide(None, {}, {}),
        "latent_map must be": lambda: TVAE(torch.nn.Linear(2, 2), 2, latent_map=5),
        "networks are described by an object": lambda: Networks.restored([1]),
        "needs an example": lambda: site_terms(lambda x: None, lambda x: None, {"x": torch.zeros(0, 2)}),
        "There is no curve 'b'": lambda: show_curves(axes, {"a": torch.zeros(3)}, 1.0, styles={"b": {}}),
        "do not fit the network": lambda: class_probabilities(torch.nn.Conv2d(1, 1, 9), torch.zeros(1, 1, 4, 4)),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_more_numbers_are_right():
    from pyzoo.data.sines import Sines
    from pyzoo.distributions import dual_geometric_jensen_shannon
    from pyzoo.evaluation import match_slots, pieces_of_slots, pooled_r2
    from pyzoo.training import linear

    far = torch.full((3, 1), 1e4)
    assert dual_geometric_jensen_shannon(far, torch.full((3, 1), 1e-3)) == 0
    assert linear(1e16, 1.0, 10)(10) == 1
    assert linear(-1.7e308, 1.7e308, 10)(5) == 0
    sines, parts = Sines(lambda step: 2, num_steps=4000), torch.tensor([[0, 3]])
    amplitudes = torch.tensor([[0.5, 1.0]])
    whole = sines.curve(parts, amplitudes, amplitudes)
    torch.testing.assert_close(sines.curve(parts, amplitudes.half(), amplitudes.half()).float(), whole, rtol=0, atol=2e-2)
    masks = torch.zeros(1, 2, 300, 300, dtype=torch.half)
    masks[:, 0] = 1
    assert match_slots(masks, torch.ones(1, 300, 300, dtype=torch.int64), 1).tolist() == [[0]]
    assert pieces_of_slots(masks, torch.ones(1, 2, 3, 300, 300, dtype=torch.half)).colors[0, 0].tolist() == pytest.approx(
        [1, 1, 1]
    )
    with pytest.raises(ValueError, match="beyond 2\\^53"):
        pooled_r2(torch.tensor([-(2**63), 1]), torch.tensor([-(2**63) + 1, 1]))
    for kind in (torch.bool, torch.uint16, torch.uint64):
        assert pooled_r2(torch.tensor([0, 1]).to(kind), torch.tensor([0, 1]).to(kind)) == 1


def test_more_arguments_are_named():
    from functools import partial

    from pyzoo.data.scenes import Scenes, has_relation
    from pyzoo.evaluation import SlotPieces, match_slots, posterior_means, reconstruct, site_terms
    from pyzoo.infer import log_likelihood
    from pyzoo.recipes.slots.probes import are_related
    from pyzoo.training import Objective, Schedule, constant, linear

    adam, layer = partial(torch.optim.Adam, lr=1.0), torch.nn.Linear(1, 1)
    holder = torch.nn.Module()
    holder.register_buffer("number", torch.zeros((), dtype=torch.half))
    masks = torch.full((1, 2, 3, 3), 0.5)
    places, flags = torch.zeros(1, 5, 2), torch.ones(1, 5, dtype=torch.bool)
    nothing = torch.zeros(1, 0, 0, dtype=torch.int64)

    class Three(torch.nn.Module):
        def precompute(self, x):
            return {"features": torch.zeros(3)}

        def forward(self, x, features):
            pass

    cases = {
        "moves must be": lambda: Objective(layer, adam, moves=3),
        "entry 0 of moves must be": lambda: Objective(layer, adam, moves=[1]),
        "must have 'params'": lambda: Objective(layer, adam, moves=[{"lr": 1}]),
        "scheduler must be": lambda: Objective(layer, adam, scheduler=3),
        "schedules must be": lambda: Objective(layer, adam, schedules=3),
        "is beyond torch.float16": lambda: Schedule(holder, "number", constant(1e6)).apply(0),
        "step must be": lambda: linear(0, 1, 10)(float("nan")),
        "model must be": lambda: site_terms(None, None, {"x": torch.zeros(2)}),
        "guide must be": lambda: posterior_means(None, {"x": torch.zeros(2)}, ["z"]),
        "guide must": lambda: reconstruct(layer, None, {"x": torch.zeros(2)}),
        "segments must be": lambda: match_slots(masks, torch.full((1, 3, 3), 9), 2),
        "segments": lambda: match_slots(masks, torch.zeros(1, 3, 3), 2),
        "at most 4 pieces": lambda: has_relation(Scenes(nothing, nothing, places, places, nothing, flags), "place"),
        "present": lambda: are_related(SlotPieces(places, places, places, None), "color", 2),
        "colors must be": lambda: are_related(SlotPieces(places, places, places, flags), "color", 2),
        "must have as many rows": lambda: log_likelihood(lambda x: None, Three(), torch.zeros(2), 1),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()


def test_still_more_arguments_are_named():
    from pyzoo.data.files import check_size
    from pyzoo.data.images import load_image_data
    from pyzoo.distributions import Deferred
    from pyzoo.infer import GECO, BayesianNetwork, Beliefs, NegativeELBO, Variables, gradient_penalty
    from pyzoo.models.monet import MONet, pixel_mixture
    from pyzoo.random import seeded
    from pyzoo.training import find_recipe, find_table

    normal, names = Normal(torch.zeros(4, 2), 1.0), Variables(("x", "y"), shared=("z",))
    network, linear = BayesianNetwork.parse("x, y -> z", names), torch.nn.Linear(1, 1)
    geco = GECO(NegativeELBO(linear, linear, {"z": 1.0}), 1.0)
    unequal = Beliefs({"z": torch.zeros(4, 2), "u": torch.zeros(3, 2)}, {("x",): {"z": normal, "u": normal}})
    cases = {
        "must broadcast": lambda: CorrelatedNormal(torch.zeros(3), torch.ones(4), rho=0.4),
        "what compute returns": lambda: Deferred(lambda: [0.0], (1,), ()).rsample(),
        "value must be a tensor": lambda: Deferred(lambda: torch.zeros(1), (1,), ()).log_prob([0.0]),
        "posteriors must be": lambda: Beliefs({}, [1]),
        "each key of posteriors": lambda: Beliefs({}, {3: {}}),
        "what posteriors hold for x": lambda: Beliefs({}, {("x",): normal}),
        "the draw of 'z'": lambda: Beliefs({"z": [1.0]}).rows,
        "one number of rows": lambda: unequal.joined(["z", "u"]),
        "names must be a collection": lambda: unequal.joined("z"),
        "logits must": lambda: gradient_penalty(torch.ones(2, 2, dtype=torch.int64), torch.eye(2), torch.ones(2, 1)),
        "the term of 'x' must be": lambda: geco.update(torch.zeros(()), {"x": torch.zeros(3)}),
        "variables must be": lambda: BayesianNetwork.from_inference_mask(None, torch.zeros(2, 1)),
        "order must be a collection": lambda: network.with_observed_connected("xy"),
        "data must be a name or a path": lambda: load_image_data(None),
        "--image-size must be a whole number from 1": lambda: check_size(10**9),
        "device must be": lambda: seeded(0, "xx"),
        "no generator on the device 'meta'": lambda: seeded(0, "meta"),
        "unknown table": lambda: find_table([]),
        "has no preset": lambda: find_recipe("vae").preset([]),
        "decoder must be": lambda: MONet(None, 3, 2),
        "log_masks must be": lambda: pixel_mixture(torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.ones(1)),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
    labels = torch.eye(2, dtype=torch.bool)
    whole = gradient_penalty(torch.eye(2), labels, torch.ones(2, 1, dtype=torch.bool))
    assert whole == gradient_penalty(torch.eye(2), labels.float(), torch.ones(2, 1))


NAN = torch.full((4, 2), math.nan)
ONE_HOT = torch.eye(2).repeat(2, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_penalty(NAN, ONE_HOT, torch.ones(4, 1)), "logits must be finite"),
        (lambda: environment_gain(torch.zeros(4, 2), NAN, ONE_HOT, torch.ones(4, 1)), "z must be finite"),
        (
            lambda: environment_gain(torch.zeros(4, 2), torch.zeros(4, 2).double(), ONE_HOT, torch.ones(4, 1)),
            "z must be torch.float32 as logits are",
        ),
        (lambda: gaussian_kernel(NAN, NAN), "x must be finite"),
        (lambda: pyzoo.infer.aggregate_log_prob(Normal(torch.zeros(4, 2), 1.0), NAN), "z must be finite"),
        (lambda: pyzoo.infer.index_information(None, torch.zeros(4, 2)), "q must be of type Normal"),
        (lambda: pyzoo.infer.MINE(2, 2)(torch.zeros(4, 2).double(), torch.zeros(4, 2)), "z must be torch.float32"),
        (lambda: pyzoo.infer.NegativeELBO(None, None), "model must be of type Callable"),
        (lambda: CorrelatedNormal(torch.zeros(0), torch.ones(0), rho=torch.zeros(0)), "one or more terms"),
        (lambda: pyzoo.training.RunFolder(None), "path must be of type Path"),
        (lambda: pyzoo.models.monet.SpatialBroadcastDecoder(3, (4,), (3, 8, 8))(torch.zeros(2, 3).double()), "z must be"),
    ],
)
def test_what_is_not_finite_or_of_another_type_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_density_at_the_mean_of_a_sum_that_is_all_but_certain():
    q = CorrelatedNormal(torch.zeros(3), torch.ones(3), rho_logits=torch.full((3,), 200.0))
    at_mean = q.log_prob(torch.zeros(3))
    assert at_mean.item() == pytest.approx(200 + math.log(3) - 1.5 * math.log(2 * math.pi), abs=1e-3)
    assert q.log_prob(torch.ones(3)) == -math.inf


def test_infinite_weights_of_absent_components_do_not_reach_the_posterior():
    present = T([True, True, False])
    expected = PRIOR.posterior(Y + 1, present).mean
    for fill in (3e38, math.nan, math.inf):
        y = Y + 1
        y[:, 2] = fill
        assert torch.equal(PRIOR.posterior(y, present).mean, expected)
        assert torch.equal(PRIOR.impute(y, present)[:, :2], y[:, :2])


def test_nothing_along_an_axis_is_said():
    with pytest.raises(ValueError, match=r"one or more along 'batch', got the shape \(0, 2\)"):
        gradient_penalty(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 1))
