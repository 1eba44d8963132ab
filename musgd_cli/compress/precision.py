"""How much of a built model is int8, and what that makes it."""

from __future__ import annotations

from dataclasses import dataclass

from musgd_cli.records import Precision

INT8_SHARE = 0.80
"""Least share of the convolutions' MACs that makes a model ``int8``, not ``mixed-int8``."""


@dataclass(frozen=True)
class Built:
    """What a built model turned out to hold."""

    precision: Precision
    int8_macs_share: float
    """Share of the convolutions' multiply-accumulates that are int8."""


def built(int8_macs: float, macs: float, stored: Precision) -> Built:
    """Name what was built.

    Args:
        int8_macs: Multiply-accumulates of the convolutions in int8.
        macs: Of all convolutions.
        stored: What the other convolutions hold their weights in.
    """
    share = int8_macs / macs if macs else 0.0
    if share >= INT8_SHARE:
        return Built("int8", share)
    return Built("mixed-int8" if share else stored, share)
