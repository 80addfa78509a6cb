"""Pyro's own generic tests of distributions, unchanged, against pyzoo's. Not collected by default: Pyro's wheel has no tests.

    git clone https://github.com/pyro-ppl/pyro /tmp/pyro
    cd /tmp && PYTHONPATH=/tmp/pyro python -m pytest -c /dev/null -p tests.conftest PYZOO/tests/distributions/pyro_suite.py

where PYZOO is this repository. (Pyro 1.9.1 itself fails its test_pickle since torch 2.6; its development branch does not.
Pyro's tests are a package called ``tests``, hence another working folder.) ``test_gof`` is not calibrated for vector events, by
torch's own multivariate normal too; the seed is fixed, and the sharp test is the comparison with a dense normal in
test_correlated_normal.py.
"""

import pytest
from tests.distributions.dist_fixture import Fixture
from tests.distributions.test_cuda import *  # noqa: F403
from tests.distributions.test_distributions import *  # noqa: F403

from pyzoo.distributions import CorrelatedNormal, WeightedProductOfExperts
from tests.distributions import test_pickle as pyro_pickle

del test_support_is_discrete, test_enumerate_support  # noqa: F821  of discrete distributions, and these are none

EXAMPLES = [
    {"loc": [0.3, -0.2, 1.0], "scale": [0.5, 1.0, 2.0], "rho": [0.2, 0.1, 0.3], "test_data": [0.1, 0.2, -0.3]},
    {
        "loc": [[0.3, -0.2], [0.0, 1.0]],
        "scale": [[0.5, 1.0], [1.5, 0.7]],
        "rho": [[0.2, 0.1], [0.6, 0.2]],
        "test_data": [[0.1, 0.2], [0.4, -1.0]],
    },
]
PRODUCTS = [  # two experts, of one feature and of two; of two rows, with weights and a prior of their own
    {"loc": [[0.3], [1.0]], "scale": [[0.5], [2.0]], "test_data": [0.1]},
    {"loc": [[0.3, -0.2], [1.0, 0.5]], "scale": [[0.5, 1.0], [2.0, 1.5]], "test_data": [0.1, 0.2]},
    {
        "loc": [[[0.3, -0.2], [1.0, 0.5]], [[0.0, 1.0], [0.1, -1.0]]],
        "scale": [[[0.5, 1.0], [2.0, 1.5]], [[0.7, 0.6], [1.0, 3.0]]],
        "weights": [[1.0], [0.5]],
        "prior_loc": [0.2, -0.1],
        "prior_scale": [1.5, 0.8],
        "test_data": [[0.1, 0.2], [0.4, -1.0]],
    },
]
OURS = [
    Fixture(pyro_dist=CorrelatedNormal, examples=EXAMPLES, prec=0.05, min_samples=10_000),
    Fixture(pyro_dist=WeightedProductOfExperts, examples=PRODUCTS, prec=0.05, min_samples=10_000),
]
pytestmark = pytest.mark.init(rng_seed=123)


@pytest.fixture(name="dist", params=OURS, ids=repr)
def _dist(request):
    return request.param


@pytest.fixture(name="continuous_dist", params=OURS, ids=repr)
def _continuous_dist(request):
    return request.param


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (CorrelatedNormal, [torch.zeros(3), torch.ones(3), torch.full((3,), 0.2)]),  # noqa: F405
        (WeightedProductOfExperts, [torch.zeros(2, 3), torch.ones(2, 3)]),  # noqa: F405
    ],
)
def test_pickle(monkeypatch, kind, arguments):
    monkeypatch.setitem(pyro_pickle.ARGS, kind, arguments)
    pyro_pickle.test_pickle(kind)
