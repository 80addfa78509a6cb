import errno
import math
import os

import pytest
import torch

from pyzoo.errors import UsageError
from pyzoo.training.checkpoint import CheckpointFolder

STATE = {
    "recipe": "r",
    "settings": {"seed": 0},
    "computed_with": {"torch": "2"},
    "step": 1,
    "steps": 200_000_000,
    "seconds": 0.5,
    "best": -3.0,
    "waited": 0,
    "values": {"loss": torch.ones(2)},
    "model": {},
    "guide": {},
    "objectives": [{"module": {"a": torch.arange(3)}, "optimizer": {}, "scheduler": {}}],
}


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", keep=2)


def test_round_trip_and_only_the_newest_are_kept(folder):
    for step in (1, 2, 10, 300):
        folder.save(step, {**STATE, "step": step})
    assert [path.name for path in folder.files()] == ["step-00000010.pt", "step-00000300.pt"]
    loaded = folder.load()
    assert loaded["step"] == 300
    assert torch.equal(loaded["objectives"][0]["module"]["a"], torch.arange(3))


def test_the_newest_step_and_the_best_checkpoint(folder):
    assert folder.newest_step() == 0
    folder.save(3, {**STATE, "step": 3})
    with pytest.raises(UsageError, match=r"best\.pt, the best checkpoint that --keep-best kept, is missing"):
        folder.load(best=True)
    folder.save(3, {**STATE, "step": 3, "best": None})
    assert folder.load(best=True)["step"] == 3  # none was measured
    folder.save(3, {**STATE, "step": 3}, best=True)
    for step in (4, 5, 6):
        folder.save(step, {**STATE, "step": step})
    assert folder.newest_step() == 6
    assert folder.load()["step"] == 6
    assert folder.load(best=True)["step"] == 3
    assert folder.best.name not in [path.name for path in folder.files()]


def test_a_checkpoint_of_another_version_is_said_to_be(folder):
    folder.path.mkdir()
    torch.save({"recipe": "r", "step": 1, "objectives": []}, folder.path / "step-00000001.pt")
    with pytest.raises(UsageError, match=r"is damaged \(the checkpoint has no 'settings'\)"):
        folder.load()


def test_no_partial_file_is_left(folder):
    folder.save(1, STATE)
    assert [path.name for path in folder.path.iterdir()] == ["step-00000001.pt"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "another file of torch's"])
def test_a_damaged_checkpoint_is_named_and_so_is_the_one_before(folder, damage):
    folder.save(1, STATE)
    newest = folder.save(2, STATE)
    content = newest.read_bytes()
    if damage == "another file of torch's":
        torch.save([1, 2], newest)
    else:
        newest.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(UsageError, match=r"step-00000002\.pt is damaged.*delete it to go back to step-00000001\.pt") as caught:
        folder.load()
    assert "\n" not in str(caught.value)


def test_no_checkpoint(folder):
    with pytest.raises(UsageError, match="no checkpoint yet"):
        folder.load()


def test_code_is_not_loaded(folder):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    folder.path.mkdir()
    torch.save({**STATE, "evil": Evil()}, folder.path / "step-00000001.pt")
    with pytest.raises(UsageError, match="damaged"):
        folder.load()


@pytest.mark.parametrize("when", ["write", "sync"])
def test_a_full_disk_leaves_the_last_good_checkpoint(folder, monkeypatch, when):
    good = folder.save(1, STATE)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*{"write": (torch, "save", full), "sync": (os, "fsync", full)}[when])
    with pytest.raises(UsageError, match=f"No space left on device; the last good checkpoint is {good}"):
        folder.save(2, STATE)
    monkeypatch.undo()
    assert folder.load()["step"] == 1
    assert [path.name for path in folder.path.iterdir()] == [good.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_torchs_own_error_for_a_full_disk(folder, monkeypatch):
    folder.save(1, STATE)
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda path, mode="r", *a, **k: real("/dev/full" if mode == "wb" else path, mode, *a, **k)
    )
    with pytest.raises(UsageError, match="last good checkpoint"):
        folder.save(2, {**STATE, "big": torch.zeros(1_000_000)})


def test_any_changed_byte_is_found(folder):
    """Of tensors and of the rest; what is not found changes nothing that is read."""
    file = folder.save(1, {**STATE, "model": {"w": torch.arange(4000.0)}})
    content, expected = file.read_bytes(), folder.load()
    generator = torch.Generator().manual_seed(0)
    found = 0
    for _ in range(200):
        place = int(torch.randint(len(content), (), generator=generator))
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        try:
            state = folder.load()
        except UsageError:
            found += 1
        else:
            assert torch.equal(state["model"]["w"], expected["model"]["w"])
            assert {name: state[name] for name in ("step", "steps", "best")} == {
                name: expected[name] for name in ("step", "steps", "best")
            }
    assert found > 150


@pytest.mark.parametrize(
    "change",
    [
        {"step": -5},
        {"step": True},
        {"step": 1.0},
        {"seconds": math.nan},
        {"best": "high"},
        {"waited": None},
        {"values": {"loss": torch.ones(2, 2)}},
        {"values": {"loss": torch.tensor([math.nan])}},
        {"model": {"w": torch.eye(2).to_sparse()}},
        {"values": [torch.ones(2)]},
        {"model": {"w": 3}},
        {"model": {"w": torch.tensor([0.0, math.nan])}},
        {"step": 2},
        {"step": 300_000_000},
        {"objectives": {}},
        {"objectives": [{"optimizer": {}}]},
    ],
    ids=str,
)
def test_a_checkpoint_is_checked_before_it_is_believed(folder, change):
    folder.save(1, {**STATE, **change})
    with pytest.raises(UsageError, match=rf"step-00000001.pt is damaged \(.*{next(iter(change))}"):
        folder.load()


def test_steps_sort_as_numbers(folder):
    for step in (99_999_999, 100_000_000):
        folder.save(step, {**STATE, "step": step})
    assert folder.newest_step() == 100_000_000


def test_a_refused_pickle_is_not_advised_to_be_trusted(folder):
    folder.path.mkdir()
    torch.save({**STATE, "more": slice(1, 2)}, folder.path / "step-00000001.pt")
    with pytest.raises(UsageError, match="it holds something other than tensors and plain values") as caught:
        folder.load()
    assert "weights_only" not in str(caught.value)
