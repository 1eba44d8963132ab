"""An artifact's record as far as running it needs, read without pydantic.

It costs a tenth of a second and 16 MB on a server, and a board has less of both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from musgd_cli.errors import UsageError
from musgd_cli.storage import read_json

RECORD = "artifact.json"


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
    values: dict[str, Any] = {}
    for field in fields(Built):
        value = data.get(field.name)
        if not isinstance(value, _TYPES[field.name]):
            raise UsageError(f"{file} holds no Artifact: {field.name} is {value!r}", mend)
        values[field.name] = tuple(map(str, value)) if isinstance(value, list) else value
    return Built(**values)
