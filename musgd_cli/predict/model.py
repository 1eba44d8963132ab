"""An artifact's record as far as running it needs, read without pydantic.

It costs a tenth of a second and 16 MB on a server, and a board has less of both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from musgd_cli.errors import UsageError
from musgd_cli.paths import stays_inside
from musgd_cli.storage import read_json

RECORD = "artifact.json"

SCHEMA = "1.0"
"""`musgd_cli.records.SCHEMA`, which only pydantic could read here."""


@dataclass(frozen=True)
class Built:
    """A model, as `musgd_cli.runtime.engine.Model` has it."""

    files: tuple[str, ...]
    sha256: str
    runtime: str
    precision: str
    imgsz: int
    names: tuple[str, ...]
    nms_free: bool


_TYPES: dict[str, type] = {
    "files": list,
    "sha256": str,
    "runtime": str,
    "precision": str,
    "imgsz": int,
    "names": list,
    "nms_free": bool,
}

_MOST_IMGSZ = 8192
"""Pixels: the input of such a model is 800 MB."""


def read(folder: Path) -> Built:
    """Read the record in an artifact's folder.

    Raises:
        UsageError: There is none, or it is not an artifact's.
    """
    file = folder / RECORD
    data: Any = read_json(file)
    mend = "copy the whole folder once more; musgd export makes it again"
    if not isinstance(data, dict):
        raise UsageError(f"{file} holds no Artifact", mend)
    schema = str(data.get("schema", SCHEMA))
    if schema.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise UsageError(
            f"{file} has schema {schema}, this reads {SCHEMA}",
            "update musgd, or make the bundle again with the musgd that exported the model",
        )
    values: dict[str, Any] = {}
    for field in fields(Built):
        value = data.get(field.name)
        if not _is_sound(field.name, value):
            raise UsageError(f"{file} holds no Artifact: {field.name} is {value!r}", mend)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    if not values["files"] and values["runtime"] != "null":
        raise UsageError(f"{file} holds no Artifact: it names no file of the model", mend)
    return Built(**values)


def _is_sound(name: str, value: Any) -> bool:
    kind = type(value)
    if kind is not _TYPES[name]:  # True is an int too
        return False
    if name == "imgsz":
        return bool(0 < value <= _MOST_IMGSZ)
    if isinstance(value, list) and not all(item and isinstance(item, str) for item in value):
        return False
    if name == "files":
        return all(stays_inside(item) for item in value)
    return name != "names" or bool(value)
