"""Threads and processes on a CPU: how many cores are free, and how torch's threads wait for each other.

Threads that wait for each other spin, since that is quicker than to sleep, as long as each has a core of its own. Beside other
processes a spinning thread keeps the one that it waits for from its core, and a step can take a hundred times as long. OpenMP
reads how long to spin when torch is imported: nothing here imports it.
"""

import os
import sys
import time
from pathlib import Path

__all__ = ["available_cores", "chosen_by_user", "free_cores", "is_first_process", "limit_spinning", "spins_freely"]

SPIN_COUNT = 10_000
"""Rounds that a waiting thread spins before it sleeps; GNU's OpenMP takes 300,000. Measured by ``benchmarks/busy.py``."""

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def is_first_process(processes: int) -> bool:
    """Whether this is the only process of a training, or the one of several that writes: Fabric starts the others with a rank."""
    if processes == 1:
        return True
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def limit_spinning() -> bool:
    """Has torch's threads sleep soon when they wait, unless the user has said how they should; returns whether it could.

    It can as long as torch is not imported. Processes that this one starts inherit the setting.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _WAITING):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    return True


def spins_freely() -> bool:
    """Whether nobody has said how long waiting threads spin."""
    return not any(name in os.environ for name in _WAITING)


def chosen_by_user() -> bool:
    """Whether the number of threads is set in the environment."""
    return any(name in os.environ for name in _COUNTS)


def available_cores() -> int:
    """The cores that this process may use: those that it is bound to, within the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or one without a quota
        pass
    return cores


def free_cores(seconds: float = 0.1) -> int:
    """How many of the available cores no other process uses, at least 1; it watches for some time."""
    before = idle_seconds()
    if before is None:  # not Linux: the mean number of busy processes in the last minute
        return max(1, round(available_cores() - (os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0)))
    start = time.monotonic()
    time.sleep(seconds)
    after = idle_seconds()
    idle = (after - before) / (time.monotonic() - start)
    return min(available_cores(), max(1, round(idle)))


def idle_seconds() -> float | None:
    """Seconds that the cores of this process have idled since the machine started, all together."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        cores = os.sched_getaffinity(0)
    except (OSError, AttributeError):
        return None
    rows = [line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit()]
    ticks = sum(int(row[4]) + int(row[5]) for row in rows if int(row[0][3:]) in cores)  # idle, and waiting for a disk
    return ticks / os.sysconf("SC_CLK_TCK")
