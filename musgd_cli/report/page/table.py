"""The table of all figures: one row a report, sortable in the browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from xml.etree.ElementTree import Element

from musgd_cli.report.lineup import Entry, Lineup
from musgd_cli.report.page.charts import marker
from musgd_cli.report.page.markup import DASH, TIMES, node
from musgd_cli.report.wording import (
    EMULATED,
    NOT_MEASURED,
    count,
    runtime_name,
    share,
    three_digits,
)


@dataclass(frozen=True)
class Figure:
    """One column of figures."""

    heading: str
    unit: str
    value: Callable[[Entry], float | None]
    text: Callable[[float], str]
    lead: bool = False
    of_machine: bool = False
    """An emulated machine has none."""
    below: Callable[[Entry], str | None] | None = None
    """What stands under it, small."""
    absent: str = NOT_MEASURED
    """Why there can be none."""

    @property
    def name(self) -> str:
        """Heading and unit in one."""
        return f"{self.heading} {self.unit}"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _interval(entry: Entry) -> str | None:
    if entry.report.p50_interval_ms is None:
        return None
    return f" {DASH} ".join(map(three_digits, entry.report.p50_interval_ms))


def _objects(size: str) -> Callable[[Entry], str | None]:
    counted = attrgetter(f"report.n_{size}")
    return lambda entry: f"of {counted(entry)}" if counted(entry) else None


def _unless_measured(entry: Entry) -> str | None:
    kind = entry.report.power_kind
    return None if kind == "measured" else kind


def _of_model(
    heading: str,
    unit: str,
    path: str,
    text: Callable[[float], str],
    *,
    lead: bool = False,
    of_machine: bool = False,
    below: Callable[[Entry], str | None] | None = None,
) -> Figure:
    return Figure(heading, unit, attrgetter(f"report.{path}"), text, lead, of_machine, below)


_of_machine = partial(_of_model, of_machine=True)

_SPEED = (
    _of_machine("p50", "ms", "latency_ms.p50", three_digits, lead=True, below=_interval),
    _of_machine("p90", "ms", "latency_ms.p90", three_digits),
    _of_machine("p99", "ms", "latency_ms.p99", three_digits),
    _of_machine("max", "ms", "latency_ms.max", three_digits),
    _of_machine("FPS", "model", "fps", three_digits),
    _of_machine("FPS", "frame", "fps_end_to_end", three_digits, lead=True),
)
_ACCURACY = (
    _of_model("mAP", "50-95", "map50_95", share, lead=True),
    _of_model("mAP", "50", "map50", share),
    _of_model("recall", "small", "recall_small", share, below=_objects("small")),
    _of_model("recall", "medium", "recall_medium", share, below=_objects("medium")),
    _of_model("recall", "large", "recall_large", share, below=_objects("large")),
    _of_model("confidence", "shift", "confidence_shift", "{:+.3f}".format),
)
_COST = (
    _of_model("model", "MB", "size_mb", three_digits),
    _of_model("memory", "MB", "peak_memory_mb", _whole),
    _of_model("GPU memory", "MB", "gpu_memory_mb", _whole),
    _of_machine("power", "W", "power_w", three_digits, below=_unless_measured),
    _of_machine("energy", "J/frame", "energy_per_frame_j", three_digits, lead=True),
    _of_machine("net", "J/frame", "net_energy_per_frame_j", three_digits),
    _of_machine("FPS", "per watt", "fps_per_watt", three_digits),
    _of_machine("heat", "°C", "temperature_c", _whole),
)
FIGURES = (*_SPEED, *_ACCURACY, *_COST)
"""Every column of figures that a report alone can fill."""


def table(lineup: Lineup) -> Element:
    """Return the table; a figure that no report has gets no column."""
    ratio = Figure(
        "speed",
        "of float",
        lineup.speed_up,
        lambda value: f"{value:.2f}{TIMES}",
        of_machine=True,
        absent="its float parent is not among these reports",
    )
    figures = [
        figure
        for figure in (*_SPEED, ratio, *_ACCURACY, *_COST)
        if any(figure.value(entry) is not None for entry in lineup.entries)
    ]
    facts = _facts(lineup)
    head = [node("th", node("span", "artifact"), scope="col")]
    first = lineup.entries[0]
    head += [
        node("th", node("span", name), scope="col", class_=_fact_class(fact(first)))
        for name, fact in facts.items()
    ]
    head += [
        node("th", node("span", figure.heading, " ", node("small", figure.unit)), scope="col")
        for figure in figures
    ]
    rows = [
        node(
            "tr",
            _name(entry, [str(fact(entry)) for fact in facts.values()]),
            [_fact(fact(entry)) for fact in facts.values()],
            [_cell(figure, entry) for figure in figures],
        )
        for entry in lineup.entries
    ]
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


def missing_figures(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what no entry has: said once below the table in place of a column of dashes."""
    return (
        figure.name for figure in FIGURES if all(figure.value(entry) is None for entry in entries)
    )


def _facts(lineup: Lineup) -> dict[str, Callable[[Entry], str | int]]:
    """Return what tells the rows apart beside the runtime, as far as they differ."""
    facts: dict[str, Callable[[Entry], str | int]] = {"precision": attrgetter("report.precision")}
    if lineup.has_many(lambda report: report.imgsz):
        facts["input, px"] = attrgetter("report.imgsz")
    if len(lineup.machines) > 1:
        facts["machine"] = attrgetter("machine")
    return {**facts, "threads": attrgetter("report.threads")}


def _name(entry: Entry, facts: Sequence[str]) -> Element:
    svg = node("svg", marker(entry, 8, 8, size=5), viewBox="0 0 16 16", aria_hidden="true")
    *others, threads = facts
    also = ", ".join([*others, count(int(threads), "thread")])
    flags = [
        part for remark in entry.remarks for part in (node("span", remark.flag, class_="flag"), " ")
    ]
    sustained = ", sustained" if entry.report.sustained else None
    return node(
        "th",
        node("span", svg, runtime_name(entry.report), class_="name"),
        node("small", also, class_="also"),
        node("small", entry.folder, sustained, class_="folder"),
        node("span", flags, class_="flags") if flags else None,
        scope="row",
        data_key=entry.name.lower(),
    )


def _fact(fact: str | int) -> Element:
    return node("td", str(fact), class_=_fact_class(fact), data_key=str(fact).lower())


def _fact_class(fact: str | int) -> str:
    return "fact words" if isinstance(fact, str) else "fact"


def _cell(figure: Figure, entry: Entry) -> Element:
    if figure.of_machine and not entry.is_timed:
        return node("td", EMULATED, class_="absent")
    value = figure.value(entry)
    if value is None:
        reason = figure.absent if entry.has_model else "there is no model"
        return node(
            "td",
            node("span", DASH, aria_hidden="true"),
            node("span", reason, class_="unseen"),
            title=reason,
            class_="absent",
        )
    below = figure.below(entry) if figure.below else None
    return node(
        "td",
        figure.text(value),
        (" ", node("small", below)) if below else None,
        data_key=repr(value),
        class_="lead" if figure.lead else None,
    )
