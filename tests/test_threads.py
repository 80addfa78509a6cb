import os
import subprocess
import sys

import pytest

from pyzoo import threads


@pytest.fixture
def environment(monkeypatch):
    """As if nobody had said anything."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def spin_count(statement, **variables):
    """GOMP_SPINCOUNT in a fresh process after a statement."""
    hidden = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {**{name: value for name, value in os.environ.items() if name not in hidden}, **variables}
    command = f"import os; {statement}; print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_waiting_threads_sleep_soon_unless_the_user_has_said_how_they_wait():
    limit = "from pyzoo.threads import limit_spinning; limit_spinning()"
    assert spin_count(limit) == str(threads.SPIN_COUNT)
    assert spin_count(limit, GOMP_SPINCOUNT="7") == "7"
    assert spin_count(limit, OMP_WAIT_POLICY="active") == "None"
    assert spin_count(f"import torch; {limit}") == "None"  # too late
    assert spin_count("import pyzoo; pyzoo.train") == str(threads.SPIN_COUNT)


def test_what_the_user_has_chosen(environment):
    assert threads.spins_freely()
    assert not threads.chosen_by_user()
    environment.setenv("OMP_WAIT_POLICY", "passive")
    assert not threads.spins_freely()
    environment.setenv("OMP_NUM_THREADS", "3")
    assert threads.chosen_by_user()


def test_free_cores_are_those_that_idle(environment):
    """Of four cores, by the seconds that they idle while it watches."""
    environment.setattr(threads, "available_cores", lambda: 4)
    environment.setattr(threads.time, "sleep", lambda seconds: None)
    for idle, free in ((4.0, 4), (3.4, 3), (1.2, 1), (0.0, 1)):
        clock, seconds = iter([10.0, 11.0]), iter([100.0, 100.0 + idle])
        environment.setattr(threads.time, "monotonic", lambda clock=clock: next(clock))
        environment.setattr(threads, "idle_seconds", lambda seconds=seconds: next(seconds))
        assert threads.free_cores() == free


def test_the_load_serves_where_nothing_says_how_long_cores_idle(environment):
    environment.setattr(threads, "available_cores", lambda: 4)
    environment.setattr(threads, "idle_seconds", lambda: None)
    for load, free in ((0.0, 4), (2.2, 2), (9.0, 1)):
        environment.setattr(threads.os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert threads.free_cores() == free


def test_there_is_a_core():
    assert 1 <= threads.free_cores(0.01) <= threads.available_cores()
