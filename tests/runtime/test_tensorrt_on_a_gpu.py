"""TensorRT as it is, where it is: on a machine with an NVIDIA GPU, and skipped on all others."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny_artifact as tiny

ASK = """
import json, sys
from pathlib import Path

import numpy as np

from musgd_cli.bench.watch import Watch
from musgd_cli.runs import read_artifact
from musgd_cli.runtime import open_engine

folder, images = Path(sys.argv[1]), np.load(sys.argv[2])
engine = open_engine(folder, read_artifact(folder), 1)
watch = Watch(device="gpu")
with watch.timed(0):
    answers = [engine.infer(x[None]).copy() for x in images]
np.save(sys.argv[3], np.concatenate(answers))
print(json.dumps({"settings": dict(engine.settings), "temperature": watch.temperature_c}))
engine.close()
"""


@pytest.fixture(autouse=True)
def _a_gpu() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pytest.skip("no NVIDIA driver here")
    for module in ("tensorrt", "onnx"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_real_engine_answers_as_the_model_does(precision: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.make_tensorrt(folder, precision)
    images = np.random.default_rng(0).random((3, 3, 64, 64), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["CUDA_VISIBLE_DEVICES"]
    files = [tmp_path / "images.npy", tmp_path / "answers.npy"]
    done = subprocess.run(
        [sys.executable, "-c", ASK, folder, *files],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = np.concatenate([tiny.expected_output(x[None]) for x in images])
    np.testing.assert_allclose(np.load(files[1]), expected, atol=1e-2)
    told = json.loads(done.stdout)
    assert precision in told["settings"]["layers"]
    assert 0 < told["temperature"] < 120
    assert len(list((tmp_path / "cache").rglob("model.engine"))) == 1
