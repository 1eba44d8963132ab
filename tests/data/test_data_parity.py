"""What we read is what Ultralytics reads, to the bit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from musgd_cli.data import labels
from musgd_cli.data.dataset import label_file
from musgd_cli.data.images import read_image

pytest.importorskip("ultralytics")

from musgd_cli.train import sandbox

sandbox.prepare()

from ultralytics.data.utils import img2label_paths, verify_image_label  # noqa: E402
from ultralytics.utils.patches import imread  # noqa: E402

rng = np.random.default_rng(0)
COLOUR = rng.integers(0, 256, (24, 32, 3), np.uint8)
DEEP = rng.integers(0, 65536, (24, 32, 3), np.uint16)


def exif_turned(file: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(COLOUR).save(file, exif=exif)


IMAGES = {
    "plain.jpg": lambda file: Image.fromarray(COLOUR).save(file),
    "grey.jpg": lambda file: Image.fromarray(COLOUR[..., 0]).save(file),
    "cmyk.jpg": lambda file: Image.fromarray(COLOUR).convert("CMYK").save(file),
    "turned.jpg": lambda file: exif_turned(file, 6),
    "mirrored.jpeg": lambda file: exif_turned(file, 7),
    "turned.png": lambda file: exif_turned(file, 8),
    "turned.webp": lambda file: exif_turned(file, 6),
    "turned.tif": lambda file: exif_turned(file, 6),
    "alpha.png": lambda file: Image.fromarray(COLOUR).convert("RGBA").save(file),
    "palette.png": lambda file: Image.fromarray(COLOUR).quantize(16).save(file),
    "deep.png": lambda file: cv2.imwrite(str(file), DEEP),
    "deep.tif": lambda file: cv2.imwrite(str(file), DEEP),
    "grey.tif": lambda file: cv2.imwrite(str(file), DEEP[..., 0]),
    "alpha.tiff": lambda file: Image.fromarray(COLOUR).convert("RGBA").save(file),
    "pages.tif": lambda file: Image.fromarray(COLOUR).save(
        file, save_all=True, append_images=[Image.fromarray(COLOUR[::-1])]
    ),
    "plain.bmp": lambda file: Image.fromarray(COLOUR).save(file),
}


@pytest.mark.parametrize("name", IMAGES)
def test_pixels(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    IMAGES[name](file)
    np.testing.assert_array_equal(read_image(file), imread(file, cv2.IMREAD_COLOR))


LABELS = [
    "0 0.5 0.5 0.25 0.25\n1 .1 .2 .05 .07\n",
    "1 0.1 0.1 0.9 0.1 0.5 0.8\n0 .1 .1 .2 .2 .3 .3 .1 .4\n",
    "0 1.009 0.5 0.2 0.2\n",
    "0 -0.009 0.5 0.2 0.2\n",
    "0 0.5 0.5 0.1 0.1\n\n0 0.5 0.5 0.1 0.1\n",
    "",
    "2 0.5 0.5 0.1 0.1\n",
    "0 1.02 0.5 0.1 0.1\n",
    "0 0.5 0.5 0.1\n",
    "0 0.5 0.5 0.1 0.1 0.9\n",
    "0 0.5 0.5 0.1 0.1\n0 .2 .2 .4 .2 .4 .4\n",
    "0.5 0.5 0.5 0.1 0.1\n",
    "cat 0.5 0.5 0.1 0.1\n",
]


@pytest.mark.parametrize("text", LABELS)
def test_labels(tmp_path: Path, text: str) -> None:
    image, label = tmp_path / "0.jpg", tmp_path / "0.txt"
    cv2.imwrite(str(image), COLOUR)
    label.write_text(text)
    _, theirs, *_ = verify_image_label((str(image), str(label), "", False, 2, 0, 0, False))
    ours = labels.read(label, n_classes=2)
    assert (theirs is None) == any(fault.is_error for fault in ours.faults)
    if theirs is not None:
        np.testing.assert_allclose(ours.boxes, theirs, atol=1e-7)


@pytest.mark.parametrize("image", ["/a/images/b/images/c.d.jpg", "/a/b/c.png", "/images/x.jpg"])
def test_places(image: str) -> None:
    assert [str(label_file(Path(image)))] == img2label_paths([image])
