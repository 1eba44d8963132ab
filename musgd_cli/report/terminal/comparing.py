"""``musgd compare`` for people: what each optimizer reached, and in how many steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from musgd_cli.report.comparing import cautions, conditions, reached_text, target_title
from musgd_cli.report.terminal.training import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from musgd_cli.records import (
        ContenderResult,
        CurvePoint,
        EpochLog,
        OptimizerComparison,
        Spread,
    )

_ENDLESS = 10_000

_NAME = 28
"""Most characters of a line of an optimizer's name."""

_Cell = tuple[str, str]
"""A figure, and what stands small below it."""


@dataclass(frozen=True)
class _Column:
    heading: str
    below: str
    cell: Callable[[ContenderResult], _Cell]


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
            wanted = console.measure(self._table(columns), options=endless).maximum
            return wanted <= options.max_width

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
        table.add_column("optimizer", overflow="fold", max_width=_NAME)
        for column in columns:
            heading = Text.assemble(column.heading, "\n", (column.below, "dim"))
            table.add_column(heading, justify="right", no_wrap=True)
        for contender in self._result.contenders:
            cells = []
            for column in columns:
                figure, below = column.cell(contender)
                cells.append(Text.assemble(figure, *(("\n", (below, "dim")) if below else ())))
            style = "bold" if contender.role == "baseline" else ""
            table.add_row(_name(contender), *cells, style=style)
        return table


def _name(contender: ContenderResult) -> RenderableType:
    from rich.text import Text

    # A long one is cut before a setting, not within it.
    name, *settings = contender.optimizer.split(":")
    lines = [name]
    for setting in settings:
        if len(lines[-1]) + len(setting) < _NAME:
            lines[-1] += f":{setting}"
        else:
            lines.append(f"  :{setting}")
    text = Text("\n".join(lines))
    if contender.role != "contender":
        text.append(f"\n{contender.role}", "dim")
    return text


def _columns(result: OptimizerComparison) -> Iterator[_Column]:
    yield _Column("lr", "swept" if result.request.sweep_lr else "", _lr)
    for at, target in enumerate(result.targets):
        cell = partial(_to_target, at)
        yield _Column(target_title(target), "steps, ratio", cell)
    yield _Column("val loss", "last", lambda c: _spread(c.last_val_loss, 3))
    yield _Column("mAP50", "last", lambda c: _spread(c.last_map50, 3))
    yield _Column("mAP50-95", "last", lambda c: _spread(c.last_map50_95, 3))
    yield _Column("step", "ms", lambda c: _spread(c.optimizer_ms, 2))
    yield _Column("state", "MB", _state)
    yield _Column("memory", "MB", lambda c: _spread(c.peak_memory_mb, 0))


def _lr(contender: ContenderResult) -> _Cell:
    if contender.lr is None:
        return "diverged", ""
    return f"{contender.lr:g}", "edge" if contender.at_edge else ""


def _to_target(at: int, contender: ContenderResult) -> _Cell:
    outcome = contender.targets[at]
    if outcome.steps is None:
        return reached_text(outcome), ""
    figure, below = _spread(outcome.steps, 0)
    ratio, ratio_below = _spread(outcome.steps_ratio, 2)
    if contender.role == "baseline" or outcome.steps_ratio is None:
        return figure, below
    return f"{figure}  {ratio}x", f"{below}  {ratio_below}".strip()


def _spread(spread: Spread | None, digits: int) -> _Cell:
    if spread is None:
        return "-", ""
    if spread.n == 1:
        return f"{spread.median:.{digits}f}", ""
    return f"{spread.median:.{digits}f}", f"{spread.low:.{digits}f}..{spread.high:.{digits}f}"


def _state(contender: ContenderResult) -> _Cell:
    state = contender.optimizer_state_bytes
    return ("-", "") if state is None else (f"{state / 2**20:.2f}", "")


def _legend(result: OptimizerComparison) -> Iterator[str]:
    several = result.request.seeds > 1
    yield (
        f"{'median, below it lowest..highest of the seeds' if several else 'one seed'}; steps to a "
        f"target: linear between the ends of epochs; x: of the steps of "
        f"{result.contenders[0].optimizer} with the same seed"
    )
    if any(contender.at_edge for contender in result.contenders):
        yield "edge: the best of its sweep is the first or last, and a better may lie beyond"


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
