"""What is written: whole, under a free name, never beside the source, and never silently less."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_artifact as tiny

from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.predict import output as out
from musgd_cli.predict.output import Output
from musgd_cli.predict.places import free_path, new_folder
from musgd_cli.predict.sources import Frame, open_source

PICTURE = tiny.draw([(0, 0)])


def images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), PICTURE)
    return folder


def count(clip: Path) -> int:
    capture, n = cv2.VideoCapture(str(clip)), 0
    while capture.read()[0]:
        n += 1
    return n


def video(folder: Path, make_clip, **options) -> Output:
    return Output(folder, open_source(str(make_clip(folder.parent / "clip.avi", **options))))


def test_pictures_keep_their_names_and_take_no_others_place(tmp_path: Path) -> None:
    source = open_source(str(images(tmp_path / "in", "a.png", "b.jpg")))
    for _ in range(2):
        output = Output(tmp_path / "out", source)
        for frame in source.frames(lambda _: None, lambda: False):
            output.add(frame, frame.image)
        output.close()
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["a-2.png", "a.png", "b-2.jpg", "b.jpg"]
    assert (cv2.imread(str(tmp_path / "out/a.png")) == PICTURE).all()


def test_nothing_is_made_before_the_first_frame(tmp_path: Path) -> None:
    Output(tmp_path / "out", open_source(str(images(tmp_path / "in", "a.png")))).close()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spec", ["in", "in/a.png"])
def test_nothing_is_written_beside_the_source(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "in", "a.png")
    source = open_source(spec)
    with pytest.raises(UsageError, match="beside what was given"):
        Output(tmp_path / "elsewhere/../in", source)


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    source = open_source(str(images(tmp_path / "in", "a.png")))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MusgdError, match="cannot write"):
        Output(tmp_path / "file/out", source)


def test_a_clip_has_each_frame_of_a_video(make_clip, tmp_path: Path) -> None:
    output = video(tmp_path / "out", make_clip, frames=30)
    for i in range(30):
        output.add(Frame(PICTURE, "clip.avi", i, i / 20), PICTURE)
    assert not list((tmp_path / "out").glob("[!.]*")), "unfinished: under a hidden name"
    output.close()
    assert output.saved == tmp_path / "out/clip.mp4"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["clip.mp4"]
    assert count(output.saved) == 30


def test_frames_of_a_slow_model_stand_until_the_next(make_clip, tmp_path: Path) -> None:
    # At 20 a second, frames taken at 0, 0.5 and 1 s; a fourth comes too soon for a place.
    output = video(tmp_path / "out", make_clip)
    shades = (40, 120, 200, 250)
    for shade, t_s in zip(shades, (0, 0.5, 1, 1.01), strict=True):
        picture = np.full((64, 64, 3), shade, np.uint8)
        output.add(Frame(picture, "camera", 0, t_s), picture)
    output.close()
    assert output.saved is not None
    capture = cv2.VideoCapture(str(output.saved))
    seen = []
    while (read := capture.read())[0]:
        seen.append(min(shades, key=lambda shade: abs(shade - float(read[1].mean()))))
    assert seen == [40] * 10 + [120] * 10 + [200]


def test_of_a_long_silence_a_part_stays_and_the_rest_goes_on_as_before(
    make_clip, tmp_path: Path
) -> None:
    # A minute of nothing, and then 20 frames at the clip's own rate.
    output = video(tmp_path / "out", make_clip)
    for i in range(20):
        t_s = 60 * min(i, 1) + i / 20
        output.add(Frame(PICTURE, "camera", i, t_s), np.full((64, 64, 3), 10 * i, np.uint8))
    output.close()
    assert output.saved is not None
    assert count(output.saved) == 1 + out.GAP_S * 20 + 19


def test_a_frame_of_another_size_is_not_lost(make_clip, tmp_path: Path) -> None:
    output = video(tmp_path / "out", make_clip)
    for i, side in enumerate((64, 128, 64)):
        output.add(Frame(PICTURE, "clip", i, i / 20), np.zeros((side, side, 3), np.uint8))
    output.close()
    assert output.saved is not None
    assert count(output.saved) == 3


def test_without_the_first_codec_the_second_is_taken(
    make_clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "CODECS", (("XXXX", ".mp4"), out.CODECS[1]))
    output = video(tmp_path / "out", make_clip)
    output.add(Frame(PICTURE, "clip", 0, 0.0), PICTURE)
    output.close()
    assert output.saved == tmp_path / "out/clip.avi"
    assert count(output.saved) == 1
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_without_any_codec_it_is_told(
    make_clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "CODECS", (("XXXX", ".mp4"),))
    output = video(tmp_path / "out", make_clip)
    with pytest.raises(MusgdError, match="no codec of XXXX") as caught:
        output.add(Frame(PICTURE, "clip", 0, 0.0), PICTURE)
    assert "--no-save" in caught.value.mend


def test_a_disk_that_fills_ends_the_clip_while_its_index_fits(
    make_clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = video(tmp_path / "out", make_clip)
    output.add(Frame(PICTURE, "clip", 0, 0.0), PICTURE)
    Usage = namedtuple("Usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 99, 1))
    monkeypatch.setattr(out, "LOOK_EVERY_S", 0.0)
    with pytest.raises(MusgdError, match=os.strerror(28)):
        output.add(Frame(PICTURE, "clip", 1, 0.05), PICTURE)
    monkeypatch.undo()

    def gone(_: Path) -> None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(out, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(shutil, "disk_usage", gone)
    with pytest.raises(MusgdError, match="cannot write"):  # pulled out
        output.add(Frame(PICTURE, "clip", 1, 0.05), PICTURE)
    output.close()
    assert output.saved is not None
    assert count(output.saved) == 1


def test_two_at_once_take_two_places(make_clip, tmp_path: Path) -> None:
    clip = str(make_clip(tmp_path / "clip.avi"))
    for folder, anew in ((tmp_path / "shared", False), (tmp_path / "own", True)):
        outputs = [Output(folder, open_source(clip), anew=anew) for _ in range(3)]
        for i in range(5):
            for output in outputs:
                output.add(Frame(PICTURE, "clip", i, i / 20), PICTURE)
        for output in outputs:
            output.close()
        saved = [output.saved for output in outputs]
        assert len(set(saved)) == 3
        assert [count(file) for file in saved if file is not None] == [5, 5, 5]
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == [
        "clip-2.mp4",
        "clip-3.mp4",
        "clip.mp4",
    ]
    assert sorted(path.name for path in tmp_path.glob("own*")) == ["own", "own-2", "own-3"]


def test_ctrl_c_while_a_clip_is_finished_leaves_nothing_half(
    make_clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = video(tmp_path / "out", make_clip)
    output.add(Frame(PICTURE, "clip", 0, 0.0), PICTURE)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cv2, "VideoCapture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        output.close()
    assert list((tmp_path / "out").iterdir()) == []
    output.close()


def test_a_name_that_leads_nowhere_is_taken(tmp_path: Path) -> None:
    (tmp_path / "clip").symlink_to("nowhere")
    assert new_folder(tmp_path / "clip") == tmp_path / "clip-2"


def test_free_names_look_at_every_suffix(tmp_path: Path) -> None:
    (tmp_path / "clip.avi").touch()
    (tmp_path / "clip-2.mp4").touch()
    assert free_path(tmp_path, "clip", ".mp4", ".avi") == tmp_path / "clip-3.mp4"
    assert free_path(tmp_path, "clip", ".mp4") == tmp_path / "clip.mp4"
