"""LiteRT's files: flatbuffers, by the schema that LiteRT brings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from musgd_cli.bench.foreign.model import MOST_SIDES, Convolution, ModelFile, Shape, damaged
from musgd_cli.records import FloatPrecision
from musgd_cli.runtime import engine_class
from musgd_cli.runtime.tflite_notes import read_notes

KIND = "LiteRT"

_IDENTIFIER = b"TFL3"
_AHEAD = 4
"""Bytes before it."""


def read(file: Path) -> ModelFile:
    """Read a ``.tflite``.

    Raises:
        MusgdError: It is damaged, or none.
        UnsupportedError: LiteRT, whose schema tells what lies where, is not installed here.
    """
    engine_class("litert")
    from ai_edge_litert import schema_py_generated as schema

    data = file.read_bytes()
    if data[_AHEAD : _AHEAD + len(_IDENTIFIER)] != _IDENTIFIER:
        raise damaged(file, KIND, "it does not begin as one")
    try:
        graph = _Graph(schema, data)
        convolutions = tuple(graph.convolutions())
    except Exception as error:  # flatbuffers stumbles over damage in a dozen ways
        raise damaged(file, KIND, "it is cut short, or damaged") from error
    return ModelFile(
        files=(file,),
        inputs=graph.inputs,
        outputs=graph.outputs,
        convolutions=convolutions,
        metadata=read_notes(file),
    )


class _Graph:
    def __init__(self, schema: Any, data: bytes) -> None:
        model = schema.Model.GetRootAs(data)
        self._schema = schema
        self._model = model
        self._graph = model.Subgraphs(0)
        for i in range(model.BuffersLength()):
            buffer = model.Buffers(i)
            # LiteRT takes a buffer's place for granted, and dies of one past the end.
            if buffer.DataLength():
                buffer.DataAsNumpy()  # which stumbles over it
            # Weights of 2 GB and more lie behind the flatbuffer.
            if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > len(data):
                raise ValueError("a buffer is cut short")
        self.inputs = tuple(map(self._shape, self._graph.InputsAsNumpy()))
        self.outputs = tuple(map(self._shape, self._graph.OutputsAsNumpy()))

    def _shape(self, tensor: int) -> Shape:
        found = self._tensor(tensor)
        # -1 in the signature: settled later. What is in the shape then is no more than an example.
        sides = found.ShapeSignatureAsNumpy() if found.ShapeSignatureLength() else None
        sides = found.ShapeAsNumpy() if sides is None else sides
        return tuple(None if side < 0 else int(side) for side in sides)

    def _tensor(self, tensor: int) -> Any:
        found = self._graph.Tensors(tensor)
        if max(found.ShapeLength(), found.ShapeSignatureLength()) > MOST_SIDES:
            raise ValueError("a tensor has too many sides")
        return found

    def _type(self, tensor: int) -> int:
        return int(self._tensor(tensor).Type())

    def convolutions(self) -> Iterator[Convolution]:
        kinds, types = self._schema.BuiltinOperator, self._schema.TensorType
        floats: dict[int, FloatPrecision] = {types.FLOAT32: "fp32", types.FLOAT16: "fp16"}
        makers = {}
        for i in range(self._graph.OperatorsLength()):
            operator = self._graph.Operators(i)
            makers.update(dict.fromkeys(map(int, operator.OutputsAsNumpy()), operator))
            code = self._model.OperatorCodes(operator.OpcodeIndex())
            # The one byte that older files have, and 127 there where it does not suffice.
            kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D):
                continue
            image, weights = map(int, operator.InputsAsNumpy()[:2])
            if weights in makers:  # fp16, widened
                weights = int(makers[weights].Inputs(0))
            result = int(operator.Outputs(0))
            shape = [int(side) for side in self._tensor(weights).ShapeAsNumpy()]
            # (out, height, width, in), or of a depthwise one (1, height, width, out): what one
            # output value sums over.
            summed = math.prod(shape[1 : 4 if kind == kinds.CONV_2D else 3])
            sides = [int(side) for side in self._tensor(result).ShapeAsNumpy()]
            all_int8 = {self._type(tensor) for tensor in (image, weights, result)} == {types.INT8}
            yield Convolution(
                stored=floats.get(self._type(weights)),
                n_weights=math.prod(shape),
                is_int8=all_int8,
                macs=math.prod(sides) * summed,
            )
