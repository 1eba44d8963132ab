"""This machine: which board it is, its power meters and temperatures, and what ails it.

Everything is read below a root, ``/`` or a recorded tree, so that each board is tested anywhere.
The engines read the processor and count its cores; that must not load pydantic, which records need.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from musgd_cli.hardware.cpu import usable_cores

if TYPE_CHECKING:
    from musgd_cli.records import Host

__all__ = ["detect", "usable_cores"]


def detect(root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> Host:
    """Tell which machine this is. See `musgd_cli.hardware.detection.detect`."""
    from musgd_cli.hardware import detection

    return detection.detect(root, environ)
