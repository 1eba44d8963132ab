"""A roofline through two measured sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.bench.roofline import Line


@given(st.floats(0.01, 50), st.floats(1, 5000), st.sampled_from(range(32, 1281, 32)))
def test_it_recovers_the_law_it_was_drawn_through(
    overhead_ms: float, ms_per_megapixel: float, imgsz: int
) -> None:
    def frame_ms(size: int) -> float:
        return overhead_ms + ms_per_megapixel * size * size / 1e6

    line = Line.through((160, frame_ms(160)), (640, frame_ms(640)))
    assert line.overhead_ms == pytest.approx(overhead_ms, rel=1e-6, abs=1e-6)
    assert line.ms_per_megapixel == pytest.approx(ms_per_megapixel)
    assert line.fps(imgsz) == pytest.approx(1000 / frame_ms(imgsz))


def test_between_the_points_it_predicts_between_them() -> None:
    line = Line.through((160, 10.0), (640, 70.0))
    assert line.fps(160) == pytest.approx(100)
    assert line.fps(640) == pytest.approx(1000 / 70)
    assert line.fps(416) == pytest.approx(1000 / (10 + 60 * (416**2 - 160**2) / (640**2 - 160**2)))
