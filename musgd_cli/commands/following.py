"""What a person sees of a training run and how Ctrl-C stops it, for `train` and `prune` alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.console import Terminal
    from musgd_cli.records import EpochLog, TrainStart
    from musgd_cli.runs import RunFolder
    from musgd_cli.train.events import Listeners

STOPPING = "finishing this step; Ctrl-C once more stops at once"


@contextmanager
def follow(terminal: Terminal) -> Iterator[Listeners]:
    """Show a training run on ``terminal`` while the block runs; the first Ctrl-C ends a step."""
    from musgd_cli.hardware.thermal import temperature_c
    from musgd_cli.report.terminal import training
    from musgd_cli.signals import StopRequest
    from musgd_cli.train.events import Listeners

    view = training.TrainingView(temperature_c)
    wide = not terminal.watched

    def on_start(start: TrainStart) -> None:
        view.start(start)
        terminal.say(training.describe(start))
        terminal.say(training.heading(wide))

    def on_epoch(log: EpochLog) -> None:
        view.epoch(log)
        terminal.say(training.epoch_line(log, wide))

    with StopRequest(lambda: terminal.say(STOPPING)) as stop, terminal.live(view):
        yield Listeners(
            on_start=on_start,
            on_step=view.step,
            on_epoch=on_epoch,
            on_note=terminal.say,
            on_warning=terminal.warn,
            stop=stop,
        )
        view.end()


def draw_curves(run: RunFolder, terminal: Terminal) -> None:
    """Draw a run's curves, or say why that cannot be."""
    from musgd_cli.errors import UnsupportedError
    from musgd_cli.report import curves

    try:
        curves.draw(run)
    except UnsupportedError as error:
        terminal.warn(error.what, error.mend)
