"""Int8 pairs in an ONNX: the library's own, but calibrated once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from musgd_cli.compress import onnx_graph, onnxruntime, qdq
from musgd_cli.errors import MusgdError


@dataclass
class Once:
    """Inputs that may be gone through a single time."""

    inputs: object
    passes: int = 0

    def __len__(self):
        return len(self.inputs)

    def __iter__(self):
        self.passes += 1
        assert self.passes == 1, "calibrated again"
        return iter(self.inputs)


class Feed:
    def __init__(self, inputs):
        self.inputs = iter(inputs)

    def get_next(self):
        x = next(self.inputs, None)
        return None if x is None else {"images": x}


def quantized(material, folder: Path) -> Path:
    assert onnxruntime.build(material, folder, "int8") == material.method
    return folder / "model.onnx"


def test_it_is_what_the_library_makes_in_one_call(material, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_static

    graph = onnx_graph.load(material.onnx).graph
    kept = onnx_graph.decode_nodes(graph)
    qdq.quantize(
        replace(material, memo={}),
        tmp_path / "ours.onnx",
        qdq.Scheme(signed_activations=False),
        keep_float=kept,
    )
    quantize_static(
        material.onnx,
        tmp_path / "theirs.onnx",
        Feed(material.inputs),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=sorted(kept),
        extra_options={"WeightSymmetric": True, "CalibMovingAverage": True},
    )
    assert (tmp_path / "ours.onnx").read_bytes() == (tmp_path / "theirs.onnx").read_bytes()


def test_calibration_happens_once(material, tmp_path):
    once = replace(material, inputs=Once(material.inputs), memo={})
    first = quantized(once, tmp_path).read_bytes()
    kept = frozenset({"/model.1/conv/Conv"})
    assert kept < set(
        onnxruntime.read_back(
            quantized(replace(once, keep_float=kept), tmp_path).parent
        ).float_layers
    )
    assert quantized(once, tmp_path).read_bytes() == first


def test_harmful_operations_stay_float(material, tmp_path):
    found = onnx_graph.read_back(quantized(material, tmp_path))
    assert found.precision == "int8"
    assert len(found.int8_layers) + len(found.float_layers) == 102
    assert all("/attn/" in name or name.endswith(".2/Conv") for name in found.float_layers)
    assert len(found.float_layers) == 12


def test_every_operation_where_that_is_asked_for(material, tmp_path):
    file = quantized(replace(material, quantize_all=True), tmp_path)
    graph = onnx_graph.load(file).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    assert makers[graph.output[0].name] == "DequantizeLinear"
    kept = frozenset({"/model.23/Concat_3"})
    again = quantized(replace(material, quantize_all=True, keep_float=kept), tmp_path)
    graph = onnx_graph.load(again).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    assert makers[graph.output[0].name] == "Concat"


@pytest.mark.parametrize("method", ["percentile", pytest.param("entropy", marks=pytest.mark.slow)])
def test_other_methods_clip_more(method, material, tmp_path):
    def spread(which: str) -> np.ndarray:
        from onnx import numpy_helper

        made = replace(material, method=which, memo={})
        graph = onnx_graph.load(quantized(made, tmp_path)).graph
        scales = {t.name: t for t in graph.initializer}
        used = [n.input[1] for n in graph.node if n.op_type == "QuantizeLinear"]
        return np.array([float(numpy_helper.to_array(scales[name])) for name in used])

    ours, default = spread(method), spread("minmax")
    assert ours.shape == default.shape
    assert (ours != default).mean() > 0.5


def test_shares_count_every_convolution(material):
    """Shape inference alone sees 7 of the 102, and a share of those says little."""
    macs = onnx_graph.macs_of(onnx_graph.load(material.onnx))
    assert len(macs) == 102
    assert all(macs.values())
    # 5.4 GFLOPs at 640 px by Ultralytics' count for 80 classes, two a multiply-accumulate.
    assert sum(macs.values()) == pytest.approx(5.2e9 / 2 * (64 / 640) ** 2, rel=0.05)


def test_a_convolution_whose_result_goes_elsewhere_too_is_not_int8(material, tmp_path):
    """ONNX Runtime then computes it in float."""
    import onnx

    file = quantized(material, tmp_path)
    model = onnx.load(file)
    conv = next(n for n in model.graph.node if n.name == "/model.0/conv/Conv")
    model.graph.output.append(onnx.ValueInfoProto(name="also"))
    model.graph.node.append(onnx.helper.make_node("Identity", [conv.output[0]], ["also"]))
    onnx.save(model, file)
    assert conv.name in onnx_graph.read_back(file).float_layers
    assert conv.name in onnx_graph.read_back(file, needs_rounded_result=False).int8_layers


def test_no_onnx(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(MusgdError, match="cannot be read as ONNX"):
        onnxruntime.read_back(tmp_path)
