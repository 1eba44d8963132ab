"""Which images a model is timed on and scored on: none that calibrated any of those compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.bench.selection import data_of, require_same_classes
from musgd_cli.bench.subject import Subject
from musgd_cli.data import load
from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import UsageError
from musgd_cli.records import Artifact
from musgd_cli.storage import digest_of

TIMED = 16
"""Images that are timed, spread evenly over the split."""


@dataclass(frozen=True)
class Calibrated:
    """The images that calibrated some models."""

    names: frozenset[str] = frozenset()
    """By their path in the data set that they were of."""
    digests: frozenset[str] = frozenset()
    """By what they hold: the same image may stand elsewhere, or in another set."""

    @classmethod
    def any_of(cls, artifacts: Iterable[Artifact]) -> Calibrated:
        """Read them from the models' records."""
        known = [artifact.calibration for artifact in artifacts if artifact.calibration is not None]
        return cls(
            frozenset(name for calibration in known for name in calibration.images),
            frozenset(digest for calibration in known for digest in calibration.digests),
        )

    def has(self, image: Path, name: str) -> bool:
        """Tell whether an image is one of them.

        Args:
            image: Where it lies.
            name: Its path in the data set.
        """
        if name in self.names:
            return True
        try:
            return bool(self.digests) and digest_of(image) in self.digests
        except OSError:
            return False  # whoever reads it will say so


@dataclass(frozen=True)
class Images:
    """What a model is timed and scored on."""

    data_set: DataSet | None
    scored: tuple[Path, ...]
    timed: tuple[Path, ...]
    """Without any, noise is timed."""
    n_excluded: int = 0
    """Images of the split that are not scored because they calibrated a model."""
    why_none: str | None = None
    """Why nothing is scored."""


class Choice:
    """Chooses the images for models that are compared.

    Args:
        subjects: The models: what calibrated one of them is scored on none.
        data: Data set: its ``test`` split, else its ``val``. Without one, the set that each model's
            run was trained on, if that is known and here; else noise is timed.

    Raises:
        UsageError: There is no such data set.
    """

    def __init__(self, subjects: Iterable[Subject], data: str | None) -> None:
        self._calibrated = Calibrated.any_of(subject.artifact for subject in subjects)
        self._given = None if data is None else load(data)
        self._of_set: dict[Path, tuple[Path, ...]] = {}

    def of(self, subject: Subject) -> Images:
        """Choose the images for one of them.

        Raises:
            UsageError: The data set that was given is not the one the model was made for.
        """
        data_set = self._given
        if data_set is None:
            path = data_of(subject)
            if path is None:
                return Images(None, (), (), why_none="no data set; give one with --data")
            try:
                data_set = load(path)
            except UsageError as error:
                # A run was copied to a board, and its data was not.
                why = f"it was trained on a set that is not here ({error.what}); give it by --data"
                return Images(None, (), (), why_none=why)
        require_same_classes(subject.path, subject.artifact.names, data_set)
        split = data_set.score_split
        images = data_set.images(split)
        scored = self._uncalibrated(data_set, images)
        why_none = None
        if not scored:
            why_none = f"every image of {data_set.path.name}, {split} calibrated a model"
        elif subject.calibrated_on == data_set.path.name and split == "val":
            # Which of them is not noted.
            why_none = f"its maker calibrated it on images of {data_set.path.name}, {split}"
        return Images(
            data_set,
            scored if why_none is None else (),
            _spread(scored or images, TIMED),
            len(images) - len(scored),
            why_none,
        )

    def _uncalibrated(self, data_set: DataSet, images: tuple[Path, ...]) -> tuple[Path, ...]:
        if data_set.path not in self._of_set:
            self._of_set[data_set.path] = tuple(
                image
                for image in images
                if not self._calibrated.has(image, data_set.name_of(image))
            )
        return self._of_set[data_set.path]


def _spread(images: tuple[Path, ...], n: int) -> tuple[Path, ...]:
    n = min(n, len(images))
    return tuple(images[i * len(images) // n] for i in range(n))
