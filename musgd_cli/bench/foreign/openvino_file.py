"""OpenVINO's IR: the graph is plain XML, the weights a file beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from musgd_cli.bench.foreign.model import (
    MOST_SIDES,
    MOST_STEPS,
    Convolution,
    ModelFile,
    Shape,
    damaged,
)
from musgd_cli.records import FloatPrecision

KIND = "OpenVINO's IR"

_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_FLOATS: dict[str, FloatPrecision] = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
_INT8 = frozenset({"i8", "u8"})

# Between a weight as it is stored and the convolution: widened, shifted, scaled.
_DEQUANTIZING = frozenset({"Convert", "Subtract", "Multiply", "Reshape"})

# They hand values on as they are, or choose among them: an int8 input makes an int8 output.
_TRANSPARENT = frozenset(
    {
        *("Concat", "Split", "VariadicSplit", "Slice", "StridedSlice", "Gather"),
        *("MaxPool", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Interpolate"),
    }
)


def is_one(file: Path) -> bool:
    """Tell whether an ``.xml`` is a model, and not an annotation of images or anything else."""
    with file.open("rb") as stream:
        return b"<net" in stream.read(4096)


def read(file: Path) -> ModelFile:
    """Read a ``.xml`` and look at its ``.bin``.

    Raises:
        MusgdError: One of them is damaged, or the weights are missing.
    """
    weights = file.with_suffix(".bin")
    try:
        root = ElementTree.fromstring(file.read_bytes())  # noqa: S314 (expat refuses bombs)
    except (ElementTree.ParseError, ValueError) as error:  # ValueError: of the encoding
        raise damaged(file, KIND, error) from error
    if root.tag != "net":
        raise damaged(file, KIND, f"its root is {root.tag}, not net")
    try:
        graph = _Graph(root)
        convolutions = tuple(graph.convolutions())
    except (LookupError, ValueError, RecursionError) as error:
        raise damaged(file, KIND, "its graph is not whole") from error
    if not weights.is_file():
        raise damaged(file, KIND, f"its weights, {weights.name}, are not beside it")
    if weights.stat().st_size < graph.weights_end:
        raise damaged(weights, f"the weights of {file.name}", "it is cut short")
    return ModelFile(
        files=(file, weights),
        inputs=graph.inputs,
        outputs=graph.outputs,
        convolutions=convolutions,
    )


class _Graph:
    def __init__(self, root: ElementTree.Element) -> None:
        self._layers = {layer.attrib["id"]: layer for layer in root.iterfind("layers/layer")}
        self._sources = {
            (edge.attrib["to-layer"], edge.attrib["to-port"]): (
                edge.attrib["from-layer"],
                edge.attrib["from-port"],
            )
            for edge in root.iterfind("edges/edge")
        }
        self._quantized: dict[str, bool] = {}
        layers = self._layers.values()
        self.inputs = tuple(
            _shape(layer, "output") for layer in layers if layer.get("type") == "Parameter"
        )
        self.outputs = tuple(
            _shape(layer, "input") for layer in layers if layer.get("type") == "Result"
        )
        self.weights_end = max(
            (
                int(data.get("offset", 0)) + int(data.get("size", 0))
                for data in root.iterfind("layers/layer[@type='Const']/data")
            ),
            default=0,
        )

    def convolutions(self) -> Iterator[Convolution]:
        for layer in self._layers.values():
            if layer.get("type") not in _CONVOLUTIONS:
                continue
            image, kernel = self._sources_of(layer)
            stored = self._stored_type(kernel)
            weights = [side or 1 for side in _shape(layer, "input", 1)]
            result = [side for side in _shape(layer, "output") if side is not None]
            is_static = len(result) == len(_shape(layer, "output"))
            # Of (out, in, height, width), or the same behind a leading axis of groups, the last
            # three are what one output value sums over.
            macs = math.prod(result) * math.prod(weights[-3:])
            yield Convolution(
                stored=_FLOATS.get(stored),
                n_weights=math.prod(weights),
                is_int8=stored in _INT8 and self._is_quantized(image),
                macs=macs if is_static else None,
            )

    def _sources_of(self, layer: ElementTree.Element) -> list[ElementTree.Element]:
        ports = [port.attrib["id"] for port in layer.iterfind("input/port")]
        return [self._layers[self._sources[layer.attrib["id"], port][0]] for port in ports]

    def _stored_type(self, layer: ElementTree.Element) -> str:
        for _ in range(MOST_STEPS):
            if layer.get("type") not in _DEQUANTIZING:
                break
            layer = self._sources_of(layer)[0]
        data = layer.find("data")
        return "" if data is None else data.get("element_type", "")

    def _is_quantized(self, layer: ElementTree.Element) -> bool:
        # Each is asked once: the ways through a graph are many more than its layers.
        known = self._quantized.get(layer.attrib["id"])
        if known is None:
            known = self._quantized[layer.attrib["id"]] = self._hands_on_int8(layer)
        return known

    def _hands_on_int8(self, layer: ElementTree.Element) -> bool:
        kind, data = layer.get("type"), layer.find("data")
        if kind == "FakeQuantize":
            return data is not None and int(data.get("levels", 0)) <= 256
        if kind not in _TRANSPARENT:
            return False
        sources = self._sources_of(layer)
        return all(map(self._is_quantized, sources if kind == "Concat" else sources[:1]))


def _shape(layer: ElementTree.Element, side: str, port: int = 0) -> Shape:
    sides = [int(dim.text or -1) for dim in layer.findall(f"{side}/port")[port].iterfind("dim")]
    if len(sides) > MOST_SIDES:
        raise ValueError
    return tuple(None if n < 0 else n for n in sides)
