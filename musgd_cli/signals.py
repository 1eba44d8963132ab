"""Ctrl-C, and SIGTERM and SIGHUP like it: a request to end in good order, then an end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self


class StopRequest:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a request, and the second into an end.

    A lost terminal (SIGHUP) is told twice, by the kernel and by the shell, so it never ends the
    work at once; under ``nohup`` it is not listened to. A context manager; calling its instance
    says whether to stop.

    Args:
        on_request: Called on the first signal, from the signal handler.
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        self._on_request = on_request
        self._requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Say whether the work was asked to stop."""
        return self._requested

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only there can it be done
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
                self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._requested:
            if number == signal.SIGHUP:
                return
            raise KeyboardInterrupt
        self._requested = True
        # The signal may have come in the middle of a write to the stream that is told on, or
        # because the terminal behind it is gone.
        with contextlib.suppress(RuntimeError, OSError):
            self._on_request()
