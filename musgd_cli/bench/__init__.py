"""Speed, accuracy, memory, power and heat of artifacts, each measured in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musgd_cli.bench.measurement import measure
    from musgd_cli.bench.selection import choose, data_of, report_file

__all__ = ["choose", "data_of", "measure", "report_file"]

_HOMES = {
    "choose": "selection",
    "data_of": "selection",
    "measure": "measurement",
    "report_file": "selection",
}


def __getattr__(name: str) -> Any:
    # On demand: importing the room must not load NumPy.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
