"""What the bench and its worker process tell each other: one JSON object a line.

The worker reads a :class:`Task` and writes events. After ``ready`` it waits for a line, so that a
power meter's window opens right before the first timed frame::

    progress* ready  (a line comes in)  timed  progress* measured
    … or, at any point, failed
"""

from __future__ import annotations

from typing import Literal

from musgd_cli.records import Frozen

Phase = Literal["load", "warm-up", "timing", "scoring"]


class Task(Frozen):
    """What one worker measures."""

    folder: str
    """Of the artifact."""
    threads: int
    duration_s: float
    warmup_s: float
    data: str | None
    frames: tuple[str, ...]
    """Images that are timed, round and round; without any, one of seeded noise."""
    scored: tuple[str, ...]
    """Images that accuracy is scored on."""


class ScoreMessage(Frozen):
    """Accuracy; see :class:`musgd_cli.bench.accuracy.Score`."""

    map50_95: float | None
    map50: float | None
    recall_small: float | None
    ap50_95: dict[str, float]
    n_small: int


class Measurement(Frozen):
    """What the worker found."""

    load_ms: float
    first_inference_ms: float
    warmup: int
    warmup_s: float
    steady: bool
    infer_ms: tuple[float, ...]
    fps: float
    fps_end_to_end: float
    pre_ms: float
    post_ms: float
    harness_ms: float
    seconds: float
    peak_memory_mb: float | None
    runtime_version: str
    engine: dict[str, str]
    versions: dict[str, str]
    score: ScoreMessage | None


class Failure(Frozen):
    """A failure the worker foresaw."""

    what: str
    mend: str
    exit_code: int


class Event(Frozen):
    """One line from the worker."""

    kind: Literal["progress", "ready", "timed", "measured", "failed"]
    phase: Phase | None = None
    done: int = 0
    total: int = 0
    measurement: Measurement | None = None
    failure: Failure | None = None
