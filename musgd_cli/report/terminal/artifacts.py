"""``musgd export`` for people: what was made, how it holds against its parent, what was not."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from musgd_cli.records import Artifact, ExportReport, Gate, Repair, SkippedExport

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
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [_ExportTable(report)] if report.artifacts else []
    parts += [Text(line, style="dim") for line in _legend(report)]
    for artifact in report.artifacts:
        parts += list(_remarks(artifact))
    for (target, runtime, mend), rows in _grouped(report.skipped).items():
        word = "failed" if any(row.exit_code is not None for row in rows) else "skipped"
        why = "; ".join(row.why for row in rows)
        parts += [
            Text.assemble((f"{word}: ", "yellow"), f"{target} {runtime}: {why}"),
            Text.assemble(("mend: ", "dim"), mend),
        ]
    if report.artifacts:
        parts.append(Text.assemble(("next: ", "bold"), f"musgd bench {_place(report)}"))
    return Group(*parts)


def _grouped(
    skipped: Iterable[SkippedExport],
) -> dict[tuple[str, str, str], list[SkippedExport]]:
    groups: dict[tuple[str, str, str], list[SkippedExport]] = {}
    for row in skipped:
        groups.setdefault((row.target, row.runtime, row.mend), []).append(row)
    return groups


@dataclass(frozen=True)
class _ExportTable:
    """The table, with as many of its columns as fit: a figure that is cut is another figure."""

    report: ExportReport

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.measure import Measurement

        tables = [self._table(kept) for kept in _LAYOUTS]
        fitting = (
            table
            for table in tables
            if Measurement.get(console, options.update(width=_ENDLESS), table).maximum
            <= options.max_width
        )
        yield next(fitting, tables[-1])

    def _table(self, kept: frozenset[str]) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
        shown = [column for column in _COLUMNS if column.name in kept]
        for column in shown:
            table.add_column(column.heading, justify=column.justify, no_wrap=True)
        for (target, imgsz), artifacts in groupby(
            self.report.artifacts, lambda a: (a.target, a.imgsz)
        ):
            mine = list(artifacts)
            table.add_row(Text(f"{target}, {imgsz} px", style="bold"))
            for artifact in mine:
                cells = _cells(artifact, mine)
                table.add_row(*(cells.get(column.name, "") for column in shown))
        return table


_ENDLESS = 10_000


class _Column(NamedTuple):
    name: str
    heading: str
    justify: Literal["left", "right"] = "right"


_COLUMNS = (
    _Column("model", "model", "left"),
    _Column("share", "int8\nMACs"),
    _Column("size", "MB"),
    _Column("map", "mAP\n50-95"),
    _Column("drop", "drop"),
    _Column("interval", "90 % of\nthe drop"),
    _Column("boxes", "boxes"),
    _Column("small", "small"),
    _Column("gate", "gate", "left"),
)
_ALL = frozenset(column.name for column in _COLUMNS)
_LAYOUTS = (
    _ALL,
    _ALL - {"small"},
    _ALL - {"small", "interval"},
    _ALL - {"small", "interval", "boxes"},
    _ALL - {"small", "interval", "boxes", "share"},
    frozenset({"model", "drop", "gate"}),
)


def _cells(artifact: Artifact, target: list[Artifact]) -> dict[str, RenderableType]:
    from rich.text import Text

    gate = artifact.gate
    # A repaired or a refused precision should not be overlooked.
    style = "" if artifact.precision == artifact.precision_asked else "yellow"
    cells: dict[str, RenderableType] = {
        "model": Text(f"{artifact.runtime} {artifact.precision}", style=style),
        "share": f"{artifact.int8_macs_share:.0%}" if artifact.int8_macs_share else "",
        "size": f"{artifact.size_mb:.2f}",
    }
    if gate is not None:
        verdict, style = VERDICTS[gate.verdict]
        return cells | {
            "map": figure(gate.map50_95),
            "drop": figure(gate.map50_95_drop),
            "interval": interval(gate),
            "boxes": f"{figure(gate.match_recall, 2)}/{figure(gate.match_precision, 2)}",
            "small": figure(gate.recall_small),
            "gate": Text(f"{verdict}{'*' if gate.has_stand_in else ''}", style=style),
        }
    if artifact is not target[0]:
        return cells | {"gate": Text("no data", style="dim")}
    # Models of the other head are held against another parent than this one.
    children = (a.gate for a in target if a.parent_sha256 == artifact.sha256)
    judged = next(filter(None, children), None)
    if judged is not None:
        cells["map"] = figure(judged.parent_map50_95)
        cells["small"] = figure(judged.parent_recall_small)
    return cells | {"gate": Text("parent", style="dim")}


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
        images = "1 image" if n == 1 else f"{n} images"
        yield f"held against the float parent on {images} of {data}, {split}: none calibrated"
    drops = " or ".join(dict.fromkeys(f"{gate.max_drop:g}" for gate in gates))
    shares = sorted({gate.least_matched for gate in gates if gate.least_matched is not None})
    limits = f", of the boxes {_span(shares)} in common" if shares else ""
    yield (
        f"to pass: at most {drops} of mAP50-95 lost{limits}; interval by bootstrap over images. "
        "boxes: share of the parent's that it keeps / of its own that the parent has "
        "(score > .25, IoU > .5). small: recall of objects under 32² px"
    )
    for runtime, scored_by in dict.fromkeys(
        (a.runtime, a.gate.scored_by)
        for a in report.artifacts
        if a.gate is not None and a.gate.has_stand_in
    ):
        yield f"* {runtime} does not run here: the same file was scored by {scored_by}"


def _span(shares: list[float]) -> str:
    """Write the least shares of boxes, which depend on the precision."""
    low, high = f"{shares[0]:.0%}", f"{shares[-1]:.0%}"
    return f"at least {low}" if low == high else f"at least {low} (int8) to {high} (fp32)"


def _remarks(artifact: Artifact) -> Iterator[RenderableType]:
    from rich.text import Text

    name = f"{artifact.target} {artifact.runtime} {artifact.precision}, {artifact.imgsz} px"
    gate, repair = artifact.gate, artifact.repair
    if artifact.precision != artifact.precision_asked:
        yield Text(f"{name}: {artifact.precision_asked} was asked for")
    if repair is not None:
        yield Text(f"{name}: {_repair(artifact, repair)}")
        nodes = ", ".join(repair.nodes[:SHOWN_NODES])
        more = len(repair.nodes) - SHOWN_NODES
        if nodes:
            yield Text(f"  {nodes}{f' and {more} more' if more > 0 else ''}", style="dim")
    if gate is not None and gate.verdict != "passed":
        verdict, style = VERDICTS[gate.verdict]
        for reason in gate.reasons:
            yield Text.assemble((verdict, style), f": {name}: {reason}")


def _repair(artifact: Artifact, repair: Repair) -> str:
    builds = "1 repair was" if repair.builds == 1 else f"{repair.builds} repairs were"
    if not repair.nodes:
        return f"{builds} tried, none of them better"
    gate = artifact.gate
    outcome = "the best" if gate is None or gate.falls_short else "the first within the limits"
    cost = "" if repair.time_ratio is None else f", {repair.time_ratio:.2f} x the time"
    drop = figure(gate.map50_95_drop if gate else None)
    return (
        f"{builds} tried; {outcome}, by these same images, has {len(repair.nodes)} operations in "
        f"float: drop {figure(repair.drop_before)} -> {drop}, "
        f"int8 MACs {repair.int8_macs_share_before:.0%} -> {artifact.int8_macs_share:.0%}, "
        f"{repair.size_mb_before:.2f} -> {artifact.size_mb:.2f} MB{cost}"
    )


def _place(report: ExportReport) -> str:
    """Return the run that the artifacts lie in, or their folder."""
    place = PurePath(report.artifacts[0].path).parent
    return shlex.quote(str(place.parent if place.name == "artifacts" else place))
