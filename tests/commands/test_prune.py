"""``musgd prune`` as it is typed: what it prints where, how it ends, what it leaves behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import MODEL

from musgd_cli.__main__ import main
from musgd_cli.errors import ExitCode
from musgd_cli.records import PruneResult
from musgd_cli.runs import RunFolder
from musgd_cli.storage import read_record, write_record

for _needed in ("torch", "ultralytics", "torch_pruning", "onnx", "onnxruntime"):
    pytest.importorskip(_needed)

SETTINGS = """
[train]
data = "squares/squares.yaml"
model = "tiny.yaml"
imgsz = 64
batch = 4
threads = 1
[bench]
duration_s = 0.1
warmup_s = 0.1
[optim]
name = "adamw"
lr = 0.01
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A folder with a set of bright and dark squares, and a run that finds some of them."""
    import contextlib

    import cv2
    import numpy as np

    place = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 12)):
        for kind in ("images", "labels"):
            (place / "squares" / kind / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(60, 190, (64, 64, 3), np.uint8)
            left, top = (int(edge) for edge in rng.integers(4, 36, 2))
            image[top : top + 24, left : left + 24] = 255 * (number % 2)
            cv2.imwrite(str(place / "squares/images" / split / f"{number}.png"), image)
            x, y = (left + 12) / 64, (top + 12) / 64
            label = place / "squares/labels" / split / f"{number}.txt"
            label.write_text(f"{number % 2} {x:.5f} {y:.5f} .375 .375\n")
    names = "train: images/train\nval: images/val\nnames: [dark, bright]\n"
    (place / "squares/squares.yaml").write_text(names)
    (place / "tiny.yaml").write_text(MODEL)
    (place / "musgd.toml").write_text(SETTINGS)
    with contextlib.chdir(place):
        assert main(["train", "--epochs", "20", "--name", "squares", "--quiet"]) == 0
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where musgd is typed."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_table_and_the_next_command(place: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["prune", "squares", "--epochs", "2", "--max-drop", "0.99"]) == ExitCode.DONE
    out, err = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["before"][-1] == "x"
    assert float(rows["pruned"][4]) < float(rows["before"][4])
    assert rows["fine-tuned"][4:7] == rows["pruned"][4:7]
    assert "gate: passed" in out
    assert "1 thread" in out
    assert "squares/squares.yaml, val, which also chose the epoch" in out
    assert out.splitlines()[-1] == "next: musgd export runs/squares-pruned --int8"
    assert "finding what the loss depends on least" in err
    assert (place / "runs/squares-pruned/plots").is_dir()


def test_json_is_all_of_stdout_and_a_failed_gate_exits_4(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    """Without a step taken, half of the channels are missed."""
    options = ["--macs", "0.4", "--epochs", "1", "--set", "optim.lr=1e-9", "--max-drop", "0"]
    code = main(["prune", "runs/squares", *options, "--name", "less", "--json", "--quiet"])
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert code == ExitCode.CHECK_FAILED
    assert result["schema"]
    assert result["gate"]["verdict"] == "failed"
    assert result["asked"] == "macs"
    assert result["macs_share"] <= 0.4
    error, mend = err.splitlines()
    assert error.startswith("error: runs/less fails the gate: mAP50-95 drops by")
    assert "the run is kept" in mend
    assert (place / "runs/less/train.json").is_file()


BAD = [
    (["squares", "--ratio", "0"], "--ratio 0 is not a share"),
    (["squares", "--ratio", "1"], "--ratio 1 is not a share"),
    (["squares", "--ratio", "nan"], "--ratio nan is not a share"),
    (["squares", "--macs", "1.5"], "--macs 1.5 is not a share"),
    (["squares", "--speedup", "0.9"], "--speedup 0.9 is not above 1"),
    (["squares", "--speedup", "inf"], "--speedup inf is not above 1"),
    (["squares", "--ratio", ".3", "--macs", ".5"], "--ratio and --macs are given"),
    (["squares", "--set", "compress.max_drop=0.1"], "compress.max_drop is export's"),
    (["squares", "--max-drop", "-1"], "--max-drop -1"),
    (["squares", "--epochs", "0"], "--epochs: 0 is not"),
    (["squares", "--epochs", "3", "--set", "train.epochs=4"], "given twice"),
    (["squares", "--set", "optim.name=sgd"], "the optimizer is adamw, and stays so"),
    (["squares", "--set", "optim.adapt_factor=1"], "adamw has no adapt_factor"),
    (["squares", "--name", "squares"], "exists already"),
    (["squares", "--data", "nowhere.yaml"], "nowhere.yaml"),
    (["circles"], "circles is no run"),
    (["missing.pt"], "missing.pt do not exist"),
    (["tiny.yaml"], "tiny.yaml is no run"),
    (["tiny.onnx"], "tiny.onnx is an exported model"),
]


@pytest.mark.parametrize(("arguments", "what"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_input_is_an_error_and_a_mend(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
):
    before = sorted(place.rglob("*"))
    assert main(["prune", *arguments, "--quiet"]) == ExitCode.USAGE
    out, err = capsys.readouterr()
    error, mend = err.splitlines()
    assert out == ""
    assert error.startswith("error: ")
    assert what in error
    assert mend.startswith("mend: ")
    assert sorted(place.rglob("*")) == before


def test_bare_weights_need_a_data_set(place: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copyfile("runs/squares/weights/best.pt", "bare.pt")
    Path("musgd.toml").unlink()
    assert main(["prune", "bare.pt"]) == ExitCode.USAGE
    assert "musgd prune … --data YAML" in capsys.readouterr().err


def test_an_unfinished_run_is_to_be_finished(place: Path, capsys: pytest.CaptureFixture[str]):
    Path("runs/squares/train.json").unlink()
    assert main(["prune", "squares"]) == ExitCode.USAGE
    assert "musgd train --resume runs/squares" in capsys.readouterr().err


def test_without_torch_pruning_the_extra_is_named(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "torch_pruning", None)
    assert main(["prune", "squares"]) == ExitCode.UNSUPPORTED
    assert "[prune]'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    Path("runs").rename("kept")
    Path("runs").write_text("a file where the folder should be")
    assert main(["prune", "kept/squares"]) == ExitCode.FAILED
    error, _ = capsys.readouterr().err.splitlines()
    assert error.startswith("error: cannot write runs/squares-pruned")


def test_renamed_classes_are_the_users_affair(place: Path):
    data = place / "squares/squares.yaml"
    data.write_text(data.read_text().replace("[dark, bright]", "[hole, lamp]"))
    options = ["--epochs", "1", "--max-drop", "0.99", "--quiet"]
    assert main(["prune", "squares", *options]) == ExitCode.DONE
    assert RunFolder(Path("runs/squares-pruned")).result().names == ("hole", "lamp")


# ------------------------------------------------------------------------------------- interrupted


def stopped_at(line: str, *arguments: str) -> list[str]:
    """Stop ``musgd prune`` once it has written a line that begins so; return what follows."""
    command = [sys.executable, "-m", "musgd_cli", "prune", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as it:
        for said in it.stderr:
            if said.startswith(line):
                break
        it.send_signal(signal.SIGTERM)
        rest = it.stderr.read().splitlines()
    assert it.returncode == ExitCode.INTERRUPTED
    return rest


def test_stopped_before_the_fine_tuning_it_keeps_nothing_and_says_so(place: Path):
    warning, mend = stopped_at("finding what the loss depends on", "squares")[-2:]
    assert warning.startswith("warning: interrupted before the first step")
    assert "nothing is kept" in warning
    assert mend == "mend: the same command begins anew"
    assert [path.name for path in Path("runs").iterdir()] == ["squares"]


def test_stopped_after_the_fine_tuning_it_is_held_against_its_parent_later(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    options = ["--epochs", "1", "--max-drop", "0.99"]
    warning, mend = stopped_at("holding it against its parent", "squares", *options)[-2:]
    assert "runs/squares-pruned is fine-tuned and kept, but was not held against" in warning
    resume = ["train", "--resume", "runs/squares-pruned"]
    assert mend == f"mend: musgd {' '.join(resume)}"
    run = RunFolder(Path("runs/squares-pruned"))
    assert run.finished

    weights = Path("runs/squares/weights/best.pt")
    weights.rename("away.pt")
    assert main([*resume, "--quiet"]) == ExitCode.USAGE
    error, mend = capsys.readouterr().err.splitlines()
    assert f"{weights}, which it was pruned from, is not here" in error
    assert "musgd train --resume runs/squares-pruned" in mend
    Path("away.pt").rename(weights)

    assert main([*resume, "--quiet"]) == ExitCode.DONE
    assert "gate: passed" in capsys.readouterr().out
    assert read_record(run.prune_file, PruneResult).tuned.map50_95 is not None
    assert main([*resume, "--quiet"]) == ExitCode.USAGE
    assert "is finished" in capsys.readouterr().err


def test_a_resumed_run_is_held_against_its_parent_as_well(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    """As if it had been stopped before its first epoch, with a parent that is hard to match."""
    options = ["--macs", "0.4", "--epochs", "1", "--set", "optim.lr=1e-9", "--max-drop", "0.99"]
    assert main(["prune", "squares", *options, "--quiet"]) == ExitCode.DONE
    run = RunFolder(Path("runs/squares-pruned"))
    run.train_file.unlink()
    record = read_record(run.prune_file, PruneResult)
    write_record(
        run.prune_file, record.model_copy(update={"gate": None, "tuned": None, "max_drop": 0.0})
    )
    capsys.readouterr()
    assert main(["train", "--resume", str(run.path), "--json"]) == ExitCode.CHECK_FAILED
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["gate"]["verdict"] == "failed"
    assert result["tuned"]["latency_ms"] == result["pruned"]["latency_ms"]
    assert "runs/squares-pruned fails the gate" in err
