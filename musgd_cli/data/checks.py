"""Look over a whole data set in one pass and name every fault at once."""

from __future__ import annotations

import hashlib
import math
import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from musgd_cli.data import labels as label_files
from musgd_cli.data.dataset import DataSet, label_file, load
from musgd_cli.data.images import SUFFIXES, DamagedImageError, decode, opencv
from musgd_cli.errors import UsageError
from musgd_cli.hardware import usable_cores
from musgd_cli.records import (
    BoxSizes,
    ClassStats,
    DataFault,
    DataReport,
    FaultKind,
    SplitStats,
)

SMALLEST_SIDE = 10
"""Pixels; Ultralytics leaves smaller images out."""

SMALL_AREA, LARGE_AREA = 32**2, 96**2
"""COCO's bounds between small, medium and large, in pixels of the original image."""

_UNSUPPORTED_SUFFIXES = frozenset({".avif", ".dng", ".gif", ".heic", ".heif", ".jp2", ".mpo"})
_NOT_LABELS = frozenset({"classes.txt"})
"""What annotation tools leave among the labels."""


class _Look(NamedTuple):
    """What one image and its label file were found to be."""

    size: tuple[int, int] | None
    """Width and height, ``None`` if it cannot be read."""
    digest: bytes | None
    """Of the file's content."""
    boxes: np.ndarray
    faults: list[DataFault]
    """With the split still unknown: an image may be in several."""


def check(path: str | Path) -> DataReport:
    """Look over a data set: every image decoded, every label row read, every file hashed.

    Args:
        path: A YAML in Ultralytics' format, or a folder that holds exactly one.

    Returns:
        What it holds, and all its faults, errors first.

    Raises:
        UsageError: The description itself cannot be loaded.
        UnsupportedError: OpenCV is missing.
    """
    began = time.perf_counter()
    data = load(path)
    opencv()
    looks = _look_at_all(data)
    faults = [
        fault.model_copy(update={"split": split})
        for split, images in data.splits.items()
        for image in dict.fromkeys(images)
        for fault in looks[image].faults
    ]
    splits = tuple(_split_stats(data, split, looks) for split in data.splits)
    classes = _class_stats(data, looks)
    faults += _duplicates(data, looks)
    for split in data.splits:
        faults += _strays(data, split)
    faults += _gaps(splits, classes)
    faults.sort(key=lambda fault: (fault.severity, fault.kind))
    return DataReport(
        path=str(data.path),
        score_split=data.score_split,
        splits=splits,
        classes=classes,
        faults=tuple(faults),
        seconds=time.perf_counter() - began,
    )


def require_sound(report: DataReport) -> None:
    """Refuse a data set that has errors.

    Raises:
        UsageError: It has some; the first few are named.
    """
    errors = report.errors
    if not errors:
        return
    named = [f"{fault.where}: {fault.what}" for fault in errors[:3]]
    rest = [f"and {len(errors) - 3} more"] if len(errors) > 3 else []
    count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
    raise UsageError(
        f"{report.path} has {count}: {'; '.join(named + rest)}",
        f"musgd data check {shlex.quote(report.path)}",
    )


def _look_at_all(data: DataSet) -> Mapping[Path, _Look]:
    images = list(dict.fromkeys(image for images in data.splits.values() for image in images))
    # Reading, hashing and decoding release the interpreter's lock.
    pool = ThreadPool(min(usable_cores(), len(images)))
    try:
        looks = pool.imap(lambda image: _look_at(image, data), images, chunksize=8)
        return dict(zip(images, looks, strict=True))
    finally:
        pool.terminate()
        # After Ctrl-C, a thread still in OpenCV while Python ends would abort the process.
        pool.join()


def _look_at(image: Path, data: DataSet) -> _Look:
    file = label_file(image)
    labels = label_files.read(file, len(data.names))
    faults = [
        DataFault(
            severity="error" if fault.is_error else "warning",
            kind=fault.kind,
            split=None,
            file=_name(data, file),
            line=fault.line,
            what=fault.what,
        )
        for fault in labels.faults
    ]

    def blame(kind: FaultKind, what: str) -> None:
        faults.append(_fault("error", kind, what, file=_name(data, image)))

    size = digest = None
    try:
        content = image.read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        height, width = decode(content, image.suffix).shape[:2]
        size = (width, height)
        if min(size) < SMALLEST_SIDE:
            blame("image-too-small", f"{width} by {height} pixels; {SMALLEST_SIDE} is the least")
    except FileNotFoundError:
        blame("image-missing", "listed, but not there")
    except OSError as error:
        blame("image-unreadable", f"cannot be read: {error.strerror or error}")
    except DamagedImageError as error:
        blame("image-unreadable", str(error))
    return _Look(size, digest, labels.boxes, faults)


def _name(data: DataSet, file: Path) -> str:
    folder = data.path.parent
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _fault(
    severity: Literal["error", "warning"],
    kind: FaultKind,
    what: str,
    *,
    split: str | None = None,
    file: str | None = None,
) -> DataFault:
    return DataFault(
        severity=severity,
        kind=kind,
        split=split,
        file=file,
        line=None,
        what=what,
    )


def _split_stats(data: DataSet, split: str, looks: Mapping[Path, _Look]) -> SplitStats:
    images = data.images(split)
    readable = [(size, looks[image].boxes) for image in images if (size := looks[image].size)]
    sizes = [size for size, _ in readable]
    areas = [boxes[:, 3] * boxes[:, 4] * math.prod(size) for size, boxes in readable]
    bounds = (0, SMALL_AREA, LARGE_AREA, np.inf)
    small, medium, large = np.histogram(np.concatenate([[], *areas]), bounds)[0].tolist()
    return SplitStats(
        split=split,
        n_images=len(images),
        n_background=sum(len(looks[image].boxes) == 0 for image in images),
        boxes=BoxSizes(small=small, medium=medium, large=large),
        smallest_image=min(sizes, key=math.prod, default=None),
        largest_image=max(sizes, key=math.prod, default=None),
    )


def _class_stats(data: DataSet, looks: Mapping[Path, _Look]) -> tuple[ClassStats, ...]:
    counts = {
        split: Counter(
            int(class_id) for image in images for class_id in looks[image].boxes[:, 0].tolist()
        )
        for split, images in data.splits.items()
    }
    return tuple(
        ClassStats(
            class_id=class_id,
            name=name,
            boxes={split: count[class_id] for split, count in counts.items()},
        )
        for class_id, name in enumerate(data.names)
    )


def _duplicates(data: DataSet, looks: Mapping[Path, _Look]) -> Iterator[DataFault]:
    """Find images of one content, within a split and between a split and an earlier one."""
    first_in: dict[str, dict[bytes, str]] = {}
    for split, images in data.splits.items():
        first: dict[bytes, str] = {}
        for image in images:
            digest, file = looks[image].digest, _name(data, image)
            if digest is None:
                continue
            if digest in first:
                what = f"same content as {first[digest]}"
                yield _fault("warning", "duplicate-in-split", what, split=split, file=file)
                continue
            first[digest] = file
            for other, known in first_in.items():
                if digest in known:
                    what = f"in {split}, and in {other} as {known[digest]}"
                    yield _fault(
                        "warning", "duplicate-between-splits", what, split=split, file=file
                    )
        first_in[split] = first


def _strays(data: DataSet, split: str) -> Iterator[DataFault]:
    """Find labels without an image, and images of a kind that is not read."""
    image_folders = defaultdict(set)
    for image in data.images(split):
        image_folders[label_file(image).parent].add(image.parent)
    for label_folder, folders in image_folders.items():
        files = [file for folder in folders if folder.is_dir() for file in folder.iterdir()]
        for file in sorted(files):
            if file.suffix.lower() in _UNSUPPORTED_SUFFIXES:
                what = f"{file.suffix} images are not read and not trained on"
                yield _fault(
                    "warning", "image-unsupported", what, split=split, file=_name(data, file)
                )
        stems = {file.stem for file in files if file.suffix.lower() in SUFFIXES}
        for file in sorted(label_folder.glob("[!.]*.txt")):
            if file.stem not in stems and file.name not in _NOT_LABELS:
                what = "no image belongs to these labels"
                yield _fault(
                    "warning", "label-without-image", what, split=split, file=_name(data, file)
                )


def _gaps(splits: Iterable[SplitStats], classes: Iterable[ClassStats]) -> Iterator[DataFault]:
    for split in splits:
        if split.boxes.total == 0:
            severity: Literal["error", "warning"] = "error" if split.split == "train" else "warning"
            yield _fault(severity, "split-without-boxes", "no box at all", split=split.split)
    for found in classes:
        if not found.boxes["train"]:
            what = f"class {found.class_id} ({found.name}) has no box to learn from"
            yield _fault("warning", "class-never-trained", what, split="train")
