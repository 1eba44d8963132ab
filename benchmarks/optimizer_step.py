"""What one optimizer step costs on YOLO26n: ``python benchmarks/optimizer_step.py``.

Each timed step is paired with one of ``torch.optim.SGD(foreach=True)``, and where the limit is
against another, with one of that; ``musgd_cli/lab/step_cost.py``, which measures, says how. Exits
with 4 where a limit is passed or, with ``--device cuda``, where a step of ours waits for the
device; with 3 where there is no such device. ``--help`` lists the options.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from dataclasses import asdict

import torch

from musgd_cli.errors import MusgdError
from musgd_cli.lab.step_cost import (
    BASELINE,
    CONTENDERS,
    LIMITS,
    PAIRS,
    ROUNDS,
    WARMUP,
    StepCost,
    find_waits,
    measure,
    model_parameters,
)

SLOW = "muon-sgd"


def main() -> int:
    """Measure, print a table or an object, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of steps in each round")
    parser.add_argument(
        "--threads", type=int, action="append", help="default: 1, then what torch would take"
    )
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="cuda also takes steps under torch.cuda.set_sync_debug_mode('error')",
    )
    parser.add_argument("--only", action="append", choices=[n for n in CONTENDERS if n != BASELINE])
    parser.add_argument("--muon", action="store_true", help="also Ultralytics' hybrid: slow")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    names = options.only or [n for n in CONTENDERS if n != BASELINE and (n != SLOW or options.muon)]
    threads = options.threads or sorted({1, torch.get_num_threads()})
    if options.device == "cuda":
        threads = threads[:1]
    try:
        model = model_parameters()
        waits = find_waits(model, names) if options.device == "cuda" else None
        costs = [
            cost
            for n in threads
            for cost in measure(
                model,
                names,
                threads=n,
                rounds=options.rounds,
                pairs=options.pairs,
                device=options.device,
            )
        ]
    except MusgdError as error:
        print(f"error: {error.what}\nmend: {error.mend}", file=sys.stderr)
        return error.exit_code
    facts = {
        "tensors": len(model),
        "values": sum(p.numel() for p in model),
        "rounds": options.rounds,
        "pairs": options.pairs,
        "warmup": WARMUP,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": _machine(options.device),
    }
    if options.json:
        document = {
            **facts,
            "limits": {name: asdict(limit) for name, limit in LIMITS.items()},
            "holds": {cost.name: cost.holds for cost in costs if cost.holds is not None},
            "waits": waits,
            "costs": [asdict(cost) for cost in costs],
        }
        print(json.dumps(document))
    else:
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        for n in threads:
            _print_table([cost for cost in costs if cost.threads == n])
        for cost in costs:
            if cost.limit is not None and not cost.holds:
                print(f"{cost.name}: over its limit of {cost.limit.ratio:.2f} x {cost.against}")
        for name, said in (waits or {}).items():
            print(f"{name}: waits for the device: {said}")
    return 4 if waits or any(cost.holds is False for cost in costs) else 0


def _print_table(costs: list[StepCost]) -> None:
    clock = "CPU time" if costs[0].threads == 1 and costs[0].device == "cpu" else "wall time"
    sgd = statistics.median(cost.baseline_ms for cost in costs)
    where = "cuda" if costs[0].device == "cuda" else f"{costs[0].threads} thread(s)"
    print(f"\n{where}, {clock}; torch SGD foreach {sgd:.2f} ms = 1.00")
    print(f"{'':26}{'ratio':>6}  {'(lowest-highest)':17}{'ms':>7}  {'state, bytes':>13}  limit")
    for cost in costs:
        limit = ""
        if cost.limit is not None:
            limit = f"{cost.limit.ratio:.2f}"
            if cost.against != BASELINE:
                spread = _spread(cost.against_low, cost.against_high)
                limit += f" x {cost.against}: is {cost.against_ratio:.2f} {spread}"
        print(
            f"{cost.name:26}{cost.ratio:6.2f}  {_spread(cost.ratio_low, cost.ratio_high):17}"
            f"{cost.step_ms:7.2f}  {cost.state_bytes:13,}  {limit}"
        )


def _spread(low: float, high: float) -> str:
    return f"({low:.2f}-{high:.2f})"


def _machine(device: str) -> str:
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    from musgd_cli.hardware import detect

    host = detect()
    return f"{host.cpu or platform.machine()} ({host.cores} cores)"


if __name__ == "__main__":
    sys.exit(main())
