"""Ctrl-C asks first and ends then."""

from __future__ import annotations

import os
import signal
import time

import pytest

from musgd_cli.signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_ends(number: signal.Signals) -> None:
    told: list[bool] = []
    before = signal.getsignal(number)
    with StopRequest(lambda: told.append(True)) as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stop()
        assert told == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(1)
    assert signal.getsignal(number) is before


def test_a_lost_terminal_asks_however_often_it_is_told() -> None:
    def gone() -> None:
        raise OSError(5, "the terminal is gone")

    with StopRequest(gone) as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop()


def test_what_nohup_started_does_not_hear_of_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest(lambda: None) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)
