"""One artifact measured: what the report says, who is blamed when it cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tiny_artifact as tiny

from musgd_cli.bench import measure
from musgd_cli.bench.measurement import Progress
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware import detect
from musgd_cli.records import BenchReport, BenchSettings, Host, PowerReading

QUICK = BenchSettings(threads=1, duration_s=0.2, repeats=1, warmup_s=0, idle_s=0)


@pytest.fixture(scope="module")
def host() -> Host:
    return detect()


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
    tmp_path_factory: pytest.TempPathFactory, data: Path, host: Host, progress: list[Progress]
) -> BenchReport:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("artifact")
    calibration = tiny.calibrated_on("images/val/1.png", "images/train/3.png")
    tiny.make_onnx(folder, calibration=calibration, parent_sha256="abc")
    return measure(
        folder,
        settings=QUICK,
        host=host,
        data=str(data),
        exclude={"images/val/4.png"},
        meter=Meter(4.5),
        on_progress=progress.append,
    )


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


def test_progress_tells_every_phase_and_counts_the_scored(
    report: BenchReport, progress: list[Progress]
) -> None:
    phases = list(dict.fromkeys(step.phase for step in progress))
    assert phases == ["load", "warm-up", "timing", "scoring"]
    assert (progress[-1].done, progress[-1].total) == (4, 4)


# --------------------------------------------------------------------------------- without things


def test_without_data_noise_is_timed_and_nothing_scored(tmp_path: Path, host: Host) -> None:
    tiny.make_null(tmp_path)
    meter = Meter(None)  # and a meter that dies voids its own figure alone
    report = measure(tmp_path, settings=QUICK, host=host, meter=meter)
    assert meter.calls == ["begin", "end"]
    assert report.power_w is None
    assert report.energy_per_frame_j is None
    assert report.map50_95 is None
    assert report.split is None
    assert report.n_images == 0
    assert report.n_frames == 0
    assert report.n > 10


def test_when_every_image_calibrated_there_is_no_score(
    tmp_path: Path, host: Host, data: Path
) -> None:
    images = [f"images/val/{i}.png" for i in range(6)]
    tiny.make_null(tmp_path, calibration=tiny.calibrated_on(*images))
    report = measure(tmp_path, settings=QUICK, host=host, data=str(data))
    assert report.map50_95 is None
    assert report.n_images == 0
    assert report.n_excluded == 6
    assert report.n_frames == 6  # they can still be timed


def test_the_test_split_is_scored_where_there_is_one(tmp_path: Path, host: Host) -> None:
    with_test = tiny.make_data(tmp_path / "data", n_images=2, splits=("train", "val", "test"))
    tiny.make_null(tmp_path / "a")
    report = measure(tmp_path / "a", settings=QUICK, host=host, data=str(with_test))
    assert (report.split, report.n_images) == ("test", 2)
    assert report.map50_95 == 0  # the null engine finds nothing, which is a score


def test_zero_threads_takes_every_core_this_process_may_use(tmp_path: Path, host: Host) -> None:
    tiny.make_null(tmp_path)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        settings = QUICK.model_copy(update={"threads": 0})
        assert measure(tmp_path, settings=settings, host=host).threads == 1
    finally:
        os.sched_setaffinity(0, allowed)


# --------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("names", "match"),
    [(("red", "green"), "has 2 classes"), (("green", "red", "blue"), "numbers its classes")],
)
def test_a_data_set_of_other_classes(
    names: tuple[str, ...], match: str, tmp_path: Path, host: Host, data: Path
) -> None:
    tiny.make_null(tmp_path, names=names)
    with pytest.raises(UsageError, match=match) as caught:
        measure(tmp_path, settings=QUICK, host=host, data=str(data))
    assert f"the model {tmp_path}" in caught.value.what  # where it lies, not where it was made


def test_renamed_classes_are_the_users_affair(tmp_path: Path, host: Host, data: Path) -> None:
    tiny.make_null(tmp_path, names=("rouge", "vert", "bleu"))
    report = measure(tmp_path, settings=QUICK, host=host, data=str(data))
    assert set(report.ap50_95) == {"rouge", "vert", "bleu"}


def test_a_corrupt_image_is_named(tmp_path: Path, host: Host) -> None:
    data = tiny.make_data(tmp_path / "data", n_images=2)
    image = tmp_path / "data/images/val/1.png"
    image.write_bytes(image.read_bytes()[:-20])
    tiny.make_null(tmp_path / "a")
    with pytest.raises(MusgdError, match=r"val/1\.png") as caught:
        measure(tmp_path / "a", settings=QUICK, host=host, data=str(data))
    assert caught.value.exit_code is ExitCode.FAILED


def test_a_damaged_model_keeps_its_words_on_the_way_out_of_the_worker(
    tmp_path: Path, host: Host
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    tiny.make_onnx(tmp_path)
    model = tmp_path / "model.onnx"
    model.write_bytes(model.read_bytes()[:50])
    with pytest.raises(MusgdError, match="sha256") as caught:
        measure(tmp_path, settings=QUICK, host=host)
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
    name: str, match: str, tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_act = f"os.write(2, b'last words\\n'); os.kill(os.getpid(), signal.{name})"
    runtime_that(last_act, tmp_path, monkeypatch)
    tiny.make_onnx(tmp_path)
    with pytest.raises(MusgdError, match=match) as caught:
        measure(tmp_path, settings=QUICK, host=host)
    assert f"({name})" in caught.value.what
    assert "last words" in caught.value.what
    assert caught.value.mend


def test_a_missing_runtime_is_unsupported(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    does = "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    runtime_that(does, tmp_path, monkeypatch)
    tiny.make_onnx(tmp_path)
    with pytest.raises(UnsupportedError, match="not installed") as caught:
        measure(tmp_path, settings=QUICK, host=host)
    assert "musgd-cli[onnx]" in caught.value.mend


def test_a_failure_nobody_foresaw_keeps_its_traceback(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime_that("1 / 0", tmp_path, monkeypatch)
    tiny.make_onnx(tmp_path)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        measure(tmp_path, settings=QUICK, host=host)


def test_a_worker_that_imported_torch_is_refused(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text("import torch")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tiny.make_null(tmp_path / "a")
    with pytest.raises(RuntimeError, match="imported torch"):
        measure(tmp_path / "a", settings=QUICK, host=host)


def test_the_worker_dies_with_the_bench(tmp_path: Path) -> None:
    tiny.make_null(tmp_path)
    code = (
        "from pathlib import Path\n"
        "from musgd_cli.bench import measure\n"
        "from musgd_cli.hardware import detect\n"
        "from musgd_cli.records import BenchSettings\n"
        "settings = BenchSettings(threads=1, duration_s=60, repeats=1, warmup_s=60, idle_s=0)\n"
        f"measure(Path({str(tmp_path)!r}), settings=settings, host=detect(),\n"
        "        on_progress=lambda step: print(step.phase, flush=True))\n"
    )
    bench = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert bench.stdout is not None
        assert bench.stdout.readline() == "load\n"
        (worker,) = psutil.Process(bench.pid).children()
        assert bench.stdout.readline() == "warm-up\n"
        bench.send_signal(signal.SIGINT)
        bench.wait(timeout=30)
    finally:
        bench.kill()
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
