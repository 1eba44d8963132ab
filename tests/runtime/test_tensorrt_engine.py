"""TensorRT's engine against a driver and a TensorRT built here: no test machine has a GPU.

What is held: what is asked of them, in which order, and what becomes of every refusal. Whether a
real GPU agrees is not measured here.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_artifact as tiny

from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError
from musgd_cli.runtime import cuda, engine_class, open_engine, prepare, tensorrt_plan

STUBS = Path(__file__).parent / "gpu"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stub of the CUDA driver."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the driver with")
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("driver")
    source = STUBS / "cuda.c"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True
    )
    return folder


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have TensorRT and what stands on it imported anew, and forgotten at the end."""

    def anew() -> None:
        for name in ("tensorrt", "musgd_cli.runtime.tensorrt"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    anew()
    return anew


@pytest.fixture
def gpu(
    driver: Path, forget: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A machine with a GPU and TensorRT 11; the file gets a line for each engine built."""
    builds = tmp_path / "builds"
    builds.touch()
    monkeypatch.setattr(cuda, "LIBRARY", str(driver / "libcuda.so.1"))
    monkeypatch.syspath_prepend(STUBS)
    monkeypatch.setenv("STUB_BUILDS", str(builds))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return builds


def n_builds(gpu: Path) -> int:
    return len(gpu.read_text().splitlines())


def n_live(driver: Path) -> int:
    """How much of the GPU is given and not taken back."""
    return ctypes.CDLL(str(driver / "libcuda.so.1")).stub_live()


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)


# --------------------------------------------------------------------------------------- in order


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_it_answers_as_the_model_does(
    precision: str,
    version: str,
    gpu: Path,
    driver: Path,
    x: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STUB_TENSORRT", version)
    artifact = tiny.make_tensorrt(tmp_path / "model", precision)
    before = n_live(driver)
    engine = open_engine(tmp_path / "model", artifact, threads=1)
    assert engine.version == version
    for image in (x, 1 - x):
        got = engine.infer(image)
        assert got.shape == (1, 7, 64)
        np.testing.assert_allclose(got, tiny.expected_output(image), atol=5e-3)
    assert engine.settings["device"] == "NVIDIA Test Card"
    assert engine.settings["compute capability"] == "8.9"
    assert engine.settings["driver"] == "of CUDA 13.0"
    assert engine.settings["layers"] == f"1 {precision}"
    assert n_live(driver) == before + 6  # a context, a stream, two buffers here and two there
    engine.close()
    assert n_live(driver) == before


def test_an_engine_is_built_once_and_never_beside_the_model(
    gpu: Path, tmp_path: Path, driver: Path
) -> None:
    folder = tmp_path / "given"
    artifact = tiny.make_tensorrt(folder, "fp16")
    before, live = sorted(folder.iterdir()), n_live(driver)
    told: list[None] = []
    prepare(folder, artifact, lambda: told.append(None))
    assert n_builds(gpu) == len(told) == 1
    for _ in range(2):
        open_engine(folder, artifact, threads=1).close()
        prepare(folder, artifact, lambda: told.append(None))
    assert n_builds(gpu) == len(told) == 1
    assert n_live(driver) == live
    assert sorted(folder.iterdir()) == before
    (kept,) = (tmp_path / "cache/musgd/tensorrt").iterdir()
    assert kept.name.startswith(artifact.sha256[:16])
    assert "-trt11.4.0.106-nvidia-test-card-sm89-driver-" in kept.name


@pytest.mark.parametrize(
    ("name", "value"), [("STUB_TENSORRT", "10.16.1.11"), ("STUB_CAPABILITY", "120")]
)
def test_another_tensorrt_and_another_gpu_have_their_own(
    name: str,
    value: str,
    gpu: Path,
    forget: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = tiny.make_tensorrt(tmp_path / "model", "fp16")
    prepare(tmp_path / "model", artifact)
    forget()
    monkeypatch.setenv(name, value)
    prepare(tmp_path / "model", artifact)
    assert n_builds(gpu) == 2


def test_engines_that_nobody_uses_are_cleared_by_the_next_build(gpu: Path, tmp_path: Path) -> None:
    made = {name: tiny.make_tensorrt(tmp_path / name, name) for name in ("fp32", "fp16", "int8")}
    for name in ("fp32", "fp16"):
        prepare(tmp_path / name, made[name])
    cache = tmp_path / "cache/musgd/tensorrt"
    month_ago = time.time() - 31 * 86400
    for kept in cache.iterdir():
        os.utime(kept, (month_ago, month_ago))
    prepare(tmp_path / "fp16", made["fp16"])
    prepare(tmp_path / "int8", made["int8"])
    assert n_builds(gpu) == 3
    assert {kept.name[:16] for kept in cache.iterdir()} == {
        made[name].sha256[:16] for name in ("fp16", "int8")
    }


def test_an_engine_that_does_not_load_is_built_anew(
    gpu: Path, x: np.ndarray, tmp_path: Path
) -> None:
    artifact = tiny.make_tensorrt(tmp_path / "model", "fp16")
    prepare(tmp_path / "model", artifact)
    (kept,) = (tmp_path / "cache/musgd/tensorrt").glob("*/model.engine")
    kept.write_bytes(b"of a driver that is gone")
    engine = open_engine(tmp_path / "model", artifact, threads=1)
    assert engine.infer(x).shape == (1, 7, 64)
    engine.close()
    assert n_builds(gpu) == 2


def test_a_whole_bench_on_a_gpu(driver: Path, tmp_path: Path) -> None:
    """By the command line, in processes of its own, as it runs where a GPU is."""
    folder = tmp_path / "runs/r/artifacts/x86-gpu-tensorrt-int8-64"
    tiny.make_tensorrt(folder, "int8", target="x86-gpu")
    tiny.make_data(tmp_path / "squares", n_images=2)
    (tmp_path / "builds").touch()
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(driver),
        "PYTHONPATH": os.pathsep.join((str(STUBS), os.environ.get("PYTHONPATH", ""))),
        "STUB_BUILDS": str(tmp_path / "builds"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    once = ("--repeats", "2", "--duration", "0.2", "--set", "bench.warmup_s=0", "--meter", "none")
    done = subprocess.run(
        [sys.executable, "-m", "musgd_cli", "bench", "r", "--data", "squares", "--json", *once],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    (report,) = json.loads(done.stdout)["reports"]
    assert (report["runtime"], report["precision"]) == ("tensorrt", "int8")
    assert report["runtime_version"] == "11.4.0.106"
    assert report["map50"] == pytest.approx(1, abs=0.02)
    assert report["engine"]["layers"] == "1 int8"
    assert n_builds(tmp_path / "builds") == 1  # scored and timed twice, built once
    assert report["load_ms"] < 10_000


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("capability", ["60", "62", "53"])
def test_int8_is_not_quietly_computed_in_float(
    capability: str, gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_CAPABILITY", capability)
    artifact = tiny.make_tensorrt(tmp_path / "model", "int8")
    with pytest.raises(UnsupportedError, match="no int8 arithmetic: its compute cap") as caught:
        open_engine(tmp_path / "model", artifact, threads=1)
    assert "fp16" in caught.value.mend
    assert n_builds(gpu) == 0


def test_an_engine_without_the_precision_it_is_named_by(
    gpu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_TENSORRT_FAULT", "float")
    artifact = tiny.make_tensorrt(tmp_path / "model", "int8")
    with pytest.raises(MusgdError, match="without a layer in int8: there are 1 fp32") as caught:
        open_engine(tmp_path / "model", artifact, threads=1)
    assert caught.value.exit_code is ExitCode.FAILED
    assert not list((tmp_path / "cache").rglob("model.engine"))


def test_an_onnx_for_tensorrt_8_is_no_fp16_here(gpu: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nano"
    tiny.make_tensorrt(folder, "fp32")
    artifact = tiny.describe(folder, "tensorrt", ("model.onnx",), precision="fp16")
    with pytest.raises(UnsupportedError, match="in fp32, not in fp16") as caught:
        open_engine(folder, artifact, threads=1)
    assert "--target x86-gpu" in caught.value.mend


@pytest.mark.parametrize(
    ("variable", "value", "match", "code"),
    [
        ("STUB_CUDA_INIT", "100", "no NVIDIA GPU works here: no CUDA-capable", 3),
        ("STUB_CUDA_INIT", "803", "unsupported display driver", 3),
        ("STUB_CUDA_DEVICES", "0", "no NVIDIA GPU works here", 3),
        ("STUB_TENSORRT", "8.6.1", "TensorRT 8.6.1 is too old", 3),
        ("STUB_TENSORRT_FAULT", "driver", "driver is too old for TensorRT 11.4.0.106: .*35", 3),
        ("STUB_TENSORRT_FAULT", "memory", "too little memory left for .*OutOfMemory", 1),
        ("STUB_CUDA_FULL", "1", "too little memory left for .*: out of memory", 1),
        ("STUB_TENSORRT_FAULT", "build", "builds no engine of this model: .*find a tactic", 1),
    ],
)
def test_what_goes_wrong_is_told(
    variable: str,
    value: str,
    match: str,
    code: int,
    gpu: Path,
    driver: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    artifact = tiny.make_tensorrt(tmp_path / "model", "fp16")
    before = n_live(driver)
    with pytest.raises(MusgdError, match=match) as caught:
        open_engine(tmp_path / "model", artifact, threads=1)
    assert caught.value.exit_code == code
    assert "no error" not in caught.value.what  # what was only a warning
    assert n_live(driver) == before


@pytest.mark.parametrize(
    ("variable", "value", "match"),
    [
        ("STUB_TENSORRT_FAULT", "run", "cannot run model.onnx: Error Code 1: Cuda Driver"),
        ("STUB_CUDA_FAULT", "700", "cannot run model.onnx: an illegal memory access"),
    ],
)
def test_a_run_that_fails(
    variable: str,
    value: str,
    match: str,
    gpu: Path,
    x: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifact = tiny.make_tensorrt(tmp_path / "model", "fp16")
    engine = open_engine(tmp_path / "model", artifact, threads=1)
    monkeypatch.setenv(variable, value)
    with pytest.raises(MusgdError, match=match):
        engine.infer(x)
    engine.close()


def test_an_onnx_that_it_cannot_read(gpu: Path, tmp_path: Path) -> None:
    import onnx

    artifact = tiny.make_tensorrt(tmp_path / "model")
    model = onnx.load(tmp_path / "model/model.onnx")
    model.graph.node[-1].op_type = "Unheard"
    onnx.save(model, tmp_path / "model/model.onnx")
    artifact = tiny.describe(tmp_path / "model", "tensorrt", artifact.files)
    with pytest.raises(MusgdError, match="no importer registered for op: Unheard"):
        prepare(tmp_path / "model", artifact)


def test_an_artifact_of_an_engine_alone(gpu: Path, tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"of a board")
    artifact = tiny.describe(tmp_path, "tensorrt", ("model.engine",))
    with pytest.raises(UnsupportedError, match="of the machine it was built on"):
        open_engine(tmp_path, artifact, threads=1)


@pytest.mark.parametrize("fields", [{"imgsz": 32}, {"names": ("red", "green")}])
def test_a_record_that_fits_another_model(
    fields: dict[str, object], gpu: Path, driver: Path, tmp_path: Path
) -> None:
    artifact = tiny.make_tensorrt(tmp_path / "model", **fields)
    before = n_live(driver)
    with pytest.raises(MusgdError, match="the model in"):
        open_engine(tmp_path / "model", artifact, threads=1)
    assert n_live(driver) == before


def test_a_cache_that_cannot_be_written(gpu: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    artifact = tiny.make_tensorrt(tmp_path / "model")
    with pytest.raises(MusgdError, match="cannot be kept") as caught:
        prepare(tmp_path / "model", artifact)
    assert "XDG_CACHE_HOME" in caught.value.mend


def test_without_a_driver_the_wheel_is_not_even_asked_for(
    forget: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-that-nobody-has.so")
    with pytest.raises(UnsupportedError, match="no NVIDIA driver here: libcuda-that"):
        engine_class("tensorrt")


def test_a_gpu_without_the_wheel(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(UnsupportedError, match="tensorrt is not installed") as caught:
        engine_class("tensorrt")
    assert "[tensorrt]'" in caught.value.mend


def test_the_gpu_that_computes_is_the_one_that_nvml_names(
    gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    cuda.Driver()
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


# ------------------------------------------------------------------------- TensorRT-RTX, the real


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_a_real_parser_takes_from_the_onnx(precision: str, tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx-cu12")
    (tmp_path / "model.onnx").write_bytes(tiny.typed_onnx_model(precision))
    assert tensorrt_plan.Network(trt, tmp_path / "model.onnx").precision == precision


def test_part_of_it_in_int8_is_mixed(gpu: Path, tmp_path: Path) -> None:
    import onnx
    import tensorrt
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(tiny.typed_onnx_model("int8"))
    weights = np.ones((3, 1, 8, 8), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "float weights"))
    convolution = {"group": 3, "kernel_shape": [8, 8], "strides": [8, 8]}
    node = helper.make_node("Conv", ["images", "float weights"], ["beside"], **convolution)
    model.graph.node.append(node)
    onnx.save(model, tmp_path / "model.onnx")
    assert tensorrt_plan.Network(tensorrt, tmp_path / "model.onnx").precision == "mixed-int8"
