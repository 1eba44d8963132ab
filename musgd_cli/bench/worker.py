"""The process that measures one artifact: ``python -m musgd_cli.bench.worker``.

It is fresh, so that load time and peak memory are the artifact's own, and so that a runtime that
crashes takes nothing with it. It never imports torch. See :mod:`musgd_cli.bench.messages` for what
goes in and out.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

from musgd_cli.bench.messages import Event, Failure, Measurement, Phase, ScoreMessage, Task
from musgd_cli.errors import MusgdError
from musgd_cli.runs import read_artifact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.records import Artifact
    from musgd_cli.runtime.engine import Engine

FRAMES_MB = 64
"""Frames kept in memory; of large images fewer are timed."""

Send = Callable[[Event], None]


def main() -> int:
    """Measure what stdin asks for."""
    # Runtimes print to stdout as they please; the channel to the bench is not theirs.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(event: Event) -> None:
        channel.write(event.model_dump_json(exclude_defaults=True) + "\n")
        channel.flush()

    task = Task.model_validate_json(sys.stdin.readline())
    try:
        measurement = measure(task, send, wait=sys.stdin.readline)
    except MusgdError as error:
        failure = Failure(what=error.what, mend=error.mend, exit_code=error.exit_code)
        send(Event(kind="failed", failure=failure))
        return int(error.exit_code)
    strangers = {"torch", "torchvision", "ultralytics"} & sys.modules.keys()
    if strangers:
        raise AssertionError(f"the bench's worker imported {', '.join(sorted(strangers))}")
    send(Event(kind="measured", measurement=measurement))
    return 0


def measure(task: Task, send: Send, wait: Callable[[], object]) -> Measurement:
    """Load, warm up, time and score one artifact.

    Args:
        task: What to measure.
        send: Takes an event.
        wait: Blocks until the timing may begin.

    Raises:
        MusgdError: The artifact, an image or a label file is damaged.
        UnsupportedError: A runtime or OpenCV is missing.
    """
    from musgd_cli.bench.clock import FrameLoop, warm_up
    from musgd_cli.data.images import opencv
    from musgd_cli.runtime import check_files, engine_class

    def progress(phase: Phase, done: int = 0, total: int = 0) -> None:
        send(Event(kind="progress", phase=phase, done=done, total=total))

    progress("load")
    folder = Path(task.folder)
    artifact = read_artifact(folder)
    cv2 = opencv()
    cv2.setNumThreads(task.threads)
    from musgd_cli.runtime.detector import Detector

    check_files(folder, artifact)
    open_engine = engine_class(artifact.runtime)
    begin = perf_counter_ns()
    engine = open_engine(folder, artifact, task.threads)
    load_ms = (perf_counter_ns() - begin) / 1e6

    loop = FrameLoop(Detector(engine, artifact), _frames(task.frames, artifact.imgsz))
    first_inference_ms = loop.once()
    progress("warm-up")
    warm = warm_up(loop.once, task.warmup_s)
    send(Event(kind="ready"))
    wait()
    times = loop.run(task.duration_s)
    send(Event(kind="timed"))
    peak_memory_mb = _peak_memory_mb()

    score = None
    if task.data is not None and task.scored:
        progress("scoring", 0, len(task.scored))
        score = _score(
            engine,
            artifact,
            task.data,
            task.scored,
            lambda done: progress("scoring", done, len(task.scored)),
        )
    engine.close()
    import numpy

    return Measurement(
        load_ms=load_ms,
        first_inference_ms=first_inference_ms,
        warmup=warm.n,
        warmup_s=warm.seconds,
        steady=warm.steady,
        infer_ms=tuple(round(sample, 4) for sample in times.infer_ms),
        fps=times.fps,
        fps_end_to_end=times.fps_end_to_end,
        pre_ms=median(times.pre_ms),
        post_ms=median(times.post_ms),
        harness_ms=times.harness_ms,
        seconds=times.seconds,
        peak_memory_mb=peak_memory_mb,
        runtime_version=engine.version,
        engine=dict(engine.settings),
        versions={
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "opencv": cv2.__version__,
        },
        score=score,
    )


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


def _score(
    engine: Engine,
    artifact: Artifact,
    data: str,
    images: Sequence[str],
    on_image: Callable[[int], None],
) -> ScoreMessage:
    from musgd_cli.bench import accuracy
    from musgd_cli.bench.scoring import detections
    from musgd_cli.data import load

    matched = []
    for found, objects in detections(engine, artifact, load(data), map(Path, images)):
        matched.append(accuracy.match(found, objects))
        on_image(len(matched))
    score = accuracy.score(matched)
    return ScoreMessage(
        map50_95=score.map50_95,
        map50=score.map50,
        recall_small=score.recall_small,
        ap50_95={artifact.names[class_id]: ap for class_id, ap in score.ap50_95.items()},
        n_small=score.n_small,
    )


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
