"""The command line: one file a verb, options in, a stage called, its record rendered.

Command modules import typer and their neighbours' option types at the top and nothing else:
``musgd --help`` loads all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer
import typer.core
import typer.main

from musgd_cli.commands import (
    bench,
    bundle,
    claims,
    compare,
    data,
    demo,
    doctor,
    export,
    fit,
    plan,
    predict,
    profiles,
    prune,
    report,
    train,
    tune,
    wheelhouse,
)

_VERBS: dict[str, Callable[..., None]] = {}


class Verbs(typer.core.TyperGroup):
    """A group that reads a verb's options when it is called, not when it is listed.

    Reading those of all verbs would take a quarter of ``musgd --help`` and be done before any verb.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that ``args`` begins with, its options read."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, _with_options(_VERBS[name]) if name in _VERBS else command, rest


def _with_options(verb: Callable[..., None]) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command()(verb)
    return typer.main.get_command(alone)


def _listed() -> None:
    """Stand for a verb where only its name and help are asked for."""


def _add(verb: Callable[..., None]) -> None:
    _VERBS[verb.__name__] = verb
    app.command(verb.__name__, help=inspect.getdoc(verb))(_listed)


app = typer.Typer(
    name="musgd",
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        from musgd_cli import __version__

        typer.echo(f"musgd {__version__}")
        raise typer.Exit


@app.callback()
def musgd(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    """From a detection data set to a model that runs on an edge board.

    [bold]musgd demo[/]  tries the whole path on a built-in data set.
    """


_add(doctor.doctor)
_add(plan.plan)
app.add_typer(profiles.app, name="profiles")
app.add_typer(data.app, name="data")
_add(train.train)
_add(compare.compare)
_add(tune.tune)
_add(claims.claims)
_add(prune.prune)
_add(export.export)
_add(bench.bench)
_add(fit.fit)
_add(report.report)
_add(predict.predict)
_add(bundle.bundle)
_add(wheelhouse.wheelhouse)
_add(demo.demo)
