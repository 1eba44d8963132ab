"""``musgd prune``: a trained model in, a smaller and faster one out, held against the first."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from musgd_cli.commands.following import draw_curves, follow
from musgd_cli.commands.options import Data, Json, Name, Quiet, Seed, Set, Source, Trust

if TYPE_CHECKING:
    from musgd_cli.console import Terminal
    from musgd_cli.records import PruneResult
    from musgd_cli.runs import RunFolder


def prune(
    source: Source = None,
    ratio: Annotated[
        float | None,
        typer.Option(help="Share of the channels to remove. Default, without the next two: 0.3."),
    ] = None,
    macs: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of multiply-accumulates to leave at most."),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(
            metavar="TIMES",
            help="How many times as fast, measured here in ONNX Runtime, one thread unless "
            "bench.threads is set.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Of fine-tuning. Default: 10.")] = None,
    data: Data = None,
    name: Name = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="X", help="Most mAP50-95 that may be lost. Default: 0.04."),
    ] = None,
    distill: Annotated[
        bool,
        typer.Option("--distill", help="Let the parent teach its features in the fine-tuning."),
    ] = False,
    seed: Seed = None,
    assignments: Set = None,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a trained model smaller and faster: [bold]musgd prune runs/cells --ratio 0.3[/]

    Removes the channels that the loss depends on least for the work they take, fine-tunes what is
    left in a run of its own, runs/NAME-pruned, and holds it against its parent on the test split,
    or without one on val, which also chose the epoch. Exit code 4 if it lost too much; the run is
    kept.
    """
    from musgd_cli import compress
    from musgd_cli.commands.planning import settings_of
    from musgd_cli.console import Terminal
    from musgd_cli.errors import ExitCode
    from musgd_cli.paths import RUNS
    from musgd_cli.runs import RunFolder
    from musgd_cli.train.events import TrainingInterruptedError

    terminal = Terminal(as_json=as_json, quiet=quiet)
    flags, spelling = settings_of(
        {
            "train.data": ("--data", data),
            "train.name": ("--name", name),
            "train.epochs": ("--epochs", epochs),
            "train.seed": ("--seed", seed),
        },
        assignments,
    )
    try:
        result = compress.prune(
            source,
            ratio=ratio,
            macs=macs,
            speedup=speedup,
            max_drop=max_drop,
            distill=distill,
            flags=flags,
            spelling=spelling,
            trust=trust,
            follow=partial(follow, terminal),
            on_progress=terminal.say,
            on_warning=terminal.warn,
        )
    except TrainingInterruptedError as interrupted:
        terminal.warn(interrupted.what, interrupted.mend)
        raise typer.Exit(interrupted.exit_code) from None
    except KeyboardInterrupt:
        terminal.warn(
            "interrupted before the first step of the fine-tuning: nothing is kept",
            "the same command begins anew",
        )
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    present(result, RunFolder(RUNS / result.run), terminal)


def present(result: PruneResult, run: RunFolder, terminal: Terminal) -> None:
    """Show what came of pruning, and end with the exit code that the gate deserves."""
    from musgd_cli.errors import CheckFailedError
    from musgd_cli.report.terminal.pruning import pruning_table

    terminal.show(pruning_table(result, str(run.path)))
    terminal.emit(result)
    draw_curves(run, terminal)
    if result.gate is not None and result.gate.verdict == "failed":
        raise CheckFailedError(
            f"{run.path} fails the gate: {'; '.join(result.gate.reasons)}",
            "prune less, give more --epochs, or a larger --max-drop; the run is kept",
        )
