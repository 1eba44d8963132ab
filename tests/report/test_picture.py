"""The picture of reports: one PNG, whatever was measured."""

from __future__ import annotations

import sys

import pytest
from invented_reports import ESTIMATED, METERED, NANO, PI, course, null, parent, report

from musgd_cli.errors import UnsupportedError
from musgd_cli.report import picture


def height(file):
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG")
    return int.from_bytes(data[20:24], "big")


def test_each_chart_that_there_are_figures_for_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    fall = course(15.2, seconds=600, throttled_from=260)
    sets = {
        "alone": [report()],
        "accuracy": [report(), parent()],
        "energy": [report(**METERED), parent(**ESTIMATED)],
        "boards": [report(**METERED), parent(**METERED), report(18, host=NANO), null()],
        "lasting": [report(**METERED), parent(sustained=True, moments=fall, **METERED)],
    }
    heights = {}
    for name, reports in sets.items():
        picture.draw(reports, tmp_path / f"{name}.png")
        heights[name] = height(tmp_path / f"{name}.png")
    assert heights["alone"] < heights["accuracy"] < heights["energy"] < heights["lasting"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(sets)


def test_a_run_without_sensors_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    blind = [m.model_copy(update={"temperature_c": None}) for m in course(14, seconds=9)]
    bare = report(sustained=True, moments=blind, samples_ms=(), p50_interval_ms=None, map50_95=None)
    picture.draw([bare], tmp_path / "a.png")
    assert height(tmp_path / "a.png") > 0


def test_an_emulators_speed_is_not_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    emulated = PI.model_copy(update={"emulated": True})
    with pytest.raises(UnsupportedError, match="no report has a speed"):
        picture.draw([report(host=emulated)], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UnsupportedError) as caught:
        picture.draw([report()], tmp_path / "a.png")
    assert "musgd-cli[report]" in caught.value.mend
