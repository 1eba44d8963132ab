"""The table of a pruning: what its notes and its verdict say."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from musgd_cli.records import Gate, Host, LatencyMs, PruneResult, PruneStage
from musgd_cli.report.terminal.pruning import pruning_table


def stage(p50: float, score: float) -> PruneStage:
    return PruneStage(
        map50_95=score,
        map50=score,
        recall_small=None,
        macs=400_000_000,
        parameters=2_000_000,
        size_mb=9.1,
        latency_ms=LatencyMs(p50=p50, p90=p50, p99=p50, mean=p50, min=p50, max=p50),
    )


def gate(**fields: Any) -> Gate:
    known: dict[str, Any] = dict.fromkeys(Gate.model_fields) | {
        "verdict": "passed",
        "reasons": (),
        "max_drop": 0.04,
        "map50_95_drop": 0.0123,
        "interval": (0.0011, 0.0234),
        "n_boxes": 40,
        "n_images": 72,
        "data": "bccd.yaml",
        "split": "test",
        "scored_by": "onnxruntime 1.32.0",
        "has_stand_in": False,
    }
    return Gate.model_validate(known | fields)


def printed(**fields: Any) -> str:
    result = PruneResult.model_validate(
        {
            "run": "bccd-pruned",
            "weights": "weights/best.pt",
            "sha256": "child",
            "parent": "runs/bccd/weights/best.pt",
            "parent_sha256": "parent",
            "asked": "ratio",
            "wanted": 0.3,
            "max_drop": 0.04,
            "removed": 0.31,
            "macs_share": 0.55,
            "speedup": 1.25,
            "widths": {},
            "before": stage(10, 0.6),
            "pruned": stage(8, 0.1),
            "tuned": stage(8, 0.588),
            "gate": gate(),
            "distilled": False,
            "epochs": 10,
            "imgsz": 256,
            "nms_free": True,
            "threads": 1,
            "n": 1000,
            "seed": 0,
            "host": Host(board="x86-cpu"),
            **fields,
        }
    )
    stream = io.StringIO()
    Console(file=stream, width=300, highlight=False).print(pruning_table(result, "runs/bccd-p"))
    return stream.getvalue()


def test_a_verdict_that_stands_is_given_with_its_figures() -> None:
    text = printed()
    assert "gate: passed, mAP50-95 lost: 0.0123 (90 % interval 0.0011 to 0.0234)" in text
    (tuned,) = (line for line in text.splitlines() if line.startswith("fine-tuned"))
    assert tuned.split()[1] == "0.588"
    assert text.count("1.25 x") == 2


def test_of_one_that_is_unclear_the_reasons_are_said() -> None:
    reasons = ("the float parent finds next to nothing: its mAP50-95 is 0.0002", "too few images")
    text = printed(gate=gate(verdict="inconclusive", reasons=reasons))
    assert f"gate: unclear: {'; '.join(reasons)}" in text


@pytest.mark.parametrize(
    ("split", "said"), [("val", "val, which also chose the epoch\n"), ("test", "bccd.yaml, test\n")]
)
def test_images_that_chose_the_epoch_are_not_called_unseen(split: str, said: str) -> None:
    assert said in printed(gate=gate(split=split))


@pytest.mark.parametrize(("asked", "is_said"), [("speedup", True), ("ratio", False)])
def test_the_two_figures_of_speed_are_told_apart(asked: str, is_said: bool) -> None:
    text = printed(asked=asked)
    assert ("--speedup went by the least of the samples" in text) == is_said
