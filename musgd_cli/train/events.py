"""What a training run tells while it goes, and how it is asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from musgd_cli.errors import ExitCode, MusgdError
from musgd_cli.records import EpochLog, StepLog, TrainStart


def ignore(_: Any) -> None:
    """Hear it and do nothing."""


def never() -> bool:
    """Do not stop."""
    return False


@dataclass(frozen=True)
class Listeners:
    """Whom a run tells what."""

    on_start: Callable[[TrainStart], None] = ignore
    """Once, before the first step."""
    on_step: Callable[[StepLog], None] = ignore
    on_epoch: Callable[[EpochLog], None] = ignore
    """After the epoch is saved."""
    on_note: Callable[[str], None] = ignore
    """A line for people: something was decided that they should know."""
    on_warning: Callable[[str], None] = ignore
    """A line that they should know even if they asked for quiet."""
    stop: Callable[[], bool] = never
    """Asked after each step and each saved epoch whether to stop there."""


class TrainingInterruptedError(MusgdError):
    """A run stopped where it was asked to (exit code 130)."""

    def __init__(self, what: str, mend: str, exit_code: ExitCode = ExitCode.INTERRUPTED) -> None:
        super().__init__(what, mend, exit_code)


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request, and the second into an end.

    A context manager; its instance is the `Listeners.stop` to pass on.

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
            raise KeyboardInterrupt
        self._requested = True
        # The signal may have come in the middle of a write to the stream that is told on.
        with contextlib.suppress(RuntimeError):
            self._on_request()
