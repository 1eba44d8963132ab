"""A data set as Ultralytics trains on it, read by our data room and random in a repeatable way.

What a sample looks like depends on the seed, the epoch and the image's index alone: not on how many
processes load images, nor on what was loaded before, nor on whether the run was interrupted.

Import after `sandbox.prepare`.
"""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Sampler
from ultralytics.data.augment import Albumentations, Compose, Mosaic
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import exif_size

from musgd_cli.data.dataset import DataSet
from musgd_cli.data.images import opencv, read_image
from musgd_cli.errors import MusgdError
from musgd_cli.hardware import usable_cores

RAM_SHARE = 0.5
"""Of the memory that is free, how much decoded images may take."""


class Draw(NamedTuple):
    """One sample to make: which image, in which epoch."""

    epoch: int
    """From 0."""
    image: int


class EpochSampler(Sampler[Draw]):
    """Every image once an epoch, in an order that only the seed and the epoch decide."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return (Draw(self.epoch, int(image)) for image in order)


class RunDataset(YOLODataset):  # type: ignore[misc]  # Ultralytics has no types
    """One split of a `DataSet`.

    Args:
        source: The data set, read by the data room: no label cache is opened or written, no image
            is mended in place.
        split: The split to load.
        seed: Decides every augmentation, together with epoch and index.
        plain_from: The first epoch (from 0) that trains without mosaic.
        options: What `YOLODataset` takes.
    """

    ims: Any
    im_hw0: list[Any]
    im_hw: list[Any]

    def __init__(
        self, source: DataSet, split: str, *, seed: int, plain_from: int, **options: Any
    ) -> None:
        self.source = source
        self.split = split
        self.seed = seed
        self.plain_from = plain_from
        self.ram_bytes = 0
        super().__init__(img_path=split, **options)
        if self.augment:
            plain = copy(options["hyp"])
            plain.mosaic = 0.0
            self.plain_transforms = self.build_transforms(plain)

    def get_img_files(self, img_path: str) -> list[str]:
        """Return the split's images."""
        return [str(image) for image in self.source.images(img_path)]

    def get_labels(self) -> list[dict[str, Any]]:
        """Return the labels in Ultralytics' form, with each image's height and width."""
        return [self._label(Path(file)) for file in self.im_files]

    def _label(self, image: Path) -> dict[str, Any]:
        boxes = self.source.labels(image)
        height, width = _size(image)
        self.ram_bytes += 3 * math.prod(self._fitted(height, width))
        return {
            "im_file": str(image),
            "shape": (height, width),
            "cls": boxes[:, :1],
            "bboxes": boxes[:, 1:],
            "segments": [],
            "keypoints": None,
            "normalized": True,
            "bbox_format": "xywh",
        }

    def check_cache_ram(self, safety_margin: float = RAM_SHARE) -> bool:
        """Say whether the decoded images fit into ``safety_margin`` of the free memory."""
        fits = self.ram_bytes < safety_margin * psutil.virtual_memory().available
        if not fits:
            self.cache = None
        return fits

    def cache_images(self) -> None:
        """Decode every image into memory; Ultralytics' draws a bar on stdout."""
        with ThreadPool(usable_cores()) as pool:  # decoding releases the interpreter's lock
            for i, loaded in enumerate(pool.imap(self.load_image, range(self.ni))):
                self.ims[i], self.im_hw0[i], self.im_hw[i] = loaded
        self.ims = self._ImageCache(self.ims)

    def load_image(
        self,
        i: int,
        rect_mode: bool = True,  # noqa: ARG002
        resize_short: bool = False,  # noqa: ARG002
    ) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
        """Return image ``i`` with its longer side at ``imgsz``, its original and its new size.

        Unlike Ultralytics', it opens no ``.npy`` beside the images and keeps no history of them.
        """
        if self.ims[i] is not None:
            return self.ims[i], self.im_hw0[i], self.im_hw[i]
        cv2 = opencv()
        image = read_image(Path(self.im_files[i]))
        height, width = image.shape[:2]
        fitted = self._fitted(height, width)
        if fitted != (height, width):
            image = cv2.resize(image, fitted[::-1], interpolation=cv2.INTER_LINEAR)
        return image, (height, width), fitted

    def _fitted(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width with the longer side at ``imgsz``, as Ultralytics rounds them."""
        ratio = self.imgsz / max(height, width)
        new_height, new_width = (
            min(math.ceil(side * ratio), self.imgsz) for side in (height, width)
        )
        return new_height, new_width

    def build_transforms(self, hyp: Any) -> Compose:
        """Build Ultralytics' transforms, less those that depend on the machine or on history."""
        transforms = super().build_transforms(hyp)
        # Active wherever the package albumentations happens to be installed.
        transforms.transforms = [
            step for step in transforms.transforms if not isinstance(step, Albumentations)
        ]
        for step in transforms.transforms:
            for part in getattr(step, "transforms", ()):
                if isinstance(part, Mosaic):
                    part.buffer_enabled = False  # partners from the whole set, not the last loaded
        return transforms

    def __getitem__(self, draw: int | Draw) -> Any:
        """Return the sample that ``draw`` names; validation asks by index alone."""
        if not isinstance(draw, Draw):
            return self.transforms(self.get_image_and_label(draw))
        transforms = self.plain_transforms if draw.epoch >= self.plain_from else self.transforms
        with _seeded(self.seed, *draw):
            return transforms(self.get_image_and_label(draw.image))


def _size(image: Path) -> tuple[int, int]:
    """Return height and width as decoded, EXIF orientation included, from the file's header."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image) as opened:
            width, height = exif_size(opened)
    except (OSError, UnidentifiedImageError):
        # Rare formats that OpenCV reads and Pillow does not; a corrupt file raises here.
        height, width = read_image(image).shape[:2]
    if min(height, width) < 1:
        raise MusgdError(f"image {image} is empty", "replace the image or remove it")
    return height, width


@contextmanager
def _seeded(*key: int) -> Iterator[None]:
    """Seed the generators that augmentations draw from; leave them as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    state = np.random.SeedSequence(key).generate_state(2)
    random.seed(int(state[0]))
    np.random.seed(state[1])  # Ultralytics draws from the global generator
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def loader(
    dataset: RunDataset, batch: int, *, workers: int, seed: int, shuffle: bool, pin_memory: bool
) -> DataLoader[Any]:
    """Return batches of ``dataset``: shuffled anew each epoch, or in order for validation."""
    batch = min(batch, len(dataset))
    # One batch is loaded sooner by this process than by one that has yet to start.
    workers = min(workers, 0 if len(dataset) <= batch else workers)
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=EpochSampler(len(dataset), seed) if shuffle else None,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=(4 if shuffle else 2) if workers > 0 else None,
        pin_memory=pin_memory,
        collate_fn=dataset.collate_fn,
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # else each epoch draws from the one that initialises weights
    )


def _ignore_interrupt(worker: int) -> None:  # noqa: ARG001
    # Ctrl-C reaches the whole process group; the trainer decides when loading ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
