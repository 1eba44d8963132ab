"""Bench reports of no board: invented figures, for tests of how reports are shown."""

from __future__ import annotations

import random
from typing import Any

from musgd_cli.records import BenchReport, Host, LatencyMs, Moment, Repeat

PI = Host(
    board="pi4b",
    model="Raspberry Pi 4 Model B Rev 1.5",
    cpu="Cortex-A72",
    cores=4,
    ram_mb=3793,
    os="Debian GNU/Linux 12 (bookworm)",
    kernel="6.6.51+rpt-rpi-v8",
    arch="aarch64",
    bits=64,
    cpu_features=("asimd",),
    container="none",
    python="3.11.2",
    power_meters=("hwmon:ina219",),
)
NANO = PI.model_copy(
    update={
        "board": "jetson-nano",
        "model": "NVIDIA Jetson Nano Developer Kit",
        "cpu": "Cortex-A57",
        "gpu": "NVIDIA Tegra X1",
        "os": "Ubuntu 18.04.6 LTS",
        "kernel": "4.9.337-tegra",
        "jetpack": "4.6.4",
        "power_meters": ("ina3221",),
    }
)

METERED: dict[str, Any] = {
    "power_w": 5.1234,
    "idle_w": 2.714,
    "energy_per_frame_j": 0.3571,
    "net_energy_per_frame_j": 0.1683,
    "fps_per_watt": 2.8003,
    "power_source": "hwmon:ina219",
    "power_scope": "board",
    "power_kind": "measured",
    "power_hz": 12.5,
    "power_s": 30.2,
    "power_note": None,
}
ESTIMATED: dict[str, Any] = {
    **METERED,
    "power_source": "estimate:pi4b",
    "power_kind": "estimated",
    "power_hz": None,
}


def report(p50: float = 70.12, *, frames: int = 400, **fields: Any) -> BenchReport:
    """Return a report of a median of ``p50`` ms, its samples and moments drawn by a fixed seed."""
    chance = random.Random(f"{p50} {fields.get('artifact')}")
    samples = [p50 * chance.lognormvariate(0, 0.03) for _ in range(frames)]
    samples[::37] = [sample * 1.25 for sample in samples[::37]]
    ordered = sorted(samples)
    known: dict[str, Any] = {
        "artifact": "runs/cells/artifacts/pi4b-ncnn-fp16-320",
        "artifact_sha256": "child",
        "target": "pi4b",
        "runtime": "ncnn",
        "runtime_version": "1.0.20260526",
        "precision": "fp16",
        "imgsz": 320,
        "host": PI,
        "data": "/data/bccd/bccd.yaml",
        "split": "test",
        "n_images": 72,
        "threads": 4,
        "n": frames,
        "warmup": 40,
        "warmup_s": 5.21,
        "steady": True,
        "latency_ms": LatencyMs(
            p50=p50,
            p90=ordered[frames * 9 // 10],
            p99=ordered[frames * 99 // 100],
            mean=sum(samples) / frames,
            min=ordered[0],
            max=ordered[-1],
        ),
        "p50_interval_ms": (p50 * 0.99, p50 * 1.012),
        "stable": True,
        "repeats": [repeat(p50 * factor) for factor in (0.995, 1, 1.004)],
        "samples_ms": samples,
        "fps": 1000 / (sum(samples) / frames),
        "fps_end_to_end": 950 / (sum(samples) / frames),
        "pre_ms": 2.11,
        "post_ms": 1.42,
        "harness_ms": 0.0043,
        "n_frames": 16,
        "seconds": 30.2,
        "peak_memory_mb": 143.4,
        "map50_95": 0.5983,
        "map50": 0.8971,
        "recall_small": 0.857,
        "n_small": 7,
        "recall_medium": 0.941,
        "n_medium": 612,
        "recall_large": 0.972,
        "n_large": 403,
        "confidence_shift": -0.0031,
        "n_shared_boxes": 911,
        "power_w": None,
        "energy_per_frame_j": None,
        "power_source": None,
        "power_kind": None,
        "power_note": "no meter on this board",
        "temperature_c": 61.4,
        "throttled": False,
        "cpu_mhz": 1800.0,
        "governor": "ondemand",
        "cores_used": 3.71,
        "cores_used_by_others": 0.04,
        "moments": course(950 / p50, seconds=30),
        "load_ms": 210,
        "first_inference_ms": 180,
        "size_mb": 4.62,
        "started": "2026-11-24T14:43:10+00:00",
        "engine": {"lightmode": "on", "fp16_arithmetic": "off"},
        "parent_sha256": "parent",
        "gate": "passed",
        "ap50_95": {"Platelets": 0.4171, "RBC": 0.5972, "WBC": 0.7785},
        "ap50": {"Platelets": 0.81, "RBC": 0.89, "WBC": 0.99},
        "versions": {"musgd": "0.1.0", "numpy": "2.3.5", "opencv": "5.0.0", "ncnn": "1.0.20260526"},
    }
    return BenchReport.model_validate(known | fields)


def parent(p50: float = 140.2, **fields: Any) -> BenchReport:
    """Return a report of the float parent."""
    return report(
        p50,
        **{
            "artifact": "runs/cells/artifacts/pi4b-onnxruntime-fp32-320",
            "artifact_sha256": "parent",
            "parent_sha256": "weights",
            "runtime": "onnxruntime",
            "runtime_version": "1.32.0",
            "precision": "fp32",
            "size_mb": 9.23,
            "confidence_shift": None,
            "n_shared_boxes": 0,
            "gate": None,
            **fields,
        },
    )


def null(**fields: Any) -> BenchReport:
    """Return a report of the harness alone."""
    nothing = dict.fromkeys(("map50_95", "map50", "recall_small", "recall_medium", "recall_large"))
    return report(
        0.0123,
        **{
            "artifact": "runs/cells/artifacts/pi4b-null-fp32-320",
            "artifact_sha256": "null",
            "runtime": "null",
            "runtime_version": None,
            "precision": "fp32",
            "parent_sha256": None,
            "confidence_shift": None,
            "ap50_95": {},
            "ap50": {},
            "n_images": 0,
            "n_small": 0,
            **nothing,
            **fields,
        },
    )


def repeat(p50: float) -> Repeat:
    return Repeat(
        began=1_795_531_390.0,
        seconds=10.1,
        n=133,
        p50_ms=p50,
        load_ms=210,
        first_inference_ms=180,
        warmup=13,
        warmup_s=1.7,
        steady=True,
    )


def course(fps: float, *, seconds: int, throttled_from: float | None = None) -> list[Moment]:
    """Return a second-by-second course that warms up, and slows down where it is held back."""
    chance = random.Random(f"{fps} {seconds}")
    moments = []
    for second in range(seconds):
        heat = 85 - 37 * 2.718 ** (-second / 90)
        held_back = throttled_from is not None and second >= throttled_from
        slower = 0.72 if held_back else 1.0
        moments.append(
            Moment(
                t_s=second + 0.5,
                fps=fps * slower * chance.gauss(1, 0.012),
                temperature_c=heat,
                cpu_mhz=1800 * slower,
                throttled=held_back,
            )
        )
    return moments
