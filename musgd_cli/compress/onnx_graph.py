"""What an ONNX graph says: which of its nodes only decode, and what precision it holds."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from musgd_cli.compress.precision import Built, built
from musgd_cli.errors import MusgdError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def load(file: Path) -> ModelProto:
    """Read an ONNX file.

    Raises:
        MusgdError: It is damaged or no ONNX.
    """
    import onnx

    try:
        return onnx.load(file)
    except Exception as error:  # protobuf's DecodeError lies in a package without types
        raise MusgdError(
            f"{file} cannot be read as ONNX: {error}", "musgd export makes it again"
        ) from error


def decode_nodes(graph: GraphProto) -> frozenset[str]:
    """Return the names of the nodes after the last convolutions.

    They turn raw predictions into boxes and scores. Box pixels, 0 to 640, and scores, 0 to 1, share
    tensors there, and one int8 scale for both rounds every score to 0: these stay float.
    """
    makers = {output: node for node in graph.node for output in node.output}
    before: set[str] = set()
    waiting = [name for node in graph.node if node.op_type == "Conv" for name in node.input]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in before:
            before.add(node.name)
            waiting += node.input
    return frozenset(
        node.name for node in graph.node if node.op_type != "Conv" and node.name not in before
    )


def head_scope(graph: GraphProto) -> str:
    """Return what the names of the detection head's nodes begin with, such as ``/model.23/``.

    torch names a node by the module that made it, and the head makes the output.
    """
    output = graph.output[0].name
    maker: str = next(node.name for node in graph.node if output in node.output)
    return maker.rpartition("/")[0] + "/"


def attention_nodes(graph: GraphProto) -> frozenset[str]:
    """Return the names of the nodes of attention modules, their convolutions included."""
    return frozenset(node.name for node in graph.node if "/attn/" in node.name)


def last_convolutions(graph: GraphProto) -> frozenset[str]:
    """Return the names of the convolutions whose results only decoding takes."""
    decode = decode_nodes(graph)
    taken = {name for node in graph.node if node.name in decode for name in node.input}
    return frozenset(
        node.name for node in graph.node if node.op_type == "Conv" and node.output[0] in taken
    )


def read_back(file: Path, *, needs_rounded_result: bool = True) -> Built:
    """Read from an ONNX file what its convolutions are computed in.

    Args:
        file: The ``.onnx``.
        needs_rounded_result: A convolution is int8 when its data and its weights come out of int8
            ``DequantizeLinear``; ONNX Runtime computes it so only if its result goes into
            ``QuantizeLinear`` and nowhere else, TensorRT in any case.

    Raises:
        MusgdError: The file is damaged, or a convolution's weights are of an unknown type.
    """
    model = load(file)
    reader = _Reader(model)
    macs: dict[str, float] = defaultdict(float)
    names: dict[bool, list[str]] = {True: [], False: []}
    for node in model.graph.node:
        if node.op_type == "Conv":
            precision = reader.precision_of(node, needs_rounded_result)
            macs[precision] += reader.macs_of(node)
            names[precision == "int8"].append(node.name)
    stored = max((name for name in macs if name != "int8"), key=macs.__getitem__, default="fp32")
    return built(
        macs["int8"],
        sum(macs.values()),
        "fp16" if stored == "fp16" else "fp32",
        names[True],
        names[False],
    )


def macs_of(model: ModelProto) -> dict[str, float]:
    """Return the multiply-accumulates of each convolution, by its name."""
    reader = _Reader(model)
    return {node.name: reader.macs_of(node) for node in model.graph.node if node.op_type == "Conv"}


class _Reader:
    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}
        self._takers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._takers[name].append(node)
        self._shapes = _result_shapes(model)

    def _is_int8(self, name: str) -> bool:
        from onnx import TensorProto

        node = self._makers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or len(node.input) < 3:
            return False
        zero = self._weights.get(node.input[2])
        return zero is not None and zero.data_type in (TensorProto.INT8, TensorProto.UINT8)

    def precision_of(self, conv: NodeProto, needs_rounded_result: bool) -> str:
        from onnx import TensorProto

        takers = {taker.op_type for taker in self._takers[conv.output[0]]}
        if all(map(self._is_int8, conv.input[:2])) and (
            takers == {"QuantizeLinear"} or not needs_rounded_result
        ):
            return "int8"
        weight = self._weights.get(conv.input[1])
        return "fp16" if weight is not None and weight.data_type == TensorProto.FLOAT16 else "fp32"

    def _weight_shape(self, name: str) -> list[int]:
        while name not in self._weights:  # behind its DequantizeLinear
            name = self._makers[name].input[0]
        return list(self._weights[name].dims)

    def macs_of(self, conv: NodeProto) -> float:
        # Each output value sums over the kernel and the input channels of its group.
        return float(
            math.prod(self._shapes[conv.output[0]])
            * math.prod(self._weight_shape(conv.input[1])[1:])
        )


def _result_shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what the convolutions give, seen by running the model once.

    Shape inference does not know them: where a network halves its channels, torch computes by how
    many in the graph.
    """
    import numpy as np
    import onnx
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    known = {value.name for value in model.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (x,) = session.get_inputs()
    found = session.run(names, {x.name: np.zeros(x.shape, np.float32)})
    return {name: value.shape for name, value in zip(names, found, strict=True)}
