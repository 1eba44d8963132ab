"""The built-in data set: rings, squares and crosses, told apart by their shape alone.

It is drawn, not shipped: the same bytes each time (with one version of numpy and OpenCV), without
network or fonts. Objects, backgrounds and clutter take their colours from one distribution,
backgrounds are textured, objects are turned and overlap, and three in ten are small (under 32² px),
so that a detector has to learn shapes: one that goes by colour alone reaches mAP50 .07. It is sized
so that YOLO26n learns it from scratch in minutes on two CPU cores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from musgd_cli.data.images import opencv
from musgd_cli.errors import UsageError
from musgd_cli.storage import whole_folder

NAMES = ("ring", "square", "cross")
SIZE = 160
"""Width and height of an image in pixels."""
SPLIT_SIZES = {"train": 512, "val": 96, "test": 192}
"""Images a split."""

DEMO_SETTINGS: dict[str, Any] = {
    "train.imgsz": SIZE,
    "train.epochs": 12,
    "train.batch": 8,
    "train.accumulate": 1,
    "train.mosaic": 0.0,
    "train.translate": 0.05,
    "train.scale": 0.2,
    "optim.name": "musgd",
    "optim.lr": 0.01,
    "optim.lr_final": 0.01,
    "optim.warmup_epochs": 1.0,
}
"""What ``musgd demo`` trains with, on whatever machine.

768 steps of .25 s on one core of an x86 server; memory 1.1 GB. On ``val``, seed 0: mAP50 .989 and
mAP50-95 .807, with 6 epochs .947 and .695 (one thread). What musgd was before, without rowcol,
got .867 and .578 at its lr of .03 (two threads).
"""

_YAML_NAME = "demo.yaml"
_DRAWING = 1
"""Grows when the drawing changes, so that an older set is not taken for this one."""
_SEED = 26
_OBJECTS = (4, 8)
_DIAMETERS = (26.0, 72.0)
"""Of the circle around an object, in pixels, log-uniform: three boxes in ten are small."""
_HIDDEN_SHARE = 0.2
"""How much of an object the later ones may cover."""
_CONTRAST = 110.0
"""Least distance in BGR (0 to 441) between an object's colour and the mean of what it covers."""
_SUPERSAMPLING = 4
_JPEG_QUALITY = 92

Rng = np.random.Generator


def _yaml() -> str:
    names = "\n".join(f"  {class_id}: {name}" for class_id, name in enumerate(NAMES))
    splits = "\n".join(f"{split}: images/{split}" for split in SPLIT_SIZES)
    return f"# Drawn by musgd demo, drawing {_DRAWING}.\n{splits}\nnames:\n{names}\n"


def draw(folder: Path) -> Path:
    """Draw the demo set into ``folder``; one that is there already is kept.

    Returns:
        Its YAML.

    Raises:
        UsageError: ``folder`` holds something else.
        MusgdError: The folder cannot be written.
        UnsupportedError: OpenCV is missing.
    """
    file = folder / _YAML_NAME
    if folder.exists():
        if file.is_file() and file.read_text(encoding="utf-8") == _yaml():
            return file
        if not folder.is_dir() or any(folder.iterdir()):
            raise UsageError(
                f"{folder} exists and is not this version's demo set", f"move {folder} away"
            )
    cv2 = opencv()
    with whole_folder(folder) as temporary:
        for split_number, (split, n_images) in enumerate(SPLIT_SIZES.items()):
            images, labels = temporary / "images" / split, temporary / "labels" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for number in range(n_images):
                rng = np.random.default_rng([_SEED, split_number, number])
                image, rows = _scene(rng)
                _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
                (images / f"{number:04d}.jpg").write_bytes(encoded.tobytes())
                (labels / f"{number:04d}.txt").write_text("".join(rows), encoding="utf-8")
        (temporary / _YAML_NAME).write_text(_yaml(), encoding="utf-8")
    return file


def _scene(rng: Rng) -> tuple[np.ndarray, list[str]]:
    image = _background(rng)
    _clutter(rng, image)
    owner = np.full((SIZE, SIZE), -1)
    """Which object shows at a pixel."""
    areas: list[int] = []
    rows: list[str] = []
    wanted = int(rng.integers(*_OBJECTS, endpoint=True))
    for _ in range(8 * wanted):  # a full image refuses most places
        if len(rows) == wanted:
            break
        class_id = int(rng.integers(len(NAMES)))
        left, top, opacity = _place(rng, _SHAPES[class_id]())
        size = len(opacity)
        window = np.s_[top : top + size, left : left + size]
        solid = opacity > 0.5
        covered = owner[window][solid]
        hidden = np.bincount(covered[covered >= 0], minlength=len(areas))
        shown = np.bincount(owner[owner >= 0], minlength=len(areas)) - hidden
        if (shown < (1 - _HIDDEN_SHARE) * np.array(areas)).any():
            continue
        colour = _contrasting(rng, image[window][solid].mean(axis=0))
        fill = _texture(rng, colour, spread=25, size=size)
        image[window] += opacity[..., None] * (fill - image[window])
        owner[window][solid] = len(areas)
        areas.append(int(solid.sum()))
        rows.append(_row(class_id, left, top, solid))
    image += rng.normal(0, rng.uniform(2, 6), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), rows


def _row(class_id: int, left: int, top: int, solid: np.ndarray) -> str:
    ys, xs = np.nonzero(solid)
    low = np.array([left + xs.min(), top + ys.min()])
    high = np.array([left + xs.max() + 1, top + ys.max() + 1])
    box = np.concatenate(((low + high) / 2, high - low)) / SIZE
    return f"{class_id} {' '.join(f'{value:.6f}' for value in box)}\n"


def _colour(rng: Rng) -> np.ndarray:
    return rng.uniform(0, 255, 3)


def _contrasting(rng: Rng, below: np.ndarray) -> np.ndarray:
    while True:
        colour = _colour(rng)
        if np.linalg.norm(colour - below) >= _CONTRAST:
            return colour


def _background(rng: Rng) -> np.ndarray:
    # Many colours an image. Where one filled it, images differed so much that batch normalisation
    # over 4 of them did not carry over to one: mAP50 .57 with the batch's statistics, .27 without.
    cells = int(rng.integers(3, 6))
    colours = opencv().resize(rng.uniform(0, 255, (cells, cells, 3)), (SIZE, SIZE))
    return _texture(rng, colours, spread=40, size=SIZE)


def _texture(rng: Rng, colour: np.ndarray, spread: float, size: int) -> np.ndarray:
    """Return a square of ``colour`` that shades towards another by a random pattern."""
    cv2 = opencv()
    ys, xs = np.mgrid[0:size, 0:size]
    pattern: np.ndarray
    angle = rng.uniform(0, 2 * np.pi)
    along = xs * np.cos(angle) + ys * np.sin(angle)
    match int(rng.integers(4)):
        case 0:
            pattern = along / SIZE
        case 1:
            pattern = np.sin(along * 2 * np.pi / rng.uniform(10, 50))
        case 2:
            cells = int(np.ceil(size / rng.uniform(7, 40)))
            pattern = cv2.resize(rng.uniform(-1, 1, (cells, cells)), (size, size))
        case _:
            pattern = cv2.GaussianBlur(rng.normal(0, 2, (size, size)), (3, 3), 0)
    return colour + pattern[..., None] * rng.uniform(-spread, spread, 3)


def _clutter(rng: Rng, image: np.ndarray) -> None:
    """Draw lines and arcs that are no objects, in place."""
    cv2 = opencv()
    for _ in range(int(rng.integers(4, 10))):
        start, reach = rng.integers(0, SIZE, 2), rng.integers(-50, 51, 2)
        style = (_colour(rng).tolist(), int(rng.integers(1, 4)), cv2.LINE_AA)
        if rng.random() < 0.6:
            cv2.line(image, start.tolist(), (start + reach).tolist(), *style)
        else:
            radii, tilt, begin = rng.integers(5, 40, 2).tolist(), *rng.uniform(0, 360, 2)
            cv2.ellipse(
                image, start.tolist(), radii, tilt, begin, begin + rng.uniform(30, 120), *style
            )


def _place(rng: Rng, outlines: list[np.ndarray]) -> tuple[int, int, np.ndarray]:
    """Turn and scale a shape, and put it somewhere wholly inside the image.

    Returns:
        Left and top of a square window, and the shape's opacity in it.
    """
    cv2 = opencv()
    radius = np.exp(rng.uniform(*np.log(_DIAMETERS))) / 2
    size = int(np.ceil(2 * radius)) + 2
    left, top = rng.integers(0, SIZE - size, 2, endpoint=True).tolist()
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = size / 2 + rng.uniform(-0.5, 0.5, 2)
    canvas = np.zeros((size * _SUPERSAMPLING, size * _SUPERSAMPLING), np.uint8)
    cv2.fillPoly(
        canvas,
        [
            np.rint((points @ turn.T * radius + centre) * _SUPERSAMPLING).astype(np.int32)
            for points in outlines
        ],
        255,
    )
    opacity = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA) / 255
    return left, top, opacity


def _regular(corners: int, radius: float = 1.0) -> np.ndarray:
    angles = np.arange(corners) * 2 * np.pi / corners
    return radius * np.stack((np.cos(angles), np.sin(angles)), axis=1)


def _ring() -> list[np.ndarray]:
    return [_regular(48), _regular(48, 0.55)]


def _square() -> list[np.ndarray]:
    return [_regular(4)]


def _cross() -> list[np.ndarray]:
    arm = 0.24
    long = np.sqrt(1 - arm**2)
    quarter = np.array([[long, arm], [arm, arm], [arm, long], [-arm, long]])
    corner = np.array([[-arm, arm], [-long, arm], [-long, -arm], [-arm, -arm]])
    last = np.array([[-arm, -long], [arm, -long], [arm, -arm], [long, -arm]])
    return [np.concatenate((quarter, corner, last))]


_SHAPES = (_ring, _square, _cross)
"""Outlines in a circle of radius 1, by class id; a second outline is a hole."""
