"""LiteRT, once TensorFlow Lite, from the traced network: float, or static int8.

litert-torch converts and ai-edge-quantizer rewrites the file. Between the two, convolutions get the
names of the float parent's nodes: the converter's own do not tell the branches of the head apart.
"""

from __future__ import annotations

import math
import platform
import re
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from musgd_cli.compress import onnx_graph
from musgd_cli.compress.precision import Built, built
from musgd_cli.errors import MusgdError
from musgd_cli.records import Precision
from musgd_cli.runtime.native_stderr import quiet_native_code

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import GraphProto

    from musgd_cli.compress.calibration import Inputs
    from musgd_cli.compress.formats import Material
    from musgd_cli.compress.parent import Network

FILES = ("model.tflite",)
NEEDS: Mapping[Precision, tuple[str, ...]] = {
    "fp32": ("litert_torch", "ai_edge_litert"),
    "int8": ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"),
}
EXTRA = "litert-export"
NMS_FREE = False
STAND_IN = None

SILU_FLOOR = -8.0
"""Least value that a range before SiLU reaches: what is lower SiLU turns into 0 within .003.

First layers reach -116, and half of their 256 steps would tell apart what comes out as 0. mAP50-95
lost with and without, attention still in int8: BCCD (72 images, 256 px, 64 that calibrate) -.0001
and .0047, COCO128 (96, 640 px) -.0016 and .0059. A floor of -6 or -5 is not better.
"""

PERCENTILE = 99.99
"""Of an image's values, for ``percentile``, at either end."""

MINMAX, PERCENTILES = "mean-minmax", f"mean-percentile-{PERCENTILE}"
"""What is recorded of how activations were calibrated."""

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_SILU = {"LOGISTIC", "MUL"}
_ATTENTION = ("BATCH_MATMUL", "SOFTMAX")
_ATTENTION_SCOPE = "/attn/"  # as Ultralytics calls the module
_IDENTIFIER = b"TFL3"


def lacks(precision: Precision, boards: tuple[str, ...]) -> tuple[str, str] | None:  # noqa: ARG001
    """Return why this machine cannot build a model, and the mend; ``None`` if it can."""
    if platform.machine() != "x86_64" and find_spec("litert_converter") is None:
        return (
            "its converter is published for x86-64 alone",
            "export on such a machine and copy the artifact's folder here",
        )
    return None


def build(material: Material, folder: Path, precision: Precision) -> str | None:
    """Write the network as ``model.tflite`` into ``folder``.

    In int8, weights have a scale a channel and activations one a tensor. These stay float:

    - the decoding, and the last convolutions, whose outputs are boxes and scores;
    - attention's products and softmax: XNNPACK has no int8 of them and leaves them to slower
      kernels, which costs 9 % of the time of an inference;
    - attention's convolutions, for 2 % of it. Float and int8, mAP50-95 lost on BCCD (159 images,
      256 px) .0030 and .0062, on COCO128 (96 images, 640 px) -.0066 and -.0040.

    Args:
        material: What to build from. Its method is ``minmax``, the mean over images of each minimum
            and maximum, or ``percentile``, the mean of those; for ``entropy`` ``minmax`` is used.
        folder: Gets the file.
        precision: ``fp32`` or ``int8``.
    """
    model, memo = _float_model(material), material.memo
    method = None
    if precision == "int8":
        assert material.inputs is not None
        method = PERCENTILES if material.method == "percentile" else MINMAX
        key = ("litert", method)
        if key not in memo:
            memo[key] = _ranges(model, material.inputs, method)
        model = _quantize(model, memo[key], _kept_float(_Graph(model), material))
    (folder / FILES[0]).write_bytes(model)
    return method


def _float_model(material: Material) -> bytes:
    key = ("litert", "float")
    if key not in material.memo:
        parent = onnx_graph.load(material.onnx).graph
        material.memo[key] = _with_names(_convert(material.network), parent)
    model: bytes = material.memo[key]
    return model


def _convert(network: Network) -> bytes:
    import torch

    with quiet_native_code():
        import litert_torch

        x = torch.zeros(1, 3, network.imgsz, network.imgsz)
        converted: bytes = litert_torch.convert(network.module, (x,)).model_content()
    return converted


# ------------------------------------------------------------------------------------- the file


class _Operation(NamedTuple):
    name: str
    kind: str
    is_convolution: bool
    inputs: tuple[Hashable, ...]
    """Tensors, by index in a ``.tflite`` and by name in an ONNX."""
    outputs: tuple[Hashable, ...]


class _Graph:
    """The graph of a ``.tflite``, by the schema that LiteRT brings.

    Raises:
        MusgdError: It is none, or damaged.
    """

    def __init__(self, data: bytes, name: object = "what litert-torch made") -> None:
        from ai_edge_litert import schema_py_generated as schema

        try:
            if data[4:8] != _IDENTIFIER:
                raise ValueError("it does not begin as one")
            self._model: Any = schema.ModelT.InitFromPackedBuf(data, 0)
            (self._graph,) = self._model.subgraphs
            kinds = {code: name for name, code in vars(schema.BuiltinOperator).items()}
            self.operations = [self._operation(op, kinds) for op in self._graph.operators]
        except Exception as error:  # flatbuffers stumbles over damage in a dozen ways
            raise MusgdError(
                f"{name} cannot be read as LiteRT: {error}", "musgd export makes it again"
            ) from error
        self._int8 = schema.TensorType.INT8

    def _operation(self, op: Any, kinds: Mapping[int, str]) -> _Operation:
        code = self._model.operatorCodes[op.opcodeIndex]
        # The one byte that older files have, and 127 there where it does not suffice.
        kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return _Operation(
            name=self.name_of(op.outputs[0]),
            kind=kind,
            is_convolution=kind in _CONVOLUTIONS,
            inputs=tuple(map(int, op.inputs)),
            outputs=tuple(map(int, op.outputs)),
        )

    @property
    def convolutions(self) -> list[_Operation]:
        return [op for op in self.operations if op.is_convolution]

    @property
    def input(self) -> int:
        return int(self._graph.inputs[0])

    def name_of(self, tensor: Any) -> str:
        return str(self._graph.tensors[tensor].name.decode())

    def shape_of(self, tensor: Any) -> list[int]:
        return [int(side) for side in self._graph.tensors[tensor].shape]

    def is_int8(self, tensor: Any) -> bool:
        return bool(self._graph.tensors[tensor].type == self._int8)

    def values_of(self, tensor: Any) -> bytes:
        return bytes(self._model.buffers[self._graph.tensors[tensor].buffer].data)

    def renamed(self, names: Mapping[Any, str]) -> bytes:
        """Return the file with other names for some tensors."""
        import flatbuffers

        for tensor, name in names.items():
            self._graph.tensors[tensor].name = name.encode()
        builder = flatbuffers.Builder(0)
        builder.Finish(self._model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())


def _with_names(data: bytes, parent: GraphProto) -> bytes:
    """Name each convolution as the parent does, by its weights, which are the same in both."""
    from onnx import numpy_helper

    graph = _Graph(data)
    stored = {tensor.name: tensor for tensor in parent.initializer}
    parents: dict[bytes, list[str]] = defaultdict(list)
    for node in parent.node:
        if node.op_type == "Conv":
            weights = numpy_helper.to_array(stored[node.input[1]])
            # (out, in, height, width); LiteRT has the channels last, and those of a depthwise
            # convolution, whose one "in" leads, too.
            order = (1, 2, 3, 0) if weights.shape[1] == 1 else (0, 2, 3, 1)
            parents[weights.transpose(order).tobytes()].append(node.name)
    names: dict[Any, str] = {}
    for op in graph.convolutions:
        alike = parents[graph.values_of(op.inputs[1])]
        if not alike:
            raise MusgdError(
                f"litert-torch made a convolution {op.name} that the network does not have",
                "please report it, with the versions that musgd doctor shows",
            )
        names[op.outputs[0]] = alike.pop(0)
    return graph.renamed(names)


def read_back(folder: Path) -> Built:
    """Read from the file what its convolutions are computed in.

    A convolution is int8 when its input, its weights and its output are.

    Raises:
        MusgdError: The file is damaged.
    """
    file = folder / FILES[0]
    graph = _Graph(file.read_bytes(), file)
    macs: dict[bool, float] = {True: 0.0, False: 0.0}
    layers: dict[bool, list[str]] = {True: [], False: []}
    for op in graph.convolutions:
        image, weights, output = op.inputs[0], op.inputs[1], op.outputs[0]
        is_int8 = all(map(graph.is_int8, (image, weights, output)))
        # (out, height, width, in), or of a depthwise one (1, height, width, out): what one output
        # value sums over.
        summed = graph.shape_of(weights)[1 : 4 if op.kind == "CONV_2D" else 3]
        macs[is_int8] += math.prod(graph.shape_of(output)) * math.prod(summed)
        layers[is_int8].append(op.name)
    return built(macs[True], sum(macs.values()), "fp32", layers[True], layers[False])


# ------------------------------------------------------------------------------- what stays float


class _Region(NamedTuple):
    """Where an operation lies in the network."""

    before: frozenset[str]
    """The nearest convolutions that lead to it."""
    after: frozenset[str]
    """The nearest convolutions that it leads to."""


def _regions(operations: Sequence[_Operation]) -> dict[str, _Region]:
    """Return the region of each operation; they come in the order in which they are computed."""
    made_by: dict[Hashable, frozenset[str]] = defaultdict(frozenset)
    read_by: dict[Hashable, frozenset[str]] = defaultdict(frozenset)
    before: dict[str, frozenset[str]] = {}
    regions = {}
    for op in operations:
        before[op.name] = frozenset().union(*(made_by[tensor] for tensor in op.inputs))
        for tensor in op.outputs:
            made_by[tensor] = frozenset({op.name}) if op.is_convolution else before[op.name]
    for op in reversed(operations):
        after = frozenset[str]().union(*(read_by[tensor] for tensor in op.outputs))
        regions[op.name] = _Region(before[op.name], after)
        for tensor in op.inputs:
            read_by[tensor] |= {op.name} if op.is_convolution else after
    return regions


def _kept_float(graph: _Graph, material: Material) -> set[str]:
    """Return the names of the operations that stay float.

    The parent's convolutions have their names here too. Other nodes of it stand for all that is
    computed between the same convolutions: the two graphs spell that differently.
    """
    regions = _regions(graph.operations)
    kept: set[str] = set()
    kept_regions: set[_Region] = set()
    if not material.quantize_all:
        kept |= {name for name, region in regions.items() if not region.after}
        kept |= {op.name for op in graph.convolutions if _ATTENTION_SCOPE in op.name}
        kept_regions |= {regions[op.name] for op in graph.operations if op.kind in _ATTENTION}
    if material.keep_float:
        parent = _regions(_operations(onnx_graph.load(material.onnx).graph))
        convolutions = {op.name for op in graph.convolutions}
        kept |= material.keep_float & convolutions
        kept_regions |= {parent[name] for name in material.keep_float - convolutions}
    for name, activation in _silus(graph).items():
        if name in kept:
            kept |= {op.name for op in activation}
    return kept | {
        op.name
        for op in graph.operations
        if not op.is_convolution and regions[op.name] in kept_regions
    }


def _operations(graph: GraphProto) -> list[_Operation]:
    return [
        _Operation(
            node.name,
            node.op_type,
            node.op_type == "Conv",
            tuple(node.input),
            tuple(node.output),
        )
        for node in graph.node
    ]


def _silus(graph: _Graph) -> dict[str, list[_Operation]]:
    """Return the convolutions that only SiLU reads, x · sigmoid(x), and the operations of it."""
    takers: dict[Hashable, list[_Operation]] = defaultdict(list)
    for op in graph.operations:
        for tensor in op.inputs:
            takers[tensor].append(op)
    read_by = {op.name: takers[op.outputs[0]] for op in graph.convolutions}
    return {name: ops for name, ops in read_by.items() if {op.kind for op in ops} == _SILU}


# ------------------------------------------------------------------------------------------- int8


def _ranges(model: bytes, inputs: Inputs, method: str) -> dict[str, dict[str, Any]]:
    """Return the ``min`` and ``max`` of each tensor, as the quantizer takes them.

    Its own calibration counts the first image most: a moving average that begins with it.
    """
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    graph = _Graph(model)
    watched = [graph.input, *(tensor for op in graph.operations for tensor in op.outputs)]
    with quiet_native_code():
        interpreter = Interpreter(
            model_content=model, num_threads=1, experimental_preserve_all_tensors=True
        )
        interpreter.allocate_tensors()
    sums = np.zeros((len(watched), 2))
    for x in inputs:
        interpreter.set_tensor(graph.input, x)
        interpreter.invoke()
        sums += [_ends(interpreter.get_tensor(tensor), method) for tensor in watched]
    ranges = {
        graph.name_of(tensor): {"min": np.float32(low), "max": np.float32(high)}
        for tensor, (low, high) in zip(watched, sums / len(inputs), strict=True)
    }
    for name in _silus(graph):
        found = ranges[name]
        found["min"] = max(found["min"], min(np.float32(SILU_FLOOR), found["max"]))
    return ranges


def _ends(values: NDArray[np.float32], method: str) -> tuple[float, float]:
    if method == MINMAX:
        return float(values.min()), float(values.max())
    import numpy as np

    cut = int(values.size * (1 - PERCENTILE / 100))
    ordered = np.partition(values, (cut, values.size - 1 - cut), axis=None)
    return float(ordered[cut]), float(ordered[-1 - cut])


def _quantize(
    model: bytes, ranges: Mapping[str, Mapping[str, Any]], kept: Collection[str]
) -> bytes:
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.qtyping import TFLOperationName as Kind
    from ai_edge_quantizer.quantizer import Quantizer

    quantizer = Quantizer(model, recipe.static_wi8_ai8())

    def keep(kind: Kind, names: str = ".*") -> None:
        quantizer.update_quantization_recipe(
            names, kind, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE
        )

    keep(Kind.INPUT)
    keep(Kind.OUTPUT)
    if kept:
        # It searches the name of an operation's output, which it ends with a semicolon.
        keep(Kind.ALL_SUPPORTED, f"^(?:{'|'.join(map(re.escape, sorted(kept)))});$")
    with quiet_native_code():
        done = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(done.quantized_model)
