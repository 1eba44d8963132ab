"""``musgd export`` for people: what was made, how it holds against its parent, what was not."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from musgd_cli.records import Artifact, ExportReport, Gate

LICENSE_NOTE = (
    "Ultralytics states that models trained with it are under AGPL-3.0, or its Enterprise licence: "
    "https://ultralytics.com/license"
)

VERDICTS = {
    "passed": ("passed", "green"),
    "inconclusive": ("unclear", "yellow"),
    "failed": ("FAILED", "bold red"),
}
"""How a verdict is written, and in which style."""

SHOWN_NODES = 6
"""Operations that a repair names; the rest stand in ``artifact.json``."""


def export_table(report: ExportReport) -> RenderableType:
    """Return the table of artifacts, what was skipped under it, and the next command."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
    table.add_column("model", no_wrap=True)
    for heading in (
        "int8\nMACs",
        "MB",
        "mAP\n50-95",
        "drop",
        "90 % of\nthe drop",
        "boxes",
        "small",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("gate", no_wrap=True)
    for (target, imgsz), artifacts in groupby(report.artifacts, lambda a: (a.target, a.imgsz)):
        mine = list(artifacts)
        table.add_row(Text(f"{target}, {imgsz} px", style="bold"))
        for artifact in mine:
            table.add_row(*_row(artifact, mine))
    parts: list[RenderableType] = [table]
    parts += [Text(line, style="dim") for line in _legend(report)]
    for artifact in report.artifacts:
        parts += list(_remarks(artifact))
    for row in report.skipped:
        parts += [
            Text.assemble(("skipped: ", "yellow"), f"{row.target} {row.runtime}: {row.why}"),
            Text.assemble(("mend: ", "dim"), row.mend),
        ]
    if report.artifacts:
        parts.append(Text.assemble(("next: ", "bold"), f"musgd bench {_place(report)}"))
    return Group(*parts)


def _row(artifact: Artifact, target: list[Artifact]) -> list[RenderableType]:
    from rich.text import Text

    gate = artifact.gate
    name = f"{artifact.runtime} {artifact.precision}"
    # A repaired or a refused precision should not be overlooked.
    style = "" if artifact.precision == artifact.precision_asked else "yellow"
    row: list[RenderableType] = [
        Text(name, style=style),
        f"{artifact.int8_macs_share:.0%}" if artifact.int8_macs_share else "",
        f"{artifact.size_mb:.2f}",
    ]
    if gate is not None:
        verdict, style = VERDICTS[gate.verdict]
        return [
            *row,
            figure(gate.map50_95),
            figure(gate.map50_95_drop),
            interval(gate),
            f"{figure(gate.match_recall, 2)}/{figure(gate.match_precision, 2)}",
            figure(gate.recall_small),
            Text(verdict, style=style),
        ]
    if artifact is target[0]:
        judged = next((a.gate for a in target if a.gate is not None), None)
        accuracy = figure(judged.parent_map50_95 if judged else None)
        small = figure(judged.parent_recall_small if judged else None)
        return [*row, accuracy, "", "", "", small, Text("parent", style="dim")]
    return [*row, "", "", "", "", "", Text("no data", style="dim")]


def figure(value: float | None, digits: int = 3) -> str:
    """Write a figure below 1 without its zero; a dash where it could not be measured."""
    return "-" if value is None else f"{value:.{digits}f}".replace("0.", ".", 1)


def interval(gate: Gate) -> str:
    """Write the interval of the drop."""
    if gate.interval is None:
        return "-"
    return "/".join(figure(end) for end in gate.interval)


def _legend(report: ExportReport) -> Iterator[str]:
    gates = [artifact.gate for artifact in report.artifacts if artifact.gate is not None]
    if not gates:
        return
    for n, data, split in dict.fromkeys((gate.n_images, gate.data, gate.split) for gate in gates):
        yield f"held against the float parent on {n} images of {data}, {split}: none calibrated"
    limits = " or ".join(dict.fromkeys(f"{gate.max_drop:g}" for gate in gates))
    yield (
        f"passed: at most {limits} of mAP50-95 lost, interval by bootstrap over the images. "
        "boxes: share of the parent's that it keeps / of its own that the parent has "
        "(score > .25, IoU > .5). small: recall of objects under 32² px"
    )


def _remarks(artifact: Artifact) -> Iterator[RenderableType]:
    from rich.text import Text

    name = f"{artifact.target} {artifact.runtime} {artifact.precision}, {artifact.imgsz} px"
    gate, repair = artifact.gate, artifact.repair
    if artifact.precision != artifact.precision_asked:
        yield Text(f"{name}: {artifact.precision_asked} was asked for")
    if repair is not None:
        nodes = ", ".join(repair.nodes[:SHOWN_NODES])
        more = len(repair.nodes) - SHOWN_NODES
        cost = "" if repair.time_ratio is None else f", {repair.time_ratio:.2f} x the time"
        builds = "1 build" if repair.builds == 1 else f"{repair.builds} builds"
        yield Text(
            f"{name}: repaired in {builds}, {len(repair.nodes)} operations in float: "
            f"drop {figure(repair.drop_before)} -> {figure(gate.map50_95_drop if gate else None)}, "
            f"int8 MACs {repair.int8_macs_share_before:.0%} -> {artifact.int8_macs_share:.0%}, "
            f"{repair.size_mb_before:.2f} -> {artifact.size_mb:.2f} MB{cost}"
        )
        yield Text(f"  {nodes}{f' and {more} more' if more > 0 else ''}", style="dim")
    if gate is not None and gate.verdict != "passed":
        verdict, style = VERDICTS[gate.verdict]
        for reason in gate.reasons:
            yield Text.assemble((verdict, style), f": {name}: {reason}")


def _place(report: ExportReport) -> str:
    """Return the run that the artifacts lie in, or their folder."""
    place = PurePath(report.artifacts[0].path).parent
    return shlex.quote(str(place.parent if place.name == "artifacts" else place))
