"""What one optimizer step costs, beside ``torch.optim.SGD`` on the same tensors.

Every contender has its own copy of the parameters and of one set of gradients. Each timed step is
paired with a step of the baseline, ``torch.optim.SGD(foreach=True)``, taken just before it, so
that what the machine does meanwhile weighs on both; a warm-up step precedes either, so that each
finds its own tensors in the cache. A round's ratio is the median of its pairs; a cost's is the
median of the rounds, with the lowest and the highest.

On the CPU with one thread the clock is the thread's CPU time, which other programs hardly touch;
else it is wall time, which they rule, so that limits are held to one thread alone.

Imports torch: import this module where it is used, not at the top.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from musgd_cli.errors import UnsupportedError
from musgd_cli.optim import MuSGD

__all__ = [
    "BASELINE",
    "CONTENDERS",
    "LIMITS",
    "Limit",
    "StepCost",
    "find_waits",
    "measure",
    "model_parameters",
]

Params = list[torch.nn.Parameter]
Step = Callable[[], Any]
Maker = Callable[[Params], torch.optim.Optimizer]

BASELINE: Final = "sgd"
ROUNDS: Final = 5
PAIRS: Final = 15
WARMUP: Final = 3
SGD: Final[dict[str, Any]] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


class ArticleLoop(torch.optim.Optimizer):
    """The article's own code: a loop that reads each norm on the host."""

    def __init__(self, params: Params) -> None:
        super().__init__(params, {**SGD, "adapt_factor": 0.1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
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


def _musgd(**options: Any) -> Maker:
    return lambda params: MuSGD(params, **options)


def _rowcol(**options: Any) -> Maker:
    return _musgd(**{"second_moment": "rowcol", "adapt_factor": 0, "nesterov": True, **options})


def _sgd(**options: Any) -> Maker:
    return lambda params: torch.optim.SGD(params, **SGD, **options)


def _muon(params: Params) -> torch.optim.Optimizer:
    from musgd_cli.train import optimizers

    return optimizers.muon_hybrid(params, **SGD)


CONTENDERS: Final[dict[str, Maker]] = {
    BASELINE: _sgd(foreach=True),
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
    "rowcol": _rowcol(),
    "rowcol, loop": _rowcol(foreach=False),
    "rowcol, no nesterov": _rowcol(nesterov=False),
    "rowcol k=.1": _rowcol(adapt_factor=0.1),
    "rowcol auto": _rowcol(adapt_factor="auto"),
    "rowcol skip_nonfinite": _rowcol(skip_nonfinite=True),
    "rowcol total_norm (float)": _rowcol(),
    "the article's loop": ArticleLoop,
    "adamw": lambda params: torch.optim.AdamW(params, foreach=True),
    "muon-sgd": _muon,
}
"""By name. ``rowcol`` is ours, with Nesterov and k = 0 unless it says otherwise; ``muon-sgd`` is
Ultralytics' hybrid, which takes as long as all the others together."""

WAITING: Final = ("the article's loop", "muon-sgd")
"""Contenders that may read a device's values on the host; the others must not."""


@dataclass(frozen=True)
class Limit:
    """What a contender may cost at most, one thread on the CPU: ``ratio`` times ``against``."""

    ratio: float
    against: str = BASELINE


LIMITS: Final = {
    "musgd k=0": Limit(1.05),
    "musgd": Limit(1.10),
    "rowcol": Limit(1.25, against="sgd, nesterov"),
}
"""By contender."""


@dataclass(frozen=True)
class StepCost:
    """One contender's cost with one number of threads. Times in milliseconds, state in bytes."""

    name: str
    device: str
    threads: int
    ratio: float
    """To the baseline."""
    ratio_low: float
    ratio_high: float
    step_ms: float
    baseline_ms: float
    state_bytes: int
    against: str
    """Whom its limit is set against; the baseline where it has none."""
    against_ratio: float
    """To that one, with the lowest and the highest round."""
    against_low: float
    against_high: float

    @property
    def limit(self) -> Limit | None:
        """Its limit, if one is held here."""
        return LIMITS.get(self.name) if self.threads == 1 and self.device == "cpu" else None

    @property
    def holds(self) -> bool | None:
        """Whether it is within its limit; None: it has none here."""
        return None if self.limit is None else self.against_ratio <= self.limit.ratio


def model_parameters() -> Params:
    """YOLO26n's parameters, untrained: 366 tensors, 2,572,280 values, on the CPU.

    Raises:
        UnsupportedError: Ultralytics, which knows the model, is not installed.
    """
    from musgd_cli.train import checkpoint

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return list(checkpoint.untrained("yolo26n.yaml").parameters())


def measure(
    model: Params,
    names: Sequence[str],
    *,
    threads: int = 1,
    rounds: int = ROUNDS,
    pairs: int = PAIRS,
    device: str = "cpu",
) -> list[StepCost]:
    """Time contenders, all of them in each round.

    Args:
        model: The parameters to copy.
        names: Of `CONTENDERS`.
        threads: Of torch, on the CPU; set back afterwards.
        rounds: How often all are timed.
        pairs: Steps of each in a round.
        device: ``cpu`` or ``cuda``.

    Returns:
        One cost a name, in their order.

    Raises:
        UnsupportedError: There is no such device.
    """
    _require(device)
    steps: dict[str, Step] = {}
    bytes_of: dict[str, int] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        against = {name: LIMITS[name].against if name in LIMITS else BASELINE for name in names}
        for name in dict.fromkeys([BASELINE, *against.values(), *names]):
            optimizer = CONTENDERS[name](_copy_of(model, device))
            steps[name] = _step_of(name, optimizer, device)
            for _ in range(WARMUP):
                steps[name]()
            bytes_of[name] = _state_bytes(optimizer)
        timed = partial(_timed, _clock(threads, device))
        trials = {name: _Trials() for name in names}
        with _uncollected():
            for _ in range(rounds):
                for _ in range(pairs):
                    for name in names:
                        sgd = timed(steps[BASELINE])
                        other = sgd if against[name] == BASELINE else timed(steps[against[name]])
                        trials[name].note(sgd, other, timed(steps[name]))
                for name in names:
                    trials[name].end_round()
    finally:
        torch.set_num_threads(before)
    return [
        StepCost(
            name=name,
            device=device,
            threads=threads,
            ratio=statistics.median(trials[name].ratios),
            ratio_low=min(trials[name].ratios),
            ratio_high=max(trials[name].ratios),
            step_ms=statistics.median(ours for _, _, ours in trials[name].times),
            baseline_ms=statistics.median(sgd for sgd, _, _ in trials[name].times),
            state_bytes=bytes_of[name],
            against=against[name],
            against_ratio=statistics.median(trials[name].against_ratios),
            against_low=min(trials[name].against_ratios),
            against_high=max(trials[name].against_ratios),
        )
        for name in names
    ]


def find_waits(model: Params, names: Sequence[str]) -> dict[str, str]:
    """Take three CUDA steps of each contender under ``torch.cuda.set_sync_debug_mode("error")``.

    Those of `WAITING` are left out.

    Returns:
        What torch said, by the name of each contender that waited for the device.

    Raises:
        UnsupportedError: There is no CUDA device.
    """
    _require("cuda")
    waits = {}
    for name in names:
        if name in WAITING:
            continue
        step = _step_of(name, CONTENDERS[name](_copy_of(model, "cuda")), "cuda")
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                step()
        except RuntimeError as error:
            waits[name] = str(error)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return waits


class _Trials:
    """The times of one contender's pairs, in milliseconds, and the ratios of its rounds."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float, float]] = []
        self.ratios: list[float] = []
        self.against_ratios: list[float] = []
        self._round: list[tuple[float, float, float]] = []

    def note(self, sgd: float, other: float, ours: float) -> None:
        self._round.append((sgd, other, ours))

    def end_round(self) -> None:
        self.ratios.append(statistics.median(ours / sgd for sgd, _, ours in self._round))
        self.against_ratios.append(
            statistics.median(ours / other for _, other, ours in self._round)
        )
        self.times += self._round
        self._round = []


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: one that falls into a step costs as much as thirty."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _clock(threads: int, device: str) -> Callable[[], float]:
    if device == "cuda":

        def finished() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return finished
    return time.thread_time if threads == 1 else time.perf_counter


def _timed(clock: Callable[[], float], step: Step) -> float:
    step()
    start = clock()
    step()
    return (clock() - start) * 1000


def _require(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError(
            "there is no CUDA device here, or this torch was built without CUDA",
            "measure on the CPU: --device cpu",
        )


def _copy_of(model: Params, device: str) -> Params:
    """Parameters of one's own, each with a gradient."""
    generator = torch.Generator().manual_seed(0)
    params = []
    for p in model:
        grad = torch.randn(p.shape, generator=generator) * 0.01
        params.append(torch.nn.Parameter(p.detach().clone().to(device)))
        params[-1].grad = grad.to(device)
    return params


def _step_of(name: str, optimizer: torch.optim.Optimizer, device: str) -> Step:
    if name.endswith("total_norm (float)"):
        return partial(optimizer.step, total_norm=10.0)
    if name.endswith("total_norm (tensor)"):
        norm = torch.tensor(10.0, device=device)
        return partial(optimizer.step, total_norm=norm)
    if name.endswith("last_beta()"):
        assert isinstance(optimizer, MuSGD)
        musgd = optimizer
        return lambda: (musgd.step(), musgd.last_beta())
    return optimizer.step


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    from musgd_cli.train import optimizers

    return optimizers.state_bytes(optimizer)
