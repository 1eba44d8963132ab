"""Training: the one trainer subclass, its safe doors, its log, and how a run is taken up again.

The doors below import their rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.records import Plan, TrainResult
    from musgd_cli.runs import RunFolder
    from musgd_cli.train.events import Listeners


def train(
    plan: Plan, run: RunFolder, listeners: Listeners | None = None, *, trust: bool = False
) -> TrainResult:
    """Train a plan into the folder of a new run.

    Args:
        plan: Every setting; it is written into the run.
        run: A new run's folder. If training fails before its first step, the folder is removed.
        listeners: Whom to tell how it goes, and whom to ask whether to stop.
        trust: Load the starting weights without restriction: they then may run any code.

    Returns:
        The result, as it stands in ``train.json``.

    Raises:
        UsageError: Data, model or weights are wrong.
        UnsupportedError: torch or Ultralytics is missing, or the device is.
        TrainingInterruptedError: ``listeners.stop`` said so.
        MusgdError: Training diverged, memory ran out, or something could not be written.
    """
    from musgd_cli.train import sandbox

    sandbox.prepare()
    from musgd_cli.train import session
    from musgd_cli.train.events import Listeners

    return session.train(plan, run, listeners or Listeners(), trust=trust)


def require_unfinished(run: RunFolder) -> None:
    """Make sure that something of a run is left to be trained.

    Raises:
        UsageError: It is finished.
    """
    if run.finished:
        from musgd_cli.errors import UsageError

        result = run.result()
        epochs = "1 epoch" if result.epochs == 1 else f"{result.epochs} epochs"
        weights = shlex.quote(str(run.path / result.weights))
        data = shlex.quote(str(run.plan().train.data))
        raise UsageError(
            f"the run {run.path} is finished: it trained {epochs}",
            f"musgd train --data {data} --model {weights} starts a new run from its weights",
        )


def resume(
    run: RunFolder, listeners: Listeners | None = None, *, trust: bool = False
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
    from musgd_cli.train.events import Listeners

    return session.resume(run, listeners or Listeners(), trust=trust)
