"""Label files: one row an object, ``class cx cy w h``, or ``class x y x y x y …`` for a polygon.

Coordinates are shares of the image's width and height. What is tolerated is what Ultralytics'
``verify_image_label`` (8.4.190) tolerates, so that both see the same objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from musgd_cli.records import FaultKind

TOLERANCE = 0.01
"""How far outside of 0..1 a coordinate may lie: annotation tools round."""

_BOX_COLUMNS = 5
_TRIANGLE_COLUMNS = 7


class RowFault(NamedTuple):
    """What is wrong with one row."""

    line: int | None
    """From 1; ``None`` when the whole file is meant."""
    kind: FaultKind
    what: str
    is_error: bool
    """The row cannot be trained or scored on."""


class Labels(NamedTuple):
    """One label file's content."""

    boxes: np.ndarray
    """``(n, 5)`` float32: class, centre x, centre y, width, height. Rows in error are left out."""
    faults: tuple[RowFault, ...]


def read(path: Path, n_classes: int) -> Labels:
    """Read one label file; a missing or empty one holds no objects. See `parse`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        fault = RowFault(None, "label-unreadable", f"cannot be read: {why}", is_error=True)
        return Labels(_stacked([]), (fault,))
    return parse(text, n_classes)


def parse(text: str, n_classes: int) -> Labels:
    """Read the rows of one label file.

    A polygon becomes the box around it. A row that repeats an earlier one is dropped.

    Args:
        text: The file's content.
        n_classes: Class ids run from 0 to this, exclusively.

    Returns:
        The objects of sound rows, in their order, and every fault.
    """
    boxes: list[np.ndarray] = []
    faults: list[RowFault] = []
    line_of: dict[bytes, int] = {}
    layout: int | None = None
    for line, row in enumerate(text.splitlines(), start=1):
        words = row.split()
        if not words:
            continue
        try:
            values = np.array([float(word) for word in words], np.float32)
        except ValueError:
            faults.append(RowFault(line, "label-malformed", f"not numbers: {row[:60]}", True))
            continue
        fault = _row_error(line, values, n_classes)
        if fault is None:
            columns = min(values.size, _TRIANGLE_COLUMNS)
            layout = layout or columns
            if columns != layout:
                fault = RowFault(line, "label-malformed", "boxes and polygons in one file", True)
        if fault is None:
            earlier = line_of.setdefault(values.tobytes(), line)
            if earlier != line:
                faults.append(RowFault(line, "row-repeated", f"repeats line {earlier}", False))
                continue
            box = values if columns == _BOX_COLUMNS else _box_around(values)
            fault = _box_fault(line, box)
            if fault is None or not fault.is_error:
                boxes.append(box)
        if fault is not None:
            faults.append(fault)
    return Labels(_stacked(boxes), tuple(faults))


def _stacked(boxes: list[np.ndarray]) -> np.ndarray:
    return np.stack(boxes) if boxes else np.zeros((0, _BOX_COLUMNS), np.float32)


def _row_error(line: int, values: np.ndarray, n_classes: int) -> RowFault | None:
    is_polygon = values.size >= _TRIANGLE_COLUMNS and values.size % 2 == 1
    if values.size != _BOX_COLUMNS and not is_polygon:
        what = f"{values.size} columns: a box has 5, a polygon an odd number from 7"
        return RowFault(line, "label-malformed", what, is_error=True)
    if not np.isfinite(values).all():
        return RowFault(line, "label-malformed", "a value is not finite", is_error=True)
    class_id, points = values[0], values[1:]
    if class_id % 1:
        what = f"class {class_id:g} is no whole number"
        return RowFault(line, "label-malformed", what, is_error=True)
    if not 0 <= class_id < n_classes:
        what = f"class {class_id:g} is not in 0 to {n_classes - 1}"
        return RowFault(line, "class-out-of-range", what, is_error=True)
    outside = points[(points < -TOLERANCE) | (points > 1 + TOLERANCE)]
    if outside.size:
        what = f"{outside[0]:g} is outside of 0 to 1"
        return RowFault(line, "coordinate-out-of-range", what, is_error=True)
    return None


def _box_around(polygon: np.ndarray) -> np.ndarray:
    points = polygon[1:].reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate((polygon[:1], (low + high) / 2, high - low))


def _box_fault(line: int, box: np.ndarray) -> RowFault | None:
    centre, size = box[1:3], box[3:5]
    if size.min() <= 0:
        what = f"a box of {size[0]:g} by {size[1]:g}"
        return RowFault(line, "box-without-area", what, is_error=True)
    beyond = max((size / 2 - centre).max(), (centre + size / 2).max() - 1)
    if beyond > TOLERANCE:
        what = f"reaches {beyond:.0%} of the image's side beyond it"
        return RowFault(line, "box-beyond-image", what, is_error=False)
    return None
