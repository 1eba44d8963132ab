"""Engines: the same answer from each, in the precision and threads that were asked for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny_artifact as tiny

from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError
from musgd_cli.hardware.cpu import computes_bf16
from musgd_cli.records import Artifact
from musgd_cli.runtime import check_files, engine_class, open_engine

Make = Callable[..., Artifact]

ENGINES = {
    "onnxruntime": tiny.make_onnx,
    "openvino": tiny.make_openvino,
    "ncnn": tiny.make_ncnn,
    "litert": tiny.make_litert,
}
NEEDS = {
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "ncnn": ("ncnn",),
    "litert": ("ai_edge_litert",),
}
"""What must be installed to write the model and to run it."""


def maker(runtime: str) -> Make:
    for module in NEEDS[runtime]:
        pytest.importorskip(module)
    return ENGINES[runtime]


@pytest.fixture(params=sorted(ENGINES))
def make(request: pytest.FixtureRequest) -> Make:
    return maker(request.param)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, 64, 64), np.float32)


def test_engines_agree_with_the_model_worked_out_by_hand(
    make: Make, x: np.ndarray, tmp_path: Path
) -> None:
    engine = open_engine(tmp_path, make(tmp_path), threads=1)
    np.testing.assert_allclose(engine.infer(x), tiny.expected_output(x), atol=1e-5)
    # Again, with other input: nothing sticks to the first one's memory.
    np.testing.assert_allclose(engine.infer(x / 2), tiny.expected_output(x / 2), atol=1e-5)
    assert engine.version[0].isdigit()
    engine.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_what_was_asked(make: Make, threads: int, tmp_path: Path) -> None:
    assert open_engine(tmp_path, make(tmp_path), threads).settings["threads"] == str(threads)


def test_litert_computes_with_the_threads_it_was_given(tmp_path: Path) -> None:
    # It does not tell, but the threads of its pool can be counted.
    artifact = maker("litert")(tmp_path)
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    alone = open_engine(tmp_path, artifact, threads=1)
    assert len(list(tasks.iterdir())) == before
    three = open_engine(tmp_path, artifact, threads=3)
    assert len(list(tasks.iterdir())) == before + 2
    alone.close()
    three.close()


def test_a_float_model_is_not_run_in_bf16(tmp_path: Path) -> None:
    # On CPUs with bf16 units OpenVINO takes them unasked, and "fp32" figures are another model's.
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    engine = open_engine(tmp_path, tiny.make_openvino(tmp_path), threads=1)
    assert engine.settings["precision"] == "f32"


def test_fp16_on_a_cpu_without_it_is_not_run_in_bf16(tmp_path: Path) -> None:
    # Asked for f16 where there is none, OpenVINO takes bf16 without a word.
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    engine = open_engine(tmp_path, tiny.make_openvino(tmp_path, precision="fp16"), threads=1)
    has_fp16 = "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert engine.settings["precision"] == ("f16" if has_fp16 else "f32")


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_runs_in_bf16_or_not_at_all(
    has_bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    artifact = tiny.make_openvino(tmp_path, precision="bf16")
    if has_bf16:
        if not computes_bf16():
            pytest.skip("this CPU has no bf16")
        assert "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        assert open_engine(tmp_path, artifact, threads=1).settings["precision"] == "bf16"
        return
    engine_class("openvino")
    monkeypatch.setattr("musgd_cli.runtime.openvino.computes_bf16", lambda: False)
    with pytest.raises(UnsupportedError, match="bf16"):
        open_engine(tmp_path, artifact, threads=1)


def test_ncnn_computes_in_what_the_artifact_says(tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    engine = open_engine(tmp_path, tiny.make_ncnn(tmp_path), threads=1)
    assert engine.settings["fp16_arithmetic"] == "false"
    engine = open_engine(tmp_path, tiny.make_ncnn(tmp_path, precision="fp16"), threads=1)
    assert engine.settings["fp16_arithmetic"] == "true"


def test_a_model_that_was_changed_is_refused(make: Make, tmp_path: Path) -> None:
    artifact = make(tmp_path)
    with (tmp_path / artifact.files[-1]).open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(MusgdError, match="sha256") as caught:
        open_engine(tmp_path, artifact, threads=1)
    assert caught.value.exit_code is ExitCode.FAILED
    assert "musgd export" in caught.value.mend


def test_a_model_that_is_missing_is_named(make: Make, tmp_path: Path) -> None:
    artifact = make(tmp_path)
    (tmp_path / artifact.files[-1]).unlink()
    with pytest.raises(MusgdError, match=artifact.files[-1]):
        open_engine(tmp_path, artifact, threads=1)


@dataclass(frozen=True)
class Described:
    """What a bundle reads of a record, which is not checked as an `Artifact` is."""

    files: tuple[str, ...]
    sha256: str = hashlib.sha256(b"theirs").hexdigest()
    runtime: str = "null"
    precision: str = "fp32"
    imgsz: int = 64
    names: tuple[str, ...] = tiny.NAMES
    nms_free: bool = False


@pytest.mark.parametrize("name", ["../theirs", "sub/../../theirs", "{tmp}/theirs", "link", "dir/x"])
def test_files_outside_of_the_folder_are_not_the_models(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "x").write_bytes(b"theirs")
    (folder / "link").symlink_to(tmp_path / "theirs")
    (folder / "dir").symlink_to(tmp_path)
    with pytest.raises(MusgdError, match="leads out of the folder"):
        check_files(folder, Described((name.format(tmp=tmp_path),)))


def test_a_record_that_names_too_few_files(make: Make, tmp_path: Path) -> None:
    artifact = make(tmp_path)
    none = tiny.describe(tmp_path, artifact.runtime, ())
    with pytest.raises(MusgdError, match="names no file"):
        open_engine(tmp_path, none, threads=1)
    if artifact.runtime == "ncnn":
        half = tiny.describe(tmp_path, artifact.runtime, artifact.files[:1])
        with pytest.raises(MusgdError, match=r"\.param and a \.bin"):
            open_engine(tmp_path, half, threads=1)


def test_a_link_within_the_folder_and_one_to_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_bytes(b"theirs")
    (folder / "link").symlink_to(Path("sub") / "file")
    (tmp_path / "alias").symlink_to(folder)
    check_files(tmp_path / "alias", Described(("link",)))


def test_a_name_too_long_for_any_file(tmp_path: Path) -> None:
    with pytest.raises(MusgdError, match="too long"):
        check_files(tmp_path, Described(("x" * 300,)))


def test_a_model_cut_in_half_before_it_was_hashed(make: Make, tmp_path: Path) -> None:
    artifact = make(tmp_path)
    for name in artifact.files:
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    artifact = tiny.describe(tmp_path, artifact.runtime, artifact.files)
    with pytest.raises(MusgdError, match=f"{artifact.runtime} cannot load") as caught:
        open_engine(tmp_path, artifact, threads=1)
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"imgsz": 32}, "32 px"),
        ({"names": ("red", "green")}, "2 classes"),
        ({"nms_free": True}, "3"),
    ],
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_a_record_that_fits_another_model(
    runtime: str, fields: dict[str, object], match: str, tmp_path: Path
) -> None:
    artifact = maker(runtime)(tmp_path, **fields)
    with pytest.raises(MusgdError, match=match):
        open_engine(tmp_path, artifact, threads=1)


@pytest.mark.parametrize(
    ("runtime", "module", "extra"),
    [
        ("onnxruntime", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("ncnn", "ncnn", "ncnn"),
        ("litert", "ai_edge_litert", "litert"),
    ],
)
def test_a_missing_wheel_names_its_extra(
    runtime: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"musgd_cli.runtime.{runtime}", raising=False)
    with pytest.raises(UnsupportedError, match=f"{runtime} is not installed") as caught:
        engine_class(runtime)
    assert f"[{extra}]'" in caught.value.mend


def test_a_wheel_that_does_not_load_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ncnn.py").write_text("raise ImportError('libgomp.so.1: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ncnn", raising=False)
    monkeypatch.delitem(sys.modules, "musgd_cli.runtime.ncnn", raising=False)
    with pytest.raises(UnsupportedError, match=r"does not load: libgomp\.so\.1"):
        engine_class("ncnn")


def test_a_runtime_we_have_no_engine_for() -> None:
    with pytest.raises(UnsupportedError, match="no hailo engine"):
        engine_class("hailo")


def test_null_answers_in_a_real_models_shape(tmp_path: Path, x: np.ndarray) -> None:
    raw = open_engine(tmp_path, tiny.make_null(tmp_path, imgsz=320), threads=1).infer(x)
    assert raw.shape == (1, 7, 2100)
    assert not raw.any()
    final = open_engine(tmp_path, tiny.make_null(tmp_path, nms_free=True), threads=1).infer(x)
    assert final.shape == (1, 300, 6)


def test_no_engine_reports_to_its_maker_or_speaks(make: Make, tmp_path: Path) -> None:
    # openvino connects to Google Analytics on import, from a thread of its own.
    make(tmp_path)
    script = f"""
import sys, time
sys.addaudithook(lambda event, _: print(event) if event == "socket.getaddrinfo" else None)
from pathlib import Path
from musgd_cli.runs import read_artifact
from musgd_cli.runtime import open_engine
folder = Path({str(tmp_path)!r})
open_engine(folder, read_artifact(folder), 1)
time.sleep(1)
"""
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", script], env=home, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert done.stderr == ""  # LiteRT greets there from C++, past Python
    assert not (tmp_path / "intel").exists()
    assert not list(tmp_path.rglob("Microsoft"))
