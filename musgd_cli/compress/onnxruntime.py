"""ONNX Runtime's int8: the float parent with QuantizeLinear/DequantizeLinear pairs (QDQ)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from musgd_cli.compress import onnx_graph, qdq
from musgd_cli.compress.precision import Built
from musgd_cli.records import Precision

if TYPE_CHECKING:
    from musgd_cli.compress.formats import Material


FILES = ("model.onnx",)
NEEDS: Mapping[Precision, tuple[str, ...]] = {"int8": ("onnx", "onnxruntime")}
EXTRA = "quantize"
NMS_FREE = True
STAND_IN = None

# With signed activations a model took twice the float one's time (measured).
SCHEME = qdq.Scheme(signed_activations=False)


def lacks(precision: Precision, boards: tuple[str, ...]) -> None:
    """Nothing: every machine that has the modules builds every precision."""


def build(material: Material, folder: Path, precision: Precision) -> str | None:
    """Write the float parent, quantized, into ``folder``.

    All operations are quantized but the decoding of boxes, the head's last convolutions and the
    attention. Measured, mAP50-95 lost on COCO128 (96 images, 640 px) and BCCD (159 images, 256 px),
    and time to the float model's at 640 px, one thread: so .001, .006, .55; with the attention in
    int8 .006, .004, .57; with all but the decoding in int8 .010, .004, .56; the head float too
    .001, .001, .59.

    Args:
        material: What to build from.
        folder: Gets ``model.onnx``.
        precision: ``int8``; the float model is the parent itself.
    """
    assert precision == "int8"
    keep_float = material.keep_float
    if not material.quantize_all:
        graph = onnx_graph.load(material.onnx).graph
        keep_float |= onnx_graph.decode_nodes(graph)
        keep_float |= onnx_graph.last_convolutions(graph) | onnx_graph.attention_nodes(graph)
    qdq.quantize(material, folder / FILES[0], SCHEME, keep_float=keep_float)
    return material.method


def read_back(folder: Path) -> Built:
    """Read from the model what its convolutions are computed in; see `onnx_graph.read_back`."""
    return onnx_graph.read_back(folder / FILES[0])
