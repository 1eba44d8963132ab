"""``musgd bench --agent`` from the outside: the real agent, over ssh, with a fake ``trtexec``.

What the fake prints, and where that comes from, is told in ``tests/board/fake_trtexec.py``.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import tiny_artifact as tiny
from loopback import MODEL, Network, install, pretend, prints
from made_reports import report

from musgd_cli.__main__ import main
from musgd_cli.board import NANO_AGENT

FAKE = Path(__file__).parents[1] / "board/fake_trtexec.py"
NANO = "runs/r/artifacts/jetson-nano-tensorrt-fp16-64"
QUICK = (
    "--duration",
    "1",
    "--repeats",
    "1",
    "--set",
    "bench.warmup_s=0",
    "--set",
    "bench.idle_s=0",
)


def nano(network: Network, name: str, *programs: str) -> Path:
    """Start a board with these programs of this machine, a trtexec and little else."""
    place = network.folder / f"{name}-bin"
    place.mkdir()
    for program in ("sh", "cat", "rm", *programs):
        where = shutil.which(program, path="/usr/bin:/bin")
        assert where is not None, program
        (place / program).symlink_to(where)
    trtexec = place / "trtexec"
    trtexec.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(FAKE)])} "$@"\n')
    trtexec.chmod(0o755)
    return network.board(name, PATH=str(place), MUSGD_BOARD="jetson-nano")


@pytest.fixture
def for_nano(workshop: Path) -> None:
    """Give the run a model for the board."""
    Path(NANO).mkdir(parents=True)
    (Path(NANO) / "model.onnx").write_bytes(b"an ONNX that is whole.")
    made_for = {"target": "jetson-nano", "boards": ("jetson-nano", "jetson-nano-2gb")}
    tiny.describe(
        Path(NANO),
        "tensorrt",
        ("model.onnx",),
        precision="fp16",
        precision_asked="fp16",
        **made_for,
    )


@pytest.mark.skipif(shutil.which("python3", path="/usr/bin:/bin") is None, reason="no python3")
def test_a_nano_beside_a_pi_in_one_table(
    network: Network, for_nano: None, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = ("python3", "tar", "mktemp", "mkdir", "mv", "touch", "find", "df")
    home = nano(network, "nano", *tools)
    measured = report(artifact=MODEL, runtime="null", threads=1, data=None, imgsz=64)
    pretend(network.board("beside"), prints(measured))
    both = ("--host", "beside", "--agent", "nano")
    assert main(["bench", "r", *both, "--threads", "1", *QUICK]) == 0
    captured = capsys.readouterr()
    hosts_only = "--threads: nothing that the agent on a Jetson Nano knows, so for the hosts only"
    assert f"warning: {hosts_only}" in captured.err
    assert "TensorRT fp16" in captured.out
    assert "jetson-nano" in captured.out
    assert "nano: left out: 1 model not for TensorRT on a jetson-nano" in captured.err
    assert f"nano: measuring {NANO}" in captured.err
    kept = [json.loads(file.read_text()) for file in Path("runs/r/bench").glob("*.json")]
    assert {one["reached_as"]: one["artifact"] for one in kept} == {"beside": MODEL, "nano": NANO}
    (one,) = (one for one in kept if one["reached_as"] == "nano")
    assert one["host"]["board"] == "jetson-nano"
    assert 15 < one["latency_ms"]["p50"] < 25
    assert {place.name for place in (home / ".cache/musgd/remote").iterdir()} == {"files"}
    # Nothing is copied or built again; musgd report reads the two as one page's; and its own report
    # is a baseline, though the settings have other threads.
    (baseline,) = Path("runs/r/bench").glob(f"{Path(NANO).name}-*.json")
    against = ("--against", str(baseline))
    engines = {file: file.stat().st_mtime_ns for file in home.rglob("*.engine")}
    assert len(engines) == 1
    assert main(["bench", NANO, "--agent", "nano", *QUICK, *against, "--json"]) == 0
    captured = capsys.readouterr()
    assert "copying" not in captured.err
    assert [one["target"] for one in json.loads(captured.out)["reports"]] == ["jetson-nano"]
    assert {file: file.stat().st_mtime_ns for file in home.rglob("*.engine")} == engines
    assert main(["report", "r", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["reports"]) == 2


def test_what_the_agent_cannot_do_is_said(
    network: Network, for_nano: None, capsys: pytest.CaptureFixture[str]
) -> None:
    nano(network, "pythonless")
    assert main(["bench", NANO, "--agent", "pythonless"]) == 1
    assert "error: pythonless: there is no python3" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("python3", path="/usr/bin:/bin") is None, reason="no python3")
def test_without_a_model_for_it_nothing_is_measured(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = network.board("idle", MUSGD_BOARD="jetson-nano")
    assert main(["bench", "r", "--agent", "idle"]) == 3
    err = capsys.readouterr().err
    assert "error: idle: none of the models is built for TensorRT on a jetson-nano" in err
    assert "mend: musgd export RUN --target jetson-nano" in err
    # An engine that came with a model is machine code, and is not sent.
    Path(NANO).mkdir(parents=True)
    for name in ("model.onnx", "of-anybody.engine"):
        (Path(NANO) / name).write_bytes(b"anything")
    files = ("model.onnx", "of-anybody.engine")
    tiny.describe(Path(NANO), "tensorrt", files, target="jetson-nano")
    assert main(["bench", "r", "--agent", "idle"]) == 1
    err = capsys.readouterr().err
    assert f"error: idle: {NANO} holds more than an ONNX and its data: {', '.join(files)}" in err
    assert {file.name for file in home.rglob("files/*/*/*")} == {"nano_agent.py"}


@pytest.mark.skipif(shutil.which("python3", path="/usr/bin:/bin") is None, reason="no python3")
def test_a_host_whose_musgd_is_the_agent_is_no_host(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = network.board("small", MUSGD_BOARD="jetson-nano")
    agent = f"exec {shlex.join(['python3', NANO_AGENT])}"
    refuses = "echo 'error: unrecognized arguments: --json' >&2; exit 2"
    for doctor in (refuses, f"{agent} doctor"):  # of before, and of now
        install(home, f'[ "$1" != doctor ] || {{ {doctor}; }}\n{agent} "$@"')
        assert main(["bench", "r", "--host", "small"]) == 1
        assert capsys.readouterr().err.splitlines() == [
            "error: small: its musgd is the agent for a Jetson Nano, and --host is for a whole one",
            "mend: musgd bench --agent small",
        ]
