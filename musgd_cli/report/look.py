"""What the charts of the page and of the picture have in common: colours, shapes and axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from musgd_cli.records import Precision

_WIDE = 4.0
"""Positive values that differ by this factor and more get a logarithmic axis."""


@dataclass(frozen=True)
class Color:
    """One colour on white paper and on a dark screen."""

    on_light: str
    on_dark: str


# Okabe and Ito's colours, told apart by the colour-blind too; some a shade deeper on white.
COLORS = {
    "blue": Color("#0072b2", "#56b4e9"),
    "vermillion": Color("#d55e00", "#f0803c"),
    "green": Color("#009e73", "#2cc299"),
    "purple": Color("#b85c92", "#d890b7"),
    "orange": Color("#c98600", "#e69f00"),
    "grey": Color("#7a828e", "#8d96a3"),
}

_RUNTIMES = {
    "onnxruntime": "blue",
    "openvino": "vermillion",
    "ncnn": "green",
    "tensorrt": "purple",
    "litert": "orange",
}
_OTHERS = ("null", "neutral")

CORNERS: dict[Precision, tuple[tuple[float, float], ...]] = {
    "fp32": (),
    "fp16": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "bf16": ((0, -1.2), (1.15, 0.85), (-1.15, 0.85)),
    "int8": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "mixed-int8": ((0, 1.2), (1.15, -0.85), (-1.15, -0.85)),
}
"""A precision's mark, of half width 1, down is more; that without corners is a circle."""


def color_of(runtime: str) -> str:
    """Return a runtime's colour on white paper."""
    return COLORS[_RUNTIMES.get(runtime, "grey")].on_light


def style_sheet() -> str:
    """Return the colours as CSS: a variable each, and ``--hue`` for the class of each runtime."""
    light = "".join(f"--{name}:{color.on_light};" for name, color in COLORS.items())
    dark = "".join(f"--{name}:{color.on_dark};" for name, color in COLORS.items())
    hues = {**_RUNTIMES, **dict.fromkeys(_OTHERS, "grey")}
    return "\n".join(
        [
            f":root{{{light}}}",
            f"@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}",
            *(f".{runtime}{{--hue:var(--{name})}}" for runtime, name in hues.items()),
        ]
    )


def is_wide(values: Iterable[float]) -> bool:
    """Tell whether values are best shown on a logarithmic axis."""
    known = list(values)
    return min(known) > 0 and max(known) / min(known) >= _WIDE
