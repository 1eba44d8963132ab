"""``musgd bench`` for people: one row a report, and under it how the figures came about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import TYPE_CHECKING

from musgd_cli.report.figures import (
    BESIDE,
    ENERGY,
    GPU_MEMORY,
    HEAT,
    MEAN_AP,
    MEMORY,
    POWER,
    RECALL,
    SHIFT,
    SPEED,
    Figure,
    speed_of_float,
)
from musgd_cli.report.lineup import Entry, Lineup
from musgd_cli.report.wording import (
    EMULATED,
    NOT_MEASURED,
    SETTLED,
    about_accuracy,
    about_fp16,
    about_power,
    count,
    runtime_name,
    three_digits,
    timed_alone,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from musgd_cli.records import BenchReport

_ENDLESS = 10_000

_STAGES_SHOWN = 12
"""Rows of a sustained run, however long it was."""


def bench_table(reports: Sequence[BenchReport], *, emulated_speed: bool = False) -> RenderableType:
    """Return the table and its notes.

    Args:
        reports: At least one.
        emulated_speed: Show an emulator's speed too, with a warning; else the word stands there.
    """
    from rich.console import Group
    from rich.text import Text

    lineup = Lineup(reports, emulated_speed=emulated_speed)
    lasting = [_lasting_table(entry) for entry in lineup.entries if entry.report.sustained]
    return Group(_BenchTable(lineup), *lasting, Text(), *_notes(lineup))


@dataclass(frozen=True)
class _Column:
    """One figure of every row."""

    heading: str
    unit: str
    cell: Callable[[Entry], str]
    lead: bool = False


def _column(figure: Figure) -> _Column:
    def cell(entry: Entry) -> str:
        value = figure.value(entry)
        if figure.of_machine and not entry.is_timed:
            return EMULATED
        if value is None:
            return "-"
        return (
            f"{'~' if figure in (POWER, *ENERGY) and entry.estimated else ''}{figure.text(value)}"
        )

    return _Column(figure.heading, figure.unit, cell, figure.lead)


class _BenchTable:
    """One table where it fits, else several below each other, each of figures that go together."""

    def __init__(self, lineup: Lineup) -> None:
        self._lineup = lineup

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        endless = options.update(width=_ENDLESS)

        def fits(columns: Sequence[_Column]) -> bool:
            whole = self._table(columns)
            return console.measure(whole, options=endless).maximum <= options.max_width

        shown: list[_Column] = []
        titled = True
        for subject in self._subjects():
            left = subject
            while left:
                if fits([*shown, *left]):
                    n = len(left)
                elif shown:  # it is kept whole in a table of its own, if it can be
                    n = 0
                else:
                    n = next((n for n in range(len(left) - 1, 1, -1) if fits(left[:n])), 1)
                shown, left = [*shown, *left[:n]], left[n:]
                if left:
                    yield self._table(shown, titled=titled)
                    shown, titled = [], False
        yield self._table(shown, titled=titled)

    def _subjects(self) -> Iterator[list[_Column]]:
        """Yield the columns: those of one subject stay together where they can."""
        p50, *tails = [_column(figure) for figure in SPEED if figure.unit == "ms"]
        spread = _Column("p50", "±", _timed(_spread))
        yield [
            p50,
            *([spread] if self._any(_interval) else ()),
            *tails,
            *self._columns(speed_of_float(self._lineup)),
            *(_column(figure) for figure in SPEED if figure.unit != "ms"),
        ]
        yield [_column(figure) for figure in BESIDE]
        yield [*map(_column, MEAN_AP), _Column("recall", "S/M/L", _recalls), *self._columns(SHIFT)]
        power = [_Column(POWER.heading, POWER.unit, _power), *map(_column, ENERGY)]
        no_power = [_Column("power, energy", "W, J/frame", lambda _: NOT_MEASURED)]
        memory = [_column(MEMORY), *self._columns(GPU_MEMORY, HEAT)]
        yield from [memory, power] if self._any(POWER.value) else [[*memory, *no_power]]

    def _columns(self, *figures: Figure) -> list[_Column]:
        """Return the columns of those figures that any report has."""
        return [_column(figure) for figure in figures if self._any(figure.value)]

    def _any(self, value: Callable[[Entry], object]) -> bool:
        return any(value(entry) is not None for entry in self._lineup.entries)

    def _table(self, columns: Sequence[_Column], *, titled: bool = True) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            title=Text(_title(self._lineup), style="bold cyan") if titled else None,
            title_justify="left",
        )
        table.add_column("artifact", no_wrap=True)
        for column in columns:
            table.add_column(
                Text.assemble(column.heading, "\n", (column.unit, "dim")),
                justify="right",
                style="bold" if column.lead else "",
            )
        several = len(self._lineup.machines) > 1
        for machine in self._lineup.machines:
            if several:
                table.add_section()
                table.add_row(Text(machine, style="cyan"))
            for entry in self._lineup.of_machine(machine):
                name = f"  {entry.name_there}" if several else entry.name
                table.add_row(Text(name), *(column.cell(entry) for column in columns))
        return table


def _title(lineup: Lineup) -> str:
    """Say what all rows have in common."""
    first = lineup.entries[0].report
    parts = [" and ".join(lineup.machines)] if len(lineup.machines) <= 2 else []
    if not lineup.has_many(lambda report: report.imgsz):
        parts.append(f"{first.imgsz} px")
    if not lineup.has_many(lambda report: report.threads):
        parts.append(count(first.threads, "thread"))
    return ", ".join(parts)


def _lasting_table(entry: Entry) -> Table:
    """Show how speed lasted, in equal stages of the run."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    moments = entry.report.moments
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=Text(f"{entry.name}, over time", style="bold cyan"),
        title_justify="left",
    )
    for heading in ("from s", "FPS", "of the first", "°C", "MHz", "throttled"):
        table.add_column(heading, justify="right")
    stages = min(_STAGES_SHOWN, len(moments))
    bounds = [len(moments) * stage // stages for stage in range(stages + 1)]
    first_fps: float | None = None
    for begin, end in pairwise(bounds):
        part = moments[begin:end]
        fps = sum(moment.fps for moment in part) / len(part)
        first_fps = first_fps or fps
        heat = [moment.temperature_c for moment in part if moment.temperature_c is not None]
        clocks = [moment.cpu_mhz for moment in part if moment.cpu_mhz is not None]
        held_back = [moment.throttled for moment in part if moment.throttled is not None]
        table.add_row(
            f"{part[0].t_s:.0f}",
            three_digits(fps) if entry.is_timed else EMULATED,
            f"{fps / first_fps:.0%}" if first_fps else "-",
            f"{max(heat):.0f}" if heat else "-",
            f"{sum(clocks) / len(clocks):.0f}" if clocks else "-",
            ("yes" if any(held_back) else "no") if held_back else "-",
        )
    return table


# ------------------------------------------------------------------------------------------ cells


def _timed(cell: Callable[[BenchReport], str]) -> Callable[[Entry], str]:
    return lambda entry: cell(entry.report) if entry.is_timed else EMULATED


def _interval(entry: Entry) -> tuple[float, float] | None:
    return entry.report.p50_interval_ms


def _spread(report: BenchReport) -> str:
    if report.p50_interval_ms is None or not report.latency_ms.p50:
        return "-"
    if not report.stable:
        return "unstable"
    low, high = report.p50_interval_ms
    return f"{(high - low) / 2 / report.latency_ms.p50:.1%}"


def _recalls(entry: Entry) -> str:
    recalls = [figure.value(entry) for figure in RECALL.values()]
    if all(recall is None for recall in recalls):
        return "-"
    return "/".join("-" if r is None else f"{r:.2f}".removeprefix("0") for r in recalls)


def _power(entry: Entry) -> str:
    """Say in the first of the columns of power that there is no figure; the others have a dash."""
    return NOT_MEASURED if entry.report.power_w is None else _column(POWER).cell(entry)


# ------------------------------------------------------------------------------------------ notes


def _notes(lineup: Lineup) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for heading, text in _facts(lineup):
        grid.add_row(heading, Text(text))
    yield grid
    warnings = list(_warnings(lineup))
    if warnings:
        yield Text()
    for text in warnings:
        yield Text(text, style="yellow")


def _facts(lineup: Lineup) -> Iterator[tuple[str, str]]:
    reports = [entry.report for entry in lineup.entries]
    for text in _about_latency(lineup):
        yield "latency", text
    if any(report.p50_interval_ms for report in reports):
        yield (
            "±",
            (
                "where the p50 of another such run is expected, 19 times of 20, by the spread of "
                "the repeats; more than 5 % either way is called unstable"
            ),
        )
    for text in _best_threads(lineup):
        yield "threads", text
    for text in lineup.said(about_fp16):
        yield "precision", text
    for text in lineup.said(about_accuracy):
        yield "accuracy", text
    if any(report.n_images for report in reports):
        yield "recall", _about_recall(reports)
    if any(report.confidence_shift is not None for report in reports):
        yield (
            "score shift",
            (
                "mean score less the float parent's, of the boxes both find (same class, IoU above "
                "0.5, score above 0.25)"
            ),
        )
    for text in lineup.said(about_power):
        yield "power", text
    for text in lineup.said(_about_clocks):
        yield "clocks", text
    if not any(report.temperature_c is not None for report in reports):
        yield "heat", NOT_MEASURED
    for machine in lineup.machines:
        name = f"{machine}: " if len(lineup.machines) > 1 else ""
        yield "machine", f"{name}{lineup.about_machine(machine)}"
    engines = {
        f"{runtime_name(report)} {report.runtime_version}"
        for report in reports
        if report.runtime != "null"
    }
    others = [
        f"{name} {reports[0].versions[key]}"
        for key, name in (("opencv", "OpenCV"), ("numpy", "NumPy"), ("musgd", "musgd"))
        if key in reports[0].versions
    ]
    yield "versions", ", ".join([*sorted(engines), *others])


def _about_latency(lineup: Lineup) -> Iterator[str]:
    """Say how times came about, of each way once: on another board another program may time."""
    ways: dict[str, list[Entry]] = {}
    for entry in lineup.entries:
        ways.setdefault(_way_of_timing(entry.report), []).append(entry)
    for way, entries in ways.items():
        reports = [entry.report for entry in entries]
        repeats = _range([len(report.repeats) or 1 for report in reports])
        alone = reports[0].fps_end_to_end is None
        many = f"{repeats} fresh processes{'' if alone else ' in turns'}"
        processes = "a fresh process" if repeats == "1" else many
        harness = [report.harness_ms for report in reports if report.harness_ms is not None]
        loop = f"the loop itself adds {max(harness):.3f} ms a frame; " if harness else ""
        who = f" ({lineup.who(entries)})" if len(ways) > 1 else ""
        yield (
            f"{_range([report.n for report in reports])} inferences of batch 1 in {processes}, "
            f"{way}{_warmup(reports)}; {loop}memory is the whole process's{who}"
        )


def _way_of_timing(report: BenchReport) -> str:
    if report.fps_end_to_end is None:
        return timed_alone(report)
    images = count(report.n_frames, "image") if report.n_frames else "one image of noise"
    return f"each within a whole frame (letterbox, inference, decode) of {images}"


def _warmup(reports: Sequence[BenchReport]) -> str:
    seconds = [report.warmup_s or 0 for report in reports]
    shortest, longest = f"{min(seconds):.1f}", f"{max(seconds):.1f}"
    if reports[0].fps_end_to_end is not None:
        return f", after up to {longest} s of warm-up (until {SETTLED})"
    # What times a model alone warms up for as long as it was told to.
    told = longest if shortest == longest else f"{shortest} to {longest}"
    return f", after {told} s of warm-up"


def _about_recall(reports: Sequence[BenchReport]) -> str:
    scored = next(report for report in reports if report.n_images)
    sizes = (scored.n_small, scored.n_medium, scored.n_large)
    n = "/".join(map(str, sizes))
    return (
        f"of small, medium and large objects ({n}: under 32² px, under 96² px, the rest, in the "
        "original image), found at IoU 0.5 and any score from 0.001"
    )


def _about_clocks(report: BenchReport) -> str:
    facts = [
        _clock(report),
        None if report.gpu_mhz is None else f"GPU {report.gpu_mhz:.0f} MHz",
        f"governor {report.governor}" if report.governor else None,
        f"power mode {report.power_mode}" if report.power_mode else None,
    ]
    return ", ".join(fact for fact in facts if fact)


def _clock(report: BenchReport) -> str:
    """Name the fastest core's clock too where cores differ: few threads run at that one."""
    if report.cpu_mhz is None:
        return "frequency not told here"
    mean, highest = f"{report.cpu_mhz:.0f} MHz", report.cpu_mhz_highest or 0
    differ = highest > 1.01 * report.cpu_mhz
    return f"{mean}, mean of the cores, {highest:.0f} MHz the fastest" if differ else mean


def _best_threads(lineup: Lineup) -> Iterator[str]:
    """Tell for each model that was measured at several thread counts which is the fastest."""
    counts: dict[str, list[BenchReport]] = {}
    for entry in lineup.entries:
        if entry.is_timed:
            counts.setdefault(entry.report.artifact, []).append(entry.report)
    for artifact, reports in counts.items():
        if len({report.threads for report in reports}) > 1:
            best = max(reports, key=lambda report: report.frames_a_second)
            rates = ", ".join(f"{r.threads}: {three_digits(r.frames_a_second)}" for r in reports)
            yield (
                f"{PurePath(artifact).name} is fastest with {best.threads}; frames a second with "
                f"{rates}"
            )


def _warnings(lineup: Lineup) -> Iterator[str]:
    for entries, text in lineup.remarks():
        of = len(lineup.entries)
        who = f"all {of} rows" if len(entries) == of > 2 else "; ".join(e.name for e in entries)
        yield f"{who}: {text}"
    for figures, text in lineup.incomparable():
        yield f"{figures}: {text}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"
