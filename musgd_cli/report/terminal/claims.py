"""``musgd claims`` for people: every claim's verdict, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

from musgd_cli.report.wording import count, data_name, from_to, machine_in_words, three_digits

if TYPE_CHECKING:
    from rich.console import RenderableType

    from musgd_cli.records import ClaimFinding, ClaimResult, Claims

_STYLES = {
    "holds": "green",
    "does not hold": "red",
    "undecided": "yellow",
    "cannot be measured here": "dim",
}
_FORMS = {"musgd-article": "the article's", "musgd": "ours"}


def claims_table(claims: Claims) -> RenderableType:
    """Return the verdicts, how each came about, and how it is repeated."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("claim", "MuSGD", "verdict"):
        table.add_column(heading, no_wrap=True)
    for heading in ("figure", "spread", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in claims.results:
        for place, finding in enumerate(result.findings):
            table.add_row(
                Text("" if place else result.claim, style="bold"),
                Text(_FORMS[finding.optimizer]),
                Text(finding.verdict, style=_STYLES[finding.verdict]),
                *map(Text, _figures(finding)),
            )
    details = (line for result in claims.results for line in _details(result))
    return Group(table, Text(), *details, *(Text(line, style="dim") for line in _notes(claims)))


def result_line(result: ClaimResult) -> str:
    """Return one claim's verdicts in a line, for as long as the others are not there."""
    verdicts = (f"{_FORMS[each.optimizer]} {each.verdict}" for each in result.findings)
    return f"{result.claim}: {', '.join(verdicts)}"


def _figures(finding: ClaimFinding) -> tuple[str, str, str]:
    figure = "-" if finding.figure is None else three_digits(finding.figure)
    spread = "-" if finding.spread is None else from_to(finding.spread)
    return figure, spread, str(finding.n) if finding.n else "-"


def _details(result: ClaimResult) -> Iterator[RenderableType]:
    from rich.text import Text

    yield Text(f"{result.claim}  {result.says}", style="bold")
    yield Text(f"  figure: {result.figure}")
    yield Text(f"  {result.rule}", style="dim")
    whys = {finding.why for finding in result.findings}
    for finding in result.findings[: len(whys)]:
        against = f" against {finding.compared_with}" if finding.compared_with else ""
        name = f"{_FORMS[finding.optimizer] if len(whys) > 1 else 'both'}{against}"
        yield Text(f"  {name}: {finding.why}")
    yield Text.assemble(("  repeat: ", "bold"), result.repeat)


def _notes(claims: Claims) -> Iterator[str]:
    seeds = count(claims.seeds, "seed")
    yield (
        f"{PurePath(claims.model).name} on {data_name(claims.data)}, {claims.imgsz} px, batch "
        f"{claims.batch}: {count(claims.epochs, 'epoch')} on {seeds}, learning rates by "
        f"{claims.sweep_epochs} on another"
    )
    yield (
        f"{count(claims.trainings, 'training')}, {claims.seconds / 60:.1f} min, "
        f"{claims.cpu_s:.0f} CPU seconds; {machine_in_words(claims.host)}"
    )
    if claims.scale == "quick":
        yield (
            f"a quick look: with {seeds} and trainings this short, only large effects show; "
            "musgd claims --full --data YAML --model weights.pt tells more"
        )
