"""What a program on a board says on stderr: narration, warnings, and failures of two lines each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError

_KINDS: dict[int, type[MusgdError]] = {
    ExitCode.DONE: UnsupportedError,  # it failed nothing: something is not installed there
    ExitCode.USAGE: UsageError,
    ExitCode.UNSUPPORTED: UnsupportedError,
}


class Tell(Protocol):
    """Is told what goes on on a board."""

    def __call__(self, board: str, what: str, mend: str | None = None, /) -> None:
        """Take note; with a mend it is a warning."""


@dataclass
class Speech:
    """Sorts the lines of one program as they come.

    Args:
        board: Whose it is.
        tell: Is told what is no failure, at once.
    """

    board: str
    tell: Tell
    last: str = ""
    """Its last line."""
    _failures: list[tuple[str, str]] = field(default_factory=list)
    _mended: Callable[[str], None] | None = None

    def __call__(self, line: str) -> None:
        """Take the next line."""
        label, colon, text = line.partition(": ")
        if not line.strip() or label == "kept":
            return
        self.last = line
        mended, self._mended = self._mended, None
        if label == "mend" and mended is not None:
            mended(text)
        elif label == "error" and colon:
            self._mended = lambda mend: self._failures.append((text, mend))
        elif label == "warning" and colon:
            self._mended = lambda mend: self.tell(self.board, text, mend)
        elif not line.startswith("kept "):  # what is kept there is brought here
            self.tell(self.board, line)

    def failures(self, code: int) -> list[MusgdError]:
        """Return the failures it told of; without any, one of what it ended with, if not with 0."""
        kind = _KINDS.get(code, MusgdError)
        found = [kind(f"{self.board}: {what}", mend) for what, mend in self._failures]
        if not found and code != ExitCode.DONE:
            said = f": {self.last}" if self.last else ""
            found.append(
                MusgdError(
                    f"{self.board}: it ended with exit code {code}{said}",
                    "run the same command on the board to see all it says",
                )
            )
        return found
