"""Annotated pictures and clips on disk: whole or absent, and never in the place of another."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.installation import pip
from musgd_cli.predict.places import new_file, new_folder
from musgd_cli.predict.sources import Frame, Source
from musgd_cli.runtime.native_stderr import quiet_native_code
from musgd_cli.storage import require_writable, whole_file, write_failed

CODECS = (("mp4v", ".mp4"), ("MJPG", ".avi"))
"""Tried in this order; the second is part of every OpenCV."""

RESERVE = 32 * 2**20
"""Bytes: with less of the disk free a clip ends, while its index still finds room."""

LOOK_EVERY_S = 1.0

GAP_S = 10.0
"""The longest silence of a live source that stays as long in its clip."""


def require_apart(out: Path, source: Source) -> None:
    """Refuse to write where the source lies.

    Raises:
        UsageError: ``out`` is the folder of the source, or of its file.
    """
    if source.folder is not None and out.resolve() == source.folder.resolve():
        raise UsageError(
            f"{out} is where {source.name} lies; nothing is written beside what was given",
            "choose another --out",
        )


class Output:
    """Where the annotated frames of one source go; the folder is made with the first.

    Args:
        folder: For the files.
        source: Single pictures keep their names, all else becomes one clip.
        anew: Take no folder that is there: ``folder-2``, … is made instead, for this output alone.

    Raises:
        UsageError: The folder is that of the source.
        MusgdError: It cannot be written to.
    """

    def __init__(self, folder: Path, source: Source, *, anew: bool = False) -> None:
        if anew:
            require_writable(folder.parent)
        else:
            require_apart(folder, source)
            require_writable(folder)
        self.folder = folder
        self.saved: Path | None = None
        """The last file that was written."""
        self._anew = anew
        self._made = False
        self._clip = None if source.fps is None else _Clip(source.stem, source.fps)

    def _make_folder(self) -> None:
        try:
            if self._anew:
                self.folder = new_folder(self.folder)
            else:
                self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_failed(self.folder, error) from error
        self._made = True

    def add(self, frame: Frame, picture: NDArray[np.uint8]) -> None:
        """Save an annotated frame.

        Raises:
            MusgdError: It could not be written.
        """
        if not self._made:
            self._make_folder()
        if self._clip is not None:
            self._clip.add(self.folder, picture, frame.t_s or 0.0)
            return
        name = Path(frame.source)
        is_encoded, data = cv2.imencode(name.suffix, picture)
        if not is_encoded:
            raise MusgdError(
                f"OpenCV cannot write {name.suffix} pictures", "--no-save, with --json"
            )
        with _free_file(self.folder, name.stem, name.suffix) as path, whole_file(path) as temporary:
            temporary.write_bytes(data.tobytes())
        self.saved = path

    def close(self) -> None:
        """Finish a clip.

        Raises:
            MusgdError: The disk did not take all of it.
        """
        if self._clip is not None:
            self.saved = self._clip.close()


@contextmanager
def _free_file(folder: Path, stem: str, *suffixes: str) -> Iterator[Path]:
    """Give a path that is ours to replace; if the block raises, it is free again."""
    try:
        path = new_file(folder, stem, *suffixes)
    except OSError as error:
        raise write_failed(folder / (stem + suffixes[0]), error) from error
    try:
        yield path
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # it may be gone, or its disk
        path.unlink()


class _Clip:
    """A video of constant rate; a frame of a live source stands until the next."""

    def __init__(self, stem: str, fps: float) -> None:
        self._stem = stem
        self._fps = fps
        self._writer: Any = None
        self._looked = -LOOK_EVERY_S
        self._left_out = 0
        """Places of silences beyond `GAP_S`, so far."""

    def _open(self, folder: Path, width: int, height: int) -> None:
        self._folder = folder
        for codec, suffix in CODECS:
            self._path = folder / (self._stem + suffix)
            # OpenCV tells the container by the suffix. Others may write into this folder too.
            self._temporary = folder / f".clip-{secrets.token_hex(4)}{suffix}"
            with quiet_native_code():
                self._writer = cv2.VideoWriter(
                    str(self._temporary),
                    cv2.VideoWriter.fourcc(*codec),
                    self._fps,
                    (width, height),
                )
            if self._writer.isOpened():
                self._size = (width, height)
                self._last = np.zeros((height, width, 3), np.uint8)
                self._n = 0
                return
            self._writer.release()
            _remove(self._temporary)
        self._writer = None
        raise MusgdError(
            f"OpenCV cannot write a video into {folder}: no codec of "
            f"{', '.join(codec for codec, _ in CODECS)}, or no room",
            f"{pip('install --force-reinstall opencv-python-headless')}, or add --no-save",
        )

    def add(self, folder: Path, picture: NDArray[np.uint8], t_s: float) -> None:
        height, width = picture.shape[:2]
        if self._writer is None:
            self._open(folder, width, height)
        self._look_at_the_disk()
        if (width, height) != self._size:  # OpenCV would drop it without a word
            picture = cv2.resize(picture, self._size)
        place = round(t_s * self._fps) - self._left_out
        too_long = max(0, place - self._n - round(GAP_S * self._fps))
        self._left_out += too_long
        place -= too_long
        for _ in range(place - self._n):
            self._writer.write(self._last)
            self._n += 1
        self._last = picture
        if self._n <= place:  # of two in one place the second waits to fill a gap
            self._writer.write(picture)
            self._n += 1

    def _look_at_the_disk(self) -> None:
        now = monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError as error:  # the stick was pulled out
            raise write_failed(self._path, error) from error
        if free < RESERVE:
            raise write_failed(self._path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def close(self) -> Path | None:
        if self._writer is None:
            return None
        try:
            return self._finish()
        finally:  # whatever ends this, a second Ctrl-C too, leaves the clip or nothing
            _remove(self._temporary)

    def _finish(self) -> Path:
        with quiet_native_code():
            self._writer.release()
            self._writer = None
            # It tells of no failure itself: a full disk makes a short file, or one without index.
            capture = cv2.VideoCapture(str(self._temporary))
            n = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
            capture.release()
        if n <= 0:
            raise MusgdError(
                f"cannot write {self._path}: the disk did not take the video, which is lost",
                "free some disk space, or choose another --out",
            )
        suffix = self._path.suffix
        suffixes = (suffix, *(other for _, other in CODECS if other != suffix))
        with _free_file(self._folder, self._stem, *suffixes) as path:
            try:
                self._temporary.replace(path)
            except OSError as error:
                raise write_failed(path, error) from error
        if n < self._n:
            raise MusgdError(
                f"{path} holds {n} of {self._n} frames: the disk did not take more",
                "free some disk space, or choose another --out",
            )
        return path
