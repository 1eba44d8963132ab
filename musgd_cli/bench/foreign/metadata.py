"""What Ultralytics notes in an export, in whatever way its format keeps notes.

Of ONNX these are texts, Python's ``str`` of each value; elsewhere YAML or JSON.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, Field, PositiveInt, ValidationError

from musgd_cli.bench.foreign.model import damaged
from musgd_cli.records import Precision
from musgd_cli.runtime.tflite_notes import NO_LITERAL

_SIDECAR = "metadata.yaml"

_MOST_CHARACTERS = 1 << 20
"""Of notes; ten thousand classes take a fifth of that."""

_PRECISIONS: dict[int, Precision] = {8: "int8", 16: "fp16", 32: "fp32"}


_NO_YAML = (
    *(yaml.YAMLError, ValueError, RecursionError),
    *(LookupError, AttributeError, TypeError, ArithmeticError),
)
"""What PyYAML raises: the latter where a value is not what its tag says."""


class _Loader(yaml.SafeLoader):
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave merge keys unmerged, to be refused: a few lines of them fill any memory."""


def beside(file: Path) -> dict[str, Any]:
    """Read the ``metadata.yaml`` in a model's folder; empty where there is none.

    Raises:
        MusgdError: It is damaged.
    """
    sidecar = file.parent / _SIDECAR
    if not sidecar.is_file():
        return {}
    try:
        if sidecar.stat().st_size > _MOST_CHARACTERS:
            raise ValueError("it is too long for notes")
        found = yaml.load(sidecar.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (safe)
    except _NO_YAML as error:
        first = next(iter(str(error).splitlines()), "it is no YAML")
        raise damaged(sidecar, "a model's metadata", first) from error
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _in_order(names: object) -> object:
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names, key=lambda key: int(str(key)))]
    if not isinstance(names, (list, tuple)):
        return names
    # A list in place of a name may hold itself many times over, by YAML's aliases.
    if any(isinstance(name, Collection) and not isinstance(name, str) for name in names):
        raise ValueError("a name is no text")
    return tuple(map(str, names))


def _two_sides(imgsz: object) -> object:
    return (imgsz, imgsz) if isinstance(imgsz, int) else imgsz


def _mapping(args: object) -> object:
    return args if isinstance(args, dict) else {}


class Metadata(BaseModel):
    """The notes that matter here. Each may be missing, as from other exporters all are."""

    author: str | None = None
    version: str | None = None
    task: str | None = None
    names: Annotated[tuple[str, ...] | None, BeforeValidator(_in_order)] = None
    imgsz: Annotated[tuple[PositiveInt, PositiveInt] | None, BeforeValidator(_two_sides)] = None
    """Height and width, pixels."""
    stride: PositiveInt = 32
    end2end: bool | None = None
    args: Annotated[Mapping[Any, Any], BeforeValidator(_mapping)] = Field(default_factory=dict)
    """Of the export."""

    @property
    def gives_final_boxes(self) -> bool:
        """NMS is part of the model, or it needs none."""
        return bool(self.end2end or self.args.get("nms"))

    @property
    def exporter(self) -> str | None:
        """Who made it, with the version."""
        return " ".join(filter(None, (self.author, self.version))) or None

    @property
    def calibrated_on(self) -> str | None:
        """File name of the data set that calibrated its int8.

        Which of its images is not noted; Ultralytics takes those of the split ``val``.
        """
        data = self.args.get("data")
        known = isinstance(data, str) and self.precision_asked == "int8"
        return Path(str(data)).name if known else None

    @property
    def precision_asked(self) -> Precision | None:
        """What was asked for, under the names that Ultralytics had for it over time."""
        if self.args.get("int8"):
            return "int8"
        if self.args.get("half"):
            return "fp16"
        asked = self.args.get("quantize")
        return _PRECISIONS.get(asked) if isinstance(asked, int) else None


def understand(file: Path, notes: Mapping[str, Any]) -> Metadata:
    """Make sense of an export's notes.

    Args:
        file: That they belong to.
        notes: As they were found.

    Raises:
        MusgdError: One of them is not what Ultralytics writes.
    """
    try:
        return Metadata.model_validate({name: _value(name, note) for name, note in notes.items()})
    except ValidationError as error:
        if file.suffix == ".onnx" and notes.get("author") != "Ultralytics":
            return Metadata()  # other exporters mean other things by the same words
        first = error.errors()[0]
        why = f"{first['loc'][0]}: {first['msg']}"
        raise damaged(file, "a model with Ultralytics' metadata", why) from error


_TEXTS = frozenset({"author", "version", "task"})


def _value(name: str, note: object) -> object:
    if not isinstance(note, str) or name in _TEXTS or len(note) > _MOST_CHARACTERS:
        return note
    try:
        return ast.literal_eval(note)
    except NO_LITERAL:  # a text that is meant as one
        return note
