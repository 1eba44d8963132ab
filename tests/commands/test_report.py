"""``musgd report`` from the outside: what it prints, writes, refuses and exits with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from invented_reports import NANO, PI, course, parent, report

from musgd_cli.__main__ import main
from musgd_cli.records import BenchReports, LatencyMs
from musgd_cli.storage import write_record


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to call musgd in, with a run ``cells`` of two reports and one of another board."""
    monkeypatch.chdir(tmp_path)
    bench = Path("runs/cells/bench")
    bench.mkdir(parents=True)
    write_record(bench / "a.json", parent())
    write_record(bench / "b.json", report())
    write_record(Path("nano.json"), report(18, host=NANO))
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run a command that fails, which prints two lines and nothing else; return them."""
    assert main(["report", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    error, mend = captured.err.strip().splitlines()
    assert error.startswith("error: ")
    assert mend.startswith("mend: ")
    return f"{error}\n{mend}"


def test_without_a_file_it_prints_the_table_and_how_to_get_more(workshop, capsys):
    assert main(["report"]) == 0
    captured = capsys.readouterr()
    assert "ONNX Runtime fp32" in captured.out
    assert "ncnn fp16" in captured.out
    assert "--html report.html" in captured.err
    assert main(["report", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_page_of_two_boards(workshop, capsys):
    assert main(["report", "cells", "nano.json", "--html", "out/report.html"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "wrote out/report.html" in captured.err
    page = Path("out/report.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>")
    assert "jetson-nano" in page
    assert sorted(path.name for path in Path().iterdir()) == ["nano.json", "out", "runs"]


def test_a_page_and_a_picture_at_once(workshop, capsys):
    pytest.importorskip("matplotlib")
    assert main(["report", "cells", "--html", "a.html", "--png", "a.png", "--quiet"]) == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert Path("a.html").is_file()
    assert capsys.readouterr().err == ""


def test_an_external_meters_file_gives_reports_their_power(workshop, capsys):
    given = report(power_w=None)
    write_record(Path("one.json"), given)
    begin, end = given.repeats[0].began, given.repeats[-1].began + given.repeats[-1].seconds
    times = [begin - 1 + i for i in range(int(end - begin) + 4)]
    rows = [f"{at},4.5" for at in times]
    Path("meter.csv").write_text("\n".join(["time,power_w", *rows]) + "\n")
    assert main(["report", "one.json", "--meter", "meter.csv", "--json"]) == 0
    (metered,) = json.loads(capsys.readouterr().out)["reports"]
    assert metered["power_w"] == pytest.approx(4.5)
    assert metered["power_source"] == "csv:meter.csv"
    Path("meter.csv").write_text("\n".join(["time,power_w", *rows[:4]]) + "\n")
    assert "does not cover" in refused(capsys, "one.json", "--meter", "meter.csv")


def test_json_gathers_reports_into_one_object(workshop, capsys):
    assert main(["report", "cells", "nano.json", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [r["host"]["board"] for r in printed["reports"]] == ["pi4b", "pi4b", "jetson-nano"]
    Path("all.json").write_text(json.dumps(printed))
    assert main(["report", "all.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == printed


def test_a_file_that_is_there_is_kept_unless_forced(workshop, capsys):
    Path("report.html").write_text("mine")
    said = refused(capsys, "cells", "--html", "report.html")
    assert "report.html exists already" in said
    assert "--force" in said
    assert Path("report.html").read_text() == "mine"
    assert main(["report", "cells", "--html", "report.html", "--force"]) == 0
    assert Path("report.html").read_text("utf-8").startswith("<!doctype")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--html", "nano.json", "--force"], "does not end in .html"),
        (["cells", "--png", "report.jpg"], "does not end in .png"),
        (["cells", "--html", "folder.html"], "folder.html is a folder"),
        (["nowhere"], "nowhere does not exist"),
        (["runs/cells/plan.json"], "runs/cells/plan.json holds no BenchReport"),
        (["photo.jpg"], "photo.jpg is not JSON"),
        (["folder.html"], "no bench report in folder.html"),
    ],
)
def test_what_is_wrong_is_named(workshop, capsys, arguments, words):
    Path("folder.html").mkdir()
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    Path("runs/cells/plan.json").write_text("{}")
    before = Path("nano.json").read_text()
    assert words in refused(capsys, *arguments)
    assert Path("nano.json").read_text() == before


def test_a_folder_that_cannot_be_written_to_is_said_before_the_work(workshop, capsys):
    Path("file").write_text("")
    said = refused(capsys, "cells", "--html", "file/report.html", code=1)
    assert "cannot write" in said


def test_older_reports_of_a_run_are_left_out_and_counted(workshop, capsys):
    write_record(Path("runs/cells/bench/c.json"), report(71, started="2026-11-25T00:00:00+00:00"))
    assert main(["report", "cells", "--json"]) == 0
    captured = capsys.readouterr()
    assert "older reports left out: 1" in captured.err
    assert [round(r["latency_ms"]["p50"]) for r in json.loads(captured.out)["reports"]] == [140, 71]


def test_json_of_another_kind_beside_reports_is_counted(workshop, capsys):
    Path("host.json").write_text(NANO.model_dump_json())
    assert main(["report", ".", "--json"]) == 0
    captured = capsys.readouterr()
    assert "JSON files that are no bench report left out: 1" in captured.err
    assert len(json.loads(captured.out)["reports"]) == 1


def test_figures_of_zero_are_shown_everywhere(workshop, capsys):
    pytest.importorskip("matplotlib")
    nothing = LatencyMs(p50=0, p90=0, p99=0, mean=0, min=0, max=0)
    zero = {
        "latency_ms": nothing,
        "p50_interval_ms": (0, 0),
        "samples_ms": [0.0] * 9,
        "fps": 0,
        "fps_end_to_end": 0,
        "moments": [m.model_copy(update={"fps": 0.0}) for m in course(14, seconds=9)],
    }
    still = BenchReports(reports=(parent(**zero), report(**zero), report(**zero, sustained=True)))
    write_record(Path("zero.json"), still)
    assert main(["report", "zero.json", "--html", "a.html", "--png", "a.png"]) == 0
    assert main(["report", "zero.json"]) == 0
    assert "0.00" in capsys.readouterr().out


def test_only_emulated_reports_make_no_picture(workshop, capsys):
    write_record(Path("qemu.json"), report(host=PI.model_copy(update={"emulated": True})))
    pytest.importorskip("matplotlib")
    assert "no report has a speed" in refused(capsys, "qemu.json", "--png", "a.png")


def test_a_run_before_its_first_bench(workshop, capsys):
    Path("runs/barn").mkdir()
    Path("runs/barn/plan.json").write_text("{}")
    said = refused(capsys, "barn")
    assert "there is no bench report of the run runs/barn yet" in said
    assert "mend: musgd bench runs/barn" in said


def test_a_page_takes_nothing_that_a_board_lacks(workshop):
    code = (
        "import sys; from musgd_cli.__main__ import main;"
        "code = main(['report', 'cells', '--html', 'a.html', '--quiet']);"
        "names = ('torch', 'numpy', 'matplotlib', 'jinja2', 'cv2');"
        "print(code, [name for name in names if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"
