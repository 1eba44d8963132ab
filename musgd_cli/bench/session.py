"""Several models measured in turns, on the same images, each report kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from musgd_cli.bench.images import Choice, Images
from musgd_cli.bench.measurement import Measurement, Shift, device_of, score, shift
from musgd_cli.bench.messages import Accuracy
from musgd_cli.bench.process import Progress
from musgd_cli.bench.selection import parent_of, report_file
from musgd_cli.bench.subject import Subject
from musgd_cli.bench.watch import at_rest
from musgd_cli.board import NANO_AGENT
from musgd_cli.errors import MusgdError, UnsupportedError
from musgd_cli.hardware import detect, usable_cores
from musgd_cli.hardware.power import PowerMeter, best_meter, why_none
from musgd_cli.hardware.thermal import Device
from musgd_cli.records import BenchReport, BenchSettings, Host, PowerReading
from musgd_cli.storage import require_writable, write_record

SUSTAINED_REPEATS = 1

_NANOS = ("jetson-nano", "jetson-nano-2gb")
"""Boards whose last system is JetPack 4.6."""


@dataclass(frozen=True)
class Outcome:
    """What came of one model at one thread count: a report, or an error."""

    subject: Subject
    threads: int
    """0 where an error is of no single count."""
    report: BenchReport | None = None
    kept: Path | None = None
    """Where the report lies; ``None`` where it was not to be kept."""
    error: MusgdError | None = None
    board: str | None = None
    """How the board that measured it is reached; ``None``: this machine."""


OnProgress = Callable[[Subject, Progress], None]
MeterFor = Callable[[Device], PowerMeter | None]


def measure_all(
    subjects: Sequence[Subject],
    *,
    settings: BenchSettings,
    threads: Sequence[int] | None = None,
    data: str | None = None,
    scored: bool = True,
    frames: int | None = None,
    sustained: bool = False,
    meter_for: MeterFor | None = None,
    keep: bool = True,
    on_progress: OnProgress = lambda _subject, _progress: None,
) -> Iterator[Outcome]:
    """Measure models in turns; what ails one does not keep the others from being measured.

    Each repeat of each is a fresh process, and they go round: all models once, then all once more,
    so that a machine that grows slower meets all alike. Accuracy is scored once a model, with every
    core, for it does not depend on the threads. None is scored on an image that calibrated any of
    them: a table compares like with like.

    Args:
        subjects: The models.
        settings: Seconds of timing, repeats, warm-up and rest.
        threads: Thread counts, each model at each; 0 takes every core this process may use.
            Default: that of ``settings``.
        data: Data set; without one, the set that each model's run was trained on, if known.
        scored: Whether to score them too.
        frames: Time so many frames of each, in place of ``settings.duration_s``.
        sustained: One long process each in place of the repeats, to see how speed lasts.
        meter_for: Chooses the power meter for work on a device. Default: the best there is.
        keep: Write each report below its run.
        on_progress: Called with the model as the work goes on.

    Yields:
        One outcome a model and thread count, in their order, once all are measured.

    What nobody foresaw is raised at the end, when the others' reports are kept.

    Raises:
        UsageError: The data set cannot be read.
        MusgdError: Reports cannot be written where they belong.
    """
    if sustained:
        settings = settings.model_copy(update={"repeats": SUSTAINED_REPEATS})
    counts = dict.fromkeys(count or usable_cores() for count in threads or (settings.threads,))
    choice = Choice(subjects, data)
    for subject in subjects if keep else ():
        require_writable(report_file(subject, 0, datetime.now()).parent)
    host = detect()
    meters = _Meters(meter_for or (lambda device: best_meter(device=device)), settings.idle_s)
    jobs: list[_Job] = []
    for subject in subjects:
        meter = meters.of(device_of(subject.artifact.runtime), _bound(on_progress, subject))
        with _Blame() as blame:
            _require_engine(host, subject)
            images = choice.of(subject)
        for count in counts:
            job = _Job(subject, count, error=blame.error, unforeseen=blame.unforeseen)
            jobs.append(job)
            if blame.error is None and blame.unforeseen is None:
                job.measurement = Measurement(
                    subject,
                    images,
                    threads=count,
                    settings=settings,
                    frames=frames,
                    meter=meter,
                    sustained=sustained,
                )
    for _ in range(settings.repeats):
        for job in jobs:
            job.repeat(_bound(on_progress, job.subject))
    scorer = _Scorer(subjects, on_progress) if scored else None
    for job in jobs:
        if job.measurement is None:
            if job.unforeseen is None:
                yield Outcome(job.subject, job.threads, error=job.error)
            continue
        accuracy: Accuracy | str = "not asked for"
        parent: Shift | None = None
        with _Blame() as blame:
            if scorer is not None:
                accuracy = scorer.accuracy(job.subject, job.measurement.images)
                parent = scorer.shift(job.subject, job.measurement.images)
        if blame.error is not None:
            accuracy = blame.error.what
        elif blame.unforeseen is not None:
            accuracy = f"scoring failed: {type(blame.unforeseen).__name__}"
        device = device_of(job.subject.artifact.runtime)
        report = job.measurement.report(
            host,
            idle=meters.at_rest(device),
            accuracy=accuracy,
            parent=parent,
            why_no_power=_why_no_power(device),
        )
        kept = None
        if keep:
            kept = report_file(job.subject, job.threads, datetime.now())
            write_record(kept, report)
        job.unforeseen = blame.unforeseen
        yield Outcome(job.subject, job.threads, report=report, kept=kept, error=blame.error)
    for job in jobs:
        if job.unforeseen is not None:
            raise job.unforeseen


def _require_engine(host: Host, subject: Subject) -> None:
    """Refuse a model of TensorRT where that is JetPack 4's, which only NVIDIA's trtexec drives."""
    old = host.jetpack is not None and host.jetpack.startswith("4.")
    if subject.artifact.runtime == "tensorrt" and (old or host.board in _NANOS):
        folder = shlex.quote(str(subject.folder))
        raise UnsupportedError(
            "musgd has no engine for the TensorRT 8 of JetPack 4, which this board has",
            f"python3 {shlex.quote(NANO_AGENT)} bench {folder}; or, from another machine: "
            f"musgd bench --agent user@board {folder}",
        )


@dataclass
class _Job:
    """One model at one thread count."""

    subject: Subject
    threads: int
    measurement: Measurement | None = None
    """``None`` once something ailed it."""
    error: MusgdError | None = None
    unforeseen: Exception | None = None

    def repeat(self, on_progress: Callable[[Progress], None]) -> None:
        if self.measurement is None:
            return
        with _Blame() as blame:
            self.measurement.repeat(on_progress)
        self.error, self.unforeseen = blame.error, blame.unforeseen
        if self.error is not None or self.unforeseen is not None:
            self.measurement = None


class _Blame:
    """Keeps a failure to one model."""

    error: MusgdError | None = None
    unforeseen: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if isinstance(error, MusgdError):
            self.error = error
        elif isinstance(error, Exception):
            self.unforeseen = error
        return isinstance(error, Exception)


class _Meters:
    """One meter a device, and what it read at rest before any work."""

    def __init__(self, choose: MeterFor, idle_s: float) -> None:
        self._choose = choose
        self._idle_s = idle_s
        self._meters: dict[Device, PowerMeter | None] = {}
        self._idle: dict[Device, PowerReading | None] = {}

    def of(self, device: Device, on_progress: Callable[[Progress], None]) -> PowerMeter | None:
        if device not in self._meters:
            meter = self._meters[device] = self._choose(device)
            if meter is not None and self._idle_s:
                on_progress(Progress("idle"))
                self._idle[device] = at_rest(meter, self._idle_s)
        return self._meters[device]

    def at_rest(self, device: Device) -> PowerReading | None:
        return self._idle.get(device)


class _Scorer:
    """Scores each model once, whatever the threads and however many targets share its file."""

    def __init__(self, subjects: Sequence[Subject], on_progress: OnProgress) -> None:
        self._subjects = subjects
        self._on_progress = on_progress
        self._known: dict[tuple[object, ...], Accuracy | str | MusgdError] = {}

    def accuracy(self, subject: Subject, images: Images) -> Accuracy | str:
        artifact = subject.artifact
        data = images.data_set.path if images.data_set is not None else None
        key = (artifact.sha256, artifact.runtime, artifact.precision, data, images.scored)
        if key not in self._known:
            try:
                self._known[key] = score(
                    subject,
                    images,
                    threads=usable_cores(),
                    on_progress=_bound(self._on_progress, subject),
                )
            except MusgdError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, MusgdError):
            raise known
        return known

    def shift(self, subject: Subject, images: Images) -> Shift | None:
        """Hold a model's scores against its float parent's; ``None`` where that is not at hand."""
        parent = parent_of(subject, self._subjects)
        model = self.accuracy(subject, images)
        if parent is None or isinstance(model, str):
            return None
        with _Blame():  # a parent that does not run here ails its child in this figure alone
            theirs = self.accuracy(parent, images)
            return None if isinstance(theirs, str) else shift(theirs, model)
        return None


def _bound(on_progress: OnProgress, subject: Subject) -> Callable[[Progress], None]:
    return lambda progress: on_progress(subject, progress)


def _why_no_power(device: Device) -> str:
    """Say why no meter measured work on ``device``."""
    unused = best_meter(device=device)
    return why_none(device=device) if unused is None else f"{unused.source} was not to be used"
