"""The trainings that claims share: each is made once, by whoever asks for it first.

Below the experiment's folder: ``sweep`` chooses learning rates and holds the grid of C5, ``scored``
is what most claims look at, ``rising`` has too high a learning rate, ``pruned`` fine-tunes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musgd_cli.errors import MusgdError
from musgd_cli.lab.claims.curves import Curve
from musgd_cli.lab.claims.scale import Scale
from musgd_cli.lab.contenders import SWEEP_SEED, Contender, sweep
from musgd_cli.lab.trials import Trial, Watchers, run_trials
from musgd_cli.records import EpochLog, Host, TrainResult
from musgd_cli.runs import RunFolder
from musgd_cli.train.events import DivergedError

SGD = Contender.parse("sgd:nesterov=false")
"""What the article compares itself with: SGD with momentum, without Nesterov's."""


@dataclass
class Matrix:
    """Trains contenders at learning rates and seeds.

    Args:
        folder: The experiment's.
        flags: Settings that all trainings share.
        scale: How much is spent.
        host: This machine.
        tell: Told of each finished training.
        stop: Asked whether to stop.
        jobs: Trainings at once.
        trust: Load weights that may run code.
        planned_epochs: That all claims asked for will train, for the estimate.
    """

    folder: Path
    flags: Mapping[str, Any]
    scale: Scale
    host: Host
    tell: Callable[[str], None]
    stop: Callable[[], bool]
    jobs: int = 1
    trust: bool = False
    planned_epochs: int = 0
    diverged: set[Path] = field(default_factory=set)
    """Folders of trainings that had no finite gradient left."""
    used: set[Path] = field(default_factory=set)
    """Folders of all trainings that were asked for."""
    _failed: dict[Path, MusgdError] = field(default_factory=dict)
    _epochs_done: int = 0
    _epochs_timed: int = 0
    _seconds: float = 0.0
    _tuned: dict[str, float] = field(default_factory=dict)

    def tune(self, contenders: Iterable[Contender]) -> None:
        """Choose the learning rate of each: the lowest last val loss on a seed that is not scored.

        Raises:
            MusgdError: None of an optimizer's learning rates gave a val loss.
        """
        missing = [each for each in contenders if each.label not in self._tuned]
        trials = {
            each.label: {rate: self._swept(each, rate) for rate in self.rates(each)}
            for each in missing
        }
        self.train("sweep", [trial for tried in trials.values() for trial in tried.values()])
        for label, tried in trials.items():
            losses = {rate: self._val_loss("sweep", trial) for rate, trial in tried.items()}
            best = min(losses, key=lambda rate: losses[rate])
            if not math.isfinite(losses[best]):
                raise MusgdError(
                    f"{label} came to no val loss at any of {', '.join(f'{r:g}' for r in losses)}",
                    "try --full, or another data set with --data",
                )
            self._tuned[label] = best
            self.tell(f"{label}: lr {best:g}, of {', '.join(f'{rate:g}' for rate in tried)}")

    def rate(self, contender: Contender) -> float:
        """Return its tuned learning rate."""
        self.tune([contender])
        return self._tuned[contender.label]

    def rates(self, contender: Contender) -> tuple[float, ...]:
        """Return the learning rates that its sweep tries."""
        centre = contender.plan(self.flags, None, SWEEP_SEED, host=self.host).optim.lr
        return sweep(centre)

    def score(self, contenders: Sequence[Contender]) -> dict[str, list[RunFolder]]:
        """Train each at its tuned learning rate.

        Returns:
            By label, one run a seed. Seeds in which any of them diverged are left out of all.
        """
        self.tune(contenders)
        trials = {
            each.label: [
                self.trial(each, self.rate(each), seed, self.scale.epochs)
                for seed in range(self.scale.seeds)
            ]
            for each in contenders
        }
        return self.complete("scored", trials)

    def complete(
        self, place: str, trials: Mapping[str, Sequence[Trial]]
    ) -> dict[str, list[RunFolder]]:
        """Train, and keep the places of the lists in which no training diverged.

        Raises:
            MusgdError: There is no such place.
        """
        self.train(place, [trial for each in trials.values() for trial in each])
        runs = {label: [self.run(place, trial) for trial in each] for label, each in trials.items()}
        good = [not self._any_diverged(of_a_seed) for of_a_seed in zip(*runs.values(), strict=True)]
        if not any(good):
            lost = [label for label, each in runs.items() if self._any_diverged(each)]
            raise MusgdError(
                f"no seed was trained to its end by all: {', '.join(lost)} diverged",
                "try --full, or another data set with --data",
            )
        return {
            label: [run for run, kept in zip(each, good, strict=True) if kept]
            for label, each in runs.items()
        }

    def grid(self, contender: Contender) -> list[list[Curve | None]]:
        """Train it at the sweep's learning rates with its own momentum, and with others.

        Returns:
            A row a momentum, a column a learning rate; ``None``: it diverged.
        """
        columns = self.rates(contender)
        rows = [contender] + [contender.changed(momentum=each) for each in self.scale.momenta]
        trials = [[self._swept(row, rate) for rate in columns] for row in rows]
        self.train("sweep", [trial for row in trials for trial in row])
        return [[self.curve("sweep", trial) for trial in row] for row in trials]

    def trial(
        self, contender: Contender, rate: float, seed: int, epochs: int, **changes: Any
    ) -> Trial:
        """Plan one training; ``changes`` are settings, ``train__model`` for ``train.model``."""
        changed = {key.replace("__", "."): value for key, value in changes.items()}
        flags = {**self.flags, "train.epochs": epochs, **changed}
        plan = contender.plan(flags, rate, seed, host=self.host)
        return Trial(contender.trial_name(rate, seed), plan)

    def run(self, place: str, trial: Trial) -> RunFolder:
        """Return a training's folder."""
        return trial.run(self.folder / place)

    def curve(self, place: str, trial: Trial) -> Curve | None:
        """Return the losses of a training; ``None``: it diverged."""
        run = self.run(place, trial)
        return None if run.path in self.diverged else Curve.of(run)

    def train(self, place: str, trials: Iterable[Trial]) -> None:
        """Make sure that trainings are finished; those that diverge are noted.

        Raises:
            StoppedError: `stop` said so.
            MusgdError: One failed for another reason.
        """
        root = self.folder / place
        asked = {trial.run(root).path: trial for trial in trials}
        for path in asked.keys() & self._failed.keys():
            raise self._failed[path]  # another claim met it already
        new = [trial for path, trial in asked.items() if path not in self.used]
        self.used |= asked.keys()
        began = time.monotonic()
        started: set[str] = set()

        def on_epoch(_trial: Trial, _log: EpochLog) -> bool:
            self._epochs_done += 1
            self._epochs_timed += 1
            return False

        def on_done(trial: Trial, result: TrainResult | None) -> None:
            if trial.name not in started:  # by an earlier session
                self._epochs_done += trial.plan.train.epochs
                return
            seconds = self._seconds + time.monotonic() - began
            found = "" if result is None or result.map50 is None else f", mAP50 {result.map50:.3f}"
            self.tell(f"trained {place}/{trial.name}{found}{self._left(seconds)}")

        def on_failure(trial: Trial, error: MusgdError) -> bool:
            path = trial.run(root).path
            if not isinstance(error, DivergedError):
                self._failed[path] = error
                return False
            self.diverged.add(path)
            self.tell(f"{place}/{trial.name} diverged")
            return True

        watchers = Watchers(
            on_start=lambda trial: started.add(trial.name),
            on_epoch=on_epoch,
            on_done=on_done,
            on_failure=on_failure,
            stop=self.stop,
        )
        try:
            run_trials(new, root, watchers, jobs=self.jobs, trust=self.trust)
        except BaseException:
            self.used -= {trial.run(root).path for trial in new}
            raise
        finally:
            self._seconds += time.monotonic() - began

    def _left(self, seconds: float) -> str:
        left = self.planned_epochs - self._epochs_done
        if left <= 0 or not self._epochs_timed:
            return ""
        return f"; trainings take another {seconds / self._epochs_timed * left / 60:.0f} min or so"

    def _any_diverged(self, runs: Iterable[RunFolder]) -> bool:
        return any(run.path in self.diverged for run in runs)

    def _swept(self, contender: Contender, rate: float) -> Trial:
        return self.trial(contender, rate, SWEEP_SEED, self.scale.sweep_epochs)

    def _val_loss(self, place: str, trial: Trial) -> float:
        run = self.run(place, trial)
        if run.path in self.diverged:
            return math.inf
        loss = run.epochs()[-1].val_loss
        return math.inf if loss is None else loss
