"""What ``musgd --help`` costs beside the libraries it stands on: ``python benchmarks/startup.py``.

CPU time, not wall time, and the best of several interleaved rounds: a busy machine adds to either,
never takes away. Exits with 4 where the limit is passed.
"""

from __future__ import annotations

import resource
import subprocess
import sys

ROUNDS = 10
LIMIT = 2.2
LIBRARIES = [sys.executable, "-c", "import typer, rich.console"]
HELP = [sys.executable, "-c", "from musgd_cli.__main__ import main; main(['--help'])"]


def cpu_seconds(command: list[str]) -> float:
    """Run ``command`` and return the user and system CPU time it took, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> int:
    """Measure, print one line, and return the exit code."""
    rounds = [(cpu_seconds(LIBRARIES), cpu_seconds(HELP)) for _ in range(ROUNDS)]
    libraries, shown = (min(times) for times in zip(*rounds, strict=True))
    ratio = shown / libraries
    print(
        f"musgd --help {shown * 1000:.0f} ms, typer and rich.console {libraries * 1000:.0f} ms: "
        f"{ratio:.2f} x (limit {LIMIT} x; CPU time, best of {ROUNDS})"
    )
    return 0 if ratio <= LIMIT else 4


if __name__ == "__main__":
    sys.exit(main())
