"""``musgd train``: settle a plan, check the data, train, show how it goes and what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musgd_cli.commands.following import draw_curves, follow
from musgd_cli.commands.options import (
    Batch,
    Data,
    Difficulty,
    Epochs,
    ImgSz,
    Json,
    Model,
    Name,
    Optimizer,
    Profile,
    Quiet,
    Seed,
    Set,
    Target,
    Trust,
)

if TYPE_CHECKING:
    from musgd_cli.console import Terminal
    from musgd_cli.records import Plan, TrainResult
    from musgd_cli.runs import RunFolder

CANNOT_TRAIN = {
    "jetson-nano": "a Jetson Nano",
    "jetson-nano-2gb": "a Jetson Nano 2GB",
}
"""Boards whose last system ends with Python 3.6, for which there is no torch that trains YOLO26."""


def train(
    data: Data = None,
    model: Model = None,
    epochs: Epochs = None,
    imgsz: ImgSz = None,
    batch: Batch = None,
    optimizer: Optimizer = None,
    difficulty: Difficulty = None,
    profile: Profile = None,
    target: Target = None,
    seed: Seed = None,
    name: Name = None,
    assignments: Set = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with an interrupted run, its name or folder; one of musgd prune is held "
            "against its parent too.",
        ),
    ] = None,
    trust: Trust = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every setting and its source, and end.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a detector: [bold]musgd train --data cells.yaml --epochs 30[/]

    Without --model it trains yolo26n.yaml from scratch. Every option can stand in ./musgd.toml.
    Ctrl-C finishes the step and says how to go on; a second one stops at once.
    """
    from musgd_cli.commands.planning import settle_from_options
    from musgd_cli.console import Terminal
    from musgd_cli.errors import UsageError
    from musgd_cli.report.terminal.plan import plan_table
    from musgd_cli.runs import find_run

    terminal = Terminal(as_json=as_json, quiet=quiet)
    options: dict[str, Any] = {
        "data": data,
        "model": model,
        "name": name,
        "epochs": epochs,
        "imgsz": imgsz,
        "batch": batch,
        "optimizer": optimizer,
        "difficulty": difficulty,
        "seed": seed,
        "profile": profile,
        "target": target,
        "assignments": assignments,
    }
    run = None
    if resume is not None:
        if given := [option for option, value in options.items() if value]:
            flag = "--set" if given[0] == "assignments" else f"--{given[0]}"
            raise UsageError(
                f"--resume takes every setting from the run, and {flag} is given too",
                f"musgd train --resume {shlex.quote(resume)}",
            )
        run = find_run(resume)
        plan = run.plan()
    else:
        plan = settle_from_options(**options, terminal=terminal)
    if dry_run:
        terminal.show(plan_table(plan))
        terminal.emit(plan)
        return
    require_able(plan, run)
    check_data(plan, run, terminal)
    _train(plan, run, terminal, trust=trust)


def require_able(plan: Plan, run: RunFolder | None) -> None:
    """Refuse what is bound to fail before the data set is read for minutes."""
    from musgd_cli import compress
    from musgd_cli.errors import UnsupportedError, UsageError
    from musgd_cli.hardware import detect
    from musgd_cli.runs import require_free
    from musgd_cli.sections import is_weights
    from musgd_cli.train import checkpoint, require_unfinished, sandbox

    board = CANNOT_TRAIN.get(detect().board)
    if board is not None:
        raise UnsupportedError(
            f"{board} cannot train: its system has no torch that does",
            "train on another machine with --target jetson-nano, and copy the run folder here",
        )
    if plan.train.data is None:
        raise UsageError(
            "no data set to train on",
            "musgd train --data YAML; or musgd demo, which draws a set and tries everything",
        )
    sandbox.require_installed()
    if run is not None:
        if not compress.is_unjudged(run):
            require_unfinished(run)
        return
    if plan.train.name is not None:
        require_free(plan.train.name)
    if is_weights(plan.train.model):
        checkpoint.require_archive(Path(plan.train.model))


def check_data(plan: Plan, run: RunFolder | None, terminal: Terminal) -> None:
    """Refuse a data set with errors, and tell of one with warnings."""
    from musgd_cli import data
    from musgd_cli.errors import UsageError

    assert plan.train.data is not None
    with terminal.status(f"checking {plan.train.data}"):
        try:
            report = data.check(plan.train.data)
        except UsageError as error:
            if run is None:
                raise
            raise UsageError(
                f"{run.path} was trained on a data set that is not here: {error.what}",
                "call it from the folder in which the run began, or put the data set back",
            ) from error
    data.require_sound(report)
    if report.warnings:
        count = len(report.warnings)
        terminal.warn(
            f"the data set has {'1 fault' if count == 1 else f'{count} faults'} worth a look",
            f"musgd data check {shlex.quote(plan.train.data)}",
        )


def _train(plan: Plan, run: RunFolder | None, terminal: Terminal, *, trust: bool) -> None:
    from musgd_cli import compress, train
    from musgd_cli.commands import prune
    from musgd_cli.errors import ExitCode
    from musgd_cli.report.terminal import training
    from musgd_cli.runs import create_run, free_name
    from musgd_cli.train import sandbox
    from musgd_cli.train.events import TrainingInterruptedError

    sandbox.prepare()  # takes seconds, and may fail: no folder is made before
    begin: Callable[..., TrainResult] = train.resume
    if run is None:
        begin = partial(train.train, plan)
        run = create_run(plan.train.name or free_name(stem(plan)))
    try:
        if not run.finished:
            with follow(terminal) as listeners:
                begin(run, listeners, trust=trust)
        pruned = None
        if compress.is_unjudged(run):
            pruned = compress.finish_pruning(run, trust=trust, on_progress=terminal.say)
    except TrainingInterruptedError as interrupted:
        terminal.warn(interrupted.what, interrupted.mend)
        raise typer.Exit(interrupted.exit_code) from None
    except KeyboardInterrupt:
        if run.plan_file.exists():
            terminal.warn("stopped at once", f"musgd train --resume {run.typed}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if pruned is not None:
        prune.present(pruned, run, terminal)
        return
    draw_curves(run, terminal)
    result = run.result()
    terminal.show(training.result_table(result, run.plan().optim, str(run.path)))
    terminal.emit(result)


def stem(plan: Plan) -> str:
    """Return the name of a run without one: its data set's. Many are called just data.yaml."""
    path = Path(str(plan.train.data)).expanduser().absolute()
    return path.parent.name if path.stem in ("data", "dataset") and path.suffix else path.stem
