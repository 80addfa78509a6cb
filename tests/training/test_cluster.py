"""Connections to clusters, by packages that stand in for Dask and Ray."""

import sys
from types import SimpleNamespace

import pytest

from pyzoo.errors import UsageError
from pyzoo.training.cluster import connect


@pytest.fixture
def dask(monkeypatch):
    """Stands in for Dask; its configuration, and the addresses that were connected to."""

    def client(address):
        if address == "tcp://nowhere":
            raise OSError("Timed out trying to connect to tcp://nowhere")
        found.connected.append(address)

    found = SimpleNamespace(config={}, connected=[])
    monkeypatch.setitem(sys.modules, "dask", found)
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(Client=client))
    return found


def test_dask_is_connected_to_where_its_configuration_says(dask):
    dask.config["scheduler-address"] = "tcp://somewhere"
    connect("dask")
    assert dask.connected == ["tcp://somewhere"]


def test_dask_needs_an_address(dask):
    with pytest.raises(UsageError, match=r"--backend dask needs the address of Dask's scheduler in \$DASK_SCHEDULER_ADDRESS"):
        connect("dask")
    dask.config["scheduler-address"] = "tcp://nowhere"
    with pytest.raises(UsageError, match="--backend dask cannot connect: Timed out"):
        connect("dask")


def test_ray_is_registered(monkeypatch):
    seen = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray.util", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ray.util.joblib", SimpleNamespace(register_ray=lambda: seen.append("ray")))
    connect("ray")
    connect("loky")
    assert seen == ["ray"]


@pytest.mark.parametrize(("backend", "module"), [("dask", "dask"), ("dask", "distributed"), ("ray", "ray")])
def test_a_package_that_is_missing_is_named(dask, monkeypatch, backend, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=f"--backend {backend} needs a package: .*{module}"):
        connect(backend)
