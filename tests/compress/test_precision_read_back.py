"""Precision is read from what was built, never taken from what was asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from musgd_cli.compress import onnx_graph, openvino
from musgd_cli.compress.precision import built
from musgd_cli.errors import MusgdError
from musgd_cli.records import INT8_SHARE


@cases(st.floats(0, 1e9), st.floats(0, 1e9))
def test_int8_takes_four_fifths(int8_macs, other):
    found = built(int8_macs, int8_macs + other, "fp32")
    if found.precision == "int8":
        assert found.int8_macs_share >= INT8_SHARE
    elif found.precision == "mixed-int8":
        assert 0 < found.int8_macs_share < INT8_SHARE
    else:
        assert found.int8_macs_share == 0


def test_int8_models_are_found_int8(job):
    quantized = Path(job.artifact("x86-cpu", "onnxruntime", "int8").path) / "model.onnx"
    found = onnx_graph.read_back(quantized)
    assert found.int8_macs_share > 0.95
    assert len(found.int8_layers) > 5 * len(found.float_layers)
    assert (
        openvino.read_back(Path(job.artifact("x86-cpu", "openvino", "int8").path)).int8_macs_share
        > 0.8
    )


def test_openvino_runs_as_many_convolutions_in_int8_as_the_file_says(job):
    """The engine's own word: the precisions of the graph that it executes."""
    import openvino as runtime

    artifact = job.artifact("x86-cpu", "openvino", "int8")
    model = Path(artifact.path) / "model.xml"
    compiled = runtime.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = [
        (info["layerType"].astype(str), info["runtimePrecision"].astype(str))
        for info in (op.get_rt_info() for op in compiled.get_runtime_model().get_ops())
    ]
    executed = [precision for kind, precision in kinds if kind == "Convolution"]
    assert len(executed) > 50
    assert sum(precision in ("u8", "i8") for precision in executed) > len(executed) / 2


def test_a_float_model_is_not_called_int8(job):
    parent = Path(job.artifact("x86-cpu", "onnxruntime", "fp32").path)
    found = onnx_graph.read_back(parent / "model.onnx")
    assert (found.precision, found.int8_macs_share, found.int8_layers) == ("fp32", 0, ())


def test_weights_in_int8_alone_are_not_int8(job, tmp_path):
    """Its activations stay float, so the arithmetic is float."""
    import onnx

    source = Path(job.artifact("x86-cpu", "onnxruntime", "int8").path) / "model.onnx"
    model = onnx.load(source)
    sources = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[0] in sources:
            quantize = next(
                n for n in model.graph.node if sources[node.input[0]].input[0] in n.output
            )
            node.input[0] = quantize.input[0]
    onnx.save(model, tmp_path / "weights-only.onnx")
    assert onnx_graph.read_back(tmp_path / "weights-only.onnx").precision == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_stored_precision(precision, run_export, tmp_path):
    flags = {"compress.precisions": (precision,), "compress.runtimes": ("ncnn", "openvino")}
    made = run_export(tmp_path, targets=["pi4b"], flags=flags)
    built_as = {a.runtime: (a.precision, a.size_mb) for a in made.report.artifacts[1:]}
    assert built_as["ncnn"][0] == built_as["openvino"][0] == precision
    assert (built_as["ncnn"][1] < 6) == (precision == "fp16")


def test_decoding_stays_float(job):
    parent = Path(job.artifact("x86-cpu", "onnxruntime", "fp32").path) / "model.onnx"
    graph = onnx_graph.load(parent).graph
    decode = onnx_graph.decode_nodes(graph)
    head = onnx_graph.head_scope(graph)
    assert head == "/model.23/"
    assert all(name.startswith(head) for name in decode)
    assert f"{head}Sigmoid" in decode
    quantized = Path(job.artifact("x86-cpu", "onnxruntime", "int8").path) / "model.onnx"
    sigmoid = next(n for n in onnx_graph.load(quantized).graph.node if n.name == f"{head}Sigmoid")
    takers = [
        n.op_type for n in onnx_graph.load(quantized).graph.node if sigmoid.output[0] in n.input
    ]
    assert "QuantizeLinear" not in takers


def test_a_cut_onnx(job, tmp_path):
    parent = Path(job.artifact("x86-cpu", "onnxruntime", "fp32").path) / "model.onnx"
    (tmp_path / "cut.onnx").write_bytes(parent.read_bytes()[:9999])
    with pytest.raises(MusgdError, match="cannot be read as ONNX"):
        onnx_graph.read_back(tmp_path / "cut.onnx")
