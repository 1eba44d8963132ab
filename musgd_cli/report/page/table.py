"""The table of all figures: one row a report, sortable in the browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from musgd_cli.records import BenchReport
from musgd_cli.report.lineup import Entry, Lineup
from musgd_cli.report.page.charts import marker
from musgd_cli.report.page.markup import DASH, TIMES, node
from musgd_cli.report.wording import (
    EMULATED,
    NOT_MEASURED,
    runtime_name,
    share,
    three_digits,
)


@dataclass(frozen=True)
class Figure:
    """One column."""

    group: str
    heading: str
    unit: str
    value: Callable[[BenchReport], float | None]
    text: Callable[[float], str]
    speed: bool = False
    """It is of the machine: an emulated one has none."""
    lead: bool = False
    below: Callable[[BenchReport], str | None] = lambda _: None
    """What stands under it, small."""


def _interval(report: BenchReport) -> str | None:
    if report.p50_interval_ms is None:
        return None
    low, high = map(three_digits, report.p50_interval_ms)
    return f"{low} {DASH} {high}"


def _energy(joules: float) -> str:
    return f"{joules:.3g}"


def _watts(report: BenchReport) -> str | None:
    return None if report.power_kind in (None, "measured") else report.power_kind


def _of(counted: Callable[[BenchReport], int]) -> Callable[[BenchReport], str | None]:
    return lambda report: f"of {counted(report)}" if counted(report) else None


def _whole(value: float) -> str:
    return f"{value:.0f}"


FIGURES = (
    Figure("run", "threads", "", lambda r: r.threads, _whole),
    Figure(
        "speed",
        "p50",
        "ms",
        lambda r: r.latency_ms.p50,
        three_digits,
        speed=True,
        lead=True,
        below=_interval,
    ),
    Figure("speed", "p90", "ms", lambda r: r.latency_ms.p90, three_digits, speed=True),
    Figure("speed", "p99", "ms", lambda r: r.latency_ms.p99, three_digits, speed=True),
    Figure("speed", "max", "ms", lambda r: r.latency_ms.max, three_digits, speed=True),
    Figure("speed", "FPS", "model", lambda r: r.fps, three_digits, speed=True),
    Figure(
        "speed", "FPS", "frame", lambda r: r.fps_end_to_end, three_digits, speed=True, lead=True
    ),
    Figure("accuracy", "mAP", "50-95", lambda r: r.map50_95, share, lead=True),
    Figure("accuracy", "mAP", "50", lambda r: r.map50, share),
    Figure(
        "accuracy",
        "recall",
        "small",
        lambda r: r.recall_small,
        share,
        below=_of(lambda r: r.n_small),
    ),
    Figure(
        "accuracy",
        "recall",
        "medium",
        lambda r: r.recall_medium,
        share,
        below=_of(lambda r: r.n_medium),
    ),
    Figure(
        "accuracy",
        "recall",
        "large",
        lambda r: r.recall_large,
        share,
        below=_of(lambda r: r.n_large),
    ),
    Figure(
        "accuracy",
        "confidence",
        "shift",
        lambda r: r.confidence_shift,
        lambda value: f"{value:+.3f}",
    ),
    Figure("size", "model", "MB", lambda r: r.size_mb, three_digits),
    Figure("size", "memory", "MB", lambda r: r.peak_memory_mb, _whole),
    Figure("size", "GPU mem.", "MB", lambda r: r.gpu_memory_mb, _whole),
    Figure("energy", "power", "W", lambda r: r.power_w, _energy, below=_watts, speed=True),
    Figure(
        "energy",
        "energy",
        "J/frame",
        lambda r: r.energy_per_frame_j,
        _energy,
        lead=True,
        speed=True,
    ),
    Figure("energy", "net", "J/frame", lambda r: r.net_energy_per_frame_j, _energy, speed=True),
    Figure("energy", "FPS", "per watt", lambda r: r.fps_per_watt, three_digits, speed=True),
    Figure("heat", "peak", "°C", lambda r: r.temperature_c, _whole),
)
"""All columns in their order, but for those that name the row."""


def table(lineup: Lineup) -> Element:
    """Return the table; a figure that no report has gets no column."""
    shown = [f for f in FIGURES if any(f.value(e.report) is not None for e in lineup.entries)]
    names = ["artifact", "precision"]
    several_sizes = lineup.has_many(lambda report: report.imgsz)
    several_machines = len(lineup.machines) > 1
    names += ["input, px"] if several_sizes else []
    names += ["machine"] if several_machines else []
    speed_up = {entry.name: lineup.speed_up(entry) for entry in lineup.entries}
    ratio = any(value is not None for value in speed_up.values())
    head = [_heading(name, "", text=name != "input, px") for name in names]
    for figure in shown:
        head.append(_heading(figure.heading, figure.unit, lead=figure.lead))
        if ratio and (figure.heading, figure.unit) == ("max", "ms"):
            head.append(_heading("speed", "of float"))
    rows = []
    for entry in lineup.entries:
        report = entry.report
        cells = [_name(entry), _words(report.precision)]
        cells += [_number(report.imgsz, str(report.imgsz))] if several_sizes else []
        cells += [_words(entry.machine)] if several_machines else []
        for figure in shown:
            cells.append(_cell(figure, entry))
            if ratio and (figure.heading, figure.unit) == ("max", "ms"):
                value = speed_up[entry.name]
                cells.append(
                    _missing(entry) if value is None else _number(value, f"{value:.2f}{TIMES}")
                )
        rows.append(node("tr", cells))
    whole = node(
        "table",
        node("caption", "All figures", class_="unseen"),
        node("thead", node("tr", head)),
        node("tbody", rows),
        class_="figures sortable",
    )
    return node(
        "div", whole, class_="scroll", tabindex=0, role="region", aria_label="Table of all figures"
    )


def _heading(heading: str, unit: str, *, text: bool = False, lead: bool = False) -> Element:
    below = (" ", node("small", unit)) if unit else None
    return node(
        "th",
        node("span", heading, below),
        scope="col",
        class_="text" if text else "lead" if lead else None,
    )


def _name(entry: Entry) -> Element:
    svg = node("svg", marker(entry, 8, 8, size=5), viewBox="0 0 16 16", aria_hidden="true")
    flags = [node("span", remark.flag, class_="flag") for remark in entry.remarks]
    return node(
        "th",
        node("span", svg, runtime_name(entry.report), class_="name"),
        node("small", entry.folder, class_="folder"),
        node("span", [part for flag in flags for part in (flag, " ")], class_="flags")
        if flags
        else None,
        scope="row",
        data_key=entry.name.lower(),
    )


def _cell(figure: Figure, entry: Entry) -> Element:
    value = figure.value(entry.report)
    if figure.speed and not entry.is_timed:
        return node("td", EMULATED, class_="absent")
    if value is None:
        return _missing(entry)
    return _number(value, figure.text(value), below=figure.below(entry.report), lead=figure.lead)


def _number(value: float, text: str, *, below: str | None = None, lead: bool = False) -> Element:
    small = (" ", node("small", below)) if below else None
    return node("td", text, small, data_key=repr(value), class_="lead" if lead else None)


def _words(text: str) -> Element:
    return node("td", text, class_="text", data_key=text.lower())


def _missing(entry: Entry) -> Element:
    said = "no model" if not entry.has_model else NOT_MEASURED
    return node(
        "td",
        node("span", DASH, aria_hidden="true"),
        node("span", said, class_="unseen"),
        title=said,
        class_="absent",
    )


def missing_figures(entries: Sequence[Entry]) -> list[str]:
    """Return what no entry has: named once below the table in place of a column of dashes."""
    return [
        f"{figure.heading} {figure.unit}".strip()
        for figure in FIGURES
        if all(figure.value(entry.report) is None for entry in entries)
    ]
