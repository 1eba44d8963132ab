"""What each stream gets: results on stdout, all else on stderr, and nothing cut or restyled."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from rich.table import Table

from musgd_cli.console import Terminal, print_error
from musgd_cli.errors import MusgdError

TRICKY = "runs/[bold]/a.toml:x:3 é " + "a long way down " * 20


def test_a_result_for_scripts_is_the_only_thing_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal(as_json=True)
    terminal.say("working")
    terminal.warn("odd", "mend it")
    terminal.show("a table")
    with terminal.status("measuring"):
        pass
    terminal.emit({"path": TRICKY, "power_w": None})
    streams = capsys.readouterr()
    assert json.loads(streams.out) == {"path": TRICKY, "power_w": None}
    assert streams.out.isascii()
    assert streams.err.splitlines() == ["working", "warning: odd", "mend: mend it", "measuring"]


def test_json_never_holds_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Terminal(as_json=True).emit({"power_w": float("nan")})


def test_a_result_for_people_is_on_stdout_and_no_json_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal(quiet=True)
    terminal.say("working")
    terminal.emit({"never": "shown"})
    terminal.show("a table")
    terminal.warn("odd")
    streams = capsys.readouterr()
    assert streams.out == "a table\n"
    assert streams.err == "warning: odd\n"


def test_text_is_neither_wrapped_nor_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().say(TRICKY)
    print_error(MusgdError(TRICKY, f"rm {TRICKY}"))
    assert capsys.readouterr().err.splitlines() == [
        TRICKY,
        f"error: {TRICKY}",
        f"mend: rm {TRICKY}",
    ]


def test_a_path_in_a_table_is_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("file")
    table.add_row("a.toml:x:3")
    Terminal().show(table)
    assert "a.toml:x:3" in capsys.readouterr().out


def test_a_table_in_a_pipe_is_wider_than_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("path")
    table.add_row("x" * 150)
    Terminal().show(table)
    assert "x" * 150 in capsys.readouterr().out


def test_nothing_redraws_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal().live("a live view") as live:
        assert live is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shown", [Terminal.live, Terminal.status])
def test_results_go_to_stdout_while_a_terminal_is_redrawn(
    shown: Callable[..., AbstractContextManager[object]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setenv("TERM", "xterm")
        terminal = Terminal(as_json=True)
        with shown(terminal, "measuring"):
            terminal.emit_line({"fps": 1})
            terminal.say("kept")
        monkeypatch.undo()
        seen = os.read(leader, 65536)
    os.close(leader)
    assert capsys.readouterr().out == '{"fps": 1}\n'
    assert b"measuring" in seen
    assert b"kept" in seen
