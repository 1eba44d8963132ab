"""``musgd bench --against`` and ``--fail-if`` from the outside."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tiny_artifact as tiny

from musgd_cli.__main__ import main

QUICK = ("--threads", "1", "--duration", "0.2", "--repeats", "1", "--set", "bench.warmup_s=0")
HERE = ("bench", "r", *QUICK)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ``--json`` printed of a run that each test has, measured once."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("workshop")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
        tiny.make_null(Path("runs/r/artifacts/x86-cpu-null-fp32-64"))
        assert main([*HERE, "--json"]) == 0
    return out.getvalue()


@pytest.fixture
def baseline(printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to call musgd in, with that run and its baseline."""
    monkeypatch.chdir(tmp_path)
    tiny.make_null(Path("runs/r/artifacts/x86-cpu-null-fp32-64"))
    (tmp_path / "baseline.json").write_text(printed)
    return tmp_path / "baseline.json"


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    error, mend = capsys.readouterr().err.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert mend.startswith("mend: ")
    return error


def test_a_run_beside_its_baseline(baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*HERE, "--against", "baseline.json", "--fail-if", "p50>1000x"]) == 0
    out = capsys.readouterr().out
    assert "against the baseline" in out
    assert "x86-cpu-null-fp32-64, 1 thread" in out
    assert "fewer than 3 repeats" in out


def test_a_broken_threshold_is_exit_4_and_in_the_json(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--fail-if", "p50>0.0001x", "--fail-if", "power_w>6.5", "--fail-if", "p99>1e9ms")
    meterless = ("--meter", "none", "--json")
    assert main([*HERE, "--against", "baseline.json", *arguments, *meterless]) == 4
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert [one["threshold"] for one in printed["broken"]] == ["p50>0.0001x", "power_w>6.5"]
    assert all(one["certain"] for one in printed["broken"])
    changes = {one["figure"]: one for one in printed["comparisons"][0]["changes"]}
    assert changes["latency_ms.p50"]["difference"] == "cannot be told"
    assert "p50>0.0001x" in captured.err
    assert "power_w>6.5: cannot be measured here" in captured.err


def test_a_limit_needs_no_baseline(baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*HERE, "--fail-if", "fps<1"]) == 0
    assert main([*HERE, "--fail-if", "fps>1"]) == 4
    assert "fps>1" in error_of(capsys)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("host", "board"), "pi4b", "the baseline is of another machine: board"),
        (("names",), ["cat"], "the baseline is of another model: 3 classes"),
        (("imgsz",), 128, "imgsz 64 here, 128 in the baseline"),
    ],
)
def test_another_baseline_is_refused_before_anything_is_measured(
    path: tuple[str, ...],
    value: object,
    words: str,
    baseline: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = json.loads(baseline.read_text())
    *above, last = path
    place = data["reports"][0]
    for key in above:
        place = place[key]
    place[last] = value
    baseline.write_text(json.dumps(data))
    assert main([*HERE, "--against", "baseline.json"]) == 2
    assert words in error_of(capsys)
    assert not Path("runs/r/bench").exists()


WITHOUT_ENGINE = "runs/r/artifacts/orin-tensorrt-fp16-64"


@pytest.mark.parametrize("gate", [("--against", "baseline.json"), ("--fail-if", "p50>1e9")])
def test_a_gate_is_not_green_about_what_it_did_not_measure(
    gate: tuple[str, ...], baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_tensorrt(Path(WITHOUT_ENGINE), target="orin", precision="fp16")
    assert main([*HERE, "--threads", "1", "--json"]) == 0  # of itself that is no failure
    capsys.readouterr()
    assert main([*HERE, *gate, "--json"]) == 4
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert len(printed["reports"]) == 1
    (missing,) = printed["broken"]
    assert (missing["threshold"], missing["threads"], missing["certain"]) == (None, 1, True)
    assert re.search("orin-tensorrt-fp16-64, 1 thread: was not measured: .*no NVIDIA", captured.err)


def test_a_gate_fails_for_a_model_that_no_engine_is_for(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("board.engine").write_bytes(b"from elsewhere")
    assert main(["bench", "board.engine", *HERE[1:], "--fail-if", "p50>1e9"]) == 3
    assert "board.engine" in capsys.readouterr().err


def test_what_the_baseline_has_and_the_artifact_is_no_more_fails(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(baseline.read_text())
    before = {**data["reports"][0], "precision": "fp16"}
    baseline.write_text(json.dumps(data | {"reports": [*data["reports"], before]}))
    assert main([*HERE, "--against", "baseline.json"]) == 4
    assert "was not measured: the baseline has it" in error_of(capsys)


def test_what_was_measured_is_shown_when_all_that_the_baseline_has_failed(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The baseline is of an artifact whose engine is gone; the one that is measured is another.
    data = json.loads(baseline.read_text())
    gone = {"runtime": "tensorrt", "target": "orin", "precision": "fp16", "artifact": "gone"}
    data["reports"][0] |= gone
    baseline.write_text(json.dumps(data))
    tiny.make_tensorrt(Path(WITHOUT_ENGINE), target="orin", precision="fp16")
    assert main([*HERE, "--against", "baseline.json", "--json"]) == 4
    printed = json.loads(capsys.readouterr().out)
    assert [one["runtime"] for one in printed["reports"]] == ["null"]
    (compared,) = printed["comparisons"]
    assert "the baseline has no report of runtime null" in compared["not_compared"]["everything"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--against", "nowhere.json"), "nowhere.json does not exist"),
        (("--against", "runs/r/artifacts/x86-cpu-null-fp32-64/artifact.json"), "no BenchReport"),
        (("--fail-if", "p50>1.05x"), "held to a baseline, and none is given"),
        (("--fail-if", "p50"), "is no threshold"),
        (("--fail-if", "p51>1"), "did you mean p50?"),
    ],
)
def test_nonsense_is_refused_before_anything_is_measured(
    arguments: tuple[str, ...],
    words: str,
    baseline: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*HERE, *arguments]) == 2
    assert words in error_of(capsys)
    assert not Path("runs/r/bench").exists()
