"""What is measured: a model, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from musgd_cli.records import Artifact

_OF_ONE_FILE = frozenset({"onnxruntime", "litert"})
"""Models of these lie beside each other; the others' are folders, of files with the same names."""


@dataclass(frozen=True)
class Subject:
    """A model to measure."""

    folder: Path
    """Where its files lie now; ``artifact.path`` is where it was written."""
    artifact: Artifact
    made_by: str | None = None
    """Who made it, as its metadata says; ``None``: musgd."""
    calibrated_on: str | None = None
    """File name of the data set whose ``val`` images calibrated it, as that metadata says."""

    @property
    def path(self) -> Path:
        """What to call it by: its folder, or its file where others may lie beside it."""
        if self.made_by is None:
            return self.folder
        return self.folder / self.artifact.files[0]

    @property
    def name(self) -> str:
        """A name for what is made of it."""
        by_file = self.made_by is not None and self.artifact.runtime in _OF_ONE_FILE
        return self.path.stem if by_file else self.folder.resolve().name
