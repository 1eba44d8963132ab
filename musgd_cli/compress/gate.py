"""The gate: a model held against its float parent on images that calibrated nothing.

Three things are judged: the mAP50-95 lost, the share of the parent's boxes that it finds too, and
the share of its own that the parent has. Each is paired over the same images and comes with a
bootstrap 90 % interval: it passes when the figure is within its limit, fails when the whole
interval is beyond it, and is inconclusive in between. The verdict is the worst of the three. Where
there is too little to tell, few images or a parent that finds nothing, it is inconclusive.

The similarity of output tensors is not judged: the cosine of a model that had lost half of its mAP
was .99995 (measured).
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from musgd_cli.bench import accuracy
from musgd_cli.bench.pairs import CONFIDENCE, pair_boxes
from musgd_cli.bench.scoring import detections
from musgd_cli.bench.selection import require_same_classes
from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import UsageError
from musgd_cli.hardware import usable_cores
from musgd_cli.records import Artifact, Gate, Precision, Verdict
from musgd_cli.runtime import open_engine

MOST_IMAGES = 500
"""Of a larger split so many are taken, evenly spread: their interval is narrow enough."""

DRAWS = 500
"""Bootstrap draws of images with repetition."""

LEAST_IMAGES = 10
"""Of fewer the bootstrap knows nothing: whatever they show, they are too few to tell."""

LEAST_BOXES = 20
"""Of fewer a share of boxes convicts nobody."""

LEAST_MAP = 0.01
"""A parent with less finds next to nothing, so that nothing can be lost."""

LEAST_MATCHED: Mapping[Precision, float] = {
    "fp32": 0.99,
    "fp16": 0.98,
    "bf16": 0.93,
    "mixed-int8": 0.8,
    "int8": 0.8,
}
"""Least share of boxes, either way. Measured, 16 images: fp32 and fp16 1, bf16 .973, five sound
int8 models .885 to .977, a broken one .176."""

_WORST_FIRST: tuple[Verdict, ...] = ("failed", "inconclusive", "passed")


@dataclass(frozen=True)
class Scored:
    """What one model found in the images of a `Scorer`."""

    images: tuple[accuracy.MatchedImage, ...]
    boxes: tuple[NDArray[np.float32], ...]
    """An image's boxes above `CONFIDENCE`, (n, 6) x1, y1, x2, y2, score, class; best first."""
    draws: NDArray[np.int64]
    """(`DRAWS`, images): how often each draw takes each image."""
    scored_by: str
    has_stand_in: bool = False

    @cached_property
    def score(self) -> accuracy.Score:
        """Over all images."""
        return accuracy.score(self.images)

    @cached_property
    def resampled(self) -> NDArray[np.float64]:
        """The mAP50-95 of each draw."""
        return accuracy.resampled_map50_95(self.images, self.draws)


class Scorer:
    """Runs models over the same held-out images.

    Args:
        data_set: Its score split gives the images.
        exclude: Those that calibrated, by their path in the data set.

    Raises:
        UsageError: No image is left.
    """

    def __init__(self, data_set: DataSet, exclude: Collection[str] = ()) -> None:
        self.data_set = data_set
        self.split = data_set.score_split
        left_out = frozenset(exclude)
        images = [
            image
            for image in data_set.images(self.split)
            if not left_out or data_set.name_of(image) not in left_out
        ]
        if not images:
            raise UsageError(
                f"no image of {data_set.path} is left to score: all of {self.split}: calibrate",
                f"add images to {self.split}:, or give fewer with --calib",
            )
        n = min(len(images), MOST_IMAGES)
        self.images = tuple(images[i * len(images) // n] for i in range(n))
        self._draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS)

    def score(self, folder: Path, artifact: Artifact, *, stand_in: bool = False) -> Scored:
        """Run a model over the images.

        Args:
            folder: Where its files lie.
            artifact: Its record.
            stand_in: The record's runtime is not the model's own, which does not run here.

        Raises:
            UsageError: Its classes are not those of the data set.
            UnsupportedError: Its engine does not run here.
            MusgdError: An image is damaged.
        """
        require_same_classes(folder.name, artifact.names, self.data_set)
        engine = open_engine(folder, artifact, usable_cores())
        matched, boxes = [], []
        try:
            for found, objects in detections(engine, artifact, self.data_set, self.images):
                matched.append(accuracy.match(found, objects))
                boxes.append(found[found[:, 4] > CONFIDENCE])
        finally:
            engine.close()
        scored_by = f"{artifact.runtime} {engine.version} on {platform.machine()}"
        return Scored(tuple(matched), tuple(boxes), self._draws, scored_by, stand_in)

    def compare(
        self, parent: Scored, model: Scored, max_drop: float, least_matched: float | None
    ) -> Gate:
        """Judge a model by its parent.

        Args:
            parent: What the float parent found.
            model: What the model found, in the same images.
            max_drop: Most mAP50-95 that may be lost: 0.01 is a hundredth of the scale from 0 to 1.
            least_matched: Least share of boxes in common, either way; ``None``: not judged.
        """
        ours, theirs = model.score, parent.score
        matches = pair_boxes(parent.boxes, model.boxes)
        drop = interval = None
        found: list[_Judgement] = []
        if ours.map50_95 is None or theirs.map50_95 is None:
            why = "the images hold no object, so there is no mAP to compare"
            found.append(_Judgement("inconclusive", why))
        else:
            drop = theirs.map50_95 - ours.map50_95
            interval = _interval(parent.resampled - model.resampled)
            found.append(_judge_drop(drop, interval, max_drop))
            if theirs.map50_95 < LEAST_MAP:
                why = (
                    f"the float parent finds next to nothing: its mAP50-95 is {theirs.map50_95:.4f}"
                )
                found.append(_Judgement("inconclusive", why))
        if least_matched is not None:
            what = "of the parent's {n} boxes are found"
            found += _judge_matches(what, matches.n, matches.n_parent, parent.draws, least_matched)
            what = "of its {n} boxes are the parent's too"
            found += _judge_matches(what, matches.n, matches.n_model, parent.draws, least_matched)
        if len(self.images) < LEAST_IMAGES:
            found = [judgement.in_doubt() for judgement in found]
            why = f"too few images to tell: {len(self.images)}, where {LEAST_IMAGES} are the least"
            found.append(_Judgement("inconclusive", why))
        return Gate(
            verdict=min((judgement.verdict for judgement in found), key=_WORST_FIRST.index),
            reasons=tuple(j.why for j in found if j.verdict != "passed"),
            max_drop=max_drop,
            least_matched=least_matched,
            map50_95_drop=drop,
            interval=interval,
            map50_95=ours.map50_95,
            map50=ours.map50,
            recall_small=ours.small.share,
            parent_map50_95=theirs.map50_95,
            parent_map50=theirs.map50,
            parent_recall_small=theirs.small.share,
            match_recall=_share(matches.n, matches.n_parent),
            match_precision=_share(matches.n, matches.n_model),
            n_boxes=int(matches.n_parent.sum()),
            box_px=matches.box_px,
            score_difference=matches.score_difference,
            confidence_shift=matches.confidence_shift,
            n_images=len(self.images),
            data=str(self.data_set.path),
            split=self.split,
            scored_by=model.scored_by,
            has_stand_in=model.has_stand_in,
        )


@dataclass(frozen=True)
class _Judgement:
    verdict: Verdict
    why: str

    def in_doubt(self) -> _Judgement:
        return self if self.verdict == "passed" else _Judgement("inconclusive", self.why)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanquantile(values, (0.05, 0.95))
    return float(low), float(high)


def _verdict(within: bool, beyond: bool) -> Verdict:
    return "passed" if within else "failed" if beyond else "inconclusive"


def _judge_drop(drop: float, interval: tuple[float, float], limit: float) -> _Judgement:
    low, high = interval
    return _Judgement(
        _verdict(drop <= limit, low > limit),
        f"mAP50-95 drops by {drop:.4f} (90 % interval {low:.4f} to {high:.4f}), over {limit:g}",
    )


def _judge_matches(
    what: str,
    n: NDArray[np.int64],
    of: NDArray[np.int64],
    draws: NDArray[np.int64],
    limit: float,
) -> list[_Judgement]:
    """Judge a share of boxes; there is nothing to judge where there are none.

    Args:
        what: The share, in words.
        n: (images,) boxes in common.
        of: (images,) boxes of which they are a share.
        draws: (draws, images).
        limit: Least share.
    """
    share = _share(n, of)
    if share is None:
        return []
    total = draws @ of
    low, high = _interval(np.where(total, draws @ n, np.nan) / np.maximum(total, 1))
    shown = what.format(n=of.sum())
    return [
        _Judgement(
            _verdict(share >= limit, high < limit and of.sum() >= LEAST_BOXES),
            f"{share:.1%} {shown} (90 % interval {low:.1%} to {high:.1%}), under {limit:.0%}",
        )
    ]


def _share(n: NDArray[np.int64], of: NDArray[np.int64]) -> float | None:
    return float(n.sum() / of.sum()) if of.sum() else None
