"""ONNX files, read by the wire format of protocol buffers.

A board that runs ONNX Runtime has no ``onnx`` package, and needs none for the few fields that are
of interest here. Their numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from musgd_cli.bench.foreign.model import (
    MOST_SIDES,
    MOST_STEPS,
    Convolution,
    ModelFile,
    Shape,
    damaged,
)
from musgd_cli.paths import lies_inside
from musgd_cli.records import FloatPrecision

KIND = "ONNX"

_FLOAT = 1
_INT8 = frozenset({2, 3})  # TensorProto.UINT8 and INT8
_FLOATS: dict[int, FloatPrecision] = {_FLOAT: "fp32", 10: "fp16", 16: "bf16"}
_INT8_CONVOLUTIONS = {"QLinearConv": 3, "ConvInteger": 1}
"""Which input holds the weights."""

_WINDOW_ATTRIBUTES = frozenset({"kernel_shape", "strides", "pads", "dilations"})
_WINDOWS = frozenset({"Conv", *_INT8_CONVOLUTIONS, "MaxPool", "AveragePool"})

Sides = tuple[int, int]

Fields = dict[int, list[int | memoryview]]
"""A message: each field's values by its number, messages and texts not yet unpacked."""


def read(file: Path) -> ModelFile:
    """Read a ``.onnx``.

    Raises:
        MusgdError: It is damaged, or none.
    """
    try:
        found, outside = _read(file)
    except UnicodeDecodeError as error:
        raise damaged(file, KIND, "its names are no text") from error
    except (LookupError, ArithmeticError, struct.error) as error:
        raise damaged(file, KIND, "it is cut short, or damaged") from error
    except ValueError as error:
        raise damaged(file, KIND, error) from error
    for name in outside:
        if not lies_inside(file.parent, name):
            raise damaged(file, KIND, f"its weights, {name!r}, are not in its folder")
        if not (file.parent / name).is_file():
            raise damaged(file, KIND, f"its weights, {name!r}, are not beside it")
    return found


def _read(file: Path) -> tuple[ModelFile, list[str]]:
    """Return what an ONNX file tells, and the names of the files in which it has weights."""
    data = file.read_bytes()
    model = _fields(memoryview(data))
    if 7 not in model:
        raise ValueError("it holds no graph" if data else "it is empty")
    graph = _Graph(_fields(_view(model, 7)))
    outside = sorted(set(_locations(model)))
    found = ModelFile(
        files=(file, *(file.parent / name for name in outside)),
        inputs=tuple(shape for name, shape in graph.inputs.items() if name not in graph.tensors),
        outputs=tuple(graph.outputs.values()),
        convolutions=tuple(graph.convolutions()),
        metadata={_text(entry, 1): _text(entry, 2) for entry in map(_fields, _views(model, 14))},
        maker=" ".join(filter(None, (_text(model, 2), _text(model, 3)))) or None,
    )
    return found, outside


# ------------------------------------------------------------------------------------- the graph


@dataclass(frozen=True)
class _Tensor:
    """A stored tensor."""

    type: int
    shape: tuple[int, ...]
    values: memoryview
    """As bytes; empty where they are kept in another way."""


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: list[str]
    outputs: list[str]
    numbers: dict[str, list[int]]
    """Attributes that are lists of integers."""

    def slid(self, sides: Sides) -> Sides | None:
        """Return height and width of what a window that slides over these sides gives."""
        kernel = self.numbers.get("kernel_shape")
        if kernel is None or len(kernel) != 2:
            return None
        strides = self.numbers.get("strides", [1, 1])
        pads = self.numbers.get("pads", [0, 0, 0, 0])
        dilations = self.numbers.get("dilations", [1, 1])
        height, width = (
            (sides[i] + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i]
            + 1
            for i in (0, 1)
        )
        return height, width


@dataclass
class _Graph:
    message: Fields
    tensors: dict[str, _Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inputs = dict(map(_value_info, self._messages(11)))
        self.outputs = dict(map(_value_info, self._messages(12)))
        self._shapes = dict(map(_value_info, self._messages(13))) | self.outputs
        for tensor in self._messages(5):
            self.tensors[_text(tensor, 8)] = self._tensor(tensor)
        self._nodes = [self._node(message) for message in self._messages(1)]
        self._makers = {name: node for node in self._nodes for name in node.outputs}
        self._takers: dict[str, set[str]] = defaultdict(set)
        for node in self._nodes:
            for name in node.inputs:
                self._takers[name].add(node.kind)
        self._sides = self._find_sides()

    def _messages(self, number: int) -> Iterator[Fields]:
        return map(_fields, _views(self.message, number))

    @staticmethod
    def _tensor(tensor: Fields) -> _Tensor:
        shape = tuple(_numbers(tensor, 1))
        if any(side < 0 for side in shape):
            raise ValueError("it has a tensor with a negative side")
        return _Tensor(_number(tensor, 2), shape, _view(tensor, 9))

    def _node(self, message: Fields) -> _Node:
        node = _Node(_text(message, 4), _texts(message, 1), _texts(message, 2), {})
        for attribute in map(_fields, _views(message, 5)):
            if _text(attribute, 1) in _WINDOW_ATTRIBUTES:
                node.numbers[_text(attribute, 1)] = _numbers(attribute, 8)
            if node.kind == "Constant" and 5 in attribute:
                self.tensors[node.outputs[0]] = self._tensor(_fields(_view(attribute, 5)))
        return node

    def _find_sides(self) -> dict[str, Sides]:
        """Return heights and widths, those that follow from others included.

        Few exporters note the shapes between nodes. What is no window and no resizing keeps the
        sides; attention goes through other shapes, but ends on those with which it began.
        """
        sides: dict[str, Sides] = {}
        for name, shape in (self.inputs | self._shapes).items():
            if len(shape) == 4 and shape[2] and shape[3]:
                sides[name] = (shape[2], shape[3])
        for node in self._nodes:
            found = next((sides[name] for name in node.inputs if name in sides), None)
            if found and node.kind in _WINDOWS:
                found = node.slid(found)
            elif found and node.kind == "Resize":
                found = self._resized(node, found)
            if found:
                for name in node.outputs:
                    sides.setdefault(name, found)
        return sides

    def _resized(self, node: _Node, sides: Sides) -> Sides | None:
        scales = self.tensors.get(node.inputs[2]) if len(node.inputs) > 2 else None
        if scales is None or scales.type != _FLOAT or len(scales.values) != 16:
            return None
        _, _, height, width = struct.unpack("<4f", scales.values)
        if not (math.isfinite(height) and math.isfinite(width)):
            raise ValueError("it makes an image infinitely large")
        return int(sides[0] * height), int(sides[1] * width)

    def convolutions(self) -> Iterator[Convolution]:
        for node in self._nodes:
            if node.kind != "Conv" and node.kind not in _INT8_CONVOLUTIONS:
                continue
            weights = self._weights(node.inputs[_INT8_CONVOLUTIONS.get(node.kind, 1)])
            sides = self._sides.get(node.outputs[0])
            yield Convolution(
                stored=_FLOATS.get(weights.type),
                n_weights=math.prod(weights.shape),
                is_int8=node.kind in _INT8_CONVOLUTIONS or self._runs_in_int8(node),
                # Each place of the result, for each weight.
                macs=math.prod(weights.shape) * math.prod(sides) if sides else None,
            )

    def _weights(self, name: str) -> _Tensor:
        for _ in range(MOST_STEPS):  # behind its DequantizeLinear or Cast
            if name in self.tensors:
                return self.tensors[name]
            if name not in self._makers:
                break
            name = self._makers[name].inputs[0]
        raise ValueError(f"it holds no {name!r}")

    def _runs_in_int8(self, conv: _Node) -> bool:
        """Tell whether ONNX Runtime computes a convolution in int8.

        It does if data and weights come out of ``DequantizeLinear`` and the result goes into
        ``QuantizeLinear`` and nowhere else.
        """
        rounded = self._takers[conv.outputs[0]] == {"QuantizeLinear"}
        return rounded and all(map(self._is_int8, conv.inputs[:2]))

    def _is_int8(self, name: str) -> bool:
        node = self._makers.get(name)
        if node is None or node.kind != "DequantizeLinear":
            return False
        # Data's type is its zero point's, which may be left out of weights.
        typed = self.tensors.get(node.inputs[2] if len(node.inputs) > 2 else node.inputs[0])
        return typed is not None and typed.type in _INT8


def _value_info(message: Fields) -> tuple[str, Shape]:
    tensor = _fields(_view(_fields(_view(message, 2)), 1))
    sides: list[int | None] = []
    if 2 in tensor:
        dims = map(_fields, _views(_fields(_view(tensor, 2)), 1))
        sides += [_number(dim, 1) if 1 in dim else None for dim in dims]
    # Some exporters write -1 for what is settled later.
    return _text(message, 1), tuple(None if side is None or side < 0 else side for side in sides)


# ---------------------------------------------------------------------- values in other files

_HOLDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
"""Which fields of a message hold messages in which there may be tensors."""


def _locations(model: Fields) -> Iterator[str]:
    """Yield the files in which tensors anywhere in a model are kept, by their path beside it."""
    left = [("model", model)]
    while left:
        kind, message = left.pop()
        if kind == "tensor":
            for entry in map(_fields, _views(message, 13)):
                if _text(entry, 1) == "location":
                    yield _text(entry, 2)
        for number, held in _HOLDS.get(kind, {}).items():
            left += [(held, _fields(view)) for view in _views(message, number)]


# -------------------------------------------------------------------------- protocol buffers


_MOST_FIELDS = 1 << 18
"""Of a message; a large graph has some ten thousand nodes."""


def _fields(data: memoryview) -> Fields:
    """Split a message into its fields, by their numbers."""
    fields: Fields = defaultdict(list)
    at, end, n_fields = 0, len(data), 0
    while at < end:
        key, at = _varint(data, at)
        value: int | memoryview
        match key & 7:
            case 0:
                value, at = _varint(data, at)
            case 1 | 5 as wire:
                size = 8 if wire == 1 else 4
                value, at = data[at : at + size], at + size
            case 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case wire:
                raise ValueError(f"it has a field of unknown type {wire}")
        if at > end:
            raise ValueError("it is cut short")
        fields[key >> 3].append(value)
        n_fields += 1
        if n_fields > _MOST_FIELDS:
            raise ValueError("it has more parts than any model")
    return fields


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("it has a number without an end")


def _views(message: Fields, number: int) -> list[memoryview]:
    return [value for value in message.get(number, ()) if isinstance(value, memoryview)]


def _view(message: Fields, number: int) -> memoryview:
    return next(iter(_views(message, number)), memoryview(b""))


def _texts(message: Fields, number: int) -> list[str]:
    return [bytes(value).decode() for value in _views(message, number)]


def _text(message: Fields, number: int) -> str:
    return next(iter(_texts(message, number)), "")


def _number(message: Fields, number: int) -> int:
    return next(iter(_numbers(message, number)), 0)


def _numbers(message: Fields, number: int) -> list[int]:
    """Return a repeated int64, packed or not: all of ours are sides, or as many."""
    found: list[int] = []
    for value in message.get(number, ()):
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value) and len(found) <= MOST_SIDES:
            one, at = _varint(value, at)
            found.append(one)
    if len(found) > MOST_SIDES:
        raise ValueError("it has a tensor with too many sides")
    return [_signed(value) for value in found]


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
