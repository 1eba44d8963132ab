"""The table of an export: what it says in each case, and that it fits the screen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from musgd_cli.records import Artifact, ExportReport, Gate, Repair, SkippedExport
from musgd_cli.report.terminal.artifacts import export_table


def judged(**fields: Any) -> Gate:
    known: dict[str, Any] = {
        "verdict": "passed",
        "max_drop": 0.01,
        "least_matched": 0.8,
        "map50_95_drop": 0.0041,
        "interval": (-0.0032, 0.0113),
        "map50_95": 0.5939,
        "map50": 0.891,
        "recall_small": 0.857,
        "parent_map50_95": 0.598,
        "parent_map50": 0.897,
        "parent_recall_small": 1.0,
        "match_recall": 0.967,
        "match_precision": 0.981,
        "n_boxes": 700,
        "box_px": 9.1,
        "score_difference": 0.12,
        "confidence_shift": -0.01,
        "n_images": 72,
        "data": "bccd.yaml",
        "split": "test",
        "scored_by": "openvino 2026.4",
    }
    return Gate.model_validate(known | fields)


def made(runtime: str, precision: str, **fields: Any) -> Artifact:
    known: dict[str, Any] = {
        "path": f"runs/a/artifacts/jetson-nano-{runtime}-{precision}-640",
        "files": ("model",),
        "sha256": "0" * 64,
        "parent_sha256": None,
        "target": "jetson-nano",
        "runtime": runtime,
        "precision_asked": precision,
        "precision": precision,
        "imgsz": 640,
        "names": ("a",),
        "nms_free": False,
        "size_mb": 9.23,
    }
    return Artifact.model_validate(known | fields)


def shown(*artifacts: Artifact, width: int = 80, **fields: Any) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(export_table(ExportReport(artifacts=artifacts, **fields)))
    return console.file.getvalue()


PARENT = made("onnxruntime", "fp32")


def test_a_row_says_all_that_the_gate_found():
    text = shown(PARENT, made("openvino", "int8", int8_macs_share=0.9, gate=judged()))
    (row,) = (line for line in text.splitlines() if line.startswith("openvino"))
    figures = ["90%", "9.23", ".594", ".004", "-.003/.011", ".97/.98", ".857", "passed"]
    assert row.split() == ["openvino", "int8", *figures]
    assert "72 images of bccd.yaml, test: none calibrated" in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
def test_the_widest_row_fits(width):
    wide = made("onnxruntime", "mixed-int8", int8_macs_share=0.71, gate=judged(verdict="failed"))
    lines = shown(PARENT, wide, width=width).splitlines()
    (row,) = (line for line in lines if "mixed-int8" in line and "%" in line)
    assert row.rstrip().endswith("FAILED")
    assert ".857" in row


@pytest.mark.parametrize("width", [70, 60, 50, 40])
def test_a_narrow_screen_gets_fewer_columns_and_whole_figures(width):
    wide = made("onnxruntime", "mixed-int8", int8_macs_share=0.71, gate=judged(verdict="failed"))
    text = shown(PARENT, wide, width=width)
    row = next(line for line in text.splitlines() if "mixed-int8" in line)
    assert row.split()[-1] == "FAILED"
    assert ".004" in row
    assert "…" not in text


def test_the_parent_shows_its_own_accuracy_alone():
    """Models of the other head are held against a parent that has no row."""
    stranger = made("ncnn", "fp16", parent_sha256="f" * 64, gate=judged())
    assert ".598" not in shown(PARENT, stranger)
    child = made("openvino", "fp32", parent_sha256=PARENT.sha256, gate=judged())
    assert ".598" in shown(PARENT, stranger, child)


def test_a_stand_in_is_marked():
    gate = judged(has_stand_in=True, scored_by="onnxruntime 1.32 on x86_64")
    text = " ".join(shown(PARENT, made("tensorrt", "fp16", gate=gate)).split())
    assert "passed*" in text
    assert "* tensorrt does not run here: the same file was scored by onnxruntime 1.32" in text


def test_the_limits_are_all_named():
    text = " ".join(shown(PARENT, made("openvino", "int8", gate=judged())).split())
    assert "at most 0.01 of mAP50-95 lost, of the boxes at least 80% in common" in text


def test_rows_with_one_mend_stand_together():
    rows = [
        SkippedExport(target="x", runtime="openvino", why=f"{p} needs openvino", mend="pip")
        for p in ("fp32", "bf16")
    ]
    text = shown(PARENT, skipped=rows)
    assert "skipped: x openvino: fp32 needs openvino; bf16 needs openvino" in text
    assert text.count("mend:") == 1
    failed = SkippedExport(target="x", runtime="ncnn", why="broke", mend="again", exit_code=1)
    assert "failed: x ncnn: broke" in shown(PARENT, skipped=(failed,))


def test_a_failure_gives_its_reasons():
    why = "mAP50-95 drops by 0.1200 (90 % interval 0.1000 to 0.1400), over 0.01"
    text = shown(PARENT, made("ncnn", "int8", gate=judged(verdict="failed", reasons=(why,))))
    assert f"FAILED: jetson-nano ncnn int8, 640 px: {why}" in " ".join(text.split())


def test_a_repair_says_what_it_cost():
    repair = Repair(
        nodes=tuple(f"/model.{i}/conv/Conv" for i in range(9)),
        builds=3,
        drop_before=0.48,
        int8_macs_share_before=1.0,
        size_mb_before=2.9,
        time_ratio=1.08,
    )
    artifact = made(
        "onnxruntime", "int8", gate=judged(), repair=repair, int8_macs_share=0.87, size_mb=3.4
    )
    text = " ".join(shown(PARENT, artifact).split())
    assert "3 repairs were tried; the first within the limits, by these same images," in text
    assert "in float: drop .480 -> .004" in text
    assert "int8 MACs 100% -> 87%, 2.90 -> 3.40 MB, 1.08 x the time" in text
    assert "and 3 more" in text


def test_another_precision_than_asked_is_said():
    text = " ".join(shown(PARENT, made("ncnn", "mixed-int8", precision_asked="int8")).split())
    assert "jetson-nano ncnn mixed-int8, 640 px: int8 was asked for" in text


def test_what_was_not_held_against_its_parent_says_so():
    assert "no data" in shown(PARENT, made("ncnn", "fp16"))


def test_what_was_skipped_stands_with_its_mend():
    row = SkippedExport(target="pi4b", runtime="litert", why="int8 needs x", mend="pip install x")
    text = shown(PARENT, skipped=(row,))
    assert "skipped: pi4b litert: int8 needs x" in text
    assert "mend: pip install x" in text
    assert text.rstrip().endswith("next: musgd bench runs/a")
