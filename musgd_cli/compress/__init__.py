"""Export and quantization: one artifact a runtime, each read back and tried before it is kept.

The door below imports its rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musgd_cli.records import ExportReport


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
        on_note: Told what was replaced.
        on_warning: Told what should be known even by those who asked for quiet.

    Returns:
        What was made, the float parent of each target first, and what could not be made here.

    Raises:
        UsageError: Source, target, setting or data set is wrong.
        UnsupportedError: Not even the float parent can be made here, or ``strict`` and something
            else cannot.
        MusgdError: A model could not be built or written, or does not do what its parent does.
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
        found, orders, wishes, session.Listeners(on_progress, on_note, on_warning)
    )
