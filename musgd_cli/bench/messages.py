"""What the bench and its worker process tell each other: one JSON object a line.

The worker reads one task and writes events. A timing waits for a line after ``ready``, so that a
power meter's window opens right before the first timed frame::

    timing:   progress* ready  (a line comes in)  timed  done
    scoring:  progress* done
    … or, at any point, failed
"""

from __future__ import annotations

from typing import Literal

from musgd_cli.records import Artifact, Frozen

Phase = Literal["idle", "build", "load", "warm-up", "timing", "scoring"]


class TimingTask(Frozen):
    """One repeat: load, warm up, time."""

    kind: Literal["timing"] = "timing"
    folder: str
    """Of the model's files."""
    artifact: Artifact
    threads: int
    duration_s: float
    least_frames: int
    """Timed however long they take."""
    warmup_s: float | None
    """At least; ``None``: no warm-up."""
    frames: tuple[str, ...]
    """Images that are timed, round and round; without any, one of seeded noise."""


class ScoringTask(Frozen):
    """Run a model over labelled images."""

    kind: Literal["scoring"] = "scoring"
    folder: str
    artifact: Artifact
    threads: int
    data: str
    images: tuple[str, ...]


class Timing(Frozen):
    """What a repeat found."""

    kind: Literal["timing"] = "timing"
    began: float
    """Of the first timed frame, seconds since 1970 UTC."""
    load_ms: float
    first_inference_ms: float
    warmup: int
    warmup_s: float
    steady: bool
    pre_ms: tuple[float, ...]
    infer_ms: tuple[float, ...]
    post_ms: tuple[float, ...]
    n_frames: int
    """Different images timed; 0: noise."""
    harness_ms: float
    seconds: float
    cpu_s: float
    pace: tuple[tuple[float, float], ...]
    """See :class:`musgd_cli.bench.clock.Times`."""
    peak_memory_mb: float | None
    runtime_version: str
    engine: dict[str, str]
    versions: dict[str, str]


class Recall(Frozen):
    """See :class:`musgd_cli.bench.accuracy.SizeRecall`."""

    n: int
    share: float | None


class Accuracy(Frozen):
    """What a scoring found; see :class:`musgd_cli.bench.accuracy.Score`."""

    kind: Literal["scoring"] = "scoring"
    map50_95: float | None
    map50: float | None
    small: Recall
    medium: Recall
    large: Recall
    ap50_95: dict[str, float]
    ap50: dict[str, float]
    boxes: tuple[tuple[tuple[float, ...], ...], ...]
    """By image: x1, y1, x2, y2, score, class of those that a detector shows; best first."""


class Failure(Frozen):
    """A failure the worker foresaw."""

    what: str
    mend: str
    exit_code: int


class Event(Frozen):
    """One line from the worker."""

    kind: Literal["progress", "ready", "timed", "done", "failed"]
    phase: Phase | None = None
    done: int = 0
    total: int = 0
    result: Timing | Accuracy | None = None
    failure: Failure | None = None
