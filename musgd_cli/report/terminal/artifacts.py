"""``musgd export`` for people: what was made, what was not, and what to type next."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from musgd_cli.records import Artifact, ExportReport

LICENSE_NOTE = (
    "Ultralytics states that models trained with it are under AGPL-3.0, or its Enterprise licence: "
    "https://ultralytics.com/license"
)


def export_table(report: ExportReport) -> RenderableType:
    """Return the table of artifacts, what was skipped under it, and the next command."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("target", "runtime", "asked", "built"):
        table.add_column(heading, no_wrap=True)
    for heading in ("int8\nMACs", "px", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("sha256", no_wrap=True)
    table.add_column("folder", overflow="fold")
    for artifact in report.artifacts:
        kept = artifact.precision == artifact.precision_asked
        table.add_row(
            artifact.target,
            artifact.runtime,
            artifact.precision_asked,
            Text(artifact.precision, style="bold" if kept else "bold yellow"),
            _share(artifact),
            str(artifact.imgsz),
            f"{artifact.size_mb:.2f}",
            artifact.sha256[:8],
            Text(artifact.path),
        )
    parts: list[RenderableType] = [table]
    for row in report.skipped:
        parts += [
            Text.assemble(("skipped: ", "yellow"), f"{row.target} {row.runtime}: {row.why}"),
            Text.assemble(("mend: ", "dim"), row.mend),
        ]
    if report.artifacts:
        parts.append(Text.assemble(("next: ", "bold"), f"musgd bench {_place(report)}"))
    return Group(*parts)


def _share(artifact: Artifact) -> str:
    return f"{artifact.int8_macs_share:.0%}" if artifact.int8_macs_share else "-"


def _place(report: ExportReport) -> str:
    """Return the run that the artifacts lie in, or their folder."""
    place = PurePath(report.artifacts[0].path).parent
    return shlex.quote(str(place.parent if place.name == "artifacts" else place))
