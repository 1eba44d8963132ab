"""The body of the page: charts and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from musgd_cli.report.lineup import Entry, Lineup
from musgd_cli.report.page.charts import (
    NARROW,
    at_both_widths,
    distributions,
    marker,
    over_time,
    slower_than_shown,
    trade_off,
)
from musgd_cli.report.page.markup import DASH, node, section
from musgd_cli.report.page.table import missing_figures, sortable, table
from musgd_cli.report.trade_off import Point, energy_points, fronts, latency_points
from musgd_cli.report.wording import (
    NOT_MEASURED,
    about_accuracy,
    about_power,
    count,
    pace,
    runtime_name,
    share,
    three_digits,
)

if TYPE_CHECKING:
    from musgd_cli.records import BenchReport

_MOST_CLASSES = 20
"""Classes shown at once; the rest fold away."""

_MOST_COURSES = 6
"""Short runs drawn over time at once, the least steady."""


# -------------------------------------------------------------------------------------- the charts


def trade_offs(lineup: Lineup) -> Iterator[Element]:
    """Yield accuracy against latency and against energy, one chart for each set of images."""
    grounds = lineup.grounds
    for number, (ground, entries) in enumerate(grounds.items(), start=1):
        title = f" on {ground}" if len(grounds) > 1 else ""
        timed, metered = latency_points(entries), energy_points(entries)
        if len(timed) > 1:
            yield _trade_off(
                f"latency-{number}",
                f"Accuracy against latency{title}",
                timed,
                "p50 of one inference, ms",
            )
        if len(metered) > 1:
            yield _trade_off(
                f"energy-{number}",
                f"Accuracy against energy{title}",
                metered,
                "energy of one frame, J",
            )


def _trade_off(name: str, title: str, points: Sequence[Point], cost: str) -> Element:
    groups = fronts(points)
    best = "; ".join(point.entry.name for front in groups.values() for point in front)
    each = (
        "Each line is a machine's Pareto front"
        if len(groups) > 1
        else "The line is the Pareto front"
    )
    text = (
        f"{each}: no other model beats one on it, that is, is as good in both and better in one. "
        f"On it: {best}."
    )
    if not best:
        text = "There is no Pareto front, which takes measured figures."
    if any(point.estimated for point in points):
        text += " Hollow marks are estimated, not measured, and never on the front."
    return section(
        name,
        title,
        node("p", text, class_="lede"),
        at_both_widths(lambda width: trade_off(points, cost, width)),
        legend([point.entry for point in points]),
    )


def legend(entries: Sequence[Entry]) -> Element:
    """Return which colour is which runtime, and which shape which precision."""
    runtimes = {entry.report.runtime: entry for entry in entries}
    precisions = {entry.report.precision: entry for entry in entries}
    items = [
        node("li", node("span", class_=f"swatch {runtime}"), runtime_name(entry.report))
        for runtime, entry in runtimes.items()
    ]
    for precision, entry in precisions.items():
        shape = marker(entry, 8, 8, size=5)
        shape.set("class", "mark neutral")
        svg = node("svg", shape, viewBox="0 0 16 16", aria_hidden="true")
        items.append(node("li", svg, precision))
    return node("ul", items, class_="legend", aria_label="Legend")


def latencies(lineup: Lineup) -> Element | None:
    """Return how latencies spread, fastest first."""
    entries = sorted(
        (e for e in lineup.entries if e.has_model and e.is_timed),
        key=lambda entry: entry.report.latency_ms.p50,
    )
    if not entries:
        return None
    sampled = (
        "Each hill is a histogram of the timed inferences, heights by their square root so that a "
        "thin tail shows. "
        if any(entry.report.samples_ms for entry in entries)
        else "Each line reaches from the fastest inference to p99. "
    )
    marks = "The tall mark is p50, the lower ones p90 and p99"
    interval = (
        "; the bar at its foot is the 95 % interval of p50"
        if any(entry.report.p50_interval_ms is not None for entry in entries)
        else ""
    )
    slower = slower_than_shown(entries)
    beyond = f" {slower} slower than the axis shows are not drawn." if slower else ""
    return section(
        "distributions",
        "How latency spreads",
        node("p", f"{sampled}{marks}{interval}.{beyond}", class_="lede"),
        at_both_widths(lambda width: distributions(entries, width)),
    )


def courses(lineup: Lineup) -> Element | None:
    """Return each run's frame rate, heat and clock over time, where there are several slices."""
    shown = [e for e in lineup.entries if len(e.report.moments) > 1 and e.is_timed and e.has_model]
    if not shown:
        return None
    lasting = [_course(entry) for entry in shown if entry.report.sustained]
    short = sorted((entry for entry in shown if not entry.report.sustained), key=_steadiness)
    first, rest = short[:_MOST_COURSES], short[_MOST_COURSES:]
    moments = [moment for entry in shown for moment in entry.report.moments]
    counted = _sentence(pace([entry.report for entry in shown]))
    said = [f"{counted}, of about a second of frames each."]
    if any(len(entry.report.repeats) > 1 for entry in short):
        said.append("Where there are gaps, other processes had their turn.")
    if any(moment.throttled for moment in moments):
        said.append("Shaded: clocks were held back.")
    unknown = ["temperature"] if all(m.temperature_c is None for m in moments) else []
    unknown += ["clock"] if all(m.cpu_mhz is None for m in moments) else []
    if unknown:
        said.append(f"{_sentence(' and '.join(unknown))}: {NOT_MEASURED}.")
    return section(
        "time",
        "Through the run",
        node("p", " ".join(said), class_="lede"),
        node("div", lasting, class_="courses lasting") if lasting else None,
        _courses(first) if first else None,
        node("details", node("summary", count(len(rest), "more run")), _courses(rest))
        if rest
        else None,
    )


def _courses(entries: Sequence[Entry]) -> Element:
    return node("div", [_course(entry) for entry in entries], class_="courses")


def _course(entry: Entry) -> Element:
    if entry.report.sustained:
        told, chart = _fall(entry), at_both_widths(lambda width: over_time(entry, width))
    else:
        told, chart = _range(entry), over_time(entry, NARROW)
    return node("figure", node("figcaption", node("b", entry.name), f" {told}"), chart)


def _fall(entry: Entry) -> str:
    """Say what the frame rate of a sustained run came to: its first and its last tenth."""
    moments = entry.report.moments
    tenth = max(len(moments) // 10, 1)
    first, last = (
        sum(moment.fps for moment in part) / tenth for part in (moments[:tenth], moments[-tenth:])
    )
    change = f" ({last / first - 1:+.1%})" if first else ""
    return (
        f"{moments[-1].t_s:.0f} s: {three_digits(first)} FPS in the first tenth, "
        f"{three_digits(last)} in the last{change}"
    )


def _range(entry: Entry) -> str:
    paces = [moment.fps for moment in entry.report.moments]
    return f"{len(paces)} slices: {three_digits(min(paces))} to {three_digits(max(paces))} FPS"


def _steadiness(entry: Entry) -> float:
    """Return the slowest slice as a share of the fastest."""
    paces = [moment.fps for moment in entry.report.moments]
    return min(paces) / max(paces) if max(paces) else 0.0


# ----------------------------------------------------------------------------------------- figures


def figures(lineup: Lineup) -> Element:
    """Return the table and what must be said of it."""
    notes = [f"Accuracy: {text}." for text in lineup.said(about_accuracy)]
    notes += [f"Power and energy: {text}." for text in lineup.said(about_power)]
    # Of these it is said above why.
    told = {"mAP 50-95", "mAP 50", "power W", "energy J/frame", "net J/frame", "FPS per W"}
    absent = [name for name in missing_figures(lineup.entries) if name not in told]
    if absent:
        notes.append(f"{_sentence(NOT_MEASURED)}: {', '.join(absent)}.")
    without = [e.name for e in lineup.entries if e.report.p50_interval_ms is None]
    if without:
        notes.append(
            f"No interval of p50, which takes three repeats: {_some(without, len(lineup.entries))}."
        )
    return section(
        "figures",
        "All figures",
        node(
            "p",
            node("span", "Select a heading to sort by it. ", class_="sorts", hidden=""),
            "A dash: not measured here.",
            class_="lede",
        ),
        table(lineup),
        node("ul", [node("li", note) for note in notes], class_="notes"),
    )


def classes(lineup: Lineup) -> Iterator[Element]:
    """Yield the accuracy of each class by model, a table for each set of images."""
    grounds = lineup.grounds
    for number, (ground, entries) in enumerate(grounds.items(), start=1):
        models: dict[tuple[str, str], Entry] = {}
        for entry in entries:
            if entry.report.ap50_95:
                models.setdefault((entry.report.artifact_sha256, entry.report.runtime), entry)
        if models:
            suffix = f" on {ground}" if len(grounds) > 1 else ""
            yield _classes(f"classes-{number}", suffix, list(models.values()))


def _classes(name: str, suffix: str, models: Sequence[Entry]) -> Element:
    names = list(dict.fromkeys(name for entry in models for name in entry.report.ap50_95))

    def known(cls: str) -> list[float]:
        return [e.report.ap50_95[cls] for e in models if cls in e.report.ap50_95]

    def spread(cls: str) -> float:
        return max(known(cls)) - min(known(cls))

    names.sort(key=lambda cls: (-spread(cls), cls))
    first, rest = names[:_MOST_CLASSES], names[_MOST_CLASSES:]
    order = "Classes that the models differ in most come first." if len(models) > 1 else ""
    return section(
        name,
        f"AP50-95 of each class{suffix}",
        node("p", order, class_="lede") if order else None,
        _class_table(models, first, spread),
        node(
            "details",
            node("summary", f"{len(rest)} more"),
            _class_table(models, rest, spread),
        )
        if rest
        else None,
    )


def _class_table(
    models: Sequence[Entry], names: Sequence[str], spread: Callable[[str], float]
) -> Element:
    heads = [node("th", node("span", "class"), scope="col")]
    heads += [node("th", node("span", name), scope="col") for name in _model_names(models)]
    several = len(models) > 1
    heads += [node("th", node("span", "spread"), scope="col")] if several else []
    rows = []
    for cls in names:
        cells = [node("th", cls, scope="row", data_key=cls.lower())]
        cells += [_bar(entry.report, cls) for entry in models]
        if several:
            cells.append(node("td", share(spread(cls)), data_key=repr(spread(cls))))
        rows.append(node("tr", cells))
    return sortable("AP50-95 of each class", "classes", heads, rows)


def _model_names(models: Sequence[Entry]) -> list[str]:
    """Name the models alone where that tells them apart: threads change nothing in a score."""
    short = [f"{runtime_name(entry.report)} {entry.report.precision}" for entry in models]
    return short if len(set(short)) == len(short) else [entry.name for entry in models]


def _bar(report: BenchReport, cls: str) -> Element:
    value, ap50 = report.ap50_95.get(cls), report.ap50.get(cls)
    if value is None:
        return node(
            "td", node("span", DASH, aria_hidden="true"), class_="absent", title=NOT_MEASURED
        )
    return node(
        "td",
        node("span", share(value), class_="bar", style=f"--part:{value * 100:.1f}%"),
        data_key=repr(value),
        title=None if ap50 is None else f"AP50 {share(ap50)}",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _some(names: Sequence[str], of: int) -> str:
    """Return the names, or that it is all of the ``of`` there are."""
    return f"all {of}" if len(names) == of > 2 else "; ".join(names)
