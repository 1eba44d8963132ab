"""What a program on a board says on stderr: narration, warnings, and failures of two lines each."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass, field
from typing import Protocol

from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError

_KINDS: dict[int, type[MusgdError]] = {
    ExitCode.DONE: UnsupportedError,  # it failed nothing: something is not installed there
    ExitCode.USAGE: UsageError,
    ExitCode.UNSUPPORTED: UnsupportedError,
}

_MEND = "run the same command on the board to see all it says"


_HALF = 2**15
"""Bytes that are kept of what is said first, and as many of what is said last."""


class Ear(threading.Thread):
    """Hears what a program says on stderr, and keeps the first and the last of it.

    Args:
        process: The program, whose stderr is a pipe.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._heard = b""
        self.start()

    def run(self) -> None:
        """Listen until the end."""
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for line in iter(lambda: stderr.readline(_HALF), b""):
                heard = self._heard + line
                self._heard = heard[:_HALF] + heard[_HALF:][-_HALF:]

    def heard(self) -> str:
        """Return what was said so far; all of it, where the program has ended."""
        if self._process.poll() is not None:
            self.join(1.0)  # what it started may hold the pipe open
        return self._heard.decode("utf-8", "replace")


class Tell(Protocol):
    """Is told what goes on on a board."""

    def __call__(
        self, board: str, what: str, /, *, warns: bool = False, mend: str | None = None
    ) -> None:
        """Take note of a line, or of a warning, which may have a mend."""


@dataclass
class Speech:
    """Sorts the lines of one program as they come.

    Args:
        board: Whose it is.
        tell: Is told what is no failure.
    """

    board: str
    tell: Tell
    _last: str = ""
    _failures: list[tuple[str, str]] = field(default_factory=list)
    _open: tuple[str, str] | None = None
    """The warning or error whose mend may come next."""

    def __call__(self, line: str) -> None:
        """Take the next line."""
        if not line.strip():
            return
        self._last = line
        label, colon, text = line.partition(": ")
        if label == "mend" and self._open is not None:
            self._close(text)
            return
        self._close()
        if colon and label in ("warning", "error"):
            self._open = label, text
        elif not line.startswith("kept "):  # what is kept there is brought here
            self.tell(self.board, line)

    def _close(self, mend: str | None = None) -> None:
        label, text = self._open or ("", "")
        self._open = None
        if label == "warning":
            self.tell(self.board, text, warns=True, mend=mend)
        elif label == "error":
            self._failures.append((text, mend or _MEND))

    def failures(self, code: int) -> list[MusgdError]:
        """Return the failures it told of, when it has ended.

        Args:
            code: What it ended with; if not with 0 and without a word, that is the failure.
        """
        self._close()
        kind = _KINDS.get(code, MusgdError)
        found = [kind(f"{self.board}: {what}", mend) for what, mend in self._failures]
        if not found and code != ExitCode.DONE:
            said = f": {self._last}" if self._last else ""
            found = [MusgdError(f"{self.board}: it ended with exit code {code}{said}", _MEND)]
        return found
