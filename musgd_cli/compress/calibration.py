"""Which images set the activation ranges of a quantized model: training images, seeded.

An image that calibrated a model says little about how good the model is, so those that will be
scored are left alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musgd_cli.data.dataset import DataSet
from musgd_cli.data.images import read_image
from musgd_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLIT = "train"

SHARED_SHARE = 4
"""Where all training images are scored too, one in so many calibrates; the others are scored."""


@dataclass(frozen=True)
class CalibrationSet:
    """The images that calibrate, in a fixed order."""

    images: tuple[Path, ...]
    names: tuple[str, ...]
    """The images by their path in the data set, for ``artifact.json``."""
    seed: int
    note: str | None = None
    """Why these are fewer than were asked for."""

    def at(self, imgsz: int) -> Inputs:
        """Return the images as a network of ``imgsz`` px gets them."""
        return Inputs(self.images, imgsz)


@dataclass(frozen=True)
class Inputs:
    """Network inputs, made anew on every pass: hundreds of them would not fit a laptop's memory."""

    images: tuple[Path, ...]
    imgsz: int

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield each image letterboxed as in use: (1, 3, imgsz, imgsz).

        Raises:
            MusgdError: An image is damaged.
        """
        from musgd_cli.runtime.detector import letterbox

        for image in self.images:
            yield letterbox(read_image(image), self.imgsz)[0]


def choose(data_set: DataSet, n: int, seed: int) -> CalibrationSet:
    """Draw ``n`` training images, none of which is scored where that can be.

    Args:
        data_set: Its ``train`` split gives the images.
        n: Images wanted; fewer are taken where there are fewer.
        seed: The same one draws the same images.

    Raises:
        UsageError: An only image would both calibrate and be scored.
    """
    scored = {image.resolve() for image in data_set.images(data_set.score_split)}
    train = data_set.images(SPLIT)
    candidates = [image for image in train if image.resolve() not in scored]
    note = None
    if candidates:
        if len(candidates) < n:
            note = f"{len(candidates)} training images calibrate, all there are, not {n}"
            n = len(candidates)
    else:
        candidates, most = list(train), len(train) // SHARED_SHARE
        if most == 0:
            raise UsageError(
                f"{data_set.path} has too few training images that are not scored too",
                f"add images to train: that {data_set.score_split}: does not name",
            )
        if most < n:
            n = most
        note = (
            f"train and {data_set.score_split} name the same images: {n} of them calibrate, "
            "and bench leaves these out"
        )
    chosen = sorted(random.Random(seed).sample(candidates, n))  # noqa: S311  # not a secret
    names = tuple(data_set.name_of(image) for image in chosen)
    return CalibrationSet(tuple(chosen), names, seed, note)
