"""Runtimes that report to their makers are kept from it."""

from __future__ import annotations

import os
import sys


def block_telemetry() -> None:
    """Make OpenVINO, NNCF and ONNX Runtime send nothing. To be called before they are imported.

    ``openvino_telemetry`` asks nobody: without a consent file it takes a yes for granted, writes
    ``~/intel`` and connects to Google Analytics, as soon as ``openvino`` is imported. It and NNCF
    fall back to a stub where it cannot be imported, which a ``None`` in ``sys.modules`` sees to.

    ONNX Runtime's official builds, since 1.29 on Linux too, keep an identifier of the machine in
    ``~/.cache/Microsoft`` and upload from C++; see its Privacy.md.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
