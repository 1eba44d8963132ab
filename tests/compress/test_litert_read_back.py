"""What a .tflite is said to be computed in, against files written by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from tiny_tflite import Tflite

from musgd_cli.compress import litert
from musgd_cli.errors import MusgdError

SIDE = 8


def write(folder: Path, wide: tuple[str, str, str], deep: tuple[str, str, str]) -> None:
    """Two convolutions in these types of input, weights and output.

    ``wide`` takes 3 channels to 16 with a 3 x 3 kernel: 16 * 3 * 9 * 64 = 27648 MACs. ``deep`` is
    depthwise on 16 channels with a 3 x 3 kernel: 16 * 9 * 64 = 9216 MACs.
    """
    model = Tflite()
    image = model.tensor((1, SIDE, SIDE, 3), wide[0])
    kernel = model.constant(np.ones((16, 3, 3, 3), wide[1]))
    between = model.operation(
        "CONV_2D",
        [image, kernel],
        (1, SIDE, SIDE, 16),
        wide[2],
        name="/wide/Conv",
        options="Conv2DOptions",
    )
    kernel = model.constant(np.ones((1, 3, 3, 16), deep[1]))
    if deep[0] != wide[2]:
        kind = "QUANTIZE" if deep[0] == "int8" else "DEQUANTIZE"
        between = model.operation(kind, [between], (1, SIDE, SIDE, 16), deep[0])
    output = model.operation(
        "DEPTHWISE_CONV_2D",
        [between, kernel],
        (1, SIDE, SIDE, 16),
        deep[2],
        name="/deep/Conv",
        options="DepthwiseConv2DOptions",
    )
    (folder / "model.tflite").write_bytes(model.pack([image], [output]))


FLOAT, INT8 = ("float32",) * 3, ("int8",) * 3


@pytest.mark.parametrize(
    ("wide", "deep", "precision", "share", "int8_layers"),
    [
        (INT8, INT8, "int8", 1.0, ("/wide/Conv", "/deep/Conv")),
        (INT8, FLOAT, "mixed-int8", 0.75, ("/wide/Conv",)),
        (FLOAT, INT8, "mixed-int8", 0.25, ("/deep/Conv",)),
        (FLOAT, FLOAT, "fp32", 0.0, ()),
        # Weights alone in int8 make a small file, not int8 arithmetic.
        (("float32", "int8", "float32"), FLOAT, "fp32", 0.0, ()),
    ],
)
def test_a_convolution_is_int8_when_all_of_it_is(
    wide, deep, precision, share, int8_layers, tmp_path
):
    write(tmp_path, wide, deep)
    found = litert.read_back(tmp_path)
    assert (found.precision, found.int8_macs_share) == (precision, share)
    assert found.int8_layers == int8_layers
    assert {*found.int8_layers, *found.float_layers} == {"/wide/Conv", "/deep/Conv"}


@pytest.mark.parametrize("keep", [0, 4, 100, 700])
def test_a_damaged_file_is_named(keep, tmp_path):
    write(tmp_path, INT8, FLOAT)
    file = tmp_path / "model.tflite"
    assert file.stat().st_size > 700
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(MusgdError, match=r"model\.tflite cannot be read"):
        litert.read_back(tmp_path)


def test_a_board_that_cannot_convert_says_where_to(monkeypatch):
    monkeypatch.setattr(litert.platform, "machine", lambda: "aarch64")
    monkeypatch.setitem(sys.modules, "litert_converter", None)
    why, mend = litert.lacks("int8", ("pi4b",))
    assert "x86-64" in why
    assert "copy" in mend
    monkeypatch.setattr(litert.platform, "machine", lambda: "x86_64")
    assert litert.lacks("int8", ("pi4b",)) is None
