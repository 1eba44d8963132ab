"""Which of the artifacts present meets a goal on this machine, and what shows it.

The ends of each family's range of sizes are probed, a roofline predicts what lies between, and what
comes near the goal is measured in full. A frame is a whole one: letterbox, inference and decode.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from musgd_cli.bench.figures import frames_a_second
from musgd_cli.bench.interval import is_stable, prediction_interval
from musgd_cli.bench.measurement import device_of
from musgd_cli.bench.roofline import Line
from musgd_cli.bench.search import Trial, best, by_preference, step_larger, to_measure
from musgd_cli.bench.selection import data_of, parent_of
from musgd_cli.bench.session import MeterFor, OnProgress, Outcome, measure_all
from musgd_cli.bench.subject import Subject
from musgd_cli.data import load
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware import detect, usable_cores
from musgd_cli.hardware.power import PowerMeter, best_meter, scope_in_words, why_none
from musgd_cli.hardware.thermal import Device
from musgd_cli.records import BenchReport, BenchSettings, Fit, FitCandidate, Gate, Roofline

PROBE_S = 1.0
"""Most seconds of timing, and of the shortest warm-up, in one process: a probe need only tell near
from far."""

AGAIN = 2
"""Times as long an unstable candidate is measured once more, where its interval holds the goal."""

PRECISIONS = ("int8", "mixed-int8", "bf16", "fp16", "fp32")
"""From the least to the most accurate, where nothing better is known."""

AccuracyBy = Literal["gate", "score", "size"]
OnStage = Callable[[str], None]
OnFailure = Callable[[MusgdError], None]


@dataclass(frozen=True)
class Goal:
    """What is asked of an artifact."""

    fps: float
    """Whole frames a second, at least."""
    watts: float | None = None
    """Mean power at most, while it runs as fast as it can: at ``fps`` it would draw less."""
    max_drop: float | None = None
    """Of the float parent's mAP50-95, at most."""


def thread_counts(cores: int) -> tuple[int, ...]:
    """Return the thread counts worth trying: the powers of two below ``cores``, and ``cores``."""
    return (*(1 << i for i in range(cores.bit_length()) if 1 << i < cores), cores)


def fit(
    subjects: Sequence[Subject],
    goal: Goal,
    *,
    settings: BenchSettings,
    threads: Sequence[int] | None = None,
    data: str | None = None,
    meter_for: MeterFor | None = None,
    on_progress: OnProgress = lambda _subject, _progress: None,
    on_stage: OnStage = lambda _text: None,
    on_failure: OnFailure = lambda _error: None,
) -> Fit:
    """Find the most accurate artifact that meets a goal, and the fewest threads that do.

    Args:
        subjects: The artifacts.
        goal: What is asked.
        settings: Of the full measurements; no power is read at rest, as none of it is asked about.
        threads: Thread counts to try. Default: :func:`thread_counts` of this machine.
        data: Data set whose images are timed and that accuracy is judged on. Without one: that of
            each artifact's run, and of the gates.
        meter_for: Chooses the power meter for work on a device. Default: the best there is.
        on_progress: Called with the artifact as the work goes on.
        on_stage: Called with a sentence as each stage begins.
        on_failure: Called with what ails a model, at each thread count; the others are looked at.

    Raises:
        UsageError: The goal is none, a data set cannot be read, or ``meter_for`` knows no such
            meter.
        UnsupportedError: Watts are asked for where nothing measures them, the machine is emulated,
            or no artifact's runtime is installed here.
        MusgdError: Not one artifact could be measured.
    """
    _require_sense(goal)
    host = detect()
    if host.emulated:
        raise UnsupportedError(
            "this machine is emulated: its speed says nothing of the board's",
            "run musgd fit on the board itself",
        )
    choose = meter_for or (lambda device: best_meter(device=device))
    meters = {device: choose(device) for device in _devices(subjects)}
    power_by = None if goal.watts is None else _require_meters(meters)
    bench = _Bench(
        settings=settings.model_copy(update={"idle_s": 0.0}),
        threads=tuple(dict.fromkeys(count or usable_cores() for count in threads or ()))
        or thread_counts(usable_cores()),
        data=data,
        meter_for=meters.__getitem__,
        on_progress=on_progress,
        on_stage=on_stage,
        on_failure=on_failure,
    )
    models = [_Model(subject) for subject in _each_file_once(subjects)]
    accuracy_by = _know_accuracy(models, bench)
    _leave_out(models, goal)
    candidates, rooflines = _predict(models, bench, accuracy_by)
    candidates = _measure_near(candidates, goal, bench)
    _require_any(candidates, models)
    chosen = best(candidates, goal.fps)
    assert chosen is None or chosen.report is not None
    larger = None if chosen is None else step_larger(candidates, chosen)
    nearest = _nearest(candidates, goal) if chosen is None else None
    return Fit(
        host=host,
        fps=goal.fps,
        watts=goal.watts,
        max_drop=goal.max_drop,
        power_by=power_by,
        data=data,
        accuracy_by=accuracy_by,
        chosen=None if chosen is None else chosen.record(),
        nearest=None if nearest is None else nearest.record(),
        step_larger=None if larger is None else larger.record(),
        candidates=(
            *(candidate.record() for candidate in by_preference(candidates)),
            *(left_out for model in models for left_out in model.left_out(bench.threads)),
        ),
        rooflines=rooflines,
        prediction_error=_prediction_error(candidates),
        settings=bench.settings,
    )


def _require_sense(goal: Goal) -> None:
    for option, value in (("--fps", goal.fps), ("--watts", goal.watts)):
        if value is not None and not value > 0:
            raise UsageError(f"{option} {value:g} is no goal", f"give {option} a number above 0")
    if goal.max_drop is not None and not 0 <= goal.max_drop < 1:
        raise UsageError(
            f"--max-drop {goal.max_drop:g} is no share of mAP50-95", "such as --max-drop 0.02"
        )


def _devices(subjects: Iterable[Subject]) -> list[Device]:
    return sorted({device_of(subject.artifact.runtime) for subject in subjects})


def _require_meters(meters: Mapping[Device, PowerMeter | None]) -> str:
    """Return what measures power, or refuse: an estimate passes no limit."""
    told: list[str] = []
    for device, meter in meters.items():
        if meter is None or meter.kind == "estimated":
            why = why_none(device=device) if meter is None else "an estimate passes no limit"
            raise UnsupportedError(
                f"--watts needs a power meter: {why}",
                "leave --watts out, or give --meter FILE.csv of a meter of your own",
            )
        told.append(f"{meter.kind} by {meter.source}, {scope_in_words(meter.scope)}")
    return "; ".join(told)


def _each_file_once(subjects: Iterable[Subject]) -> list[Subject]:
    """Leave out copies: the float parents of several targets are often the same file."""
    first: dict[Hashable, Subject] = {}
    for subject in subjects:
        artifact = subject.artifact
        key = artifact.sha256, artifact.runtime, artifact.precision, artifact.imgsz
        first.setdefault(key, subject)
    return list(first.values())


# ------------------------------------------------------------------------- models and candidates


@dataclass(eq=False)
class _Model:
    """One artifact, and what is known of it."""

    subject: Subject
    map50_95: float | None = None
    drop: float | None = None
    why: str | None = None
    """Why it was left out altogether."""
    failures: dict[int, MusgdError] = field(default_factory=dict)
    """Thread count to what went wrong with it."""
    probes: dict[int, float] = field(default_factory=dict)
    """Thread count to milliseconds of a whole frame."""

    @property
    def family(self) -> Hashable:
        """The same model, built in the same way, at other image sizes has the same."""
        artifact = self.subject.artifact
        if self.subject.made_by is not None:
            return self.subject.path  # what it has in common with others nobody says
        return (
            self.subject.folder.absolute().parent,
            artifact.target,
            artifact.runtime,
            artifact.precision,
            artifact.nms_free,
        )

    @property
    def imgsz(self) -> int:
        return self.subject.artifact.imgsz

    def describe(self, threads: int) -> FitCandidate:
        artifact = self.subject.artifact
        return FitCandidate(
            artifact=str(self.subject.path),
            artifact_sha256=artifact.sha256,
            target=artifact.target,
            runtime=artifact.runtime,
            precision=artifact.precision,
            imgsz=artifact.imgsz,
            threads=threads,
            map50_95=self.map50_95,
            map50_95_drop=self.drop,
            predicted_fps=None,
            predicted_by=None,
        )

    def left_out(self, threads: Sequence[int]) -> Iterator[FitCandidate]:
        if self.why is not None:
            yield self.describe(max(threads)).model_copy(update={"why": self.why})
            return
        for count, error in self.failures.items():
            yield self.describe(count).model_copy(update={"why": error.what})


@dataclass(eq=False, kw_only=True)
class _Candidate(Trial):
    """A trial of a model, and what was found."""

    model: _Model
    predicted_by: Literal["roofline", "probe"]
    report: BenchReport | None = None
    kept: Path | None = None
    why: str | None = None

    def judge(self, outcome: Outcome, goal: Goal) -> None:
        """Hold a full measurement to the goal."""
        assert outcome.report is not None
        self.report, self.kept = outcome.report, outcome.kept
        misses = list(_misses(self.report, goal))
        self.meets, self.why = not misses, "; ".join(misses) or None

    def record(self) -> FitCandidate:
        known: dict[str, object] = {
            "predicted_fps": self.predicted_fps,
            "predicted_by": self.predicted_by,
        }
        if self.report is not None:
            speed = Speed.of(self.report)
            known |= {
                "fps": speed.fps,
                "fps_interval": speed.interval,
                "stable": speed.stable,
                "counted_fps": speed.counted,
                "power_w": self.report.power_w,
                "energy_per_frame_j": self.report.energy_per_frame_j,
                "meets": self.meets,
                "why": self.why,
                "report": None if self.kept is None else str(self.kept),
            }
        return self.model.describe(self.threads).model_copy(update=known)


@dataclass(frozen=True)
class Speed:
    """Whole frames a second of a report, and what of them can be counted on."""

    fps: float
    interval: tuple[float, float] | None
    stable: bool | None
    counted: float

    @classmethod
    def of(cls, report: BenchReport) -> Speed:
        """Read it: the interval's worse end is counted, the lower the less stable it is.

        Of fewer repeats than tell an interval the figure itself is.
        """
        fps, rates = report.frames_a_second, frames_a_second(report)
        interval = prediction_interval(fps, rates)
        stable = None if interval is None else is_stable(fps, interval)
        return cls(fps, interval, stable, fps if interval is None else interval[0])

    def cannot_be_told(self, fps: float) -> bool:
        """Whether it is too unstable to say on which side of a goal it lies."""
        return (
            self.stable is False
            and self.interval is not None
            and self.interval[0] < fps <= self.interval[1]
        )


def _misses(report: BenchReport, goal: Goal) -> Iterable[str]:
    speed = Speed.of(report)
    if speed.counted < goal.fps:
        unstable = ", for it is unstable" if speed.cannot_be_told(goal.fps) else ""
        yield f"{speed.counted:.1f} FPS can be counted on{unstable}, {goal.fps:g} asked for"
    if goal.watts is None:
        return
    if report.power_w is None:
        yield f"no figure of power: {report.power_note or 'the meter gave none'}"
    elif report.power_w > goal.watts:
        yield f"{report.power_w:.2f} W, at most {goal.watts:g} asked for"


# -------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class _Bench:
    """How everything is measured."""

    settings: BenchSettings
    threads: tuple[int, ...]
    data: str | None
    meter_for: MeterFor
    on_progress: OnProgress
    on_stage: OnStage
    on_failure: OnFailure

    def probe(
        self, models: Sequence[_Model], threads: Sequence[int], *, scored: bool = False
    ) -> dict[_Model, BenchReport]:
        """Measure models shortly, and note how long a frame takes, or what kept it from that."""
        short = {
            "duration_s": min(PROBE_S, self.settings.duration_s),
            "warmup_s": min(PROBE_S, self.settings.warmup_s),
            "repeats": 1,
        }
        outcomes = measure_all(
            [model.subject for model in models],
            settings=self.settings.model_copy(update=short),
            threads=threads,
            data=self.data,
            scored=scored,
            meter_for=lambda _device: None,
            keep=False,
            on_progress=self.on_progress,
        )
        of = {id(model.subject): model for model in models}
        reports: dict[_Model, BenchReport] = {}
        for outcome in outcomes:
            model = of[id(outcome.subject)]
            if outcome.report is None:
                self._fail(model, outcome)
            else:
                model.probes[outcome.threads] = 1000 / outcome.report.frames_a_second
                reports[model] = outcome.report
        return reports

    def measure(self, candidates: Sequence[_Candidate], goal: Goal) -> None:
        """Measure candidates in full and hold them to the goal; one may fail.

        What is too unstable to be told from the goal is measured once more, for longer.
        """
        self._measure(candidates, goal)
        unsure = [
            candidate
            for candidate in candidates
            if candidate.report is not None and Speed.of(candidate.report).cannot_be_told(goal.fps)
        ]
        if unsure:
            self.on_stage(f"measuring {_in_words(unsure)} again for longer: not stable enough")
            longer = {"duration_s": AGAIN * self.settings.duration_s}
            replace(self, settings=self.settings.model_copy(update=longer))._measure(unsure, goal)

    def _measure(self, candidates: Sequence[_Candidate], goal: Goal) -> None:
        for threads in sorted({candidate.threads for candidate in candidates}):
            mine = {
                id(candidate.model.subject): candidate
                for candidate in candidates
                if candidate.threads == threads
            }
            outcomes = measure_all(
                [candidate.model.subject for candidate in mine.values()],
                settings=self.settings,
                threads=[threads],
                data=self.data,
                scored=False,
                meter_for=self.meter_for,
                on_progress=self.on_progress,
            )
            for outcome in outcomes:
                candidate = mine[id(outcome.subject)]
                if outcome.report is None:
                    self._fail(candidate.model, outcome)
                else:
                    candidate.judge(outcome, goal)

    def _fail(self, model: _Model, outcome: Outcome) -> None:
        assert outcome.error is not None
        model.failures[outcome.threads] = outcome.error
        self.on_failure(outcome.error)


# --------------------------------------------------------------------------------------- accuracy


def _know_accuracy(models: Sequence[_Model], bench: _Bench) -> AccuracyBy:
    """Note each model's accuracy, all on the same images, or else on none."""
    if _read_gates(models, bench.data):
        return "gate"
    if any((bench.data or data_of(model.subject)) is None for model in models):
        return "size"
    bench.on_stage(f"scoring {len(models)} models: no gate of the export tells all on this data")
    left = list(models)
    for threads in sorted(bench.threads, reverse=True):  # what fails with many may run with fewer
        for model, report in bench.probe(left, [threads], scored=True).items():
            model.map50_95 = report.map50_95
            if report.map50_95 is None:
                model.why = f"it has no score: {report.accuracy_note}"
            left.remove(model)
        if not left:
            break
    _leave_out_failures(models, bench)
    scored = [model.subject for model in models]
    for model in models:
        parent = parent_of(model.subject, scored)
        theirs = next((m.map50_95 for m in models if parent is m.subject), None)
        if model.map50_95 is not None and theirs is not None:
            model.drop = theirs - model.map50_95
        elif _is_parent(model, models):
            model.drop = 0.0
    return "score"


def _is_parent(model: _Model, models: Sequence[_Model]) -> bool:
    sha256 = model.subject.artifact.sha256
    return any(other.subject.artifact.parent_sha256 == sha256 for other in models)


def _read_gates(models: Sequence[_Model], data: str | None) -> bool:
    """Take accuracy from the gates, if all are known and of the same images."""
    gates = [model.subject.artifact.gate for model in models]
    images = {
        (Path(gate.data).resolve(), gate.split, gate.n_images) for gate in gates if gate is not None
    }
    if len(images) != 1:
        return False
    if data is not None:
        data_set = load(data)
        split = data_set.score_split
        # By the path, for any tool's data sets are all called data.yaml.
        if images != {(data_set.path.resolve(), split, len(data_set.images(split)))}:
            return False
    known = [_of_gate(model, models) for model in models]
    if any(accuracy is None for accuracy, _ in known):
        return False
    for model, (accuracy, drop) in zip(models, known, strict=True):
        model.map50_95, model.drop = accuracy, drop
    return True


def _of_gate(model: _Model, models: Sequence[_Model]) -> tuple[float | None, float | None]:
    """Return mAP50-95 and its drop: by a model's own gate, or by one that it was the parent in."""
    gate = model.subject.artifact.gate
    if gate is not None:
        return gate.map50_95, gate.map50_95_drop
    sha256 = model.subject.artifact.sha256
    children: Iterable[Gate | None] = (
        other.subject.artifact.gate
        for other in models
        if other.subject.artifact.parent_sha256 == sha256
    )
    return next(((child.parent_map50_95, 0.0) for child in children if child), (None, None))


def _leave_out(models: Sequence[_Model], goal: Goal) -> None:
    """Leave out what lost too much accuracy, or may have."""
    for model in models:
        gate = model.subject.artifact.gate
        if model.why is not None:
            continue
        if goal.max_drop is None:
            if gate is not None and gate.verdict == "failed":
                model.why = "it failed its gate when it was exported"
        elif model.drop is None:
            model.why = "what it loses against its float parent is not known on this data"
        elif model.drop > goal.max_drop:
            model.why = f"it loses {model.drop:.3f} of mAP50-95, {goal.max_drop:g} is allowed"


def _rank(model: _Model, accuracy_by: AccuracyBy) -> tuple[float, ...]:
    """Return what compares as accuracy does; it is told to three digits, as it is printed."""
    if accuracy_by == "size":
        return model.imgsz, PRECISIONS.index(model.subject.artifact.precision)
    assert model.map50_95 is not None
    return (round(model.map50_95, 3),)


# ------------------------------------------------------------------------------------- prediction


def _predict(
    models: Sequence[_Model], bench: _Bench, accuracy_by: AccuracyBy
) -> tuple[list[_Candidate], tuple[Roofline, ...]]:
    """Probe the smallest and the largest model of each family, and predict those between.

    Raises:
        MusgdError: Nothing is left to predict from; the first of what went wrong.
    """
    while wanted := _unprobed(models, bench):
        ends = {model for group in wanted.values() for model in group}
        sizes = "model" if len(ends) == 1 else "models"
        bench.on_stage(f"probing {len(ends)} {sizes}, the ends of each family's range of sizes")
        for counts, group in wanted.items():
            bench.probe(group, counts)
    _leave_out_failures(models, bench)
    left = [model for model in models if model.why is None]
    _require_any(left, models)
    rooflines = []
    candidates = []
    for threads in bench.threads:
        for family in _families(left, threads):
            small, large = family[0], family[-1]
            line = None
            if small.imgsz < large.imgsz:
                points = (small.imgsz, small.probes[threads]), (large.imgsz, large.probes[threads])
                line = Line.through(*points)
                artifact = small.subject.artifact
                rooflines.append(
                    Roofline(
                        runtime=artifact.runtime,
                        precision=artifact.precision,
                        target=artifact.target,
                        threads=threads,
                        overhead_ms=line.overhead_ms,
                        ms_per_megapixel=line.ms_per_megapixel,
                        points=points,
                    )
                )
            for model in family:
                probe = model.probes.get(threads)
                if probe is None:
                    assert line is not None
                    predicted = line.fps(model.imgsz)
                else:
                    predicted = 1000 / probe
                candidates.append(
                    _Candidate(
                        family=model.family,
                        imgsz=model.imgsz,
                        threads=threads,
                        accuracy=_rank(model, accuracy_by),
                        predicted_fps=predicted,
                        predicted_by="roofline" if probe is None else "probe",
                        model=model,
                    )
                )
    return candidates, tuple(rooflines)


def _families(models: Iterable[_Model], threads: int) -> list[list[_Model]]:
    """Group models that run with so many threads, each family from the smallest image on."""
    families: dict[Hashable, list[_Model]] = {}
    for model in sorted(models, key=lambda model: model.imgsz):
        if model.why is None and threads not in model.failures:
            families.setdefault(model.family, []).append(model)
    return list(families.values())


def _unprobed(models: Sequence[_Model], bench: _Bench) -> dict[tuple[int, ...], list[_Model]]:
    """Return the ends of families that have yet to be probed, by the thread counts they lack."""
    lacking: dict[_Model, list[int]] = {}
    for threads in bench.threads:
        for family in _families(models, threads):
            for end in dict.fromkeys((family[0], family[-1])):
                if threads not in end.probes:
                    lacking.setdefault(end, []).append(threads)
    groups: dict[tuple[int, ...], list[_Model]] = {}
    for model, counts in lacking.items():
        groups.setdefault(tuple(counts), []).append(model)
    return groups


def _leave_out_failures(models: Iterable[_Model], bench: _Bench) -> None:
    """Leave out what ran with no thread count."""
    for model in models:
        if model.why is None and model.failures.keys() >= set(bench.threads):
            model.why = next(iter(model.failures.values())).what


def _require_any(left: Sequence[object], models: Sequence[_Model]) -> None:
    """Raise the first of what went wrong, where that has left nothing."""
    errors = [error for model in models for error in model.failures.values()]
    if not left and errors:
        raise errors[0]


# ----------------------------------------------------------------------------------------- answer


def _measure_near(candidates: Sequence[_Candidate], goal: Goal, bench: _Bench) -> list[_Candidate]:
    """Measure what the answer hangs on, until it hangs on nothing more, and return what ran."""
    left = list(candidates)
    while wanted := to_measure(left, goal.fps):
        bench.on_stage(f"measuring {_in_words(wanted)} near {goal.fps:g} FPS, or one step larger")
        bench.measure(wanted, goal)
        left = [c for c in left if c.threads not in c.model.failures]
    return left


def _in_words(candidates: Sequence[_Candidate]) -> str:
    return "1 candidate" if len(candidates) == 1 else f"{len(candidates)} candidates"


def _nearest(candidates: Iterable[_Candidate], goal: Goal) -> _Candidate | None:
    """Return the measured candidate that falls short of the goal by the smallest factor."""

    def share(candidate: _Candidate) -> float:
        assert candidate.report is not None
        shares = [Speed.of(candidate.report).counted / goal.fps]
        if goal.watts is not None:
            shares.append(goal.watts / (candidate.report.power_w or float("inf")))
        return min(1.0, *shares)

    measured = [candidate for candidate in candidates if candidate.report is not None]
    return max(measured, key=share, default=None)


def _prediction_error(candidates: Iterable[_Candidate]) -> float | None:
    return max(
        (
            abs(candidate.predicted_fps / candidate.report.frames_a_second - 1)
            for candidate in candidates
            if candidate.report is not None and candidate.predicted_by == "roofline"
        ),
        default=None,
    )
