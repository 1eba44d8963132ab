"""The lean loop: letterbox, engine, decode, NMS, rescale. NumPy and OpenCV alone.

Its boxes are Ultralytics' own: the same letterbox to the byte, the same NMS to the box. Ultralytics
pads a static export to a square (``LetterBox(auto=False, center=True, scaleup=True)``), resizes
with ``INTER_LINEAR`` and pads with 114.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from musgd_cli.errors import MusgdError
from musgd_cli.runtime.engine import Engine, Model

PAD = 114
"""The grey around a letterboxed image, 0 to 255."""

MAX_NMS = 30_000
"""Candidates that enter NMS, best first."""

CLASS_OFFSET = np.float32(7680)
"""Shift a class, in pixels, that keeps boxes of different classes from meeting in NMS."""

MATRIX_NMS = 512
"""Up to so many candidates NMS compares all pairs at once; beyond, box by box."""


@dataclass(frozen=True)
class Placement:
    """Where an image lies inside its letterbox.

    Args:
        width: Of the original image, pixels.
        height: Of the original image, pixels.
        imgsz: Side of the square, pixels.
        scoring: Round the resized sides up, as Ultralytics does in ``val`` alone.
    """

    width: int
    height: int
    imgsz: int
    scoring: bool = False

    @cached_property
    def resized(self) -> tuple[int, int]:
        """Width and height of the image inside the square, pixels."""
        gain = min(self.imgsz / self.height, self.imgsz / self.width)
        if self.scoring:
            width, height = math.ceil(self.width * gain), math.ceil(self.height * gain)
            return min(width, self.imgsz), min(height, self.imgsz)
        return max(round(self.width * gain), 1), max(round(self.height * gain), 1)

    @cached_property
    def corner(self) -> tuple[int, int]:
        """Left and top padding, pixels. An odd pixel of padding goes to the right and below."""
        width, height = self.resized
        return round((self.imgsz - width) / 2 - 0.1), round((self.imgsz - height) / 2 - 0.1)

    @cached_property
    def _shift_and_gain(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        gain = (self.resized[0] / self.width, self.resized[1] / self.height)
        return np.array(self.corner * 2, np.float32), np.array(gain * 2, np.float32)

    @cached_property
    def _border(self) -> NDArray[np.float32]:
        return np.array((self.width, self.height) * 2, np.float32)

    def to_original(self, boxes: NDArray[np.float32], *, clip: bool = True) -> None:
        """Turn corner boxes from letterbox pixels into original pixels, in place.

        Args:
            boxes: (n, 4), x1, y1, x2, y2.
            clip: Cut the boxes at the image's border.
        """
        shift, gain = self._shift_and_gain
        boxes -= shift
        boxes /= gain
        if clip:
            np.maximum(boxes, 0, out=boxes)
            np.minimum(boxes, self._border, out=boxes)


class Letterbox:
    """Images of any size into one network input, over and over in the same memory.

    Args:
        imgsz: Side of the square input, pixels.
        scoring: See :class:`Placement`.
    """

    def __init__(self, imgsz: int, *, scoring: bool = False) -> None:
        self.imgsz = imgsz
        self.scoring = scoring
        self.input = np.full((1, 3, imgsz, imgsz), np.float32(PAD) / 255, np.float32)
        """The network input, (1, 3, imgsz, imgsz) RGB in 0..1. The next call overwrites it."""
        self._place(Placement(imgsz, imgsz, imgsz, scoring))

    def _place(self, placement: Placement) -> None:
        self.placement = placement
        width, height = placement.resized
        left, top = placement.corner
        self.input.fill(np.float32(PAD) / 255)
        self._inside = self.input[0, :, top : top + height, left : left + width]
        self._resized = np.empty((height, width, 3), np.uint8)
        self._planes = np.empty((3, height, width), np.uint8)

    def __call__(self, image: NDArray[np.uint8]) -> Placement:
        """Fill :attr:`input` from ``image`` and return where the image lies in it.

        Args:
            image: (height, width, 3) BGR.
        """
        height, width = image.shape[:2]
        if (width, height) != (self.placement.width, self.placement.height):
            self._place(Placement(width, height, self.imgsz, self.scoring))
        if (width, height) == self.placement.resized:
            resized = image
        else:
            resized = self._resized
            cv2.resize(image, self.placement.resized, dst=resized, interpolation=cv2.INTER_LINEAR)
        blue, green, red = self._planes[2], self._planes[1], self._planes[0]
        cv2.split(resized, [blue, green, red])
        np.divide(self._planes, np.float32(255), out=self._inside)
        return self.placement


def letterbox(image: NDArray[np.uint8], imgsz: int) -> tuple[NDArray[np.float32], Placement]:
    """Letterbox one image into an input of its own.

    Args:
        image: (height, width, 3) BGR.
        imgsz: Side of the square, pixels.

    Returns:
        The network input, (1, 3, imgsz, imgsz) float32 RGB in 0..1, and where the image lies in it.
    """
    box = Letterbox(imgsz)
    placement = box(image)
    return box.input, placement


def non_max_suppression(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], iou: float, max_det: int
) -> NDArray[np.intp]:
    """Keep the best box of every heap of overlapping ones, greedily, as torchvision's ``nms`` does.

    Args:
        boxes: (n, 4) x1, y1, x2, y2.
        scores: (n,). Of equal scores the first one wins.
        iou: A box goes when its IoU with a kept, better one is above this.
        max_det: Stop after this many.

    Returns:
        Indices of the kept boxes, best first.
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) < 2:
        return order[:max_det]
    x1, y1, x2, y2 = boxes[order].T
    areas = (x2 - x1) * (y2 - y1)
    kept: list[int] = []

    def overlaps(i: int | slice, rest: slice) -> NDArray[np.bool_]:
        width = np.minimum(x2[i, None], x2[rest]) - np.maximum(x1[i, None], x1[rest])
        height = np.minimum(y2[i, None], y2[rest]) - np.maximum(y1[i, None], y1[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        # A box without area has no IoU: 0 / 0 compares false and both stay, as in torchvision.
        with np.errstate(invalid="ignore"):
            above: NDArray[np.bool_] = shared / (areas[i, None] + areas[rest] - shared) > iou
        return above

    n = len(order)
    gone = np.zeros(n, bool)
    matrix = overlaps(slice(None), slice(None)) if n <= MATRIX_NMS else None
    for i in range(n):
        if gone[i]:
            continue
        kept.append(i)
        if len(kept) == max_det:
            break
        if matrix is not None:
            gone |= matrix[i]
        else:
            gone[i + 1 :] |= overlaps(i, slice(i + 1, None))
    return order[kept]


class Detector:
    """Images in, boxes out, through one engine.

    :meth:`detect` is the whole loop. Its three parts can be called one by one, in order, so that
    each can be timed.

    Args:
        engine: An open engine; it stays the caller's to close.
        artifact: What the engine runs.
        conf: Lowest score of a box.
        iou: Boxes of one class that overlap more are taken for the same object. A model that is
            free of NMS knows no such limit.
        max_det: Most boxes an image.
        scoring: Do as Ultralytics' ``val``, not as its ``predict``: a place may carry several
            classes, boxes are not cut at the image's border, resized sides are rounded up.
    """

    def __init__(
        self,
        engine: Engine,
        artifact: Model,
        *,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        scoring: bool = False,
    ) -> None:
        self.engine = engine
        self.conf = np.float32(conf)
        self.iou = iou
        self.max_det = max_det
        self.scoring = scoring
        self._nms_free = artifact.nms_free
        self._letterbox = Letterbox(artifact.imgsz, scoring=scoring)
        self._n_classes = len(artifact.names)
        self._multi_label = scoring and len(artifact.names) > 1

    def detect(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find the objects in an image.

        Args:
            image: (height, width, 3) BGR.

        Returns:
            (n, 6): x1, y1, x2, y2 in pixels of ``image``, score, class; best first.
        """
        return self.decode(self.infer(self.prepare(image)))

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Letterbox an image into the network's input, which the next call overwrites."""
        self._letterbox(image)
        return self._letterbox.input

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the engine on a prepared input."""
        return self.engine.infer(x)

    def decode(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn the engine's output for the last prepared image into boxes, as :meth:`detect`."""
        found = self._final(output[0]) if self._nms_free else self._raw(output[0])
        if len(found):
            self._require_sound(found)
        self._letterbox.placement.to_original(found[:, :4], clip=not self.scoring)
        return found

    def _require_sound(self, found: NDArray[np.float32]) -> None:
        # Kept rows alone: a row that is not finite can be one below the threshold.
        classes = found[:, 5]
        if not np.isfinite(found).all():
            fault = "boxes that are not finite numbers"
        elif classes.min() < 0 or classes.max() >= self._n_classes:
            wrong = classes.min() if classes.min() < 0 else classes.max()
            fault = f"class id {wrong:.0f}, where it has {self._n_classes} classes"
        else:
            return
        raise MusgdError(
            f"the model answers with {fault}: it is damaged, or its record is another's",
            "musgd export makes it again; of another exporter's model, give its own class names",
        )

    def _final(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows[rows[:, 4] > self.conf][: self.max_det]

    def _raw(self, columns: NDArray[np.float32]) -> NDArray[np.float32]:
        places = np.flatnonzero(columns[4:].max(axis=0) > self.conf)
        some = columns[:, places]
        if self._multi_label:
            # By place, then by class: the order Ultralytics' candidates have, which breaks ties.
            at, classes = np.nonzero((some[4:] > self.conf).T)
            scores = some[4 + classes, at]
        else:
            at, classes = np.arange(len(places)), some[4:].argmax(axis=0)
            scores = some[4 + classes, at]
        if len(scores) > MAX_NMS:
            best = np.argsort(-scores, kind="stable")[:MAX_NMS]
            at, classes, scores = at[best], classes[best], scores[best]
        found = np.empty((len(scores), 6), np.float32)
        centre, half = some[:2, at].T, some[2:4, at].T / 2
        found[:, :2] = centre - half
        found[:, 2:4] = centre + half
        found[:, 4] = scores
        found[:, 5] = classes
        # In float32, as Ultralytics shifts them: its high classes lose up to 1/16 px here, as ours.
        shifted = found[:, :4] + found[:, 5:] * CLASS_OFFSET
        return found[non_max_suppression(shifted, found[:, 4], self.iou, self.max_det)]
