"""The planner from end to end, on models that only cost what letterbox does: more, the larger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_artifact as tiny
from made_reports import report

from musgd_cli.bench import choose
from musgd_cli.bench.fit import Goal, Speed, fit, thread_counts
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware.power import PowerMeter
from musgd_cli.records import BenchSettings, Fit, Gate, PowerReading

SETTINGS = BenchSettings(threads=1, duration_s=0.2, repeats=1, warmup_s=0, idle_s=0)
SIZES = (64, 640, 1280)


def gate(map50_95: float, *, drop: float = 0.0, verdict: str = "passed") -> Gate:
    known = dict.fromkeys(
        (
            *("interval", "map50", "recall_small", "parent_map50", "parent_recall_small"),
            *("match_recall", "match_precision", "box_px", "score_difference", "confidence_shift"),
        )
    )
    return Gate.model_validate(
        known
        | {
            "verdict": verdict,
            "max_drop": 0.01,
            "map50_95_drop": drop,
            "map50_95": map50_95,
            "parent_map50_95": map50_95 + drop,
            "n_boxes": 9,
            "n_images": 4,
            "data": "/elsewhere/data.yaml",
            "split": "val",
            "scored_by": "null on x86_64",
        }
    )


def name(imgsz: int) -> str:
    return f"runs/r/artifacts/x86-cpu-null-fp32-{imgsz}"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of null artifacts of three sizes, of which nothing says the accuracy."""
    monkeypatch.chdir(tmp_path)
    for imgsz in SIZES:
        tiny.make_null(Path(name(imgsz)), imgsz=imgsz)
    return tmp_path


@pytest.fixture
def find(run: Path) -> Callable[..., Fit]:
    def found(goal: Goal, **options: object) -> Fit:
        options = {"settings": SETTINGS, "threads": [1]} | options
        return fit(choose(["r"]), goal, **options)

    return found


def predicted(found: Fit, imgsz: int) -> float:
    (only,) = (c.predicted_fps for c in found.candidates if c.imgsz == imgsz)
    assert only is not None
    return only


def test_the_answer_meets_the_goal_and_one_step_larger_misses_it(
    find: Callable[..., Fit], run: Path
) -> None:
    stages: list[str] = []
    easy = find(Goal(fps=1), on_stage=stages.append)
    assert easy.chosen is not None
    assert easy.chosen.imgsz == 1280  # nothing says which is more accurate, but for the size
    assert easy.step_larger is None
    assert easy.accuracy_by == "size"
    assert [stage.split()[0] for stage in stages] == ["probing", "measuring"]
    assert [c.predicted_by for c in easy.candidates] == ["probe", "roofline", "probe"]
    assert [c.fps is not None for c in easy.candidates] == [True, False, False]
    (line,) = easy.rooflines
    assert [imgsz for imgsz, _ in line.points] == [64, 1280]

    between = (predicted(easy, 640) * predicted(easy, 1280)) ** 0.5
    found = find(Goal(fps=between))
    assert found.chosen is not None
    assert found.step_larger is not None
    assert (found.chosen.imgsz, found.step_larger.imgsz) == (640, 1280)
    assert found.chosen.fps is not None
    assert found.chosen.fps >= between
    assert found.step_larger.counted_fps is not None
    assert found.step_larger.counted_fps < between
    assert found.step_larger.why is not None
    assert found.prediction_error is not None
    assert found.nearest is None
    # What was measured in full is kept, what was probed is not.
    kept = sorted(str(path) for path in Path("runs/r/bench").iterdir())
    assert len(kept) == 3
    assert found.chosen.report in kept


def test_where_nothing_meets_it_the_nearest_is_named(find: Callable[..., Fit]) -> None:
    found = find(Goal(fps=1e7))
    assert found.chosen is None
    assert found.step_larger is None
    assert found.nearest is not None
    assert found.nearest.imgsz == 64
    assert found.nearest.why is not None
    assert "asked for" in found.nearest.why


def test_gates_say_which_is_more_accurate(find: Callable[..., Fit]) -> None:
    tiny.make_null(Path(name(64)), imgsz=64, gate=gate(0.7, drop=0.05, verdict="failed"))
    tiny.make_null(Path(name(640)), imgsz=640, gate=gate(0.6, drop=0.01))
    tiny.make_null(Path(name(1280)), imgsz=1280, gate=gate(0.4))
    found = find(Goal(fps=1))
    assert found.accuracy_by == "gate"
    assert found.chosen is not None
    assert (found.chosen.imgsz, found.chosen.map50_95) == (640, 0.6)
    # One step larger is no more accurate, so that it may meet the goal too.
    assert found.step_larger is not None
    assert found.step_larger.imgsz == 1280
    assert found.step_larger.meets
    (left_out,) = (c for c in found.candidates if c.imgsz == 64)
    assert left_out.why == "it failed its gate when it was exported"
    assert left_out.predicted_fps is None  # it was not even probed


def test_what_lost_more_than_is_allowed_is_left_out(find: Callable[..., Fit]) -> None:
    for imgsz in SIZES:
        tiny.make_null(Path(name(imgsz)), imgsz=imgsz, gate=gate(0.5, drop=0.05))
    found = find(Goal(fps=1, max_drop=0.02))
    assert found.chosen is None
    assert found.nearest is None
    assert {c.why for c in found.candidates} == {"it loses 0.050 of mAP50-95, 0.02 is allowed"}


def test_of_other_data_accuracy_is_scored(find: Callable[..., Fit], run: Path) -> None:
    tiny.make_data(run / "squares", n_images=2, splits=("train", "val", "test"))
    (Path(name(1280)) / "artifact.json").unlink()
    for imgsz in SIZES[:2]:
        tiny.make_null(Path(name(imgsz)), imgsz=imgsz, gate=gate(0.5))
    found = find(Goal(fps=1, max_drop=0.1), data="squares")
    assert found.accuracy_by == "score"
    assert [c.map50_95 for c in found.candidates] == [0, 0]  # the null engine finds nothing
    assert found.chosen is None
    assert {c.why for c in found.candidates} == {
        "what it loses against its float parent is not known on this data"
    }


def test_gates_on_another_data_set_of_the_same_file_name_tell_nothing(
    find: Callable[..., Fit], run: Path
) -> None:
    # What Roboflow exports is always called data.yaml.
    for folder in ("these", "those"):
        tiny.make_data(run / folder, n_images=2)
    for imgsz in SIZES[1:]:
        (Path(name(imgsz)) / "artifact.json").unlink()

    def judged_by(gates: Gate, data: str) -> str:
        tiny.make_null(Path(name(64)), gate=gates)
        return find(Goal(fps=1), data=data).accuracy_by

    these = gate(0.5).model_copy(update={"data": str(run / "these/data.yaml"), "n_images": 2})
    assert judged_by(these, "these") == "gate"
    assert judged_by(these, "those") == "score"
    assert judged_by(these.model_copy(update={"n_images": 1}), "these") == "score"


def test_what_fails_with_some_threads_keeps_the_others(run: Path) -> None:
    pytest.importorskip("openvino")
    tiny.make_openvino(Path("runs/o/artifacts/x86-cpu-openvino-fp32-64"))
    failures: list[MusgdError] = []
    refused = -1  # by OpenVINO alone; -1 cannot be typed
    found = fit(
        choose(["o"]),
        Goal(fps=1),
        settings=SETTINGS,
        threads=[refused, 1],
        on_failure=failures.append,
    )
    assert found.chosen is not None
    assert found.chosen.threads == 1
    (left_out,) = (one for one in found.candidates if one.threads == refused)
    assert "INFERENCE_NUM_THREADS" in (left_out.why or "")
    assert [error.what for error in failures] == [left_out.why]


def test_a_meter_that_is_refused_is_refused_before_anything_is_probed(
    find: Callable[..., Fit],
) -> None:
    def none_such(device: str) -> PowerMeter | None:
        raise UsageError(f"no meter for the {device}", "name another")

    stages: list[str] = []
    with pytest.raises(UsageError, match="no meter for the cpu"):
        find(Goal(fps=1), meter_for=none_such, on_stage=stages.append)
    assert stages == []


def test_a_runtime_that_is_missing_leaves_the_others(find: Callable[..., Fit]) -> None:
    tiny.make_tensorrt(Path(name(1280)), imgsz=1280)
    found = find(Goal(fps=1))
    assert found.chosen is not None
    assert found.chosen.imgsz == 640
    assert any("no NVIDIA" in (c.why or "") for c in found.candidates)


def test_without_any_runtime_that_is_here_it_cannot_be_done(find: Callable[..., Fit]) -> None:
    for imgsz in SIZES:
        tiny.make_tensorrt(Path(name(imgsz)), imgsz=imgsz)
    with pytest.raises(UnsupportedError, match="no NVIDIA"):
        find(Goal(fps=1))


# ------------------------------------------------------------------------------------------ watts


class Meter:
    """An instrument that reads what it is told."""

    source, scope, hz = "bench-psu", "board", 10.0

    def __init__(self, power_w: float | None, kind: str = "measured") -> None:
        self._power_w = power_w
        self.kind = kind

    def begin(self) -> None:
        pass

    def end(self) -> PowerReading | None:
        if self._power_w is None:
            return None
        return PowerReading(
            energy_j=self._power_w,
            seconds=1,
            source=self.source,
            scope=self.scope,
            kind=self.kind,
            hz=self.hz,
        )


@pytest.mark.parametrize(
    ("reads_w", "meets", "why"),
    [
        (6.0, True, None),
        (7.0, False, "7.00 W, at most 6.5"),
        (None, False, "no figure of power"),  # it died in the run
    ],
)
def test_watts_are_held_to_the_meter(
    reads_w: float | None, meets: bool, why: str | None, find: Callable[..., Fit]
) -> None:
    for imgsz in SIZES[1:]:
        (Path(name(imgsz)) / "artifact.json").unlink()
    found = find(Goal(fps=1, watts=6.5), meter_for=lambda _device: Meter(reads_w))
    assert found.power_by == "measured by bench-psu, of the whole board"
    (only,) = found.candidates
    assert only.meets is meets
    assert (found.chosen is not None) is meets
    assert (found.nearest is not None) is not meets
    assert why is None or (only.why is not None and why in only.why)


@pytest.mark.parametrize(
    ("meter", "words"),
    [(None, "needs a power meter"), (Meter(5, kind="estimated"), "an estimate passes no limit")],
)
def test_watts_without_a_meter_cannot_be_answered(
    meter: PowerMeter | None, words: str, find: Callable[..., Fit]
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        find(Goal(fps=1, watts=6.5), meter_for=lambda _device: meter)


# ------------------------------------------------------------------------------------------ parts


@pytest.mark.parametrize(
    "goal", [Goal(0), Goal(-1), Goal(float("nan")), Goal(1, watts=0), Goal(1, max_drop=2)]
)
def test_what_is_no_goal(goal: Goal, find: Callable[..., Fit]) -> None:
    with pytest.raises(UsageError):
        find(goal)


@pytest.mark.parametrize(
    ("cores", "counts"),
    [(1, (1,)), (2, (1, 2)), (4, (1, 2, 4)), (6, (1, 2, 4, 6)), (16, (1, 2, 4, 8, 16))],
)
def test_thread_counts_worth_trying(cores: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(cores) == counts


def test_the_worse_end_counts_so_that_noise_is_never_of_use() -> None:
    stable = Speed.of(report((20.0, 20.1, 19.9)))
    assert stable.stable
    assert stable.interval is not None
    assert stable.counted == stable.interval[0] < stable.fps
    unstable = Speed.of(report((16.0, 20.0, 24.0)))
    assert unstable.stable is False
    assert unstable.interval is not None
    assert unstable.counted == unstable.interval[0] < stable.counted < stable.fps
    assert unstable.cannot_be_told(stable.fps)
    assert not unstable.cannot_be_told(unstable.counted)  # it meets that all the same
    assert not unstable.cannot_be_told(10 * unstable.fps)
    assert not stable.cannot_be_told(stable.fps)
    single = Speed.of(report((20.0,)))
    assert single.interval is None
    assert single.counted == single.fps == pytest.approx(1000 / 21)
