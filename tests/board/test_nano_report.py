"""A report of the Nano's agent beside those of a Pi and an x86 machine, and what bench says there.

The other boards' figures are invented; the Nano's are of a trtexec that plays one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invented_reports import METERED, report

from musgd_cli.__main__ import main
from musgd_cli.board import NANO_AGENT
from musgd_cli.records import BenchReport, Host
from musgd_cli.storage import write_record

X86 = Host(board="x86-cpu", cpu="AMD EPYC 7B13", cores=4, arch="x86_64", os="Debian 12", bits=64)


@pytest.fixture
def three(measured, tmp_path, monkeypatch) -> list[str]:
    """Files of three boards' reports."""
    monkeypatch.chdir(tmp_path)
    nano = measured[0]
    Path("nano.json").write_text(json.dumps(nano.report()))
    write_record(Path("pi.json"), report(**METERED))
    there = "runs/cells/artifacts/x86-cpu-openvino-fp32-320"
    write_record(Path("x86.json"), report(9.5, host=X86, artifact=there, runtime="openvino"))
    return ["x86.json", "pi.json", "nano.json"]


def test_one_page_has_all_three(three, capsys):
    assert main(["report", *three, "--html", "page.html", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["reports"]
    assert [one["host"]["board"] for one in printed] == ["x86-cpu", "pi4b", "jetson-nano"]
    page = Path("page.html").read_text("utf-8")
    nano = BenchReport.parse(printed[2])
    assert f"{nano.energy_per_frame_j:#.3g}" in page
    for words in (
        "TensorRT fp16",
        "JetPack 4.6.4",
        "measured by ina3221:POM_5V_IN, of the whole module",
        "not measured here: trtexec feeds random numbers",
        "letterbox and decode were not timed",
        "s, the model alone by trtexec: random input, copies in and out counted",
        "settled when its time was up",
        "Whole frames a second, inferences where the model ran alone, of about a second",
        "fp16 allowed beside FP32; which layers took it was not read back",
        "figures of different scopes (board, module) cannot be compared",
        "built_with --fp16 --workspace=1024",
        "MAXN",
    ):
        assert words in page, words
    assert "None" not in page
    assert "one image of noise" not in page


def test_the_table_has_them_too(three, capsys):
    assert main(["report", *three]) == 0
    out = capsys.readouterr().out
    assert "model alone" in out
    (row,) = [line for line in out.splitlines() if line.startswith("   TensorRT fp16")]
    assert "20.1" in row
    assert " - " in row  # whole frames, which were not timed


def test_what_was_done_is_said_of_those_it_was_done_to(three, capsys):
    assert main(["report", *three]) == 0
    out = " ".join(capsys.readouterr().out.split())
    frames = out[out.index("latency ") : out.index(" latency ", out.index("inferences of batch"))]
    assert "each within a whole frame (letterbox, inference, decode) of 16 images" in frames
    assert "after up to 5.2 s of warm-up (until three medians" in frames
    assert frames.endswith("(x86-cpu, pi4b)")
    ours = out.removeprefix(out[: out.index(frames)] + frames)
    told = "3 fresh processes, the model alone by trtexec: random input, copies in and out counted,"
    assert f"{told} one inference at a time, after 1.8 s of warm-up; memory is" in ours
    assert "process's (jetson-nano)" in ours
    assert "FP16 allowed beside FP32; which layers took it was not read back (jetson-nano)" in ours

    assert main(["report", "nano.json"]) == 0
    alone = " ".join(capsys.readouterr().out.split())
    assert "the model alone by trtexec" in alone
    assert "whole frame (letterbox" not in alone
    assert "until three medians" not in alone
    assert "one image of noise" not in alone


@pytest.mark.parametrize("command", [("bench",), ("fit", "--fps", "10")])
@pytest.mark.parametrize("board", ["jetson-nano", "jetson-nano-2gb"])
def test_musgd_itself_names_the_agent_on_a_nano(nano, command, board, monkeypatch, capsys):
    monkeypatch.setenv("MUSGD_BOARD", board)
    monkeypatch.chdir(nano.root)
    verb, *options = command
    assert main([verb, str(nano.artifact), *options]) == 3
    error, mend = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert "TensorRT 8 of JetPack 4" in error
    assert f"python3 {NANO_AGENT} bench {nano.artifact}" in mend
    assert "--agent" in mend
