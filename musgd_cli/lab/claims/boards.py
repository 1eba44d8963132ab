"""C3, C9 and C10: claims about a Raspberry Pi 4B and a Jetson Nano, answered on those alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from musgd_cli import bench as benches
from musgd_cli import compress, profiles
from musgd_cli.errors import MusgdError, UnsupportedError
from musgd_cli.hardware.power import best_meter, why_none
from musgd_cli.lab.claims.matrix import SGD
from musgd_cli.lab.claims.verdicts import FORMS, Form, at_most, finding
from musgd_cli.lab.claims.workbench import Workbench
from musgd_cli.lab.contenders import Contender
from musgd_cli.records import BenchReport, ClaimFinding, ClaimVerdict, Host, RuntimeName
from musgd_cli.settings import settle

SHORTER_EPOCH = 0.75
"""Of SGD's: "30 to 21 minutes", with 5 % of leeway."""

MOST_W = 6.5
LEAST_SMALL_RECALL = 0.707


@dataclass(frozen=True)
class BoardClaim:
    """What the article says of one board."""

    title: str
    fps: float
    runtime: RuntimeName | None
    """``None``: it does not say by which."""


BOARDS: Mapping[str, BoardClaim] = {
    "pi4b": BoardClaim("Raspberry Pi 4B", 35.0, None),
    "jetson-nano": BoardClaim("Jetson Nano", 28.0, "tensorrt"),
}
"""By ``Host.board``."""


def require_board(host: Host, *names: str) -> BoardClaim:
    """Return what is claimed of this board.

    Raises:
        UnsupportedError: It is none of ``names``, or an emulator plays it.
    """
    wanted = " or a ".join(BOARDS[name].title for name in names)
    if host.board not in names:
        raise UnsupportedError(
            f"this needs a {wanted}; this machine is {host.board}",
            "type the same command there",
        )
    if host.emulated:
        raise UnsupportedError(
            f"this {host.board} is emulated: its speed is not the board's", f"use a real {wanted}"
        )
    return BOARDS[host.board]


def epoch_time(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C3: seconds of an epoch on a Raspberry Pi 4B, beside SGD's."""
    require_board(bench.host, "pi4b")
    if bench.matrix.jobs > 1:
        raise UnsupportedError("trainings side by side slow each other down", "give --jobs 1")
    runs = bench.matrix.score([SGD, *(Contender.parse(form) for form in FORMS)])
    seconds = {
        label: [run.result().seconds / run.result().epochs for run in each]
        for label, each in runs.items()
    }
    return tuple(judge_epochs(form, seconds[form], seconds[SGD.label]) for form in FORMS)


def judge_epochs(form: Form, ours: Sequence[float], sgd: Sequence[float]) -> ClaimFinding:
    """Judge seconds of an epoch, one a seed."""
    ratios = [mine / theirs for mine, theirs in zip(ours, sgd, strict=True)]
    told = ", ".join(
        f"{mine:.1f} s against {theirs:.1f} s" for mine, theirs in zip(ours, sgd, strict=True)
    )
    return finding(
        form,
        at_most(ratios, SHORTER_EPOCH),
        ratios,
        f"an epoch here takes {told}; the article's 30 minutes are of a data set that it does "
        "not name",
        compared_with=SGD.label,
    )


def speed(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C9: whole frames a second of the board's own artifacts."""
    claim = require_board(bench.host, *BOARDS)
    return tuple(judge_speed(form, claim, _reports(bench, form, claim)) for form in FORMS)


def judge_speed(form: Form, claim: BoardClaim, reports: Sequence[BenchReport]) -> ClaimFinding:
    """Judge the fastest of a model's artifacts."""
    best = max(reports, key=lambda report: report.frames_a_second)
    interval = _fps_interval(best)
    low, high = interval or (best.frames_a_second, best.frames_a_second)
    verdict: ClaimVerdict = (
        "holds" if low >= claim.fps else "does not hold" if high < claim.fps else "undecided"
    )
    return finding(
        form,
        verdict,
        [best.frames_a_second],
        f"{best.runtime} {best.precision}, {best.imgsz} px, {best.threads} threads, whole frames; "
        "the article names no image size, and the optimizer does not change speed; the spread is "
        "where another such run is expected 19 times of 20",
        compared_with=f"{claim.fps:g} FPS on a {claim.title}",
        spread=interval,
    )


def power(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C10: power of the whole board at work, and the share of small objects that are found."""
    claim = require_board(bench.host, *BOARDS)
    if best_meter(bench.machine) is None:
        raise UnsupportedError(
            f"power cannot be measured on this {claim.title}: {why_none(bench.machine)}",
            "connect a meter: an INA219 on the 5 V line, or one that writes a CSV file; musgd "
            "doctor tells when it is found",
        )
    return tuple(judge_power(form, _reports(bench, form, claim)) for form in FORMS)


def judge_power(form: Form, reports: Sequence[BenchReport]) -> ClaimFinding:
    """Judge the artifact that finds most small objects within the power, or else draws least."""
    told = [report for report in reports if report.power_w is not None]
    if not told:
        note = reports[0].power_note or "the meter gave no figure"
        raise UnsupportedError(f"power was not measured: {note}", "musgd doctor names the meters")
    within = [report for report in told if _watts(report) < MOST_W]
    best = max(within, key=_small) if within else min(told, key=_watts)
    recall = best.recall_small
    verdict: ClaimVerdict
    if _watts(best) >= MOST_W:
        verdict = "does not hold"
    elif recall is None:
        verdict = "undecided"
    else:
        verdict = "holds" if recall >= LEAST_SMALL_RECALL else "does not hold"
    small = "no small objects in these images" if recall is None else f"{recall:.1%} of small ones"
    return finding(
        form,
        verdict,
        [_watts(best)],
        f"watts, {best.power_scope or 'scope unknown'}, by {best.power_source}; {best.runtime} "
        f"{best.precision}, {best.imgsz} px; recall: {small}, of {best.n_small}",
        compared_with=f"{MOST_W:g} W and a recall of {LEAST_SMALL_RECALL:.1%}",
    )


def _watts(report: BenchReport) -> float:
    assert report.power_w is not None
    return report.power_w


def _small(report: BenchReport) -> float:
    return -1.0 if report.recall_small is None else report.recall_small


def _fps_interval(report: BenchReport) -> tuple[float, float] | None:
    """Carry the interval of the median latency over to whole frames."""
    if report.p50_interval_ms is None:
        return None
    low, high = report.p50_interval_ms
    around = 1000 / report.frames_a_second - report.latency_ms.p50
    return 1000 / (high + around), 1000 / max(low + around, 1e-6)


def _reports(bench: Workbench, form: Form, claim: BoardClaim) -> list[BenchReport]:
    """Export a model of this form for this board, at the size of its profile, and measure it."""
    run = bench.matrix.score([Contender.parse(form)])[form][0]
    target = profiles.match(bench.host)
    bench.tell(f"exporting {run.name} for {target.name}")
    flags = {} if claim.runtime is None else {"compress.runtimes": (claim.runtime,)}
    report = compress.export(
        str(run.path), targets=(target.name,), sizes=(target.train.imgsz,), int8=True, flags=flags
    )
    made = [each for each in report.artifacts if claim.runtime in (None, each.runtime)]
    if not made:
        why = report.skipped[0] if report.skipped else None
        raise UnsupportedError(
            why.why if why else f"{claim.runtime} made no model here",
            why.mend if why else "musgd doctor names what is missing",
        )
    bench.tell(f"measuring {len(made)} models")
    settings = settle(host=bench.host, flags={}).bench
    outcomes = list(
        benches.measure_all(
            benches.choose([each.path for each in made]), settings=settings, data=bench.data
        )
    )
    reports = [outcome.report for outcome in outcomes if outcome.report is not None]
    if not reports:
        raise next(
            (outcome.error for outcome in outcomes if outcome.error is not None),
            MusgdError("no model could be measured", "musgd bench says why"),
        )
    return reports
