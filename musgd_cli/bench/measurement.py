"""Measure one model at one thread count: repeats in fresh processes, watched from this one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from statistics import fmean, median
from typing import Any

from musgd_cli import __version__
from musgd_cli.bench import process
from musgd_cli.bench.clock import FEWEST_FRAMES, latency
from musgd_cli.bench.images import Images
from musgd_cli.bench.interval import is_stable, prediction_interval
from musgd_cli.bench.messages import Accuracy, ScoringTask, Timing, TimingTask
from musgd_cli.bench.process import OnProgress, Progress
from musgd_cli.bench.subject import Subject
from musgd_cli.bench.watch import Watch
from musgd_cli.hardware.power import PowerMeter
from musgd_cli.hardware.thermal import Device
from musgd_cli.records import BenchReport, BenchSettings, Host, PowerReading, Repeat


def device_of(runtime: str) -> Device:
    """Return what an engine computes on."""
    return "gpu" if runtime == "tensorrt" else "cpu"


# --------------------------------------------------------------------------------------- accuracy


@dataclass(frozen=True)
class Shift:
    """How a model's scores differ from its float parent's, over the boxes that both find."""

    mean: float | None
    n_boxes: int


def score(
    subject: Subject, images: Images, *, threads: int, on_progress: OnProgress
) -> Accuracy | str:
    """Score a model in a process of its own, or say why that cannot be.

    Raises:
        UnsupportedError: The model's runtime is not installed here.
        MusgdError: The model, an image or its labels are damaged, or the process died.
    """
    if images.data_set is None or images.why_none is not None:
        return images.why_none or "no data set"
    task = ScoringTask(
        folder=str(subject.folder),
        artifact=subject.artifact,
        threads=threads,
        data=str(images.data_set.path),
        images=tuple(map(str, images.scored)),
    )
    return process.score(task, on_progress)


def shift(parent: Accuracy, model: Accuracy) -> Shift:
    """Compare the scores of the boxes that a model and its parent both find."""
    import numpy as np

    from musgd_cli.bench.pairs import pair_boxes

    theirs, ours = (
        [np.array(boxes, np.float32).reshape(-1, 6) for boxes in accuracy.boxes]
        for accuracy in (parent, model)
    )
    pairs = pair_boxes(theirs, ours)
    return Shift(pairs.confidence_shift, int(pairs.n.sum()))


# ------------------------------------------------------------------------------------ measurement


class Measurement:
    """A model at one thread count, timed repeat by repeat.

    Args:
        subject: The model.
        images: What it is timed on; see :class:`Images`.
        threads: Of the engine.
        settings: Seconds of timing, shared by the repeats; how many; seconds of warm-up.
        frames: Time so many frames in all, in place of ``settings.duration_s``.
        meter: Measures the energy of the timed frames.
        sustained: The report is about how speed lasts.
    """

    def __init__(
        self,
        subject: Subject,
        images: Images,
        *,
        threads: int,
        settings: BenchSettings,
        frames: int | None = None,
        meter: PowerMeter | None = None,
        sustained: bool = False,
    ) -> None:
        self.subject = subject
        self.images = images
        self.threads = threads
        self._repeats = settings.repeats
        self._meter = meter
        self._sustained = sustained
        self._watch = Watch(device_of(subject.artifact.runtime), meter)
        self._timings: list[Timing] = []
        self._task = TimingTask(
            folder=str(subject.folder),
            artifact=subject.artifact,
            threads=threads,
            duration_s=0 if frames else settings.duration_s / settings.repeats,
            least_frames=math.ceil(frames / settings.repeats) if frames else FEWEST_FRAMES,
            warmup_s=None if sustained else settings.warmup_s or None,
            frames=tuple(map(str, images.timed)),
        )

    def repeat(self, on_progress: OnProgress) -> None:
        """Time it in a fresh process once more.

        Raises:
            UnsupportedError: The model's runtime is not installed here.
            MusgdError: The model or an image is damaged, or the process died.
        """
        number = len(self._timings) + 1

        def tell(progress: Progress, /) -> None:
            on_progress(
                replace(progress, threads=self.threads, repeat=number, repeats=self._repeats)
            )

        self._timings.append(process.time_frames(self._task, self._watch, tell))

    def report(
        self,
        host: Host,
        *,
        idle: PowerReading | None = None,
        accuracy: Accuracy | str,
        parent: Shift | None = None,
        why_no_power: str | None = None,
    ) -> BenchReport:
        """Sum up all repeats.

        Args:
            host: This machine.
            idle: What the meter read at rest.
            accuracy: On the images' scored ones, or why there is none.
            parent: The shift of its scores against its float parent's.
            why_no_power: Said where there is no meter.
        """
        artifact, images, timings, watch = (
            self.subject.artifact,
            self.images,
            self._timings,
            self._watch,
        )
        samples = tuple(chain.from_iterable(timing.infer_ms for timing in timings))
        pre, post = (
            tuple(chain.from_iterable(getattr(timing, stage) for timing in timings))
            for stage in ("pre_ms", "post_ms")
        )
        whole = tuple(round(sum(stages), 4) for stages in zip(pre, samples, post, strict=True))
        seconds = sum(timing.seconds for timing in timings)
        figures = latency(samples)
        medians = [median(timing.infer_ms) for timing in timings]
        interval = prediction_interval(figures.p50, medians)
        first = timings[0]
        memory = [t.peak_memory_mb for t in timings if t.peak_memory_mb is not None]
        cpu_s = sum(timing.cpu_s for timing in timings)
        fps_end_to_end = 1000 / fmean(whole)
        return BenchReport(
            artifact=str(self.subject.path),
            artifact_sha256=artifact.sha256,
            parent_sha256=artifact.parent_sha256,
            target=artifact.target,
            gate=artifact.gate.verdict if artifact.gate else None,
            made_by=self.subject.made_by,
            runtime=artifact.runtime,
            runtime_version=first.runtime_version,
            precision=artifact.precision,
            imgsz=artifact.imgsz,
            names=artifact.names,
            size_mb=artifact.size_mb,
            host=host,
            started=datetime.fromtimestamp(first.began, UTC).isoformat(timespec="seconds"),
            data=None if images.data_set is None else str(images.data_set.path),
            split=None if images.data_set is None else images.data_set.score_split,
            n_images=0 if isinstance(accuracy, str) else len(images.scored),
            n_excluded=images.n_excluded,
            threads=self.threads,
            n=len(samples),
            warmup=sum(timing.warmup for timing in timings),
            warmup_s=max(timing.warmup_s for timing in timings),
            steady=all(timing.steady for timing in timings),
            seconds=seconds,
            n_frames=first.n_frames,
            sustained=self._sustained,
            repeats=tuple(map(_repeat, timings)),
            latency_ms=figures,
            p50_interval_ms=interval,
            stable=None if interval is None else is_stable(figures.p50, interval),
            samples_ms=samples,
            frame_samples_ms=whole,
            fps=1000 / fmean(samples),
            fps_end_to_end=fps_end_to_end,
            pre_ms=median(pre),
            post_ms=median(post),
            harness_ms=median(timing.harness_ms for timing in timings),
            load_ms=median(timing.load_ms for timing in timings),
            first_inference_ms=median(timing.first_inference_ms for timing in timings),
            peak_memory_mb=max(memory, default=None),
            gpu_memory_mb=watch.gpu_memory_mb,
            temperature_c=watch.temperature_c,
            throttled=watch.throttled,
            throttle_reasons=watch.throttle_reasons,
            cpu_mhz=watch.cpu_mhz,
            cpu_mhz_highest=watch.cpu_mhz_highest,
            gpu_mhz=watch.gpu_mhz,
            governor=watch.governor,
            power_mode=watch.power_mode,
            cores_used=cpu_s / seconds,
            cores_used_by_others=(
                None if watch.busy_s is None else max(0.0, watch.busy_s - cpu_s) / seconds
            ),
            moments=tuple(
                watch.moment(
                    timing.began + middle_s, timing.began - first.began + middle_s, fps=rate
                )
                for timing in timings
                for middle_s, rate in timing.pace
            ),
            engine=first.engine,
            versions={
                "musgd": __version__,
                artifact.runtime: first.runtime_version,
                **first.versions,
            },
            **self._power(idle, why_no_power, seconds, fps_end_to_end),
            **_accuracy(accuracy, parent),
        )

    def _power(
        self, idle: PowerReading | None, why_none: str | None, seconds: float, fps: float
    ) -> dict[str, Any]:
        reading = self._watch.power
        if reading is None:
            died = (
                f"the meter {self._meter.source} died in the run, or is too slow for its repeats"
                if self._meter
                else why_none
            )
            return {
                "power_w": None,
                "energy_per_frame_j": None,
                "power_source": None,
                "power_kind": None,
                "power_note": died,
            }
        frame_s = seconds / sum(len(timing.infer_ms) for timing in self._timings)
        return power_figures(
            reading, idle_w=idle.power_w if idle is not None else None, frame_s=frame_s, fps=fps
        )


def power_figures(
    reading: PowerReading, *, idle_w: float | None, frame_s: float, fps: float | None
) -> dict[str, Any]:
    """Return the fields of a report that a meter's reading gives.

    Args:
        reading: Over the timed frames.
        idle_w: Of the same meter at rest.
        frame_s: Seconds a frame took, the loop included.
        fps: Whole frames a second; ``None`` where the model alone was timed.
    """
    return {
        "power_w": reading.power_w,
        "idle_w": idle_w,
        "energy_per_frame_j": reading.power_w * frame_s,
        "net_energy_per_frame_j": None if idle_w is None else (reading.power_w - idle_w) * frame_s,
        "fps_per_watt": None if fps is None else fps / reading.power_w,
        "power_source": reading.source,
        "power_scope": reading.scope,
        "power_kind": reading.kind,
        "power_hz": reading.hz,
        "power_s": reading.seconds,
        "power_note": None,
    }


def _repeat(timing: Timing) -> Repeat:
    return Repeat(
        began=timing.began,
        seconds=timing.seconds,
        n=len(timing.infer_ms),
        p50_ms=median(timing.infer_ms),
        load_ms=timing.load_ms,
        first_inference_ms=timing.first_inference_ms,
        warmup=timing.warmup,
        warmup_s=timing.warmup_s,
        steady=timing.steady,
    )


def _accuracy(found: Accuracy | str, parent: Shift | None) -> dict[str, Any]:
    if isinstance(found, str):
        none = dict.fromkeys(("map50_95", "map50", "recall_small"))
        return {**none, "n_small": 0, "accuracy_note": found}
    sizes = {"small": found.small, "medium": found.medium, "large": found.large}
    return {
        "map50_95": found.map50_95,
        "map50": found.map50,
        "ap50_95": found.ap50_95,
        "ap50": found.ap50,
        **{f"recall_{size}": recall.share for size, recall in sizes.items()},
        **{f"n_{size}": recall.n for size, recall in sizes.items()},
        "confidence_shift": parent.mean if parent is not None else None,
        "n_shared_boxes": parent.n_boxes if parent is not None else 0,
    }
