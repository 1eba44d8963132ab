"""What an engine is: one model, loaded, that turns an input into an output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from musgd_cli.errors import MusgdError, UnsupportedError


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
    said = _last_line(why)
    what = f"{artifact.runtime} cannot load {folder / artifact.files[0]}: {said}"
    if _SOUNDS_NEWER.search(said):
        # Late: a board's hot start has no failure to mend.
        from musgd_cli.installation import pip

        newer = pip(f"install --upgrade {WHEELS.get(artifact.runtime, artifact.runtime)}")
        return UnsupportedError(what, f"{newer}, or export the model for an older one")
    return MusgdError(what, _AGAIN)


def cannot_run(artifact: Model, why: object) -> MusgdError:
    """Put what a runtime says while it runs a model into the user's words."""
    return MusgdError(
        f"{artifact.runtime} cannot run {artifact.files[0]}: {_last_line(why)}",
        "export it again, or for another runtime; musgd doctor shows which are installed",
    )


_AGAIN = "export it again, with musgd export or what made it; or copy the whole model once more"

WHEELS = {"litert": "ai-edge-litert"}
"""Wheels that are called otherwise than their runtime."""

# What the runtimes say of a model that is newer than they are.
_SOUNDS_NEWER = re.compile(
    r"IR version|opset|No Op registered|not exists or registered|TFLite binary",
    re.IGNORECASE,
)

# Where in ONNX Runtime's sources it stumbled, its own name and the file's, which we give.
_NOISE = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:"
    r"|/onnxruntime_src/\S+:\d+ .*?\) (?=\S)"
)


def _last_line(why: object) -> str:
    lines = str(why).strip().splitlines()
    return _NOISE.sub("", lines[-1]).strip() if lines else "it does not say why"


def check_input(folder: Path, artifact: Model, shape: Sequence[object]) -> None:
    """Refuse a model that does not take the images that its record promises.

    Args:
        folder: Of the model.
        artifact: Its record.
        shape: (1, 3, height, width); sides that are no numbers are settled when it is run.

    Raises:
        MusgdError: It takes something else.
    """
    wanted = (1, 3, artifact.imgsz, artifact.imgsz)
    if len(shape) != 4 or not _agree(shape, wanted):
        raise _other_model(folder, f"takes {_words(shape)}, not an image of {artifact.imgsz} px")


def check_output(folder: Path, artifact: Model, shape: Sequence[object]) -> None:
    """Refuse a model whose output does not fit the classes of its record; see `check_input`.

    Raises:
        MusgdError: It does not.
    """
    n_classes = len(artifact.names)
    wanted = (1, None, 6) if artifact.nms_free else (1, 4 + n_classes, None)
    if len(shape) != 3 or not _agree(shape, wanted):
        raise _other_model(
            folder, f"gives {_words(shape)}, which does not fit its {n_classes} classes"
        )


def _agree(shape: Sequence[object], wanted: Sequence[int | None]) -> bool:
    # No zip(strict=True): bundles run this on Python 3.9.
    return all(
        shape[at] == want
        for at, want in enumerate(wanted)
        if want is not None and isinstance(shape[at], int)
    )


def _words(shape: Sequence[object]) -> str:
    return str([side if isinstance(side, int) else "?" for side in shape]).replace("'", "")


def _other_model(folder: Path, what: str) -> MusgdError:
    return MusgdError(f"the model in {folder} {what}", _AGAIN)
