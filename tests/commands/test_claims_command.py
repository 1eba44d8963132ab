"""``musgd claims`` as people and scripts call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from musgd_cli.__main__ import main
from musgd_cli.records import Claims


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSGD_BOARD", "x86-cpu")
    return tmp_path


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    folder = tmp_path / "squares"
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        image = np.full((64, 64, 3), 90 if split == "val" else 100, np.uint8)
        image[20:44, 20:44] = 255
        cv2.imwrite(str(folder / "images" / split / "0.png"), image)
        (folder / "labels" / split / "0.txt").write_text("0 0.5 0.5 0.375 0.375\n")
    file = folder / "squares.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [bright]\n")
    return file


def test_the_record_on_stdout_is_the_one_that_is_kept(
    squares: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--claim", "C9", "--claim", "c10", "--data", str(squares), "--json"]
    assert main(["claims", *options]) == 0
    out, err = capsys.readouterr()
    found = Claims.parse(json.loads(out))
    assert [result.claim for result in found.results] == ["C9", "C10"]
    assert json.loads(Path("runs/claims/claims.json").read_text()) == json.loads(out)
    assert "C9: the article's cannot be measured here" in err


def test_people_read_the_verdict_the_reason_and_how_to_repeat_it(
    squares: Path, capsys: pytest.CaptureFixture[str], check_command_line: object
) -> None:
    assert main(["claims", "--full", "--claim", "C3", "--data", str(squares), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert "cannot be measured here" in out
    assert "needs a Raspberry Pi 4B" in out
    [line] = [line for line in out.splitlines() if "repeat: " in line]
    command = line.partition("repeat: ")[2]
    assert command.endswith("--name claims-again")
    assert "--full --claim C3" in command
    assert callable(check_command_line)
    check_command_line(command)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--quick", "--full"], "both given"),
        (["--claim", "C12"], "no claim 'C12'"),
        (["--name", "../x"], "no run name"),
        (["--set", "optim.lr=0.1"], "optim.lr"),
        (["--data", "nowhere.yaml"], "nowhere.yaml"),
        (["--model", "nowhere.pt"], "nowhere.pt"),
        (["--jobs", "100000"], "cores"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", *options]) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()
