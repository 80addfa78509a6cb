import hashlib

import pytest
import torch
from safetensors.torch import save
from torch import nn

from pyzoo.errors import UsageError
from pyzoo.training.weights import load_weights, save_weights


@pytest.fixture
def states():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5))
    guide = nn.ModuleDict({"shared": model[2], "own": nn.Linear(80, 70)})
    return {"model": model.state_dict(), "guide": guide.state_dict()}


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_weights_come_back_up_to_their_rounding(states, tmp_path, bits):
    file = tmp_path / "weights.safetensors"
    found = load_weights(file, save_weights(file, states, bits))
    assert found.keys() == states.keys()
    for module, state in states.items():
        assert found[module].keys() == state.keys()
        for name, value in state.items():
            back = found[module][name]
            assert (back.shape, back.dtype) == (value.shape, value.dtype)
            if value.dim() < 2:
                assert torch.equal(back, value)
            else:
                in_8_bits = bits == 8 and name == "own.weight"  # the others are small
                error = 0.0 if bits == 32 else 0.5 / 127 * 1.001 if in_8_bits else 2**-11
                largest = value.flatten(1).abs().amax(1).reshape(-1, *[1] * (value.dim() - 1))
                assert ((back - value).abs() <= error * largest).all()


def test_a_row_of_zeros_is_kept_in_eight_bits(tmp_path):
    matrix = torch.tensor([[0.0, 0.0], [1.0, -2.0]]).repeat(1, 2000)
    found = load_weights(tmp_path / "w", save_weights(tmp_path / "w", {"model": {"weight": matrix}}, 8))
    assert torch.allclose(found["model"]["weight"], matrix, atol=2 / 254)


def test_equal_tensors_are_written_once(tmp_path):
    weight = torch.randn(50, 50)
    one, both = {"model": {"w": weight}}, {"model": {"w": weight}, "guide": {"v": weight}}
    save_weights(tmp_path / "one", one)
    found = load_weights(tmp_path / "both", save_weights(tmp_path / "both", both))
    assert (tmp_path / "both").stat().st_size < (tmp_path / "one").stat().st_size + 200
    assert torch.equal(found["guide"]["v"], found["model"]["w"])
    found["guide"]["v"].zero_()
    assert found["model"]["w"].any()  # each is a tensor of its own


def test_what_rounding_would_make_infinite_stays_as_it_is(tmp_path):
    large = torch.tensor([[1e6, 1.0], [torch.inf, 2.0]]).repeat(1, 4000)
    for bits in (8, 16):
        for matrix in (large[:1], large):
            found = load_weights(tmp_path / "w", save_weights(tmp_path / "w", {"model": {"weight": matrix}}, bits))["model"][
                "weight"
            ]
            assert torch.equal(found.isinf(), matrix.isinf())
            assert torch.allclose(found, matrix, atol=1e6 / 254)


@pytest.mark.parametrize("same", ["[]", "5", "null", '"x"', '{"model.a": "model.none"}', '{"model.a": ["b"]}', "[" * 100_000])
def test_a_hostile_head_is_refused(tmp_path, same):
    refused(tmp_path, save({"model.weight": torch.zeros(2, 2)}, {"same": same}))


@pytest.mark.parametrize("steps", [torch.ones(3), torch.tensor(1.0), torch.ones(2, 2, 2)])
def test_steps_of_another_form_are_refused(tmp_path, steps):
    refused(tmp_path, save({"model.weight": torch.zeros(2, 2, dtype=torch.int8), "model.weight:step": steps}))


def refused(folder, content):
    """Has a file refused whose check sum is right."""
    (folder / "w").write_bytes(content)
    with pytest.raises(UsageError, match="is no file of weights"):
        load_weights(folder / "w", hashlib.sha256(content).hexdigest())


def test_a_file_that_is_not_the_one_that_was_written_is_refused(states, tmp_path):
    file = tmp_path / "weights.safetensors"
    sha256 = save_weights(file, states)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UsageError, match="is damaged, or another model's"):
        load_weights(file, sha256)
    file.write_bytes(b"no weights")
    with pytest.raises(UsageError, match="is no file of weights"):
        load_weights(file, hashlib.sha256(b"no weights").hexdigest())
    file.unlink()
    with pytest.raises(UsageError, match="can't be read"):
        load_weights(file, sha256)
