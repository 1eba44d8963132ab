"""Charts as inline SVG. Colours are CSS variables, so that a page's theme reaches them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from musgd_cli.report.labels import GLYPH, Box, Placed, place, staircase_boxes
from musgd_cli.report.lineup import Entry
from musgd_cli.report.look import CORNERS
from musgd_cli.report.page.markup import node
from musgd_cli.report.page.scales import Scale, spanning, tick_label
from musgd_cli.report.trade_off import Point, fronts
from musgd_cli.report.wording import from_to, share, three_digits

if TYPE_CHECKING:
    from musgd_cli.records import Moment

WIDE, NARROW = 1040, 350
"""Widths that each chart is drawn in, pixels; the page shows the one that fits the screen."""

_LINE = 14
"""Height of a line of text, pixels."""

_MOST_SLICES = 240
"""Points of a curve over time; more of them are averaged, which a screen could not show."""


def at_both_widths(draw: Callable[[int], Element]) -> Element:
    """Return a chart drawn for a wide screen and for a phone, of which the page shows one."""
    wide, narrow = draw(WIDE), draw(NARROW)
    wide.set("class", "chart wide")
    narrow.set("class", "chart narrow")
    return node("div", wide, narrow, class_="plot")


def marker(entry: Entry, x: float, y: float, *, size: float = 6, hollow: bool = False) -> Element:
    """Return an entry's mark: its colour is the runtime's, its shape the precision's."""
    name = f"mark {entry.report.runtime}{' hollow' if hollow else ''}"
    corners = CORNERS[entry.report.precision]
    if not corners:
        return node("circle", cx=x, cy=y, r=size, class_=name)
    points = " ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners)
    return node("polygon", points=points, class_=name)


# ------------------------------------------------------------------------------------- trade-offs


def trade_off(points: Sequence[Point], cost: str, width: int) -> Element:
    """Draw accuracy against a cost, the Pareto front of each group as a staircase.

    Args:
        points: At least one.
        cost: What the cost is, with its unit after a comma.
        width: Of the chart, pixels.
    """
    height = 440 if width >= WIDE else 380
    left, right, top, bottom = 52, width - 16, 26, height - 46
    x = spanning([p.cost for p in points], left, right, margin=0.08, may_be_log=True)
    y = spanning([p.worth for p in points], bottom, top, margin=0.12)
    svg = canvas(width, height, f"mAP50-95 against {cost}", marks_take_focus=True)
    svg.extend(grid(x, y, about=(9 if width >= WIDE else 5, 5)))
    scale = ", logarithmic" if x.logarithmic else ""
    svg.append(text_at((left + right) / 2, height - 8, f"{cost}{scale}", anchor="middle"))
    svg.append(text_at(2, 14, "mAP50-95"))
    svg.append(text_at(right, 14, "better: up and to the left", anchor="end", class_="hint"))
    groups = {group: front for group, front in fronts(points).items() if front}
    svg.extend(_staircase(front, x, y) for front in groups.values())
    ends = _ends(groups, y) if len(fronts(points)) > 1 else {}
    svg.extend(
        text_at(right, at - 6, name, anchor="end", class_="front-name") for at, name in ends.items()
    )
    on_front = {id(point) for front in groups.values() for point in front}
    # What is on the front is drawn last, on top, but gets the first choice of a label's place.
    ranked = sorted(points, key=lambda p: (id(p) not in on_front, p.cost))
    spots = [(x(p.cost), y(p.worth)) for p in ranked]
    lines = [box for front in groups.values() for box in _covered(front, x, y)]
    lines += [(right - len(name) * GLYPH, right, at - 18, at) for at, name in ends.items()]
    for point, (_, at) in zip(ranked, spots, strict=True):
        low, high = point.interval or (point.cost, point.cost)
        lines.append((x.within(low), x.within(high), at - 1, at + 1))
    names = [
        (p.entry.name, p.entry.name_there) if width >= WIDE else (p.entry.name_there,)
        for p in ranked
    ]
    labels = place(names, spots, lines, (left, right, top, bottom))
    for point, label in reversed(list(zip(ranked, labels, strict=True))):
        svg.append(_point(point, x, y, cost, label, on_front=id(point) in on_front))
    return svg


def _point(
    point: Point, x: Scale, y: Scale, cost: str, label: Placed | None, *, on_front: bool
) -> Element:
    at = x(point.cost), y(point.worth)
    group = node("g", node("title", _about(point, cost, on_front=on_front)))
    group.set("class", "point" if on_front else "point beaten")
    if point.interval is not None:
        low, high = map(x.within, point.interval)
        group.append(node("line", x1=low, x2=high, y1=at[1], y2=at[1], class_="interval"))
    group.append(marker(point.entry, *at, hollow=point.estimated))
    if label is not None:
        x_label, y_label = at[0] + label.dx, at[1] + label.dy
        group.append(text_at(x_label, y_label, label.text, anchor=label.anchor))
    return group


def _about(point: Point, cost: str, *, on_front: bool) -> str:
    what, _, unit = cost.rpartition(", ")
    said = [
        point.entry.name,
        f"mAP50-95 {share(point.worth)}",
        f"{what} {three_digits(point.cost)} {unit}" + (" (estimated)" if point.estimated else ""),
    ]
    if on_front:
        said.append("on the Pareto front")
    return "\n".join(said)


def _covered(front: Sequence[Point], x: Scale, y: Scale) -> list[Box]:
    """Return where a staircase is."""
    return staircase_boxes([(x(p.cost), y(p.worth)) for p in front], x.end)


def _staircase(front: Sequence[Point], x: Scale, y: Scale) -> Element:
    steps = [f"M{x(front[0].cost):.1f},{y(front[0].worth):.1f}"]
    steps += [f"H{x(point.cost):.1f}V{y(point.worth):.1f}" for point in front[1:]]
    steps.append(f"H{x.end:.1f}")
    return node("path", d="".join(steps), class_="front")


def _ends(groups: Mapping[str, Sequence[Point]], y: Scale) -> dict[float, str]:
    """Return the name of each front by the height it ends at; those too near share a line."""
    ends: dict[float, str] = {}
    for at, group in sorted((y(front[-1].worth), group) for group, front in groups.items()):
        near = next((other for other in ends if at - other < _LINE), None)
        if near is None:
            ends[at] = group
        else:
            ends[near] = f"{ends[near]}; {group}"
    return ends


# ---------------------------------------------------------------------------------- distributions


def distributions(entries: Sequence[Entry], width: int) -> Element:
    """Draw how each entry's latencies spread, one row an entry, on one axis.

    Args:
        entries: At least one, in the order of the rows.
        width: Of the chart, pixels.
    """
    beside = width >= WIDE
    row, above = (50, 14) if beside else (66, 0)
    left, right = (286, width - 170) if beside else (8, width - 8)
    height = above + row * len(entries) + 56
    x = _latency_axis(entries, left, right)
    svg = canvas(width, height, "Latency distributions", marks_take_focus=True)
    bottom = height - 46
    svg.extend(grid(x, None, about=(8 if beside else 5, 0), top=above + 4, bottom=bottom))
    scale = ", logarithmic" if x.logarithmic else ""
    svg.append(text_at((left + right) / 2, height - 8, f"inference, ms{scale}", anchor="middle"))
    for at, heading in zip(_QUANTILES_AT, ("p50", "p90", "p99"), strict=True) if beside else ():
        svg.append(text_at(right + at, 10, heading, anchor="end", class_="tick"))
    for number, entry in enumerate(entries):
        base = above + (number + 1) * row - 6
        svg.append(_distribution(entry, x, base, beside=beside))
    return svg


def _latency_axis(entries: Sequence[Entry], left: float, right: float) -> Scale:
    """Return an axis that holds all but the slowest: one stall would squeeze all else."""
    ends = [v for e in entries for v in (e.report.latency_ms.min, e.report.latency_ms.p99)]
    return spanning(ends, left, right, margin=0.05, may_be_log=True)


def slower_than_shown(entries: Sequence[Entry]) -> int:
    """Return how many inferences lie beyond the axis of their distributions."""
    end = _latency_axis(entries, 0.0, 1.0).high
    return sum(_slower(entry, end) for entry in entries)


def _slower(entry: Entry, than: float) -> int:
    return sum(sample > than for sample in entry.report.samples_ms)


_QUANTILES_AT = (50, 106, 162)
"""Where their columns end, right of the axis."""


def _distribution(entry: Entry, x: Scale, base: float, *, beside: bool) -> Element:
    latency = entry.report.latency_ms
    figures = [three_digits(value) for value in (latency.p50, latency.p90, latency.p99)]
    said = [
        entry.name,
        "p50 {} ms, p90 {} ms, p99 {} ms".format(*figures),
        f"slowest {three_digits(latency.max)} ms",
    ]
    if slower := _slower(entry, x.high):
        said.append(f"{slower} of {entry.report.n} slower than this axis shows")
    if entry.report.p50_interval_ms is not None:
        said.append(f"95 % interval of p50: {from_to(entry.report.p50_interval_ms)} ms")
    group = node("g", node("title", "\n".join(said)), class_=f"row {entry.report.runtime}")
    group.append(node("line", x1=x.start, x2=x.end, y1=base, y2=base, class_="axis"))
    tall = 30
    if entry.report.samples_ms:
        group.append(node("path", d=_hill(entry.report.samples_ms, x, base, tall), class_="hill"))
    else:
        ends = x(latency.min), x(latency.p99)
        group.append(node("line", x1=ends[0], x2=ends[1], y1=base, y2=base, class_="reach"))
    if entry.report.p50_interval_ms is not None:
        begin, end = map(x.within, entry.report.p50_interval_ms)
        group.append(
            node("rect", x=begin, y=base - 2, width=max(end - begin, 1), height=4, class_="band")
        )
    for quantile, part in ((latency.p50, 1.0), (latency.p90, 0.6), (latency.p99, 0.35)):
        at = x(quantile)
        kind = "p50" if part == 1 else "tail"
        group.append(node("line", x1=at, x2=at, y1=base, y2=base - tall * part, class_=kind))
    if beside:
        group.append(marker(entry, 8, base - 9, size=5))
        group.append(text_at(22, base - 5, _cut(entry.name, 41)))
        for at, figure in zip(_QUANTILES_AT, figures, strict=True):
            kind = "lead" if figure is figures[0] else "figures"
            group.append(text_at(x.end + at, base - 5, figure, anchor="end", class_=kind))
    else:
        group.append(marker(entry, x.start + 5, base - 46, size=4.5))
        group.append(text_at(x.start + 16, base - 42, _cut(entry.name, 40)))
        group.append(text_at(x.end, base - 42, f"{figures[0]} ms", anchor="end", class_="lead"))
    return group


def _hill(samples: Sequence[float], x: Scale, base: float, tall: float) -> str:
    """Return the outline of a histogram of equal bins on the axis; its peak is ``tall``."""
    bins = max(24, int((x.end - x.start) / 4))
    ordered = sorted(samples)
    cuts = [bisect_left(ordered, x.value_at(number / bins)) for number in range(bins + 1)]
    counts = [end - begin for begin, end in pairwise(cuts)]
    peak = max(counts) or 1
    used = [number for number, n in enumerate(counts) if n]
    if not used:
        return ""
    size = (x.end - x.start) / bins
    path = [f"M{x.start + used[0] * size:.1f},{base:.1f}"]
    # The root keeps a tail of few samples visible beside a peak of thousands.
    path += [
        f"V{base - math.sqrt(n / peak) * tall:.1f}h{size:.2f}"
        for n in counts[used[0] : used[-1] + 1]
    ]
    return "".join([*path, f"V{base:.1f}Z"])


# --------------------------------------------------------------------------------------- over time


@dataclass(frozen=True)
class _Curve:
    name: str
    unit: str
    values: Callable[[Moment], float | None]
    from_zero: bool
    kind: str


_CURVES = (
    _Curve("FPS", "frames a second", lambda m: m.fps, True, "fps"),
    _Curve("temperature", "°C", lambda m: m.temperature_c, False, "heat"),
    _Curve("clock", "MHz", lambda m: m.cpu_mhz, True, "clock"),
)


def over_time(entry: Entry, width: int) -> Element:
    """Draw an entry's frame rate through its run above temperature and clock, where known.

    Args:
        entry: With at least two moments.
        width: Of the chart, pixels.
    """
    moments = _thinned(entry.report.moments)
    shown = [
        curve for curve in _CURVES if any(curve.values(moment) is not None for moment in moments)
    ]
    left, right, panel, gap = 44, width - 8, 120 if width >= WIDE else 78, 32
    height = len(shown) * (panel + gap) + 38
    x = spanning([0.0, *(m.t_s for m in moments)], left, right, margin=0.0)
    svg = canvas(width, height, f"{entry.name} over time")
    svg.set("class", "chart")
    for number, curve in enumerate(shown):
        top = number * (panel + gap) + 24
        svg.append(_panel(curve, moments, x, top, top + panel, entry.report.sustained))
    bottom = len(shown) * (panel + gap) - 8
    ticks = x.ticks(10 if width >= WIDE else 6)
    for tick in ticks:
        svg.append(text_at(x(tick), bottom + 16, tick_label(tick, ticks), anchor="middle"))
    svg.append(
        text_at((left + right) / 2, height - 4, "seconds since the first frame", anchor="middle")
    )
    return svg


def _panel(
    curve: _Curve,
    moments: Sequence[Moment],
    x: Scale,
    top: float,
    bottom: float,
    lasting: bool,
) -> Element:
    points = [(m.t_s, v) for m in moments if (v := curve.values(m)) is not None]
    values = [value for _, value in points]
    # A still line is flat on the axis too, not noise blown up to fill it.
    room = [max(values) + 1.5, min(values) - 1.5] if curve.kind == "heat" else []
    y = spanning([*values, *room], bottom, top, margin=0.06, from_zero=curve.from_zero)
    group = node("g", class_=f"panel {curve.kind}")
    group.extend(grid(x, y, about=(0, 3)))
    group.append(text_at(0, top - 11, f"{curve.name}, {curve.unit}"))
    for begin, end in _throttled(moments) if curve.kind == "fps" else ():
        group.append(
            node(
                "rect",
                node("title", "clocks held back"),
                x=x(begin),
                y=top,
                width=max(x(end) - x(begin), 2),
                height=bottom - top,
                class_="throttled",
            )
        )
    path = " ".join(f"{x(t):.1f},{y(value):.1f}" for t, value in points)
    ends = f"{three_digits(values[0])} at first, {three_digits(values[-1])} at last"
    extremes = f"{three_digits(min(values))} to {three_digits(max(values))} {curve.unit}"
    line = node("polyline", node("title", f"{curve.name}: {extremes}; {ends}"), points=path)
    line.set("class", f"curve {curve.kind}" if lasting else f"curve thread {curve.kind}")
    group.append(line)
    # Slices of a short run lie minutes apart: what is between them was not measured.
    for t, value in () if lasting else points:
        group.append(node("circle", cx=x(t), cy=y(value), r=2.5, class_=f"dot {curve.kind}"))
    return group


def _throttled(moments: Sequence[Moment]) -> Iterator[tuple[float, float]]:
    """Return from when to when clocks were held back."""
    begin: float | None = None
    for moment in moments:
        if moment.throttled and begin is None:
            begin = moment.t_s
        if not moment.throttled and begin is not None:
            yield begin, moment.t_s
            begin = None
    if begin is not None:
        yield begin, moments[-1].t_s


def _thinned(moments: Sequence[Moment]) -> list[Moment]:
    """Average neighbours until there are few enough to draw."""
    size = math.ceil(len(moments) / _MOST_SLICES)
    if size <= 1:
        return list(moments)
    return [_merged(moments[at : at + size]) for at in range(0, len(moments), size)]


def _merged(moments: Sequence[Moment]) -> Moment:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    first = moments[0]
    return first.model_copy(
        update={
            "t_s": mean([m.t_s for m in moments]),
            "fps": mean([m.fps for m in moments]),
            "temperature_c": mean([m.temperature_c for m in moments]),
            "cpu_mhz": mean([m.cpu_mhz for m in moments]),
            "throttled": any(m.throttled for m in moments),
        }
    )


# ----------------------------------------------------------------------------------------- drawing


def canvas(width: int, height: float, name: str, *, marks_take_focus: bool = False) -> Element:
    """Return an empty chart; ``name`` is what a screen reader says of it."""
    # What is below an image is hidden from a screen reader, even where it takes the focus.
    role = "group" if marks_take_focus else "img"
    return node("svg", viewBox=f"0 0 {width} {height:g}", role=role, aria_label=name)


def grid(
    x: Scale,
    y: Scale | None,
    *,
    about: tuple[int, int],
    top: float | None = None,
    bottom: float | None = None,
) -> Iterator[Element]:
    """Draw the lines of an area and the figures at them."""
    low = y.start if y is not None else bottom or 0.0
    high = y.end if y is not None else top or 0.0
    columns = x.ticks(about[0]) if about[0] else []
    for tick in columns:
        at = x(tick)
        yield node("line", x1=at, x2=at, y1=high, y2=low, class_="grid")
        yield text_at(at, low + 17, tick_label(tick, columns), anchor="middle", class_="tick")
    rows = y.ticks(about[1]) if y is not None else []
    for tick in rows:
        assert y is not None
        at = y(tick)
        yield node("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="grid")
        yield text_at(x.start - 7, at + 4, tick_label(tick, rows), anchor="end", class_="tick")


def text_at(
    x: float, y: float, text: str, *, anchor: str | None = None, class_: str | None = None
) -> Element:
    """Return a text, its baseline at ``y``."""
    return node("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
