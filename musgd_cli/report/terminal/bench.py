"""``musgd bench`` for people: one row an artifact, and under it how the figures came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from musgd_cli.records import BenchReport

NOT_MEASURED = "not measured here"
_ENDLESS = 10_000

EMULATED = "emulated"
"""Stands where a speed would: an emulator's says nothing of the board it plays."""

_NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
    "litert": "LiteRT",
    "tensorrt": "TensorRT",
    "null": "no model",
}


def bench_table(reports: Sequence[BenchReport]) -> RenderableType:
    """Return the table and its notes; ``reports`` has at least one, all of this machine."""
    from rich.console import Group
    from rich.text import Text

    return Group(_BenchTable(_Rows(reports)), Text(), *_notes(reports))


@dataclass(frozen=True)
class _Column:
    """One figure of every row."""

    heading: str
    unit: str
    cell: Callable[[BenchReport], str]
    lead: bool = False


class _Rows:
    """What is shown of each report, whatever the layout."""

    def __init__(self, reports: Sequence[BenchReport]) -> None:
        self.reports = reports
        self._alike = Counter(map(_identity, reports))
        self.one_size = len({r.imgsz for r in reports}) == 1
        self.one_thread_count = len({r.threads for r in reports}) == 1

    def title(self) -> str:
        """Say what all rows have in common."""
        first = self.reports[0]
        parts = [first.host.board]
        if self.one_size:
            parts.append(f"{first.imgsz} px")
        if self.one_thread_count:
            parts.append(_threads(first))
        return ", ".join(parts)

    def name(self, report: BenchReport) -> str:
        """Name a row: what runs, and what it has of its own."""
        parts = [f"{_NAMES.get(report.runtime, report.runtime)} {report.precision}"]
        if not self.one_size:
            parts.append(f"{report.imgsz} px")
        if not self.one_thread_count:
            parts.append(_threads(report))
        if self._alike[_identity(report)] > 1:
            return PurePath(report.artifact).name
        return ", ".join(parts)

    def speed_up(self, report: BenchReport) -> str:
        """Say how many times the float parent's speed, where the parent is in the table."""
        parent = self._parent(report)
        if parent is None or report.runtime == "null" or report.host.emulated:
            return ""
        return f"{parent.latency_ms.p50 / report.latency_ms.p50:.2f}x"

    def _parent(self, report: BenchReport) -> BenchReport | None:
        """Find the float parent's row: parents of several targets can be the same file."""
        wanted = report.parent_sha256, report.threads
        rows = [r for r in self.reports if (r.artifact_sha256, r.threads) == wanted]
        return next((r for r in rows if r.target == report.target), rows[0] if rows else None)

    def speed_columns(self) -> list[_Column]:
        """Return the figures of speed in their order."""
        ratio = [_Column("speed", "of float", self.speed_up)]
        return [
            _Column("p50", "ms", _timed(lambda r: _three_digits(r.latency_ms.p50)), lead=True),
            _Column("p90", "ms", _timed(lambda r: _three_digits(r.latency_ms.p90))),
            _Column("p99", "ms", _timed(lambda r: _three_digits(r.latency_ms.p99))),
            *(ratio if any(map(self.speed_up, self.reports)) else ()),
            _Column("FPS", "model", _timed(lambda r: _three_digits(r.fps)), lead=True),
            _Column("FPS", "frame", _timed(lambda r: _three_digits(r.fps_end_to_end))),
            _Column("pre", "ms", _timed(lambda r: f"{r.pre_ms:.2f}")),
            _Column("post", "ms", _timed(lambda r: f"{r.post_ms:.2f}")),
        ]

    def other_columns(self) -> list[_Column]:
        """Return accuracy, memory, power and heat in their order."""
        power = (
            [
                _Column("power", "W", lambda r: _or_not_measured(r.power_w)),
                _Column("energy", "J/frame", lambda r: _or_not_measured(r.energy_per_frame_j)),
            ]
            if any(r.power_w is not None for r in self.reports)
            else [_Column("power, energy", "W, J/frame", lambda _: NOT_MEASURED)]
        )
        heat = [_Column("heat", "°C", lambda r: _whole(r.temperature_c))]
        return [
            _Column("mAP", "50-95", lambda r: _share(r.map50_95), lead=True),
            _Column("mAP", "50", lambda r: _share(r.map50)),
            _Column("recall", "small", lambda r: _share(r.recall_small)),
            _Column("memory", "MB", lambda r: _whole(r.peak_memory_mb)),
            *power,
            *(heat if any(r.temperature_c is not None for r in self.reports) else ()),
        ]


def _identity(report: BenchReport) -> tuple[object, ...]:
    return report.runtime, report.precision, report.imgsz, report.threads


class _BenchTable:
    """One table where it fits, else two below each other: speed, then what it takes and gives."""

    def __init__(self, rows: _Rows) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        speed, rest = self._rows.speed_columns(), self._rows.other_columns()
        whole = self._table([*speed, *rest])
        if (
            console.measure(whole, options=options.update(width=_ENDLESS)).maximum
            <= options.max_width
        ):
            yield whole
        else:
            yield self._table(speed)
            yield self._table(rest, titled=False)

    def _table(self, columns: Sequence[_Column], *, titled: bool = True) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            title=Text(self._rows.title(), style="bold cyan") if titled else None,
            title_justify="left",
        )
        table.add_column("artifact", no_wrap=True)
        for column in columns:
            table.add_column(
                Text.assemble(column.heading, "\n", (column.unit, "dim")),
                justify="right",
                style="bold" if column.lead else "",
            )
        for report in self._rows.reports:
            table.add_row(self._rows.name(report), *(column.cell(report) for column in columns))
        return table


# ------------------------------------------------------------------------------------------ cells


def _timed(cell: Callable[[BenchReport], str]) -> Callable[[BenchReport], str]:
    return lambda report: EMULATED if report.host.emulated else cell(report)


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _or_not_measured(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3g}"


def _threads(report: BenchReport) -> str:
    return f"{report.threads} thread{'s' if report.threads > 1 else ''}"


# ------------------------------------------------------------------------------------------ notes


def _notes(reports: Sequence[BenchReport]) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for heading, text in _facts(reports):
        grid.add_row(heading, Text(text))
    yield grid
    for text in _warnings(reports):
        yield Text(text, style="yellow")


def _facts(reports: Sequence[BenchReport]) -> Iterator[tuple[str, str]]:
    first = reports[0]
    yield "latency", _about_latency(reports)
    for text in _distinct(map(_about_accuracy, reports)):
        yield "accuracy", text
    for text in _distinct(map(_about_power, reports)):
        yield "power", text
    if not any(report.temperature_c is not None for report in reports):
        yield "heat", NOT_MEASURED
    yield (
        "machine",
        ", ".join(
            str(fact)
            for fact in (
                first.host.cpu or first.host.model,
                first.host.cores and f"{first.host.cores} cores",
                first.host.os,
                first.host.container not in (None, "none") and first.host.container,
            )
            if fact
        ),
    )
    engines = {
        f"{_NAMES.get(report.runtime, report.runtime)} {report.runtime_version}"
        for report in reports
        if report.runtime != "null"
    }
    others = [
        f"{name} {first.versions[key]}"
        for key, name in (("opencv", "OpenCV"), ("numpy", "NumPy"), ("musgd", "musgd"))
        if key in first.versions
    ]
    yield "versions", ", ".join([*sorted(engines), *others])


def _about_latency(reports: Sequence[BenchReport]) -> str:
    counts = [report.n for report in reports]
    n = f"{min(counts)}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    first = reports[0]
    images = f"{first.n_frames} images" if first.n_frames else "one image of noise"
    warmup = max(report.warmup_s or 0 for report in reports)
    harness = max(report.harness_ms or 0 for report in reports)
    return (
        f"{n} inferences of batch 1, each within a whole frame (letterbox, inference, decode) of "
        f"{images}, after up to {warmup:.1f} s of warm-up; the loop itself adds {harness:.3f} ms a "
        "frame; memory is the whole process's"
    )


def _about_accuracy(report: BenchReport) -> str:
    if report.data is None:
        return f"{NOT_MEASURED}: no data set; give one with --data"
    name = f"{PurePath(report.data).name}, {report.split}"
    left_out = (
        f", {report.n_excluded} left out that calibrated a model" if report.n_excluded else ""
    )
    if not report.n_images:
        return f"{NOT_MEASURED}: every image of {name} calibrated a model"
    return (
        f"{name}: {report.n_images} images{left_out}; small: {report.n_small} objects under 32² "
        "px, found at IoU 0.5 and any score from 0.001"
    )


def _about_power(report: BenchReport) -> str:
    if report.power_w is None:
        return f"{NOT_MEASURED}: no meter gave a figure; musgd doctor tells which there are"
    return f"{report.power_kind} by {report.power_source}, of the whole {report.power_scope}"


def _warnings(reports: Sequence[BenchReport]) -> Iterator[str]:
    if reports[0].host.emulated:
        yield "emulated machine: no speed is shown, for it would not be the board's"
    for report in reports:
        name = PurePath(report.artifact).name
        if report.gate == "failed":
            yield f"{name}: failed the gate against its float parent when it was exported"
        if report.gate == "inconclusive":
            yield (
                f"{name}: it was unclear whether it passes the gate against its float parent when "
                "it was exported"
            )
        if not report.steady:
            yield f"{name}: latency had not settled after {report.warmup_s or 0:.1f} s of warm-up"
        if report.throttled:
            yield f"{name}: the processor was throttled during the run"


def _distinct(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(texts))
