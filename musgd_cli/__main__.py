"""``musgd`` and ``python -m musgd_cli``: run a command, turn its failure into words and a code."""

from __future__ import annotations

import os
import sys

import typer

from musgd_cli.commands import app
from musgd_cli.errors import ExitCode, MusgdError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Run ``musgd`` and return its exit code.

    Foreseen failures become an ``error:`` and a ``mend:`` line; anything else keeps its traceback.
    """
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
        what = getattr(error, "format_message", error.__str__)().rstrip(".")
        return _fail(UsageError(what, f"{path} --help"))
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # `musgd … | head` closed our stdout; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    return int(code or ExitCode.DONE)


def _fail(error: MusgdError) -> int:
    from musgd_cli.console import print_error

    print_error(error)
    return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
