"""The lean loop: every pixel and box as Ultralytics has them, no trace of earlier images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tiny_artifact as tiny
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.errors import MusgdError
from musgd_cli.runtime import detector as lean
from musgd_cli.runtime.detector import Detector, Letterbox, Placement, letterbox
from musgd_cli.runtime.null import NullEngine

sides = st.integers(1, 700)
squares = st.sampled_from([32, 64, 160, 320])


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# ------------------------------------------------------------------------------------- letterbox


@given(width=sides, height=sides, imgsz=squares, scoring=st.booleans())
def test_the_image_lies_inside_its_letterbox_and_fills_one_side(
    width: int, height: int, imgsz: int, scoring: bool
) -> None:
    place = Placement(width, height, imgsz, scoring)
    (w, h), (left, top) = place.resized, place.corner
    assert max(w, h) == imgsz
    assert left >= 0
    assert top >= 0
    # An odd pixel of padding goes to the right and below.
    assert imgsz - w - 2 * left in (0, 1)
    assert imgsz - h - 2 * top in (0, 1)


@given(width=sides, height=sides, imgsz=squares, seed=st.integers(0, 99))
def test_boxes_come_back_from_the_letterbox(width: int, height: int, imgsz: int, seed: int) -> None:
    place = Placement(width, height, imgsz)
    corners = np.random.default_rng(seed).random((5, 2, 2)) * (width, height)
    original = np.sort(corners, axis=1).reshape(5, 4).astype(np.float32)
    (w, h), (left, top) = place.resized, place.corner
    inside = original * (np.array((w, h) * 2) / ((width, height) * 2)) + (left, top) * 2
    boxes = inside.astype(np.float32)
    place.to_original(boxes)
    np.testing.assert_allclose(boxes, original, atol=1e-3 * max(width, height))


def test_boxes_are_cut_at_the_border_unless_they_are_scored() -> None:
    place = Placement(100, 50, 100)
    boxes = np.array([[-10, 0, 120, 100]], np.float32)
    uncut = boxes.copy()
    place.to_original(boxes)
    assert boxes.tolist() == [[0, 0, 100, 50]]
    place.to_original(uncut, clip=False)
    assert uncut.tolist() == [[-10, -25, 120, 75]]


def test_pixels_padding_and_channel_order() -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    image[...] = (51, 102, 255)  # BGR
    x, place = letterbox(image, 64)
    assert x.shape == (1, 3, 64, 64)
    assert x.dtype == np.float32
    assert place.corner == (0, 16)
    np.testing.assert_array_equal(x[0, :, 32, 5], np.float32([255, 102, 51]) / np.float32(255))
    np.testing.assert_array_equal(x[0, :, 15, 5], np.float32(114) / np.float32(255))
    np.testing.assert_array_equal(x[0, :, 48, 5], np.float32(114) / np.float32(255))


@given(shapes=st.lists(st.tuples(sides, sides), min_size=2, max_size=4))
def test_nothing_of_an_earlier_image_stays(shapes: list[tuple[int, int]]) -> None:
    box = Letterbox(64)
    for seed, (height, width) in enumerate(shapes):
        image = image_of(height, width, seed)
        box(image)
        fresh, _ = letterbox(image, 64)
        np.testing.assert_array_equal(box.input, fresh)


def test_a_view_is_taken_as_it_is() -> None:
    image = image_of(90, 120)
    mirrored = image[:, ::-1]
    np.testing.assert_array_equal(letterbox(mirrored, 64)[0], letterbox(mirrored.copy(), 64)[0])


SHAPES = [(480, 640), (427, 640), (333, 500), (64, 64), (7, 500), (1, 3000), (640, 425), (99, 101)]


@pytest.mark.usefixtures("ultralytics")
@pytest.mark.parametrize("imgsz", [160, 320])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_pixel_is_ultralytics(shape: tuple[int, int], imgsz: int) -> None:
    from ultralytics.data.augment import LetterBox

    image = image_of(*shape)
    theirs = LetterBox(imgsz, auto=False)(image=image)
    x, _ = letterbox(image, imgsz)
    expected = theirs[..., ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(x[0], expected)


@pytest.mark.usefixtures("ultralytics")
@pytest.mark.parametrize("imgsz", [160, 320])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_scored_pixel_is_ultralytics_val(
    shape: tuple[int, int], imgsz: int, tmp_path: Path
) -> None:
    # Ultralytics' val resizes when it loads an image, rounding up, and pads afterwards.
    import cv2
    from ultralytics.data.augment import LetterBox

    image = image_of(*shape)
    gain = imgsz / max(shape)
    w, h = (min(math.ceil(side * gain), imgsz) for side in shape[::-1])
    loaded = image if gain == 1 else cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
    theirs = LetterBox((imgsz, imgsz), scaleup=False)(image=loaded)
    box = Letterbox(imgsz, scoring=True)
    box(image)
    expected = theirs[..., ::-1].transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(box.input[0], expected)


# -------------------------------------------------------------------------------------------- NMS


def random_boxes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centre, size = rng.random((n, 2)) * 60, rng.random((n, 2)) * 30
    boxes = np.hstack((centre - size / 2, centre + size / 2)).astype(np.float32)
    return boxes, (rng.integers(0, 50, n) / 50).astype(np.float32)  # with ties


@given(n=st.integers(0, 120), seed=st.integers(0, 10_000), iou=st.sampled_from([0.3, 0.7]))
def test_kept_boxes_are_torchvisions(n: int, seed: int, iou: float) -> None:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    boxes, scores = random_boxes(n, seed)
    theirs = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou)
    ours = lean.non_max_suppression(boxes, scores, iou, max_det=n + 1)
    assert ours.tolist() == theirs.tolist()


@given(n=st.integers(1, 120), seed=st.integers(0, 10_000), max_det=st.integers(1, 20))
def test_kept_boxes_do_not_overlap_and_the_others_overlap_a_better_one(
    n: int, seed: int, max_det: int
) -> None:
    from musgd_cli.bench.accuracy import box_iou

    boxes, scores = random_boxes(n, seed)
    kept = lean.non_max_suppression(boxes, scores, 0.5, max_det)
    overlap = box_iou(boxes[kept], boxes) > 0.5 + 1e-5
    assert not (overlap[:, kept] & ~np.eye(len(kept), dtype=bool)).any()
    assert (np.diff(scores[kept]) <= 0).all()
    if len(kept) < max_det:
        covered = box_iou(boxes[kept], boxes).max(axis=0) > 0.5 - 1e-5
        covered[kept] = True
        assert covered.all()


@given(n=st.integers(0, 120), seed=st.integers(0, 10_000), max_det=st.integers(1, 120))
def test_many_boxes_are_treated_as_few_are(n: int, seed: int, max_det: int) -> None:
    boxes, scores = random_boxes(n, seed)
    few = lean.non_max_suppression(boxes, scores, 0.5, max_det)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lean, "MATRIX_NMS", 0)
        many = lean.non_max_suppression(boxes, scores, 0.5, max_det)
    assert few.tolist() == many.tolist()


def test_boxes_without_area_stay_and_are_no_warning() -> None:
    boxes = np.zeros((3, 4), np.float32)
    kept = lean.non_max_suppression(boxes, np.float32([0.1, 0.3, 0.2]), 0.5, 300)
    assert kept.tolist() == [1, 2, 0]


# ----------------------------------------------------------------------------------------- decode


def decoder(tmp_path: Path, *, n_classes: int = 3, nms_free: bool = False, **options) -> Detector:
    names = tuple(f"c{i}" for i in range(n_classes))
    artifact = tiny.make_null(tmp_path, names=names, imgsz=320, nms_free=nms_free)
    return Detector(NullEngine(tmp_path, artifact, 1), artifact, **options)


def random_output(n_classes: int, seed: int, n_places: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centre, size = rng.random((2, n_places)) * 320, rng.random((2, n_places)) * 120
    scores = rng.random((n_classes, n_places)) ** 6
    return np.concatenate((centre, size, scores))[None].astype(np.float32)


@pytest.mark.usefixtures("ultralytics")
@pytest.mark.parametrize("n_classes", [1, 3, 80])
@pytest.mark.parametrize(("conf", "scoring"), [(0.25, False), (0.001, True)])
def test_decoded_boxes_are_ultralytics(
    n_classes: int, conf: float, scoring: bool, tmp_path: Path
) -> None:
    import torch
    from ultralytics.utils import nms, ops

    detector = decoder(tmp_path, n_classes=n_classes, conf=conf, scoring=scoring)
    # Boxes that are scored are not cut; Ultralytics' scale_boxes always cuts, so nothing to scale.
    image = image_of(320, 320) if scoring else image_of(200, 300)
    detector.prepare(image)
    for seed in range(5):
        output = random_output(n_classes, seed)
        ours = detector.decode(output.copy())
        (theirs,) = nms.non_max_suppression(
            torch.from_numpy(output), conf, 0.7, multi_label=scoring, max_det=300
        )
        if not scoring:
            theirs[:, :4] = ops.scale_boxes((320, 320), theirs[:, :4], image.shape)
        assert len(theirs) > 0
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_classes_do_not_suppress_each_other(tmp_path: Path) -> None:
    output = np.zeros((1, 7, 2), np.float32)
    output[0, :4] = [[50, 50], [50, 50], [20, 20], [20, 20]]
    output[0, 4:] = [[0.9, 0], [0, 0.8], [0, 0]]
    detector = decoder(tmp_path)
    detector.prepare(image_of(320, 320))
    found = detector.decode(output)
    assert found[:, 5].tolist() == [0, 1]
    output[0, 4:] = [[0.9, 0.8], [0, 0], [0, 0]]
    assert detector.decode(output)[:, 4].tolist() == [np.float32(0.9)]


def test_a_place_has_several_classes_only_when_it_is_scored(tmp_path: Path) -> None:
    output = np.zeros((1, 7, 1), np.float32)
    output[0, :, 0] = [50, 50, 20, 20, 0.9, 0.4, 0.3]
    predicting, scoring = decoder(tmp_path), decoder(tmp_path, scoring=True)
    for detector, classes in ((predicting, [0]), (scoring, [0, 1, 2])):
        detector.prepare(image_of(320, 320))
        assert detector.decode(output)[:, 5].tolist() == classes


def test_final_boxes_pass_through(tmp_path: Path) -> None:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, 0] = [32, 112, 64, 144, 0.9, 2]
    rows[0, 1] = [32, 112, 64, 144, 0.8, 2]  # no NMS: the model answers for itself
    rows[0, 2] = [32, 112, 64, 144, 0.2, 1]
    detector = decoder(tmp_path, nms_free=True)
    detector.prepare(image_of(80, 160))
    np.testing.assert_allclose(
        detector.decode(rows), [[16, 16, 32, 32, 0.9, 2], [16, 16, 32, 32, 0.8, 2]]
    )
    np.testing.assert_array_equal(rows[0, 0, :4], [32, 112, 64, 144])  # the engine's memory


def test_nothing_seen_is_an_empty_table(tmp_path: Path) -> None:
    for nms_free in (False, True):
        found = decoder(tmp_path, nms_free=nms_free).detect(image_of(50, 60))
        assert found.shape == (0, 6)
        assert found.dtype == np.float32


def test_the_whole_loop_finds_what_was_drawn(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from musgd_cli.runtime import open_engine

    artifact = tiny.make_onnx(tmp_path)
    detector = Detector(open_engine(tmp_path, artifact, 1), artifact)
    found = detector.detect(tiny.draw([(0, 2), (9, 0), (63, 1)]))
    by_class = found[np.argsort(found[:, 5])]
    np.testing.assert_allclose(
        by_class,
        [[8, 8, 16, 16, 1, 0], [56, 56, 64, 64, 1, 1], [0, 0, 8, 8, 1, 2]],
        atol=1e-4,
    )


# ---------------------------------------------------------------------------- answers that are off


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((0, 0, 8, 8, 0.9, 3), "class id 3, where it has 3 classes"),
        ((0, 0, 8, 8, 0.9, -1), "class id -1"),
        ((0, math.nan, 8, 8, 0.9, 0), "not finite"),
        ((0, 0, math.inf, 8, 0.9, 0), "not finite"),
        ((0, 0, 8, 8, 0.9, math.nan), "not finite"),
    ],
)
def test_final_boxes_that_make_no_sense_are_told(
    row: tuple[float, ...], fault: str, tmp_path: Path
) -> None:
    detector = decoder(tmp_path, nms_free=True)
    answer = np.zeros((1, 300, 6), np.float32)
    answer[0, 1] = (math.nan, 0, 0, 0, 0.1, 99)  # below the threshold: nobody asks
    assert len(detector.decode(answer)) == 0
    answer[0, 0] = row
    with pytest.raises(MusgdError, match=fault):
        detector.decode(answer)


def test_more_classes_than_names_are_told(tmp_path: Path) -> None:
    detector = decoder(tmp_path)
    answer = np.zeros((1, 4 + 80, 10), np.float32)
    answer[0, 4 + 79, 0] = 0.9
    with pytest.raises(MusgdError, match="class id 79, where it has 3 classes"):
        detector.decode(answer)
