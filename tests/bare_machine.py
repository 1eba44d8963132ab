"""A machine that lacks things, to run install.sh on.

The script is real, as is the shell. Python is a stand-in that notes what pip is asked for and
fails on demand: a real installation takes minutes and gigabytes, and CI does one first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

# All that the script may take for granted on a bare Debian.
TOOLS = [
    *("awk", "cat", "date", "df", "dirname", "env", "grep", "kill", "ls", "mkdir", "mv", "rm"),
    *("readlink", "sed", "sh", "sleep", "tail"),
]

PYTHON = """#!/bin/sh
case $1 in -P | -I) flag=$1; shift ;; *) flag= ;; esac
case "$*" in
    "-m venv "*)
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        for tool in musgd ruff mypy lint-imports pytest; do
            cp "$TOOL" "$3/bin/$tool"
        done ;;
    "-m pip "*)
        shift 2
        echo "pip" "$@" >>"$NOTES"
        case "$*" in *"${PIP_HANGS:-nothing}"*) exec sleep 60 ;; esac
        case "$*" in *"${PIP_FAILS:-nothing}"*) echo "$PIP_SAYS"; exit 1 ;; esac ;;
    "-c import ensurepip"*) exit ${NO_ENSUREPIP:-0} ;;
    "-c import cv2"*) exit ${SMOKE:-0} ;;
    "-c import sys; sys.modules"*"import ${SMOKE_OF:-nothing}") exit ${SMOKE:-0} ;;
    "-c import sys; sys.modules"*) ;;
    "-c import sys; from importlib.metadata"*+cpu*) [ -n "${CPU_TORCH:-}" ] ;;
    "-c import sys; from importlib.metadata"*) echo 4.9.0.80 ;;
    "-c from importlib.metadata"*) [ -z "${NO_DESKTOP_OPENCV:-}" ] || exit 1; echo 4.9.0.80 ;;
    "- http"*)
        echo "asked $2" >>"$NOTES"
        [ -z "${ASK:-}" ] || exec "$REAL_PYTHON" $flag "$@"
        exit 1 ;;
    *) exec "$REAL_PYTHON" $flag "$@" ;;
esac
"""


TOOL = """#!/bin/sh
tool=${0##*/}
echo "$tool" "$@" >>"$NOTES"
echo "$tool speaks"
[ "$tool" != "${TOOL_FAILS:-}" ] || exit 5
"""


@dataclass
class Machine:
    """A bare machine: a checkout of musgd, the tools of a minimal Debian, a stand-in Python."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        return self.folder / "a checkout"  # a path with a space

    @property
    def venv(self) -> Path:
        return self.checkout / ".venv"

    def put(self, name: str, text: str) -> None:
        """Put a program on the PATH."""
        file = self.folder / "bin" / name
        file.unlink(missing_ok=True)  # a lent one is a link to the real machine's
        file.write_text(text)
        file.chmod(0o755)

    def lend(self, tool: str) -> None:
        """Put a program of the real machine on the PATH."""
        (self.folder / "bin" / tool).symlink_to(shutil.which(tool) or tool)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["./install.sh", *arguments],
            cwd=self.checkout,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def install(self, *arguments: str, **environ: str) -> tuple[int, str, list[str]]:
        """Run install.sh; return its exit code, its stdout and the lines of its stderr."""
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err.splitlines()

    def notes(self) -> list[str]:
        """Take what was asked of pip and of the tools since the last look."""
        file = Path(self.environ["NOTES"])
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def stamps(self) -> set[str]:
        found = self.venv.glob("musgd/*")
        return {file.name for file in found if file.is_file() and not file.suffix}


def make(folder: Path, repository: Path) -> Machine:
    """Make one below a folder."""
    machine = Machine(folder)
    machine.checkout.mkdir()
    for name in ("install.sh", "pyproject.toml"):
        shutil.copy(repository / name, machine.checkout)
    shutil.copytree(repository / "installer", machine.checkout / "installer")
    (folder / "bin").mkdir()
    for tool in (*TOOLS, "cp"):  # the last for the stand-in
        machine.lend(tool)
    machine.put("python3", PYTHON)
    machine.put("stand-in-tool", TOOL)
    machine.environ = {
        "PATH": str(folder / "bin"),
        "HOME": str(folder),
        "NOTES": str(folder / "notes"),
        "REAL_PYTHON": sys.executable,
        "TOOL": str(folder / "bin/stand-in-tool"),
    }
    return machine
