"""The table of all figures: one row a report, sortable in the browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from xml.etree.ElementTree import Element

from musgd_cli.report.figures import (
    ENERGY,
    GPU_MEMORY,
    HEAT,
    MEAN_AP,
    MEMORY,
    P50,
    POWER,
    RECALL,
    SHIFT,
    SIZE,
    SPEED,
    Figure,
    speed_of_float,
)
from musgd_cli.report.lineup import Entry, Lineup
from musgd_cli.report.page.charts import marker
from musgd_cli.report.page.markup import DASH, node
from musgd_cli.report.wording import EMULATED, NOT_MEASURED, count, runtime_name, three_digits

_OTHERS = (*MEAN_AP, *RECALL.values(), SHIFT, SIZE, MEMORY, GPU_MEMORY, POWER, *ENERGY, HEAT)


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


_BELOW: dict[Figure, Callable[[Entry], str | None]] = {
    P50: _interval,
    POWER: _unless_measured,
    **{figure: _objects(size) for size, figure in RECALL.items()},
}
"""What stands under a figure, small."""


def table(lineup: Lineup) -> Element:
    """Return the table; a figure that no report has gets no column."""
    figures = [
        figure
        for figure in (*SPEED, speed_of_float(lineup), *_OTHERS)
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
    return sortable("All figures", "figures", head, rows)


def sortable(caption: str, kind: str, head: Sequence[Element], rows: Sequence[Element]) -> Element:
    """Return a table that a screen can scroll and the script makes sortable."""
    whole = node(
        "table",
        node("caption", caption, class_="unseen"),
        node("thead", node("tr", head)),
        node("tbody", rows),
        class_=f"{kind} sortable",
    )
    return node("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def missing_figures(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what no entry has: said once below the table in place of a column of dashes."""
    return (
        figure.name
        for figure in (*SPEED, *_OTHERS)
        if all(figure.value(entry) is None for entry in entries)
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
        reason = _why_absent(figure, entry)
        return node(
            "td",
            node("span", DASH, aria_hidden="true"),
            node("span", reason, class_="unseen"),
            title=reason,
            class_="absent",
        )
    below = _BELOW[figure](entry) if figure in _BELOW else None
    return node(
        "td",
        figure.text(value),
        (" ", node("small", below)) if below else None,
        data_key=repr(value),
        class_="lead" if figure.lead else None,
    )


def _why_absent(figure: Figure, entry: Entry) -> str:
    if not entry.has_model:
        return "there is no model"
    if figure.unit == "of float":
        return "its float parent is not among these reports"
    return NOT_MEASURED
