"""Writes ``.tflite`` files by hand, with the schema that LiteRT brings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
}


class Tflite:
    """One graph, its operations in the order in which they are added."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]  # the empty one, of tensors that are computed
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model.subgraphs = [self._graph]

    def tensor(
        self, shape: Sequence[int], type_: str = "float32", name: str = "", scale: float = 0.1
    ) -> int:
        """Add a tensor that is computed or given; one of int8 has this scale."""
        tensor = schema.TensorT()
        tensor.shape, tensor.type = list(shape), _TYPES[type_]
        tensor.name = name or f"t{len(self._graph.tensors)}"
        tensor.buffer = 0
        if type_ == "int8":
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale]
            tensor.quantization.zeroPoint = [0]
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def constant(self, values: np.ndarray, scale: float = 0.1) -> int:
        """Add a tensor that is stored."""
        index = self.tensor(values.shape, str(values.dtype), scale=scale)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._graph.tensors[index].buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)
        return index

    def operation(
        self,
        kind: str,
        inputs: list[int],
        shape: Sequence[int],
        type_: str = "float32",
        *,
        name: str = "",
        scale: float = 0.1,
        version: int = 1,
        options: str = "",
        **fields: Any,
    ) -> int:
        """Add an operation with one output and return that."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes)
        self._model.operatorCodes.append(code)
        operator.inputs, operator.outputs = inputs, [self.tensor(shape, type_, name, scale)]
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
            for field, value in fields.items():
                setattr(operator.builtinOptions, field, value)
        self._graph.operators.append(operator)
        return operator.outputs[0]

    def pack(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Return the file."""
        import flatbuffers

        self._graph.inputs, self._graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(0)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
