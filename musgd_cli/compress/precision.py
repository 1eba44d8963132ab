"""How much of a built model is int8, and what that makes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from musgd_cli.records import INT8_SHARE, Precision


@dataclass(frozen=True)
class Built:
    """What a built model turned out to hold."""

    precision: Precision
    int8_macs_share: float
    """Share of the convolutions' multiply-accumulates that are int8."""
    int8_layers: tuple[str, ...] = ()
    """The convolutions in int8, as the model names them, in its order."""
    float_layers: tuple[str, ...] = ()
    """The other convolutions."""


def built(
    int8_macs: float,
    macs: float,
    stored: Precision,
    int8_layers: Iterable[str] = (),
    float_layers: Iterable[str] = (),
) -> Built:
    """Name what was built.

    Args:
        int8_macs: Multiply-accumulates of the convolutions in int8.
        macs: Of all convolutions.
        stored: What the other convolutions hold their weights in.
        int8_layers: Names of the convolutions in int8.
        float_layers: Names of the others.
    """
    share = int8_macs / macs if macs else 0.0
    name: Precision = "mixed-int8" if share else stored
    if share >= INT8_SHARE:
        name = "int8"
    return Built(name, share, tuple(int8_layers), tuple(float_layers))
