"""The table of ``--against``: what it says in each case, and that it fits the screen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from made_reports import METERED, report
from rich.console import Console

from musgd_cli.bench.comparison import compare
from musgd_cli.records import BenchReport
from musgd_cli.report.terminal.comparison import comparison_table

STEADY = (20.0, 20.2, 19.8, 20.1, 19.9)


def printed(here: list[BenchReport], there: list[BenchReport], width: int = 160) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(comparison_table(compare(here, there)))
    return stream.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_row_has_both_figures_the_ratio_its_interval_and_what_it_tells() -> None:
    text = printed([report([ms * 1.1 for ms in STEADY], map50_95=0.54)], [report(STEADY)])
    (row,) = (line for line in text.splitlines() if "pi4b-ncnn-int8-320" in line)
    assert "4 threads" in row
    assert "22.0 20.0 1.100x 1.0" in words(row)
    assert "slower" in row
    assert "-0.010" in row
    assert "Welch's interval" in text
    assert "energy" not in text  # of neither report


@pytest.mark.parametrize(
    ("here", "there", "line"),
    [
        ({}, {"split": "test"}, "accuracy not compared: scored on squares.yaml val, 40 images"),
        ({**METERED}, {**METERED, "power_source": "psu"}, "power not compared: measured by hwmon"),
        ({}, {"governor": "powersave"}, "governor: unknown here, powersave then"),
        ({"throttled": True}, {}, "the processor was throttled here"),
    ],
)
def test_what_was_not_the_same_is_said(
    here: dict[str, Any], there: dict[str, Any], line: str
) -> None:
    assert line in words(printed([report(**here)], [report(**there)]))


def test_power_that_neither_measured_is_not_worth_a_line() -> None:
    assert "power not compared" not in printed([report()], [report()])


def test_too_few_repeats_are_said_once() -> None:
    few = [report((20.0,)), report((20.0,), threads=1)]
    text = printed(few, few)
    assert text.count("fewer than 3 repeats") == 1
    assert "Welch" not in text
    assert "cannot be told" in text


def test_one_without_counterpart_is_named() -> None:
    text = words(printed([report(), report(precision="fp16", threads=1)], [report()]))
    assert "1 thread: it is not compared: the baseline has no report of runtime ncnn" in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_it_fits_the_screen_and_no_figure_is_cut(width: int) -> None:
    noisy = (16.0, 24.0, 20.0, 18.0, 22.0)
    reports = [report(noisy, **METERED), report(noisy, threads=1, **METERED)]
    text = printed(reports, reports, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("no difference shown") == 2
