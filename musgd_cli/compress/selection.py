"""What is exported, for which targets, and where the artifacts go."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from musgd_cli import profiles
from musgd_cli.errors import UsageError
from musgd_cli.hardware import detect
from musgd_cli.paths import RUNS
from musgd_cli.records import CompressSettings, Plan
from musgd_cli.runs import ARTIFACT_FILE, RunFolder, find_run, newest_finished
from musgd_cli.sections import KEYS
from musgd_cli.settings import settle

_FACTS = ("train.data", "train.imgsz", "train.seed")
_WEIGHTS = frozenset({".pt", ".pth"})
_MODELS = frozenset({".onnx", ".xml", ".bin", ".param", ".tflite", ".engine", ".torchscript"})


@dataclass(frozen=True)
class Source:
    """Weights, and what is known of how they were trained."""

    weights: Path
    place: Path
    """The folder that artifact folders go into."""
    plan: Plan | None
    """Of the run that trained them; ``None`` for bare weights."""


@dataclass(frozen=True)
class Order:
    """What to make for one target."""

    target: str
    boards: tuple[str, ...]
    """That the target's profile is for."""
    imgsz: int
    settings: CompressSettings
    data: str | None
    """Data set whose training images calibrate, and whose held-out ones the gate scores."""
    data_given: bool
    """It was asked for here, not inherited from a run that may be of another machine."""
    seed: int
    head_source: str
    """Where ``settings.nms_free`` comes from."""
    reasons: Mapping[str, str]
    """Why the target's profile sets some of ``settings``, by ``section.key``, where it says so."""


def find_source(spec: str | None, out: Path | None) -> Source:
    """Find the weights that ``spec`` names.

    Args:
        spec: A run (its folder or its name) or a ``.pt``. Default: the run that finished last.
        out: Where the artifact folders go. Default: into the run; for bare weights into
            ``runs/<stem>/artifacts``.

    Raises:
        UsageError: It is neither, the run is unfinished, or bare weights have a run's name.
    """
    run = newest_finished() if spec is None else _run_of(Path(spec), spec)
    if run is not None:
        weights = run.path / run.result().weights
        return Source(weights, out or run.artifacts, run.plan())
    weights = Path(str(spec))
    if not weights.is_file():
        raise UsageError(f"weights {weights} do not exist", "check the path; nothing is downloaded")
    home = RunFolder(RUNS / weights.stem)
    if out is None and home.plan_file.exists():
        raise UsageError(
            f"artifacts of {weights} would mix with those of the run {home.path}",
            f"musgd export {shlex.quote(str(weights))} --out DIR",
        )
    return Source(weights, out or home.artifacts, None)


def _run_of(path: Path, spec: str) -> RunFolder | None:
    """Return the run that is meant, or ``None`` for bare weights."""
    suffix = path.suffix.lower()
    if suffix in _MODELS:
        raise UsageError(
            f"{spec} is an exported model, not weights",
            "give its run, or the .pt it was made from",
        )
    if suffix in _WEIGHTS and not path.is_dir():
        # A run's best weights are the run: they should not end up in runs/best.
        run = RunFolder(path.parent.parent)
        finished = path.parent == run.weights and run.finished and run.plan_file.is_file()
        return run if finished and (run.path / run.result().weights) == path else None
    if (path / ARTIFACT_FILE).is_file():
        raise UsageError(f"{spec} is an artifact already", "give its run, or its weights")
    return find_run(spec)


def place_orders(
    source: Source,
    targets: Iterable[str],
    flags: Mapping[str, Any],
    spelling: Mapping[str, str] | None = None,
    sizes: Iterable[int] = (),
) -> list[Order]:
    """Settle what each target gets, at each size.

    A run's own target has the settings that the run was trained with, in place of its profile's;
    ``musgd.toml``, the environment and options beat them, but of a run's data, size and seed, which
    options alone replace.

    Args:
        source: What is exported.
        targets: Profiles of machines that will run the model, by name or path; ``auto`` is this
            machine. None of them: the run's target; for bare weights the default one.
        flags: ``section.key`` to a typed value, as `musgd_cli.settings.settle` takes them.
        spelling: ``section.key`` to the option as it was typed.
        sizes: Sides of the square input, pixels; none of them: the run's, or the profile's.

    Raises:
        UsageError: A target, key or value is wrong.
    """
    named: list[str | None] = [*dict.fromkeys(targets)] or [None]
    flagged = [{**flags, "train.imgsz": size} for size in dict.fromkeys(sizes)] or [dict(flags)]
    paths = [Path(target) for target in named if target is not None and target.endswith(".toml")]
    for path, other in itertools.combinations(paths, 2):
        if path.stem == other.stem and path.resolve() != other.resolve():
            raise UsageError(
                f"the profiles {path} and {other} are both named {path.stem}", "rename one of them"
            )
    orders = [_order(source, target, given, spelling) for target in named for given in flagged]
    # Two names can mean one target: auto, and the profile of this machine.
    return list({(order.target, order.imgsz): order for order in orders}.values())


def _order(
    source: Source,
    target: str | None,
    flags: Mapping[str, Any],
    spelling: Mapping[str, str] | None,
) -> Order:
    plan = source.plan
    given = {key: value for key, value in flags.items() if value is not None}
    # What a run was trained on and for is a fact; how it is compressed may be changed by all but
    # the profile. An older run's plan may hold a key that is no more, and lack one that is new.
    known = {} if plan is None else {k: was for k, was in plan.settings.items() if k in KEYS}
    facts = {key: known[key].value for key in _FACTS if key in known}
    own = plan.target if plan is not None else None
    inherited = known if own is not None and target in (None, own) else {}
    host = detect()
    profile = profiles.match(host).name if target == "auto" else target
    if profile is None and own in profiles.names():
        profile = own
    settled = settle(
        host=host,
        target=profile,
        flags=facts | given,
        spelling=spelling,
        inherited={k: was for k, was in inherited.items() if k.startswith("compress.")},
    )
    name = own if own is not None and target is None else settled.target
    named = name if target in (None, "auto") else target
    return Order(
        target=name,
        boards=_boards(named),
        imgsz=settled.train.imgsz,
        settings=settled.compress,
        data=settled.train.data,
        data_given="train.data" in given,
        seed=settled.train.seed,
        head_source=settled.settings["compress.nms_free"].source,
        reasons=_reasons(named),
    )


def _is_here(profile: str) -> bool:
    """Tell whether a profile is there; one that a run names may be another machine's."""
    return profile in profiles.names() or Path(profile).is_file()


def _boards(profile: str) -> tuple[str, ...]:
    return profiles.load(profile).boards if _is_here(profile) else ()


def _reasons(profile: str) -> dict[str, str]:
    """Return what a profile says of the head it takes and of int8; nothing if it is gone."""
    if not _is_here(profile):
        return {}
    keys = ("compress.nms_free", "compress.int8")
    found = {key: profiles.reason(profile, key) for key in keys}
    return {key: reason for key, reason in found.items() if reason is not None}
