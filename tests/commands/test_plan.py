"""``musgd plan`` as it is typed: options, table, JSON, what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from musgd_cli.__main__ import main
from musgd_cli.errors import ExitCode
from musgd_cli.records import Plan
from musgd_cli.report.terminal.plan import in_words

HEAVY = (
    "torch",
    "ultralytics",
    "onnx",
    "onnxruntime",
    "openvino",
    "ncnn",
    "numpy",
    "cv2",
    "matplotlib",
)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSGD_BOARD", "x86-cpu")


def plan_json(capsys: pytest.CaptureFixture[str], *options: str) -> Plan:
    assert main(["plan", "--json", *options]) == ExitCode.DONE
    return Plan.parse(json.loads(capsys.readouterr().out))


def test_every_option_settles_its_setting(capsys: pytest.CaptureFixture[str]) -> None:
    options = {
        "--data": ("train.data", "d.yaml"),
        "--model": ("train.model", "w.pt"),
        "--epochs": ("train.epochs", 3),
        "--imgsz": ("train.imgsz", 320),
        "--batch": ("train.batch", 4),
        "--optimizer": ("optim.name", "sgd"),
        "--seed": ("train.seed", 7),
        "--name": ("train.name", "barn"),
    }
    typed = [text for option, (_, value) in options.items() for text in (option, str(value))]
    plan = plan_json(capsys, *typed, "--set", "optim.lr=0.5", "--profile", "x86-gpu")
    for option, (key, value) in options.items():
        assert (plan.settings[key].value, plan.settings[key].source) == (value, option)
    assert plan.settings["optim.lr"].source == "--set optim.lr"
    assert plan.settings["optim.lr"].over[0].source == "profile x86-gpu [optim.sgd.fine-tuning]"
    assert (plan.profile, plan.target) == ("x86-gpu", "x86-cpu")


@pytest.mark.parametrize(("difficulty", "factor"), [("easy", 0.01), ("hard", 0.1)])
@pytest.mark.parametrize("optimizer", ["musgd", "musgd-article"])
def test_a_difficulty_is_the_articles_adapt_factor(
    capsys: pytest.CaptureFixture[str], optimizer: str, difficulty: str, factor: float
) -> None:
    plan = plan_json(capsys, "--optimizer", optimizer, "--difficulty", difficulty)
    settled = plan.settings["optim.adapt_factor"]
    assert (settled.value, settled.source) == (factor, f"--difficulty {difficulty}")
    assert settled.over[0].source == f"profile x86-cpu [optim.{optimizer}]"


def test_an_assignment_is_named_as_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_json(capsys, "--set", "train.epochs=3", "--set", "optim.adapt_factor=0.5")
    assert plan.settings["train.epochs"].source == "--set train.epochs"
    assert plan.settings["optim.adapt_factor"].source == "--set optim.adapt_factor"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "musgd: rowcol second moment, Nesterov, constant momentum 0.9"),
        (
            ["--difficulty", "easy", "--set", "optim.nesterov=false"],
            (
                "musgd: rowcol second moment, momentum 0.9 cut by each tensor's own squared norm, "
                "adapt_factor 0.01"
            ),
        ),
        (
            ["--optimizer", "musgd-article"],
            (
                "musgd-article: the article's form, momentum 0.9 cut by each tensor's own "
                "squared norm, adapt_factor 0.1"
            ),
        ),
        (
            [
                *("--optimizer", "musgd-article", "--set", "optim.norm_scope=global"),
                *("--set", "optim.adapt_factor=auto"),
            ],
            (
                "musgd-article: the article's form, momentum 0.9 cut by all gradients' squared "
                "norm, against its running mean, adapt_factor auto"
            ),
        ),
        (
            ["--set", "optim.second_moment=none"],
            "musgd: no second moment, Nesterov, constant momentum 0.9",
        ),
        (["--optimizer", "sgd"], "sgd: PyTorch's SGD, Nesterov, momentum 0.9"),
        (["--optimizer", "adamw"], "adamw: PyTorch's AdamW, beta1 0.9"),
        (
            ["--optimizer", "muon-sgd"],
            "muon-sgd: Ultralytics' hybrid of Muon and SGD, which it calls MuSGD",
        ),
    ],
)
def test_one_line_says_which_optimizer_that_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options, line
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["plan", *options]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert main(["train", "--dry-run", *options]) == ExitCode.DONE
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert main(["plan", "--json", *options]) == ExitCode.DONE
    Plan.parse(json.loads(capsys.readouterr().out))


def test_the_file_of_the_current_folder_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    Path("musgd.toml").write_text("target = 'pi4b'\n[train]\nbatch = 4\n")
    plan = plan_json(capsys)
    assert plan.target == "pi4b"
    assert plan.settings["train.batch"].source == "musgd.toml"


def test_the_table_shows_every_setting_its_source_and_what_it_beat(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSGD_TRAIN__EPOCHS", "7")
    Path("musgd.toml").write_text("[train]\nepochs = 5\n")
    assert main(["plan", "--epochs", "9", "--target", "pi4b", "--data", "a[b].yaml"]) == 0
    printed = capsys.readouterr()
    rows = {line.split()[0]: line for line in printed.out.splitlines() if line.strip()}
    expected = "9 --epochs 7 (MUSGD_TRAIN__EPOCHS), 5 (musgd.toml), 100 (profile x86-cpu)"
    assert " ".join(rows["train.epochs"].split()) == f"train.epochs {expected}"
    assert "a[b].yaml" in rows["train.data"]  # brackets are no markup
    assert "profile pi4b" in rows["train.imgsz"]
    assert "not given" in rows["train.name"]
    assert printed.err == ""


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--epochs", "0"], "error: --epochs: 0 is not a whole number above 0"),
        (["--epochs", "some"], "error: Invalid value for '--epochs'"),
        (["--optimizer", "adamv"], "(did you mean adamw?)"),
        (["--profile", "pi4"], "error: unknown profile 'pi4' (did you mean pi4b?)"),
        (["--set", "train.epohcs=3"], "(did you mean train.epochs?)"),
        (["--epochs", "3", "--set", "train.epochs=3"], "is given twice, by --epochs and by --set"),
        (["--target", "none.toml"], "error: there is no profile none.toml"),
        (["--difficulty", "harder"], "error: --difficulty: 'harder' is neither easy nor hard"),
        (
            ["--difficulty", "easy", "--set", "optim.adapt_factor=0.03"],
            "error: optim.adapt_factor is given twice, by --difficulty easy and by --set",
        ),
        (
            ["--difficulty", "hard", "--optimizer", "adamw"],
            "error: --difficulty hard: the optimizer adamw has no adapt_factor, unlike musgd and",
        ),
        (
            ["--set", "optim.norm_scope=global"],
            "error: second_moment=rowcol has no norm_scope=global",
        ),
    ],
)
def test_what_is_wrong_is_told_with_a_mend_and_exit_code_2(
    options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *options]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert error in printed.err
    assert "\nmend: " in printed.err
    assert printed.out == ""


def test_a_board_without_a_profile_is_told_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSGD_BOARD", "pi5")
    said = "no profile is made for the board pi5; pi4b is the nearest"
    assert main(["plan", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["profile"] == "pi4b"
    assert said in printed.err
    assert main(["plan", "--profile", "x86-cpu", "--target", "x86-gpu"]) == 0
    assert said not in capsys.readouterr().err


def test_plan_writes_nothing(tmp_path: Path) -> None:
    assert main(["plan"]) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["plan", "--json"], ["plan", "--help"], ["profiles", "list"]])
def test_nothing_heavy_is_loaded(command: list[str]) -> None:
    code = (
        "import sys\n"
        "from musgd_cli.__main__ import main\n"
        f"assert main({command!r}) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_values_are_shown_as_they_are_typed() -> None:
    assert [in_words(v) for v in (True, ("ncnn", "litert"), 0.01, "a")] == [
        "true",
        "ncnn, litert",
        "0.01",
        "a",
    ]
