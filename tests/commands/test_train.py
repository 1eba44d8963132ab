"""``musgd train`` as it is typed: what it prints where, how it ends, what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ultralytics")

from tiny_model import MODEL

from musgd_cli.__main__ import main
from musgd_cli.commands.following import STOPPING
from musgd_cli.errors import ExitCode
from musgd_cli.records import Plan, TrainResult
from musgd_cli.runs import RunFolder

SETTINGS = """
[train]
data = "squares/squares.yaml"
model = "tiny.yaml"
epochs = 2
imgsz = 64
batch = 4
threads = 1
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set, a model and a musgd.toml that names both."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for kind in ("images", "labels"):
            (tmp_path / "squares" / kind / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(60, 190, (64, 64, 3), np.uint8)
            image[20:44, 20:44] = 255 * (number % 2)
            cv2.imwrite(str(tmp_path / f"squares/images/{split}/{number}.png"), image)
            label = f"{number % 2} 0.5 0.5 0.375 0.375\n"
            (tmp_path / f"squares/labels/{split}/{number}.txt").write_text(label)
    (tmp_path / "squares" / "squares.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [dark, bright]\n"
    )
    (tmp_path / "tiny.yaml").write_text(MODEL)
    (tmp_path / "musgd.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSGD_BOARD", "x86-cpu")
    return tmp_path


def words(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return the ``error:`` and ``mend:`` lines, and make sure that there is no more."""
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line]
    found = {line.partition(":")[0]: line.partition(": ")[2] for line in lines[-2:]}
    assert found.keys() == {"error", "mend"}, captured.err
    assert "Traceback" not in captured.err
    return found


def test_bare_train_does_all_from_the_settings_file(place, capsys):
    assert main(["train"]) == ExitCode.DONE
    run = RunFolder(Path("runs/squares"))
    captured = capsys.readouterr()
    # The result on stdout: where the weights are, and what to type next.
    assert "runs/squares/weights/best.pt" in captured.out
    assert "musgd export runs/squares" in captured.out
    # How it went on stderr: from what, then a heading and a line an epoch with its ETA.
    assert "training tiny.yaml from scratch" in captured.err
    lines = captured.err.splitlines()
    heading = next(i for i, line in enumerate(lines) if "mAP50-95" in line)
    first, second = lines[heading + 1 : heading + 3]
    assert (first.split()[0], second.split()[0]) == ("1/2", "2/2")
    assert len(lines[heading]) == len(first) == len(second)
    at = lines[heading].index("ETA") + 3
    assert first[:at].split()[-1].endswith("s")
    assert second[:at].split()[-1] == "-"
    # And the run is whole.
    assert run.finished
    assert run.plan().train.data == "squares/squares.yaml"
    assert (run.plots / "training.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_the_result_alone(capsys):
    assert main(["train", "--json", "--epochs", "1", "--name", "one", "--quiet"]) == ExitCode.DONE
    captured = capsys.readouterr()
    result = TrainResult.parse(json.loads(captured.out))
    assert result == RunFolder(Path("runs/one")).result()
    assert result.epochs == 1
    assert captured.err == ""


def test_a_dry_run_shows_the_plan_and_writes_nothing(place, capsys):
    before = sorted(place.rglob("*"))
    assert main(["train", "--dry-run", "--json", "--epochs", "7", "-s", "optim.lr=0.5"]) == 0
    plan = Plan.parse(json.loads(capsys.readouterr().out))
    assert plan.settings["train.epochs"].value == 7
    assert plan.settings["train.epochs"].source == "--epochs"
    assert plan.settings["optim.lr"].value == 0.5
    assert sorted(place.rglob("*")) == before


def test_runs_without_a_name_are_told_apart(capsys):
    for _ in range(2):
        assert main(["train", "--epochs", "1", "--quiet"]) == ExitCode.DONE
    assert {path.name for path in Path("runs").iterdir()} == {"squares", "squares-2"}


def test_a_set_called_data_yaml_gives_its_folder_name(place):
    (place / "squares" / "squares.yaml").rename(place / "squares" / "data.yaml")
    assert main(["train", "--data", "squares/data.yaml", "--epochs", "1", "--quiet"]) == 0
    assert Path("runs/squares/train.json").exists()


def test_fine_tuning_to_other_classes_says_so(place, capsys):
    assert main(["train", "--epochs", "1", "--name", "base", "--quiet"]) == ExitCode.DONE
    yaml = place / "squares" / "squares.yaml"
    yaml.write_text(yaml.read_text().replace("[dark, bright]", "[dark, bright, grey]"))
    capsys.readouterr()
    assert main(["train", "-m", "runs/base/weights/best.pt", "--epochs", "1", "--name", "t"]) == 0
    assert "the weights know 2 classes, the data set has 3" in capsys.readouterr().err
    assert RunFolder(Path("runs/t")).result().names == ("dark", "bright", "grey")


# --------------------------------------------------------------------------------------- bad input


def test_no_data_names_the_demo(place, capsys):
    (place / "musgd.toml").unlink()
    assert main(["train"]) == ExitCode.USAGE
    found = words(capsys)
    assert "no data set" in found["error"]
    assert "musgd demo" in found["mend"]


def spoil_image(place: Path) -> None:
    file = place / "squares/images/train/0.png"
    file.write_bytes(file.read_bytes()[:100])


def spoil_label(place: Path) -> None:
    (place / "squares/labels/train/0.txt").write_text("5 0.5 0.5 0.3 0.3\n")


def empty_split(place: Path) -> None:
    for image in (place / "squares/images/val").iterdir():
        image.unlink()


def take_the_name(place: Path) -> None:
    (place / "runs" / "squares").mkdir(parents=True)
    (place / "runs" / "squares" / "mine.txt").write_text("keep me")


def lock_the_folder(place: Path) -> None:
    (place / "runs").write_text("a file where the folder should be")


def put_an_exploit(place: Path) -> None:
    import torch

    class Exploit:
        def __reduce__(self):
            return os.system, (f"touch {place / 'ran'}",)

    torch.save({"model": Exploit()}, place / "evil.pt")


@pytest.mark.parametrize(
    ("spoil", "options", "code", "says"),
    [
        (None, ["--data", "nowhere.yaml"], ExitCode.USAGE, "nowhere.yaml"),
        (spoil_image, [], ExitCode.USAGE, "0.png"),
        (spoil_label, [], ExitCode.USAGE, "0.txt:1"),
        (empty_split, [], ExitCode.USAGE, "images/val"),
        (None, ["--model", "yolo26n.pt"], ExitCode.USAGE, "yolo26n.pt do not exist"),
        (None, ["--model", "tiny.onnx"], ExitCode.USAGE, "tiny.onnx"),
        (put_an_exploit, ["--model", "evil.pt"], ExitCode.USAGE, "posix.system"),
        (take_the_name, ["--name", "squares"], ExitCode.USAGE, "exists already"),
        (lock_the_folder, ["--name", "squares"], ExitCode.FAILED, "cannot write runs"),
        (None, ["--profile", "x86-cpus"], ExitCode.USAGE, "x86-cpus"),
        (None, ["--set", "train.epoch=3"], ExitCode.USAGE, "train.epoch"),
        (None, ["--optimizer", "adam"], ExitCode.USAGE, "adam"),
        (None, ["--set", "train.device=cuda:9"], ExitCode.UNSUPPORTED, "cuda:9"),
        (None, ["--resume", "nothing"], ExitCode.USAGE, "nothing is no run"),
    ],
)
def test_bad_input_is_two_lines_and_leaves_nothing(place, capsys, spoil, options, code, says):
    if spoil:
        spoil(place)
    before = sorted(place.rglob("*"))
    assert main(["train", "--quiet", *options]) == code
    assert says in words(capsys)["error"]
    runs = place / "runs"
    assert [path for path in sorted(place.rglob("*")) if path != runs] == [
        path for path in before if path != runs
    ]


def test_trust_loads_what_was_refused(place, capsys):
    put_an_exploit(place)
    assert main(["train", "--quiet", "--model", "evil.pt", "--trust"]) == ExitCode.USAGE
    assert (place / "ran").exists()  # trusted, it ran; and then held no model
    assert "holds no model" in words(capsys)["error"]


def test_a_board_that_cannot_train_says_where_to(capsys, monkeypatch):
    monkeypatch.setenv("MUSGD_BOARD", "jetson-nano")
    assert main(["train", "--quiet", "--data", "squares"]) == ExitCode.UNSUPPORTED
    assert "another machine" in words(capsys)["mend"]


# ------------------------------------------------------------------------------------------ resume


def test_resume_takes_its_settings_from_the_run(capsys):
    assert main(["train", "--epochs", "1", "--name", "one", "--quiet"]) == ExitCode.DONE
    capsys.readouterr()
    assert main(["train", "--resume", "one", "--epochs", "5"]) == ExitCode.USAGE
    found = words(capsys)
    assert "--epochs" in found["error"]
    assert found["mend"] == "musgd train --resume one"


def test_a_finished_run_is_not_resumed(capsys):
    assert main(["train", "--epochs", "1", "--name", "one", "--quiet"]) == ExitCode.DONE
    capsys.readouterr()
    assert main(["train", "--resume", "one", "--quiet"]) == ExitCode.USAGE
    found = words(capsys)
    assert "is finished: it trained 1 epoch" in found["error"]
    assert found["mend"].startswith(
        "musgd train --data squares/squares.yaml --model runs/one/weights/best.pt "
    )


def test_a_resume_from_elsewhere_does_not_ask_for_data_that_it_refuses(place, capsys, monkeypatch):
    assert main(["train", "--epochs", "1", "--name", "one", "--quiet"]) == ExitCode.DONE
    capsys.readouterr()
    (place / "runs/one/train.json").unlink()
    monkeypatch.chdir(place / "runs")
    assert main(["train", "--resume", "one", "--quiet"]) == ExitCode.USAGE
    found = words(capsys)
    assert "one was trained on a data set that is not here" in found["error"]
    assert "--data" not in found["mend"]


def test_a_name_that_is_taken_is_told_before_the_data_is_read(place, capsys):
    (place / "runs/one").mkdir(parents=True)
    assert main(["train", "--name", "one"]) == ExitCode.USAGE
    found = capsys.readouterr().err
    assert "error: the run runs/one exists already" in found
    assert "checking" not in found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_and_the_run_is_taken_up_again(place, capsys, number):
    command = [sys.executable, "-m", "musgd_cli", "train", "--epochs", "60", "--name", "long"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as it:
        for line in it.stderr:
            if line.lstrip().startswith("2/60"):
                break
        it.send_signal(number)
        rest = it.stderr.read()
    assert it.returncode == ExitCode.INTERRUPTED
    assert STOPPING in rest
    assert "mend: musgd train --resume runs/long" in rest
    assert "Traceback" not in rest
    run = RunFolder(Path("runs/long"))
    finished = len(run.epochs())
    assert not run.finished

    # To be done in seconds, the rest of the run is made short: all else stays as it was.
    plan = json.loads(run.plan_file.read_text())
    plan["settings"]["train.epochs"]["value"] = finished + 1
    run.plan_file.write_text(json.dumps(plan))
    assert main(["train", "--resume", "long", "--json", "--quiet"]) == ExitCode.DONE
    result = TrainResult.parse(json.loads(capsys.readouterr().out))
    assert (result.epochs, result.resumed) == (finished + 1, 1)


# ------------------------------------------------------------------------------------------- trust


def test_nothing_is_written_beside_the_data(place, capsys):
    shutil.move(place / "squares", place / "given")
    for path in (place / "given").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in (place / "given").rglob("*")}
    assert main(["train", "--data", "given", "--epochs", "1", "--quiet"]) == ExitCode.DONE
    after = {path: path.stat().st_mtime_ns for path in (place / "given").rglob("*")}
    assert after == before


def test_help_begins_with_an_example_that_works(capsys, check_command_line):
    assert main(["train", "--help"]) == ExitCode.DONE
    text = capsys.readouterr().out
    example = next(line for line in text.splitlines() if "musgd train --data" in line)
    check_command_line(example[example.index("musgd") :].strip())
