"""Measure one artifact in a process of its own, and watch power and heat from this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from musgd_cli import __version__
from musgd_cli.bench.clock import latency
from musgd_cli.bench.messages import Event, Failure, Measurement, Phase, Task
from musgd_cli.bench.selection import require_same_classes
from musgd_cli.data import load
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware import thermal, usable_cores
from musgd_cli.hardware.power import PowerMeter
from musgd_cli.records import Artifact, BenchReport, BenchSettings, Host, PowerReading
from musgd_cli.runs import read_artifact

FRAMES = 16
"""Images that are timed, spread evenly over the split."""

HEAT_HZ = 1.0

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_DEATHS = {
    signal.SIGKILL: (
        "was killed, most likely for want of memory",
        "close other programs, or export at a smaller --imgsz",
    ),
    signal.SIGILL: (
        "met an instruction this CPU does not have",
        "install an older release of the runtime, or build it for this CPU; see musgd doctor",
    ),
}


@dataclass(frozen=True)
class Progress:
    """How far the measurement of one artifact is."""

    phase: Phase
    done: int = 0
    total: int = 0
    """0 where nobody knows."""


OnProgress = Callable[[Progress], None]


@dataclass
class Watch:
    """What was seen from outside while the worker ran."""

    power: PowerReading | None = None
    temperature_c: float | None = None
    throttled: bool | None = None


def calibration_images(artifacts: Collection[Artifact]) -> frozenset[str]:
    """Return the images that calibrated any of ``artifacts``, by their path in the data set."""
    return frozenset(
        image
        for artifact in artifacts
        if artifact.calibration is not None
        for image in artifact.calibration.images
    )


def measure(
    folder: Path,
    *,
    settings: BenchSettings,
    host: Host,
    data: str | None = None,
    exclude: Collection[str] = frozenset(),
    meter: PowerMeter | None = None,
    on_progress: OnProgress | None = None,
) -> BenchReport:
    """Measure an artifact's speed, memory, power, heat and accuracy.

    Args:
        folder: Of the artifact.
        settings: Threads (0: every core this process may use), seconds of timing and of warm-up.
        host: This machine.
        data: Data set whose images are timed and scored; its ``test`` split, else its ``val``.
            Without one accuracy is not measured, and noise is timed.
        exclude: Images not to score, by their path in the data set; those that calibrated this
            artifact are always left out.
        meter: Measures the energy of the timed frames.
        on_progress: Called as the work goes on.

    Raises:
        UsageError: The data set is missing or is not the one the artifact was made for.
        UnsupportedError: The artifact's runtime is not installed here.
        MusgdError: The artifact or an image is damaged, or the process died.
    """
    artifact = read_artifact(folder)
    data_set = load(data) if data is not None else None
    split: str | None = None
    images: tuple[Path, ...] = ()
    scored: tuple[Path, ...] = ()
    if data_set is not None:
        require_same_classes(folder, artifact.names, data_set)
        split = data_set.score_split
        images = data_set.images(split)
        left_out = calibration_images([artifact]) | frozenset(exclude)
        scored = tuple(image for image in images if data_set.name_of(image) not in left_out)
    frames = _spread(scored or images, FRAMES)
    threads = settings.threads or usable_cores()
    task = Task(
        folder=str(folder),
        threads=threads,
        duration_s=settings.duration_s,
        warmup_s=settings.warmup_s,
        data=None if data_set is None else str(data_set.path),
        frames=tuple(map(str, frames)),
        scored=tuple(map(str, scored)),
    )
    measured, watch = _run_worker(task, artifact, meter, on_progress or (lambda _: None))
    score = measured.score
    power_w = watch.power.power_w if watch.power else None
    n = len(measured.infer_ms)
    return BenchReport(
        artifact=str(folder),
        artifact_sha256=artifact.sha256,
        parent_sha256=artifact.parent_sha256,
        target=artifact.target,
        gate=artifact.gate.verdict if artifact.gate else None,
        runtime=artifact.runtime,
        runtime_version=measured.runtime_version,
        precision=artifact.precision,
        imgsz=artifact.imgsz,
        host=host,
        data=None if data_set is None else str(data_set.path),
        split=split,
        n_images=len(scored),
        n_excluded=len(images) - len(scored),
        threads=threads,
        n=n,
        warmup=measured.warmup,
        warmup_s=measured.warmup_s,
        steady=measured.steady,
        seconds=measured.seconds,
        n_frames=len(frames),
        latency_ms=latency(measured.infer_ms),
        samples_ms=measured.infer_ms,
        fps=measured.fps,
        fps_end_to_end=measured.fps_end_to_end,
        pre_ms=measured.pre_ms,
        post_ms=measured.post_ms,
        harness_ms=measured.harness_ms,
        peak_memory_mb=measured.peak_memory_mb,
        map50_95=score.map50_95 if score else None,
        map50=score.map50 if score else None,
        ap50_95=score.ap50_95 if score else {},
        recall_small=score.recall_small if score else None,
        n_small=score.n_small if score else 0,
        power_w=power_w,
        energy_per_frame_j=None if power_w is None else power_w * measured.seconds / n,
        power_source=watch.power.source if watch.power else None,
        power_scope=watch.power.scope if watch.power else None,
        power_kind=watch.power.kind if watch.power else None,
        temperature_c=watch.temperature_c,
        throttled=watch.throttled,
        load_ms=measured.load_ms,
        first_inference_ms=measured.first_inference_ms,
        engine=measured.engine,
        versions={
            "musgd": __version__,
            artifact.runtime: measured.runtime_version,
            **measured.versions,
        },
    )


def _spread(images: tuple[Path, ...], n: int) -> tuple[Path, ...]:
    n = min(n, len(images))
    return tuple(images[i * len(images) // n] for i in range(n))


# ------------------------------------------------------------------------------ the worker process


def _environment(threads: int) -> dict[str, str]:
    environment = dict(os.environ)
    environment.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    # The very musgd that runs here, installed or not.
    here = str(Path(__file__).parents[2])
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = f"{here}{os.pathsep}{path}" if path else here
    return environment


def _run_worker(
    task: Task, artifact: Artifact, meter: PowerMeter | None, on_progress: OnProgress
) -> tuple[Measurement, Watch]:
    watch = Watch()
    with tempfile.TemporaryFile() as errors:
        worker = subprocess.Popen(
            # -P: files in the current folder must not pass for modules.
            [sys.executable, "-P", "-m", "musgd_cli.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=_environment(task.threads),
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        try:
            with _heat(watch):
                last = _converse(worker, task, meter, watch, on_progress)
            code = worker.wait()
        finally:
            worker.kill()
            worker.communicate()
        if last.measurement is not None:
            return last.measurement, watch
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip()
    if last.failure is not None:
        raise _foreseen(last.failure)
    if code < 0:
        raise _died(signal.Signals(-code), task, artifact, said)
    # What nobody foresaw keeps its traceback.
    raise RuntimeError(f"the worker that measured {task.folder} failed:\n{said}")


def _converse(
    worker: subprocess.Popen[str],
    task: Task,
    meter: PowerMeter | None,
    watch: Watch,
    on_progress: OnProgress,
) -> Event:
    """Talk with the worker until it falls silent, and return the last it said."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    event = Event(kind="progress", phase="load")
    with ExitStack() as window:
        try:
            _tell(worker, task.model_dump_json())
            for line in worker.stdout:
                event = Event.model_validate_json(line)
                if event.kind == "progress" and event.phase is not None:
                    on_progress(Progress(event.phase, event.done, event.total))
                elif event.kind == "ready":
                    on_progress(Progress("timing"))
                    if meter is not None:
                        meter.begin()
                        window.callback(meter.end)
                    _tell(worker, "go")
                elif event.kind == "timed" and meter is not None:
                    window.pop_all()
                    watch.power = meter.end()
        except BrokenPipeError:
            pass  # it died; its exit code says of what
    return event


def _tell(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def _foreseen(failure: Failure) -> MusgdError:
    kinds = {ExitCode.USAGE: UsageError, ExitCode.UNSUPPORTED: UnsupportedError}
    code = ExitCode(failure.exit_code)
    return kinds.get(code, MusgdError)(failure.what, failure.mend, code)


def _died(how: signal.Signals, task: Task, artifact: Artifact, said: str) -> MusgdError:
    what, mend = _DEATHS.get(
        how, (f"crashed in {artifact.runtime}", "musgd export makes the model again")
    )
    last_words = f": {said.splitlines()[-1]}" if said else ""
    return MusgdError(
        f"the process that measured {task.folder} {what} ({how.name}){last_words}", mend
    )


@contextmanager
def _heat(watch: Watch) -> Iterator[None]:
    """Note the highest temperature and any throttling while the block runs."""
    over = threading.Event()

    def look() -> None:
        while True:
            degrees = thermal.temperature_c()
            if degrees is not None:
                watch.temperature_c = max(degrees, watch.temperature_c or degrees)
            held_back = thermal.throttled()
            if held_back is not None:
                watch.throttled = held_back or bool(watch.throttled)
            if over.wait(1 / HEAT_HZ):
                return

    thread = threading.Thread(target=look, name="heat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
