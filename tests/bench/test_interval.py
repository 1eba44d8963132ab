"""The interval of the next median: that it holds what it promises, and when it promises nothing."""

from __future__ import annotations

import numpy as np
import pytest

from musgd_cli.bench.interval import is_stable, prediction_interval, t95


@pytest.mark.parametrize("repeats", [3, 5, 10])
@pytest.mark.parametrize("frames_spread", [0.001, 0.03])
def test_it_holds_the_p50_of_another_run_19_times_of_20(repeats: int, frames_spread: float) -> None:
    # Processes differ by 3 %, their frames by less or as much; the p50 is of all frames.
    rng = np.random.default_rng(0)
    rounds, frames = 1500, 40
    of_process = rng.normal(0, 0.03, size=(rounds, 2, repeats, 1))
    times = 30 * np.exp(of_process + rng.normal(0, frames_spread, (rounds, 2, repeats, frames)))
    p50s = np.median(times, axis=(2, 3))
    held = 0
    for (first, second), medians in zip(p50s, np.median(times[:, 0], axis=2), strict=True):
        interval = prediction_interval(float(first), medians.tolist())
        assert interval is not None
        held += interval[0] <= second <= interval[1]
    assert 0.935 <= held / rounds <= 0.985


def test_two_repeats_promise_nothing() -> None:
    assert prediction_interval(30.0, [30.0]) is None
    assert prediction_interval(30.0, [30.0, 30.1]) is None


def test_repeats_that_agree_leave_no_room() -> None:
    assert prediction_interval(30.0, [30.0] * 5) == pytest.approx((30.0, 30.0))


def test_what_is_not_above_zero_promises_nothing() -> None:
    assert prediction_interval(1.0, [0.0, 1.0, 2.0]) is None


def test_it_is_positive_however_wild_the_repeats() -> None:
    interval = prediction_interval(30.0, [3.0, 30.0, 300.0])
    assert interval is not None
    assert 0 < interval[0] < 30 < interval[1]


def test_stable_is_10_percent_wide_at_most() -> None:
    assert is_stable(100.0, (95.1, 105.0))
    assert not is_stable(100.0, (94.9, 105.0))


def test_students_t() -> None:
    # From any table; beyond ours a run of many repeats is held to a little too much.
    assert (t95(2), t95(4), t95(9), t95(20)) == (4.303, 2.776, 2.262, 2.086)
    assert t95(1000) > 1.96
