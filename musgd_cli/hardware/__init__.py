"""This machine: which board it is, its power meters and temperatures, and what ails it.

Everything is read below a root, ``/`` or a recorded tree, so that each board is tested anywhere.
"""

from __future__ import annotations

from musgd_cli.hardware.cpu import usable_cores
from musgd_cli.hardware.detection import detect

__all__ = ["detect", "usable_cores"]
