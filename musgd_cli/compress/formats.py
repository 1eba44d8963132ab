"""The runtimes that models are built for, one module each, and what it builds from."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from musgd_cli.records import Precision

if TYPE_CHECKING:
    from musgd_cli.compress.calibration import Inputs
    from musgd_cli.compress.parent import Network
    from musgd_cli.compress.precision import Built

BUILT = frozenset({"onnxruntime", "openvino", "ncnn"})
"""Runtimes that have a module of their name here."""

MENDS = {
    "tensorrt": "on the board, with the float parent: "
    "trtexec --onnx=model.onnx --fp16 --saveEngine=model.engine",
    "litert": "--runtime ncnn, or --runtime onnxruntime",
    "null": "--runtime onnxruntime; bench has the null engine without an export",
}
"""What to do where a runtime's models are not built."""


@dataclass(frozen=True)
class Material:
    """What a model is built from."""

    network: Network
    onnx: Path
    """The float parent's file."""
    inputs: Inputs | None
    """What calibrates; there is some whenever int8 is built."""
    method: str
    """``compress.calib_method``."""


class Format(Protocol):
    """What the module of a runtime offers."""

    FILES: tuple[str, ...]
    """The model's files; the first is the one to open."""
    NEEDS: Mapping[Precision, tuple[str, ...]]
    """The precisions it can build, and the modules that must be installed to build and try one."""
    NMS_FREE: bool
    """Whether it can hold the head that needs no NMS."""

    def build(self, material: Material, folder: Path, precision: Precision) -> str | None:
        """Write ``FILES`` into ``folder`` and return how activations were calibrated, if so."""
        ...

    def read_back(self, folder: Path) -> Built:
        """Read from the files what was built."""
        ...


def format_of(runtime: str) -> Format:
    """Return the module that builds for ``runtime``, one of `BUILT`. Loads no converter."""
    return cast("Format", import_module(f"musgd_cli.compress.{runtime}"))


def missing(modules: Iterable[str]) -> list[str]:
    """Return those of ``modules`` that are not installed."""
    return [name for name in modules if importlib.util.find_spec(name) is None]
