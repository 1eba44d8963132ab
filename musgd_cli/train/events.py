"""What a training run tells while it goes, and how it is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from musgd_cli.errors import ExitCode, MusgdError
from musgd_cli.records import EpochLog, StepLog, TrainStart


def ignore(_: Any) -> None:
    """Hear it and do nothing."""


def never() -> bool:
    """Do not stop."""
    return False


@dataclass(frozen=True)
class Listeners:
    """Whom a run tells what."""

    on_start: Callable[[TrainStart], None] = ignore
    """Once, before the first step."""
    on_step: Callable[[StepLog], None] = ignore
    on_epoch: Callable[[EpochLog], None] = ignore
    """After the epoch is saved."""
    on_note: Callable[[str], None] = ignore
    """A line for people: something was decided that they should know."""
    on_warning: Callable[[str], None] = ignore
    """A line that they should know even if they asked for quiet."""
    stop: Callable[[], bool] = never
    """Asked after each step and each saved epoch whether to stop there."""


class DivergedError(MusgdError):
    """No gradient of a whole epoch was finite: the settings are at fault, not the machine."""


class TrainingInterruptedError(MusgdError):
    """A run stopped where it was asked to (exit code 130)."""

    def __init__(self, what: str, mend: str, exit_code: ExitCode = ExitCode.INTERRUPTED) -> None:
        super().__init__(what, mend, exit_code)
