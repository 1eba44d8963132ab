"""ncnn from the traced network by pnnx; its int8 by our own quantizer."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.compress.precision import Built, built
from musgd_cli.errors import MusgdError
from musgd_cli.installation import pip
from musgd_cli.records import Precision

if TYPE_CHECKING:
    from musgd_cli.compress.formats import Material
    from musgd_cli.compress.ncnn_files import Layer
    from musgd_cli.compress.parent import Network

FILES = ("model.ncnn.param", "model.ncnn.bin")
NEEDS: Mapping[Precision, tuple[str, ...]] = {
    "fp32": ("pnnx", "ncnn"),
    "fp16": ("pnnx", "ncnn"),
    "int8": ("pnnx", "ncnn", "onnx"),
}
EXTRA = "quantize"
NMS_FREE = False
STAND_IN = None

TIMEOUT_S = 300.0
"""pnnx takes seconds; past this it hangs."""


def lacks(precision: Precision, boards: tuple[str, ...]) -> None:
    """Nothing: every machine that has the modules builds every precision."""


def build(material: Material, folder: Path, precision: Precision) -> str | None:
    """Write the traced network as ncnn's ``.param`` and ``.bin`` into ``folder``.

    In int8 each output channel's weights have a scale of their own, and each convolution's input
    has one; what stays float has its weights in half precision. ``quantize_all`` means all
    convolutions, as ncnn computes nothing else here in int8.

    Args:
        material: What to build from.
        folder: Gets the two files and nothing else.
        precision: What weights are stored as.

    Raises:
        MusgdError: pnnx failed, or a node to keep float is unknown.
    """
    if precision != "int8":
        _convert(material.network, folder, half=precision == "fp16")
        return None
    from musgd_cli.compress import ncnn_files, ncnn_int8

    layers, magnitudes = _calibrated(material, folder)
    kept = ncnn_int8.layers_of(material.keep_float, layers, material.onnx)
    if not material.quantize_all:
        kept |= ncnn_int8.float_by_default(layers)
    side = str(material.network.imgsz)
    quantized = []
    for layer in layers:
        if layer.kind == "Input":  # by its sides, reading back finds all others
            layer = replace(layer, parameters={0: side, 1: side, 2: "3"})
        elif layer.is_convolution and layer.name in kept:
            layer = ncnn_int8.halve(layer)
        elif layer.is_convolution:
            layer = ncnn_int8.quantize(layer, magnitudes[layer.inputs[0]])
        quantized.append(layer)
    ncnn_files.write(quantized, folder)
    return ncnn_int8.METHODS[material.method]


def _calibrated(material: Material, folder: Path) -> tuple[list[Layer], dict[str, float]]:
    """Return the layers in fp32 and the magnitudes of the convolutions' inputs."""
    from musgd_cli.compress import ncnn_files, ncnn_int8

    key = (__name__, material.method)
    if key not in material.memo:
        assert material.inputs is not None
        _convert(material.network, folder, half=False)
        layers = ncnn_files.read(folder)
        blobs = dict.fromkeys(layer.inputs[0] for layer in layers if layer.is_convolution)
        magnitudes = ncnn_int8.magnitudes(folder, blobs, material.inputs, material.method)
        material.memo[key] = layers, magnitudes
    found: tuple[list[Layer], dict[str, float]] = material.memo[key]
    return found


def _convert(network: Network, folder: Path, *, half: bool) -> None:
    """Run pnnx.

    From TorchScript, as pnnx recognizes more in it than in ONNX: all 87 SiLU, against 73.
    """
    import pnnx
    import torch

    imgsz = network.imgsz
    work = folder / "pnnx"
    work.mkdir()
    x = torch.zeros(1, 3, imgsz, imgsz)
    trace: Any = torch.jit.trace  # untyped
    trace(network.module, x, check_trace=False).save(str(work / "model.pt"))
    command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,3,{imgsz},{imgsz}]f32"]
    try:
        done = subprocess.run(
            [*command, f"fp16={int(half)}"],
            cwd=work,  # it writes a dozen files beside its input
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(str(error)) from error
    if done.returncode != 0 or not all((work / name).is_file() for name in FILES):
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise _failed(lines[-1])
    for name in FILES:
        shutil.move(work / name, folder / name)
    shutil.rmtree(work)


def _failed(why: str) -> MusgdError:
    return MusgdError(f"pnnx failed: {why}", pip("install --force-reinstall pnnx ncnn"))


def read_back(folder: Path) -> Built:
    """Read from the two files what the convolutions' weights are stored as.

    Raises:
        MusgdError: They are damaged.
    """
    from musgd_cli.compress import ncnn_files

    layers = ncnn_files.read(folder)
    convolutions = [layer for layer in layers if layer.is_convolution]
    int8 = [layer for layer in convolutions if layer.is_int8]
    others = [layer for layer in convolutions if not layer.is_int8]
    counts: Counter[str] = Counter()
    for layer in others:
        counts[layer.tensors[0].dtype.name] += layer.tensors[0].size
    macs = _macs(folder, layers) if int8 else {}
    return built(
        sum(macs[layer.name] for layer in int8),
        sum(macs.values()),
        "fp16" if counts["float16"] > counts["float32"] else "fp32",
        (layer.name for layer in int8),
        (layer.name for layer in others),
    )


def _macs(folder: Path, layers: list[Layer]) -> dict[str, int]:
    """Return the multiply-accumulates of each convolution, whose output's sides ncnn finds out."""
    import ncnn

    from musgd_cli.compress.ncnn_files import damaged

    net = ncnn.Net()
    net.opt.lightmode = False  # it frees a blob as soon as it was used
    param, weights = (folder / name for name in FILES)
    if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
        raise damaged(param)
    found = {}
    with net.create_extractor() as extractor:
        for layer in layers:
            if layer.kind == "Input":
                x = ncnn.Mat(*map(layer.number, (0, 1, 2)))
                x.fill(0.0)
                extractor.input(layer.outputs[0], x)
            elif layer.is_convolution:
                failed, output = extractor.extract(layer.outputs[0])
                if failed:
                    raise damaged(param)
                # Each place of the output, for each weight.
                found[layer.name] = output.w * output.h * layer.tensors[0].size
    net.clear()
    return found
