"""What an engine is: one model, loaded, that turns an input into an output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Engine(Protocol):
    """A loaded model. Opening it is its construction; nothing is loaded lazily."""

    version: str
    """Of the runtime, as its package says."""

    settings: Mapping[str, str]
    """What decides speed and precision, read back from the runtime where it tells."""

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model once.

        Args:
            x: (1, 3, H, W) float32, contiguous.

        Returns:
            The model's one output. The next call may overwrite it.
        """
        ...

    def close(self) -> None:
        """Free the model. The engine is of no use afterwards."""
        ...
