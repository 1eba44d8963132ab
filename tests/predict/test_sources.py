"""Where frames come from: all of a file, the newest of a camera, and words for what is wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_artifact as tiny

from musgd_cli.errors import ExitCode, MusgdError, UsageError
from musgd_cli.predict import sources
from musgd_cli.predict.containers import is_cut_short
from musgd_cli.predict.sources import (
    Frame,
    LiveStream,
    Source,
    VideoFile,
    open_source,
    without_password,
)

PICTURE = tiny.draw([(0, 0)])


def never() -> bool:
    return False


def drain(source: Source, faults: list[MusgdError] | None = None) -> list[Frame]:
    try:
        return list(source.frames((faults if faults is not None else []).append, never))
    finally:
        source.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("10.png", "9.png", "b.jpg"):
        cv2.imwrite(str(tmp_path / name), tiny.draw([(0, 1)]))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_images_come_in_the_order_people_count_in(folder: Path) -> None:
    source = open_source(str(folder))
    assert [Path(frame.source).name for frame in drain(source)] == ["9.png", "10.png", "b.jpg"]
    assert (source.total, source.fps, source.stem) == (3, None, folder.name)


def test_a_damaged_image_is_told_and_the_others_go_on(folder: Path) -> None:
    (folder / "9.png").write_bytes(b"no picture")
    faults: list[MusgdError] = []
    frames = drain(open_source(str(folder)), faults)
    assert [frame.number for frame in frames] == [1, 2]
    assert ["9.png" in fault.what for fault in faults] == [True]


def test_a_lone_damaged_image_is_an_error(folder: Path) -> None:
    (folder / "9.png").write_bytes(b"no picture")
    with pytest.raises(MusgdError, match=r"9\.png") as caught:
        drain(open_source(str(folder / "9.png")))
    assert caught.value.exit_code is ExitCode.FAILED


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_every_frame_of_a_video_comes_once(suffix: str, make_clip, tmp_path: Path) -> None:
    source = open_source(str(make_clip(tmp_path / f"clip{suffix}", frames=30, fps=20)))
    frames = drain(source)
    assert [frame.number for frame in frames] == list(range(30))
    assert frames[-1].t_s == pytest.approx(29 / 20)
    assert (source.total, source.fps, source.dropped) == (30, 20, 0)
    for i in (0, 17, 29):  # the object is where that frame has it
        difference = frames[i].image.astype(int) - tiny.draw([(i, 0)])
        assert np.abs(difference).mean() < 10


def test_a_video_that_is_cut_short_gives_what_it_has_and_says_so(make_clip, tmp_path: Path) -> None:
    data = make_clip(tmp_path / "whole.avi", frames=100).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    source = open_source(str(tmp_path / "cut.avi"))
    frames = []
    with pytest.raises(MusgdError, match=r"ends after \d+ of 100 frames"):
        frames.extend(source.frames(lambda _: None, never))
    source.close()


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_whole_file_that_counts_wrongly_is_not_called_damaged(
    suffix: str, make_clip, tmp_path: Path
) -> None:
    # As with an edit list, or a count that is estimated: 100 are promised, 30 come.
    clip = make_clip(tmp_path / f"clip{suffix}", frames=30)
    data = bytearray(clip.read_bytes())
    if suffix == ".avi":
        at = data.index(b"strh") + 8 + 32
        data[at : at + 4] = (100).to_bytes(4, "little")
        clip.write_bytes(data)
        assert open_source(str(clip)).total == 100
    assert len(drain(open_source(str(clip)))) == 30
    assert not is_cut_short(clip)
    for kept in (0.5, 0.99):
        clip.write_bytes(data[: int(kept * len(data))])
        assert is_cut_short(clip)


def test_of_a_rate_that_varies_the_container_tells_the_times(make_matroska, tmp_path: Path) -> None:
    times = [0, 33, 66, 100, 900, 933, 60_000]
    clip = make_matroska(tmp_path / "clip.mkv", times)
    source = open_source(str(clip))
    assert source.total is None
    assert [frame.t_s for frame in drain(source)] == pytest.approx([ms / 1000 for ms in times])
    clip.write_bytes(clip.read_bytes()[:-100])
    with pytest.raises(MusgdError, match=r"ends after 6 frames: the file is cut short"):
        drain(open_source(str(clip)))


class Reader:
    """A ``cv2.VideoCapture`` in the state that a device or a file may bring it to."""

    def __init__(self, answers: Iterable[object], **properties: float) -> None:
        self.answers = iter(answers)
        self.properties = properties

    def get(self, key: int) -> float:
        names = {cv2.CAP_PROP_FPS: "fps", cv2.CAP_PROP_FRAME_COUNT: "count"}
        return self.properties.get(names.get(key, ""), 0.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        answer = next(self.answers, False)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer), PICTURE if answer else None

    def release(self) -> None:
        """Nothing is held."""


def test_a_video_without_times_has_them_by_its_rate() -> None:
    frames = drain(VideoFile(Reader([True] * 3, fps=20), "clip", "clip", None))
    assert [frame.t_s for frame in frames] == pytest.approx([0, 0.05, 0.1])


@pytest.mark.parametrize(("told", "fps"), [(1000, 30), (0, 30), (0.1, 1), (59.94, 59.94)])
def test_the_rate_of_the_clip_is_one_that_can_be_played(told: float, fps: float) -> None:
    source = VideoFile(Reader([True], fps=told, count=-9.2e18), "clip", "clip", None)
    assert (source.fps, source.total) == (fps, None)


def test_a_device_that_misses_frames_goes_on() -> None:
    garbled = cv2.error("no JPEG")
    reader = Reader([True, False, False, garbled, True, True])
    camera = LiveStream(reader, "camera 0", "camera-0", "plug it in", patience_s=0.5)
    seen: list[Frame] = []
    with pytest.raises(MusgdError, match="camera 0 is gone after"):
        seen.extend(camera.frames(lambda _: None, never))
    camera.close()
    assert seen[-1].number == 2


def test_what_ends_the_reading_is_not_lost() -> None:
    camera = LiveStream(Reader([True, MemoryError("no room")]), "camera 0", "camera-0", "mend")
    with pytest.raises(MemoryError, match="no room"):
        drain(camera)


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video at all")
    with pytest.raises(MusgdError, match=r"cannot read video .*clip\.mp4") as caught:
        open_source(str(tmp_path / "clip.mp4"))
    assert caught.value.exit_code is ExitCode.FAILED


def test_a_video_ends_where_it_is_asked_to(make_clip, tmp_path: Path) -> None:
    source = open_source(str(make_clip(tmp_path / "clip.avi")))
    answers = iter([False] * 4 + [True])
    assert len(list(source.frames(lambda _: None, lambda: next(answers)))) == 4
    source.close()


@pytest.mark.parametrize(
    ("spec", "what", "mend"),
    [
        ("nowhere.jpg", "nowhere.jpg does not exist", "camera's index"),
        ("empty", "there is no image in empty", "the folders in it: val"),
        ("97", "there is no camera 97", ""),
        ("64", "there is no camera 64", ""),
        ("/dev/video97", "there is no camera 97", ""),
        ("gopher://host/x", "unknown scheme, gopher://", "rtsp://"),
    ],
)
def test_a_source_that_is_not_there(
    spec: str, what: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty/val").mkdir(parents=True)
    cv2.imwrite("empty/val/0.png", tiny.draw([]))
    with pytest.raises(UsageError, match=what) as caught:
        open_source(spec)
    assert mend in caught.value.mend


def test_a_camera_is_never_a_number_of_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*arguments: object) -> None:
        raise AssertionError(f"opened {arguments}")

    monkeypatch.setattr(cv2, "VideoCapture", opened)
    with pytest.raises(UsageError, match="there is no camera 200"):  # 200: V4L2, device 0
        open_source("200")


def test_a_folder_whose_name_is_a_number_wins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "7").mkdir()
    (folder / "10.png").rename(folder / "7/10.png")
    monkeypatch.chdir(folder)
    assert open_source("7").total == 1


def test_a_folder_above_has_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    assert open_source("..").stem == folder.name


def test_nobody_answers_and_the_password_is_not_told() -> None:
    with pytest.raises(MusgdError, match="nobody answers") as caught:
        open_source("rtsp://anna:secret@127.0.0.1:9/stream")
    assert "secret" not in caught.value.what + caught.value.mend
    assert "rtsp://127.0.0.1:9/stream" in caught.value.what


def test_a_url_without_a_password_stays_as_it_is() -> None:
    assert without_password("http://host/a@b?c=d@e") == "http://host/a@b?c=d@e"
    for url in ("rtsp://host:554/s", "rtsp://[::1]:554/s", "http://host/a:b@c", "http://host:80"):
        assert without_password(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://u:HIDDEN@host:554/s",
        "rtsp://u:HID/DEN@host:554/s",
        "rtsp://u:p#HIDDEN@host:554/s",
        "rtsp://u:p@HIDDEN@host:554/s",
        "rtsp://host:554/user=u&password=HIDDEN&channel=1&stream=0.sdp",
        "rtsp://host:554/user=u_password=HIDDEN_channel=1_stream=0.sdp",
        "http://host/cgi?loginuse=u&loginpas=x&pwd=HIDDEN",
        "http://host/video?channel=1&Access_Token=HIDDEN",
    ],
)
def test_no_credential_is_told(url: str) -> None:
    told = without_password(url)
    assert "host" in told
    assert "HID" not in told
    assert "DEN" not in told
    with pytest.raises(MusgdError) as caught:
        open_source(url.replace("host", "127.0.0.1").replace(":554", ":9"))
    assert "HID" not in caught.value.what + caught.value.mend


def test_of_a_camera_the_newest_frame_is_taken_and_the_dropped_are_counted(camera) -> None:
    source = open_source(camera(60, 60))
    assert source.fps is not None
    numbers: list[int] = []
    with pytest.raises(MusgdError, match=r"is gone after \d+ frames") as caught:
        for frame in source.frames(lambda _: None, never):
            numbers.append(frame.number)
            time.sleep(0.15)
    source.close()
    assert "secret" not in caught.value.what
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 20
    assert source.dropped > 20
    assert len(numbers) + source.dropped == numbers[-1] + 1 == 60


def test_a_camera_that_gives_nothing_is_left_when_asked(camera) -> None:
    source = open_source(camera(8, 100, silent=True))
    begin = time.monotonic()
    seen = list(source.frames(lambda _: None, lambda: time.monotonic() > begin + 1))
    source.close()
    assert 0 < len(seen) <= 8
    assert time.monotonic() < begin + 5


def test_a_camera_that_gives_nothing_any_more_is_told(
    camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PATIENCE_S", 1.0)
    source = open_source(camera(8, 100, silent=True))
    begin = time.monotonic()
    with pytest.raises(MusgdError, match=r"has given nothing for 1 s, after \d frame"):
        drain(source)
    assert 1 < time.monotonic() - begin < 5
