"""``--auto-mixed``: return to float the layers that int8 harms most, until the gate passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from musgd_cli.compress import formats, onnx_graph, timing
from musgd_cli.compress.silence import silence
from musgd_cli.errors import MusgdError
from musgd_cli.records import Artifact, Repair

if TYPE_CHECKING:
    from musgd_cli.compress.artifacts import Draft
    from musgd_cli.compress.sensitivity import Sensitivity

BUILDS = 6
"""Models scored at most: with the worst group in float, the worst 2, 4 and so on. A choice that
changes nothing, as the format keeps those float anyway, does not count."""

IMAGES = 4
"""Calibration images that the sensitivity is measured on."""

TIMED = 30
"""Inferences that the cost of the repair is measured by, of each model."""


class Builder(Protocol):
    """Builds and judges one model; `musgd_cli.compress.session` has it."""

    @property
    def material(self) -> formats.Material:
        """What it is built from, nothing of it kept float."""
        ...

    def scratch(self) -> Path:
        """Return the path of a new scratch folder."""
        ...

    def draft(self, keep_float: frozenset[str]) -> Draft:
        """Build the model with these nodes of the parent in float."""
        ...

    def judge(self, draft: Draft) -> Artifact:
        """Return the draft's record with its gate."""
        ...


def repair(
    builder: Builder,
    first: Draft,
    judged: Artifact,
    *,
    on_progress: Callable[[str], None],
    on_detail: Callable[[str], None],
    on_warning: Callable[[str], None],
) -> tuple[Draft, Artifact]:
    """Rebuild a model that did not pass, with more and more of its worst layers in float.

    Which layers are the worst is measured in ONNX Runtime, by one int8 group at a time in the float
    parent: every group that some format quantizes. Other runtimes round elsewhere, so for them the
    order is a good guess.

    Args:
        builder: Builds it.
        first: The model that did not pass.
        judged: Its record.
        on_progress: Told what is being done.
        on_detail: Told how far the measurement of the layers is.
        on_warning: Told of a rebuild that failed; what was built before it still works.

    Returns:
        The first model within the limits, or else the one that lost least, and its record; `Repair`
        says what was returned and what it cost.
    """
    on_progress("measuring which layers int8 harms")
    groups = _worst_first(builder, on_detail)
    best, record = first, judged
    kept: tuple[str, ...] = ()
    known = {first.artifact.sha256}
    size, builds = 1, 0
    while builds < BUILDS and record.gate is not None and record.gate.falls_short:
        nodes = tuple(node for group in groups[:size] for node in group.nodes)
        on_progress(f"repair {builds + 1} of {BUILDS}: {len(nodes)} operations in float")
        try:
            draft = builder.draft(frozenset(nodes))
            found = builder.judge(draft) if draft.artifact.sha256 not in known else None
        except MusgdError as error:
            on_warning(f"the repair ends early: {error.what}")
            break
        if found is not None:
            known.add(draft.artifact.sha256)
            builds += 1
            if _better(found, record):
                best, record, kept = draft, found, nodes
        if size >= len(groups):
            break
        size *= 2
    outcome = Repair(
        nodes=kept,
        builds=builds,
        drop_before=judged.gate.map50_95_drop if judged.gate else None,
        int8_macs_share_before=judged.int8_macs_share or 0.0,
        size_mb_before=judged.size_mb,
        time_ratio=_time_ratio(best, first),
    )
    return best, record.model_copy(update={"repair": outcome})


def _worst_first(builder: Builder, on_detail: Callable[[str], None]) -> list[Sensitivity]:
    from musgd_cli.compress import sensitivity

    material = builder.material
    assert material.inputs is not None
    folder = builder.scratch()
    folder.mkdir()
    with silence():
        file = quantize_all_that_some_do(material, folder)
    return sensitivity.rank(
        material.onnx, file, list(islice(material.inputs, IMAGES)), on_progress=on_detail
    )


def quantize_all_that_some_do(material: formats.Material, folder: Path) -> Path:
    """Write a QDQ ONNX in which everything is int8 that some format makes so, and return it."""
    quantizer = formats.format_of("onnxruntime")
    graph = onnx_graph.load(material.onnx).graph
    # What every format keeps float; attention, which ONNX Runtime's does too, others quantize.
    never = onnx_graph.decode_nodes(graph) | onnx_graph.last_convolutions(graph)
    everything = replace(
        material,
        quantize_all=True,
        keep_float=frozenset() if material.quantize_all else never,
    )
    quantizer.build(everything, folder, "int8")
    return folder / quantizer.FILES[0]


def _better(found: Artifact, record: Artifact) -> bool:
    assert found.gate is not None
    assert record.gate is not None
    order = ("passed", "inconclusive", "failed")
    ours, theirs = (order.index(a.gate.verdict) for a in (found, record) if a.gate is not None)
    if ours != theirs:
        return ours < theirs
    return (found.gate.map50_95_drop or 0.0) < (record.gate.map50_95_drop or 0.0)


def _time_ratio(repaired: Draft, before: Draft) -> float | None:
    """Return how much longer an inference takes on one thread."""
    if repaired.has_stand_in or repaired is before:
        return None
    (ours, theirs), _ = timing.in_turns(
        (repaired, before), threads=1, warmup_s=0, duration_s=0, at_least=TIMED
    )
    return ours.p50 / theirs.p50
