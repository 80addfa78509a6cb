import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from pyzoo.errors import UsageError
from pyzoo.training import Hardware, NonFiniteLoss, Objective, RunFolder, Stopped, Trainer
from tiny import colors, sines


def trainer(path, recipe=None, **options):
    run = RunFolder(path) if (path / "config.json").exists() else RunFolder.create(path, {})
    return Trainer(recipe or sines(), run, Hardware("cpu"), progress=False, **options)


def state(t):
    return {name: value.clone() for name, value in t.module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "undisturbed"
    t = trainer(path)
    t.train()
    return t


def rows(run):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in run.metrics()]


def test_a_run_is_reproducible_and_leaves_global_state_alone(undisturbed, tmp_path):
    torch.manual_seed(99)
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    validate = torch.distributions.Distribution._validate_args
    again = trainer(tmp_path / "run")
    again.train()
    assert_same(state(undisturbed), state(again))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_float32_matmul_precision() == precision
    assert torch.distributions.Distribution._validate_args == validate
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_another_seed_ends_elsewhere(undisturbed, tmp_path):
    other = trainer(tmp_path / "run", sines(seed=1))
    other.train()
    assert not all(torch.equal(value, state(other)[name]) for name, value in state(undisturbed).items())


@pytest.mark.parametrize("step", [1, 13, 29])
def test_resume_after_a_crash_is_exact(undisturbed, tmp_path, step):
    first = trainer(tmp_path / "run")
    real = first.recipe.source

    class Crashing:
        def __init__(self, device):
            self.source = real(device)

        def batch(self, at, size):
            if at == step:
                raise KeyboardInterrupt  # as hard as it gets within a process
            return self.source.batch(at, size)

    first.recipe.source = Crashing
    with pytest.raises(KeyboardInterrupt):
        first.train()
    second = trainer(tmp_path / "run")
    assert second.step == step
    second.train()
    assert_same(state(undisturbed), state(second))
    assert rows(undisturbed.run) == rows(second.run)
    optimizers = [t.objectives[0].optimizer.state_dict() for t in (undisturbed, second)]
    torch.testing.assert_close(optimizers[0]["state"], optimizers[1]["state"], rtol=0, atol=0)


def test_resume_before_the_first_checkpoint_starts_again(undisturbed, tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.append_metrics({"step": 5, "loss": 1.0})
    t = trainer(tmp_path / "run")
    assert t.step == 0
    t.train()
    assert_same(state(undisturbed), state(t))
    assert rows(undisturbed.run) == rows(t.run)


def test_loading_a_run_that_is_under_way_leaves_it_alone(tmp_path):
    first = trainer(tmp_path / "run")
    first.train()
    first.run.append_metrics({"step": 35, "loss": 1.0})  # as if training had gone on since the checkpoint
    before = (first.run.path / "metrics.csv").read_bytes()
    trainer(tmp_path / "run")
    assert (first.run.path / "metrics.csv").read_bytes() == before


def test_resume_of_a_finished_run_does_nothing(undisturbed):
    again = trainer(undisturbed.run.path)
    again.train()
    assert_same(state(undisturbed), state(again))


def test_metrics_hold_the_terms(undisturbed):
    metrics = undisturbed.run.metrics()
    assert [row["step"] for row in metrics] == [5, 10, 15, 20, 25, 30]
    scheduled = {"kl_weight_w", "kl_weight_z", "model.x_floor"}
    assert set(metrics[0]) == {"step", "seconds", "loss", "w", "z", "x", "learning_rate"} | scheduled
    assert metrics[0]["learning_rate"] == 1e-3
    assert metrics[-1]["learning_rate"] == 2.5e-4
    last = metrics[-1]
    assert last["loss"] == pytest.approx(last["w"] + last["z"] + last["x"], rel=1e-4)  # z's weight is 1 by then


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_stop(undisturbed, tmp_path, number):
    t = trainer(tmp_path / "run", sines(steps=100_000, checkpoint_seconds=1e9))
    killer = threading.Thread(target=lambda: (time.sleep(0.5), os.kill(os.getpid(), number)))
    killer.start()
    with pytest.raises(Stopped) as caught:
        t.train()
    killer.join()
    assert caught.value.signal_number == number
    assert trainer(tmp_path / "run").step == t.step > 0


class Exploding(nn.Module):
    """A loss whose term b is not finite at one call."""

    def __init__(self, at, value):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.at, self.value, self.calls = at, value, 0

    def forward(self, parts, x):
        self.calls += 1
        bad = self.value if self.calls > self.at else 1.0
        terms = {"a": self.weight**2, "b": self.weight * bad}
        return sum(terms.values()), {name: term.detach() for name, term in terms.items()}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_stops_before_the_optimiser_moves(tmp_path, value):
    recipe = sines()
    module = Exploding(3, value)
    recipe.objectives = lambda: [Objective(module, torch.optim.SGD(module.parameters(), lr=0.1))]
    t = trainer(tmp_path / "run", recipe)
    with pytest.raises(NonFiniteLoss, match=r"at step 3: term 'b' is (nan|inf).*last good checkpoint is .*step-00000003\.pt"):
        t.train()
    saved = t.run.checkpoints.load()
    assert saved["step"] == 3
    assert torch.equal(saved["objectives"][0]["module"]["weight"], module.weight.detach())
    assert torch.isfinite(module.weight)


def test_non_finite_parameters_are_not_saved(tmp_path):
    t = trainer(tmp_path / "run")
    t.save()
    next(t.module.parameters()).data.fill_(math.nan)
    with pytest.raises(NonFiniteLoss, match="is not finite"):
        t.save()


def test_several_objectives_take_turns(tmp_path):
    a, b = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))
    after = []

    class Player(nn.Module):
        def __init__(self, mine, other):
            super().__init__()
            self.mine, self.other = mine, other
            self.register_buffer("weight", torch.tensor(0.0))

        def forward(self, parts, x):
            loss = self.weight * self.mine * self.other
            return loss, {"value": loss.detach()}

    first, second = Player(a, b), Player(b, a)
    objectives = [
        Objective(first, torch.optim.SGD([a], lr=0.1), name="a", schedules={"weight": lambda step: step + 1.0}),
        Objective(
            second,
            torch.optim.SGD([b], lr=0.1),
            schedules={"weight": lambda step: 1.0},
            every=2,
            after_step=lambda: after.append(1),
        ),
    ]
    recipe = sines(steps=3, log_every=1)
    recipe.objectives = lambda: objectives
    t = trainer(tmp_path / "run", recipe)
    t.train()
    x, y = 1.0, 1.0
    for step in range(3):
        x -= 0.1 * (step + 1) * y
        if step % 2 == 0:
            y -= 0.1 * x
    assert (a.item(), b.item()) == pytest.approx((x, y))
    assert len(after) == 2
    logged = t.run.metrics()
    assert logged[0]["a/loss"] == logged[0]["a/value"] == 1.0
    assert logged[0]["loss"] == pytest.approx(0.9)  # the second player's, after the first has moved
    assert math.isnan(logged[1]["loss"])


def test_gradients_are_clipped(tmp_path):
    recipe = sines(steps=1)
    module = Exploding(99, 1.0)
    recipe.objectives = lambda: [Objective(module, torch.optim.SGD(module.parameters(), lr=1.0), clip_norm=0.25)]
    trainer(tmp_path / "run", recipe).train()
    assert module.weight.item() == pytest.approx(0.75)


def test_another_recipes_checkpoint(tmp_path):
    trainer(tmp_path / "run", sines(steps=1)).train()
    with pytest.raises(UsageError, match="is of recipe compvae-sines, not of compvae-colors"):
        trainer(tmp_path / "run", colors())


def test_a_checkpoint_of_other_sizes(tmp_path):
    trainer(tmp_path / "run", sines(steps=1)).train()
    with pytest.raises(UsageError, match="does not fit the recipe"):
        trainer(tmp_path / "run", sines(w_dim=9))


@pytest.mark.parametrize("options", [{"devices": 0}, {"num_nodes": -1}])
def test_hardware_out_of_range(options):
    with pytest.raises(UsageError, match="at least 1"):
        Hardware(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda():
    with pytest.raises(UsageError, match="no CUDA device"):
        _ = Hardware("cuda").accelerator
    assert Hardware("auto").accelerator == "cpu"


def test_bf16_trains_close_to_fp32(undisturbed, tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    t = Trainer(sines(), run, Hardware("cpu", precision="bf16"), progress=False)
    t.train()
    ours, theirs = run.metrics()[-1]["loss"], undisturbed.run.metrics()[-1]["loss"]
    assert ours == pytest.approx(theirs, rel=0.05)


def test_traced_is_bit_identical(undisturbed, tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    t = Trainer(sines(), run, Hardware("cpu", engine="traced"), progress=False)
    t.train()
    assert_same(state(undisturbed), state(t))
    assert rows(undisturbed.run) == rows(run)


def test_evaluation_and_figures_move_nothing(undisturbed):
    before = state(undisturbed)
    torch.manual_seed(3)
    generator = torch.get_rng_state()
    metrics = undisturbed.recipe.evaluate(undisturbed.module, undisturbed.device)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(math.isfinite(value) for value in metrics.values())
    list(undisturbed.recipe.figures(undisturbed.module, undisturbed.device, undisturbed.run.metrics()))
    assert_same(before, state(undisturbed))
    assert metrics == undisturbed.recipe.evaluate(undisturbed.module, undisturbed.device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_cuda(tmp_path, precision):
    run = RunFolder.create(tmp_path / "run", {})
    t = Trainer(sines(), run, Hardware("cuda", precision=precision), progress=False)
    t.train()
    assert t.recipe.evaluate(t.module, t.device)["order_gap"] < 1e-3


SCRIPT = """
import sys, torch
from pathlib import Path
from pyzoo.recipes.compvae import CompVAESines
from pyzoo.training import Hardware, Objective, RunFolder, Trainer
from tiny import sines

class NoNoise(torch.nn.Module):
    '''A loss that depends on the batch alone, so that one process and two must agree.'''
    def __init__(self, layer, power):
        super().__init__()
        self.layer, self.power = layer, power
    def forward(self, parts, x):
        loss = (self.layer(x) + self.layer.bias).abs().pow(self.power).mean(-1).mean()
        return loss, {"x": loss.detach()}

if __name__ == "__main__":
    recipe = sines(steps=4)
    def objectives():
        layer = torch.nn.Linear(200, 3)
        if sys.argv[3] == "one":
            return [Objective(NoNoise(layer, 2), torch.optim.SGD(layer.parameters(), lr=0.01))]
        parts = [torch.optim.SGD([p], lr=0.01) for p in (layer.weight, layer.bias)]
        return [Objective(NoNoise(layer, power), part, name=str(power)) for power, part in zip((2, 3), parts)]
    recipe.objectives = objectives
    trainer = Trainer(recipe, RunFolder(Path(sys.argv[2])), Hardware("cpu", devices=int(sys.argv[1])), progress=False)
    trainer.train()
    if trainer.fabric.is_global_zero:
        torch.save(trainer.module.state_dict(), sys.argv[2] + "/end.pt")
"""


@pytest.mark.parametrize("objectives", ["one", "two"])
def test_two_processes_take_the_steps_of_one(tmp_path, objectives):
    """Also with two objectives that share their parameters, and move some each."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ends = []
    for devices in (1, 2):
        run = RunFolder.create(tmp_path / str(devices), {})
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run([sys.executable, script, str(devices), run.path, objectives], check=True, env=environment, timeout=120)
        ends.append(torch.load(run.path / "end.pt", weights_only=True))
    torch.testing.assert_close(ends[0], ends[1])


def test_a_batch_that_processes_cannot_share(tmp_path):
    with pytest.raises(UsageError, match="can't be shared equally by 3"):
        Trainer(sines(), RunFolder.create(tmp_path / "run", {}), Hardware("cpu", devices=3))


def test_two_trainers_in_one_folder(tmp_path):
    t = trainer(tmp_path / "run")
    with t.run.lock(), pytest.raises(UsageError, match="another process is training"):
        trainer(tmp_path / "run").train()
    assert not t.run.checkpoints.files()
    t.train()


def test_the_last_steps_are_logged_too(tmp_path):
    t = trainer(tmp_path / "run", sines(steps=7))
    t.train()
    assert [row["step"] for row in t.run.metrics()] == [5, 7]
