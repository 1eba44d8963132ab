"""OpenVINO's IR from the float parent: as it is, for half precision or bf16, or int8 by NNCF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.compress import onnx_graph
from musgd_cli.compress.precision import Built, built
from musgd_cli.hardware import cpu
from musgd_cli.records import Precision

if TYPE_CHECKING:
    from musgd_cli.compress.formats import Material

FILES = ("model.xml", "model.bin")
NEEDS: Mapping[Precision, tuple[str, ...]] = {
    "fp32": ("openvino",),
    "fp16": ("openvino",),
    "bf16": ("openvino",),
    "int8": ("openvino", "nncf"),
}
EXTRA = "quantize"
NMS_FREE = True
STAND_IN = None

_CONVOLUTIONS = ("Convolution", "GroupConvolution")

# What the importer appends to a convolution's name where it splits the bias off.
_SPLIT = "/WithoutBiases"

# Where the IR says what its float operations shall run in.
_HINT = ["musgd", "inference_precision"]

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


def lacks(precision: Precision, boards: tuple[str, ...]) -> tuple[str, str] | None:  # noqa: ARG001
    """Return why this machine cannot build ``precision``, and the mend; ``None`` if it can.

    A bf16 model is the fp32 one, run otherwise: where it cannot be run, it cannot be tried.
    """
    if precision != "bf16" or cpu.computes_bf16():
        return None
    return (
        "this CPU has neither avx512_bf16 nor amx_bf16, so bf16 would be emulated",
        "use the fp32 model; or export where the CPU has it",
    )


def build(material: Material, folder: Path, precision: Precision) -> str | None:
    """Write the float parent as OpenVINO's IR into ``folder``.

    Args:
        material: What to build from. NNCF has no ``entropy``: ``minmax`` is taken in its place,
            and returned.
        folder: Gets ``model.xml`` and ``model.bin``.
        precision: ``fp16`` stores weights so, and OpenVINO widens them where a CPU has no half
            precision; ``bf16`` notes in the IR that the engine is to compute in it; ``int8`` is
            quantized by NNCF.
    """
    import openvino

    # read_model and not convert_model, which reports to its maker.
    model = openvino.Core().read_model(material.onnx)
    method = None
    if precision == "int8":
        method = "percentile" if material.method == "percentile" else "minmax"
        model = _quantize(model, material, method)
    elif precision == "bf16":
        model.set_rt_info(precision, _HINT)
    openvino.save_model(model, folder / FILES[0], compress_to_fp16=precision == "fp16")
    return method


def _quantize(model: Any, material: Material, method: str) -> Any:
    """Quantize by NNCF.

    Its ``minmax`` is its default, the mean over images of each minimum and maximum; its
    ``percentile`` the mean over images of the .01 % and 99.99 % quantiles.
    """
    import nncf
    from nncf.common.logging.logger import disable_logging
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    assert material.inputs is not None
    disable_logging()  # its handler holds the stdout of the moment it was imported
    advanced = AdvancedQuantizationParameters()
    if method == "percentile":
        advanced.activations_range_estimator_params = RangeEstimatorParametersSet.MEAN_QUANTILE
    return nncf.quantize(
        model,
        nncf.Dataset(material.inputs),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(material.inputs),
        ignored_scope=nncf.IgnoredScope(names=_kept_float(model, material), validate=False),
        advanced_parameters=advanced,
    )


def _kept_float(model: Any, material: Material) -> list[str]:
    """Name the operations that int8 harms or does not speed up.

    They are the decoding, the head's last convolutions, and SiLU, whose quantizers cost more than
    they save. Measured at 640 px, one thread, time to ONNX Runtime's float model's in the same run:
    so .45; with all of the head in float .49; with SiLU in int8 .57. mAP50-95 lost on COCO128
    (96 images, 640 px) and BCCD (159 images, 256 px): so -.002 and .004; the last convolutions in
    int8 too .002 and .003; the head in float -.002 and .004.
    """
    graph = onnx_graph.load(material.onnx).graph
    kept = material.keep_float
    if not material.quantize_all:
        kept |= onnx_graph.decode_nodes(graph) | onnx_graph.last_convolutions(graph)
    names = []
    for op in model.get_ops():
        kind, name = op.get_type_name(), op.get_friendly_name()
        if kind in ("Constant", "Parameter", "Result"):
            continue
        is_silu = not material.quantize_all and (
            kind == "Sigmoid"
            or (
                kind == "Multiply"
                and any(s.get_node().get_type_name() == "Sigmoid" for s in op.input_values())
            )
        )
        if is_silu or name.removesuffix(_SPLIT) in kept:
            names.append(name)
    return names


def read_back(folder: Path) -> Built:
    """Read what the convolutions of the IR are computed in.

    A convolution is int8 when its weights are stored as int8 and its data comes out of a
    ``FakeQuantize`` of at most 256 levels. Whether an IR for bf16 is computed so, the engine alone
    tells: it is compiled, and the precisions of the graph that it executes are read.
    """
    import openvino

    model = openvino.Core().read_model(folder / FILES[0])
    macs = int8_macs = half_macs = 0.0
    names: dict[bool, list[str]] = {True: [], False: []}
    for op in model.get_ordered_ops():
        if op.get_type_name() not in _CONVOLUTIONS:
            continue
        stored = _stored_type(op.input_value(1).get_node())
        # Of (out, in, height, width), or the same behind a leading axis of groups, the last three
        # are what one output value sums over.
        own = math.prod(op.output(0).shape) * math.prod(list(op.input_value(1).shape)[-3:])
        macs += own
        is_int8 = stored in ("i8", "u8") and _is_quantized(op.input_value(0).get_node())
        names[is_int8].append(op.get_friendly_name().removesuffix(_SPLIT))
        if is_int8:
            int8_macs += own
        elif stored == "f16":
            half_macs += own
    rest: Precision = "fp16" if half_macs > (macs - int8_macs) / 2 else "fp32"
    if model.has_rt_info(_HINT) and _runs_in_bf16(model):
        rest = "bf16"
    return built(int8_macs, macs, rest, names[True], names[False])


def _runs_in_bf16(model: Any) -> bool:
    """Tell whether most of the convolutions run in bf16 when the engine is asked for it."""
    import openvino

    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    executed = [
        str(info["runtimePrecision"].astype(str))
        for info in (op.get_rt_info() for op in compiled.get_runtime_model().get_ops())
        if str(info["layerType"].astype(str)) in _CONVOLUTIONS
    ]
    return executed.count("bf16") > len(executed) / 2


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
