"""ONNX Runtime's int8: the float parent with QuantizeLinear/DequantizeLinear pairs (QDQ)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.compress import onnx_graph
from musgd_cli.compress.precision import Built
from musgd_cli.records import Precision

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.compress.calibration import Inputs
    from musgd_cli.compress.formats import Material


FILES = ("model.onnx",)
NEEDS: Mapping[Precision, tuple[str, ...]] = {"int8": ("onnx", "onnxruntime")}
EXTRA = "quantize"
NMS_FREE = True
STAND_IN = None


class _Reader:
    """What ONNX Runtime wants to be fed by: inputs by name, then ``None``."""

    def __init__(self, name: str, inputs: Inputs) -> None:
        self._name = name
        self._inputs: Iterator[NDArray[np.float32]] = iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        x = next(self._inputs, None)
        return None if x is None else {self._name: x}


def lacks(precision: Precision) -> None:  # noqa: ARG001
    """Nothing: every machine that has the modules builds every precision."""


def build(material: Material, folder: Path, precision: Precision) -> str | None:
    """Write the float parent, quantized, into ``folder``.

    All operations but the decoding of boxes are quantized, weights per channel; to quantize every
    operation, the library's default, halves mAP. Activations are unsigned and weights signed:
    with signed activations a model took twice the float one's time (measured).

    Args:
        material: What to build from. Its method is ``minmax``: the mean over images of each minimum
            and maximum (measured on BCCD, 159 images: mAP50-95 .4882; with the extremes over all
            images .4831; float .4943); or ``percentile`` or ``entropy`` as the library has them.
        folder: Gets ``model.onnx``.
        precision: ``int8``; the float model is the parent itself.
    """
    assert precision == "int8"
    assert material.inputs is not None
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    graph = onnx_graph.load(material.onnx).graph
    methods: dict[str, Any] = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    quantize_static(
        material.onnx,
        folder / FILES[0],
        _Reader(graph.input[0].name, material.inputs),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=sorted(onnx_graph.decode_nodes(graph)),
        calibrate_method=methods[material.method],
        extra_options={"WeightSymmetric": True, "CalibMovingAverage": material.method == "minmax"},
    )
    return material.method


def read_back(folder: Path) -> Built:
    """Read from the model what its convolutions are computed in; see `onnx_graph.read_back`."""
    return onnx_graph.read_back(folder / FILES[0])
