"""Axes: where values lie, and ticks that say what they are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.report.page.scales import Scale, spanning, tick_label

VALUES = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=8)


@given(VALUES, st.booleans(), st.integers(4, 10))
def test_every_value_lies_on_the_axis_in_its_order(values, may_be_log, about):
    scale = spanning(values, 40, 400, may_be_log=may_be_log)
    at = [scale(value) for value in sorted(values)]
    assert at == sorted(at)
    assert 40 <= at[0] <= at[-1] <= 400.001
    ticks = scale.ticks(about)
    assert len(ticks) <= 2 * about + 3
    assert all(39.9 <= scale(tick) <= 400.1 for tick in ticks)


@given(VALUES, st.integers(4, 10))
def test_a_tick_says_its_value(values, about):
    ticks = spanning(values, 0, 400, may_be_log=True).ticks(about)
    labels = [tick_label(tick, ticks) for tick in ticks]
    assert [float(label) for label in labels] == pytest.approx(ticks, rel=1e-5, abs=1e-12)
    assert len(set(labels)) == len(labels)


def test_ticks_are_round():
    assert Scale(0.592, 0.603, 0, 100).ticks(5) == pytest.approx(
        [0.5925, 0.595, 0.5975, 0.6, 0.6025]
    )
    assert Scale(17, 210, 0, 100, logarithmic=True).ticks(5) == [20, 30, 50, 70, 100, 200]
    assert [tick_label(t, [0.5975, 0.6]) for t in (0.5975, 0.6)] == ["0.5975", "0.6000"]


def test_values_that_span_a_wide_range_get_a_logarithmic_axis():
    assert spanning([10, 39], 0, 100, may_be_log=True).logarithmic is False
    wide = spanning([10, 40], 0, 100, may_be_log=True)
    assert wide.logarithmic
    assert wide(20) == pytest.approx((wide(10) + wide(40)) / 2)
    assert wide.value_at(0.5) == pytest.approx(20)


def test_an_axis_from_zero_begins_there():
    assert spanning([3, 5], 100, 0, from_zero=True)(0) == 100
    assert spanning([7.0], 0, 100)(7.0) == pytest.approx(50)
    assert spanning([5, 8], 0, 100).within(99) == 100
