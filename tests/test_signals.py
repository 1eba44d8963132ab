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
