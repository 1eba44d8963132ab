"""``musgd compare``: optimizers under the same budget, seeds and data order."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from musgd_cli.commands.options import (
    Batch,
    Data,
    Epochs,
    ImgSz,
    Json,
    Model,
    Profile,
    Quiet,
    Set,
    Trust,
)

if TYPE_CHECKING:
    from musgd_cli.console import Terminal
    from musgd_cli.lab.comparing import Followers, Setup, Standing
    from musgd_cli.lab.scoring import Outcome
    from musgd_cli.records import ComparisonTarget, EpochLog, OptimizerComparison, Plan


def compare(
    data: Data = None,
    model: Model = None,
    optimizers: Annotated[
        str,
        typer.Option(
            metavar="A,B,…",
            help="What to compare, each with settings of its own where it has any: "
            "musgd:momentum=0.95,adamw. Nesterov SGD and the controls come by themselves.",
        ),
    ] = "musgd,adamw,muon-sgd",
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Trainings of each that are scored.")
    ] = 3,
    epochs: Epochs = None,
    sweep_lr: Annotated[
        bool,
        typer.Option(
            "--sweep-lr",
            help="Choose each one's learning rate of three, on a seed that is not scored.",
        ),
    ] = False,
    imgsz: ImgSz = None,
    batch: Batch = None,
    train_loss: Annotated[
        list[float] | None,
        typer.Option(
            min=0, metavar="X", help="Count steps and seconds to this training loss; repeatable."
        ),
    ] = None,
    val_loss: Annotated[
        list[float] | None,
        typer.Option(min=0, metavar="X", help="To this validation loss; repeatable."),
    ] = None,
    map50: Annotated[
        list[float] | None,
        typer.Option(min=0, max=1, metavar="X", help="To this mAP50; repeatable."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Trainings side by side; they share the cores.")
    ] = 1,
    name: Annotated[
        str | None, typer.Option(help="The comparison's name, a folder below runs/.")
    ] = None,
    profile: Profile = None,
    assignments: Set = None,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare optimizers: [bold]musgd compare --data cells.yaml --optimizers musgd,adamw[/]

    All get the same epochs, seeds and data order; Nesterov SGD is what they are held against.
    The same command goes on where it was stopped or killed. Ctrl-C finishes the step and says
    how to go on; a second one stops at once. runs/NAME holds compare.html, compare.json and
    every training.
    """
    from musgd_cli.commands.planning import settings_of
    from musgd_cli.console import Terminal
    from musgd_cli.errors import ExitCode
    from musgd_cli.hardware import detect
    from musgd_cli.lab import comparing
    from musgd_cli.lab.contenders import parse_contenders
    from musgd_cli.lab.trials import StoppedError

    terminal = Terminal(as_json=as_json, quiet=quiet)
    flags, spelling = settings_of(
        {
            "train.data": ("--data", data),
            "train.model": ("--model", model),
            "train.epochs": ("--epochs", epochs),
            "train.imgsz": ("--imgsz", imgsz),
            "train.batch": ("--batch", batch),
        },
        assignments,
    )
    setup = comparing.settle_setup(
        comparing.Setup(
            contenders=parse_contenders(optimizers),
            seeds=seeds,
            sweep_lr=sweep_lr,
            host=detect(),
            flags=flags,
            spelling=spelling,
            profile=profile,
            targets=_targets(train_loss or (), val_loss or (), map50 or ()),
            jobs=jobs,
            trust=trust,
        )
    )
    plan = setup.plan(setup.contenders[0])
    root = _prepare(setup, plan, name, terminal)
    try:
        with _follow(terminal) as followers:
            result = comparing.compare(setup, root, followers)
    except (StoppedError, KeyboardInterrupt) as stop:
        what = "stopped at once" if isinstance(stop, KeyboardInterrupt) else stop.what
        terminal.warn(f"{what}; {shlex.quote(str(root))} holds it", "the same command goes on")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _present(result, root, terminal)


def _targets(
    train_loss: Sequence[float], val_loss: Sequence[float], map50: Sequence[float]
) -> tuple[ComparisonTarget, ...]:
    from musgd_cli.errors import UsageError
    from musgd_cli.records import ComparisonTarget

    def of(
        figure: Literal["train loss", "val loss", "mAP50"], option: str, values: Sequence[float]
    ) -> Iterator[ComparisonTarget]:
        for value in dict.fromkeys(values):
            if not 0 < value < math.inf:
                raise UsageError(f"{option} {value:g} is no target", "give a number above 0")
            yield ComparisonTarget(figure=figure, value=value, given=True, why=option)

    return (
        *of("train loss", "--train-loss", train_loss),
        *of("val loss", "--val-loss", val_loss),
        *of("mAP50", "--map50", map50),
    )


def _prepare(setup: Setup, plan: Plan, name: str | None, terminal: Terminal) -> Path:
    """Refuse what is bound to fail before anything is trained, and return the folder."""
    from musgd_cli.commands.train import check_data, require_able
    from musgd_cli.errors import UsageError
    from musgd_cli.lab.comparing import require_own
    from musgd_cli.paths import RUNS
    from musgd_cli.runs import require_plain
    from musgd_cli.storage import require_writable

    if plan.train.data is None:
        raise UsageError("no data set to train on", "musgd compare --data YAML")
    require_able(plan, None)
    if name is None:
        root = RUNS / _free_name(setup, plan)
    else:
        require_plain(name)
        root = RUNS / name
        require_own(root, setup)
    require_writable(root)
    check_data(plan, None, terminal)
    return root


def _free_name(setup: Setup, plan: Plan) -> str:
    """Return the first name that is free or has this very comparison."""
    from musgd_cli.commands.train import stem
    from musgd_cli.errors import UsageError
    from musgd_cli.lab.comparing import require_own
    from musgd_cli.paths import RUNS

    first = f"compare-{stem(plan)}"
    for number in count(1):
        name = first if number == 1 else f"{first}-{number}"
        try:
            require_own(RUNS / name, setup)
        except UsageError:
            continue
        return name
    raise AssertionError


@contextmanager
def _follow(terminal: Terminal) -> Iterator[Followers]:
    """Show a comparison on ``terminal`` while the block runs; the first Ctrl-C ends a step."""
    from musgd_cli.commands.following import STOPPING
    from musgd_cli.lab.comparing import Followers
    from musgd_cli.report.terminal.comparing import ComparingView, trial_line
    from musgd_cli.signals import StopRequest

    view = ComparingView()

    def on_kept(kept: int, total: int) -> None:
        terminal.say(f"{kept} of {total} trainings are there already")

    def on_start(standing: Standing) -> None:
        view.start(standing.trial, standing.done, standing.total)

    def on_epoch(standing: Standing, log: EpochLog) -> None:
        view.epoch(standing.trial, log)

    def on_done(standing: Standing, outcome: Outcome) -> None:
        view.end(standing.trial)
        last = None if outcome.diverged else outcome.curve()[-1]
        terminal.say(
            trial_line(standing.trial, last, standing.done, standing.total, standing.eta_s)
        )

    with StopRequest(lambda: terminal.say(STOPPING)) as stop, terminal.live(view):
        yield Followers(
            on_start=on_start,
            on_epoch=on_epoch,
            on_done=on_done,
            on_kept=on_kept,
            on_warning=terminal.warn,
            stop=stop,
        )


def _present(result: OptimizerComparison, root: Path, terminal: Terminal) -> None:
    from musgd_cli.lab.comparing import PAGE_FILE
    from musgd_cli.report.page.comparing import render
    from musgd_cli.report.terminal.comparing import comparing_table
    from musgd_cli.storage import write_text

    write_text(root / PAGE_FILE, render(result))
    terminal.show(comparing_table(result))
    terminal.say(f"curves and every figure: {root / PAGE_FILE}")
    terminal.emit(result)
