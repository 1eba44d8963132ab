"""Samples depend on seed, epoch and image alone, and are those Ultralytics would make."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset

from musgd_cli import data
from musgd_cli.train.dataset import Draw, EpochSampler, RunDataset, loader

if TYPE_CHECKING:
    from musgd_cli.train.dataset import Draw, RunDataset

PLAIN_FROM = 3


def draw(epoch: int, image: int) -> Draw:
    from musgd_cli.train.dataset import Draw

    return Draw(epoch, image)


def ultralytics_dataset(images: Path, **options: Any) -> Any:

    return YOLODataset(
        str(images),
        imgsz=64,
        batch_size=4,
        stride=32,
        data={"names": {0: "dark", 1: "bright"}, "channels": 3},
        task="detect",
        **options,
    )


def dataset(
    squares: Path, split: str = "train", *, seed: int = 0, cache: str | None = None, **hyp: Any
) -> RunDataset:

    from musgd_cli.train.dataset import RunDataset

    training = split == "train"
    return RunDataset(
        data.load(squares),
        split,
        seed=seed,
        plain_from=PLAIN_FROM,
        imgsz=64,
        batch_size=4,
        augment=training,
        hyp=get_cfg(overrides={"mosaic": 1.0, **hyp}),
        rect=not training,
        cache=cache,
        stride=32,
        pad=0.0 if training else 0.5,
        data={"names": {0: "dark", 1: "bright"}, "channels": 3},
        task="detect",
    )


def batches(samples: RunDataset, epoch: int, workers: int = 0) -> list[dict[str, Any]]:

    loaded = loader(samples, 4, workers=workers, seed=samples.seed, shuffle=True, pin_memory=False)
    loaded.sampler.epoch = epoch
    return list(loaded)


def same(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    return len(ours) == len(theirs) and all(
        one["im_file"] == other["im_file"]
        and all(torch.equal(one[key], other[key]) for key in ("img", "bboxes", "cls", "batch_idx"))
        for one, other in zip(ours, theirs, strict=True)
    )


def test_an_epoch_is_the_same_whatever_was_loaded_before_it_and_by_how_many_processes(squares):
    alone = batches(dataset(squares), epoch=1)
    after_others = dataset(squares)
    batches(after_others, epoch=0)
    batches(after_others, epoch=2)
    assert same(batches(after_others, epoch=1), alone)
    assert same(batches(dataset(squares), epoch=1, workers=2), alone)
    assert same(batches(dataset(squares, cache="ram"), epoch=1), alone)


def test_epochs_and_seeds_differ(squares):
    samples = dataset(squares)
    first = batches(samples, epoch=0)
    assert not same(batches(samples, epoch=1), first)
    assert not same(batches(dataset(squares, seed=1), epoch=0), first)


def test_each_image_comes_once_an_epoch():

    sampler = EpochSampler(50, seed=3)
    orders = []
    for sampler.epoch in range(3):
        draws = list(sampler)
        assert all(draw.epoch == sampler.epoch for draw in draws)
        orders.append([draw.image for draw in draws])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != orders[2]


def test_samples_leave_the_process_own_randomness_alone(squares):
    samples = dataset(squares)
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    expected = random.random(), np.random.random(), torch.rand(1)
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    batches(samples, epoch=0)
    assert (random.random(), np.random.random(), torch.rand(1)) == expected


def test_mosaic_takes_partners_from_the_whole_set_without_a_cache(squares, monkeypatch):
    samples = dataset(squares)
    loaded: set[int] = set()
    load_image = samples.load_image
    monkeypatch.setattr(samples, "load_image", lambda i: loaded.add(i) or load_image(i))
    for epoch in range(PLAIN_FROM):
        for _ in range(2):  # Ultralytics would take them from the last images loaded
            samples[draw(epoch, 0)]
    assert len(loaded) > 4


def test_mosaic_ends_with_its_epoch(squares):
    samples = dataset(squares, translate=0.0, scale=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, fliplr=0)
    assert len(samples[draw(PLAIN_FROM, 0)]["cls"]) == 1
    assert any(len(samples[draw(PLAIN_FROM - 1, image)]["cls"]) > 1 for image in range(4))


def test_validation_sees_what_ultralytics_would_show_it(squares, tmp_path):
    # A copy, because Ultralytics writes its label cache beside the labels.
    shutil.copytree(squares.parent, tmp_path / "copy")

    theirs = ultralytics_dataset(
        tmp_path / "copy" / "images" / "val", augment=False, hyp=get_cfg(), rect=True, pad=0.5
    )
    ours = dataset(squares, "val")
    assert len(ours) == len(theirs) == 4
    for index in range(4):
        one, other = ours[index], theirs[index]
        assert Path(one["im_file"]).name == Path(other["im_file"]).name
        for key in ("img", "bboxes", "cls"):
            assert torch.equal(one[key], other[key]), key
        for key in ("ori_shape", "resized_shape", "ratio_pad"):
            assert np.array_equal(one[key], other[key]), key


def test_training_makes_the_samples_ultralytics_would_make(squares, tmp_path):
    shutil.copytree(squares.parent, tmp_path / "copy")

    theirs = ultralytics_dataset(
        tmp_path / "copy" / "images" / "train",
        augment=True,
        hyp=get_cfg(overrides={"mosaic": 1.0}),
        cache="ram",  # mosaic then draws from the whole set, as ours always does
        pad=0.0,
    )
    ours = dataset(squares)
    state = np.random.SeedSequence((0, 1, 2)).generate_state(2)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    other, one = theirs[2], ours[draw(1, 2)]
    for key in ("img", "bboxes", "cls"):
        assert torch.equal(one[key], other[key]), key


def test_images_that_do_not_fit_into_memory_are_not_cached(squares, monkeypatch):
    samples = dataset(squares, cache="ram")
    assert samples.cache == "ram"
    assert samples.ram_bytes == sum(samples.ims[i].nbytes for i in range(len(samples)))
    assert not samples.check_cache_ram(0.0)
    assert samples.cache is None
