"""What a bench as a whole comes to: its reports held to a baseline and to limits, by machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from musgd_cli.bench.comparison import compare, without_counterpart
from musgd_cli.bench.session import Outcome
from musgd_cli.bench.thresholds import Threshold, broken, unmeasured
from musgd_cli.records import BenchReport, Broken, Comparison


@dataclass(frozen=True)
class Verdict:
    """What became of a gate."""

    comparisons: tuple[Comparison, ...]
    """One a report, in their order, where there is a baseline."""
    broken: tuple[Broken, ...]


def judge(
    outcomes: Sequence[Outcome],
    thresholds: Sequence[Threshold],
    baseline: Sequence[BenchReport],
    artifacts: Collection[str],
    threads: Collection[int] | None,
) -> Verdict:
    """Hold what was measured to what was asked.

    Args:
        outcomes: All of one bench, of this machine or of several boards.
        thresholds: Limits.
        baseline: What ``runs.read_reports`` returned; empty: there is none.
        artifacts: Paths of what was to be measured.
        threads: At each of these thread counts; ``None``: at those that it was measured at.

    Returns:
        Nothing is broken where there is neither a threshold nor a baseline.
    """
    comparisons: list[Comparison] = []
    found: list[Broken] = []
    for board in dict.fromkeys(outcome.board for outcome in outcomes):
        here = [outcome for outcome in outcomes if outcome.board == board]
        reports = [outcome.report for outcome in here if outcome.report is not None]
        compared = compare(reports, baseline) if baseline else ()
        comparisons += compared
        beyond = list(broken(thresholds, reports, compared))
        if thresholds or baseline:
            missing = [
                unmeasured(str(one.subject.path), one.threads, one.error.what)
                for one in without_report(here)
                if one.error is not None
            ]
            seen = {(one.artifact, one.threads) for one in missing}
            counts = {report.threads for report in reports} if threads is None else threads
            missing += (
                unmeasured(one.artifact, one.threads, "the baseline has it, the model is another")
                for one in without_counterpart(baseline, reports, artifacts, counts)
                if (one.artifact, one.threads) not in seen
            )
            beyond += missing
        found += _named(board, beyond)
    return Verdict(tuple(comparisons), tuple(found))


def without_report(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return those of what was not measured: an error may also be of one that has its report."""
    reported = {
        (one.board, one.subject.path, threads)
        for one in outcomes
        if one.report is not None
        for threads in (one.threads, 0)
    }
    return [
        one
        for one in outcomes
        if one.report is None and (one.board, one.subject.path, one.threads) not in reported
    ]


def _named(board: str | None, found: Iterable[Broken]) -> list[Broken]:
    """Say of which board it is, unless it is this machine or is said already."""
    mark = "" if board is None else f"{board}: "
    return [
        one if mark in one.what else one.model_copy(update={"what": mark + one.what})
        for one in found
    ]
