"""The bench's table: what it says in each case, and that it fits the screen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from musgd_cli.records import BenchReport, Host, LatencyMs
from musgd_cli.report.terminal.bench import bench_table

TWICE = "2.00\N{MULTIPLICATION SIGN}"
HOST = Host(board="pi4b", model="Raspberry Pi 4 Model B Rev 1.5", cores=4, os="Debian 12")


def report(**fields: Any) -> BenchReport:
    known: dict[str, Any] = {
        "artifact": "runs/a/artifacts/pi4b-onnxruntime-fp32-320",
        "artifact_sha256": "parent",
        "target": "pi4b",
        "runtime": "onnxruntime",
        "runtime_version": "1.32.0",
        "precision": "fp32",
        "imgsz": 320,
        "host": HOST,
        "data": "/data/bccd/bccd.yaml",
        "split": "test",
        "n_images": 72,
        "threads": 4,
        "n": 400,
        "warmup": 40,
        "warmup_s": 5.2,
        "steady": True,
        "latency_ms": LatencyMs(p50=140.2, p90=151.0, p99=168.3, mean=142, min=130, max=170),
        "samples_ms": (),
        "fps": 7.04,
        "fps_end_to_end": 6.8,
        "pre_ms": 2.11,
        "post_ms": 1.42,
        "harness_ms": 0.004,
        "n_frames": 16,
        "peak_memory_mb": 143.4,
        "map50_95": 0.2347,
        "map50": 0.5123,
        "recall_small": 0.31,
        "n_small": 88,
        "recall_medium": 0.72,
        "n_medium": 200,
        "recall_large": 1.0,
        "n_large": 14,
        "power_w": None,
        "energy_per_frame_j": None,
        "power_source": None,
        "power_kind": None,
        "temperature_c": None,
        "throttled": None,
        "load_ms": 210,
        "first_inference_ms": 180,
        "versions": {"musgd": "0.1.0", "onnxruntime": "1.32.0", "opencv": "5.0.0"},
    }
    return BenchReport.model_validate(known | fields)


INT8 = {
    "artifact": "runs/a/artifacts/pi4b-ncnn-mixed-int8-320",
    "artifact_sha256": "child",
    "parent_sha256": "parent",
    "runtime": "ncnn",
    "runtime_version": "1.0",
    "precision": "mixed-int8",
    "latency_ms": LatencyMs(p50=70.1, p90=71, p99=72, mean=70, min=69, max=73),
}
METERED = {
    "power_w": 5.1234,
    "energy_per_frame_j": 0.72,
    "power_source": "hwmon:ina219",
    "power_scope": "board",
    "power_kind": "measured",
    "temperature_c": 71.6,
}


def printed(*reports: BenchReport, width: int = 200, emulated_speed: bool = False) -> str:
    stream = io.StringIO()
    table = bench_table(reports, emulated_speed=emulated_speed)
    Console(file=stream, width=width, highlight=False).print(table)
    return stream.getvalue()


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(name))


def test_a_row_holds_every_figure() -> None:
    text = printed(report(), report(**INT8, **METERED))
    float_row, int8_row = row(text, "ONNX Runtime fp32"), row(text, "ncnn mixed-int8")
    for figure in ("140", "151", "168", "7.04", "6.80", "2.11", "1.42", "0.235", "0.512"):
        assert figure in float_row
    assert ".31/.72/1.00" in float_row
    assert "(88/200/14: under 32² px" in text
    assert "143" in float_row
    for figure in ("70.1", TWICE, "5.12", "0.72", "72"):
        assert figure in int8_row
    assert "pi4b, 320 px, 4 threads" in text


def test_power_that_no_meter_gave_is_said_in_its_cell() -> None:
    alone = printed(report())
    assert row(alone, "ONNX Runtime").count("not measured here") == 1
    assert "power     not measured here" in alone
    beside = printed(report(), report(**INT8, **METERED))
    assert row(beside, "ONNX Runtime").count("not measured here") == 1
    assert "measured by hwmon:ina219, of the whole board" in beside


def test_what_belongs_together_stays_together_where_it_fits() -> None:
    text = printed(report(**METERED), report(**INT8, **METERED), width=80)
    heads = [line.split() for line in text.splitlines() if "p50" in line or "power" in line]
    assert heads[0] == ["p50", "p90", "p99", "max", "speed", "FPS", "FPS"]
    assert any(head[-4:] == ["power", "energy", "net", "FPS"] for head in heads)


def test_rows_of_several_boards_stand_below_their_boards() -> None:
    nano = Host(board="jetson-nano", cores=4)
    text = printed(report(), report(host=nano), report(**INT8))
    assert "pi4b and jetson-nano, 320 px, 4 threads" in text
    lines = [line.strip() for line in text.splitlines()]
    assert [line for line in lines if line in ("pi4b", "jetson-nano")] == ["pi4b", "jetson-nano"]
    order = [text.index(f" {name}") for name in ("pi4b  ", "ncnn", "jetson-nano  ")]
    assert order == sorted(order)
    assert "machine   jetson-nano: 4 cores" in text


def test_what_is_true_of_some_boards_alone_says_of_which() -> None:
    nano = Host(board="jetson-nano", cores=4)
    text = printed(report(), report(host=nano, **METERED))
    assert "power     measured by hwmon:ina219, of the whole board (jetson-nano)" in text


def test_a_name_is_no_markup() -> None:
    odd = HOST.model_copy(update={"board": "[red]"})
    assert "[red]" in row(printed(report(host=odd), report()), "[red]")


@pytest.mark.parametrize(("shift", "shown"), [(-0.0004, " 0.000 "), (0.0123, "+0.012")])
def test_a_shift_has_its_sign_unless_it_rounds_to_none(shift: float, shown: str) -> None:
    assert shown in row(printed(report(), report(**INT8, confidence_shift=shift)), "ncnn")


@pytest.mark.parametrize("width", [80, 100, 120, 160])
@pytest.mark.parametrize("metered", [{}, METERED])
def test_it_fits_the_screen_and_loses_nothing(width: int, metered: dict[str, Any]) -> None:
    text = printed(report(**metered), report(**INT8), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figure in ("140", "168", "0.235", ".31/.72/1.00", "143", TWICE):
        assert figure in text


def test_an_emulators_speed_is_not_shown() -> None:
    emulated = HOST.model_copy(update={"emulated": True})
    text = printed(report(host=emulated), report(**INT8, host=emulated))
    for figure in ("140", "7.04", "6.80", "2.11", TWICE):
        assert figure not in text
    assert "emulated" in row(text, "ONNX Runtime")
    assert "0.235" in text  # accuracy is the same on any machine


def test_an_emulators_speed_is_shown_on_demand_with_a_warning() -> None:
    emulated = HOST.model_copy(update={"emulated": True})
    reports = [report(host=emulated), report(**INT8, host=emulated)]
    text = printed(*reports, emulated_speed=True)
    for figure in ("140", "7.04", "6.80", "2.11", TWICE):
        assert figure in text
    assert "emulated" not in row(text, "ONNX Runtime")
    said = "measured on an emulated machine: the speed shown is the emulator's, not the board's"
    assert said in text
    assert said not in printed(report(), report(**INT8), emulated_speed=True)


def test_what_could_mislead_is_said() -> None:
    text = printed(
        report(steady=False, warmup_s=25.0),
        report(**INT8, throttled=True, n_excluded=12),
    )
    assert "ONNX Runtime fp32: latency had not settled after 25.0 s" in text
    assert "ncnn mixed-int8: the processor was throttled" in text
    assert "72 images, 12 left out that calibrated a model" in text
    calm = printed(report(throttled=False))
    assert "settled" not in calm
    assert "throttled" not in calm


def test_the_clock_of_the_fastest_core_is_told_where_cores_differ() -> None:
    assert "500 MHz, mean of the cores, 2400 MHz the fastest" in printed(
        report(cpu_mhz=500.0, cpu_mhz_highest=2400.0)
    )
    alike = printed(report(cpu_mhz=1800.0, cpu_mhz_highest=1800.0))
    assert "1800 MHz" in alike
    assert "mean of the cores" not in alike


def test_sizes_and_threads_that_differ_stand_in_the_row() -> None:
    text = printed(report(), report(imgsz=640, artifact_sha256="b", artifact="b", threads=1))
    assert "ONNX Runtime fp32, 320 px, 4 threads" in text
    assert "ONNX Runtime fp32, 640 px, 1 thread" in text


def test_twins_are_told_apart_by_their_folders() -> None:
    text = printed(report(), report(artifact="elsewhere/b", artifact_sha256="b"))
    assert row(text, "ONNX Runtime fp32 (pi4b-onnxruntime-fp32-320)")
    assert row(text, "ONNX Runtime fp32 (b)")


def test_what_was_timed_is_said_of_those_it_was_timed_on() -> None:
    """Not of all what the first one's was: noise, images and the model alone lie in one table."""
    alone = {"fps_end_to_end": None, "pre_ms": None, "post_ms": None, "n_frames": 0}
    boards = [Host(board=name, cores=4) for name in ("pi5", "jetson-nano", "jetson-nano-2gb")]
    text = printed(
        report(),
        report(host=boards[0], n_frames=0),
        *(
            report(host=host, warmup_s=seconds, harness_ms=None, **alone)
            for host, seconds in zip(boards[1:], (5.0, 20.0), strict=True)
        ),
        width=400,
    )
    images, noise, model = [line for line in text.splitlines() if "inferences of batch 1" in line]
    assert "whole frame (letterbox, inference, decode) of 16 images, after up to 5.2 s" in images
    assert images.rstrip().endswith("(pi4b)")
    assert "decode) of one image of noise" in noise
    assert noise.rstrip().endswith("(pi5)")
    assert "in a fresh process, the model alone, after 5.0 to 20.0 s of warm-up; memory" in model
    assert model.rstrip().endswith("(jetson-nano, jetson-nano-2gb)")


def test_no_speed_ratio_without_the_float_parent() -> None:
    assert "of float" not in printed(report(**INT8))
    assert "of float" not in printed(report(), report(**{**INT8, "threads": 1}))


def test_figures_that_do_not_exist_are_no_zeros() -> None:
    nothing = {"map50_95": None, "map50": None, "recall_small": None, "n_small": 0, "n_images": 0}
    no_set = {"data": None, "accuracy_note": "no data set; give one with --data"}
    text = printed(report(**nothing, **no_set, split=None, n_frames=0, peak_memory_mb=None))
    assert "0.000" not in text
    assert "no data set" in text
    assert "one image of noise" in text
    calibrated = {"n_excluded": 72, "accuracy_note": "every image of it calibrated a model"}
    text = printed(report(**nothing, **calibrated))
    assert "not measured here: every image of it calibrated a model" in text


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("failed", ["failed the gate"]),
        ("inconclusive", ["it was unclear whether it passes the gate"]),
        ("passed", []),
    ],
)
def test_a_model_that_did_not_pass_its_gate_is_marked(verdict, said):
    lines = printed(report(), report(**INT8, gate=verdict)).splitlines()
    about = [line.partition(": ")[2] for line in lines if line.startswith("ncnn mixed-int8: ")]
    assert [line.partition(" against its float parent")[0] for line in about] == said


def test_of_parents_that_are_one_file_the_targets_own_counts() -> None:
    slow = LatencyMs(p50=280.4, p90=290, p99=300, mean=281, min=279, max=301)
    other = {"target": "x86-cpu", "artifact": "x86-cpu-onnxruntime-fp32-320", "latency_ms": slow}
    for rows in ((report(), report(**other)), (report(**other), report())):
        assert TWICE in row(printed(*rows, report(**INT8)), "ncnn")
    # Without a parent of its own it is the first in the table.
    rows = (report(), report(**other), report(**{**INT8, "target": "pi5"}))
    assert TWICE in row(printed(*rows), "ncnn")


# ------------------------------------------------------------------------------ how sure, how long


def test_an_interval_is_told_and_a_wide_one_is_called_unstable() -> None:
    text = printed(
        report(p50_interval_ms=(138.1, 142.3), stable=True),
        report(**INT8, p50_interval_ms=(60.0, 82.0), stable=False),
    )
    assert "1.5%" in row(text, "ONNX Runtime")
    assert "unstable" in row(text, "ncnn")
    assert "ncnn mixed-int8: another such run may find a p50 anywhere from 60.0 to 82.0 ms" in text
    assert "19 times of 20" in text
    assert "19 times of 20" not in printed(report())


def test_one_flaw_of_many_rows_is_one_line() -> None:
    flawed = [report(steady=False, warmup_s=n, threads=n) for n in (1, 2, 3, 4)]
    (line,) = [line for line in printed(*flawed).splitlines() if "not settled when" in line]
    assert line.strip() == "all 4 rows: latency had not settled when the warm-up ended"
    (line,) = [
        line
        for line in printed(*flawed, report(threads=5)).splitlines()
        if "not settled when" in line
    ]
    assert line.count("ONNX Runtime fp32, ") == 4


def test_what_cannot_be_compared_is_said() -> None:
    text = printed(
        report(data="/d/a/data.yaml", **METERED),
        report(**INT8 | METERED | {"data": "/d/b/data.yaml", "power_scope": "package"}),
    )
    assert "accuracy: scores on different images cannot be compared (a/data.yaml" in text
    assert "power: figures of different scopes (board, package) cannot be compared" in text
    assert "cannot be compared" not in printed(report(), report(**INT8))


def test_the_best_thread_count_is_named() -> None:
    text = printed(
        *(report(threads=n, fps_end_to_end=fps) for n, fps in ((1, 2.1), (2, 4.0), (3, 3.9)))
    )
    assert "is fastest with 2; frames a second with 1: 2.10, 2: 4.00, 3: 3.90" in text


def test_an_estimate_has_its_tilde() -> None:
    text = printed(report(**{**METERED, "power_kind": "estimated", "power_source": "model:pi4b"}))
    assert "~5.12" in row(text, "ONNX Runtime")
    assert "estimated by model:pi4b" in text


def test_a_sustained_run_is_shown_over_time() -> None:
    moments = [
        {
            "t_s": second + 0.5,
            "fps": 10.0 if second < 300 else 6.0,
            "temperature_c": 50 + second / 20,
            "cpu_mhz": 1800.0,
            "throttled": second >= 300,
        }
        for second in range(600)
    ]
    text = printed(report(sustained=True, moments=moments, throttled=True))
    still = [moment | {"fps": 0.0} for moment in moments]
    assert "0.00" in printed(report(sustained=True, moments=still))
    stages = text.split("over time")[1].split("latency")[0].splitlines()
    figures = [line.split() for line in stages if "%" in line]
    assert len(figures) == 12
    assert figures[0] == ["0", "10.0", "100%", "52", "1800", "no"]
    assert figures[-1] == ["550", "6.00", "60%", "80", "1800", "yes"]
