"""Latencies to be compared: models timed in turns, so that all meet the machine in one state."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import TYPE_CHECKING

from musgd_cli.bench.clock import latency
from musgd_cli.records import LatencyMs
from musgd_cli.runtime import open_engine

if TYPE_CHECKING:
    from musgd_cli.compress.artifacts import Draft

FEWEST_ROUNDS = 100
MOST_ROUNDS = 2000


def in_turns(
    drafts: Sequence[Draft], threads: int, *, warmup_s: float, duration_s: float
) -> tuple[list[LatencyMs], int]:
    """Time models in turns; each round begins with the next of them.

    Args:
        drafts: The models. Their input is seeded noise.
        threads: Of each engine.
        warmup_s: Seconds that are not counted.
        duration_s: Seconds that are, of all models together.

    Returns:
        The latency of each, and of how many inferences.
    """
    import numpy as np

    side = drafts[0].artifact.imgsz
    x = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    order = list(range(len(drafts)))
    with ExitStack() as stack:
        engines = []
        for draft in drafts:
            engine = open_engine(draft.folder, draft.runnable, threads)
            stack.callback(engine.close)
            engines.append(engine)

        def rounds(seconds: float) -> list[list[float]]:
            samples: list[list[float]] = [[] for _ in engines]
            end = perf_counter() + seconds
            while perf_counter() < end or len(samples[0]) < FEWEST_ROUNDS:
                order.append(order.pop(0))
                for i in order:
                    begin = perf_counter()
                    engines[i].infer(x)
                    samples[i].append((perf_counter() - begin) * 1e3)
                if len(samples[0]) == MOST_ROUNDS:
                    break
            return samples

        rounds(warmup_s)
        samples = rounds(duration_s)
    return [latency(times) for times in samples], len(samples[0])
