"""A training run as curves in a PNG. Reads the run's logs only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.errors import UsageError
from musgd_cli.installation import ExtraError
from musgd_cli.runs import RunFolder
from musgd_cli.storage import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from musgd_cli.records import EpochLog, StepLog

MAX_NORM = 10.0
"""Where Ultralytics clips the gradient's norm; the line in the plot."""

# Okabe and Ito's colours, told apart by the colour-blind too.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "savefig.dpi": 150,
}


def draw(run: RunFolder) -> list[Path]:
    """Draw a run's curves into its ``plots`` folder.

    Args:
        run: A run with at least one finished epoch.

    Returns:
        The PNGs that were written.

    Raises:
        UnsupportedError: matplotlib is not installed.
        UsageError: The run has no finished epoch.
        MusgdError: The file could not be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ExtraError("no curves are drawn: matplotlib is not installed", "report") from error

    epochs, steps = run.epochs(), run.steps()
    if not epochs:
        raise UsageError(f"the run {run.path} has no finished epoch", "train it first")
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 6.4), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True)
        figure.suptitle(_title(run, epochs), x=0.01, ha="left", fontsize=12)
        _draw_loss(panels[0, 0], epochs)
        _draw_accuracy(panels[0, 1], epochs)
        at = _positions(steps)
        _draw_steps(panels[0, 2], "loss of a step, as differentiated", at, steps, _loss_of)
        _draw_norm(panels[1, 0], at, steps)
        _draw_beta(panels[1, 1], at, steps)
        _draw_rate(panels[1, 2], at, steps)
        for panel in panels[1]:
            panel.set_xlabel("epoch")
        file = run.plots / "training.png"
        with whole_file(file) as temporary:
            figure.savefig(temporary, format="png")
    return [file]


def _title(run: RunFolder, epochs: Sequence[EpochLog]) -> str:
    best = max(epochs, key=lambda log: log.map50_95 or 0)
    return (
        f"{run.name}: {len(epochs)} epochs, best mAP50-95 {best.map50_95 or 0:.3f} "
        f"in epoch {best.epoch}"
    )


def _positions(steps: Sequence[StepLog]) -> list[float]:
    """Return where each step lies on the axis of epochs: the first epoch runs from 0 to 1."""
    of_epoch: dict[int, list[int]] = {}
    for step in steps:
        of_epoch.setdefault(step.epoch, []).append(step.step)
    return [
        step.epoch - 1 + (step.step - of_epoch[step.epoch][0] + 1) / len(of_epoch[step.epoch])
        for step in steps
    ]


def _loss_of(step: StepLog) -> float | None:
    return step.loss


def _draw_loss(panel: Axes, epochs: Sequence[EpochLog]) -> None:
    at = [log.epoch for log in epochs]
    train = [sum(log.losses.values()) for log in epochs]
    val = [sum(log.val_losses.values()) for log in epochs]
    panel.plot(at, train, color=_BLUE, marker="o", markersize=3, label="train")
    panel.plot(at, val, color=_ORANGE, marker="o", markersize=3, label="val")
    _log_if_wide(panel, [*train, *val])
    panel.set_title("loss of an epoch, all parts")
    panel.legend()


def _draw_accuracy(panel: Axes, epochs: Sequence[EpochLog]) -> None:
    at = [log.epoch for log in epochs]
    for color, label, values in (
        (_BLUE, "mAP50", [log.map50 for log in epochs]),
        (_GREEN, "mAP50-95", [log.map50_95 for log in epochs]),
    ):
        known = [float("nan") if value is None else value for value in values]
        panel.plot(at, known, color=color, marker="o", markersize=3, label=label)
    panel.set_ylim(0, 1)
    panel.set_title("accuracy on val")
    panel.legend(loc="lower right")


def _draw_norm(panel: Axes, at: Sequence[float], steps: Sequence[StepLog]) -> None:
    _draw_steps(panel, "gradient norm before the clip", at, steps, lambda step: step.grad_norm)
    panel.set_yscale("log")
    _plain_log_ticks(panel)
    panel.axhline(MAX_NORM, color=_ORANGE, linestyle="--", linewidth=1.2, label="clip")
    panel.legend(loc="upper right")


def _draw_beta(panel: Axes, at: Sequence[float], steps: Sequence[StepLog]) -> None:
    _draw_steps(panel, "beta, the momentum used", at, steps, lambda step: step.beta)
    if all(step.beta is None for step in steps):
        panel.text(0.5, 0.5, "this optimizer has none", transform=panel.transAxes, ha="center")
        panel.set_yticks([])


def _draw_rate(panel: Axes, at: Sequence[float], steps: Sequence[StepLog]) -> None:
    panel.plot(at, [step.lr for step in steps], color=_BLUE)
    panel.set_ylim(bottom=0)
    panel.set_title("learning rate")


def _draw_steps(
    panel: Axes,
    title: str,
    at: Sequence[float],
    steps: Sequence[StepLog],
    value_of: Callable[[StepLog], float | None],
) -> None:
    """Draw a value of each step faintly, and its moving mean over half an epoch boldly."""
    points = [
        (x, value)
        for x, step in zip(at, steps, strict=True)
        if (value := value_of(step)) is not None
    ]
    xs, values = [x for x, _ in points], [value for _, value in points]
    panel.plot(xs, values, color=_GREY, linewidth=0.7, alpha=0.7)
    panel.plot(xs, _smooth(values, round(len(steps) / max(at, default=1) / 2)), color=_BLUE)
    panel.set_title(title)


def _smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the ``window`` values around each, of fewer towards the ends."""
    half = window // 2
    sums = [0.0, *accumulate(values)]
    ends = [(max(i - half, 0), min(i + half + 1, len(values))) for i in range(len(values))]
    return [(sums[end] - sums[begin]) / (end - begin) for begin, end in ends]


def _log_if_wide(panel: Axes, values: Sequence[float]) -> None:
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 8 * min(positive):
        panel.set_yscale("log")
        _plain_log_ticks(panel)


def _plain_log_ticks(panel: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
