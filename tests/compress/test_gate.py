"""The gate: what passes, what fails, and when it says that it cannot tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st
from tiny_artifact import make_data, make_onnx

from musgd_cli import data
from musgd_cli.bench.accuracy import match
from musgd_cli.compress import gate
from musgd_cli.errors import UsageError

LIMIT = gate.LEAST_MATCHED["int8"]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> gate.Scorer:
    return gate.Scorer(data.load(make_data(tmp_path_factory.mktemp("squares"), n_images=40)))


def scored(scorer: gate.Scorer, boxes: list[np.ndarray], objects: list[np.ndarray]) -> gate.Scored:
    """What a model would be scored as that finds ``boxes`` where ``objects`` are."""
    images = tuple(match(found, there) for found, there in zip(boxes, objects, strict=True))
    return gate.Scored(images, tuple(boxes), scorer._draws, "by hand")


def world(seed: int, n_images: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Objects of some images, and detections that match them."""
    rng = np.random.default_rng(seed)
    boxes, objects = [], []
    for _ in range(n_images):
        corner = rng.uniform(0, 500, (6, 2))
        side = rng.uniform(40, 100, (6, 2))
        there = np.hstack((corner, corner + side, rng.integers(0, 3, (6, 1)))).astype(np.float32)
        scores = np.linspace(0.9, 0.4, 6, dtype=np.float32)[:, None]
        boxes.append(np.hstack((there[:, :4], scores, there[:, 4:])))
        objects.append(there)
    return boxes, objects


def test_a_model_passes_beside_itself(scorer, tmp_path):
    artifact = make_onnx(tmp_path / "tiny")
    found = scorer.score(tmp_path / "tiny", artifact)
    verdict = scorer.compare(found, found, 0.01, 0.99)
    assert verdict.verdict == "passed"
    assert (verdict.map50_95_drop, verdict.interval) == (0, (0, 0))
    assert (verdict.match_recall, verdict.match_precision) == (1, 1)
    assert (verdict.box_px, verdict.score_difference, verdict.confidence_shift) == (0, 0, 0)
    assert verdict.map50_95 == pytest.approx(0.995, abs=0.01)  # the 101st recall is beyond reach
    assert (verdict.n_images, verdict.n_boxes, verdict.split) == (40, 160, "val")
    assert verdict.scored_by.startswith("onnxruntime ")
    assert not verdict.falls_short


def test_what_calibrated_is_not_scored(tmp_path):
    data_set = data.load(make_data(tmp_path))
    names = [data_set.name_of(image) for image in data_set.images("val")]
    assert [data_set.name_of(image) for image in gate.Scorer(data_set, names[:2]).images] == (
        names[2:]
    )
    with pytest.raises(UsageError, match=r"no image .* is left"):
        gate.Scorer(data_set, names)


@settings(max_examples=20, deadline=None)
@cases(st.integers(0, 1000), st.floats(0, 1))
def test_the_drop_lies_in_its_interval_and_turns_with_the_sides(scorer, seed, lost):
    boxes, objects = world(seed, len(scorer.images))
    rng = np.random.default_rng(seed)
    fewer = [found[rng.random(len(found)) >= lost] for found in boxes]
    parent, model = scored(scorer, boxes, objects), scored(scorer, fewer, objects)
    there = scorer.compare(parent, model, 0.01, LIMIT)
    back = scorer.compare(model, parent, 0.01, LIMIT)
    assert there.map50_95_drop == -back.map50_95_drop
    low, high = there.interval
    assert low <= high
    # The bootstrap's middle may lie beside the point, never far from it.
    assert low - 0.05 <= there.map50_95_drop <= high + 0.05
    assert there.match_recall == back.match_precision
    assert (there.verdict == "passed") == (
        there.map50_95_drop <= 0.01 and there.match_recall >= 0.8
    )


def test_half_of_the_objects_lost_fails(scorer):
    boxes, objects = world(0, len(scorer.images))
    parent = scored(scorer, boxes, objects)
    model = scored(scorer, [found[::2] for found in boxes], objects)
    verdict = scorer.compare(parent, model, 0.01, LIMIT)
    assert verdict.verdict == "failed"
    assert verdict.interval[0] > 0.01
    assert [reason.split()[0] for reason in verdict.reasons] == ["mAP50-95", "50.0%"]


def test_a_loss_in_few_images_is_inconclusive(scorer):
    """One image in forty is lost whole: the next forty may have none such, or three."""
    boxes, objects = world(0, len(scorer.images))
    worse = [found[:0] if i == 0 else found for i, found in enumerate(boxes)]
    verdict = scorer.compare(
        scored(scorer, boxes, objects), scored(scorer, worse, objects), 0.01, LIMIT
    )
    assert verdict.map50_95_drop > 0.01
    assert verdict.interval[0] <= 0.01
    assert verdict.verdict == "inconclusive"
    assert "over 0.01" in verdict.reasons[0]


def test_boxes_that_nobody_else_sees_fail_without_a_loss_of_map(scorer):
    """Below the scores of the true ones they cost no mAP, and a user would see them all."""
    boxes, objects = world(0, len(scorer.images))
    ghosts = []
    for found in boxes:
        ghost = found.copy()
        ghost[:, :4] += 1000
        ghost[:, 4] = 0.3
        ghosts.append(np.vstack((found, ghost)))
    verdict = scorer.compare(
        scored(scorer, boxes, objects), scored(scorer, ghosts, objects), 0.01, LIMIT
    )
    assert verdict.map50_95_drop == pytest.approx(0, abs=1e-6)
    assert verdict.match_precision == 0.5
    assert verdict.verdict == "failed"


def test_images_without_objects_tell_little(scorer):
    boxes, objects = world(0, len(scorer.images))
    nothing = [there[:0] for there in objects]
    found = scored(scorer, boxes, nothing)
    verdict = scorer.compare(found, found, 0.01, LIMIT)
    assert (verdict.verdict, verdict.map50_95_drop, verdict.interval) == (
        "inconclusive",
        None,
        None,
    )
    assert "no object" in verdict.reasons[0]


def test_differences_are_of_matched_boxes(scorer):
    boxes, objects = world(0, len(scorer.images))
    moved = [found + np.float32([2, 0, 2, 0, -0.05, 0]) for found in boxes]
    verdict = scorer.compare(
        scored(scorer, boxes, objects), scored(scorer, moved, objects), 0.5, LIMIT
    )
    assert verdict.box_px == pytest.approx(2, abs=1e-3)
    assert verdict.score_difference == pytest.approx(0.05, abs=1e-3)
    assert verdict.confidence_shift == pytest.approx(-0.05, abs=1e-3)


def test_another_data_set_is_refused(tmp_path, scorer):
    artifact = make_onnx(tmp_path / "tiny", names=("red", "blue", "green"))
    with pytest.raises(UsageError, match="numbers its classes otherwise"):
        scorer.score(tmp_path / "tiny", artifact)


def test_a_large_split_is_sampled_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "MOST_IMAGES", 3)
    scorer = gate.Scorer(data.load(make_data(tmp_path)))
    assert [Path(image).stem for image in scorer.images] == ["0", "2", "4"]


def test_few_images_tell_nothing_either_way(tmp_path):
    few = gate.Scorer(data.load(make_data(tmp_path, n_images=3)))
    boxes, objects = world(0, 3)
    parent = scored(few, boxes, objects)
    for lost in (boxes, [found[:0] for found in boxes]):
        verdict = few.compare(parent, scored(few, lost, objects), 0.01, LIMIT)
        assert verdict.verdict == "inconclusive"
        assert "too few images" in verdict.reasons[-1]
    assert verdict.falls_short


def test_few_boxes_convict_nobody(scorer):
    boxes, objects = world(0, len(scorer.images))
    one_box = [found[:1] if i < 5 else found[:0] for i, found in enumerate(boxes)]
    none = [found[:0] for found in boxes]
    verdict = scorer.compare(
        scored(scorer, one_box, objects), scored(scorer, none, objects), 0.9, LIMIT
    )
    assert (verdict.match_recall, verdict.verdict) == (0, "inconclusive")


def test_a_parent_that_finds_nothing_proves_nothing(scorer):
    _, objects = world(0, len(scorer.images))
    blind = scored(scorer, [np.zeros((0, 6), np.float32) for _ in objects], objects)
    verdict = scorer.compare(blind, blind, 0.01, LIMIT)
    assert verdict.verdict == "inconclusive"
    assert "next to nothing" in verdict.reasons[0]
