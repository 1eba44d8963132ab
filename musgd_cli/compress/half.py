"""Half precision in an ONNX graph.

Our own, since ``onnxruntime.transformers.float16`` (1.32) does not do for strongly typed engines:
between two nodes that are to stay float it rounds to half and back, 23 times in YOLO26n's decoding,
and it leaves nodes out of order, which ``onnx.checker`` refuses.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# Resize takes its region, scales and sizes as they are.
_ONLY_DATA = frozenset({"Resize"})


def to_half(model: ModelProto, keep_float: Collection[str]) -> ModelProto:
    """Return a model that computes in float16 where it computed in float32.

    Input and output stay float32. Values pass between the two types by ``Cast`` alone.

    Args:
        model: Not changed.
        keep_float: Names of the nodes that go on in float32.
    """
    import onnx

    return _Conversion(onnx.shape_inference.infer_shapes(model), keep_float).model


def round_to_half(model: ModelProto) -> ModelProto:
    """Return a model whose convolutions' weights are numbers of half precision, kept as float32."""
    import onnx
    from onnx import numpy_helper

    rounded = onnx.ModelProto()
    rounded.CopyFrom(model)
    taken = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
    for tensor in rounded.graph.initializer:
        if tensor.name in taken:
            values = numpy_helper.to_array(tensor).astype("float16").astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return rounded


def is_half(tensor: TensorProto) -> bool:
    """Tell whether a tensor holds numbers of half precision, in whatever type it keeps them."""
    import numpy as np
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    return bool(np.array_equal(values, values.astype(np.float16).astype(values.dtype)))


class _Conversion:
    """Walks a graph from its input to its output and rewrites it into `model`."""

    def __init__(self, source: ModelProto, keep_float: Collection[str]) -> None:
        import onnx

        graph = source.graph
        self._keep_float = keep_float
        self._floats = _float_tensors(graph)
        self._constants = _float_constants(graph)
        self._half: set[str] = set()
        self._nodes: list[NodeProto] = []
        self._new_constants: dict[str, TensorProto] = {}
        self._casts: set[str] = set()
        outputs = {value.name for value in graph.output}
        for node in graph.node:
            self._add(node, outputs)
        model = onnx.ModelProto()
        model.CopyFrom(source)
        del model.graph.node[:], model.graph.value_info[:]
        taken = {name for node in self._nodes for name in node.input}
        model.graph.node.extend(
            node for node in self._nodes if node.op_type != "Constant" or node.output[0] in taken
        )
        model.graph.initializer.extend(self._new_constants.values())
        kept = [tensor for tensor in model.graph.initializer if tensor.name in taken]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        self.model = onnx.shape_inference.infer_shapes(model, strict_mode=True)

    def _add(self, source: NodeProto, outputs: Collection[str]) -> None:
        import onnx
        from onnx import TensorProto, helper

        node = onnx.NodeProto()
        node.CopyFrom(source)
        if node.op_type == "Constant":
            self._nodes.append(node)
            return
        is_half = node.name not in self._keep_float
        for i, name in enumerate(source.input):
            if is_half and not (i and node.op_type in _ONLY_DATA):
                node.input[i] = self._as_half(name)
            else:
                node.input[i] = self._as_float(name)
        made = [name for name in node.output if name in self._floats] if is_half else []
        if made and node.op_type == "Cast":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("to", TensorProto.FLOAT16))
        self._nodes.append(node)
        for i, name in enumerate(source.output):
            if name not in made:
                continue
            if name in outputs:
                node.output[i] = f"{name}_half"
                self._cast(node.output[i], name, TensorProto.FLOAT)
            else:
                self._half.add(name)

    def _as_half(self, name: str) -> str:
        from onnx import TensorProto, numpy_helper

        if name in self._constants:
            new = f"{name}_half"
            values = numpy_helper.to_array(self._constants[name]).astype("float16")
            self._new_constants[new] = numpy_helper.from_array(values, new)
            return new
        if name in self._floats and name not in self._half:
            return self._cast(name, f"{name}_half", TensorProto.FLOAT16)
        return name

    def _as_float(self, name: str) -> str:
        from onnx import TensorProto

        return self._cast(name, f"{name}_float", TensorProto.FLOAT) if name in self._half else name

    def _cast(self, name: str, new: str, to: int) -> str:
        from onnx import helper

        if new not in self._casts:
            self._casts.add(new)
            self._nodes.append(helper.make_node("Cast", [name], [new], name=f"{new}_cast", to=to))
        return new


def _float_tensors(graph: GraphProto) -> set[str]:
    from onnx import TensorProto

    return {
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }


def _float_constants(graph: GraphProto) -> dict[str, TensorProto]:
    from onnx import TensorProto

    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return {name: tensor for name, tensor in found.items() if tensor.data_type == TensorProto.FLOAT}
