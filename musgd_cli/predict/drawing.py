"""Boxes, labels and the frame rate, drawn into a copy of a frame."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

PALETTE = (
    (0x00, 0x72, 0xB2),
    (0xE6, 0x9F, 0x00),
    (0x00, 0x9E, 0x73),
    (0xCC, 0x79, 0xA7),
    (0xF0, 0xE4, 0x42),
    (0xD5, 0x5E, 0x00),
    (0x56, 0xB4, 0xE9),
)
"""RGB by class id, round and round: Okabe and Ito's colours, which the colour-blind tell apart."""

LEAST_SIDE = 480
"""Of a smaller picture, pixels are repeated until its longer side has so many: text needs them."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CAPITAL = 22.0
"""Height of a capital letter at scale 1, pixels; of the font's own 21 one is rounded away."""
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)

Colour = tuple[int, int, int]
"""BGR."""


def colour_of(class_id: int) -> Colour:
    """Return a class's colour, BGR."""
    red, green, blue = PALETTE[class_id % len(PALETTE)]
    return blue, green, red


def _ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever stands out more by WCAG 2's contrast ratio."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in colour)
    ]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    return _BLACK if luminance > 0.179 else _WHITE


class Painter:
    """Draws what was found.

    Args:
        names: The classes.
    """

    def __init__(self, names: Sequence[str]) -> None:
        # OpenCV 4's only font has no letter beyond ASCII.
        can_all = hasattr(cv2, "FontFace")
        self._names = [
            name if can_all or name.isascii() else f"class {class_id}"
            for class_id, name in enumerate(names)
        ]

    def picture(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float32], fps: float | None = None
    ) -> NDArray[np.uint8]:
        """Return the annotated image, a copy.

        Args:
            image: (height, width, 3) BGR.
            boxes: (n, 6) as a detector returns them.
            fps: Written into the lower right corner, where labels are rare, if given.
        """
        factor = math.ceil(LEAST_SIDE / max(image.shape[:2]))
        canvas = image.repeat(factor, 0).repeat(factor, 1) if factor > 1 else image.copy()
        height, width = canvas.shape[:2]
        diagonal = math.hypot(height, width)
        line = max(2, round(diagonal / 400))
        capital = max(11, round(diagonal / 72))
        weakest_first = boxes[::-1]
        for row in weakest_first:
            x1, y1, x2, y2 = (round(float(value) * factor) for value in row[:4])
            colour = colour_of(int(row[5]))
            # A dark rim keeps a box visible on whatever has its colour.
            cv2.rectangle(canvas, (x1, y1), (x2, y2), _BLACK, line + 2)
            cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line)
        for row in weakest_first:
            class_id = int(row[5])
            text = f"{self._names[class_id]} {row[4]:.2f}"
            corner = (round(float(row[0]) * factor), round(float(row[1]) * factor))
            _label(canvas, text, corner, capital, line, colour_of(class_id))
        if fps is not None:
            _label(canvas, f"{fps:.1f} FPS", (width, height), capital, 0, _BLACK)
        return canvas


def _label(
    canvas: NDArray[np.uint8],
    text: str,
    corner: tuple[int, int],
    capital: int,
    line: int,
    colour: Colour,
) -> None:
    """Write on a patch above a box's corner; below it or further left where the picture ends."""
    scale, stroke = capital / _CAPITAL, max(1, round(capital / 10))
    (text_width, _), _ = cv2.getTextSize(text, _FONT, scale, stroke)
    pad = max(3, round(capital / 3))
    descent = round(capital * 0.3)
    width, height = text_width + 2 * pad, capital + descent + 2 * pad
    rim = line // 2
    left = max(0, min(corner[0] - rim, canvas.shape[1] - width))
    top = corner[1] - rim - height
    if top < 0:
        top = max(0, min(corner[1] - rim, canvas.shape[0] - height))
    cv2.rectangle(canvas, (left, top), (left + width, top + height), colour, cv2.FILLED)
    at = (left + pad, top + pad + capital)
    cv2.putText(canvas, text, at, _FONT, scale, _ink_on(colour), stroke, cv2.LINE_AA)
