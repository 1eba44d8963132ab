"""The conventions every verb shares, seen from outside: streams, codes, errors, help."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from musgd_cli import __version__
from musgd_cli.__main__ import main
from musgd_cli.commands import app
from musgd_cli.errors import ExitCode

MUSGD = [sys.executable, "-m", "musgd_cli"]
COLOUR = re.compile(r"\x1b\[[\d;]*3\d")


def musgd(
    *arguments: str, stdout: int = subprocess.PIPE, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MUSGD, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )


def with_a_verb(body: str) -> subprocess.CompletedProcess[str]:
    """Run a throwaway verb through the real entry point, in a process of its own."""
    code = (
        "import errno, os, signal, sys\n"
        "from musgd_cli.__main__ import main\n"
        "from musgd_cli.commands import app\n"
        "from musgd_cli.errors import *\n"
        f"@app.command()\ndef verb(): {body}\n"
        "sys.exit(main(['verb']))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def verbs() -> Iterator[list[str]]:
    """Every command and group, as typed after ``musgd``."""

    def walk(command: object, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, below in sorted(getattr(command, "commands", {}).items()):
            yield from walk(below, [*path, name])

    return walk(typer.main.get_command(app), [])


@pytest.mark.parametrize("path", list(verbs()), ids=lambda path: " ".join(path) or "musgd")
def test_help_opens_with_an_example_that_parses(
    path: list[str],
    capsys: pytest.CaptureFixture[str],
    check_command_line: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pages = []
    for option in ("--help", "-h"):
        assert main([*path, option]) == ExitCode.DONE
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]
    words = pages[0].split("─ Options", maxsplit=1)[0].splitlines()
    opening = [line for line in map(str.strip, words) if line and not line.startswith("Usage:")][:2]
    examples = re.findall(r"musgd(?: [\w./=*-]+)+", "\n".join(opening))
    mine = [line for line in examples if line.startswith(" ".join(["musgd", *path]))]
    assert mine, opening
    for line in mine:
        check_command_line(line)


@pytest.mark.parametrize(
    ("arguments", "what", "mend"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?", "musgd --help"),
        (["doctor", "--jsno"], "--jsno", "musgd doctor --help"),
        (["train", "--epochs", "many"], "many", "musgd train --help"),
        (["data", "check"], "Missing argument", "musgd data check --help"),
        (["doctor", "--root", "/nowhere"], "/nowhere", "musgd doctor --help"),
    ],
)
def test_a_wrong_command_line_is_two_lines_and_code_2(
    arguments: list[str], what: str, mend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    streams = capsys.readouterr()
    assert streams.out == ""
    error, last = streams.err.splitlines()
    assert error.startswith("error: ")
    assert what in error
    assert last == f"mend: {mend}"


def test_bare_musgd_shows_the_help_and_ends_as_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == ExitCode.USAGE
    streams = capsys.readouterr()
    assert "Usage: musgd" in streams.out + streams.err
    assert "error:" not in streams.err


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == ExitCode.DONE
    assert capsys.readouterr().out == f"musgd {__version__}\n"
    assert version("musgd-cli") == __version__


def test_a_foreseen_failure_is_two_lines_and_its_code() -> None:
    for kind, code in [
        ("MusgdError", 1),
        ("UsageError", 2),
        ("UnsupportedError", 3),
        ("CheckFailedError", 4),
    ]:
        done = with_a_verb(f"raise {kind}('it broke at [3]', 'musgd mend')")
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr == "error: it broke at [3]\nmend: musgd mend\n"


def test_an_unforeseen_failure_keeps_its_traceback() -> None:
    done = with_a_verb("1 / 0")
    assert done.returncode == ExitCode.FAILED
    assert "Traceback (most recent call last)" in done.stderr
    assert "in verb" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_an_interrupt_is_code_130_without_a_traceback() -> None:
    done = with_a_verb("os.kill(os.getpid(), signal.SIGINT)")
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "")


def test_a_full_disk_is_foreseen_and_another_os_error_is_not() -> None:
    full = with_a_verb("raise OSError(errno.ENOSPC, 'No space left on device', '/data/x.jpg')")
    assert full.returncode == ExitCode.FAILED
    assert full.stderr.splitlines() == [
        "error: No space left on device for /data/x.jpg",
        "mend: free some space, then run the command again",
    ]
    other = with_a_verb("raise OSError(errno.EIO, 'Input/output error')")
    assert other.returncode == ExitCode.FAILED
    assert "Traceback" in other.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["doctor"], ["doctor", "--json"]])
def test_a_full_stdout_is_an_error_and_no_traceback(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = musgd(*arguments, stdout=full.fileno())
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.splitlines()[0] == "error: No space left on device"


@pytest.mark.parametrize("arguments", [["--help"], ["doctor"], ["doctor", "--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = musgd(*arguments, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (ExitCode.DONE, "")


@pytest.mark.parametrize("verb", ["data check", "bench", "export", "train --resume"])
def test_a_path_that_cannot_be_looked_up_is_a_usage_error(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb.split(), "a" * 300]) == ExitCode.USAGE
    assert "error: File name too long: aaa" in capsys.readouterr().err


@pytest.mark.parametrize("descriptor", [1, 2])
def test_a_closed_stream_is_no_error(descriptor: int) -> None:
    closed = subprocess.run(
        ["sh", "-c", f'"$@" {descriptor}>&-', "sh", *MUSGD, "doctor"], capture_output=True
    )
    assert (closed.returncode, closed.stderr) == (ExitCode.DONE, b"")


def test_ctrl_c_while_modules_load_leaves_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Hand:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'musgd_cli.commands': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Hand())\n"
        "from musgd_cli.__main__ import main\n"
        "sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, "")


@pytest.mark.parametrize("arguments", [["doctor"], ["plan"], ["profiles", "list"]])
def test_json_is_one_object_on_stdout(arguments: list[str]) -> None:
    done = musgd(*arguments, "--json")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert json.loads(done.stdout)["schema"]


@pytest.mark.parametrize("arguments", [["--help"], ["doctor"], ["plan"]])
def test_a_terminal_that_knows_ascii_alone_is_enough(arguments: list[str]) -> None:
    done = musgd(*arguments, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert done.stdout.isascii()


def on_a_terminal(*arguments: str, **environ: str) -> str:
    """Run ``musgd`` with a terminal as its streams and return what the person sees."""
    keyboard, screen = pty.openpty()
    with subprocess.Popen(
        [*MUSGD, *arguments],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        env={**os.environ, "TERM": "xterm-256color", **environ},
    ):
        os.close(screen)
        seen = b""
        try:
            while block := os.read(keyboard, 4096):
                seen += block
        except OSError:  # Linux says so when the last writer has gone
            pass
    os.close(keyboard)
    return seen.decode()


@pytest.mark.parametrize("arguments", [["doctor"], ["trian"]])
def test_no_color_takes_the_colours_away(arguments: list[str]) -> None:
    assert COLOUR.search(on_a_terminal(*arguments))
    assert not COLOUR.search(on_a_terminal(*arguments, NO_COLOR="1"))


def test_the_shell_completes_verbs_and_options() -> None:
    for words, wanted in [("musgd tr", "train"), ("musgd plan --ta", "--target")]:
        done = musgd(
            _MUSGD_COMPLETE="complete_bash",
            COMP_WORDS=words,
            COMP_CWORD=str(words.count(" ")),
        )
        assert wanted in done.stdout.split(), (words, done.stdout, done.stderr)
