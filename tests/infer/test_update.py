import math

import pytest
import torch

from pyzoo.infer.update import are_finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_entry_anywhere_is_found(bad):
    tensors = [torch.zeros(3, 2), torch.zeros(()), torch.zeros(0), torch.zeros(5, dtype=torch.float64)]
    assert are_finite(tensors)
    assert are_finite([])
    for tensor in tensors:
        for place in range(tensor.numel()):
            tensor.view(-1)[place] = bad
            assert not are_finite(tensors)
            tensor.view(-1)[place] = 1e38  # of which the squares are not finite
    assert are_finite(tensors)
