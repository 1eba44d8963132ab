"""What a frame costs around the engine: ``python benchmarks/pipeline.py ARTIFACT IMAGES``.

Our loop and Ultralytics' ``predict`` take turns on the same images. Both run one and the same
engine object, put in the place of Ultralytics' own, so that threads and precision cannot differ;
a frame's time less that engine's is what the loop around it takes. Each frame is paired with the
other loop's, taken right after it or right before it, in turns, on the same image: the second of a
pair finds the image in the cache. Shown are medians in milliseconds, the median
ratio of the pairs, and how far the boxes of the two lie apart.

``predict`` is called once a frame, as a camera loop would; "their stages" is what it says itself of
pre- and postprocessing. At the end the bench's own loop runs with no model at all: what its frames
take beside letterbox and decode is the harness. Needs ``musgd-cli[train]`` and the artifact's
runtime. Exits with 4 where a limit is passed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from musgd_cli.bench import clock
from musgd_cli.data.images import SUFFIXES, read_image
from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.records import Artifact
from musgd_cli.runs import read_artifact
from musgd_cli.runtime import open_engine
from musgd_cli.runtime.detector import Detector
from musgd_cli.runtime.engine import Engine
from musgd_cli.runtime.null import NullEngine
from musgd_cli.train import sandbox

WARMUP = 10
AROUND_LIMIT, FRAME_LIMIT = 0.5, 0.9
HARNESS_LIMIT_MS = 0.15
HARNESS_S = 2.0


class Stopwatch:
    """An engine that notes how long it took."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.last_ms = 0.0

    def infer(self, x: np.ndarray) -> np.ndarray:
        """Run the model."""
        begin = time.perf_counter_ns()
        output = self._engine.infer(x)
        self.last_ms = (time.perf_counter_ns() - begin) / 1e6
        return output


@dataclass
class Loop:
    """One contender's milliseconds, a value a frame."""

    frame: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Of the whole frame, of all threads: what other programs take is not in it."""
    around: list[float] = field(default_factory=list)
    stages: list[float] = field(default_factory=list)


def their_predict(engine: Stopwatch, onnx: Path, imgsz: int, conf: float) -> Any:
    """Return Ultralytics' ``predict`` with our engine in the place of its own."""
    sandbox.prepare()
    from ultralytics import YOLO

    model = YOLO(onnx, task="detect")
    model.predict(np.zeros((imgsz, imgsz, 3), np.uint8), imgsz=imgsz, conf=conf)
    model.predictor.model.backend.forward = lambda x: [engine.infer(x.numpy())]
    return lambda image: model.predict(image, imgsz=imgsz, conf=conf)[0]


def timed(call: Any, image: np.ndarray) -> tuple[Any, float, float]:
    """Return a call's result and the milliseconds it took, of the clock and of the CPU."""
    cpu, begin = time.process_time_ns(), time.perf_counter_ns()
    result = call(image)
    end, cpu_end = time.perf_counter_ns(), time.process_time_ns()
    return result, (end - begin) / 1e6, (cpu_end - cpu) / 1e6


def measure(folder: Path, images: list[np.ndarray], threads: int, frames: int) -> int:
    """Run both loops and print what they took; return the exit code."""
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    artifact = read_artifact(folder)
    parent = folder.parent / f"{artifact.target}-onnxruntime-fp32-{artifact.imgsz}" / "model.onnx"
    engine = Stopwatch(open_engine(folder, artifact, threads))
    detector = Detector(engine, artifact)  # type: ignore[arg-type]
    predict = their_predict(engine, parent, artifact.imgsz, conf=0.25)
    ours, theirs, apart = Loop(), Loop(), 0.0
    for i in range(WARMUP + frames):
        image = images[i % len(images)]
        contenders = [(ours, detector.detect), (theirs, predict)]
        results = {}
        for loop, call in contenders if i % 2 else reversed(contenders):
            answer, frame_ms, cpu_ms = timed(call, image)
            results[call] = answer
            if i >= WARMUP:
                loop.frame.append(frame_ms)
                loop.cpu.append(cpu_ms)
                loop.around.append(frame_ms - engine.last_ms)
        if i < WARMUP:
            continue
        found, result = (results[call] for _, call in contenders)
        theirs.stages.append(result.speed["preprocess"] + result.speed["postprocess"])
        expected = result.boxes.data.numpy()
        if found.shape != expected.shape:
            raise MusgdError(f"{len(found)} boxes for {len(expected)}", "see tests/runtime")
        apart = max(apart, float(np.abs(found - expected).max(initial=0)))

    def row(name: str, us: list[float], them: list[float]) -> float:
        ratio = statistics.median(a / b for a, b in zip(us, them, strict=True))
        print(
            f"{name:<20}{statistics.median(us):>8.3f}{statistics.median(them):>13.3f}{ratio:>8.2f}"
        )
        return ratio

    print(f"{folder.name}, {frames} frames, {threads} threads; boxes at most {apart:.4f} apart")
    print(f"{'ms, median':<20}{'ours':>8}{'Ultralytics':>13}{'ratio':>8}")
    around = row("around the engine", ours.around, theirs.around)
    row("their stages alone", ours.around, theirs.stages)
    whole = row("whole frame", ours.frame, theirs.frame)
    row("its CPU time", ours.cpu, theirs.cpu)
    harness, n = harness_ms(artifact, images)
    print(f"{'harness, no model':<20}{harness:>8.3f}   of {n} frames")
    missed = {
        f"around the engine {around:.2f} > {AROUND_LIMIT}": around > AROUND_LIMIT,
        f"whole frame {whole:.2f} > {FRAME_LIMIT}": whole > FRAME_LIMIT,
        f"harness {harness:.3f} ms > {HARNESS_LIMIT_MS}": harness > HARNESS_LIMIT_MS,
    }
    for what in (what for what, is_so in missed.items() if is_so):
        print(f"missed: {what}", file=sys.stderr)
    return 4 if any(missed.values()) else 0


def harness_ms(artifact: Artifact, images: list[np.ndarray]) -> tuple[float, int]:
    """Return the bench's own cost a frame, milliseconds, and of how many frames it is the median.

    That is the null engine's inference, which answers at once, and what the loop itself takes.
    """
    detector = Detector(NullEngine(Path(), artifact, 1), artifact)
    times = clock.FrameLoop(detector, images).run(HARNESS_S)
    return statistics.median(times.infer_ms) + clock.harness_ms(), len(times.infer_ms)


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifact", type=Path, help="its folder; the float parent lies beside it")
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=200)
    arguments = parser.parse_args()
    try:
        if not arguments.images.is_dir():
            raise UsageError(f"{arguments.images} is no folder", "give a folder of images")
        files = sorted(f for f in arguments.images.iterdir() if f.suffix.lower() in SUFFIXES)[:32]
        if not files:
            raise UsageError(f"{arguments.images} holds no image", "give a folder of images")
        images = [read_image(file) for file in files]
        return measure(arguments.artifact, images, arguments.threads, arguments.frames)
    except MusgdError as error:
        print(f"error: {error.what}\nmend: {error.mend}", file=sys.stderr)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
