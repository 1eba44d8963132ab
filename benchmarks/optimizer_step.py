"""What one optimizer step costs on YOLO26n: ``python benchmarks/optimizer_step.py``.

Every contender has its own copy of YOLO26n's parameters and of one set of gradients. Each timed
step is paired with a step of the baseline, ``torch.optim.SGD(foreach=True)``, taken just before
it, so that what the machine does meanwhile weighs on both; a warm-up step precedes either, so that
each finds its own tensors in the cache. A round's ratio is the median of its pairs. Shown is the
median of the rounds with the lowest and the highest.

With one thread the clock is the thread's CPU time, which other programs hardly touch; with
several it is wall time, which they rule, so that the limits are held to one thread alone. Exits
with 4 where one is passed. ``--help`` lists the options.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from musgd_cli.errors import MusgdError
from musgd_cli.optim import MuSGD

ROUNDS = 5
PAIRS = 15
WARMUP = 3
BASELINE = "sgd"
LIMITS = {"musgd k=0": 1.05, "musgd": 1.20}
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}

Params = list[torch.nn.Parameter]
Step = Callable[[], Any]


class ArticleLoop(torch.optim.Optimizer):
    """The article's own code: a loop that reads each norm on the host."""

    def __init__(self, params: Params) -> None:
        super().__init__(params, {**SGD, "adapt_factor": 0.1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # noqa: ARG002
        """Take one step."""
        for group in self.param_groups:
            for p in group["params"]:
                grad = p.grad + group["weight_decay"] * p
                norm = grad.norm(p=2).item()
                beta = group["momentum"] / (1 + group["adapt_factor"] * norm**2)
                buffer = self.state[p].get("momentum_buffer")
                if buffer is None:
                    buffer = torch.zeros_like(p)
                self.state[p]["momentum_buffer"] = beta * buffer + grad
                p -= group["lr"] * self.state[p]["momentum_buffer"]


def _musgd(**options: Any) -> Callable[[Params], torch.optim.Optimizer]:
    return lambda params: MuSGD(params, **options)


def _sgd(**options: Any) -> Callable[[Params], torch.optim.Optimizer]:
    return lambda params: torch.optim.SGD(params, **SGD, **options)


def _muon(params: Params) -> torch.optim.Optimizer:
    """Ultralytics' hybrid, also called MuSGD: Muon for matrices and filters, SGD for the rest."""
    from ultralytics.optim import MuSGD as MuonSGD

    groups: list[dict[str, Any]] = [
        {"params": [p for p in params if p.ndim in (2, 4)], "use_muon": True},
        {"params": [p for p in params if p.ndim not in (2, 4)], "use_muon": False},
    ]
    return MuonSGD([{**group, **SGD, "nesterov": True} for group in groups], muon=0.2, sgd=1.0)


CONTENDERS: dict[str, Callable[[Params], torch.optim.Optimizer]] = {
    "sgd, loop": _sgd(foreach=False),
    "sgd, fused": _sgd(fused=True),
    "sgd, nesterov": _sgd(foreach=True, nesterov=True),
    "musgd k=0": _musgd(adapt_factor=0),
    "musgd": _musgd(),
    "musgd, loop": _musgd(foreach=False),
    "musgd nesterov": _musgd(nesterov=True),
    "musgd lr_in_buffer": _musgd(lr_in_buffer=True),
    "musgd decay_in_norm": _musgd(decay_in_norm=True),
    "musgd global": _musgd(norm_scope="global"),
    "musgd auto": _musgd(adapt_factor="auto"),
    "musgd auto global": _musgd(adapt_factor="auto", norm_scope="global"),
    "musgd skip_nonfinite": _musgd(skip_nonfinite=True),
    "musgd total_norm (float)": _musgd(),
    "musgd total_norm (tensor)": _musgd(),
    "musgd last_beta()": _musgd(),
    "the article's loop": ArticleLoop,
    "adamw": lambda params: torch.optim.AdamW(params, foreach=True),
}


def _step_of(name: str, optimizer: torch.optim.Optimizer) -> Step:
    if name == "musgd total_norm (float)":
        return lambda: optimizer.step(total_norm=10.0)
    if name == "musgd total_norm (tensor)":
        norm = torch.tensor(10.0)
        return lambda: optimizer.step(total_norm=norm)
    if name == "musgd last_beta()":
        assert isinstance(optimizer, MuSGD)
        musgd = optimizer
        return lambda: (musgd.step(), musgd.last_beta())
    return optimizer.step


@dataclass(frozen=True)
class Cost:
    """One contender's cost with one number of threads. Times in milliseconds, state in bytes."""

    name: str
    threads: int
    ratio: float
    ratio_low: float
    ratio_high: float
    step_ms: float
    baseline_ms: float
    state_bytes: int


def model_parameters() -> Params:
    """YOLO26n's parameters: 366 tensors, 2,572,280 values."""
    from musgd_cli.train import sandbox

    sandbox.prepare()
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    return list(DetectionModel("yolo26n.yaml", nc=80, verbose=False).parameters())


def copy_of(model: Params) -> Params:
    """Parameters of one's own, each with a gradient."""
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(p.detach().clone()) for p in model]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator) * 0.01
    return params


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What a checkpoint of it would weigh, options aside."""
    tensors = (t for state in optimizer.state.values() for t in state.values())
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


def measure(
    model: Params, names: list[str], threads: int, rounds: int, pairs: int
) -> Iterator[Cost]:
    """Time every contender, all of them in each round."""
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter

    def timed(step: Step) -> float:
        step()
        start = clock()
        step()
        return (clock() - start) * 1000

    baseline = _sgd(foreach=True)(copy_of(model))
    makers = {**CONTENDERS, "muon-sgd": _muon}
    optimizers = {name: makers[name](copy_of(model)) for name in names}
    steps = {name: _step_of(name, optimizer) for name, optimizer in optimizers.items()}
    for step in (baseline.step, *steps.values()):
        for _ in range(WARMUP):
            step()
    gc.collect()
    gc.disable()  # a collection that falls into a step costs as much as thirty
    ratios: dict[str, list[float]] = {name: [] for name in names}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        now: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for _ in range(pairs):
            for name in names:
                now[name].append((timed(baseline.step), timed(steps[name])))
        for name in names:
            ratios[name].append(statistics.median(ours / sgd for sgd, ours in now[name]))
            times[name] += now[name]
    for name in names:
        yield Cost(
            name=name,
            threads=threads,
            ratio=statistics.median(ratios[name]),
            ratio_low=min(ratios[name]),
            ratio_high=max(ratios[name]),
            step_ms=statistics.median(ours for _, ours in times[name]),
            baseline_ms=statistics.median(sgd for sgd, _ in times[name]),
            state_bytes=state_bytes(optimizers[name]),
        )


def main() -> int:
    """Measure, print a table or an object, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="pairs of steps in each round")
    parser.add_argument(
        "--threads", type=int, action="append", help="default: 1, then what torch would take"
    )
    parser.add_argument("--only", action="append", choices=[*CONTENDERS, "muon-sgd"])
    parser.add_argument("--muon", action="store_true", help="also Ultralytics' hybrid: slow")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    default_threads = torch.get_num_threads()
    names = options.only or [*CONTENDERS, *(["muon-sgd"] if options.muon else [])]
    try:
        model = model_parameters()
    except MusgdError as error:
        print(f"error: {error.what}\nmend: {error.mend}", file=sys.stderr)
        return error.exit_code
    costs = [
        cost
        for threads in options.threads or sorted({1, default_threads})
        for cost in measure(model, names, threads, options.rounds, options.pairs)
    ]
    limited = [cost for cost in costs if cost.threads == 1 and cost.name in LIMITS]
    passed = [cost for cost in limited if cost.ratio > LIMITS[cost.name]]
    facts = {
        "tensors": len(model),
        "values": sum(p.numel() for p in model),
        "rounds": options.rounds,
        "pairs": options.pairs,
        "warmup": WARMUP,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": _cpu_name(),
    }
    if options.json:
        holds = {cost.name: cost not in passed for cost in limited}
        print(
            json.dumps(
                {**facts, "limits": LIMITS, "holds": holds, "costs": [asdict(c) for c in costs]}
            )
        )
    else:
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        for threads in sorted({cost.threads for cost in costs}):
            _print_table([cost for cost in costs if cost.threads == threads])
        for cost in passed:
            print(f"{cost.name}: over its limit of {LIMITS[cost.name]:.2f}")
    return 4 if passed else 0


def _print_table(costs: list[Cost]) -> None:
    clock = "CPU time" if costs[0].threads == 1 else "wall time"
    sgd = statistics.median(cost.baseline_ms for cost in costs)
    print(f"\n{costs[0].threads} thread(s), {clock}; torch SGD foreach {sgd:.2f} ms = 1.00")
    print(f"{'':26}{'ratio':>6}  {'(lowest-highest)':17}{'ms':>7}  {'state, bytes':>13}  limit")
    for cost in costs:
        spread = f"({cost.ratio_low:.2f}-{cost.ratio_high:.2f})"
        held = cost.threads == 1 and cost.name in LIMITS
        limit = f"{LIMITS[cost.name]:.2f}" if held else ""
        print(
            f"{cost.name:26}{cost.ratio:6.2f}  {spread:17}{cost.step_ms:7.2f}"
            f"  {cost.state_bytes:13,}  {limit}"
        )


def _cpu_name() -> str:
    from musgd_cli.hardware import detect

    host = detect()
    return f"{host.cpu or platform.machine()} ({host.cores} cores)"


if __name__ == "__main__":
    sys.exit(main())
