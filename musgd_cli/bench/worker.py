"""The process that measures one model: ``python -m musgd_cli.bench.worker``.

It is fresh, so that load time and peak memory are the model's own, and so that a runtime that
crashes takes nothing with it. It never imports torch. See :mod:`musgd_cli.bench.messages` for what
goes in and out.
"""

from __future__ import annotations

import os
import platform
import sys
import time
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

Send = Callable[[Event], None]


def main() -> int:
    """Measure what stdin asks for."""
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
        wait: Blocks until the timing may begin.

    Raises:
        MusgdError: The model or an image is damaged.
        UnsupportedError: A runtime or OpenCV is missing.
    """
    from musgd_cli.bench.clock import FrameLoop, warm_up
    from musgd_cli.data.images import opencv
    from musgd_cli.runtime import check_files, engine_class

    send(Event(kind="progress", phase="load"))
    cv2 = opencv()
    cv2.setNumThreads(task.threads)
    from musgd_cli.runtime.detector import Detector

    folder, artifact = Path(task.folder), task.artifact
    check_files(folder, artifact)
    open_engine = engine_class(artifact.runtime)
    begin = perf_counter_ns()
    engine = open_engine(folder, artifact, task.threads)
    load_ms = (perf_counter_ns() - begin) / 1e6

    loop = FrameLoop(Detector(engine, artifact), _frames(task.frames, artifact.imgsz))
    first_inference_ms = loop.once()
    send(Event(kind="progress", phase="warm-up"))
    warm = warm_up(loop.once, task.warmup_s)
    send(Event(kind="ready"))
    wait()
    began = time.time()
    times = loop.run(task.duration_s, task.least_frames)
    send(Event(kind="timed"))
    peak_memory_mb = _peak_memory_mb()
    engine.close()
    import numpy

    return Timing(
        began=began,
        load_ms=load_ms,
        first_inference_ms=first_inference_ms,
        warmup=warm.n,
        warmup_s=warm.seconds,
        steady=warm.steady,
        pre_ms=_rounded(times.pre_ms),
        infer_ms=_rounded(times.infer_ms),
        post_ms=_rounded(times.post_ms),
        harness_ms=times.harness_ms,
        seconds=times.seconds,
        cpu_s=times.cpu_s,
        pace=times.pace,
        peak_memory_mb=peak_memory_mb,
        runtime_version=engine.version,
        engine=dict(engine.settings),
        versions={
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "opencv": cv2.__version__,
        },
    )


def _rounded(samples_ms: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(sample, DIGITS) for sample in samples_ms)


def _frames(paths: Sequence[str], imgsz: int) -> list[NDArray[np.uint8]]:
    import numpy as np

    from musgd_cli.data.images import read_image

    frames: list[NDArray[np.uint8]] = []
    for path in paths:
        frames.append(read_image(Path(path)))
        if sum(frame.nbytes for frame in frames) > FRAMES_MB * 2**20:
            break
    if not frames:
        noise = np.random.default_rng(0).integers(0, 256, (imgsz, imgsz, 3), np.uint8)
        frames.append(noise)
    return frames


def score(task: ScoringTask, send: Send) -> Accuracy:
    """Run a model over labelled images and score it.

    Raises:
        MusgdError: The model, an image or a label file is damaged.
        UnsupportedError: A runtime or OpenCV is missing.
    """
    from musgd_cli.bench import accuracy
    from musgd_cli.bench.pairs import CONFIDENCE
    from musgd_cli.bench.scoring import detections
    from musgd_cli.data import load
    from musgd_cli.data.images import opencv
    from musgd_cli.runtime import open_engine

    send(Event(kind="progress", phase="load"))
    opencv().setNumThreads(task.threads)
    folder, names = Path(task.folder), task.artifact.names
    engine = open_engine(folder, task.artifact, task.threads)
    matched, boxes = [], []
    images = map(Path, task.images)
    for found, objects in detections(engine, task.artifact, load(task.data), images):
        matched.append(accuracy.match(found, objects))
        boxes.append(tuple(map(tuple, found[found[:, 4] > CONFIDENCE].tolist())))
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
