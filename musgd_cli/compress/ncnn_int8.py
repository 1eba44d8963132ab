"""Our own int8 quantizer for ncnn, as neither its wheel nor pnnx's has one.

ncnn computes a convolution in int8 where its weights are int8 and scales follow them: it rounds the
input by one scale, multiplies and adds in integers, and turns the sums back to float by the input's
scale and the output channel's own. All else it computes in float, and SiLU or another operation in
float follows each convolution: none hands its result on in int8, which ncnn would allow.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from musgd_cli.compress import ncnn_files, onnx_graph
from musgd_cli.compress.ncnn_files import Key, Layer
from musgd_cli.errors import MusgdError
from musgd_cli.hardware import usable_cores

if TYPE_CHECKING:
    from musgd_cli.compress.calibration import Inputs

METHODS: Mapping[str, str] = {
    "minmax": "mean-minmax",
    "percentile": "percentile-99.99",
    "entropy": "entropy",
}
"""``compress.calib_method`` to what is recorded: what it is here."""

LEVELS = 127
"""Largest int8 magnitude; -128 is not used."""

MOST_WEIGHT_SUM = 2**31 // (576 * LEVELS)
"""Most that the magnitudes of an output channel's int8 weights may sum up to in a 3x3 convolution.

ncnn's integer Winograd F(4,3) computes 576 times the result (24 squared, from the scaled kernel
transform in ``convolution_3x3_winograd_int8.h``) in 32 bits before it divides: with no more than
this, no input whatever makes it overflow. It touches 2 channels of YOLO26n.
"""

_PERCENTILE = 0.9999
_BINS = 2048
_TINY = 1e-30
"""Magnitudes below are zero: their scale would not be finite."""


def float_by_default(layers: Sequence[Layer]) -> frozenset[str]:
    """Name the convolutions that int8 harms, or that it does not speed up.

    The last ones, whose results are boxes and scores; the first, which reads the image; those with
    groups. Measured with YOLO26n at 640 px, one thread of a Zen 4 with VNNI: in int8 depth-wise
    convolutions take 2.0 to 2.8 times their float time, the first 1.1 times, most others .3 to .9
    times. On COCO128 (32 images calibrate, the other 96 are scored, float .4722 mAP50-95): all in
    int8 .4695, with .85 of the parent's boxes matched; the last and the grouped in float .4745 and
    .93; the first as well .4773 and .94; the attention's as well .4710 and .93.
    """
    takers: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        for blob in layer.inputs:
            takers[blob].append(layer)
    leads_on: set[str] = set()  # blobs that another convolution is computed from
    for layer in reversed(layers):
        leads_on.update(
            blob
            for blob in layer.outputs
            if any(t.is_convolution or leads_on.intersection(t.outputs) for t in takers[blob])
        )
    images = {blob for layer in layers if layer.kind == "Input" for blob in layer.outputs}
    return frozenset(
        layer.name
        for layer in layers
        if layer.is_convolution
        and (
            layer.kind == "ConvolutionDepthWise"
            or layer.inputs[0] in images
            or layer.outputs[0] not in leads_on
        )
    )


def layers_of(nodes: Collection[str], layers: Iterable[Layer], onnx: Path) -> frozenset[str]:
    """Name the convolutions that nodes of the float parent became.

    pnnx gives names of its own, but leaves weights as they are: equal weights are the same
    convolution, and several with equal weights are in the same order.

    Args:
        nodes: Names of nodes; those that are no convolutions are float in ncnn anyway.
        layers: The converted network, in float32.
        onnx: The float parent.

    Raises:
        MusgdError: There is no such node, or no convolution with its weights.
    """
    if not nodes:
        return frozenset()
    from onnx import numpy_helper

    graph = onnx_graph.load(onnx).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    waiting: dict[bytes, deque[str]] = defaultdict(deque)
    for layer in layers:
        if layer.is_convolution:
            waiting[layer.tensors[0].tobytes()].append(layer.name)
    became: dict[str, str | None] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            key = numpy_helper.to_array(weights[node.input[1]]).tobytes()
            became[node.name] = waiting[key].popleft() if waiting[key] else None
    others = {node.name for node in graph.node} - became.keys()
    found = {name: became.get(name) for name in set(nodes) - others}
    for name, layer_name in sorted(found.items()):
        if layer_name is None:
            raise MusgdError(
                f"the ncnn model has no convolution with the weights of {name}",
                "give names of nodes of the float parent, of the same head",
            )
    return frozenset(name for name in found.values() if name is not None)


# -------------------------------------------------------------------------------------- calibration


def magnitudes(
    folder: Path, blobs: Collection[str], inputs: Inputs, method: str
) -> dict[str, float]:
    """Return the magnitude that becomes 127, of each blob; larger ones are cut.

    Args:
        folder: Holds the float model, which ncnn runs.
        blobs: The inputs of the convolutions.
        inputs: The images.
        method: ``minmax``: the mean over images of each image's largest magnitude; ``percentile``:
            99.99 % of all values are no larger; ``entropy``: see `least_divergence`. Measured as in
            `float_by_default`: they lost -.004, -.003 and .051 mAP50-95 on COCO128, and .000, .004
            and .012 on BCCD (72 images, 256 px, float .5976); the largest magnitude over all images
            lost .010 and .002.

    Raises:
        MusgdError: An image is damaged, or the model gives values that are not finite.
    """
    largest: dict[str, list[float]] = {blob: [] for blob in blobs}
    for blob, values in _activations(folder, blobs, inputs):
        largest[blob].append(float(max(values.max(), -values.min())))
    for blob, found in largest.items():
        if not np.isfinite(found).all():
            raise MusgdError(
                f"the float ncnn model computes values that are not finite ({blob})",
                "give weights of a training that did not diverge",
            )
    if method == "minmax":
        return {blob: float(np.mean(found)) for blob, found in largest.items()}
    ends = {blob: max(*found, _TINY) for blob, found in largest.items()}
    counts = {blob: np.zeros(_BINS, np.int64) for blob in blobs}
    for blob, values in _activations(folder, blobs, inputs):
        counts[blob] += np.histogram(np.abs(values), _BINS, (0, ends[blob]))[0]
    last_bin = {"percentile": _last_within, "entropy": least_divergence}[method]
    return {blob: ends[blob] * last_bin(counts[blob]) / _BINS for blob in blobs}


def _activations(
    folder: Path, blobs: Collection[str], inputs: Inputs
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Run the float model on each image and yield what each blob held."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = usable_cores()
    net.opt.lightmode = False  # it frees a blob as soon as it was used
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    param, weights = (folder / name for name in ncnn_files.FILES)
    if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
        raise ncnn_files.damaged(param)
    (entry,) = net.input_names()
    for x in inputs:
        with net.create_extractor() as extractor:
            extractor.input(entry, ncnn.Mat(x[0]))
            for blob in blobs:
                failed, values = extractor.extract(blob)
                if failed:
                    raise ncnn_files.damaged(param)
                yield blob, np.asarray(values)
    net.clear()


def _last_within(counts: NDArray[np.int64]) -> int:
    """Return the number of bins that hold `_PERCENTILE` of all."""
    return int(np.searchsorted(counts.cumsum(), _PERCENTILE * counts.sum())) + 1


def least_divergence(counts: NDArray[np.int64]) -> int:
    """Return the number of bins after which to cut, so that int8 keeps the distribution best.

    The usual search (Migacz, "8-bit Inference with TensorRT", GTC 2017): the distribution cut there
    against the same in 128 levels, by Kullback-Leibler divergence.

    Args:
        counts: (bins,) histogram of magnitudes, from 0; a multiple of 128 bins.
    """
    levels = LEVELS + 1
    best, least = len(counts), np.inf
    for end in range(levels, len(counts) + 1, levels // 8):
        cut = counts[:end].astype(np.float64)
        edges = np.arange(levels) * end // levels
        filled = cut > 0
        # Each level's values, spread evenly over those of its bins that are not empty.
        n_filled = np.maximum(np.add.reduceat(filled, edges, dtype=np.int64), 1)
        share = np.add.reduceat(cut, edges) / n_filled
        coarse = np.repeat(share, np.diff([*edges, end])) * filled
        cut[-1] += counts[end:].sum()
        some = cut > 0
        if not coarse.any():
            continue
        p, q = cut[some] / cut.sum(), coarse[some] / coarse.sum()
        divergence = (p * np.log(p / np.maximum(q, _TINY))).sum()
        if divergence < least:
            best, least = end, divergence
    return best


# --------------------------------------------------------------------------------------- arithmetic


def quantize_weights(
    weights: NDArray[np.float32], most_sum: float = np.inf
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each output channel's weights by a scale of its own.

    Args:
        weights: (channels, values).
        most_sum: Most that the magnitudes of a channel's int8 values may sum up to.

    Returns:
        (channels, values) int8 and (channels,) scales: ``weights * scales`` rounded. A channel of
        zeros has the scale 1.
    """
    magnitude = np.abs(weights.astype(np.float64))
    largest, total = magnitude.max(axis=1), magnitude.sum(axis=1)
    is_zero = largest < _TINY
    largest[is_zero], total[is_zero] = LEVELS, 1
    # Rounding adds at most a half to each.
    room = most_sum - weights.shape[1] / 2
    scales = np.minimum(LEVELS / largest, room / total).astype(np.float32)
    rounded = np.rint(weights * scales[:, None])
    return np.clip(rounded, -LEVELS, LEVELS).astype(np.int8), scales


def quantize(layer: Layer, magnitude: float) -> Layer:
    """Return a convolution in int8.

    Args:
        layer: A convolution in float.
        magnitude: Of its input, what becomes 127.
    """
    weights, *bias = layer.tensors
    grouped = layer.kind == "ConvolutionDepthWise"
    # ncnn has one scale for each group there.
    rows = weights.reshape(
        layer.number(Key.GROUPS, 1) if grouped else layer.number(Key.N_OUTPUT), -1
    )
    values, scales = quantize_weights(rows, MOST_WEIGHT_SUM if _may_use_winograd(layer) else np.inf)
    scale = np.array([LEVELS / magnitude if magnitude > _TINY else 1], np.float32)
    return replace(
        layer,
        parameters={**layer.parameters, Key.INT8_SCALES: "1"},
        tensors=(values.ravel(), *bias, scales, scale),
    )


def _may_use_winograd(layer: Layer) -> bool:
    sides = {layer.number(key, layer.number(Key.KERNEL)) for key in (Key.KERNEL, Key.KERNEL_HEIGHT)}
    return sides == {3} and layer.number(Key.STRIDE, 1) == 1


def halve(layer: Layer) -> Layer:
    """Return a convolution with its weights stored in half precision."""
    weights, *bias = layer.tensors
    return replace(layer, tensors=(weights.astype(np.float16), *bias))
