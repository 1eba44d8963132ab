"""How far off another run would be, told from repeats in fresh processes."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, pi, sqrt
from statistics import stdev

FEWEST_REPEATS = 3
"""Two have a spread too, but one that says next to nothing: t is 12.7 for them."""

STABLE_WIDTH = 0.10
"""Of the figure: a wider interval is called unstable."""

_OF_A_MEDIAN = sqrt(pi / 2)
"""A median spreads by so much more than a mean, at most: its asymptotic relative efficiency for a
normal distribution is 2 / pi."""

# Student's t, two-sided 95 %, for 2, 3, … degrees of freedom; beyond the table its last is wide
# enough.
_T95 = (
    *(4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201),
    *(2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def t95(degrees: int) -> float:
    """Return the two-sided 95 % point of Student's t for 2 or more degrees of freedom."""
    return _T95[min(degrees - 2, len(_T95) - 1)]


def prediction_interval(value: float, repeats: Sequence[float]) -> tuple[float, float] | None:
    """Return where a figure of another such run is expected, 19 times of 20.

    The other run consists of as many repeats, which spread as these do, so that the difference of
    the two has twice the variance of one (Hahn and Meeker, Statistical Intervals, 4.8); as of
    medians, for the p50 of all samples is about the median of the repeats' where these differ by
    more than their frames do; on the logarithm, for what slows a run down multiplies its times. A
    single process tells too little: its frames follow each other, and what moves them all, where
    its memory came to lie and how busy the machine is, does not show in them.

    Args:
        value: Of the whole run, above 0.
        repeats: The same figure of each repeat.

    Returns:
        ``None`` with fewer than :data:`FEWEST_REPEATS`, or where one is not above 0.
    """
    n = len(repeats)
    if n < FEWEST_REPEATS or min(repeats) <= 0:
        return None
    factor = exp(t95(n - 1) * stdev(map(log, repeats)) * sqrt(2 / n) * _OF_A_MEDIAN)
    return value / factor, value * factor


def is_stable(value: float, interval: tuple[float, float]) -> bool:
    """Tell whether an interval is at most :data:`STABLE_WIDTH` of the figure wide."""
    low, high = interval
    return high - low <= STABLE_WIDTH * value
