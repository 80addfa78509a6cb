import copy
import math
import pickle
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from pyzoo.infer import NegativeELBO, TraceKL_ELBO, analytic

X = torch.tensor([0.5, -1.0, 2.0])


class Model(pyro.nn.PyroModule):
    """z ~ N(0, 1), y ~ N(z, 0.5), x ~ N(y, 1)."""

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            y = pyro.sample("y", dist.Normal(z, 0.5))
            pyro.sample("x", dist.Normal(y, 1.0), obs=x)


class Guide(pyro.nn.PyroModule):
    """Draws z, then y given z; y is marked if asked for. Both may be: the model draws z before y too."""

    def __init__(self, marked=("y", "z"), scale_z=0.7):
        super().__init__("guide")
        self.layer = nn.Linear(1, 2)
        self.scale_z = scale_z
        self.marked = marked

    def forward(self, x):
        loc_z, loc_y = self.layer(x.unsqueeze(-1)).unbind(-1)
        infer = {name: analytic if name in self.marked else {} for name in "yz"}
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc_z, self.scale_z), infer=infer["z"])
            pyro.sample("y", dist.Normal(loc_y + 0.5 * z, 0.6), infer=infer["y"])


@pytest.mark.parametrize("marked", [(), ("y",), ("z",), ("y", "z")])
def test_value_and_gradient_agree_with_pyros(marked):
    from pyzoo.testing import check_elbo

    check_elbo(Model("model"), Guide(marked), {"x": X}, num_samples=200)


def test_check_elbo_catches_an_invalid_mark():
    from pyzoo.testing import check_elbo

    class Backwards(Guide):
        """Draws y first: the model's distribution of y depends on the later z, so y's mark is wrong."""

        def forward(self, x):
            loc_z, loc_y = self.layer(x.unsqueeze(-1)).unbind(-1)
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.Normal(loc_y, 0.6), infer={"kl": "analytic"})
                pyro.sample("z", dist.Normal(loc_z + y, 0.3))

    with pytest.raises(AssertionError, match="analytic mark"):
        check_elbo(Model("model"), Backwards(), {"x": X}, num_samples=600)


def marked_site(infer):
    return pyro.poutine.trace(lambda: pyro.sample("z", dist.Normal(0.0, 1.0), infer=infer)).get_trace().nodes["z"]["infer"]


def test_what_inference_writes_about_a_site_does_not_reach_the_mark():
    found = marked_site(analytic)
    assert type(found) is dict
    found["enumerate"] = "parallel"
    handlers = [
        pyro.poutine.infer_config(config_fn=lambda site: {"enumerate": "parallel"}),
        pyro.poutine.uncondition(),
        pyro.poutine.markov(history=1),
    ]
    for handler in handlers:
        with handler:
            marked_site(analytic)
    Trace_ELBO().loss(Model("model"), Guide(), x=X)
    assert analytic == {"kl": "analytic"}


@pytest.mark.parametrize(
    "change",
    [
        lambda mark: mark.update(enumerate="parallel"),
        lambda mark: mark.setdefault("enumerate", "parallel"),
        lambda mark: mark.pop("kl"),
        lambda mark: mark.popitem(),
        lambda mark: mark.clear(),
        lambda mark: mark.__setitem__("kl", "sampled"),
        lambda mark: mark.__delitem__("kl"),
        lambda mark: mark.__ior__({"kl": "sampled"}),
    ],
)
def test_the_mark_cannot_be_changed(change):
    with pytest.raises(TypeError, match=r"\{\*\*analytic"):
        change(analytic)
    assert analytic == {"kl": "analytic"}


def test_the_mark_can_be_copied_extended_and_pickled():
    assert copy.copy(analytic) is copy.deepcopy(analytic) is pickle.loads(pickle.dumps(analytic)) is analytic
    assert marked_site({**analytic, "is_auxiliary": True}) == {"kl": "analytic", "is_auxiliary": True}
    other = analytic.copy()
    other["enumerate"] = "parallel"
    assert analytic == {"kl": "analytic"}


def test_terms_equal_a_hand_written_twin():
    guide = Guide()
    torch.manual_seed(3)
    terms = TraceKL_ELBO().terms(Model("model"), guide, x=X)
    torch.manual_seed(3)
    loc_z, loc_y = guide.layer(X.unsqueeze(-1)).unbind(-1)
    z = loc_z + 0.7 * torch.randn(3)
    loc_y = loc_y + 0.5 * z
    y = loc_y + 0.6 * torch.randn(3)
    kl_z = 0.5 * (0.7**2 + loc_z**2 - 1) - math.log(0.7)
    kl_y = 0.5 * (0.6**2 / 0.25 + (loc_y - z) ** 2 / 0.25 - 1) + math.log(0.5 / 0.6)
    nll = 0.5 * (X - y) ** 2 + 0.5 * math.log(2 * math.pi)
    expected = {"z": kl_z.sum(), "y": kl_y.sum(), "x": nll.sum()}
    assert list(terms) == ["z", "y", "x"]
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_terms_sum_to_the_loss_and_weights_scale_them():
    model, guide = Model("model"), Guide()
    elbo = TraceKL_ELBO(kl_weights={"z": 0.25, "y": torch.tensor(2.0)})
    torch.manual_seed(0)
    terms = elbo.terms(model, guide, x=X)
    torch.manual_seed(0)
    loss = elbo.differentiable_loss(model, guide, x=X)
    torch.testing.assert_close(loss, 0.25 * terms["z"] + 2 * terms["y"] + terms["x"])
    torch.manual_seed(0)
    assert elbo.loss(model, guide, x=X) == pytest.approx(loss.item())


@pytest.mark.parametrize("vectorize", [False, True])
def test_particles_average(vectorize):
    model, guide = Model("model"), Guide(marked=())
    many = TraceKL_ELBO(num_particles=3000, vectorize_particles=True, max_plate_nesting=1).loss(model, guide, x=X)
    few = TraceKL_ELBO(num_particles=200, vectorize_particles=vectorize, max_plate_nesting=1).loss(model, guide, x=X)
    exact = TraceKL_ELBO(num_particles=2000, vectorize_particles=True).loss(model, Guide_like(guide), x=X)
    assert many == pytest.approx(exact, abs=0.3)
    assert few == pytest.approx(exact, abs=1.0)


def Guide_like(guide):
    other = Guide()
    other.load_state_dict(guide.state_dict())
    return other


def test_plain_svi_trains():
    model, guide = Model("model"), Guide()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), TraceKL_ELBO())
    losses = [svi.step(x=X) for _ in range(200)]
    assert sum(losses[-20:]) < sum(losses[:20])
    assert svi.evaluate_loss(x=X) == pytest.approx(sum(losses[-20:]) / 20, abs=2)


def test_factors_of_model_and_guide():
    penalty = torch.tensor(3.0)

    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("penalty/model/term", -2 * penalty)
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.0))

    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0), infer={"kl": "analytic"})
        pyro.factor("penalty/guide/term", penalty, has_rsample=True)

    terms = TraceKL_ELBO().terms(model, guide)
    assert terms["penalty/model/term"] == 6
    assert terms["penalty/guide/term"] == 3  # a guide's log-factor is subtracted from the ELBO
    torch.manual_seed(0)
    ours = TraceKL_ELBO(num_particles=500).loss(model, guide)
    torch.manual_seed(0)
    assert ours == pytest.approx(Trace_ELBO(num_particles=500).loss(model, guide), rel=1e-3)


def test_scale_and_mask():
    mask = torch.tensor([True, False, True])

    def both(program):
        return pyro.poutine.scale(pyro.poutine.mask(program, mask=mask), 2.0)

    guide = Guide()
    terms = TraceKL_ELBO().terms(both(Model("model")), both(guide), x=X)
    loc_z = guide.layer(X.unsqueeze(-1))[:, 0]
    kl_z = 0.5 * (0.7**2 + loc_z**2 - 1) - math.log(0.7)
    torch.testing.assert_close(terms["z"], 2 * kl_z[mask].sum())


def test_two_scales_raise():
    with pytest.raises(ValueError, match="'z' has another scale"):
        TraceKL_ELBO().terms(Model("model"), pyro.poutine.scale(Guide(), 2.0), x=X)


def test_two_masks_raise():
    mask = torch.tensor([True, False, True])
    for other in (None, ~mask):
        guide = Guide() if other is None else pyro.poutine.mask(Guide(), mask=other)
        with pytest.raises(ValueError, match="'z' has another mask"):
            TraceKL_ELBO().terms(pyro.poutine.mask(Model("model"), mask=mask), guide, x=X)


def test_a_forgotten_to_event_raises():
    def model():
        with pyro.plate("data", 6):
            pyro.sample("x", dist.Normal(0.0, 1.0).expand([4, 6]), obs=torch.zeros(4, 6))

    with pytest.raises(ValueError, match="shape"):
        TraceKL_ELBO().terms(model, lambda: None)


@pytest.mark.parametrize("bad", [{"num_particles": 0}, {"kl_weights": {"q": 2.0}}])
def test_bad_arguments_raise(bad):
    with pytest.raises(ValueError, match=r"num_particles|'q'"):
        TraceKL_ELBO(**bad).differentiable_loss(Model("model"), Guide(), x=X)


class Coins(nn.Module):
    """Two coins behind a normal; as model and guide they are all that there is to draw."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits, dtype=torch.float64))

    def forward(self, x):
        return pyro.sample("b", dist.Bernoulli(logits=self.logits).to_event(1))


def coin_model(x):
    b = pyro.sample("b", dist.Bernoulli(torch.tensor([0.5, 0.5], dtype=torch.float64)).to_event(1))
    pyro.sample("x", dist.Normal(b[0] - 2 * b[1], 1.0), obs=x)


def test_score_function_gradient_is_that_of_the_enumerated_elbo():
    x, guide = torch.tensor(0.7, dtype=torch.float64), Coins([0.4, -0.9])
    table = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    log_q = dist.Bernoulli(logits=guide.logits).log_prob(table).sum(1)
    log_p = 2 * math.log(0.5) + dist.Normal(table[:, 0] - 2 * table[:, 1], 1.0).log_prob(x)
    exact = (log_q.exp() * (log_q - log_p)).sum()
    gradient = torch.autograd.grad(exact, guide.logits)[0]
    torch.manual_seed(0)
    for particles in (2, 4):
        elbo = TraceKL_ELBO(num_particles=particles)
        losses = [elbo.differentiable_loss(coin_model, guide, x=x) for _ in range(1500)]
        found = torch.stack([torch.autograd.grad(loss, guide.logits)[0] for loss in losses])
        assert (torch.stack(losses).mean() - exact).abs() < 5 * torch.stack(losses).std() / 1500**0.5
        assert ((found.mean(0) - gradient).abs() < 5 * found.std(0) / 1500**0.5).all()


def test_the_baseline_takes_a_common_constant_out():
    x, guide = torch.tensor(0.7, dtype=torch.float64), Coins([0.4, -0.9])

    def far(x):
        coin_model(x)
        pyro.factor("constant", torch.tensor(-1000.0))

    def gradients(model):
        torch.manual_seed(0)
        elbo = TraceKL_ELBO(num_particles=2)
        return torch.stack([torch.autograd.grad(elbo.differentiable_loss(model, guide, x=x), guide.logits)[0] for _ in range(50)])

    torch.testing.assert_close(gradients(far), gradients(coin_model), atol=1e-9, rtol=1e-9)


def test_what_the_guide_observes_is_not_scored():
    def model(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        z = pyro.sample("z", dist.Normal(x / 2, 0.7))
        pyro.sample("y", dist.Bernoulli(logits=3 * z), obs=torch.tensor(1.0))

    TraceKL_ELBO().terms(model, guide, x=torch.tensor(0.3))  # with one particle: nothing needs a comparison


@pytest.mark.parametrize("how", ["handler", "distribution"])
def test_a_mask_does_not_hide_what_was_drawn(how):
    logits = torch.tensor([0.4, -0.9], dtype=torch.float64, requires_grad=True)
    x, mask = torch.tensor(0.7, dtype=torch.float64), torch.tensor([True, False])

    def draw():
        bernoulli = dist.Bernoulli(logits=logits)
        if how == "distribution":
            return pyro.sample("b", bernoulli.mask(mask).to_event(0))
        with pyro.poutine.mask(mask=mask):
            return pyro.sample("b", bernoulli)

    def model():
        with pyro.plate("coins", 2):
            b = draw()
        pyro.sample("x", dist.Normal(b[0] - 2 * b[1], 1.0), obs=x)

    def guide():
        with pyro.plate("coins", 2):
            draw()

    table = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], dtype=torch.float64)
    log_q = dist.Bernoulli(logits=logits).log_prob(table).sum(1)
    exact = torch.autograd.grad((log_q.exp() * -dist.Normal(table[:, 0] - 2 * table[:, 1], 1.0).log_prob(x)).sum(), logits)[0]
    torch.manual_seed(0)
    elbo = TraceKL_ELBO(num_particles=4)
    found = torch.stack([torch.autograd.grad(elbo.differentiable_loss(model, guide), logits)[0] for _ in range(800)])
    assert ((found.mean(0) - exact).abs() < 5 * found.std(0) / 800**0.5).all()


def test_more_particles_make_the_score_function_less_noisy():
    x, guide = torch.tensor(0.7, dtype=torch.float64), Coins([0.4, -0.9])
    torch.manual_seed(0)

    def spread(elbo, repeats):
        gradients = [
            torch.autograd.grad(elbo.differentiable_loss(coin_model, guide, x=x), guide.logits)[0] for _ in range(repeats)
        ]
        return torch.stack(gradients).std(0).norm()

    assert spread(TraceKL_ELBO(num_particles=8), 200) < 0.6 * spread(TraceKL_ELBO(num_particles=2), 200)


@pytest.mark.parametrize("options", [{}, {"num_particles": 3, "vectorize_particles": True, "max_plate_nesting": 0}])
def test_the_score_function_needs_particles_to_compare(options):
    def program():
        pyro.sample("b", dist.Bernoulli(0.3))

    with pytest.raises(NotImplementedError, match=r"'b'.*num_particles.*TraceGraph_ELBO"):
        TraceKL_ELBO(**options).terms(program, program)


@pytest.mark.parametrize("how", ["parallel", "sequential"])
def test_warns_once_that_enumeration_is_ignored(how):
    def model():
        c = pyro.sample("c", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(c, 1.0), obs=torch.tensor(0.7))

    def guide(**options):
        pyro.sample("c", dist.Bernoulli(0.6), **options)

    def loss(elbo, guide):
        torch.manual_seed(0)
        return elbo.loss(model, guide)

    elbo = TraceKL_ELBO(num_particles=2)
    with pytest.warns(
        UserWarning, match=r"enumeration of 'c', which TraceKL_ELBO ignores.*pyro\.infer\.TraceEnum_ELBO"
    ) as caught:
        found = loss(elbo, lambda: guide(infer={"enumerate": how}))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found == loss(elbo, lambda: guide(infer={"enumerate": how}))
        assert found == loss(copy.deepcopy(elbo), lambda: guide(infer={"enumerate": how}))
        assert found == loss(TraceKL_ELBO(num_particles=2), guide)


def test_a_factor_of_the_guide_must_say_that_it_has_a_gradient():
    def guide():
        pyro.factor("penalty", torch.tensor(1.0), has_rsample=False)

    with pytest.raises(NotImplementedError, match=r"'penalty'.*has_rsample=True"):
        TraceKL_ELBO(num_particles=2).terms(lambda: None, guide)


def test_a_mark_without_a_closed_form_raises():
    def model():
        z = pyro.sample("z", dist.StudentT(3.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(0.0))

    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0), infer={"kl": "analytic"})

    with pytest.raises(NotImplementedError, match=r"'z'.*from Normal to StudentT"):
        TraceKL_ELBO().terms(model, guide)


def test_a_step_traces_into_one_graph_without_a_sync():
    module = NegativeELBO(Model("model"), Guide(), {"z": 1.0})
    params, buffers = dict(module.named_parameters()), dict(module.named_buffers())

    def step(params, buffers, x):
        loss, _ = torch.func.functional_call(module, (params, buffers), kwargs={"x": x})
        return loss, torch.autograd.grad(loss, list(params.values()))

    with pyro.validation_enabled(False):
        graph = make_fx(step)(params, buffers, X)
        targets = {str(node.target) for node in graph.graph.nodes}
        assert not {t for t in targets if "aten.item" in t or "_local_scalar" in t}
        torch.manual_seed(5)
        traced = graph(params, buffers, X)
        torch.manual_seed(5)
        eager = step(params, buffers, X)
    torch.testing.assert_close(traced, eager)
    torch.manual_seed(5)
    heavier = graph(params, {"kl_weight_z": torch.tensor(3.0)}, X)[0]  # the weight is read, not baked in
    assert heavier > traced[0]


def test_negative_elbo_is_per_example_and_saves_its_weights():
    module = NegativeELBO(Model("model"), Guide(), {"z": 0.5})
    torch.manual_seed(0)
    loss, terms = module(x=X)
    torch.manual_seed(0)
    summed = module.elbo.terms(module.model, module.guide, x=X)
    torch.testing.assert_close(terms, {name: term.detach() / 3 for name, term in summed.items()})
    torch.testing.assert_close(loss, 0.5 * terms["z"] + terms["y"] + terms["x"])
    assert loss.requires_grad
    assert not terms["z"].requires_grad
    assert module.state_dict()["kl_weight_z"] == 0.5


def test_two_instances_train_independently():
    modules = [NegativeELBO(Model("model"), Guide()) for _ in range(2)]
    for module in modules:
        before = module.guide.layer.weight.detach().clone()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        module(x=X)[0].backward()
        optimizer.step()
        assert not torch.equal(before, module.guide.layer.weight)


@pytest.mark.parametrize("weight", [math.nan, math.inf, True, "1", torch.ones(2), torch.tensor(math.nan)])
def test_a_weight_is_a_finite_number(weight):
    for make in (lambda w: TraceKL_ELBO(kl_weights=w), lambda w: NegativeELBO(nn.Module(), nn.Module(), w)):
        with pytest.raises(ValueError, match="The weight of 'z' must be a finite number or a 0-dim tensor of one"):
            make({"z": weight})


def test_a_site_that_is_masked_out_inside_has_no_analytic_kl():
    def program(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).mask(False).to_event(1), infer=analytic)

    assert TraceKL_ELBO().terms(program, program, torch.zeros(3))["z"] == 0


def test_programs_of_which_nothing_counts():
    def program():
        with pyro.poutine.mask(mask=False):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="No site of the model or the guide counts"):
        TraceKL_ELBO().loss(program, program)


def test_a_site_of_weight_0_is_left_out_and_its_density_is_not_computed():
    class Refusing(dist.Normal):
        def log_prob(self, value):
            raise AssertionError("nobody asked for this density")

    def model(x, kind=Refusing):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", kind(z, 1.0).to_event(1), obs=x)

    def guide(x, kind=Refusing):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7).to_event(1), infer=analytic)

    x = torch.randn(5, 1, dtype=torch.float64)
    elbo = TraceKL_ELBO(site_weights={"x": 0.0})
    loss, terms = elbo.loss_and_terms(model, guide, x)
    assert list(terms) == ["z"]
    assert loss == terms["z"]
    elbo.site_weights["x"] = torch.tensor(0.0)  # which may move
    assert set(elbo.loss_and_terms(model, guide, x, dist.Normal)[1]) == {"x", "z"}
    with pytest.raises(ValueError, match=r"weight for \['y'\], but the sites are \['x', 'z'\]"):
        TraceKL_ELBO(site_weights={"y": 0}).loss(model, guide, x)
    with pytest.raises(ValueError, match="their weights are 0"):
        TraceKL_ELBO(site_weights={"x": 0, "z": 0}).loss(model, guide, x)
