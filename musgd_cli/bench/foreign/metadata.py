"""What Ultralytics notes in an export, in whatever way its format keeps notes.

Of ONNX these are texts, Python's ``str`` of each value; elsewhere YAML or JSON.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from musgd_cli.bench.foreign.model import damaged
from musgd_cli.records import Precision

SIDECAR = "metadata.yaml"

_PRECISIONS: dict[object, Precision] = {8: "int8", 16: "fp16", 32: "fp32"}


def beside(file: Path) -> dict[str, Any]:
    """Read the ``metadata.yaml`` in a model's folder; empty where there is none.

    Raises:
        MusgdError: It is damaged.
    """
    sidecar = file.parent / SIDECAR
    if not sidecar.is_file():
        return {}
    try:
        found = yaml.load(sidecar.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise damaged(sidecar, "a model's metadata", first) from error
    return found if isinstance(found, dict) else {}


def _in_order(names: object) -> object:
    return [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names


def _two_sides(imgsz: object) -> object:
    return (imgsz, imgsz) if isinstance(imgsz, int) else imgsz


class Metadata(BaseModel):
    """The notes that matter here. Each may be missing, as from other exporters all are."""

    author: str | None = None
    version: str | None = None
    task: str | None = None
    names: Annotated[tuple[str, ...] | None, BeforeValidator(_in_order)] = None
    imgsz: Annotated[tuple[int, int] | None, BeforeValidator(_two_sides)] = None
    """Height and width, pixels."""
    stride: int = 32
    end2end: bool | None = None
    args: Mapping[str, Any] = Field(default_factory=dict)
    """Of the export."""

    @property
    def exporter(self) -> str | None:
        """Who made it, with the version."""
        return " ".join(filter(None, (self.author, self.version))) or None

    @property
    def precision_asked(self) -> Precision | None:
        """What was asked for, under the names that Ultralytics had for it over time."""
        if self.args.get("int8"):
            return "int8"
        if self.args.get("half"):
            return "fp16"
        return _PRECISIONS.get(self.args.get("quantize"))


def understand(file: Path, notes: Mapping[str, Any]) -> Metadata:
    """Make sense of an export's notes.

    Args:
        file: That they belong to.
        notes: As they were found.

    Raises:
        MusgdError: One of them is not what Ultralytics writes.
    """
    try:
        return Metadata.model_validate({name: _value(note) for name, note in notes.items()})
    except (ValidationError, ValueError) as error:
        why = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{first['loc'][0]}: {first['msg']}"
        raise damaged(file, "a model with Ultralytics' metadata", why) from error


def _value(note: object) -> object:
    if not isinstance(note, str):
        return note
    try:
        return ast.literal_eval(note)
    except (ValueError, SyntaxError):  # a text that is meant as one
        return note
