"""Prune weights, fine-tune what is left with our own trainer, and hold it against its parent.

Import after `sandbox.prepare`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from musgd_cli import data, train
from musgd_cli.bench.selection import require_same_classes
from musgd_cli.compress import artifacts, channels, onnx_graph, parent, timing
from musgd_cli.compress.gate import Scored, Scorer
from musgd_cli.compress.silence import silence
from musgd_cli.errors import UsageError
from musgd_cli.hardware import detect, usable_cores
from musgd_cli.records import Gate, LatencyMs, Plan, PruneResult, PruneStage
from musgd_cli.runs import RunFolder, create_run
from musgd_cli.settings import change
from musgd_cli.storage import read_record, sha256_of, write_record
from musgd_cli.train.checkpoint import load_weights, write_weights
from musgd_cli.train.events import Listeners, TrainingInterruptedError
from musgd_cli.train.gradients import gate_gradients

if TYPE_CHECKING:
    from torch import nn

    from musgd_cli.compress.artifacts import Draft
    from musgd_cli.compress.prune_job import Goal, Job
    from musgd_cli.data.dataset import DataSet

PRUNED = "pruned.pt"
"""What the fine-tuning starts from, among the run's weights."""

PROBE_S = 2.0
"""How long a candidate is timed against the parent while ``--speedup`` is sought."""

_TOOLS = ("musgd", "torch", "ultralytics", "torch-pruning", "onnx", "onnxruntime")


def prune(
    job: Job,
    *,
    follow: Callable[[], AbstractContextManager[Listeners]],
    on_progress: Callable[[str], None],
    on_warning: Callable[[str, str | None], None],
) -> PruneResult:
    """Prune, fine-tune and judge; see `musgd_cli.compress.prune`."""
    import torch

    plan = job.plan
    assert plan.train.data is not None and plan.train.name is not None
    torch.set_num_threads(plan.train.threads or usable_cores())
    on_progress(f"checking {plan.train.data}")
    data.require_sound(data.check(plan.train.data))
    data_set = data.load(plan.train.data)
    model: Any = load_weights(job.weights, job.trust)
    names = tuple(str(name) for name in dict(model.names).values())
    require_same_classes(job.weights, names, data_set)
    # Where they were renamed: of pruned weights the trainer takes no other names.
    model.names = dict(enumerate(data_set.names))
    with TemporaryDirectory(prefix="musgd-prune-") as scratch:
        shop = _Workshop(plan, job.weights, data_set, Path(scratch))
        on_progress(f"measuring {job.weights}")
        before = shop.measure("before", model)
        on_progress("finding what the loss depends on least")
        search = _Search(shop, model, before.draft, job.goal)
        cuts = search.cuts(on_progress)
        narrow = search.pruned(cuts)
        on_progress(f"pruned by {cuts[-1].removed:.0%} of the channels; measuring")
        pruned = shop.measure("pruned", narrow)
        run = create_run(plan.train.name)
        with _interruptible(run):
            weights = run.weights / PRUNED
            write_weights(weights, narrow, {})
            (was, now), n = shop.time((before.draft, pruned.draft))
            half = _not_yet_tuned(
                job,
                run=run.name,
                weights=str(weights.relative_to(run.path)),
                sha256=sha256_of([weights]),
                parent_sha256=shop.parent_sha256,
                removed=cuts[-1].removed,
                widths=_changed(channels.widths(model), channels.widths(narrow)),
                before=before.stage(was),
                pruned=pruned.stage(now),
                n=n,
            )
            write_record(run.prune_file, half)
            _warn_if_slower(half, on_warning)
            plan = change(plan, {"train.model": (str(weights), "musgd prune")})
            with follow() as listeners:
                train.train(plan, run, listeners)
            on_progress("holding it against its parent")
            return _judge(run, half, shop, before)


def finish(run: RunFolder, *, trust: bool, on_progress: Callable[[str], None]) -> PruneResult:
    """Judge a fine-tuned run; see `musgd_cli.compress.finish_pruning`."""
    import torch

    half, plan = read_record(run.prune_file, PruneResult), run.plan()
    weights = Path(half.parent)
    if not weights.is_file() or sha256_of([weights]) != half.parent_sha256:
        raise UsageError(
            f"{run.path} is fine-tuned, but {weights}, which it was pruned from, "
            f"{'has changed' if weights.is_file() else 'is not here'}",
            f"put it back, then musgd train --resume {run.typed} holds the run against it",
        )
    assert plan.train.data is not None
    torch.set_num_threads(plan.train.threads or usable_cores())
    with _interruptible(run), TemporaryDirectory(prefix="musgd-prune-") as scratch:
        on_progress(f"measuring {weights}")
        shop = _Workshop(plan, weights, data.load(plan.train.data), Path(scratch))
        before = shop.measure("before", load_weights(weights, trust))
        on_progress("holding the fine-tuned weights against it")
        return _judge(run, half, shop, before)


@contextmanager
def _interruptible(run: RunFolder) -> Iterator[None]:
    """Leave no folder that is no run, and say of one that is how to go on."""
    try:
        yield
    except BaseException as error:
        if not run.plan_file.exists():
            shutil.rmtree(run.path, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            raise TrainingInterruptedError(
                f"{run.path} is fine-tuned and kept, but was not held against its parent"
                if run.finished
                else "stopped at once",
                f"musgd train --resume {run.typed}",
            ) from None
        raise


def _not_yet_tuned(job: Job, **found: Any) -> PruneResult:
    plan = job.plan
    before, pruned = found["before"], found["pruned"]
    return PruneResult(
        parent=str(job.weights),
        asked=job.goal.kind,
        wanted=job.goal.value,
        max_drop=job.max_drop,
        macs_share=pruned.macs / before.macs,
        speedup=before.latency_ms.p50 / pruned.latency_ms.p50,
        distilled=plan.train.distill is not None,
        epochs=plan.train.epochs,
        imgsz=plan.train.imgsz,
        nms_free=plan.compress.nms_free,
        threads=plan.bench.threads or 1,
        seed=plan.train.seed,
        host=detect(),
        versions=artifacts.versions_of(_TOOLS),
        **found,
    )


def _changed(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (before[name], width) for name, width in after.items() if width != before[name]}


def _warn_if_slower(result: PruneResult, on_warning: Callable[[str, str | None], None]) -> None:
    if result.asked == "speedup" and result.speedup < result.wanted:
        least = result.before.latency_ms.min / result.pruned.latency_ms.min
        on_warning(
            f"by the p50 it is {result.speedup:.2f} x as fast, not {result.wanted:g} x; "
            f"by the least of the samples, which the search goes by, {least:.2f} x",
            "ask for a little more, or bench it on a quieter machine",
        )


def _judge(run: RunFolder, half: PruneResult, shop: _Workshop, before: _Measured) -> PruneResult:
    """Hold the run's weights against the parent, and complete its record."""
    weights = run.path / run.result().weights
    tuned = shop.measure("tuned", load_weights(weights))
    result = half.model_copy(
        update={
            "weights": str(weights.relative_to(run.path)),
            "sha256": sha256_of([weights]),
            "before": before.stage(half.before.latency_ms),
            # What was timed before has its shape.
            "tuned": tuned.stage(half.pruned.latency_ms),
            "gate": shop.compare(before.scored, tuned.scored, half.max_drop),
        }
    )
    write_record(run.prune_file, result)
    return result


@dataclass(frozen=True)
class _Measured:
    """A stage, but for its latency."""

    draft: Draft
    scored: Scored
    macs: int
    parameters: int

    def stage(self, latency: LatencyMs) -> PruneStage:
        score = self.scored.score
        return PruneStage(
            map50_95=score.map50_95,
            map50=score.map50,
            recall_small=score.small.share,
            macs=self.macs,
            parameters=self.parameters,
            size_mb=self.draft.artifact.size_mb,
            latency_ms=latency,
        )


class _Workshop:
    """Exports, scores and times a model and what becomes of it.

    Args:
        plan: Of the fine-tuning.
        weights: The parent's.
        data_set: Gives the images that are scored.
        scratch: A folder for the exports that are measured.
    """

    def __init__(self, plan: Plan, weights: Path, data_set: DataSet, scratch: Path) -> None:
        self.plan = plan
        self.data_set = data_set
        self.parent_sha256 = sha256_of([weights])
        self._weights = weights
        self._scratch = scratch
        self._scorer = Scorer(data_set)

    def measure(self, name: str, model: nn.Module) -> _Measured:
        """Export a model and score it."""
        draft, parameters = self.draft(name, model)
        return _Measured(
            draft=draft,
            scored=self._scorer.score(draft.folder, draft.runnable),
            macs=channels.count_macs(model, self.plan.train.imgsz),
            parameters=parameters,
        )

    def compare(self, before: Scored, tuned: Scored, max_drop: float) -> Gate:
        """Judge the fine-tuned model; its boxes need not be the parent's."""
        return self._scorer.compare(before, tuned, max_drop, None)

    def time(
        self, drafts: tuple[Draft, Draft], seconds: float | None = None
    ) -> tuple[list[LatencyMs], int]:
        """Time two models in turns, for so many seconds or as long as the plan says.

        On one thread unless the plan names a number: all cores would hide what a layer saves.
        """
        bench = self.plan.bench
        with silence():
            return timing.in_turns(
                drafts,
                bench.threads or 1,
                warmup_s=bench.warmup_s if seconds is None else seconds / 4,
                duration_s=bench.duration_s if seconds is None else seconds,
            )

    def draft(self, name: str, model: nn.Module) -> tuple[Draft, int]:
        """Export a model; return it and how many parameters it has."""
        plan = self.plan
        with silence():
            network = parent.prepare(
                model, plan.train.imgsz, nms_free=plan.compress.nms_free, source=self._weights
            )
        recipe = artifacts.Recipe(
            runtime="onnxruntime",
            asked="fp32",
            files=(parent.FILE,),
            build=lambda folder: parent.write(network, folder / parent.FILE),
            read_back=lambda folder: onnx_graph.read_back(folder / parent.FILE),
            parent_sha256=self.parent_sha256,
            tools=(),
        )
        draft = artifacts.draft(
            self._scratch / name,
            self._scratch / "places",
            plan.target,
            network,
            recipe,
            artifacts.Trial(timing.noise(plan.train.imgsz)),
        )
        return draft, sum(value.numel() for value in network.module.parameters())


class _Search:
    """Finds how many channels go.

    Args:
        shop: Where candidates are timed.
        model: The parent; it is left as it is.
        parent: The parent, exported.
        goal: What is to be reached.
    """

    def __init__(self, shop: _Workshop, model: nn.Module, parent: Draft, goal: Goal) -> None:
        self._shop = shop
        self._model = model
        self._parent = parent
        self._goal = goal
        train = shop.plan.train
        self._imgsz = train.imgsz
        self._gates = gate_gradients(model, shop.data_set, imgsz=train.imgsz, seed=train.seed)

    def cuts(self, on_progress: Callable[[str], None]) -> list[channels.Cut]:
        """Find the fewest cuts that reach the goal.

        Raises:
            UsageError: None do; the nearest that is possible is named.
        """
        order = channels.removal_order(self._model, self._gates, self._imgsz)
        if not order:
            raise UsageError(
                "no layer has channels to spare", "prune a wider model, or export this one as it is"
            )
        goal = self._goal
        if goal.kind == "speedup":
            return self._as_fast(order, on_progress)
        reached: Callable[[channels.Cut], bool] = (
            (lambda cut: cut.removed >= goal.value)
            if goal.kind == "ratio"
            else (lambda cut: cut.macs <= goal.value)
        )
        for n, cut in enumerate(order, start=1):
            if reached(cut):
                return order[:n]
        nearest = order[-1].removed if goal.kind == "ratio" else order[-1].macs
        raise _unreachable(goal, f"--{goal.kind} {_rounded(nearest, up=goal.kind == 'macs'):g}")

    def pruned(self, cuts: list[channels.Cut]) -> nn.Module:
        """Return the parent with these cuts."""
        return channels.prune(self._model, self._gates, cuts)

    def _as_fast(
        self, order: list[channels.Cut], on_progress: Callable[[str], None]
    ) -> list[channels.Cut]:
        goal = self._goal
        fastest = self._speedup(order, on_progress)
        if fastest < goal.value:
            raise _unreachable(goal, f"--speedup {_rounded(fastest):g}, as measured here")
        too_few, enough = 0, len(order)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self._speedup(order[:middle], on_progress) < goal.value:
                too_few = middle
            else:
                enough = middle
        return order[:enough]

    def _speedup(self, cuts: list[channels.Cut], on_progress: Callable[[str], None]) -> float:
        draft, _ = self._shop.draft(f"probe-{len(cuts)}", self.pruned(cuts))
        (before, after), n = self._shop.time((self._parent, draft), PROBE_S)
        shutil.rmtree(draft.folder)
        # Not the median: what else runs here only ever adds, and a search must not be led astray.
        speedup = before.min / after.min
        on_progress(
            f"{cuts[-1].removed:.0%} of the channels removed: {speedup:.2f} x as fast, least of {n}"
        )
        return speedup


def _unreachable(goal: Goal, nearest: str) -> UsageError:
    return UsageError(
        f"--{goal.kind} {goal.value:g} cannot be reached: layers keep a quarter of their channels",
        f"the nearest is {nearest}",
    )


def _rounded(share: float, *, up: bool = False) -> float:
    """Round to two digits so that what is named can be reached."""
    import math

    return (math.ceil if up else math.floor)(share * 100) / 100
