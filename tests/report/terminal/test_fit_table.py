"""The planner's answer for people: what it says, and that it fits the screen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from made_reports import HOST
from rich.console import Console

from musgd_cli.records import BenchSettings, Fit, FitCandidate, Roofline
from musgd_cli.report.terminal.fit import fit_table


def candidate(imgsz: int, **fields: Any) -> FitCandidate:
    known: dict[str, Any] = {
        "artifact": f"runs/a/artifacts/pi4b-onnxruntime-mixed-int8-{imgsz}",
        "artifact_sha256": "a" * 64,
        "target": "pi4b",
        "runtime": "onnxruntime",
        "precision": "mixed-int8",
        "imgsz": imgsz,
        "threads": 4,
        "map50_95": 0.3 + imgsz / 10000,
        "map50_95_drop": 0.01,
        "predicted_fps": 12800 / imgsz,
        "predicted_by": "roofline",
    }
    return FitCandidate.model_validate(known | fields)


def measured(imgsz: int, fps: float, meets: bool, **fields: Any) -> FitCandidate:
    return candidate(
        imgsz,
        fps=fps,
        fps_interval=(fps * 0.98, fps * 1.02),
        stable=True,
        counted_fps=fps * 0.98,
        meets=meets,
        why=None if meets else "too slow",
        **fields,
    )


CHOSEN, LARGER = measured(320, 41.23, True), measured(416, 28.71, False)


def answer(**fields: Any) -> Fit:
    known: dict[str, Any] = {
        "host": HOST,
        "fps": 35,
        "watts": None,
        "max_drop": None,
        "data": None,
        "accuracy_by": "gate",
        "chosen": CHOSEN,
        "nearest": None,
        "step_larger": LARGER,
        "candidates": (candidate(640), LARGER, CHOSEN, candidate(256), candidate(160)),
        "rooflines": (
            Roofline(
                runtime="onnxruntime",
                precision="mixed-int8",
                target="pi4b",
                threads=4,
                overhead_ms=2,
                ms_per_megapixel=200,
                points=((160, 7.1), (640, 84)),
            ),
        ),
        "prediction_error": 0.07,
        "settings": BenchSettings(threads=0, duration_s=10, repeats=5, warmup_s=2, idle_s=0),
    }
    return Fit.model_validate(known | fields)


def printed(fit: Fit, width: int = 120) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(fit_table(fit))
    return stream.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_answer_comes_first_with_what_shows_it() -> None:
    text = printed(answer())
    lines = text.splitlines()
    assert lines[0] == "35 FPS: ONNX Runtime mixed-int8, 320 px, 4 threads"
    assert "41.2 (40.4 to 42.1) FPS, whole frames, mAP50-95 0.332" in lines[1]
    assert "416 px, 4 threads: 28.7 (28.1 to 29.3) FPS, which misses it" in lines[2]
    assert text.rstrip().endswith(
        "musgd bench runs/a/artifacts/pi4b-onnxruntime-mixed-int8-320 --threads 4"
    )


def test_the_table_goes_down_to_the_answer_and_counts_the_rest() -> None:
    text = printed(answer())
    assert "640 px" in text
    assert "256 px" not in text
    assert "less accurate than the answer: 2 artifacts" in text
    assert "off by up to 7%" in words(text)


def test_where_nothing_meets_it_the_nearest_is_said() -> None:
    nearest = measured(160, 30.5, False)
    text = printed(
        answer(chosen=None, step_larger=None, nearest=nearest, candidates=(candidate(320), nearest))
    )
    assert "nothing here meets it" in text.splitlines()[0]
    assert "nearest: ONNX Runtime mixed-int8, 160 px, 4 threads: 30.5" in text
    assert "next:" not in text


def test_a_step_larger_that_is_no_more_accurate_is_said() -> None:
    text = words(printed(answer(step_larger=measured(416, 36.0, True))))
    assert "which meets it too, and is no more accurate" in text


def test_a_step_larger_that_only_may_miss_is_said_so() -> None:
    text = words(printed(answer(step_larger=measured(416, 35.3, False))))
    assert "35.3 (34.6 to 36.0) FPS, which may miss it" in text


def test_a_step_larger_that_misses_by_its_watts_alone_is_said_so() -> None:
    why = "7.00 W, at most 6.5 asked for"
    hungry = measured(416, 40.0, False, power_w=7.0).model_copy(update={"why": why})
    text = words(printed(answer(watts=6.5, step_larger=hungry)))
    assert f"40.0 (39.2 to 40.8) FPS, which is fast enough, but: {why}" in text
    unsure = measured(416, 35.3, False, power_w=7.0)
    assert "36.0) FPS, which misses it" in words(printed(answer(watts=6.5, step_larger=unsure)))


def test_an_unstable_answer_is_said_beside_it() -> None:
    shaky = CHOSEN.model_copy(update={"stable": False})
    assert "unstable: other programs or heat" in printed(answer(chosen=shaky)).splitlines()[2]
    assert "unstable: other" not in printed(answer())


def test_the_largest_size_has_no_step_larger() -> None:
    assert "it is the largest image size of its kind here" in printed(answer(step_larger=None))


def test_larger_sizes_that_were_left_out_are_no_smaller_than_it() -> None:
    out = [candidate(size, predicted_fps=None, why="its gate failed") for size in (640, 416)]
    text = printed(answer(step_larger=None, candidates=(*out, CHOSEN)))
    assert "one step larger was left out: ONNX Runtime mixed-int8, 416 px" in words(text)
    assert "largest image size" not in text
    other = candidate(640, why="its gate failed", runtime="ncnn")
    assert "largest image size" in printed(answer(step_larger=None, candidates=(other, CHOSEN)))


def test_what_was_left_out_says_why() -> None:
    out = candidate(640, predicted_fps=None, predicted_by=None, why="it failed its gate")
    text = printed(answer(candidates=(LARGER, CHOSEN, out)))
    assert "left out: pi4b-onnxruntime-mixed-int8-640: it failed its gate" in text


def test_watts_have_their_column_and_their_meter() -> None:
    hungry = measured(320, 41.23, True, power_w=6.123)
    text = printed(
        answer(
            watts=6.5, chosen=hungry, candidates=(hungry,), power_by="measured by psu, of the board"
        )
    )
    assert text.startswith("35 FPS, at most 6.5 W at full speed: ")
    assert text.count("6.12") == 2
    assert "power: measured by psu, of the board" in text


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_screen_and_no_figure_is_cut(width: int) -> None:
    text = printed(answer(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert "41.2 (40.4 to 42.1)" in text.split("most accurate first")[1]
