"""A report beside its baseline: what is refused, what is told, and what the repeats can tell."""

from __future__ import annotations

import random
import re
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_reports import HOST, METERED, report

from musgd_cli.bench.comparison import (
    compare,
    ratio_interval,
    require_comparable,
    without_counterpart,
)
from musgd_cli.bench.figures import find
from musgd_cli.errors import UsageError
from musgd_cli.records import Artifact, BenchReport, Change, Comparison

STEADY = (20.0, 20.2, 19.8, 20.1, 19.9)


ARTIFACT = Artifact(
    path="a",
    files=(),
    sha256="b" * 64,
    parent_sha256=None,
    target="pi4b",
    runtime="ncnn",
    precision_asked="int8",
    precision="int8",
    imgsz=320,
    names=("red", "green", "blue"),
    nms_free=False,
    size_mb=3,
)


def scaled(factor: float) -> tuple[float, ...]:
    return tuple(ms * factor for ms in STEADY)


def comparison(here: BenchReport, there: BenchReport) -> Comparison:
    (only,) = compare([here], [there])
    return only


def change(compared: Comparison, figure: str) -> Change:
    return next(one for one in compared.changes if one.figure == figure)


# ------------------------------------------------------------------------------------ what is told


@pytest.mark.parametrize(
    ("factor", "told"),
    [
        (1.1, "slower"),
        (0.9, "faster"),
        (1.0, "no difference shown"),
        (1.004, "no difference shown"),
    ],
)
def test_a_difference_is_told_where_the_repeats_show_one(factor: float, told: str) -> None:
    compared = comparison(report(scaled(factor)), report(STEADY))
    p50, fps = change(compared, "latency_ms.p50"), change(compared, "fps")
    assert p50.ratio == pytest.approx(factor)
    assert fps.ratio == pytest.approx(1 / factor)
    assert p50.interval is not None
    assert p50.interval[0] <= factor <= p50.interval[1]
    assert (p50.difference, fps.difference) == (told, told)


def test_every_figure_of_time_that_is_repeated_has_an_interval() -> None:
    compared = comparison(report(), report())
    with_interval = {one.figure for one in compared.changes if one.interval is not None}
    assert with_interval >= {
        *(f"latency_ms.{name}" for name in ("p50", "p90", "p99")),
        *("fps", "fps_end_to_end", "load_ms", "first_inference_ms"),
    }
    assert change(compared, "pre_ms").why == "measured once in each report"


@pytest.mark.parametrize("few", [(20.0,), (20.0, 20.1)])
def test_fewer_than_three_repeats_of_either_tell_nothing(few: tuple[float, ...]) -> None:
    for here, there in ((report(few), report()), (report(), report(few))):
        p50 = change(comparison(here, there), "latency_ms.p50")
        assert p50.difference == "cannot be told"
        assert p50.why == "fewer than 3 repeats"
        assert p50.ratio is not None


def test_a_report_thinned_of_its_samples_keeps_the_interval_of_its_p50() -> None:
    thin = report(samples_ms=(), frame_samples_ms=())
    compared = comparison(report(), thin)
    assert change(compared, "latency_ms.p50").interval is not None
    assert change(compared, "latency_ms.p99").interval is None
    assert change(compared, "fps_end_to_end").difference == "cannot be told"


def test_the_interval_holds_the_ratio_of_the_figures_themselves() -> None:
    # One repeat lies far off: the pooled p50 hardly notices, the mean of the repeats does.
    odd = report((20.0, 20.0, 20.0, 20.0, 40.0))
    p50 = change(comparison(odd, report()), "latency_ms.p50")
    assert p50.interval is not None
    assert p50.ratio is not None
    assert p50.interval[0] <= p50.ratio <= p50.interval[1]


@pytest.mark.parametrize(("n_here", "n_there"), [(3, 3), (5, 5), (3, 8)])
def test_the_interval_covers_the_true_ratio_19_times_of_20(n_here: int, n_there: int) -> None:
    chance = random.Random(1)
    rounds = 2000
    held = 0
    for _ in range(rounds):
        here = [1.3 * chance.lognormvariate(0, 0.04) for _ in range(n_here)]
        there = [chance.lognormvariate(0, 0.01) for _ in range(n_there)]
        interval = ratio_interval(here, there)
        assert interval is not None
        held += interval[0] <= 1.3 <= interval[1]
    # 0.95 by design and, with degrees of freedom rounded down, a little more.
    assert 0.935 <= held / rounds <= 0.99


@given(
    st.lists(st.floats(0.1, 1e4), min_size=3, max_size=8),
    st.lists(st.floats(0.1, 1e4), min_size=3, max_size=8),
)
def test_swapping_the_reports_inverts_the_interval(here: list[float], there: list[float]) -> None:
    one, other = ratio_interval(here, there), ratio_interval(there, here)
    assert one is not None
    assert other is not None
    assert one[0] <= one[1]
    assert one == pytest.approx((1 / other[1], 1 / other[0]))


def test_p99_of_a_repeat_is_of_its_own_samples() -> None:
    made = report((10.0, 30.0, 20.0))
    lows = find("p50").by_repeat(made)
    assert find("min").by_repeat(made) == pytest.approx((9.9, 29.7, 19.8))
    assert lows == (10.0, 30.0, 20.0)
    assert find("fps").by_repeat(made) == pytest.approx((100, 1000 / 30, 50))
    assert median(find("p99").by_repeat(made)) > 20


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"board": "pi5"}, "board pi4b here, pi5 in the baseline"),
        ({"cpu": "Cortex-A76"}, "cpu Cortex-A72 here, Cortex-A76 in the baseline"),
        ({"cores": 8}, "cores 4 here, 8 in the baseline"),
        ({"ram_mb": 7800}, "RAM 3792 MB here, 7800 MB in the baseline"),
        ({"emulated": True}, "real here, not in the baseline"),
    ],
)
def test_another_machine_is_refused(changed: dict[str, Any], words: str) -> None:
    there = report(host=HOST.model_copy(update=changed))
    with pytest.raises(UsageError, match=words):
        require_comparable(HOST, [ARTIFACT], [4], [there])
    assert words in comparison(report(), there).not_compared["everything"]


def test_a_kernel_that_keeps_more_memory_to_itself_is_the_same_machine() -> None:
    there = report(host=HOST.model_copy(update={"ram_mb": 3700, "kernel": "6.6"}))
    assert "kernel: unknown here, 6.6 then" in comparison(report(), there).notes


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"imgsz": 416}, "imgsz 320 here, 416 in the baseline"),
        ({"threads": 1}, "threads 4 here, 1 in the baseline"),
        ({"runtime": "openvino"}, "runtime ncnn here, openvino in the baseline"),
        ({"precision": "fp16"}, "precision int8 here, fp16 in the baseline"),
        ({"names": ("cat", "dog")}, "3 classes (red, green, blue) here, 2 classes (cat, dog)"),
        ({"names": ("green", "red", "blue")}, "another model"),
    ],
)
def test_another_model_is_refused(changed: dict[str, Any], words: str) -> None:
    there = report(**changed)
    with pytest.raises(UsageError, match=re.escape(words)):
        require_comparable(HOST, [ARTIFACT], [4], [there])
    # Once it is measured nothing is thrown away: it is not compared.
    assert comparison(report(), there).not_compared.keys() == {"everything"}


def test_one_of_several_thread_counts_is_enough() -> None:
    require_comparable(HOST, [ARTIFACT], [1, 4], [report()])
    with pytest.raises(UsageError, match="threads 2 here, 4 in the baseline"):
        require_comparable(HOST, [ARTIFACT], [2], [report()])


def test_two_runs_of_one_kind_with_other_classes_are_told_apart() -> None:
    # What `musgd bench bccd coco --json` printed must do for that very command.
    cats = ARTIFACT.model_copy(update={"names": ("cat", "dog")})
    both = [report(), report(names=("cat", "dog"), artifact="runs/b/artifacts/x")]
    require_comparable(HOST, [ARTIFACT, cats], [4], both)
    assert [one.baseline_artifact for one in compare(both, both)] == [r.artifact for r in both]
    require_comparable(HOST, [ARTIFACT, cats], [4], both[:1])
    without = compare(both, both[:1])[1]
    assert without.baseline_artifact is None
    assert "2 classes (cat, dog) here" in without.not_compared["everything"]


def test_what_the_baseline_alone_has_of_what_was_asked_for_is_found() -> None:
    here = report()
    others = [
        report(precision="fp16"),  # the same artifact, before it was exported anew
        report(artifact="runs/b/artifacts/x", precision="fp16"),  # not asked for
        report(threads=1),  # nor this
        report(host=HOST.model_copy(update={"cores": 2}), precision="fp16"),
    ]
    found = without_counterpart([here, *others], [here], {here.artifact}, {4})
    assert found == others[:1]


def test_a_report_without_counterpart_says_so_and_the_others_are_compared() -> None:
    fresh = report(precision="fp16")
    compared = compare([report(), fresh], [report()])
    assert compared[0].changes
    assert compared[1].baseline_artifact is None
    assert "precision fp16" in compared[1].not_compared["everything"]


def test_of_several_reports_the_nearest_of_kin_is_the_counterpart_and_then_the_latest() -> None:
    name = "artifacts/pi4b-ncnn-int8-320"
    other = {"artifact_sha256": "b" * 64}
    nearest_last = [
        report(artifact=f"runs/c/{name}", started="2026-01-05", **other),
        report(artifact=f"/home/pi/runs/a/{name}", started="2026-01-04", **other),
        report(artifact=f"runs/a/{name}", started="2026-01-03", **other),
        report(artifact="same-old", started="2026-01-01"),
        report(artifact="same-new", started="2026-01-02"),
    ]
    for i, nearest in enumerate(nearest_last, 1):
        (told,) = compare([report()], nearest_last[:i])
        assert told.baseline_artifact == nearest.artifact
        stranger = "neither of this path nor of a run of this name"
        assert any(stranger in note for note in told.notes) == (i == 1)


# ------------------------------------------------------------------------- what differs and is told


@pytest.mark.parametrize(
    "changed",
    [
        {"n_images": 39, "n_excluded": 1},
        {"split": "test"},
        {"data": "/data/other.yaml"},
        {"n_small": 29},
        {"map50_95": None},
    ],
)
def test_accuracy_on_other_images_is_not_compared_and_speed_is(changed: dict[str, Any]) -> None:
    compared = comparison(report(), report(**changed))
    figures = {one.figure for one in compared.changes}
    assert not figures & {"map50_95", "map50", "recall_small", "ap50_95.red"}
    assert "latency_ms.p50" in figures
    assert compared.not_compared["accuracy"]


def test_a_data_set_that_moved_is_the_same_one() -> None:
    compared = comparison(report(map50_95=0.54), report(data="/home/pi/squares.yaml"))
    assert change(compared, "map50_95").here - 0.55 == pytest.approx(-0.01)
    assert change(compared, "ap50_95.red").ratio == 1


def test_power_of_another_meter_is_not_compared() -> None:
    here = report(**METERED)
    assert change(comparison(here, here), "energy_per_frame_j").ratio == 1
    other = report(**{**METERED, "power_source": "rapl:package-0", "power_scope": "package"})
    compared = comparison(here, other)
    assert "rapl:package-0" in compared.not_compared["power"]
    assert not [one for one in compared.changes if one.figure == "power_w"]


def test_an_emulators_speed_is_not_compared() -> None:
    emulated = report(host=HOST.model_copy(update={"emulated": True}))
    compared = comparison(emulated, emulated)
    assert "time" in compared.not_compared
    assert {one.figure for one in compared.changes} >= {"map50_95", "peak_memory_mb"}


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"runtime_version": "2.0"}, "engine version: 1.0 here, 2.0 then"),
        ({"governor": "powersave"}, "governor: unknown here, powersave then"),
        ({"power_mode": "MAXN"}, "power mode: unknown here, MAXN then"),
        ({"versions": {"musgd": "0.0.9"}}, "musgd: 0.1.0 here, 0.0.9 then"),
        ({"n_frames": 16}, "images timed: 0 here, 16 then"),
        ({"sustained": True}, "sustained: no here, yes then"),
        ({"seconds": 20.0}, "timed for 2.1 s here, 20.0 s then"),
        ({"engine": {"threads": "4"}}, "ncnn threads: unset here, 4 then"),
        ({"throttled": True}, "the processor was throttled then"),
        ({"artifact_sha256": "b" * 64}, "the model file differs, built from another parent"),
        ({"cores_used_by_others": 0.7}, "other programs used 0.7 cores then"),
    ],
)
def test_what_else_was_not_the_same_is_told(changed: dict[str, Any], note: str) -> None:
    assert note in comparison(report(), report(**changed)).notes


def test_two_reports_alike_have_nothing_to_note() -> None:
    assert comparison(report(), report()).notes == ()
