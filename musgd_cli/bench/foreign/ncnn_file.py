"""ncnn's two files: the ``.param`` is text, the ``.bin`` holds the layers' weights in its order.

Facts of the format are from ncnn's ``src/net.cpp``, ``src/paramdict.cpp`` and the ``load_model`` of
the convolutions (1.0.20261020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.bench.foreign.model import Convolution, ModelFile, Shape, damaged
from musgd_cli.records import FloatPrecision

KIND = "ncnn's .param"

_MAGIC = "7767517"
_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")

# Keys of their parameters.
_N_WEIGHTS = 6
_INT8_SCALES = 8


@dataclass(frozen=True)
class _Layer:
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: dict[int, str]

    def number(self, key: int) -> int:
        return int(self.parameters.get(key, 0))

    @property
    def is_int8(self) -> bool:
        return self.number(_INT8_SCALES) != 0


def read(file: Path) -> ModelFile:
    """Read a ``.param`` and look at its ``.bin``.

    The parameters tell which convolutions are int8, not how large an image those see. Of an output
    nothing is told but its name.

    Raises:
        MusgdError: One of them is damaged or binary, or the weights are missing.
    """
    try:
        layers = list(_layers(file.read_text(encoding="utf-8")))
        return _read(file, layers)
    except (ValueError, IndexError) as error:  # UnicodeDecodeError is a ValueError
        raise damaged(file, KIND, "it is cut short, or is none") from error


def _read(file: Path, layers: list[_Layer]) -> ModelFile:
    weights = file.with_suffix(".bin")
    convolutions = [layer for layer in layers if layer.kind in _CONVOLUTIONS]
    n_int8 = sum(layer.number(_N_WEIGHTS) for layer in convolutions if layer.is_int8)
    n_float = sum(layer.number(_N_WEIGHTS) for layer in convolutions) - n_int8
    inputs = tuple(_input_shape(layer) for layer in layers if layer.kind == "Input")
    if not weights.is_file():
        raise damaged(file, KIND, f"its weights, {weights.name}, are not beside it")
    n_bytes = weights.stat().st_size - n_int8
    if n_bytes < 2 * n_float:
        raise damaged(weights, f"the weights of {file.name}", "it is cut short")
    # All else that a detector keeps is small: a float takes two bytes or four.
    stored: FloatPrecision = "fp16" if n_bytes < 3 * n_float else "fp32"
    taken = {name for layer in layers for name in layer.inputs}
    loose = [name for layer in layers for name in layer.outputs if name not in taken]
    return ModelFile(
        files=(file, weights),
        inputs=inputs,
        outputs=((1, None, None),) * len(loose),
        convolutions=tuple(
            Convolution(
                stored=None if layer.is_int8 else stored,
                n_weights=layer.number(_N_WEIGHTS),
                is_int8=layer.is_int8,
            )
            for layer in convolutions
        ),
    )


def _layers(text: str) -> Iterator[_Layer]:
    magic, counts, *lines = text.splitlines()
    lines = [line for line in lines if line.strip()]
    if magic.strip() != _MAGIC or int(counts.split()[0]) != len(lines):
        raise ValueError
    for line in lines:
        kind, _, n_inputs, n_outputs, *rest = line.split()
        split, end = int(n_inputs), int(n_inputs) + int(n_outputs)
        if len(rest) < end:
            raise ValueError
        pairs = (pair.split("=", 1) for pair in rest[end:])
        parameters = {int(key): value for key, value in pairs}
        yield _Layer(kind, tuple(rest[:split]), tuple(rest[split:end]), parameters)


def _input_shape(layer: _Layer) -> Shape:
    """Return the sides of an ``Input``, which most exporters leave out."""
    width, height = layer.number(0), layer.number(1)
    return (1, layer.number(2) or 3, height or None, width or None)
