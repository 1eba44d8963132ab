"""What is pruned, how far, and how it is fine-tuned: settled before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from musgd_cli.compress import formats
from musgd_cli.compress.selection import find_source
from musgd_cli.errors import UsageError
from musgd_cli.hardware import detect
from musgd_cli.installation import ExtraError
from musgd_cli.paths import RUNS
from musgd_cli.records import Plan
from musgd_cli.runs import RunFolder, free_name, require_free
from musgd_cli.sections import KEYS
from musgd_cli.settings import change, settle
from musgd_cli.storage import require_writable
from musgd_cli.train.checkpoint import require_archive

EPOCHS = 10
"""Of fine-tuning."""

RATIO = 0.3
"""Of the channels, where nothing else is asked for."""

MAX_DROP = 0.04

LR_SHARE = 1 / 3
"""Of the parent's learning rate. Measured on BCCD at 256 px, 30 % of the channels gone, one seed:
mAP50-95 on val after 1, 6 and 10 epochs .544, .582 and .595 with it, .420, .569 and .597 with the
whole rate; the parent has .586."""

WARMUP_EPOCHS = 0.5

_NEEDS = ("torch", "torchvision", "ultralytics", "torch_pruning", "onnx", "onnxruntime")
_SOURCE = "musgd prune"


GoalKind = Literal["ratio", "macs", "speedup"]


class Goal(NamedTuple):
    """How far to prune."""

    kind: GoalKind
    value: float


@dataclass(frozen=True)
class Job:
    """What is pruned, and how it is fine-tuned."""

    weights: Path
    plan: Plan
    """Of the fine-tuning; ``train.model``, the pruned weights, is not settled yet."""
    goal: Goal
    max_drop: float
    trust: bool


class _Parent(NamedTuple):
    weights: Path
    plan: Plan | None
    """``None`` for bare weights."""
    name: str


def settle_job(
    source: str | None,
    goals: Mapping[GoalKind, float | None],
    *,
    flags: Mapping[str, Any],
    spelling: Mapping[str, str],
    max_drop: float | None,
    distill: bool,
    trust: bool,
) -> Job:
    """Settle what is to be done; see `musgd_cli.compress.prune`."""
    goal = _goal(goals)
    if max_drop is None:
        max_drop = MAX_DROP
    if not 0 <= max_drop < 1:
        raise UsageError(f"--max-drop {max_drop:g} is no share of mAP50-95", "--max-drop 0.04")
    require_installed()
    parent = _find(source)
    given = {key: value for key, value in flags.items() if value is not None}
    if "compress.max_drop" in given:
        raise UsageError("compress.max_drop is export's", "--max-drop is what pruning may lose")
    if distill:
        given["train.distill"] = str(parent.weights)
        spelling = {**spelling, "train.distill": "--distill"}
    plan = _fine_tuning(parent, given, spelling)
    if plan.train.data is None:
        raise UsageError(
            f"pruning {parent.weights} needs the data set it was trained on",
            "musgd prune … --data YAML",
        )
    assert plan.train.name is not None
    require_free(plan.train.name)
    require_writable(RUNS / plan.train.name)
    return Job(parent.weights, plan, goal, max_drop, trust)


def require_installed() -> None:
    """Make sure that all is there that pruning and its gate need.

    Raises:
        UnsupportedError: Something is not installed.
    """
    if absent := formats.missing(_NEEDS):
        raise ExtraError(f"prune needs {', '.join(absent)}, not installed here", "prune")


def _goal(goals: Mapping[GoalKind, float | None]) -> Goal:
    given = [Goal(kind, value) for kind, value in goals.items() if value is not None]
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(f'--{goal.kind}' for goal in given)} are given", "leave one of them in"
        )
    goal = given[0] if given else Goal("ratio", RATIO)
    if goal.kind == "speedup":
        if not 1 < goal.value < float("inf"):
            raise UsageError(f"--speedup {goal.value:g} is not above 1", "--speedup 1.5")
    elif not 0 < goal.value < 1:
        raise UsageError(
            f"--{goal.kind} {goal.value:g} is not a share between 0 and 1", f"--{goal.kind} 0.5"
        )
    return goal


def _find(spec: str | None) -> _Parent:
    source = find_source(spec, RUNS)
    require_archive(source.weights)
    if source.plan is None:
        return _Parent(source.weights, None, source.weights.stem)
    return _Parent(source.weights, source.plan, RunFolder(source.weights.parent.parent).name)


def _fine_tuning(parent: _Parent, flags: Mapping[str, Any], spelling: Mapping[str, str]) -> Plan:
    """Return the parent's plan, or this machine's, changed for fine-tuning and by flags."""
    if parent.plan is None:
        plan = settle(host=detect(), flags=flags, spelling=spelling)
    else:
        plan = _of_today(parent.plan)
    ours: dict[str, tuple[Any, str]] = {
        "train.epochs": (EPOCHS, _SOURCE),
        "train.name": (free_name(f"{parent.name}-pruned"), _SOURCE),
        "optim.lr": (float(f"{plan.optim.lr * LR_SHARE:.3g}"), f"{_SOURCE}, a third of before"),
        "optim.warmup_epochs": (WARMUP_EPOCHS, _SOURCE),
    }
    if plan.train.distill is not None:
        ours["train.distill"] = (None, _SOURCE)  # the parent's teacher
    given = {key: (value, spelling.get(key, f"--set {key}")) for key, value in flags.items()}
    kept = {key: value for key, value in ours.items() if key not in given}
    return change(plan, kept, given if parent.plan else {})


def _of_today(plan: Plan) -> Plan:
    """Give the plan of an older musgd the settings that have come since, and no others."""
    known = {key: settled for key, settled in plan.settings.items() if key in KEYS}
    since = [key for key in KEYS if key not in known and not key.startswith("optim.")]
    if since:
        now = settle(host=detect(), profile=plan.profile, target=plan.target, flags={})
        known |= {key: now.settings[key] for key in since}
    return plan.model_copy(update={"settings": known})
