"""A report beside an earlier one of the same kind of artifact, on the same machine.

What is compared must differ in one thing, the artifact or its software. So another machine, another
list of classes and another image size are refused, before anything is measured; what was measured
is never lost to a baseline that does not fit it. What sways a figure less, the governor or the
length of the run, is compared and told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, floor, log, sqrt
from pathlib import Path, PurePath
from statistics import fmean, variance
from typing import NamedTuple

from musgd_cli.bench.figures import FIGURES, Figure, find
from musgd_cli.bench.interval import FEWEST_REPEATS, t95
from musgd_cli.errors import UsageError
from musgd_cli.records import (
    NOT_IN_BOTH,
    Artifact,
    BenchReport,
    Change,
    Comparison,
    Difference,
    Host,
)

RAM_TOLERANCE = 0.05
"""Kernels of one board keep more or less memory to themselves."""

CLOCK_TOLERANCE = 0.05
"""Clocks that differ by more are told."""

LENGTH_TOLERANCE = 0.2
"""A slow model's fewest frames take longer than was asked for."""


# -------------------------------------------------------------------------------------- refusals


class Identity(NamedTuple):
    """What a report must have in common with the one it is compared with."""

    runtime: str
    precision: str
    imgsz: int
    threads: int
    target: str

    @classmethod
    def of(cls, report: BenchReport) -> Identity:
        """Read it from a report."""
        return cls(*(getattr(report, name) for name in cls._fields))

    def differing(self, other: Identity) -> list[str]:
        """Say in what it differs, from the first field to the last."""
        pairs = zip(self._fields, self, other, strict=True)
        return [
            f"{name} {mine} here, {theirs} in the baseline"
            for name, mine, theirs in pairs
            if mine != theirs
        ]


Names = tuple[str, ...]


def require_comparable(
    host: Host,
    artifacts: Iterable[Artifact],
    threads: Sequence[int],
    baseline: Sequence[BenchReport],
) -> None:
    """Refuse a baseline before anything is measured.

    Args:
        host: This machine.
        artifacts: What is to be measured.
        threads: Each of them at each.
        baseline: What its reports are to be compared with.

    Raises:
        UsageError: It is of another machine or of other models: nothing in it can be compared.
    """
    here = _of_this_machine(host, baseline)
    if not here:
        raise UsageError(
            _another_machine(host, baseline),
            "measure the baseline here: musgd bench --json > baseline.json",
        )
    asked = [
        (Identity(a.runtime, a.precision, a.imgsz, count, a.target), a.names)
        for a in artifacts
        for count in threads
    ]
    if any(_alike(kind, names, here) for kind, names in asked):
        return
    for kind, names in asked:
        for other in here:
            if Identity.of(other) == kind:
                raise UsageError(
                    _another_model(names, other.names),
                    "give a baseline of the same model, or of one with the same classes",
                )
    kind, _ = asked[0]
    fewest = min((kind.differing(Identity.of(other)) for other in here), key=len)
    raise UsageError(
        f"the baseline is of another model or setting: {', '.join(fewest)}",
        "bench the same artifacts with the same --threads as the baseline",
    )


def _of_this_machine(host: Host, baseline: Sequence[BenchReport]) -> list[BenchReport]:
    return [report for report in baseline if not _machine_differences(host, report.host)]


def _alike(kind: Identity, names: Names, baseline: Sequence[BenchReport]) -> list[BenchReport]:
    """Return the reports that such a one can be compared with: two runs may share a kind."""
    return [
        other
        for other in baseline
        if Identity.of(other) == kind and (not names or not other.names or names == other.names)
    ]


def _another_machine(host: Host, baseline: Sequence[BenchReport]) -> str:
    fewest = min((_machine_differences(host, report.host) for report in baseline), key=len)
    return f"the baseline is of another machine: {', '.join(fewest)}"


def _another_model(names: Names, others: Names) -> str:
    return (
        f"the baseline is of another model: {_in_words(names)} here, "
        f"{_in_words(others)} in the baseline"
    )


def _in_words(names: tuple[str, ...]) -> str:
    return f"{len(names)} classes ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"


def _machine_differences(here: Host, there: Host) -> list[str]:
    told = [
        (name, getattr(here, name), getattr(there, name))
        for name in ("board", "cpu", "cores", "gpu", "arch")
    ]
    differences = [
        f"{name} {mine} here, {theirs} in the baseline"
        for name, mine, theirs in told
        if mine != theirs
    ]
    if not _near(here.ram_mb, there.ram_mb, RAM_TOLERANCE):
        differences.append(f"RAM {here.ram_mb} MB here, {there.ram_mb} MB in the baseline")
    if bool(here.emulated) != bool(there.emulated):
        differences.append(f"{'emulated' if here.emulated else 'real'} here, not in the baseline")
    return differences


def _near(a: float | None, b: float | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= tolerance * max(a, b)


def _counterpart(report: BenchReport, baseline: Sequence[BenchReport]) -> BenchReport | str:
    """Find the report to compare with, or say why there is none."""
    here = _of_this_machine(report.host, baseline)
    if not here:
        return _another_machine(report.host, baseline)
    kind = Identity.of(report)
    alike = _alike(kind, report.names, here)
    if alike:
        return max(alike, key=lambda other: (*_kinship(report, other), other.started or ""))
    for other in here:
        if Identity.of(other) == kind:
            return _another_model(report.names, other.names)
    return f"the baseline has no report of {_kind_in_words(kind)}"


def _kind_in_words(kind: Identity) -> str:
    return ", ".join(f"{name} {value}" for name, value in kind._asdict().items())


def _kinship(report: BenchReport, other: BenchReport) -> tuple[bool, bool, bool]:
    """Compare as the nearness of two reports of one kind: the same file, its place, its run."""
    return (
        report.artifact_sha256 == other.artifact_sha256,
        report.artifact == other.artifact,
        _run(report.artifact) is not None and _run(report.artifact) == _run(other.artifact),
    )


def _run(artifact: str) -> str | None:
    """Return the name of the run that an artifact's path lies in: runs/NAME/artifacts/…."""
    parts = PurePath(artifact).parts
    return parts[-3] if len(parts) > 2 and parts[-2] == "artifacts" else None


# ------------------------------------------------------------------------------------ comparison


def compare(
    reports: Sequence[BenchReport], baseline: Sequence[BenchReport]
) -> tuple[Comparison, ...]:
    """Compare each report with the baseline's of its runtime, precision, size, threads and target.

    Of several such that of the same file is taken, or else that of the same path, of a run of the
    same name, or the latest.

    Args:
        reports: All of one bench.
        baseline: What ``runs.read_reports`` returned, at least one.

    Returns:
        One a report, in their order; one without a counterpart says so.
    """
    return tuple(_compare(report, _counterpart(report, baseline)) for report in reports)


def without_counterpart(
    baseline: Sequence[BenchReport],
    reports: Sequence[BenchReport],
    artifacts: Collection[str],
    threads: Collection[int],
) -> list[BenchReport]:
    """Return what the baseline has of the artifacts and thread counts asked for, and nobody else.

    An artifact that was exported anew may have come out in another precision.

    Args:
        baseline: Likewise.
        reports: What was measured; all of one machine.
        artifacts: Paths of what was to be measured.
        threads: At each of these thread counts.
    """
    kinds = {Identity.of(report) for report in reports}
    return [
        other
        for other in (_of_this_machine(reports[0].host, baseline) if reports else ())
        if other.artifact in artifacts
        and other.threads in threads
        and Identity.of(other) not in kinds
    ]


def _compare(report: BenchReport, other: BenchReport | str) -> Comparison:
    if isinstance(other, str):
        return Comparison(
            artifact=report.artifact,
            threads=report.threads,
            baseline_artifact=None,
            not_compared={"everything": other},
        )
    why_not = {
        kind: why
        for kind, why in (
            ("time", _other_speed(report)),
            ("accuracy", _other_images(report, other)),
            ("power", _other_meter(report, other)),
        )
        if why is not None
    }
    compared = [figure for figure in _figures(report, other) if figure.kind not in why_not]
    return Comparison(
        artifact=report.artifact,
        threads=report.threads,
        baseline_artifact=other.artifact,
        baseline_started=other.started,
        changes=tuple(_changes(compared, report, other)),
        not_compared=why_not,
        notes=tuple(_notes(report, other)),
    )


def _figures(report: BenchReport, other: BenchReport) -> Iterator[Figure]:
    yield from FIGURES.values()
    for mean in ("ap50_95", "ap50"):
        classes = getattr(other, mean)
        yield from (find(f"{mean}.{name}") for name in getattr(report, mean) if name in classes)


def _changes(
    figures: Sequence[Figure], report: BenchReport, other: BenchReport
) -> Iterator[Change]:
    for figure in figures:
        here, there = figure.of(report), figure.of(other)
        if here is None or there is None:
            continue
        ratio = here / there if there > 0 else None
        interval = ratio_interval(figure.by_repeat(report), figure.by_repeat(other))
        if interval is not None and ratio is not None:
            # The figure is of all samples, the interval of the repeats' figures.
            interval = min(interval[0], ratio), max(interval[1], ratio)
        difference, why = _judge(figure, report, other, interval)
        yield Change(
            figure=figure.name,
            here=here,
            baseline=there,
            ratio=ratio,
            interval=interval,
            difference=difference,
            why=why,
        )


def _judge(
    figure: Figure,
    report: BenchReport,
    other: BenchReport,
    interval: tuple[float, float] | None,
) -> tuple[Difference, str | None]:
    if interval is not None:
        low, high = interval
        if low <= 1 <= high:
            return "no difference shown", None
        return ("faster" if (low > 1) == figure.higher_is_better else "slower"), None
    if figure.kind == "time" and min(len(report.repeats), len(other.repeats)) < FEWEST_REPEATS:
        return "cannot be told", f"fewer than {FEWEST_REPEATS} repeats"
    return "cannot be told", "measured once in each report"


def ratio_interval(here: Sequence[float], baseline: Sequence[float]) -> tuple[float, float] | None:
    """Return where the ratio of two figures lies, 19 times of 20.

    Welch's interval of the difference of the means of the logarithms (B. L. Welch, The
    generalization of Student's problem, Biometrika 34, 1947), his degrees of freedom rounded down.
    A repeat is a process, as Kalibera and Jones have it (Rigorous benchmarking in reasonable time,
    ISMM 2013): frames of one process follow each other and are no independent samples. What
    changed on the machine between the two runs is not in it.

    Args:
        here: The figure of each repeat, above 0.
        baseline: Likewise.

    Returns:
        ``None`` where either has fewer than :data:`FEWEST_REPEATS`.
    """
    if min(len(here), len(baseline)) < FEWEST_REPEATS or min(*here, *baseline) <= 0:
        return None
    logs = [[log(value) for value in values] for values in (here, baseline)]
    middle = fmean(logs[0]) - fmean(logs[1])
    of_means = [variance(values) / len(values) for values in logs]
    if not any(of_means):
        return exp(middle), exp(middle)
    freedom = sum(of_means) ** 2 / sum(
        v**2 / (len(values) - 1) for v, values in zip(of_means, logs, strict=True)
    )
    half = t95(floor(freedom + 1e-9)) * sqrt(sum(of_means))
    return exp(middle - half), exp(middle + half)


# ----------------------------------------------------------------------------- what was different


def _other_speed(report: BenchReport) -> str | None:
    return "an emulator's speed is not the board's" if report.host.emulated else None


def _other_images(report: BenchReport, other: BenchReport) -> str | None:
    """Say why accuracies are not of the same images; a set may have moved to another folder."""
    if report.map50_95 is None or other.map50_95 is None:
        return NOT_IN_BOTH
    mine, theirs = (
        f"{r.data and Path(r.data).name} {r.split}, {r.n_images} images" for r in (report, other)
    )
    if mine != theirs:
        return f"scored on {mine} here, on {theirs} in the baseline"
    counts = [(r.n_excluded, r.n_small, r.n_medium, r.n_large) for r in (report, other)]
    if counts[0] != counts[1]:
        return f"{mine}, but not the same ones as in the baseline"
    return None


def _other_meter(report: BenchReport, other: BenchReport) -> str | None:
    if report.power_w is None or other.power_w is None:
        return NOT_IN_BOTH
    mine, theirs = (
        f"{r.power_kind} by {r.power_source} ({r.power_scope})" for r in (report, other)
    )
    return f"{mine} here, {theirs} in the baseline" if mine != theirs else None


@dataclass(frozen=True)
class _Condition:
    name: str
    read: Callable[[BenchReport], object]


_CONDITIONS = (
    _Condition("engine version", lambda r: r.runtime_version),
    _Condition("musgd", lambda r: r.versions.get("musgd")),
    _Condition("NumPy", lambda r: r.versions.get("numpy")),
    _Condition("OpenCV", lambda r: r.versions.get("opencv")),
    _Condition("Python", lambda r: r.host.python),
    _Condition("OS", lambda r: r.host.os),
    _Condition("kernel", lambda r: r.host.kernel),
    _Condition("container", lambda r: r.host.container),
    _Condition("governor", lambda r: r.governor),
    _Condition("power mode", lambda r: r.power_mode),
    _Condition("made by", lambda r: r.made_by or "musgd"),
    _Condition("repeats", lambda r: len(r.repeats)),
    _Condition("images timed", lambda r: r.n_frames),
    _Condition("sustained", lambda r: "yes" if r.sustained else "no"),
)


def _notes(report: BenchReport, other: BenchReport) -> Iterator[str]:
    if report.artifact_sha256 != other.artifact_sha256:
        parent = (report.parent_sha256, other.parent_sha256)
        origin = "the same" if parent[0] is not None and parent[0] == parent[1] else "another"
        yield f"the model file differs, built from {origin} parent"
    if not any(_kinship(report, other)):
        yield f"the baseline's is {other.artifact}, neither of this path nor of a run of this name"
    for condition in _CONDITIONS:
        mine, theirs = condition.read(report), condition.read(other)
        if mine != theirs:
            told = ("unknown" if value is None else value for value in (mine, theirs))
            yield "{}: {} here, {} then".format(condition.name, *told)
    if not _near(report.seconds, other.seconds, LENGTH_TOLERANCE):
        yield f"timed for {report.seconds or 0:.1f} s here, {other.seconds or 0:.1f} s then"
    engines = report.engine.keys() | other.engine.keys()
    for key in sorted(engines):
        mine, theirs = report.engine.get(key), other.engine.get(key)
        if mine != theirs:
            yield f"{report.runtime} {key}: {mine or 'unset'} here, {theirs or 'unset'} then"
    if (
        report.cpu_mhz
        and other.cpu_mhz
        and not _near(report.cpu_mhz, other.cpu_mhz, CLOCK_TOLERANCE)
    ):
        yield f"CPU clock: {report.cpu_mhz:.0f} MHz here, {other.cpu_mhz:.0f} MHz then"
    for name, one in (("here", report), ("then", other)):
        if one.throttled:
            yield f"the processor was throttled {name}"
        if one.stable is False:
            yield f"the p50 was unstable {name}"
        if not one.steady:
            yield f"latency had not settled before it was timed {name}"
        if one.is_disturbed:
            yield f"other programs used {one.cores_used_by_others:.1f} cores {name}"
