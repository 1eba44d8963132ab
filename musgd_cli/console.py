"""The two streams a command writes to, and who is watching.

Results go to stdout. Narration, warnings, progress and errors go to stderr, so that
``musgd … --json | jq`` always works. This is the only module that knows about terminals.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

    from musgd_cli.errors import MusgdError
    from musgd_cli.records import Record

UNWATCHED_WIDTH = 200
"""Columns of a table that goes to a file or a pipe: wide enough that no cell is cut."""


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    watched = stream.isatty()
    width = None if watched or "COLUMNS" in os.environ else UNWATCHED_WIDTH
    # Numbers, paths and brackets in our text are ours to style; in `a.toml:x:3` no emoji is meant.
    return Console(file=stream, width=width, highlight=False, emoji=False, soft_wrap=not watched)


def _print_line(console: Console, text: str, label: str = "", style: str = "") -> None:
    # No markup, and the terminal wraps it: a path or a command can be copied whole.
    from rich.text import Text

    line = Text.assemble((f"{label}: ", style), text) if label else Text(text)
    console.print(line, soft_wrap=True)


class Terminal:
    """Where one command speaks.

    Args:
        as_json: The result is one JSON object on stdout; tables are left out.
        quiet: Only the result, warnings and errors.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._out: Console | None = None
        self._err: Console | None = None

    @property
    def out(self) -> Console:
        """The rich console on stdout."""
        if self._out is None:
            self._out = _console(sys.stdout)
        return self._out

    @property
    def err(self) -> Console:
        """The rich console on stderr."""
        if self._err is None:
            self._err = _console(sys.stderr)
        return self._err

    @property
    def watched(self) -> bool:
        """Whether a person is looking at stderr, so that live displays make sense."""
        return sys.stderr.isatty() and not self.quiet and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Tell how the work goes: one line on stderr, silenced by ``--quiet``. No markup."""
        if not self.quiet:
            _print_line(self.err, text)

    def warn(self, what: str, mend: str | None = None) -> None:
        """Tell of something that did not stop the work but should be known."""
        _print_line(self.err, what, "warning", "yellow")
        if mend:
            _print_line(self.err, mend, "mend", "dim")

    def show(self, renderable: RenderableType) -> None:
        """Print a result for people on stdout; nothing under ``--json``."""
        if not self.as_json:
            self.out.print(renderable)

    def emit(self, record: Record | Mapping[str, Any]) -> None:
        """Print the result for scripts on stdout, under ``--json`` only.

        A rich console would wrap long lines and eat brackets, so it is not asked. ASCII alone
        survives every locale.
        """
        if self.as_json:
            data = record if isinstance(record, Mapping) else json.loads(record.model_dump_json())
            sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")
            sys.stdout.flush()

    def emit_line(self, record: Mapping[str, Any]) -> None:
        """Print one of many results for scripts, on a line of its own, under ``--json`` only."""
        if self.as_json:
            sys.stdout.write(json.dumps(record, allow_nan=False) + "\n")
            sys.stdout.flush()

    @contextmanager
    def live(self, renderable: RenderableType) -> Iterator[Live | None]:
        """Show a display that redraws in place on stderr; ``None`` where no person watches."""
        if not self.watched:
            yield None
            return
        from rich.live import Live

        # Left to itself, rich would lead stdout to the terminal too, past `> file` and `| jq`.
        with Live(
            renderable, console=self.err, refresh_per_second=4, redirect_stdout=False
        ) as live:
            yield live

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Show that work goes on: a spinner for a person, one plain line otherwise."""
        if not self.watched:
            self.say(text)
            yield
            return
        from rich.live import Live
        from rich.spinner import Spinner

        spinner = Spinner("dots", text=text)
        with Live(spinner, console=self.err, transient=True, redirect_stdout=False):
            yield


def print_error(error: MusgdError) -> None:
    """Print the two lines of a foreseen failure on stderr."""
    console = _console(sys.stderr)
    _print_line(console, error.what, "error", "bold red")
    _print_line(console, error.mend, "mend", "bold")
