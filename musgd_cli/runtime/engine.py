"""What an engine is: one model, loaded, that turns an input into an output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from musgd_cli.errors import MusgdError


class Model(Protocol):
    """What an engine and the loop ask of a model.

    A `musgd_cli.records.Artifact` answers it, and so does what a bundle reads without pydantic.
    """

    @property
    def files(self) -> tuple[str, ...]:
        """The model's files, relative to its folder; the first is the one to open."""
        ...

    @property
    def sha256(self) -> str:
        """Over the model's files, sorted by name."""
        ...

    @property
    def runtime(self) -> str:
        """The engine that opens it."""
        ...

    @property
    def precision(self) -> str:
        """What was built."""
        ...

    @property
    def imgsz(self) -> int:
        """Side of the square input, pixels."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        ...

    @property
    def nms_free(self) -> bool:
        """The output is final boxes; otherwise raw predictions that need NMS."""
        ...


class Engine(Protocol):
    """A loaded model. Opening it is constructing it; nothing is left for the first call."""

    version: str
    """Of the runtime, as its package says."""

    settings: Mapping[str, str]
    """What decides speed and precision, read back from the runtime where it tells."""

    def __init__(self, folder: Path, artifact: Model, threads: int) -> None: ...

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the model once.

        Args:
            x: (1, 3, imgsz, imgsz) float32, contiguous.

        Returns:
            The model's one output. The next call may overwrite it.
        """
        ...

    def close(self) -> None:
        """Free the model. The engine is of no use afterwards."""
        ...


def cannot_load(folder: Path, artifact: Model, why: object) -> MusgdError:
    """Put a runtime's refusal of a model into the user's words."""
    lines = str(why).strip().splitlines()
    return MusgdError(
        f"{artifact.runtime} cannot load {folder / artifact.files[0]}: "
        f"{lines[-1].strip() if lines else 'it does not say why'}",
        "musgd export makes it again",
    )


def check_shapes(
    folder: Path, artifact: Model, input_shape: Sequence[object], output_shape: Sequence[object]
) -> None:
    """Refuse a model whose input and output are not the ones its record promises.

    Raises:
        MusgdError: They differ.
    """
    n_classes = len(artifact.names)
    axis, size = (2, 6) if artifact.nms_free else (1, 4 + n_classes)
    if list(input_shape) != [1, 3, artifact.imgsz, artifact.imgsz]:
        what = f"takes {list(input_shape)}, not an image of {artifact.imgsz} px"
    elif len(output_shape) != 3 or output_shape[axis] != size:
        what = f"gives {list(output_shape)}, which does not fit {n_classes} classes"
    else:
        return
    raise MusgdError(
        f"the model in {folder} {what}, as its artifact.json says", "musgd export makes it again"
    )
