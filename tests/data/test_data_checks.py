from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from musgd_cli import data
from musgd_cli.errors import UsageError
from musgd_cli.records import DataReport

MakeSet = Callable[..., Path]


def found(report: DataReport) -> set[tuple[str, str, str]]:
    return {(fault.severity, fault.kind, fault.where) for fault in report.faults}


def test_a_sound_set_has_no_faults_and_its_figures(make_set: MakeSet) -> None:
    report = data.check(make_set())
    assert report.faults == ()
    train, val = report.splits
    assert (train.split, train.n_images, train.n_background) == ("train", 4, 0)
    assert (val.split, val.n_images, val.boxes.total) == ("val", 2, 2)
    assert train.smallest_image == train.largest_image == (64, 48)
    assert [found.boxes for found in report.classes] == [
        {"train": 2, "val": 1},
        {"train": 2, "val": 1},
    ]
    data.require_sound(report)


def test_boxes_are_sized_in_pixels_of_their_image(make_set: MakeSet) -> None:
    file = make_set()
    cv2.imwrite(str(file.parent / "images/train/0.jpg"), np.zeros((200, 200, 3), np.uint8))
    (file.parent / "labels/train/0.txt").write_text(
        "0 .5 .5 .159 .159\n0 .5 .5 .161 .161\n0 .5 .5 .479 .479\n0 .5 .5 .481 .481\n"
    )
    boxes = data.check(file).splits[0].boxes
    # The other three images hold one box of 16 by 12 pixels each.
    assert (boxes.small, boxes.medium, boxes.large) == (1 + 3, 2, 1)


def test_all_faults_are_found_in_one_pass(make_set: MakeSet) -> None:
    file = make_set(train="train.txt", names=["cat", "dog", "emu"])
    images, labels = file.parent / "images/train", file.parent / "labels/train"
    for number in range(4, 8):
        shutil.copy(images / "0.jpg", images / f"{number}.jpg")
    content = (images / "0.jpg").read_bytes()
    (images / "1.jpg").write_bytes(content[: len(content) // 2])
    (images / "2.jpg").write_bytes(b"")
    cv2.imwrite(str(images / "3.jpg"), np.zeros((9, 30, 3), np.uint8))
    (images / "photo.heic").write_bytes(b"")
    shutil.copy(images / "0.jpg", file.parent / "images/val/0.jpg")
    rows = "0 .5 .5\n7 .5 .5 .1 .1\n0 1.2 .5 .1 .1\n0 .5 .5 0 0\n0 0 0 .5 .5\n0 0 0 .5 .5\n"
    (labels / "4.txt").write_text(rows)
    (labels / "lonely.txt").write_text("0 .5 .5 .1 .1\n")
    (labels / "classes.txt").write_text("cat\ndog\n")
    (labels / "5.txt").mkdir()
    listed = [f"images/train/{number}.jpg" for number in (*range(6), 9)]
    (file.parent / "train.txt").write_text("\n".join(listed))

    report = data.check(file)
    assert found(report) == {
        ("error", "image-unreadable", "images/train/1.jpg"),
        ("error", "image-unreadable", "images/train/2.jpg"),
        ("error", "image-too-small", "images/train/3.jpg"),
        ("error", "image-missing", "images/train/9.jpg"),
        ("error", "label-malformed", "labels/train/4.txt:1"),
        ("error", "class-out-of-range", "labels/train/4.txt:2"),
        ("error", "coordinate-out-of-range", "labels/train/4.txt:3"),
        ("error", "box-without-area", "labels/train/4.txt:4"),
        ("error", "label-unreadable", "labels/train/5.txt"),
        ("warning", "box-beyond-image", "labels/train/4.txt:5"),
        ("warning", "row-repeated", "labels/train/4.txt:6"),
        ("warning", "duplicate-in-split", "images/train/4.jpg"),
        ("warning", "duplicate-in-split", "images/train/5.jpg"),
        ("warning", "duplicate-between-splits", "images/val/0.jpg"),
        ("warning", "label-without-image", "labels/train/lonely.txt"),
        ("warning", "image-unsupported", "images/train/photo.heic"),
        ("warning", "class-never-trained", "train"),
    }
    severities = [fault.severity for fault in report.faults]
    assert severities == sorted(severities)  # errors first
    assert {fault.split for fault in report.faults if "9.jpg" in fault.where} == {"train"}

    with pytest.raises(UsageError, match=r"9 errors: .*and 6 more") as caught:
        data.require_sound(report)
    assert caught.value.mend == f"musgd data check {file}"


def test_a_training_split_without_boxes_is_an_error(make_set: MakeSet) -> None:
    file = make_set()
    shutil.rmtree(file.parent / "labels")
    report = data.check(file)
    gaps = [f for f in report.faults if f.kind == "split-without-boxes"]
    assert [(f.severity, f.split) for f in gaps] == [("error", "train"), ("warning", "val")]
    assert report.splits[0].n_background == 4


def test_splits_of_the_same_images_are_a_warning(make_set: MakeSet) -> None:
    report = data.check(make_set(train="images/val"))
    assert {fault.kind for fault in report.warnings} == {"duplicate-between-splits"}
    assert report.errors == ()
    data.require_sound(report)


def test_a_fault_of_an_image_in_two_splits_is_told_for_both(make_set: MakeSet) -> None:
    file = make_set(train="images/val")
    (file.parent / "images/val/0.jpg").write_bytes(b"no image")
    assert [fault.split for fault in data.check(file).errors] == ["train", "val"]


def test_ctrl_c_waits_for_the_threads_that_decode(tmp_path: Path) -> None:
    # One that is still in OpenCV while Python ends makes C++ abort the process.
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), np.uint8)
    image = cv2.imencode(".png", noise)[1].tobytes()
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number in range(24):
            (tmp_path / "images" / split / f"{number}.png").write_bytes(image)
    (tmp_path / "set.yaml").write_text("train: images/train\nval: images/val\nnames: [a]\n")
    before = set(threading.enumerate())
    main = threading.main_thread().ident
    assert main is not None
    ctrl_c = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        data.check(tmp_path)
    ctrl_c.join()
    assert set(threading.enumerate()) <= before


def test_the_report_survives_json(make_set: MakeSet) -> None:
    report = data.check(make_set())
    assert DataReport.parse(report.model_dump(mode="json")) == report


def test_real_sets_are_sound(shared: Path) -> None:
    bccd = data.check(shared / "data/bccd")
    assert bccd.faults == ()
    assert {split.split: split.n_images for split in bccd.splits} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }
    coco = data.check(shared / "data/coco128/coco128.yaml")
    assert coco.errors == ()
    assert coco.splits[0].boxes.total == 929
    duplicates = [f for f in coco.warnings if f.kind == "duplicate-between-splits"]
    assert len(duplicates) == 128
