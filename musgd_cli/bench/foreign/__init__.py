"""Models that musgd did not export, described as if it had.

Where an `Artifact` says what an exporter knew, a bare model has its own files to tell: shapes, the
types of its weights, and the notes that Ultralytics leaves in them. What they do not tell is not
guessed: a model that is not understood is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.bench.subject import Subject

WEIGHTS = frozenset({".pt", ".pth"})
"""Files of torch's, which is not needed to run anything here."""


def read(path: Path) -> Subject:
    """Describe a model without an ``artifact.json``. See `musgd_cli.bench.foreign.reading.read`."""
    from musgd_cli.bench.foreign import reading

    return reading.read(path)
