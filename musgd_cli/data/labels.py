"""Label files: one row an object, ``class cx cy w h``, or ``class x y x y x y …`` for a polygon.

Coordinates are shares of the image's width and height. The tolerances are those of Ultralytics'
``verify_image_label`` (8.4.190), so that both see the same objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

TOLERANCE = 0.01
"""How far outside of 0..1 a coordinate may lie: annotation tools round."""

_BOX_COLUMNS = 5
_SHORTEST_POLYGON_COLUMNS = 7


class RowFault(NamedTuple):
    """What is wrong with one row."""

    line: int
    """From 1; 0 when the whole file is meant."""
    what: str
    is_error: bool
    """Training on the row is impossible or would teach something false."""


@dataclass(frozen=True)
class Labels:
    """One label file's content."""

    boxes: np.ndarray
    """``(n, 5)`` float32: class, centre x, centre y, width, height. Rows in error are left out."""
    faults: tuple[RowFault, ...]


def parse(text: str, n_classes: int) -> Labels:
    """Read the rows of one label file.

    A polygon becomes the box around it. A row that repeats an earlier one is dropped.

    Args:
        text: The file's content.
        n_classes: Class ids run from 0 to this, exclusively.

    Returns:
        The objects whose rows are sound, and every fault of the others.
    """
    boxes: list[np.ndarray] = []
    faults: list[RowFault] = []
    first_line: dict[bytes, int] = {}
    layouts: dict[str, int] = {}
    for line, row in enumerate(text.splitlines(), start=1):
        words = row.split()
        if not words:
            continue
        try:
            values = np.array([float(word) for word in words], np.float32)
        except ValueError as error:
            faults.append(RowFault(line, f"not a number ({error})", is_error=True))
            continue
        if what := _row_error(values, n_classes):
            faults.append(RowFault(line, what, is_error=True))
            continue
        layouts.setdefault("box" if values.size == _BOX_COLUMNS else "polygon", line)
        if len(layouts) == 2:
            what = "boxes and polygons in one file"
            faults.append(RowFault(max(layouts.values()), what, is_error=True))
            break
        earlier = first_line.setdefault(values.tobytes(), line)
        if earlier != line:
            faults.append(RowFault(line, f"repeats line {earlier}", is_error=False))
            continue
        box = values if values.size == _BOX_COLUMNS else _box_around(values)
        if min(box[3], box[4]) <= 0:
            what = f"box of {box[3]:g} by {box[4]:g} has no area"
            faults.append(RowFault(line, what, is_error=True))
            continue
        if what := _row_warning(box):
            faults.append(RowFault(line, what, is_error=False))
        boxes.append(box)
    stacked = np.stack(boxes) if boxes else np.zeros((0, _BOX_COLUMNS), np.float32)
    return Labels(stacked, tuple(faults))


def _row_error(values: np.ndarray, n_classes: int) -> str | None:
    columns = values.size
    is_polygon = columns >= _SHORTEST_POLYGON_COLUMNS and columns % 2 == 1
    if columns != _BOX_COLUMNS and not is_polygon:
        return f"{columns} columns; a box has 5, a polygon an odd number from 7"
    if not np.isfinite(values).all():
        return "a value is not finite"
    class_id, points = values[0], values[1:]
    if class_id % 1:
        return f"class {class_id:g} is not a whole number"
    if not 0 <= class_id < n_classes:
        return f"class {class_id:g} is out of range: the set has classes 0 to {n_classes - 1}"
    outside = points[(points < -TOLERANCE) | (points > 1 + TOLERANCE)]
    if outside.size:
        return f"coordinate {outside[0]:g} is outside of 0 to 1"
    return None


def _row_warning(box: np.ndarray) -> str | None:
    corners = np.concatenate((box[1:3] - box[3:5] / 2, box[1:3] + box[3:5] / 2))
    beyond = max(-corners.min(), corners.max() - 1)
    if beyond > TOLERANCE:
        return f"box reaches {beyond:.1%} beyond the image"
    return None


def _box_around(polygon: np.ndarray) -> np.ndarray:
    points = polygon[1:].reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate((polygon[:1], (low + high) / 2, high - low))


def read(path: Path, n_classes: int) -> Labels:
    """Read one label file; a missing or empty one holds no objects.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError as error:
        fault = RowFault(0, f"not a text file ({error.reason})", is_error=True)
        return Labels(np.zeros((0, _BOX_COLUMNS), np.float32), (fault,))
    return parse(text, n_classes)
