"""``musgd profiles`` as it is typed: list, show, copy, check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from musgd_cli import profiles
from musgd_cli.__main__ import main
from musgd_cli.errors import ExitCode


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSGD_BOARD", "pi400")


def test_list_marks_this_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list"]) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    for name in profiles.names():
        (line,) = (line for line in lines if name in line.split())
        assert line.lstrip().startswith("→") == (name == "pi4b")


def test_list_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "list", "--json"]) == ExitCode.DONE
    listed = json.loads(capsys.readouterr().out)
    assert listed["here"] == "pi4b"
    assert {profile["name"]: profile["train"]["imgsz"] for profile in listed["profiles"]} == {
        profile.name: profile.train.imgsz for profile in profiles.available()
    }


def test_show_prints_the_file_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "show", "pi4b"]) == ExitCode.DONE
    assert capsys.readouterr().out == profiles.read_text(profiles.find("pi4b"))


def test_a_copy_can_be_edited_checked_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "copy", "pi4b", "barn.toml"]) == ExitCode.DONE
    assert main(["profiles", "check", "barn.toml"]) == ExitCode.DONE
    barn = Path("barn.toml")
    barn.write_text(barn.read_text().replace("imgsz = 256", "imgsz = 192"))
    capsys.readouterr()
    assert main(["plan", "--target", "barn.toml", "--json"]) == ExitCode.DONE
    plan = json.loads(capsys.readouterr().out)
    assert plan["target"] == "barn"
    assert plan["settings"]["train.imgsz"]["value"] == 192
    assert plan["settings"]["train.imgsz"]["source"] == "profile barn"


def test_check_names_every_fault_and_exits_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "copy", "pi4b", "barn.toml"]) == ExitCode.DONE
    barn = Path("barn.toml")
    barn.write_text(barn.read_text().replace("imgsz = 256", "imgsz = 250\nepohcs = 3"))
    capsys.readouterr()
    assert main(["profiles", "check", "barn.toml"]) == ExitCode.CHECK_FAILED
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "error: 2 faults in barn.toml:",
        "  barn.toml: train.imgsz: 250 is not a whole number of 32 or more and a multiple of 32",
        "  barn.toml: train.epohcs: unknown key (did you mean train.epochs?)",
        "mend: correct them and run musgd profiles check barn.toml again",
    ]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["copy", "pi4b", "taken.toml"], "error: taken.toml exists already"),
        (["copy", "pi4b", "barn"], "error: barn does not end in .toml"),
        (["copy", "pi4", "barn.toml"], "did you mean pi4b?"),
        (["show", "pi4"], "did you mean pi4b?"),
        (["check", "none.toml"], "error: there is no profile none.toml"),
        (["lsit"], "error: No such command 'lsit'"),
    ],
)
def test_what_is_wrong_exits_2(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken.toml").write_text("mine")
    assert main(["profiles", *arguments]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert error in told
    assert "\nmend: " in told
    assert Path("taken.toml").read_text() == "mine"
    assert [path.name for path in Path().iterdir()] == ["taken.toml"]
