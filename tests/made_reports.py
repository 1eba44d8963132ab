"""Reports as a bench would make them, with what a test is about chosen."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from musgd_cli.bench.clock import latency
from musgd_cli.records import BenchReport, Host, Repeat

HOST = Host(board="pi4b", cpu="Cortex-A72", cores=4, ram_mb=3792, arch="aarch64", os="Debian 12")
FRAME_MS = 1.0
"""What letterbox and decode take of every frame."""


def report(
    medians_ms: Sequence[float] = (20.0, 20.2, 19.8, 20.1, 19.9), **fields: Any
) -> BenchReport:
    """A report of one repeat a median, each with samples around it."""
    slices = [[m * (1 + 0.01 * (i - 10) / 10) for i in range(21)] for m in medians_ms]
    samples = tuple(value for one in slices for value in one)
    repeats = tuple(
        Repeat(
            began=1000.0 + 10 * i,
            seconds=sum(one) / 1000,
            n=len(one),
            p50_ms=medians_ms[i],
            load_ms=100 + i,
            first_inference_ms=60 + i,
            warmup=20,
            warmup_s=2.0,
            steady=True,
        )
        for i, one in enumerate(slices)
    )
    frames = tuple(value + FRAME_MS for value in samples)
    known: dict[str, Any] = {
        "artifact": "runs/a/artifacts/pi4b-ncnn-int8-320",
        "artifact_sha256": "a" * 64,
        "target": "pi4b",
        "runtime": "ncnn",
        "runtime_version": "1.0",
        "precision": "int8",
        "imgsz": 320,
        "names": ("red", "green", "blue"),
        "host": HOST,
        "data": "/data/squares/squares.yaml",
        "split": "val",
        "n_images": 40,
        "threads": 4,
        "n": len(samples),
        "warmup": 100,
        "steady": True,
        "latency_ms": latency(samples),
        "repeats": repeats,
        "samples_ms": samples,
        "frame_samples_ms": frames,
        "fps": 1000 / fmean(samples),
        "fps_end_to_end": 1000 / fmean(frames),
        "pre_ms": 0.6,
        "post_ms": 0.4,
        "peak_memory_mb": 120.0,
        "map50_95": 0.55,
        "map50": 0.8,
        "ap50_95": {"red": 0.5, "green": 0.6},
        "ap50": {"red": 0.8, "green": 0.8},
        "recall_small": 0.4,
        "n_small": 30,
        "power_w": None,
        "energy_per_frame_j": None,
        "power_source": None,
        "power_kind": None,
        "temperature_c": 60.0,
        "throttled": False,
        "load_ms": 102.0,
        "first_inference_ms": 62.0,
        "seconds": sum(samples) / 1000,
        "size_mb": 3.0,
        "started": "2026-01-01T00:00:00Z",
        "versions": {"musgd": "0.1.0"},
    }
    return BenchReport.model_validate(known | fields)


METERED = {
    "power_w": 5.0,
    "energy_per_frame_j": 0.1,
    "power_source": "hwmon:ina219",
    "power_scope": "board",
    "power_kind": "measured",
}
