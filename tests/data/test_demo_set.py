from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from musgd_cli import data
from musgd_cli.bench.accuracy import corner_boxes, match, score
from musgd_cli.data import demo
from musgd_cli.data.dataset import DataSet
from musgd_cli.data.images import read_image
from musgd_cli.errors import UsageError
from musgd_cli.records import DataReport


@pytest.fixture(scope="module")
def yaml_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.draw(tmp_path_factory.mktemp("demo") / "set")


@pytest.fixture(scope="module")
def report(yaml_file: Path) -> DataReport:
    return data.check(yaml_file)


def test_it_is_the_same_each_time(
    yaml_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.random.seed(1)  # nobody else's generator matters
    cv2.setRNGSeed(1)
    monkeypatch.setattr(demo, "SPLIT_SIZES", {"train": 8, "val": 4, "test": 8})
    again = demo.draw(tmp_path / "again")
    assert again.read_bytes() == yaml_file.read_bytes()
    drawn = sorted(file for file in again.parent.rglob("*.*") if file.is_file())
    assert len(drawn) == 1 + 2 * (8 + 4 + 8)
    for file in drawn:
        first = yaml_file.parent / file.relative_to(again.parent)
        assert first.read_bytes() == file.read_bytes(), file


def test_it_is_sound_and_scored_on_test(report: DataReport) -> None:
    assert report.faults == ()
    assert report.score_split == "test"
    assert {split.split: split.n_images for split in report.splits} == demo.SPLIT_SIZES


def test_a_quarter_of_the_boxes_is_small_in_each_split(report: DataReport) -> None:
    for split in report.splits:
        assert split.boxes.small >= 0.25 * split.boxes.total, split.split


def test_no_class_is_rare(report: DataReport) -> None:
    for split in report.splits:
        counts = [found.boxes[split.split] for found in report.classes]
        assert min(counts) > 0.7 * max(counts), split.split


def test_boxes_fit_their_objects(yaml_file: Path) -> None:
    """Just inside of a box's border there is an edge, which a shifted box would miss."""
    dataset = data.load(yaml_file)
    gains = []
    for path in dataset.images("val")[:40]:
        image = read_image(path).astype(np.float32)
        height, width = image.shape[:2]
        for x1, y1, x2, y2, _ in corner_boxes(dataset.labels(path), width, height).astype(int):
            patch = image[y1:y2, x1:x2]
            outside = image[max(y1 - 3, 0) : y1, x1:x2]
            if outside.size:
                rows = np.abs(patch[:3].mean(axis=0) - outside.mean(axis=0)).max()
                gains.append(rows)
    assert np.median(gains) > 40


def test_a_drawn_set_is_kept_and_other_folders_are_left_alone(
    yaml_file: Path, tmp_path: Path
) -> None:
    before = yaml_file.stat().st_mtime_ns
    assert demo.draw(yaml_file.parent) == yaml_file
    assert yaml_file.stat().st_mtime_ns == before
    (tmp_path / "demo.yaml").write_text("train: mine\n")
    with pytest.raises(UsageError, match="not this version's demo set"):
        demo.draw(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["demo.yaml"]


def blobs(image: np.ndarray, n_colours: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes and mean colours of connected areas of one colour, the commonest colour left out."""
    smooth = cv2.cvtColor(cv2.medianBlur(image, 3), cv2.COLOR_BGR2LAB)
    cv2.setRNGSeed(0)
    _, colours, _ = cv2.kmeans(
        np.float32(smooth.reshape(-1, 3)), n_colours, None, (3, 10, 1.0), 1, cv2.KMEANS_PP_CENTERS
    )
    colours = colours.reshape(image.shape[:2])
    background = np.bincount(colours.ravel()).argmax()
    found = []
    for colour in set(range(n_colours)) - {background}:
        n, areas, stats, _ = cv2.connectedComponentsWithStats(np.uint8(colours == colour))
        for area in range(1, n):
            x, y, width, height, pixels = stats[area]
            if pixels >= 60 and min(width, height) >= 12 and max(width, height) <= 90:
                box = np.array([x, y, x + width, y + height])
                found.append((box, image[areas == area].mean(axis=0)))
    return found


class ColourDetector:
    """Finds objects as areas of one colour, and guesses their class from that colour."""

    NEIGHBOURS = 15

    def __init__(self, dataset: DataSet) -> None:
        colours, classes = [], []
        for path in dataset.images("train")[:200]:
            image = read_image(path)
            height, width = image.shape[:2]
            boxes = corner_boxes(dataset.labels(path), width, height).astype(int)
            for x1, y1, x2, y2, class_id in boxes:
                colours.append(np.median(image[y1:y2, x1:x2].reshape(-1, 3), axis=0))
                classes.append(class_id)
        self.colours, self.classes = np.array(colours), np.array(classes)
        self.n_classes = len(dataset.names)

    def detect(self, image: np.ndarray, n_colours: int) -> np.ndarray:
        found = []
        for box, colour in blobs(image, n_colours):
            nearest = np.linalg.norm(self.colours - colour, axis=1).argsort()[: self.NEIGHBOURS]
            votes = np.bincount(self.classes[nearest], minlength=self.n_classes) / self.NEIGHBOURS
            found += [[*box, vote, class_id] for class_id, vote in enumerate(votes)]
        rows = np.array(found, np.float32).reshape(-1, 6)
        return rows[np.argsort(-rows[:, 4], kind="stable")][:300]


@pytest.mark.parametrize("n_colours", [5, 10])
def test_colour_alone_does_not_find_the_objects(yaml_file: Path, n_colours: int) -> None:
    dataset = data.load(yaml_file)
    detector = ColourDetector(dataset)
    matched = []
    for path in dataset.images("test"):
        image = read_image(path)
        height, width = image.shape[:2]
        objects = corner_boxes(dataset.labels(path), width, height)
        matched.append(match(detector.detect(image, n_colours), objects))
    result = score(matched)
    assert result.map50 is not None
    assert 0.02 < result.map50 < 0.2  # it does see blobs; it cannot tell what they are
