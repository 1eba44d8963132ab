"""``musgd bench`` from the outside: what it prints, keeps, refuses and exits with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import tiny_artifact as tiny

from musgd_cli.__main__ import main
from musgd_cli.commands.planning import warn_of_refused_meter
from musgd_cli.console import Terminal
from musgd_cli.hardware import usable_cores

BOARDS = Path(__file__).parents[1] / "boards"
ONCE = ("--repeats", "1", "--duration", "0.2", "--set", "bench.warmup_s=0")
QUICK = ("--threads", "1", *ONCE)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to call musgd in, with a run ``r`` of one null artifact and a data set."""
    monkeypatch.chdir(tmp_path)
    tiny.make_null(Path("runs/r/artifacts/x86-cpu-null-fp32-64"))
    tiny.make_data(Path("squares"), n_images=2)
    return tmp_path


def two_lines(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The error and mend of a failed command, which printed nothing else."""
    captured = capsys.readouterr()
    assert captured.out == ""
    error, mend = captured.err.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert mend.startswith("mend: ")
    return error, mend


# -------------------------------------------------------------------------------------- in order


def test_float_and_openvino_in_one_table(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    artifacts = workshop / "runs/r/artifacts"
    parent = tiny.make_onnx(artifacts / "x86-cpu-onnxruntime-fp32-64")
    tiny.make_openvino(artifacts / "x86-cpu-openvino-fp32-64", parent_sha256=parent.sha256)
    shutil.rmtree(artifacts / "x86-cpu-null-fp32-64")
    assert main(["bench", "r", "--data", "squares", *QUICK]) == 0
    captured = capsys.readouterr()
    rows = {
        name: next(line for line in captured.out.splitlines() if line.strip().startswith(name))
        for name in ("ONNX Runtime fp32", "OpenVINO fp32")
    }
    assert all("0.995" in row for row in rows.values())
    assert "\N{MULTIPLICATION SIGN}" in rows["OpenVINO fp32"]  # its speed, of its float parent's
    assert "data.yaml, val: 2 images" in captured.out
    assert len(list((workshop / "runs/r/bench").glob("*.json"))) == 2
    # Nothing is written beside the data.
    assert {p.name for p in (workshop / "squares").iterdir()} == {"images", "labels", "data.yaml"}


def test_json_is_one_object_and_reports_are_kept_apart(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["bench", "runs/r", "--json", *QUICK]) == 0
        printed = json.loads(capsys.readouterr().out)
    assert printed["schema"]
    (report,) = printed["reports"]
    assert report["power_w"] is None or report["power_kind"] in ("measured", "reported")
    kept = sorted((workshop / "runs/r/bench").glob("*.json"))
    assert len(kept) == 2
    assert report in [json.loads(file.read_text()) for file in kept]
    assert all(file.name.startswith("x86-cpu-null-fp32-64-1t-") for file in kept)


def test_an_emulators_speed_is_shown_only_on_demand(
    workshop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSGD_EMULATED", "1")
    rows, notes = [], []
    for options in ((), ("--show-emulated-speed",)):
        assert main(["bench", "r", "--meter", "none", *QUICK, *options]) == 0
        printed = capsys.readouterr().out
        rows += [line for line in printed.splitlines() if line.startswith("no model fp32")]
        notes.append(printed.partition("measured on an emulated machine: ")[2])
    figures = re.compile(r"\d+\.\d+")
    assert "emulated" in rows[0] and not figures.search(rows[0])
    assert "emulated" not in rows[1] and figures.search(rows[1])
    assert notes[0].startswith("no speed is shown")
    assert notes[1].startswith("the speed shown is the emulator's")
    # The record keeps what was measured, and says on what.
    assert main(["bench", "r", "--meter", "none", "--json", *QUICK]) == 0
    captured = capsys.readouterr()
    (report,) = json.loads(captured.out)["reports"]
    assert report["host"]["emulated"] is True and report["fps"] > 0
    assert "warning: an emulator's speed is not the board's" in captured.err


def test_an_artifact_outside_of_any_run_is_not_written_beside(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move("runs/r/artifacts/x86-cpu-null-fp32-64", "from-afar")
    shutil.rmtree("runs")
    before = sorted(Path("from-afar").iterdir())
    assert main(["bench", "from-afar", "--quiet", "--meter", "none", *QUICK]) == 0
    assert sorted(Path("from-afar").iterdir()) == before
    assert len(list(Path("runs/from-afar/bench").glob("*.json"))) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "no data set" in captured.out


def test_no_image_that_calibrated_any_of_them_is_scored_by_one(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Otherwise the float and the int8 model would be compared on different images.
    calibration = tiny.calibrated_on("images/val/0.png")
    tiny.make_null(workshop / "runs/r/artifacts/calibrated", calibration=calibration)
    assert main(["bench", "r", "--data", "squares", "--json", *QUICK]) == 0
    reports = json.loads(capsys.readouterr().out)["reports"]
    assert [(r["n_images"], r["n_excluded"]) for r in reports] == [(1, 1), (1, 1)]


def test_a_missing_runtime_leaves_the_others(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.describe(workshop / "runs/r/artifacts/x86-cpu-null-fp32-64", "null", ())
    absent = workshop / "runs/r/artifacts/orin-tensorrt-fp16-64"
    pytest.importorskip("onnx")
    tiny.make_tensorrt(absent)
    assert main(["bench", "r", "--json", *QUICK]) == 0
    captured = capsys.readouterr()
    assert [r["runtime"] for r in json.loads(captured.out)["reports"]] == ["null"]
    assert "no NVIDIA" in captured.err
    assert "mend: " in captured.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_it_with_130_and_leaves_nothing(number: signal.Signals, workshop: Path) -> None:
    bench = subprocess.Popen(
        [sys.executable, "-m", "musgd_cli", "bench", "r", "--duration", "60"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        assert bench.stderr is not None
        assert "measuring" in bench.stderr.readline()
        bench.send_signal(number)
        assert bench.wait(timeout=30) == 130
        assert "Traceback" not in bench.stderr.read()
    finally:
        bench.kill()
    assert not (workshop / "runs/r/bench").exists()


# --------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("path", "error", "mend"),
    [
        ("best.pt", "best.pt is weights", "musgd export best.pt"),
        ("model.txt", "model.txt is no model", "give .onnx"),
        ("nowhere", "nowhere does not exist", "runs here: r"),
        ("squares", "squares is a data set", "musgd bench MODEL --data squares"),
    ],
)
def test_what_is_no_artifact(
    path: str, error: str, mend: str, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "." in path:
        Path(path).write_bytes(b"x")
    assert main(["bench", path]) == 2
    printed = two_lines(capsys)
    assert error in printed[0]
    assert mend in printed[1]


def test_a_run_is_found_beside_the_data_it_is_named_after(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workshop / "runs/r").rename(workshop / "runs/squares")
    assert main(["bench", "squares", "--data", "squares", *QUICK]) == 0
    assert "kept runs/squares/bench/" in capsys.readouterr().err


def test_without_a_path_the_newest_run_is_meant(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench"]) == 2
    assert "no finished run" in two_lines(capsys)[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--duration", "0"),
        ("--duration", "1", "--frames", "9"),
        ("--sustained", "60", "--duration", "1"),
        ("--repeats", "0"),
        ("--repeats", "5", "--sustained", "60"),
        ("--set", "bench.repeats=5", "--sustained", "60"),
        ("--threads", "two"),
        ("--threads", "1,-2"),
        ("--threads", "1", "--set", "bench.threads=2"),
        ("--set", "bench.thread=2"),
        ("--target", "pi44"),
        ("--data", "nowhere"),
    ],
)
def test_wrong_options_are_usage_errors(
    arguments: tuple[str, ...], workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "r", *arguments]) == 2
    two_lines(capsys)
    assert not (workshop / "runs/r/bench").exists()


def test_only_runtimes_that_are_missing_is_exit_3(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = workshop / "runs/r/artifacts/x86-cpu-null-fp32-64"
    tiny.make_tensorrt(artifact)
    assert main(["bench", "r", *QUICK]) == 3
    assert "no NVIDIA" in two_lines(capsys)[0]


def test_a_damaged_model_fails_and_the_others_are_measured(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = workshop / "runs/r/artifacts/x86-cpu-onnxruntime-fp32-64"
    damaged.mkdir()
    (damaged / "model.onnx").write_bytes(b"half a model")
    tiny.describe(damaged, "onnxruntime", ("model.onnx",), sha256="0" * 64)
    assert main(["bench", "r", "--json", *QUICK]) == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["reports"]) == 1
    assert "error: the model in" in captured.err
    assert "Traceback" not in captured.err


def test_a_damaged_record_is_a_usage_error(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = workshop / "runs/r/artifacts/x86-cpu-null-fp32-64/artifact.json"
    record.write_text(record.read_text()[:40])
    assert main(["bench", "r", *QUICK]) == 2
    assert "artifact.json is not JSON" in two_lines(capsys)[0]


def test_a_damaged_record_leaves_the_others(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = workshop / "runs/r/artifacts/damaged"
    tiny.make_null(damaged)
    (damaged / "artifact.json").write_text("{}")
    assert main(["bench", "r", "--json", *QUICK]) == 2
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["reports"]) == 1
    assert "error: runs/r/artifacts/damaged/artifact.json holds no Artifact" in captured.err


def test_a_corrupt_image_loses_the_accuracy_and_not_the_speed(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_data(workshop / "many", n_images=20)
    (workshop / "many/images/val/12.png").write_bytes(b"no image")
    assert main(["bench", "r", "--data", "many", *QUICK]) == 1
    captured = capsys.readouterr()
    assert re.search(r"accuracy +not measured here: .*many/images/val", captured.out)
    assert "12.png" in captured.err
    assert list((workshop / "runs/r/bench").glob("*.json"))


@pytest.mark.parametrize(("text", "counts"), [("1,2", [1, 2]), ("2", [2]), ("sweep", None)])
def test_thread_counts(
    text: str, counts: list[int] | None, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "r", "--json", *ONCE, "--threads", text]) == 0
    found = [report["threads"] for report in json.loads(capsys.readouterr().out)["reports"]]
    assert found == (counts or list(range(1, usable_cores() + 1)))


def test_frames_and_a_sustained_run(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warmup = ("--set", "bench.warmup_s=0")
    assert main(["bench", "r", "--json", "--frames", "50", *warmup]) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert (report["n"], len(report["repeats"])) == (50, 5)
    assert main(["bench", "r", "--sustained", "2"]) == 0
    assert "over time" in capsys.readouterr().out


def test_a_meter_that_is_not_there_is_named_before_the_work(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "r", "--meter", "wattmeter", *QUICK]) == 2
    assert "wattmeter" in two_lines(capsys)[0]
    assert main(["bench", "r", "--meter", "none", "--json", *QUICK]) == 0
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert report["power_w"] is None
    assert report["power_note"]


@pytest.mark.parametrize("readable", [False, True])
def test_a_meter_that_may_not_be_read_is_told_with_its_mend(
    readable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal, me = Terminal(), os.geteuid()
    warn_of_refused_meter(terminal, Path("nowhere"))
    terminal.warn("what nobody may not import is loaded by now")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        tree = Path(folder) / "board"
        shutil.copytree(BOARDS / "pi4b-ina219", tree, symlinks=True)
        (tree / "sys/class/hwmon/hwmon2/power1_input").chmod(0o444 if readable else 0)
        try:
            if me == 0:
                os.seteuid(65534)  # permissions do not stop root
            warn_of_refused_meter(terminal, tree)
        finally:
            os.seteuid(me)
    told = capsys.readouterr().err
    assert ("may not be read by this user" in told) is not readable
    assert ("mend: " in told) is not readable


def test_reports_that_have_nowhere_to_go_fail_before_the_work(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workshop / "runs/r/bench").write_text("a file in the way")
    assert main(["bench", "r", *QUICK]) == 1
    error, _ = two_lines(capsys)
    assert "cannot write runs/r/bench" in error


def test_help_begins_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    assert "musgd bench --threads 1" in capsys.readouterr().out


def test_a_model_that_has_no_engine_leaves_the_others(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("board.engine").write_bytes(b"from elsewhere")
    assert main(["bench", "board.engine", "r", "--json", *QUICK]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["reports"]) == 1
    assert "error: board.engine is a TensorRT engine" in captured.err


def test_exports_of_one_name_keep_their_reports_apart(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ncnn")
    for name in ("small", "large"):
        tiny.make_ncnn(Path(name))
        Path(name, "artifact.json").unlink()
        Path(name, "metadata.yaml").write_text(
            "names: {0: red, 1: green, 2: blue}\nimgsz: [64, 64]\n"
        )
    assert main(["bench", "small", "large", *QUICK]) == 0
    assert len(list(Path("runs/small/bench").glob("small-1t-*.json"))) == 1
    assert len(list(Path("runs/large/bench").glob("large-1t-*.json"))) == 1
    rows = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(row.startswith("ncnn fp32 (small/") for row in rows)
