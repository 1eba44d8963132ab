"""``musgd predict`` from the outside: what it prints, draws, refuses and exits with."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
import tiny_artifact as tiny

from musgd_cli.__main__ import main
from musgd_cli.records import Prediction

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

ARTIFACT = "runs/r/artifacts/x86-cpu-onnxruntime-fp32-64"
PACKAGE = str(Path(__file__).parents[2])


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to call musgd in, with one artifact, two images and a clip."""
    monkeypatch.chdir(tmp_path)
    tiny.make_onnx(Path(ARTIFACT))
    Path("in").mkdir()
    cv2.imwrite("in/a.png", tiny.draw([(0, 2), (9, 0)]))
    cv2.imwrite("in/b.png", tiny.draw([]))
    make_clip(Path("clip.avi"), 20)
    return tmp_path


def make_clip(path: Path, frames: int) -> None:
    size = (tiny.IMGSZ, tiny.IMGSZ)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, size)
    for i in range(frames):
        writer.write(tiny.draw([(i % 64, 0)]))
    writer.release()


def frames_of(clip: Path) -> int:
    capture, n = cv2.VideoCapture(str(clip)), 0
    while capture.read()[0]:
        n += 1
    return n


def predict(*arguments: str) -> int:
    return main(["predict", ARTIFACT, *arguments, "--threads", "1"])


def lines_of(printed: str) -> list[Prediction]:
    return [Prediction.parse(json.loads(line)) for line in printed.splitlines()]


def start(*arguments: str, **options) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "musgd_cli", "predict", ARTIFACT, *arguments],
        env={**os.environ, "PYTHONPATH": PACKAGE, "TERM": "xterm"},
        text=True,
        **options,
    )


@contextmanager
def read_away(leader: int) -> Iterator[bytearray]:
    """Take what is written to a terminal, as one that is not read makes its writers wait."""
    seen = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # nobody has it open any more
            while data := os.read(leader, 4096):
                seen.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
        thread.join(timeout=10)
    finally:
        os.close(leader)


# -------------------------------------------------------------------------------------- in order


def test_a_folder_of_images(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("in") == 0
    captured = capsys.readouterr()
    a, b, summary = captured.out.splitlines()
    assert (a, b) == ("in/a.png: 1 blue, 1 red", "in/b.png: nothing")
    assert summary.startswith("2 frames · 2 objects · ")
    drawn = workshop / "runs/r/predict/in"
    assert f"saved {drawn.relative_to(workshop)}" in captured.err
    assert sorted(file.name for file in drawn.iterdir()) == ["a.png", "b.png"]
    assert sorted(file.name for file in (workshop / "in").iterdir()) == ["a.png", "b.png"]


def test_nothing_is_overwritten(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert predict("in/a.png", "-q") == 0
    assert sorted(path.name for path in (workshop / "runs/r/predict").iterdir()) == ["a", "a-2"]
    for _ in range(2):
        assert predict("in/a.png", "-q", "--out", "mine") == 0
    assert sorted(path.name for path in Path("mine").iterdir()) == ["a-2.png", "a.png"]
    assert capsys.readouterr().err == ""


def test_each_line_of_json_is_a_prediction(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("in", "--json", "--no-save") == 0
    captured = capsys.readouterr()
    a, b = lines_of(captured.out)
    assert (a.source, a.frame, a.t_s, a.width, a.height) == ("in/a.png", 0, None, 64, 64)
    found = {(box.name, box.class_id): (box.x1, box.y1, box.x2, box.y2) for box in a.boxes}
    assert found == {("blue", 2): (0, 0, 8, 8), ("red", 0): (8, 8, 16, 16)}
    assert [box.score for box in a.boxes] == [1, 1]
    assert (b.frame, b.boxes) == (1, ())
    assert a.infer_ms > 0
    assert "2 frames" in captured.err
    assert not (workshop / "runs/r/predict").exists()


def test_a_video_comes_back_whole_with_the_frame_rate_in_it(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("clip.avi", "--json") == 0
    lines = lines_of(capsys.readouterr().out)
    assert [line.frame for line in lines] == list(range(20))
    assert [line.t_s for line in lines] == pytest.approx([i / 20 for i in range(20)])
    clip = workshop / "runs/r/predict/clip/clip.mp4"
    assert frames_of(clip) == 20
    assert cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FPS) == 20
    # The corner without an object is black but for the rate, which the first frames lack.
    capture = cv2.VideoCapture(str(clip))
    corners = [capture.read()[1][-25:, -90:].max() for _ in range(20)]
    assert corners[0] < 60
    assert corners[10] > 180


def test_thresholds_are_handed_on(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict("in/a.png", "--json", "--no-save", "--max-det", "1") == 0
    assert len(lines_of(capsys.readouterr().out)[0].boxes) == 1
    assert predict("in/a.png", "--json", "--no-save", "--conf", "1") == 0
    assert lines_of(capsys.readouterr().out)[0].boxes == ()


def test_an_artifact_outside_of_any_run(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(ARTIFACT).rename("from-afar")
    assert main(["predict", "from-afar", "in/a.png", "-q"]) == 0
    assert (workshop / "runs/from-afar/predict/a/a.png").is_file()


def test_a_run_of_one_model_is_enough(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "r", "in/a.png", "--no-save", "-q"]) == 0
    assert "1 blue" in capsys.readouterr().out


def test_another_exporters_model(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("given").mkdir()
    (Path(ARTIFACT) / "model.onnx").rename("given/mine.onnx")
    assert main(["predict", "given/mine.onnx", "in/a.png", "--json"]) == 0
    captured = capsys.readouterr()
    assert [box.class_id for box in lines_of(captured.out)[0].boxes] == [2, 0]
    assert "in/a.png through given/mine.onnx" in captured.err
    assert (workshop / "runs/mine/predict/a/a.png").is_file()
    assert main(["bundle", "given/mine.onnx"]) == 0
    assert capsys.readouterr().out == "runs/mine/bundles/mine.zip\n"
    assert [file.name for file in Path("given").iterdir()] == ["mine.onnx"]


def test_torch_and_records_are_not_loaded(workshop: Path) -> None:
    code = (
        "import sys; from musgd_cli.__main__ import main\n"
        f"code = main(['predict', {ARTIFACT!r}, 'clip.avi', '-q'])\n"
        "print(code, {'torch', 'ultralytics', 'musgd_cli.records', 'openvino'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "0 set()"


def test_a_person_sees_the_rate_while_it_runs(workshop: Path) -> None:
    make_clip(Path("long.avi"), 2000)
    leader, follower = pty.openpty()
    process = start("long.avi", "--no-save", stdout=subprocess.DEVNULL, stderr=follower)
    os.close(follower)
    seen = b""
    try:
        while b" FPS" not in seen:
            seen += os.read(leader, 4096)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"of 2000" in seen


@pytest.mark.parametrize("source", ["clip.avi", "in"])
def test_json_reaches_stdout_while_a_person_watches(source: str, workshop: Path) -> None:
    leader, follower = pty.openpty()
    process = start(source, "--json", stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    with read_away(leader) as seen:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(lines_of(out)) == (20 if source == "clip.avi" else 2)
    assert b"boxes" not in seen
    hides_the_cursor = b"\x1b[?25l"
    assert (hides_the_cursor in seen) is (source == "clip.avi"), "pictures are told line by line"


def test_two_at_once_do_not_harm_each_other(workshop: Path) -> None:
    make_clip(Path("long.avi"), 300)
    for more in ((), ("--out", "mine")):
        processes = [start("long.avi", "-q", *more, stdout=subprocess.DEVNULL) for _ in range(2)]
        assert [process.wait(timeout=60) for process in processes] == [0, 0]
    for folder, names in (
        ("runs/r/predict", ["long-2/long.mp4", "long/long.mp4"]),
        ("mine", ["long-2.mp4", "long.mp4"]),
    ):
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        assert sorted(str(path.relative_to(folder)) for path in files) == names
        assert [frames_of(path) for path in files] == [300, 300]


def test_from_inside_its_folder_a_model_knows_its_run(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = str(workshop / "in/a.png")
    monkeypatch.chdir(ARTIFACT)
    assert main(["predict", ".", picture, "-q"]) == 0
    monkeypatch.chdir("..")
    assert main(["predict", Path(ARTIFACT).name, picture, "-q"]) == 0
    assert sorted(path.name for path in (workshop / "runs/r/predict").iterdir()) == ["a", "a-2"]


# ----------------------------------------------------------------------------------- interrupted


def test_a_terminal_that_is_lost_leaves_the_clip_whole(workshop: Path) -> None:
    make_clip(Path("long.avi"), 5000)
    leader, follower = pty.openpty()
    process = start(
        "long.avi",
        "--json",
        stdout=subprocess.PIPE,
        stderr=follower,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(follower, termios.TIOCSCTTY, 0),
    )
    os.close(follower)
    assert process.stdout is not None
    try:
        for _ in range(5):
            process.stdout.readline()
        os.close(leader)  # as sshd does when the network drops
        process.communicate(timeout=60)
    finally:
        process.kill()
    (clip,) = (workshop / "runs/r/predict/long").iterdir()
    assert clip.name == "long.mp4"
    assert 5 <= frames_of(clip) < 5000


def test_ctrl_c_twice_leaves_a_whole_clip_or_none(workshop: Path) -> None:
    make_clip(Path("long.avi"), 5000)
    process = start("long.avi", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        for _ in range(5):
            process.stdout.readline()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (130, -signal.SIGINT)  # the second may meet Python's own end
    assert "Traceback" not in err
    assert [frames_of(clip) > 0 for clip in Path("runs/r/predict/long").iterdir()] in ([], [True])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_finishes_the_clip(number: signal.Signals, workshop: Path) -> None:
    make_clip(Path("long.avi"), 5000)
    process = start("long.avi", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    lines = 5 + len(lines_of(out))
    assert f"{lines} frames" in err
    assert frames_of(workshop / "runs/r/predict/long/long.mp4") == lines < 5000
    assert len(list((workshop / "runs/r/predict/long").iterdir())) == 1


def test_a_reader_that_has_seen_enough_leaves_the_clip_whole(workshop: Path) -> None:
    make_clip(Path("long.avi"), 3000)
    process = start("long.avi", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    try:
        assert process.wait(timeout=60) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.stderr.close()
    assert 0 < frames_of(workshop / "runs/r/predict/long/long.mp4") < 3000


# --------------------------------------------------------------------------------------- refused


def two_lines(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    error, mend = capsys.readouterr().err.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert mend.startswith("mend: ")
    return error, mend


def test_a_damaged_image_is_named_and_the_others_go_on(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in/broken.png").write_bytes(b"no picture")
    assert predict("in", "--json") == 1
    captured = capsys.readouterr()
    assert [line.source for line in lines_of(captured.out)] == ["in/a.png", "in/b.png"]
    assert "error: cannot read image in/broken.png" in captured.err
    assert "1 image unreadable" in captured.err


def test_a_video_that_is_cut_short_keeps_what_it_had(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_clip(Path("long.avi"), 100)
    data = Path("long.avi").read_bytes()
    Path("cut.avi").write_bytes(data[: len(data) // 2])
    assert predict("cut.avi", "--json") == 1
    captured = capsys.readouterr()
    n = len(lines_of(captured.out))
    assert f"ends after {n} of 100 frames" in captured.err
    assert frames_of(workshop / "runs/r/predict/cut/cut.mp4") == n > 0


def test_a_full_disk_is_told(workshop: Path) -> None:
    # No file of it may grow beyond 4 KB, as on a disk that fills.
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from musgd_cli.__main__ import main\n"
        f"sys.exit(main(['predict', {ARTIFACT!r}, 'clip.avi', '--out', 'full']))"
    )
    environment = {**os.environ, "PYTHONPATH": PACKAGE, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1, done.stderr
    assert "error: " in done.stderr
    assert "disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path("full").glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (("nowhere.png",), 2, "nowhere.png does not exist"),
        (("97",), 2, "there is no camera 97"),
        (("gopher://x",), 2, "unknown scheme"),
        (("rtsp://127.0.0.1:9/x",), 1, "nobody answers"),
        (("in", "--out", "in"), 2, "beside what was given"),
        (("in", "--out", "clip.avi/x"), 1, "cannot write"),
        (("in", "--conf", "2"), 2, "2"),
        (("in", "--max-det", "0"), 2, "0"),
    ],
)
def test_wrong_words_end_with_two_lines(
    arguments: tuple[str, ...],
    code: int,
    what: str,
    workshop: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert predict(*arguments) == code
    assert what in two_lines(capsys)[0]
    assert not (workshop / "runs/r/predict").exists()


def test_of_several_models_one_is_to_be_named(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_null(Path("runs/r/artifacts/other"))
    assert main(["predict", "runs/r", "in"]) == 2
    error, mend = two_lines(capsys)
    assert "2 models" in error
    assert ARTIFACT in mend
    assert "runs/r/artifacts/other" in mend


def test_a_model_that_was_changed_is_refused(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (Path(ARTIFACT) / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert predict("in") == 1
    assert "sha256" in two_lines(capsys)[0]


def test_a_runtime_that_is_missing_is_exit_3(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.describe(Path(ARTIFACT), "litert", ("model.onnx",))
    for name in [name for name in sys.modules if name.startswith("ai_edge_litert.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "musgd_cli.runtime.litert", raising=False)
    assert predict("in") == 3
    assert "[litert]'" in two_lines(capsys)[1]


def test_help_begins_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--help"]) == 0
    assert "musgd predict runs/demo/artifacts/" in capsys.readouterr().out
