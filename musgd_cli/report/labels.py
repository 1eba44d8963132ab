"""Where the names of points go so that none hides another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

Box = tuple[float, float, float, float]
"""Left, right, top and bottom, pixels; down is more."""

Anchor = Literal["start", "middle", "end"]

GLYPH = 6.9
"""Width of a character of a 12 pixel label, pixels: more than that of most fonts."""

_MARK = 8
"""Half of a mark's width."""

_AROUND: tuple[tuple[Anchor, float, float], ...] = (
    ("start", 11, 4),
    ("end", -11, 4),
    ("middle", 0, -12),
    ("middle", 0, 20),
    ("start", 9, -9),
    ("end", -9, -9),
    ("start", 9, 17),
    ("end", -9, 17),
    ("start", 9, -22),
    ("end", -9, -22),
    ("start", 9, 30),
    ("end", -9, 30),
)
"""Places around a mark, the best first: anchor, and offset of the text's baseline."""


@dataclass(frozen=True)
class Placed:
    """A label and where it goes."""

    text: str
    dx: float
    """From the mark, pixels."""
    dy: float
    anchor: Anchor


def place(
    texts: Sequence[Sequence[str]],
    spots: Sequence[tuple[float, float]],
    lines: Iterable[Box],
    frame: Box,
) -> list[Placed | None]:
    """Find a place beside each mark where its text hides nothing; ``None`` where there is none.

    Args:
        texts: What to write, the most important first: of each its spellings, the best first.
        spots: Where the marks are, pixels.
        lines: What else is drawn.
        frame: What texts keep within.
    """
    marks = [(x - _MARK, x + _MARK, y - _MARK, y + _MARK) for x, y in spots]
    taken = list(lines)
    placed: list[Placed | None] = []
    for number, (spellings, (x, y)) in enumerate(zip(texts, spots, strict=True)):
        hidden = [*taken, *marks[:number], *marks[number + 1 :]]
        for text, (anchor, dx, dy) in product(spellings, _AROUND):
            length = len(text) * GLYPH
            begin = x + dx - {"start": 0.0, "middle": length / 2, "end": length}[anchor]
            box = (begin, begin + length, y + dy - 10, y + dy + 3)
            if _within(box, frame) and not any(_overlap(box, other) for other in hidden):
                placed.append(Placed(text, dx, dy, anchor))
                taken.append(box)
                break
        else:
            placed.append(None)
    return placed


def staircase_boxes(corners: Sequence[tuple[float, float]], end: float) -> list[Box]:
    """Return what the line through a front covers: right from each corner, up to the next.

    Args:
        corners: The front's points from left to right, pixels.
        end: How far the last step goes.
    """
    boxes = []
    for (x, y), (to, up) in zip(corners, [*corners[1:], (end, corners[-1][1])], strict=True):
        boxes += [(x, to, y - 2, y + 2), (to - 2, to + 2, up, y)]
    return boxes


def _within(box: Box, frame: Box) -> bool:
    return (
        frame[0] <= box[0] and box[1] <= frame[1] and frame[2] <= box[2] and box[3] <= frame[3] + 2
    )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
