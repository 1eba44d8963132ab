"""A profile with tuned values: the base's text, its other comments kept, and each new reason."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from musgd_cli import profiles
from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.records import Host
from musgd_cli.sections import FINE_TUNING, read_tables
from musgd_cli.storage import write_text

WIDTH = 100
BOARD_KEYS = ("workers", "cache", "threads")
"""Of ``[train]``: what only the board itself can tell."""


def require_writable(destination: Path, study: str) -> None:
    """Make sure that a study may write its profile to ``destination``.

    Raises:
        UsageError: It is no ``.toml`` path, or holds what this study did not write.
    """
    if destination.suffix != ".toml":
        raise UsageError(
            f"--write {destination} does not end in .toml", f"--write {destination}.toml"
        )
    if destination.exists() and not profiles.read_text(destination).startswith(_mark(study)):
        raise UsageError(f"--write {destination} exists already", "choose another name")


def write(
    base: str,
    destination: Path,
    *,
    study: str,
    optimizer: str,
    fine_tunes: bool,
    values: Mapping[str, Any],
    reasons: Mapping[str, str],
    heading: str,
    host: Host,
) -> None:
    """Write a copy of a profile in which tuned values replace the base's, each with its reason.

    Args:
        base: A shipped profile's name, or the path of a ``.toml`` file.
        destination: A ``.toml`` file, whose stem becomes the copy's name.
        study: The study that the values are from.
        optimizer: Whose table takes the values of ``[optim]``.
        fine_tunes: They hold where training starts from weights, and go into that table of its.
        values: ``section.key`` to value.
        reasons: ``section.key`` to the comment above it.
        heading: The comment at the head of the file.
        host: The machine that measured. What only a board can tell says "not measured" where the
            base is not made for it.

    Raises:
        UsageError: There is no such base, or it is written in a form in which the values cannot be
            placed.
        MusgdError: The file cannot be written.
    """
    source = profiles.load(base)
    lines = profiles.read_text(profiles.find(base)).splitlines()
    _set_name(lines, destination.stem)
    own = [f"optim.{optimizer}", "optim"]
    if fine_tunes:
        own.insert(0, f"optim.{optimizer}.{FINE_TUNING}")
    for key, value in values.items():
        section, _, name = key.partition(".")
        _place(lines, own if section == "optim" else [section], name, value, reasons[key])
    if host.board not in source.boards:
        for name in BOARD_KEYS:
            _append(lines, "train", name, "not measured on this board")
    head = [_mark(study), *_comment(heading), ""]
    write_text(destination, "\n".join([*head, *lines]) + "\n")
    _require_as_meant(destination, optimizer, fine_tunes, values)


def _mark(study: str) -> str:
    return f"# Written by musgd tune, study {study}."


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _set_name(lines: list[str], name: str) -> None:
    for index, line in enumerate(lines):
        if re.match(r"name *=", line):
            lines[index] = f"name = {json.dumps(name, ensure_ascii=False)}"
            return


def _place(lines: list[str], tables: Sequence[str], key: str, value: Any, reason: str) -> None:
    """Put ``key = value`` into the first of ``tables``, in place of what is said of it there.

    Where the value stands already, in the first table that has the key, its reasons stay, and the
    new one joins them.
    """
    for table in tables:
        found = _find(lines, table, key)
        if found is not None:
            if _value(lines[found], key) == value:
                lines[found:found] = _comment(reason)
                return
            break
    new = [*_comment(reason), f"{key} = {toml(value)}"]
    begin, end = _span(lines, tables[0]) or _add_table(lines, tables[0])
    found = _find(lines, tables[0], key)
    if found is None:
        while end > begin and not lines[end - 1].strip():
            end -= 1
        lines[end:end] = new
        return
    first = found
    while first > begin and lines[first - 1].startswith("#"):
        first -= 1
    lines[first : found + 1] = new


def _value(line: str, key: str) -> Any:
    try:
        return tomllib.loads(line).get(key)
    except tomllib.TOMLDecodeError:  # it goes on in the next line
        return None


def _append(lines: list[str], table: str, key: str, remark: str) -> None:
    """Add to the reason that is given for a value already."""
    index = _find(lines, table, key)
    if index is None:
        return
    value, hash_, reason = lines[index].partition("#")
    if "not measured" in reason.lower():
        return
    said = f"{reason.strip()}; {remark}" if hash_ else remark
    if len(line := f"{value.rstrip()} # {said}") <= WIDTH:
        lines[index] = line
    else:
        lines[index : index + 1] = [*_comment(said), value.rstrip()]


def _span(lines: Sequence[str], table: str) -> tuple[int, int] | None:
    """Return the lines of a table: the first below its header, and the next header or the end.

    The comments that stand right above the next header are that one's.
    """
    headers = [index for index, line in enumerate(lines) if re.match(r"\s*\[", line)]
    for index, following in zip(headers, [*headers[1:], len(lines)], strict=True):
        if re.fullmatch(rf"\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?", lines[index]):
            while following < len(lines) and lines[following - 1].startswith("#"):
                following -= 1
            return index + 1, following
    return None


def _add_table(lines: list[str], table: str) -> tuple[int, int]:
    """Add a table below the one that it is part of, and return its lines, of which it has none."""
    parent = _span(lines, table.rpartition(".")[0])
    end = len(lines) if parent is None else parent[1]
    while end and not lines[end - 1].strip():
        end -= 1
    lines[end:end] = ["", f"[{table}]"]
    return end + 2, end + 2


def _find(lines: Sequence[str], table: str, key: str) -> int | None:
    """Return the line of a table's key."""
    where = range(*(_span(lines, table) or (0, 0)))
    return next((i for i in where if re.match(rf"\s*{re.escape(key)}\s*=", lines[i])), None)


def toml(value: Any) -> str:
    """Return a setting's value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        return str(value)
    # TOML wants a digit on both sides of the point, and has exponents.
    return repr(float(value))


def _require_as_meant(
    file: Path, optimizer: str, fine_tunes: bool, values: Mapping[str, Any]
) -> None:
    """Read back what was written by lines: TOML can be written in ways that they do not show."""
    faults = profiles.check(file)
    if not faults:
        tables = read_tables(profiles.read_toml(file))
        written = {each.key: each.value for each in tables.values(optimizer, fine_tunes=fine_tunes)}
        faults = tuple(
            f"{key} is not {value}" for key, value in values.items() if written.get(key) != value
        )
    if faults:
        file.unlink()
        raise MusgdError(
            f"the tuned values could not be placed in a copy of the profile: {faults[0]}",
            "write its tables as [optim.NAME] with one key a line, or set them by hand",
        )
