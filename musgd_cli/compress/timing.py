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
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.compress.artifacts import Draft

FEWEST_ROUNDS = 100
MOST_ROUNDS = 2000


def noise(imgsz: int) -> NDArray[np.float32]:
    """Return a network input of seeded noise, (1, 3, imgsz, imgsz), 0 to 1."""
    import numpy as np

    return np.random.default_rng(0).random((1, 3, imgsz, imgsz), dtype=np.float32)


def in_turns(
    drafts: Sequence[Draft],
    threads: int,
    *,
    warmup_s: float,
    duration_s: float,
    at_least: int = FEWEST_ROUNDS,
) -> tuple[list[LatencyMs], int]:
    """Time models in turns; each round begins with the next of them.

    Args:
        drafts: The models. Their input is seeded noise.
        threads: Of each engine.
        warmup_s: Seconds that are not counted; a tenth of ``at_least`` rounds, if they take longer.
        duration_s: Seconds that are, of all models together.
        at_least: Rounds that are timed however long they take.

    Returns:
        The latency of each, and of how many inferences.
    """
    x = noise(drafts[0].artifact.imgsz)
    order = list(range(len(drafts)))
    with ExitStack() as stack:
        engines = []
        for draft in drafts:
            engine = open_engine(draft.folder, draft.runnable, threads)
            stack.callback(engine.close)
            engines.append(engine)

        def rounds(seconds: float, fewest: int) -> list[list[float]]:
            samples: list[list[float]] = [[] for _ in engines]
            end = perf_counter() + seconds
            while perf_counter() < end or len(samples[0]) < fewest:
                order.append(order.pop(0))
                for i in order:
                    begin = perf_counter()
                    engines[i].infer(x)
                    samples[i].append((perf_counter() - begin) * 1e3)
                if len(samples[0]) == MOST_ROUNDS:
                    break
            return samples

        rounds(warmup_s, max(1, at_least // 10))
        samples = rounds(duration_s, at_least)
    return [latency(times) for times in samples], len(samples[0])
