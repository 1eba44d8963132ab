from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

MakeSet = Callable[..., Path]


@pytest.fixture
def make_set(tmp_path: Path) -> MakeSet:
    """A function that writes a small sound data set, to be spoilt by the test."""

    def make(folder: str = "set", **changes: object) -> Path:
        root = tmp_path / folder
        rng = np.random.default_rng(0)
        for split, n_images in {"train": 4, "val": 2}.items():
            for number in range(n_images):
                image = root / "images" / split / f"{number}.jpg"
                label = root / "labels" / split / f"{number}.txt"
                image.parent.mkdir(parents=True, exist_ok=True)
                label.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(image), rng.integers(0, 256, (48, 64, 3), np.uint8))
                label.write_text(f"{number % 2} 0.5 0.5 0.25 0.25\n")
        description = {
            "train": "images/train",
            "val": "images/val",
            "names": {0: "cat", 1: "dog"},
            **changes,
        }
        file = root / "set.yaml"
        file.write_text(yaml.safe_dump({k: v for k, v in description.items() if v is not None}))
        return file

    return make
