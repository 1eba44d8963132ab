"""Which engines and frameworks are installed, told without importing any of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass

from musgd_cli.hardware.tree import Tree


@dataclass(frozen=True)
class _Package:
    module: str
    distributions: tuple[str, ...]


# An engine is published under several names, of which at most one should be installed.
_PACKAGES = {
    "torch": _Package("torch", ("torch",)),
    "ultralytics": _Package("ultralytics", ("ultralytics",)),
    "onnx": _Package("onnx", ("onnx",)),
    "onnxruntime": _Package(
        "onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
    ),
    "openvino": _Package("openvino", ("openvino",)),
    "ncnn": _Package("ncnn", ("ncnn",)),
    "tensorrt": _Package(
        "tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11")
    ),
    "litert": _Package("ai_edge_litert", ("ai-edge-litert", "ai-edge-litert-nightly")),
    "nncf": _Package("nncf", ("nncf",)),
    "opencv": _Package(
        "cv2",
        (
            "opencv-python-headless",
            "opencv-python",
            "opencv-contrib-python-headless",
            "opencv-contrib-python",
        ),
    ),
}

_LIBRARY_FOLDERS = ("usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu")


def read_runtimes(tree: Tree) -> dict[str, str | None]:
    """Return each engine's version, ``None`` where it is not installed.

    Of a recorded tree only what lies in files of the system is told: JetPack's TensorRT.
    """
    system = {"tensorrt": version} if (version := _system_tensorrt(tree)) else {}
    if not tree.live:
        return dict(system)
    return {name: _version(package) or system.get(name) for name, package in _PACKAGES.items()}


def _version(package: _Package) -> str | None:
    for distribution in package.distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    # Debian's python3-opencv and the like come without pip's metadata. A mere folder of that name
    # has no origin.
    spec = importlib.util.find_spec(package.module)
    return "unknown" if spec and spec.origin else None


def _system_tensorrt(tree: Tree) -> str | None:
    for folder in _LIBRARY_FOLDERS:
        for library in tree.children(folder, "libnvinfer.so.*.*"):
            return re.sub(r".*\.so\.", "", library)
    return None
