"""C7 and C8: what pruning and quantization make of models that each optimizer trained."""

from __future__ import annotations

import contextlib
import math
import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from musgd_cli import compress
from musgd_cli.errors import ExitCode, MusgdError
from musgd_cli.lab.claims.convergence import FEWER
from musgd_cli.lab.claims.curves import Curve, step_ratios
from musgd_cli.lab.claims.matrix import SGD
from musgd_cli.lab.claims.verdicts import FORMS, above, at_most, finding, unmeasured
from musgd_cli.lab.claims.workbench import Workbench
from musgd_cli.lab.contenders import Contender
from musgd_cli.lab.trials import StoppedError
from musgd_cli.paths import RUNS
from musgd_cli.records import Artifact, ClaimFinding, Gate
from musgd_cli.runs import RunFolder, artifact_folders, read_artifact
from musgd_cli.train.events import Listeners

RATIO = 0.3
"""Of the channels, that are pruned."""

LR_SHARE = 1 / 3
"""Of the tuned learning rate, as ``musgd prune`` fine-tunes."""

LEAST_MAP = 0.02
"""mAP50-95 of a model that can be said to lose some of it."""

MATTERS = 0.01
"""Share of a model's mAP50-95 that is too little to be better by."""

_PRUNED = "pruned"


def pruning(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C7: steps of fine-tuning to the training loss that SGD's ends with, on one pruned model."""
    matrix = bench.matrix
    contenders = [SGD, *(Contender.parse(form) for form in FORMS)]
    scored = matrix.score(contenders)
    # One parent for all, the most accurate: who trained it best may not matter.
    parent = max((run for runs in scored.values() for run in runs), key=_map50)
    weights = _pruned_weights(bench, parent)
    trials = {
        each.label: [
            matrix.trial(
                each,
                float(f"{matrix.rate(each) * LR_SHARE:.2g}"),
                seed,
                bench.scale.tuning_epochs,
                train__model=str(weights),
                optim__warmup_epochs=0.0,
            )
            for seed in range(bench.scale.seeds)
        ]
        for each in contenders
    }
    runs = matrix.complete("pruned", trials)
    curves = {label: [Curve.of(run) for run in each] for label, each in runs.items()}
    findings = []
    for form in FORMS:
        steps = step_ratios(curves[form], curves[SGD.label])
        findings.append(
            finding(
                form,
                at_most(steps.ratios, FEWER),
                steps.ratios,
                f"{RATIO:.0%} of the channels of {parent.name} removed{steps.in_words}",
                compared_with=f"{SGD.label}, each at a third of its tuned learning rate",
            )
        )
    return tuple(findings)


def quantization(bench: Workbench) -> tuple[ClaimFinding, ...]:
    """C8: mAP50-95 that int8 weights and activations lose, as a share of the float model's."""
    contenders = [SGD, *(Contender.parse(form) for form in FORMS)]
    scored = bench.matrix.score(contenders)
    gates: dict[str, list[Gate]] = {}
    for label, runs in scored.items():
        gates[label] = [_gate(bench, run) for run in runs]
    findings = []
    for form in FORMS:
        pairs = [
            (mine, theirs)
            for mine, theirs in zip(gates[form], gates[SGD.label], strict=True)
            if _can_lose(mine) and _can_lose(theirs)
        ]
        if not pairs:
            findings.append(
                unmeasured(
                    form,
                    f"the models find too little to lose any: mAP50-95 below {LEAST_MAP:g} after "
                    f"{bench.scale.epochs} epochs; musgd claims --full trains longer",
                )
            )
            continue
        gain, interval = saved(pairs)
        losses = [statistics.mean(map(_share_lost, side)) for side in zip(*pairs, strict=True)]
        findings.append(
            finding(
                form,
                above(interval, MATTERS),
                [gain],
                f"int8 costs it {losses[0]:+.1%} of its mAP50-95, {SGD.label} {losses[1]:+.1%}; "
                f"{len(pairs)} seeds, {pairs[0][0].n_images} images of the {pairs[0][0].split} "
                "split, which calibrated nothing; the spread is the 90 % interval over images",
                compared_with=SGD.label,
                spread=interval,
            ).model_copy(update={"n": len(pairs)})
        )
    return tuple(findings)


def _map50(run: RunFolder) -> float:
    return run.result().map50 or 0.0


def _can_lose(gate: Gate) -> bool:
    return gate.interval is not None and (gate.parent_map50_95 or 0.0) >= LEAST_MAP


def _share_lost(gate: Gate) -> float:
    assert gate.map50_95_drop is not None
    assert gate.parent_map50_95 is not None
    return gate.map50_95_drop / gate.parent_map50_95


def saved(pairs: Sequence[tuple[Gate, Gate]]) -> tuple[float, tuple[float, float]]:
    """Return the mean share that the first loses less than the second, and its interval."""
    gains, variances = [], []
    for mine, theirs in pairs:
        gains.append(_share_lost(theirs) - _share_lost(mine))
        for gate in (mine, theirs):
            assert gate.interval is not None
            assert gate.parent_map50_95 is not None
            low, high = gate.interval
            variances.append(((high - low) / 2 / gate.parent_map50_95) ** 2)
    gain = statistics.mean(gains)
    half = math.sqrt(sum(variances)) / len(pairs)
    # Seeds that differ by more than the images explain widen it.
    low, high = min(gain - half, *gains), max(gain + half, *gains)
    return gain, (low, high)


def _gate(bench: Workbench, run: RunFolder) -> Gate:
    """Return what the gate found of a run's int8 model, which is built if it is not there."""
    kept = _int8(read_artifact(folder) for folder in artifact_folders(run.path))
    if kept is not None:
        return kept
    bench.tell(f"exporting {run.name} to int8")
    report = compress.export(
        str(run.path),
        int8=True,
        quantize_all=True,  # weights and activations, without what musgd spares
        flags={
            "compress.runtimes": ("onnxruntime",),
            "compress.precisions": ("fp32",),
            "compress.calib": bench.scale.calib,
        },
    )
    gate = _int8(iter(report.artifacts))
    if gate is None:
        skipped = report.skipped[0] if report.skipped else None
        raise MusgdError(
            skipped.why if skipped else f"{run.name} gave no int8 model that could be scored",
            skipped.mend if skipped else "give a data set with objects",
        )
    if bench.stop():
        raise _stopped()
    return gate


def _int8(artifacts: Iterator[Artifact]) -> Gate | None:
    found = (each for each in artifacts if each.precision in ("int8", "mixed-int8"))
    return next((each.gate for each in found if each.gate is not None), None)


def _pruned_weights(bench: Workbench, parent: RunFolder) -> Path:
    """Return the pruned weights of a run, before any fine-tuning."""
    home = RunFolder(bench.folder / _PRUNED / RUNS / f"{parent.name}-pruned")
    weights = home.weights / "pruned.pt"
    if home.prune_file.exists() and weights.exists():
        return weights
    shutil.rmtree(home.path, ignore_errors=True)  # cut off while it was made
    bench.tell(f"pruning {parent.name}")
    (bench.folder / _PRUNED).mkdir(parents=True, exist_ok=True)
    # Pruning writes below ./runs, and these are none of the user's runs.
    with contextlib.chdir(bench.folder / _PRUNED):
        try:
            compress.prune(
                str(parent.path),
                ratio=RATIO,
                flags={
                    "train.epochs": 1,
                    "train.name": home.name,
                    "bench.duration_s": 1.0,
                    "bench.warmup_s": 0.0,
                },
                follow=lambda: contextlib.nullcontext(Listeners(stop=bench.stop)),
            )
        except MusgdError as error:
            if error.exit_code == ExitCode.INTERRUPTED:
                raise _stopped() from error
            raise
    return weights


def _stopped() -> StoppedError:
    return StoppedError(
        "stopped as asked; what is finished is kept", "type the same command to go on"
    )
