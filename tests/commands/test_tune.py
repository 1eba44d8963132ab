"""``musgd tune`` as it is typed: real studies of trainings that take a second."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ultralytics")
pytest.importorskip("optuna", reason="the tune extra is not installed")

import optuna
from tiny_model import MODEL

from musgd_cli import profiles
from musgd_cli.__main__ import main
from musgd_cli.errors import ExitCode
from musgd_cli.installation import how_to_add
from musgd_cli.records import Study
from musgd_cli.runs import RunFolder

SETTINGS = """
[optim]
name = "sgd"
warmup_epochs = 0.0
momentum = 0.9

[optim.sgd]
lr = 0.03

[train]
data = "squares/squares.yaml"
model = "tiny.yaml"
epochs = 1
imgsz = 32
batch = 4
threads = 1
"""

MUSGD = [sys.executable, "-m", "musgd_cli", "tune", "--quiet", "--name", "s"]


def draw_place(folder: Path) -> None:
    """Fill a folder with a data set, a model and a musgd.toml that names both."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / "squares" / kind / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(60, 190, (32, 32, 3), np.uint8)
            image[8:24, 8:24] = 255 * (number % 2)
            cv2.imwrite(str(folder / f"squares/images/{split}/{number}.png"), image)
            label = f"{number % 2} 0.5 0.5 0.5 0.5\n"
            (folder / f"squares/labels/{split}/{number}.txt").write_text(label)
    (folder / "squares" / "squares.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [dark, bright]\n"
    )
    (folder / "tiny.yaml").write_text(MODEL)
    (folder / "musgd.toml").write_text(SETTINGS)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSGD_BOARD", "x86-cpu")
    return tmp_path


def tuned(capsys: pytest.CaptureFixture[str], *options: str) -> Study:
    """Run a study to its end and return what it prints for scripts."""
    assert main(["tune", "--quiet", "--json", "--name", "s", *options]) == ExitCode.DONE
    return Study.parse(json.loads(capsys.readouterr().out))


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Run a study that is refused as wrongly asked for, and return the words."""
    assert main(["tune", "--quiet", "--name", "s", *options]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    error, mend = captured.err.splitlines()[-2:]
    assert mend.startswith("mend: ")
    return error


def storage_of(study: str = "s") -> Any:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.load_study(study_name=study, storage=f"sqlite:///runs/{study}/study.db")


def test_a_study_tells_its_trials_and_goes_on_where_it_ended(place, capsys):
    study = tuned(capsys, "--trials", "2", "--confirm", "1")
    first, second = study.trials
    assert first.baseline and first.values == {"optim.lr": 0.03, "optim.momentum": 0.9}
    assert not second.baseline and second.values != first.values
    assert {trial.state for trial in study.trials} == {"finished"}
    assert study.best == min(study.trials, key=lambda trial: trial.val_loss).number
    for trial in study.trials:
        run = RunFolder(Path(f"runs/s/trial-{trial.number:02d}"))
        assert {key: run.plan().value(key) for key in trial.values} == trial.values
        (last,) = run.epochs()
        assert trial.val_loss == pytest.approx(sum(last.val_losses.values()))
        assert trial.map50_95 == last.map50_95
    finished = sorted(Path("runs/s").glob("trial-*/train.json"))
    began = {file: file.stat().st_mtime_ns for file in finished}

    # More are asked for: what is there is not trained again.
    study = tuned(capsys, "--trials", "3", "--confirm", "0")
    assert study.trials[:2] == (first, second)
    assert study.trials[2].values not in (first.values, second.values)
    assert {file: file.stat().st_mtime_ns for file in finished} == began
    assert "train.epochs was 1, and is 2" in refused(capsys, "--epochs", "2")
    assert "the search of" in refused(capsys, "--search", "optim.lr=.001:.1:log")

    # Its summary is fit to be committed, and names what was done.
    page = Path("runs/s/study.md").read_text()
    assert str(place) not in page and "squares.yaml: 4 images" in page
    assert len(re.findall(r"^\| [012] \|", page, re.MULTILINE)) == 3


def test_only_what_holds_on_other_seeds_is_written(capsys):
    # So few steps only do harm here: the rate that does nothing is better, on every seed.
    options = ["--trials", "3", "--search", "optim.lr=0.00001|0.03", "--write", "mine.toml"]
    study = tuned(capsys, *options, "--confirm", "2")
    assert study.best != study.baseline.number
    assert [each.seed for each in study.confirmations] == [1, 2]
    assert study.gain > study.noise > 0
    assert (study.verdict, study.recommended) == ("holds", {"optim.lr": 0.00001})
    assert study.wrote == "mine.toml"
    assert profiles.check(Path("mine.toml")) == ()
    assert profiles.load("mine.toml").optim["sgd"]["lr"] == 0.00001
    why = profiles.reason("mine.toml", "optim.sgd.lr")
    assert "Study s" in why and "0.03 before" in why and "seeds 1, 2" in why

    # Nothing was confirmed: the profile keeps its own.
    assert tuned(capsys, *options, "--confirm", "0").verdict == "not confirmed"
    assert profiles.load("mine.toml").optim["sgd"]["lr"] == 0.03


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_what_is_cut_off_is_taken_up(place, capsys, number):
    options = ["--trials", "2", "--epochs", "6", "--confirm", "0", "--jobs", "1"]
    cut = RunFolder(Path("runs/s/trial-01"))
    with subprocess.Popen([*MUSGD, *options], stderr=subprocess.PIPE, text=True) as it:
        wait_for(lambda: bool(cut.epochs()), it)
        it.send_signal(number)
        said = it.communicate()[1]
    assert "Traceback" not in said
    assert it.returncode == (ExitCode.INTERRUPTED if number == signal.SIGINT else -number)
    assert not cut.finished
    finished = Path("runs/s/trial-00/train.json").stat().st_mtime_ns
    values = cut.plan().value("optim.lr")

    study = tuned(capsys, *options)
    assert [trial.state for trial in study.trials] == ["finished", "finished"]
    assert Path("runs/s/trial-00/train.json").stat().st_mtime_ns == finished
    assert cut.result().resumed == 1
    assert study.trial(1).values["optim.lr"] == values
    assert study.trial(1).epochs == 6


def wait_for(true, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_hopeless_trial_is_pruned_and_the_baseline_never(capsys):
    options = ["--epochs", "4", "--confirm", "0", "--jobs", "1"]
    tuned(capsys, *options, "--trials", "1")
    better = optuna.distributions.FloatDistribution(0.0075, 0.12, log=True)
    momentum = optuna.distributions.FloatDistribution(0.8, 0.95)
    for lr in (0.011, 0.012, 0.013, 0.014):
        storage_of().add_trial(
            optuna.create_trial(
                params={"optim.lr": lr, "optim.momentum": 0.9},
                distributions={"optim.lr": better, "optim.momentum": momentum},
                value=0.1,
                intermediate_values=dict.fromkeys(range(4), 0.1),
                user_attrs={"outcome": {"state": "finished", "val_loss": 0.1}},
            )
        )
    study = tuned(capsys, *options, "--trials", "6")
    assert (study.baseline.state, study.baseline.epochs) == ("finished", 4)
    pruned = study.trials[-1]
    assert (pruned.state, pruned.epochs) == ("pruned", study.pruned_from)
    assert study.pruned_from == 3
    assert not list(Path("runs/s").glob("trial-05/weights/resume.pt"))
    assert storage_of().trials[-1].state == optuna.trial.TrialState.PRUNED


@pytest.mark.slow
def test_a_trial_that_diverges_is_an_outcome(capsys):
    study = tuned(
        capsys, "--trials", "3", "--confirm", "0", "--search", "optim.lr=0.01|1e30",
        "--set", "optim.lr=0.01",
    )  # fmt: skip
    states = {trial.values["optim.lr"]: trial.state for trial in study.trials}
    assert states == {0.01: "finished", 1e30: "diverged"}
    assert study.trial(study.best).values == {"optim.lr": 0.01}


@pytest.mark.slow
def test_machines_share_a_study_by_its_storage(place, capsys, tmp_path_factory):
    storage = f"sqlite:///{tmp_path_factory.mktemp('shared')}/studies.db"
    options = ["--storage", storage, "--trials", "3", "--confirm", "1", "--jobs", "1"]
    places = [place, tmp_path_factory.mktemp("other")]
    draw_place(places[1])
    options += ["--search", "optim.lr=0.01:0.1:log"]

    first = subprocess.Popen([*MUSGD, *options], cwd=places[0])
    wait_for(lambda: bool(list(places[0].glob("runs/s/trial-*"))), first)
    # A third machine took a trial and died.
    shared = optuna.load_study(study_name="s", storage=storage)
    dead = shared.ask()
    dead.set_user_attr("seen_at", 0.0)
    second = subprocess.Popen([*MUSGD, *options], cwd=places[1])
    assert (first.wait(), second.wait()) == (ExitCode.DONE, ExitCode.DONE)
    study = tuned(capsys, *options)
    assert len(study.trials) == 3
    assert dead.number not in {trial.number for trial in study.trials}
    for trial in study.trials:
        folder = f"runs/s/trial-{trial.number:02d}/train.json"
        assert sum((there / folder).exists() for there in places) == 1, trial
    assert sum(trial.baseline for trial in study.trials) == 1
    assert study.verdict != "unfinished"


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ("optim.lr", "is no KEY=LOW:HIGH"),
        ("optim.rl=1:2", "unknown key (did you mean optim.lr?)"),
        ("optim.lr=.1:.01", ".1 is not below .01"),
        ("optim.lr=0.001:0.1:lin", "'lin' is no scale"),
        ("optim.lr_final=0:1:log", "a log scale begins above 0"),
        ("optim.lr=0.05:0.1", "leaves out 0.03"),
        ("optim.momentum=0.5:2", "'2' is not a number"),
        ("optim.momentum=0.9", "nothing to search"),
        ("optim.nesterov=true:false", "is no number"),
        ("train.epochs=1:3", "keeps it as it is"),
        ("bench.threads=1:3", "training does not depend on it"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_is_made(capsys, search, says):
    assert says in refused(capsys, "--search", search)
    assert not Path("runs").exists()


def test_what_an_optimizer_lacks_cannot_be_searched(capsys):
    error = refused(capsys, "--search", "optim.adapt_factor=0:1")
    assert "the optimizer sgd has none" in error


def test_no_file_or_folder_of_another_is_taken(capsys):
    Path("mine.toml").write_text("precious")
    assert "exists already" in refused(capsys, "--write", "mine.toml")
    assert Path("mine.toml").read_text() == "precious"
    Path("runs/s").mkdir(parents=True)
    assert "exists already" in refused(capsys)
    assert list(Path("runs/s").iterdir()) == []


def test_a_storage_that_cannot_be_opened_is_told_without_its_password(capsys):
    error = refused(capsys, "--storage", "nothing://me:secret@there/db")
    assert "nothing://me:***@there/db cannot be opened" in error
    assert "secret" not in error


def test_two_processes_do_not_work_in_one_folder(capsys):
    import fcntl

    Path("runs/s").mkdir(parents=True)
    with Path("runs/s/study.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another musgd tune works in runs/s" in refused(capsys)


def test_without_optuna_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "--quiet"]) == ExitCode.UNSUPPORTED
    error, mend = capsys.readouterr().err.splitlines()
    assert error == "error: optuna is not installed here"
    assert mend == f"mend: {how_to_add('tune')}"


def test_nothing_is_tuned_without_data(place, capsys):
    (place / "musgd.toml").unlink()
    assert "no data set" in refused(capsys)
