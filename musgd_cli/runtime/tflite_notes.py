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

NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
"""What ``ast.literal_eval`` raises of a text that is none."""

_UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(LookupError, ValueError),
)
"""What ``zipfile`` raises over damage, encryption and compressions that it does not know."""

_MOST_BYTES = 1 << 20
"""Of notes; what is packed in less may be a thousand times that."""


def read_notes(file: Path) -> dict[str, Any]:
    """Read what an exporter noted in a ``.tflite``; empty where there is nothing to be read."""
    try:
        with zipfile.ZipFile(file) as appended:
            names = appended.namelist()
            name = "metadata.json" if "metadata.json" in names else names[0]
            if appended.getinfo(name).file_size > _MOST_BYTES:
                return {}
            text = appended.read(name).decode()
    except _UNREADABLE:
        return {}
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except NO_LITERAL:
            continue
        return found if isinstance(found, dict) else {}
    return {}
