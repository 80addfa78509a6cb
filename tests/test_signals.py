"""What signals do to the command, wherever they find it."""

import os
import signal
import time
import weakref

import pytest

from pyzoo import cli
from pyzoo.signals import Interrupted, on_signals

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.05)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_a_command_with_one_line(monkeypatch, capsys, number):
    monkeypatch.setitem(cli.COMMANDS, "list", lambda arguments: send(number))
    before = signal.getsignal(number)
    assert cli.main(["list"]) == 128 + number
    assert capsys.readouterr().err == f"pyzoo: interrupted by {number.name}; the same command starts over\n"
    assert signal.getsignal(number) is before


def test_signals_that_follow_at_once_leave_the_cleaning_up_alone():
    cleaned = []

    def work():
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGINT)
            cleaned.append(True)

    with pytest.raises(Interrupted, match="SIGTERM"), on_signals():
        work()
    assert cleaned


def test_a_signal_is_heard_where_python_drops_what_is_raised(capsys):
    class Thing:
        pass

    things = [Thing()]
    watched = weakref.ref(things[0], lambda _: send(signal.SIGTERM))

    def work():
        things.clear()
        time.sleep(1)

    with pytest.raises(Interrupted), on_signals():
        work()
    assert watched() is None
    assert not capsys.readouterr().err
