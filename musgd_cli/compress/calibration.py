"""Which images set the activation ranges of a quantized model: training images, seeded.

An image that calibrated a model says little about how good the model is, so those that will be
scored are left alone.
"""

from __future__ import annotations

import filecmp
import random
from collections.abc import Iterable, Iterator
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
    """The images by their path in the data set, for ``artifact.json``, and any that are scored and
    are the same image under another name."""
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
    asked = n
    train = data_set.images(SPLIT)
    scored = _Contents(data_set.images(data_set.score_split))
    candidates = [image for image in train if scored.find(image) is None]
    note = None
    if candidates:
        if len(candidates) < n:
            n = len(candidates)
            only = "1 training image calibrates" if n == 1 else f"{n} training images calibrate"
            note = f"{only}, all there are, not {asked}"
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
    twins = [twin for image in chosen if (twin := scored.find(image)) is not None]
    names = dict.fromkeys(data_set.name_of(image) for image in (*chosen, *twins))
    return CalibrationSet(tuple(chosen), tuple(names), seed, note)


class _Contents:
    """Some images, found by what they hold: a copy under another name is the same image."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._by_path = {file.resolve(): file for file in files}
        self._by_size: dict[int | None, list[Path]] = {}
        for file in self._by_path.values():
            self._by_size.setdefault(_size(file), []).append(file)

    def find(self, file: Path) -> Path | None:
        """Return the one that holds the same as ``file``."""
        if (same := self._by_path.get(file.resolve())) is not None:
            return same
        size = _size(file)
        if size is None:
            return None
        # Whole files are read only where the size is the same, which is seldom by chance.
        alike = self._by_size.get(size, ())
        return next((other for other in alike if filecmp.cmp(file, other, shallow=False)), None)


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None  # whoever reads it will say so
