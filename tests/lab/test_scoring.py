"""Steps to a target, spreads, and the targets that a baseline sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.lab.scoring import crossing, default_targets, outcomes, spread
from musgd_cli.records import ComparisonTarget, CurvePoint, ScoredRun


def curve(*losses: float | None, map50: float | None = None) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(
            step=10 * at,
            seconds=2.0 * at,
            train_loss=loss,
            val_loss=loss,
            map50=map50 if map50 is not None else None if loss is None else 1 / loss,
            map50_95=None,
        )
        for at, loss in enumerate(losses, start=1)
    )


def target(value: float, figure: str = "train loss") -> ComparisonTarget:
    return ComparisonTarget.model_validate(
        {"figure": figure, "value": value, "given": True, "why": ""}
    )


def test_crossing_is_linear_between_the_ends_of_epochs() -> None:
    found = crossing(curve(4, 3, 2), target(2.75))
    assert found is not None
    assert found.steps == pytest.approx(22.5)
    assert found.seconds == pytest.approx(4.5)


def test_the_first_crossing_counts() -> None:
    found = crossing(curve(4, 2, 4, 1), target(2))
    assert found is not None
    assert found.steps == 20


def test_what_is_there_after_the_first_epoch_got_there_at_its_end() -> None:
    found = crossing(curve(2, 1), target(3))
    assert found is not None
    assert found.steps == 10


def test_never_is_no_number() -> None:
    assert crossing(curve(4, 3), target(2)) is None


def test_no_line_is_drawn_over_a_figure_that_is_missing() -> None:
    found = crossing(curve(4, None, 2), target(3))
    assert found is not None
    assert found.steps == 30


def test_map50_is_reached_from_below() -> None:
    found = crossing(curve(4, 2), target(0.375, "mAP50"))
    assert found is not None
    assert found.steps == pytest.approx(15)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=8), st.floats(0.1, 10))
def test_a_crossing_lies_in_the_run_and_is_missed_by_none(
    losses: list[float], value: float
) -> None:
    found = crossing(curve(*losses), target(value))
    assert (found is not None) == (min(losses) <= value)
    if found is not None:
        assert 10 <= found.steps <= 10 * len(losses)


def test_a_spread_with_a_failure_is_none() -> None:
    assert spread([1.0, None, 3.0]) is None
    assert spread([]) is None
    whole = spread([3.0, 1.0, 2.0])
    assert whole is not None
    assert (whole.median, whole.low, whole.high, whole.n) == (2, 1, 3, 3)


def test_default_targets_are_the_baselines_at_half_and_three_quarters() -> None:
    targets = default_targets([curve(8, 6, 4, 2), curve(9, 7, 5, 3), curve(10, 8, 6, 4)])
    assert [t.value for t in targets if t.figure == "train loss"] == [7, 5]
    assert "half of its steps" in targets[0].why
    assert default_targets([curve(8, 6), ()]) == ()


def test_a_figure_of_zero_is_no_target() -> None:
    assert {t.figure for t in default_targets([curve(8, 6, map50=0.0)])} == {
        "train loss",
        "val loss",
    }


def test_outcomes_count_who_got_there_and_average_no_failure() -> None:
    runs = []
    for seed, losses in enumerate([(4, 2), (4, 3.5)]):
        points = curve(*losses)
        found = crossing(points, target(3))
        runs.append(
            ScoredRun(
                seed=seed,
                run=str(seed),
                diverged=False,
                curve=points,
                crossings=(found,),
                steps_ratios=(None if found is None else 1.0,),
                best_map50=None,
                best_map50_95=None,
                seconds=None,
                optimizer_ms=None,
                optimizer_state_bytes=None,
                peak_memory_mb=None,
                beta_mean=None,
            )
        )
    (found_of_all,) = outcomes(runs, 1)
    assert (found_of_all.reached, found_of_all.of) == (1, 2)
    assert found_of_all.steps is None
    assert found_of_all.steps_ratio is None
