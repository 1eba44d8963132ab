"""How fast ncnn's int8 is: ``python benchmarks/ncnn_int8.py INT8 FLOAT [FLOAT …]``.

Each argument is an artifact's folder, all of one size. The engines take turns on one input in one
process, so that what the machine does meanwhile weighs on all; with one thread the clock is the
thread's CPU time, which other programs hardly touch. Shown are each one's median, the median of
INT8's ratio to it over the rounds, and the size of its files against the others'. Exits with 4
where a limit is passed: INT8 takes at most 0.80 of the time of each FLOAT.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from musgd_cli.runs import read_artifact
from musgd_cli.runtime import open_engine

WARMUP = 5
LIMIT = 0.80


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("int8", type=Path)
    parser.add_argument("floats", type=Path, nargs="+", metavar="FLOAT")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    folders = [options.int8, *options.floats]
    artifacts = [read_artifact(folder) for folder in folders]
    sizes = {artifact.imgsz for artifact in artifacts}
    if len(sizes) != 1:
        parser.error(f"the artifacts are of {', '.join(map(str, sorted(sizes)))} px")
    engines = [
        open_engine(folder, artifact, options.threads)
        for folder, artifact in zip(folders, artifacts, strict=True)
    ]
    (side,) = sizes
    x = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    rounds = []
    for number in range(WARMUP + options.rounds):
        taken = []
        for engine in engines:
            begin = clock()
            engine.infer(x)
            taken.append((clock() - begin) * 1e3)
        if number >= WARMUP:
            rounds.append(taken)
    passed = True
    for index, artifact in enumerate(artifacts):
        median = statistics.median(taken[index] for taken in rounds)
        line = f"{artifact.runtime} {artifact.precision}: {median:.2f} ms, {artifact.size_mb} MB"
        if index:
            ratio = statistics.median(taken[0] / taken[index] for taken in rounds)
            share = artifacts[0].size_mb / artifact.size_mb
            line += f"; int8 takes {ratio:.3f} of its time and {share:.3f} of its size"
            passed = passed and ratio <= LIMIT
        print(line)
    print(f"{options.threads} threads, {side} px, {options.rounds} rounds")
    return 0 if passed else 4


if __name__ == "__main__":
    sys.exit(main())
