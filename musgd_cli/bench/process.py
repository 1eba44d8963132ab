"""A worker process from outside: start it, talk with it, and say of what it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from musgd_cli.bench.messages import (
    Accuracy,
    Event,
    Failure,
    Phase,
    ScoringTask,
    Timing,
    TimingTask,
)
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_DEATHS = {
    signal.SIGKILL: (
        "was killed, most likely for want of memory",
        "close other programs, or export at a smaller --imgsz",
    ),
    signal.SIGILL: (
        "met an instruction this CPU does not have",
        "install an older release of the runtime, or build it for this CPU; see musgd doctor",
    ),
}


@dataclass(frozen=True)
class Progress:
    """How far the measurement of one model is."""

    phase: Phase
    done: int = 0
    total: int = 0
    """0 where nobody knows."""
    threads: int = 0
    """Of the engine; 0 while it does not matter."""
    repeat: int = 0
    """From 1; 0 outside of a repeat."""
    repeats: int = 0


class OnProgress(Protocol):
    """Is told as the work goes on."""

    def __call__(self, progress: Progress, /) -> None:
        """Take note."""


class Window(Protocol):
    """What is watched while frames are timed."""

    def timed(self, pid: int) -> AbstractContextManager[None]:
        """Watch while the block runs."""
        ...


class _Unwatched:
    def timed(self, pid: int) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()


def time_frames(task: TimingTask, window: Window, on_progress: OnProgress) -> Timing:
    """Have a fresh process time a model.

    Args:
        task: What to measure.
        window: Is open while frames are timed, no longer.
        on_progress: Called as the work goes on.

    Raises:
        UnsupportedError: The model's runtime is not installed here.
        MusgdError: The model or an image is damaged, or the process died.
    """
    result = _run(task, window, on_progress)
    assert isinstance(result, Timing)
    return result


def score(task: ScoringTask, on_progress: OnProgress) -> Accuracy:
    """Have a fresh process score a model; see :func:`time_frames`."""
    result = _run(task, _Unwatched(), on_progress)
    assert isinstance(result, Accuracy)
    return result


def _environment(threads: int) -> dict[str, str]:
    environment = dict(os.environ)
    environment.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    # The very musgd that runs here, installed or not.
    here = str(Path(__file__).parents[2])
    if here != sysconfig.get_path("purelib"):  # which it would put before the standard library
        path = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{here}{os.pathsep}{path}" if path else here
    return environment


def _run(
    task: TimingTask | ScoringTask, window: Window, on_progress: OnProgress
) -> Timing | Accuracy:
    with tempfile.TemporaryFile() as errors:
        worker = subprocess.Popen(
            # -P: files in the current folder must not pass for modules.
            [sys.executable, "-P", "-m", "musgd_cli.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            env=_environment(task.threads),
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        try:
            last = _converse(worker, task, window, on_progress)
            code = worker.wait()
        finally:
            worker.kill()
            worker.communicate()
        if last.result is not None:
            return last.result
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip()
    if last.failure is not None:
        raise _foreseen(last.failure)
    if code < 0:
        raise _died(signal.Signals(-code), task, said)
    # What nobody foresaw keeps its traceback.
    raise RuntimeError(f"the worker that measured {task.folder} failed:\n{said}")


def _converse(
    worker: subprocess.Popen[str],
    task: TimingTask | ScoringTask,
    window: Window,
    on_progress: OnProgress,
) -> Event:
    """Talk with the worker until it falls silent, and return the last it said."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    event = Event(kind="progress", phase="load")
    with ExitStack() as open_window:
        try:
            _tell(worker, task.model_dump_json())
            for line in worker.stdout:
                try:
                    event = Event.model_validate_json(line)
                except ValidationError:
                    break  # it died in the middle of it; what it died of is told below
                if event.kind == "progress" and event.phase is not None:
                    on_progress(Progress(event.phase, event.done, event.total))
                elif event.kind == "ready":
                    on_progress(Progress("timing"))
                    open_window.enter_context(window.timed(worker.pid))
                    _tell(worker, "go")
                elif event.kind == "timed":
                    open_window.close()
        except BrokenPipeError:
            pass  # it died; its exit code says of what
    return event


def _tell(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def _foreseen(failure: Failure) -> MusgdError:
    kinds = {ExitCode.USAGE: UsageError, ExitCode.UNSUPPORTED: UnsupportedError}
    code = ExitCode(failure.exit_code)
    return kinds.get(code, MusgdError)(failure.what, failure.mend, code)


def _died(how: signal.Signals, task: TimingTask | ScoringTask, said: str) -> MusgdError:
    what, mend = _DEATHS.get(
        how, (f"crashed in {task.artifact.runtime}", "musgd export makes the model again")
    )
    last_words = f": {said.splitlines()[-1]}" if said else ""
    return MusgdError(
        f"the process that measured {task.folder} {what} ({how.name}){last_words}", mend
    )
