"""What programs answer, live and on record."""

from __future__ import annotations

from pathlib import Path

import pytest

from musgd_cli.hardware.tree import Tree

BOARDS = Path(__file__).parents[1] / "boards"


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo EXT5V_V; echo noise >&2", "EXT5V_V\n"),
        ("echo EXT5V_V; exit 255", None),
        ("kill -9 $$", None),
        ("exec sleep 60", None),
        ("cat; echo it does not wait for a keyboard", "it does not wait for a keyboard\n"),
    ],
)
def test_a_live_machines_programs_answer(
    script: str, answer: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("musgd_cli.hardware.tree._ANSWER_S", 0.5)
    assert Tree().answer("vcgencmd", "pmic_read_adc") == answer


def test_a_program_that_is_not_installed_does_not_answer() -> None:
    assert Tree().answer("musgd-has-no-such-program") is None


def test_a_recorded_machines_programs_are_not_run(tmp_path: Path) -> None:
    program = tmp_path / "usr/bin/vcgencmd"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    assert Tree(tmp_path).answer("vcgencmd", "pmic_read_adc") is None
    assert not (tmp_path / "ran").exists()
    assert "EXT5V_V" in (Tree(BOARDS / "pi5").answer("vcgencmd", "pmic_read_adc") or "")
