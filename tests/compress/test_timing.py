"""Models timed in turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_artifact

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from musgd_cli.compress import timing
from musgd_cli.compress.artifacts import Draft


def test_noise_is_the_same_each_time():
    first, second = timing.noise(64), timing.noise(64)
    assert first.shape == (1, 3, 64, 64)
    assert first.dtype == np.float32
    assert (first == second).all()
    assert 0 <= first.min() < 0.01 < 0.99 < first.max() < 1


@pytest.mark.parametrize("at_least", [7, 30])
def test_so_many_rounds_however_short_the_time(tmp_path: Path, at_least: int):
    drafts = []
    for name in "ab":
        artifact = tiny_artifact.make_onnx(tmp_path / name)
        drafts.append(Draft(tmp_path / name, artifact, artifact, np.zeros(1, np.float32)))
    found, n = timing.in_turns(drafts, 1, warmup_s=0, duration_s=0, at_least=at_least)
    assert n == at_least
    assert len(found) == 2
    assert all(0 < latency.min <= latency.p50 <= latency.max for latency in found)
