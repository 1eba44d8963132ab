"""The picture of reports: what is drawn, whatever was measured."""

from __future__ import annotations

import sys

import pytest
from invented_reports import ESTIMATED, METERED, NANO, PI, course, null, parent, report

from musgd_cli.errors import UnsupportedError, UsageError
from musgd_cli.report import picture

INT8 = {
    "artifact": "runs/cells/artifacts/pi4b-ncnn-int8-320",
    "artifact_sha256": "int8",
    "precision": "int8",
}


@pytest.fixture(autouse=True)
def matplotlib():
    pytest.importorskip("matplotlib")


def panels(*reports):
    """Return each panel by the first words of its title."""
    return {axes.get_title("left").split(",")[0]: axes for axes in picture.figure_of(reports).axes}


def marks(panel):
    """Return where each mark is, and its line."""
    lines = [line for line in panel.lines if line.get_marker() not in ("None", None)]
    return {(line.get_xdata()[0], line.get_ydata()[0]): line for line in lines}


def dotted(panel):
    return [line for line in panel.lines if line.get_linestyle() == ":"]


def texts(panel):
    return [text.get_text() for text in panel.texts]


def test_each_chart_that_there_are_figures_for_is_drawn():
    latency, energy = "accuracy against latency", "accuracy against energy"
    spread = "latency: fastest to p99"
    lasting = report(sustained=True, moments=course(14, seconds=9))
    course_titles = ["whole frames a second through the run", "temperature"]
    assert list(panels(report())) == [spread]
    assert list(panels(report(), parent())) == [latency, spread]
    assert list(panels(report(**METERED), parent(**ESTIMATED))) == [latency, energy, spread]
    assert list(panels(lasting, parent())) == [latency, spread, *course_titles]
    two = [report(), parent(), *(r(data="/d/coco.yaml") for r in (report, parent))]
    titles = [axes.get_title("left") for axes in picture.figure_of(two).axes]
    assert titles[:2] == [
        "accuracy against latency, bccd.yaml, test (72 images)",
        "accuracy against latency, coco.yaml, test (72 images)",
    ]


def test_the_front_steps_through_what_no_other_beats():
    beaten = report(200, **INT8, map50_95=0.5)
    panel = panels(parent(map50_95=0.61), report(), beaten)["accuracy against latency"]
    assert set(marks(panel)) == {(140.2, 0.61), (70.12, 0.5983), (200, 0.5)}
    (front,) = dotted(panel)
    assert front.get_drawstyle() == "steps-post"
    assert list(front.get_xdata())[:2] == [70.12, 140.2]
    assert list(front.get_ydata()) == [0.5983, 0.61, 0.61]
    assert front.get_xdata()[-1] >= 200


def test_an_estimate_is_hollow_and_off_the_front():
    cheap = report(**{**ESTIMATED, "energy_per_frame_j": 0.01})
    panel = panels(parent(**METERED), cheap)["accuracy against energy"]
    drawn = marks(panel)
    assert drawn[0.01, 0.5983].get_markerfacecolor() == "white"
    assert drawn[0.3571, 0.5983].get_markerfacecolor() != "white"
    (front,) = dotted(panel)
    assert 0.01 not in front.get_xdata()
    assert "hollow: estimated" in panel.get_title("right")


def test_each_board_has_a_front_and_a_wide_range_is_logarithmic():
    panel = panels(report(), parent(), report(12, host=NANO), null())["accuracy against latency"]
    assert len(dotted(panel)) == 2
    assert panel.get_xscale() == "log"
    near = panels(report(), parent())["accuracy against latency"]
    assert near.get_xscale() == "linear"


def test_points_and_rows_bear_their_names_and_medians():
    drawn = panels(report(), parent())
    assert set(texts(drawn["accuracy against latency"])) == {"ncnn fp16", "ONNX Runtime fp32"}
    assert texts(drawn["latency: fastest to p99"]) == [
        "ncnn fp16",
        "70.1 ms",
        "ONNX Runtime fp32",
        "140 ms",
    ]


def test_a_sustained_run_is_drawn_from_its_moments():
    fall = course(15.2, seconds=600, throttled_from=260)
    drawn = panels(parent(sustained=True, moments=fall))
    (speed,) = drawn["whole frames a second through the run"].lines
    (heat,) = drawn["temperature"].lines
    assert list(speed.get_ydata()) == [moment.fps for moment in fall]
    assert list(heat.get_ydata()) == [moment.temperature_c for moment in fall]


def test_a_run_without_sensors_is_drawn_and_says_so():
    blind = [m.model_copy(update={"temperature_c": None}) for m in course(14, seconds=9)]
    bare = report(sustained=True, moments=blind, samples_ms=(), p50_interval_ms=None, map50_95=None)
    assert texts(panels(bare)["temperature"]) == ["not measured here"]


def test_it_is_a_png_even_of_names_that_look_like_formulas(tmp_path):
    board = PI.model_copy(update={"board": r"$\frac$ and 3$"})
    made = [report(host=board), report(host=NANO), parent(data=r"/d/$x_$_$\bad$.yaml")]
    picture.draw(made, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_emulators_speed_is_not_drawn(tmp_path):
    emulated = PI.model_copy(update={"emulated": True})
    with pytest.raises(UsageError, match="no report has a speed"):
        picture.draw([report(host=emulated)], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnsupportedError) as caught:
        picture.draw([report()], tmp_path / "a.png")
    assert "[report]'" in caught.value.mend
