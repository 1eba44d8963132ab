"""The whole way of a frame: from its source through the detector to where people want it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from musgd_cli.errors import ExitCode, MusgdError
from musgd_cli.hardware.cpu import usable_cores
from musgd_cli.predict.drawing import Painter
from musgd_cli.predict.model import SCHEMA
from musgd_cli.predict.output import Output
from musgd_cli.predict.sources import Frame, OnFault, Source, Stop, open_source
from musgd_cli.runtime import open_engine
from musgd_cli.runtime.detector import Detector
from musgd_cli.runtime.engine import Model
from musgd_cli.signals import StopRequest

RATE_S = 1.0
"""Seconds of frames that the rate on screen is about."""

LATELY = 10_000
"""Frames that the median is about; a camera that runs for months must not fill the memory."""


def open_detector(
    folder: Path,
    model: Model,
    *,
    threads: int,
    conf: float,
    iou: float,
    max_det: int,
    on_build: Callable[[], None],
) -> Detector:
    """Load a model.

    Args:
        folder: Where its files lie.
        model: Its record.
        threads: Of the engine and of OpenCV; 0 takes every core this process may use.
        conf: See `musgd_cli.runtime.detector.Detector`, as for ``iou`` and ``max_det``.
        on_build: See `musgd_cli.runtime.prepare`.

    Raises:
        UnsupportedError: Its runtime is not installed, or this machine lacks its precision.
        MusgdError: The model is damaged.
    """
    threads = threads or usable_cores()
    cv2.setNumThreads(threads)
    engine = open_engine(folder, model, threads, on_build)
    return Detector(engine, model, conf=conf, iou=iou, max_det=max_det)


@dataclass(frozen=True)
class Found:
    """One frame, and what is in it."""

    frame: Frame
    boxes: NDArray[np.float32]
    """(n, 6), as `musgd_cli.runtime.detector.Detector.detect` returns them."""
    pre_ms: float
    infer_ms: float
    post_ms: float
    fps: float | None
    """Whole frames a second, lately; ``None`` for the first."""

    def counts(self, names: Sequence[str]) -> str:
        """Return how many of which class there are, in words, most first."""
        counted = Counter(names[int(class_id)] for class_id in self.boxes[:, 5])
        return ", ".join(f"{n} {name}" for name, n in counted.most_common()) or "nothing"

    def status(self, source: Source, names: Sequence[str]) -> str:
        """Return a line about now, for a display that is redrawn."""
        done = f"frame {self.frame.number + 1}"
        parts = [f"{done} of {source.total}" if source.total else done, self.counts(names)]
        if self.fps is not None:
            parts.insert(1, f"{self.fps:.1f} FPS")
        if source.dropped:
            parts.append(f"{source.dropped} dropped")
        return " · ".join(parts)

    def line(self, names: Sequence[str]) -> dict[str, Any]:
        """Return it as a `musgd_cli.records.Prediction`, ready for JSON."""
        height, width = self.frame.image.shape[:2]
        t_s = self.frame.t_s
        return {
            "schema": SCHEMA,
            "source": self.frame.source,
            "frame": self.frame.number,
            "t_s": None if t_s is None else round(t_s, 3),
            "width": width,
            "height": height,
            "boxes": [
                {
                    "name": names[int(class_id)],
                    "class_id": int(class_id),
                    "score": round(score, 4),
                    "x1": round(x1, 2),
                    "y1": round(y1, 2),
                    "x2": round(x2, 2),
                    "y2": round(y2, 2),
                }
                for x1, y1, x2, y2, score, class_id in self.boxes.tolist()
            ],
            "pre_ms": round(self.pre_ms, 3),
            "infer_ms": round(self.infer_ms, 3),
            "post_ms": round(self.post_ms, 3),
        }


@dataclass
class Summary:
    """What became of a source."""

    frames: int = 0
    objects: int = 0
    dropped: int = 0
    unreadable: int = 0
    """Images that were left out."""
    seconds: float = 0.0
    """From the first frame's arrival to the last one's end."""
    saved: Path | None = None
    """The clip, or the folder of pictures."""
    stopped: bool = False
    """It was asked to."""
    error: MusgdError | None = None
    """What ended it early; what was written until then stays."""
    _frame_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATELY), repr=False)

    @property
    def fps(self) -> float | None:
        """Frames a second, reading, drawing and saving included; ``None`` of fewer than two."""
        return self.frames / self.seconds if self.frames > 1 and self.seconds else None

    @property
    def p50_ms(self) -> float | None:
        """Median of letterbox, inference and decode of the last `LATELY`; ``None``: no frame."""
        return median(self._frame_ms) if self._frame_ms else None

    @property
    def exit_code(self) -> ExitCode:
        """How a command that did this ends."""
        if self.error is not None:
            return self.error.exit_code
        if self.stopped:
            return ExitCode.INTERRUPTED
        return ExitCode.FAILED if self.unreadable else ExitCode.DONE

    def __str__(self) -> str:
        parts = [_count(self.frames, "frame"), _count(self.objects, "object")]
        if self.fps is not None:
            parts.append(f"{self.fps:.1f} FPS end to end")
        if self.p50_ms is not None:
            lately = f", of the last {LATELY}" if self.frames > LATELY else ""
            parts.append(f"p50 {self.p50_ms:.2f} ms a frame in the detector{lately}")
        if self.dropped:
            parts.append(f"{_count(self.dropped, 'frame')} dropped to keep up")
        if self.unreadable:
            parts.append(f"{_count(self.unreadable, 'image')} unreadable")
        return " · ".join(parts)


def _count(n: int, what: str) -> str:
    return f"1 {what}" if n == 1 else f"{n} {what}s"


def run(
    detector: Detector,
    source: Source,
    names: Sequence[str],
    output: Output | None,
    *,
    on_frame: Callable[[Found], None],
    on_fault: OnFault,
    stop: Stop,
) -> Summary:
    """Take a source to its end, or until asked to stop.

    Whatever ends it, a clip is finished and what was found is in the summary.

    Args:
        detector: Runs the model.
        source: Is closed at the end.
        names: The classes.
        output: Takes annotated frames; ``None``: nobody draws.
        on_frame: Called with each frame's boxes.
        on_fault: Called with an image that cannot be read, if others follow.
        stop: Asked before each frame.

    Returns:
        What was done. The error that ended it early is in there, not raised.
    """
    painter = Painter(names)
    summary = Summary()
    ends: deque[float] = deque()
    begin: float | None = None

    def skip(error: MusgdError) -> None:
        summary.unreadable += 1
        on_fault(error)

    try:
        for frame in source.frames(skip, stop):
            t0 = perf_counter()
            begin = t0 if begin is None else begin
            x = detector.prepare(frame.image)
            t1 = perf_counter()
            answer = detector.infer(x)
            t2 = perf_counter()
            boxes = detector.decode(answer)
            t3 = perf_counter()
            pre_ms, infer_ms, post_ms = (1000 * s for s in (t1 - t0, t2 - t1, t3 - t2))
            summary.frames += 1
            summary.objects += len(boxes)
            summary.dropped = source.dropped
            summary._frame_ms.append(pre_ms + infer_ms + post_ms)
            fps = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else None
            if output is not None:
                shown = fps if frame.t_s is not None else None
                output.add(frame, painter.picture(frame.image, boxes, shown))
            on_frame(Found(frame, boxes, pre_ms, infer_ms, post_ms, fps))
            ends.append(perf_counter())
            while ends[-1] - ends[0] > RATE_S and len(ends) > 2:
                ends.popleft()
            summary.seconds = ends[-1] - begin
    except MusgdError as error:
        summary.error = error
    finally:
        summary.stopped = stop()
        summary.dropped = source.dropped
        try:
            source.close()
        finally:
            if output is not None:
                _finish(output, source, summary)
    return summary


def _finish(output: Output, source: Source, summary: Summary) -> None:
    try:
        output.close()
    except MusgdError as error:
        summary.error = summary.error or error
    summary.saved = output.saved and (
        output.folder if source.fps is None and summary.frames > 1 else output.saved
    )


@dataclass(frozen=True)
class Job:
    """What a person asked for."""

    source: str
    """See `musgd_cli.predict.sources.open_source`."""
    save: bool
    """Draw what is found, and keep it."""
    out: Path | None
    """The folder for it; ``None``: a new one in ``place``, named after the source."""
    place: Path
    threads: int
    conf: float
    iou: float
    max_det: int


class Speaker(Protocol):
    """Who tells people and scripts what happens."""

    @property
    def as_json(self) -> bool:
        """Each frame's result is wanted by a script, and nothing else on stdout."""
        ...

    def emit_line(self, record: Mapping[str, Any]) -> None:
        """Print a frame's result for scripts, if `as_json`."""
        ...

    def show_line(self, text: str) -> None:
        """Print a result for people, unless `as_json`."""
        ...

    def say(self, text: str) -> None:
        """Tell how the work goes, unless nobody wants to know."""
        ...

    def complain(self, error: MusgdError) -> None:
        """Tell of what does not end the work."""
        ...

    def live_line(self) -> AbstractContextManager[Callable[[str], None] | None]:
        """Show a line that is redrawn in place; ``None`` where no person watches."""
        ...


def predict(folder: Path, model: Model, called: str, job: Job, speaker: Speaker) -> ExitCode:
    """Find what a person asked for, and tell it.

    Args:
        folder: Where the model's files lie.
        model: Its record.
        called: What people call it by.
        job: What to do.
        speaker: Who tells it.

    Returns:
        How the command ends.

    Raises:
        MusgdError: See `open_source`, `open_detector` and `Output`; or what ended it early. A clip
            is finished, and what was found is told.
    """
    source = open_source(job.source)
    pictures = source.fps is None
    output = None
    if job.save:
        output = Output(job.out or job.place / source.stem, source, anew=job.out is None)
    detector = open_detector(
        folder,
        model,
        threads=job.threads,
        conf=job.conf,
        iou=job.iou,
        max_det=job.max_det,
        on_build=lambda: speaker.say("building an engine for this machine, once: it takes minutes"),
    )
    speaker.say(f"{source.name} through {called}")
    line = nullcontext() if pictures else speaker.live_line()
    with StopRequest(lambda: speaker.say("stopping")) as stop, line as redraw:

        def show(found: Found) -> None:
            if speaker.as_json:
                speaker.emit_line(found.line(model.names))
            elif pictures:
                speaker.show_line(f"{found.frame.source}: {found.counts(model.names)}")
            if redraw is not None:
                redraw(found.status(source, model.names))

        summary = run(
            detector,
            source,
            model.names,
            output,
            on_frame=show,
            on_fault=speaker.complain,
            stop=stop,
        )
    if summary.frames:
        (speaker.say if speaker.as_json else speaker.show_line)(str(summary))
    if summary.saved is not None:
        speaker.say(f"saved {summary.saved}")
    if summary.error is not None:
        raise summary.error
    return summary.exit_code
