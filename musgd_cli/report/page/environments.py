"""The foot of the page: every machine and every run in full, and what the words mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element

from musgd_cli.report.lineup import Entry, Lineup
from musgd_cli.report.page.markup import node, section
from musgd_cli.report.wording import (
    EMULATED,
    NOT_MEASURED,
    SETTLED,
    about_accuracy,
    about_power,
    count,
    runtime_name,
    three_digits,
    timed_alone,
)

if TYPE_CHECKING:
    from musgd_cli.records import BenchReport, Host


def environments(lineup: Lineup) -> Element:
    """Return every machine, and of every run all that decided its figures."""
    machines = [
        node("div", node("h3", name), facts(_machine_facts(hosts)), class_="card")
        for name, hosts in lineup.machines.items()
    ]
    runs = [
        node(
            "details",
            node("summary", node("b", entry.name), node("small", f" {entry.folder}")),
            facts(_run_facts(entry, updated=len(lineup.machines[entry.machine]) > 1)),
        )
        for entry in lineup.entries
    ]
    return section(
        "environments",
        "Where and how each was measured",
        node("div", machines, class_="machines"),
        node("div", runs, class_="runs"),
    )


def facts(rows: Iterable[tuple[str, str]]) -> Element:
    """Return names and what is told of them."""
    return node("dl", [node("div", node("dt", name), node("dd", text)) for name, text in rows])


def _machine_facts(hosts: Sequence[Host]) -> Iterator[tuple[str, str]]:
    """Yield each fact of a machine, with all its values where its reports differ in it."""
    of_each = [dict(host_facts(host)) for host in hosts]
    for fact in dict.fromkeys(name for facts in of_each for name in facts):
        known = dict.fromkeys(facts[fact] for facts in of_each if fact in facts)
        yield fact, "; ".join(known)


def host_facts(host: Host) -> Iterator[tuple[str, str]]:
    """Yield what a machine is."""
    yield "board", host.model or host.board
    yield "processor", _told(host.cpu)
    yield "cores", _told(host.cores)
    yield "features", _told(", ".join(host.cpu_features or ()) or None)
    yield "memory", _told(host.ram_mb, " MB")
    if host.gpu:
        yield "GPU", f"{host.gpu}{f', {host.gpu_memory_mb} MB' if host.gpu_memory_mb else ''}"
    yield "system", _system(host)
    userland = ", ".join(t for t in (host.arch, host.bits and f"{host.bits}-bit") if t)
    yield "userland", userland or _told(None)
    yield "container", _told(host.container)
    if host.emulated:
        yield "emulated", "yes: its speed is not the board's"
    yield "Python", _told(host.python)
    yield "power meters", ", ".join(host.power_meters) or "none found"


def _system(host: Host) -> str:
    parts = (
        host.os,
        host.kernel and f"Linux {host.kernel}",
        host.jetpack and f"JetPack {host.jetpack}",
    )
    return ", ".join(part for part in parts if part) or _told(None)


def _run_facts(entry: Entry, *, updated: bool) -> Iterator[tuple[str, str]]:
    report = entry.report
    yield "model", report.artifact
    yield "SHA-256", report.artifact_sha256
    if report.made_by:
        yield "made by", report.made_by
    yield "made for", report.target
    yield "gate", report.gate or "not held against its float parent"
    yield "machine", entry.machine
    if updated:
        yield "system", _system(report.host)
    yield "measured", _told(report.started)
    settings = "; ".join(f"{name} {value}" for name, value in report.engine.items())
    version = report.runtime_version or "version not told"
    yield "engine", f"{runtime_name(report)} {version}"
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
    if report.gpu_mhz is not None:
        yield "GPU clock", f"{report.gpu_mhz:.0f} MHz, mean"
    if report.gpu_memory_mb is not None:
        yield "GPU memory", f"{report.gpu_memory_mb:.0f} MB at most"
    yield "governor", _told(report.governor)
    if report.power_mode is not None:
        yield "power mode", report.power_mode
    yield (
        "heat",
        _told(
            None if report.temperature_c is None else f"{report.temperature_c:.1f}", " °C at most"
        ),
    )
    yield "throttled", _throttled(report)
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
    for stage, ms, when in (
        ("letterbox", report.pre_ms, "before"),
        ("decode", report.post_ms, "after"),
    ):
        yield stage, _told(None if ms is None else three_digits(ms), f" ms {when}, median")
    harness = None if report.harness_ms is None else f"{report.harness_ms:.3f}"
    yield "harness", _told(harness, " ms a frame")


def _timing(report: BenchReport) -> str:
    images = count(report.n_frames, "image") if report.n_frames else "one image of noise"
    seconds = "" if report.seconds is None else f" in {report.seconds:.1f} s"
    alone = report.fps_end_to_end is None
    how = timed_alone(report) if alone else f"each within a whole frame of {images}"
    return f"{count(report.n, 'inference')}{seconds}, {how}"


def _warmup(report: BenchReport) -> str:
    seconds = "" if report.warmup_s is None else f" in {report.warmup_s:.1f} s"
    # What times a model alone warms up for as long as it was told to.
    settled = (
        "settled when its time was up"
        if report.fps_end_to_end is None
        else "until latency had settled"
    )
    decided = settled if report.steady else "not settled when its time was up"
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


def _throttled(report: BenchReport) -> str:
    """Say whether clocks were held back and by what; under-voltage is told where they were not."""
    answer = {True: "clocks were held back", False: "no", None: NOT_MEASURED}[report.throttled]
    reasons = ", ".join(report.throttle_reasons)
    return f"{answer}: {reasons}" if reasons else answer


def _told(value: object, unit: str = "") -> str:
    return NOT_MEASURED if value is None else f"{value}{unit}"


# ------------------------------------------------------------------------------------------ method

_METHOD = {
    "latency": (
        "Wall time of one inference of batch 1, the engine alone, timed within a whole frame, or "
        "one after another where the model ran alone. p50, p90 and p99 are the times that 50, 90 "
        "and 99 % of the inferences stay within."
    ),
    "95 % interval": (
        "Where the p50 of another such run is expected 19 times of 20, by the spread of repeats in "
        "fresh processes. If it is wider than 10 %, the report is called unstable."
    ),
    "warm-up": (
        f"Frames until {SETTLED}, or until its longest time is up; for a fixed time where the "
        "model ran alone."
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
    "score shift": (
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
    return section("method", "What the words mean", facts(_METHOD.items()))
