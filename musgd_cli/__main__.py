"""``musgd`` and ``python -m musgd_cli``: run a command, turn its failure into words and a code."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from musgd_cli.errors import ExitCode, MusgdError, UsageError

if TYPE_CHECKING:
    import typer


def main(arguments: list[str] | None = None) -> int:
    """Run ``musgd`` and return its exit code.

    Foreseen failures become an ``error:`` and a ``mend:`` line; anything else keeps its traceback.

    Args:
        arguments: The command line after ``musgd``. Default: this process's own.
    """
    # As Ctrl-C does, so that temporary folders are cleared away and workers end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup asks for
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        return _run(arguments)
    except KeyboardInterrupt:  # while the modules below were loaded, which takes a Pi seconds
        return ExitCode.INTERRUPTED


def _run(arguments: list[str] | None) -> int:
    import typer

    from musgd_cli.commands import app

    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # On a board whose locale is not UTF-8 an ellipsis must not end the work.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="musgd", standalone_mode=False)
    except MusgdError as error:
        return _fail(error)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        if not str(error) and context is not None:  # bare `musgd`: the help is already on screen
            return ExitCode.USAGE
        path = context.command_path if context is not None else "musgd"
        return _fail(UsageError(_what(error), f"{path} --help"))
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except SystemExit as stop:
        # What typer and rich make of a reader that has seen enough, as in `musgd … | head`.
        if isinstance(stop.__context__, BrokenPipeError):
            _give_up_stdout()
            return ExitCode.DONE
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ENAMETOOLONG) and error.filename:
            what = f"{os.strerror(error.errno)}: {os.fsdecode(error.filename)}"
            return _fail(UsageError(what, "check the path and its permissions"))
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _give_up_stdout()
        place = f" for {error.filename}" if error.filename else ""
        return _fail(
            MusgdError(
                f"{os.strerror(error.errno)}{place}", "free some space, then run the command again"
            )
        )
    return int(code or ExitCode.DONE)


def _open_closed_streams() -> None:
    # Of `musgd … >&-` Python makes None, and the next file opened would get the number 1: what
    # native code prints would go into it. Never closed: they are the process's streams.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _what(error: typer.TyperException) -> str:
    what = error.format_message().rstrip(".")
    # typer lets pydantic read the values, and leaves out the one that was typed.
    faults: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    return f"{what}: {faults[0]['input']!r}" if faults else what


def _fail(error: MusgdError) -> int:
    from musgd_cli.console import print_error

    print_error(error)
    return int(error.exit_code)


def _give_up_stdout() -> None:
    # What is still in its buffer would fail once more, with a complaint, when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
