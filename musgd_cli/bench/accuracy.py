"""mAP as Ultralytics' ``val`` computes it, and recall by the size of objects. NumPy alone.

Detections come in with confidence >= 0.001, after NMS at IoU 0.7 (none for end-to-end outputs), at
most 300 an image, several classes a place, uncut at the image's border. Images are matched one by
one and scored together, so that any choice of images can be scored without running the model again.

Sources: ``match_predictions`` in ``ultralytics/engine/validator.py``, ``compute_ap`` and
``ap_per_class`` in ``ultralytics/utils/metrics.py`` (8.4.190).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONF = 0.001
"""Lowest score of a detection that is scored."""

NMS_IOU = 0.7
MAX_DET = 300

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10, dtype=np.float32)

SIZE_AREAS = (32.0**2, 96.0**2)
"""An object is small below the first area, large from the second on and medium in between; of its
box, in square pixels of the original image (COCO's limits)."""

_RECALL_POINTS = np.linspace(0, 1, 101)

MOST_VALUES = 2**21
"""Draws times detections that are scored at once; about 100 bytes each."""


@dataclass(frozen=True)
class MatchedImage:
    """One image's detections held against its objects."""

    correct: NDArray[np.bool_]
    """(n, 10): whether each detection has an object, at each IoU threshold."""
    scores: NDArray[np.float32]
    """(n,)."""
    classes: NDArray[np.float32]
    """(n,) class ids of the detections."""
    targets: NDArray[np.float32]
    """(m,) class ids of the objects."""
    by_size: NDArray[np.int64]
    """(3,) small, medium and large objects; see :data:`SIZE_AREAS`."""
    found_by_size: NDArray[np.int64]
    """(3,) those of them that a detection was matched with at IoU 0.5."""


@dataclass(frozen=True)
class SizeRecall:
    """How many of the objects of one size are found."""

    n: int
    """Objects of that size."""
    n_found: int
    """Matched at IoU 0.5 by any detection that is scored at all."""

    @property
    def share(self) -> float | None:
        """``None`` when there is no such object."""
        return self.n_found / self.n if self.n else None


@dataclass(frozen=True)
class Score:
    """How well a model finds the objects in some images."""

    map50_95: float | None
    """Mean over classes and IoU thresholds; ``None`` when the images hold no object."""
    map50: float | None
    small: SizeRecall
    medium: SizeRecall
    large: SizeRecall
    ap50_95: dict[int, float]
    """By class id, for the classes that have objects."""
    ap50: dict[int, float]
    n_images: int
    n_objects: int


def corner_boxes(labels: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Turn labels into boxes in pixels.

    Args:
        labels: (m, 5): class, centre x, centre y, width, height, as shares of the image.
        width: Of the image, pixels.
        height: Of the image, pixels.

    Returns:
        (m, 5): x1, y1, x2, y2, class.
    """
    centre, half = labels[:, 1:3], labels[:, 3:5] / 2
    corners = np.hstack((centre - half, centre + half))
    corners *= np.array((width, height) * 2, np.float32)
    return np.hstack((corners, labels[:, :1])).astype(np.float32, copy=False)


def box_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU of each box of ``a`` (m, 4) with each of ``b`` (n, 4), as (m, n)."""
    low = np.maximum(a[:, None, :2], b[:, :2])
    high = np.minimum(a[:, None, 2:], b[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=2)
    area_a = (a[:, 2:] - a[:, :2]).prod(axis=1)
    area_b = (b[:, 2:] - b[:, :2]).prod(axis=1)
    union = area_a[:, None] + area_b - shared
    # 1e-7: Ultralytics' guard against boxes without area.
    iou: NDArray[np.float32] = shared / (union + np.float32(1e-7))
    return iou


def match(found: NDArray[np.float32], objects: NDArray[np.float32]) -> MatchedImage:
    """Give each detection of an image at most one object of its class.

    At each IoU threshold by itself, detections choose in order of their score: each takes the free
    object that it overlaps most, if that is enough.

    Args:
        found: (n, 6): x1, y1, x2, y2, score, class; best first.
        objects: (m, 5): x1, y1, x2, y2, class; same pixels as ``found``, original ones.
    """
    n_thresholds = len(IOU_THRESHOLDS)
    correct = np.zeros((len(found), n_thresholds), bool)
    taken = np.zeros((len(objects), n_thresholds), bool)
    if len(found) and len(objects):
        iou = box_iou(objects[:, :4], found[:, :4]) * (objects[:, 4, None] == found[:, 5])
        columns = np.arange(n_thresholds)
        for i in np.flatnonzero(iou.max(axis=0) >= IOU_THRESHOLDS[0]):
            free = np.where(taken, 0, iou[:, i, None])
            best = free.argmax(axis=0)
            correct[i] = free[best, columns] >= IOU_THRESHOLDS
            taken[best, columns] |= correct[i]
    sizes = np.digitize((objects[:, 2:4] - objects[:, :2]).prod(axis=1), SIZE_AREAS)
    return MatchedImage(
        correct=correct,
        scores=found[:, 4].copy(),
        classes=found[:, 5].copy(),
        targets=objects[:, 4].copy(),
        by_size=np.bincount(sizes, minlength=3),
        found_by_size=np.bincount(sizes[taken[:, 0]], minlength=3),
    )


def average_precision(correct: NDArray[np.bool_], n_objects: int) -> NDArray[np.float64]:
    """Return a class's average precision at each threshold, interpolated at 101 recalls.

    Args:
        correct: (n, thresholds): whether each detection of the class is right; best score first.
        n_objects: Objects of the class, at least 1.

    Returns:
        (thresholds,).
    """
    hits = correct.cumsum(axis=0)
    recall = hits / n_objects
    precision = hits / np.arange(1, len(correct) + 1)[:, None]
    result = np.zeros(correct.shape[1])
    for column in range(correct.shape[1]) if len(correct) else ():
        # Precision falls to 0 just beyond the last recall reached.
        x = np.concatenate(([0.0], recall[:, column], [recall[-1, column], 1.0]))
        y = np.concatenate(([1.0], precision[:, column], [0.0, 0.0]))
        envelope = np.maximum.accumulate(y[::-1])[::-1]
        curve = np.interp(_RECALL_POINTS, x, envelope)
        result[column] = (curve[1:] + curve[:-1]).sum() / 2 * (_RECALL_POINTS[1])
    return result


def score(images: Sequence[MatchedImage]) -> Score:
    """Score a model on matched images, in any order."""
    none = np.zeros(3, np.int64)
    there = sum((image.by_size for image in images), none)
    found = sum((image.found_by_size for image in images), none)
    small, medium, large = map(SizeRecall, there.tolist(), found.tolist())
    targets = np.concatenate([image.targets for image in images] or [np.zeros(0, np.float32)])
    ap: dict[int, NDArray[np.float64]] = {}
    if len(targets):
        scores = np.concatenate([image.scores for image in images])
        order = np.argsort(-scores, kind="stable")
        classes = np.concatenate([image.classes for image in images])[order]
        correct = np.concatenate([image.correct for image in images])[order]
        for class_id, n_objects in zip(*np.unique(targets, return_counts=True), strict=True):
            ap[int(class_id)] = average_precision(correct[classes == class_id], int(n_objects))
    table = np.array(list(ap.values()))
    return Score(
        map50_95=float(table.mean()) if ap else None,
        map50=float(table[:, 0].mean()) if ap else None,
        small=small,
        medium=medium,
        large=large,
        ap50_95={class_id: float(values.mean()) for class_id, values in ap.items()},
        ap50={class_id: float(values[0]) for class_id, values in ap.items()},
        n_images=len(images),
        n_objects=len(targets),
    )


def resampled_map50_95(
    images: Sequence[MatchedImage], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the mAP50-95 of many choices of images with repetition, as :func:`score` has it.

    Args:
        images: The matched images.
        counts: (draws, images): how often each draw takes each image.

    Returns:
        (draws,); NaN for a draw without any object.
    """
    n_draws = len(counts)
    owners = np.repeat(np.arange(len(images)), [len(image.scores) for image in images])
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="stable")
    owners = owners[order]
    classes = np.concatenate([image.classes for image in images])[order]
    correct = np.concatenate([image.correct for image in images])[order]
    targets = np.unique(np.concatenate([image.targets for image in images]))
    total, n_classes = np.zeros(n_draws), np.zeros(n_draws)
    for class_id in targets:
        of_class = np.array([(image.targets == class_id).sum() for image in images])
        n_objects = counts @ of_class
        mine = np.flatnonzero(classes == class_id)
        hits = np.flatnonzero(correct[mine].any(axis=1))
        mine = mine[: hits[-1] + 1] if len(hits) else mine[:0]  # what follows moves no curve
        size = max(1, MOST_VALUES // max(1, len(mine)))
        blocks = [slice(start, start + size) for start in range(0, n_draws, size)]
        ap = np.concatenate(
            [
                _resampled_ap(correct[mine], counts[block][:, owners[mine]], n_objects[block])
                for block in blocks
            ]
        )
        present = n_objects > 0
        total[present] += ap[present]
        n_classes += present
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = total / n_classes
    return mean


def _resampled_ap(
    correct: NDArray[np.bool_], weights: NDArray[np.int64], n_objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return a class's mean average precision for each draw.

    Args:
        correct: (n, thresholds), best score first.
        weights: (draws, n): how often a draw has each detection.
        n_objects: (draws,); where there is none the result means nothing.
    """
    n_draws, n = weights.shape
    mean = np.zeros(n_draws)
    if n == 0:
        return mean
    n_objects = np.maximum(n_objects, 1)[:, None]
    found = np.maximum(weights.cumsum(axis=1), 1)
    # One monotonous axis for all draws, two apart, so that one call interpolates them all.
    base = 2.0 * np.arange(n_draws)[:, None]
    points = (base + _RECALL_POINTS).ravel()
    x = np.empty((n_draws, n + 3))
    y = np.zeros((n_draws, n + 3))
    x[:, 0], x[:, -1] = 0, 1
    y[:, 0] = 1
    for column in range(correct.shape[1]):
        hits = (weights * correct[:, column]).cumsum(axis=1)
        x[:, 1:-2] = hits / n_objects
        x[:, -2] = x[:, -3]
        y[:, 1:-2] = hits / found
        envelope = np.maximum.accumulate(y[:, ::-1], axis=1)[:, ::-1]
        curve = np.interp(points, (base + x).ravel(), envelope.ravel()).reshape(n_draws, -1)
        mean += (curve[:, 1:] + curve[:, :-1]).sum(axis=1) / 2 * _RECALL_POINTS[1]
    mean /= correct.shape[1]
    return mean
