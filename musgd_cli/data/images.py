"""Image files, decoded to the very pixels that Ultralytics trains and validates on."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np

from musgd_cli.errors import MusgdError
from musgd_cli.installation import ExtraError, pip

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Lower-cased suffixes of the files that count as images."""

# In a scan's entropy-coded bytes 0xFF is followed by a stuffed 0x00 or by a restart marker.
_JPEG_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class DamagedImageError(ValueError):
    """Bytes that are no image, or not a whole one."""


def opencv() -> ModuleType:
    """Return cv2.

    Raises:
        UnsupportedError: It is not installed, or a library it needs is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise ExtraError(
            f"OpenCV, which reads images, cannot be loaded: {error}",
            "onnx",
            pip("install opencv-python-headless"),
        ) from error
    return cv2


def _jpeg_has_end(data: bytes) -> bool:
    """Walk a JPEG's markers up to its end marker.

    Where that is missing some decoders fill the lost part with grey and call it a success. To look
    for the end marker's bytes alone would find those of an embedded thumbnail.
    """
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1 : at + 2]
        if marker == b"\xd9":
            return True
        if marker == b"\xff":  # padding
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == b"\xda":
            following = _JPEG_MARKER_AFTER_SCAN.search(data, at)
            if following is None:
                return False
            at = following.start()
    return False


def decode(data: bytes, suffix: str) -> np.ndarray:
    """Decode an image file's content as Ultralytics' loader does.

    The source of the rules is ``ultralytics/utils/patches.py`` (8.4.190), ``imread``: OpenCV with
    ``IMREAD_COLOR``, which applies EXIF orientation; of a TIFF the first page, its first three
    channels; of 16 bits the high byte.

    Args:
        data: The file's content.
        suffix: The file's, as it decides between the rules.

    Returns:
        ``(height, width, 3)`` uint8, channels in BGR order.

    Raises:
        DamagedImageError: The content is empty, cut short, no image, or of unusual pixels.
        UnsupportedError: OpenCV is missing.
    """
    cv2 = opencv()
    if not data:
        raise DamagedImageError("the file is empty")
    if data.startswith(b"\xff\xd8") and not _jpeg_has_end(data):
        raise DamagedImageError("cut short: a JPEG without its end marker")
    encoded = np.frombuffer(data, np.uint8)
    image: np.ndarray | None = None
    try:
        if suffix.lower() in (".tif", ".tiff"):
            is_read, pages = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED)
            if is_read and pages[0].ndim == 3:
                image = pages[0][..., :3]
        if image is None:
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DamagedImageError(f"OpenCV cannot decode it ({error.err})") from error
    if image is None:
        raise DamagedImageError("OpenCV cannot decode it")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise DamagedImageError(f"pixels are {image.dtype} in {image.shape[2:]} channels")
    return image


def read_image(path: Path) -> np.ndarray:
    """Read an image file; see `decode` for what comes back.

    Raises:
        MusgdError: The file is missing, unreadable, empty, cut short or no image.
        UnsupportedError: OpenCV is missing.
    """
    try:
        return decode(path.read_bytes(), path.suffix)
    except (OSError, DamagedImageError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise MusgdError(
            f"cannot read image {path}: {why}", "replace the image or remove it"
        ) from error
