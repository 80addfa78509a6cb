import contextlib
import copy
import gc
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyzoo.infer import NegativeELBO, TracedStep, TraceKL_ELBO, parameter_store
from pyzoo.infer.parameter_store import name_conflict, require_separate_parameters, without_parameter_store

X = torch.tensor([[0.5], [-1.0]])


class Model(PyroModule):
    def __init__(self, name="", layer=None):
        super().__init__(name)
        self.layer = nn.Linear(1, 1) if layer is None else layer

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.layer(z), 1.0).to_event(1), obs=x)


class Guide(Model):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.layer(x), 1.0).to_event(1))


ENTRIES = ["terms", "loss_and_terms", "loss", "loss_and_grads", "differentiable_loss"]
MESSAGE = (
    "Model and guide are PyroModules of one name and share the parameters 'layer.weight', 'layer.bias': "
    'call super().__init__("model") in one and super().__init__("guide") in the other.'
)


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(("name", "shown"), [("", "layer"), ("pair", "pair.layer")])
def test_every_entry_refuses_a_pair_of_one_name(name, shown, entry, vectorize):
    elbo = TraceKL_ELBO(num_particles=2, vectorize_particles=vectorize)
    with pytest.raises(ValueError, match="share") as error:
        getattr(elbo, entry)(Model(name), Guide(name), X)
    assert str(error.value) == MESSAGE.replace("'layer", f"'{shown}")


def test_as_a_module_and_in_a_training_loss():
    for loss in (lambda: TraceKL_ELBO()(Model(), Guide())(X), lambda: NegativeELBO(Model(), Guide())(x=X)):
        with pytest.raises(ValueError, match="share"):
            loss()


def test_names_that_differ_are_fine():
    assert TraceKL_ELBO().loss(Model("model"), Guide("guide"), X) > 0
    assert TraceKL_ELBO().loss(Model("model"), Guide(), X) > 0


def test_a_layer_that_both_hold_is_fine():
    layer = nn.Linear(1, 1)
    model, guide = Model(layer=layer), Guide(layer=layer)
    before = layer.weight.item()
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), TraceKL_ELBO()).step(X)
    assert layer.weight.item() != before
    guide.head = nn.Linear(1, 1)
    assert name_conflict(model, guide) is None
    model.head = nn.Linear(1, 1)
    assert "'head.weight', 'head.bias':" in name_conflict(model, guide)


def test_functions_and_plain_modules_are_fine():
    class Plain(nn.Linear):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(super().forward(x), 1.0).to_event(1))

    model = Model()
    assert TraceKL_ELBO().loss(lambda x: model(x), Guide(), X) > 0
    assert TraceKL_ELBO().loss(model, Plain(1, 1), X) > 0
    assert name_conflict(Plain(1, 1), Plain(1, 1)) is None


def test_many_names_are_cut_short():
    stack = [nn.Sequential(*(nn.Linear(1, 1) for _ in range(4))) for _ in range(2)]
    message = name_conflict(Model(layer=stack[0]), Guide(layer=stack[1]))
    assert "'layer.0.weight', 'layer.0.bias', 'layer.1.weight', and 5 more:" in message
    assert "\n" not in message


class Direct(PyroModule):
    """Parameters of all kinds that a PyroModule can hold, and a PyroModule in it."""

    def __init__(self, name=""):
        super().__init__(name)
        self.loc = nn.Parameter(torch.zeros(()))
        self.scale = PyroParam(torch.ones(()), dist.constraints.positive)
        self.child = PyroModule[nn.Linear](1, 1)


class DirectModel(Direct):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.loc + self.child(z), self.scale).to_event(1), obs=x)


class DirectGuide(Direct):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc + self.child(x), self.scale).to_event(1))


def test_direct_constrained_and_nested_parameters():
    assert name_conflict(Direct("model"), Direct("guide")) is None
    message = name_conflict(Direct(), Direct())
    assert all(f"'{name}'" in message for name in ("loc", "scale", "child.weight")), message


def test_a_nested_module_that_was_converted_in_place():
    def converted(name):
        module = Model(name)
        pyro.nn.module.to_pyro_module_(module.layer)
        return module

    assert name_conflict(converted("model"), converted("guide")) is None
    assert "'layer.weight'" in name_conflict(converted(""), converted(""))


def test_a_wrapped_guide():
    class Wrapper(nn.Module):
        def __init__(self, guide):
            super().__init__()
            self.guide = guide

    assert name_conflict(Model(), Wrapper(Guide())) == MESSAGE
    assert name_conflict(Model("model"), Wrapper(Guide("guide"))) is None


def test_frozen_layers_are_not_stored_and_fine():
    model, guide = Model(), Guide()
    for p in guide.parameters():
        p.requires_grad_(False)
    assert name_conflict(model, guide) is None


@pytest.mark.parametrize("names", [("", ""), ("model", "guide"), ("", "guide"), ("same", "same")])
@pytest.mark.parametrize("kinds", [(Model, Guide), (DirectModel, DirectGuide)])
def test_refuses_exactly_what_pyro_does_not_train(kinds, names):
    model, guide = (kind(name) for kind, name in zip(kinds, names, strict=True))
    message = name_conflict(model, guide)
    parameters = [*model.parameters(), *guide.parameters()]
    before = [p.detach().clone() for p in parameters]
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(X)
    moved = [not torch.equal(p, old) for p, old in zip(parameters, before, strict=True)]
    assert all(moved) == (message is None)


def test_local_parameters_are_not_shared():
    with pyro.settings.context(module_local_params=True):
        assert TraceKL_ELBO().loss(Model(), Guide(), X) > 0


def test_a_pair_is_checked_once_while_it_exists(monkeypatch):
    calls = []
    monkeypatch.setattr(parameter_store, "name_conflict", lambda *pair: calls.append(pair) or None)
    gc.collect()  # pairs that earlier tests have left
    model, guide = Model("model"), Guide("guide")
    count = len(parameter_store._SEPARATE)
    for _ in range(3):
        require_separate_parameters(model, guide)
        TraceKL_ELBO().loss(model, guide, X)
    assert len(calls) == 1
    require_separate_parameters(model, Guide("guide"))
    assert len(calls) == 2
    calls.clear()
    del model, guide
    gc.collect()
    assert len(parameter_store._SEPARATE) == count


def test_the_elbo_can_be_copied_and_pickled_after_a_check():
    model, guide = Model("model"), Guide("guide")
    elbo = TraceKL_ELBO(kl_weights={"z": 0.5})
    torch.manual_seed(0)
    expected = elbo.loss(model, guide, X)
    for other in (copy.deepcopy(elbo), pickle.loads(pickle.dumps(elbo))):
        torch.manual_seed(0)
        assert other.loss(model, guide, X) == expected
    both = copy.deepcopy(NegativeELBO(model, guide))
    assert torch.isfinite(both(x=X)[0])


def test_a_step_can_be_traced():
    module = NegativeELBO(Model("model"), Guide("guide"))
    loss, _ = TracedStep(module)({"x": X})
    assert torch.isfinite(loss)
    layer = nn.Linear(1, 1)
    shared = NegativeELBO(Model(layer=layer), Guide(layer=layer))
    parameters = dict(shared.named_parameters())
    with pyro.validation_enabled(False):
        make_fx(lambda p, x: torch.func.functional_call(shared, p, kwargs={"x": x})[0])(parameters, X)
    with pytest.raises(ValueError, match="share"):
        TracedStep(NegativeELBO(Model(), Guide()))({"x": X})


# Without the store ----------------------------------------------------------------------------------------------------


def announced(module, *args):
    with pyro.poutine.trace(param_only=True) as found:
        module(*args)
    return sorted(found.trace.nodes.keys() - {"_INPUT", "_RETURN"})


def test_without_the_store_the_numbers_are_the_same():
    model, guide = Model("model"), Guide("guide")
    pair = nn.ModuleList([model, guide])
    losses, gradients = [], []
    for context in (contextlib.nullcontext(), without_parameter_store(pair)):
        torch.manual_seed(0)
        with context:
            loss = TraceKL_ELBO().differentiable_loss(model, guide, X)
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, list(pair.parameters())))
    assert torch.equal(*losses)
    assert all(map(torch.equal, *gradients))


def test_a_training_loss_leaves_the_store_empty():
    model, guide = Model("model"), Guide("guide")
    pyro.clear_param_store()
    NegativeELBO(model, guide)(x=X)
    assert not list(pyro.get_param_store().keys())
    assert announced(model, X) == ["model.layer$$$bias", "model.layer$$$weight"]  # afterwards as before


def test_it_ends_where_a_program_fails():
    guide = Guide("guide")
    with pytest.raises(TypeError), without_parameter_store(guide):
        guide()
    assert announced(guide, X) == ["guide.layer$$$bias", "guide.layer$$$weight"]


class Constrained(Model):
    def __init__(self):
        super().__init__("model")
        self.scale = PyroParam(torch.ones(()), pyro.distributions.constraints.positive)
        self.noise = PyroSample(dist.Normal(0.0, 1.0))

    def forward(self, x):
        return self.scale + self.noise, self.noise


def test_pyros_own_attributes_go_on():
    module = Constrained()
    with without_parameter_store(module), pyro.poutine.trace() as found:
        total, noise = module(X)
    assert torch.equal(total, noise + 1)  # one draw for both accesses
    assert {"model.scale", "model.noise"} <= found.trace.nodes.keys()
