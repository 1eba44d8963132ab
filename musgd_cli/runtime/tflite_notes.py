"""What exporters append to a ``.tflite``: a zip, which LiteRT does not see.

Ultralytics puts a ``metadata.json`` into it; before 8.3 it was a text, Python's ``str`` of a dict.
"""

from __future__ import annotations

import ast
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(IndexError, UnicodeDecodeError),
)
"""What ``zipfile`` raises over damage, encryption and compressions that it does not know."""


def read_notes(file: Path) -> dict[str, Any]:
    """Read what an exporter noted in a ``.tflite``; empty where there is nothing to be read."""
    try:
        with zipfile.ZipFile(file) as appended:
            names = appended.namelist()
            name = "metadata.json" if "metadata.json" in names else names[0]
            text = appended.read(name).decode()
    except _UNREADABLE:
        return {}
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, dict) else {}
    return {}
