from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from musgd_cli.data.images import read_image
from musgd_cli.errors import ExitCode, MusgdError

SCENE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def encode(suffix: str, image: np.ndarray = SCENE) -> bytes:
    is_written, content = cv2.imencode(suffix, image)
    assert is_written
    return content.tobytes()


def jpeg_with_thumbnail() -> bytes:
    """A JPEG whose EXIF segment holds a whole JPEG of its own, end marker and all."""
    thumbnail = b"Exif\0\0" + encode(".jpg", SCENE[:8, :8])
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    content = encode(".jpg")
    return content[:2] + segment + content[2:]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_pixels_come_back_in_bgr(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(encode(suffix))
    np.testing.assert_array_equal(read_image(file), SCENE)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    content = encode(suffix)
    file = tmp_path / f"cut{suffix}"
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MusgdError, match=f"cut{suffix}") as caught:
        read_image(file)
    assert caught.value.exit_code == ExitCode.FAILED


@pytest.mark.parametrize("lost", [1, 2, 40])
def test_a_jpeg_is_whole_only_up_to_its_own_end_marker(tmp_path: Path, lost: int) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(jpeg_with_thumbnail()[:-lost])
    with pytest.raises(MusgdError, match="end marker"):
        read_image(file)


@pytest.mark.parametrize(
    "options",
    [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]],
    ids=["baseline", "progressive", "restart markers"],
)
def test_every_kind_of_jpeg_is_read(tmp_path: Path, options: list[int]) -> None:
    _, content = cv2.imencode(".jpg", SCENE, options)
    file = tmp_path / "a.jpg"
    file.write_bytes(content.tobytes())
    assert read_image(file).shape == SCENE.shape


@pytest.mark.parametrize("content", [encode(".jpg") + b"\0trailer", jpeg_with_thumbnail()])
def test_what_surrounds_the_picture_is_no_fault(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    assert read_image(file).shape == SCENE.shape


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MusgdError, match=r"none\.jpg: No such file"):
        read_image(tmp_path / "none.jpg")


def test_without_opencv_the_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['cv2'] = None\n"
        "from musgd_cli.data.images import opencv\n"
        "from musgd_cli.errors import UnsupportedError\n"
        "try: opencv()\n"
        "except UnsupportedError as error: print(int(error.exit_code), error.mend)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("3 ")
    assert done.stdout.endswith("pip install opencv-python-headless\n")
