"""What boards print, read as records; and faults found here, said of a board."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from musgd_cli.errors import MusgdError
from musgd_cli.records import SCHEMA, Record

ONE_VERSION = "install one version of musgd here and there; musgd --version tells which it is"
"""What mends an answer that is not understood."""

R = TypeVar("R", bound=Record)

_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")
"""What a terminal takes for colours, titles and the like."""


def printable(text: str) -> str:
    """Return what a board says, without what would act on the terminal here."""
    text = _ESCAPES.sub("", text).replace("\t", " ")
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")


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
        data = _cleared(json.loads(text))
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


def _cleared(data: Any) -> Any:
    """Return JSON whose texts are printable: tables and pages here will show them."""
    if isinstance(data, str):
        return printable(data)
    if isinstance(data, list):
        return [_cleared(one) for one in data]
    if isinstance(data, dict):
        return {printable(key): _cleared(value) for key, value in data.items()}
    return data


@contextmanager
def blame(board: str) -> Iterator[None]:
    """Name the board in what is wrong with settings or a baseline for it."""
    try:
        yield
    except MusgdError as error:
        raise MusgdError(f"{board}: {error.what}", error.mend, error.exit_code) from error
