"""A training run on the screen: a line an epoch, what goes on right now, and the result."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from musgd_cli.report.terminal.plan import brief_form

if TYPE_CHECKING:
    from rich.console import RenderableType

    from musgd_cli.records import EpochLog, OptimSettings, StepLog, TrainResult, TrainStart

SENSOR_PERIOD_S = 5.0
"""How often the live view asks for the temperature."""

# Heading and width of each column of the epoch lines.
_COLUMNS = (
    ("epoch", 8),
    ("loss", 7),
    ("val", 7),
    ("mAP50", 6),
    ("mAP50-95", 9),
    ("norm", 6),
    ("clipped", 8),
    ("beta", 6),
    ("lr", 8),
    ("time", 7),
    ("ETA", 7),
)
_WIDE_COLUMNS = (("memory", 9), ("temp", 7))


def heading(wide: bool) -> str:
    """Return what stands above the lines of `epoch_line`."""
    columns = (*_COLUMNS, *_WIDE_COLUMNS) if wide else _COLUMNS
    return _aligned([name for name, _ in columns], wide)


def epoch_line(log: EpochLog, wide: bool) -> str:
    """Return an epoch as one aligned line.

    Args:
        log: The epoch.
        wide: Also memory and temperature, which the live view shows elsewhere.
    """
    cells = [
        f"{log.epoch}/{log.epochs}",
        _loss(sum(log.losses.values()) if log.losses else None),
        _loss(sum(log.val_losses.values()) if log.val_losses else None),
        _share(log.map50),
        _share(log.map50_95),
        _norm(log.grad_norm),
        _percent(log.clipped_share),
        _share(log.beta),
        _rate(log.lr),
        duration(log.seconds),
        duration(log.eta_s) if log.eta_s else "-",
    ]
    if wide:
        cells += [_memory(log.memory_mb), _temperature(log.temperature_c)]
    line = _aligned(cells, wide)
    if log.skipped_steps:
        line += f"  ({log.skipped_steps} steps left out: gradient not finite)"
    return line


def _aligned(cells: list[str], wide: bool) -> str:
    columns = (*_COLUMNS, *_WIDE_COLUMNS) if wide else _COLUMNS
    return "".join(cell.rjust(width) for cell, (_, width) in zip(cells, columns, strict=True))


def _loss(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 99 else f"{value:.1f}" if value < 999 else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _norm(value: float | None) -> str:
    if value is None:
        return "-"
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}" if value < 1e5 else f"{value:.0e}"


def _rate(value: float) -> str:
    return f"{value:.3g}" if value >= 1e-3 or value == 0 else f"{value:.1e}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _memory(megabytes: float | None) -> str:
    if megabytes is None:
        return "-"
    return f"{megabytes:.0f} MB" if megabytes < 10_000 else f"{megabytes / 1024:.1f} GB"


def _temperature(celsius: float | None) -> str:
    return "-" if celsius is None else f"{celsius:.0f} °C"


def duration(seconds: float) -> str:
    """Return a time in at most seven characters: ``8.4s``, ``52s``, ``3m07s``, ``2h05m``."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest}s"
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def describe(start: TrainStart) -> str:
    """Return what is about to be trained, in one line."""
    classes = "1 class" if len(start.names) == 1 else f"{len(start.names)} classes"
    threads = "1 thread" if start.threads == 1 else f"{start.threads} threads"
    device = f"{start.device}, {threads}" if start.device == "cpu" else start.device
    return (
        f"{start.run}: {start.n_images} images ({start.n_val_images} to validate), {classes}; "
        f"{start.imgsz} px, batch {start.batch}, {start.optimizer}, {device}"
    )


class TrainingView:
    """What goes on right now; draws itself anew each time a live display asks.

    Args:
        temperature: Reads the processor's temperature, or ``None`` where it cannot be read.
    """

    def __init__(self, temperature: Callable[[], float | None]) -> None:
        self._read_temperature = temperature
        self._temperature: float | None = None
        self._temperature_at = float("-inf")
        self._start: TrainStart | None = None
        self._step: StepLog | None = None
        self._epoch: EpochLog | None = None
        self._best: EpochLog | None = None
        self._taken = self._clipped = 0
        self._ended = False
        self._epoch_began = time.monotonic()

    def start(self, start: TrainStart) -> None:
        """Take in what is trained."""
        self._start = start
        self._epoch_began = time.monotonic()

    def step(self, log: StepLog) -> None:
        """Take in a step."""
        if self._step is None or log.epoch != self._step.epoch:
            self._taken = self._clipped = 0
        self._step = log
        self._taken += not log.skipped
        self._clipped += log.clipped

    def epoch(self, log: EpochLog) -> None:
        """Take in an epoch."""
        self._epoch = log
        if self._best is None or (log.map50_95 or 0) >= (self._best.map50_95 or 0):
            self._best = log
        self._epoch_began = time.monotonic()

    def end(self) -> None:
        """Show nothing more."""
        self._ended = True

    def __rich__(self) -> RenderableType:
        from rich.text import Text

        if self._ended:
            return Text()
        if self._start is None:
            return Text("preparing: data, model", style="dim")
        if self._finished:
            return Text("scoring the best weights", style="dim")
        from rich.console import Group

        return Group(Text(), self._bar(self._start), self._figures(), Text())

    @property
    def _finished(self) -> bool:
        return self._epoch is not None and self._epoch.eta_s == 0

    def _bar(self, start: TrainStart) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        done, epoch = self._steps_done_in_epoch(start)
        validating = done == start.steps_per_epoch
        total = start.steps_per_epoch * start.epochs
        row = Table.grid(padding=(0, 2))
        row.add_row(
            f"[bold]epoch {epoch}/{start.epochs}[/]",
            ProgressBar(total, (epoch - 1) * start.steps_per_epoch + done, width=32),
            "validating" if validating else f"step {done}/{start.steps_per_epoch}",
            f"ETA {duration(eta)}" if (eta := self._eta_s(start, done, epoch)) else "",
        )
        return row

    def _steps_done_in_epoch(self, start: TrainStart) -> tuple[int, int]:
        finished = self._epoch.epoch if self._epoch else start.first_epoch - 1
        taken = self._step.step if self._step else start.steps
        # An epoch that was begun before an interruption is begun anew: it has no part in `taken`.
        before = start.steps + (finished - start.first_epoch + 1) * start.steps_per_epoch
        return min(taken - before, start.steps_per_epoch), finished + 1

    def _eta_s(self, start: TrainStart, done: int, epoch: int) -> float | None:
        """Estimate the rest: from the last whole epoch, or in the first from its steps so far."""
        in_epoch = time.monotonic() - self._epoch_began
        if self._epoch is not None:
            per_epoch = self._epoch.seconds
        elif done:
            per_epoch = in_epoch / done * start.steps_per_epoch
        else:
            return None
        return max(per_epoch * (start.epochs - epoch + 1) - in_epoch, 0.0)

    def _figures(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", min_width=10)
        grid.add_column()
        grid.add_row("loss", Text(self._loss_figures()))
        grid.add_row("validation", Text(self._validation_figures()))
        grid.add_row("gradient", Text(self._gradient_figures()))
        grid.add_row("machine", Text(self._machine_figures()))
        return grid

    def _machine_figures(self) -> str:
        celsius = self._celsius()
        parts = [] if celsius is None else [_temperature(celsius)]
        if self._epoch is not None:
            parts.insert(0, f"{_memory(self._epoch.memory_mb)} at the peak")
        return "  ".join(parts)

    def _loss_figures(self) -> str:
        parts = [
            f"{name.removesuffix('_loss')} {value:.3f}"
            for name, value in (self._epoch.losses if self._epoch else {}).items()
        ]
        if self._step is not None and self._start is not None and self._step.loss is not None:
            parts.insert(0, f"{self._step.loss / self._start.batch:.3f} an image now ")
        return "  ".join(parts)

    def _validation_figures(self) -> str:
        if self._epoch is None or self._best is None:
            return "after the first epoch"
        return (
            f"mAP50 {_share(self._epoch.map50)}  mAP50-95 {_share(self._epoch.map50_95)}"
            f"  best {_share(self._best.map50_95)} in epoch {self._best.epoch}"
        )

    def _gradient_figures(self) -> str:
        step = self._step
        if step is None:
            return ""
        clipped = _percent(self._clipped / self._taken if self._taken else None)
        return (
            f"norm {_norm(step.grad_norm)}  clipped {clipped}  beta {_share(step.beta)}"
            f"  lr {_rate(step.lr)}"
        )

    def _celsius(self) -> float | None:
        now = time.monotonic()
        if now - self._temperature_at >= SENSOR_PERIOD_S:
            self._temperature, self._temperature_at = self._read_temperature(), now
        return self._temperature


def result_table(result: TrainResult, optim: OptimSettings, folder: str) -> RenderableType:
    """Return a finished run: what it reached, what it cost, where the weights are.

    Args:
        result: The run's result.
        optim: The settings of its optimizer.
        folder: The run's folder, as the person would type it.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
    table = Table(
        box=SIMPLE_HEAD,
        # As Text: a name may hold brackets.
        title=Text(
            f"{result.run}: {epochs}, {result.steps} steps in {duration(result.seconds)}",
            style="bold",
        ),
        title_justify="left",
        show_header=False,
        pad_edge=False,
    )
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    on = f"on {result.n_val_images} images of {result.split}"
    table.add_row("mAP50", Text(f"{_share(result.map50)}  {on}", style="bold"))
    table.add_row("mAP50-95", Text(_share(result.map50_95), style="bold"))
    parts = [f"{result.optimizer} ({brief_form(optim)})"]
    if result.beta_mean is not None:
        parts.append(f"mean beta {_share(result.beta_mean)}")
    if result.optimizer_ms is not None:
        parts.append(f"{result.optimizer_ms:.3g} ms a step")
    table.add_row("optimizer", ", ".join(parts))
    clipped = f"{_percent(result.clipped_share)} of the steps clipped"
    skipped = f", {result.skipped_steps} left out as not finite" if result.skipped_steps else ""
    table.add_row("gradient", clipped + skipped)
    table.add_row("memory", f"{_memory(result.peak_memory_mb)} at the peak")
    if result.resumed:
        times = "once" if result.resumed == 1 else f"{result.resumed} times"
        table.add_row("resumed", times)
    table.add_row("weights", Text(f"{folder}/{result.weights}"))
    table.add_row("next", Text(f"musgd export {shlex.quote(folder)} --int8", style="bold"))
    return table
