"""``musgd bench --against`` for people: each report beside its baseline, and what that can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from musgd_cli.report.wording import count, three_digits

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from musgd_cli.records import Change, Comparison

_ENDLESS = 10_000

_STYLES = {"faster": "green", "slower": "red", "no difference shown": "", "cannot be told": "dim"}


def comparison_table(comparisons: Sequence[Comparison]) -> RenderableType:
    """Return the table and its notes; ``comparisons`` has at least one."""
    from rich.console import Group
    from rich.text import Text

    told = [comparison for comparison in comparisons if comparison.changes]
    return Group(
        *([_ComparisonTable(told), Text()] if told else ()),
        *(Text(line, style="dim") for line in _legend(told)),
        *(Text(line, style="yellow") for line in _remarks(comparisons)),
    )


@dataclass(frozen=True)
class _Column:
    heading: str
    unit: str
    cell: Callable[[Comparison], str]
    lead: bool = False


class _ComparisonTable:
    """One table where it fits, else two below each other: the p50, then the other figures."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self._comparisons = comparisons

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        others = [c for c in _OTHERS if any(c.cell(one) for one in self._comparisons)]
        whole = self._table([*_P50, *others])
        endless = options.update(width=_ENDLESS)
        if not others or console.measure(whole, options=endless).maximum <= options.max_width:
            yield whole
        else:
            yield self._table(_P50)
            yield self._table(others)

    def _table(self, columns: Sequence[_Column]) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("against the baseline", overflow="fold")
        for column in columns:
            table.add_column(
                Text.assemble(column.heading, "\n", (column.unit, "dim")),
                justify="right",
                no_wrap=True,
                style="bold" if column.lead else "",
            )
        for comparison in self._comparisons:
            cells = (column.cell(comparison) for column in columns)
            table.add_row(
                _name(comparison), *(Text(cell, style=_STYLES.get(cell, "")) for cell in cells)
            )
        return table


# ------------------------------------------------------------------------------------------ cells


def _name(comparison: Comparison) -> str:
    return f"{PurePath(comparison.artifact).name}, {count(comparison.threads, 'thread')}"


def _change(comparison: Comparison, figure: str) -> Change | None:
    return next((change for change in comparison.changes if change.figure == figure), None)


def _of(figure: str, write: Callable[[Change], str]) -> Callable[[Comparison], str]:
    def cell(comparison: Comparison) -> str:
        change = _change(comparison, figure)
        return "" if change is None else write(change)

    return cell


def _ratio(change: Change) -> str:
    return "-" if change.ratio is None else f"{change.ratio:.3f}x"


def _interval(change: Change) -> str:
    if change.interval is None:
        return "-"
    low, high = change.interval
    return f"{low:.3f} to {high:.3f}"


_P50 = (
    _Column("p50", "ms", _of("latency_ms.p50", lambda c: three_digits(c.here))),
    _Column("before", "ms", _of("latency_ms.p50", lambda c: three_digits(c.baseline))),
    _Column("ratio", "", _of("latency_ms.p50", _ratio), lead=True),
    _Column("95 %", "of the ratio", _of("latency_ms.p50", _interval)),
    _Column("told", "", _of("latency_ms.p50", lambda c: c.difference)),
)

_OTHERS = (
    _Column("p99", "ratio", _of("latency_ms.p99", _ratio)),
    _Column("FPS", "frame, ratio", _of("fps_end_to_end", _ratio)),
    _Column("load", "ratio", _of("load_ms", _ratio)),
    _Column("memory", "ratio", _of("peak_memory_mb", _ratio)),
    _Column("size", "ratio", _of("size_mb", _ratio)),
    _Column("energy", "ratio", _of("energy_per_frame_j", _ratio)),
    _Column("mAP", "difference", _of("map50_95", lambda c: f"{c.here - c.baseline:+.3f}")),
)


# ------------------------------------------------------------------------------------------ notes


def _legend(comparisons: Sequence[Comparison]) -> Iterator[str]:
    changes = [
        change for one in comparisons if (change := _change(one, "latency_ms.p50")) is not None
    ]
    if any(change.interval is not None for change in changes):
        yield (
            "95 %: Welch's interval of the ratio, by the spread of the repeats of both reports; a "
            "machine that changed between them is not in it"
        )
    for why in dict.fromkeys(change.why for change in changes if change.why):
        yield f"cannot be told: {why}"


def _remarks(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Say what was not the same, each thing once where it is true of all."""
    lines = [(_name(one), text) for one in comparisons for text in _texts(one)]
    for text in dict.fromkeys(text for _, text in lines):
        names = [name for name, other in lines if other == text]
        yield text if len(names) == len(comparisons) else f"{', '.join(names)}: {text}"


def _texts(comparison: Comparison) -> Iterator[str]:
    from musgd_cli.records import NOT_IN_BOTH

    for subject, why in comparison.not_compared.items():
        if why != NOT_IN_BOTH:
            yield f"{_SUBJECTS.get(subject, subject)} not compared: {why}"
    yield from comparison.notes


_SUBJECTS = {"time": "speed", "everything": "it is"}
