"""One artifact measured: what the report says, who is blamed when it cannot be."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import tiny_artifact as tiny

from musgd_cli.bench import measure_all
from musgd_cli.bench.process import Progress
from musgd_cli.bench.session import Outcome
from musgd_cli.bench.subject import Subject
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError
from musgd_cli.records import BenchReport, BenchSettings, Plan, PowerReading, Settled
from musgd_cli.runs import read_artifact
from musgd_cli.storage import digest_of, write_record

QUICK = BenchSettings(threads=1, duration_s=0.2, repeats=1, warmup_s=0, idle_s=0)


def outcomes(*folders: Path, meter: object = None, **options: Any) -> list[Outcome]:
    subjects = [Subject(folder, read_artifact(folder)) for folder in folders]
    known: dict[str, Any] = {"settings": QUICK, "keep": False, "meter_for": lambda _: meter}
    return list(measure_all(subjects, **known | options))


def measure(folder: Path, **options: Any) -> BenchReport:
    (outcome,) = outcomes(folder, **options)
    if outcome.error is not None:
        raise outcome.error
    assert outcome.report is not None
    return outcome.report


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_data(tmp_path_factory.mktemp("squares"))


class Meter:
    """An instrument that reads what it is told, and notes how it was used."""

    source, scope, kind, hz = "bench-psu", "board", "measured", 10.0

    def __init__(self, power_w: float | None) -> None:
        self._power_w = power_w
        self.calls: list[str] = []

    def begin(self) -> None:
        self.calls.append("begin")
        self._begin = time.monotonic()

    def end(self) -> PowerReading | None:
        self.calls.append("end")
        seconds = time.monotonic() - self._begin
        if self._power_w is None:
            return None
        return PowerReading(
            energy_j=self._power_w * seconds,
            seconds=seconds,
            source=self.source,
            scope=self.scope,
            kind=self.kind,
            hz=self.hz,
        )


# ------------------------------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def progress() -> list[Progress]:
    return []


@pytest.fixture(scope="module")
def report(
    tmp_path_factory: pytest.TempPathFactory, data: Path, progress: list[Progress]
) -> BenchReport:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("artifact")
    calibration = tiny.calibrated_on("images/val/1.png", "images/train/3.png")
    tiny.make_onnx(folder / "a", calibration=calibration, parent_sha256="abc")
    tiny.make_null(folder / "b", calibration=tiny.calibrated_on("images/val/4.png"))
    first, second = outcomes(
        folder / "a",
        folder / "b",
        settings=QUICK.model_copy(update={"repeats": 3, "idle_s": 0.3, "warmup_s": 0.1}),
        data=str(data),
        meter=Meter(4.5),
        on_progress=lambda subject, step: subject.name == "a" and progress.append(step),
    )
    assert second.report is not None
    assert second.report.n_excluded == 2
    assert first.report is not None
    return first.report


def test_accuracy_is_the_one_worked_out_by_hand(report: BenchReport) -> None:
    # Every object found, nothing else: all that 101-point interpolation gives, which is .995.
    assert report.map50_95 == pytest.approx(0.995)
    assert report.map50 == pytest.approx(0.995)
    assert report.ap50_95 == pytest.approx(dict.fromkeys(tiny.NAMES, 0.995))
    assert report.recall_small == 1
    assert report.n_small == 4 * report.n_images


def test_images_that_calibrated_a_model_are_not_scored(report: BenchReport) -> None:
    assert report.split == "val"
    assert report.n_images == 4
    assert report.n_excluded == 2


def test_samples_are_all_there_and_the_figures_are_theirs(report: BenchReport) -> None:
    samples = report.samples_ms
    assert report.n == len(samples) >= 10
    assert report.fps == pytest.approx(1000 * len(samples) / sum(samples), rel=0.05)
    assert report.latency_ms.min == min(samples) <= report.latency_ms.p50 <= max(samples)
    assert 0 < report.fps_end_to_end < report.fps
    assert report.pre_ms > 0
    assert report.post_ms > 0
    assert report.harness_ms is not None
    assert 0 < report.harness_ms < 0.15
    assert report.seconds is not None
    assert report.seconds >= QUICK.duration_s
    assert report.warmup >= 15


def test_the_report_says_what_ran_and_how(report: BenchReport) -> None:
    assert report.threads == 1
    assert report.engine["threads"] == "1"
    assert report.runtime_version == report.versions["onnxruntime"]
    assert report.parent_sha256 == "abc"
    assert report.n_frames == 4
    assert report.load_ms > 0
    assert report.first_inference_ms > 0
    assert report.peak_memory_mb is not None
    assert 20 < report.peak_memory_mb < 500
    assert BenchReport.parse(json.loads(report.model_dump_json())) == report


def test_energy_is_power_times_the_loop_over_its_frames(report: BenchReport) -> None:
    assert report.power_w == pytest.approx(4.5)
    assert report.seconds is not None
    assert report.energy_per_frame_j == pytest.approx(4.5 * report.seconds / report.n)
    assert (report.power_source, report.power_scope) == ("bench-psu", "board")
    assert report.power_kind == "measured"


def test_net_energy_is_what_comes_on_top_of_rest(report: BenchReport) -> None:
    assert report.idle_w == pytest.approx(4.5)
    assert report.net_energy_per_frame_j == pytest.approx(0, abs=1e-9)
    assert report.fps_per_watt == pytest.approx(report.fps_end_to_end / 4.5)
    assert report.power_hz == 10
    assert report.power_s is not None
    assert report.seconds is not None
    assert report.power_s >= report.seconds


def test_repeats_are_fresh_processes_whose_samples_are_the_reports(report: BenchReport) -> None:
    assert len(report.repeats) == 3
    assert sum(repeat.n for repeat in report.repeats) == report.n
    begin = 0
    for repeat in report.repeats:
        samples = report.samples_ms[begin : begin + repeat.n]
        assert repeat.p50_ms == pytest.approx(statistics.median(samples))
        begin += repeat.n
    starts = [repeat.began for repeat in report.repeats]
    assert starts == sorted(starts)
    assert time.time() - 300 < starts[0] < time.time()
    assert report.started is not None
    assert datetime.fromisoformat(report.started).timestamp() == pytest.approx(starts[0], abs=1)
    assert report.p50_interval_ms is not None
    low, high = report.p50_interval_ms
    assert low < report.latency_ms.p50 < high


def test_a_whole_frame_is_its_stages(report: BenchReport) -> None:
    assert len(report.frame_samples_ms) == report.n
    assert all(
        whole > inference
        for whole, inference in zip(report.frame_samples_ms, report.samples_ms, strict=True)
    )
    assert report.fps_end_to_end == pytest.approx(1000 / statistics.fmean(report.frame_samples_ms))


def test_moments_run_through_all_repeats(report: BenchReport) -> None:
    assert len(report.moments) == 3  # each repeat is shorter than a second
    times = [moment.t_s for moment in report.moments]
    assert times == sorted(times)
    assert times[-1] > report.repeats[-1].began - report.repeats[0].began
    assert all(moment.fps > 0 for moment in report.moments)


def test_who_used_the_cores(report: BenchReport) -> None:
    assert report.cores_used is not None
    assert 0.2 < report.cores_used < 1.5  # one thread, and whatever NumPy does beside it
    assert report.cores_used_by_others is not None
    assert report.cores_used_by_others >= 0


def test_the_scores_of_a_model_are_held_against_its_parents(tmp_path: Path, data: Path) -> None:
    for module in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    artifacts = tmp_path / "runs/r/artifacts"
    parent = tiny.make_onnx(artifacts / "parent")
    tiny.make_openvino(artifacts / "child", parent_sha256=parent.sha256)
    # The parent lies beside it and need not be asked for.
    child = measure(artifacts / "child", data=str(data))
    assert child.confidence_shift == pytest.approx(0, abs=1e-6)
    assert child.n_shared_boxes == 4 * child.n_images
    alone = measure(artifacts / "parent", data=str(data))
    assert alone.confidence_shift is None
    assert alone.n_shared_boxes == 0


def test_models_take_turns(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tiny.make_null(tmp_path / name)
    turns: list[str] = []
    outcomes(
        tmp_path / "a",
        tmp_path / "b",
        settings=QUICK.model_copy(update={"repeats": 3}),
        on_progress=lambda s, step: step.phase == "timing" and turns.append(s.name),
    )
    assert turns == ["a", "b"] * 3


def test_each_thread_count_is_a_report_and_accuracy_is_scored_once(
    tmp_path: Path, data: Path
) -> None:
    tiny.make_null(tmp_path)
    scored: list[int] = []
    found = outcomes(
        tmp_path,
        threads=(1, 2, 1),
        data=str(data),
        on_progress=lambda _, step: step.phase == "scoring" and scored.append(step.done),
    )
    assert [outcome.threads for outcome in found] == [1, 2]
    assert [o.report.threads for o in found if o.report is not None] == [1, 2]
    assert scored == [1, 2, 3, 4, 5, 6]


def test_so_many_frames_as_asked(tmp_path: Path) -> None:
    tiny.make_null(tmp_path)
    settings = QUICK.model_copy(update={"repeats": 3, "duration_s": 60})
    assert measure(tmp_path, settings=settings, frames=100).n == 102  # 34 in each


def test_only_the_images_that_fit_are_timed_and_told(tmp_path: Path) -> None:
    tiny.make_null(tmp_path / "a")
    assert measure(tmp_path / "a").n_frames == 0
    large = tiny.make_data(tmp_path / "large", n_images=4)
    for file in (tmp_path / "large/images/val").iterdir():
        cv2.imwrite(str(file), np.zeros((3000, 4000, 3), np.uint8))  # 34 MB in memory
    assert measure(tmp_path / "a", data=str(large), scored=False).n_frames == 2


def test_data_that_a_run_left_behind_is_no_hindrance(tmp_path: Path) -> None:
    # As README says: copy the run to the board, and bench it there.
    artifact = tmp_path / "runs/r/artifacts/x"
    tiny.make_null(artifact)
    settled = Settled(value="/elsewhere/cells.yaml", source="--data")
    plan = Plan(profile="x86-cpu", target="pi4b", settings={"train.data": settled})
    write_record(tmp_path / "runs/r/plan.json", plan)
    report = measure(artifact)
    assert report.map50_95 is None
    assert report.n_frames == 0
    assert report.accuracy_note is not None
    assert "/elsewhere/cells.yaml does not exist" in report.accuracy_note
    assert "--data" in report.accuracy_note


def test_an_image_that_calibrated_under_another_name_is_not_scored(
    tmp_path: Path, data: Path
) -> None:
    image = data.parent / "images/val/2.png"
    calibration = tiny.calibrated_on("train/elsewhere.png").model_copy(
        update={"digests": (digest_of(image),)}
    )
    tiny.make_null(tmp_path, calibration=calibration)
    report = measure(tmp_path, data=str(data))
    assert (report.n_images, report.n_excluded) == (5, 1)


def test_a_model_whose_maker_calibrated_it_on_what_would_be_scored(
    tmp_path: Path, data: Path
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    artifact = tiny.make_onnx(tmp_path)
    subject = Subject(tmp_path, artifact, "Ultralytics 8.4.190", calibrated_on="data.yaml")
    (outcome,) = measure_all([subject], settings=QUICK, data=str(data), keep=False)
    assert outcome.report is not None
    assert outcome.report.map50_95 is None
    assert outcome.report.accuracy_note == "its maker calibrated it on images of data.yaml, val"
    assert outcome.report.n_frames == 6


def test_a_sustained_run_is_one_process(tmp_path: Path) -> None:
    tiny.make_null(tmp_path)
    settings = QUICK.model_copy(update={"repeats": 5, "duration_s": 2.6})
    report = measure(tmp_path, settings=settings, sustained=True)
    assert report.sustained
    assert len(report.repeats) == 1
    assert len(report.moments) >= 2
    assert report.p50_interval_ms is None
    assert report.stable is None
    assert (report.warmup, report.steady) == (0, False)  # its begin belongs to what it shows


def test_progress_tells_every_phase_and_counts_the_scored(
    report: BenchReport, progress: list[Progress]
) -> None:
    phases = list(dict.fromkeys(step.phase for step in progress))
    assert phases == ["idle", "load", "warm-up", "timing", "scoring"]
    assert [step.repeat for step in progress if step.phase == "timing"] == [1, 2, 3]
    assert (progress[-1].done, progress[-1].total) == (4, 4)


# --------------------------------------------------------------------------------- without things


def test_without_data_noise_is_timed_and_nothing_scored(tmp_path: Path) -> None:
    tiny.make_null(tmp_path)
    meter = Meter(None)  # and a meter that dies voids its own figure alone
    report = measure(tmp_path, meter=meter)
    assert meter.calls == ["begin", "end"]
    assert report.power_w is None
    assert report.energy_per_frame_j is None
    assert report.power_note is not None
    assert report.power_note.startswith("the meter bench-psu died in the run")
    assert report.map50_95 is None
    assert report.accuracy_note == "no data set; give one with --data"
    assert report.split is None
    assert report.n_images == 0
    assert report.n_frames == 0
    assert report.n > 10


def test_when_every_image_calibrated_there_is_no_score(tmp_path: Path, data: Path) -> None:
    images = [f"images/val/{i}.png" for i in range(6)]
    tiny.make_null(tmp_path, calibration=tiny.calibrated_on(*images))
    report = measure(tmp_path, data=str(data))
    assert report.map50_95 is None
    assert report.accuracy_note == "every image of data.yaml, val calibrated a model"
    assert report.n_images == 0
    assert report.n_excluded == 6
    assert report.n_frames == 6  # they can still be timed


def test_the_test_split_is_scored_where_there_is_one(tmp_path: Path) -> None:
    with_test = tiny.make_data(tmp_path / "data", n_images=2, splits=("train", "val", "test"))
    tiny.make_null(tmp_path / "a")
    report = measure(tmp_path / "a", data=str(with_test))
    assert (report.split, report.n_images) == ("test", 2)
    assert report.map50_95 == 0  # the null engine finds nothing, which is a score


def test_zero_threads_takes_every_core_this_process_may_use(tmp_path: Path) -> None:
    tiny.make_null(tmp_path)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        settings = QUICK.model_copy(update={"threads": 0})
        assert measure(tmp_path, settings=settings).threads == 1
    finally:
        os.sched_setaffinity(0, allowed)


# --------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("names", "match"),
    [(("red", "green"), "has 2 classes"), (("green", "red", "blue"), "numbers its classes")],
)
def test_a_data_set_of_other_classes(
    names: tuple[str, ...], match: str, tmp_path: Path, data: Path
) -> None:
    tiny.make_null(tmp_path, names=names)
    with pytest.raises(UsageError, match=match) as caught:
        measure(tmp_path, data=str(data))
    assert f"the model {tmp_path}" in caught.value.what  # where it lies, not where it was made


def test_renamed_classes_are_the_users_affair(tmp_path: Path, data: Path) -> None:
    tiny.make_null(tmp_path, names=("rouge", "vert", "bleu"))
    report = measure(tmp_path, data=str(data))
    assert set(report.ap50_95) == {"rouge", "vert", "bleu"}


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    data = tiny.make_data(tmp_path / "data", n_images=20)
    image = tmp_path / "data/images/val/12.png"
    image.write_bytes(image.read_bytes()[:-20])
    tiny.make_null(tmp_path / "a")
    (outcome,) = outcomes(tmp_path / "a", data=str(data))
    assert isinstance(outcome.error, MusgdError)
    assert outcome.error.exit_code is ExitCode.FAILED
    assert "val/12.png" in outcome.error.what
    # It was not among those timed: what was measured is not lost.
    assert outcome.report is not None
    assert outcome.report.map50_95 is None
    assert outcome.report.accuracy_note == outcome.error.what


def test_a_damaged_model_keeps_its_words_on_the_way_out_of_the_worker(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    tiny.make_onnx(tmp_path)
    model = tmp_path / "model.onnx"
    model.write_bytes(model.read_bytes()[:50])
    with pytest.raises(MusgdError, match="sha256") as caught:
        measure(tmp_path)
    assert "musgd export" in caught.value.mend


def runtime_that(does: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a wheel named onnxruntime before the real one, for the worker alone."""
    package = folder / "site" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"import os, signal, sys\n{does}\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


@pytest.mark.parametrize(
    ("name", "match"), [("SIGSEGV", "crashed in onnxruntime"), ("SIGILL", "instruction")]
)
def test_a_runtime_that_crashes_is_named_with_its_signal(
    name: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_act = f"os.write(2, b'last words\\n'); os.kill(os.getpid(), signal.{name})"
    runtime_that(last_act, tmp_path, monkeypatch)
    tiny.make_onnx(tmp_path)
    with pytest.raises(MusgdError, match=match) as caught:
        measure(tmp_path)
    assert f"({name})" in caught.value.what
    assert "last words" in caught.value.what
    assert caught.value.mend


def test_a_last_word_that_is_cut_off_is_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is killed while it writes: of that, not of half a line of JSON, it is said to have died.
    does = 'os.write(3, b\'{"kind": "do\'); os.kill(os.getpid(), signal.SIGKILL)'
    runtime_that(does, tmp_path, monkeypatch)
    tiny.make_onnx(tmp_path)
    with pytest.raises(MusgdError, match="for want of memory"):
        measure(tmp_path)


def test_what_nobody_foresaw_loses_no_others_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime_that("1 / 0", tmp_path, monkeypatch)
    tiny.make_onnx(tmp_path / "a")
    tiny.make_null(tmp_path / "b")
    subjects = [Subject(tmp_path / name, read_artifact(tmp_path / name)) for name in "ab"]
    found = measure_all(subjects, settings=QUICK, keep=False, meter_for=lambda _: None)
    first = next(found)
    assert (first.subject.name, first.report is not None) == ("b", True)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        next(found)


def test_a_missing_runtime_is_unsupported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    does = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    runtime_that(does, tmp_path, monkeypatch)
    tiny.make_onnx(tmp_path)
    with pytest.raises(UnsupportedError, match="not installed") as caught:
        measure(tmp_path)
    assert "[onnx]'" in caught.value.mend


def test_a_failure_nobody_foresaw_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime_that("1 / 0", tmp_path, monkeypatch)
    tiny.make_onnx(tmp_path)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        measure(tmp_path)


def test_a_worker_that_imported_torch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text("import torch")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tiny.make_null(tmp_path / "a")
    with pytest.raises(RuntimeError, match="imported torch"):
        measure(tmp_path / "a")


@contextmanager
def bench_that_warms_up(folder: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A bench in a process of its own, and its worker, in the middle of a long warm-up."""
    tiny.make_null(folder)
    code = (
        "from musgd_cli.bench import choose, measure_all\n"
        "from musgd_cli.records import BenchSettings\n"
        "settings = BenchSettings(threads=1, duration_s=60, repeats=1, warmup_s=60, idle_s=0)\n"
        f"list(measure_all(choose([{str(folder)!r}]), settings=settings, keep=False,\n"
        "     meter_for=lambda device: None,\n"
        "     on_progress=lambda subject, step: print(step.phase, flush=True)))\n"
    )
    bench = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert bench.stdout is not None
        assert bench.stdout.readline() == "load\n"
        (worker,) = psutil.Process(bench.pid).children()
        assert bench.stdout.readline() == "warm-up\n"
        yield bench, worker
    finally:
        bench.kill()


def test_the_worker_dies_with_the_bench(tmp_path: Path) -> None:
    with bench_that_warms_up(tmp_path) as (bench, worker):
        bench.send_signal(signal.SIGINT)
        bench.wait(timeout=30)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_worker_whose_bench_was_killed_does_not_go_on(tmp_path: Path) -> None:
    with bench_that_warms_up(tmp_path) as (_, worker):
        pass
    gone, _ = psutil.wait_procs([worker], timeout=10)
    assert gone
