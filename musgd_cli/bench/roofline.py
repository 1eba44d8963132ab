"""Time of a frame by image size, from two measured sizes.

A convolution's work grows with the number of pixels, and so does the memory it moves; below a
roofline (Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009) one of the two bounds the
time, whatever the size. What does not grow with it, starting threads, calls and small layers, is a
constant. So one model in one runtime, precision and thread count takes ``overhead + pixels /
throughput``.
"""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[int, float]
"""Image size, pixels a side, and milliseconds of a whole frame."""

_MEGAPIXEL = 1e6


@dataclass(frozen=True)
class Line:
    """Milliseconds of a whole frame, ``overhead_ms + ms_per_megapixel * megapixels``."""

    overhead_ms: float
    ms_per_megapixel: float

    @classmethod
    def through(cls, smaller: Point, larger: Point) -> Line:
        """Draw it through two measured points of different sizes."""
        (few, few_ms), (many, many_ms) = (
            (_megapixels(imgsz), frame_ms) for imgsz, frame_ms in (smaller, larger)
        )
        slope = (many_ms - few_ms) / (many - few)
        return cls(few_ms - slope * few, slope)

    def fps(self, imgsz: int) -> float:
        """Predict whole frames a second at a size between the two."""
        return 1000 / (self.overhead_ms + self.ms_per_megapixel * _megapixels(imgsz))


def _megapixels(imgsz: int) -> float:
    return imgsz**2 / _MEGAPIXEL
