"""Axes of a chart: values to pixels, and the ticks that a person would choose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from musgd_cli.report.look import is_wide


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``, drawn from pixel ``start`` to pixel ``end``."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return where a value lies, in pixels; beyond the ends for values beyond them."""
        if self.logarithmic:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def within(self, value: float) -> float:
        """Return where a value lies, or the nearest end of the axis."""
        return self(min(max(value, self.low), self.high))

    def value_at(self, part: float) -> float:
        """Return the value at a share of the axis's length."""
        if self.logarithmic:
            return self.low * math.exp(part * math.log(self.high / self.low))
        return self.low + part * (self.high - self.low)

    def ticks(self, about: int) -> list[float]:
        """Return round values on the axis, ``about`` so many."""
        if self.logarithmic:
            found = _log_ticks(self.low, self.high, about)
            if len(found) >= 2:
                return found
        step = _round_step((self.high - self.low) / max(about, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


def spanning(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    margin: float = 0.08,
    from_zero: bool = False,
    may_be_log: bool = False,
) -> Scale:
    """Return an axis that holds ``values`` with some room around.

    Args:
        values: At least one.
        start: Pixel of its low end.
        end: Pixel of its high end.
        margin: Room at either end, as a share of what the values span.
        from_zero: It begins at 0.
        may_be_log: It is logarithmic where the values differ by a factor of 4 and more.
    """
    known = list(values)
    low, high = min(known), max(known)
    if may_be_log and is_wide(known):
        room = (high / low) ** margin
        return Scale(low / room, high * room, start, end, logarithmic=True)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return Scale(0.0 if from_zero else low - room, high + room, start, end)


def tick_label(value: float, ticks: Sequence[float]) -> str:
    """Return a tick's text, with no more digits than its axis needs."""
    digits = next(n for n in range(12) if all(abs(round(t, n) - t) <= 1e-6 * abs(t) for t in ticks))
    even = len({round(after - before, 9) for before, after in pairwise(ticks)}) <= 1
    return f"{value:.{digits}f}" if even else f"{value:g}"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if step <= factor * power * 1.0001)


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [
            value
            for decade in decades
            for factor in factors
            if low <= (value := float(f"{factor}e{decade}")) <= high
        ]
        if len(found) <= about + 1:
            break
    return found
