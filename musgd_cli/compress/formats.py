"""The runtimes that models are built for, one module each, and what it builds from."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from musgd_cli.records import Precision, RuntimeName

if TYPE_CHECKING:
    from musgd_cli.compress.calibration import Inputs
    from musgd_cli.compress.parent import Network
    from musgd_cli.compress.precision import Built

BUILT = frozenset({"onnxruntime", "openvino", "ncnn", "tensorrt", "litert"})
"""Runtimes that have a module of their name here."""


@dataclass(frozen=True)
class Material:
    """What a model is built from."""

    boards: tuple[str, ...]
    """That it is for."""
    network: Network
    onnx: Path
    """The float parent's file."""
    inputs: Inputs | None
    """What calibrates; there is some whenever int8 is built."""
    method: str
    """``compress.calib_method``."""
    quantize_all: bool = False
    """Quantize every operation, the decoding of boxes included, as libraries do by default."""
    keep_float: frozenset[str] = frozenset()
    """Nodes of the float parent that stay float, beside those that the format keeps float."""
    memo: dict[Any, Any] = field(default_factory=dict)
    """What calibration found, for the next build from the same parent and inputs."""


class Format(Protocol):
    """What the module of a runtime offers."""

    FILES: tuple[str, ...]
    """The files that must be there; the first is the one to open. ``build`` may leave more."""
    NEEDS: Mapping[Precision, tuple[str, ...]]
    """The precisions it can build, and the modules that must be installed to build and try one."""
    EXTRA: str
    """Extra of ``musgd-cli`` that installs them."""
    NMS_FREE: bool
    """Whether it can hold the head that needs no NMS."""
    STAND_IN: RuntimeName | None
    """A runtime that runs the first of ``FILES`` where its own engine does not run."""

    def lacks(self, precision: Precision, boards: tuple[str, ...]) -> tuple[str, str] | None:
        """Return why this machine builds no ``precision`` for these boards, and the mend, if so."""
        ...

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
