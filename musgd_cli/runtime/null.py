"""No model at all: what is left of a measurement is the harness itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from musgd_cli.runtime.engine import Model


class NullEngine:
    """Answers at once that there is nothing to see.

    Its output has the shape of a real one, so that decoding it costs what scanning costs.
    """

    version = "0"

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None:  # noqa: ARG002
        # Anchor points of strides 8, 16 and 32.
        n_places = sum((artifact.imgsz // stride) ** 2 for stride in (8, 16, 32))
        shape = (1, 300, 6) if artifact.nms_free else (1, 4 + len(artifact.names), n_places)
        self._output = np.zeros(shape, np.float32)
        self.settings: dict[str, str] = {}

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ARG002
        """Return zeros."""
        return self._output

    def close(self) -> None:
        """Nothing was opened."""
