"""How long the optimizer's step takes, by the clock that other programs disturb least."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import torch


class Stopwatch(Protocol):
    """A context manager that times its block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def ms(self) -> float:
        """Return what the last block took, milliseconds."""
        ...


def stopwatch(device: torch.device, threads: int) -> Stopwatch:
    """Return one for what is computed on ``device``.

    With one CPU thread it reads that thread's CPU time, with several wall time. On a GPU it marks
    the stream, which waits for nothing until `Stopwatch.ms` is asked.
    """
    if device.type == "cuda":
        return _OnStream()
    return _OnHost(time.thread_time if threads == 1 else time.perf_counter)


class _OnHost:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = self._ended = 0.0

    def __enter__(self) -> Self:
        self._began = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = self._clock()

    def ms(self) -> float:
        return (self._ended - self._began) * 1e3


class _OnStream:
    def __init__(self) -> None:
        self._began, self._ended = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )

    def __enter__(self) -> Self:
        self._began.record()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.record()

    def ms(self) -> float:
        self._ended.synchronize()
        return float(self._began.elapsed_time(self._ended))
