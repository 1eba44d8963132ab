"""Timing: when latency counts as steady, that each stage's time is its own, what is kept."""

from __future__ import annotations

import gc
import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.bench import clock
from musgd_cli.bench.clock import FrameLoop, latency, warm_up

IMAGE = np.zeros((4, 4, 3), np.uint8)


class Frames:
    """Frames of given latencies on a clock that only they move."""

    def __init__(self, latencies_ms) -> None:
        self._latencies_ms = iter(latencies_ms)
        self.now_ns = 0

    def __call__(self) -> float:
        latency_ms = next(self._latencies_ms)
        self.now_ns += int(latency_ms * 1e6)
        return latency_ms

    def clock(self) -> int:
        return self.now_ns

    def warm_up(self, at_least_s: float) -> clock.WarmUp:
        return warm_up(self, at_least_s, self.clock)


def test_steady_from_the_start_takes_three_windows() -> None:
    warm = Frames(itertools.repeat(10.0)).warm_up(0)
    assert warm.steady
    assert warm.seconds == pytest.approx(3 * clock.WINDOW_S, rel=0.05)
    assert warm.n == pytest.approx(3 * clock.WINDOW_S * 100, rel=0.05)


def test_it_goes_on_while_latency_falls() -> None:
    falling = (50 * 0.997**i for i in range(600))  # 14 s of it
    warm = Frames(itertools.chain(falling, itertools.repeat(10.0))).warm_up(2.0)
    assert not warm.steady
    assert warm.seconds > 2 * clock.PATIENCE

    settles = (50 * 0.9**i + 10 for i in range(100))
    warm = Frames(itertools.chain(settles, itertools.repeat(10.0))).warm_up(1.0)
    assert warm.steady
    assert warm.seconds > 3 * clock.WINDOW_S


def test_it_lasts_as_long_as_was_asked() -> None:
    warm = Frames(itertools.repeat(10.0)).warm_up(7.0)
    assert warm.steady
    assert 7 <= warm.seconds < 8


def test_restless_latency_ends_in_good_time() -> None:
    drifting = itertools.cycle([10.0] * 50 + [12.0] * 50)
    warm = Frames(drifting).warm_up(1.0)
    assert not warm.steady
    assert clock.PATIENCE <= warm.seconds < clock.PATIENCE + 1.5
    # Steadiness takes three windows; without any patience a fourth one is granted.
    assert Frames(itertools.cycle([10.0] * 50 + [12.0] * 50)).warm_up(0).seconds < 3


def test_rare_outliers_do_not_unsettle() -> None:
    spikes = itertools.cycle([10.0] * 19 + [80.0])
    assert Frames(spikes).warm_up(0).steady


def test_slow_frames_still_fill_windows() -> None:
    warm = Frames(itertools.repeat(3000.0)).warm_up(0)
    assert warm.steady
    assert warm.n == 3 * clock.WINDOW_FRAMES


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=200))
def test_percentiles_are_in_order_and_within_the_samples(samples: list[float]) -> None:
    result = latency(samples)
    ordered = (result.min, result.p50, result.p90, result.p99, result.max)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(ordered))
    assert result.min == min(samples)
    assert result.max == max(samples)
    assert result.p50 == pytest.approx(np.median(samples))


class Sleeper:
    """Stages that take a known time, and that note what they are given."""

    def __init__(self, pre: float = 0, infer: float = 0, post: float = 0) -> None:
        self.seconds = (pre, infer, post)
        self.collecting: list[bool] = []
        self.images: list[int] = []

    def prepare(self, image: np.ndarray) -> np.ndarray:
        self.images.append(int(image.flat[0]))
        time.sleep(self.seconds[0])
        return image

    def infer(self, x: np.ndarray) -> np.ndarray:
        self.collecting.append(gc.isenabled())
        time.sleep(self.seconds[1])
        return x

    def decode(self, output: np.ndarray) -> None:
        time.sleep(self.seconds[2])


def test_each_stage_has_its_own_time() -> None:
    times = FrameLoop(Sleeper(0.004, 0.016, 0.008), [IMAGE]).run(0.3)
    p50s = [float(np.median(stage)) for stage in (times.pre_ms, times.infer_ms, times.post_ms)]
    # Sleeps overrun, on a busy machine by much; they never fall short.
    assert all(slept <= p50 < slept + 8 for slept, p50 in zip((4, 16, 8), p50s, strict=True))
    assert times.seconds >= 0.3
    assert times.cpu_s < times.seconds  # it slept
    ((middle_s, fps),) = times.pace
    assert middle_s == pytest.approx(times.seconds / 2, rel=0.05)
    assert fps <= 1000 / 28


def test_few_frames_are_timed_however_long_they_take() -> None:
    times = FrameLoop(Sleeper(infer=0.001), [IMAGE]).run(0.0)
    assert len(times.infer_ms) == clock.FEWEST_FRAMES


def test_the_loop_alone_takes_next_to_nothing() -> None:
    assert 0 < clock.harness_ms() < 0.15


def test_begin_and_end_are_told_right_around_the_loop() -> None:
    told: list[str] = []
    sleeper = Sleeper()
    loop = FrameLoop(sleeper, [IMAGE])
    before = time.time()
    times = loop.run(
        0.0,
        at_least=2,
        on_begin=lambda: told.append(f"begin {len(sleeper.images)} {gc.isenabled()}"),
        on_end=lambda: told.append(f"end {len(sleeper.images)}"),
    )
    # Garbage is collected before it: it is no part of what is measured.
    assert told == ["begin 0 False", "end 2"]
    assert before <= times.began <= time.time()


def test_pace_follows_what_slows_down() -> None:
    fast, slow = np.full(200, 0.01), np.full(50, 0.04)
    moments = clock.pace(np.concatenate((fast, slow)).cumsum())
    assert [round(fps) for _, fps in moments] == [100, 100, 25, 25]
    assert [middle for middle, _ in moments] == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=0.05)


def test_a_long_run_has_longer_moments() -> None:
    moments = clock.pace(np.full(60_000, 0.1).cumsum())
    assert len(moments) <= clock.MOST_MOMENTS
    assert [fps for _, fps in moments] == pytest.approx([10.0] * len(moments))


@given(st.lists(st.floats(0.001, 3), min_size=1, max_size=300))
def test_no_frame_is_lost_in_the_moments(frames_s: list[float]) -> None:
    ends_s = np.cumsum(frames_s)
    moments = clock.pace(ends_s)
    begin, n = 0.0, 0.0
    for middle, fps in moments:  # each begins where the last ended
        length = 2 * (middle - begin)
        n += fps * length
        begin += length
    assert begin == pytest.approx(ends_s[-1])
    assert n == pytest.approx(len(frames_s))


def test_images_go_round() -> None:
    sleeper = Sleeper()
    FrameLoop(sleeper, [IMAGE, IMAGE + 1, IMAGE + 2]).run(0.0, at_least=7)
    assert sleeper.images == [0, 1, 2, 0, 1, 2, 0]


def test_no_garbage_is_collected_in_the_loop_and_again_after_it() -> None:
    sleeper = Sleeper()
    FrameLoop(sleeper, [IMAGE]).run(0.0)
    assert not any(sleeper.collecting)
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure() -> None:
    class Broken(Sleeper):
        def infer(self, x: np.ndarray) -> np.ndarray:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        FrameLoop(Broken(), [IMAGE]).run(1.0)
    assert gc.isenabled()
