"""The figures of a report that are compared and held to limits, by their names in the JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import fmean
from typing import Literal

from musgd_cli.bench.clock import latency
from musgd_cli.errors import UsageError
from musgd_cli.records import BenchReport, LatencyMs, Repeat
from musgd_cli.sections import did_you_mean

Kind = Literal["time", "memory", "accuracy", "power", "heat"]

RepeatFigures = Callable[[BenchReport], tuple[float, ...]]


@dataclass(frozen=True)
class Figure:
    """One number of a report.

    Args:
        name: Its path in the JSON.
        unit: As people write it behind the number; empty for a share.
        kind: What it is about. An emulator's times, and an estimate of power, are no measurement.
        higher_is_better: ``None`` where neither is.
        by_repeat: The same figure of each repeat alone; empty where the report cannot tell.
    """

    name: str
    unit: str
    kind: Kind
    higher_is_better: bool | None = False
    by_repeat: RepeatFigures = lambda _: ()

    def of(self, report: BenchReport) -> float | None:
        """Read it; ``None``: it was not measured."""
        field, _, below = self.name.partition(".")
        whole = getattr(report, field)
        value: float | None = (
            whole.get(below)
            if isinstance(whole, Mapping)
            else (getattr(whole, below) if below else whole)
        )
        return value


def _of_each(read: Callable[[Repeat], float]) -> RepeatFigures:
    return lambda report: tuple(map(read, report.repeats))


def _slices(report: BenchReport, samples: Sequence[float]) -> Iterator[Sequence[float]]:
    """Cut samples into those of each repeat; a report that was thinned out has none."""
    ends = list(accumulate(repeat.n for repeat in report.repeats))
    if ends and ends[-1] == len(samples):
        for begin, end in zip([0, *ends], ends, strict=False):
            yield samples[begin:end]


def _percentile(read: Callable[[LatencyMs], float]) -> RepeatFigures:
    return lambda report: tuple(
        read(latency(samples)) for samples in _slices(report, report.samples_ms)
    )


def _fps(report: BenchReport) -> tuple[float, ...]:
    return tuple(1000 / fmean(samples) for samples in _slices(report, report.samples_ms))


def frames_a_second(report: BenchReport) -> tuple[float, ...]:
    """Return whole frames a second of each repeat; empty where the report cannot tell."""
    return tuple(1000 / fmean(samples) for samples in _slices(report, report.frame_samples_ms))


_FIGURES = (
    Figure("latency_ms.p50", "ms", "time", by_repeat=_of_each(lambda repeat: repeat.p50_ms)),
    Figure("latency_ms.p90", "ms", "time", by_repeat=_percentile(lambda ms: ms.p90)),
    Figure("latency_ms.p99", "ms", "time", by_repeat=_percentile(lambda ms: ms.p99)),
    Figure("latency_ms.mean", "ms", "time", by_repeat=_percentile(lambda ms: ms.mean)),
    Figure("latency_ms.min", "ms", "time", by_repeat=_percentile(lambda ms: ms.min)),
    Figure("latency_ms.max", "ms", "time", by_repeat=_percentile(lambda ms: ms.max)),
    Figure("fps", "FPS", "time", True, by_repeat=_fps),
    Figure("fps_end_to_end", "FPS", "time", True, by_repeat=frames_a_second),
    Figure("pre_ms", "ms", "time"),
    Figure("post_ms", "ms", "time"),
    Figure("load_ms", "ms", "time", by_repeat=_of_each(lambda repeat: repeat.load_ms)),
    Figure(
        "first_inference_ms",
        "ms",
        "time",
        by_repeat=_of_each(lambda repeat: repeat.first_inference_ms),
    ),
    Figure("peak_memory_mb", "MB", "memory"),
    Figure("gpu_memory_mb", "MB", "memory"),
    Figure("size_mb", "MB", "memory"),
    Figure("map50_95", "", "accuracy", True),
    Figure("map50", "", "accuracy", True),
    Figure("recall_small", "", "accuracy", True),
    Figure("recall_medium", "", "accuracy", True),
    Figure("recall_large", "", "accuracy", True),
    Figure("confidence_shift", "", "accuracy", None),
    Figure("power_w", "W", "power"),
    Figure("idle_w", "W", "power"),
    Figure("energy_per_frame_j", "J", "power"),
    Figure("net_energy_per_frame_j", "J", "power"),
    Figure("fps_per_watt", "", "power", True),
    Figure("temperature_c", "°C", "heat"),
    Figure("cpu_mhz", "MHz", "heat", None),
)

FIGURES: Mapping[str, Figure] = {figure.name: figure for figure in _FIGURES}
"""By name, in the order in which they are told."""

_LATENCIES = tuple(LatencyMs.model_fields)
_BY_CLASS = {
    "ap50_95": Figure("ap50_95", "", "accuracy", True),
    "ap50": Figure("ap50", "", "accuracy", True),
}


def find(name: str) -> Figure:
    """Return the figure of that name; ``p50`` and its like stand for ``latency_ms.p50``.

    Raises:
        UsageError: There is none.
    """
    full = f"latency_ms.{name}" if name in _LATENCIES else name
    if full in FIGURES:
        return FIGURES[full]
    field, _, class_name = name.partition(".")
    if field in _BY_CLASS and class_name:
        return replace(_BY_CLASS[field], name=name)
    hint = did_you_mean(name, (*_LATENCIES, *FIGURES))
    raise UsageError(
        f"a report has no figure {name!r}{hint}",
        f"figures: {', '.join((*_LATENCIES, *FIGURES))}, ap50.CLASS, ap50_95.CLASS",
    )
