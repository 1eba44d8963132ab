"""What exporters append to a ``.tflite``: a zip, which LiteRT does not see.

Ultralytics puts a ``metadata.json`` into it; before 8.3 it was a text, Python's ``str`` of a dict.
"""

from __future__ import annotations

import ast
import json
import zipfile
from pathlib import Path
from typing import Any


def read_notes(file: Path) -> dict[str, Any]:
    """Read what an exporter noted in a ``.tflite``; empty where there is nothing to be read."""
    try:
        with zipfile.ZipFile(file) as appended:
            names = appended.namelist()
            name = "metadata.json" if "metadata.json" in names else names[0]
            text = appended.read(name).decode()
    except (zipfile.BadZipFile, IndexError, UnicodeDecodeError):
        return {}
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
        except (ValueError, SyntaxError):
            continue
        return found if isinstance(found, dict) else {}
    return {}
