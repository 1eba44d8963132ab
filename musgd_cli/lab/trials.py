"""Trials: the training runs an experiment is made of, each a run folder and a process of its own.

A fresh process makes peak memory, threads and random state a trial's own. What is finished is
never trained again, and what was cut off goes on after its last epoch, to the same end bit for
bit on a CPU: an experiment that is started again takes up where it was killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware import usable_cores
from musgd_cli.records import EpochLog, Plan, TrainResult
from musgd_cli.runs import RunFolder
from musgd_cli.storage import write_failed
from musgd_cli.train.events import DivergedError, ignore, never

POLL_S = 0.2

MOST_JOBS_A_CORE = 4
"""More wait for each other, and each holds a model and its images."""

LOGS = "logs"
"""Below an experiment's folder: what its trials' processes said, and who trains each."""


@dataclass(frozen=True)
class Trial:
    """One run to train: a folder's name below the experiment's, and every setting."""

    name: str
    plan: Plan

    def run(self, root: Path) -> RunFolder:
        """Its folder."""
        return RunFolder(root / self.name)


def _go_on(_: Trial, __: EpochLog) -> bool:
    return False


def _done(_: Trial, __: TrainResult | None) -> None:
    pass


def _fail(_: Trial, __: MusgdError) -> bool:
    return False


@dataclass(frozen=True)
class Watchers:
    """Whom trials tell what; no two calls overlap."""

    on_start: Callable[[Trial], None] = ignore
    """It trains, from its beginning or on."""
    on_epoch: Callable[[Trial, EpochLog], bool] = _go_on
    """After each epoch trained in this session; True ends the trial there, unfinished."""
    on_done: Callable[[Trial, TrainResult | None], None] = _done
    """It is finished, perhaps by an earlier session; ``None``: `on_epoch` ended it."""
    on_failure: Callable[[Trial, MusgdError], bool] = _fail
    """It failed; True takes that for its outcome, and the others go on."""
    on_warning: Callable[[Trial, str], None] = lambda _, __: None
    stop: Callable[[], bool] = never
    """Whether to stop: trials that are training finish their step and can be taken up."""


class StoppedError(MusgdError):
    """The trials stopped where they were asked to (exit code 130)."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what, mend, ExitCode.INTERRUPTED)


def require_bearable(jobs: int) -> None:
    """Make sure that this machine can be asked to train so much at once.

    Raises:
        UsageError: It has not the cores.
    """
    most = MOST_JOBS_A_CORE * usable_cores()
    if jobs > most:
        raise UsageError(
            f"--jobs {jobs} is more than {MOST_JOBS_A_CORE} for each of the {usable_cores()} cores",
            f"--jobs {usable_cores()} keeps them busy",
        )


def run_trials(
    trials: Iterable[Trial | None],
    root: Path,
    watchers: Watchers,
    *,
    jobs: int = 1,
    trust: bool = False,
) -> None:
    """Train every trial that is not finished yet.

    Args:
        trials: Pulled one by one as a place becomes free, so that a generator can choose the next
            by how the last one went; ``None`` stands for "not before one that is training ends".
        root: The experiment's folder; a trial ``a`` is trained in ``root/a``.
        watchers: Whom to tell, and whom to ask whether to stop.
        jobs: How many train at once.
        trust: Load weights that may run code.

    Raises:
        UsageError: A folder holds a run of another plan.
        StoppedError: ``watchers.stop`` said so.
        MusgdError: A trial failed, and ``watchers.on_failure`` did not take it. The others that
            were training can be taken up.
    """
    try:
        (root / LOGS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failed(root / LOGS, error) from error
    crew = _Crew(iter(trials), root, watchers, trust)
    pool = ThreadPoolExecutor(jobs)
    try:
        try:
            futures: set[Future[None]] = {pool.submit(crew.work) for _ in range(jobs)}
            while futures:
                done, futures = wait(futures, timeout=POLL_S, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if watchers.stop():
                    raise StoppedError(
                        "stopped as asked; what is finished is kept",
                        "type the same command to go on",
                    )
        finally:
            crew.release()
            pool.shutdown()
    except KeyboardInterrupt:
        # At once: what is saved of an epoch survives it.
        crew.kill()
        pool.shutdown()
        raise


@dataclass
class _Crew:
    """What the threads that each tend one trial share."""

    trials: Iterator[Trial | None]
    root: Path
    watchers: Watchers
    trust: bool
    lock: threading.RLock = field(default_factory=threading.RLock)
    processes: set[subprocess.Popen[str]] = field(default_factory=set)
    released: bool = False
    killed: bool = False

    def work(self) -> None:
        while True:
            with self.lock:
                if self.released:
                    return
                try:
                    trial = next(self.trials)
                except StopIteration:
                    return
                if trial is not None:
                    if (run := trial.run(self.root)).finished:
                        require_same_plan(run, trial)
                        self.watchers.on_done(trial, run.result())
                        continue
                    self.watchers.on_start(trial)
            if trial is None:
                time.sleep(POLL_S)
            else:
                self._train(trial)

    def release(self) -> None:
        """Let every trial that is training finish its step and end."""
        with self.lock:
            self.released = True
            for process in self.processes:
                _let_go(process)

    def kill(self) -> None:
        """End every trial that is training, wherever it is."""
        with self.lock:
            self.released = self.killed = True
            for process in self.processes:
                process.kill()

    def _train(self, trial: Trial) -> None:
        run = trial.run(self.root)
        if run.plan_file.exists():
            require_same_plan(run, trial)
        log = self.root / LOGS / f"{trial.name}.txt"
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                # -P: files in the current folder must not pass for modules.
                [sys.executable, "-P", "-m", "musgd_cli.lab.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=_environment(trial.plan),
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        with self.lock:
            self.processes.add(process)
            if self.released:
                _let_go(process)
            if self.killed:
                process.kill()
        try:
            ended, failure = self._converse(process, trial)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            with self.lock:
                self.processes.discard(process)
                _let_go(process)
            assert process.stdout is not None
            process.stdout.close()
        if run.finished:
            with self.lock:
                self.watchers.on_done(trial, run.result())
        elif ended:
            with self.lock:
                self.watchers.on_done(trial, None)
        elif failure is not None and failure["exit_code"] != ExitCode.INTERRUPTED:
            error = _foreseen(failure, trial)
            with self.lock:
                taken = self.watchers.on_failure(trial, error)
            if not taken:
                raise error
        elif failure is None:
            raise _died(code, trial, log)

    def _converse(
        self, process: subprocess.Popen[str], trial: Trial
    ) -> tuple[bool, Mapping[str, Any] | None]:
        """Tell the process its task and hear it out.

        Returns:
            Whether ``on_epoch`` ended it, and what it said it failed of.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        ended, failure = False, None
        task = {
            "folder": str(trial.run(self.root).path),
            "plan": json.loads(trial.plan.model_dump_json()),
            "trust": self.trust,
        }
        with suppress(BrokenPipeError, ValueError):  # it died, or was let go before it began
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                break  # it died in the middle of it
            with self.lock:
                if "epoch" in said and not self.released:
                    log = EpochLog.model_validate(said["epoch"])
                    if self.watchers.on_epoch(trial, log):
                        ended = True
                        _let_go(process)
                    if self.watchers.stop():  # before the next poll would see it
                        self.release()
                elif "warning" in said:
                    self.watchers.on_warning(trial, said["warning"])
                elif "failure" in said:
                    failure = said["failure"]
        return ended, failure


def _let_go(process: subprocess.Popen[str]) -> None:
    # The worker takes the end of its input for a request to stop; so it ends with us, too.
    assert process.stdin is not None
    with suppress(OSError, ValueError):
        process.stdin.close()


def _environment(plan: Plan) -> dict[str, str]:
    environment = dict(os.environ)
    if plan.train.threads:
        environment["OMP_NUM_THREADS"] = str(plan.train.threads)
    here = str(Path(__file__).parents[2])  # the very musgd that runs here, installed or not
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = f"{here}{os.pathsep}{path}" if path else here
    return environment


def same_settings(one: Plan, other: Plan) -> bool:
    """Tell whether two plans train the same, wherever their values come from."""
    return _training_of(one) == _training_of(other)


def _training_of(plan: Plan) -> dict[str, Any]:
    return {
        key: settled.value
        for key, settled in plan.settings.items()
        if key.startswith(("optim.", "train.")) and key != "train.name"
    }


def require_same_plan(run: RunFolder, trial: Trial) -> None:
    """Make sure that a run is that of a trial.

    Raises:
        UsageError: Its settings are others; what differs is named.
    """
    there, here = _training_of(run.plan()), _training_of(trial.plan)
    differing = [
        f"{key} {there.get(key)}, now {here.get(key)}"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]
    if differing:
        raise UsageError(
            f"{run.path} holds a run of other settings: {'; '.join(differing)}",
            "choose another --name, or remove that folder yourself",
        )


def _foreseen(failure: Mapping[str, Any], trial: Trial) -> MusgdError:
    kinds = {ExitCode.USAGE: UsageError, ExitCode.UNSUPPORTED: UnsupportedError}
    code = ExitCode(failure["exit_code"])
    kind = DivergedError if failure["diverged"] else kinds.get(code, MusgdError)
    return kind(f"{trial.name}: {failure['what']}", failure["mend"])


def _died(code: int, trial: Trial, log: Path) -> MusgdError:
    said = log.read_text(encoding="utf-8", errors="replace").strip()
    if code < 0:
        want = ", most likely for want of memory" if code == -signal.SIGKILL else ""
        return MusgdError(
            f"{trial.name} was ended by {signal.Signals(-code).name}{want}",
            "close other programs, or give a smaller --batch or fewer --jobs; the same command "
            f"goes on, and {log} holds what was said",
        )
    # What nobody foresaw keeps its traceback.
    raise RuntimeError(f"{trial.name} failed with exit code {code}:\n{said}")
