"""Reports as one PNG, for a README or an issue: the charts of the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.errors import UsageError
from musgd_cli.installation import ExtraError
from musgd_cli.report.labels import Box, place, staircase_boxes
from musgd_cli.report.lineup import Entry, Lineup
from musgd_cli.report.look import CORNERS, color_of, is_wide
from musgd_cli.report.trade_off import Point, energy_points, fronts, latency_points
from musgd_cli.report.wording import NOT_MEASURED, three_digits
from musgd_cli.storage import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from musgd_cli.records import BenchReport

_GREY, _INK = "#666666", "#15181d"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.parse_math": False,  # a name with two $ is no formula
}

_DPI = 150


def draw(reports: Sequence[BenchReport], file: Path) -> None:
    """Draw reports into a PNG.

    Args:
        reports: At least one.
        file: Where it goes; what is there is replaced.

    Raises:
        UsageError: No report has a speed of its machine.
        UnsupportedError: matplotlib is not installed.
        MusgdError: The file could not be written.
    """
    figure = figure_of(reports)
    with whole_file(file) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)


def figure_of(reports: Sequence[BenchReport]) -> Figure:
    """Return the picture: the trade-offs, then latencies, then the courses of sustained runs.

    Args:
        reports: At least one.

    Raises:
        UsageError: No report has a speed of its machine.
        UnsupportedError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ExtraError("no picture is drawn: matplotlib is not installed", "report") from error

    lineup = Lineup(reports)
    timed = sorted(
        (entry for entry in lineup.entries if entry.has_model and entry.is_timed),
        key=lambda entry: entry.report.latency_ms.p50,
    )
    if not timed:
        raise UsageError(
            "no picture is drawn: no report has a speed of its machine", "use --html for the rest"
        )
    charts = _trade_offs(lineup)
    lasting = [entry for entry in timed if entry.report.sustained and entry.report.moments]
    heights = [3.8] * len(charts) + [0.8 + 0.44 * len(timed)] + [2.2] * (2 if lasting else 0)
    with mpl.rc_context(_STYLE):
        figure = Figure(
            figsize=(10, sum(heights) + 0.4 + 0.2 * len(lineup.machines)),
            dpi=_DPI,
            layout="constrained",
        )
        figure.suptitle(_title(lineup), x=0.01, ha="left", fontsize=11, fontweight="bold")
        panels = figure.subplots(
            len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        for panel, (title, points, cost) in zip(panels, charts, strict=False):
            _draw_trade_off(panel, title, points, cost)
        _draw_latencies(panels[len(charts)], timed)
        if lasting:
            _draw_course(panels[-2], panels[-1], lasting)
        # Names find their places once it is settled where the panels are.
        figure.draw_without_rendering()
        for panel, (_, points, _) in zip(panels, charts, strict=False):
            _write_names(panel, points, figure.dpi)
    return figure


def _title(lineup: Lineup) -> str:
    machines = [f"{name}: {lineup.about_machine(name)}" for name in lineup.machines]
    return "\n".join(["musgd bench", *machines])


def _trade_offs(lineup: Lineup) -> list[tuple[str, list[Point], str]]:
    charts = []
    for ground, entries in lineup.grounds.items():
        for title, points, cost in (
            ("accuracy against latency", latency_points(entries), "p50 of one inference, ms"),
            ("accuracy against energy", energy_points(entries), "energy of one frame, J"),
        ):
            if len(points) > 1:
                charts.append((f"{title}, {ground}", points, cost))
    return charts


def _draw_trade_off(panel: Axes, title: str, points: Sequence[Point], cost: str) -> None:
    for point in points:
        color = color_of(point.entry.report.runtime)
        panel.plot(
            point.cost,
            point.worth,
            marker=_marker(point.entry),
            markersize=7,
            color=color,
            markerfacecolor="white" if point.estimated else color,
            markeredgecolor=color if point.estimated else "white",
            zorder=3,
        )
    scale = _log_if_wide(panel, [point.cost for point in points])
    panel.margins(x=0.1, y=0.14)
    panel.autoscale_view()
    limits = panel.get_xlim()
    for point in points:
        if point.interval is not None:
            panel.plot(point.interval, [point.worth] * 2, color=_GREY, linewidth=1, alpha=0.6)
    for front in fronts(points).values():
        if front:
            costs = [*(point.cost for point in front), limits[1]]
            worths = [*(point.worth for point in front), front[-1].worth]
            panel.step(costs, worths, where="post", color=_INK, linestyle=":", linewidth=1.2)
    panel.set_xlim(limits)
    panel.set_title(title)
    panel.set_xlabel(f"{cost}{scale}")
    panel.set_ylabel("mAP50-95")
    notes = ["dotted: Pareto front"]
    notes += ["hollow: estimated"] if any(point.estimated for point in points) else []
    panel.set_title("; ".join(notes), loc="right", fontsize=8, fontweight="normal", color=_GREY)


def _marker(entry: Entry) -> Any:
    corners = CORNERS[entry.report.precision]
    return [(x, -y) for x, y in (*corners, corners[0])] if corners else "o"


def _write_names(panel: Axes, points: Sequence[Point], dpi: float) -> None:
    """Write each point's name beside it, those on a front first."""
    pixel = 96 / dpi

    def spot(cost: float, worth: float) -> tuple[float, float]:
        x, y = panel.transData.transform((cost, worth))
        return x * pixel, -y * pixel

    groups = fronts(points)
    on_front = {id(point) for front in groups.values() for point in front}
    ranked = sorted(points, key=lambda point: (id(point) not in on_front, point.cost))
    area = panel.get_window_extent()
    frame: Box = (area.x0 * pixel, area.x1 * pixel, -area.y1 * pixel, -area.y0 * pixel)
    spots = [spot(point.cost, point.worth) for point in ranked]
    lines: list[Box] = []
    for front in groups.values():
        if front:
            lines += staircase_boxes([spot(p.cost, p.worth) for p in front], frame[1])
    for point in ranked:
        low, high = (spot(end, point.worth) for end in point.interval or (point.cost,) * 2)
        lines.append((low[0], high[0], low[1] - 1, low[1] + 1))
    names = [(point.entry.name, point.entry.name_there) for point in ranked]
    for point, label in zip(ranked, place(names, spots, lines, frame), strict=True):
        if label is not None:
            panel.annotate(
                label.text,
                (point.cost, point.worth),
                xytext=(label.dx * 0.75, -label.dy * 0.75),
                textcoords="offset points",
                ha={"start": "left", "middle": "center", "end": "right"}[label.anchor],
                fontsize=8,
                fontweight="bold" if id(point) in on_front else "normal",
                color=_INK if id(point) in on_front else _GREY,
            )


def _draw_latencies(panel: Axes, entries: Sequence[Entry]) -> None:
    """Draw from the fastest inference to p99, marked at p50 and p90, one row an entry."""
    for row, entry in enumerate(entries):
        latency = entry.report.latency_ms
        color = color_of(entry.report.runtime)
        panel.plot((latency.min, latency.p99), (row, row), color=color, linewidth=5, alpha=0.3)
        panel.plot((latency.p50, latency.p90), (row, row), color=color, linewidth=5, alpha=0.6)
        panel.plot(latency.p50, row, marker="|", markersize=13, markeredgewidth=2, color=_INK)
        if entry.report.p50_interval_ms is not None:
            panel.plot(entry.report.p50_interval_ms, (row, row), color=_INK, linewidth=1.5)
        # Names within the panel leave the others as wide as it is.
        for text, at, align in (
            (entry.name, 0.005, "left"),
            (f"{three_digits(latency.p50)} ms", 0.995, "right"),
        ):
            panel.annotate(
                text,
                (at, row - 0.45),
                xycoords=("axes fraction", "data"),
                ha=align,
                va="center",
                fontsize=8,
            )
    panel.set_yticks([])
    panel.set_ylim(len(entries) - 0.5, -0.9)
    panel.grid(visible=False, axis="y")
    scale = _log_if_wide(
        panel, [v for e in entries for v in (e.report.latency_ms.min, e.report.latency_ms.p99)]
    )
    panel.set_title("latency: fastest to p99, darker p50 to p90, mark p50 and its 95 % interval")
    panel.set_xlabel(f"inference, ms{scale}")


def _draw_course(speed: Axes, heat: Axes, entries: Sequence[Entry]) -> None:
    for entry in entries:
        moments = entry.report.moments
        color = color_of(entry.report.runtime)
        at = [moment.t_s for moment in moments]
        speed.plot(at, [m.fps for m in moments], color=color, linewidth=1.2, label=entry.name)
        warmth = [float("nan") if m.temperature_c is None else m.temperature_c for m in moments]
        heat.plot(at, warmth, color=color, linewidth=1.2)
    speed.set_ylim(bottom=0)
    speed.set_title("whole frames a second through the run")
    speed.legend(loc="lower left")
    heat.set_title("temperature, °C")
    heat.set_xlabel("seconds since the first frame")
    if all(m.temperature_c is None for e in entries for m in e.report.moments):
        heat.text(0.5, 0.5, NOT_MEASURED, transform=heat.transAxes, ha="center")


def _log_if_wide(panel: Any, values: Sequence[float]) -> str:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    if not is_wide(values):
        return ""
    panel.set_xscale("log")
    ratio = max(values) / min(values)
    subs = (1, 2, 3, 5, 7) if ratio < 20 else (1, 3) if ratio < 1000 else (1,)
    panel.xaxis.set_major_locator(LogLocator(subs=subs))
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    return ", logarithmic"
