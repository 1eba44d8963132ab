"""C1, C5 and C11: how fast an optimizer learns, and how much that depends on its settings."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from musgd_cli.errors import MusgdError
from musgd_cli.lab.claims.curves import Curve, step_ratios
from musgd_cli.lab.claims.matrix import SGD
from musgd_cli.lab.claims.verdicts import FORMS, at_most, either, finding, unmeasured
from musgd_cli.lab.claims.workbench import Workbench
from musgd_cli.lab.contenders import Contender
from musgd_cli.records import ClaimFinding
from musgd_cli.runs import RunFolder

FASTER = 0.75
"""Of SGD's steps: "about 30 % faster", with 5 % of leeway."""

LESS_SENSITIVE = 0.9
"""Of SGD's excess loss."""

FEWER = 0.95
"""Of the other's steps, to be called fewer."""

MORE_MAP50 = 0.01
"""To be called more accurate."""

ADAMW = Contender.parse("adamw")

_LEAST_LINES = 3
"""Rows, or columns, of which one can be left out."""


def convergence(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C1: steps to the training loss that SGD ends with."""
    matrix = bench.matrix
    contenders = [Contender.parse(form) for form in FORMS]
    runs = matrix.score([SGD, *contenders])
    curves = {label: [Curve.of(run) for run in each] for label, each in runs.items()}
    findings = []
    for form in FORMS:
        steps = step_ratios(curves[form], curves[SGD.label])
        accuracy = f"mAP50 {_map50s(runs[form])} against {_map50s(runs[SGD.label])}"
        findings.append(
            finding(
                form,
                at_most(steps.ratios, FASTER),
                steps.ratios,
                f"lr {matrix.rate(Contender.parse(form)):g}; {accuracy}{steps.in_words}",
                compared_with=f"{SGD.label}, lr {matrix.rate(SGD):g}",
            )
        )
    return tuple(findings)


def sensitivity(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C5: how much the last training loss suffers, over a grid of learning rates and momenta."""
    grids = {each: bench.matrix.grid(Contender.parse(each)) for each in (SGD.label, *FORMS)}
    whole = [curve for grid in grids.values() for row in grid for curve in row if curve is not None]
    if not whole:
        raise MusgdError("every training of the grid diverged", "try another data set with --data")
    untrained = whole[0].first
    losses = {
        label: [
            # A training that diverged knows no more than one that never began.
            [untrained if curve is None else min(curve.last, untrained) for curve in row]
            for row in grid
        ]
        for label, grid in grids.items()
    }
    findings = []
    for form in FORMS:
        ratio = excess(losses[form]) / excess(losses[SGD.label])
        without = [
            excess(_without(losses[form], *line)) / excess(_without(losses[SGD.label], *line))
            for line in _lines(losses[form])
        ]
        findings.append(
            finding(
                form,
                at_most([ratio, *without], LESS_SENSITIVE),
                [ratio],
                f"its losses are {excess(losses[form]):.1%} above its best on average, "
                f"{SGD.label}'s {excess(losses[SGD.label]):.1%}, over a grid of "
                f"{len(losses[form][0])} learning rates and {len(losses[form])} momenta, one seed; "
                "the spread is that of leaving out a line of the grid",
                compared_with=SGD.label,
                spread=(min(ratio, *without), max(ratio, *without)),
            )
        )
    return tuple(findings)


def adamw(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C11: whether AdamW needs fewer steps than a form, or gets further."""
    matrix = bench.matrix
    runs = matrix.score([ADAMW, *(Contender.parse(form) for form in FORMS)])
    curves = {label: [Curve.of(run) for run in each] for label, each in runs.items()}
    findings = []
    for form in FORMS:
        steps = step_ratios(curves[ADAMW.label], curves[form])
        lost = [
            -(theirs - ours)
            for theirs, ours in zip(_map50(runs[ADAMW.label]), _map50(runs[form]), strict=True)
        ]
        if not steps.ratios:
            findings.append(unmeasured(form, "no seed was trained to its end"))
            continue
        findings.append(
            finding(
                form,
                either(at_most(steps.ratios, FEWER), at_most(lost, -MORE_MAP50)),
                steps.ratios,
                f"AdamW's mAP50 is {_signed(-statistics.median(lost))}: "
                f"{_map50s(runs[ADAMW.label])} against {_map50s(runs[form])}{steps.in_words}",
                compared_with=f"adamw, lr {matrix.rate(ADAMW):g}",
            )
        )
    return tuple(findings)


def excess(losses: Sequence[Sequence[float]]) -> float:
    """Return how far above its best a grid of losses lies on average, as a share of the best."""
    flat = [loss for row in losses for loss in row]
    return statistics.mean(flat) / min(flat) - 1


def _lines(grid: Sequence[Sequence[float]]) -> list[tuple[int | None, int | None]]:
    rows = range(len(grid)) if len(grid) >= _LEAST_LINES else ()
    columns = range(len(grid[0])) if len(grid[0]) >= _LEAST_LINES else ()
    return [(row, None) for row in rows] + [(None, column) for column in columns]


def _without(
    grid: Sequence[Sequence[float]], row: int | None, column: int | None
) -> list[list[float]]:
    return [
        [loss for at, loss in enumerate(line) if at != column]
        for number, line in enumerate(grid)
        if number != row
    ]


def _map50(runs: Sequence[RunFolder]) -> list[float]:
    return [run.result().map50 or 0.0 for run in runs]


def _map50s(runs: Sequence[RunFolder]) -> str:
    return ", ".join(f"{value:.3f}" for value in _map50(runs))


def _signed(value: float) -> str:
    return f"{value:+.3f}"
