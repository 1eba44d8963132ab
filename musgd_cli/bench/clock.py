"""Timing: warm up until latency is steady, then time every frame and keep every sample.

A frame is letterbox, inference and decode of one image that is in memory already. All three are
timed in one loop, so that an inference meets the caches as they are in use, not as they are when
nothing else happens.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean, median
from time import perf_counter_ns, process_time_ns, time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from musgd_cli.records import LatencyMs

WINDOW_S = 0.5
WINDOW_FRAMES = 5
"""A window of the warm-up lasts this long and holds so many frames, whichever takes longer."""

STEADY_WINDOWS = 3
STEADY_SPREAD = 0.03
"""Steady: the median latencies of the last three windows lie within 3 % of each other."""

PATIENCE = 5
"""How many times its shortest time the warm-up lasts at most while latency does not settle."""

FEWEST_FRAMES = 10
"""Timed however long they take: a p99 of fewer says nothing."""

HARNESS_FRAMES = 2000
"""Of nothing, which take about a millisecond."""

MOMENT_S = 1.0
MOST_MOMENTS = 600
"""A moment lasts as long as the first says, or longer where a run would have more than so many."""

_MS = 1e-6


class Stages(Protocol):
    """The three parts of a frame, as a detector has them."""

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn an image into the network's input."""
        ...

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network."""
        ...

    def decode(self, output: NDArray[np.float32]) -> object:
        """Turn the network's output into boxes."""
        ...


@dataclass(frozen=True)
class WarmUp:
    """How the warm-up went."""

    n: int
    seconds: float
    steady: bool


NO_WARM_UP = WarmUp(n=0, seconds=0.0, steady=False)


@dataclass(frozen=True)
class Times:
    """Milliseconds of every timed frame, in order, by stage."""

    pre_ms: tuple[float, ...]
    infer_ms: tuple[float, ...]
    post_ms: tuple[float, ...]
    began: float
    """Of the first frame, seconds since 1970 UTC."""
    seconds: float
    """Of the whole loop."""
    cpu_s: float
    """CPU time of this process in it, all threads."""
    pace: tuple[tuple[float, float], ...]
    """Frames a second over time: the middle of each moment, seconds since the first frame, and the
    rate then."""


def pace(ends_s: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Cut a run into moments of about a second, whole frames each, and tell the rate in each.

    Args:
        ends_s: (n,) when each frame ended, seconds since the first began; rising.

    Returns:
        The middle of each moment and its frames a second. A rest that is shorter than half a moment
        goes to the one before it.
    """
    length = max(MOMENT_S, ends_s[-1] / MOST_MOMENTS)
    moments: list[tuple[float, float]] = []
    first, begin = 0, 0.0
    while first < len(ends_s):
        last = int(np.searchsorted(ends_s, begin + length))
        if last >= len(ends_s) or ends_s[-1] - ends_s[last] < length / 2:
            last = len(ends_s) - 1
        end = float(ends_s[last])
        moments.append(((begin + end) / 2, (last + 1 - first) / (end - begin)))
        first, begin = last + 1, end
    return tuple(moments)


def latency(samples_ms: Sequence[float]) -> LatencyMs:
    """Sum up samples; percentiles are interpolated linearly between them."""
    p50, p90, p99 = (float(value) for value in np.percentile(samples_ms, (50, 90, 99)))
    return LatencyMs(
        p50=p50,
        p90=p90,
        p99=p99,
        mean=fmean(samples_ms),
        min=min(samples_ms),
        max=max(samples_ms),
    )


def warm_up(
    frame: Callable[[], float], at_least_s: float, clock_ns: Callable[[], int] = perf_counter_ns
) -> WarmUp:
    """Run frames until their latency is steady.

    Args:
        frame: Runs one frame and returns its inference in milliseconds.
        at_least_s: Go on for so long, however steady latency looks.
        clock_ns: A monotonic clock.

    Returns:
        ``steady`` is false when latency had not settled within :data:`PATIENCE` times
        ``at_least_s``, nor within one window more than steadiness takes.
    """
    begin = now = clock_ns()
    medians: list[float] = []
    n = 0
    while True:
        window_begin = now
        window: list[float] = []
        while len(window) < WINDOW_FRAMES or (now - window_begin) < WINDOW_S * 1e9:
            window.append(frame())
            now = clock_ns()
        n += len(window)
        medians.append(median(window))
        seconds = (now - begin) / 1e9
        last = medians[-STEADY_WINDOWS:]
        steady = len(last) == STEADY_WINDOWS and max(last) <= min(last) * (1 + STEADY_SPREAD)
        tired = len(medians) > STEADY_WINDOWS and seconds >= at_least_s * PATIENCE
        if (steady and seconds >= at_least_s) or tired:
            return WarmUp(n, seconds, steady)


class FrameLoop:
    """Images, round and round, through the stages.

    Args:
        stages: What a frame consists of.
        images: (height, width, 3) BGR each, at least one.
    """

    def __init__(self, stages: Stages, images: Sequence[NDArray[np.uint8]]) -> None:
        self._stages = stages
        self._images = images
        self._next = cycle(images)

    def once(self) -> float:
        """Run one frame and return its inference in milliseconds."""
        x = self._stages.prepare(next(self._next))
        begin = perf_counter_ns()
        output = self._stages.infer(x)
        end = perf_counter_ns()
        self._stages.decode(output)
        return (end - begin) * _MS

    def run(
        self,
        seconds: float,
        at_least: int = FEWEST_FRAMES,
        *,
        on_begin: Callable[[], object] = lambda: None,
        on_end: Callable[[], object] = lambda: None,
    ) -> Times:
        """Time frames for so many seconds, and so many frames, whichever takes longer.

        With ``seconds`` of 0 it is exactly so many frames.

        Args:
            seconds: Of the loop.
            at_least: Frames, however long they take.
            on_begin: Called right before the first frame.
            on_end: Called right after the last one, before anything is made of the times.

        Garbage is collected before, and not during, the loop.
        """
        prepare, infer, decode = self._stages.prepare, self._stages.infer, self._stages.decode
        images = cycle(self._images)
        ticks = array("q")  # four a frame; a list of tuples would be a part of the peak memory
        collects = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            on_begin()
            began = time()
            cpu_ns = process_time_ns()
            begin = now = perf_counter_ns()
            end = begin + int(seconds * 1e9)
            while now < end or len(ticks) < 4 * at_least:
                image = next(images)
                t0 = perf_counter_ns()
                x = prepare(image)
                t1 = perf_counter_ns()
                output = infer(x)
                t2 = perf_counter_ns()
                decode(output)
                now = perf_counter_ns()
                ticks.extend((t0, t1, t2, now))
            cpu_ns = process_time_ns() - cpu_ns
            on_end()
        finally:
            if collects:
                gc.enable()
        times = np.frombuffer(ticks, np.int64).reshape(-1, 4)
        spans = np.diff(times, axis=1) * _MS
        return Times(
            pre_ms=tuple(spans[:, 0].tolist()),
            infer_ms=tuple(spans[:, 1].tolist()),
            post_ms=tuple(spans[:, 2].tolist()),
            began=began,
            seconds=(now - begin) / 1e9,
            cpu_s=cpu_ns / 1e9,
            pace=pace((times[:, 3] - times[0, 0]) / 1e9),
        )


class _NoStages:
    """A frame of which nothing is done."""

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return image  # type: ignore[return-value]

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x

    def decode(self, output: NDArray[np.float32]) -> object:
        return output


def harness_ms() -> float:
    """Return what the loop itself takes a frame: measured by one whose stages do nothing."""
    loop = FrameLoop(_NoStages(), [np.zeros((1, 1, 3), np.uint8)])
    times = loop.run(0, HARNESS_FRAMES)
    return 1000 * times.seconds / HARNESS_FRAMES
