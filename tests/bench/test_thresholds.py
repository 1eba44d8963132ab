"""Thresholds: how they are written, and when a report breaks one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_reports import HOST, METERED, report

from musgd_cli.bench.comparison import compare
from musgd_cli.bench.figures import FIGURES, find
from musgd_cli.bench.thresholds import (
    Threshold,
    broken,
    parse_threshold,
    require_baseline,
    unmeasured,
)
from musgd_cli.errors import UsageError
from musgd_cli.records import BenchReport, Broken

STEADY = (20.0, 20.02, 19.98, 20.01, 19.99)
NOISY = (16.0, 24.0, 20.0, 18.0, 22.0)


def held(text: str, here: BenchReport, *baseline: BenchReport) -> Broken | None:
    comparisons = compare([here], baseline) if baseline else ()
    found = broken([parse_threshold(text)], [here], comparisons)
    return found[0] if found else None


# ---------------------------------------------------------------------------------------- grammar


@pytest.mark.parametrize(
    ("text", "figure", "op", "measure", "limit"),
    [
        ("p50>40", "latency_ms.p50", ">", "figure", 40),
        (" p50 >= 40 ms ", "latency_ms.p50", ">=", "figure", 40),
        ("latency_ms.p99>40MS", "latency_ms.p99", ">", "figure", 40),
        ("p50>1.05x", "latency_ms.p50", ">", "ratio", 1.05),
        ("p50>+5%", "latency_ms.p50", ">", "ratio", 1.05),
        ("fps<-5%", "fps", "<", "ratio", 0.95),
        ("map50_95<0.55", "map50_95", "<", "figure", 0.55),
        ("map50_95<baseline-0.01", "map50_95", "<", "difference", -0.01),
        ("p50>baseline + 2ms", "latency_ms.p50", ">", "difference", 2),
        ("confidence_shift<-0.02", "confidence_shift", "<", "figure", -0.02),
        ("ap50_95.red<.4", "ap50_95.red", "<", "figure", 0.4),
        ("ap50.traffic light<.4", "ap50.traffic light", "<", "figure", 0.4),
        ("power_w>6.5W", "power_w", ">", "figure", 6.5),
        ("temperature_c>80C", "temperature_c", ">", "figure", 80),
        ("temperature_c>80°C", "temperature_c", ">", "figure", 80),
        ("peak_memory_mb>200mb", "peak_memory_mb", ">", "figure", 200),
    ],
)
def test_what_a_threshold_says(text: str, figure: str, op: str, measure: str, limit: float) -> None:
    threshold = parse_threshold(text)
    assert (threshold.figure.name, threshold.op, threshold.measure) == (figure, op, measure)
    assert threshold.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no threshold"),
        ("p50", "is no threshold"),
        (">40", "is no threshold"),
        ("p50==40", "is no"),
        ("p50>", "is no limit"),
        ("p50>fast", "is no limit"),
        ("p50>40>30", "is no threshold"),
        ("fps<10%", "is no limit"),
        ("p50>-1.05x", "is in ms"),
        ("p50>nan", "is no limit"),
        ("p500>40", r"no figure 'p500' \(did you mean p50\?\)"),
        ("map50-95<0.5", r"did you mean map50_95\?"),
        ("ap50.<0.5", "no figure 'ap50.'"),
        ("p50>0.04s", "is in ms"),
        ("map50_95<55mAP", "has no unit"),
    ],
)
def test_nonsense_is_a_usage_error(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_threshold(text)


limits = st.floats(0, 1e9) | st.floats(1e-9, 1)


@given(
    st.sampled_from([*FIGURES, "ap50.red", "ap50_95.a b"]),
    st.sampled_from([">", ">=", "<", "<="]),
    st.one_of(
        st.tuples(st.just("ratio"), limits),
        st.tuples(st.sampled_from(["figure", "difference"]), limits | limits.map(lambda x: -x)),
    ),
)
def test_a_threshold_is_read_as_it_is_written(name: str, op: Any, says: tuple[Any, float]) -> None:
    threshold = Threshold(find(name), op, *says)
    assert parse_threshold(str(threshold)) == threshold


@given(st.text())
def test_any_other_text_is_refused_in_words(text: str) -> None:
    try:
        parse_threshold(text)
    except UsageError as error:
        assert error.mend


def test_a_threshold_of_a_baseline_needs_one() -> None:
    require_baseline([parse_threshold("p50>40")], given=False)
    for text in ("p50>1.05x", "p50>+5%", "map50<baseline-0.1"):
        require_baseline([parse_threshold(text)], given=True)
        with pytest.raises(UsageError, match="held to a baseline"):
            require_baseline([parse_threshold(text)], given=False)


# --------------------------------------------------------------------------------------- breaking


@pytest.mark.parametrize(
    ("text", "breaks"),
    [
        ("p50>19", True),
        ("p50>21", False),
        ("p50<21", True),
        ("fps_end_to_end<60", True),
        ("fps_end_to_end<40", False),
        ("map50_95<0.551", True),
        ("map50_95<0.549", False),
        ("map50_95<=0.55", True),
        ("ap50_95.red<0.55", True),
        ("ap50_95.green<0.55", False),
    ],
)
def test_an_absolute_limit(text: str, breaks: bool) -> None:
    found = held(text, report(STEADY))
    assert (found is not None) == breaks
    assert found is None or found.certain


@pytest.mark.parametrize(
    ("text", "breaks"),
    [
        ("p50>1.05x", True),
        ("p50>1.15x", False),
        ("p50>+5%", True),
        ("fps<-5%", True),
        ("p50>baseline+1.5ms", True),
        ("p50>baseline+2.5ms", False),
        ("map50_95<baseline-0.01", True),
        ("map50_95<baseline-0.03", False),
        ("peak_memory_mb>1.05x", False),
    ],
)
def test_a_limit_of_the_baseline(text: str, breaks: bool) -> None:
    slower = report([ms * 1.1 for ms in STEADY], map50_95=0.53)
    found = held(text, slower, report(STEADY))
    assert (found is not None) == breaks
    assert found is None or found.certain


@pytest.mark.parametrize("text", ["p50>1.05x", "p50>20ms", "p50>baseline+1ms", "fps<-5%"])
def test_beyond_the_limit_but_within_the_noise_fails_nothing(text: str) -> None:
    found = held(text, report([ms * 1.1 for ms in NOISY]), report(NOISY))
    assert found is not None
    assert not found.certain
    assert found.interval is not None
    assert "within the noise" in found.what


def test_without_repeats_enough_the_point_decides() -> None:
    found = held("p50>1.05x", report((22.0, 22.1)), report((20.0, 20.1)))
    assert found is not None
    assert found.certain
    assert found.interval is None


def test_two_runs_of_the_same_do_not_flap() -> None:
    # Of a hundred A/A runs, those that fail a limit right at the truth are the 2.5 % on its side.
    import random

    chance = random.Random(3)

    def run() -> BenchReport:
        return report([20 * chance.lognormvariate(0, 0.05) for _ in range(5)])

    failures = 0
    for _ in range(100):
        found = held("p50>1x", run(), run())
        failures += found is not None and found.certain
    assert failures <= 8


@pytest.mark.parametrize("text", ["power_w>6.5", "energy_per_frame_j>9", "ap50.black<0.1"])
def test_what_is_not_measured_breaks_its_threshold(text: str) -> None:
    found = held(text, report())
    assert found is not None
    assert found.certain
    assert found.value is None
    assert "cannot be measured here" in found.what


def test_an_estimate_passes_no_threshold() -> None:
    assert held("power_w>6.5", report(**METERED)) is None
    found = held("power_w>6.5", report(**{**METERED, "power_kind": "estimated"}))
    assert found is not None
    assert found.certain
    assert "estimate" in found.what


def test_units_are_told_as_people_write_them() -> None:
    found = held("temperature_c>50", report())
    assert found is not None
    assert found.what.endswith("60 °C")


def test_what_was_not_measured_at_all_breaks_a_gate() -> None:
    found = unmeasured("runs/a/artifacts/pi4b-ncnn-int8-320", 1, "ncnn is not installed")
    assert found.certain
    assert found.what == "pi4b-ncnn-int8-320, 1 thread: was not measured: ncnn is not installed"


def test_an_emulators_speed_passes_no_threshold() -> None:
    emulated = report(host=HOST.model_copy(update={"emulated": True}))
    assert held("map50_95<0.5", emulated) is None
    found = held("p50>1000", emulated)
    assert found is not None
    assert "emulator" in found.what


@pytest.mark.parametrize(
    ("text", "there", "words"),
    [
        ("map50_95<baseline-0.5", {"split": "test"}, "cannot be compared: scored on"),
        ("peak_memory_mb>2x", {"peak_memory_mb": None}, "the baseline did not measure it"),
        ("recall_small<0.5x", {"recall_small": 0.0}, "a ratio of the baseline's 0"),
        ("temperature_c>1.1x", {"temperature_c": -3.0}, "a ratio of the baseline's -3"),
    ],
)
def test_what_cannot_be_compared_breaks_its_threshold(
    text: str, there: dict[str, Any], words: str
) -> None:
    found = held(text, report(), report(**there))
    assert found is not None
    assert found.certain
    assert words in found.what


def test_every_report_is_held_to_every_threshold() -> None:
    thresholds = [parse_threshold("p50>10"), parse_threshold("fps<1000")]
    found = broken(thresholds, [report(), report(threads=1)])
    assert [(one.threads, one.threshold) for one in found] == [
        (4, "p50>10.0"),
        (4, "fps<1000.0"),
        (1, "p50>10.0"),
        (1, "fps<1000.0"),
    ]
