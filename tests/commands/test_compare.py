"""``musgd compare`` as it is typed: real comparisons of trainings that take seconds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("ultralytics")

from tiny_model import MODEL
from tiny_set import draw_squares

from musgd_cli.__main__ import main
from musgd_cli.errors import ExitCode
from musgd_cli.lab import comparing
from musgd_cli.lab.contenders import parse_contenders
from musgd_cli.records import Host, OptimizerComparison
from musgd_cli.report.page.comparing import render
from musgd_cli.runs import RunFolder

OPTIONS = [
    "compare",
    *("--data", "squares/squares.yaml"),
    *("--model", "tiny.yaml"),
    *("--optimizers", "musgd-article"),
    *("--seeds", "1"),
    *("--epochs", "2"),
    *("--imgsz", "64"),
    *("--batch", "4"),
    *("--set", "train.threads=1"),
    *("--name", "c"),
    "--json",
]


def fill(folder: Path) -> Path:
    draw_squares(folder / "squares")
    (folder / "tiny.yaml").write_text(MODEL)
    return folder


def trials(root: Path) -> list[str]:
    return sorted(file.parent.name for file in root.glob("*/plan.json"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished comparison, which no test changes."""
    folder = fill(tmp_path_factory.mktemp("compared"))
    done = subprocess.run(
        [sys.executable, "-m", "musgd_cli", *OPTIONS],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "printed.json").write_text(done.stdout)
    (folder / "told.txt").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def result(place: Path) -> OptimizerComparison:
    return OptimizerComparison.parse(json.loads((place / "printed.json").read_text()))


def test_baseline_and_controls_are_always_there(result: OptimizerComparison) -> None:
    names = {c.optimizer: (c.role, c.control_of) for c in result.contenders}
    beta = next(c for c in result.contenders if c.optimizer == "musgd-article").runs[0].beta_mean
    assert names == {
        "sgd": ("baseline", None),
        "sgd:nesterov=false": ("control", "sgd"),
        "musgd-article": ("contender", None),
        f"musgd-article:adapt_factor=0:momentum={round(beta, 2):g}": ("control", "musgd-article"),
    }
    assert result.contenders[0].role == "baseline"
    assert result.contenders[0].settings["nesterov"] is True


def test_file_holds_what_was_printed(place: Path, result: OptimizerComparison) -> None:
    kept = json.loads((place / "runs/c/compare.json").read_text())
    assert OptimizerComparison.parse(kept) == result
    assert result.finished


def test_figures_are_those_of_the_runs(place: Path, result: OptimizerComparison) -> None:
    for contender in result.contenders:
        (run,) = contender.runs
        folder = RunFolder(place / "runs/c" / run.run)
        trained, last = folder.result(), folder.epochs()[-1]
        assert run.last is not None
        assert run.last.step == trained.steps == 4
        assert run.last.val_loss == pytest.approx(sum(last.val_losses.values()))
        assert contender.optimizer_state_bytes == trained.optimizer_state_bytes
        assert contender.last_val_loss is not None
        assert contender.last_val_loss.n == 1


def test_targets_that_nobody_gave_are_the_baselines(result: OptimizerComparison) -> None:
    assert {target.figure for target in result.targets} >= {"train loss", "val loss"}
    assert not any(target.given for target in result.targets)
    baseline = result.contenders[0]
    for target, outcome in zip(result.targets, baseline.targets, strict=True):
        assert outcome.reached == 1
        assert outcome.steps_ratio is not None
        assert outcome.steps_ratio.median == 1
        assert "the baseline had reached" in target.why


def test_page_needs_nothing_beside_it(place: Path) -> None:
    page = (place / "runs/c/compare.html").read_text()
    assert "musgd-article" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "no basis for a claim" in page


def test_page_names_the_rate_that_was_scored_beside_the_one_typed(
    result: OptimizerComparison,
) -> None:
    typed = [f"{name}:lr=0.02" for name in ("adamw", "muon-sgd")]
    contenders = [
        result.contenders[0].model_copy(update={"optimizer": optimizer, "lr": lr})
        for optimizer, lr in zip(typed, (0.06, 0.02), strict=True)
    ]
    page = render(result.model_copy(update={"contenders": tuple(contenders)}))
    assert "adamw:lr=0.02, lr 0.06" in page
    assert "muon-sgd:lr=0.02, lr" not in page


def test_the_same_command_trains_nothing_again(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    result: OptimizerComparison,
) -> None:
    shutil.copytree(place, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    Path("runs/c/compare.json").unlink()  # a folder of trials alone is taken for what it is
    assert main([*OPTIONS, "--val-loss", "9.5", "--map50", "0.9"]) == 0
    again = OptimizerComparison.parse(json.loads(capsys.readouterr().out))
    assert [target.value for target in again.targets] == [9.5, 0.9]
    assert [c.runs[0].curve for c in again.contenders] == [
        c.runs[0].curve for c in result.contenders
    ]
    assert [c.targets[1].reached for c in again.contenders] == [0] * len(again.contenders)
    assert again.contenders[1].targets[1].steps is None


def test_all_that_is_there_is_told_at_once_though_an_early_training_is_missing(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    result: OptimizerComparison,
) -> None:
    shutil.copytree(place, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    shutil.rmtree(Path("runs/c") / result.contenders[1].runs[0].run)
    assert main(OPTIONS) == 0
    printed, told = capsys.readouterr()
    assert outcome(OptimizerComparison.parse(json.loads(printed))) == outcome(result)
    assert [line for line in told.splitlines() if "already" in line] == [
        "3 of 4 trainings are there already"
    ]
    assert "4 of 4: sgd-nesterov=false" in told


def test_baseline_is_the_one_asked_for_however_it_is_typed(tmp_path: Path) -> None:
    setup = comparing.Setup(
        contenders=parse_contenders("musgd,sgd:nesterov=true:lr=0.02"),
        seeds=1,
        sweep_lr=False,
        host=Host(board="x86-cpu"),
        flags={"train.data": "squares.yaml"},
    )
    campaign = comparing.Campaign(comparing.settle_setup(setup), tmp_path, comparing.Followers())
    assert [(each.contender.label, each.role) for each in campaign.entrants] == [
        ("sgd:nesterov=true:lr=0.02", "baseline"),
        ("sgd:nesterov=false:lr=0.02", "control"),
        ("musgd", "contender"),
    ]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (["--seeds", "2"], "--seeds 1, now 2"),
        (["--optimizers", "adamw"], "--optimizers musgd-article, now adamw"),
        (["--epochs", "3"], "train.epochs 2, now 3"),
        (["--set", "optim.momentum=0.5"], "optim.momentum 0.9, now 0.5"),
    ],
)
def test_another_request_in_the_same_folder_is_refused(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: list[str],
    what: str,
) -> None:
    monkeypatch.chdir(place)
    assert main([*OPTIONS, *changed]) == ExitCode.USAGE
    assert what in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        (["--set", "optim.lr=0.1"], "each training's own"),
        (["--set", "train.seed=3"], "--seeds"),
        (["--set", "train.name=x"], "--name"),
        (["--set", "train.patience=1"], "the same epochs"),
        (["--optimizers", "sgdd"], "did you mean sgd?"),
        (["--optimizers", "sgd,sgd"], "given twice"),
        (["--optimizers", "sgd,sgd:nesterov=true"], "train alike"),
        (["--jobs", "100000"], "cores"),
        (["--val-loss", "0"], "no target"),
        (["--val-loss", "inf"], "no target"),
        (["--name", "../x"], "no run name"),
        (["--data", "none.yaml"], "none.yaml"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    what: str,
) -> None:
    monkeypatch.chdir(fill(tmp_path))
    assert main([*OPTIONS, *extra]) == ExitCode.USAGE
    assert what in capsys.readouterr().err
    assert not Path("runs").exists()


# ------------------------------------------------------------------------------ stopped and killed


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "musgd_cli", *OPTIONS],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(what: Any, seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    pytest.fail("it did not happen")


def second_run(root: Path) -> RunFolder | None:
    """Return the run that trains after the first is finished, once it has saved an epoch."""
    if not any(root.glob("*/train.json")):
        return None
    unfinished = [RunFolder(root / n) for n in trials(root) if not RunFolder(root / n).finished]
    return next((run for run in unfinished if (run.weights / "resume.pt").exists()), None)


def workers_of(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def outcome(result: OptimizerComparison) -> list[tuple[Any, ...]]:
    """Return all of a comparison that does not depend on how fast the machine was."""
    return [
        (
            c.optimizer,
            c.lr,
            [each.steps for each in c.targets],
            [[(p.step, p.train_loss, p.val_loss, p.map50) for p in r.curve] for r in c.runs],
        )
        for c in result.contenders
    ]


def test_killed_in_its_second_run_it_ends_as_if_never_killed(
    tmp_path: Path, result: OptimizerComparison
) -> None:
    root = fill(tmp_path) / "runs/c"
    process = start(tmp_path)
    cut = wait_for(lambda: second_run(root))
    workers = workers_of(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert workers
    wait_for(lambda: not any(map(is_running, workers)), 60)  # they were not killed, and end

    finished = {file: file.read_bytes() for file in root.glob("*/train.json")}
    process = start(tmp_path)
    printed, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    again = OptimizerComparison.parse(json.loads(printed))
    assert outcome(again) == outcome(result)
    assert again.targets == result.targets
    assert cut.result().resumed <= 1
    assert all(file.read_bytes() == before for file, before in finished.items())


def test_ctrl_c_finishes_the_step_and_says_how_to_go_on(tmp_path: Path) -> None:
    root = fill(tmp_path) / "runs/c"
    process = start(tmp_path)
    wait_for(lambda: any(root.glob("*/steps.jsonl")))
    os.kill(process.pid, signal.SIGINT)
    printed, told = process.communicate(timeout=120)
    assert process.returncode == ExitCode.INTERRUPTED
    assert printed == ""
    assert "the same command goes on" in told
    assert "Traceback" not in told
    assert not json.loads((root / "compare.json").read_text())["finished"]
