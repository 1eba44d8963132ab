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
from musgd_cli.compress import artifacts, channels, onnx_graph, parent, timing
from musgd_cli.compress.gate import Scored, Scorer
from musgd_cli.compress.silence import silence
from musgd_cli.errors import UsageError
from musgd_cli.hardware import detect, usable_cores
from musgd_cli.records import LatencyMs, PruneResult, PruneStage
from musgd_cli.runs import RunFolder, create_run
from musgd_cli.settings import change
from musgd_cli.storage import sha256_of, write_record
from musgd_cli.train.checkpoint import load_weights, write_weights
from musgd_cli.train.events import Listeners, TrainingInterruptedError
from musgd_cli.train.gradients import gate_gradients

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    model = load_weights(job.weights, job.trust)
    _require_same_names(model, job.weights, data_set)
    with TemporaryDirectory(prefix="musgd-prune-") as scratch:
        shop = _Workshop(job, model, data_set, Path(scratch))
        on_progress(f"measuring {job.weights}")
        shop.measure("before", model)
        on_progress("finding what the loss depends on least")
        cuts = shop.cuts(on_progress)
        pruned = shop.pruned(cuts)
        on_progress(f"pruned by {cuts[-1].removed:.0%} of the channels; measuring")
        shop.measure("pruned", pruned)
        run = create_run(plan.train.name)
        with _interruptible(run):
            weights = run.weights / PRUNED
            write_weights(weights, pruned, {})
            write_record(run.prune_file, shop.result(run, weights, cuts, pruned))
            plan = change(plan, {"train.model": (str(weights), "musgd prune")})
            with follow() as listeners:
                trained = train.train(plan, run, listeners)
            on_progress("holding it against its parent")
            weights = run.path / trained.weights
            tuned = load_weights(weights)
            shop.measure("tuned", tuned)
            result = shop.result(run, weights, cuts, tuned)
            write_record(run.prune_file, result)
    if job.goal.kind == "speedup" and result.speedup < job.goal.value:
        on_warning(
            f"timed again after fine-tuning it is {result.speedup:.2f} x as fast, "
            f"not {job.goal.value:g} x",
            "ask for a little more, or bench it on a quieter machine",
        )
    return result


def _require_same_names(model: Any, weights: Path, data_set: DataSet) -> None:
    names = tuple(str(name) for name in dict(model.names).values())
    if names != data_set.names:
        raise UsageError(
            f"{weights} knows {', '.join(names)}; {data_set.path} has {', '.join(data_set.names)}",
            "prune weights that were trained on this data set, or give theirs with --data",
        )


@contextmanager
def _interruptible(run: RunFolder) -> Iterator[None]:
    """Leave no folder that is no run, and say of one that is how to go on."""
    try:
        yield
    except BaseException as error:
        if not run.plan_file.exists():
            shutil.rmtree(run.path, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            if run.finished:
                raise TrainingInterruptedError(
                    f"{run.path} is fine-tuned, but was not held against its parent",
                    f"musgd export {run.typed} goes on with it",
                ) from None
            raise TrainingInterruptedError(
                "stopped at once", f"musgd train --resume {run.typed}"
            ) from None
        raise


@dataclass(frozen=True)
class _Measured:
    """A stage, as far as it can be known alone."""

    draft: Draft
    scored: Scored
    macs: int
    parameters: int

    def stage(self, latency: LatencyMs) -> PruneStage:
        score = self.scored.score
        return PruneStage(
            map50_95=score.map50_95,
            map50=score.map50,
            recall_small=score.recall_small,
            macs=self.macs,
            parameters=self.parameters,
            size_mb=self.draft.artifact.size_mb,
            latency_ms=latency,
        )


class _Workshop:
    """One model and what becomes of it.

    Args:
        job: What is asked for.
        model: The parent; it is left as it is.
        data_set: Gives the images that gradients are taken on and, others, that are scored.
        scratch: A folder for the exports that are measured.
    """

    def __init__(self, job: Job, model: nn.Module, data_set: DataSet, scratch: Path) -> None:
        self._job = job
        self._model = model
        self._data_set = data_set
        self._scratch = scratch
        self._scorer = Scorer(data_set)
        self._stages: dict[str, _Measured] = {}
        self._parent_sha256 = sha256_of([job.weights])
        self._gates: Mapping[str, Tensor] = {}

    @property
    def _imgsz(self) -> int:
        return self._job.plan.train.imgsz

    @property
    def _threads(self) -> int:
        return self._job.plan.bench.threads or 1

    def measure(self, stage: str, model: nn.Module) -> None:
        """Export a stage's model and score it."""
        draft, parameters = self._draft(stage, model)
        self._stages[stage] = _Measured(
            draft=draft,
            scored=self._scorer.score(draft.folder, draft.runnable),
            macs=channels.count_macs(model, self._imgsz),
            parameters=parameters,
        )

    def cuts(self, on_progress: Callable[[str], None]) -> list[channels.Cut]:
        """Find the fewest cuts that reach the goal.

        Raises:
            UsageError: None do; the nearest that is possible is named.
        """
        self._gates = gate_gradients(
            self._model, self._data_set, imgsz=self._imgsz, seed=self._job.plan.train.seed
        )
        order = channels.removal_order(self._model, self._gates, self._imgsz)
        goal = self._job.goal
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
        goal = self._job.goal
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
        draft, _ = self._draft(f"probe-{len(cuts)}", self.pruned(cuts))
        drafts = (self._stages["before"].draft, draft)
        (before, after), n = timing.in_turns(
            drafts, self._threads, warmup_s=PROBE_S / 4, duration_s=PROBE_S
        )
        shutil.rmtree(draft.folder)
        # Not the median: what else runs here only ever adds, and a search must not be led astray.
        speedup = before.min / after.min
        on_progress(
            f"{cuts[-1].removed:.0%} of the channels removed: {speedup:.2f} x as fast, least of {n}"
        )
        return speedup

    def result(
        self, run: RunFolder, weights: Path, cuts: list[channels.Cut], model: nn.Module
    ) -> PruneResult:
        """Time all stages in turns and put down what is known."""
        plan, stages = self._job.plan, self._stages
        with silence():
            latencies, n = timing.in_turns(
                [measured.draft for measured in stages.values()],
                self._threads,
                warmup_s=plan.bench.warmup_s,
                duration_s=plan.bench.duration_s,
            )
        found = {
            name: measured.stage(latency)
            for (name, measured), latency in zip(stages.items(), latencies, strict=True)
        }
        before, after = channels.widths(self._model), channels.widths(model)
        gate = None
        if "tuned" in stages:
            gate = self._scorer.compare(
                stages["before"].scored, stages["tuned"].scored, self._job.max_drop, None
            )
        last = found["tuned" if gate else "pruned"]
        return PruneResult(
            run=run.name,
            weights=str(weights.relative_to(run.path)),
            sha256=sha256_of([weights]),
            parent=str(self._job.weights),
            parent_sha256=self._parent_sha256,
            asked=self._job.goal.kind,
            wanted=self._job.goal.value,
            removed=cuts[-1].removed,
            macs_share=last.macs / found["before"].macs,
            speedup=found["before"].latency_ms.p50 / last.latency_ms.p50,
            widths={
                name: (before[name], width)
                for name, width in after.items()
                if width != before[name]
            },
            before=found["before"],
            pruned=found["pruned"],
            tuned=found.get("tuned"),
            gate=gate,
            distilled=plan.train.distill is not None,
            epochs=plan.train.epochs,
            imgsz=self._imgsz,
            nms_free=plan.compress.nms_free,
            threads=self._threads,
            n=n,
            seed=plan.train.seed,
            host=detect(),
            versions=artifacts.versions_of(_TOOLS),
        )

    def _draft(self, name: str, model: nn.Module) -> tuple[Draft, int]:
        with silence():
            network = parent.prepare(
                model,
                self._imgsz,
                nms_free=self._job.plan.compress.nms_free,
                source=self._job.weights,
            )
        recipe = artifacts.Recipe(
            runtime="onnxruntime",
            asked="fp32",
            files=(parent.FILE,),
            build=lambda folder: parent.write(network, folder / parent.FILE),
            read_back=lambda folder: onnx_graph.read_back(folder / parent.FILE),
            parent_sha256=self._parent_sha256,
            tools=(),
        )
        trial = artifacts.Trial(_noise(self._imgsz))
        place = self._scratch / "places"
        draft = artifacts.draft(
            self._scratch / name, place, self._job.plan.target, network, recipe, trial
        )
        return draft, sum(value.numel() for value in network.module.parameters())


def _unreachable(goal: Goal, nearest: str) -> UsageError:
    return UsageError(
        f"--{goal.kind} {goal.value:g} cannot be reached: layers keep a quarter of their channels",
        f"the nearest is {nearest}",
    )


def _rounded(share: float, *, up: bool = False) -> float:
    """Round to two digits so that what is named can be reached."""
    import math

    return (math.ceil if up else math.floor)(share * 100) / 100


def _noise(imgsz: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).random((1, 3, imgsz, imgsz), dtype=np.float32)
