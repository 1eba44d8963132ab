"""``musgd bench --host`` from the outside, over a real sshd on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import tiny_artifact as tiny
from loopback import MODEL, Network, pretend, prints
from made_reports import HOST, report

from musgd_cli.__main__ import main
from musgd_cli.data import load
from musgd_cli.errors import MusgdError
from musgd_cli.records import Host
from musgd_cli.remote import ssh
from musgd_cli.remote.answers import read_answer

QUICK = ("--threads", "1", "--repeats", "1", "--duration", "0.2", "--set", "bench.warmup_s=0")
REPORT = report(artifact=MODEL, runtime="null", threads=1, data=None, samples_ms=(20.0, 21.0))


def kept() -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted(Path("runs/r/bench").glob("*.json"))]


def facts(report: dict[str, object]) -> tuple[object, ...]:
    """What two runs on one machine have in common."""
    names = ("artifact", "artifact_sha256", "runtime", "precision", "threads", "data", "split")
    scored = ("n_images", "map50_95", "map50", "recall_small", "confidence_shift")
    return tuple(str(report[name]) for name in (*names, *scored))


# -------------------------------------------------------------------------------------- in order


def test_a_board_gives_what_this_machine_gives(
    pi: Path, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("onnx", "onnxruntime"):
        pytest.importorskip(module)
    artifacts = workshop / "runs/r/artifacts"
    parent = tiny.make_onnx(artifacts / "x86-cpu-onnxruntime-fp32-64")
    tiny.make_onnx(artifacts / "pi4b-onnxruntime-fp32-64", parent_sha256=parent.sha256)
    shutil.rmtree(MODEL)
    assert main(["bench", "r", "--data", "squares", *QUICK]) == 0
    here, of_here = capsys.readouterr().out, kept()
    assert main(["bench", "r", "--data", "squares", *QUICK, "--host", "pi"]) == 0
    there = capsys.readouterr()

    def rows(table: str) -> list[str]:
        return re.findall(r"^ (ONNX Runtime fp32 \(\S+\)) .* 0\.995 ", table, re.MULTILINE)

    assert rows(there.out) == rows(here)
    assert len(rows(here)) == 2
    of_there = [one for one in kept() if one["reached_as"] == "pi"]
    assert sorted(map(facts, of_there)) == sorted(map(facts, of_here))
    assert len(of_there) == 2
    assert "pi: copying 0.1 MB: 2 models, 2 images of data.yaml, val" in there.err
    assert "pi: measuring runs/r/artifacts/x86-cpu-onnxruntime-fp32-64" in there.err
    assert there.err.count("pi: kept runs/r/bench/") == 2
    # What went there stays; what this one bench laid out does not.
    assert {place.name for place in (pi / ".cache/musgd/remote").iterdir()} == {"files"}
    assert not list(pi.glob("runs*"))


def test_what_is_there_is_not_copied_again(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(network.board("twice"), prints(REPORT))
    for copies in (1, 0):
        assert main(["bench", "r", "--host", "twice", "--data", "squares"]) == 0
        assert capsys.readouterr().err.count("copying") == copies
    label = next(Path("squares/labels/val").iterdir())
    label.write_text("")
    assert main(["bench", "r", "--host", "twice", "--data", "squares"]) == 0
    assert "copying 0.1 MB: 2 images of data.yaml, val\n" in capsys.readouterr().err


def test_a_board_is_told_what_was_asked(network: Network, workshop: Path) -> None:
    run = Path("runs/it's a $(touch oops) run")
    Path("runs/r").rename(run)
    home = network.board("asked")
    there = f"{run}/artifacts/{Path(MODEL).name}"
    words = home / "words"
    answer = prints(REPORT.model_copy(update={"artifact": there}))
    pretend(
        home,
        f'for word; do echo "$word"; done > {words}; ls "$(dirname "$9")" >> {words}; {answer}',
    )
    options = ["--threads", "sweep", "--frames", "5", "--meter", "none", "--set", "bench.idle_s=7"]
    Path("musgd.toml").write_text("[bench]\nrepeats = 4\nthreads = 3\n")
    assert main(["bench", str(run), "--host", "asked", *options, "-q"]) == 0
    said = words.read_text().splitlines()
    assert said[:5] == ["bench", "--json", "--threads=sweep", "--frames=5", "--meter=none"]
    # Of the settings only those that are not the profile's of the board itself.
    assert {value for word, value in pairwise(said) if word == "--set"} == {
        "bench.idle_s=7.0",
        "bench.repeats=4",
    }
    assert said[said.index("--") + 1] == there
    assert not list(home.rglob("oops"))
    assert [json.loads(file.read_text())["artifact"] for file in run.glob("bench/*")] == [there]


def test_a_model_whose_runtime_a_board_lacks_stays_here(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_tensorrt(Path("runs/r/artifacts/orin-tensorrt-fp16-64"))
    home = network.board("lacks")
    pretend(home, prints(REPORT))
    assert main(["bench", "r", "--host", "lacks"]) == 0
    err = capsys.readouterr().err
    assert "error: lacks: tensorrt is not installed there" in err
    assert "mend: there, where musgd came from: ./install.sh --extras tensorrt" in err
    assert [file.parent.name for file in home.rglob("artifact.json")] == [Path(MODEL).name]
    # One that is for other boards is none that is missed, as long as there is something to measure.
    tiny.make_tensorrt(Path("runs/r/artifacts/orin-tensorrt-fp16-64"), boards=("orin",))
    assert main(["bench", "r", "--host", "lacks", "--fail-if", "p50>1000ms"]) == 0
    err = capsys.readouterr().err
    assert "lacks: left out: 1 model for other boards" in err
    assert "error" not in err
    assert main(["bench", "runs/r/artifacts/orin-tensorrt-fp16-64", "--host", "lacks"]) == 3


def test_a_run_is_scored_there_on_a_copy_of_its_own_set(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--data", "squares", "--json"]) == 0
    Path("runs/r/plan.json").write_text(capsys.readouterr().out)
    home = network.board("scores")
    scored = prints(REPORT.model_copy(update={"data": "@set"}))
    of_plan = r"""grep -o '"value":"[^"]*data.yaml"' runs/r/plan.json | cut -d'"' -f4"""
    pretend(home, f'{scored} | sed "s#@set#$({of_plan})#"')
    assert main(["bench", "r", "--host", "scores"]) == 0
    (one,) = kept()
    assert one["data"] == str(workshop / "squares/data.yaml")
    (copy,) = home.rglob("data.yaml")
    assert [image.name for image in load(copy).images("val")] == ["0.png", "1.png"]


# ------------------------------------------------------------------------------- what can go wrong


def test_boards_that_fail_leave_the_others(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network.alias("down", 1)
    network.board("changed")
    network.set_up_anew("changed")
    network.board("unknown", is_known=False)
    network.board("closed", lets_us_in=False)
    network.board("bare")
    pretend(network.board("newer"), "exit 1", schema="2.0")
    pretend(network.board("good"), prints(REPORT))
    cut = r"ppid() { sed -n 's/^PPid:\s*//p' /proc/$1/status; }; kill -9 $(ppid $PPID); sleep 60"
    pretend(network.board("cut"), cut)
    fails = ("down", "changed", "unknown", "closed", "bare", "newer", "cut")
    hosts = [word for name in (*fails, "good") for word in ("--host", name)]
    assert main(["bench", "r", *hosts]) == 1
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    told = {}
    for line, mend in pairwise(lines):
        if line.startswith("error: "):
            board, what = line.removeprefix("error: ").split(": ", 1)
            assert board not in told
            told[board] = what, mend.removeprefix("mend: ")
    assert tuple(told) == fails
    typed = f"ssh -F {network.config}"
    words = {
        "down": ("refused", f"{typed} down"),
        "changed": ("its host key is another", "ssh-keygen -f"),
        "unknown": ("its host key is not known", f"{typed} unknown"),
        "closed": ("in by key", f"ssh-copy-id -F {network.config} closed, once; or ssh-add, if"),
        "bare": ("there is no musgd", "install.sh"),
        "newer": ("schema 2.0, this one reads 1.0", "one version of musgd"),
        "cut": ("the connection broke", "run the command again"),
    }
    for board, (what, mend) in words.items():
        assert what in told[board][0], told
        assert mend in told[board][1], told
    assert [one["reached_as"] for one in kept()] == ["good"]
    assert "pi4b" in captured.out
    # Nothing that guards a connection was turned off, nor anybody let in.
    assert network.known_hosts.read_text().count("\n") == len(network.daemons) - 1


def test_what_nobody_foresaw_comes_after_the_other_boards(
    network: Network,
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretend(network.board("plain"), prints(REPORT))
    network.board("odd")

    def raising(error: Exception) -> Callable[..., object]:
        def measure(*_: object) -> object:
            raise error

        return measure

    monkeypatch.setattr("musgd_cli.remote.agent.measure", raising(ZeroDivisionError("odd")))
    with pytest.raises(ZeroDivisionError):
        main(["bench", "r", "--host", "plain", "--agent", "odd", "--json"])
    (one,) = json.loads(capsys.readouterr().out)["reports"]
    assert one["reached_as"] == "plain"
    monkeypatch.setattr("musgd_cli.remote.agent.measure", raising(OSError("no more sockets")))
    assert main(["bench", "r", "--agent", "odd"]) == 1
    err = capsys.readouterr().err
    assert "error: odd: cannot send what it is to measure: no more sockets" in err


def test_a_report_that_cannot_be_kept_here_is_shown(
    network: Network,
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("one", "two"):
        pretend(network.board(name), prints(REPORT))

    def write(file: Path, record: object) -> None:
        raise MusgdError(f"cannot write {file.parent}: no space left", "free some space")

    monkeypatch.setattr("musgd_cli.remote.session.write_record", write)
    assert main(["bench", "r", "--host", "one", "--host", "two", "--json"]) == 1
    captured = capsys.readouterr()
    reports = json.loads(captured.out)["reports"]
    assert [one["reached_as"] for one in reports] == ["one", "two"]
    assert captured.err.count("no space left") == 1


def test_an_answer_of_lists_in_lists_is_none() -> None:
    with pytest.raises(MusgdError, match="pi: what its musgd printed is no Host: "):
        read_answer("pi", "[" * 100_000, Host)


def test_an_answer_cannot_act_on_the_terminal() -> None:
    said = json.loads(REPORT.host.model_dump_json())
    said["model"] = "Barn \x1b]0;owned\x07\x1b[2J\x9b2JPi"
    assert read_answer("pi", json.dumps(said), Host).model == "Barn 2JPi"


def test_what_a_board_says_is_told_as_its_own(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = (
        "echo 'warning: the meter cannot be read' >&2; echo 'mend: sudo chmod' >&2",
        "echo 'error: the model is damaged' >&2; echo 'mend: musgd export' >&2",
        "exit 1",
    )
    pretend(network.board("speaks"), "\n".join(says))
    assert main(["bench", "r", "--host", "speaks"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-4:] == [
        "warning: speaks: the meter cannot be read",
        "mend: sudo chmod",
        "error: speaks: the model is damaged",
        "mend: musgd export",
    ]
    pretend(network.folder / "speaks/home", "echo Killed >&2; exit 137")
    assert main(["bench", "r", "--host", "speaks"]) == 1
    assert "error: speaks: it ended with exit code 137: Killed" in capsys.readouterr().err


def test_what_was_measured_stays_there_when_the_line_is_lost(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = network.board("lost")
    ppid = r"ppid() { sed -n 's/^PPid:\s*//p' /proc/$1/status; }"
    trap = f"trap 'kill $!; echo kept > measured; echo $PPID > {home}/ended; exit 130' TERM"
    pretend(home, f"{ppid}; {trap}; sleep 60 & kill -9 $(ppid $PPID); wait")
    assert main(["bench", "r", "--host", "lost"]) == 1
    found = re.search(r"stays there for a day, in (\S+)$", capsys.readouterr().err, re.MULTILINE)
    assert found is not None
    until = time.monotonic() + 30
    ended = home / "ended"
    while not (ended.exists() and ended.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    while Path("/proc", ended.read_text().strip()).exists() and time.monotonic() < until:
        time.sleep(0.02)  # the shell that clears what was told to end
    assert Path(found[1], "measured").read_text() == "kept\n"


def test_a_shell_may_say_anything_before_it_begins(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = network.board("titled")
    pretend(home, prints(REPORT))
    (home / ".bashrc").write_text(r"printf '\033]0;a title\007'")
    assert main(["bench", "r", "--host", "titled"]) == 0
    (home / ".bashrc").write_text("HOME=\n")
    assert main(["bench", "r", "--host", "titled"]) == 1
    assert "error: titled: its HOME is empty" in capsys.readouterr().err


def test_what_a_board_prints_does_nothing_to_this_terminal(
    network: Network,
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = network.board("rings")
    pretend(home, r"printf '\033[2J\033]52;c;aGk=\007error: a\tb\033[1m\302\233\a\r\n' >&2; exit 1")
    assert main(["bench", "r", "--host", "rings"]) == 1
    assert "error: rings: a b\n" in capsys.readouterr().err
    # Nor do the paths that it tells.
    monkeypatch.setattr(ssh, "MOST_BYTES", 2**18)
    monkeypatch.setattr(ssh, "MOST_LINES", 100)
    monkeypatch.setattr(ssh, "GRACE_S", 0.2)  # an ssh whose words are not read does not end
    (home / ".bashrc").write_text("HOME=$HOME/$(printf '\\033[2J')\n")
    for endless in ("exec yes", "exec yes >&2"):
        pretend(home / "\x1b[2J", endless)
        assert main(["bench", "r", "--host", "rings"]) == 1
        said = capsys.readouterr().err
        assert f"error: rings: {home}//.local/bin/musgd there prints without end\n" in said
    pretend(home / "\x1b[2J", "exit 255")
    assert main(["bench", "r", "--host", "rings"]) == 1
    assert f"stays there for a day, in {home}//.cache/" in capsys.readouterr().err


def test_ctrl_c_ends_the_work_there_and_keeps_what_is_whole(
    network: Network, workshop: Path, repository: Path
) -> None:
    slow = network.board("slow")
    trap = f"trap 'kill $!; echo > {slow}/ended; exit 130' TERM; echo at work >&2; sleep 300 & wait"
    pretend(slow, trap)
    pretend(network.board("quick"), prints(REPORT))
    bench = subprocess.Popen(
        [sys.executable, "-m", "musgd_cli", "bench", "r", "--host", "slow", "--host", "quick"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert bench.stderr is not None
    seen: set[str] = set()
    for line in bench.stderr:
        seen |= {word for word in ("slow: at work", "quick: kept") if word in line}
        if len(seen) == 2:
            break
    bench.send_signal(signal.SIGINT)
    assert bench.wait(timeout=60) == 130
    assert "Traceback" not in bench.stderr.read()
    left = slow / ".cache/musgd/remote"
    until = time.monotonic() + 30  # a board that is busy ends a little later than we do
    while [place.name for place in left.iterdir()] != ["files"] and time.monotonic() < until:
        time.sleep(0.1)
    assert [place.name for place in left.iterdir()] == ["files"]
    assert (slow / "ended").exists()
    assert [one["reached_as"] for one in kept()] == ["quick"]


# -------------------------------------------------------------------------------- gates, and usage


def test_limits_hold_each_board(
    network: Network, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, p50 in (("fast", 20.0), ("late", 60.0)):
        timed = report((p50,) * 5, artifact=MODEL, runtime="null", threads=1, imgsz=64)
        timed = timed.model_copy(update={"precision": "fp32", "target": "x86-cpu"})
        machine = {**HOST.model_dump(exclude={"schema_"}), "board": f"{name}-board"}
        timed = timed.model_copy(update={"host": HOST.model_copy(update=machine)})
        pretend(network.board(name), prints(timed), **machine)
    both = ["bench", "r", "--threads", "1", "--json"]
    for name in ("fast", "late"):
        both += ["--host", name]
    assert main([*both, "--fail-if", "p50>40ms"]) == 4
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert [one["reached_as"] for one in printed["reports"]] == ["fast", "late"]
    (broken,) = printed["broken"]
    assert broken["what"].startswith("late: x86-cpu-null-fp32-64, 1 thread: p50>40")
    assert broken["what"] in captured.err
    # One baseline holds the reports of all boards, each for its own.
    baseline = Path("baseline.json")
    baseline.write_text(captured.out)
    assert main([*both, "--against", "baseline.json"]) == 0
    compared = json.loads(capsys.readouterr().out)["comparisons"]
    assert [one["changes"][0]["ratio"] for one in compared] == [1.0, 1.0]
    baseline.write_text(json.dumps({**printed, "reports": printed["reports"][:1], "broken": []}))
    assert main([*both, "--against", "baseline.json"]) == 4
    err = capsys.readouterr().err
    assert "error: late: the baseline is of another machine: board late-board here" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "-oProxyCommand=touch oops"), "is no host"),
        (("--host", "pi@board:2222"), "ssh://pi@board:2222"),
        (("--host", "pi", "--meter", "power.csv"), "is a file of this machine"),
        (("--agent", "nano", "--frames", "5"), "--frames is nothing that the agent"),
        (("--agent", "nano", "--threads", "2"), "--threads: nothing that the agent"),
        (
            ("--agent", "nano", "--data", "squares", "--meter", "none", "--estimate-power"),
            "--data and --meter and --estimate-power: nothing that the agent",
        ),
        (("--host", "pi", "--data", "nowhere"), "nowhere does not exist"),
        (("--host", "pi", "--set", "bench.lr=1"), "unknown key"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_at_once(
    arguments: tuple[str, ...],
    words: str,
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MUSGD_SSH", "false")  # nothing is connected to
    assert main(["bench", "r", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not Path("oops").exists()


def test_without_ssh_it_says_so(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> list[str]:
        assert main(["bench", "r", "--host", "pi"]) == 3
        return capsys.readouterr().err.splitlines()[-2:]

    monkeypatch.setenv("MUSGD_SSH", "no-such-program")
    missing = "cannot call no-such-program: No such file or directory"
    assert told() == [f"error: {missing}", "mend: check the variable MUSGD_SSH"]
    monkeypatch.delenv("MUSGD_SSH")
    Path("ssh").mkdir()
    monkeypatch.setenv("PATH", str(workshop))
    denied = "cannot call ssh: Permission denied"
    assert told() == [f"error: {denied}", "mend: check ssh and its permissions"]
    Path("ssh").rmdir()
    assert told()[1] == "mend: apt install openssh-client"
    monkeypatch.setenv("MUSGD_SSH", "ssh 'pi")
    assert main(["bench", "r", "--host", "pi"]) == 2
    assert "MUSGD_SSH cannot be read: No closing quotation" in capsys.readouterr().err
