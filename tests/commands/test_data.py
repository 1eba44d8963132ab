from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from musgd_cli.__main__ import main


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A set whose class named like rich markup must come through as it is."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for number in range(7):
            image = np.random.default_rng([number, len(split)]).integers(
                0, 256, (40, 40, 3), np.uint8
            )
            cv2.imwrite(str(tmp_path / "images" / split / f"{number}.png"), image)
            (tmp_path / "labels" / split / f"{number}.txt").write_text("0 .5 .5 .2 .2\n")
    file = tmp_path / "cells [1].yaml"
    file.write_text("train: images/train\nval: images/val\nnames: ['[red]cell[/]']\n")
    return file


def test_a_sound_set_is_shown_on_stdout(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(cells)]) == 0
    shown = capsys.readouterr()
    assert "[red]cell[/]" in shown.out
    assert "cells [1].yaml" in shown.out
    assert "no faults" in shown.out
    assert "14 images" in shown.err


def test_errors_are_listed_and_exit_with_4(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(7):
        (cells.parent / f"labels/train/{number}.txt").write_text("3 .5 .5 .2 .2\n")
    assert main(["data", "check", str(cells.parent)]) == 4
    shown = capsys.readouterr()
    assert "error: class out of range (7)" in shown.out
    assert "labels/train/0.txt:1: class 3 is not in 0 to 0" in shown.out
    assert "and 2 more" in shown.out  # one screen, however many
    assert "error: " in shown.err
    assert "8 errors" in shown.err  # the seven rows, and no box left to train on
    assert "mend: " in shown.err
    assert "Traceback" not in shown.err


def test_a_fault_is_shown_whole_where_columns_are_few(
    cells: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    (cells.parent / "labels/train/0.txt").write_text("3 .5 .5 .2 .2\n")
    assert main(["data", "check", str(cells)]) == 4
    shown = capsys.readouterr().out
    assert "labels/train/0.txt:1: class 3 is not in 0 to 0" in shown
    assert "…" not in shown  # a count or a size that is cut is another one


def test_json_is_the_whole_report(cells: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(7):
        (cells.parent / f"labels/train/{number}.txt").write_text("3 .5 .5 .2 .2\n")
    assert main(["data", "check", str(cells), "--json"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert len(report["faults"]) == 7 + 2
    assert report["schema"]
    assert report["splits"][0]["n_images"] == 7


def test_a_missing_set_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "nowhere.yaml"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "nowhere.yaml does not exist" in shown.err
