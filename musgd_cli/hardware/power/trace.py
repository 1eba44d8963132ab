"""Power that an external meter wrote to a CSV file, aligned with our windows by time of day."""

from __future__ import annotations

import csv
import math
import os
import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from musgd_cli.errors import UsageError
from musgd_cli.hardware.power.meter import ABSURD_W, FEWEST_SAMPLES, Scope, three_digits
from musgd_cli.records import Kind, PowerReading

_GAP_PERIODS = 5.0
"""Samples further apart than so many of the trace's median period: the meter missed some."""

_PATIENCE_S = 5.0
"""How long a file that grows may lag behind: meters' programs write in blocks."""
_POLL_S = 0.1

_STALE_S = 60.0
"""A file that ended so long ago, or begins so far ahead, is of another time or another clock."""

_PERIODS_KEPT = 100
"""Enough to tell the meter's usual period by, when a window is short."""

_CLOCK_SET_S = 0.2
"""Time of day and the steady clock may drift apart so far within a window; more is a step."""

_SINCE, _UNTIL = 946_684_800.0, 4_102_444_800.0
"""2000 and 2100: a time outside counts from something other than 1970, or in other units."""

_EXPECTED = (
    "begin it with a header such as time,power_w or time_ms;voltage_v;current_ma, and give time "
    "as seconds since 1970 or as 2026-11-24T12:00:00.5Z"
)

_TIME = {"time", "timestamp", "date", "datetime", "epoch", "unix"}
_UNITS = {
    **dict.fromkeys(("w", "watt", "watts"), ("W", 1.0)),
    **dict.fromkeys(("mw", "milliwatt", "milliwatts"), ("W", 1e-3)),
    **dict.fromkeys(("v", "volt", "volts"), ("V", 1.0)),
    **dict.fromkeys(("mv", "millivolt", "millivolts"), ("V", 1e-3)),
    **dict.fromkeys(("a", "amp", "amps", "ampere", "amperes"), ("A", 1.0)),
    **dict.fromkeys(("ma", "milliamp", "milliamps", "milliampere", "milliamperes"), ("A", 1e-3)),
}

Sample = tuple[float, float]
"""Seconds since 1970, and watts."""


@dataclass(frozen=True)
class Trace:
    """Samples of power in the order of time.

    Args:
        samples: Times strictly rise.
    """

    samples: tuple[Sample, ...]

    @property
    def hz(self) -> float | None:
        """Samples a second, by their median period; ``None`` with fewer than two."""
        period_s = self._period_s
        return None if period_s is None else 1 / period_s

    def covers(self, end: float) -> bool:
        """Tell whether it reaches so far."""
        return bool(self.samples) and self.samples[-1][0] >= end

    def energy_j(self, begin: float, end: float) -> float | None:
        """Return the energy of a window: the trapezoid rule, linear between samples at its ends.

        Args:
            begin: Seconds since 1970, as the meter's own clock has them.
            end: Not before ``begin``.

        Returns:
            Joules, above 0; ``None`` where the trace does not cover the window, has fewer than
            ``FEWEST_SAMPLES`` in it, or has gaps there: samples further apart than five of its
            median periods. Nothing runs on 0 J, so then too.
        """
        if begin > end:
            raise ValueError(f"a window from {begin} to {end}")
        times = [at for at, _ in self.samples]
        # The last sample at or before the window's begin, to the first at or after its end.
        first, last = bisect_right(times, begin) - 1, bisect_left(times, end)
        period_s = self._period_s
        if period_s is None or first < 0 or last >= len(times):
            return None
        if bisect_right(times, end) - bisect_left(times, begin) < FEWEST_SAMPLES:
            return None
        energy_j = 0.0
        for (at, watts), (later, later_watts) in pairwise(self.samples[first : last + 1]):
            if later - at > _GAP_PERIODS * period_s:
                return None
            left, right = max(at, begin), min(later, end)
            slope = (later_watts - watts) / (later - at)
            # Differences first: a sum of times since 1970 would round to a quarter microsecond.
            middle_w = watts + slope * ((left - at) + (right - at)) / 2
            energy_j += middle_w * (right - left)
        return energy_j if energy_j > 0 else None

    @property
    def _period_s(self) -> float | None:
        steps = [later - at for (at, _), (later, _) in pairwise(self.samples)]
        return sorted(steps)[len(steps) // 2] if steps else None


def read_trace(path: Path) -> Trace:
    """Read what an external meter wrote.

    The file is text with commas, semicolons or tabs, and begins with a header. A column ``time`` or
    ``timestamp`` holds seconds since 1970, or ISO 8601 (UTC unless it has an offset);
    ``time_ms`` milliseconds. Power is one column whose name ends in its unit (``power_w``,
    ``Power (mW)``, ``watts``), or one of volts and one of amperes. Other columns are left alone.

    Raises:
        UsageError: The file is missing, or is not that.
    """
    return Trace(_merged(_Reader(path).read(whole=True)))


def _merged(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Make one sample, their mean, of those with the same time: a meter's clock may be coarse."""
    same: dict[float, list[float]] = {}
    for at, watts in samples:
        same.setdefault(at, []).append(watts)
    return tuple((at, sum(watts) / len(watts)) for at, watts in same.items())


# -------------------------------------------------------------------------------------- the file


class _Reader:
    """Reads a CSV file that may still grow, each line once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._line = 0
        self._latest = -math.inf
        self._columns: _Columns | None = None

    def read(self, *, whole: bool = False) -> list[Sample]:
        """Return the samples that came since the last call.

        Args:
            whole: Nothing will follow: a last line counts without its end.

        Raises:
            UsageError: The file is missing, has no header, or a line is not what that says.
        """
        samples = []
        for line in self._lines(whole):
            try:
                if self._columns is None:
                    self._columns = _Columns.of(line)
                    continue
                at, watts = self._columns.sample(line)
                if at < self._latest:
                    raise ValueError("its time is before that of the line above")
            except ValueError as error:
                raise UsageError(f"{self._path}, line {self._line}: {error}", _EXPECTED) from None
            self._latest = at
            samples.append((at, watts))
        if self._columns is None:
            raise UsageError(f"{self._path} is empty", _EXPECTED)
        return samples

    def _lines(self, whole: bool) -> Iterator[str]:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    raise UsageError(f"{self._path} was cut short", "let the meter append to it")
                file.seek(self._offset)
                data = file.read()
        except OSError as error:
            what = f"{self._path} cannot be read: {error.strerror}"
            raise UsageError(what, "pass the CSV file that the meter writes") from None
        if not whole:
            data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        for line in data.decode("utf-8-sig", "replace").splitlines():
            self._line += 1
            if line.strip() and not line.startswith("#"):
                yield line


@dataclass(frozen=True)
class _Columns:
    """Where a line has its time and its watts, or volts and amperes."""

    delimiter: str
    time: int
    time_s: float
    """Seconds in one of the time's unit."""
    factors: tuple[tuple[int, float], ...]
    """Columns, with what one of their unit is; the product of them is watts."""

    @classmethod
    def of(cls, header: str) -> _Columns:
        """Find the columns; ValueError: there is none, or more than one."""
        delimiter = max(",;\t", key=header.count)
        words = [re.findall(r"[a-z]+", name.lower()) for name in _cells(header, delimiter)]
        times = [i for i, name in enumerate(words) if name and name[0] in _TIME]
        if len(times) != 1:
            raise ValueError(f"{len(times) or 'no'} columns of time in the header {header!r}")
        of: dict[str, list[tuple[int, float]]] = {"W": [], "V": [], "A": []}
        for i, name in enumerate(words):
            if i not in times and name and name[-1] in _UNITS:
                quantity, unit = _UNITS[name[-1]]
                of[quantity].append((i, unit))
        factors = of["W"] or [*of["V"], *of["A"]]
        if len(of["W"]) != 1 and (of["W"] or len(of["V"]) != 1 or len(of["A"]) != 1):
            raise ValueError(
                f"not one column of watts, nor one of volts and one of amperes, in {header!r}"
            )
        time_s = 1e-3 if words[times[0]][-1] in ("ms", "milliseconds") else 1.0
        return cls(delimiter, times[0], time_s, tuple(factors))

    def sample(self, line: str) -> Sample:
        """Return a line's sample; ValueError: it has none."""
        cells = _cells(line, self.delimiter)
        if self.delimiter != ",":  # as decimal commas go with
            cells = [cell.replace(",", ".") for cell in cells]
        try:
            at = self._seconds(cells[self.time].strip())
            watts = math.prod(float(cells[i]) * unit for i, unit in self.factors)
        except IndexError:
            raise ValueError(f"too few columns in {line!r}") from None
        if not _SINCE <= at < _UNTIL:
            raise ValueError(f"{cells[self.time].strip()} is no time since 1970")
        if -ABSURD_W < watts < 0:
            raise ValueError(f"{watts} W: the meter is wired the wrong way round")
        if not 0 <= watts < ABSURD_W:
            raise ValueError(f"{watts} W")
        return at, watts

    def _seconds(self, text: str) -> float:
        try:
            return float(text) * self.time_s
        except ValueError:
            moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter))


# ------------------------------------------------------------------------------------- the meter


class CsvMeter:
    """An external meter, by the CSV file that its program appends to meanwhile.

    The meter's clock and this machine's must agree, as NTP lets them: what they differ by shifts
    the window.

    Args:
        path: See :func:`read_trace`.
        patience_s: How long :meth:`end` waits for the file to reach the window's end.

    Raises:
        UsageError: The file is not such a CSV file, or the meter is not writing to it now.
    """

    scope: Scope = "board"
    kind: Kind = "measured"

    def __init__(self, path: Path, *, patience_s: float = _PATIENCE_S) -> None:
        self._reader = _Reader(path)
        self._samples = _merged(self._reader.read())
        self._patience_s = patience_s
        self._began: tuple[float, float] | None = None
        self.source = f"csv:{path.name}"
        self.hz = three_digits(Trace(self._samples).hz)
        now = time.time()
        off_s = self._samples[-1][0] - now if self._samples else 0.0
        if off_s < -_STALE_S or (self._samples and self._samples[0][0] > now + _STALE_S):
            raise UsageError(
                f"{path} ends {abs(off_s):.0f} s {'ahead' if off_s > 0 else 'ago'} by this "
                "machine's clock",
                "let the meter write to it while musgd measures, and set both clocks by NTP; a "
                "time without an offset is taken for UTC",
            )

    def begin(self) -> None:
        """Begin a window; one that is open is dropped."""
        self._began = time.time(), time.monotonic()
        self._samples = self._samples[-_PERIODS_KEPT:]

    def end(self) -> PowerReading | None:
        """End the window, once the file has got so far.

        Returns:
            ``None`` when the file did not get so far in time, is what :meth:`Trace.energy_j` has
            no figure for, or turned to nonsense, or this machine's clock was set meanwhile.

        Raises:
            RuntimeError: No window was begun.
        """
        if self._began is None:
            raise RuntimeError("end() without begin()")
        (began, steady_s), ended = self._began, time.time()
        self._began = None
        if abs(ended - began - (time.monotonic() - steady_s)) > _CLOCK_SET_S:
            return None
        try:
            trace = self._await(ended)
        except UsageError:
            return None
        energy_j = trace.energy_j(began, ended)
        if energy_j is None:
            return None
        return PowerReading(
            energy_j=energy_j,
            seconds=ended - began,
            source=self.source,
            scope=self.scope,
            kind=self.kind,
            hz=three_digits(trace.hz),
        )

    def _await(self, end: float) -> Trace:
        """Follow the file until it covers ``end``, or patience is over."""
        deadline_s = time.monotonic() + self._patience_s
        while True:
            if came := self._reader.read():
                self._samples = _merged([*self._samples, *came])
            trace = Trace(self._samples)
            if trace.covers(end) or time.monotonic() >= deadline_s:
                return trace
            time.sleep(_POLL_S)
