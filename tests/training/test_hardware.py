import pytest
import torch

from pyzoo.errors import UsageError
from pyzoo.training import Hardware


@pytest.mark.parametrize("options", [{"devices": 0}, {"num_nodes": -1}])
def test_out_of_range(options):
    with pytest.raises(UsageError, match="at least 1"):
        Hardware(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "--precision must be one of fp32, bf16, got fp16"),
        ({"engine": "jit"}, "--engine must be one of auto, eager, traced, compiled, captured, got jit"),
    ],
)
def test_unknown_choices(options, message):
    with pytest.raises(UsageError, match=message):
        Hardware(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_cuda():
    for name in ("cuda", "cuda:1"):
        with pytest.raises(UsageError, match=f"--device {name}: this machine, or this build of torch, has no CUDA device"):
            Hardware(name).find()
    assert Hardware("auto").find() == torch.device("cpu")
    assert Hardware("cpu").find() == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_by_number():
    assert Hardware("cuda:0").find() == torch.device("cuda:0")
    assert Hardware("auto").find().type == "cuda"
    with pytest.raises(UsageError, match="counted from 0"):
        Hardware(f"cuda:{torch.cuda.device_count()}").find()


@pytest.mark.parametrize("device", ["gpu", "", "xla", "cuda:x"])
def test_devices_that_torch_does_not_know(device):
    with pytest.raises(UsageError, match="--device must be auto, cpu, cuda, cuda:1, mps or the like, got"):
        Hardware(device).find()


def test_arithmetic_is_restored():
    before = torch.get_float32_matmul_precision()
    with Hardware("cpu", precision="bf16").arithmetic():
        assert torch.get_float32_matmul_precision() == "medium"
    with Hardware("cpu").arithmetic():
        assert torch.get_float32_matmul_precision() == before
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(("precision", "convolutional"), [("fp32", True), ("bf16", False), ("bf16", True)])
def test_convolutions_are_under_autocast_in_half_precision(precision, convolutional):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1) if convolutional else torch.nn.Linear(1, 1))
    with Hardware("cpu", precision=precision).fabric(network).autocast():
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16" and convolutional)


def test_equal_shares():
    Hardware(devices=2, num_nodes=2).require_equal_shares(8)
    with pytest.raises(UsageError, match="--batch-size 6 can't be shared equally by 4 processes"):
        Hardware(devices=2, num_nodes=2).require_equal_shares(6)
    Hardware(devices=2).require_equal_shares(4, fewest=2)
    with pytest.raises(UsageError, match="--batch-size must be at least 4 with 2 processes, 2 for each, for batch norm, got 2"):
        Hardware(devices=2).require_equal_shares(2, fewest=2)
