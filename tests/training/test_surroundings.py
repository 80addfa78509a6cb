"""What a caller has set of torch and Pyro changes nothing about a run."""

import contextlib
import threading

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import pyzoo
from pyzoo.errors import UsageError
from pyzoo.recipes.mib.fair.recipe import FairRecipe
from pyzoo.training.trainer import NonFiniteLoss
from tiny import FAIR

SETTINGS = {**FAIR, "steps": 6, "progress": False, "evaluate": False, "figures": False, "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def steps_are_traced():
    """As those of longer runs are. Trees, which know nothing of torch, are not grown."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyzoo.training.trainer.WORTH_TRACING", 0)
        patch.setattr("pyzoo.recipes.mib.fair.report.leakage", lambda *data: 0.5)
        yield


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AROUND = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "scale": lambda: pyro.poutine.scale(scale=7.0),
    "mask": lambda: pyro.poutine.mask(mask=False),
    "condition": lambda: pyro.poutine.condition(data={"z": torch.zeros(1), "x": torch.zeros(1)}),
    "trace": pyro.poutine.trace,
    "replay": lambda: pyro.poutine.replay(trace=pyro.poutine.Trace()),
    "lift": lambda: pyro.poutine.lift(prior=dist.Normal(0.0, 1.0)),
    "anomaly": torch.autograd.detect_anomaly,
}


def trained(path, engine="auto"):
    return pyzoo.train("mib-fair", "synthetic", out=path, engine=engine, **SETTINGS)


def state(run):
    return {name: value for program in run.pair() for name, value in program.state_dict().items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = trained(tmp_path_factory.mktemp("plain") / "run")
    run.measure()
    return run, state(run)


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_nothing_around_a_run_changes_it(tmp_path, undisturbed, name):
    plain, parameters = undisturbed
    dtype = torch.get_default_dtype()
    with AROUND[name]():
        run = trained(tmp_path / "run", "eager" if name == "anomaly" else "auto")
        run.measure()
        drawn = run.sample(3)["x"]
    assert torch.get_default_dtype() == dtype
    if name != "anomaly":
        for key, value in state(run).items():
            torch.testing.assert_close(value, parameters[key], rtol=0, atol=0)
        assert run.metrics == plain.metrics
        torch.testing.assert_close(drawn, plain.sample(3)["x"], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_in_anomaly_mode_a_step_is_not_traced(tmp_path):
    with torch.autograd.detect_anomaly():
        trained(tmp_path / "run")


def test_a_run_of_one_type_by_default_is_read_under_another(tmp_path):
    with default_dtype(torch.float64):
        trained(tmp_path / "run")
    assert pyzoo.load(tmp_path / "run").sample(2)["x"].dtype == torch.float32


def test_threads_take_turns(tmp_path, undisturbed):
    _, parameters = undisturbed
    found = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: state(trained(tmp_path / name))})) for name in ("a", "b")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("a", "b"):
        for key, value in found[name].items():
            torch.testing.assert_close(value, parameters[key], rtol=0, atol=0)


@pytest.mark.slow
def test_a_run_is_found_after_a_change_of_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    run = trained("relative")
    run.measure()
    loaded = pyzoo.load("relative")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for one in (run, loaded):
        assert one.metrics
        assert len(one.sample(2)["x"]) == 2
    run.extend(8)
    run.train(progress=False, evaluate=False, figures=False)
    assert run.folder.checkpoints.newest_step() == 8


def test_an_unexpected_error_leaves_no_folder(tmp_path, monkeypatch):
    def broken(self, device):
        raise ZeroDivisionError("someone's own mistake")

    monkeypatch.setattr(FairRecipe, "source", broken)
    with pytest.raises(ZeroDivisionError):
        trained(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_within_a_plate_there_is_no_run(tmp_path):
    with pyro.plate("outer", 3), pytest.raises(UsageError, match=r"pyro\.plate"):
        trained(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluate": "no"}, "evaluate must be True or False, got 'no'"),
        ({"figures": 1}, "figures must be True or False"),
        ({"preset": ["synthetic"]}, "preset must be a name"),
        ({"preset": ""}, "has no preset ''"),
        ({"name": "x"}, "there is no setting 'name'"),
        ({"out": "x" * 300}, "can't make the run folder .*: File name too long"),
        ({"steps": "3"}, "--steps must be a whole number, got '3'"),
        ({"data": torch.zeros(3, 2)}, "takes no tensors as its data: name a file"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        pyzoo.train("mib-fair", **{**SETTINGS, **options})


def test_bad_arguments_of_a_run(undisturbed):
    run, _ = undisturbed
    with pytest.raises(ValueError, match="hardware must be of type Hardware, got str"):
        run.train("cpu")
    for full in ("yes", 1, None):
        with pytest.raises(ValueError, match="full must be True or False"):
            run.measure(full)
    assert run.metrics
    with pytest.raises(UsageError, match="given must be a dict of names"):
        run.sample(given={3: 3, "a": "A"})
    with pytest.raises(UsageError, match="there is no folder 'xxx"):
        pyzoo.load("x" * 5000)


def test_numbers_of_numpy_are_numbers():
    recipe = FairRecipe.preset("synthetic", steps=np.int64(3), learning_rate=np.float32(0.5), keep_best=np.True_)
    assert (type(recipe.steps), type(recipe.learning_rate), recipe.keep_best) == (int, float, True)


def test_a_loss_that_is_not_finite_is_no_matter_of_sizes(tmp_path):
    with pytest.raises(NonFiniteLoss, match="too large"):
        pyzoo.train(
            "mib-ood",
            "digits",
            steps=3,
            batch_size=8,
            copies=1,
            hidden_dim=4,
            weight_decay=1e30,
            sharpen=False,
            engine="eager",
            out=tmp_path / "run",
            progress=False,
        )
