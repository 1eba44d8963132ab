"""ncnn in int8: what decides speed and precision is set, and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_artifact as tiny

from musgd_cli.compress import ncnn_files, ncnn_int8
from musgd_cli.compress.ncnn_files import Layer
from musgd_cli.hardware.cpu import read_cpu
from musgd_cli.hardware.tree import Tree
from musgd_cli.runtime import open_engine

pytest.importorskip("ncnn")

SIDE = 8


def make(folder: Path, weights: np.ndarray) -> None:
    """Write one int8 convolution of an RGB image, padded."""
    size = {0: str(SIDE), 1: str(SIDE), 2: "3"}
    parameters = {0: "16", 1: "3", 4: "1", 5: "1", 6: str(weights.size)}
    tensors = (weights.ravel(), np.zeros(16, np.float32))
    convolution = Layer("Convolution", "conv", ("in0",), ("seen",), parameters, tensors)
    places = {0: str(SIDE**2), 1: "16"}
    layers = [
        Layer("Input", "in0", (), ("in0",), size),
        ncnn_int8.quantize(convolution, 1.0),
        Layer("Reshape", "flat", ("seen",), ("out0",), places),
    ]
    ncnn_files.write(layers, folder)


@pytest.mark.parametrize("precision", ["int8", "mixed-int8"])
def test_an_int8_model_is_computed_in_int8(precision: str, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(16, 3, 3, 3)).astype(np.float32)
    make(tmp_path, weights)
    names = tuple(map(str, range(12)))  # of the 16 rows, 4 would be a box
    artifact = tiny.describe(tmp_path, "ncnn", ncnn_files.FILES, precision=precision, names=names)
    engine = open_engine(tmp_path, artifact, threads=1)
    assert engine.settings["int8_inference"] == "true"
    has_vnni = "vnni" in (read_cpu(Tree()).features or ())
    assert engine.settings["winograd"] == str(not has_vnni or precision != "int8").lower()
    ones = np.ones((1, 3, SIDE, SIDE), np.float32)
    middle = engine.infer(ones).reshape(16, SIDE, SIDE)[:, SIDE // 2, SIDE // 2]
    np.testing.assert_allclose(middle, weights.sum(axis=(1, 2, 3)), atol=0.2)
    engine.close()


def test_a_float_model_keeps_winograd(tmp_path: Path) -> None:
    engine = open_engine(tmp_path, tiny.make_ncnn(tmp_path), threads=1)
    assert engine.settings["winograd"] == "true"
    assert engine.settings["int8_inference"] == "false"


def test_an_ncnn_without_the_later_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1.0.20240410, which the extra allows, knows no such option and refuses to have it set.
    ncnn = pytest.importorskip("ncnn")
    monkeypatch.delattr(ncnn.Option, "use_bf16_packed", raising=False)
    engine = open_engine(tmp_path, tiny.make_ncnn(tmp_path), threads=1)
    assert engine.settings["bf16_storage"] == "false"


def test_ncnn_says_nothing_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, np.ones((16, 3, 3, 3), np.float32))
    param, weights = (tmp_path / name for name in ncnn_files.FILES)
    weights.write_bytes(weights.read_bytes()[:40])
    artifact = tiny.describe(tmp_path, "ncnn", (param.name, weights.name))
    with pytest.raises(Exception, match="does not fit"):
        open_engine(tmp_path, artifact, threads=1)
    assert capfd.readouterr() == ("", "")
