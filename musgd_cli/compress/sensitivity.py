"""Which parts of a network int8 harms: each alone in int8, held against the float parent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musgd_cli.compress import onnx_graph
from musgd_cli.hardware import usable_cores

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

SCORE = 0.1
"""Least score of a prediction that is compared, and that a difference is a share of."""

BEST = 100
"""How many are compared where fewer reach `SCORE`."""

_NOT_ZERO = 1e-6
"""Added to weights, all of which may be 0."""


@dataclass(frozen=True)
class Sensitivity:
    """What int8 in one group of nodes alone does to the output."""

    nodes: tuple[str, ...]
    """Names in the float parent."""
    error: float
    """How far the scores of good predictions are off, as a share of the score, plus how far their
    corners move, as a share of the box's side: at most 1 each, the mean weighted by score."""


def _ignore(_: str) -> None:
    pass


def rank(
    parent: Path,
    quantized: ModelProto | Path,
    inputs: Sequence[NDArray[np.float32]],
    nodes: Iterable[str] | None = None,
    on_progress: Callable[[str], None] = _ignore,
) -> list[Sensitivity]:
    """Order the groups of a quantized model by what they cost, the worst first.

    A group is a convolution with its activation, or what else a module computes by itself: the
    decoding of boxes is one.

    Args:
        parent: The float ONNX.
        quantized: The same with QDQ pairs, as `musgd_cli.compress.qdq` writes it.
        inputs: A few network inputs, (1, 3, imgsz, imgsz) each.
        nodes: Names of the nodes to look at; the groups of the others are left out. Default: all.
        on_progress: Told how far it is.

    Returns:
        The groups that the quantized model has in int8. Ties stay in the graph's order.
    """
    source = onnx_graph.load(parent)
    model = onnx_graph.load(quantized) if isinstance(quantized, Path) else quantized
    pairs = _Pairs(model.graph, {value.name for value in source.graph.output})
    wanted = None if nodes is None else set(nodes)
    groups = [
        group
        for group in _groups(source.graph)
        if pairs.touch(group) and (wanted is None or any(node.name in wanted for node in group))
    ]
    expected = list(_outputs(source, inputs))
    found = []
    for done, group in enumerate(groups, start=1):
        alone = pairs.alone(source, group)
        errors = [_error(*both) for both in zip(expected, _outputs(alone, inputs), strict=True)]
        names = tuple(node.name for node in group)
        found.append(Sensitivity(names, float(np.mean(errors))))
        on_progress(f"int8 in part {done} of {len(groups)} alone")
    return sorted(found, key=lambda row: -row.error)


def _groups(graph: GraphProto) -> list[list[NodeProto]]:
    """Part the nodes into groups, in the order of their first nodes."""
    takers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            takers[name].append(node)
    key_of: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            for member in (node, *_activation(node, takers)):
                key_of[member.name] = node.name
    groups: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        if node.op_type != "Constant":
            # torch names a node by the module that made it.
            scope = node.name.rpartition("/")[0]
            groups[key_of.get(node.name, f"{scope}/")].append(node)
    return list(groups.values())


def _activation(conv: NodeProto, takers: dict[str, list[NodeProto]]) -> Iterator[NodeProto]:
    """Yield the nodes of the SiLU behind a convolution: x times sigmoid of x."""
    behind = takers[conv.output[0]]
    gate = next((node for node in behind if node.op_type == "Sigmoid"), None)
    if gate is not None:
        product = [n for n in behind if n.op_type == "Mul" and gate.output[0] in n.input]
        yield from (gate, *product)


class _Pairs:
    """The QuantizeLinear/DequantizeLinear pairs of a quantized graph, by what they round."""

    def __init__(self, graph: GraphProto, outputs: set[str]) -> None:
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._inputs = {node.name: list(node.input) for node in graph.node}
        self._rounders: dict[str, NodeProto] = {}
        """By tensor of the parent, the pair's first node."""
        self._weights: dict[str, NodeProto] = {}
        """By the float result, what makes it from a constant in int8."""
        quantizers = {
            node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"
        }
        for node in graph.node:
            if node.op_type != "DequantizeLinear":
                continue
            quantizer = quantizers.get(node.input[0])
            if quantizer is None:
                self._weights[node.output[0]] = node
            else:
                # The library renames what went into the network's output.
                result = node.output[0]
                self._rounders[result if result in outputs else quantizer.input[0]] = quantizer

    def touch(self, group: Sequence[NodeProto]) -> bool:
        """Tell whether a result or a constant of a group is in int8."""
        return any(
            any(name in self._rounders for name in node.output) or dict(self._constants_of(node))
            for node in group
        )

    def _constants_of(self, node: NodeProto) -> Iterator[tuple[int, NodeProto]]:
        """Yield which inputs of a node are constants in int8, and what makes them float."""
        for i, name in enumerate(self._inputs.get(node.name, ())):
            if name in self._weights:
                yield i, self._weights[name]

    def alone(self, source: ModelProto, group: Sequence[NodeProto]) -> ModelProto:
        """Return the float parent with one group in int8: what goes in, out, and its constants."""
        import onnx
        from onnx import numpy_helper

        members = {node.name for node in group}
        rounded = {
            name for node in group for name in (*node.input, *node.output) if name in self._rounders
        }
        model = onnx.ModelProto()
        model.CopyFrom(source)
        nodes: list[NodeProto] = []
        for name in rounded & {value.name for value in source.graph.input}:
            nodes += self._pair(name, name, f"{name}_rounded")
        for node in model.graph.node:
            if node.name in members:
                for i, maker in self._constants_of(node):
                    new = f"{node.input[i]}_{node.name}_rounded"
                    values = self._constant(maker)
                    model.graph.initializer.append(numpy_helper.from_array(values, new))
                    node.input[i] = new
            for i, name in enumerate(node.input):
                if name in rounded:
                    node.input[i] = f"{name}_rounded"
            nodes.append(node)
            for i, name in enumerate(node.output):
                if name not in rounded:
                    continue
                if any(name == value.name for value in model.graph.output):
                    node.output[i] = f"{name}_exact"
                    nodes += self._pair(name, node.output[i], name)
                else:
                    nodes += self._pair(name, name, f"{name}_rounded")
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend(kept)
        known = {tensor.name for tensor in model.graph.initializer}
        for name in sorted(rounded):
            for constant in self._rounders[name].input[1:]:
                if constant not in known:
                    known.add(constant)
                    model.graph.initializer.append(self._tensors[constant])
        return model

    def _pair(self, tensor: str, source: str, result: str) -> list[NodeProto]:
        """Return the two nodes that round ``source`` as ``tensor`` is rounded."""
        from onnx import helper

        scale = list(self._rounders[tensor].input[1:])
        code = f"{tensor}_code"
        return [
            helper.make_node("QuantizeLinear", [source, *scale], [code]),
            helper.make_node("DequantizeLinear", [code, *scale], [result]),
        ]

    def _constant(self, maker: NodeProto) -> NDArray[np.float32]:
        """Compute the float values of a constant that is stored in int8, or in int32."""
        from onnx import numpy_helper

        code, scale, *zero = (numpy_helper.to_array(self._tensors[name]) for name in maker.input)
        axis = next((entry.i for entry in maker.attribute if entry.name == "axis"), 1)
        shape = [-1 if i == axis else 1 for i in range(code.ndim)] if scale.ndim else ()
        exact = code.astype(np.float32)
        if zero:
            exact -= zero[0].astype(np.float32).reshape(shape)
        result: NDArray[np.float32] = exact * scale.reshape(shape)
        return result


# -------------------------------------------------------------------------------------- the error


def _outputs(
    model: ModelProto, inputs: Sequence[NDArray[np.float32]]
) -> Iterator[NDArray[np.float32]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = usable_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    for x in inputs:
        yield session.run(None, {name: x})[0][0]


def _error(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Return how far the good predictions of one image are off; see `Sensitivity.error`."""
    if expected.shape[1] == 6:  # final boxes, best first; another order is no error
        return _final_error(expected, found)
    scores = expected[4:].max(axis=0)
    good = _good(scores)
    wanted, got = expected[:, good], found[:, good]
    score = np.abs(wanted[4:] - got[4:]).max(axis=0) / np.maximum(scores[good], SCORE)
    sides = np.sqrt(np.maximum(wanted[2] * wanted[3], 1))
    moved = np.abs(_corners(wanted[:4]) - _corners(got[:4])).mean(axis=0) / sides
    errors = np.minimum(score, 1) + np.minimum(moved, 1)
    return float(np.average(errors, weights=scores[good] + _NOT_ZERO))


def _good(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    order = np.argsort(-scores, kind="stable")
    return order[: max(int((scores >= SCORE).sum()), BEST)]


def _corners(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn (4, n) centres and sizes into corners."""
    half = boxes[2:] / 2
    return np.concatenate((boxes[:2] - half, boxes[:2] + half))


def _final_error(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Compare rows x1, y1, x2, y2, score, class, each with the nearest one of its class."""
    errors = []
    rows = expected[_good(expected[:, 4])]
    for row in rows:
        side = np.sqrt(max(float((row[2] - row[0]) * (row[3] - row[1])), 1.0))
        moved = np.abs(found[:, :4] - row[:4]).mean(axis=1) / side
        moved[found[:, 5] != row[5]] = np.inf
        nearest = int(moved.argmin())
        difference = abs(float(row[4] - found[nearest, 4])) / max(float(row[4]), SCORE)
        gone = moved[nearest] >= 1
        errors.append(2.0 if gone else min(difference, 1.0) + float(moved[nearest]))
    return float(np.average(errors, weights=rows[:, 4] + _NOT_ZERO))
