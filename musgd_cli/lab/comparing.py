"""Optimizers compared: the trials that takes, in their order, and what came of them.

Every contender has the same budget, seeds and data order. Nesterov SGD is the baseline; SGD
without Nesterov is a control, and so is each adaptive contender with its momentum held at the
mean of what it used, which tells what the adapting itself is worth.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.hardware import usable_cores
from musgd_cli.lab.contenders import SWEEP_SEED, Contender, sweep
from musgd_cli.lab.scoring import Outcome, crossing, default_targets, outcomes, spread
from musgd_cli.lab.trials import (
    LOGS,
    Trial,
    Watchers,
    require_bearable,
    require_same_plan,
    run_trials,
    same_settings,
)
from musgd_cli.records import (
    ComparisonRequest,
    ComparisonTarget,
    ContenderResult,
    EpochLog,
    Host,
    OptimizerComparison,
    Plan,
    ScoredRun,
    SweptRate,
    TrainResult,
)
from musgd_cli.runs import RunFolder
from musgd_cli.storage import read_record, write_failed, write_record, write_text
from musgd_cli.train.events import DivergedError, ignore, never

COMPARISON_FILE = "compare.json"
PAGE_FILE = "compare.html"

_DIVERGED_FILE = "diverged.txt"
"""In the folder of a trial: it did, and is not trained again."""


@dataclass(frozen=True)
class Setup:
    """What to compare, and how."""

    contenders: tuple[Contender, ...]
    seeds: int
    sweep_lr: bool
    host: Host
    flags: Mapping[str, Any]
    """``section.key`` to typed value, for all contenders."""
    spelling: Mapping[str, str] = field(default_factory=dict)
    """``section.key`` to the flag as typed."""
    profile: str | None = None
    targets: tuple[ComparisonTarget, ...] = ()
    """None: those that the baseline sets."""
    jobs: int = 1
    trust: bool = False

    def plan(self, contender: Contender, lr: float | None = None, seed: int = 0) -> Plan:
        """Settle one trial's plan."""
        return contender.plan(
            self.flags, lr, seed, host=self.host, profile=self.profile, spelling=self.spelling
        )


def settle_setup(setup: Setup) -> Setup:
    """Return the setup with what only the whole of it decides: threads, and an even budget.

    Raises:
        UsageError: A setting is wrong, or is a contender's own; two contenders are one; or there
            are too many jobs.
    """
    require_bearable(setup.jobs)
    own = "each training's own here", "give it in --optimizers, such as sgd:lr=0.01"
    refused = {
        "optim.name": own,
        "optim.lr": own,
        "train.seed": ("each training's own here", "--seeds N takes the seeds from 0 on"),
        "train.name": ("each training's own here", "--name names the comparison"),
        "train.patience": ("0 here: all get the same epochs", "leave it out"),
    }
    for key, (why, mend) in refused.items():
        if key in setup.flags:
            raise UsageError(f"{setup.spelling.get(key, f'--set {key}')} is {why}", mend)
    train = setup.plan(_baseline(setup)).train
    flags, spelling = dict(setup.flags), dict(setup.spelling)
    if not train.threads:
        flags["train.threads"] = max(1, usable_cores() // setup.jobs)
        spelling["train.threads"] = "musgd compare: the cores by --jobs"
    if 0 < train.patience < train.epochs:
        flags["train.patience"] = 0
        spelling["train.patience"] = "musgd compare: the same epochs for all"
    settled = replace(setup, flags=flags, spelling=spelling)
    plans: dict[str, Plan] = {}
    for contender in settled.contenders:
        plan = settled.plan(contender)
        for label, other in plans.items():
            if same_settings(plan, other):
                raise UsageError(f"{label} and {contender.label} train alike", "leave one out")
        plans[contender.label] = plan
    return settled


def request_of(setup: Setup) -> ComparisonRequest:
    """Return what decides the trainings of a settled setup."""
    settings = setup.plan(_baseline(setup)).settings
    return ComparisonRequest(
        optimizers=tuple(contender.label for contender in setup.contenders),
        seeds=setup.seeds,
        sweep_lr=setup.sweep_lr,
        settings={
            key: settled.value
            for key, settled in settings.items()
            if key.startswith("train.") and key not in ("train.seed", "train.name")
        },
    )


# ---------------------------------------------------------------------------------- the contenders


@dataclass
class _Entrant:
    """A contender, and what is known of it so far."""

    contender: Contender
    role: Literal["baseline", "contender", "control"]
    control_of: Contender | None = None
    swept: tuple[float, ...] = ()
    lr: float | None = None
    """What is scored, once it is known."""
    hopeless: bool = False
    """Every rate of its sweep diverged."""
    awaits_twin: bool = False
    """It adapts, and whether it gets a control with its own mean momentum is not known yet."""


def _nesterov(setup: Setup, *, on: bool) -> Contender:
    plain = Contender.parse("sgd")
    return plain if setup.plan(plain).optim.nesterov is on else plain.changed(nesterov=on)


def _baseline(setup: Setup) -> Contender:
    """Return Nesterov SGD, as it was asked for if it was."""
    wanted = _nesterov(setup, on=True)
    return next((c for c in setup.contenders if _alike(setup, c, wanted)), wanted)


def _alike(setup: Setup, one: Contender, other: Contender) -> bool:
    """Tell whether two contenders are one but for their learning rates, however typed."""
    return one.name == other.name and same_settings(setup.plan(one, 1.0), setup.plan(other, 1.0))


def _entrants(setup: Setup) -> list[_Entrant]:
    baseline = _baseline(setup)
    plain = replace(_nesterov(setup, on=False), lr=baseline.lr)
    entrants = [_Entrant(baseline, "baseline")]
    asked = [contender for contender in setup.contenders if contender is not baseline]
    if not any(_alike(setup, contender, plain) for contender in asked):
        entrants.append(_Entrant(plain, "control", baseline))
    entrants += [_Entrant(contender, "contender") for contender in asked]
    for entrant in entrants:
        _set_out(entrant, setup)
        entrant.awaits_twin = setup.plan(entrant.contender).optim.adapt_factor != 0
    return entrants


def _set_out(entrant: _Entrant, setup: Setup) -> None:
    centre = setup.plan(entrant.contender).optim.lr
    if setup.sweep_lr:
        entrant.swept = sweep(centre)
    else:
        entrant.lr = centre


# ------------------------------------------------------------------------------------ the trials


@dataclass(frozen=True)
class Standing:
    """How far a comparison is when it tells something."""

    trial: str
    done: int
    """Trials that are finished, by earlier sessions too."""
    total: int
    """As far as it can be known yet."""
    eta_s: float | None


@dataclass(frozen=True)
class Followers:
    """Whom a comparison tells what."""

    on_start: Callable[[Standing], None] = ignore
    on_epoch: Callable[[Standing, EpochLog], None] = lambda _, __: None
    on_done: Callable[[Standing, Outcome], None] = lambda _, __: None
    """A trial that this session trained, to its end or until it diverged."""
    on_kept: Callable[[int, int], None] = lambda _, __: None
    """Before anything trains, if there is any: trials of earlier sessions, and of how many."""
    on_warning: Callable[[str], None] = ignore
    stop: Callable[[], bool] = never


class Campaign:
    """The trials of one comparison: which are next, and what became of each.

    Args:
        setup: A settled setup.
        root: The comparison's folder.
        followers: Whom to tell.
    """

    def __init__(self, setup: Setup, root: Path, followers: Followers) -> None:
        self.setup = setup
        self.root = root
        self.followers = followers
        self.entrants = _entrants(setup)
        self.outcomes: dict[str, Outcome] = {}
        self._given: set[str] = set()
        self._planned: dict[str, Trial] = {}
        self._began: dict[str, float] = {}
        self._took: list[float] = []

    def run(self) -> None:
        """Train what is not trained yet."""
        watchers = Watchers(
            on_start=self._start,
            on_epoch=self._epoch,
            on_done=self._done,
            on_failure=self._failed,
            on_warning=lambda trial, text: self.followers.on_warning(f"{trial.name}: {text}"),
            stop=self.followers.stop,
        )
        self._take_over()
        run_trials(
            self._trials(), self.root, watchers, jobs=self.setup.jobs, trust=self.setup.trust
        )

    def _trials(self) -> Iterator[Trial | None]:
        while True:
            trial = next((t for t in self._wanted() if t.name not in self._given), None)
            if trial is not None:
                self._given.add(trial.name)
                yield trial
            elif len(self.outcomes) < len(self._given):
                yield None  # what is training decides what comes next
            else:
                return

    def _take_over(self) -> None:
        """Take what earlier sessions finished, and what that makes known to be needed."""
        while new := [trial for trial in self._wanted() if self._is_there(trial)]:
            for trial in new:
                self._given.add(trial.name)
                run = trial.run(self.root)
                self._take(trial.name, Outcome(run, diverged=not run.finished))
        if self.outcomes:
            self.followers.on_kept(len(self.outcomes), self._total())

    def _wanted(self) -> Iterator[Trial]:
        """Yield every trial known to be needed, sweeps first, then seed by seed."""
        for entrant in self.entrants:
            for lr in entrant.swept:
                yield self._trial(entrant, lr, SWEEP_SEED)
        for seed in range(self.setup.seeds):
            for entrant in self.entrants:
                if entrant.lr is not None:
                    yield self._trial(entrant, entrant.lr, seed)

    def _trial(self, entrant: _Entrant, lr: float, seed: int) -> Trial:
        # Settling a plan reads files, and what is wanted is asked for all the time.
        name = entrant.contender.trial_name(lr, seed)
        if name not in self._planned:
            self._planned[name] = Trial(name, self.setup.plan(entrant.contender, lr, seed))
        return self._planned[name]

    def _is_there(self, trial: Trial) -> bool:
        run = trial.run(self.root)
        return (
            trial.name not in self._given
            and (run.finished or (run.path / _DIVERGED_FILE).is_file())
            and run.plan_file.is_file()
            and same_settings(run.plan(), trial.plan)
        )

    # ---------------------------------------------------------------------- what becomes of them

    def _start(self, trial: Trial) -> None:
        self._began[trial.name] = time.monotonic()
        self.followers.on_start(self._standing(trial.name))

    def _epoch(self, trial: Trial, log: EpochLog) -> bool:
        self.followers.on_epoch(self._standing(trial.name), log)
        return False

    def _done(self, trial: Trial, _: TrainResult | None) -> None:
        self._end(trial, Outcome(trial.run(self.root), diverged=False))

    def _failed(self, trial: Trial, error: MusgdError) -> bool:
        if not isinstance(error, DivergedError):
            return False
        run = trial.run(self.root)
        write_text(run.path / _DIVERGED_FILE, f"{error.what}\n")
        self._end(trial, Outcome(run, diverged=True))
        return True

    def _end(self, trial: Trial, outcome: Outcome) -> None:
        began = self._began.pop(trial.name, None)
        if began is not None:  # else the process of a killed session has just ended it
            self._took.append(time.monotonic() - began)
        self._take(trial.name, outcome)
        self.followers.on_done(self._standing(trial.name), outcome)

    def _take(self, name: str, outcome: Outcome) -> None:
        self.outcomes[name] = outcome
        for entrant in tuple(self.entrants):
            self._choose_rate(entrant)
            self._add_twin(entrant)

    def _choose_rate(self, entrant: _Entrant) -> None:
        if entrant.lr is not None or entrant.hopeless:
            return
        found = {lr: self._outcome(entrant, lr, SWEEP_SEED) for lr in entrant.swept}
        if any(outcome is None for outcome in found.values()):
            return
        losses = {lr: last for lr, o in found.items() if o and (last := _val_loss(o)) is not None}
        if losses:
            entrant.lr = min(losses, key=lambda lr: losses[lr])
        else:
            entrant.hopeless = True

    def _add_twin(self, entrant: _Entrant) -> None:
        """Add the same with its momentum held at its own mean, once that is known."""
        if not entrant.awaits_twin or entrant.lr is None:
            return
        seed = SWEEP_SEED if entrant.swept else 0
        outcome = self._outcome(entrant, entrant.lr, seed)
        if outcome is None:
            return
        entrant.awaits_twin = False
        beta = None if outcome.diverged else outcome.run.result().beta_mean
        if beta is None:
            return
        twin = entrant.contender.changed(adapt_factor=0.0, momentum=min(round(beta, 2), 0.99))
        control = _Entrant(twin, "control", entrant.contender)
        if not any(_alike(self.setup, each.contender, twin) for each in self.entrants):
            _set_out(control, self.setup)
            self.entrants.insert(self.entrants.index(entrant) + 1, control)

    def _outcome(self, entrant: _Entrant, lr: float, seed: int) -> Outcome | None:
        return self.outcomes.get(entrant.contender.trial_name(lr, seed))

    def _standing(self, name: str) -> Standing:
        done, total = len(self.outcomes), self._total()
        mean = sum(self._took) / len(self._took) if self._took else None
        left = (total - done) * mean / self.setup.jobs if mean else None
        return Standing(name, done, total, left)

    def _total(self) -> int:
        names = {trial.name for trial in self._wanted()}
        seeds = self.setup.seeds
        # Those whose rate is not chosen yet have their scored runs to come, and so have the
        # controls that are not known yet, with their own sweeps.
        undecided = [e for e in self.entrants if e.lr is None and not e.hopeless]
        twins = [e for e in self.entrants if not e.hopeless and e.awaits_twin]
        total = len(names) + seeds * len(undecided)
        return total + sum(len(entrant.swept) + seeds for entrant in twins)

    # ------------------------------------------------------------------------------ what came of it

    def result(self) -> OptimizerComparison:
        """Read every trial and return what they came to.

        Raises:
            MusgdError: A trial has lost part of its logs.
        """
        baseline = self.entrants[0]
        curves = [
            () if outcome.diverged else outcome.curve() for _, outcome in self._scored(baseline)
        ]
        targets = self.setup.targets or default_targets(curves)
        of_baseline = {run.seed: run for run in self._score(baseline, targets, {})}
        first = next((o.run.result() for o in self.outcomes.values() if not o.diverged), None)
        plan = self.setup.plan(baseline.contender)
        return OptimizerComparison(
            run=self.root.resolve().name,
            request=request_of(self.setup),
            finished=True,
            targets=targets,
            contenders=tuple(
                self._result(entrant, targets, of_baseline) for entrant in self.entrants
            ),
            sweep_seed=SWEEP_SEED if self.setup.sweep_lr else None,
            jobs=self.setup.jobs,
            data=plan.train.data,
            n_images=first.n_images if first else None,
            n_val_images=first.n_val_images if first else None,
            device=first.device if first else None,
            threads=first.threads if first else None,
            host=self.setup.host,
            versions=first.versions if first else {},
        )

    def _scored(self, entrant: _Entrant) -> Iterator[tuple[int, Outcome]]:
        if entrant.lr is not None:
            for seed in range(self.setup.seeds):
                outcome = self._outcome(entrant, entrant.lr, seed)
                assert outcome is not None
                yield seed, outcome

    def _score(
        self,
        entrant: _Entrant,
        targets: Sequence[ComparisonTarget],
        of_baseline: Mapping[int, ScoredRun],
    ) -> tuple[ScoredRun, ...]:
        return tuple(
            _scored_run(seed, outcome, targets, of_baseline.get(seed))
            for seed, outcome in self._scored(entrant)
        )

    def _result(
        self,
        entrant: _Entrant,
        targets: Sequence[ComparisonTarget],
        of_baseline: Mapping[int, ScoredRun],
    ) -> ContenderResult:
        runs = self._score(entrant, targets, of_baseline)
        lasts = [run.last for run in runs]
        settings = self.setup.plan(entrant.contender, entrant.lr).settings
        state = {run.optimizer_state_bytes for run in runs if run.optimizer_state_bytes is not None}
        return ContenderResult(
            optimizer=entrant.contender.label,
            role=entrant.role,
            control_of=entrant.control_of.label if entrant.control_of else None,
            settings={
                key.removeprefix("optim."): settled.value
                for key, settled in settings.items()
                if key.startswith("optim.")
            },
            lr=entrant.lr,
            sweep=tuple(self._swept(entrant, lr) for lr in entrant.swept),
            at_edge=bool(entrant.swept) and entrant.lr in (entrant.swept[0], entrant.swept[-1]),
            runs=runs,
            targets=outcomes(runs, len(targets)),
            last_train_loss=spread(last.train_loss if last else None for last in lasts),
            last_val_loss=spread(last.val_loss if last else None for last in lasts),
            last_map50=spread(last.map50 if last else None for last in lasts),
            last_map50_95=spread(last.map50_95 if last else None for last in lasts),
            best_map50=spread(run.best_map50 for run in runs),
            best_map50_95=spread(run.best_map50_95 for run in runs),
            seconds=spread(run.seconds for run in runs),
            optimizer_ms=spread(run.optimizer_ms for run in runs),
            optimizer_state_bytes=max(state, default=None),
            peak_memory_mb=spread(run.peak_memory_mb for run in runs),
        )

    def _swept(self, entrant: _Entrant, lr: float) -> SweptRate:
        outcome = self._outcome(entrant, lr, SWEEP_SEED)
        assert outcome is not None
        last = None if outcome.diverged else outcome.curve()[-1]
        return SweptRate(
            lr=lr,
            run=outcome.run.name,
            diverged=outcome.diverged,
            train_loss=last.train_loss if last else None,
            val_loss=last.val_loss if last else None,
            map50=last.map50 if last else None,
        )


def _val_loss(outcome: Outcome) -> float | None:
    return None if outcome.diverged else outcome.curve()[-1].val_loss


def _scored_run(
    seed: int,
    outcome: Outcome,
    targets: Sequence[ComparisonTarget],
    baseline: ScoredRun | None,
) -> ScoredRun:
    curve = outcome.curve()
    crossings = tuple(None if outcome.diverged else crossing(curve, t) for t in targets)
    against = baseline.crossings if baseline is not None else crossings
    ratios = tuple(
        own.steps / other.steps if own is not None and other is not None else None
        for own, other in zip(crossings, against, strict=True)
    )
    result = None if outcome.diverged else outcome.run.result()
    return ScoredRun(
        seed=seed,
        run=outcome.run.name,
        diverged=outcome.diverged,
        curve=curve,
        crossings=crossings,
        steps_ratios=ratios,
        best_map50=_best(point.map50 for point in curve) if result else None,
        best_map50_95=_best(point.map50_95 for point in curve) if result else None,
        seconds=result.seconds if result else None,
        optimizer_ms=result.optimizer_ms if result else None,
        optimizer_state_bytes=result.optimizer_state_bytes if result else None,
        peak_memory_mb=result.peak_memory_mb if result else None,
        beta_mean=result.beta_mean if result else None,
    )


def _best(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


# ------------------------------------------------------------------------------------ its folder


def compare(setup: Setup, root: Path, followers: Followers) -> OptimizerComparison:
    """Compare optimizers in a folder, going on with what is there.

    Args:
        setup: A settled setup.
        root: The comparison's folder; it may hold trials of the same settings.
        followers: Whom to tell how it goes, and whom to ask whether to stop.

    Raises:
        UsageError: The folder holds something else, or another comparison is at work in it.
        StoppedError: ``followers.stop`` said so.
        MusgdError: A trial failed in another way than by diverging.
    """
    campaign = Campaign(setup, root, followers)
    require_own(root, setup, campaign)
    with _alone(root):
        request = OptimizerComparison(
            run=root.resolve().name, request=request_of(setup), finished=False
        )
        if not (root / COMPARISON_FILE).exists():
            write_record(root / COMPARISON_FILE, request)
        campaign.run()
        result = campaign.result()
        write_record(root / COMPARISON_FILE, result)
    return result


def require_own(root: Path, setup: Setup, campaign: Campaign | None = None) -> None:
    """Make sure that a folder is free, or holds this comparison or trials of it.

    Raises:
        UsageError: It holds something else; what differs is named.
    """
    mend = "choose another --name"
    if not root.exists():
        return
    if not root.is_dir():
        raise UsageError(f"{root} is a file", mend)
    file = root / COMPARISON_FILE
    if file.exists():
        differing = differences(read_record(file, OptimizerComparison).request, request_of(setup))
        if differing:
            raise UsageError(
                f"{root} holds another comparison: {'; '.join(differing)}",
                f"{mend}, or type what it was begun with to go on",
            )
        campaign = campaign or Campaign(setup, root, Followers())
        for trial in campaign._wanted():
            if (run := trial.run(root)).plan_file.exists():
                require_same_plan(run, trial)
        return
    if RunFolder(root).plan_file.exists():
        raise UsageError(f"{root} is a training run", mend)
    campaign = campaign or Campaign(setup, root, Followers())
    known = {trial.name for trial in campaign._wanted()}
    names = {path.name for path in root.iterdir()} - {LOGS}
    if names and not names & known:
        raise UsageError(f"{root} holds something else than this comparison", mend)


def differences(one: ComparisonRequest, other: ComparisonRequest) -> list[str]:
    """Say in words in what two requests differ, the one that is there first."""

    def flat(request: ComparisonRequest) -> dict[str, object]:
        return {
            "--optimizers": ",".join(request.optimizers),
            "--seeds": request.seeds,
            "--sweep-lr": request.sweep_lr,
            **request.settings,
        }

    there, here = flat(one), flat(other)
    return [
        f"{key} {there.get(key)}, now {here.get(key)}"
        for key in dict.fromkeys((*there, *here))
        if there.get(key) != here.get(key)
    ]


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock ends with the process."""
    file = root / LOGS / "compare.lock"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.open("w", encoding="utf-8")
    except OSError as error:
        raise write_failed(file, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another musgd compare is at work in {root}",
                "wait for it, or choose another --name",
            ) from error
        yield
