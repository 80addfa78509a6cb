"""The tests that every pair of a model and its guide should pass."""

import copy
import inspect
import io
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro.distributions import Unit
from pyro.infer import ELBO
from pyro.nn import PyroModule
from pyro.poutine import block, replay, trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from pyzoo.checks import require_kind
from pyzoo.infer import TracedStep, TraceKL_ELBO
from pyzoo.testing.programs import (
    assert_kept_frozen,
    assert_moved,
    assert_no_conflict,
    check_elbo,
    named_parameters,
    require_programs,
    svi_step,
)

__all__ = ["PairTests"]


class PairTests:
    """The tests that every pair of a model and a guide should pass, for pytest.

    Inherit them in a test file, in a class whose name starts with "Test", with a factory of the pair and a batch that is as small
    as can be. Each test starts from a fresh pair and an empty parameter store.

    Override what does not suit: :meth:`elbo` for a guide that draws something without reparameterising it, :meth:`generate` for a
    model that is made to generate in another way.

    Example:
        >>> from pyzoo.infer import analytic
        >>> class Model(pyro.nn.PyroModule):
        ...     def __init__(self):
        ...         super().__init__("model")
        ...         self.decoder = torch.nn.Linear(2, 4)
        ...     def forward(self, x=None, size=1):
        ...         with pyro.plate("data", size if x is None else len(x)) as rows:
        ...             z = pyro.sample("z", dist.Normal(torch.zeros(len(rows), 2), 1.0).to_event(1))
        ...             return pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)
        >>> class Guide(pyro.nn.PyroModule):
        ...     def __init__(self):
        ...         super().__init__("guide")
        ...         self.encoder = torch.nn.Linear(4, 2)
        ...     def forward(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1), infer=analytic)
        >>> class TestPair(PairTests):
        ...     def make(self):
        ...         return Model(), Guide()
        ...     def batch(self):
        ...         return {"x": torch.rand(3, 4)}
        >>> TestPair().test_resuming_is_exact()  # pytest finds and runs all of them
    """

    traceable: bool = True
    """Whether a step can be traced; False skips that test, for programs that branch on the values of tensors."""

    analytic_marks: bool = True
    """Whether to compare the ELBO with Pyro's, which tests the guide's analytic marks; False skips that test."""

    elbo_samples: int = 40
    """How often that test draws both estimates; more samples find smaller differences."""

    def make(self) -> tuple[nn.Module, nn.Module]:
        """A fresh model and its guide, with parameters drawn from torch's current seed."""
        raise NotImplementedError("Return a fresh pair: def make(self): return model, guide")

    def batch(self) -> dict[str, Tensor]:
        """A tiny batch: the keyword arguments of both programs, each with the examples along its first dimension."""
        raise NotImplementedError('Return a batch: def batch(self): return {"x": x}')

    def elbo(self) -> ELBO:
        """What trains the pair: a ``TraceKL_ELBO``, or another ELBO that has a ``differentiable_loss``.

        A guide that draws something without reparameterising it needs ``TraceKL_ELBO(num_particles=2)``.
        """
        return TraceKL_ELBO()

    def generate(self, model: nn.Module) -> None:
        """Runs the model so that it draws what it otherwise observes, for as many examples as the batch has.

        By default the model is called with the batch, without the arguments that have the name of an observed site, and with the
        number of examples as ``size`` if it takes such an argument.
        """
        batch = self.batch()
        with block():  # the test traces this method
            scored = _sites(trace(model).get_trace(**batch))
        observed = {name for name, site in scored.items() if site["is_observed"]}
        arguments: dict[str, Any] = {name: value for name, value in batch.items() if name not in observed}
        if "size" in inspect.signature(getattr(model, "forward", model)).parameters:
            arguments["size"] = len(next(value for value in batch.values() if isinstance(value, Tensor)))
        model(**arguments)

    def teardown_method(self) -> None:
        """pytest calls this after each test."""
        pyro.clear_param_store()

    def test_model_and_guide_have_different_names(self) -> None:
        model, guide = self._pair()
        assert_no_conflict(model, guide)
        if isinstance(model, PyroModule) and isinstance(guide, PyroModule):
            assert model._pyro_name != guide._pyro_name, (
                f"Model and guide are both named '{model._pyro_name}': "
                'call super().__init__("model") in one and super().__init__("guide") in the other.'
            )

    def test_a_plain_svi_step_moves_every_trainable_parameter(self) -> None:
        assert_moved(*svi_step(*self._pair(), self._batch()))

    def test_buffers_and_frozen_parameters_stay_what_they_are(self) -> None:
        assert_kept_frozen(*svi_step(*self._pair(), self._batch()))

    def test_a_second_instance_trains_too(self) -> None:
        first = self._pair()
        svi_step(*first, self._batch())
        second = self._pair()
        _assert_no_parameter_in_both(first, second, "two pairs made by make()")
        assert_moved(*svi_step(*second, self._batch()))

    def test_generation_and_scoring_agree_in_shape(self) -> None:
        model, guide = self._pair()
        batch = self._batch()
        with torch.no_grad():
            scored = _sites(trace(replay(model, trace=trace(guide).get_trace(**batch))).get_trace(**batch))
            generated = _sites(trace(self.generate).get_trace(model))
        observed = sorted(name for name, site in generated.items() if site["is_observed"])
        assert not observed, f"the model does not draw {observed} when it generates: override generate(self, model)"
        assert scored.keys() == generated.keys(), (
            f"sites only in scoring: {sorted(scored.keys() - generated.keys())}; only in generation: "
            f"{sorted(generated.keys() - scored.keys())}; if that is right, override generate(self, model)"
        )
        for name, site in scored.items():
            shapes = tuple(site["value"].shape), tuple(generated[name]["value"].shape)
            assert shapes[0] == shapes[1], f"site '{name}' has shape {shapes[0]} in scoring and {shapes[1]} in generation"

    def test_a_deep_copy_gives_the_same_loss(self) -> None:
        pair = self._pair()
        self._loss(pair)  # a pair that has run holds more than a fresh one, such as references into the parameter store
        other = copy.deepcopy(pair)
        _assert_no_parameter_in_both(pair, other, "a pair and its deep copy")
        _assert_equal_losses(self._loss(pair), self._loss(other), "a deep copy")
        # A copy that still calls layers of its original has the same loss, and other gradients.
        expected, found = self._gradients(pair), self._gradients(other)
        different = [name for name, gradient in expected.items() if not _equal(gradient, found[name])]
        assert not different, f"a deep copy has other gradients: {different}"

    def test_a_saved_state_gives_the_same_loss(self) -> None:
        saved = self._module(seed=0)
        state = _through_a_file(saved.state_dict())
        loaded = self._module(seed=1)
        loaded.load_state_dict(state)
        _assert_equal_losses(self._loss(saved.pair), self._loss(loaded.pair), "a second instance with the saved state")

    def test_float64_works(self) -> None:
        pair = self._pair()
        double = _to_double(copy.deepcopy(pair))
        batch = self._batch()
        as_double = {name: _to_double(value) for name, value in batch.items()}
        loss = self._loss(copy.deepcopy(double), as_double)
        assert loss.dtype == torch.float64, f"the loss of a float64 pair is {loss.dtype}"
        assert torch.isfinite(loss), f"the loss of a float64 pair is {loss.item()}"
        # The same noise in both: in evaluation mode all of it is in the guide's sites, and these are drawn once.
        for program in (*pair, *double):
            if isinstance(program, nn.Module):
                program.eval()
        with torch.no_grad():
            drawn = trace(pair[1]).get_trace(**batch)
            terms = self._terms(pair[0], replay(pair[1], trace=drawn), batch)
            for site in drawn.nodes.values():
                if site["type"] == "sample":
                    site["value"] = _to_double(site["value"])
            double_terms = self._terms(double[0], replay(double[1], trace=drawn), as_double)
        for name, term in double_terms.items():
            assert term.dtype == torch.float64, f"the term '{name}' of a float64 pair is {term.dtype}"
            error = (term - terms[name]).abs().item()
            assert error <= 1e-3 * max(1.0, term.abs().item()), (
                f"the term '{name}' is {terms[name].item()} in float32 and {term.item()} in float64, for equal draws"
            )

    def test_resuming_is_exact(self) -> None:
        whole = self._module(seed=0)
        self._train(whole, _adam(whole), steps=range(3))
        first = self._module(seed=0)
        optimizer = _adam(first)
        self._train(first, optimizer, steps=range(2))
        state = _through_a_file({"module": first.state_dict(), "optimizer": optimizer.state_dict()})
        second = self._module(seed=1)
        second.load_state_dict(state["module"])
        optimizer = _adam(second)
        optimizer.load_state_dict(state["optimizer"])
        self._train(second, optimizer, steps=range(2, 3))
        expected, found = whole.state_dict(), second.state_dict()
        different = [name for name, value in expected.items() if not torch.equal(value, found[name])]
        assert not different, f"a step after resuming gives other values than without a break: {different}"

    def test_eager_and_traced_steps_agree(self) -> None:
        if not self.traceable:
            _skip("traceable is False")
        eager = self._module(seed=0)
        traced = copy.deepcopy(eager)
        step = TracedStep(traced)
        batch = {name: value for name, value in self._batch().items() if value is not None}
        for seed in range(2):  # the second call runs the graph of the first, with other noise
            eager.zero_grad()
            torch.manual_seed(seed)
            expected = eager(**batch)[0]
            expected.backward()
            torch.manual_seed(seed)
            found = step(batch)[0]
            _assert_equal_losses(expected.detach(), found, "a traced step")
            gradients = {name: p.grad for name, p in traced.named_parameters()}
            different = [name for name, p in eager.named_parameters() if not _equal(p.grad, gradients[name])]
            assert not different, f"a traced step gives other gradients: {different}"

    def test_evaluation_leaves_the_state_unchanged(self) -> None:
        module = self._module().eval()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        trainable = [name for name, p in module.named_parameters() if p.requires_grad]
        self._elbo().loss(*module.pair, **self._batch())
        after = module.state_dict()
        changed = [name for name in before.keys() | after.keys() if not _equal(before.get(name), after.get(name))]
        assert not changed, f"evaluation changes {sorted(changed)}"
        assert trainable == [name for name, p in module.named_parameters() if p.requires_grad], "evaluation thaws parameters"

    def test_analytic_marks_are_valid(self) -> None:
        if not self.analytic_marks:
            _skip("analytic_marks is False")
        check_elbo(*self._pair(), self._batch(), self.elbo_samples, self.elbo())

    def _pair(self, seed: int = 0) -> tuple[nn.Module, nn.Module]:
        pyro.clear_param_store()
        batch = self._batch()
        torch.manual_seed(seed)
        pair = self.make()
        require_programs(pair, batch)
        return pair

    def _batch(self) -> dict[str, Tensor]:
        torch.manual_seed(0)
        return self.batch()

    def _elbo(self) -> ELBO:
        elbo = self.elbo()
        require_kind(elbo, "what elbo() returns", ELBO)
        return elbo

    def _module(self, seed: int = 0) -> "_Loss":
        return _Loss(self._pair(seed), self._elbo())

    def _loss(self, pair: tuple[nn.Module, nn.Module], batch: Mapping[str, Tensor] | None = None) -> Tensor:
        batch = self._batch() if batch is None else batch
        pyro.clear_param_store()
        torch.manual_seed(0)
        return self._elbo().differentiable_loss(*pair, **batch)

    def _gradients(self, pair: tuple[nn.Module, nn.Module]) -> dict[str, Tensor | None]:
        programs = zip(("model", "guide"), pair, strict=True)
        trainable = {name: p for label, program in programs for name, p in named_parameters(program, label) if p.requires_grad}
        found = torch.autograd.grad(self._loss(pair), list(trainable.values()), allow_unused=True)
        return dict(zip(trainable, found, strict=True))

    def _terms(self, model, guide, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        elbo = self._elbo()
        if isinstance(elbo, TraceKL_ELBO):
            return elbo.terms(model, guide, **batch)
        return {"loss": elbo.differentiable_loss(model, guide, **batch)}

    def _train(self, module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        batch = self._batch()
        for step in steps:
            torch.manual_seed(100 + step)
            optimizer.zero_grad()
            module(**batch)[0].backward()
            optimizer.step()


class _Loss(nn.Module):
    """A pair and its ELBO as one module, so that one state dict holds both programs."""

    def __init__(self, pair: tuple[nn.Module, nn.Module], elbo: ELBO) -> None:
        super().__init__()
        self.model, self.guide = pair
        self.elbo = elbo

    @property
    def pair(self) -> tuple[nn.Module, nn.Module]:
        return self.model, self.guide

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.elbo.differentiable_loss(self.model, self.guide, **batch), {}


def _sites(program_trace) -> dict[str, dict[str, Any]]:
    """What a program draws or observes, without its factors and deterministic values."""

    def is_drawn(site: dict[str, Any]) -> bool:
        if site["type"] != "sample" or site_is_subsample(site) or site["infer"].get("_deterministic"):
            return False
        fn = site["fn"]
        while hasattr(fn, "base_dist"):
            fn = fn.base_dist
        return not isinstance(fn, Unit)

    return {name: site for name, site in program_trace.nodes.items() if is_drawn(site)}


def _adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-3)


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _to_double(value: Any) -> Any:
    """Of tensors those with a floating point, of programs those with parameters, and of a pair both programs."""
    if isinstance(value, tuple):
        return tuple(_to_double(part) for part in value)
    return value.double() if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.is_floating_point()) else value


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    return first is second if first is None or second is None else torch.equal(first, second)


def _assert_equal_losses(expected: Tensor, found: Tensor, what: str) -> None:
    assert torch.equal(expected, found), f"{what} gives the loss {found.item()}, not {expected.item()}, from the same seed"


def _assert_no_parameter_in_both(first: tuple[nn.Module, ...], second: tuple[nn.Module, ...], what: str) -> None:
    known = {id(p) for program in first for _, p in named_parameters(program)}
    both = [name for program in second for name, p in named_parameters(program) if id(p) in known]
    assert not both, f"{what} share parameters: {both}"


def _skip(reason: str) -> None:
    import pytest  # here, since the checks above serve without it

    pytest.skip(reason)
