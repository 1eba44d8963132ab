"""``musgd tune`` for people: every trial, and what the study has come to."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from musgd_cli.report import tuning
from musgd_cli.report.wording import count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from musgd_cli.records import Study, TunedTrial


def study_table(study: Study, folder: str) -> RenderableType:
    """Return a study: its trials, its verdict, and where the profile and the summary are.

    Args:
        study: What it came to.
        folder: The study's folder, as the person would type it.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=SIMPLE_HEAD,
        title=Text(
            f"{study.name}: {study.optimizer} on {study.data}, {study.model}, {study.imgsz} px, "
            f"{count(study.epochs, 'epoch')} a trial",
            style="bold",
        ),
        title_justify="left",
        pad_edge=False,
    )
    keys = [each.key for each in study.search]
    table.add_column("trial", justify="right")
    for name in (*map(tuning.short, keys), "val loss", "mAP50-95", "epochs", "s"):
        table.add_column(name, justify="right")
    table.add_column("outcome")
    for trial in study.trials:
        table.add_row(
            str(trial.number),
            *(tuning.plain(trial.values.get(key, tuning.NOTHING)) for key in keys),
            tuning.loss(trial.val_loss),
            tuning.accuracy(trial.map50_95),
            tuning.NOTHING if trial.epochs is None else str(trial.epochs),
            tuning.NOTHING if trial.seconds is None else f"{trial.seconds:.0f}",
            tuning.outcome(trial, study),
            style=_style(trial, study),
        )
    lines = [Text(sentence) for sentence in tuning.verdict(study)]
    lines.append(Text(f"summary: {folder}/study.md", style="dim"))
    if study.wrote is not None:
        lines.append(Text(f"profile: {study.wrote}", style="dim"))
    if study.verdict == "holds" and study.wrote is not None:
        lines.append(Text(f"musgd train --profile {shlex.quote(study.wrote)}", style="bold"))
    return Group(table, *lines)


def _style(trial: TunedTrial, study: Study) -> str | None:
    if trial.number == study.best:
        return "bold"
    return None if trial.state == "finished" else "dim"


def trial_line(trial: TunedTrial) -> str:
    """Return one line of a trial that has ended."""
    if trial.state == "diverged":
        return f"trial {trial.number}: {tuning.values_in_words(trial.values)}: diverged"
    return (
        f"trial {trial.number}: {tuning.values_in_words(trial.values)}: val loss "
        f"{tuning.loss(trial.val_loss)}, mAP50-95 {tuning.accuracy(trial.map50_95)}, "
        f"{trial.state} after {count(trial.epochs or 0, 'epoch')}"
    )
