"""Runtimes that report to their makers are kept from it."""

from __future__ import annotations

import sys


def block_telemetry() -> None:
    """Make OpenVINO and NNCF send nothing, by hiding the package that would.

    ``openvino_telemetry`` asks nobody: without a consent file it takes a yes for granted, writes
    ``~/intel`` and connects to Google Analytics, as soon as ``openvino`` is imported. Both
    libraries fall back to a stub where it cannot be imported, which a ``None`` in ``sys.modules``
    sees to. To be called before either is imported.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
