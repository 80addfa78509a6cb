import pytest
import torch
from sklearn.metrics import r2_score

from pyzoo.evaluation import pooled_r2


def test_equals_scikit_learns():
    x, y = torch.randn(2, 50, 7)
    assert pooled_r2(x, y) == pytest.approx(r2_score(x, y, multioutput="variance_weighted"), abs=1e-6)


def test_images():
    x = torch.randn(9, 3, 4, 4)
    assert pooled_r2(x, x) == 1
    assert pooled_r2(x, x.mean(0, keepdim=True).expand_as(x)) == pytest.approx(0, abs=1e-12)
