"""Signals that ask a process to stop: one from a terminal, a supervisor, or a terminal that closes."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Interrupted", "on_signals"]

SAME_REQUEST = 1.0
"""Seconds in which further signals count as the one before: systemd sends two, and a terminal and its shell one each."""


class Interrupted(KeyboardInterrupt):
    """A signal has stopped what was under way."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


def interrupt(number: int) -> None:
    """Raises :class:`Interrupted`, from wherever the process is."""
    raise Interrupted(number)


_contexts: list[object] = []
_latest = -math.inf


@contextlib.contextmanager
def on_signals(react: Callable[[int], None] = interrupt) -> Iterator[None]:
    """The context in which SIGINT, SIGTERM and SIGHUP call a function with their number; by default they raise.

    What follows within a second is dropped, so that what the first one makes the process clean up is cleaned up. Outside of the
    main thread, where Python hands out no signals, nothing changes.
    """
    global _latest

    def handle(number: int, frame: object) -> None:
        global _latest
        now = time.monotonic()
        if now - _latest >= SAME_REQUEST:
            _latest = now
            react(number)

    def again(unraisable: Any) -> None:
        """Python drops what is raised while it frees something: the signal comes once more."""
        global _latest
        if not isinstance(unraisable.exc_value, Interrupted):
            hook(unraisable)
            return
        _latest = -math.inf
        threading.Timer(0.01, os.kill, (os.getpid(), unraisable.exc_value.number)).start()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {signal.SIGINT, signal.SIGTERM}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        numbers.add(signal.SIGHUP)
    if not _contexts:
        _latest = -math.inf
    _contexts.append(handle)
    hook, sys.unraisablehook = sys.unraisablehook, again
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        _contexts.remove(handle)
