"""Where frames come from: all of a file, the newest of a camera, and words for what is wrong."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_artifact as tiny

from musgd_cli.errors import ExitCode, MusgdError, UsageError
from musgd_cli.predict.sources import Frame, Source, open_source, without_password


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


def test_nobody_answers_and_the_password_is_not_told() -> None:
    with pytest.raises(MusgdError, match="nobody answers") as caught:
        open_source("rtsp://anna:secret@127.0.0.1:9/stream")
    assert "secret" not in caught.value.what + caught.value.mend
    assert "rtsp://127.0.0.1:9/stream" in caught.value.what


def test_a_url_without_a_password_stays_as_it_is() -> None:
    assert without_password("http://host/a@b?c=d@e") == "http://host/a@b?c=d@e"
    assert without_password("rtsp://u:p@host:554/s") == "rtsp://host:554/s"


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
    source = open_source(camera(1000, 5))
    begin = time.monotonic()
    for _ in source.frames(lambda _: None, lambda: time.monotonic() > begin + 1):
        pass
    source.close()
    assert time.monotonic() < begin + 5
