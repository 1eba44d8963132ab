"""The page of an optimizer comparison: curves, targets, sweeps and how it was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from musgd_cli.report.comparing import (
    cautions,
    conditions,
    role_text,
    target_title,
)
from musgd_cli.report.look import COLORS, style_sheet
from musgd_cli.report.page.charts import WIDE, at_both_widths, canvas, grid, text_at
from musgd_cli.report.page.environments import facts, host_facts
from musgd_cli.report.page.markup import document, node, section
from musgd_cli.report.page.scales import Scale, spanning
from musgd_cli.report.page.table import sortable
from musgd_cli.report.wording import count, data_title

if TYPE_CHECKING:
    from musgd_cli.records import (
        ComparisonTarget,
        ContenderResult,
        CurvePoint,
        OptimizerComparison,
        Spread,
    )

_Figure = Callable[["CurvePoint"], float | None]

_CURVES: Mapping[str, _Figure] = {
    "train loss": lambda point: point.train_loss,
    "val loss": lambda point: point.val_loss,
    "mAP50": lambda point: point.map50,
}

_SHOWN = 0.85
"""Share of the losses, from the lowest, that their axis holds."""

_HUES = tuple(name for name in COLORS if name != "grey")

_DASHES = ("", "6 4", "2 3")
"""Of the lines, each time the colours begin anew."""


def render(result: OptimizerComparison) -> str:
    """Return the page of a finished comparison."""
    from musgd_cli import __version__

    title = f"Optimizers on {data_title(result.data or 'no data')}"
    looks = _looks(result)
    own = files("musgd_cli.report.page")
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("meta", name="generator", content=f"musgd {__version__}"),
        node("title", f"{title} · musgd compare"),
        node("style", style_sheet(), "\n", own.joinpath("page.css").read_text("utf-8")),
    )
    body = node(
        "body",
        node(
            "header",
            node("p", "musgd compare", class_="eyebrow"),
            node("h1", title),
            node("p", _in_short(result), class_="facts"),
        ),
        node(
            "main",
            _warnings(result),
            _curves(result, looks),
            _targets(result, looks),
            _ends(result, looks),
            _sweeps(result, looks),
            _conditions(result),
        ),
        node("footer", node("p", f"Made by musgd {__version__} from {result.run}/compare.json.")),
        node("script", own.joinpath("page.js").read_text("utf-8")),
    )
    return document(node("html", head, body, lang="en"))


def _in_short(result: OptimizerComparison) -> str:
    settings = result.request.settings
    return " · ".join(
        (
            count(len(result.contenders), "optimizer"),
            count(result.request.seeds, "seed"),
            count(settings["train.epochs"], "epoch"),
            f"{settings['train.imgsz']} px",
            f"batch {settings['train.batch']}",
            str(settings["train.model"]),
        )
    )


def _warnings(result: OptimizerComparison) -> Element | None:
    lines = list(cautions(result))
    if not lines:
        return None
    return node(
        "section",
        node("h2", "Read with care"),
        node("ul", [node("li", line) for line in lines]),
        class_="warnings",
    )


# ----------------------------------------------------------------------------------------- curves


class _Look:
    """A contender's line: its colour and its dashes."""

    def __init__(self, at: int) -> None:
        self.style = f"--hue: var(--{_HUES[at % len(_HUES)]})"
        self.dash = _DASHES[at // len(_HUES) % len(_DASHES)] or None

    def swatch(self) -> Element:
        line = node("line", x1=0, x2=22, y1=8, y2=8, class_="run", stroke_dasharray=self.dash)
        return node("svg", line, viewBox="0 0 22 16", aria_hidden="true", style=self.style)


def _looks(result: OptimizerComparison) -> dict[str, _Look]:
    return {contender.optimizer: _Look(at) for at, contender in enumerate(result.contenders)}


def _curves(result: OptimizerComparison, looks: Mapping[str, _Look]) -> Element:
    legend = [
        node("li", looks[contender.optimizer].swatch(), _name_with_rate(contender))
        for contender in result.contenders
    ]
    plots = [
        node(
            "figure",
            node("figcaption", node("b", name), _about_curve(name)),
            at_both_widths(lambda width, n=name, f=figure: _plot(result, looks, n, f, width)),  # type: ignore[misc]
        )
        for name, figure in _CURVES.items()
        if any(figure(p) is not None for c in result.contenders for r in c.runs for p in r.curve)
    ]
    return section(
        "curves",
        "Curves",
        node(
            "p",
            "Bold: the median over the seeds. Thin: each seed. Dotted across: the targets.",
            class_="lede",
        ),
        node("ul", legend, class_="legend lines"),
        node("div", plots, class_="courses lasting"),
    )


def _about_curve(name: str) -> str:
    if name == "train loss":
        return "mean of each epoch, drawn at its end; the highest are cut off"
    if name == "val loss":
        return "of the averaged weights, at the end of each epoch; the highest are cut off"
    return "on val, at the end of each epoch"


def _name_with_rate(contender: ContenderResult) -> str:
    # Where one is typed, it may have been the centre of a sweep that chose another.
    if contender.lr is None or contender.optimizer.endswith(f":lr={contender.lr:g}"):
        return contender.optimizer
    return f"{contender.optimizer}, lr {contender.lr:g}"


def _plot(
    result: OptimizerComparison,
    looks: Mapping[str, _Look],
    name: str,
    figure: _Figure,
    width: int,
) -> Element:
    height = 400 if width >= WIDE else 300
    left, right, top, bottom = 52, width - 16, 12, height - 46
    targets = [target for target in result.targets if target.figure == name]
    values = _shown_values(result, figure, name)
    steps = [p.step for c in result.contenders for r in c.runs for p in r.curve]
    x = spanning([0.0, *steps], left, right, margin=0.0)
    y = spanning([*values, *(t.value for t in targets)], bottom, top, margin=0.05)
    svg = canvas(width, height, f"{name} over steps")
    svg.extend(grid(x, y, about=(9 if width >= WIDE else 5, 6)))
    svg.append(text_at((left + right) / 2, height - 8, "optimizer steps", anchor="middle"))
    for target in targets:
        at = y(target.value)
        title = node("title", target_title(target))
        line = node("line", x1=left, x2=right, y1=at, y2=at, class_="target")
        svg.append(node("g", title, line))
    drawn = list(reversed(result.contenders))  # the baseline on top
    for contender in drawn if result.request.seeds > 1 else ():
        for run in contender.runs:
            svg.append(_line(_points(run.curve, figure), x, y, looks[contender.optimizer], "thin"))
    for contender in drawn:
        points = _median([run.curve for run in contender.runs], figure)
        if points:
            line = _line(points, x, y, looks[contender.optimizer], "median")
            about = f"{_name_with_rate(contender)}\n{name} {points[-1][1]:.3f} at last"
            line.append(node("title", about))
            svg.append(line)
    return svg


def _line(
    points: Sequence[tuple[float, float]], x: Scale, y: Scale, look: _Look, kind: str
) -> Element:
    path = " ".join(f"{x(step):.1f},{y.within(value):.1f}" for step, value in points)
    dash = look.dash
    return node(
        "polyline", points=path, class_=f"run {kind}", style=look.style, stroke_dasharray=dash
    )


def _shown_values(result: OptimizerComparison, figure: _Figure, name: str) -> list[float]:
    """Return what an axis must hold: the losses of a warm-up would squeeze all else."""
    values = sorted(
        value
        for contender in result.contenders
        for run in contender.runs
        for point in run.curve
        if (value := figure(point)) is not None
    )
    return values if name == "mAP50" else values[: math.ceil(len(values) * _SHOWN)]


def _points(curve: Sequence[CurvePoint], figure: _Figure) -> list[tuple[float, float]]:
    return [(point.step, v) for point in curve if (v := figure(point)) is not None]


def _median(curves: Sequence[Sequence[CurvePoint]], figure: _Figure) -> list[tuple[float, float]]:
    """Return the median at each end of an epoch that all curves have."""
    found = []
    for ends in zip(*curves, strict=False):
        values = [v for point in ends if (v := figure(point)) is not None]
        if len(values) == len(ends):
            found.append((statistics.median(p.step for p in ends), statistics.median(values)))
    return found


# ----------------------------------------------------------------------------------------- tables


def _head(*names: tuple[str, str]) -> list[Element]:
    return [
        node("th", node("span", name, *((" ", node("small", below)) if below else ())), scope="col")
        for name, below in names
    ]


def _row_name(contender: ContenderResult, looks: Mapping[str, _Look]) -> Element:
    return node(
        "th",
        node("span", looks[contender.optimizer].swatch(), contender.optimizer, class_="name"),
        node("small", role_text(contender), class_="folder") if role_text(contender) else None,
        scope="row",
        data_key=contender.optimizer,
    )


def _cell(text: str, key: float | None, below: str = "", *, lead: bool = False) -> Element:
    return node(
        "td",
        text,
        (" ", node("small", below)) if below else None,
        data_key=None if key is None else repr(key),
        class_="lead" if lead else "absent" if key is None else None,
    )


def _spread_cell(spread: Spread | None, digits: int, *, missing: str = "-") -> Element:
    if spread is None:
        return _cell(missing, None)
    below = f"{spread.low:.{digits}f} to {spread.high:.{digits}f}" if spread.n > 1 else ""
    return _cell(f"{spread.median:.{digits}f}", spread.median, below)


def _targets(result: OptimizerComparison, looks: Mapping[str, _Look]) -> Element | None:
    if not result.targets:
        return None
    parts = [_target_table(result, looks, at, target) for at, target in enumerate(result.targets)]
    return section(
        "targets",
        "Steps and seconds to a target",
        node(
            "p",
            "Linear between the ends of epochs; the first time counts. The ratio is that to the "
            f"steps of {result.contenders[0].optimizer} with the same seed.",
            class_="lede",
        ),
        *parts,
    )


def _target_table(
    result: OptimizerComparison,
    looks: Mapping[str, _Look],
    at: int,
    target: ComparisonTarget,
) -> Element:
    head = _head(
        ("optimizer", ""),
        ("reached", "runs"),
        ("steps", "median"),
        ("ratio", "median"),
        ("seconds", "median"),
    )
    rows = []
    for contender in result.contenders:
        outcome = contender.targets[at]
        rows.append(
            node(
                "tr",
                _row_name(contender, looks),
                _cell(f"{outcome.reached} of {outcome.of}", float(outcome.reached)),
                _spread_cell(outcome.steps, 0),
                _spread_cell(outcome.steps_ratio, 2),
                _spread_cell(outcome.seconds, 0),
            )
        )
    title = target_title(target)
    why = None if target.given else f"{target.why}, the median over its seeds"
    return node(
        "div",
        node("h3", title, *((" ", node("small", why)) if why else ())),
        sortable(f"Steps to {title}", "figures", head, rows),
        class_="target-table",
    )


def _ends(result: OptimizerComparison, looks: Mapping[str, _Look]) -> Element:
    side_by_side = f", {result.jobs} jobs side by side" if result.jobs > 1 else ""
    head = _head(
        ("optimizer", ""),
        ("lr", ""),
        ("train loss", "last"),
        ("val loss", "last"),
        ("mAP50", "last"),
        ("mAP50-95", "last"),
        ("mAP50", "best"),
        ("mAP50-95", "best"),
        ("optimizer step", f"ms{side_by_side}"),
        ("training", f"s{side_by_side}"),
        ("state", "bytes"),
        ("peak memory", "MB"),
    )
    rows = [
        node(
            "tr",
            _row_name(contender, looks),
            _cell("-" if contender.lr is None else f"{contender.lr:g}", contender.lr),
            _spread_cell(contender.last_train_loss, 3),
            _spread_cell(contender.last_val_loss, 3),
            _spread_cell(contender.last_map50, 3),
            _spread_cell(contender.last_map50_95, 3),
            _spread_cell(contender.best_map50, 3),
            _spread_cell(contender.best_map50_95, 3),
            _spread_cell(contender.optimizer_ms, 2),
            _spread_cell(contender.seconds, 0),
            _cell(
                "-"
                if contender.optimizer_state_bytes is None
                else f"{contender.optimizer_state_bytes:,}",
                contender.optimizer_state_bytes,
            ),
            _spread_cell(contender.peak_memory_mb, 0),
        )
        for contender in result.contenders
    ]
    return section(
        "ends",
        "What the runs came to",
        node(
            "p",
            "Median over the seeds, lowest to highest below. Best: of any epoch, chosen by the "
            "very images it is scored on.",
            class_="lede",
        ),
        sortable("What the runs came to", "figures", head, rows),
    )


def _sweeps(result: OptimizerComparison, looks: Mapping[str, _Look]) -> Element | None:
    swept = [contender for contender in result.contenders if contender.sweep]
    if not swept:
        return None
    head = _head(
        ("optimizer", ""),
        ("lr", ""),
        ("val loss", "last"),
        ("train loss", "last"),
        ("mAP50", "last"),
    )
    rows = []
    for contender in swept:
        for rate in contender.sweep:
            won = rate.lr == contender.lr
            flag = node("span", "chosen", class_="flag") if won else None
            loss = "diverged" if rate.diverged else _plain(rate.val_loss)
            rows.append(
                node(
                    "tr",
                    _row_name(contender, looks),
                    node("td", flag, " ", f"{rate.lr:g}", data_key=repr(rate.lr)),
                    _cell(loss, rate.val_loss, lead=won),
                    _cell(_plain(rate.train_loss), rate.train_loss),
                    _cell(_plain(rate.map50), rate.map50),
                )
            )
    edges = [contender.optimizer for contender in swept if contender.at_edge]
    text = (
        f"Three rates each on seed {result.sweep_seed}, which is not scored; the lowest "
        "validation loss of the last epoch is chosen."
    )
    if edges:
        text += " The first or last of its sweep, so that a better rate may lie beyond: "
        text += f"{', '.join(edges)}."
    return section(
        "sweeps",
        "Learning rates",
        node("p", text, class_="lede"),
        sortable("Learning rates", "figures", head, rows),
    )


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _conditions(result: OptimizerComparison) -> Element:
    settings = [
        (key, "not given" if value is None else str(value))
        for key, value in result.request.settings.items()
    ]
    versions = [(name, version) for name, version in result.versions.items()]
    how = [
        ("optimizers", ", ".join(result.request.optimizers)),
        ("seeds", ", ".join(map(str, range(result.request.seeds)))),
        ("jobs", str(result.jobs)),
        ("device", result.device or "not told"),
        ("threads", str(result.threads or "not told")),
    ]
    own = [
        (
            contender.optimizer,
            ", ".join(f"{key} {value}" for key, value in contender.settings.items()),
        )
        for contender in result.contenders
    ]
    machine = list(host_facts(result.host)) if result.host else []
    return section(
        "conditions",
        "How it was measured",
        node("ul", [node("li", line) for line in conditions(result)], class_="notes"),
        node(
            "div",
            _folded("This comparison", [*how, *settings], True),
            _folded("Each optimizer's settings", own, False),
            _folded("Machine and versions", [*machine, *versions], False),
            class_="runs",
        ),
    )


def _folded(title: str, rows: Sequence[tuple[str, str]], is_open: bool) -> Element:
    return node(
        "details",
        node("summary", node("b", title)),
        facts(rows),
        open="" if is_open else None,
    )
