"""``musgd fit`` from the outside: what it prints, refuses and exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_artifact as tiny

from musgd_cli.__main__ import main
from musgd_cli.hardware.power import best_meter

QUICK = ("--threads", "1", "--duration", "0.2", "--repeats", "1", "--set", "bench.warmup_s=0")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to call musgd in, with a run ``r`` of one null artifact."""
    monkeypatch.chdir(tmp_path)
    tiny.make_null(Path("runs/r/artifacts/x86-cpu-null-fp32-64"))
    return tmp_path


def two_lines(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    error, mend = capsys.readouterr().err.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert mend.startswith("mend: ")
    return error, mend


def test_an_answer_is_printed_with_the_next_command(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "r", "--fps", "1", *QUICK]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("1 FPS: no model fp32, 64 px, 1 thread")
    assert "next: musgd bench runs/r/artifacts/x86-cpu-null-fp32-64 --threads 1" in captured.out
    assert "probing 1 model" in captured.err


def test_where_nothing_meets_it_json_is_whole_and_the_code_is_4(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "r", "--fps", "1e9", "--json", *QUICK]) == 4
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert printed["chosen"] is None
    assert printed["nearest"]["fps"] > 0
    error, mend = captured.err.strip().splitlines()[-2:]
    assert "nearest is no model fp32, 64 px, 1 thread" in error
    assert "musgd export --imgsz" in mend


def test_when_all_are_left_out_the_code_is_4_too(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "r", "--fps", "1", "--max-drop", "0.01", *QUICK]) == 4
    assert "every artifact was left out: what it loses" in two_lines(capsys)[0]


def test_a_damaged_record_ends_it_as_it_ends_a_bench(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path("runs/r/artifacts/damaged")
    tiny.make_null(damaged)
    (damaged / "artifact.json").write_text("{}")
    assert main(["fit", "r", "--fps", "1", "--json", *QUICK]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["chosen"] is not None
    assert "error: runs/r/artifacts/damaged/artifact.json holds no Artifact" in captured.err


def test_a_damaged_model_ends_it_as_it_ends_a_bench(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path("runs/r/artifacts/x86-cpu-onnxruntime-fp32-64")
    damaged.mkdir()
    (damaged / "model.onnx").write_bytes(b"half a model")
    tiny.describe(damaged, "onnxruntime", ("model.onnx",), sha256="0" * 64)
    assert main(["fit", "r", "--fps", "1", *QUICK]) == 1
    captured = capsys.readouterr()
    assert "1 FPS: no model fp32" in captured.out
    assert "left out: x86-cpu-onnxruntime-fp32-64: the model in" in captured.out
    assert captured.err.count("error: the model in") == 1


def test_ctrl_c_ends_it_with_130_and_leaves_nothing(workshop: Path) -> None:
    command = [sys.executable, "-m", "musgd_cli", "fit", "r", "--fps", "1", "--duration", "60"]
    fit = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        assert fit.stderr is not None
        assert "probing" in fit.stderr.readline()
        assert "measuring" in fit.stderr.readline()
        fit.send_signal(signal.SIGINT)
        assert fit.wait(timeout=30) == 130
        assert "Traceback" not in fit.stderr.read()
    finally:
        fit.kill()
    assert not list(workshop.glob("runs/r/bench/*"))


def test_watts_without_a_meter_are_exit_3(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if best_meter() is not None:
        pytest.skip("this machine has a power meter")
    assert main(["fit", "r", "--fps", "1", "--watts", "6.5", *QUICK]) == 3
    assert "--watts needs a power meter" in two_lines(capsys)[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fps", "0"),
        ("--fps", "nan"),
        ("--fps", "1", "--watts", "-1"),
        ("--fps", "1", "--max-drop", "2"),
        ("--fps", "1", "--threads", "many"),
        ("--fps", "1", "--data", "nowhere"),
        ("--fps", "1", "--meter", "wattmeter"),
        ("--fps", "1", "--duration", "1", "--set", "bench.duration_s=2"),
        (),
    ],
)
def test_wrong_options_are_usage_errors(arguments: tuple[str, ...], workshop: Path) -> None:
    assert main(["fit", "r", *arguments]) == 2
    assert not (workshop / "runs/r/bench").exists()


def test_a_run_without_artifacts_is_a_usage_error(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "nowhere", "--fps", "1"]) == 2
    assert "nowhere does not exist" in two_lines(capsys)[0]


def test_help_begins_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    assert "musgd fit --fps 30" in capsys.readouterr().out
