"""Which images calibrate: seeded training images, none of which is scored where that can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from musgd_cli.compress import calibration
from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import UsageError


def data_set(train: range, val: range) -> DataSet:
    root = Path("/set")
    splits = {
        name: tuple(root / f"{number:04}.jpg" for number in numbers)
        for name, numbers in (("train", train), ("val", val))
    }
    return DataSet(path=root / "set.yaml", root=root, names=("a",), splits=splits)


@cases(st.integers(1, 60), st.integers(0, 80), st.integers(1, 90), st.integers(0, 9))
def test_no_scored_image_calibrates_while_others_are_left(n_train, first_val, n, seed):
    images = data_set(range(n_train), range(first_val, first_val + 20))
    only_scored = first_val == 0 and n_train <= 20
    if only_scored and n_train < calibration.SHARED_SHARE:
        with pytest.raises(UsageError, match="too few"):
            calibration.choose(images, n, seed)
        return
    chosen = calibration.choose(images, n, seed)
    assert chosen == calibration.choose(images, n, seed)
    assert len(set(chosen.images)) == len(chosen.images) <= n
    if only_scored:
        assert len(chosen.images) <= n_train / calibration.SHARED_SHARE
    else:
        assert not set(chosen.images) & set(images.images("val"))
    assert (len(chosen.images) < n) <= (chosen.note is not None)


def test_shared_splits_keep_three_quarters_to_score():
    """COCO128's train and val name the same images."""
    chosen = calibration.choose(data_set(range(128), range(128)), 300, 0)
    assert len(chosen.images) == 32
    assert "leaves these out" in chosen.note


def test_names_are_those_that_bench_leaves_out():
    chosen = calibration.choose(data_set(range(9), range(20, 29)), 2, 0)
    assert chosen.names == tuple(image.name for image in chosen.images)
    assert chosen.note is None


def test_another_seed_draws_other_images():
    images = data_set(range(200), range(300, 310))
    first, second = (calibration.choose(images, 20, seed).images for seed in (0, 1))
    assert first != second


def test_a_copy_of_a_scored_image_does_not_calibrate(tmp_path):
    splits = {"train": [], "val": []}
    for number in range(8):
        for split, differs in (("train", number >= 3), ("val", False)):
            file = tmp_path / split / f"{split}-{number}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(bytes([number, differs]) * 50)
            splits[split].append(file)
    images = DataSet(
        path=tmp_path / "set.yaml",
        root=tmp_path,
        names=("a",),
        splits={name: tuple(files) for name, files in splits.items()},
    )
    chosen = calibration.choose(images, 8, 0)
    assert chosen.images == tuple(splits["train"][3:])
    copies = DataSet(
        path=images.path,
        root=tmp_path,
        names=("a",),
        splits={"train": tuple(splits["train"][:3] * 2), "val": images.splits["val"]},
    )
    (one,) = calibration.choose(copies, 8, 0).images
    assert calibration.choose(copies, 8, 0).names == (
        f"train/{one.name}",
        f"val/{one.name.replace('train', 'val')}",
    )
