"""Which ONNX operators TensorRT's parser reads, version by version.

Sources, both in onnx/onnx-tensorrt: ``docs/operators.md`` at 009d6541, which is 8.4's, less what
``docs/Changelog.md`` says 8.4 added, ``Xor``. ``Mod`` came with 8.5. It is 8.0's table and what the
changelog says that 8.2 added; of ``Dropout``, which 8.0's has not, it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

OPSETS: Mapping[str, int] = {"8.2": 13}
"""The newest opset of each version that is listed here."""

# Operators by the types they take: f float32 and float16, i int32, q int8, b bool.
_BY_TYPES = {
    "8.2": {
        "b": "And Not Or",
        "f": """Acos Acosh ArgMax ArgMin Asin Asinh Atan Atanh BatchNormalization Ceil Celu
            ConstantOfShape Cos Cosh CumSum Dropout Einsum Erf Exp Floor GRU ImageScaler
            InstanceNormalization LRN LSTM Log LogSoftmax LpNormalization MatMul
            NonMaxSuppression Pow QuantizeLinear RNN RandomUniform RandomUniformLike ReduceL1
            ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
            ReduceSum ReduceSumSquare Resize ReverseSequence Scan Sin Sinh Softmax Sqrt Tan TopK
            Upsample""",
        "q": "DequantizeLinear",
        "fi": """Abs Add DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max
            Mean Min Mul Neg Range SpaceToDepth Sub Sum""",
        "fq": """Clip Conv ConvTranspose Elu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
            HardSigmoid LeakyRelu LpPool MaxPool PRelu ParametricSoftplus Relu Round ScaledTanh
            Selu Sigmoid Softplus Softsign Tanh ThresholdedRelu""",
        "fib": "Expand EyeLike Flatten If Loop Split Tile Where",
        "fiq": """AveragePool Gather GatherElements GatherND Pad Scatter ScatterElements ScatterND
            Sign""",
        "fiqb": """Cast Concat Constant Identity Reshape Shape Size Slice Squeeze Transpose
            Unsqueeze""",
    }
}

_TYPES = {
    version: {kind: set(types) for types, kinds in table.items() for kind in kinds.split()}
    for version, table in _BY_TYPES.items()
}

# The parser narrows int64 to int32 and float64 to float32.
_LETTERS = {
    **dict.fromkeys(("FLOAT", "FLOAT16", "DOUBLE"), "f"),
    **dict.fromkeys(("INT32", "INT64"), "i"),
    "INT8": "q",
    "BOOL": "b",
}


def unreadable(model: ModelProto, version: str) -> list[str]:
    """Name what a version of TensorRT cannot read in a model.

    An operator is held against the type of its data, which is its first input; one without inputs,
    and one that fills a shape, against that of its output.

    Args:
        model: Any ONNX.
        version: One of `OPSETS`.

    Returns:
        Each fault once, such as ``Mod`` or ``MatMul of INT32``, in the graph's order.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    faults = [f"opset {opset}"] if opset > OPSETS[version] else []
    faults += _faults(inferred.graph, version)
    return list(dict.fromkeys(faults))


def _faults(graph: GraphProto, version: str) -> Iterator[str]:
    types = _tensor_types(graph)
    for node in graph.node:
        readable = _TYPES[version].get(node.op_type)
        name = types.get(_data_of(node))
        if readable is None:
            yield node.op_type
        elif name is not None and _LETTERS.get(name) not in readable:
            yield f"{node.op_type} of {name}"


def _data_of(node: NodeProto) -> str:
    fills = not node.input or node.op_type == "ConstantOfShape"
    return str(node.output[0] if fills else node.input[0])


def _tensor_types(graph: GraphProto) -> dict[str, str]:
    from onnx import TensorProto

    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name: TensorProto.DataType.Name(number) for name, number in types.items()}
