"""Power meters: instruments that this machine has, and no figure where there is none.

A meter measures windows: :meth:`PowerMeter.begin`, the work, :meth:`PowerMeter.end`. Where the
hardware counts energy itself, the counter is read; elsewhere power is sampled in a thread and
integrated, or taken from what an external meter writes. A Raspberry Pi 4B has no meter on board:
its model is an estimate, and only for those who ask for one.
"""

from __future__ import annotations

from musgd_cli.hardware.power.choice import (
    Refusal,
    best_meter,
    choose_meter,
    find_meters,
    refused,
    why_none,
)
from musgd_cli.hardware.power.meter import (
    Clock,
    Counter,
    CounterMeter,
    PowerMeter,
    SamplingMeter,
    Scope,
    scope_in_words,
)
from musgd_cli.hardware.power.trace import CsvMeter, Trace, read_trace

__all__ = [
    "Clock",
    "Counter",
    "CounterMeter",
    "CsvMeter",
    "PowerMeter",
    "Refusal",
    "SamplingMeter",
    "Scope",
    "Trace",
    "best_meter",
    "choose_meter",
    "find_meters",
    "read_trace",
    "refused",
    "scope_in_words",
    "why_none",
]
