"""What a model's files say of themselves, whatever their format.

The files are read as they lie, not by the engines that run them: an engine dies of some damaged
files, and it is a worker's to die, not the bench's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musgd_cli.errors import MusgdError
from musgd_cli.records import INT8_SHARE, FloatPrecision, Precision

Shape = tuple[int | None, ...]
"""``None``: a side that is settled when the model is run, or that the file does not tell."""

MOST_SIDES = 64
"""Of a tensor, which no format and no engine allows more."""

MOST_STEPS = 16
"""Between a convolution and its weights: they are widened, shifted, scaled, reshaped."""


@dataclass(frozen=True)
class Convolution:
    """As much of a convolution as names a model's precision."""

    stored: FloatPrecision | None
    """What its weights are kept in; ``None``: integers."""
    n_weights: int
    is_int8: bool
    """Its data as well as its weights are int8, so that an engine can compute it so."""
    macs: int | None = None
    """Multiply-accumulates; ``None``: the file does not tell the size of its result."""


@dataclass(frozen=True)
class ModelFile:
    """A model as its files tell."""

    files: tuple[Path, ...]
    """The first is the one to open."""
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    convolutions: Sequence[Convolution] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What its exporter noted, as it noted it."""
    maker: str | None = None
    """Of the file, as the format itself tells."""

    @property
    def int8_macs_share(self) -> float | None:
        """Share of the convolutions' multiply-accumulates in int8; ``None`` where it is unknown.

        Where all or none are in int8 their sizes do not matter.
        """
        macs: Counter[bool] = Counter()
        kinds = {convolution.is_int8 for convolution in self.convolutions}
        if len(kinds) < 2:
            return float(True in kinds)
        for convolution in self.convolutions:
            if convolution.macs is None or convolution.macs <= 0:
                return None
            macs[convolution.is_int8] += convolution.macs
        return round(macs[True] / macs.total(), 4)

    @property
    def precision(self) -> Precision:
        """What was built.

        ``mixed-int8`` where a share is unknown, and where weights alone are integers.
        """
        share = self.int8_macs_share
        if share is not None and share >= INT8_SHARE:
            return "int8"
        stored: Counter[FloatPrecision | None] = Counter()
        for convolution in self.convolutions:
            stored[convolution.stored] += convolution.n_weights
        if share != 0 or stored[None]:
            return "mixed-int8"
        return max(stored, key=stored.__getitem__, default=None) or "fp32"


def damaged(file: Path, kind: str, why: object) -> MusgdError:
    """Say that a file is not what its name promises.

    Args:
        file: The one.
        kind: What it should be.
        why: In words; an exception of a parser speaks for itself.
    """
    return MusgdError(
        f"{file} cannot be read as {kind}: {why}",
        "copy the whole model once more, or export it again",
    )
