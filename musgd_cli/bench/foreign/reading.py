"""From a path to a described model: which file it is, what it tells, whether we measure such."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from musgd_cli.bench.foreign import WEIGHTS, ncnn_file, onnx_file, openvino_file, tflite_file
from musgd_cli.bench.foreign.metadata import Metadata, beside, understand
from musgd_cli.bench.foreign.model import ModelFile, Shape
from musgd_cli.bench.subject import Subject
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.paths import lies_inside
from musgd_cli.records import Artifact, RuntimeName
from musgd_cli.runs import ARTIFACT_FILE, read_artifact
from musgd_cli.storage import sha256_of

TARGET = "unknown"
"""Nobody said which board a foreign model is for."""

_FORMATS: dict[str, tuple[RuntimeName, Callable[[Path], ModelFile]]] = {
    ".onnx": ("onnxruntime", onnx_file.read),
    ".xml": ("openvino", openvino_file.read),
    ".param": ("ncnn", ncnn_file.read),
    ".tflite": ("litert", tflite_file.read),
}
"""By the ending of the file that opens a model: what runs it and what reads it."""

_IN_WORDS = ".onnx, OpenVINO's .xml, ncnn's .param or .tflite"

_TENSORRT = frozenset({".engine", ".plan", ".trt"})
_ELSEWHERE = frozenset(
    {
        *(".torchscript", ".mlpackage", ".mlmodel", ".pb", ".mnn", ".pte", ".rknn", ".hef"),
        *(".axm", ".pdmodel", ".ckpt", ".h5", ".keras", ".safetensors", *_TENSORRT),
    }
)
"""Models of runtimes that musgd has no engine for, or of frameworks."""

_SIDES = range(32, 8192 + 1)
"""Sides of an image, pixels, that a detector of ours has use for."""

_MOST_CLASSES = 10_000
"""LVIS has 1203, YOLO9000 knew 9418."""

_MOST_FINAL_BOXES = 1000
"""Ultralytics exports 300 unless told otherwise; the smallest usual image has more candidates."""

_STRIDES = (8, 16, 32)
"""Of the grids on whose cells YOLOX has one candidate, and YOLOv5 three."""


def read(path: Path) -> Subject:
    """Describe a model that has no ``artifact.json``. Nothing is written.

    Its ``target`` is `TARGET`. Where no metadata names the classes but the output tells how many
    there are, they are class0, class1, ….

    Args:
        path: A ``.onnx``, ``.xml``, ``.param`` or ``.tflite``, or a folder with one of them.

    Raises:
        UsageError: It is no model, holds several, or is a model of a kind that is not measured.
        UnsupportedError: It is a model for a runtime that musgd has no engine for.
        MusgdError: It is damaged, or not whole.
    """
    try:
        file = _followed(_find(path))
        return _of_an_artifact(file) or _describe(file)
    except OSError as error:
        raise MusgdError(
            f"cannot read {path}: {error.strerror or error}", "check the path and its permissions"
        ) from error


# --------------------------------------------------------------------------- which file it is


def _find(path: Path) -> Path:
    """Return the file that opens the model at ``path``."""
    if path.is_dir():
        return _find_in(path)
    suffix = path.suffix.lower()
    if not path.exists():
        raise UsageError(f"{path} does not exist", "check the path")
    if suffix in _FORMATS:
        return path
    if suffix == ".bin":
        for graph in (path.with_suffix(".xml"), path.with_suffix(".param")):
            if graph.is_file():
                return graph
        raise UsageError(
            f"{path} is weights without their graph, a .xml or .param of the same name",
            "copy the whole model",
        )
    if suffix in _ELSEWHERE:
        raise _no_engine(path)
    raise UsageError(f"{path} is no model that musgd knows", f"give {_IN_WORDS}")


def _find_in(folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    found = [
        file
        for file in files
        if file.suffix.lower() in _FORMATS
        # pnnx leaves its own notation, for itself, under the same ending.
        and not file.name.endswith(".pnnx.param")
        and (file.suffix.lower() != ".xml" or openvino_file.is_one(file))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise UsageError(
            f"{folder} holds {len(found)} models: {names}",
            f"give one of them, such as {shlex.quote(str(found[0]))}",
        )
    if any((folder / name).is_dir() for name in ("images", "labels")):
        raise UsageError(
            f"{folder} is a data set, not a model",
            f"musgd bench MODEL --data {shlex.quote(str(folder))}",
        )
    if orphans := [file for file in files if file.suffix.lower() == ".bin"]:
        return _find(orphans[0])  # which says what it lacks
    if weights := [file for file in files if file.suffix.lower() in WEIGHTS]:
        raise UsageError(
            f"{folder} holds weights, which only torch runs; a board runs what is made of them",
            f"export them first: musgd export {shlex.quote(str(weights[0]))}",
        )
    if foreign := [file for file in files if file.suffix.lower() in _ELSEWHERE]:
        raise _no_engine(foreign[0])
    raise UsageError(f"there is no model in {folder}", f"give {_IN_WORDS}, or a folder with one")


def _no_engine(path: Path) -> UnsupportedError:
    if path.suffix.lower() in _TENSORRT:
        return UnsupportedError(
            f"{path} is a TensorRT engine, which tells no class and runs on one kind of GPU",
            "bench the ONNX it was built from, or time it: trtexec "
            f"--loadEngine={shlex.quote(str(path))}",
        )
    return UnsupportedError(f"musgd has no engine for {path}", f"export it to {_IN_WORDS}")


def _of_an_artifact(file: Path) -> Subject | None:
    """Return the artifact whose model file this is, if it is one's."""
    if not (file.parent / ARTIFACT_FILE).is_file():
        return None
    artifact = read_artifact(file.parent)
    return Subject(file.parent, artifact) if file.name in artifact.files else None


def _followed(file: Path) -> Path:
    """Follow a link to a model elsewhere: what belongs to it lies there."""
    if lies_inside(file.parent, file.name):
        return file
    there = file.resolve()
    return there if there.suffix.lower() == file.suffix.lower() else file


# -------------------------------------------------------------------------------- what it is


def _describe(file: Path) -> Subject:
    runtime, read_file = _FORMATS[file.suffix.lower()]
    model = read_file(file)
    notes = understand(file, model.metadata or beside(file))
    imgsz = _imgsz(file, model, notes)
    nms_free, names = _output(file, model, notes, imgsz)
    folder = file.parent
    files = tuple(str(part.relative_to(folder)) for part in model.files)
    for name in files:
        if not lies_inside(folder, name):
            raise UsageError(
                f"{name!r} of {file} leads out of its folder", "put the file itself there: cp -L"
            )
    artifact = Artifact(
        path=str(folder),
        files=files,
        sha256=sha256_of(model.files),
        parent_sha256=None,
        target=TARGET,
        runtime=runtime,
        precision_asked=notes.precision_asked or model.precision,
        precision=model.precision,
        int8_macs_share=model.int8_macs_share,
        imgsz=imgsz,
        names=names,
        nms_free=nms_free,
        stride=notes.stride,
        size_mb=sum(part.stat().st_size for part in model.files) / 2**20,
    )
    return Subject(
        folder,
        artifact,
        made_by=notes.exporter or model.maker or "unknown exporter",
        calibrated_on=notes.calibrated_on,
    )


def _imgsz(file: Path, model: ModelFile, notes: Metadata) -> int:
    """Return the side of the square image that a model takes."""
    if len(model.inputs) != 1:
        raise UsageError(
            f"{file} has {len(model.inputs)} inputs, a detector's only one is an image",
            "give a detection model",
        )
    shape = model.inputs[0]
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise UsageError(
            f"{file} takes {_words(shape)}, not an image in three colours", "give a detection model"
        )
    batch, *sides = shape
    if batch not in (None, 1):
        raise UsageError(
            f"{file} takes {batch} images at once; one at a time is measured",
            "export it with batch=1",
        )
    sides = sides[1:] if shape[1] == 3 else sides[:2]
    if None in sides and notes.imgsz is None:
        raise UsageError(
            f"neither {file} nor metadata beside it tells the size of its images",
            "export it with a fixed size; or note it as imgsz: 640 in a metadata.yaml beside it",
        )
    height, width = (
        told if side is None else side
        for side, told in zip(sides, notes.imgsz or (0, 0), strict=True)
    )
    if height != width:
        raise UsageError(
            f"{file} takes images of {width} x {height}; musgd letterboxes into a square",
            f"export it with imgsz={max(height, width)}",
        )
    if height not in _SIDES:
        raise UsageError(
            f"{file} takes images of {height} px; measured are {_SIDES[0]} to {_SIDES[-1]}",
            "export it with imgsz=640, or correct the imgsz in the metadata.yaml beside it",
        )
    return height


def _output(
    file: Path, model: ModelFile, notes: Metadata, imgsz: int
) -> tuple[bool, tuple[str, ...]]:
    """Return whether a model gives final boxes, and its classes."""
    if notes.task not in (None, "detect"):
        raise _not_a_detector(file, f"is for the task {notes.task!r}")
    if len(model.outputs) != 1:
        raise _not_a_detector(file, f"has {len(model.outputs)} outputs")
    shape = model.outputs[0]
    if len(shape) != 3:
        raise _not_a_detector(file, f"gives {_words(shape)}")
    _, rows, columns = shape
    nms_free = _gives_final_boxes(rows, columns, notes, imgsz)
    if not nms_free and columns == 6 and rows is None:
        raise UsageError(
            f"{file} gives {_words(shape)}: final boxes or candidates, nothing tells which",
            "export it with a fixed size",
        )
    if not nms_free and rows is not None and columns is not None and rows > columns:
        raise UsageError(
            f"{file} gives {_words(shape)}, a candidate a row as YOLOv5 and YOLOX do; "
            "[1, 4 + classes, candidates] is understood",
            "export a YOLOv8, YOLO11 or YOLO26 with Ultralytics",
        )
    names = notes.names
    n_classes = (rows or 4) - 4 if names is None and not nms_free else len(names or ())
    if n_classes > _MOST_CLASSES:
        raise _not_a_detector(file, f"has {n_classes} classes")
    if names is None and not nms_free and rows is not None:
        names = tuple(f"class{i}" for i in range(n_classes))
    if names is None:
        raise UsageError(
            f"neither {file} nor metadata beside it tells the classes",
            "note them as names: {0: first, 1: second} in a metadata.yaml beside it",
        )
    if not names or not (nms_free or rows in (None, 4 + len(names))):
        raise _not_a_detector(file, f"gives {_words(shape)} for {len(names)} classes")
    return nms_free, names


def _gives_final_boxes(rows: int | None, columns: int | None, notes: Metadata, imgsz: int) -> bool:
    """Tell final boxes, of six numbers each, from candidates.

    One-class models of YOLOv5 and YOLOX have six numbers a candidate as well, box, objectness and
    class: where no note tells, their number does.
    """
    if notes.gives_final_boxes:
        return columns in (None, 6)
    if columns != 6 or rows is None or rows > _MOST_FINAL_BOXES:
        return False
    n_cells = sum((imgsz // stride) ** 2 for stride in _STRIDES)
    return rows not in (n_cells, 3 * n_cells)


def _not_a_detector(file: Path, what: str) -> UsageError:
    return UsageError(f"{file} {what}; what is measured is detection", "give a detection model")


def _words(shape: Shape) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
