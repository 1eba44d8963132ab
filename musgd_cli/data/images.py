"""Image files, decoded to the very pixels that Ultralytics trains and validates on."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np

from musgd_cli.errors import MusgdError, UnsupportedError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Lower-cased suffixes of the files that count as images."""

# In a scan's entropy-coded bytes 0xFF is followed by a stuffed 0x00 or by a restart marker.
_JPEG_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def opencv() -> ModuleType:
    """Return cv2.

    Raises:
        UnsupportedError: It is not installed, or a library it needs is missing.
    """
    try:
        import cv2
    except ImportError as error:
        raise UnsupportedError(
            f"OpenCV, which reads images, cannot be loaded: {error}",
            "pip install 'musgd-cli[onnx]', or pip install opencv-python-headless",
        ) from error
    return cv2


def truncation(data: bytes) -> str | None:
    """Say why an image file is cut short, or return ``None`` if it is whole.

    Decoders fill the missing part of a cut file with grey, or with whatever was in memory, and call
    it a success. Bytes after the end are no fault.
    """
    if data.startswith(b"\xff\xd8"):
        return None if _jpeg_has_end(data) else "cut short: the JPEG has no end marker"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return None if _png_has_end(data) else "cut short: the PNG has no end chunk"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        declared = 8 + int.from_bytes(data[4:8], "little")
        missing = declared - len(data)
        return f"cut short: {missing} of {declared} bytes are missing" if missing > 0 else None
    if data.startswith(b"BM") and len(data) >= 6:
        declared = int.from_bytes(data[2:6], "little")
        missing = declared - len(data)
        return f"cut short: {missing} of {declared} bytes are missing" if missing > 0 else None
    return None


def _jpeg_has_end(data: bytes) -> bool:
    # A search for the end marker alone would find that of an embedded thumbnail.
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xD9:
            return True
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            at += 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xDA:
            found = _JPEG_MARKER_AFTER_SCAN.search(data, at)
            if found is None:
                return False
            at = found.start()
    return data[at : at + 2] == b"\xff\xd9"


def _png_has_end(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4])
    return False


def decode(data: bytes, path: Path) -> np.ndarray:
    """Decode an image file's bytes as Ultralytics' loader does.

    The source of the rules is ``ultralytics/utils/patches.py`` (8.4.190), ``imread``: OpenCV with
    ``IMREAD_COLOR``, which applies EXIF orientation; of a TIFF the first page, its first three
    channels; of 16 bits the high byte.

    Args:
        data: The file's content.
        path: Where it came from: its suffix matters, and errors name it.

    Returns:
        ``(height, width, 3)`` uint8, channels in BGR order.

    Raises:
        MusgdError: The file is empty, cut short or no image.
        UnsupportedError: OpenCV is missing.
    """
    cv2 = opencv()
    damage = "empty" if not data else truncation(data)
    if damage:
        raise _corrupt(path, damage)
    encoded = np.frombuffer(data, np.uint8)
    image: np.ndarray | None = None
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            read, pages = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED)
            if read and pages[0].ndim == 3:
                image = pages[0][..., :3]
        if image is None:
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise _corrupt(path, f"OpenCV cannot decode it: {error.err}") from error
    if image is None:
        raise _corrupt(path, "OpenCV cannot decode it")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise _corrupt(path, f"{image.dtype} pixels of shape {image.shape} are not supported")
    return image


def _corrupt(path: Path, why: str) -> MusgdError:
    return MusgdError(f"cannot read image {path}: {why}", "replace the image or remove it")


def read_image(path: Path) -> np.ndarray:
    """Read an image file; see `decode` for what comes back.

    Raises:
        MusgdError: The file is missing, unreadable, empty, cut short or no image.
        UnsupportedError: OpenCV is missing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _corrupt(path, error.strerror or str(error)) from error
    return decode(data, path)
