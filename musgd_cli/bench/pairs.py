"""The boxes that two models have in common, image by image. NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musgd_cli.bench.accuracy import box_iou

CONFIDENCE = 0.25
"""Lowest score of a box that is paired: what a detector shows."""

PAIR_IOU = 0.5


@dataclass(frozen=True)
class Pairs:
    """Boxes of one model paired with those of another, its float parent."""

    n: NDArray[np.int64]
    """(images,) pairs."""
    n_parent: NDArray[np.int64]
    """(images,) boxes of the parent."""
    n_model: NDArray[np.int64]
    """(images,) boxes of the model."""
    box_px: float | None
    """Largest difference of a coordinate, original pixels; ``None`` without a pair."""
    score_difference: float | None
    """Largest."""
    confidence_shift: float | None
    """Mean, model minus parent."""


def pair_boxes(
    parent: Sequence[NDArray[np.float32]], model: Sequence[NDArray[np.float32]]
) -> Pairs:
    """Pair each box with one of its class that it overlaps most, the best score first.

    Args:
        parent: An image's boxes above :data:`CONFIDENCE`, (n, 6) x1, y1, x2, y2, score, class; best
            first.
        model: Likewise, of the same images.
    """
    differences, n = [], []
    for theirs, ours in zip(parent, model, strict=True):
        iou = box_iou(theirs[:, :4], ours[:, :4])
        iou *= theirs[:, 5, None] == ours[:, 5]
        found = 0
        for row in range(len(theirs) if len(ours) else 0):
            column = int(iou[row].argmax())
            if iou[row, column] > PAIR_IOU:
                iou[:, column] = 0
                differences.append(ours[column, :5] - theirs[row, :5])
                found += 1
        n.append(found)
    pairs = np.array(differences, np.float32).reshape(-1, 5)
    any_pair = len(pairs) > 0
    return Pairs(
        n=np.array(n),
        n_parent=np.array([len(boxes) for boxes in parent]),
        n_model=np.array([len(boxes) for boxes in model]),
        box_px=float(np.abs(pairs[:, :4]).max()) if any_pair else None,
        score_difference=float(np.abs(pairs[:, 4]).max()) if any_pair else None,
        confidence_shift=float(pairs[:, 4].mean()) if any_pair else None,
    )
