"""``musgd export`` as typed: silent, offline, JSON on stdout, codes and two-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

_NEEDED = ("torch", "ultralytics", "onnx", "onnxruntime", "openvino", "nncf", "pnnx", "ncnn")
HAS_LITERT = all(find_spec(name) for name in ("litert_torch", "ai_edge_quantizer"))
needs_tools = pytest.mark.skipif(
    any(find_spec(name) is None for name in _NEEDED), reason="the quantize extra is not installed"
)

# Python starts this in the process; what asks for the network is refused and written down.
WITNESS = """
import os, sys

def witness(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["WITNESS_LOG"], "a") as log:
            log.write(f"{event} {arguments[1:]!r}\\n")
        raise OSError("no network here")

sys.addaudithook(witness)
"""


def musgd(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "musgd_cli", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    import cv2
    import numpy as np

    from musgd_cli.train import checkpoint, sandbox

    sandbox.prepare()
    from ultralytics.nn.tasks import DetectionModel

    folder = tmp_path_factory.mktemp("given")
    checkpoint.write_weights(
        folder / "tiny.pt", DetectionModel("yolo26n.yaml", nc=2, verbose=False), {}
    )
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        for number in range(3):
            image = np.full((40, 60, 3), 80 * number + len(split), np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
    (folder / "set.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b]\n")
    return folder


@pytest.fixture(scope="module")
def typed(given: Path, tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("typed")
    (root / "sitecustomize.py").write_text(WITNESS)
    (root / "home").mkdir()
    (root / "work").mkdir()
    options = ["--int8", "--target", "x86-cpu,pi4b", "--imgsz", "64", "--calib", "3"]
    options += ["--set", "compress.precisions=fp32"]
    done = musgd(
        *("export", str(given / "tiny.pt"), "--data", str(given / "set.yaml"), *options, "--json"),
        cwd=root / "work",
        HOME=str(root / "home"),
        PYTHONPATH=str(root),
        WITNESS_LOG=str(root / "log"),
    )
    return done, root


@needs_tools
def test_stdout_is_one_report(typed):
    done, root = typed
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(a["runtime"], a["precision"]) for a in report["artifacts"]] == [
        ("onnxruntime", "fp32"),
        ("openvino", "fp32"),
        ("openvino", "int8"),
        ("onnxruntime", "int8"),
        ("onnxruntime", "fp32"),
        ("ncnn", "fp32"),
        ("ncnn", "int8"),
        *([("litert", "fp32"), ("litert", "int8")] if HAS_LITERT else []),
    ]
    assert {s["runtime"] for s in report["skipped"]} == (set() if HAS_LITERT else {"litert"})
    assert all((root / "work" / a["path"] / "artifact.json").is_file() for a in report["artifacts"])


@needs_tools
def test_stderr_holds_our_own_lines_alone(typed):
    done, _ = typed
    ours = ("loading ", "x86-cpu: ", "pi4b: ", "Ultralytics states ")
    assert [line for line in done.stderr.splitlines() if not line.startswith(ours)] == []


@needs_tools
def test_nothing_is_asked_of_the_network_and_nothing_left_in_the_home(typed):
    _, root = typed
    assert not (root / "log").exists(), (root / "log").read_text()
    # Where the telemetry of OpenVINO and of ONNX Runtime keeps its identifiers. The latter uploads
    # from C++, unseen by the hook; without an identifier it has not started.
    assert not (root / "home" / "intel").exists()
    assert not list((root / "home").rglob("Microsoft"))
    assert [path.name for path in (root / "work").iterdir()] == ["runs"]


@needs_tools
def test_the_table_names_what_was_skipped_and_what_is_next(given, tmp_path):
    done = musgd(
        *("export", str(given / "tiny.pt"), "--target", "jetson-nano", "--imgsz", "64", "--int8"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "skipped: jetson-nano tensorrt: int8 is not made, but fp16: Maxwell" in done.stdout
    assert "mend: " in done.stdout
    assert done.stdout.rstrip().endswith("next: musgd bench runs/tiny")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["absent"], 2),
        (["absent.pt"], 2),
        (["model.onnx"], 2),
        (["tiny.pt", "--imgsz", "100"], 2),
        (["tiny.pt", "--target", "toaster"], 2),
        (["tiny.pt", "--runtime", "opnvino"], 2),
        (["tiny.pt", "--int8", "--target", "x86-cpu"], 2),
        (["tiny.pt", "--calib", "3", "--set", "compress.calib=4"], 2),
        (["tiny.pt", "--imgsz", "64,huge"], 2),
        (["tiny.pt", "--calib-method", "guess"], 2),
        (["tiny.pt", "--max-drop", "2"], 2),
        (["tiny.pt", "--int8", "--strict", "--target", "jetson-nano"], 3),
    ],
)
@needs_tools
def test_a_wrong_line_gets_two_lines(arguments, code, given, tmp_path):
    if arguments[0] == "tiny.pt":
        arguments = [str(given / "tiny.pt"), *arguments[1:]]
    done = musgd("export", *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    error, mend = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert mend.startswith("mend: ")
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
