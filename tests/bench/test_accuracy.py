"""mAP: worked examples, what must not change it, and Ultralytics' own figures."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.bench.accuracy import (
    IOU_THRESHOLDS,
    MatchedImage,
    average_precision,
    box_iou,
    corner_boxes,
    match,
    resampled_map50_95,
    score,
)

seeds = st.integers(0, 100_000)


def random_image(seed: int, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Objects of an image and detections near some of them, best score first."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 8))
    corner, size = rng.random((n, 2)) * 80, rng.random((n, 2)) * 60 + 4
    objects = np.hstack((corner, corner + size, rng.integers(0, n_classes, (n, 1))))
    again = np.repeat(objects, rng.integers(0, 4, n), axis=0)
    again[:, :4] += rng.normal(0, 3, (len(again), 4))
    stray = np.hstack((corner + 30, corner + 30 + size, rng.integers(0, n_classes, (n, 1))))
    boxes = np.vstack((again, stray))
    scores = np.sort(rng.random(len(boxes)))[::-1]
    boxes = boxes[rng.permutation(len(boxes))]
    found = np.hstack((boxes[:, :4], scores[:, None], boxes[:, 4:]))
    return found.astype(np.float32), objects.astype(np.float32)


def matched(seed: int) -> MatchedImage:
    return match(*random_image(seed))


def perfect(objects: np.ndarray) -> np.ndarray:
    scores = np.linspace(0.9, 0.5, len(objects), dtype=np.float32)
    return np.hstack((objects[:, :4], scores[:, None], objects[:, 4:]))


# ------------------------------------------------------------------------------- worked examples


def test_one_hit_one_miss_one_stray() -> None:
    objects = np.float32([[0, 0, 10, 10, 0], [20, 20, 30, 30, 0]])
    found = np.float32([[0, 0, 10, 10, 0.9, 0], [50, 50, 60, 60, 0.8, 0]])
    result = score([match(found, objects)])
    # Precision is 1 at the recalls 0 to .49, and 0 from .5 on, where the curve ends: 49 whole
    # steps of .01, and half of the one that falls.
    assert result.map50 == pytest.approx(0.495, abs=1e-6)
    assert result.map50_95 == pytest.approx(result.map50)
    assert (result.n_images, result.n_objects) == (1, 2)


def test_an_overlap_counts_at_the_thresholds_it_reaches() -> None:
    objects = np.float32([[0, 0, 100, 100, 0]])
    found = np.float32([[0, 0, 100, 72, 0.9, 0]])  # IoU .72
    result = score([match(found, objects)])
    assert result.map50 == pytest.approx(0.995, abs=1e-9)
    assert result.map50_95 == pytest.approx(0.995 * 5 / 10, abs=1e-9)  # .50 .55 .60 .65 .70


def test_a_second_detection_of_an_object_is_false() -> None:
    objects = np.float32([[0, 0, 10, 10, 0]])
    found = np.float32([[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 0]])
    assert match(found, objects).correct[:, 0].tolist() == [True, False]


def test_the_better_score_chooses_first_not_the_better_overlap() -> None:
    objects = np.float32([[0, 0, 10, 10, 0]])
    found = np.float32([[0, 0, 10, 8, 0.9, 0], [0, 0, 10, 10, 0.8, 0]])
    correct = match(found, objects).correct
    assert correct[:, 0].tolist() == [True, False]
    assert correct[:, -1].tolist() == [False, True]  # at .95 only the second one fits


def test_a_taken_object_leaves_the_next_best_one() -> None:
    objects = np.float32([[0, 0, 10, 10, 0], [0, 2, 10, 12, 0]])
    found = np.float32([[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 0]])
    assert match(found, objects).correct[:, 0].tolist() == [True, True]


def test_another_class_is_no_hit() -> None:
    objects = np.float32([[0, 0, 10, 10, 0]])
    assert not match(np.float32([[0, 0, 10, 10, 0.9, 1]]), objects).correct.any()


def test_a_class_without_objects_does_not_count() -> None:
    objects = np.float32([[0, 0, 10, 10, 0]])
    found = np.vstack((perfect(objects), np.float32([[0, 0, 5, 5, 0.3, 2]])))
    result = score([match(found, objects)])
    assert list(result.ap50_95) == [0]
    assert result.map50_95 == pytest.approx(0.995)


def test_small_means_under_32_square_in_original_pixels() -> None:
    objects = np.float32([[0, 0, 32, 32, 0], [50, 50, 81.9, 82, 0], [100, 100, 110, 110, 1]])
    found = np.float32([[0, 0, 32, 32, 0.9, 0], [50, 50, 82, 82, 0.002, 0]])
    result = score([match(found, objects)])
    assert result.small.n == 2
    assert result.small.share == 0.5


def test_nothing_to_find_is_none_not_zero() -> None:
    empty, stray = np.zeros((0, 5), np.float32), np.float32([[0, 0, 5, 5, 0.3, 2]])
    result = score([match(stray, empty)])
    assert result.map50_95 is None
    assert result.small.share is None
    assert score([]).map50 is None


def test_nothing_found_is_zero() -> None:
    objects = np.float32([[0, 0, 10, 10, 0]])
    result = score([match(np.zeros((0, 6), np.float32), objects)])
    assert result.map50_95 == 0
    assert result.small.share == 0


def test_labels_become_corners() -> None:
    labels = np.float32([[2, 0.5, 0.25, 0.5, 0.5]])
    assert corner_boxes(labels, 200, 100).tolist() == [[50, 0, 150, 50, 2]]
    assert corner_boxes(np.zeros((0, 5), np.float32), 200, 100).shape == (0, 5)


# ------------------------------------------------------------------------------------- properties


@given(st.lists(seeds, min_size=1, max_size=5))
def test_perfect_detections_score_all_that_the_interpolation_gives(image_seeds: list[int]) -> None:
    everything = [random_image(seed)[1] for seed in image_seeds]
    # Twins would take each other's place; apart from them, each object has its own detection.
    result = score([match(perfect(objects), objects) for objects in everything])
    if result.n_objects:
        # The curve's last step, from the last recall to the sentinel at 1, is lost: 0.5 of 100.
        assert result.map50_95 == pytest.approx(0.995, abs=1e-9)
        assert result.small.share in (None, 1.0)


@given(st.lists(seeds, min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(image_seeds: list[int], random) -> None:
    images = [matched(seed) for seed in image_seeds]
    shuffled = random.sample(images, len(images))
    a, b = score(images), score(shuffled)
    assert a.map50_95 == pytest.approx(b.map50_95, abs=1e-12)
    assert (a.small, a.medium, a.large) == (b.small, b.medium, b.large)


@given(st.lists(seeds, min_size=1, max_size=4), st.sampled_from([0.01, 0.5]))
def test_only_the_order_of_scores_matters(image_seeds: list[int], factor: float) -> None:
    before, after = [], []
    for seed in image_seeds:
        found, objects = random_image(seed)
        before.append(match(found, objects))
        found[:, 4] *= np.float32(factor)
        after.append(match(found, objects))
    assert score(before).map50_95 == pytest.approx(score(after).map50_95, abs=1e-12)


@given(seeds)
def test_no_object_is_found_twice_and_stricter_thresholds_find_no_more(seed: int) -> None:
    found, objects = random_image(seed)
    correct = match(found, objects).correct
    for class_id in range(3):
        per_threshold = correct[found[:, 5] == class_id].sum(axis=0)
        assert (per_threshold <= (objects[:, 4] == class_id).sum()).all()
    assert box_iou(objects[:, :4], found[:, :4]).max(initial=0) <= 1 + 1e-6


@given(st.lists(st.booleans(), max_size=20), st.integers(1, 20))
def test_average_precision_lies_between_0_and_1(hits: list[bool], more: int) -> None:
    correct = np.array(hits, bool).reshape(-1, 1)
    (ap,) = average_precision(correct, int(correct.sum()) + more)
    assert 0 <= ap <= 1


# ------------------------------------------------------------------------------------ Ultralytics


@pytest.mark.usefixtures("ultralytics")
@pytest.mark.parametrize("seed", range(5))
def test_matches_and_ap_are_ultralytics(seed: int) -> None:
    import torch
    from ultralytics.models.yolo.detect import DetectionValidator
    from ultralytics.utils.metrics import ap_per_class
    from ultralytics.utils.metrics import box_iou as their_iou

    validator = DetectionValidator.__new__(DetectionValidator)
    validator.iouv = torch.linspace(0.5, 0.95, 10)
    np.testing.assert_array_equal(validator.iouv.numpy(), IOU_THRESHOLDS)
    images, theirs = [], []
    for image_seed in range(seed * 50, seed * 50 + 50):
        found, objects = random_image(image_seed)
        image = match(found, objects)
        a, b = torch.from_numpy(objects), torch.from_numpy(found)
        if len(objects) and len(found):
            iou = their_iou(a[:, :4], b[:, :4])
            np.testing.assert_allclose(box_iou(objects[:, :4], found[:, :4]), iou, atol=1e-6)
            correct = validator.match_predictions(b[:, 5], a[:, 4], iou).numpy()
            np.testing.assert_array_equal(image.correct, correct)
        images.append(image)
        theirs.append((image.correct, found[:, 4], found[:, 5], objects[:, 4]))
    results = ap_per_class(*(np.concatenate(column) for column in zip(*theirs, strict=True)))
    ap, classes = results[5], results[6]
    ours = score(images)
    assert ours.map50_95 == pytest.approx(ap.mean(), abs=1e-9)
    assert ours.map50 == pytest.approx(ap[:, 0].mean(), abs=1e-9)
    assert ours.ap50_95 == pytest.approx(dict(zip(classes.tolist(), ap.mean(1), strict=True)))


@given(seeds, st.integers(1, 3), st.sampled_from([1, 2**21]))
def test_a_draw_scores_as_its_images_repeated(seed, n_classes, most_values):
    images = [match(*random_image(seed + i, n_classes)) for i in range(5)]
    counts = np.random.default_rng(seed).multinomial(5, np.full(5, 0.2), size=4)
    with patch("musgd_cli.bench.accuracy.MOST_VALUES", most_values):
        values = resampled_map50_95(images, counts)
    for draw, value in zip(counts, values, strict=True):
        repeated = [image for image, n in zip(images, draw, strict=True) for _ in range(n)]
        expected = score(repeated).map50_95
        assert value == pytest.approx(np.nan if expected is None else expected, nan_ok=True)
