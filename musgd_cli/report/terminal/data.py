"""A data set's check on one screen: splits, classes, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from musgd_cli.records import ClassStats, DataFault, DataReport, SplitStats

CLASSES_SHOWN = 12
"""Where there are more, the commonest and the rarest stand for them."""
FAULTS_SHOWN = 5
"""Of each kind; ``--json`` has all."""


def render(report: DataReport) -> RenderableType:
    """Return the whole report: a table of splits, one of classes, and the faults by kind."""
    from rich.console import Group

    return Group(splits_table(report), classes_table(report), *_fault_lines(report))


def _table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # As Text: a path may hold brackets.
    return Table(
        box=SIMPLE_HEAD, title=Text(title, style="bold"), title_justify="left", pad_edge=False
    )


def splits_table(report: DataReport) -> RenderableType:
    """Return the table of splits: images, backgrounds, boxes by size, image sizes."""
    table = _table(report.path)
    table.add_column("split", no_wrap=True)
    # The last three count boxes by area in pixels.
    columns = ("images", "background", "boxes", "<32²", "<96²", "≥96²")
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    table.add_column("image size", overflow="fold")
    for split in report.splits:
        mark = " (scored)" if split.split == report.score_split else ""
        counts = (
            split.n_images,
            split.n_background,
            split.boxes.total,
            split.boxes.small,
            split.boxes.medium,
            split.boxes.large,
        )
        table.add_row(f"{split.split}{mark}", *map(str, counts), _image_sizes(split))
    return table


def _image_sizes(split: SplitStats) -> str:
    if split.smallest_image is None or split.largest_image is None:
        return "-"
    smallest, largest = (f"{w}x{h}" for w, h in (split.smallest_image, split.largest_image))
    return smallest if smallest == largest else f"{smallest} to {largest}"


def classes_table(report: DataReport) -> RenderableType:
    """Return the table of classes: boxes in each split. Of many classes, the extremes."""
    classes = list(report.classes)
    title = f"{len(classes)} classes" if len(classes) > 1 else "1 class"
    if len(classes) > CLASSES_SHOWN:
        title += f", the {CLASSES_SHOWN} commonest and rarest"
        by_count = sorted(classes, key=lambda found: -sum(found.boxes.values()))
        half = CLASSES_SHOWN // 2
        classes = [*by_count[:half], *by_count[-half:]]
    table = _table(title)
    table.add_column("id", justify="right")
    table.add_column("class", overflow="fold")
    for split in report.splits:
        table.add_column(f"boxes in {split.split}", justify="right")
    for found in classes:
        _add_class(table, found, report)
    return table


def _add_class(table: Table, found: ClassStats, report: DataReport) -> None:
    from rich.text import Text

    counts = (str(found.boxes[split.split]) for split in report.splits)
    style = "yellow" if not found.boxes["train"] else None
    table.add_row(str(found.class_id), Text(found.name), *counts, style=style)


def _fault_lines(report: DataReport) -> Iterator[Text]:
    from rich.text import Text

    if not report.faults:
        yield Text("no faults", style="green")
        return
    for (severity, kind), group in groupby(report.faults, lambda f: (f.severity, f.kind)):
        yield from _kind_lines(severity, kind, list(group))


def _kind_lines(severity: str, kind: str, faults: list[DataFault]) -> Iterator[Text]:
    from rich.text import Text

    style = "bold red" if severity == "error" else "yellow"
    yield Text(f"{severity}: {kind.replace('-', ' ')} ({len(faults)})", style=style)
    for fault in faults[:FAULTS_SHOWN]:
        yield Text(f"  {fault.where}: {fault.what}")
    if len(faults) > FAULTS_SHOWN:
        yield Text(f"  and {len(faults) - FAULTS_SHOWN} more; --json lists all", style="dim")
