"""C2 and C6: what an optimizer keeps, and what its step takes.

Both are asked of `musgd_cli.lab.step_cost`, as ``benchmarks/optimizer_step.py`` does.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from musgd_cli.installation import ExtraError
from musgd_cli.lab.claims.matrix import SGD
from musgd_cli.lab.claims.verdicts import FORMS, Form, at_most, either, finding
from musgd_cli.lab.claims.workbench import Workbench
from musgd_cli.lab.contenders import Contender
from musgd_cli.records import ClaimFinding, ClaimVerdict
from musgd_cli.runs import RunFolder

if TYPE_CHECKING:
    from musgd_cli.lab.step_cost import StepCost

LESS_MEMORY = 0.85
"""Of SGD's: "15 to 20 % less"."""

RULERS: dict[Form, str] = {"musgd-article": "musgd", "musgd": "rowcol"}
"""What `musgd_cli.lab.step_cost` calls the forms."""

_BASELINES = {"sgd": "SGD", "sgd, nesterov": "SGD with Nesterov's momentum"}


def memory(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C2: the optimizer's state on YOLO26n's parameters, and the peak memory of trainings."""
    bytes_of = {cost.name: cost.state_bytes for cost in _measure(("sgd", *RULERS.values()), 1, 1)}
    runs = bench.matrix.score([SGD, *(Contender.parse(form) for form in FORMS)])
    findings = []
    for form in FORMS:
        ratio = bytes_of[RULERS[form]] / bytes_of["sgd"]
        peaks = _peak_ratios(runs[form], runs[SGD.label])
        state: ClaimVerdict = "holds" if ratio <= LESS_MEMORY else "does not hold"
        all_memory = at_most(peaks, LESS_MEMORY)
        findings.append(
            finding(
                form,
                either(state, "does not hold" if all_memory == "undecided" else all_memory),
                [ratio],
                f"state {bytes_of[RULERS[form]]:,} bytes against {bytes_of['sgd']:,}, which are "
                f"counted and have no spread; {_in_words(peaks)}",
                compared_with="SGD's momentum buffer, YOLO26n's parameters",
            )
        )
    return tuple(findings)


def step_cost(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C6: the time of a step beside SGD's, taken in turns on YOLO26n's parameters."""
    bench.tell("timing optimizer steps")
    costs = {cost.name: cost for cost in _measure(tuple(RULERS.values()), bench.scale.rounds, None)}
    return tuple(_cost_finding(form, costs[RULERS[form]]) for form in FORMS)


def _measure(names: Sequence[str], rounds: int, pairs: int | None) -> list[StepCost]:
    try:
        from musgd_cli.lab import step_cost
    except ImportError as error:
        raise ExtraError(f"{error.name or 'torch'} is not installed here", "train") from error
    model = step_cost.model_parameters()
    return step_cost.measure(model, names, rounds=rounds, pairs=pairs or step_cost.PAIRS)


def _cost_finding(form: Form, cost: StepCost) -> ClaimFinding:
    limit = cost.limit
    assert limit is not None  # every ruler has one
    return ClaimFinding(
        optimizer=form,
        verdict="holds" if cost.holds else "does not hold",
        figure=cost.against_ratio,
        spread=(cost.against_low, cost.against_high),
        n=1,
        compared_with=f"{_BASELINES[cost.against]}, foreach",
        why=f"at most {limit.ratio:g} holds; {cost.step_ms:.2f} ms a step, SGD's "
        f"{cost.baseline_ms:.2f}; one thread, CPU time, medians of rounds",
    )


def _peak_ratios(ours: Sequence[RunFolder], theirs: Sequence[RunFolder]) -> list[float]:
    peaks = [
        (mine.result().peak_memory_mb, other.result().peak_memory_mb)
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return [mine / other for mine, other in peaks if mine is not None and other]


def _in_words(peaks: Sequence[float]) -> str:
    if not peaks:
        return "the trainings' peak memory cannot be read here"
    return (
        f"peak memory of a whole training {statistics.median(peaks):.2f} times SGD's "
        f"({min(peaks):.2f} to {max(peaks):.2f} in {len(peaks)} seeds)"
    )
