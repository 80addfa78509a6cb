"""The shipped checks must catch what they are for."""

import subprocess
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyzoo.infer import TraceKL_ELBO, analytic
from pyzoo.testing import PairTests, check_distribution, check_elbo, check_svi

pytestmark = pytest.mark.filterwarnings("ignore:.*requires_grad=False")
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
    ("make", "what"),
    [
        (WrongVariance, "the variance and samples differ by"),
        (NoGradient, "gradient of rsample with respect to scale is wrong: it differs from that of the moments by"),
        (WrongDensity, "the entropy and the log-density of samples differ by"),
    ],
)
def test_what_is_wrong_is_named(make, what):
    with pytest.raises(AssertionError, match=rf"{what} \d+\.\d standard errors"):
        check_distribution(make, PARAMS)


class Model(pyro.nn.PyroModule):
    """z ~ N(0, I), x ~ N(W z + b, 1), with W frozen."""

    def __init__(self, name="model"):
        super().__init__(name)
        self.layer = nn.Linear(2, 3)
        self.layer.weight.requires_grad_(False)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(rows), 2).to(self.scale), 1.0).to_event(1))
            return pyro.sample("x", self.likelihood(z), obs=x)

    def likelihood(self, z):
        return dist.Normal(self.layer(z), self.scale).to_event(1)


class Guide(pyro.nn.PyroModule):
    """Has batch norm, so that training moves buffers, and dropout, so that it draws what is no site."""

    def __init__(self, name="guide"):
        super().__init__(name)
        self.layer = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 4))

    def forward(self, x, size=1):
        loc, log_scale = self.layer(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            self.draw(loc, log_scale.exp())

    def draw(self, loc, scale):
        pyro.sample("z", dist.Normal(loc, scale).to_event(1), infer=analytic)


class Pair(PairTests):
    """A pair of any two classes; not collected under this name."""

    elbo_samples = 40
    model, guide = Model, Guide

    def make(self):
        return self.model(), self.guide()

    def batch(self):
        return {"x": torch.randn(5, 3)}


class TestGoodPair(Pair):
    pass


class DiscreteModel(Model):
    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)) as rows:
            z = pyro.sample("z", dist.Bernoulli(torch.full((len(rows), 2), 0.5).to(self.scale)).to_event(1))
            return pyro.sample("x", self.likelihood(z), obs=x)


class DiscreteGuide(Guide):
    def draw(self, loc, scale):
        pyro.sample("z", dist.Bernoulli(logits=loc + scale).to_event(1))


class TestDiscretePair(Pair):
    """What is drawn has no reparameterised gradient, which takes two particles."""

    model, guide = DiscreteModel, DiscreteGuide

    def elbo(self):
        return TraceKL_ELBO(num_particles=2)


class TestGuideAlone(Pair):
    """The model is a plain function, and its argument is not named as the site."""

    traceable = False

    def make(self):
        def model(images=None):
            with pyro.plate("data", 5):
                z = pyro.sample("z", dist.Normal(torch.zeros(5, 2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(5, 3), 1.0).to_event(1), obs=images)

        class ImageGuide(Guide):
            def forward(self, images):
                super().forward(images)

        return model, ImageGuide()

    def batch(self):
        return {"images": torch.randn(5, 3)}

    def generate(self, model):
        model()


def broken(model=Model, guide=Guide, **attributes):
    return type("Broken", (Pair,), {"model": model, "guide": guide, **attributes})()


SHARED = nn.Linear(2, 3)


class Borrowing(Model):
    """All instances have one layer."""

    def __init__(self):
        super().__init__()
        self.layer = SHARED


class Forgetful(Model):
    """Holds a random constant outside its state."""

    def __init__(self):
        super().__init__()
        self.shift = torch.rand(3)

    def likelihood(self, z):
        return dist.Normal(self.layer(z) + self.shift, self.scale).to_event(1)


class Counting(Model):
    """Holds a number that changes outside its state."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def likelihood(self, z):
        self.calls += 1
        return dist.Normal(self.layer(z) * self.calls, self.scale).to_event(1)


class Closed(Model):
    """Calls a layer through a function, which no deep copy follows."""

    def __init__(self):
        super().__init__()
        layer = self.layer
        self.function = lambda z: layer(z)

    def likelihood(self, z):
        return dist.Normal(self.function(z), self.scale).to_event(1)


class Single(Model):
    """Computes its likelihood in single precision."""

    def likelihood(self, z):
        return dist.Normal(self.layer(z).float(), 0.5).to_event(1)

    def forward(self, x=None, size=1):
        return super().forward(None if x is None else x.float(), size)


class OtherShape(Model):
    """Draws images of another shape than those that it scores."""

    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)) as rows:
            z = pyro.sample("z", dist.Normal(torch.zeros(len(rows), 2), 1.0).to_event(1))
            fn = self.likelihood(z)
            return pyro.sample("x", fn if x is not None else dist.Normal(self.layer(z)[:, :2], 1.0).to_event(1), obs=x)


class OtherSites(Model):
    def forward(self, x=None, size=1):
        if x is None:
            pyro.sample("y", dist.Normal(0.0, 1.0))
        return super().forward(x, size)


class Thawing(Guide):
    """A frozen parameter directly on a PyroModule, which Pyro turns trainable."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(3), requires_grad=False)

    def forward(self, x, size=1):
        super().forward(x + self.shift)


class Useless(Guide):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(3, 2)


class WrongMark(Guide):
    """Draws the second latent first, given which the first one's prior is another: its mark is wrong."""

    def draw(self, loc, scale):
        second = pyro.sample("second", dist.Normal(loc[:, 1], scale[:, 1]), infer=analytic)
        pyro.sample("first", dist.Normal(loc[:, 0] + second, scale[:, 0]))


class TwoLatents(Model):
    def forward(self, x=None, size=1):
        with pyro.plate("data", size if x is None else len(x)):
            first = pyro.sample("first", dist.Normal(torch.zeros(5), 1.0))
            second = pyro.sample("second", dist.Normal(2 * first, 0.3))
            return pyro.sample("x", self.likelihood(torch.stack([first, second], -1)), obs=x)


class Averaging(Guide):
    """Moves a buffer in evaluation too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(3))

    def forward(self, x, size=1):
        self.average.lerp_(x.mean(0), 0.1)
        super().forward(x)


class UnnamedModel(Model):
    def __init__(self):
        super().__init__("")


class UnnamedGuide(Guide):
    def __init__(self):
        super().__init__("")


class UnnamedEmpty(pyro.nn.PyroModule):
    """Has no parameters that could be shared yet."""

    def forward(self, x):
        pass


BROKEN = {
    "unnamed": (
        broken(UnnamedModel, UnnamedGuide),
        "model_and_guide_have_different_names",
        r"share the parameters 'layer.bias'|both named ''",
    ),
    "unnamed without parameters": (
        broken(UnnamedEmpty, UnnamedGuide),
        "model_and_guide_have_different_names",
        r"both named ''.*\(\"model\"\) in one",
    ),
    "unused parameter": (
        broken(guide=Useless),
        "a_plain_svi_step_moves_every_trainable_parameter",
        r"did not move: \['guide.unused.weight'",
    ),
    "frozen parameter on a PyroModule": (
        broken(guide=Thawing),
        "buffers_and_frozen_parameters_stay_what_they_are",
        r"\['guide.shift'\]; keep constants in buffers",
    ),
    "shared layer": (
        broken(Borrowing),
        "a_second_instance_trains_too",
        r"made by make\(\) share parameters: \['layer.weight'",
    ),
    "other shape": (
        broken(OtherShape),
        "generation_and_scoring_agree_in_shape",
        r"'x' has shape \(5, 3\) in scoring and \(5, 2\) in generation",
    ),
    "other sites": (broken(OtherSites), "generation_and_scoring_agree_in_shape", r"only in generation: \['y'\]"),
    "no generation": (
        broken(generate=lambda self, model: model(x=torch.zeros(5, 3))),
        "generation_and_scoring_agree_in_shape",
        r"does not draw \['x'\]",
    ),
    "closure": (broken(Closed), "a_deep_copy_gives_the_same_loss", r"other gradients: \['model.layer.bias'\]"),
    "constant outside the state": (
        broken(Forgetful),
        "a_saved_state_gives_the_same_loss",
        "a second instance with the saved state gives the loss",
    ),
    "single precision": (broken(Single), "float64_works", "'x' of a float64 pair is torch.float32"),
    "counter and resume": (broken(Counting), "resuming_is_exact", r"other values than without a break: \['model.layer.bias'"),
    "counter and trace": (broken(Counting), "eager_and_traced_steps_agree", "a traced step gives the loss"),
    "buffer moves": (
        broken(guide=Averaging),
        "evaluation_leaves_the_state_unchanged",
        r"evaluation changes \['guide.average'\]",
    ),
    "wrong mark": (
        broken(TwoLatents, WrongMark, elbo_samples=300),
        "analytic_marks_are_valid",
        "is each analytic mark of the guide valid",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_pair_fails(fault):
    pair, test, message = BROKEN[fault]
    with pytest.raises(AssertionError, match=message):
        getattr(pair, f"test_{test}")()


@pytest.mark.parametrize("switch", ["traceable", "analytic_marks"])
def test_a_switch_skips(switch):
    test = {"traceable": "test_eager_and_traced_steps_agree", "analytic_marks": "test_analytic_marks_are_valid"}[switch]
    with pytest.raises(pytest.skip.Exception, match=f"{switch} is False"):
        getattr(broken(**{switch: False}), test)()


def test_a_pair_must_be_given():
    for method in (PairTests().make, PairTests().batch):
        with pytest.raises(NotImplementedError, match="def "):
            method()


X = {"x": torch.ones(5, 3)}
STRANGE = {
    "make returns nothing": ({"make": lambda: None}, "A pair must be a model and its guide, got None"),
    "make returns the model alone": ({"make": lambda: Model()}, "A pair must be a model and its guide, got Model"),
    "make returns three": ({"make": lambda: (Model(), Guide(), 1)}, "A pair must be a model and its guide, got "),
    "make returns classes": ({"make": lambda: (Model, Guide)}, "The model must be a module or a function, got <class"),
    "a guide that is none": ({"make": lambda: (Model(), None)}, "The guide must be a module or a function, got None"),
    "nothing to train": ({"make": lambda: (lambda x: None, lambda x: None)}, "Neither program has a parameter to train"),
    "no batch": ({"batch": lambda: None}, "batch must be of type Mapping, got NoneType"),
    "a batch of nothing": ({"batch": dict}, "The batch must hold a tensor, and holds none"),
    "a batch of another name": (
        {"batch": lambda: {"y": torch.ones(5, 3)}},
        "does not take the batch: .*unexpected keyword argument 'y'",
    ),
    "a batch with one more": (
        {"batch": lambda: {**X, "y": torch.ones(5)}},
        "does not take the batch: .*unexpected keyword argument 'y'",
    ),
    "a batch by numbers": (
        {"batch": lambda: {0: torch.ones(5, 3)}},
        r"The batch must hold tensors by the names of arguments, got \[0\]",
    ),
    "an empty batch": ({"batch": lambda: {"x": torch.ones(0, 3)}}, r"'x' of the batch must not be empty, got \(0, 3\)"),
}
TESTS = sorted(name for name in dir(PairTests) if name.startswith("test_"))


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_pair_or_no_batch_is_named_by_each_test(strange):
    methods, message = STRANGE[strange]
    made = {name: (lambda self, method=method: method()) for name, method in methods.items()}
    pair = type("Strange", (PairTests,), {"make": lambda self: (Model(), Guide()), "batch": lambda self: X, **made})()
    for test in TESTS:
        with pytest.raises(ValueError, match=message):
            getattr(pair, test)()


def test_an_elbo_that_is_none_is_named():
    methods = {"make": lambda self: (Model(), Guide()), "batch": lambda self: X, "elbo": lambda self: None}
    with pytest.raises(ValueError, match=r"what elbo\(\) returns must be of type ELBO, got NoneType"):
        type("Strange", (PairTests,), methods)().test_float64_works()


@pytest.mark.parametrize("check", [check_svi, check_elbo])
@pytest.mark.parametrize(
    ("model", "guide", "batch", "message"),
    [
        (None, Guide(), X, "The model must be a module or a function, got None"),
        (Model(), Guide, X, "The guide must be a module or a function, got <class"),
        (Model(), Guide(), [X["x"]], "batch must be of type Mapping, got list"),
        (Model(), Guide(), {"y": X["x"]}, "does not take the batch"),
        (Model(), Guide(), {"x": torch.ones(0, 3)}, "'x' of the batch must not be empty"),
    ],
)
def test_checks_name_what_is_no_pair_or_no_batch(check, model, guide, batch, message):
    with pytest.raises(ValueError, match=message):
        check(model, guide, batch)


@pytest.mark.parametrize(
    ("make", "params", "message"),
    [
        (None, PARAMS, "make must be of type Callable, got NoneType"),
        (lambda loc, scale: None, PARAMS, "what make returns must be of type TorchDistributionMixin, got NoneType"),
        (dist.Normal, None, "params must be of type Mapping, got NoneType"),
        (dist.Normal, {}, "make does not take these params: .*missing 2 required"),
        (dist.Normal, {"mean": torch.zeros(3)}, "make does not take these params: .*unexpected keyword argument 'mean'"),
        (dist.Normal, {"loc": 0.0, "scale": 1.0}, "loc must be a tensor, got a float"),
        (
            dist.Normal,
            {"loc": torch.zeros(()), "scale": torch.ones(())},
            r"a batch dimension that is not empty, got batch shape \(\)",
        ),
        (dist.Normal, {"loc": torch.zeros(0), "scale": torch.ones(0)}, r"that is not empty, got batch shape \(0,\)"),
        (dist.Bernoulli, {"probs": torch.rand(3)}, "make must return a continuous distribution"),
    ],
)
def test_the_check_of_a_distribution_names_what_is_none(make, params, message):
    with pytest.raises(ValueError, match=message):
        check_distribution(make, params)


@pytest.mark.parametrize("check", [check_svi, check_elbo])
def test_a_parameter_that_never_trains_is_found(check):
    message = r"share the parameters 'layer.weight', 'layer.bias': call super\(\).__init__\(\"model\"\) in one"
    with pytest.raises(AssertionError, match=message):
        check(SameModel(), SameGuide(), {"x": torch.ones(1)})


class Same(pyro.nn.PyroModule):
    """Unnamed, as a model should not be: model and guide share the entry 'layer.weight' of Pyro's store."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)


class SameModel(Same):
    def forward(self, x):
        z = pyro.sample("z", dist.Normal(self.layer(x).sum(), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x.sum())


class SameGuide(Same):
    def forward(self, x):
        pyro.sample("z", dist.Normal(self.layer(x).sum(), 1.0))


def test_what_never_trains_is_what_the_error_says():
    model, guide = SameModel(), SameGuide()
    before = [model.layer.weight.item(), guide.layer.weight.item()]
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(x=torch.ones(1))
    assert [model.layer.weight.item() == before[0], guide.layer.weight.item() == before[1]] == [True, False]


def test_check_svi_lets_frozen_parameters_be():
    check_svi(Model(), Guide(), {"x": torch.randn(5, 3)})
    with pytest.raises(AssertionError, match="became trainable"):
        check_svi(Model(), Thawing(), {"x": torch.randn(5, 3)})


def test_importing_the_checks_does_not_import_pytest():
    code = "import sys, pyzoo.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
