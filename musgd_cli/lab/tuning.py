"""A study: a profile's values searched for one data set with Optuna, then held to other seeds.

The lowest validation loss of the last epoch wins. On a small set it is the steadier figure: every
box counts in it, where mAP counts ranks of a few; mAP50-95 is reported beside it. The best of a
dozen noisy figures flatters itself, so the best trial and the baseline are trained again on seeds
that chose neither, and only a gain that is seen there is recommended.

The study lives in Optuna's storage, which several machines can share, and each machine's trials in
its own folder. What is begun is taken up again, what a dead machine left is trained by another.
"""

from __future__ import annotations

import fcntl
import json
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli import __version__, data
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware import detect
from musgd_cli.installation import ExtraError, pip
from musgd_cli.lab.search_space import MACHINE, suggest
from musgd_cli.lab.trials import Trial, Watchers, run_trials
from musgd_cli.records import (
    Confirmation,
    EpochLog,
    Plan,
    Searched,
    Study,
    StudyVerdict,
    TrainResult,
    TunedTrial,
)
from musgd_cli.report.tuning import domain, plain
from musgd_cli.report.wording import data_name, machine_in_words
from musgd_cli.runs import RunFolder
from musgd_cli.settings import change
from musgd_cli.storage import digest_of, write_failed
from musgd_cli.train.events import DivergedError, ignore, never

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

LOCK = "study.lock"
"""The file that says that a folder is a study's, and is held while one tunes."""

STARTUP_TRIALS = 4
"""Trials that are drawn at random, the baseline among them, before any is chosen or pruned."""

PING_S = 60.0
STALE_S = 900.0
"""A trial whose machine has not been heard of for so long is given up."""

MAP_SLACK = 0.01
"""Most mean mAP50-95 that values may cost and still be recommended for their loss."""

_VERSIONS_OF = ("torch", "ultralytics", "optuna")


@dataclass(frozen=True)
class Request:
    """What is asked of a study."""

    name: str
    plan: Plan
    """The baseline: every setting that is not searched, and where each searched one begins."""
    search: tuple[Searched, ...]
    trials: int
    """Of the whole study, over all machines and sessions."""
    confirm: int
    """Further seeds that the best trial and the baseline are trained on."""
    storage: str | None = None
    """Optuna's URL of a database; ``None``: a file in the study's folder."""


@dataclass(frozen=True)
class Listeners:
    """Whom a study tells what."""

    on_start: Callable[[str, Mapping[str, Any]], None] = lambda _, __: None
    """A run trains, by its name, with which values."""
    on_epoch: Callable[[str, EpochLog], None] = lambda _, __: None
    on_end: Callable[[str], None] = ignore
    """A run has ended, however."""
    on_trial: Callable[[TunedTrial], None] = ignore
    """A trial has its outcome."""
    on_note: Callable[[str], None] = ignore
    on_warning: Callable[[str], None] = ignore
    stop: Callable[[], bool] = never


def require_installed() -> None:
    """Make sure that Optuna is there, without loading it.

    Raises:
        UnsupportedError: It is not installed.
    """
    if find_spec("optuna") is None:
        raise ExtraError("optuna is not installed here", "tune")


def tune(
    request: Request, root: Path, listeners: Listeners, *, jobs: int = 1, trust: bool = False
) -> Study:
    """Search until the study has its trials, then confirm the best of them.

    Args:
        request: What to search; of a study that was begun before, the same but for the counts.
        root: The study's folder on this machine.
        listeners: Whom to tell, and whom to ask whether to stop.
        jobs: How many trials train at once here.
        trust: Load weights that may run code.

    Raises:
        UnsupportedError: Optuna is not installed.
        UsageError: The study was begun with another request, another process works on it in this
            folder, or its storage cannot be opened.
        StoppedError: ``listeners.stop`` said so.
        MusgdError: A trial failed, and not because its values diverge.
    """
    require_installed()
    with _alone_in(root):
        session = _Session(request, root, listeners, jobs=jobs, trust=trust)
        with session.heart():
            session.search()
            session.confirm()
        return session.record()


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / LOCK).open("w")
    except OSError as error:
        raise write_failed(root, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another musgd tune works in {root}",
                "wait for it; or let this one share its study from another folder, with --storage",
            ) from error
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Optuna warn of nothing: what it calls experimental is what we chose."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(request: Request, root: Path) -> optuna.Study:
    import optuna
    from optuna.exceptions import OptunaError
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import SQLAlchemyError

    url = request.storage
    if url is None:
        file = str((root / "study.db").resolve())
        url = URL.create("sqlite", database=file).render_as_string()
    shown = url
    try:
        shown = make_url(url).render_as_string()  # without its password
        # Two processes write to one file: each waits for the other.
        patience = {"timeout": 60} if url.startswith("sqlite") else {}
        with _quiet():
            storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": patience})
            return optuna.create_study(
                study_name=request.name,
                storage=storage,
                direction="minimize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=STARTUP_TRIALS, n_warmup_steps=_pruned_from(request.plan) - 1
                ),
            )
    except ImportError as error:
        raise UnsupportedError(
            f"the database of {shown} needs a Python package: {error}", pip("install that driver")
        ) from error
    except (SQLAlchemyError, OptunaError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"the storage {shown} cannot be opened: {reason}",
            "--storage takes a URL of SQLAlchemy, such as mysql://user:word@host/studies",
        ) from error


def _pruned_from(plan: Plan) -> int:
    # The rate falls to the end: a high one looks bad at first, and catches up in the second half.
    return plan.train.epochs // 2 + 1


def _identity(request: Request) -> dict[str, Any]:
    """Return what all sessions of a study have in common; paths and machines may differ."""
    plan, searched = request.plan, {each.key for each in request.search}
    dataset = data.load(str(plan.train.data))
    apart = {*searched, *MACHINE, "train.data", "train.model", "train.name"}
    model = Path(plan.train.model)
    return {
        **{
            key: settled.value
            for key, settled in plan.settings.items()
            if key.startswith(("optim.", "train.")) and key not in apart
        },
        **{
            f"the search of {each.key}": f"{domain(each)}, from {plain(each.baseline)} on"
            for each in request.search
        },
        "the classes": list(dataset.names),
        "the images": {split: len(images) for split, images in dataset.splits.items()},
        "the model": [model.name, digest_of(model) if model.is_file() else None],
    }


@dataclass
class _Session:
    """One machine's work at a study."""

    request: Request
    root: Path
    listeners: Listeners
    jobs: int
    trust: bool
    study: optuna.Study = field(init=False)
    mine: dict[str, optuna.Trial] = field(default_factory=dict)
    """By the name of the trial's folder: those that train here now."""
    cut: dict[str, str] = field(default_factory=dict)
    """Trials that were told to end, and their state."""

    def __post_init__(self) -> None:
        with _quiet():
            self.study = _open(self.request, self.root)
            self._require_same_request()
        self.machine = machine_in_words(detect())

    def _require_same_request(self) -> None:
        # As JSON has it, so that a list compares with what was a tuple.
        asked = json.loads(json.dumps(_identity(self.request)))
        begun = self.study.user_attrs.get("request")
        if begun is None:
            self.study.set_user_attr("request", asked)
            return
        # The search first: what is not searched is a plain setting, and differs too.
        for key in sorted(
            begun.keys() | asked.keys(), key=lambda key: (not key.startswith("the "), key)
        ):
            if begun.get(key) != asked.get(key):
                raise UsageError(
                    f"the study {self.request.name} was begun with another request: {key} was "
                    f"{_shown(begun.get(key))}, and is {_shown(asked.get(key))}",
                    "type the command it was begun with, or choose another --name",
                )

    # ------------------------------------------------------------------------------- the search

    def search(self) -> None:
        """Train trials until the study has as many as were asked for."""
        with _quiet():
            self._run(self._trials())

    def _run(self, trials: Iterable[Trial]) -> None:
        watchers = Watchers(
            on_start=self._on_start,
            on_epoch=self._on_epoch,
            on_done=self._on_done,
            on_failure=self._on_failure,
            on_warning=lambda trial, text: self.listeners.on_warning(f"{trial.name}: {text}"),
            stop=self.listeners.stop,
        )
        run_trials(trials, self.root, watchers, jobs=self.jobs, trust=self.trust)

    def _trials(self) -> Iterator[Trial]:
        import optuna

        for frozen in self._in_state("RUNNING"):
            if self._is_mine(frozen):
                yield self._prepare(optuna.Trial(self.study, frozen._trial_id))
        while True:
            self._give_up_stale()
            self._enqueue_baseline()
            if len(self._counted()) >= self.request.trials:
                return
            trial = self.study.ask()
            # Another machine may have asked at the same moment.
            if sum(each.number < trial.number for each in self._counted()) >= self.request.trials:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                return
            yield self._prepare(trial)

    def _in_state(self, *names: str) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        states = [TrialState[name] for name in names]
        return list(self.study.get_trials(deepcopy=False, states=states))

    def _counted(self) -> list[FrozenTrial]:
        return self._in_state("RUNNING", "COMPLETE", "PRUNED")

    def _is_mine(self, frozen: FrozenTrial) -> bool:
        return self.request.storage is None or (self.root / _folder(frozen.number)).exists()

    def _give_up_stale(self) -> None:
        from optuna.trial import TrialState

        for frozen in self._in_state("RUNNING"):
            seen = frozen.user_attrs.get("seen_at")
            if seen is None or self._is_mine(frozen) or time.time() - seen < STALE_S:
                continue
            self.study.tell(frozen.number, state=TrialState.FAIL, skip_if_finished=True)
            self.listeners.on_note(
                f"trial {frozen.number} is given up: its machine has not been heard of for "
                f"{(time.time() - seen) / 60:.0f} minutes"
            )

    def _enqueue_baseline(self) -> None:
        alive = self._in_state("WAITING", "RUNNING", "COMPLETE")
        if not any(frozen.user_attrs.get("baseline") for frozen in alive):
            self.study.enqueue_trial(
                {each.key: each.baseline for each in self.request.search},
                user_attrs={"baseline": True},
            )

    def _prepare(self, trial: optuna.Trial) -> Trial:
        import optuna

        run = RunFolder(self.root / _folder(trial.number))
        run.path.mkdir(exist_ok=True)  # whose trial this is, from now on
        # A session that is started again must not draw the numbers of the first once more.
        seed = (self.request.plan.train.seed * 1_000_003 + trial.number) % 2**32
        self.study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP_TRIALS, constant_liar=True, seed=seed
        )
        values = {each.key: suggest(trial, each) for each in self.request.search}
        if trial.user_attrs.get("baseline"):
            values = {each.key: each.baseline for each in self.request.search}
        trial.set_user_attr("values", values)
        trial.set_user_attr("machine", self.machine)
        trial.set_user_attr("seen_at", time.time())
        self.mine[run.name] = trial
        return Trial(run.name, self._plan(run, values))

    def _plan(self, run: RunFolder, values: Mapping[str, Any], seed: int | None = None) -> Plan:
        settings = {key: (value, f"study {self.request.name}") for key, value in values.items()}
        if seed is not None:
            settings["train.seed"] = (seed, "--confirm")
        plan = change(self.request.plan, settings)
        if not run.plan_file.exists():
            return plan
        # It goes on as it began: with as many threads, and the same paths.
        begun = run.plan().settings
        kept = {key: begun[key] for key in (*MACHINE, "train.data", "train.model") if key in begun}
        return plan.model_copy(update={"settings": {**plan.settings, **kept}})

    # ----------------------------------------------------------------------- what a run tells

    def _on_start(self, trial: Trial) -> None:
        values = {each.key: trial.plan.value(each.key) for each in self.request.search}
        self.listeners.on_start(trial.name, values)

    def _on_epoch(self, run: Trial, log: EpochLog) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        self.listeners.on_epoch(run.name, log)
        loss = log.val_loss
        if loss is None:
            self.cut[run.name] = "diverged"
            return True
        trial = self.mine.get(run.name)
        if trial is None:  # a confirmation
            return False
        try:
            trial.report(loss, log.epoch - 1)
        except UpdateFinishedTrialError:
            self.cut[run.name] = "given up"
            return True
        spared = log.epoch == log.epochs or trial.user_attrs.get("baseline")
        if not spared and trial.should_prune():
            self.cut[run.name] = "pruned"
            return True
        return False

    def _on_done(self, run: Trial, result: TrainResult | None) -> None:
        state = "finished" if result is not None else self.cut.pop(run.name)
        self._tell(run, state)
        if state == "pruned":
            (run.run(self.root).weights / "resume.pt").unlink(missing_ok=True)

    def _on_failure(self, run: Trial, error: MusgdError) -> bool:
        if not isinstance(error, DivergedError):
            return False
        self._tell(run, "diverged")
        return True

    def _tell(self, run: Trial, state: str) -> None:
        epochs = run.run(self.root).epochs()
        last = epochs[-1] if epochs else None
        loss = None if state == "diverged" or last is None else last.val_loss
        if state == "finished" and loss is None:
            state = "diverged"
        outcome = {
            "state": state,
            "val_loss": loss,
            "map50_95": None if last is None else last.map50_95,
            "map50": None if last is None else last.map50,
            "epochs": len(epochs),
            "seconds": sum(log.seconds for log in epochs),
        }
        self.listeners.on_end(run.name)
        trial = self.mine.pop(run.name, None)
        if trial is None:
            self.study.set_user_attr(run.name, outcome)
        elif state != "given up":
            self._finish(trial, outcome)

    def _finish(self, trial: optuna.Trial, outcome: Mapping[str, Any]) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            trial.set_user_attr("outcome", outcome)
            if outcome["state"] == "pruned":
                self.study.tell(trial, state=TrialState.PRUNED)
            else:
                loss = outcome["val_loss"]
                self.study.tell(trial, float("inf") if loss is None else loss)
        except UpdateFinishedTrialError:
            return  # given up by another machine while this one slept
        (told,) = (each for each in self._told() if each.number == trial.number)
        self.listeners.on_trial(told)

    @contextmanager
    def heart(self) -> Iterator[None]:
        """Let other machines know while this one works at its trials."""
        from optuna.exceptions import UpdateFinishedTrialError

        done = threading.Event()

        def beat() -> None:
            while not done.wait(PING_S):
                for trial in tuple(self.mine.values()):
                    with suppress(UpdateFinishedTrialError):
                        trial.set_user_attr("seen_at", time.time())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    # ---------------------------------------------------------------------- the confirmation

    def confirm(self) -> None:
        """Train the best trial and the baseline on further seeds, unless it is known already."""
        with _quiet():
            baseline, best = self._rivals()
            if self._in_state("RUNNING") or baseline is None or best in (None, baseline):
                return
            assert best is not None
            self._run(self._confirming(baseline, best))

    def _rivals(self) -> tuple[TunedTrial | None, TunedTrial | None]:
        """Return the baseline and the best trial, as far as they are known."""
        told = self._told()
        baseline = next((each for each in told if each.baseline), None)
        finished = [each for each in told if each.state == "finished"]
        return baseline, min(finished, key=_loss, default=None)

    def _confirming(self, *rivals: TunedTrial) -> Iterator[Trial]:
        known = self.study.user_attrs
        for seed in self._further_seeds():
            for each in rivals:
                run = RunFolder(self.root / _folder(each.number, seed))
                if run.name not in known:
                    yield Trial(run.name, self._plan(run, each.values, seed))

    def _further_seeds(self) -> range:
        seed = self.request.plan.train.seed
        return range(seed + 1, seed + 1 + self.request.confirm)

    def _confirmations(self, baseline: TunedTrial, best: TunedTrial) -> Iterator[Confirmation]:
        known = self.study.user_attrs
        for seed in self._further_seeds():
            ours, theirs = (known.get(_folder(each.number, seed)) for each in (baseline, best))
            if ours is not None and theirs is not None:
                yield Confirmation(
                    seed=seed,
                    baseline_val_loss=ours["val_loss"],
                    best_val_loss=theirs["val_loss"],
                    baseline_map50_95=ours["map50_95"],
                    best_map50_95=theirs["map50_95"],
                )

    # --------------------------------------------------------------------------- the record

    def _told(self) -> list[TunedTrial]:
        return [_told(frozen) for frozen in self._counted()]

    def record(self) -> Study:
        """Return what the study has come to."""
        plan = self.request.plan
        dataset = data.load(str(plan.train.data))
        with _quiet():
            trials = self._told()
            baseline, best = self._rivals()
            confirmations: tuple[Confirmation, ...] = ()
            if baseline is not None and best is not None and best != baseline:
                confirmations = tuple(self._confirmations(baseline, best))
        noise = _noise(baseline, confirmations)
        verdict = _verdict(baseline, best, confirmations, noise, trials, self.request)
        chosen = best if verdict == "holds" else None
        return Study(
            name=self.request.name,
            profile=plan.profile,
            optimizer=plan.optim.name,
            data=data_name(str(plan.train.data)),
            n_images=len(dataset.images("train")),
            n_val_images=len(dataset.images("val")),
            model=Path(plan.train.model).name,
            imgsz=plan.train.imgsz,
            batch=plan.train.batch,
            epochs=plan.train.epochs,
            seed=plan.train.seed,
            asked=self.request.trials,
            pruned_from=_pruned_from(plan),
            search=self.request.search,
            trials=tuple(trials),
            best=None if best is None else best.number,
            confirmations=confirmations,
            noise=noise,
            verdict=verdict,
            recommended=(
                chosen.values
                if chosen is not None
                else {each.key: each.baseline for each in self.request.search}
            ),
            host=detect(),
            versions={
                "musgd": __version__,
                **{name: metadata.version(name) for name in _VERSIONS_OF},
            },
        )


def _folder(number: int, seed: int | None = None) -> str:
    return f"trial-{number:02d}" if seed is None else f"trial-{number:02d}-seed{seed}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def _loss(trial: TunedTrial) -> float:
    return float("inf") if trial.val_loss is None else trial.val_loss


def _told(frozen: FrozenTrial) -> TunedTrial:
    attrs = frozen.user_attrs
    outcome = attrs.get("outcome", {}) if frozen.state.is_finished() else {}
    return TunedTrial(
        number=frozen.number,
        state=outcome.get("state", "running"),
        baseline=bool(attrs.get("baseline")),
        values=attrs.get("values", {}),
        epochs=outcome.get("epochs"),
        val_loss=outcome.get("val_loss"),
        map50_95=outcome.get("map50_95"),
        map50=outcome.get("map50"),
        seconds=outcome.get("seconds"),
        machine=attrs.get("machine"),
    )


def _noise(baseline: TunedTrial | None, confirmations: tuple[Confirmation, ...]) -> float | None:
    if baseline is None:
        return None
    losses = [baseline.val_loss, *(each.baseline_val_loss for each in confirmations)]
    known = [loss for loss in losses if loss is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def _verdict(
    baseline: TunedTrial | None,
    best: TunedTrial | None,
    confirmations: tuple[Confirmation, ...],
    noise: float | None,
    trials: list[TunedTrial],
    request: Request,
) -> StudyVerdict:
    """Judge whether the best trial is better than the baseline, and not just luckier.

    It is if it has the lower loss on every seed that chose nothing, if the mean gain is more than
    the baseline's losses are apart between seeds, and if it costs no mAP50-95 to speak of.
    """
    if len(trials) < request.trials or any(trial.state == "running" for trial in trials):
        return "unfinished"
    if best is None:
        return "all diverged"
    if best == baseline:
        return "baseline is best"
    if len(confirmations) < max(request.confirm, 1):
        return "not confirmed"
    gains = [each.gain for each in confirmations if each.gain is not None]
    better = all(map(_beats, confirmations))
    # Where the baseline diverges and the best does not, there is nothing to weigh.
    clear = len(gains) < len(confirmations) or (
        noise is not None and statistics.fmean(gains) > noise
    )
    lost = [
        each.baseline_map50_95 - each.best_map50_95
        for each in confirmations
        if each.baseline_map50_95 is not None and each.best_map50_95 is not None
    ]
    harmless = not lost or statistics.fmean(lost) <= MAP_SLACK
    return "holds" if better and clear and harmless else "does not hold"


def _beats(confirmation: Confirmation) -> bool:
    best, baseline = confirmation.best_val_loss, confirmation.baseline_val_loss
    return best is not None and (baseline is None or best < baseline)
