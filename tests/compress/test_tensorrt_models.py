"""What TensorRT is given: the types it computes in, and what its old parser can read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musgd_cli.compress import half, onnx_graph, tensorrt, tensorrt_operators
from musgd_cli.errors import UsageError
from musgd_cli.runtime import tensorrt_plan


def run(file: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def types_of(file: Path) -> dict[str, str]:
    """The type of each tensor, as the graph works it out."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(file), strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    names = {value.name: value.type.tensor_type.elem_type for value in values}
    names |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: onnx.TensorProto.DataType.Name(number) for name, number in names.items()}


@pytest.fixture(scope="module")
def sample(material) -> np.ndarray:
    return next(iter(material.inputs))


@pytest.fixture(scope="module")
def half_model(material, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    tensorrt.build(material, folder, "fp16")
    return folder


@pytest.fixture(scope="module")
def int8_model(material, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    assert tensorrt.build(material, folder, "int8") == "minmax"
    return folder


def test_fp16_computes_in_half_and_decodes_in_float(half_model, material):
    import onnx

    model = onnx.load(half_model / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    types = types_of(half_model / "model.onnx")
    decode = onnx_graph.decode_nodes(onnx.load(material.onnx).graph)
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert {types[name] for name in node.input} == {"FLOAT16"}, node.name
        elif node.name in decode:
            assert "FLOAT16" not in {types.get(name) for name in (*node.input, *node.output)}
    assert types[model.graph.input[0].name] == types[model.graph.output[0].name] == "FLOAT"
    found = tensorrt.read_back(half_model)
    assert (found.precision, len(found.float_layers)) == ("fp16", 102)


def test_fp16_answers_as_its_parent(half_model, material, sample):
    expected, found = run(material.onnx, sample), run(half_model / "model.onnx", sample)
    assert 0 < np.quantile(np.abs(expected - found)[:, :4], 0.9) < 0.5  # px, of 64
    assert np.quantile(np.abs(expected - found)[:, 4:], 0.9) < 0.01


def test_int8_is_what_tensorrt_reads(int8_model):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(int8_model / "model.onnx").graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.data_type == onnx.TensorProto.INT8, node.name
        assert not numpy_helper.to_array(zero).any()
    makers = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert all(node.input[2] in constants for node in convolutions)  # a float bias
    found = tensorrt.read_back(int8_model)
    assert found.precision == "int8"
    assert [name for name in found.float_layers if not name.endswith(".2/Conv")] == []
    assert len(found.float_layers) == 6
    in_int8 = [n.name for n in convolutions if makers.get(n.input[1]) == "DequantizeLinear"]
    assert sorted(in_int8) == sorted(found.int8_layers)


def test_int8_layers_return_to_float_without_calibrating_again(material, tmp_path):
    known = {}
    tensorrt.build(replace(material, memo=known), tmp_path, "int8")
    kept = frozenset({"/model.0/conv/Conv"})
    again = replace(material, inputs=None, keep_float=kept, memo=known)
    tensorrt.build(again, tmp_path, "int8")
    found = tensorrt.read_back(tmp_path)
    assert kept < set(found.float_layers)
    assert "/model.1/conv/Conv" in found.int8_layers


def test_everything_in_int8_spoils_the_scores(material, tmp_path, sample):
    tensorrt.build(replace(material, quantize_all=True), tmp_path, "int8")
    expected, found = run(material.onnx, sample), run(tmp_path / "model.onnx", sample)
    levels = np.unique(found[:, 4:])
    assert len(levels) < len(np.unique(expected[:, 4:])) / 10  # one scale for pixels and scores


# ------------------------------------------------------------------------------------------- 8.2


def test_the_nano_gets_float_tensors_with_half_weights(material, tmp_path, sample):
    import onnx

    tensorrt.build(replace(material, boards=("jetson-nano",)), tmp_path, "fp16")
    file = tmp_path / "model.onnx"
    assert "FLOAT16" not in types_of(file).values()
    model = onnx.load(file)
    assert [entry.version for entry in model.opset_import] == [13]
    assert tensorrt_operators.unreadable(model, "8.2") == []
    assert tensorrt.read_back(tmp_path).precision == "fp16"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # no engine from elsewhere
    assert np.quantile(np.abs(run(material.onnx, sample) - run(file, sample)), 0.9) < 0.5


def test_float_weights_are_not_called_half(material, tmp_path):
    (tmp_path / "model.onnx").write_bytes(material.onnx.read_bytes())
    assert tensorrt.read_back(tmp_path).precision == "fp32"


def test_the_nano_cannot_read_the_head_without_nms(nms_free_material, tmp_path):
    with pytest.raises(UsageError, match=r"TensorRT 8\.2 cannot read .*Mod") as told:
        tensorrt.build(replace(nms_free_material, boards=("jetson-nano",)), tmp_path, "fp16")
    assert "--no-nms-free" in told.value.mend
    tensorrt.build(nms_free_material, tmp_path, "fp16")
    assert tensorrt.read_back(tmp_path).precision == "fp16"


def test_the_nano_has_no_int8():
    why, _ = tensorrt.lacks("int8", ("jetson-nano", "jetson-nano-2gb"))
    assert "Maxwell" in why
    assert tensorrt.lacks("fp16", ("jetson-nano",)) is None
    assert tensorrt.lacks("int8", ("x86-gpu",)) is None


def test_what_it_reads_is_the_table_of_8_0_and_what_came_with_8_2(monkeypatch):
    from onnx import TensorProto, helper, shape_inference

    # The nodes below have none of the inputs that they need, and it trips over some.
    monkeypatch.setattr(shape_inference, "infer_shapes", lambda model: model)

    def is_read(kind: str) -> bool:
        values = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("a", "b")
        ]
        graph = helper.make_graph(
            [helper.make_node(kind, ["a"], ["b"])], "one", *[[v] for v in values]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        return kind not in tensorrt_operators.unreadable(model, "8.2")

    table = Path(__file__).with_name("onnx-tensorrt-8.0-operators.txt").read_text()
    lines = [line.split() for line in table.splitlines() if not line.startswith("#")]
    before = {name for line in lines if line[0] != "-" for name in line}
    lacking = {name for line in lines if line[0] == "-" for name in line[1:]}
    # docs/Changelog.md: 8.2, its early access; NonMaxSuppression since 8.0, If "updated" with 8.2.
    new = {
        "Einsum",
        "IsNaN",
        "GatherND",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Sign",
        "Round",
    }
    new |= {"NonMaxSuppression", "If"}
    assert [name for name in sorted(before) if not is_read(name)] == []
    # The changelog says nothing of Dropout, which 8.4's table has and none of our models.
    assert {name for name in lacking if is_read(name)} == {*new, "Dropout"}


@pytest.mark.parametrize(
    ("kind", "type_name", "opset", "faults"),
    [
        ("MatMul", "FLOAT", 13, []),
        ("MatMul", "INT32", 13, ["MatMul of INT32"]),
        ("Add", "INT64", 13, []),
        ("Add", "UINT8", 13, ["Add of UINT8"]),
        ("Mod", "INT64", 13, ["Mod"]),
        ("Add", "FLOAT", 17, ["opset 17"]),
    ],
)
def test_what_the_old_parser_reads(kind, type_name, opset, faults):
    from onnx import TensorProto, helper

    values = [
        helper.make_tensor_value_info(name, getattr(TensorProto, type_name), [2, 2])
        for name in ("a", "b", "c")
    ]
    node = helper.make_node(kind, ["a", "b"], ["c"])
    graph = helper.make_graph([node], "one", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    assert tensorrt_operators.unreadable(model, "8.2") == faults


def test_rounding_to_half_leaves_the_rest(material):
    import onnx
    from onnx import numpy_helper

    source = onnx.load(material.onnx)
    rounded = {tensor.name: tensor for tensor in half.round_to_half(source).graph.initializer}
    weights = {n for node in source.graph.node if node.op_type == "Conv" for n in node.input[1:]}
    changed = 0
    for tensor in source.graph.initializer:
        before, after = map(numpy_helper.to_array, (tensor, rounded[tensor.name]))
        if tensor.name in weights:
            np.testing.assert_allclose(after, before, rtol=2**-11, atol=2**-24)
            changed += int((before != after).any())
        else:
            assert np.array_equal(before, after)
    assert changed > 100


# ---------------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_rtx_builds_an_engine_of_what_we_wrote(precision, material, tmp_path):
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx-cu12")
    tensorrt.build(material, tmp_path, precision)
    assert (tmp_path / tensorrt.RTX_ENGINE).stat().st_size > 1e6
    # What the runtime, which has no onnx, reads of it before it builds.
    assert tensorrt_plan.Network(trt, tmp_path / "model.onnx").precision == precision
    log = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(log).create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    assert trt.OnnxParser(network, log).parse_from_file(str(tmp_path / "model.onnx"))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    # A strongly typed engine may not leave the types of the network it is built from.
    convolutions = [layer for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
    assert len(convolutions) == 102
    if precision == "fp16":
        assert {layer.get_input(0).dtype for layer in convolutions} == {trt.DataType.HALF}
    else:
        makers = {layer.get_output(0).name: layer.type for layer in layers}
        fed = [makers.get(layer.get_input(0).name) for layer in convolutions]
        assert fed.count(trt.LayerType.DEQUANTIZE) >= 96


def test_an_engine_that_cannot_be_built_is_told(material, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx-cu12")
    import onnx

    from musgd_cli.errors import MusgdError

    model = onnx.load(material.onnx)
    model.graph.node[-1].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(MusgdError, match="builds no engine") as told:
        tensorrt.build_engine(tmp_path / "odd.onnx")
    assert "\n" not in told.value.what
