"""``musgd compare`` for people: what each optimizer reached, and in how many steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from musgd_cli.report.comparing import (
    cautions,
    conditions,
    ratio_text,
    spread_text,
    steps_text,
    target_title,
)
from musgd_cli.report.terminal.training import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from musgd_cli.records import ContenderResult, CurvePoint, EpochLog, OptimizerComparison

_ENDLESS = 10_000

_Cell = Callable[["ContenderResult"], str]
_Column = tuple[str, str, _Cell]
"""Heading, what stands small below it, and the cell."""


def comparing_table(result: OptimizerComparison) -> RenderableType:
    """Return the tables of a finished comparison and what must be known to read them."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        _Tables(result),
        *(Text(line, style="dim") for line in (*_legend(result), *conditions(result))),
        *(Text(line, style="yellow") for line in cautions(result)),
    )


class _Tables:
    """One table where it fits, else as many below each other as it takes."""

    def __init__(self, result: OptimizerComparison) -> None:
        self._result = result

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        endless = options.update(width=_ENDLESS)

        def fits(columns: Sequence[_Column]) -> bool:
            table = self._table(columns)
            return console.measure(table, options=endless).maximum <= options.max_width

        part: list[_Column] = []
        for column in _columns(self._result):
            if part and not fits([*part, column]):
                yield self._table(part)
                part = []
            part.append(column)
        yield self._table(part)

    def _table(self, columns: Sequence[_Column]) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("optimizer", overflow="fold", max_width=34)
        for heading, below, _ in columns:
            table.add_column(
                Text.assemble(heading, "\n", (below, "dim")), justify="right", no_wrap=True
            )
        for contender in self._result.contenders:
            style = {"baseline": "bold", "control": "dim"}.get(contender.role, "")
            cells = (Text(cell(contender)) for _, _, cell in columns)
            table.add_row(Text(contender.optimizer), *cells, style=style)
        return table


def _columns(result: OptimizerComparison) -> Iterator[_Column]:
    yield "lr", "swept" if result.request.sweep_lr else "", _lr
    for at, target in enumerate(result.targets):
        yield target_title(target), "steps", lambda c, at=at: steps_text(c.targets[at])  # type: ignore[misc]
        yield "ratio", "to sgd's", lambda c, at=at: ratio_text(c.targets[at])  # type: ignore[misc]
    yield "val loss", "last", lambda c: spread_text(c.last_val_loss, 3)
    yield "mAP50", "last", lambda c: spread_text(c.last_map50, 3)
    yield "mAP50-95", "last", lambda c: spread_text(c.last_map50_95, 3)
    yield "step", "ms", lambda c: "-" if c.optimizer_ms is None else f"{c.optimizer_ms.median:.2f}"
    yield "state", "MB", _state
    yield (
        "memory",
        "MB",
        lambda c: "-" if not c.peak_memory_mb else f"{c.peak_memory_mb.median:.0f}",
    )


def _lr(contender: ContenderResult) -> str:
    if contender.lr is None:
        return "diverged"
    return f"{contender.lr:g}{'*' if contender.at_edge else ''}"


def _state(contender: ContenderResult) -> str:
    state = contender.optimizer_state_bytes
    return "-" if state is None else f"{state / 2**20:.2f}"


def _legend(result: OptimizerComparison) -> Iterator[str]:
    several = result.request.seeds > 1
    yield (
        f"{'median (lowest to highest of the seeds)' if several else 'one seed'}; steps and ratio "
        "to a target: linear between the ends of epochs, the ratio is that of the same seed"
    )
    if any(contender.at_edge for contender in result.contenders):
        yield "* the best of its sweep is the first or last: a better rate may lie beyond"


# ------------------------------------------------------------------------------------- meanwhile


def trial_line(
    name: str, last: CurvePoint | None, done: int, total: int, eta_s: float | None
) -> str:
    """Return a training that ended as one line; ``last`` is ``None`` where it diverged."""
    came_to = "diverged"
    if last is not None:
        loss = "-" if last.val_loss is None else f"{last.val_loss:.3f}"
        score = "-" if last.map50 is None else f"{last.map50:.3f}"
        came_to = f"val loss {loss}, mAP50 {score}"
    left = f", about {duration(eta_s)} left" if eta_s else ""
    return f"{done} of {total}: {name}: {came_to}{left}"


class ComparingView:
    """The trainings that go on right now."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[float, EpochLog | None]] = {}
        self._head = ""

    def start(self, name: str, done: int, total: int) -> None:
        """Show a training that began."""
        self._running[name] = (time.monotonic(), None)
        self._head = f"{done} of {total} trainings finished"

    def epoch(self, name: str, log: EpochLog) -> None:
        """Show the end of an epoch."""
        self._running[name] = (time.monotonic(), log)

    def end(self, name: str) -> None:
        """Take a training away."""
        self._running.pop(name, None)

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        lines = [self._head] if self._running else []
        for name, (since, log) in tuple(self._running.items()):
            ago = duration(time.monotonic() - since)
            if log is None:
                lines.append(f"  {name}: first epoch, {ago}")
            else:
                left = duration(log.eta_s)
                lines.append(f"  {name}: epoch {log.epoch} of {log.epochs}, {left} left")
        return Text("\n".join(lines), style="dim", no_wrap=True, overflow="ellipsis")
