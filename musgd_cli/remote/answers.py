"""What boards print, read as records; and faults found here, said of a board."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from musgd_cli.errors import MusgdError
from musgd_cli.records import SCHEMA, Record

ONE_VERSION = "install one version of musgd here and there; musgd --version tells which it is"
"""What mends an answer that is not understood."""

R = TypeVar("R", bound=Record)


def read_answer(board: str, text: str, kind: type[R]) -> R:
    """Read the one JSON object that a program printed.

    Args:
        board: Where it ran.
        text: All that it printed on stdout.
        kind: What it should be.

    Raises:
        MusgdError: It is of another major schema, or no such record.
    """
    try:
        data: Any = json.loads(text)
        theirs = str(data["schema"])
        if theirs.partition(".")[0] != SCHEMA.partition(".")[0]:
            raise MusgdError(
                f"{board}: its musgd writes records of schema {theirs}, this one reads {SCHEMA}",
                ONE_VERSION,
            )
        return kind.parse(data)
    # Pydantic's is a ValueError; the last is of lists in lists in lists.
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{board}: what its musgd printed is no {kind.__name__}: "
        raise MusgdError(what + str(error).splitlines()[0], ONE_VERSION) from error


@contextmanager
def blame(board: str) -> Iterator[None]:
    """Name the board in what is wrong with settings or a baseline for it."""
    try:
        yield
    except MusgdError as error:
        raise type(error)(f"{board}: {error.what}", error.mend, error.exit_code) from error
