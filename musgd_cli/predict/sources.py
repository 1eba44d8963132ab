"""Where frames come from: image files, a video file, or what is live, a camera or a stream."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from time import monotonic, sleep
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from musgd_cli.data.images import SUFFIXES, read_image
from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.predict.containers import is_cut_short
from musgd_cli.runtime.native_stderr import quiet_native_code

STREAMS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
"""Schemes of the URLs that are opened."""

PATIENCE_S = 10.0
"""How long a live source may give nothing before it counts as gone."""

LIVE_FPS = 30.0
"""Of the clip of a source that does not tell its rate, and the most of a live one that does."""

MOST_FPS = 240.0
"""Above this a video's rate is the unit its times are counted in: WebM has 1000."""

LONGEST_STEP_S = 24 * 3600.0
"""From one frame of a video to the next; more is a damaged clock."""

MOST_CAMERAS = 64
"""Linux has no /dev/video64; OpenCV takes an index above 99 for the number of a driver."""

OnFault = Callable[[MusgdError], None]
Stop = Callable[[], bool]

# FFmpeg prints by itself what it thinks of every packet; read when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


@dataclass(frozen=True)
class Frame:
    """One image on its way to the detector.

    Args:
        image: (height, width, 3) BGR.
        source: Its file, or what it was taken from.
        number: From 0, in its folder, video or stream; of a stream those dropped count.
        t_s: Seconds since the first frame; ``None`` for an image.
    """

    image: NDArray[np.uint8]
    source: str
    number: int
    t_s: float | None


class Source(Protocol):
    """Frames, one after the other."""

    name: str
    """As it is told to people: no password in it."""
    stem: str
    """What its outputs are named after."""
    folder: Path | None
    """Where its files lie; nothing is written there."""
    total: int | None
    """Frames to come, where that is known."""
    fps: float | None
    """Of a clip made of it; ``None``: single pictures."""
    dropped: int
    """Frames that came while an earlier one was worked on, so far."""

    def frames(self, on_fault: OnFault, stop: Stop) -> Iterator[Frame]:
        """Yield frames, once.

        Args:
            on_fault: Told of an image that cannot be read where others follow.
            stop: Asked before each frame, and while none comes, whether to end here.

        Raises:
            MusgdError: A lone image cannot be read, a video is cut short, a live source is gone.
        """
        ...

    def close(self) -> None:
        """Let go of the file or device."""
        ...


def open_source(spec: str) -> Source:
    """Open what a person typed: an image, a folder, a video, a camera's index or a URL.

    Raises:
        UsageError: It names nothing that is there, or a folder without images.
        MusgdError: It is there and cannot be opened.
    """
    # A frame that cannot be decoded or written is ours to tell, in words.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    camera = re.fullmatch(r"(/dev/video)?([0-9]+)", spec)
    if camera and (camera[1] or not Path(spec).exists()):
        return _camera(int(camera[2]))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", spec)
    if scheme:
        return _stream(spec, scheme[1].lower())
    path = Path(spec)
    if path.is_dir():
        return ImageFiles(_images_in(path), str(path), path)
    if not path.exists():
        raise UsageError(
            f"{spec} does not exist",
            "give an image, a folder of images, a video, a camera's index (0) or rtsp://…",
        )
    if path.suffix.lower() in SUFFIXES:
        return ImageFiles((path,), str(path), path.parent)
    return _video(path)


# --------------------------------------------------------------------------------------- images


def _images_in(folder: Path) -> tuple[Path, ...]:
    def by_number(path: Path) -> list[str | int]:
        parts = re.split(r"(\d+)", path.name)  # text and number in turns
        return [int(part) if at % 2 else part for at, part in enumerate(parts)]

    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise UsageError(
            f"cannot read {folder}: {error.strerror}", "check its permissions"
        ) from error
    found = sorted(
        (path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()),
        key=by_number,
    )
    if not found:
        below = sorted(
            path.parent.name for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES
        )
        raise UsageError(
            f"there is no image in {folder}",
            f"give one of the folders in it: {', '.join(dict.fromkeys(below))}"
            if below
            else f"give a folder of {', '.join(sorted(SUFFIXES))} files",
        )
    return tuple(found)


class ImageFiles:
    """Image files, as Ultralytics decodes them. One that is damaged leaves the others."""

    fps: float | None = None
    dropped = 0

    def __init__(self, paths: tuple[Path, ...], name: str, folder: Path) -> None:
        self._paths = paths
        self.name = name
        self.folder: Path | None = folder
        self.stem = paths[0].stem if len(paths) == 1 else folder.resolve().name or "images"
        self.total: int | None = len(paths)

    def frames(self, on_fault: OnFault, stop: Stop) -> Iterator[Frame]:
        """See `Source.frames`."""
        for number, path in enumerate(self._paths):
            if stop():
                return
            try:
                image = read_image(path)
            except MusgdError as error:
                if len(self._paths) == 1:
                    raise
                on_fault(error)
                continue
            yield Frame(image, str(path), number, None)

    def close(self) -> None:
        """Nothing is held open."""


# ---------------------------------------------------------------------------------------- video


def _open(where: str | int, *options: Any) -> Any:
    """Return an opened ``cv2.VideoCapture``, or ``None``. OpenCV writes its reasons to stderr."""
    with quiet_native_code():
        capture = cv2.VideoCapture(where, *options)
    if capture.isOpened():
        return capture
    capture.release()
    return None


def _number(capture: Any, key: int) -> float | None:
    value: float = capture.get(key)
    return value if 0 < value < 1e9 else None


def _clip_fps(told: float | None) -> float:
    return LIVE_FPS if told is None or told > MOST_FPS else max(told, 1.0)


def _video(path: Path) -> VideoFile:
    if not os.access(path, os.R_OK):
        raise UsageError(f"cannot read {path}", "check its permissions")
    capture = _open(str(path), cv2.CAP_FFMPEG)
    if capture is None:
        raise MusgdError(
            f"cannot read video {path}: OpenCV finds none in it, or lacks its codec",
            f"ffprobe {quote(str(path))} tells what it is; convert it with ffmpeg",
        )
    return VideoFile(capture, str(path), path.stem, path)


class VideoFile:
    """Every frame of a video, in order, upright.

    Args:
        capture: An open ``cv2.VideoCapture``.
        name: See `Source`.
        stem: See `Source`.
        path: Its file; ``None``: it comes over a network.
    """

    dropped = 0

    def __init__(self, capture: Any, name: str, stem: str, path: Path | None) -> None:
        self.name = name
        self.stem = stem
        self.folder = None if path is None else path.parent
        told = _number(capture, cv2.CAP_PROP_FPS)
        self.fps: float | None = _clip_fps(told)
        count = _number(capture, cv2.CAP_PROP_FRAME_COUNT)
        # Where it is an estimate, from the duration and such a rate, it is none.
        is_told = count is not None and told is not None and told <= MOST_FPS
        self.total: int | None = round(count) if count is not None and is_told else None
        self._capture = capture
        self._path = path

    def frames(self, on_fault: OnFault, stop: Stop) -> Iterator[Frame]:  # noqa: ARG002
        """See `Source.frames`."""
        number, t_s, begin_ms = 0, 0.0, 0.0
        step = 1 / (self.fps or LIVE_FPS)
        while not stop():
            is_read, image = self._capture.read()
            if not is_read:
                self._require_whole(number)
                return
            # Of a frame rate that varies only the container knows when a frame is due.
            now_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)
            if number == 0:
                begin_ms = now_ms
            else:
                told = (now_ms - begin_ms) / 1000
                t_s = told if t_s < told < t_s + LONGEST_STEP_S else t_s + step
            yield Frame(image, self.name, number, t_s)
            number += 1

    def _require_whole(self, read: int) -> None:
        mend = f"copy it once more, or ffmpeg -i {quote(self.name)} -c:v libx264 mended.mp4"
        if read == 0:
            raise MusgdError(f"no frame of {self.name} can be decoded", mend)
        if self.total is not None and read >= self.total:
            return
        told = f"{self.name} ends after {read}{f' of {self.total}' if self.total else ''} frames"
        if self._path is not None:
            if is_cut_short(self._path):
                raise MusgdError(f"{told}: the file is cut short", mend)
        # Of many containers it is an estimate from the duration.
        elif self.total is not None and read < 0.9 * self.total:
            raise MusgdError(f"{told}: the sender hung up", "run it again, or download it first")

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


# ----------------------------------------------------------------------------------------- live


def _camera(index: int) -> LiveStream:
    capture = _open(index) if index < MOST_CAMERAS else None
    if capture is not None:
        # Where the driver lets one choose, nothing waits in its queue.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        mend = "see that it is plugged in"
        return LiveStream(
            capture, f"camera {index}", f"camera-{index}", mend, patience_s=PATIENCE_S
        )
    device = Path(f"/dev/video{index}")
    if device.exists():
        if not os.access(device, os.R_OK | os.W_OK):
            raise MusgdError(
                f"camera {index} may not be opened by this user",
                "sudo usermod -aG video $USER, then log in anew",
            )
        raise MusgdError(
            f"camera {index} gives no picture: another program holds it, or it is no camera",
            f"fuser {device} tells who; v4l2-ctl --list-devices what it is",
        )
    there = sorted(
        (path.name.removeprefix("video") for path in Path("/dev").glob("video*")), key=len
    )
    raise UsageError(
        f"there is no camera {index}",
        f"cameras here: {', '.join(there)}"
        if there
        else "ls /dev/video* is empty: plug one in, or hand it to the container with --device",
    )


_SECRETS = re.compile(
    r"((?:user(?:name)?|usr|login|pass(?:word|wd)?|pwd|auth|key|secret|sig(?:nature)?|token)=)"
    r"[^&;/?#]*",
    re.IGNORECASE,
)


def without_password(url: str) -> str:
    """Return a URL without what lets one in.

    That is the user and password before its host, and what cameras of many makers want in the path
    or the query instead, as in ``rtsp://host/user=admin&password=…``.
    """
    # A password with a # or / in it should have been quoted, and often is not: up to the last @,
    # unless a port stands where its beginning would.
    url = re.sub(r"(?<=://)(?:[^/?#]*@|[^/?#:@\[]*:(?!\d*(?:[/?#]|$)).*@)", "", url)
    return _SECRETS.sub(r"\1***", url)


def _stream(url: str, scheme: str) -> LiveStream | VideoFile:
    name = without_password(url)
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", name.partition("://")[2]).strip("-.")[:60] or "stream"
    if scheme not in STREAMS:
        raise UsageError(
            f"{name} has an unknown scheme, {scheme}://",
            f"one of {', '.join(known + '://' for known in STREAMS)}; a file by its path alone",
        )
    wait_ms = round(PATIENCE_S * 1000)
    # The frame that does not come is missed here first, where it has words.
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait_ms]
    limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait_ms + 1000]
    capture = _open(url, cv2.CAP_FFMPEG, limits)
    if capture is None:
        raise MusgdError(
            f"cannot open {name}: nobody answers, or it is no video",
            f"try it elsewhere: ffprobe {quote(name)}",
        )
    if scheme.startswith("http") and _number(capture, cv2.CAP_PROP_FRAME_COUNT):
        return VideoFile(capture, name, stem, None)
    return LiveStream(capture, name, stem, "see that the sender runs and the network is up")


RETRY_S = 0.05
"""Between a reading that failed and the next."""


def _frames(n: int) -> str:
    return "1 frame" if n == 1 else f"{n} frames"


class LiveStream:
    """The newest frame of a camera or a stream; those that come meanwhile are dropped.

    A thread reads all the time, as a driver's or a network's queue would otherwise hand out frames
    that are seconds old.

    Args:
        capture: An open ``cv2.VideoCapture``.
        name: See `Source`.
        stem: See `Source`.
        mend: What to do when it is gone.
        patience_s: How long readings may fail one after the other. A device misses a frame now
            and then; a connection that ended stays so.
    """

    folder: Path | None = None
    total: int | None = None

    def __init__(
        self, capture: Any, name: str, stem: str, mend: str, *, patience_s: float = 0.0
    ) -> None:
        self.name = name
        self.stem = stem
        self.dropped = 0
        fps = _clip_fps(_number(capture, cv2.CAP_PROP_FPS))
        self.fps: float | None = min(fps, LIVE_FPS)
        self._capture = capture
        self._mend = mend
        self._patience_s = patience_s
        self._news = threading.Condition()
        self._newest: Frame | None = None
        self._ended = self._closed = False
        self._error: Exception | None = None
        self._reader = threading.Thread(target=self._read_on, name=name, daemon=True)

    def _read_on(self) -> None:
        try:
            self._read_all()
        except Exception as error:  # ends a thread unseen: `frames` raises it
            self._error = error
        with self._news:
            self._ended = True
            self._news.notify()

    def _read_all(self) -> None:
        begin: float | None = None
        last = monotonic()
        number = 0
        while not self._closed:
            is_read, image = self._read()
            now = monotonic()
            if not is_read:
                if now - last >= self._patience_s:
                    return
                sleep(RETRY_S)
                continue
            last = now
            begin = now if begin is None else begin
            with self._news:
                self.dropped += self._newest is not None
                self._newest = Frame(image, self.name, number, now - begin)
                self._news.notify()
            number += 1

    def _read(self) -> tuple[bool, Any]:
        try:
            is_read, image = self._capture.read()
        except cv2.error:  # a picture that was garbled on its way
            return False, None
        return is_read, image

    def frames(self, on_fault: OnFault, stop: Stop) -> Iterator[Frame]:  # noqa: ARG002
        """See `Source.frames`."""
        self._reader.start()
        last, seen = monotonic(), 0
        while not stop():
            with self._news:
                if self._newest is None and not self._ended:
                    self._news.wait(0.1)  # not longer: `stop` may come true meanwhile
                frame, self._newest = self._newest, None
            if frame is not None:
                yield frame
                last, seen = monotonic(), seen + 1
            elif self._error is not None:
                raise self._error
            elif self._ended:
                raise MusgdError(f"{self.name} is gone after {_frames(seen)}", self._mend)
            elif monotonic() - last > PATIENCE_S:
                raise MusgdError(
                    f"{self.name} has given nothing for {PATIENCE_S:.0f} s, after {_frames(seen)}",
                    self._mend,
                )

    def close(self) -> None:
        """End the reading and let go of the device."""
        self._closed = True
        if self._reader.ident is not None:
            self._reader.join(timeout=1.0)
        if not self._reader.is_alive():  # to release what is being read from would crash
            self._capture.release()
