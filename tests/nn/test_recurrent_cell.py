"""The recurrent cell under autocast."""

import torch

from pyzoo.nn import RecurrentCell


def test_a_cell_is_torch_own_in_full_precision_under_autocast():
    torch.manual_seed(0)
    cell, twin = RecurrentCell(3, 5), torch.nn.LSTMCell(3, 5)
    twin.load_state_dict(cell.state_dict())
    x = torch.rand(2, 3)
    expected = twin(x, twin(x))
    with torch.autocast("cpu", torch.bfloat16):
        found = cell(x.bfloat16().float(), cell(x))
    torch.testing.assert_close(found[0], twin(x.bfloat16().float(), twin(x))[0], rtol=0, atol=0)
    assert cell(x, cell(x))[1].equal(expected[1])
