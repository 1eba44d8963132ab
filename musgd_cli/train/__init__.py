"""Training: the one trainer subclass, its safe doors, its log, and how a run is taken up again.

The doors below import their rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.records import EpochLog, Plan, StepLog, TrainResult, TrainStart
    from musgd_cli.runs import RunFolder


def train(
    plan: Plan,
    run: RunFolder,
    *,
    on_start: Callable[[TrainStart], None] | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    on_epoch: Callable[[EpochLog], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    trust: bool = False,
) -> TrainResult:
    """Train a plan into the folder of a new run.

    Args:
        plan: Every setting; it is written into the run.
        run: A new run's folder. If training fails before its first step, the folder is removed.
        on_start: Called once, before the first step.
        on_step: Called after each optimizer step.
        on_epoch: Called after each epoch, once it is saved.
        on_note: Called with a line on what was decided.
        on_warning: Called with a line that people should read even if they asked for quiet.
        stop: Asked after each step and each epoch whether to stop; see `events.StopRequest`.
        trust: Load the starting weights without restriction: they then may run any code.

    Returns:
        The result, as it stands in ``train.json``.

    Raises:
        UsageError: Data, model or weights are wrong.
        UnsupportedError: torch or Ultralytics is missing, or the device is.
        TrainingInterruptedError: ``stop`` said so.
        MusgdError: Training diverged, memory ran out, or something could not be written.
    """
    from musgd_cli.train import sandbox

    sandbox.prepare()
    from musgd_cli.train import session
    from musgd_cli.train.events import Listeners, ignore, never

    listeners = Listeners(
        on_start or ignore,
        on_step or ignore,
        on_epoch or ignore,
        on_note or ignore,
        on_warning or ignore,
        stop or never,
    )
    return session.train(plan, run, listeners, trust=trust)


def require_unfinished(run: RunFolder) -> None:
    """Make sure that something of a run is left to be trained.

    Raises:
        UsageError: It is finished.
    """
    if run.finished:
        from musgd_cli.errors import UsageError

        result = run.result()
        raise UsageError(
            f"the run {run.path} is finished: it trained {result.epochs} epochs",
            f"musgd train --model {run.path / result.weights} starts a new run from its weights",
        )


def resume(
    run: RunFolder,
    *,
    on_start: Callable[[TrainStart], None] | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    on_epoch: Callable[[EpochLog], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
    trust: bool = False,
) -> TrainResult:
    """Go on with an interrupted run after its last finished epoch; see `train` for the rest.

    On the same machine with the same number of threads it ends as if it had not been interrupted,
    bit for bit on a CPU; a GPU has kernels that differ from run to run.

    Raises:
        UsageError: The run is finished, its state is damaged, or its data set is gone.
    """
    require_unfinished(run)
    from musgd_cli.train import sandbox

    sandbox.prepare()
    from musgd_cli.train import session
    from musgd_cli.train.events import Listeners, ignore, never

    listeners = Listeners(
        on_start or ignore,
        on_step or ignore,
        on_epoch or ignore,
        on_note or ignore,
        on_warning or ignore,
        stop or never,
    )
    return session.resume(run, listeners, trust=trust)
