"""The parts of the page, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from musgd_cli.report.lineup import Entry, Ground, Lineup, ground_of
from musgd_cli.report.page.charts import (
    NARROW,
    at_both_widths,
    distributions,
    marker,
    over_time,
    trade_off,
)
from musgd_cli.report.page.markup import DASH, node
from musgd_cli.report.page.table import missing_figures, table
from musgd_cli.report.trade_off import Point, energy_points, fronts, latency_points
from musgd_cli.report.wording import (
    EMULATED,
    NOT_MEASURED,
    RUNTIME_NAMES,
    about_accuracy,
    about_power,
    count,
    from_to,
    machine_in_words,
    share,
    three_digits,
)

if TYPE_CHECKING:
    from musgd_cli.records import BenchReport, Host

_MOST_CLASSES = 20
"""Classes shown at once; the rest fold away."""

_MOST_COURSES = 6
"""Short runs drawn over time at once, those that changed most."""


def section(name: str, title: str, *children: Element | str | None) -> Element:
    """Return a section with its heading; ``name`` is what a link can point at."""
    return node("section", node("h2", title), children, id=name)


# ------------------------------------------------------------------------------------- at the top


def header(lineup: Lineup) -> Element:
    """Return the title and, in one line, what was measured where, on what, and when."""
    reports = [entry.report for entry in lineup.entries]
    facts = [
        count(len(reports), "report"),
        _all_of((f"{r.imgsz} px" for r in reports), most=3, many="several sizes"),
        _all_of(
            (count(r.threads, "thread") for r in reports), most=3, many="several thread counts"
        ),
        _all_of((str(g) for r in reports if (g := ground_of(r))), most=2, many="several data sets"),
        _when(reports),
    ]
    return node(
        "header",
        node("p", "musgd bench", class_="eyebrow"),
        node("h1", title(lineup)),
        node("p", " · ".join(fact for fact in facts if fact), class_="facts"),
        node("p", [_machine_line(name, host) for name, host in lineup.machines.items()]),
    )


def title(lineup: Lineup) -> str:
    """Return what the page is about: data sets, then machines."""
    data = [PurePath(e.report.data).stem for e in lineup.entries if e.report.data]
    machines = _all_of(lineup.machines, most=3, many=f"{len(lineup.machines)} machines")
    subject = _all_of(data, most=2, many="several data sets") or "Speed"
    return f"{subject} on {machines}"


def _machine_line(name: str, host: Host) -> Element:
    return node("span", node("b", name), " ", machine_in_words(host), class_="machine")


def _all_of(texts: Iterable[str], *, most: int, many: str) -> str:
    distinct = list(dict.fromkeys(texts))
    return (
        " and ".join(distinct)
        if len(distinct) <= min(most, 2)
        else (", ".join(distinct) if len(distinct) <= most else many)
    )


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
    cards += [card for ground in lineup.grounds().items() for card in _most_accurate(*ground)]
    cards += _least_energy(lineup)
    return node("div", cards[:6], class_="cards") if len(lineup.entries) > 1 and cards else None


def _fastest(lineup: Lineup, machine: str) -> Iterator[Element]:
    entries = [e for e in lineup.of_machine(machine) if e.has_model and e.is_timed]
    if not entries:
        return
    best = min(entries, key=lambda entry: entry.report.latency_ms.p50)
    report = best.report
    notes = [f"{three_digits(report.fps_end_to_end)} whole frames a second"]
    if report.p50_interval_ms is not None:
        notes.append(f"95 % interval {from_to(report.p50_interval_ms)} ms")
    equals = [entry.name for entry in entries if entry is not best and _overlap(entry, best)]
    if equals:
        notes.append(f"not told apart from {_some(equals, len(entries) - 1)}")
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
    said: dict[str, list[str]] = {}
    for entry in lineup.entries:
        for remark in entry.remarks:
            said.setdefault(remark.text, []).append(entry.name)
    scopes = {e.report.power_scope for e in lineup.entries if e.report.power_scope}
    if len(scopes) > 1:
        seen = ", ".join(sorted(scopes))
        said[f"figures of different scopes ({seen}) cannot be compared"] = ["power"]
    if len(lineup.grounds()) > 1:
        named = "; ".join(map(str, lineup.grounds()))
        said[f"scores on different images cannot be compared ({named})"] = ["accuracy"]
    if not said:
        return None
    items = [
        node("li", node("b", _some(names, len(lineup.entries))), f": {text}")
        for text, names in said.items()
    ]
    return node(
        "aside",
        node("h2", "Before you quote these figures"),
        node("ul", items),
        class_="warnings",
        id="warnings",
    )


def _some(names: Sequence[str], of: int) -> str:
    return f"all {of}" if len(names) == of > 2 else "; ".join(names)


# -------------------------------------------------------------------------------------- the charts


def trade_offs(lineup: Lineup) -> Iterator[Element]:
    """Yield accuracy against latency and against energy, one chart for each set of images."""
    grounds = lineup.grounds()
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
    text = f"{each}: what is on it, no other model beats in both. On it: {best}."
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
        node("li", node("span", class_=f"swatch {runtime}"), RUNTIME_NAMES.get(runtime, runtime))
        for runtime in runtimes
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
        "Each hill is a histogram of all timed inferences, heights by their square root so that a "
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
    return section(
        "distributions",
        "How latency spreads",
        node("p", f"{sampled}{marks}{interval}.", class_="lede"),
        at_both_widths(lambda width: distributions(entries, width)),
    )


def courses(lineup: Lineup) -> Element | None:
    """Return each run's frame rate, heat and clock over time, for those long enough."""
    shown = [e for e in lineup.entries if len(e.report.moments) > 1 and e.is_timed and e.has_model]
    if not shown:
        return None
    lasting = [_course(entry, wide=True) for entry in shown if entry.report.sustained]
    short = sorted(
        (entry for entry in shown if not entry.report.sustained), key=lambda e: -abs(_change(e)[2])
    )
    first, rest = short[:_MOST_COURSES], short[_MOST_COURSES:]
    moments = [moment for entry in shown for moment in entry.report.moments]
    unknown = ["temperature"] if all(m.temperature_c is None for m in moments) else []
    unknown += ["clock"] if all(m.cpu_mhz is None for m in moments) else []
    shade = " Shaded: clocks were held back." if any(m.throttled for m in moments) else ""
    absent = f" {_sentence(' and '.join(unknown))}: {NOT_MEASURED}." if unknown else ""
    return section(
        "time",
        "Through the run",
        node("p", f"Whole frames a second, about a second each.{shade}{absent}", class_="lede"),
        node("div", lasting, class_="courses lasting") if lasting else None,
        _courses(first) if first else None,
        node("details", node("summary", f"{count(len(rest), 'more run')}"), _courses(rest))
        if rest
        else None,
    )


def _courses(entries: Sequence[Entry]) -> Element:
    return node("div", [_course(entry, wide=False) for entry in entries], class_="courses")


def _course(entry: Entry, *, wide: bool) -> Element:
    caption = node("figcaption", node("b", entry.name), _course_in_words(entry))
    return node(
        "figure",
        caption,
        at_both_widths(lambda width: over_time(entry, width)) if wide else over_time(entry, NARROW),
    )


def _course_in_words(entry: Entry) -> str:
    first, last, change = _change(entry)
    return (
        f" {entry.report.moments[-1].t_s:.0f} s: {three_digits(first)} FPS in the first tenth, "
        f"{three_digits(last)} in the last ({change:+.1%})"
    )


def _change(entry: Entry) -> tuple[float, float, float]:
    """Return the frame rate of the first and the last tenth of a run, and the share it changed."""
    moments = entry.report.moments
    tenth = max(len(moments) // 10, 1)
    first, last = (
        sum(moment.fps for moment in part) / tenth for part in (moments[:tenth], moments[-tenth:])
    )
    return first, last, last / first - 1


# ----------------------------------------------------------------------------------------- figures


def figures(lineup: Lineup) -> Element:
    """Return the table and what must be said of it."""
    notes = [f"Accuracy: {text}." for text in _per_machine(lineup, about_accuracy)]
    notes += [f"Power and energy: {text}." for text in _per_machine(lineup, about_power)]
    # Of these it is said above why.
    told = {"mAP 50-95", "mAP 50", "power W", "energy J/frame", "net J/frame", "FPS per watt"}
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
        node("p", "Select a heading to sort by it. A dash: not measured here.", class_="lede"),
        table(lineup),
        node("ul", [node("li", note) for note in notes], class_="notes"),
    )


def _per_machine(lineup: Lineup, say: Callable[[BenchReport], str]) -> list[str]:
    """Say it once where it is true of all, else once for each machine it is true of."""
    said: dict[str, list[Entry]] = {}
    for entry in lineup.entries:
        if entry.has_model or len(lineup.entries) == 1:
            said.setdefault(say(entry.report), []).append(entry)
    if len(said) == 1:
        return list(said)
    texts = []
    for text, entries in said.items():
        machines = list(dict.fromkeys(entry.machine for entry in entries))
        models = [e for machine in machines for e in lineup.of_machine(machine) if e.has_model]
        whole = len(models) == len(entries)
        who = ", ".join(machines) if whole else "; ".join(entry.name for entry in entries)
        texts.append(f"{text} ({who})")
    return texts


def classes(lineup: Lineup) -> Iterator[Element]:
    """Yield the accuracy of each class by model, a table for each set of images."""
    grounds = lineup.grounds()
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
            node("summary", f"{count(len(rest), 'more class').replace('classs', 'classes')}"),
            _class_table(models, rest, spread),
        )
        if rest
        else None,
    )


def _class_table(
    models: Sequence[Entry], names: Sequence[str], spread: Callable[[str], float]
) -> Element:
    heads = [node("th", node("span", "class"), scope="col")]
    heads += [node("th", node("span", _short(entry)), scope="col") for entry in models]
    several = len(models) > 1
    heads += [node("th", node("span", "spread"), scope="col")] if several else []
    rows = []
    for cls in names:
        cells = [node("th", cls, scope="row", data_key=cls.lower())]
        cells += [_bar(entry.report.ap50_95.get(cls)) for entry in models]
        if several:
            cells.append(node("td", share(spread(cls)), data_key=repr(spread(cls))))
        rows.append(node("tr", cells))
    whole = node(
        "table",
        node("caption", "AP50-95 of each class", class_="unseen"),
        node("thead", node("tr", heads)),
        node("tbody", rows),
        class_="classes sortable",
    )
    return node(
        "div", whole, class_="scroll", tabindex=0, role="region", aria_label="Table of classes"
    )


def _short(entry: Entry) -> str:
    """Name the model alone: threads and machine change nothing in its accuracy."""
    return (
        f"{RUNTIME_NAMES.get(entry.report.runtime, entry.report.runtime)} {entry.report.precision}"
    )


def _bar(value: float | None) -> Element:
    if value is None:
        return node(
            "td", node("span", DASH, aria_hidden="true"), class_="absent", title=NOT_MEASURED
        )
    return node(
        "td",
        node("span", share(value), class_="bar", style=f"--part:{value * 100:.1f}%"),
        data_key=repr(value),
    )


# ------------------------------------------------------------------------------------ environments


def environments(lineup: Lineup) -> Element:
    """Return every machine, and of every run all that decided its figures."""
    machines = [
        node("div", node("h3", name), _facts(_machine_facts(host)), class_="card")
        for name, host in lineup.machines.items()
    ]
    runs = [
        node(
            "details",
            node("summary", node("b", entry.name), node("small", f" {entry.folder}")),
            _facts(_run_facts(entry)),
        )
        for entry in lineup.entries
    ]
    return section(
        "environments",
        "Where and how each was measured",
        node("div", machines, class_="machines"),
        node("div", runs, class_="runs"),
    )


def _facts(facts: Iterable[tuple[str, str]]) -> Element:
    return node("dl", [node("div", node("dt", name), node("dd", text)) for name, text in facts])


def _machine_facts(host: Host) -> Iterator[tuple[str, str]]:
    yield "board", host.model or host.board
    yield "processor", _told(host.cpu)
    yield "cores", _told(host.cores)
    yield "features", _told(", ".join(host.cpu_features or ()) or None)
    yield "memory", _told(host.ram_mb, " MB")
    if host.gpu:
        yield "GPU", f"{host.gpu}{f', {host.gpu_memory_mb} MB' if host.gpu_memory_mb else ''}"
    yield "system", ", ".join(t for t in (host.os, host.kernel, host.jetpack) if t) or _told(None)
    userland = ", ".join(t for t in (host.arch, host.bits and f"{host.bits}-bit") if t)
    yield "userland", userland or _told(None)
    yield "container", _told(host.container)
    if host.emulated:
        yield "emulated", "yes: its speed is not the board's"
    yield "Python", _told(host.python)
    yield "power meters", ", ".join(host.power_meters) or "none found"


def _run_facts(entry: Entry) -> Iterator[tuple[str, str]]:
    report = entry.report
    yield "model", report.artifact
    yield "SHA-256", report.artifact_sha256
    if report.made_by:
        yield "made by", report.made_by
    yield "machine", entry.machine
    yield "measured", _told(report.started)
    settings = "; ".join(f"{name} {value}" for name, value in report.engine.items())
    version = report.runtime_version or "version not told"
    yield "engine", f"{RUNTIME_NAMES.get(report.runtime, report.runtime)} {version}"
    yield "engine settings", _told(settings or None)
    yield "input", f"{report.imgsz} px, batch 1, {count(report.threads, 'engine thread')}"
    yield "timed", _timing(report)
    yield "warm-up", _warmup(report)
    yield "repeats", _repeats(report) if entry.is_timed else EMULATED
    yield "latency", _latency(report) if entry.is_timed else EMULATED
    if entry.is_timed:
        yield from _times_beside(report)
    yield "accuracy", about_accuracy(report)
    if report.n_shared_boxes:
        yield "shared boxes", f"{report.n_shared_boxes} with the float parent"
    yield "power", about_power(report)
    if report.idle_w is not None:
        yield "at rest", f"{three_digits(report.idle_w)} W"
    yield "processor use", _use(report)
    yield "clock", _told(None if report.cpu_mhz is None else f"{report.cpu_mhz:.0f}", " MHz, mean")
    yield "governor", _told(report.governor)
    if report.power_mode is not None:
        yield "power mode", report.power_mode
    yield (
        "heat",
        _told(
            None if report.temperature_c is None else f"{report.temperature_c:.1f}", " °C at most"
        ),
    )
    throttled = {True: "clocks were held back", False: "no", None: NOT_MEASURED}
    yield "throttled", throttled[report.throttled]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    yield "versions", _told(versions or None)


def _latency(report: BenchReport) -> str:
    figures = report.latency_ms
    named = (
        (name, three_digits(getattr(figures, name)))
        for name in ("min", "p50", "mean", "p90", "p99", "max")
    )
    return ", ".join(f"{name} {figure}" for name, figure in named) + " ms"


def _times_beside(report: BenchReport) -> Iterator[tuple[str, str]]:
    yield "load", f"{three_digits(report.load_ms)} ms"
    yield "first inference", f"{three_digits(report.first_inference_ms)} ms"
    yield "letterbox", f"{three_digits(report.pre_ms)} ms before, median"
    yield "decode", f"{three_digits(report.post_ms)} ms after, median"
    harness = None if report.harness_ms is None else f"{report.harness_ms:.3f}"
    yield "harness", _told(harness, " ms a frame")


def _timing(report: BenchReport) -> str:
    images = count(report.n_frames, "image") if report.n_frames else "one image of noise"
    seconds = "" if report.seconds is None else f" in {report.seconds:.1f} s"
    return f"{count(report.n, 'inference')}{seconds}, each within a whole frame of {images}"


def _warmup(report: BenchReport) -> str:
    seconds = "" if report.warmup_s is None else f" in {report.warmup_s:.1f} s"
    decided = "until latency had settled" if report.steady else "not settled when its time was up"
    return f"{count(report.warmup, 'inference')}{seconds}, {decided}"


def _repeats(report: BenchReport) -> str:
    if not report.repeats:
        return "one process"
    each = ", ".join(three_digits(repeat.p50_ms) for repeat in report.repeats)
    processes = "fresh process" if len(report.repeats) == 1 else "fresh processes"
    return f"{len(report.repeats)} {processes}, p50 of each: {each} ms"


def _use(report: BenchReport) -> str:
    if report.cores_used is None:
        return NOT_MEASURED
    others = report.cores_used_by_others
    beside = "" if others is None else f", {others:.2f} by all else on the machine"
    return f"{report.cores_used:.2f} cores{beside}"


def _told(value: object, unit: str = "") -> str:
    return NOT_MEASURED if value is None else f"{value}{unit}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


# ------------------------------------------------------------------------------------------ method


_METHOD = {
    "latency": (
        "Wall time of one inference of batch 1, the engine alone, timed within a whole frame. p50, "
        "p90 and p99 are the times that 50, 90 and 99 % of the inferences stay within."
    ),
    "95 % interval": (
        "Where the p50 of another such run is expected 19 times of 20, by the spread of repeats in "
        "fresh processes. If it is wider than 10 %, the report is called unstable."
    ),
    "FPS": (
        "Model: 1000 / mean inference in ms. Frame: 1000 / mean of letterbox, inference, decode "
        "and rescale, images already in memory; no camera, no display."
    ),
    "speed of float": (
        "p50 of the model's float parent over its own, on the same machine with as many threads."
    ),
    "accuracy": (
        "mAP as Ultralytics' val computes it: scores from .001, NMS at IoU .7 (none for end-to-end "
        "outputs), at most 300 boxes, 101 points. Images that calibrated a model are left out. No "
        "interval is stated: of few images, small differences can be chance."
    ),
    "recall": (
        "Share of objects found at IoU 0.5 and any score from 0.001. Small is under 32² px in the "
        "original image, medium under 96², large the rest."
    ),
    "confidence shift": (
        "Mean score minus the float parent's over the boxes that both find: same class, IoU above "
        "0.5, score above 0.25."
    ),
    "energy": (
        "Energy over the timed frames by their number; net is what is above the machine's draw at "
        "rest. A meter's scope (board, module, gpu, package) is what it sees: figures of different "
        "scopes cannot be compared. Estimates are marked, and win nothing here."
    ),
    "memory": "Most resident memory of the whole process, interpreter and frames included.",
}


def method() -> Element:
    """Return what the words on the page mean."""
    return section("method", "What the words mean", _facts(_METHOD.items()))
