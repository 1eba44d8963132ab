"""What a power meter is, and how an instrument is read throughout a window."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from musgd_cli.records import Kind, PowerReading

Scope = Literal["board", "module", "rails", "gpu", "package", "sensor"]
"""What the energy is of: the board at its input; the compute module at its; the rails that a power
chip feeds, without what hangs on the input besides; one card; one chip; or whatever a sensor of
that name sits at, which musgd cannot tell."""

_OF_WHAT: dict[str, str] = {
    "board": "of the whole board",
    "module": "of the whole module",
    "rails": "of the rails that the power chip feeds, which are not the whole board",
    "package": "of the processor alone",
    "gpu": "of the graphics card alone",
    "sensor": "of whatever that sensor sits at, which need not be the whole machine",
}

SAMPLE_HZ = 10.0
"""INA sensors average over tens of milliseconds; faster sampling reads the same value twice."""

FEWEST_SAMPLES = 5
"""Values of an instrument with a pace of its own that must lie within a window. Work begins and
ends with a step in power, which lines between values smear over one period at each end: with five,
the error is at most a fifth of the step, and with none the figure is of other work."""

_COUNTER_CHECK_S = 10.0
"""How often a counter is read within a window, so that it cannot wrap twice unseen: AMD's RAPL
counter wraps after 65 kJ, which 500 W take 131 s to use."""

ABSURD_W = 100_000.0
"""No machine we run on draws that much."""


def scope_in_words(scope: str) -> str:
    """Say what energy is of: ``of the whole board``. A scope that is none of ours is just named."""
    return _OF_WHAT.get(scope, f"of the {scope}")


def three_digits(hz: float | None) -> float | None:
    """Round a rate to what is known of it; one a minute must not become none."""
    return None if hz is None else float(f"{hz:.3g}")


class PowerMeter(Protocol):
    """An instrument that measures the energy of a window."""

    source: str
    """Where the figure comes from, e.g. ``rapl:package-0``."""
    scope: Scope
    kind: Kind
    """``measured`` where a sensor is read, ``reported`` where firmware worked it out."""
    hz: float | None
    """Samples a second that are meant; a reading has what came of it. ``None`` for a counter."""

    def begin(self) -> None:
        """Begin a window; one that is open is dropped."""

    def end(self) -> PowerReading | None:
        """End the window; ``None`` when the meter died in it, gave what cannot be, or is too slow.

        Raises:
            RuntimeError: No window was begun.
        """


class Clock:
    """The time that a window meter goes by: this machine's. A replay has one of its own."""

    def now_s(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait until ``stop`` is set, at most so many seconds, and tell whether it is."""
        return stop.wait(seconds)


REAL_TIME = Clock()

Value = TypeVar("Value")
Reading = tuple[float, Value]
"""When, in a clock's seconds, and what an instrument showed."""


class WindowMeter(ABC, Generic[Value]):
    """Reads an instrument at a window's begin and end, and at a steady rate between them.

    The window's seconds are those between the first reading and the last, so that its watts stay
    right where an instrument takes long to answer.

    Args:
        source: See :class:`PowerMeter`, as for the next three.
        period_s: Seconds between two readings within a window.
        clock: Times the readings.
    """

    def __init__(
        self,
        source: str,
        scope: Scope,
        kind: Kind,
        hz: float | None,
        *,
        period_s: float,
        clock: Clock,
    ) -> None:
        self.source = source
        self.scope: Scope = scope
        self.kind: Kind = kind
        self.hz = hz
        self._period_s = period_s
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    holds = False
    """The instrument shows each value for a time of its own, until it has another. Readings alike
    are one then, and a window needs :data:`FEWEST_SAMPLES` that differ."""

    @abstractmethod
    def read(self) -> Value:
        """Read the instrument.

        Raises:
            OSError: It is gone, or may not be read.
            ValueError: It talks nonsense.
        """

    @abstractmethod
    def _energy_j(self, earlier: Reading[Value], later: Reading[Value]) -> float:
        """Return the energy between two readings in a row; ValueError: they contradict."""

    def answers(self) -> bool:
        """Tell whether the instrument can be read now."""
        try:
            self.read()
        except (OSError, ValueError):
            return False
        return True

    def begin(self) -> None:
        """Begin a window; one that is open is dropped."""
        self._halt()
        self._stop = threading.Event()
        self._died = False
        self._first_s: float | None = None
        self._last: Reading[Value] | None = None
        self._total_j = 0.0
        self._steps = 0
        self._take()
        self._thread = threading.Thread(
            target=self._watch, args=(self._stop,), name=f"power {self.source}", daemon=True
        )
        self._thread.start()

    def end(self) -> PowerReading | None:
        """End the window, as :meth:`PowerMeter.end` says."""
        if self._thread is None:
            raise RuntimeError("end() without begin()")
        self._halt()
        self._take()
        if self._died or self._first_s is None or self._last is None:
            return None
        seconds = self._last[0] - self._first_s
        # Nothing runs on 0 W: a counter that stands still is stuck, or the window too short.
        if not 0 < self._total_j < ABSURD_W * seconds:
            return None
        if self.holds and self._steps < FEWEST_SAMPLES:
            return None
        return PowerReading(
            energy_j=self._total_j,
            seconds=seconds,
            source=self.source,
            scope=self.scope,
            kind=self.kind,
            hz=None if self.hz is None else three_digits(self._steps / seconds),
        )

    def _take(self) -> None:
        asked_s = self._clock.now_s()
        try:
            value = self.read()
            # A sensor behind I2C takes milliseconds; the value is of about the middle of them.
            reading = ((asked_s + self._clock.now_s()) / 2, value)
            if self._last is not None:
                self._total_j += self._energy_j(self._last, reading)
                self._steps += not self.holds or value != self._last[1]
        except (OSError, ValueError):
            self._died = True
            return
        self._last = reading
        if self._first_s is None:
            self._first_s = reading[0]

    def _watch(self, stop: threading.Event) -> None:
        clock = self._clock
        due_s = clock.now_s() + self._period_s
        while not self._died and not clock.wait(stop, max(0.0, due_s - clock.now_s())):
            self._take()
            due_s = max(due_s + self._period_s, clock.now_s())

    def _halt(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None


@dataclass(frozen=True)
class Counter:
    """Energy that hardware adds up.

    Args:
        read: Returns the count. OSError or ValueError: the counter is gone.
        joules: Of one count.
        period: Counts after which it starts from 0 again; ``None``: it never does.
    """

    read: Callable[[], int]
    joules: float
    period: int | None

    def advance(self, before: int, after: int) -> int:
        """Return the counts from ``before`` to ``after``, across at most one wrap.

        Raises:
            ValueError: It went back and has no period, as after a driver's restart.
        """
        if after >= before:
            return after - before
        if self.period is None or before > self.period:
            raise ValueError(f"the counter went back from {before} to {after}")
        return self.period - before + after


class CounterMeter(WindowMeter[list[int]]):
    """Sums up what hardware counters count: several, where there are several packages."""

    def __init__(
        self, source: str, scope: Scope, counters: Sequence[Counter], *, clock: Clock = REAL_TIME
    ) -> None:
        super().__init__(source, scope, "reported", None, period_s=_COUNTER_CHECK_S, clock=clock)
        self._counters = counters

    def read(self) -> list[int]:
        """Return each counter's count."""
        return [counter.read() for counter in self._counters]

    def _energy_j(self, earlier: Reading[list[int]], later: Reading[list[int]]) -> float:
        counts = zip(self._counters, earlier[1], later[1], strict=True)
        return sum(
            counter.advance(before, after) * counter.joules for counter, before, after in counts
        )


class SamplingMeter(WindowMeter[float]):
    """Samples power and integrates it with the trapezoid rule.

    Args:
        read_w: Returns watts. OSError or ValueError: the sensor is gone.
        hz: Samples a second.
        holds: See :attr:`WindowMeter.holds`.
    """

    def __init__(
        self,
        source: str,
        scope: Scope,
        kind: Kind,
        read_w: Callable[[], float],
        *,
        hz: float = SAMPLE_HZ,
        holds: bool = False,
        clock: Clock = REAL_TIME,
    ) -> None:
        super().__init__(source, scope, kind, hz, period_s=1 / hz, clock=clock)
        self._read_w = read_w
        self.holds = holds

    def read(self) -> float:
        """Return watts."""
        watts = self._read_w()
        if not 0 <= watts < ABSURD_W:
            raise ValueError(f"{self.source} reads {watts} W")
        return watts

    def _energy_j(self, earlier: Reading[float], later: Reading[float]) -> float:
        return (later[0] - earlier[0]) * (earlier[1] + later[1]) / 2
