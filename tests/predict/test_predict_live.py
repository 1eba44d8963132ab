"""``musgd predict`` on a camera: the clip in real time, the password kept, the end told."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import tiny_artifact as tiny

from musgd_cli.__main__ import main
from musgd_cli.predict.sources import LIVE_FPS


def test_a_camera_that_goes_leaves_what_was_seen(
    camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    tiny.make_onnx(Path("model"))
    url = camera(40, 20)  # two seconds of it
    assert main(["predict", "model", url, "--json", "--threads", "1"]) == 1
    captured = capsys.readouterr()
    assert "secret" not in captured.out + captured.err
    error, mend = captured.err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert "is gone after" in error
    assert mend.startswith("mend: see that the sender runs")
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert len(lines) > 10
    assert lines[0]["source"].startswith("http://127.0.0.1:")
    assert all(len(line["boxes"]) == 1 for line in lines)
    (clip,) = (tmp_path / "runs/model/predict").glob("*/*.mp4")
    capture = cv2.VideoCapture(str(clip))
    seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    assert seconds == pytest.approx(lines[-1]["t_s"], abs=2 / LIVE_FPS + 0.05)
