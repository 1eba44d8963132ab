"""TensorRT's ONNX: its types are those that the engine shall compute in.

TensorRT 10, 11 and TensorRT-RTX build strongly typed engines: what the ONNX holds in float16 or
between int8 QuantizeLinear/DequantizeLinear pairs runs so, and nothing else does. What was built is
therefore read from the ONNX.

TensorRT 8.2, which is where JetPack 4.6 ends, is weakly typed: the ONNX is float32, and ``--fp16``
lets the builder, on the board, choose float16 layer by layer, the decoding of boxes included. Its
parser got "native FP16 support for importing and manipulating FP16 initializers" only with 8.4, as
its changelog says. The weights are rounded here to numbers of half precision, which float16 layers
take over as they are: what that rounding costs is in the gate's figures, and it is what is read
back. What the board's float16 arithmetic costs beside it, only the board can tell.

An engine runs on the GPU and the TensorRT it was built for, so the machine that runs a model builds
it: see `musgd_cli.runtime.tensorrt`. TensorRT-RTX, where it is installed, builds without a GPU, and
for several kinds of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from musgd_cli.compress import half, onnx_graph, qdq, tensorrt_operators
from musgd_cli.compress.precision import Built
from musgd_cli.errors import UsageError
from musgd_cli.records import Precision
from musgd_cli.runtime import tensorrt_plan

if TYPE_CHECKING:
    from onnx import ModelProto

    from musgd_cli.compress.formats import Material

FILES = ("model.onnx",)
NEEDS: Mapping[Precision, tuple[str, ...]] = {
    "fp16": ("onnx", "onnxruntime"),
    "int8": ("onnx", "onnxruntime"),
}
EXTRA = "quantize"
NMS_FREE = True
STAND_IN = "onnxruntime"

VERSIONS: Mapping[str, str] = {"jetson-nano": "8.2", "jetson-nano-2gb": "8.2"}
"""Boards whose TensorRT is an old one. Others have 10 or newer."""

RTX_ENGINE = "model.rtx.engine"
"""What TensorRT-RTX builds beside the ONNX."""

BUILDERS = ("tensorrt", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13")
"""Distributions that an engine depends on: it runs on the version it was built by."""

# TensorRT takes int8 with zero points of 0 alone, and no int32 bias. A convolution's result goes on
# in float through its activation, into which TensorRT fuses it, and is rounded by whoever takes it.
SCHEME = qdq.Scheme(
    signed_activations=True,
    options={
        "ActivationSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": ["Conv"],
    },
)


def old_version(boards: tuple[str, ...]) -> str | None:
    """Return the old TensorRT that one of the boards has; ``None``: all have 10 or newer."""
    return next((VERSIONS[board] for board in boards if board in VERSIONS), None)


def lacks(precision: Precision, boards: tuple[str, ...]) -> tuple[str, str] | None:
    """Return why ``precision`` is of no use to these boards, and the mend; ``None`` if it is."""
    if precision == "int8" and old_version(boards) is not None:
        return (
            "the Maxwell GPU of a Jetson Nano has no int8 arithmetic",
            "leave --int8 out: fp16 is what that GPU is fast at",
        )
    return None


def build(material: Material, folder: Path, precision: Precision) -> str | None:
    """Write the ONNX, and TensorRT-RTX's engine where that is installed, into ``folder``.

    In int8 the convolutions are quantized but the head's last ones; all else stays float. Measured,
    mAP50-95 lost on COCO128 (96 images, 640 px) and BCCD (159 images, 256 px): so -.000 and .005;
    with the attention's convolutions in float .002 and .005; with all but them and the decoding in
    int8 .019 and .011.

    Args:
        material: What to build from.
        folder: Gets ``model.onnx``.
        precision: ``fp16`` or ``int8``.

    Raises:
        UsageError: The target's TensorRT cannot read it.
        MusgdError: TensorRT-RTX is installed and builds no engine of it.
    """
    file = folder / FILES[0]
    source = onnx_graph.load(material.onnx)
    version = old_version(material.boards)
    if version is not None:
        _require_readable(source, version)
    method = None
    if precision == "int8":
        qdq.quantize(
            material, file, SCHEME, keep_float=_kept_float(material, source), kinds=_kinds(material)
        )
        method = material.method
    elif version is None:
        _save(half.to_half(source, onnx_graph.decode_nodes(source.graph)), file)
    else:
        _save(half.round_to_half(source), file)
    if version is None:
        build_engine(file)
    return method


def _kept_float(material: Material, source: ModelProto) -> frozenset[str]:
    if material.quantize_all:
        return material.keep_float
    return material.keep_float | onnx_graph.last_convolutions(source.graph)


def _kinds(material: Material) -> list[str] | None:
    return None if material.quantize_all else ["Conv"]


def _save(model: ModelProto, file: Path) -> None:
    import onnx

    onnx.save(model, file)


def _require_readable(model: ModelProto, version: str) -> None:
    faults = tensorrt_operators.unreadable(model, version)
    if faults:
        raise UsageError(
            f"TensorRT {version} cannot read {', '.join(faults)}",
            "--no-nms-free" if "Mod" in faults else "please report it, with the model's YAML",
        )


def read_back(folder: Path) -> Built:
    """Read from the ONNX what its convolutions are computed in; see `onnx_graph.read_back`.

    A float32 ONNX is fp16 where all weights of its convolutions are numbers of half precision: so
    they are handed to TensorRT 8.2.
    """
    found = onnx_graph.read_back(folder / FILES[0], needs_rounded_result=False)
    if found.precision != "fp32":
        return found
    graph = onnx_graph.load(folder / FILES[0]).graph
    taken = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    if all(half.is_half(tensor) for tensor in graph.initializer if tensor.name in taken):
        return Built("fp16", 0.0, (), found.float_layers)
    return found


# ------------------------------------------------------------------------------------- the engine


def build_engine(onnx: Path) -> None:
    """Build an engine beside an ONNX by TensorRT-RTX, where it is installed: it needs no GPU.

    Raises:
        MusgdError: TensorRT-RTX builds none.
    """
    name = "tensorrt_rtx"
    if find_spec(name) is None:
        return
    try:
        plan = tensorrt_plan.Network(import_module(name), onnx).build()
    except (ImportError, tensorrt_plan.TensorRtError) as error:
        raise tensorrt_plan.refused(name, error) from error
    (onnx.parent / RTX_ENGINE).write_bytes(plan)
