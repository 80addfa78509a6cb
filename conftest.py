"""What tests and doctests share: a fixed start, one thread, and the names that every example may use."""

import os
import signal

# At these sizes a second thread only waits for the first; processes that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = "1"

import pyro
import pyro.distributions as dist
import pytest
import torch

collect_ignore = [
    "tests/distributions/pyro_suite.py",  # runs beside a checkout of Pyro, as it says
    "tests/example_package",  # someone else's package, which tests/test_example_package.py installs and runs
]
torch.set_num_threads(1)
if hasattr(signal, "SIGHUP"):  # under nohup it is ignored, and would be by the processes that tests send it to
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _fresh(doctest_namespace):
    """Each test and example starts from a seed and an empty parameter store."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    doctest_namespace.update(pyro=pyro, dist=dist, torch=torch)
    yield
    pyro.clear_param_store()
