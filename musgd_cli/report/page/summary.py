"""The top of the page: what it is about, the figures most come for, and what could mislead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from musgd_cli.report.lineup import Entry, Ground, Lineup
from musgd_cli.report.page.markup import node
from musgd_cli.report.wording import (
    about_power,
    count,
    data_title,
    from_to,
    share,
    three_digits,
)

if TYPE_CHECKING:
    from musgd_cli.records import BenchReport

_MOST_NAMED = 4
"""Reports that something is true of are named up to here, then counted: their rows tell which."""


def header(lineup: Lineup) -> Element:
    """Return the title and, in one line, what was measured where, on what, and when."""
    reports = [entry.report for entry in lineup.entries]
    facts = [
        count(len(reports), "report"),
        _all_of((f"{r.imgsz} px" for r in reports), most=3, many="several sizes"),
        _all_of(
            (count(r.threads, "thread") for r in reports), most=3, many="several thread counts"
        ),
        _all_of(map(str, lineup.grounds), most=2, many="several data sets"),
        _when(reports),
    ]
    return node(
        "header",
        node("p", "musgd bench", class_="eyebrow"),
        node("h1", title(lineup)),
        node("p", " · ".join(fact for fact in facts if fact), class_="facts"),
        node("p", [_machine_line(name, lineup.about_machine(name)) for name in lineup.machines]),
    )


def title(lineup: Lineup) -> str:
    """Return what the page is about: data sets, then machines."""
    data = [data_title(e.report.data) for e in lineup.entries if e.report.data]
    machines = _all_of(lineup.machines, most=3, many=f"{len(lineup.machines)} machines")
    subject = _all_of(data, most=2, many="several data sets") or "Speed"
    return f"{subject} on {machines}"


def _machine_line(name: str, about: str) -> Element:
    return node("span", node("b", name), " ", about, class_="machine")


def _all_of(texts: Iterable[str], *, most: int, many: str) -> str:
    distinct = list(dict.fromkeys(texts))
    if len(distinct) > most:
        return many
    return " and ".join(distinct) if len(distinct) == 2 else ", ".join(distinct)


def _when(reports: Sequence[BenchReport]) -> str:
    days = sorted({report.started[:10] for report in reports if report.started})
    if not days:
        return ""
    first, last = (_day(day) for day in (days[0], days[-1]))
    return f"measured {first}" if first == last else f"measured {first} to {last}"


def _day(text: str) -> str:
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{day.day} {day:%B %Y}"


def highlights(lineup: Lineup) -> Element | None:
    """Return the few figures that most readers come for, each with what qualifies it."""
    cards = [card for machine in lineup.machines for card in _fastest(lineup, machine)]
    cards += [card for ground in lineup.grounds.items() for card in _most_accurate(*ground)]
    cards += _least_energy(lineup)
    return node("div", cards, class_="cards") if len(lineup.entries) > 1 and cards else None


def _fastest(lineup: Lineup, machine: str) -> Iterator[Element]:
    entries = [e for e in lineup.of_machine(machine) if e.has_model and e.is_timed]
    if not entries:
        return
    best = min(entries, key=lambda entry: entry.report.latency_ms.p50)
    report = best.report
    fps = report.fps_end_to_end
    notes = [] if fps is None else [f"{three_digits(fps)} whole frames a second"]
    if report.p50_interval_ms is not None:
        notes.append(f"95 % interval {from_to(report.p50_interval_ms)} ms")
    equals = [entry.name for entry in entries if entry is not best and _overlap(entry, best)]
    if equals:
        named = "; ".join(equals) if len(equals) <= _MOST_NAMED else f"{len(equals)} others"
        notes.append(f"not told apart from {named}")
    where = f" on {machine}" if len(lineup.machines) > 1 else ""
    yield _card(f"fastest{where}", three_digits(report.latency_ms.p50), "ms, p50", best, notes)


def _overlap(one: Entry, other: Entry) -> bool:
    a, b = one.report.p50_interval_ms, other.report.p50_interval_ms
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def _most_accurate(ground: Ground, entries: Sequence[Entry]) -> Iterator[Element]:
    scored = [entry for entry in entries if entry.report.map50_95 is not None]
    best = max(scored, key=lambda entry: entry.report.map50_95 or 0)
    value = best.report.map50_95 or 0
    models = {entry.report.artifact_sha256 for entry in scored}
    if len(models) > 1:
        same = {e.name for e in scored if share(e.report.map50_95 or 0) == share(value)}
        others = len(same) - 1
        notes = [str(ground)]
        notes += [f"{count(others, 'other report')} with the same figure"] if others else []
        yield _card("most accurate", share(value), "mAP50-95", best, notes)


def _least_energy(lineup: Lineup) -> Iterator[Element]:
    """Yield a card for each machine and scope: what a meter sees decides what can be compared."""
    metered: dict[tuple[str, str | None], list[tuple[float, Entry]]] = {}
    for entry in lineup.entries:
        joules = entry.report.energy_per_frame_j
        if joules is not None and entry.has_model and entry.is_timed and not entry.estimated:
            where = entry.machine, entry.report.power_scope
            metered.setdefault(where, []).append((joules, entry))
    for (machine, _), found in metered.items():
        joules, best = min(found, key=lambda pair: pair[0])
        place = f" on {machine}" if len(lineup.machines) > 1 else ""
        notes = [about_power(best.report)]
        yield _card(f"least energy{place}", three_digits(joules), "J/frame", best, notes)


def _card(what: str, figure: str, unit: str, entry: Entry, notes: Sequence[str]) -> Element:
    about = {"ms, p50": ("speed",), "J/frame": ("speed", "power")}.get(unit, ("accuracy",))
    flags = [node("span", r.flag, class_="flag") for r in entry.remarks if r.about in about]
    return node(
        "div",
        node("p", what, class_="what"),
        node("p", node("b", figure), " ", unit, class_="figure"),
        node("p", entry.name_there, class_="who"),
        [node("p", note, class_="note") for note in notes],
        node("p", [part for flag in flags for part in (flag, " ")]) if flags else None,
        class_="card",
    )


def warnings(lineup: Lineup) -> Element | None:
    """Return what could mislead, each said once with the reports that it is true of."""
    said = [
        (_which([entry.name for entry in entries], len(lineup.entries)), text)
        for entries, text in lineup.remarks()
    ]
    said += lineup.incomparable()
    if not said:
        return None
    items = [node("li", node("b", names), f": {text}") for names, text in said]
    return node(
        "aside",
        node("h2", "Before you quote these figures"),
        node("ul", items),
        class_="warnings",
        id="warnings",
    )


def _which(names: Sequence[str], of: int) -> str:
    if len(names) == of > 2:
        return f"all {of}"
    return "; ".join(names) if len(names) <= _MOST_NAMED else f"{len(names)} of {of}"
