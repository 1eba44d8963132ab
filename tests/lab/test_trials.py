"""Trials: what runs, what is kept, what is taken up, and how they end when they must."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ultralytics")

from tiny_model import MODEL
from tiny_set import draw_squares

from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.lab.trials import StoppedError, Trial, Watchers, run_trials
from musgd_cli.records import Host, Plan
from musgd_cli.settings import settle

MakePlan = Callable[..., Plan]


@pytest.fixture(scope="module")
def make_plan(tmp_path_factory: pytest.TempPathFactory) -> MakePlan:
    """A function that settles a plan of two short epochs; ``optim__lr=.1`` is ``optim.lr``."""
    folder = tmp_path_factory.mktemp("given")
    data = draw_squares(folder / "squares")
    (folder / "tiny.yaml").write_text(MODEL)

    def make(**changes: Any) -> Plan:
        flags = {
            "train.data": str(data),
            "train.model": str(folder / "tiny.yaml"),
            "train.epochs": 2,
            "train.imgsz": 64,
            "train.batch": 4,
            "train.threads": 1,
            "optim.name": "sgd",
            **{key.replace("__", "."): value for key, value in changes.items()},
        }
        return settle(host=Host(board="x86-cpu"), environ={}, flags=flags)

    return make


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def workers() -> list[int]:
    return [
        child
        for child in children(os.getpid())
        if b"musgd_cli.lab.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.fixture(scope="module")
def trained(make_plan: MakePlan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trial]:
    """A folder with one finished trial, which no test changes."""
    root = tmp_path_factory.mktemp("trials")
    trial = Trial("a", make_plan())
    run_trials([trial], root, Watchers())
    return root, trial


def test_finished_trial_is_not_trained_again(trained: tuple[Path, Trial]) -> None:
    root, trial = trained
    before = trial.run(root).train_file.stat().st_mtime_ns
    started, done = [], []
    watchers = Watchers(
        on_start=started.append, on_done=lambda trial, result: done.append(result.steps)
    )
    run_trials([trial], root, watchers)
    assert started == []
    assert done == [4]
    assert trial.run(root).train_file.stat().st_mtime_ns == before


def test_folder_with_other_settings_is_refused(
    trained: tuple[Path, Trial], make_plan: MakePlan
) -> None:
    root, trial = trained
    other = Trial(trial.name, make_plan(train__seed=7))
    with pytest.raises(UsageError, match="other settings"):
        run_trials([other], root, Watchers())


def test_failure_of_a_worker_is_told_in_its_words(tmp_path: Path, make_plan: MakePlan) -> None:
    trial = Trial("a", make_plan(train__data=str(tmp_path / "none.yaml")))
    with pytest.raises(UsageError, match=r"a: .*none\.yaml"):
        run_trials([trial], tmp_path / "runs", Watchers())


def test_folder_that_cannot_be_written_is_told(tmp_path: Path, make_plan: MakePlan) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MusgdError, match="cannot write"):
        run_trials([Trial("a", make_plan())], tmp_path / "file" / "runs", Watchers())


def test_stop_keeps_the_epoch_and_the_next_call_ends_as_if_never_stopped(
    tmp_path: Path, make_plan: MakePlan
) -> None:
    trial = Trial("a", make_plan(train__epochs=12))
    root = tmp_path / "whole"
    run_trials([trial], root, Watchers())
    stop = threading.Event()
    watchers = Watchers(on_epoch=lambda *_: bool(stop.set()), stop=stop.is_set)
    with pytest.raises(StoppedError):
        run_trials([trial], tmp_path, watchers)
    assert not trial.run(tmp_path).finished
    # A tiny epoch may be over before the worker hears of it.
    assert 1 <= len(trial.run(tmp_path).epochs()) < 12
    assert workers() == []

    run_trials([trial], tmp_path, Watchers())
    ours, theirs = trial.run(tmp_path).result(), trial.run(root).result()
    assert ours.resumed == 1
    assert ours.steps == theirs.steps
    assert [epoch.val_losses for epoch in trial.run(tmp_path).epochs()] == [
        epoch.val_losses for epoch in trial.run(root).epochs()
    ]


def test_second_interrupt_ends_workers_at_once(tmp_path: Path, make_plan: MakePlan) -> None:
    trial = Trial("a", make_plan(train__epochs=500))

    def interrupt(*_: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return False

    with pytest.raises(KeyboardInterrupt):
        run_trials([trial], tmp_path, Watchers(on_epoch=interrupt))
    assert workers() == []
    assert not trial.run(tmp_path).finished


def test_worker_that_is_killed_is_told_and_can_be_taken_up(
    trained: tuple[Path, Trial], tmp_path: Path
) -> None:
    root, trial = trained

    def kill(*_: object) -> bool:
        (worker,) = workers()
        os.kill(worker, signal.SIGKILL)
        return False

    with pytest.raises(MusgdError, match="SIGKILL, most likely for want of memory"):
        run_trials([trial], tmp_path, Watchers(on_epoch=kill))
    run_trials([trial], tmp_path, Watchers())
    assert trial.run(tmp_path).result().steps == trial.run(root).result().steps


def test_a_place_waits_for_what_decides_the_next_trial(tmp_path: Path, make_plan: MakePlan) -> None:
    first = Trial("first", make_plan(train__epochs=1))
    second = Trial("second", make_plan(train__epochs=1, train__seed=1))
    done: list[str] = []

    def trials() -> Iterator[Trial | None]:
        yield first
        while "first" not in done:
            yield None
        yield second

    watchers = Watchers(on_done=lambda trial, _: done.append(trial.name))
    run_trials(trials(), tmp_path, watchers, jobs=2)
    assert done == ["first", "second"]


def test_a_lock_held_by_an_orphan_is_waited_for(
    trained: tuple[Path, Trial], tmp_path: Path
) -> None:
    import fcntl
    import shutil

    root, trial = trained
    (tmp_path / "logs").mkdir()
    with (tmp_path / "logs" / f"{trial.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began: list[float] = []

        def orphan() -> None:
            while not began or not workers():
                time.sleep(0.05)
            time.sleep(1)
            shutil.copytree(trial.run(root).path, trial.run(tmp_path).path)
            fcntl.flock(lock, fcntl.LOCK_UN)

        thread = threading.Thread(target=orphan)
        thread.start()
        run_trials([trial], tmp_path, Watchers(on_start=lambda _: began.append(time.time())))
        thread.join()
    # What the other process finished stands; it was not trained a second time.
    assert trial.run(tmp_path).train_file.read_bytes() == trial.run(root).train_file.read_bytes()
