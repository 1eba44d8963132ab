"""The interval of the next median: that it holds what it promises, and when it promises nothing."""

from __future__ import annotations

import numpy as np
import pytest

from musgd_cli.bench.interval import prediction_interval, is_stable, t95


@pytest.mark.parametrize("repeats", [3, 5, 10])
def test_it_holds_the_next_median_19_times_of_20(repeats: int) -> None:
    rng = np.random.default_rng(0)
    medians = 30 * np.exp(rng.normal(0, 0.03, size=(4000, 2, repeats)))
    held = 0
    for first, second in medians:
        interval = prediction_interval(float(np.exp(np.log(first).mean())), first.tolist())
        assert interval is not None
        held += interval[0] <= np.exp(np.log(second).mean()) <= interval[1]
    assert held / len(medians) == pytest.approx(0.95, abs=0.012)


def test_two_repeats_promise_nothing() -> None:
    assert prediction_interval(30.0, [30.0]) is None
    assert prediction_interval(30.0, [30.0, 30.1]) is None


def test_repeats_that_agree_leave_no_room() -> None:
    assert prediction_interval(30.0, [30.0] * 5) == pytest.approx((30.0, 30.0))


def test_it_is_positive_however_wild_the_repeats() -> None:
    interval = prediction_interval(30.0, [3.0, 30.0, 300.0])
    assert interval is not None
    assert 0 < interval[0] < 30 < interval[1]


def test_stable_is_10_percent_wide_at_most() -> None:
    assert is_stable(100.0, (95.1, 105.0))
    assert not is_stable(100.0, (94.9, 105.0))


def test_students_t() -> None:
    # From any table; beyond it the value is 5 % on the safe side of the normal's 1.96 at most.
    assert (t95(2), t95(4), t95(9)) == (4.303, 2.776, 2.262)
    assert 1.96 < t95(1000) < 2.15
