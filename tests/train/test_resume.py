"""An interrupted run goes on as if it had not been, or says in words why it cannot."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musgd_cli import train
from musgd_cli.errors import ExitCode, MusgdError, UsageError
from musgd_cli.records import StepLog
from musgd_cli.runs import RunFolder, create_run
from musgd_cli.train.events import Listeners, TrainingInterruptedError
from musgd_cli.train.state import resume_file

# What has a state of its own: mosaic that closes, running means of squares and of norms, moments,
# Muon's buffers.
SETTINGS: dict[str, dict[str, Any]] = {
    "musgd": {"optim__name": "musgd"},
    "musgd-auto": {
        "optim__name": "musgd",
        "optim__adapt_factor": "auto",
        "train__mosaic": 1.0,
        "train__close_mosaic": 1,
    },
    "adamw": {"optim__name": "adamw", "train__accumulate": 2, "train__mosaic": 0.5},
    "muon-sgd": {"optim__name": "muon-sgd"},
}


@pytest.fixture(scope="module", params=SETTINGS)
def whole(request, make_plan, tmp_path_factory) -> tuple[Any, RunFolder]:
    """A plan of three epochs, and the run that nothing interrupted."""
    plan = make_plan(train__epochs=3, train__seed=5, **SETTINGS[request.param])
    run = create_run("whole", tmp_path_factory.mktemp(request.param))
    train.train(plan, run)
    return plan, run


class StopAt:
    """Asks to stop after the n-th question; one is asked a step, and one a saved epoch."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def stop_in(plan, run: RunFolder, stop: Callable[[], bool]) -> TrainingInterruptedError:
    with pytest.raises(TrainingInterruptedError) as caught:
        train.train(plan, run, Listeners(stop=stop))
    assert caught.value.exit_code == ExitCode.INTERRUPTED
    assert f"musgd train --resume {run.path}" in caught.value.mend
    return caught.value


def stop_in_epoch(number: int) -> tuple[Callable[[StepLog], None], Callable[[], bool]]:
    """Return a listener and a question that ask to stop at the first step of epoch ``number``."""
    seen: list[int] = []
    return lambda step: seen.append(step.epoch), lambda: bool(seen) and seen[-1] == number


@pytest.fixture
def assert_equal(same_weights) -> Callable[[RunFolder, RunFolder], None]:
    def check(run: RunFolder, whole: RunFolder) -> None:
        compare(run, whole, same_weights)

    return check


def timeless(step: StepLog) -> dict[str, Any]:
    return step.model_dump(exclude={"optimizer_ms"})


def compare(run: RunFolder, whole: RunFolder, same_weights: Callable[[Path, Path], bool]) -> None:
    assert [timeless(step) for step in run.steps()] == [timeless(step) for step in whole.steps()]
    assert same_weights(run.weights / "last.pt", whole.weights / "last.pt")
    assert same_weights(run.weights / "best.pt", whole.weights / "best.pt")
    ours, theirs = run.result(), whole.result()
    assert ours.optimizer_state_bytes == theirs.optimizer_state_bytes
    # Of the steps of all sessions, not only of the last one.
    assert ours.optimizer_ms == np.median([step.optimizer_ms for step in run.steps()])
    for field in ("epochs", "steps", "map50", "map50_95", "clipped_share", "beta_mean"):
        assert getattr(ours, field) == getattr(theirs, field), field
    for one, other in zip(run.epochs(), whole.epochs(), strict=True):
        assert (one.losses, one.val_losses, one.lr) == (other.losses, other.val_losses, other.lr)


def test_a_run_stopped_in_its_second_epoch_ends_like_one_that_was_not(assert_equal, whole, new_run):
    plan, uninterrupted = whole
    run = new_run("stopped")
    on_step, stop = stop_in_epoch(2)
    with pytest.raises(TrainingInterruptedError, match=r"epoch 2 of 3; 1 finished and kept"):
        train.train(plan, run, Listeners(on_step=on_step, stop=stop))
    assert len(run.epochs()) == 1
    assert run.steps()[-1].epoch == 2  # the step was finished and logged

    starts: list = []
    result = train.resume(run, Listeners(on_start=starts.append))
    assert starts[0].first_epoch == 2
    assert result.resumed == 1
    assert_equal(run, uninterrupted)
    assert not resume_file(run).exists()


KILLED = """
import sys
from pathlib import Path
from musgd_cli import train
from musgd_cli.records import Plan
from musgd_cli.runs import RunFolder
from musgd_cli.storage import read_record
from musgd_cli.train.events import Listeners

def on_step(step):
    if step.step == 5:
        print("in epoch", step.epoch, flush=True)
        sys.stdin.read()

plan, run = read_record(Path(sys.argv[1]), Plan), RunFolder(Path(sys.argv[2]))
train.train(plan, run, Listeners(on_step=on_step))
"""


@pytest.mark.parametrize("whole", ["musgd-auto"], indirect=True)  # the others are only stopped
def test_a_killed_run_ends_like_one_that_was_not(assert_equal, whole, new_run, tmp_path):
    _, uninterrupted = whole
    run = new_run("killed")
    command = [sys.executable, "-c", KILLED, uninterrupted.plan_file, run.path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout.readline().strip() == "in epoch 2"
        it.send_signal(signal.SIGKILL)
    # The line that was being written when the power went.
    with run.steps_file.open("a") as file:
        file.write('{"step": 6, "epo')
    assert not run.finished
    train.resume(run)
    assert_equal(run, uninterrupted)


def test_a_run_stopped_in_its_first_epoch_starts_again(assert_equal, whole, new_run):
    plan, uninterrupted = whole
    run = new_run("early")
    assert "none is finished" in stop_in(plan, run, StopAt(2)).what
    notes: list[str] = []
    result = train.resume(run, Listeners(on_note=notes.append))
    assert "starts from the beginning" in notes[0]
    assert result.resumed == 0
    assert_equal(run, uninterrupted)


def test_a_run_stopped_before_its_first_step_leaves_nothing(make_plan, new_run):
    run = new_run("none")
    with pytest.raises(TrainingInterruptedError, match="nothing is kept"):
        train.train(make_plan(), run, Listeners(stop=lambda: True))
    assert not run.path.exists()


def test_a_run_stopped_after_its_last_epoch_only_needs_its_result(
    assert_equal, finished, make_plan, new_run
):
    run = new_run("late")
    stop_in(make_plan(), run, lambda: len(run.epochs()) == 2)
    assert not run.finished
    assert resume_file(run).exists()
    steps: list = []
    train.resume(run, Listeners(on_step=steps.append))
    assert steps == []
    assert_equal(run, finished)


def test_patience_ends_a_run_and_so_does_it_after_an_interruption(
    assert_equal, make_plan, new_run, learned
):
    plan = make_plan(
        train__model=str(learned.weights / "best.pt"),
        train__epochs=6,
        train__patience=2,
        optim__name="sgd",
        optim__lr=1e-9,
    )
    run, stopped = new_run("impatient"), new_run("stopped")
    result = train.train(plan, run)
    assert 2 <= result.epochs < 6
    assert run.epochs()[-1].eta_s == 0
    on_step, stop = stop_in_epoch(2)
    with pytest.raises(TrainingInterruptedError):
        train.train(plan, stopped, Listeners(on_step=on_step, stop=stop))
    train.resume(stopped)
    assert_equal(stopped, run)


# ------------------------------------------------------------------------------- what is said of it


def test_a_finished_run_is_not_resumed(finished):
    with pytest.raises(UsageError, match="is finished") as caught:
        train.resume(finished)
    assert "--model" in caught.value.mend


@pytest.fixture
def stopped(make_plan, new_run, squares, tmp_path) -> RunFolder:
    """A run stopped in epoch 2, on its own copy of the data."""
    shutil.copytree(squares.parent, tmp_path / "set")
    run = new_run("stopped")
    on_step, stop = stop_in_epoch(2)
    plan = make_plan(train__data=str(tmp_path / "set" / squares.name))
    with pytest.raises(TrainingInterruptedError):
        train.train(plan, run, Listeners(on_step=on_step, stop=stop))
    return run


def test_changed_data_is_told_and_trained_on(stopped, tmp_path):
    label = tmp_path / "set" / "labels" / "train" / "0.txt"
    label.write_text("1 0.5 0.5 0.25 0.25\n")
    warnings: list[str] = []
    train.resume(stopped, Listeners(on_warning=warnings.append))
    assert "data has changed" in warnings[0]
    assert stopped.finished


def test_other_classes_are_refused(stopped, tmp_path):
    file = tmp_path / "set" / "squares.yaml"
    file.write_text(file.read_text().replace("[dark, bright]", "[dark, bright, new]"))
    with pytest.raises(UsageError, match="dark, bright, new"):
        train.resume(stopped)
    assert resume_file(stopped).exists()


def test_a_damaged_state_is_told(stopped):
    file = resume_file(stopped)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(UsageError, match=r"resume\.pt cannot be read") as caught:
        train.resume(stopped)
    assert "\n" not in caught.value.what


def test_a_state_that_runs_code_is_refused(stopped, tmp_path):
    import torch

    class Exploit:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"version": 1, "progress": Exploit()}, resume_file(stopped))
    with pytest.raises(UsageError) as caught:
        train.resume(stopped)
    assert not (tmp_path / "ran").exists()
    assert "Re-running" not in caught.value.what  # torch tells how to run it after all


def test_a_full_disk_leaves_the_last_state_whole(make_plan, new_run):
    run = new_run("full")
    saved: list[bytes] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(_) -> None:
        saved.append(resume_file(run).read_bytes())
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(MusgdError, match="cannot write") as caught:
            train.train(make_plan(), run, Listeners(on_epoch=fill_the_disk))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_code == ExitCode.FAILED
    assert f"musgd train --resume {run.path}" in caught.value.mend
    assert resume_file(run).read_bytes() == saved[0]
    assert not [path for path in run.weights.iterdir() if path.name.startswith(".")]
    train.resume(run)
    assert run.finished


def test_the_state_holds_full_precision(stopped):
    import torch

    state = torch.load(resume_file(stopped), weights_only=True)
    for part in ("model", "ema"):
        floats = [v for v in state[part].values() if v.is_floating_point()]
        assert all(value.dtype is torch.float32 for value in floats)
    buffers = [entry["momentum_buffer"] for entry in state["optimizer"]["state"].values()]
    assert all(buffer.dtype is torch.float32 for buffer in buffers)
    assert Path(stopped.weights / "last.pt").exists()
