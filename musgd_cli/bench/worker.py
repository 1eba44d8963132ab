"""The process that measures one model: ``python -m musgd_cli.bench.worker``.

It is fresh, so that load time and peak memory are the model's own, and so that a runtime that
crashes takes nothing with it. It never imports torch. See :mod:`musgd_cli.bench.messages` for what
goes in and out.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from musgd_cli.bench.messages import (
    Accuracy,
    Event,
    Failure,
    Recall,
    ScoringTask,
    Timing,
    TimingTask,
)
from musgd_cli.errors import MusgdError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.bench.accuracy import SizeRecall

FRAMES_MB = 64
"""Frames kept in memory; of large images fewer are timed."""

DIGITS = 4
"""Of a millisecond: a tenth of a microsecond is below what the clock tells."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Send = Callable[[Event], None]


def _die_with_the_bench() -> None:
    """Have Linux kill this process when its parent ends, however that ends: nobody would stop it.

    Where there is no ``prctl`` it goes on to its end.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Measure what stdin asks for."""
    _die_with_the_bench()
    # Runtimes print to stdout as they please; the channel to the bench is not theirs.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(event: Event) -> None:
        channel.write(event.model_dump_json(exclude_defaults=True) + "\n")
        channel.flush()

    tasks: TypeAdapter[TimingTask | ScoringTask] = TypeAdapter(TimingTask | ScoringTask)
    # A record that a newer musgd wrote has been read and warned of already; its fields are kept.
    task = tasks.validate_json(sys.stdin.readline(), context={"written_by_newer": True})
    result: Timing | Accuracy
    try:
        if isinstance(task, TimingTask):
            result = time_frames(task, send, wait=sys.stdin.readline)
        else:
            result = score(task, send)
    except MusgdError as error:
        failure = Failure(what=error.what, mend=error.mend, exit_code=error.exit_code)
        send(Event(kind="failed", failure=failure))
        return int(error.exit_code)
    strangers = {"torch", "torchvision", "ultralytics"} & sys.modules.keys()
    if strangers:
        raise AssertionError(f"the bench's worker imported {', '.join(sorted(strangers))}")
    send(Event(kind="done", result=result))
    return 0


def time_frames(task: TimingTask, send: Send, wait: Callable[[], object]) -> Timing:
    """Load, warm up and time a model.

    Args:
        task: What to measure.
        send: Takes an event.
        wait: Blocks until the timing may begin; says nothing where nobody waits for it any more.

    Raises:
        MusgdError: The model or an image is damaged.
        UnsupportedError: A runtime or OpenCV is missing.
    """
    from musgd_cli.bench.clock import NO_WARM_UP, FrameLoop, harness_ms, warm_up
    from musgd_cli.data.images import opencv
    from musgd_cli.runtime import check_files, engine_class, prepare

    send(Event(kind="progress", phase="load"))
    cv2 = opencv()
    cv2.setNumThreads(task.threads)
    from musgd_cli.runtime.detector import Detector

    folder, artifact = Path(task.folder), task.artifact
    check_files(folder, artifact)
    prepare(folder, artifact, _teller_of_builds(send))
    open_engine = engine_class(artifact.runtime)
    begin = perf_counter_ns()
    engine = open_engine(folder, artifact, task.threads)
    load_ms = (perf_counter_ns() - begin) / 1e6

    frames = _frames(task.frames)
    loop = FrameLoop(Detector(engine, artifact), frames or [_noise(artifact.imgsz)])
    first_inference_ms = loop.once()
    send(Event(kind="progress", phase="warm-up"))
    warm = NO_WARM_UP if task.warmup_s is None else warm_up(loop.once, task.warmup_s)
    memory: list[float | None] = []

    def begin_timing() -> None:
        send(Event(kind="ready"))
        if not wait():  # the bench is gone
            raise SystemExit(1)

    def end_timing() -> None:
        send(Event(kind="timed"))
        memory.append(_peak_memory_mb())

    times = loop.run(task.duration_s, task.least_frames, on_begin=begin_timing, on_end=end_timing)
    engine.close()
    import numpy

    return Timing(
        began=times.began,
        load_ms=load_ms,
        first_inference_ms=first_inference_ms,
        warmup=warm.n,
        warmup_s=warm.seconds,
        steady=warm.steady,
        pre_ms=_rounded(times.pre_ms),
        infer_ms=_rounded(times.infer_ms),
        post_ms=_rounded(times.post_ms),
        n_frames=len(frames),
        harness_ms=harness_ms(),
        seconds=times.seconds,
        cpu_s=times.cpu_s,
        pace=times.pace,
        peak_memory_mb=memory[0],
        runtime_version=engine.version,
        engine=dict(engine.settings),
        versions={
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "opencv": cv2.__version__,
        },
    )


def _teller_of_builds(send: Send) -> Callable[[], None]:
    return lambda: send(Event(kind="progress", phase="build"))


def _rounded(samples_ms: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(sample, DIGITS) for sample in samples_ms)


def _frames(paths: Sequence[str]) -> list[NDArray[np.uint8]]:
    from musgd_cli.data.images import read_image

    frames: list[NDArray[np.uint8]] = []
    for path in paths:
        frames.append(read_image(Path(path)))
        if sum(frame.nbytes for frame in frames) > FRAMES_MB * 2**20:
            break
    return frames


def _noise(imgsz: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (imgsz, imgsz, 3), np.uint8)


def score(task: ScoringTask, send: Send) -> Accuracy:
    """Run a model over labelled images and score it.

    Raises:
        MusgdError: The model, an image or a label file is damaged.
        UnsupportedError: A runtime or OpenCV is missing.
    """
    import numpy as np

    from musgd_cli.bench import accuracy
    from musgd_cli.bench.pairs import CONFIDENCE
    from musgd_cli.bench.scoring import detections
    from musgd_cli.data import load
    from musgd_cli.data.images import opencv
    from musgd_cli.runtime import open_engine

    send(Event(kind="progress", phase="load"))
    opencv().setNumThreads(task.threads)
    folder, names = Path(task.folder), task.artifact.names
    engine = open_engine(folder, task.artifact, task.threads, _teller_of_builds(send))
    matched, boxes = [], []
    images = map(Path, task.images)
    for found, objects in detections(engine, task.artifact, load(task.data), images):
        matched.append(accuracy.match(found, objects))
        shown = (found[:, 4] > CONFIDENCE) & np.isfinite(found).all(axis=1)
        boxes.append(tuple(map(tuple, found[shown].tolist())))
        progress = Event(kind="progress", phase="scoring", done=len(boxes), total=len(task.images))
        send(progress)
    engine.close()
    result = accuracy.score(matched)
    return Accuracy(
        map50_95=result.map50_95,
        map50=result.map50,
        small=_recall(result.small),
        medium=_recall(result.medium),
        large=_recall(result.large),
        ap50_95={names[class_id]: ap for class_id, ap in result.ap50_95.items()},
        ap50={names[class_id]: ap for class_id, ap in result.ap50.items()},
        boxes=tuple(boxes),
    )


def _recall(size: SizeRecall) -> Recall:
    return Recall(n=size.n, share=size.share)


def _peak_memory_mb() -> float | None:
    """Return the most resident memory this process ever had; ``None`` where Linux does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kb = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return None if kb is None else kb / 1024


if __name__ == "__main__":
    sys.exit(main())
