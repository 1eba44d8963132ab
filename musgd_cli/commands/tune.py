"""``musgd tune``: a profile's optimizer and training values, searched for one data set."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musgd_cli.commands.options import (
    Batch,
    Data,
    Epochs,
    ImgSz,
    Json,
    Model,
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
    from musgd_cli.lab.tuning import Request
    from musgd_cli.records import EpochLog, Plan, Study, TunedTrial


def tune(
    data: Data = None,
    model: Model = None,
    optimizer: Optimizer = None,
    trials: Annotated[
        int, typer.Option(min=1, metavar="N", help="Trials of the whole study; the first is as is.")
    ] = 12,
    epochs: Epochs = None,
    imgsz: ImgSz = None,
    batch: Batch = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LOW:HIGH",
            help="What to search, repeatable: optim.lr=0.002:0.05:log, or choices, "
            "optim.momentum='0.8|0.9'. Default: lr, from a fourth to four times, and momentum.",
        ),
    ] = None,
    confirm: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Further seeds that the best trial must hold on to be recommended.",
        ),
    ] = 2,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Trials at once; they share the cores unless threads are set."
        ),
    ] = 2,
    seed: Seed = None,
    profile: Profile = None,
    target: Target = None,
    name: Annotated[
        str | None, typer.Option(help="The study's name, a folder below runs/; it goes on there.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database of a study that several machines share. Default: a file in its folder.",
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="PROFILE.toml", help="The profile to write. Default: in the study's folder."
        ),
    ] = None,
    assignments: Set = None,
    trust: Trust = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tune a profile for a data set: [bold]musgd tune --data cells.yaml --epochs 10[/]

    Each trial is a short training; Optuna chooses its values for the lowest validation loss, and
    ends the hopeless ones early. The best is then held against the profile's own values on further
    seeds, and only a gain that holds goes into the profile that is written. The same command goes
    on with a study that was cut off, or that has fewer trials than --trials.
    """
    from musgd_cli.console import Terminal
    from musgd_cli.errors import ExitCode
    from musgd_cli.lab import search_space, tuned_profile, tuning
    from musgd_cli.lab.trials import StoppedError, require_bearable
    from musgd_cli.paths import RUNS
    from musgd_cli.report.terminal.tuning import study_table

    terminal = Terminal(as_json=as_json, quiet=quiet)
    tuning.require_installed()
    require_bearable(jobs)
    plan = _settle(
        terminal,
        jobs,
        data=data,
        model=model,
        epochs=epochs,
        imgsz=imgsz,
        batch=batch,
        optimizer=optimizer,
        seed=seed,
        profile=profile,
        target=target,
        assignments=assignments,
    )
    searched = search_space.parse(search, plan) if search else search_space.default(plan)
    request = tuning.Request(
        name=name or _name(plan),
        plan=plan,
        search=searched,
        trials=trials,
        confirm=confirm,
        storage=storage,
    )
    folder = RUNS / request.name
    _require_own_folder(request.name)
    destination = write or folder / f"{plan.profile}.toml"
    tuned_profile.require_writable(destination, request.name)
    _check_data(str(plan.train.data), terminal)
    try:
        study = _follow(request, folder, terminal, jobs=jobs, trust=trust)
    except StoppedError as stopped:
        terminal.warn(stopped.what, stopped.mend)
        raise typer.Exit(stopped.exit_code) from None
    except KeyboardInterrupt:
        terminal.warn("stopped at once", "type the same command to go on")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    study = _keep(study, folder, _base(profile, plan), destination)
    terminal.show(study_table(study, str(folder)))
    terminal.emit(study)


def _settle(terminal: Terminal, jobs: int, **options: Any) -> Plan:
    """Settle the baseline, and refuse what is bound to fail before anything is made."""
    from musgd_cli.commands.planning import settle_from_options
    from musgd_cli.commands.train import CANNOT_TRAIN
    from musgd_cli.errors import UnsupportedError, UsageError
    from musgd_cli.hardware import detect, usable_cores
    from musgd_cli.sections import is_weights
    from musgd_cli.settings import change
    from musgd_cli.train import checkpoint, sandbox

    plan = settle_from_options(**options, terminal=terminal)
    board = CANNOT_TRAIN.get(detect().board)
    if board is not None:
        raise UnsupportedError(
            f"{board} cannot train: its system has no torch that does",
            "tune on another machine with --profile jetson-nano",
        )
    if plan.train.data is None:
        raise UsageError("no data set to tune for", "musgd tune --data YAML")
    sandbox.require_installed()
    if is_weights(plan.train.model):
        checkpoint.require_archive(Path(plan.train.model))
    if jobs > 1 and not plan.train.threads:
        return change(plan, {"train.threads": (max(usable_cores() // jobs, 1), "--jobs")})
    return plan


def _name(plan: Plan) -> str:
    from musgd_cli.report.wording import data_title

    return f"tune-{data_title(str(Path(str(plan.train.data)).absolute()))}"


def _require_own_folder(name: str) -> None:
    """A study takes up its own folder, and no other run's."""
    from musgd_cli.lab.tuning import LOCK
    from musgd_cli.paths import RUNS
    from musgd_cli.runs import require_free

    if not (Path(name).name == name and (RUNS / name / LOCK).is_file()):
        require_free(name)


def _check_data(path: str, terminal: Terminal) -> None:
    from musgd_cli import data

    with terminal.status(f"checking {path}"):
        report = data.check(path)
    data.require_sound(report)
    if report.warnings:
        terminal.warn(
            f"faults of the data set that are worth a look: {len(report.warnings)}",
            f"musgd data check {shlex.quote(path)}",
        )


def _follow(request: Request, folder: Path, terminal: Terminal, *, jobs: int, trust: bool) -> Study:
    """Tune, and show each trial: as it trains to a person, as it ends to everyone."""
    from rich.text import Text

    from musgd_cli.commands.following import STOPPING
    from musgd_cli.lab.tuning import Listeners
    from musgd_cli.lab.tuning import tune as search
    from musgd_cli.report.terminal.tuning import trial_line
    from musgd_cli.report.tuning import loss, values_in_words
    from musgd_cli.signals import StopRequest

    training: dict[str, str] = {}

    with (
        StopRequest(lambda: terminal.say(STOPPING)) as stop,
        terminal.live(Text()) as live,
    ):

        def refresh() -> None:
            if live is not None:
                live.update(Text("\n".join(training.values()), style="dim"))

        def on_start(run: str, values: Mapping[str, Any]) -> None:
            training[run] = f"{run}: {values_in_words(values)}"
            if live is None:
                terminal.say(training[run])
            refresh()

        def on_epoch(run: str, log: EpochLog) -> None:
            head = training.get(run, run).partition("; ")[0]
            training[run] = (
                f"{head}; epoch {log.epoch} of {log.epochs}, val loss "
                f"{loss(sum(log.val_losses.values()))}"
            )
            refresh()

        def on_end(run: str) -> None:
            training.pop(run, None)
            refresh()

        def on_trial(trial: TunedTrial) -> None:
            terminal.say(trial_line(trial))

        return search(
            request,
            folder,
            Listeners(
                on_start=on_start,
                on_epoch=on_epoch,
                on_end=on_end,
                on_trial=on_trial,
                on_note=terminal.say,
                on_warning=terminal.warn,
                stop=stop,
            ),
            jobs=jobs,
            trust=trust,
        )


def _base(profile: str | None, plan: Plan) -> str:
    """Return what the baseline's profile was named by: a path says more than its name."""
    from musgd_cli import profiles
    from musgd_cli.settings import FILE

    told = profiles.read_toml(FILE).get("profile") if FILE.exists() else None
    return profile or told or plan.profile


def _keep(study: Study, folder: Path, base: str, destination: Path) -> Study:
    """Write the study's record and summary, and once it has a verdict the profile."""
    from musgd_cli.lab import tuned_profile
    from musgd_cli.report import tuning
    from musgd_cli.sections import is_weights
    from musgd_cli.storage import write_record, write_text

    if study.verdict not in ("unfinished", "all diverged"):
        tuned_profile.write(
            base,
            destination,
            study=study.name,
            optimizer=study.optimizer,
            fine_tunes=is_weights(study.model),
            values=study.recommended,
            reasons=tuning.reasons(study),
            heading=tuning.heading(study),
            host=study.host,
        )
        study = study.model_copy(update={"wrote": str(destination)})
    write_record(folder / "study.json", study)
    write_text(folder / "study.md", tuning.summary(study))
    return study
