"""What int8 harms is found: the decoding of boxes, by far, and in a fixed order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from musgd_cli.compress import onnx_graph, onnxruntime, sensitivity


@pytest.fixture(scope="module")
def everything(material, tmp_path_factory):
    """The model with all of it in int8."""
    folder = tmp_path_factory.mktemp("everything")
    onnxruntime.build(replace(material, quantize_all=True), folder, "int8")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def ranked(material, everything):
    """Of every fifth convolution, and of all that is none."""
    told = []
    nodes = onnx_graph.load(material.onnx).graph.node
    convolutions = [node.name for node in nodes if node.op_type == "Conv"]
    others = [node.name for node in nodes if "/act/" not in node.name and node.op_type != "Conv"]
    found = sensitivity.rank(
        material.onnx,
        everything,
        list(material.inputs)[:2],
        convolutions[::5] + others,
        on_progress=told.append,
    )
    assert told[-1] == f"int8 in part {len(told)} of {len(told)} alone"
    return found


def test_decoding_is_worst_by_far(ranked, material):
    worst, second = ranked[:2]
    graph = onnx_graph.load(material.onnx).graph
    head = onnx_graph.head_scope(graph)
    assert {f"{head}Concat_3", f"{head}Sigmoid"} <= set(worst.nodes)
    assert set(worst.nodes) <= onnx_graph.decode_nodes(graph)
    assert worst.error > 2 * second.error
    assert [row.error for row in ranked] == sorted((row.error for row in ranked), reverse=True)


def test_a_convolution_stands_with_its_activation(ranked, material):
    graph = onnx_graph.load(material.onnx).graph
    kinds = {node.name: node.op_type for node in graph.node}
    (first,) = (row for row in ranked if "/model.0/conv/Conv" in row.nodes)
    assert first.nodes == ("/model.0/conv/Conv", "/model.0/act/Sigmoid", "/model.0/act/Mul")
    names = [name for row in ranked for name in row.nodes]
    assert len(names) == len(set(names))
    assert len([name for name in names if kinds[name] == "Conv"]) == 21


def test_the_same_again(ranked, material, everything):
    nodes = [row.nodes[0] for row in ranked[:6]]
    again = sensitivity.rank(
        material.onnx, onnx_graph.load(everything), list(material.inputs)[:2], nodes
    )
    assert again == ranked[:6]


def test_parts_that_are_float_are_left_out(material, tmp_path):
    onnxruntime.build(material, tmp_path, "int8")
    graph = onnx_graph.load(material.onnx).graph
    decode = onnx_graph.decode_nodes(graph)
    nodes = ["/model.0/conv/Conv", *decode]
    inputs = list(material.inputs)[:1]
    (found,) = sensitivity.rank(material.onnx, tmp_path / "model.onnx", inputs, nodes)
    assert found.nodes[0] == "/model.0/conv/Conv"


def test_the_head_without_nms(nms_free_material, tmp_path):
    onnxruntime.build(replace(nms_free_material, quantize_all=True), tmp_path, "int8")
    graph = onnx_graph.load(nms_free_material.onnx).graph
    decode = onnx_graph.decode_nodes(graph)
    some = [
        next(n.name for n in graph.node if n.op_type == "Conv"),
        f"{onnx_graph.head_scope(graph)}Sigmoid",
    ]
    inputs = list(nms_free_material.inputs)[:1]
    worst, other = sensitivity.rank(nms_free_material.onnx, tmp_path / "model.onnx", inputs, some)
    assert set(worst.nodes) & decode
    assert worst.error > other.error > 0
