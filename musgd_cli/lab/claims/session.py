"""Claims measured one by one, each result kept as soon as it is there."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musgd_cli import __version__, data
from musgd_cli.data import demo
from musgd_cli.errors import ExitCode, MusgdError, UsageError
from musgd_cli.hardware import detect
from musgd_cli.lab.claims.article import CLAIMS, choose
from musgd_cli.lab.claims.convergence import ADAMW
from musgd_cli.lab.claims.matrix import SGD, Matrix
from musgd_cli.lab.claims.scale import QUICK, SCALES, Scale
from musgd_cli.lab.claims.verdicts import FORMS, unmeasured
from musgd_cli.lab.claims.workbench import Workbench
from musgd_cli.lab.contenders import SWEEP_FACTORS, Contender
from musgd_cli.records import ClaimFinding, ClaimResult, Claims, Host
from musgd_cli.sections import is_weights
from musgd_cli.settings import settle
from musgd_cli.storage import read_record, require_writable, write_record
from musgd_cli.train import checkpoint
from musgd_cli.train.events import ignore, never

FILE = "claims.json"
_DATA = "data"
_VERSIONS_OF = ("torch", "ultralytics", "onnxruntime", "torch-pruning")
_SCORED = frozenset({"C1", "C2", "C4", "C7", "C8", "C11"})
_MODEL = "yolo26n.yaml"
_OURS = frozenset(
    f"{section}.{key}"
    for section, keys in {
        "train": ("data", "model", "name", "epochs", "seed"),
        "optim": ("name", "lr", "momentum"),
    }.items()
    for key in keys
)
"""Settings that an option or the experiments choose."""


@dataclass(frozen=True)
class Order:
    """What is to be measured, and on what."""

    folder: Path
    """Where everything goes; what an earlier session of the same order left there is kept."""
    scale: Scale = QUICK
    claims: tuple[str, ...] = ()
    """``C1``, …; none: all."""
    data: str | None = None
    """A data set; ``None``: the built-in one, drawn into the folder."""
    model: str | None = None
    """Weights or a model YAML; ``None``: YOLO26n from scratch."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of all trainings, by ``section.key``."""
    jobs: int = 1
    trust: bool = False


@dataclass(frozen=True)
class Watchers:
    """Whom the work tells what."""

    tell: Callable[[str], None] = ignore
    """A line for people: a step was finished."""
    on_result: Callable[[ClaimResult], None] = ignore
    stop: Callable[[], bool] = never
    """Asked often whether to stop; trainings finish their step and can be taken up."""


def examine(order: Order, watchers: Watchers, machine: Path) -> Claims:
    """Measure claims, or go on where that was stopped.

    An experiment that cannot be made here, or that fails in a way that was foreseen, is a finding;
    the others go on.

    Args:
        order: What is asked.
        watchers: Whom to tell, and whom to ask whether to stop.
        machine: ``/``, or a recorded tree of another machine.

    Returns:
        What was found, as it stands in the folder's ``claims.json``.

    Raises:
        UsageError: A claim, setting, model or data set is wrong, or the folder holds other work.
        StoppedError: ``watchers.stop`` said so; what is finished is kept.
        MusgdError: The folder cannot be written.
    """
    began, cpu_began = time.monotonic(), _cpu_s()
    numbers = choose(order.claims)
    folder = order.folder.absolute()
    require_writable(folder)
    host = detect(machine)
    flags = _settings(order, folder)
    file = folder / FILE
    claims = _set_out(order, flags, host)
    _require_same(file, claims, numbers)
    folder.mkdir(parents=True, exist_ok=True)
    write_record(file, claims)
    if order.data is None:
        watchers.tell("drawing the built-in data set")
        demo.draw(folder / _DATA)
    data.require_sound(data.check(claims.data))
    matrix = Matrix(
        folder=folder,
        flags=flags,
        scale=order.scale,
        host=host,
        tell=watchers.tell,
        stop=watchers.stop,
        jobs=order.jobs,
        trust=order.trust,
        planned_epochs=_planned_epochs(order.scale, numbers),
    )
    bench = Workbench(
        folder=folder,
        data=claims.data,
        scale=order.scale,
        matrix=matrix,
        host=host,
        machine=machine,
        tell=watchers.tell,
        stop=watchers.stop,
    )
    _train_shared(matrix, numbers)
    for number in numbers:
        result = _result(number, bench, order)
        claims = claims.model_copy(
            update={
                "results": (*claims.results, result),
                "finished": number == numbers[-1],
                "trainings": len(matrix.used),
                "seconds": time.monotonic() - began,
                "cpu_s": _cpu_s() - cpu_began,
            }
        )
        write_record(file, claims)
        watchers.on_result(result)
    return claims


def _train_shared(matrix: Matrix, numbers: tuple[str, ...]) -> None:
    """Train at once what several claims share: side by side, no place stays empty for long."""
    if not _SCORED & set(numbers):
        return
    contenders = [SGD, *(Contender.parse(form) for form in FORMS)]
    if "C11" in numbers:
        contenders.append(ADAMW)
    try:
        matrix.score(contenders)
    except MusgdError as error:
        if error.exit_code == ExitCode.INTERRUPTED:
            raise  # else each claim meets it, and says what it cannot measure for want of it


def _result(number: str, bench: Workbench, order: Order) -> ClaimResult:
    claim = CLAIMS[number]
    bench.tell(f"{number}: {claim.says}")
    began = time.monotonic()
    findings: tuple[ClaimFinding, ...]
    try:
        findings = claim.experiment(bench)
    except MusgdError as error:
        if error.exit_code == ExitCode.INTERRUPTED:
            raise
        findings = tuple(unmeasured(form, f"{error.what}; {error.mend}") for form in FORMS)
    return ClaimResult(
        claim=number,
        says=claim.says,
        figure=claim.figure,
        rule=claim.rule,
        findings=findings,
        repeat=_command(order, number),
        seconds=time.monotonic() - began,
    )


def _settings(order: Order, folder: Path) -> dict[str, Any]:
    """Return the settings that all trainings share."""
    if ours := sorted(_OURS & order.flags.keys()):
        raise UsageError(
            f"{', '.join(ours)}: the experiments choose that themselves",
            "leave it out; --data, --model, --epochs and --seeds are options of their own",
        )
    built_in = {} if order.data is not None else dict(demo.DEMO_SETTINGS)
    flags = {
        key: value
        for key, value in {**built_in, **order.scale.flags}.items()
        if key not in ("optim.name", "optim.lr")  # the contenders' own
    }
    model = _MODEL if order.model is None else order.model
    given = Path(model)
    if is_weights(model):
        checkpoint.require_archive(given)
    file = folder / _DATA / "demo.yaml" if order.data is None else data.load(order.data).path
    return {
        **flags,
        "train.threads": 1,
        "train.patience": 0,
        **order.flags,
        "train.epochs": order.scale.epochs,
        # Absolute: trainings and exports have other current folders.
        "train.data": str(file.absolute()),
        "train.model": str(given.absolute()) if given.is_file() else model,
    }


def _set_out(order: Order, flags: Mapping[str, Any], host: Host) -> Claims:
    train = settle(host=host, flags=flags).train
    return Claims(
        run=order.folder.name,
        scale=order.scale.name,
        finished=False,
        data=flags["train.data"],
        model=train.model,
        imgsz=train.imgsz,
        batch=train.batch,
        epochs=order.scale.epochs,
        seeds=order.scale.seeds,
        sweep_epochs=order.scale.sweep_epochs,
        settings=flags,
        results=(),
        trainings=0,
        seconds=0.0,
        cpu_s=0.0,
        host=host,
        versions={
            "musgd": __version__,
            "python": platform.python_version(),
            **{name: version for name in _VERSIONS_OF if (version := _version(name))},
        },
    )


def _require_same(file: Path, claims: Claims, numbers: tuple[str, ...]) -> None:
    """Make sure that nothing of another order is written over."""
    folder = file.parent
    if not folder.exists() or not any(folder.iterdir()):
        return
    mend = "choose another --name, or remove that folder yourself"
    if not file.exists():
        raise UsageError(f"{folder} exists and holds no claims", mend)
    before = read_record(file, Claims)
    there, here = (
        {"scale": each.scale, "sweep epochs": each.sweep_epochs, **each.settings}
        for each in (before, claims)
    )
    differing = [
        f"{key} {there.get(key)}, now {here.get(key)}"
        for key in dict.fromkeys((*there, *here))
        if there.get(key) != here.get(key)
    ]
    if differing:
        raise UsageError(
            f"{folder} holds claims measured with other settings: {'; '.join(differing)}", mend
        )
    dropped = [each.claim for each in before.results if each.claim not in numbers]
    if dropped:
        raise UsageError(
            f"{folder} holds results that this would write over: {', '.join(dropped)}",
            "choose another --name, or ask for those too",
        )


def _planned_epochs(scale: Scale, numbers: tuple[str, ...]) -> int:
    """Guess how many epochs the claims will train, for the estimate of the time left."""
    forms = 1 + len(FORMS)
    epochs = 0
    if _SCORED & set(numbers):
        contenders = forms + ("C11" in numbers)
        epochs += contenders * len(SWEEP_FACTORS) * scale.sweep_epochs
        epochs += contenders * scale.seeds * scale.epochs
    if "C4" in numbers:
        epochs += (forms + 1) * scale.seeds * len(scale.multiples)
    if "C5" in numbers:
        rows = len(scale.momenta) + (not _SCORED & set(numbers))
        epochs += forms * rows * len(SWEEP_FACTORS) * scale.sweep_epochs
    if "C7" in numbers:
        epochs += forms * scale.seeds * scale.tuning_epochs
    return epochs


def _command(order: Order, number: str) -> str:
    """Return the command that measures one claim anew, in a folder of its own."""
    words = ["musgd", "claims", f"--{order.scale.name}", "--claim", number]
    if order.data is not None:
        words += ["--data", order.data]
    if order.model is not None:
        words += ["--model", order.model]
    usual = SCALES[order.scale.name]
    if order.scale.epochs != usual.epochs:
        words += ["--epochs", str(order.scale.epochs)]
    if order.scale.seeds != usual.seeds:
        words += ["--seeds", str(order.scale.seeds)]
    for key, value in order.flags.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join([*words, "--name", f"{order.folder.name}-again"])


def _cpu_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
