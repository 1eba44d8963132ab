"""Tell whether two machines found the same objects: ``same.py HERE.json THERE.json``.

Each file is what ``musgd predict --json`` printed. The sums of one convolution are not in the same
order on two processors, so boxes and scores differ in their last digits; a score that lies on the
threshold may be found by one of them alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SCORE = 0.01
"""Most that one object's scores may differ by."""
OVERLAP = 0.98
"""Least that one object's boxes must overlap by, as intersection over union."""
THRESHOLD = 0.25
"""predict's own: nearer to it than SCORE an object may be missing."""

Box = dict[str, float]


def main(here: Path, there: Path) -> str | None:
    """Return what differs, or ``None``; print how far they are apart."""
    frames = [list(map(json.loads, file.read_text().splitlines())) for file in (here, there)]
    if not frames[0] or len(frames[0]) != len(frames[1]):
        return f"{len(frames[0])} images here, {len(frames[1])} there"
    n, apart, overlap = 0, 0.0, 1.0
    for mine, theirs in zip(*frames, strict=True):
        name = Path(mine["source"]).name
        left = list(theirs["boxes"])
        for box in mine["boxes"]:
            alike = [other for other in left if other["class_id"] == box["class_id"]]
            best = max(alike, key=lambda other: iou(box, other), default=None)
            if best is None or iou(box, best) < OVERLAP:
                if box["score"] > THRESHOLD + SCORE:
                    return f"{name}: {box} is found here alone"
                continue
            left.remove(best)
            n += 1
            overlap = min(overlap, iou(box, best))
            apart = max(apart, abs(box["score"] - best["score"]))
        if extra := [box for box in left if box["score"] > THRESHOLD + SCORE]:
            return f"{name}: {extra} is found there alone"
    if apart > SCORE:
        return f"scores differ by {apart:.4f}"
    if not n:
        return "nothing is found"
    print(
        f"{n} objects in {len(frames[0])} images; scores differ by at most {apart:.4f}, boxes "
        f"overlap by at least {overlap:.4f}"
    )
    return None


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    height = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = ((c["x2"] - c["x1"]) * (c["y2"] - c["y1"]) for c in (a, b))
    return shared / (sum(areas) - shared)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
