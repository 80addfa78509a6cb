import math
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from pyzoo.errors import UsageError
from pyzoo.infer.graph import has_compiler
from pyzoo.recipes.compvae.recipe import CompVAESines
from pyzoo.training import NonFiniteLoss, Objective, RunFolder, Schedule, Stopped, constant
from pyzoo.training.steps import Eager, Traced
from tiny import SINES, colors, graph, made, sines, state_of, trained_state, trainer_of
from toy import RootLoss, ToyLoss, shared_layer, toy

SGD = partial(torch.optim.SGD, lr=0.1)


def assert_same(first, second):
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def rows(run):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in run.metrics()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    trainer = trainer_of(sines(), tmp_path_factory.mktemp("runs") / "undisturbed")
    trainer.train()
    return trainer


# Reproducible and resumable -------------------------------------------------------------------------------------------


def test_a_run_is_reproducible_and_leaves_global_state_alone(undisturbed, tmp_path):
    torch.manual_seed(99)
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    validate = torch.distributions.Distribution._validate_args
    again = trainer_of(sines(), tmp_path / "run")
    again.train()
    assert_same(state_of(undisturbed), state_of(again))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_float32_matmul_precision() == precision
    assert torch.distributions.Distribution._validate_args == validate
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_another_seed_ends_elsewhere(undisturbed, tmp_path):
    other = trainer_of(sines(seed=1, steps=1), tmp_path / "run")
    first = trainer_of(sines(steps=1), tmp_path / "first")
    assert any(not torch.equal(value, state_of(other)[name]) for name, value in state_of(first).items())
    for trainer in (other, first):
        trainer.train()
    assert rows(other.run) != rows(first.run)


def crashing(at):
    """A recipe whose source raises at one step."""

    class Crashing(CompVAESines):
        def source(self, device):
            source = super().source(device)
            batch = source.batch

            def crash(step, size):
                if step == at:
                    raise KeyboardInterrupt  # as hard as it gets within a process
                return batch(step, size)

            source.batch = crash
            return source

    return made(Crashing, SINES, {})


@pytest.mark.parametrize("step", [1, 13, 29])
def test_resume_after_a_crash_is_exact(undisturbed, tmp_path, step):
    with pytest.raises(KeyboardInterrupt):
        trainer_of(crashing(step), tmp_path / "run").train()
    second = trainer_of(sines(), tmp_path / "run")
    assert second.step == step
    second.train()
    assert_same(state_of(undisturbed), state_of(second))
    assert rows(undisturbed.run) == rows(second.run)
    optimizers = [trainer.step_of[0].optimizer.state_dict() for trainer in (undisturbed, second)]
    torch.testing.assert_close(optimizers[0]["state"], optimizers[1]["state"], rtol=0, atol=0)
    assert (second.best, second.waited) == (undisturbed.best, undisturbed.waited)


def test_resume_before_the_first_checkpoint_starts_again(undisturbed, tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    run.append_metrics({"step": 5, "loss": 1.0})
    trainer = trainer_of(sines(), tmp_path / "run")
    assert trainer.step == 0
    trainer.train()
    assert_same(state_of(undisturbed), state_of(trainer))
    assert rows(undisturbed.run) == rows(trainer.run)


def test_loading_a_run_that_is_under_way_leaves_it_alone(tmp_path):
    first = trainer_of(sines(steps=5), tmp_path / "run")
    first.train()
    first.run.append_metrics({"step": 35, "loss": 1.0})  # as if training had gone on since the checkpoint
    before = (first.run.path / "metrics.csv").read_bytes()
    trainer_of(sines(steps=5), tmp_path / "run")
    assert (first.run.path / "metrics.csv").read_bytes() == before


def test_resume_of_a_finished_run_does_nothing(undisturbed):
    before = rows(undisturbed.run)
    again = trainer_of(sines(), undisturbed.run.path)
    assert again.finished
    again.train()
    assert_same(state_of(undisturbed), state_of(again))
    assert rows(again.run) == before


def test_a_longer_run_goes_on_with_its_own_learning_rate(tmp_path):
    """The scheduler knows the length of the run; what is learned so far stays."""
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR)

    def make(steps):
        return lambda pair: [Objective(ToyLoss(), SGD, scheduler=partial(cosine, T_max=steps))]

    first = trainer_of(toy(make(10), steps=10), tmp_path / "run")
    first.train()
    assert first.step_of[0].optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    second = trainer_of(toy(make(20), steps=20), tmp_path / "run")
    assert second.step == 10
    assert second.step_of[0].optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    assert torch.equal(second.objectives[0].module.weight, first.objectives[0].module.weight)
    second.train()
    assert [row["step"] for row in second.run.metrics()] == [5, 10, 15, 20]
    rates = [row["learning_rate"] for row in second.run.metrics()]
    assert rates[2:] == pytest.approx([0.05 * (1 + math.cos(math.pi * share)) for share in (0.75, 1)], abs=1e-9)


def test_another_recipes_checkpoint(undisturbed, tmp_path):
    with pytest.raises(UsageError, match="is of recipe compvae-sines, not of compvae-colors"):
        trainer_of(colors(), undisturbed.run.path)


def test_a_checkpoint_of_other_sizes(undisturbed):
    with pytest.raises(UsageError, match=r"is of a run with --w-dim 8, not 9: config\.json was changed since") as caught:
        trainer_of(sines(w_dim=9), undisturbed.run.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_stop(tmp_path, number):
    stopped = sines(steps=100_000, checkpoint_seconds=1e9, validate_every=100_000)
    trainer = trainer_of(stopped, tmp_path / "run")
    killer = threading.Thread(target=lambda: (time.sleep(0.5), os.kill(os.getpid(), number)))
    killer.start()
    with pytest.raises(Stopped) as caught:
        trainer.train()
    killer.join()
    assert caught.value.signal_number == number
    assert trainer_of(stopped, tmp_path / "run").step == trainer.step > 0


def test_two_trainers_in_one_folder(tmp_path):
    trainer = trainer_of(sines(steps=1), tmp_path / "run")
    with trainer.run.lock(), pytest.raises(UsageError, match="another process is training"):
        trainer_of(sines(steps=1), tmp_path / "run").train()
    assert not trainer.run.checkpoints.files()
    trainer.train()


# What is logged -------------------------------------------------------------------------------------------------------


def test_metrics_hold_the_terms(undisturbed):
    metrics = undisturbed.run.metrics()
    assert [row["step"] for row in metrics] == [5, 10, 15, 20, 25, 30]
    scheduled = {"kl_weight_w", "kl_weight_z", "x_floor"}
    terms = {"step", "seconds", "loss", "w", "z", "x", "learning_rate"} | scheduled
    assert metrics[0].keys() == terms | {"held_out_elbo"}
    assert [math.isnan(row["held_out_elbo"]) for row in metrics] == [True, True, False] * 2
    assert [row["kl_weight_z"] for row in metrics] == pytest.approx([2 - step / 20 for step in (4, 9, 14, 19)] + [1, 1])
    assert metrics[0]["learning_rate"] == 1e-3
    assert metrics[-1]["learning_rate"] == 2.5e-4
    last = metrics[-1]
    assert last["loss"] == pytest.approx(last["w"] + last["z"] + last["x"], rel=1e-4)  # z's weight is 1 by then


def test_the_last_steps_are_logged_too(tmp_path):
    trainer = trainer_of(toy(lambda pair: [Objective(ToyLoss(), SGD)], steps=7), tmp_path / "run")
    trainer.train()
    logged = trainer.run.metrics()
    assert [row["step"] for row in logged] == [5, 7]


def test_a_row_is_the_mean_since_the_row_before(tmp_path):
    trainer = trainer_of(toy(lambda pair: [Objective(ToyLoss(0.0), partial(SGD, lr=1e-9))], x=float), tmp_path / "run")
    trainer.objectives[0].module.weight.data.fill_(1.0)
    trainer.train()
    assert [row["b"] for row in trainer.run.metrics()] == pytest.approx([2.0, 7.0])


def test_several_objectives_take_turns(tmp_path):
    a, b = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))
    after = []

    class Player(nn.Module):
        def __init__(self, mine, other):
            super().__init__()
            self.mine, self.other = mine, other
            self.register_buffer("weight", torch.tensor(0.0))

        def forward(self, x):
            loss = self.weight * self.mine * self.other
            return loss, {"value": loss.detach()}

    first, second = Player(a, b), Player(b, a)
    objectives = [
        Objective(first, SGD, moves=[a], name="a", schedules=[Schedule(first, "weight", lambda step: step + 1.0)]),
        Objective(
            second,
            SGD,
            moves=[b],
            schedules=[Schedule(second, "weight", constant(1.0))],
            every=2,
            after_step=lambda loss, terms: after.append((loss.item(), terms["value"].item())),
        ),
    ]
    trainer = trainer_of(toy(lambda pair: objectives, steps=3, log_every=1), tmp_path / "run")
    trainer.train()
    x, y = 1.0, 1.0
    for step in range(3):
        x -= 0.1 * (step + 1) * y
        if step % 2 == 0:
            y -= 0.1 * x
    assert (a.item(), b.item()) == pytest.approx((x, y))
    assert after[0] == pytest.approx((0.9, 0.9))
    assert len(after) == 2
    logged = trainer.run.metrics()
    assert logged[0]["a/loss"] == logged[0]["a/value"] == 1.0
    assert logged[0]["loss"] == pytest.approx(0.9)  # the second player's, after the first has moved
    assert math.isnan(logged[1]["loss"])
    assert [row["a/weight"] for row in logged] == [1, 2, 3]


# Loss that is not finite ----------------------------------------------------------------------------------------------


def bad_at(step, value):
    return lambda at: value if at == step else 1.0


@pytest.mark.parametrize("engine", ["eager", "traced"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises_at_the_next_row(tmp_path, engine, value):
    module, twin = ToyLoss(), ToyLoss()
    recipe = toy(lambda pair: [Objective(module, SGD)], x=bad_at(2, value), checkpoint_seconds=1e9)
    trainer = trainer_of(recipe, tmp_path / "run", engine)
    with pytest.raises(NonFiniteLoss, match=r"^loss is (nan|inf) at step 2: term 'b' is (nan|inf); there is no checkpoint yet$"):
        trainer.train()
    assert trainer.step == 5
    undisturbed = trainer_of(toy(lambda pair: [Objective(twin, SGD)], steps=4), tmp_path / "other", engine)
    undisturbed.train()
    assert torch.equal(module.weight, twin.weight)  # four good steps
    assert not trainer.run.metrics()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_checkpoint_is_written_between_a_bad_step_and_its_row(tmp_path, value):
    module = ToyLoss()
    trainer = trainer_of(toy(lambda pair: [Objective(module, SGD)], x=bad_at(3, value)), tmp_path / "run")
    expected = r"at step 3: term 'b' is (nan|inf); the last good checkpoint is .*step-00000003\.pt"
    with pytest.raises(NonFiniteLoss, match=expected):
        trainer.train()
    saved = trainer.run.checkpoints.load()
    assert saved["step"] == 3
    assert torch.equal(saved["objectives"][0]["module"]["weight"], module.weight.detach())


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_a_gradient_that_is_not_finite_raises_too(tmp_path, checkpoint_seconds):
    module = RootLoss()
    recipe = toy(lambda pair: [Objective(module, SGD)], x=bad_at(3, 0.0), checkpoint_seconds=checkpoint_seconds)
    trainer = trainer_of(recipe, tmp_path / "run")
    with pytest.raises(NonFiniteLoss, match=f"a gradient was not finite before step {4 if checkpoint_seconds == 0 else 5}"):
        trainer.train()
    assert math.isfinite(module.weight.item())
    if checkpoint_seconds == 0:
        assert trainer.run.checkpoints.load()["step"] == 3


def test_the_step_is_right_for_an_objective_that_rarely_takes_one(tmp_path):
    def make(pair):
        return [Objective(RootLoss(), SGD), Objective(ToyLoss(), SGD, name="rare", every=3)]

    trainer = trainer_of(toy(make, x=bad_at(6, math.inf), log_every=20, steps=20, checkpoint_seconds=1e9), tmp_path / "run")
    with pytest.raises(NonFiniteLoss, match=r"^loss is inf, rare/loss is inf at step 6: term 'root' is inf, 'rare/b' is inf;"):
        trainer.train()
    other = trainer_of(
        toy(
            lambda pair: [Objective(ToyLoss(), SGD, name="rare", every=3)],
            x=bad_at(6, math.nan),
            log_every=20,
            steps=20,
            checkpoint_seconds=1e9,
        ),
        tmp_path / "other",
    )
    with pytest.raises(NonFiniteLoss, match=r"^rare/loss is nan at step 6: term 'rare/b' is nan;"):
        other.train()


def test_a_term_alone_may_not_be_finite_either(tmp_path):
    class Silent(ToyLoss):
        def forward(self, x):
            return self.weight**2, {"b": (self.weight * x.mean()).detach()}

    trainer = trainer_of(toy(lambda pair: [Objective(Silent(), SGD)], x=bad_at(1, math.nan)), tmp_path / "run")
    with pytest.raises(NonFiniteLoss, match=r"^a term is not finite at step 1: term 'b' is nan;"):
        trainer.train()


def test_non_finite_parameters_are_not_saved(tmp_path):
    trainer = trainer_of(sines(), tmp_path / "run")
    trainer.save()
    next(trainer.objectives[0].module.parameters()).data.fill_(math.nan)
    with pytest.raises(NonFiniteLoss, match="is not finite"):
        trainer.save()


# Held-out examples ----------------------------------------------------------------------------------------------------


def still(pair):
    return [Objective(ToyLoss(), SGD)]


def test_patience_stops_the_run_and_a_resumed_one_too(tmp_path):
    recipe = toy(still, elbo=lambda step: -abs(step - 4.0), steps=20, validate_every=2, patience=3)
    trainer = trainer_of(recipe, tmp_path / "run")
    trainer.train()
    assert (trainer.step, trainer.best, trainer.stopped_early) == (10, 0.0, True)
    again = trainer_of(recipe, tmp_path / "run")
    assert again.finished
    again.train()
    assert again.step == 10


def test_the_best_checkpoint_is_kept(tmp_path):
    recipe = toy(still, elbo=lambda step: -abs(step - 4.0), steps=20, validate_every=2, keep_best=True)
    trainer = trainer_of(recipe, tmp_path / "run")
    trainer.train()
    assert trainer.run.checkpoints.load(best=True)["step"] == 4
    assert trainer.run.checkpoints.load()["step"] == 20


def test_an_elbo_that_is_not_a_number_is_never_the_best(tmp_path):
    recipe = toy(still, elbo=lambda step: math.nan, steps=6, validate_every=2, keep_best=True)
    trainer = trainer_of(recipe, tmp_path / "run")
    trainer.train()
    assert not trainer.run.checkpoints.best.exists()


@pytest.mark.parametrize(("changes", "name"), [({"patience": 2}, "--patience"), ({"keep_best": True}, "--keep-best")])
def test_patience_and_the_best_need_a_held_out_share(tmp_path, changes, name):
    with pytest.raises(UsageError, match=f"{name} needs held-out examples: toy measures nothing on them"):
        trainer_of(toy(still, **changes), tmp_path / "run")


# Hardware -------------------------------------------------------------------------------------------------------------


def test_bf16_trains_close_to_fp32(undisturbed, tmp_path):
    trainer = trainer_of(sines(), tmp_path / "run", precision="bf16")
    trainer.train()
    ours, theirs = trainer.run.metrics()[-1]["loss"], undisturbed.run.metrics()[-1]["loss"]
    assert ours == pytest.approx(theirs, rel=0.05)


def test_traced_is_bit_identical(undisturbed, tmp_path):
    trainer = trainer_of(sines(), tmp_path / "run", "traced")
    trainer.train()
    assert_same(state_of(undisturbed), state_of(trainer))
    assert rows(undisturbed.run) == rows(trainer.run)


@pytest.mark.slow  # half a minute of compiling
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_compiled_steps_go_on_to_the_same_bits(tmp_path):
    """Adam's averages are kept as one tensor while steps are compiled, and each parameter's in a checkpoint."""
    whole = trained_state(graph(steps=8), tmp_path / "whole", "compiled")
    trained_state(graph(steps=3), tmp_path / "run", "compiled")
    assert_same(whole, trained_state(graph(steps=8), tmp_path / "run", "compiled"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_cuda(tmp_path, precision):
    from pyzoo.training import Hardware, Trainer

    run = RunFolder.create(tmp_path / "run", {})
    trainer = Trainer(sines(), run, Hardware("cuda", precision=precision), progress=False)
    trainer.train()
    assert trainer.recipe.report(trainer.pair.eval(), trainer.device).metrics()["order_gap"] < 1e-3


SCRIPT = """
import sys, torch
from pathlib import Path
from pyzoo.training import Hardware, RunFolder, Trainer
from toy import shared_layer, toy

if __name__ == "__main__":
    recipe = toy(shared_layer(int(sys.argv[2])), x=lambda step: 0.1 * step, steps=4)
    trainer = Trainer(recipe, RunFolder(Path(sys.argv[1])), Hardware("cpu", devices=2), progress=False)
    trainer.train()
    if trainer.fabric.is_global_zero:
        torch.save([objective.module.state_dict() for objective in trainer.objectives], sys.argv[1] + "/end.pt")
"""


@pytest.mark.parametrize("objectives", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_take_the_steps_of_one(tmp_path, objectives):
    """Also with two objectives that share their parameters, and move some each."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = RunFolder.create(tmp_path / "two", {})
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, script, run.path, str(objectives)], check=True, env=environment, timeout=120)
    trainer = trainer_of(toy(shared_layer(objectives), x=lambda step: 0.1 * step, steps=4), tmp_path / "one")
    before = [value.clone() for value in trainer.objectives[0].module.state_dict().values()]
    trainer.train()
    ends = [objective.module.state_dict() for objective in trainer.objectives]
    torch.testing.assert_close(torch.load(run.path / "end.pt", weights_only=True), ends)
    assert not any(torch.equal(*pair) for pair in zip(before, ends[0].values(), strict=True))
    assert RunFolder(run.path).metrics()[0]["step"] == 4


def test_a_batch_that_processes_cannot_share(tmp_path):
    with pytest.raises(UsageError, match="can't be shared equally by 3"):
        trainer_of(sines(), tmp_path / "run", devices=3)


# Threads --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody_chose(monkeypatch):
    """No number of threads in the environment, and two free cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr("pyzoo.training.trainer.free_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ["eager", "traced"])
def test_measuring_threads_leaves_no_trace(tmp_path, nobody_chose, engine):
    """A run whose threads were measured ends as one that was given their number."""
    nobody_chose.setattr("pyzoo.training.trainer.WORTH_MEASURING", 1)
    measured = trainer_of(sines(steps=6), tmp_path / "measured", engine)
    said = measured.choose_threads()
    assert said.startswith(f"computing with {measured.threads} thread")
    assert "ms with 1 thread" in said
    measured.train()
    given = trainer_of(sines(steps=6), tmp_path / "given", engine, threads=measured.threads)
    assert given.choose_threads() == ""
    given.train()
    expected = state_of(given)
    assert all(torch.equal(value, expected[name]) for name, value in state_of(measured).items())


def test_the_quicker_number_of_threads_is_chosen(tmp_path, nobody_chose):
    nobody_chose.setattr("pyzoo.training.trainer.WORTH_MEASURING", 1)
    for seconds, chosen in (([3.0, 2.0], 2), ([2.0, 3.0], 1)):
        trainer, times = trainer_of(sines(steps=6), tmp_path / str(chosen)), iter(seconds)
        nobody_chose.setattr(trainer, "seconds_of_step", lambda source, times=times: next(times))
        assert f"with {chosen} thread" in trainer.choose_threads()
        assert trainer.threads == chosen


def test_threads_are_not_measured_where_there_is_nothing_to_choose(tmp_path, nobody_chose):
    short = trainer_of(sines(steps=6), tmp_path / "short")
    assert short.choose_threads() == "computing with 2 threads: as many cores are free"
    nobody_chose.setattr("pyzoo.training.trainer.free_cores", lambda: 1)
    assert short.choose_threads() == "computing with 1 thread: as many cores are free"
    nobody_chose.setenv("OMP_NUM_THREADS", "2")
    assert short.choose_threads() == ""


def test_very_short_runs_are_eager(tmp_path):
    for steps, engine, kind in ((99, "auto", Eager), (100, "auto", Traced), (99, "traced", Traced)):
        trainer = trainer_of(graph(steps=steps), tmp_path / f"{steps}-{engine}", engine)
        assert [type(step) for step in trainer.step_of] == [kind]


@pytest.mark.slow
def test_steps_of_a_long_run_are_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr("pyzoo.training.trainer.WORTH_TRACING", 1)
    monkeypatch.setattr("pyzoo.training.trainer.has_compiler", lambda: True)
    monkeypatch.setattr("torch._inductor.standalone_compile", lambda graph, inputs, **options: graph)
    expected = trained_state(graph(steps=6), tmp_path / "traced", "traced")
    trainer = trainer_of(graph(steps=6), tmp_path / "short")
    assert trainer.choose_engine() == ""
    monkeypatch.setattr(trainer, "seconds_of_step", lambda source: 3600.0)
    assert trainer.choose_engine() == ""  # what was measured once is not measured again
    trainer = trainer_of(graph(steps=6), tmp_path / "long")
    monkeypatch.setattr(trainer, "seconds_of_step", lambda source: 3600.0)
    assert trainer.choose_engine() == "compiling the steps, which takes a minute or two: without that, training takes 6.0 hours"
    assert trainer.computed_with()["engine"] == "compiled"
    trainer.train()
    found = {name: value for name, value in state_of(trainer).items() if name.endswith((".weight", ".logits"))}
    for name, value in found.items():  # a bias before batch norm moves by rounding errors alone
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)
    assert trainer_of(graph(steps=9), tmp_path / "long").choose_engine() == ""  # a run goes on as it began
    for engine in ("eager", "traced"):  # the user's choice
        assert trainer_of(graph(steps=6), tmp_path / engine, engine).choose_engine() == ""
    monkeypatch.setattr("pyzoo.training.trainer.has_compiler", lambda: False)
    assert trainer_of(graph(steps=6), tmp_path / "none").choose_engine() == ""


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    trained_state(sines(steps=2), tmp_path / "run", "eager")
    with pytest.raises(UsageError, match="is of a run with --seed 0, not 1"):
        trainer_of(sines(steps=2, seed=1), tmp_path / "run")
    assert trainer_of(sines(steps=4, log_every=7), tmp_path / "run").step == 2


def test_what_decides_the_last_digits_is_kept(tmp_path):
    trained_state(sines(steps=2), tmp_path / "run", "eager")
    trainer = trainer_of(sines(steps=4), tmp_path / "run")
    assert trainer.resumed_from == trainer.computed_with()
    assert trainer_of(sines(steps=4), tmp_path / "run", threads=2).computed_with()["threads"] == "2"
