"""``musgd prune`` for people: before, after pruning and after fine-tuning, and the gate."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from musgd_cli.report.terminal.artifacts import VERDICTS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from musgd_cli.records import PruneResult, PruneStage


def pruning_table(result: PruneResult, folder: str) -> RenderableType:
    """Return the three stages, the verdict, and the next command.

    Args:
        result: What came of pruning.
        folder: The run's folder, as the person would type it.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    headings = ("mAP50-95", "mAP50", "small", "MMACs", "M params", "MB", "p50 ms", "speed")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    stages = (("before", result.before), ("pruned", result.pruned), ("fine-tuned", result.tuned))
    for name, stage in stages:
        if stage is not None:
            table.add_row(Text(name), *_cells(stage, result.before))
    parts: list[RenderableType] = [
        Text(f"{result.run}: {_removed(result)}", style="bold"),
        table,
        *(Text(line, style="dim") for line in _conditions(result)),
    ]
    if result.gate is not None:
        parts.append(_verdict(result))
    command = f"musgd export {shlex.quote(folder)} --int8"
    parts.append(Text.assemble(("next: ", "bold"), command))
    return Group(*parts)


def _cells(stage: PruneStage, before: PruneStage) -> list[str]:
    return [
        *map(_share, (stage.map50_95, stage.map50, stage.recall_small)),
        f"{stage.macs / 1e6:.0f}",
        f"{stage.parameters / 1e6:.2f}",
        f"{stage.size_mb:.2f}",
        f"{stage.latency_ms.p50:.2f}",
        f"{before.latency_ms.p50 / stage.latency_ms.p50:.2f} x",
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _removed(result: PruneResult) -> str:
    return (
        f"{result.removed:.0%} of the channels removed, "
        f"{result.macs_share:.0%} of the multiply-accumulates left"
    )


def _conditions(result: PruneResult) -> Iterator[str]:
    gate = result.gate
    if gate is not None:
        split = "val, which also chose the epoch" if gate.split == "val" else gate.split
        yield f"scored on {gate.n_images} images of {gate.data}, {split}"
    threads = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    yield (
        f"p50 of {result.n} inferences each, in turns: ONNX Runtime fp32, {threads}, "
        f"{result.imgsz} px; pruned and fine-tuned are one shape, timed once"
    )
    if result.asked == "speedup":
        yield (
            "speed is the ratio of the p50; --speedup went by the least of the samples, which a "
            "busy machine sways less"
        )


def _verdict(result: PruneResult) -> RenderableType:
    from rich.text import Text

    gate = result.gate
    assert gate is not None
    verdict, style = VERDICTS[gate.verdict]
    if gate.verdict == "inconclusive" or gate.map50_95_drop is None or gate.interval is None:
        return Text.assemble("gate: ", (verdict, style), f": {'; '.join(gate.reasons)}")
    low, high = gate.interval
    return Text.assemble(
        "gate: ",
        (verdict, style),
        f", mAP50-95 lost: {gate.map50_95_drop:.4f} (90 % interval {low:.4f} to {high:.4f}), "
        f"of at most {gate.max_drop:g}",
    )
