"""ncnn's two files: the layers of the ``.param``, each with its own tensors out of the ``.bin``.

Facts of the format are from ncnn's ``src/net.cpp``, ``src/paramdict.cpp``, ``src/modelbin.cpp`` and
the ``load_model`` of each layer (1.0.20261020).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musgd_cli.errors import MusgdError

FILES = ("model.ncnn.param", "model.ncnn.bin")

CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")


class Key(IntEnum):
    """Numbers that the parameters of a convolution go by."""

    N_OUTPUT = 0
    KERNEL = 1
    KERNEL_HEIGHT = 11
    STRIDE = 3
    HAS_BIAS = 5
    N_WEIGHTS = 6
    GROUPS = 7
    INT8_SCALES = 8
    """Which scales follow the bias; 0 in a float convolution."""


_MAGIC = "7767517"

# What a tensor that may be stored in several types begins with, little-endian.
_FLAGS: Mapping[int, type[np.generic]] = {
    0x00000000: np.float32,
    0x01306B47: np.float16,
    0x000D4B38: np.int8,
}
_FLAG_OF = {kind: flag for flag, kind in _FLAGS.items()}

Tensor = NDArray[Any]
"""One dimension, of float32, float16 or int8."""


@dataclass(frozen=True)
class Layer:
    """One line of a ``.param`` file, and what belongs to it in the ``.bin``."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    """Names of blobs."""
    parameters: Mapping[int, str]
    tensors: tuple[Tensor, ...] = ()
    """Of a convolution: weights, bias, then in int8 the weights' and the input's scales."""

    def number(self, key: int, default: int = 0) -> int:
        """Return an integer parameter."""
        return int(self.parameters.get(key, default))

    @property
    def is_convolution(self) -> bool:
        """Whether it is one, of any number of groups."""
        return self.kind in CONVOLUTIONS

    @property
    def is_int8(self) -> bool:
        """Whether it is a convolution that ncnn computes in int8."""
        return self.is_convolution and self.tensors[0].dtype == np.int8


@dataclass(frozen=True)
class _Slot:
    """A place in the ``.bin``: so many values, and whether a flag before them tells their type."""

    n_values: int
    is_flagged: bool = False


def _slots(layer: Layer) -> list[_Slot]:
    if layer.kind == "MemoryData":
        # Its sides are 0, 1 and 2, and 11 for a depth. Raw fp32, unless told otherwise.
        sides = (layer.number(key) or 1 for key in (0, 1, 11, 2))
        return [_Slot(math.prod(sides), is_flagged=layer.number(21, 1) == 0)]
    if not layer.is_convolution:
        return []
    slots = [_Slot(layer.number(Key.N_WEIGHTS), is_flagged=True)]
    if layer.number(Key.HAS_BIAS):
        slots.append(_Slot(layer.number(Key.N_OUTPUT)))
    if term := layer.number(Key.INT8_SCALES):
        per_group = layer.kind == "ConvolutionDepthWise"
        slots += [
            _Slot(layer.number(Key.GROUPS, 1) if per_group else layer.number(Key.N_OUTPUT)),
            _Slot(1),
        ]
        if term > 100:  # its output is int8 as well
            slots.append(_Slot(1))
    return slots


def read(folder: Path) -> list[Layer]:
    """Read both files, to the last byte.

    Raises:
        MusgdError: They are damaged, or do not belong together.
    """
    param, weights = (folder / name for name in FILES)
    try:
        layers = list(_parse(param.read_text(encoding="utf-8")))
    except (ValueError, IndexError) as error:  # UnicodeDecodeError is a ValueError
        raise damaged(param) from error
    data = weights.read_bytes()
    at = 0
    found = []
    for layer in layers:
        try:
            tensors = []
            for slot in _slots(layer):
                tensor, at = _read_tensor(data, at, slot)
                tensors.append(tensor)
        except ValueError as error:
            raise damaged(weights) from error
        layer = replace(layer, tensors=tuple(tensors))
        if layer.is_convolution and layer.is_int8 != bool(layer.number(Key.INT8_SCALES)):
            raise damaged(weights)
        found.append(layer)
    if at != len(data):
        raise damaged(weights)
    return found


def _parse(text: str) -> Iterator[Layer]:
    magic, counts, *lines = text.splitlines()
    lines = [line for line in lines if line.strip()]
    if magic.strip() != _MAGIC or int(counts.split()[0]) != len(lines):
        raise ValueError
    for line in lines:
        kind, name, *rest = line.split()
        n_inputs, n_outputs = int(rest[0]), int(rest[1])
        blobs, pairs = rest[2 : 2 + n_inputs + n_outputs], rest[2 + n_inputs + n_outputs :]
        if len(blobs) != n_inputs + n_outputs:
            raise ValueError
        parameters = dict(pair.split("=", 1) for pair in pairs)
        yield Layer(
            kind,
            name,
            tuple(blobs[:n_inputs]),
            tuple(blobs[n_inputs:]),
            {int(key): value for key, value in parameters.items()},
        )


def _read_tensor(data: bytes, at: int, slot: _Slot) -> tuple[Tensor, int]:
    if slot.n_values < 1:  # NumPy takes -1 for all there is
        raise ValueError
    kind: type[np.generic] = np.float32
    if slot.is_flagged:
        flag = int.from_bytes(data[at : at + 4], "little")
        if flag not in _FLAGS:
            raise ValueError
        kind, at = _FLAGS[flag], at + 4
    tensor = np.frombuffer(data, kind, slot.n_values, at)  # ValueError past the end
    return tensor, at + _padded(tensor.nbytes)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // 4) * 4


def damaged(file: Path) -> MusgdError:
    """Say that a file is not what it should be."""
    return MusgdError(f"{file} is not what ncnn reads", "musgd export makes it again")


def write(layers: Sequence[Layer], folder: Path) -> None:
    """Write both files into ``folder``."""
    blobs = {blob for layer in layers for blob in layer.outputs}
    lines = [_MAGIC, f"{len(layers)} {len(blobs)}"]
    data = bytearray()
    for layer in layers:
        lines.append(_line(layer))
        for slot, tensor in zip(_slots(layer), layer.tensors, strict=True):
            if slot.is_flagged:
                data += _FLAG_OF[tensor.dtype.type].to_bytes(4, "little")
            data += tensor.tobytes()
            data += bytes(_padded(tensor.nbytes) - tensor.nbytes)
    param, weights = (folder / name for name in FILES)
    param.write_text("\n".join(lines) + "\n", encoding="utf-8")
    weights.write_bytes(data)


def _line(layer: Layer) -> str:
    blobs = (*layer.inputs, *layer.outputs)
    pairs = [f"{key}={value}" for key, value in layer.parameters.items()]
    counts = f"{len(layer.inputs)} {len(layer.outputs)}"
    return " ".join([f"{layer.kind:<24} {layer.name:<24} {counts}", *blobs, *pairs])
