"""Int8 in an ONNX graph: QuantizeLinear/DequantizeLinear pairs (QDQ) by ONNX Runtime's quantizer.

Calibration is apart from quantization: the ranges of a parent's activations are found once and kept
in the memo, and every rebuild with other nodes in float takes them from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.compress.formats import Material


@dataclass(frozen=True)
class Scheme:
    """How tensors become int8. Weights are signed and symmetric, with one scale a channel."""

    signed_activations: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    """``extra_options`` of ``onnxruntime.quantization.quantize_static``."""


def quantize(
    material: Material,
    file: Path,
    scheme: Scheme,
    *,
    keep_float: Collection[str],
    kinds: Collection[str] | None = None,
) -> None:
    """Write the float parent, quantized.

    A node that stays float keeps its weights; a tensor that it shares with a quantized node is
    rounded for that one's sake.

    Args:
        material: What to build from, and what calibrates.
        file: The ``.onnx`` to write.
        scheme: How.
        keep_float: Names of the nodes that stay float.
        kinds: Operators that are quantized. Default: all that the library can.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    quantizer = QDQQuantizer(
        load_model_with_shape_infer(material.onnx),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if scheme.signed_activations else QuantType.QUInt8,
        tensors_range=_ranges(material),
        nodes_to_quantize=[],
        nodes_to_exclude=sorted(keep_float),
        op_types_to_quantize=sorted(kinds or _every_kind()),
        extra_options={"WeightSymmetric": True, **scheme.options},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(file))


def _every_kind() -> set[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return {*QLinearOpsRegistry, *QDQRegistry}


def _ranges(material: Material) -> Any:
    """Return the activation ranges of a parent, found now or in the memo.

    ``minmax`` is the mean over images of each minimum and maximum (measured on BCCD, 159 images:
    mAP50-95 .4882; with the extremes over all images .4831; float .4943). ``percentile`` and
    ``entropy`` are the library's, fed an image at a time: in one call it holds every activation of
    every image, at 640 px 160 MB each.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    key = ("qdq ranges", material.method)
    if key in material.memo:
        return material.memo[key]
    assert material.inputs is not None
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    is_minmax = material.method == "minmax"
    with TemporaryDirectory(prefix="musgd-calibration-") as scratch:
        calibrator = create_calibrator(
            material.onnx,
            sorted(_every_kind()),
            augmented_model_path=str(Path(scratch) / "augmented.onnx"),
            calibrate_method=methods[material.method],
            extra_options={"moving_average": True} if is_minmax else {},
        )
        name = calibrator.infer_session.get_inputs()[0].name
        if is_minmax:
            calibrator.collect_data(_Feed(name, material.inputs))
        else:
            for x in material.inputs:
                calibrator.collect_data(_Feed(name, [x]))
        material.memo[key] = calibrator.compute_data()
    return material.memo[key]


class _Feed:
    """What ONNX Runtime wants to be fed by: inputs by name, then ``None``."""

    def __init__(self, name: str, inputs: Iterable[NDArray[np.float32]]) -> None:
        self._name = name
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        x = next(self._inputs, None)
        return None if x is None else {self._name: x}
