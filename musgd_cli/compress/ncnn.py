"""ncnn from the traced network by pnnx, and what its two files hold."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.compress.precision import Built, built
from musgd_cli.errors import MusgdError
from musgd_cli.records import Precision

if TYPE_CHECKING:
    from musgd_cli.compress.formats import Material

FILES = ("model.ncnn.param", "model.ncnn.bin")
NEEDS: Mapping[Precision, tuple[str, ...]] = {"fp32": ("pnnx", "ncnn"), "fp16": ("pnnx", "ncnn")}
EXTRA = "quantize"
NMS_FREE = False
STAND_IN = None

TIMEOUT_S = 300.0
"""pnnx takes seconds; past this it hangs."""

_MAGIC = "7767517"

# What a weight blob begins with, little-endian, from ncnn's src/modelbin.cpp.
_STORED: Mapping[int, Precision] = {0: "fp32", 0x01306B47: "fp16"}
_BYTES = {"fp32": 4, "fp16": 2}

_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")


def lacks(precision: Precision) -> None:  # noqa: ARG001
    """Nothing: every machine that has the modules builds every precision."""


def build(material: Material, folder: Path, precision: Precision) -> str | None:
    """Write the traced network as ncnn's ``.param`` and ``.bin`` into ``folder``.

    From TorchScript, as pnnx recognizes more in it than in ONNX: all 87 SiLU, against 73.

    Args:
        material: What to build from.
        folder: Gets the two files and nothing else.
        precision: What weights are stored as.

    Raises:
        MusgdError: pnnx failed.
    """
    import pnnx
    import torch

    imgsz = material.network.imgsz
    work = folder / "pnnx"
    work.mkdir()
    x = torch.zeros(1, 3, imgsz, imgsz)
    trace: Any = torch.jit.trace  # untyped
    trace(material.network.module, x, check_trace=False).save(str(work / "model.pt"))
    command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,3,{imgsz},{imgsz}]f32"]
    try:
        done = subprocess.run(
            [*command, f"fp16={int(precision == 'fp16')}"],
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
    return None


def _failed(why: str) -> MusgdError:
    return MusgdError(f"pnnx failed: {why}", "pip install --force-reinstall pnnx ncnn")


@dataclass(frozen=True)
class Layer:
    """One line of a ``.param`` file."""

    kind: str
    name: str
    parameters: dict[int, str]

    def number(self, key: int, default: int = 0) -> int:
        """Return an integer parameter."""
        return int(self.parameters.get(key, default))


@dataclass(frozen=True)
class Convolution:
    """A convolution of a built model: what its weights are stored as, and their number."""

    name: str
    stored: Precision
    n_weights: int


def read_layers(param: Path) -> list[Layer]:
    """Read the layers of a ``.param`` file, in order.

    Raises:
        MusgdError: It is not one.
    """
    magic, counts, *lines = param.read_text(encoding="utf-8").splitlines() or ["", ""]
    layers = [_layer(line) for line in lines if line.strip()]
    if magic.strip() != _MAGIC or int(counts.split()[0]) != len(layers):
        raise _damaged(param)
    return layers


def _layer(line: str) -> Layer:
    kind, name, n_in, n_out, *rest = line.split()
    pairs = [item.partition("=") for item in rest[int(n_in) + int(n_out) :]]
    return Layer(kind, name, {int(key): value for key, _, value in pairs})


def _damaged(file: Path) -> MusgdError:
    return MusgdError(f"{file} is not what ncnn reads", "musgd export makes it again")


def read_convolutions(folder: Path) -> list[Convolution]:
    """Walk the ``.bin`` along the ``.param`` and return what each convolution's weights are.

    Raises:
        MusgdError: The two do not fit together to the last byte.
    """
    param, weights = (folder / name for name in FILES)
    data = weights.read_bytes()
    at = 0
    found = []
    for layer in read_layers(param):
        if layer.kind == "MemoryData":
            # Raw fp32, unless told otherwise; its sides are 0, 1 and 2, and 11 for a depth.
            sides = [layer.number(key) for key in (0, 1, 11, 2)]
            values = 1
            for side in sides:
                values *= side or 1
            flagged = layer.number(21, 1) == 0
            at += _blob(data, at, values)[1] if flagged else 4 * values
        elif layer.kind in _CONVOLUTIONS:
            n_weights = layer.number(6)
            stored, size = _blob(data, at, n_weights)
            at += size
            at += 4 * layer.number(0) * layer.number(5)  # the bias, always fp32
            found.append(Convolution(layer.name, stored, n_weights))
    if at != len(data):
        raise _damaged(weights)
    return found


def _blob(data: bytes, at: int, values: int) -> tuple[Precision, int]:
    """Return what the blob at ``at`` stores its values as, and its size in bytes with its flag."""
    stored = _STORED.get(int.from_bytes(data[at : at + 4], "little"))
    if stored is None:
        raise MusgdError(
            f"ncnn weights begin with an unknown flag {data[at : at + 4].hex()}",
            "musgd export makes them again",
        )
    padded = -(-values * _BYTES[stored] // 4) * 4
    return stored, 4 + padded


def read_back(folder: Path) -> Built:
    """Read from the two files what the convolutions' weights are stored as.

    Raises:
        MusgdError: They are damaged.
    """
    counts: Counter[Precision] = Counter()
    for convolution in read_convolutions(folder):
        counts[convolution.stored] += convolution.n_weights
    return built(0, 1, "fp16" if counts["fp16"] > counts["fp32"] else "fp32")
