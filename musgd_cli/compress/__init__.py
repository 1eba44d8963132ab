"""Export and quantization: one artifact a runtime, each read back and tried before it is kept.

The doors below import their rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from musgd_cli.records import ExportReport, PruneResult
    from musgd_cli.runs import RunFolder
    from musgd_cli.train.events import Listeners


def _ignore(_: str) -> None:
    pass


def export(
    source: str | None = None,
    *,
    targets: Iterable[str] = (),
    sizes: Iterable[int] = (),
    int8: bool = False,
    auto_mixed: bool = False,
    quantize_all: bool = False,
    strict: bool = False,
    flags: Mapping[str, Any] | None = None,
    spelling: Mapping[str, str] | None = None,
    out: Path | None = None,
    trust: bool = False,
    on_progress: Callable[[str], None] = _ignore,
    on_detail: Callable[[str], None] = _ignore,
    on_note: Callable[[str], None] = _ignore,
    on_warning: Callable[[str], None] = _ignore,
) -> ExportReport:
    """Export weights for each target: the float ONNX first, then what the target's runtimes want.

    Where a data set is known each model is held against that ONNX on images that calibrated
    nothing; the verdict is in its record, and a model that failed is kept.

    Args:
        source: A run, its folder or its name, or a ``.pt``. Default: the run that finished last.
        targets: Profiles of the machines that will run the model; ``auto`` is this one. Default:
            the run's target.
        sizes: Sides of the square input, pixels; each target is made at each. Default: the run's,
            for bare weights the profile's.
        int8: Build int8 models too, where the target's board gains from them.
        auto_mixed: Return the layers that hurt most to float where int8 does not pass the gate.
        quantize_all: Quantize also what is known to be harmed by it, as libraries do by default.
        strict: Make nothing unless everything asked for can be made.
        flags: Settings by ``section.key``, stronger than the run's and the profile's.
        spelling: ``section.key`` to the option as it was typed, to name it in errors.
        out: Where the artifacts' folders go. Default: into the run; for bare weights into
            ``runs/<stem>/artifacts``.
        trust: Load the weights without restriction: they then may run any code.
        on_progress: Told what is being done.
        on_detail: Told often, how far that is.
        on_note: Told what was replaced.
        on_warning: Told what should be known even by those who asked for quiet.

    Returns:
        What was made, the float parent of each target first, and what could not be made here.

    Raises:
        UsageError: Source, target, setting or data set is wrong.
        UnsupportedError: Not even the float parent can be made here, or ``strict`` and something
            else cannot.
        MusgdError: The first float parent could not be built or written. What ails a later model is
            in the report, with its exit code.
    """
    from musgd_cli.compress import selection, session

    found = selection.find_source(source, out)
    orders = selection.place_orders(found, targets, flags or {}, spelling, sizes)
    wishes = session.Wishes(
        int8=int8,
        auto_mixed=auto_mixed,
        quantize_all=quantize_all,
        strict=strict,
        trust=trust,
    )
    return session.export(
        found, orders, wishes, session.Listeners(on_progress, on_detail, on_note, on_warning)
    )


def prune(
    source: str | None = None,
    *,
    ratio: float | None = None,
    macs: float | None = None,
    speedup: float | None = None,
    max_drop: float | None = None,
    distill: bool = False,
    flags: Mapping[str, Any] | None = None,
    spelling: Mapping[str, str] | None = None,
    trust: bool = False,
    follow: Callable[[], AbstractContextManager[Listeners]] | None = None,
    on_progress: Callable[[str], None] = _ignore,
    on_warning: Callable[[str, str | None], None] = lambda what, mend: None,  # noqa: ARG005
) -> PruneResult:
    """Remove channels of trained weights, fine-tune what is left in a run of its own, and judge it.

    The channels go that the training loss depends on least for the work that they take.

    Args:
        source: A run, its folder or its name, or a ``.pt``. Default: the run that finished last.
        ratio: Share of the removable channels to remove; .3 if nothing else is asked for.
        macs: In its place, the share of multiply-accumulates to leave at most.
        speedup: In its place, how many times as fast the model is to be here, in ONNX Runtime.
        max_drop: Most mAP50-95 that the fine-tuned model may lose to pass the gate. Default: .04.
        distill: Let the parent teach its features in the fine-tuning. A step then takes a forward
            pass more. On BCCD at 39 % of the multiply-accumulates it did not help: mAP50-95 .565
            against .573 without (10 epochs, one seed, on test).
        flags: Settings by ``section.key``, stronger than the run's.
        spelling: ``section.key`` to the option as it was typed, to name it in errors.
        trust: Load the weights without restriction: they then may run any code.
        follow: Opens what is told of the fine-tuning and asked whether to stop.
        on_progress: Told what is being done.
        on_warning: Told what should be known even by those who asked for quiet, and what to do.

    Returns:
        What came of it, as it stands in the run's ``prune.json``. The gate may have failed.

    Raises:
        UsageError: Source, goal, setting or data set is wrong, or the goal cannot be reached.
        UnsupportedError: Something is not installed, or the network has layers we cannot prune.
        TrainingInterruptedError: The fine-tuning was stopped; the run can be resumed.
        MusgdError: Training failed, or something could not be written.
    """
    from musgd_cli.compress import prune_job

    job = prune_job.settle_job(
        source,
        {"ratio": ratio, "macs": macs, "speedup": speedup},
        flags=flags or {},
        spelling=spelling or {},
        max_drop=max_drop,
        distill=distill,
        trust=trust,
    )
    from musgd_cli.train import sandbox

    sandbox.prepare()
    from contextlib import nullcontext

    from musgd_cli.compress import pruning
    from musgd_cli.train.events import Listeners

    return pruning.prune(
        job,
        follow=follow or (lambda: nullcontext(Listeners())),
        on_progress=on_progress,
        on_warning=on_warning,
    )


def is_unjudged(run: RunFolder) -> bool:
    """Tell whether a run fine-tunes a pruned model and was not yet held against its parent.

    Raises:
        UsageError: Its ``prune.json`` is damaged.
    """
    if not run.prune_file.is_file():
        return False
    from musgd_cli.records import PruneResult
    from musgd_cli.storage import read_record

    return read_record(run.prune_file, PruneResult).gate is None


def finish_pruning(
    run: RunFolder, *, trust: bool = False, on_progress: Callable[[str], None] = _ignore
) -> PruneResult:
    """Hold a run whose fine-tuning was interrupted, and then finished, against its parent.

    Args:
        run: A finished run that `is_unjudged`.
        trust: Load the parent's weights without restriction: they then may run any code.
        on_progress: Told what is being done.

    Returns:
        What `prune` would have returned; ``prune.json`` is completed by it.

    Raises:
        UsageError: The parent's weights or the data set are gone or have changed.
        UnsupportedError: Something is not installed.
        TrainingInterruptedError: It was stopped; the run is kept.
        MusgdError: Something could not be written.
    """
    from musgd_cli.compress import prune_job

    prune_job.require_installed()
    from musgd_cli.train import sandbox

    sandbox.prepare()
    from musgd_cli.compress import pruning

    return pruning.finish(run, trust=trust, on_progress=on_progress)
