import pyro.distributions as dist
import pytest
import torch
from pyro.infer.util import is_validation_enabled

from pyzoo.infer import evaluating


def test_leaves_everything_as_it_was():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2))
    module[1].eval()
    before = is_validation_enabled()
    with evaluating(module):
        assert not module.training
        assert not torch.is_grad_enabled()
        assert not is_validation_enabled()
        dist.Normal(0.0, -1.0)
    with pytest.raises(RuntimeError, match="within"), evaluating(module):
        raise RuntimeError("within")
    assert [module.training, module[0].training, module[1].training] == [True, True, False]
    assert torch.is_grad_enabled()
    assert is_validation_enabled() == before
