"""OpenVINO's IR from the float parent: as it is, with half-precision weights, or int8 by NNCF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.compress import onnx_graph
from musgd_cli.compress.precision import Built, built
from musgd_cli.records import Precision

if TYPE_CHECKING:
    from musgd_cli.compress.calibration import Inputs
    from musgd_cli.compress.formats import Material

FILES = ("model.xml", "model.bin")
NEEDS: Mapping[Precision, tuple[str, ...]] = {
    "fp32": ("openvino",),
    "fp16": ("openvino",),
    "int8": ("openvino", "nncf"),
}
EXTRA = "quantize"
NMS_FREE = True
STAND_IN = None

METHOD = "nncf-mean-minmax"
"""NNCF's default: the mean over images of each minimum and maximum, whatever is asked."""

_CONVOLUTIONS = ("Convolution", "GroupConvolution")

# They hand values on as they are, or choose among them, so an int8 input makes an int8 output.
# NNCF puts one quantizer before several of them rather than one behind each.
_TRANSPARENT = frozenset(
    {
        *("Concat", "Split", "VariadicSplit", "Slice", "StridedSlice", "Gather"),
        *("MaxPool", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Interpolate"),
    }
)
# Between a weight as it is stored and the convolution: widened, shifted, scaled.
_DEQUANTIZING = frozenset({"Convert", "Subtract", "Multiply", "Reshape"})


def lacks(precision: Precision) -> None:  # noqa: ARG001
    """Nothing: every machine that has the modules builds every precision."""


def build(material: Material, folder: Path, precision: Precision) -> str | None:
    """Write the float parent as OpenVINO's IR into ``folder``.

    Args:
        material: What to build from.
        folder: Gets ``model.xml`` and ``model.bin``.
        precision: ``fp16`` stores weights so, and OpenVINO widens them where a CPU has no half
            precision; ``int8`` is quantized by NNCF.
    """
    import openvino

    # read_model and not convert_model, which reports to its maker.
    model = openvino.Core().read_model(material.onnx)
    if precision == "int8":
        assert material.inputs is not None
        model = _quantize(model, material.onnx, material.inputs)
    openvino.save_model(model, folder / FILES[0], compress_to_fp16=precision == "fp16")
    return METHOD if precision == "int8" else None


def _quantize(model: Any, onnx: Path, inputs: Inputs) -> Any:
    import nncf
    from nncf.common.logging.logger import disable_logging

    disable_logging()  # its handler holds the stdout of the moment it was imported
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=_kept_float(model, onnx)),
    )


def _kept_float(model: Any, onnx: Path) -> list[str]:
    """Name the operations that int8 harms or does not speed up.

    Measured on BCCD at 256 px, one thread, 159 images, ONNX Runtime float .4943 mAP50-95: all but
    the decoding in int8 .4825 at .67 of its time; the head float too .4866 at .68; SiLU too, whose
    quantizers cost more than they save, .4861 at .53.
    """
    head = onnx_graph.head_scope(onnx_graph.load(onnx).graph)
    names = []
    for op in model.get_ops():
        kind, name = op.get_type_name(), op.get_friendly_name()
        gated = kind == "Multiply" and any(
            source.get_node().get_type_name() == "Sigmoid" for source in op.input_values()
        )
        if kind not in ("Constant", "Parameter", "Result") and (
            name.startswith(head) or kind == "Sigmoid" or gated
        ):
            names.append(name)
    return names


def read_back(folder: Path) -> Built:
    """Read from the IR what its convolutions are computed in.

    A convolution is int8 when its weights are stored as int8 and its data comes out of a
    ``FakeQuantize`` of at most 256 levels.
    """
    import openvino

    model = openvino.Core().read_model(folder / FILES[0])
    macs = int8_macs = half_macs = 0.0
    for op in model.get_ops():
        if op.get_type_name() not in _CONVOLUTIONS:
            continue
        stored = _stored_type(op.input_value(1).get_node())
        # Of (out, in, height, width), or the same behind a leading axis of groups, the last three
        # are what one output value sums over.
        own = math.prod(op.output(0).shape) * math.prod(list(op.input_value(1).shape)[-3:])
        macs += own
        if stored in ("i8", "u8") and _is_quantized(op.input_value(0).get_node()):
            int8_macs += own
        elif stored == "f16":
            half_macs += own
    return built(int8_macs, macs, "fp16" if half_macs > (macs - int8_macs) / 2 else "fp32")


def _stored_type(node: Any) -> str:
    while node.get_type_name() in _DEQUANTIZING:
        node = node.input_value(0).get_node()
    return str(node.get_output_element_type(0).get_type_name())


def _is_quantized(node: Any) -> bool:
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        return int(node.get_attributes()["levels"]) <= 256
    if kind not in _TRANSPARENT:
        return False
    sources = node.input_values() if kind == "Concat" else [node.input_value(0)]
    return all(_is_quantized(source.get_node()) for source in sources)
