"""C4: whether a large gradient cuts momentum, and whether that keeps training from diverging."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from musgd_cli.lab.claims.curves import Curve
from musgd_cli.lab.claims.matrix import SGD
from musgd_cli.lab.claims.verdicts import FORMS, Form, finding
from musgd_cli.lab.claims.workbench import Workbench
from musgd_cli.lab.contenders import Contender
from musgd_cli.lab.trials import Trial
from musgd_cli.records import ClaimFinding, ClaimVerdict, OptimSettings

EXAMPLE_NORM = 10.0
EXAMPLE_FACTOR = 0.1

LOWER = 0.9
"""Of its momentum at rest: a form whose mean is lower has a control. Warm-up alone lowers it less.
"""


def damping(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C4: the worked example, and the highest learning rate that each survives for an epoch.

    The control has the form's learning rate, and at all times the momentum that the form has on
    average: what it survives too, adaptation does not explain.
    """
    matrix = bench.matrix
    forms = {form: Contender.parse(form) for form in FORMS}
    runs = matrix.score([SGD, *forms.values()])
    optim = {
        form: each.plan(matrix.flags, None, 0, host=bench.host).optim
        for form, each in forms.items()
    }
    betas = {
        form: [beta for run in runs[form] if (beta := run.result().beta_mean) is not None]
        for form in FORMS
    }
    means = {form: statistics.mean(betas[form]) for form in FORMS if betas[form]}
    controls = {
        form: SGD.changed(momentum=float(f"{mean:.2g}"))
        for form, mean in means.items()
        if mean < LOWER * optim[form].momentum
    }
    survived = _climb(
        bench,
        [
            (SGD, matrix.rate(SGD)),
            *((each, matrix.rate(each)) for each in forms.values()),
            *((control, matrix.rate(forms[form])) for form, control in controls.items()),
        ],
    )
    findings = []
    for form in FORMS:
        rivals = [SGD.label, *([controls[form].label] if form in controls else [])]
        told = {label: survived[label] for label in (form, *rivals)}
        findings.append(_finding(form, bench, optim[form], told, means.get(form)))
    return tuple(findings)


def example_beta(settings: OptimSettings, norm: float = EXAMPLE_NORM) -> float:
    """Return the momentum that a form gives to a gradient of this norm, in one tensor."""
    import torch

    from musgd_cli.optim import MuSGD

    parameter = torch.nn.Parameter(torch.zeros(4, 4))
    parameter.grad = torch.full((4, 4), norm / 4)
    optimizer = MuSGD(
        [parameter],
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        second_moment=settings.second_moment,
        adapt_factor=settings.adapt_factor,
    )
    optimizer.step()
    beta = optimizer.last_beta()
    assert beta is not None  # it has just taken a step
    return float(beta)


def verdict_of(ours: Sequence[int], rivals: Sequence[Sequence[int]], highest: int) -> ClaimVerdict:
    """Judge how high a learning rate each survives, one multiple a seed.

    Args:
        ours: Of the form.
        rivals: Of SGD, and of its control.
        highest: The highest that was tried: who survives that may survive more.
    """
    best = [max(each) for each in zip(*rivals, strict=True)]
    if not best:
        return "cannot be measured here"
    if all(mine > theirs for mine, theirs in zip(ours, best, strict=True)):
        return "holds" if len(ours) > 1 else "undecided"
    pairs = zip(ours, best, strict=True)
    if all(mine < theirs or mine == theirs < highest for mine, theirs in pairs):
        return "does not hold" if len(ours) > 1 else "undecided"
    return "undecided"


def survives(curve: Curve | None) -> bool:
    """Tell whether a training ended with a lower loss than the untrained network's."""
    return curve is not None and curve.last < curve.first


def _climb(bench: Workbench, contenders: Sequence[tuple[Contender, float]]) -> dict[str, list[int]]:
    """Return, by label, the highest multiple of its rate up to which each survives, one a seed."""
    seeds = range(bench.scale.seeds)
    endured = {each.label: [1 for _ in seeds] for each, _ in contenders}
    alive = {(each.label, seed): (each, rate) for each, rate in contenders for seed in seeds}
    for multiple in bench.scale.multiples:
        trials = {
            (label, seed): _rising(bench, each, rate * multiple, seed)
            for (label, seed), (each, rate) in alive.items()
        }
        bench.matrix.train("rising", trials.values())
        for (label, seed), trial in trials.items():
            if survives(bench.matrix.curve("rising", trial)):
                endured[label][seed] = multiple
            else:
                del alive[label, seed]
    return endured


def _rising(bench: Workbench, contender: Contender, rate: float, seed: int) -> Trial:
    return bench.matrix.trial(
        contender, float(f"{rate:.2g}"), seed, epochs=1, optim__warmup_epochs=0.0
    )


def _finding(
    form: Form,
    bench: Workbench,
    settings: OptimSettings,
    survived: dict[str, list[int]],
    mean: float | None,
) -> ClaimFinding:
    ours, *rivals = survived.values()
    best = [max(each) for each in zip(*rivals, strict=True)]
    ratios = [mine / theirs for mine, theirs in zip(ours, best, strict=True)]
    beta = example_beta(settings)
    example = (
        f"a gradient of norm {EXAMPLE_NORM:g} makes its momentum {beta:.4f}"
        if beta < settings.momentum
        else f"no gradient changes its momentum of {settings.momentum:g}"
    )
    told = "; ".join(
        f"{label} survives {', '.join(map(str, each))} times" for label, each in survived.items()
    )
    average = "" if mean is None else f", which is {mean:.2g} on average in training"
    highest = max(bench.scale.multiples)
    verdict = verdict_of(ours, rivals, highest)
    return finding(
        form,
        verdict,
        ratios,
        f"{example}{average}; {told} the tuned learning rate, of at most {highest}",
        compared_with="the better of " + " and ".join(list(survived)[1:])
        if len(rivals) > 1
        else SGD.label,
    )
