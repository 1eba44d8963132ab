"""``musgd doctor`` as people and scripts call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from musgd_cli.__main__ import main
from musgd_cli.records import DoctorReport

BOARDS = Path(__file__).parents[1] / "boards"
HEAVY = [
    "torch",
    "ultralytics",
    "onnx",
    "onnxruntime",
    "openvino",
    "ncnn",
    "nncf",
    "numpy",
    "cv2",
    "matplotlib",
    "tensorrt",
]


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["doctor", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_json_of_every_recorded_board(capsys: pytest.CaptureFixture[str]) -> None:
    for tree in sorted(BOARDS.iterdir()):
        _, out, _ = run("--root", str(tree), "--json", capsys=capsys)
        report = DoctorReport.parse(json.loads(out))
        first = tree.name.removeprefix("emulated-")
        if tree.name != "wsl":
            assert first.startswith(report.host.board), tree.name
        assert report.profile, tree.name
        assert report.checks, tree.name


def test_json_has_what_scripts_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("--json", capsys=capsys)
    assert code in (0, 4)
    report = json.loads(out)
    assert report.keys() >= {"schema", "host", "profile", "checks"}
    assert report["checks"][0].keys() >= {"name", "ok", "found", "needed", "mend"}
    assert report["host"]["python"] == ".".join(map(str, sys.version_info[:3]))
    if code == 0:
        assert err == ""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pi4b", 0),
        ("jetson-nano", 0),
        ("x86-cpu", 0),
        ("pi4b-32bit", 4),
        ("jetson-nano-mainline", 4),
    ],
)
def test_exit_code_tells_whether_something_is_in_the_way(
    name: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    got, _, err = run("--root", str(BOARDS / name), capsys=capsys)
    assert got == code
    assert err.startswith("error: ") == (code == 4)
    assert ("\nmend: " in err) == (code == 4)


def test_table_shows_facts_checks_and_mends(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("--root", str(BOARDS / "pi4b-ina219"), capsys=capsys)
    for text in (
        "Raspberry Pi 4 Model B Rev 1.5",
        "Cortex-A72 · 4 cores · asimd",
        "3793 MB",
        "ina219:hwmon2",
        "under-voltage, throttled",
        "! clocks: use the board's own power supply",
        "1 could be better",
    ):
        assert text in out
    assert "None" not in out


@pytest.mark.parametrize(("name", "nearest"), [("pi4b", False), ("pi5", True)])
def test_a_borrowed_profile_is_owned_up_to(
    name: str, nearest: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run("--root", str(BOARDS / name), capsys=capsys)
    assert (f"the nearest: none is made for {name}" in out) == nearest


def test_mends_can_be_copied_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = run("--root", str(BOARDS / "pi4b"), capsys=capsys)
    assert any("INA219" in line and "config.txt" in line for line in out.splitlines())


def test_quiet_leaves_out_what_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("--root", str(BOARDS / "pi4b"), "--quiet", capsys=capsys)
    assert "power meter" in out
    assert "memory" not in out


def test_a_root_that_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run("--root", str(tmp_path / "gone"), "--json", capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_an_unknown_musgd_board(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSGD_BOARD", "toaster")
    code, out, err = run(capsys=capsys)
    assert (code, out) == (2, "")
    assert "MUSGD_BOARD=toaster names no board" in err


def test_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys\nfrom musgd_cli.__main__ import main\nmain(['doctor'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
