"""What is said of a bench's reports, wherever it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from musgd_cli.hardware.power import scope_in_words

if TYPE_CHECKING:
    from musgd_cli.records import BenchReport, Host

NOT_MEASURED = "not measured here"

EMULATED = "emulated"
"""Stands where a speed would: an emulator's says nothing of the board it plays."""

RUNTIME_NAMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
    "litert": "LiteRT",
    "tensorrt": "TensorRT",
    "null": "no model",
}

SETTLED = "three medians of half a second agree to 3 %"
"""When a warm-up ends."""


def runtime_name(report: BenchReport) -> str:
    """Return a runtime's name as its makers spell it."""
    return RUNTIME_NAMES.get(report.runtime, report.runtime)


def three_digits(value: float) -> str:
    """Return a figure with the digits that a measurement is good for."""
    size = abs(value)
    if 0 < size < 1:
        return f"{value:#.3g}"
    return f"{value:.{2 if size < 10 else 1 if size < 100 else 0}f}"


def from_to(interval: tuple[float, float]) -> str:
    """Return the two ends of an interval of times."""
    low, high = map(three_digits, interval)
    return f"{low} to {high}"


def share(value: float) -> str:
    """Return a figure between 0 and 1, such as mAP."""
    return f"{value:.3f}"


def count(n: int, thing: str) -> str:
    """Return a number and its noun, in the plural where it needs one."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


_ANY_NAME = ("data", "dataset")
"""What a tool calls every data set's file."""


def data_name(path: str) -> str:
    """Return what a data set is called: its file's name, with its folder's where any has that."""
    file = PurePath(path)
    return str(PurePath(*file.parts[-2:])) if file.stem in _ANY_NAME else file.name


def data_title(path: str) -> str:
    """Return a data set's name as a title has it, without the file's suffix."""
    file = PurePath(path)
    return file.parent.name or file.stem if file.stem in _ANY_NAME else file.stem


def machine_in_words(host: Host) -> str:
    """Return the processor, cores, system and container of a machine, as far as they are known."""
    container = host.container if host.container not in (None, "none") else None
    facts = (host.cpu or host.model, host.cores and count(host.cores, "core"), host.os, container)
    return ", ".join(str(fact) for fact in facts if fact)


def pace(reports: Sequence[BenchReport]) -> str:
    """Return what is counted of them each second."""
    alone = [report.fps_end_to_end is None for report in reports]
    if all(alone):
        return "inferences a second"
    return f"whole frames a second{', inferences where the model ran alone' if any(alone) else ''}"


# ------------------------------------------------------------------------------ how it came about


def about_fp16(report: BenchReport) -> str:
    """Say of a model whose layers may compute in FP16, or not, what is known; else nothing."""
    allowed = report.engine.get("fp16")
    return f"FP16 {allowed}" if allowed else ""


def timed_alone(report: BenchReport) -> str:
    """Say how a model was timed alone, in the words of what timed it, and not in whole frames."""
    by = report.engine.get("timed_by")
    return f"the model alone{f' by {by}' if by else ''}"


def about_accuracy(report: BenchReport) -> str:
    """Say on which images accuracy was scored, or why it was not."""
    if report.data is None or not report.n_images:
        return f"{NOT_MEASURED}: {report.accuracy_note or 'no image was scored'}"
    name = f"{data_name(report.data)}, {report.split}"
    left_out = f", {report.n_excluded} left out that calibrated a model"
    return f"{name}: {count(report.n_images, 'image')}{left_out if report.n_excluded else ''}"


def about_power(report: BenchReport) -> str:
    """Say which meter gave the figures of power and how, or why there is none."""
    if report.power_w is None:
        return f"{NOT_MEASURED}: {report.power_note or 'no meter gave a figure'}"
    rate = "" if report.power_hz is None else f", {report.power_hz:.3g} samples a second"
    scope = f", {scope_in_words(report.power_scope)}" if report.power_scope else ""
    return f"{report.power_kind} by {report.power_source}{scope}{rate}"


@dataclass(frozen=True)
class Remark:
    """What must be known before a report's figures are quoted."""

    flag: str
    """A word or two beside the row."""
    text: str
    """A clause that follows the report's name."""
    about: Literal["speed", "accuracy", "power"] = "speed"
    """Which of its figures."""
    of_several: str | None = None
    """The clause as it is true of several reports, without the figures of one."""


def remarks(report: BenchReport, *, emulated_speed: bool = False) -> tuple[Remark, ...]:
    """Return what could mislead in a report, gravest first.

    Args:
        report: Any.
        emulated_speed: An emulator's speed is shown beside it.
    """
    return tuple(_remarks(report, emulated_speed))


def _remarks(report: BenchReport, emulated_speed: bool) -> Iterator[Remark]:
    if report.host.emulated:
        yield Remark(
            EMULATED,
            "measured on an emulated machine: the speed shown is the emulator's, not the board's"
            if emulated_speed
            else "measured on an emulated machine: no speed is shown, for it would not be the "
            "board's",
        )
    if report.gate == "failed":
        yield Remark(
            "gate failed",
            "failed the gate against its float parent when it was exported",
            "accuracy",
        )
    if report.gate == "inconclusive":
        yield Remark(
            "gate unclear",
            "it was unclear whether it passes the gate against its float parent when it was "
            "exported",
            "accuracy",
        )
    if report.made_by is not None and report.precision in ("int8", "mixed-int8"):
        yield Remark(
            "calibration untold",
            f"{report.made_by} made it and does not say which images calibrated it: some may be "
            "among those that were scored",
            "accuracy",
            of_several="their maker does not say which images calibrated them: some may be among "
            "those that were scored",
        )
    reasons = ", ".join(report.throttle_reasons)
    if report.throttled:
        text = "the processor was throttled during the run"
        yield Remark("throttled", f"{text}: {reasons}" if reasons else text, of_several=text)
    elif reasons:
        # Under-voltage, which is all that is told of clocks that were not held back.
        yield Remark(reasons, f"{reasons} during the run, without a sign that it cost speed")
    if report.fps_end_to_end is None:
        yield Remark(
            "model alone",
            "letterbox and decode were not timed: its time, power and energy are of the model "
            "alone, and less than those of whole frames",
            of_several="letterbox and decode were not timed: their time, power and energy are of "
            "the model alone, and less than those of whole frames",
        )
    if not report.steady:
        yield Remark(
            "not settled",
            f"latency had not settled after {report.warmup_s or 0:.1f} s of warm-up",
            of_several="latency had not settled when the warm-up ended",
        )
    if report.stable is False and report.p50_interval_ms is not None:
        yield Remark(
            "unstable",
            f"another such run may find a p50 anywhere from {from_to(report.p50_interval_ms)} ms, "
            "which is more than 10 % wide",
            of_several="the 95 % interval of p50 is more than 10 % wide",
        )
    if report.is_disturbed:
        yield Remark(
            "busy machine",
            f"other processes used {report.cores_used_by_others:.2g} cores meanwhile",
            of_several="other processes were at work meanwhile",
        )
    if report.power_kind == "estimated":
        yield Remark("power estimated", "its power is estimated, not measured", "power")
